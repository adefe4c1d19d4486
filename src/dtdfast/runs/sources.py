"""What a run reads: images in files, or one array on disk or in memory; always a few samples at a time."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..extras import require
from ..images import Preparation
from ..plan.shapes import Shape

Array = NDArray[Any]

HDF5 = re.compile(r"(?P<file>.+\.(?:h5|hdf5))(?::(?P<dataset>.+))?")
ZARR = ("zarr.json", ".zarray")  # what marks a folder as a Zarr array, format 3 and 2


class Piece(Protocol):
    """A few consecutive samples that have yet to be read; pickles, so that a worker elsewhere can read them."""

    def read(self, x: Array) -> list[str]:
        """Fill x, which is zeros, with samples as the network takes them; for each what is wrong with it, or "": then it stays zeros."""


class Source(Protocol):
    """Samples in a fixed order.

    Attributes
    ----------
    pictures : whether its samples are bytes that a `Preparation` turns into the network's input
    names : of every sample, where samples have names
    grain : samples that one thread reads at a time
    """

    pictures: bool
    names: Sequence[str] | None
    grain: int

    def __len__(self) -> int: ...

    def sample(self, preparation: Preparation | None) -> tuple[Shape, np.dtype[Any]]:
        """Shape and type of one sample, as the network takes it."""

    def identity(self) -> dict[str, Any]:
        """What tells this data set from another without reading all of it, as JSON."""

    def piece(self, start: int, stop: int, preparation: Preparation | None) -> Piece: ...


# ------------------------------------------------------------------------------------------------------------------- images


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
                errors[i] = str(error)
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
        return _needed(preparation).shape, np.dtype(np.float32)

    def identity(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for name in self._paths:
            try:
                size = (self.folder / name).stat().st_size
            except OSError:
                size = -1  # a bad file: the run will tell
            digest.update(os.fsencode(name) + b"\0%d\0" % size)
        return {"images": len(self), "names and sizes": digest.hexdigest()}

    def piece(self, start: int, stop: int, preparation: Preparation | None) -> Pictures:
        return Pictures(tuple(self.folder / name for name in self._paths[start:stop]), _needed(preparation))


def _needed(preparation: Preparation | None) -> Preparation:
    if preparation is None:
        raise InputError("images need preparation=dtdfast.images.Preparation(size=(height, width), ...): how the network is fed")
    return preparation


# ------------------------------------------------------------------------------------------------------------------- arrays


@dataclass(frozen=True)
class Location:
    """Where an array is; opened for every read, so that nothing stays mapped and no two threads share a file.

    Parameters
    ----------
    path : of a .npy file, a Zarr array or an HDF5 file
    dataset : name within the HDF5 file
    held : the array itself, instead of a path
    """

    path: str = ""
    dataset: str | None = None
    held: Any = None

    @contextmanager
    def open(self) -> Iterator[Any]:
        if self.held is not None:
            yield self.held
        elif self.dataset is not None:
            with require("h5py", "run").File(self.path, "r") as file:
                yield file[self.dataset]
        elif self.path.endswith(".npy"):
            yield np.load(self.path, mmap_mode="r", allow_pickle=False)
        else:
            yield require("zarr", "run").open_array(self.path, mode="r")

    def __str__(self) -> str:
        return "the array" if self.held is not None else self.path + (f":{self.dataset}" if self.dataset else "")


@dataclass(frozen=True)
class Rows:
    """Samples start to stop of an array; of pictures, with their preparation."""

    location: Location
    start: int
    stop: int
    preparation: Preparation | None

    def read(self, x: Array) -> list[str]:
        with self.location.open() as array:
            samples = array[self.start : self.stop]
            if self.preparation is None:
                x[...] = samples
            else:
                for sample, picture in zip(x, np.asarray(samples), strict=True):
                    self.preparation.normalised(picture, sample)
        return [""] * len(x)


class Samples:
    """The first axis of one array: floats or word numbers as the network takes them, or pictures (n, h, w[, c]) as bytes."""

    names: Sequence[str] | None = None
    grain = 1 << 30  # one read for a whole chunk: the storage's own chunks are unpacked once

    def __init__(self, location: Location) -> None:
        self.location = location
        try:
            with location.open() as array:
                self.shape, self.dtype = tuple(map(int, array.shape)), np.dtype(array.dtype)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(f"{location} cannot be read as an array: {error}") from None
        if len(self.shape) < 2 or min(self.shape) < 1:
            raise InputError(f"{location} has shape {self.shape}, expected (n, ...) with samples along the first axis")
        if self.dtype.kind not in "iuf":
            raise InputError(f"{location} has dtype {self.dtype}, expected floats, pictures as uint8, or word numbers")
        self.pictures = self.dtype == np.uint8

    def __len__(self) -> int:
        return self.shape[0]

    def sample(self, preparation: Preparation | None) -> tuple[Shape, np.dtype[Any]]:
        given = self.shape[1:]
        if not self.pictures:
            if preparation is not None:
                raise InputError(f"{self.location} holds {self.dtype}, which is fed to the network as it is; preparation is for pictures")
            return given, self.dtype
        fed = _needed(preparation)
        if given != (*fed.size, fed.n_channels) and (given, fed.n_channels) != (fed.size, 1):
            raise InputError(
                f"{self.location} holds pictures of shape {given}, but the network is fed {(*fed.size, fed.n_channels)}; "
                "pictures in arrays are not resized"
            )
        return fed.shape, np.dtype(np.float32)

    def identity(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        with self.location.open() as array:
            for i in sorted({0, len(self) // 2, len(self) - 1}):
                digest.update(np.ascontiguousarray(array[i]).tobytes())
        return {"shape": list(self.shape), "dtype": self.dtype.str, "first, middle and last": digest.hexdigest()}

    def piece(self, start: int, stop: int, preparation: Preparation | None) -> Rows:
        if self.location.held is not None:  # no more than these samples travels
            return Rows(Location(held=self.location.held[start:stop]), 0, stop - start, preparation)
        return Rows(self.location, start, stop, preparation)


# --------------------------------------------------------------------------------------------------------------------- open


def open_source(data: Any) -> Source:
    """The samples that `data` names; a Source is returned as it is.

    Parameters
    ----------
    data : array (n, ...), path or sequence of paths, Source
        A path is that of a .npy file, a Zarr array (also within a group), an HDF5 file (`file.h5:dataset`, or `file.h5` when it
        holds one dataset), an image, a folder of images (with those in folders below), or a glob.

    Raises
    ------
    InputError : nothing there, or nothing that can be explained
    """
    if isinstance(data, (Files, Samples)):
        return data
    if hasattr(data, "dtype") and hasattr(data, "shape"):
        return Samples(Location(held=data))
    if isinstance(data, (str, os.PathLike)):
        return _at(os.fspath(data))
    paths = sorted(os.fspath(path) for path in data)
    if len(paths) == 1:
        return _at(paths[0])
    return Files(Path(), _some(paths, "the list of files"))


def _at(path: str) -> Source:
    if path.endswith(".npy"):
        return Samples(Location(str(Path(path).absolute())))
    if found := HDF5.fullmatch(path):
        return Samples(_hdf5(str(Path(found["file"]).absolute()), found["dataset"]))
    folder = Path(path)
    if folder.is_dir():
        if any((folder / name).exists() for name in ZARR):
            return Samples(Location(str(folder.absolute())))
        return Files(folder.absolute(), _some(_below(folder), path))
    if folder.exists():
        return Files(folder.absolute().parent, [folder.name])
    names = sorted(name for name in glob.glob(path, recursive=True) if Path(name).is_file())  # noqa: PTH207 (absolute ones too)
    return Files(Path.cwd(), _some(names, path))


def _below(folder: Path) -> list[str]:
    """Files that Pillow knows by their suffix, relative to the folder, in one order everywhere."""
    suffixes = set(require("PIL.Image", "run").registered_extensions())
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix.lower() in suffixes)


def _some(names: list[str], where: str) -> list[str]:
    if not names:
        raise InputError(f"{where}: no images there; expected a folder, files or a glob of images, a .npy, Zarr or HDF5 array")
    return names


def _hdf5(path: str, dataset: str | None) -> Location:
    h5py = require("h5py", "run")
    with h5py.File(path, "r") as file:
        found: list[str] = []
        file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        named = dataset if dataset is not None else found[0] if len(found) == 1 else None
        if named is None or named not in file or not isinstance(file[named], h5py.Dataset):
            asked = "say which dataset" if dataset is None else f"there is no dataset {dataset!r}"
            raise InputError(f"{path}: {asked}: {path}:NAME with NAME one of {', '.join(found) or 'none'}")
    return Location(path, named)
