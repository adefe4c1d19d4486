"""The output of a run: a Zarr group whose arrays all share one chunk length along the samples, and which knows what is
finished.

    relevance (n, ...)    float32 or float16, NaN where there is none
    outputs   (n, ...)    those that were explained, before a final Softmax
    target    (n, ...)    index of the output that was explained, -1 where there is none
    ledger    (n, k)      float64, its attribute `columns` says what
    channels  (n, c)      where an entry's are kept: float64, its attributes say of which entry and what
    name      (n,)        of files alone: of every sample
    error     (n,)        what is wrong with a sample, or ""
    finished  (chunks,)   1 for every chunk that is complete: written last

A chunk is committed by writing its part of every array, each a file of its own, beside its place, bringing all of them
to the disk, renaming them, and only then the same for its entry in `finished`. A run that dies in between leaves a
chunk that is not finished; the next computes it again, and overwrites it with the same bits. So may two workers that
were given the same chunk.

Arrays of numbers are not compressed (relevance hardly can be), so a chunk's file is the values as they lie in memory,
and is written as such, without Zarr and without a copy.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RunError, starved
from ..extras import require
from ..files import PART, beside, readable, unfinished
from ..plan.shapes import Shape
from .arrays import MOST
from .containers import message

Array = NDArray[Any]

KEY = "dtdfast"  # the attribute that holds the manifest
NAMES = 1 << 14  # names per chunk
DIGEST = "sha256"  # of the manifest, within it
ROOT = "zarr.json"  # of the group: where the manifest is
ARRAYS = ("relevance", "outputs", "target", "ledger", "channels", "name", "error", "finished")
CHUNK = re.compile(r"c\.(\d{1,18})(?:\.0)*", re.ASCII)
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

    # ---------------------------------------------------------------------------------------------------------- begin

    @classmethod
    def create(
        cls, path: Path, manifest: Mapping[str, Any], columns: Sequence[Column], names: Sequence[str] | None
    ) -> Store:
        """A new output without any finished chunk; it appears at `path` complete or not at all."""
        zarr = require("zarr", "run")
        n = manifest["samples"]
        _remove_unfinished(path)
        part = beside(path)
        part.mkdir()
        try:
            group = zarr.create_group(
                str(part), zarr_format=3, attributes={KEY: {**manifest, DIGEST: _digest(manifest)}}
            )
            arrays = _arrays(group, manifest, columns, named=names is not None)
            if names is not None:
                stored = arrays["name"]
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
        RunError : `path` holds something else, or the manifest is not as it was written
        """
        require("zarr", "run")
        try:
            manifest = dict(self.group.attrs[KEY])
            changed = manifest.pop(DIGEST) != _digest(manifest)
            sizes = manifest["samples"], manifest["chunk"]
        except Exception as error:  # whatever Zarr raises on what is no group, or a damaged one
            if starved(error):
                raise
            raise RunError(f"{self.path} is not the output of a dtdfast run; name another ({message(error)})") from None
        if changed or not all(type(n) is int for n in sizes) or not 1 <= sizes[1] <= sizes[0] <= MOST:
            raise RunError(
                f"{self.path}: its manifest was changed after the run was begun; choose another output, or restore "
                "zarr.json"
            )
        return manifest

    def check(self, manifest: Mapping[str, Any], columns: Sequence[Column]) -> None:
        """Compare the arrays with what the manifest says of them, before any of them is continued.

        Raises
        ------
        RunError : one of them is not as it was made
        """
        zarr = require("zarr", "run")
        anew = _arrays(
            zarr.create_group(zarr.storage.MemoryStore(), zarr_format=3),
            manifest,
            columns,
            named=(self.path / "name").exists(),
        )
        for name, array in anew.items():
            try:
                found = described(self.group[name])
            except Exception as error:  # whatever Zarr raises on a damaged array
                if starved(error):
                    raise
                raise RunError(
                    f"{self.path}: its array {name!r} is damaged ({message(error)}); begin the run anew elsewhere"
                ) from None
            if found != described(array):
                raise RunError(
                    f"{self.path}: its array {name!r} was changed after the run was begun; begin the run anew elsewhere"
                )

    # --------------------------------------------------------------------------------------------------------- commit

    def finished(self) -> set[int]:
        """Numbers of the complete chunks."""
        return {number for number, _ in chunks(self.path / "finished")}

    def whole(self, columns: Sequence[Column]) -> set[int]:
        """Numbers of the complete chunks of which every array still has what was written; the rest is done again."""
        sizes = {c.name: math.prod(self._array(c.name).chunks) * np.dtype(c.dtype).itemsize for c in columns}
        there = [
            {number for number, size in chunks(self.path / name) if size == nbytes} for name, nbytes in sizes.items()
        ]
        return self.finished().intersection(*there)

    def commit(self, number: int, rows: Mapping[str, Array]) -> None:
        """Write chunk `number` of every array in `rows`, then mark it finished."""
        self._errors(number, rows["error"])
        self._write(number, {name: values for name, values in rows.items() if name != "error"})
        self._write(number, {"finished": np.ones(1, np.uint8)})

    def _write(self, number: int, rows: Mapping[str, Array]) -> None:
        """Chunk `number` of arrays of numbers: all of them to the disk, and then each to its place in one step."""
        parts: dict[Path, Path] = {}
        try:
            for name, values in rows.items():
                array = self._array(name)
                path = self.path / name / _file(number, array.ndim)
                parts[path] = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
                with parts[path].open("wb", buffering=0) as file:
                    _put(file, _whole(array, values))
                    _to_disk(file.fileno())
                    _out_of_memory(file.fileno())
            for path, part in parts.items():
                part.replace(path)
        finally:
            for part in parts.values():
                part.unlink(missing_ok=True)  # where the disk was full, or Ctrl-C came
        for path in parts:
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
        with path.open("r+b" if os.name == "nt" else "rb") as file:
            _to_disk(file.fileno())
        _name_to_disk(path)

    def _array(self, name: str) -> Any:
        """One of the group's, opened once."""
        if name not in self._arrays:
            self._arrays[name] = self.group[name]
        return self._arrays[name]

    def sweep(self) -> None:
        """Remove what a killed process was in the middle of writing; whoever is still writing fails and leaves a whole
        chunk or none.
        """
        for name in ARRAYS:
            folder = self.path / name
            for part in _partial(folder) if folder.is_dir() else ():
                (folder / part).unlink(missing_ok=True)


