"""The base of all records: their wiring, and the checks that a record makes of its own fields."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .arrays.foreign import masked, take
from .errors import LayerError, WiringError
from .show import OneLine

INPUT = -1
"""The network's input, as an entry of `inputs=`."""

MOST = 2**31 - 1
"""What a size, a stride or a padding may be: kernels count in 32 bits."""

Ints = int | Sequence[int]
Padding = int | Sequence[int] | Sequence[tuple[int, int]]
Array = NDArray[Any]  # what a record holds; any sequence of numbers may be given


class Memory:
    """A copy of an array that nobody can write to through NumPy; not in a bytes object, which lies in small pages of
    memory: to fill these takes five times as long.
    """

    def __init__(self, array: Array) -> None:
        self._copy = np.array(array, order="C")
        shown = self._copy.__array_interface__
        self.__array_interface__ = shown | {"data": (shown["data"][0], True)}  # read-only


def immutable(value: object) -> bool:
    """Whether nobody can ever write to an array, since its memory is that of a bytes object or a `Memory`."""
    while isinstance(value, np.ndarray):
        value = value.base
    return isinstance(value, (bytes, Memory))


@dataclass(frozen=True, eq=False)
class Layer(OneLine):
    """The base of all records: what a record reads, and its name.

    A network is a list of records in topological order. An entry of the list is one record at its position. Records are
    frozen, and keep read-only copies of their arrays.

    Parameters
    ----------
    inputs : int or sequence of int, optional
        The positions of the earlier entries that the record reads; `INPUT`, which is -1, is the network's input. By
        default it reads the entry before.
    name : str, optional
        The record's name in messages, plans and ledgers.

    Raises
    ------
    LayerError
        A field of the record has a wrong type, shape or value, or an array holds NaN or infinity.
    WiringError
        `inputs` is no sequence of positions, or has another number of them than the record reads.
    """

    inputs: int | Sequence[int] | None = field(default=None, kw_only=True)
    name: str | None = field(default=None, kw_only=True)

    arity: ClassVar[int | None] = 1  # None: one or more operands
    optional: ClassVar[int] = 0  # operands that may follow

    def __post_init__(self) -> None:
        if self.inputs is not None:
            self._set("inputs", self._positions(self.inputs))
        if self.name is not None and not isinstance(self.name, str):
            raise LayerError(f"{self._type}: name is {self.name!r}, expected a string")
        self._check()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy's arrays are as read-only as those that it was copied from, which pickles do not say."""
        vars(self).update(state)
        for value in state.values():
            for array in value if isinstance(value, tuple) else (value,):
                if isinstance(array, np.ndarray):
                    array.setflags(write=False)

    def _check(self) -> None:
        """Normalise and check this record's own fields."""

    @property
    def _type(self) -> str:
        return type(self).__name__

    @property
    def positions(self) -> tuple[int, ...] | None:
        """What `inputs` is kept as; None for the entry before."""
        assert self.inputs is None or isinstance(self.inputs, tuple)
        return self.inputs

    def _set(self, key: str, value: object) -> None:
        object.__setattr__(self, key, value)

    def _positions(self, inputs: object) -> tuple[int, ...]:
        given = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
        try:
            positions = tuple(operator.index(i) for i in given)
        except TypeError:
            raise WiringError(
                f"{self._type}: inputs is {inputs!r}, expected positions (integers) or dtdfast.INPUT"
            ) from None
        if self.arity == 0 and positions:
            raise WiringError(f"{self._type}: inputs is {inputs!r}, but it reads nothing; leave inputs out")
        if not positions and self.arity != 0:
            raise WiringError(f"{self._type}: inputs is empty; leave it None to read the entry before")
        if self.arity is not None and not self.arity <= len(positions) <= self.arity + self.optional:
            expected = " or ".join(str(self.arity + more) for more in range(self.optional + 1))
            raise WiringError(f"{self._type}: inputs has {len(positions)} entries, expected {expected}")
        return positions

    def _array(self, key: str, ndim: int | tuple[int, ...] | None = None, shape: tuple[int, ...] | None = None) -> None:
        """Replace a field by a read-only float copy of it, checked."""
        self._set(key, self._checked(key, getattr(self, key), ndim, shape))

    def _checked(
        self, key: str, value: Any, ndim: int | tuple[int, ...] | None = None, shape: tuple[int, ...] | None = None
    ) -> Array:
        """A read-only float copy, checked for dtype, rank, shape and finiteness; `key` names it in messages.

        An array that can never be written to, see `immutable`, is kept: layers may share it.
        """
        if masked(value):
            raise LayerError(
                f"{self._type}: {key} is a masked array, and its mask would be lost; pass {key}.filled(value)"
            )
        value = take(value, f"{self._type}: {key}", LayerError)[0]
        given = getattr(value, "dtype", None)
        if value is None or (isinstance(value, np.ndarray) and value.dtype.kind != "f"):
            what = "None" if value is None else f"of dtype {given}"
            raise LayerError(f"{self._type}: {key} is {what}, expected a float array (float32 or float64)")
        try:
            dtype = np.float32 if getattr(given, "itemsize", 8) <= 4 else np.float64
            array = (np.asarray if immutable(value) else np.array)(value, dtype=dtype, order="C")
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise LayerError(f"{self._type}: {key} cannot be read as a float array: {error}") from None
        ranks = (ndim,) if isinstance(ndim, int) else ndim
        if ranks is not None and array.ndim not in ranks:
            expected = " or ".join(str(r) for r in ranks)
            raise LayerError(f"{self._type}: {key} has {array.ndim} axes (shape {array.shape}), expected {expected}")
        if shape is not None and array.shape != shape:
            raise LayerError(f"{self._type}: {key} has shape {array.shape}, expected {shape}")
        if array.size == 0:
            raise LayerError(f"{self._type}: {key} is empty (shape {array.shape})")
        if not np.isfinite(array).all():
            raise LayerError(f"{self._type}: {key} holds NaN or infinity; repair the weights before explaining")
        array.setflags(write=False)
        return array

    def _int(self, key: str, low: int | None) -> None:
        value = getattr(self, key)
        try:
            number = operator.index(value)
        except TypeError:
            raise LayerError(f"{self._type}: {key} is {value!r}, expected an integer") from None
        if low is not None and not low <= number <= MOST:
            raise LayerError(f"{self._type}: {key} is {number}, expected at least {low} and at most {MOST}")
        self._set(key, number)

    def _ints(self, key: str, low: int, n: int | None) -> None:
        """An integer, or one per spatial axis; becomes a tuple of n when n is known."""
        value = getattr(self, key)
        items = tuple(value) if isinstance(value, (tuple, list)) else None
        try:
            numbers = tuple(operator.index(v) for v in items) if items is not None else (operator.index(value),)
        except TypeError:
            raise LayerError(f"{self._type}: {key} is {value!r}, expected an integer or one per spatial axis") from None
        if min(numbers, default=low - 1) < low or max(numbers) > MOST:
            bounds = f"at least {low}" + ("" if max(numbers, default=0) <= MOST else f" and at most {MOST}")
            raise LayerError(f"{self._type}: {key} is {value!r:.80}, expected integers of {bounds}")
        if items is not None and n is not None and len(numbers) != n:
            raise LayerError(f"{self._type}: {key} is {value!r}, expected {n} integers (one per spatial axis)")
        if items is None:
            self._set(key, numbers * n if n is not None else numbers[0])
        else:
            self._set(key, numbers)

    def _integers(self, key: str) -> None:
        """One integer or a non-empty sequence of them, of any sign; becomes a tuple."""
        value = getattr(self, key)
        given = (
            value
            if isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.ndim == 1)
            else (value,)
        )
        try:
            numbers = tuple(operator.index(v) for v in given)
        except TypeError:
            raise LayerError(f"{self._type}: {key} is {value!r:.80}, expected integers") from None
        if not numbers or any(isinstance(v, (bool, np.bool_)) for v in given):
            raise LayerError(f"{self._type}: {key} is {value!r:.80}, expected at least one integer")
        self._set(key, numbers)

    def _padding(self, key: str, n: int | None) -> None:
        """An integer, one per spatial axis, or (before, after) pairs; becomes pairs when n is known."""
        value = getattr(self, key)
        if isinstance(value, (tuple, list)) and any(isinstance(v, (tuple, list)) for v in value):
            try:
                pairs = tuple((operator.index(a), operator.index(b)) for a, b in value)
            except (TypeError, ValueError):
                raise LayerError(
                    f"{self._type}: {key} is {value!r}, expected (before, after) pairs, one per spatial axis"
                ) from None
            if min(min(p) for p in pairs) < 0:
                raise LayerError(
                    f"{self._type}: {key} is {value!r}, expected integers of at least 0 (use Slice to crop)"
                )
            if max(max(p) for p in pairs) > MOST:
                raise LayerError(f"{self._type}: {key} is {value!r}, expected integers of at most {MOST}")
            if n is not None and len(pairs) != n:
                raise LayerError(f"{self._type}: {key} is {value!r}, expected {n} pairs (one per spatial axis)")
            self._set(key, pairs)
        else:
            self._ints(key, 0, n)
            numbers = getattr(self, key)
            if isinstance(numbers, tuple):
                self._set(key, tuple((v, v) for v in numbers))

    def _number(self, key: str) -> None:
        value = getattr(self, key)
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise LayerError(f"{self._type}: {key} is {value!r}, expected a number") from None
        if not np.isfinite(number):
            raise LayerError(f"{self._type}: {key} is {value!r}, expected a finite number")
        self._set(key, number)

    def _bool(self, key: str) -> None:
        if not isinstance(getattr(self, key), (bool, np.bool_)):
            raise LayerError(f"{self._type}: {key} is {getattr(self, key)!r}, expected True or False")
        self._set(key, bool(getattr(self, key)))
