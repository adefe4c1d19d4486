"""A run's output as it is looked at: written by somebody, so nothing in it is taken for granted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import budget
from ..errors import RunError
from ..extras import require
from ..locks import cached_property
from .containers import message
from .store import Store, chunks, created, described

Array = NDArray[Any]

KINDS: dict[str, tuple[tuple[str, ...], Any]] = {  # of each array: the types that it may have, and its fill value
    "relevance": (("float32", "float16"), np.nan),
    "outputs": (("float32",), np.nan),
    "target": (("int64",), -1),
    "ledger": (("float64",), np.nan),
    "channels": (("float64",), np.nan),
    "error": (("str",), ""),
}


class Stored:
    """A run's output at `path`.

    Attributes
    ----------
    manifest : as the run was begun
    samples, chunk : the number of samples, and how many are stored together

    Raises
    ------
    RunError : no run is there, or it is damaged
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._store = Store(self.path)
        self.manifest = self._store.manifest()
        self.samples, self.chunk = self.manifest["samples"], self.manifest["chunk"]
        if not isinstance(self.manifest.get("preparation"), (dict, type(None))):
            raise self.damaged("its manifest", "preparation")
        self._known: dict[str, Any] = {}

    def __contains__(self, name: str) -> bool:
        return (self.path / name).exists()

    def array(self, name: str) -> Any:
        """One of its arrays, if all that is said of it fits the run."""
        if name not in self._known:
            kinds, fill = KINDS[name]
            memory = require("zarr", "run").storage.MemoryStore
            try:
                found = self._store.group[name]
                kind = "str" if kinds == ("str",) else str(found.dtype)
                shape, attributes = tuple(found.shape[1:]), dict(found.attrs)
                if kind not in kinds:
                    raise ValueError(f"its type is {kind}")
                group = require("zarr", "run").create_group(memory(), zarr_format=3)
                fitting = created(
                    group, name, (self.samples, *shape), (self.chunk, *shape), str if kind == "str" else kind, fill,
                    attributes,
                )  # fmt: skip
                if described(found) != described(fitting):
                    raise ValueError("it is of another form than a run's")
            except Exception as error:  # whatever Zarr raises on a damaged array
                raise self.damaged(f"its array {name!r}", message(error)) from None
            self._known[name] = found
        return self._known[name]

    def rows(self, name: str, start: int, stop: int) -> Array:
        """Some samples of an array, no more than a chunk."""
        array = self.array(name)
        nbytes = self.chunk * int(np.prod(array.shape[1:], dtype=object)) * (getattr(array.dtype, "itemsize", 0) or 16)
        budget.require(nbytes, f"{self.path}: a chunk of its array {name!r}")
        try:
            return np.asarray(array[start:stop])
        except Exception as error:  # whatever Zarr raises on a damaged chunk
            raise self.damaged(f"its array {name!r}", message(error)) from None

    def attribute(self, name: str, key: str) -> Any:
        return dict(self.array(name).attrs).get(key)

    @cached_property
    def finished(self) -> list[range]:
        """The samples of every chunk that is complete."""
        return self._ranges("finished")

    def _ranges(self, name: str) -> list[range]:
        try:
            numbers = sorted({number for number, _ in chunks(self.path / name)})
        except OSError as error:
            raise self.damaged(f"its array {name!r}", message(error)) from None
        if numbers and numbers[-1] * self.chunk >= self.samples:
            raise self.damaged(f"its array {name!r}", f"it has a chunk {numbers[-1]}")
        return [range(k * self.chunk, min((k + 1) * self.chunk, self.samples)) for k in numbers]

    def name(self, number: int) -> str:
        """A sample's name; "" where samples have none."""
        if "name" not in self:
            return ""
        try:
            return str(self._store.group["name"][number])
        except Exception as error:
            raise self.damaged("its array 'name'", message(error)) from None

    def errors(self) -> Iterator[tuple[int, str, str]]:
        """Of every bad sample in a finished chunk: its number, name ("" without names) and what is wrong with it."""
        finished = set(self.finished)
        for of in self._ranges("error"):  # chunks without an error have no file
            for number, text in zip(of, self.rows("error", of.start, of.stop) if of in finished else (), strict=False):
                if text:
                    yield number, self.name(number), str(text)

    def damaged(self, what: str, why: str) -> RunError:
        return RunError(f"{self.path}: {what} is damaged ({why:.200}); continue the run, or begin it anew elsewhere")
