"""How the Explainer talks to an executor: a session is one batch on its way through the network and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .layers import Layer
from .ledger.ledger import Row
from .plan.program import Program
from .plan.weights import OfWeights
from .targets import Entry
from .underflow import Rows, empty, empty_maps, may_underflow

Array = NDArray[Any]
Beside = Mapping[str, Array]  # what samples bring along beside x, by the names of the Givens


def rows(beside: Beside, block: slice) -> Beside:
    """What a block of samples brings along."""
    return {name: values[block] for name, values in beside.items()}


def put(values: Array, into: Array) -> None:
    """Values into the caller's array, where those beyond its range become infinite (the Explainer finds them)."""
    with np.errstate(over="ignore", under="ignore"):
        into[...] = values


class Session(Protocol):
    """One batch of samples.

    Attributes
    ----------
    inexact : sequence of int
        The samples of the last explanation whose denominators were checked and found wanting.
    empty : Rows
        (sample, target) of the last explanation (samples and 0 of a prediction) for which all is 0, but perhaps not in
        float64.
    """

    inexact: Sequence[int]
    empty: Rows

    def explain(self, x: Array, entry: Entry, result: Array, outputs: Array | None = None) -> None:
        """Relevance (n, t, *leaves) of x into `result`, and the outputs (n, *out) into `outputs` if they are wanted."""

    def predict(self, x: Array, outputs: Array) -> None:
        """Outputs (n, *out) of x into `outputs`."""

    def forward(self, x: Array) -> Array:
        """Outputs (n, *out) of x (n, *in)."""

    def relevance(self, start: Array, result: Array) -> None:
        """Start (n, t, *out) → result (n, t, *leaves)."""

    def rows(self, layers: list[Layer], u: float) -> list[Row]:
        """Of a session with a ledger: what became of the last relevance, for a unit roundoff u."""


class WeightSums(Protocol):
    """What samples have added up for the relevance of weights."""

    def found(self) -> list[OfWeights]:
        """The relevance of every operand's weights, and of every bias that has some."""


class Executor(Protocol):
    """Runs one program."""

    program: Program

    def batch_size(self, n: int, n_targets: int, *, ledger: bool = False) -> int: ...

    def weight_sums(self, positions: frozenset[int]) -> WeightSums:
        """Empty sums for the relevance of these entries' weights, which sessions add to."""

    def session(
        self, n: int, n_targets: int, beside: Beside, *, ledger: bool = False, weights: Any = None
    ) -> AbstractContextManager[Session]:
        """A session; with `weights` of `weight_sums` for one target each."""

    def plan(self, n: int, n_targets: int) -> Any: ...

    def profile(self, x: Array, beside: Beside, start: Callable[[Array], Array]) -> Any: ...


class HostSession(ABC):
    """A session whose results are at hand at once."""

    inexact: Sequence[int] = ()
    empty: Rows = ()
    narrow = False  # its numbers are float32, so that float64 may know more

    @abstractmethod
    def forward(self, x: Array) -> Array: ...

    @abstractmethod
    def relevance(self, start: Array, result: Array) -> None: ...

    def explain(self, x: Array, entry: Entry, result: Array, outputs: Array | None = None) -> None:
        values = self.forward(x)
        start = entry.relevance(values)
        self.relevance(start, result)
        self.empty = empty_maps(result) if self.narrow else ()
        if self.empty:
            self.empty = may_underflow(self.empty, entry.start, values, start)
        if outputs is not None:
            put(values, outputs)

    def predict(self, x: Array, outputs: Array) -> None:
        put(self.forward(x), outputs)
        self.empty = [(i, 0) for i in empty(outputs)] if self.narrow else ()
