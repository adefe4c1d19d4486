"""One chunk of a run: samples in, rows of the output out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..concepts.channels import ChannelScores
from ..errors import DomainError, InputError, NumericsError
from ..explainer import Explainer
from ..ledger.ledger import CAUSES, total
from ..plan.shapes import Shape
from ..targets import Entry, Targets
from .store import Column

Array = NDArray[Any]
Which = slice | NDArray[np.intp]  # samples of a chunk

TOTALS = ("entered", "arrived")
SUBNORMAL = 2.0**-14  # float16 below this has steps of 2^-24
LEDGER = (*TOTALS, *(f"absorbed: {cause}" for cause in CAUSES), "residual", "bound")


@dataclass(frozen=True)
class Chunk:
    """What has been found out about samples that are stored at once; a block of them may be explained by any thread.

    Attributes
    ----------
    errors : for each of k samples what is wrong with it, or ""
    target : None, int, tuple or (k,) ints
    names : how a message calls each sample
    relevance, outputs, ledger, channels : (k, ...); anything where there is an error, `ledger` empty where no cause is
        followed, `channels` where none are kept
    """

    errors: list[str]
    target: Any
    names: Sequence[str]
    relevance: Array
    outputs: Array
    ledger: Array
    channels: Array

    def own(self, which: Which) -> Any:
        """The targets of these samples."""
        return self.target[which] if isinstance(self.target, np.ndarray) else self.target


@dataclass(frozen=True)
class Work:
    """What is done with every chunk.

    Parameters
    ----------
    relevance, outputs : shapes of one sample's, as `Explainer.explain` returns them
    sum_axis : axis of relevance (batch first) that is summed in float64 before it is stored, or None
    dtype : of the stored relevance
    computed : type in which the explainer computes
    ledger : whether every cause of absorption is followed, instead of what entered and arrived alone
    clip : whether a negative start is raised to 0, as the preset wants it
    strict : whether a bad sample stops the run
    scores : of the channels that are kept of an entry, or None
    n_channels : of that entry
    """

    explainer: Explainer
    relevance: Shape
    outputs: Shape
    sum_axis: int | None
    dtype: str
    computed: np.dtype[Any]
    ledger: bool
    clip: bool
    strict: bool
    scores: ChannelScores | None
    n_channels: int

    def columns(self) -> list[Column]:
        """The arrays that `rows` fills."""
        kept = [s for axis, s in enumerate(self.relevance, 1) if axis != self.sum_axis]
        totals = LEDGER if self.ledger else TOTALS
        index = () if len(self.outputs) == 1 else (len(self.outputs),)
        columns = [
            Column("relevance", tuple(kept), self.dtype, np.nan, {"summed over axis": self.sum_axis}),
            Column("outputs", self.outputs, np.float32, np.nan, {}),
            Column("target", index, np.int64, -1, {}),
            Column("ledger", (len(totals),), np.float64, np.nan, {"columns": list(totals)}),
        ]
        if self.scores is not None:
            columns.append(Column("channels", (self.n_channels,), np.float64, np.nan, asdict(self.scores.channels)))
        return columns

    def chunk(self, errors: list[str], target: Any, names: Sequence[str]) -> Chunk:
        """A chunk of which nothing is known but what could not be read.

        Raises
        ------
        InputError : when strict, for a bad sample
        """
        n, kind = len(errors), self.computed
        relevance, outputs = np.empty((n, *self.relevance), kind), np.empty((n, *self.outputs), kind)
        ledger, channels = np.empty((n, len(LEDGER) if self.ledger else 0)), np.empty((n, self.n_channels))
        chunk = Chunk(errors, target, names, relevance, outputs, ledger, channels)
        self.check(chunk)
        return chunk

    def blocks(self, x: Array) -> list[slice]:
        """What is explained of a chunk's samples in one pass each."""
        size = self.explainer.plan_for(x.shape).n
        return [slice(i, min(i + size, len(x))) for i in range(0, len(x), size)]

    def explain(self, chunk: Chunk, x: Array, block: slice) -> None:
        """Explain a block of a chunk's samples x: the part that the kernels do."""
        which = list(range(block.start, block.stop))
        if any(chunk.errors[block]):
            self._explain_some(chunk, x, [i for i in which if not chunk.errors[i]])
        elif not self._explained(chunk, x, block):
            self._explain_halves(chunk, x, which)

    def rows(self, chunk: Chunk) -> dict[str, Array]:
        """Rows of the output, when all blocks are explained: the part that another thread does meanwhile.

        Raises
        ------
        InputError : when strict, for a bad sample
        """
        bad = np.array([bool(error) for error in chunk.errors])
        chunk.relevance[bad], chunk.outputs[bad] = 0, 0
        values = chunk.relevance if self.sum_axis is None else _summed(chunk.relevance, self.sum_axis)
        with np.errstate(over="ignore", under="ignore"):
            relevance = (
                np.stack(list(map(halves, values)))
                if self.dtype == "float16"
                else values.astype(self.dtype, copy=False)
            )
        if relevance is not chunk.relevance:  # which is finite, or there is an error
            beyond = ~np.isfinite(relevance).reshape(len(bad), -1).all(axis=1)
            for i in np.flatnonzero(beyond):
                chunk.errors[i] = (
                    f"relevance up to {np.abs(values[i]).max():g} is beyond {self.dtype}; store it as float32"
                )
            bad |= beyond
        self.check(chunk)
        entry = Targets.parse(chunk.target, len(bad), self.outputs).entry(slice(None), clip=self.clip)
        entry = entry.settle(chunk.outputs)
        index, totals = _index(entry, chunk.outputs), self._totals(chunk, entry)
        rows = {"relevance": relevance, "outputs": chunk.outputs, "target": index, "ledger": totals}
        if self.scores is not None:
            rows["channels"] = chunk.channels
        if bad.any():
            rows = {c.name: _filled(rows[c.name], bad, c) for c in self.columns()}
        return {**rows, "error": np.array(chunk.errors, dtype=object)}

    def check(self, chunk: Chunk) -> None:
        """Stop at the first bad sample when strict."""
        for error, name in zip(chunk.errors, chunk.names, strict=True):
            if self.strict and error:
                raise InputError(f"{name}: {error}" if name not in error else error)

    def _explain_some(self, chunk: Chunk, x: Array, which: list[int]) -> None:
        """Explain these samples; if some of them cannot be, halve until it is known which. A sample's bits do not
        depend on its batch.
        """
        if which and not self._explained(chunk, x, np.array(which)):
            self._explain_halves(chunk, x, which)

    def _explain_halves(self, chunk: Chunk, x: Array, which: list[int]) -> None:
        if len(which) > 1:
            half = len(which) // 2
            self._explain_some(chunk, x, which[:half])
            self._explain_some(chunk, x, which[half:])

    def _explained(self, chunk: Chunk, x: Array, which: Which) -> bool:
        """Whether these samples can be explained together; of a single one that cannot be, the error is noted."""
        some, target = x[which], chunk.own(which)
        there = chunk.relevance[which] if isinstance(which, slice) else None
        try:
            relevance, outputs, *accounts = self.explainer.explain(
                some, target, return_outputs=True, return_ledger=self.ledger, out=there
            )
            for account in accounts:
                totals = [account.start, account.end, *account.absorbed.values(), account.residual, account.bound]
                chunk.ledger[which] = np.stack(totals, axis=1)
            if self.scores is not None:
                chunk.channels[which] = self.scores(some, target, {})
        except (InputError, DomainError, NumericsError) as error:
            if len(some) == 1:
                chunk.errors[which.start if isinstance(which, slice) else which[0]] = str(error)
            return False
        chunk.outputs[which] = outputs
        if there is None:
            chunk.relevance[which] = relevance
        return True

    def _totals(self, chunk: Chunk, entry: Entry) -> Array:
        if self.ledger:
            return chunk.ledger
        return np.stack([total(entry.relevance(chunk.outputs)), total(chunk.relevance)], axis=1)


