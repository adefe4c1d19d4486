"""What samples bring along beside x, by the names of the network's Givens: checked before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from ..errors import InputError, LayerError, ShapeError, at
from ..options import Options
from .checks import finite, host_array

Array = NDArray[Any]

OPTIONS = {f.name for f in fields(Options)} | {
    "target", "against", "return_outputs", "return_ledger", "out", "progress",
}  # fmt: skip
TAKEN = {"self", "layers", "x", "root"} | OPTIONS
"""Keywords that calls have already."""


MASK = "attention_mask"
"""The Given that is 0 at padding, by which a target counts tokens."""


def meant(keyword: str) -> str:
    """What a message on an unknown keyword says of the option that it is nearly called."""
    if keyword in OPTIONS:
        return f"; {keyword}= is an option of explain and Explainer"
    return "".join(f"; did you mean {option}=?" for option in get_close_matches(keyword, sorted(OPTIONS), 1))


class Givens:
    """The Givens of one network.

    Parameters
    ----------
    layers : the network
    reads : the positions that each entry reads

    Raises
    ------
    LayerError : two of one name, or the name of an option
    """

    def __init__(self, layers: Sequence[L.Layer], reads: Sequence[Sequence[int]]) -> None:
        self.records: dict[str, tuple[str, L.Given]] = {}
        self._words: dict[str, tuple[str, int]] = {}  # the Embedding of fewest words that reads it, and their number
        self._masks: dict[str, str] = {}  # the Softmax that takes it as its mask
        for position, record in enumerate(layers):
            if isinstance(record, L.Given):
                where = at(position, record)
                if record.name in TAKEN:
                    raise LayerError(f"{where}: its name is that of an option; choose another")
                if record.name in self.records:
                    raise LayerError(
                        f"{where}: {self.records[record.name][0]} has the same name; let both readers read that one"
                    )
                self.records[record.name] = where, record
            elif isinstance(record, L.Embedding) and reads[position][0] != L.INPUT:
                source, n_words = layers[reads[position][0]], np.shape(record.weight)[0]
                known = self._words.get(source.name or "")
                if isinstance(source, L.Given) and (known is None or n_words < known[1]):
                    self._words[source.name] = at(position, record), n_words
            elif isinstance(record, L.Softmax) and len(reads[position]) > 1:
                for name in _made_of(layers, reads, reads[position][1]):
                    self._masks.setdefault(name, at(position, record))

    def __bool__(self) -> bool:
        return bool(self.records)

    def check(self, values: Mapping[str, Any], n: int, dtype: type) -> dict[str, Array]:
        """The values of n samples as contiguous arrays of `dtype` (int64 where they are integers).

        Raises
        ------
        InputError : one is missing or unknown, has a wrong type, or holds NaN, infinity or numbers that no word has
        ShapeError : one has another shape, or another number of samples
        """
        if not values and not self.records:
            return {}
        for name in values:
            if name not in self.records:
                has = ", ".join(f"{known}=" for known in self.records) or "x alone"
                raise InputError(
                    f"{name}= is no option, and no Given of the network has this name; it takes {has}{meant(name)}"
                )
        for name, (where, record) in self.records.items():
            if values.get(name) is None:
                shape = ", ".join(map(str, record.shape))
                raise InputError(f"{where}: {name}= is missing; give an array of shape (n, {shape})")
        return {name: self._checked(name, values[name], n, dtype) for name in self.records}

    def _checked(self, name: str, value: Any, n: int, dtype: type) -> Array:
        where, record = self.records[name]
        array = host_array(value, name)
        if array.shape != (n, *record.shape):
            raise ShapeError(
                f"{name} has shape {array.shape}, expected {(n, *record.shape)}: that of {where}, for {n} samples"
            )
        if record.integer:
            return self._integers(name, array)
        if array.dtype.kind not in "fiub":
            raise InputError(f"{name} has dtype {array.dtype}, expected numbers or booleans")
        if array.dtype.kind == "f" and not finite(array):
            raise InputError(f"{name} holds NaN or infinity")
        with np.errstate(over="ignore", under="ignore"):
            converted: Array = np.ascontiguousarray(array, dtype)
        if not finite(converted):
            raise InputError(f"{name} holds values beyond the range of {np.dtype(dtype)}")
        if record.mask or name in self._masks:
            odd = converted[(converted != 0) & (converted != 1)]
            if odd.size:
                raise InputError(
                    f"{name} holds {odd[0]:g}; {self._masks.get(name, where)} takes it as a mask: expected 1 for what "
                    "is kept, and 0 for padding"
                )
        return converted

    def _integers(self, name: str, array: Array) -> Array:
        if array.dtype.kind not in "iu":
            raise InputError(f"{name} has dtype {array.dtype}, expected integers")
        if name in self._words:
            reader, n_words = self._words[name]
            if array.min() < 0 or array.max() >= n_words:
                raise InputError(
                    f"{name} holds {array.min()} to {array.max()}; {reader}, which reads it, knows 0 to {n_words - 1}"
                )
        return np.ascontiguousarray(array, np.int64)


def _made_of(layers: Sequence[L.Layer], reads: Sequence[Sequence[int]], position: int) -> set[str]:
    """Names of the Givens that an entry is made of."""
    names, seen, stack = set(), set(), [position]
    while stack:
        position = stack.pop()
        if position == L.INPUT or position in seen:
            continue
        seen.add(position)
        stack += reads[position]
        if isinstance(record := layers[position], L.Given):
            names.add(record.name)
    return names


def beside_rows(given: Mapping[str, Any], rows: slice) -> dict[str, Any]:
    """What some samples bring along, of what a caller gave for all."""
    arrays = {name: host_array(values, name) for name, values in given.items()}
    return {name: values[rows] if values.ndim else values for name, values in arrays.items()}
