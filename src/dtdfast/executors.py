"""Which executor runs a program, and the executors of one Explainer, by shape of sample."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import layers as L
from .budget import budget
from .errors import LayerError
from .intake import Intake
from .locks import renewed
from .options import Options
from .plan.domain import Domain
from .plan.program import EXPLAIN, PREDICT, Program, prepare, uncollected
from .plan.shapes import Shape
from .presets import RuleBook
from .rules import convention_of

if TYPE_CHECKING:
    from .session import Executor

KEPT = 2**29
"""Bytes of what an Explainer keeps for each shape of sample beside packed weights, or an eighth of the memory budget
where that is less."""


class Executors:
    """The executors of one Explainer, made when first asked for; they share its packed weights, or its GPU.

    Parameters
    ----------
    options : of the Explainer, checked
    backend : the one that was chosen
    book : rules that the options name
    intake : what calls are checked by
    """

    def __init__(self, layers: list[L.Layer], options: Options, backend: str, book: RuleBook, intake: Intake) -> None:
        self._layers, self._options, self._backend = layers, options, backend
        self._book, self._domain, self._check, self._taken = book, intake.domain, intake.check, intake.taken
        self._shared: Any = None
        if backend == "cuda":
            from .cuda.run.driver import open_device
            from .cuda.run.executor import Workplace

            self._shared = Workplace(open_device(options.device), options.precision)
        elif backend == "cpu":
            from .packing import WeightStore

            self._shared = WeightStore()
        self.made: OrderedDict[tuple[Shape, str, bool], Executor] = OrderedDict()
        self._lock = renewed(self, "_lock")

    @property
    def nbytes(self) -> int:
        """Bytes of packed weights in main memory, and of plans."""
        with self._lock:
            weights = self._shared.nbytes if self._backend == "cpu" else 0
            return int(weights + sum(e.program.nbytes for e in self.made.values()))

    def __call__(self, sample: Shape, kind: str, *, exact: bool = False) -> Executor:
        """The executor for samples of this shape, made once; with `exact` in float64 whatever precision was asked
        for.
        """
        with self._lock:
            executor = self.made.get((sample, kind, exact))
            if executor is None:
                if not sample or min(sample) < 1:
                    raise LayerError(
                        f"a sample of shape {sample} cannot be explained: expected (n, ...) with sizes of at least 1"
                    )
                with uncollected():
                    executor = self._executor(self._program(sample, kind, exact))
                self.made[sample, kind, exact] = executor
                while len(self.made) > 1 and sum(e.program.nbytes for e in self.made.values()) > min(
                    KEPT, budget() // 8
                ):
                    self.made.popitem(last=False)
            elif len(self.made) > 1 and next(reversed(self.made)) != (sample, kind, exact):
                self.made.move_to_end((sample, kind, exact))
            return executor

    def _program(self, sample: Shape, kind: str, exact: bool) -> Program:
        book, domain = self._book, replace(self._domain, real=self._taken)
        if kind != EXPLAIN:
            book, domain = RuleBook("dtd", convention_of("dtd")), Domain("real")
        start = self._options.start if kind != PREDICT else None
        precision = "float64" if exact else "" if self._backend == "cuda" else self._options.precision
        tokens = self._check.words is not None
        return prepare(self._layers, sample, tokens, kind, start, self._options.stop, book, domain, precision)

    def _executor(self, program: Program) -> Executor:
        options, wide = self._options, program.real == "f8"
        if self._backend == "oracle":
            from .oracle.session import OracleExecutor

            return OracleExecutor(program, options.batch_size)
        if self._backend == "cuda" and not wide:
            from .cuda.run.executor import CudaExecutor

            return CudaExecutor(program, options.batch_size, self._shared, self._check)
        from .cpu.executor import CpuExecutor
        from .packing import WeightStore

        store = WeightStore() if self._backend == "cuda" else self._shared  # float64 is for the CPU
        precision = "float64" if wide else options.precision
        return CpuExecutor(program, options.batch_size, options.n_threads, store, precision)