def _digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest, so that an edited one is noticed."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _remove_unfinished(path: Path) -> None:
    """Outputs of runs into `path` that died while they began: they hold a manifest, or nothing at all. Called under the
    lock of `path`.
    """
    mine = re.compile(rf"{re.escape(unfinished(path))}[0-9a-f]+{re.escape(PART)}")  # of maps, and not of maps.zarr
    for part in path.parent.iterdir():
        if mine.fullmatch(part.name) and part.is_dir() and not part.is_symlink():
            names = {entry.name for entry in part.iterdir()}
            if not names or (
                ROOT in names and f'"{KEY}"' in (part / ROOT).read_text(encoding="utf-8", errors="replace")
            ):
                shutil.rmtree(part, ignore_errors=True)


def _arrays(group: Any, manifest: Mapping[str, Any], columns: Sequence[Column], *, named: bool) -> dict[str, Any]:
    """All arrays of a run, new."""
    n, chunk = manifest["samples"], manifest["chunk"]
    arrays = {
        c.name: created(group, c.name, (n, *c.shape), (chunk, *c.shape), c.dtype, c.fill, c.attributes) for c in columns
    }
    arrays["error"] = created(group, "error", (n,), (chunk,), str, "", {})
    arrays["finished"] = created(group, "finished", (-(-n // chunk),), (1,), np.uint8, 0, {})
    if named:
        arrays["name"] = created(group, "name", (n,), (NAMES,), str, "", {})
    return arrays


def described(array: Any) -> str:
    """Shape, chunks, type, codecs and attributes of an array, as text (NaN is its own equal there)."""
    return json.dumps(array.metadata.to_dict(), sort_keys=True, default=str)


def created(
    group: Any, name: str, shape: Shape, chunks: Shape, dtype: Any, fill: Any, attributes: Mapping[str, Any]
) -> Any:
    """One file per chunk, all in one folder; nothing but texts is compressed."""
    return group.create_array(
        name, shape=shape, chunks=chunks, dtype=dtype, fill_value=fill, attributes=dict(attributes),
        compressors="auto" if dtype is str else None, chunk_key_encoding={"name": "default", "separator": "."},
    )  # fmt: skip


def _file(number: int, ndim: int) -> str:
    return ".".join(["c", str(number), *["0"] * (ndim - 1)])


def chunks(folder: Path) -> Iterator[tuple[int, int]]:
    """Number and bytes of the files of whole chunks."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if found := CHUNK.fullmatch(entry.name):
                yield int(found[1]), entry.stat().st_size


def _partial(folder: Path) -> list[str]:
    """Files of chunks that are still being written."""
    with os.scandir(folder) as entries:
        return [e.name for e in entries if e.name.startswith("c.") and e.name.endswith(PARTIAL)]


def _whole(array: Any, values: Array) -> Array:
    """The values as a chunk of this array: in its type, little-endian, and of full length (the last one may hold fewer
    samples).
    """
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
    """Let the system hold the next file where it held this one, which nobody reads now: fresh memory can cost more than
    writing.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


def _name_to_disk(path: Path) -> None:
    """That the file is there; Windows opens no folder, and its file systems keep a journal of names."""
    if os.name == "nt":
        return
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        _to_disk(handle)
    finally:
        os.close(handle)
