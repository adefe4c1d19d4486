"""One chunk of a run: samples in, rows of the output out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DomainError, InputError, NumericsError
from ..explainer import Explainer
from ..ledger import CAUSES, Ledger, total
from ..plan.shapes import Shape
from ..targets import Targets
from .store import Column

Array = NDArray[Any]

TOTALS = ("entered", "arrived")
LEDGER = (*TOTALS, *(f"absorbed: {cause}" for cause in CAUSES), "residual", "bound")


@dataclass(frozen=True)
class Part:
    """Samples of a chunk that were explained together.

    Attributes
    ----------
    which : their numbers within the chunk
    target : None, int, tuple or (k,) ints of theirs
    """

    which: NDArray[np.intp]
    target: Any
    relevance: Array
    outputs: Array
    account: Ledger | None


@dataclass
class Explained:
    """A chunk as the kernels left it: parts that hold all its samples but those with an error."""

    names: list[str]
    errors: list[str]
    parts: list[Part]


@dataclass(frozen=True)
class Work:
    """What is done with every chunk.

    Parameters
    ----------
    relevance, outputs : shapes of one sample's, as `Explainer.explain` returns them
    sum_axis : axis of relevance (batch first) that is summed in float64 before it is stored, or None
    dtype : of the stored relevance
    ledger : whether every cause of absorption is followed, instead of what entered and arrived alone
    clip : whether a negative start is raised to 0, as the preset wants it
    strict : whether a bad sample stops the run
    """

    explainer: Explainer
    relevance: Shape
    outputs: Shape
    sum_axis: int | None
    dtype: str
    ledger: bool
    clip: bool
    strict: bool

    def columns(self) -> list[Column]:
        """The arrays that `rows` fills."""
        kept = [s for axis, s in enumerate(self.relevance, 1) if axis != self.sum_axis]
        totals = LEDGER if self.ledger else TOTALS
        index = () if len(self.outputs) == 1 else (len(self.outputs),)
        return [
            Column("relevance", tuple(kept), self.dtype, np.nan, {"summed over axis": self.sum_axis}),
            Column("outputs", self.outputs, np.float32, np.nan, {}),
            Column("target", index, np.int64, -1, {}),
            Column("ledger", (len(totals),), np.float64, np.nan, {"columns": list(totals)}),
        ]

    def explained(self, x: Array, errors: list[str], target: Any, names: list[str]) -> Explained:
        """Explain the samples of one chunk: the part that the kernels do.

        Parameters
        ----------
        x : (k, ...) samples
        errors : for each what is wrong with it already, or ""
        target : None, int, tuple or (k,) ints
        names : how a message calls each sample

        Raises
        ------
        InputError : when strict, for a bad sample
        """
        chunk = Explained(names, list(errors), [])
        self._stop(chunk)
        self._explain(chunk, x, target, np.array([i for i, error in enumerate(errors) if not error], np.intp))
        self._stop(chunk)
        return chunk

    def rows(self, chunk: Explained) -> dict[str, Array]:
        """Rows of the output: the part that another thread does meanwhile.

        Raises
        ------
        InputError : when strict, for relevance that cannot be stored
        """
        parts = [(part.which, self._stored(chunk, part)) for part in chunk.parts]
        self._stop(chunk)
        errors = np.array(chunk.errors, dtype=object)
        if len(parts) == 1 and len(parts[0][0]) == len(errors):
            return {**parts[0][1], "error": errors}
        rows = {c.name: np.full((len(errors), *c.shape), c.fill, c.dtype) for c in self.columns()}
        for which, values in parts:
            for name, value in values.items():
                rows[name][which] = value
        return {**rows, "error": errors}

    def _stop(self, chunk: Explained) -> None:
        for error, name in zip(chunk.errors, chunk.names, strict=True):
            if self.strict and error:
                raise InputError(f"{name}: {error}" if name not in error else error)

    def _explain(self, chunk: Explained, x: Array, target: Any, which: NDArray[np.intp]) -> None:
        """Explain these samples; if some of them cannot be, halve until it is known which.  A sample's bits do not depend on its batch."""
        if not len(which):
            return
        try:
            every = len(which) == len(x)
            own = target[which] if isinstance(target, np.ndarray) else target
            chunk.parts.append(self._part(which, x if every else x[which], own))
        except (InputError, DomainError, NumericsError) as error:
            if len(which) == 1:
                chunk.errors[int(which[0])] = str(error)
                return
            half = len(which) // 2
            self._explain(chunk, x, target, which[:half])
            self._explain(chunk, x, target, which[half:])

    def _part(self, which: NDArray[np.intp], x: Array, target: Any) -> Part:
        relevance, outputs = self.explainer.explain(x, target, return_outputs=True)
        account = self.explainer.ledger(x, target) if self.ledger else None
        return Part(which, target, relevance, outputs, account)

    def _stored(self, chunk: Explained, part: Part) -> dict[str, Array]:
        """Rows of a part, as they are stored; a sample whose relevance is beyond that type becomes an error."""
        n, account = len(part.which), part.account
        if account is not None:
            totals = [account.start, account.end, *account.absorbed.values(), account.residual, account.bound]
        else:
            start = Targets.parse(part.target, n, self.outputs).entry(slice(0, n), clip=self.clip).relevance(part.outputs)
            totals = [total(start), total(part.relevance)]
        values = part.relevance if self.sum_axis is None else _summed(part.relevance, self.sum_axis)
        with np.errstate(over="ignore"):
            relevance = values.astype(self.dtype, copy=False)
        index = _index(part.target, part.outputs)
        rows = {"relevance": relevance, "outputs": part.outputs, "target": index, "ledger": np.stack(totals, axis=1)}
        if relevance is part.relevance:  # explained without overflow
            return rows
        bad = ~np.isfinite(relevance).reshape(n, -1).all(axis=1)
        for i in np.flatnonzero(bad):
            largest = np.abs(values[i]).max()
            chunk.errors[int(part.which[i])] = f"relevance up to {largest:g} is beyond {self.dtype}; store it as float32"
        if bad.any():
            rows = {c.name: np.where(bad.reshape(n, *(1,) * len(c.shape)), c.fill, rows[c.name]).astype(c.dtype) for c in self.columns()}
        return rows


def _index(target: Any, outputs: Array) -> Array:
    """Of every sample the output that was explained."""
    index: Array = outputs.argmax(axis=1) if target is None else np.asarray(target)
    return np.broadcast_to(index, (len(outputs), len(target)) if isinstance(target, tuple) else (len(outputs),))


def _summed(relevance: Array, axis: int) -> Array:
    """Sample by sample, so that the order of summation cannot depend on how many there are."""
    return np.stack([values.sum(axis=axis - 1, dtype=np.float64) for values in relevance])
