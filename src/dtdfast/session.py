"""How the Explainer talks to an executor: a session is one batch on its way through the network and back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .arrays.checks import Check
from .errors import BackendError
from .ledger.account import Account
from .plan.program import Program
from .targets import Entry

Array = NDArray[Any]


def put(values: Array, into: Array) -> None:
    """Values into the caller's array, where those beyond its range become infinite (the Explainer finds them)."""
    with np.errstate(over="ignore"):
        into[...] = values


class Session(Protocol):
    """One batch of samples.

    Attributes
    ----------
    doubtful : the samples of the last explanation whose denominators were checked and found wanting
    """

    doubtful: Sequence[int]

    def explain(self, x: Array, entry: Entry, result: Array, outputs: Array | None = None) -> None:
        """Relevance (n, t, *leaves) of x into `result`, and the outputs (n, *out) into `outputs` if they are wanted."""

    def predict(self, x: Array, outputs: Array) -> None:
        """Outputs (n, *out) of x into `outputs`."""

    def forward(self, x: Array) -> Array:
        """Outputs (n, *out) of x (n, *in)."""

    def relevance(self, start: Array, result: Array, accounts: list[Account] | None = None) -> None:
        """Start (n, t, *out) → result (n, t, *leaves); with a ledger session, one account per unit."""


class Executor(Protocol):
    """Runs one program."""

    program: Program

    def batch_size(self, n: int, n_targets: int, *, ledger: bool = False) -> int: ...

    def session(self, n: int, n_targets: int, *, ledger: bool = False) -> AbstractContextManager[Session]: ...

    def plan(self, n: int, n_targets: int) -> Any: ...

    def profile(self, x: Array, start: Callable[[Array], Array]) -> Any: ...


class HostSession(ABC):
    """A session whose results are at hand at once."""

    doubtful: Sequence[int] = ()

    @abstractmethod
    def forward(self, x: Array) -> Array: ...

    @abstractmethod
    def relevance(self, start: Array, result: Array, accounts: list[Account] | None = None) -> None: ...

    def explain(self, x: Array, entry: Entry, result: Array, outputs: Array | None = None) -> None:
        values = self.forward(x)
        self.relevance(entry.relevance(values), result)
        if outputs is not None:
            put(values, outputs)

    def predict(self, x: Array, outputs: Array) -> None:
        put(self.forward(x), outputs)


class OracleSession(HostSession):
    def __init__(self, program: Program) -> None:
        from .oracle.executor import Oracle

        self._oracle = Oracle(program.network, program.leaves, program.gradient)

    def forward(self, x: Array) -> Array:
        return self._oracle.forward(x)

    def relevance(self, start: Array, result: Array, accounts: list[Account] | None = None) -> None:
        result[...] = self._oracle.relevance(start, accounts)


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

    @contextmanager
    def session(self, n: int, n_targets: int, *, ledger: bool = False) -> Iterator[OracleSession]:
        with np.errstate(all="ignore"):
            yield OracleSession(self.program)

    def plan(self, n: int, n_targets: int) -> Any:
        from .plan.lower import lower

        return lower(self.program, n, n_targets)

    def profile(self, x: Array, start: Callable[[Array], Array]) -> Any:
        raise BackendError("the oracle has no kernels to profile; use backend='cpu'")


@dataclass(frozen=True)
class Options:
    """What executors are made with."""

    backend: str
    precision: str
    batch_size: int | None
    n_threads: int | None
    device: Any
    check: Check


class Maker:
    """Makes the executors of one Explainer, which share their packed weights."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._shared: Any = None
        if options.backend == "cuda":
            from .cuda.run.driver import open_device
            from .cuda.run.executor import Workplace

            self._shared = Workplace(open_device(options.device), options.precision)
        elif options.backend == "cpu":
            from .packing import WeightStore

            self._shared = WeightStore()

    @property
    def nbytes(self) -> int:
        """Bytes of packed weights in main memory."""
        return self._shared.nbytes if self._options.backend == "cpu" else 0

    def __call__(self, program: Program) -> Executor:
        options, wide = self._options, program.real == "f8"
        if options.backend == "oracle" or (options.backend == "cuda" and wide):
            return OracleExecutor(program, options.batch_size)
        if options.backend == "cuda":
            from .cuda.run.executor import CudaExecutor

            return CudaExecutor(program, options.batch_size, self._shared, options.check)
        from .cpu.executor import CpuExecutor

        return CpuExecutor(
            program, options.batch_size, options.n_threads, self._shared, "float64" if wide else options.precision
        )
