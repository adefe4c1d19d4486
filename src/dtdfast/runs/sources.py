"""What a run reads: what samples in a fixed order are, and which samples an array or a path names."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..arrays.foreign import take
from ..errors import InputError
from ..extras import require
from ..files import marked, readable, regular
from ..images import SUFFIXES, Preparation
from ..plan.shapes import Shape
from .arrays import Location, Samples
from .containers import message
from .hdf5 import dataset_of, datasets, opened
from .pictures import Files

Array = NDArray[Any]

HDF5 = re.compile(r"(?P<file>.+\.(?:h5|hdf5|hdf|he5))(?::(?P<dataset>.+))?", re.IGNORECASE | re.DOTALL)
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


def open_source(data: Any, *, external: bool = False) -> Source:
    """The samples that `data` names; a Source is returned as it is.

    Parameters
    ----------
    data : array (n, ...), DataFrame, path or sequence of paths, Source
        A path is that of a .npy file, a Zarr array (also within a group), an HDF5 file (`file.h5:dataset`, or `file.h5`
        when it holds one dataset), an image, a folder of images (with those in folders below), or a glob: of these two
        without what dtdfast has drawn and in the order of names, of a sequence in its own.
    external : read what an HDF5 file keeps in other files of this machine, which it names itself

    Raises
    ------
    InputError : nothing there, or nothing that can be explained
    """
    if isinstance(data, (Files, Samples)):
        return data
    data = take(data, "data")[0]
    if hasattr(data, "columns") and hasattr(data, "to_numpy"):  # a DataFrame
        data = np.asarray(data)
    if hasattr(data, "dtype") and hasattr(data, "shape"):
        return Samples(Location(held=data))
    if isinstance(data, (str, os.PathLike)):
        return _at(os.fspath(data), external)
    paths: list[str] = []
    for path in data if isinstance(data, Iterable) and not isinstance(data, (bytes, Mapping)) else [None]:
        if not isinstance(path, (str, os.PathLike)):  # of the first: there may be no end
            raise InputError(f"data is {data!r:.60}, expected an array, a path or a list of paths")
        paths.append(os.fspath(path))
    if isinstance(data, (set, frozenset)):
        paths.sort()  # which have no order; that of a list is that of its targets
    if len(paths) == 1:
        return _at(paths[0], external)
    for path in paths:
        if kind := array_kind(path) or ("a folder" if Path(path).is_dir() else None):
            raise InputError(
                f"{readable(path)} is {kind}, and {len(paths)} are given; several of DATA must be images: give arrays "
                "one at a time"
            )
    return Files(Path.cwd(), _some([name for path in paths for name in _named(path)], "the list of files"))


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


def images_at(path: str) -> list[Path]:
    """The images that a path names: those below a folder, those of a glob, or the path itself, whatever is there.

    Raises
    ------
    InputError : a folder or glob without any, or an empty path
    """
    if not path:
        raise InputError("a path of DATA is empty")
    if "\0" not in path and Path(path).is_dir():
        return [Path(path) / name for name in _below(Path(path))]
    return [Path(name) for name in _named(path)]


def _named(path: str) -> list[str]:
    """The files of a glob, or the path itself, whatever is there."""
    return _some(_matching(path), path) if glob.has_magic(path) and not os.path.lexists(path) else [path]


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
        return Files(folder.absolute(), _below(folder))
    if suffix == ".npy":
        return Samples(Location(str(regular(path).absolute())))
    if found := HDF5.fullmatch(path):
        return Samples(_hdf5(str(regular(found["file"]).absolute()), found["dataset"], external))
    if folder.exists():
        return Files(regular(folder).absolute().parent, [folder.name])
    return Files(Path.cwd(), _some(_matching(path), path))


def _matching(path: str) -> list[str]:
    """Files of a glob, without the pictures that dtdfast itself has drawn."""
    there = [name for name in glob.glob(path, recursive=True) if Path(name).is_file()]  # noqa: PTH207 (absolute ones too)
    return sorted(name for name in there if not _drawn(Path(name)))


def _below(folder: Path) -> list[str]:
    """Files that are images by their suffix, relative to the folder, in one order everywhere, without the pictures that
    dtdfast itself has drawn there.

    Raises
    ------
    InputError : there is none
    """
    there = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.is_dir()]
    found = [path for path in there if not _drawn(path)]
    if there and not found:
        raise InputError(f"{readable(str(folder))}: no images there but those that dtdfast has drawn")
    return _some(sorted(str(path.relative_to(folder)) for path in found), str(folder))


def _drawn(path: Path) -> bool:
    """Whether dtdfast has drawn this picture; of a file that cannot be opened, the one who reads it says so."""
    try:
        return path.suffix.lower() == ".png" and marked(path)
    except OSError:
        return False


def _some(names: list[str], where: str) -> list[str]:
    if not names:
        raise InputError(
            f"{readable(where)}: no images there; expected a folder, files or a glob of images, a .npy, Zarr or HDF5 "
            "array"
        )
    return names


def _zarr(folder: Path) -> str:
    """The path of an array; of a group, a message that names its arrays."""
    zarr = require("zarr", "run")
    try:
        found = zarr.open(str(folder), mode="r")
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
    try:
        with opened(path, external=external) as file:
            found = datasets(file)
            named = dataset if dataset is not None else found[0] if len(found) == 1 else None
            there = named is not None and isinstance(dataset_of(file, named, external=external), h5py.Dataset)
    except (InputError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # whatever HDF5 raises on a damaged file
        raise InputError(f"{readable(path)} cannot be read as an HDF5 file: {message(error)}") from None
    if not there:
        asked = "say which dataset" if dataset is None else f"there is no dataset {dataset!r}"
        raise InputError(
            f"{readable(path)}: {asked}: {readable(path)}:NAME with NAME one of "
            f"{', '.join(found) or 'those it links to'}"
        )
    return Location(path, named, external=external)
