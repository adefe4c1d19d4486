"""What a run reads: images in files, or one array on disk or in memory; always a few samples at a time."""

from __future__ import annotations

import glob
import hashlib
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import budget
from ..errors import InputError
from ..extras import require
from ..files import readable, regular
from ..images import SUFFIXES, Preparation
from ..plan.shapes import Shape
from .containers import check_codecs, dataset_of, said

Array = NDArray[Any]

HDF5 = re.compile(r"(?P<file>.+\.(?:h5|hdf5|hdf|he5))(?::(?P<dataset>.+))?", re.IGNORECASE)
ZARR = ("zarr.json", ".zarray", ".zgroup")  # what marks a folder as a Zarr array or group, format 3 and 2
REFUSED = {
    ".npz": "an archive of arrays",
    ".mat": "a MATLAB file",
    ".pt": "a file of PyTorch",
    ".pkl": "a pickle",
    ".zip": "an archive",
}


class Piece(Protocol):
    """A few consecutive samples that have yet to be read; pickles, so that a worker elsewhere can read them."""

    def read(self, x: Array) -> list[str]:
        """Fill x, which is zeros, with samples as the network takes them; for each what is wrong with it, or "": then
        it stays zeros.
        """


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


# -------------------------------------------------------------------------------------------------------------------
# images


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
        raise InputError(
            "images need preparation=dtdfast.images.Preparation(size=(height, width), ...): how the network is fed"
        )
    return preparation


