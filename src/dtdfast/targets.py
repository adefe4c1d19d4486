"""From `target` to the relevance that enters: which outputs are explained, and with how much."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays.checks import apart, as_array, host_array
from .arrays.foreign import take
from .budget import require
from .contrast import Contrast, Numbers, checked, start_of
from .errors import TargetError
from .plan.shapes import Shape

Floats = NDArray[np.floating[Any]]


@dataclass(slots=True)
class Targets:
    """A checked `target` for a batch of n samples.

    Attributes
    ----------
    numbers : (n, t) integers, which element of the flattened outputs, or None
    start : (n, t, *out) floats, or None
    several : whether the result has a target axis
    tokens : (n,) integers, at which of the first axis of the outputs the largest one is explained, or None
    against : what the outputs are set against, see contrast.py, or None
    token : the place of that axis to which `narrowed` has brought them, or None
    """

    numbers: NDArray[np.int64] | None
    start: Floats | None
    several: bool
    count: int
    tokens: NDArray[np.int64] | None = None
    against: Numbers | str | None = None
    token: int | None = None

    @classmethod
    def parse(cls, target: Any, n: int, out: Shape, real: Floats | None = None) -> Targets:
        """Check `target` against n samples with outputs of shape (n, *out); `real`: a mask (n, tokens) that is 0 at
        padding.
        """
        target = take(target, "target", TargetError)[0]
        if isinstance(target, Contrast):
            return cls._contrast(target, n, out, real)
        if isinstance(target, str) and (target == "last" or len(out) == 2):
            target = (target, None)
        if isinstance(target, tuple) and names_token(target):
            return cls._token(target, n, out, real)
        if target is None or isinstance(target, (int, np.integer)):
            if isinstance(target, (bool, np.bool_)):
                raise TargetError(f"target is {target!r}, expected integers, a tuple or a float start")
            if len(out) != 1:
                tokens = ' (of a token: (-1, class), or "last" for the last one\'s largest)' if len(out) == 2 else ""
                raise TargetError(
                    f"the outputs are {_of(out)}: name one element by a tuple of {len(out)} integers{tokens}, or give "
                    "a float start"
                )
            if target is None:
                return cls(None, None, False, 1)
            if not 0 <= target < out[0]:
                raise _outside(int(target), 0, out[0])
            return cls(_same(n, int(target)), None, False, 1)
        if isinstance(target, tuple):
            if not all(isinstance(i, (int, np.integer)) and not isinstance(i, bool) for i in target) or len(
                target
            ) != len(out):
                raise TargetError(
                    f"target is {target!r}; a tuple names one output of {_of(out)} by {len(out)} integers"
                )
            return cls(_checked(np.broadcast_to(np.array(target, object), (n, 1, len(out))), out), None, False, 1)
        array = as_array(target, "target", TargetError)
        require(8 * max(array.size, n * array.shape[1] if array.ndim == 2 else 0), f"target of shape {array.shape}")
        if array.dtype.kind in "iu":
            return cls._integers(array, n, out)
        if array.dtype.kind == "f":
            return cls._floats(array, n, out)
        raise TargetError(f"target has dtype {array.dtype}, expected integers or a float start")

    @classmethod
    def _contrast(cls, target: Contrast, n: int, out: Shape, real: Floats | None) -> Targets:
        if len(out) != 1:
            raise TargetError(
                f"the outputs are {_of(out)}: only outputs (n, classes) can be set against each other; give a float "
                "start, the one output at its place and minus the other at its own"
            )
        if isinstance(target.target, Contrast):
            raise TargetError("target is a Contrast, which says itself what it is set against: leave `against` out")
        found = cls.parse(target.target, n, out, real)
        if found.start is not None:
            raise TargetError("target is a float start, which can say itself what it is set against")
        return replace(found, against=checked(target.against, n, out[0]))

    @classmethod
    def _token(cls, target: tuple[Any, ...], n: int, out: Shape, real: Floats | None) -> Targets:
        """One token of every sample, and there one output or the largest."""
        token, number = target
        if len(out) != 2:
            raise TargetError(
                f"target {target!r} names a token, but the outputs are {_of(out)}, not (n, tokens, classes)"
            )
        if isinstance(token, str):
            if token != "last":
                raise TargetError(f'target names the token {token!r:.40}; expected an integer or "last"')
            tokens = last_tokens(n, out[0], real)
        else:
            if not -out[0] <= token < out[0]:
                raise TargetError(f"target {token} is outside the {out[0]} tokens; expected {-out[0]} to {out[0] - 1}")
            tokens = np.full(n, token + out[0] if token < 0 else token, np.int64)
        if number is None:
            return cls(None, None, False, 1, tokens)
        return cls(_checked(np.stack([tokens, np.full(n, number, object)], axis=-1)[:, None], out), None, False, 1)

    @classmethod
    def _integers(cls, array: NDArray[Any], n: int, out: Shape) -> Targets:
        if len(out) != 1:
            raise TargetError(
                f"the outputs are {_of(out)}: integers index axis 1 of (n, classes); give a tuple or a float start"
            )
        if array.ndim == 0:
            array = np.full(n, int(array))
        if array.ndim == 1 and array.shape == (n,):
            return cls(_checked(array.reshape(n, 1, 1), out), None, False, 1)
        if array.ndim == 2 and array.shape[0] in (1, n) and array.shape[1] > 0:
            if array.shape[1] == out[0] > 2 and ((array == 0) | (array == 1)).all():
                raise TargetError(
                    "target is one-hot, but integers are numbers of outputs: give target.argmax(axis=1), or floats, "
                    "which are the start relevance"
                )
            full = np.broadcast_to(array, (n, array.shape[1]))
            return cls(_checked(full[:, :, None], out), None, True, array.shape[1])
        raise TargetError(f"target has shape {array.shape}, expected ({n},), ({n}, t) or (1, t) for {n} samples")

    @classmethod
    def _floats(cls, array: Floats, n: int, out: Shape) -> Targets:
        if not np.isfinite(array).all():
            raise TargetError("target (a float start) holds NaN or infinity")
        if array.shape == (n, *out):
            return cls(None, array[:, None], False, 1)
        if array.ndim == len(out) + 2 and array.shape[0] == n and array.shape[2:] == out and array.shape[1] > 0:
            return cls(None, array, True, array.shape[1])
        raise TargetError(
            f"target (a float start) has shape {array.shape}, expected that of the outputs {_of(out)}, or (n, t, ...) "
            "for t targets"
        )

    def one_token(self, out: Shape) -> int | None:
        """The place of the first axis of outputs (n, *out) that all targets read, where that is one."""
        if len(out) != 2:
            return None
        if self.start is not None:
            places = np.flatnonzero(np.any(self.start, axis=(0, 1, 3)))
        elif self.numbers is not None:
            places = np.unique(self.numbers // out[1])
        else:
            places = np.unique(self.tokens) if self.tokens is not None else np.arange(0)
        return int(places[0]) if len(places) == 1 else None

    def narrowed(self, out: Shape, token: int) -> Targets:
        """The same for outputs (n, 1, ...) of this one token."""
        start = None if self.start is None else self.start[:, :, token : token + 1]
        numbers = None if self.numbers is None else self.numbers - token * out[1]
        tokens = None if self.tokens is None else self.tokens - token
        return replace(self, numbers=numbers, start=start, tokens=tokens, token=token)

    def apart(self, out: Any) -> Targets:
        """The same, safe from what is written into `out`."""
        return replace(self, start=apart(self.start, out))

    def entry(self, block: slice, *, unit: bool = False, clip: bool = False) -> Entry:
        """Where relevance enters a block of samples."""
        numbers = None if self.numbers is None else self.numbers[block]
        start = None if self.start is None else self.start[block]
        tokens = None if self.tokens is None else self.tokens[block]
        against = self.against[block] if isinstance(self.against, np.ndarray) else self.against
        if clip and against is not None:
            raise TargetError("the preset raises a negative start to 0, and a contrast has one; choose another preset")
        return Entry(numbers, start, self.count, unit, clip, tokens, against)


@dataclass(slots=True)
class Entry:
    """Where relevance enters the n samples of a pass, as in Targets; with neither, at each one's largest output.

    `unit` starts with 1 instead of the output (gradients), `clip` raises negative starts to 0.
    """

    numbers: NDArray[np.int64] | None
    start: Floats | None
    count: int
    unit: bool
    clip: bool
    tokens: NDArray[np.int64] | None = None
    against: Numbers | str | None = None

    @property
    def settled(self) -> bool:
        """Whether it says where relevance enters before the outputs are known, or that the largest one is."""
        return self.tokens is None and self.against is None

    def settle(self, outputs: Floats) -> Entry:
        """The same with the numbers of the elements that its tokens' largest outputs are, or a contrast's start."""
        if self.against is not None:
            numbers = outputs.argmax(axis=1, keepdims=True) if self.numbers is None else self.numbers
            start = start_of(outputs, numbers, self.against, unit=self.unit)
            return replace(self, start=start, numbers=None, against=None)
        if self.tokens is None:
            return self
        n, _, classes = outputs.shape
        largest = outputs[np.arange(n), self.tokens].argmax(axis=1)
        return replace(self, numbers=(self.tokens * classes + largest)[:, None], tokens=None)

    def relevance(self, outputs: Floats) -> Floats:
        """Start relevance (n, t, *out): the outputs themselves at the targets, 0 elsewhere."""
        if not self.settled:
            return self.settle(outputs).relevance(outputs)
        if self.start is not None:
            with np.errstate(over="ignore", under="ignore"):  # the Explainer finds what becomes infinite
                start = self.start.astype(outputs.dtype)
            return np.maximum(start, 0) if self.clip else start
        n, numbers = len(outputs), self.numbers
        if numbers is None:
            numbers = outputs.reshape(n, -1).argmax(axis=1, keepdims=True)
        first, first_of_start = _firsts(n, self.count, outputs.size // n)
        values = outputs.take(numbers + first)
        start = np.zeros((n, self.count, *outputs.shape[1:]), outputs.dtype)
        start.put(numbers + first_of_start, 1 if self.unit else np.maximum(values, 0) if self.clip else values)
        return start


def rows_of(target: Any, block: slice, n: int) -> Any:
    """What a target of n samples says of a block of them."""
    if isinstance(target, Contrast):
        return Contrast(*(rows_of(part, block, n) for part in (target.target, target.against)))
    if target is None or isinstance(target, (str, tuple)):
        return target
    array = host_array(target, "target", TargetError)
    if array.ndim and len(array) not in (1, n):
        raise TargetError(f"target has shape {array.shape}, which is not that of {n} samples")
    return array[block] if array.ndim and len(array) == n else array


def names_token(target: tuple[Any, ...]) -> bool:
    """Whether a tuple is (token, output) with a token from the end or by name, or with its largest output."""
    if len(target) != 2 or isinstance(target[0], (bool, np.bool_)) or isinstance(target[1], (bool, np.bool_)):
        return False
    named = isinstance(target[0], str)
    if not (named or isinstance(target[0], (int, np.integer))):
        return False
    return target[1] is None or (isinstance(target[1], (int, np.integer)) and (named or target[0] < 0))


def last_tokens(n: int, count: int, real: Floats | None) -> NDArray[np.int64]:
    """The last of `count` tokens of every sample, or of those where `real` is not 0."""
    if real is None:
        return np.full(n, count - 1, np.int64)
    if real.shape != (n, count):
        raise TargetError(
            f'target "last" counts by the attention_mask, which has shape {real.shape}, but there are {count} tokens: '
            "name the token by its number"
        )
    if not (real != 0).any(axis=1).all():
        sample = int(np.flatnonzero(~(real != 0).any(axis=1))[0])
        raise TargetError(f'target is "last", but the attention_mask of sample {sample} leaves no token')
    places: NDArray[np.int64] = count - 1 - (real[:, ::-1] != 0).argmax(axis=1)
    return places


@lru_cache(maxsize=8)
def _same(n: int, target: int) -> NDArray[np.int64]:
    """One target for all samples."""
    numbers = np.full((n, 1), target)
    numbers.flags.writeable = False
    return numbers


@lru_cache(maxsize=8)
def _firsts(n: int, count: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The places of each sample's first output, and of its first for each target, in flattened arrays."""
    return np.arange(0, n * size, size)[:, None], np.arange(0, n * count * size, size).reshape(n, count)


def _of(out: Shape) -> str:
    """The shape of all samples' outputs."""
    return f"(n, {', '.join(map(str, out))})"


def _checked(index: NDArray[Any], out: Shape) -> NDArray[np.int64]:
    """Indices (n, t, axes of the output) as numbers of elements (n, t)."""
    for axis, size in enumerate(out):
        column = index[..., axis]
        if column.size and (column.min() < 0 or column.max() >= size):
            bad = int(column.min() if column.min() < 0 else column.max())
            raise _outside(bad, axis, size)
    if len(out) == 1:
        return index[..., 0].astype(np.int64)
    numbers: NDArray[np.int64] = np.ravel_multi_index(tuple(np.moveaxis(index.astype(np.int64), -1, 0)), out)
    return numbers


def _outside(bad: int, axis: int, size: int) -> TargetError:
    if size == 1:
        return TargetError(
            f"target is {bad}, but axis {axis + 1} has one output, 0, whose sign tells two classes apart"
        )
    return TargetError(f"target {bad} is outside the {size} outputs along axis {axis + 1}; expected 0 to {size - 1}")
