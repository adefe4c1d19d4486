"""One chunk of a run: samples in, rows of the output out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DomainError, InputError, NumericsError
from ..explainer import Explainer
from ..ledger import CAUSES
from ..plan.shapes import Shape
from ..targets import Targets
from .store import Column

Array = NDArray[Any]

TOTALS = ("entered", "arrived")
LEDGER = (*TOTALS, *(f"absorbed: {cause}" for cause in CAUSES), "residual", "bound")


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

    def rows(self, x: Array, errors: list[str], target: Any, names: list[str]) -> dict[str, Array]:
        """Explain the samples of one chunk.

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
        rows = {c.name: np.full((len(x), *c.shape), c.fill, c.dtype) for c in self.columns()}
        errors = list(errors)
        self._stop(errors, names)
        good = np.array([i for i, error in enumerate(errors) if not error], np.intp)
        self._fill(rows, errors, x, target, good)
        self._stop(errors, names)
        return {**rows, "error": np.array(errors, dtype=object)}

    def _stop(self, errors: list[str], names: list[str]) -> None:
        for error, name in zip(errors, names, strict=True):
            if self.strict and error:
                raise InputError(f"{name}: {error}" if name not in error else error)

    def _fill(self, rows: dict[str, Array], errors: list[str], x: Array, target: Any, which: NDArray[np.intp]) -> None:
        """Explain these samples; if some of them cannot be, halve until it is known which.  A sample's bits do not depend on its batch."""
        if not len(which):
            return
        try:
            values = self._explain(x[which], target[which] if isinstance(target, np.ndarray) else target)
        except (InputError, DomainError, NumericsError) as error:
            if len(which) == 1:
                errors[int(which[0])] = str(error)
                return
            half = len(which) // 2
            self._fill(rows, errors, x, target, which[:half])
            self._fill(rows, errors, x, target, which[half:])
            return
        for name, value in values.items():
            rows[name][which] = value

    def _explain(self, x: Array, target: Any) -> dict[str, Array]:
        relevance, outputs = self.explainer.explain(x, target, return_outputs=True)
        n = len(x)
        index = _index(target, outputs)
        if self.ledger:
            account = self.explainer.ledger(x, target)
            totals = [account.start, account.end, *account.absorbed.values(), account.residual, account.bound]
        else:
            start = Targets.parse(target, n, self.outputs).entry(slice(0, n), clip=self.clip).relevance(outputs)
            totals = [values.astype(np.float64).reshape(n, -1).sum(axis=1) for values in (start, relevance)]
        stored = relevance if self.sum_axis is None else _summed(relevance, self.sum_axis)
        return {"relevance": _narrowed(stored, self.dtype), "outputs": outputs, "target": index, "ledger": np.stack(totals, axis=1)}


def _index(target: Any, outputs: Array) -> Array:
    """Of every sample the output that was explained."""
    index: Array = outputs.argmax(axis=1) if target is None else np.asarray(target)
    return np.broadcast_to(index, (len(outputs), len(target)) if isinstance(target, tuple) else (len(outputs),))


def _summed(relevance: Array, axis: int) -> Array:
    """Sample by sample, so that the order of summation cannot depend on how many there are."""
    return np.stack([values.sum(axis=axis - 1, dtype=np.float64) for values in relevance])


def _narrowed(values: Array, dtype: str) -> Array:
    with np.errstate(over="ignore"):
        narrow = values.astype(dtype)
    if not np.isfinite(narrow).all():
        raise NumericsError(f"relevance up to {np.abs(values).max():g} is beyond {dtype}; store it as float32")
    return narrow
