"""Images in files, as what a run reads: one sample each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, starved
from ..files import regular
from ..images import Preparation
from ..plan.shapes import Shape

Array = NDArray[Any]


def needed(preparation: Preparation | None) -> Preparation:
    """How pictures are fed, which the caller must say."""
    if preparation is None:
        raise InputError(
            "images need preparation=dtdfast.images.Preparation(size=(height, width), ...): how the network is fed"
        )
    return preparation


@dataclass(frozen=True)
class Pictures:
    """The images of some files."""

    paths: tuple[Path, ...]
    preparation: Preparation

    def read(self, x: Array) -> list[str]:
        errors = [""] * len(self.paths)
        for i, path in enumerate(self.paths):
            try:
                self.preparation.normalised(self.preparation.picture(path), x[i])
            except (InputError, OSError) as error:
                if starved(error) or not path.parent.is_dir():  # which this machine no longer sees, or never did
                    raise
                errors[i] = " ".join(str(error).split())
                x[i] = 0
        return errors


class Files:
    """Images in files, one sample each.

    Parameters
    ----------
    folder : what `names` are relative to
    """

    pictures = True
    grain = 4

    names: Sequence[str] | None

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names, self._paths = folder, names, names

    def __len__(self) -> int:
        return len(self._paths)

    def sample(self, preparation: Preparation | None) -> tuple[Shape, np.dtype[Any]]:
        return needed(preparation).shape, np.dtype(np.float32)

    def identity(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for name in self._paths:
            try:
                size = (self.folder / name).stat().st_size
            except OSError:
                size = -1  # a bad file: the run will tell
            digest.update(os.fsencode(name) + b"\0%d\0" % size)
        contents = hashlib.sha256()  # pictures without compression have one size
        for i in sorted({0, len(self) // 2, len(self) - 1}):
            try:
                with regular(self.folder / self._paths[i]).open("rb") as file:
                    contents.update(hashlib.file_digest(file, "sha256").digest())
            except (InputError, OSError) as error:
                if starved(error):
                    raise
                contents.update(b"unreadable")
        return {
            "images": len(self),
            "names and sizes": digest.hexdigest(),
            "first, middle and last": contents.hexdigest(),
        }

    def piece(self, start: int, stop: int, preparation: Preparation | None) -> Pictures:
        return Pictures(tuple(self.folder / name for name in self._paths[start:stop]), needed(preparation))
