"""The oracle as an executor: batches on their way through it, and how many samples fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from ..layers import Layer
from ..ledger.ledger import Row
from ..plan.lower import lower
from ..plan.program import Program
from ..session import Beside, HostSession
from .account import Account, row_of
from .executor import Oracle
from .weights import Weights

Array = NDArray[Any]


class OracleSession(HostSession):
    """A session of the float64 reference."""

    def __init__(self, program: Program, beside: Beside, ledger: bool, weights: Weights | None) -> None:
        self._ledger, self._weights = ledger, weights
        self._accounts: list[Account] | None = None
        self._oracle = Oracle(program.network, program.leaves, program.gradient, beside)

    def forward(self, x: Array) -> Array:
        return self._oracle.forward(x)

    def relevance(self, start: Array, result: Array) -> None:
        self._accounts = [] if self._ledger else None
        result[...] = self._oracle.relevance(start, self._accounts, self._weights)

    def rows(self, layers: list[Layer], u: float) -> list[Row]:
        return [row_of(account, layers, u) for account in self._accounts or ()]


class OracleExecutor:
    """NumPy float64, a few samples at a time."""

    ELEMENTS = 2**27  # values held per pass, about a gigabyte

    def __init__(self, program: Program, batch_size: int | None) -> None:
        self.program, self._batch_size = program, batch_size

    def batch_size(self, n: int, n_targets: int, *, ledger: bool = False) -> int:
        if self._batch_size is not None:
            return min(n, self._batch_size)
        per_sample = sum(math.prod(t.shape) for t in self.program.network.tensors) * (1 + n_targets)
        return max(1, min(n, self.ELEMENTS // max(per_sample, 1)))

    def weight_sums(self, positions: frozenset[int]) -> Weights:
        return Weights(positions)

    @contextmanager
    def session(
        self, n: int, n_targets: int, beside: Beside, *, ledger: bool = False, weights: Weights | None = None
    ) -> Iterator[OracleSession]:
        with np.errstate(all="ignore"):
            yield OracleSession(self.program, beside, ledger, weights)

    def plan(self, n: int, n_targets: int) -> Any:
        return lower(self.program, n, n_targets)

    def profile(self, x: Array, beside: Beside, start: Callable[[Array], Array]) -> Any:
        raise BackendError("the oracle has no kernels to profile; use backend='cpu'")
