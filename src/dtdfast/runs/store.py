"""The output of a run: a Zarr group whose arrays all share one chunk length along the samples, and which knows what is finished.

    relevance (n, ...)    float32 or float16, NaN where there is none
    outputs   (n, ...)    those that were explained, before a final Softmax
    target    (n, ...)    index of the output that was explained, -1 where there is none
    ledger    (n, k)      float64, its attribute `columns` says what
    name      (n,)        of files alone: of every sample
    error     (n,)        what is wrong with a sample, or ""
    finished  (chunks,)   1 for every chunk that is complete: written last

A chunk is committed by writing its part of every array, each a file of its own, beside its place, bringing all of them to the disk,
renaming them, and only then the same for its entry in `finished`.  A run that dies in between leaves a chunk that is not finished; the
next computes it again, and overwrites it with the same bits.  So may two workers that were given the same chunk.

Arrays of numbers are not compressed (relevance hardly can be), so a chunk's file is the values as they lie in memory, and is written as
such, without Zarr and without a copy.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RunError
from ..extras import require
from ..plan.shapes import Shape

Array = NDArray[Any]

KEY = "dtdfast"  # the attribute that holds the manifest
NAMES = 1 << 14  # names per chunk
PARTIAL = ".partial"  # how files end that are still being written, Zarr's as well


@dataclass(frozen=True)
class Column:
    """One array of the output, by sample; its chunks are those of the run."""

    name: str
    shape: Shape
    dtype: Any
    fill: Any
    attributes: Mapping[str, Any]


class Store:
    """A run's output at `path`; pickles as that path.

    Parameters
    ----------
    path : of the Zarr group, which exists
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._group: Any = None
        self._arrays: dict[str, Any] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.path,)

    @property
    def group(self) -> Any:
        if self._group is None:
            self._group = require("zarr", "run").open_group(str(self.path), mode="r+")
        return self._group

    # -------------------------------------------------------------------------------------------------------------- begin

    @classmethod
    def create(cls, path: Path, manifest: Mapping[str, Any], columns: Sequence[Column], names: Sequence[str] | None) -> Store:
        """A new output without any finished chunk; it appears at `path` complete or not at all."""
        zarr = require("zarr", "run")
        n, chunk = manifest["samples"], manifest["chunk"]
        part = path.with_name(path.name + ".part")
        if part.exists():
            shutil.rmtree(part)  # of a run that died while it began
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            group = zarr.create_group(str(part), attributes={KEY: dict(manifest)})
            for c in columns:
                _array(group, c.name, (n, *c.shape), (chunk, *c.shape), c.dtype, c.fill, c.attributes)
            _array(group, "error", (n,), (chunk,), str, "", {})
            _array(group, "finished", (-(-n // chunk),), (1,), np.uint8, 0, {})
            if names is not None:
                stored = _array(group, "name", (n,), (NAMES,), str, "", {})
                for i in range(0, n, NAMES):
                    stored[i : i + NAMES] = np.array([readable(name) for name in names[i : i + NAMES]], dtype=object)
            part.rename(path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        return cls(path)

    def manifest(self) -> dict[str, Any]:
        """What the run was begun as.

        Raises
        ------
        RunError : `path` holds something else
        """
        try:
            manifest = self.group.attrs[KEY]
        except (FileNotFoundError, KeyError, ValueError, TypeError) as error:
            raise RunError(f"{self.path} is not the output of a dtdfast run; choose another output ({error})") from None
        return dict(manifest)

    # ------------------------------------------------------------------------------------------------------------- commit

    def finished(self) -> set[int]:
        """Numbers of the complete chunks."""
        return {int(name[2:]) for name in _names(self.path / "finished", complete=True)}

    def commit(self, number: int, rows: Mapping[str, Array]) -> None:
        """Write chunk `number` of every array in `rows`, then mark it finished."""
        self._errors(number, rows["error"])
        self._write(number, {name: values for name, values in rows.items() if name != "error"})
        self._write(number, {"finished": np.ones(1, np.uint8)})

    def _write(self, number: int, rows: Mapping[str, Array]) -> None:
        """Chunk `number` of arrays of numbers: all of them to the disk, and then each to its place in one step."""
        beside = {}
        for name, values in rows.items():
            array = self._array(name)
            path = self.path / name / _file(number, array.ndim)
            beside[path] = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
            with beside[path].open("wb", buffering=0) as file:
                _put(file, _whole(array, values))
                _to_disk(file.fileno())
                _out_of_memory(file.fileno())
        for path, part in beside.items():
            part.replace(path)
        for path in beside:
            _name_to_disk(path)

    def _errors(self, number: int, texts: Array) -> None:
        """Texts are Zarr's to encode; a chunk without any error has no file."""
        array = self._array("error")
        path = self.path / "error" / _file(number, 1)
        if not any(texts):
            path.unlink(missing_ok=True)  # of an attempt that could not read something which has come back
            return
        start = number * array.chunks[0]
        array[start : start + len(texts)] = texts
        with path.open("rb") as file:
            _to_disk(file.fileno())
        _name_to_disk(path)

    def _array(self, name: str) -> Any:
        """One of the group's, opened once."""
        if name not in self._arrays:
            self._arrays[name] = self.group[name]
        return self._arrays[name]

    def sweep(self) -> None:
        """Remove what a killed process was in the middle of writing; whoever is still writing fails and leaves a whole chunk or none."""
        for folder in self.path.iterdir():
            if folder.is_dir():
                for name in _names(folder, complete=False):
                    (folder / name).unlink(missing_ok=True)

    # -------------------------------------------------------------------------------------------------------------- after

    def errors(self) -> Iterator[tuple[int, str, str]]:
        """Of every bad sample in a finished chunk: its number, name ("" without names) and what is wrong with it."""
        array = self.group["error"]
        named = self.group.get("name")
        numbers = {int(name[2:]) for name in _names(self.path / "error", complete=True)}  # chunks without an error have no file
        for number in sorted(numbers & self.finished()):
            start = number * array.chunks[0]
            for i, text in enumerate(array[start : start + array.chunks[0]], start):
                if text:
                    yield i, "" if named is None else str(named[i]), str(text)


def readable(name: str) -> str:
    """A file's name as text that can be stored, whatever bytes it has."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _array(group: Any, name: str, shape: Shape, chunks: Shape, dtype: Any, fill: Any, attributes: Mapping[str, Any]) -> Any:
    """One file per chunk, all in one folder; nothing but texts is compressed."""
    return group.create_array(
        name, shape=shape, chunks=chunks, dtype=dtype, fill_value=fill, attributes=dict(attributes),
        compressors="auto" if dtype is str else None, chunk_key_encoding={"name": "default", "separator": "."},
    )  # fmt: skip


def _file(number: int, ndim: int) -> str:
    return ".".join(["c", str(number), *["0"] * (ndim - 1)])


def _names(folder: Path, *, complete: bool) -> list[str]:
    """Of the files of chunks, those that are whole or those that are still being written."""
    with os.scandir(folder) as entries:
        return [e.name for e in entries if e.name.startswith("c.") and e.name.endswith(PARTIAL) != complete]


def _whole(array: Any, values: Array) -> Array:
    """The values as a chunk of this array: in its type, little-endian, and of full length (the last one may hold fewer samples)."""
    dtype = array.dtype.newbyteorder("<")
    if len(values) == array.chunks[0]:
        return np.ascontiguousarray(values, dtype)
    whole = np.full(array.chunks, array.fill_value, dtype)
    whole[: len(values)] = values
    return whole


def _put(file: IO[bytes], values: Array) -> None:
    """Write all of it; the system may take less than it is given."""
    rest = values.reshape(-1).view(np.uint8).data
    while rest:
        rest = rest[file.write(rest) :]


def _to_disk(handle: int) -> None:
    """The contents of a file, or of a folder: its names."""
    os.fsync(handle)


def _out_of_memory(handle: int) -> None:
    """Let the system hold the next file where it held this one, which nobody reads now: fresh memory can cost more than writing."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


def _name_to_disk(path: Path) -> None:
    """That the file is there."""
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        _to_disk(handle)
    finally:
        os.close(handle)