def _index(entry: Entry, outputs: Array) -> Array:
    """Of every sample the output that was explained, by its place along each axis."""
    numbers = outputs.argmax(axis=1) if entry.numbers is None else entry.numbers[:, 0]
    return numbers if outputs.ndim == 2 else np.stack(np.unravel_index(numbers, outputs.shape[1:]), axis=1)


def _filled(values: Array, bad: NDArray[np.bool_], column: Column) -> Array:
    """With the column's filling in the rows of bad samples."""
    filled = np.array(values, column.dtype)
    filled[bad] = column.fill
    return filled


def halves(values: Array) -> NDArray[np.float16]:
    """What ``values.astype(np.float16)`` gives, but without the exception that each of many subnormal numbers would
    raise, at 60 ns.
    """
    size = np.abs(values)
    small = size < SUBNORMAL
    half = np.where(small, 0, values).astype(np.float16)
    steps = np.rint(np.where(small, size, 0) * 2.0**24).astype(np.uint16)  # to even, as elsewhere
    steps |= np.signbit(values).astype(np.uint16) << 15
    np.copyto(half.view(np.uint16), steps, where=small)
    return half


def _summed(relevance: Array, axis: int) -> Array:
    """One channel after the other, in float64."""
    sums: Array = relevance.take(0, axis).astype(np.float64)
    for channel in range(1, relevance.shape[axis]):
        sums += relevance.take(channel, axis)
    return sums
