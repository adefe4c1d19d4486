"""One array on disk or in memory, as what a run reads: its samples lie along the first axis."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import budget
from ..errors import InputError, starved
from ..extras import require
from ..files import readable, regular
from ..images import Preparation
from ..plan.shapes import Shape
from .containers import check_codecs, message
from .hdf5 import dataset_of, opened
from .pictures import needed

Array = NDArray[Any]

MOST = 1 << 32  # samples
MOST_PIECES = 1 << 14  # chunks of one sample: Zarr takes seconds to look for so many


@dataclass(frozen=True)
class Location:
    """Where an array is; opened for every read, so that nothing stays mapped and no two threads share a file.

    Parameters
    ----------
    path : of a .npy file, a Zarr array or an HDF5 file
    dataset : name within the HDF5 file
    held : the array itself, instead of a path
    external : whether the HDF5 file may lead to other files
    """

    path: str = ""
    dataset: str | None = None
    held: Any = None
    external: bool = False

    @contextmanager
    def open(self) -> Iterator[Any]:
        if self.held is not None:
            yield self.held
        elif self.dataset is not None:
            with opened(str(regular(self.path)), external=self.external) as file:
                yield dataset_of(file, self.dataset, external=self.external)
        elif self.path.lower().endswith(".npy"):
            yield mapped(regular(self.path))
        else:
            require("zarr", "run")
            from .blosc import open_array  # which imports zarr

            array = open_array(self.path)
            check_codecs(array)
            yield array

    def __str__(self) -> str:
        return (
            "the array" if self.held is not None else readable(self.path) + (f":{self.dataset}" if self.dataset else "")
        )


def mapped(path: Path) -> Array:
    """The array of a .npy file, read where it is asked for; NumPy would divide by the size of elements of no bytes."""
    with path.open("rb") as file:
        old = np.lib.format.read_magic(file) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    if not dtype.itemsize or min(shape, default=0) < 0:
        raise InputError(f"its header says {shape} elements of {dtype.itemsize} bytes")
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


class Each:
    """Samples of an array of which some cannot be read: whoever asks for one of these gets its exception."""

    def __init__(self, array: Any, numbers: range) -> None:
        self.shape, self.found = tuple(array.shape), list[Any]()
        for i in numbers:
            try:
                self.found.append(np.asarray(array[i : i + 1]))
            except Exception as error:
                if starved(error):
                    raise
                self.found.append(error)

    def __getitem__(self, which: slice) -> Array:
        for sample in self.found[which]:
            if isinstance(sample, Exception):
                raise sample
        return np.concatenate(self.found[which])


@dataclass(frozen=True)
class Rows:
    """Samples start to stop of an array; of pictures, with their preparation."""

    location: Location
    start: int
    stop: int
    preparation: Preparation | None

    def read(self, x: Array) -> list[str]:
        try:
            with self.location.open() as array:
                self._fill(x, array, self.start, self.stop)
        except Exception as error:  # whatever the decoders of NumPy, Zarr and HDF5 raise on a damaged file
            if starved(error) or (self.location.path and isinstance(error, FileNotFoundError)):  # it was there
                raise
            if len(x) > 1:
                return [self._one(i).read(x[i : i + 1])[0] for i in range(len(x))]
            x[...] = 0
            return [f"cannot be read from {self.location}: {message(error)}"]
        return [""] * len(x)

    def _one(self, i: int) -> Rows:
        return Rows(self.location, self.start + i, self.start + i + 1, self.preparation)

    def _fill(self, x: Array, array: Any, start: int, stop: int) -> None:
        samples = array[start:stop]
        if np.shape(samples) != (len(x), *array.shape[1:]):
            raise InputError(f"it holds {np.shape(samples)} there, expected {(len(x), *array.shape[1:])}")
        if self.preparation is None:
            x[...] = samples
        else:
            for sample, picture in zip(x, np.asarray(samples), strict=True):
                self.preparation.normalised(picture, sample)


class Samples:
    """The first axis of one array: floats or word numbers as the network takes them, or pictures (n, h, w[, c]) as
    bytes.
    """

    names: Sequence[str] | None = None
    grain = 1 << 30  # one read for a whole chunk: the storage's own chunks are unpacked once

    def __init__(self, location: Location) -> None:
        self.location = location
        try:
            with location.open() as array:
                masked = isinstance(array, np.ma.MaskedArray)
                self.shape, self.dtype = tuple(map(int, array.shape)), np.dtype(array.dtype)
                unit = tuple(getattr(array, "chunks", None) or ())  # what the storage unpacks at once
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # whatever NumPy, Zarr and HDF5 raise on a damaged file
            raise InputError(f"{location} cannot be read as an array: {message(error)}") from None
        if masked:
            raise InputError(
                f"{location} is masked, and its mask would be lost; fill it, for example with filled(0), or leave "
                "samples out"
            )
        if len(self.shape) < 2 or min(self.shape) < 1:
            raise InputError(f"{location} has shape {self.shape}, expected (n, ...) with samples along the first axis")
        if self.dtype.kind not in "iuf":
            raise InputError(f"{location} has dtype {self.dtype}, expected floats, pictures as uint8, or word numbers")
        if self.shape[0] > MOST:
            raise InputError(f"{location} has shape {self.shape}, expected at most {MOST} samples")
        self.pictures = self.dtype == np.uint8
        split = (
            location.held is None and len(unit) == len(self.shape) and all(isinstance(u, int) and u > 0 for u in unit)
        )
        stored = math.prod(unit) if split else 0
        budget.require(
            max(math.prod(self.shape[1:]), stored) * self.dtype.itemsize, f"to read one sample of {location}"
        )
        pieces = math.prod(-(-size // u) for size, u in zip(self.shape[1:], unit[1:], strict=True)) if split else 1
        if pieces > MOST_PIECES:
            raise InputError(
                f"{location} keeps each sample in {pieces} chunks, expected at most {MOST_PIECES}; store it in larger "
                "ones"
            )

    def __len__(self) -> int:
        return self.shape[0]

    def sample(self, preparation: Preparation | None) -> tuple[Shape, np.dtype[Any]]:
        given = self.shape[1:]
        if not self.pictures:
            if preparation is not None:
                raise InputError(
                    f"{self.location} holds {self.dtype}, which is fed to the network as it is; preparation is for "
                    "pictures"
                )
            return given, self.dtype
        fed = needed(preparation)
        if given != (*fed.size, fed.n_channels) and (given, fed.n_channels) != (fed.size, 1):
            raise InputError(
                f"{self.location} holds pictures of shape {given}, but the network is fed "
                f"{(*fed.size, fed.n_channels)}; "
                "pictures in arrays are not resized"
            )
        return fed.shape, np.dtype(np.float32)

    def identity(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for i in sorted({0, len(self) // 2, len(self) - 1}):
            try:
                with self.location.open() as array:
                    digest.update(np.ascontiguousarray(array[i]).tobytes())
            except Exception as error:  # a damaged sample: the run will tell
                if starved(error):
                    raise
                digest.update(b"unreadable")
        return {"shape": list(self.shape), "dtype": self.dtype.str, "first, middle and last": digest.hexdigest()}

    def piece(self, start: int, stop: int, preparation: Preparation | None) -> Rows:
        held = self.location.held
        if held is None:
            return Rows(self.location, start, stop, preparation)
        try:
            held = held[start:stop]  # no more than these samples travels
        except Exception as error:  # whatever an array raises that reads when it is asked
            if starved(error):
                raise
            held = Each(held, range(start, stop))
        return Rows(Location(held=held), 0, stop - start, preparation)
