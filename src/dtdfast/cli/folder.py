"""The folder of pictures and summary: names, and files that replace nothing of others."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Lock

from ..errors import InputError
from ..files import readable, replaceable, written
from ..runs.lock import locked

LONGEST = 150  # bytes of a name that come from the photograph's


class Folder:
    """Where pictures and summary go: made with the first of them, and written by one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begun = False
        self._stack = ExitStack()
        self._entering = Lock()  # several threads draw
        self._made: list[Path] = []

    def __enter__(self) -> Folder:
        if self.path.exists():
            self._enter()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        for path in self._made:
            with suppress(OSError):
                path.rmdir()  # if nothing came of it

    def claim(self, names: Sequence[str], images: Sequence[Path]) -> None:
        """Refuse to replace what was not made by dtdfast, or what is read."""
        if not self.path.exists():
            return
        read = {os.path.realpath(path) for path in images}
        for name in names:
            replaceable(self.path / name)
            if os.path.realpath(self.path / name) in read:
                raise InputError(f"{self.path / name} is to be explained and would be replaced; choose another output")

    def write(self, name: str, data: bytes) -> None:
        """A new file of this name, complete or not at all."""
        self._enter()
        replaceable(self.path / name)
        with written(self.path / name) as part:
            part.write_bytes(data)

    def _enter(self) -> None:
        with self._entering:
            if self.begun:
                return
            if self.path.exists() and not self.path.is_dir():
                raise InputError(f"{self.path} is a file, expected a folder for the pictures (or NAME.zarr)")
            self._made = [path for path in (self.path, *self.path.parents) if not path.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._stack.enter_context(locked(self.path / ".dtdfast.lock", self.path))
            self.begun = True


def names_of(paths: Sequence[Path]) -> list[str]:
    """A name for the pictures of each image, different even where capitals are not told apart; those that several share
    are numbered.
    """
    known = sys.getfilesystemencoding()  # letters of others are written out
    shown = [readable(p.stem).encode(known, "backslashreplace").decode(known).replace("\\", "_") for p in paths]
    stems = [stem.encode()[:LONGEST].decode(errors="ignore") for stem in shown]
    counts = Counter(stem.casefold() for stem in stems)
    taken = {stem for stem, count in counts.items() if count == 1}
    names = []
    for number, stem in enumerate(stems, 1):
        name = stem
        while counts[stem.casefold()] > 1 and (name := f"{stem}-{number}").casefold() in taken:
            number += len(stems)
        taken.add(name.casefold())
        names.append(name)
    return names
