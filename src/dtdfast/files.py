"""Files that are read and written: read only if they are files; written complete or not at all; nothing of others
replaced or removed.

What dtdfast may replace or remove carries its mark: the first key of a summary, a comment in a page, the software that
a PNG names, the text of a lock, the manifest of a run (runs/store.py). What is not complete yet has a name of its own,
which nothing had before.
"""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import InputError, StorageError
from .show import printable
from .version import __version__

PART = ".part"  # how names end that are not complete yet
LOCK = b"dtdfast: one process writes here\n"
SOFTWARE = f"dtdfast {__version__}"
PNG = b"\x89PNG\r\n\x1a\n"
SUMMARY = b'{\n  "dtdfast": '
PAGE = b"<!DOCTYPE html>\n<!-- dtdfast report -->\n"
HEAD = 1 << 12  # bytes in which the mark is found
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def regular(path: str | os.PathLike[str]) -> Path:
    """The path of a file.  A pipe or a device may never end, and a folder has no contents.

    Raises
    ------
    InputError : it is something else
    OSError : nothing is there, or it may not be seen
    """
    mode = os.stat(named(path)).st_mode  # noqa: PTH116 (a Path costs more than this)
    if not stat.S_ISREG(mode):
        raise InputError(f"{readable(os.fspath(path))} is {KINDS.get(stat.S_IFMT(mode), 'no file')}, expected a file")
    return Path(path)


def named(path: Any) -> str:
    """A path as text.

    Raises
    ------
    InputError : it is no path, or no file can have this name
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"{path!r:.60} is not a path, expected a string or a Path")
    text = os.fspath(path)
    try:
        why = "it holds a null character" if "\0" in text else "" if os.fsencode(text) else "it is empty"
    except UnicodeEncodeError as error:  # half of a character, or one that this system's names cannot hold
        why = str(error)
    if why:
        raise InputError(f"{readable(text)!r} is not a path: {why}")
    return text


@contextmanager
def written(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new, empty file beside `path`, which takes its place when the block has ended; after an error nothing has
    changed.

    Raises
    ------
    StorageError : there is something at `path` that is no file
    """
    place = Path(os.path.realpath(named(path)))  # of a link, what it points to
    if place.exists() and not place.is_file():
        kind = KINDS.get(stat.S_IFMT(place.stat().st_mode), "no file")
        raise StorageError(f"{readable(str(path))} is {kind}: there a file cannot be written; choose another name")
    part = beside(place)
    part.touch(exist_ok=False)
    mode = part.stat().st_mode  # that of any new file, whatever the writer makes of it
    try:
        yield part
        part.chmod(mode)
        _to_disk(part)
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)


def beside(path: Path) -> Path:
    """A path that nothing has, in the same folder."""
    return path.with_name(f"{unfinished(path)}{uuid.uuid4().hex}{PART}")


def unfinished(path: Path) -> str:
    """How the names begin that `beside` makes."""
    return f".{path.name if len(os.fsencode(path.name)) < 200 else 'dtdfast'}."  # names have at most 255 bytes


def marked(path: Path) -> bool:
    """Whether this is a file that dtdfast has made."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(HEAD)
    return (
        head.startswith((SUMMARY, PAGE)) or head == LOCK or (head.startswith(PNG) and b"tEXtSoftware\0dtdfast " in head)
    )


def replaceable(path: Path) -> None:
    """Refuse to write over what somebody else has made.

    Raises
    ------
    StorageError
    """
    if os.path.lexists(path) and not marked(path):
        raise StorageError(
            f"{readable(str(path))} is there and was not made by dtdfast; move it away, or choose another output"
        )


def readable(name: str) -> str:
    """A name, or other text, as text that can be stored and printed in one line, whatever bytes it has."""
    try:
        octets = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a character
        octets = name.encode("utf-8", "backslashreplace")
    return printable(octets.decode("utf-8", "backslashreplace"))


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