# -------------------------------------------------------------------------------------------------------------------
# arrays


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
            with require("h5py", "run").File(regular(self.path), "r") as file:
                yield dataset_of(file, self.dataset, external=self.external)
        elif self.path.lower().endswith(".npy"):
            yield np.load(regular(self.path), mmap_mode="r", allow_pickle=False)
        else:
            array = require("zarr", "run").open_array(self.path, mode="r")
            check_codecs(array)
            yield array

    def __str__(self) -> str:
        return (
            "the array" if self.held is not None else readable(self.path) + (f":{self.dataset}" if self.dataset else "")
        )


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
            if len(x) > 1:
                return [self._one(i).read(x[i : i + 1])[0] for i in range(len(x))]
            x[...] = 0
            return [f"cannot be read from {self.location}: {said(error)}"]
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
            raise InputError(f"{location} cannot be read as an array: {said(error)}") from None
        if masked:
            raise InputError(
                f"{location} is masked, and its mask would be lost; fill it, for example with filled(0), or leave "
                "samples out"
            )
        if len(self.shape) < 2 or min(self.shape) < 1:
            raise InputError(f"{location} has shape {self.shape}, expected (n, ...) with samples along the first axis")
        if self.dtype.kind not in "iuf":
            raise InputError(f"{location} has dtype {self.dtype}, expected floats, pictures as uint8, or word numbers")
        self.pictures = self.dtype == np.uint8
        stored = (
            math.prod(unit)
            if location.held is None and len(unit) == len(self.shape) and all(isinstance(u, int) for u in unit)
            else 0
        )
        budget.require(
            max(math.prod(self.shape[1:]), stored) * self.dtype.itemsize, f"to read one sample of {location}"
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
        fed = _needed(preparation)
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
            except Exception:  # a damaged sample: the run will tell
                digest.update(b"unreadable")
        return {"shape": list(self.shape), "dtype": self.dtype.str, "first, middle and last": digest.hexdigest()}

    def piece(self, start: int, stop: int, preparation: Preparation | None) -> Rows:
        if self.location.held is not None:  # no more than these samples travels
            return Rows(Location(held=self.location.held[start:stop]), 0, stop - start, preparation)
        return Rows(self.location, start, stop, preparation)


# ---------------------------------------------------------------------------------------------------------------------
# open


def open_source(data: Any, *, external: bool = False) -> Source:
    """The samples that `data` names; a Source is returned as it is.

    Parameters
    ----------
    data : array (n, ...), path or sequence of paths, Source
        A path is that of a .npy file, a Zarr array (also within a group), an HDF5 file (`file.h5:dataset`, or `file.h5`
        when it holds one dataset), an image, a folder of images (with those in folders below), or a glob.
    external : read what an HDF5 file keeps in other files of this machine, which it names itself

    Raises
    ------
    InputError : nothing there, or nothing that can be explained
    """
    if isinstance(data, (Files, Samples)):
        return data
    if hasattr(data, "dtype") and hasattr(data, "shape"):
        return Samples(Location(held=data))
    if isinstance(data, (str, os.PathLike)):
        return _at(os.fspath(data), external)
    paths = sorted(os.fspath(path) for path in data)
    if len(paths) == 1:
        return _at(paths[0], external)
    for path in paths:
        if kind := array_kind(path) or ("a folder" if Path(path).is_dir() else None):
            raise InputError(
                f"{readable(path)} is {kind}, and {len(paths)} are given; several of DATA must be images: give arrays "
                "one at a time"
            )
    return Files(Path(), _some(paths, "the list of files"))


def array_kind(path: str) -> str | None:
    """What this is if it is no image: by its name, or as a folder."""
    suffix = Path(path).suffix.lower()
    if suffix in REFUSED:
        return REFUSED[suffix]
    if suffix == ".npy":
        return "a .npy array"
    if HDF5.fullmatch(path):
        return "an HDF5 file"
    return "a Zarr array" if any((Path(path) / name).exists() for name in ZARR) else None


def _at(path: str, external: bool) -> Source:
    if not path:
        raise InputError("a path of DATA is empty")
    if "\0" in path:
        regular(path)
    folder = Path(path)
    suffix = folder.suffix.lower()
    if suffix in REFUSED:
        raise InputError(
            f"{readable(path)} is {REFUSED[suffix]}, which is not read; save one array as .npy, Zarr or HDF5"
        )
    if folder.is_dir():
        if any((folder / name).exists() for name in ZARR):
            return Samples(Location(_zarr(folder.absolute())))
        return Files(folder.absolute(), _some(_below(folder), path))
    if suffix == ".npy":
        return Samples(Location(str(regular(path).absolute())))
    if found := HDF5.fullmatch(path):
        return Samples(_hdf5(str(regular(found["file"]).absolute()), found["dataset"], external))
    if folder.exists():
        return Files(regular(folder).absolute().parent, [folder.name])
    names = sorted(name for name in glob.glob(path, recursive=True) if Path(name).is_file())  # noqa: PTH207 (absolute ones too)
    return Files(Path.cwd(), _some(names, path))


def _below(folder: Path) -> list[str]:
    """Files that are images by their suffix, relative to the folder, in one order everywhere."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def _some(names: list[str], where: str) -> list[str]:
    if not names:
        raise InputError(
            f"{readable(where)}: no images there; expected a folder, files or a glob of images, a .npy, Zarr or HDF5 "
            "array"
        )
    return names


def _zarr(folder: Path) -> str:
    """The path of an array; of a group, a message that names its arrays."""
    try:
        found = require("zarr", "run").open(str(folder), mode="r")
        inside = None if hasattr(found, "dtype") else sorted(name for name, _ in found.arrays())
    except Exception:
        return str(folder)  # damaged: what opens it as an array says so
    if inside is not None:
        named = ", ".join(map(str, inside[:8])) or "none"
        raise InputError(
            f"{readable(str(folder))} is a Zarr group: say which array, {readable(str(folder))}/NAME with NAME one of "
            f"{named}"
        )
    return str(folder)


def _hdf5(path: str, dataset: str | None, external: bool) -> Location:
    h5py = require("h5py", "run")
    found: list[str] = []
    try:
        with h5py.File(path, "r") as file:
            file.visititems(lambda name, item: found.append(str(name)) if isinstance(item, h5py.Dataset) else None)
            named = dataset if dataset is not None else found[0] if len(found) == 1 else None
            there = named is not None and isinstance(dataset_of(file, named, external=external), h5py.Dataset)
    except (InputError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # whatever HDF5 raises on a damaged file
        raise InputError(f"{readable(path)} cannot be read as an HDF5 file: {said(error)}") from None
    if not there:
        asked = "say which dataset" if dataset is None else f"there is no dataset {dataset!r}"
        raise InputError(
            f"{readable(path)}: {asked}: {readable(path)}:NAME with NAME one of "
            f"{', '.join(found) or 'those it links to'}"
        )
    return Location(path, named, external=external)
