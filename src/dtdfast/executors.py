"""Which executor runs a program, and the executors of one Explainer, by shape of sample."""

from __future__ import annotations

import operator
from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import layers as L
from .budget import budget
from .errors import LayerError, ShapeError
from .intake import Intake
from .locks import renewed
from .options import Options
from .plan.domain import Domain
from .plan.program import EXPLAIN, PREDICT, Outputs, Program, last_entry, outputs, planning, prepare
from .plan.shapes import Shape
from .presets import RuleBook
from .rules import convention_of
from .sizes import check_sample

if TYPE_CHECKING:
    from .session import Executor

Key = tuple[Shape, str, bool, int | None]

KEPT = 2**29
"""Bytes of what an Explainer keeps for each shape of sample beside packed weights, or an eighth of the memory budget
where that is less."""


TOKENS = 4
"""Places of an output's first axis of which each has a plan of its own, for each shape of sample; all others have one
together."""


def shape_of(given: Any) -> Shape:
    """The shape of a batch, as a caller gives it."""
    try:
        shape = tuple(map(operator.index, given))
    except TypeError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ShapeError(f"the input's shape is {given!r:.60}, expected (n, ...) with integers of at least 1")
    return shape


def check(sample: Shape) -> None:
    if not sample or min(sample) < 1:
        raise LayerError(f"a sample of shape {sample} cannot be explained: expected (n, ...) with sizes of at least 1")


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
        self._reads = intake.reads
        self._shared: Any = None
        if backend == "cuda":
            from .cuda.run.driver import open_device
            from .cuda.run.executor import Workplace

            self._shared = Workplace(open_device(options.device), options.precision)
        elif backend == "cpu":
            from .packing import WeightStore

            self._shared = WeightStore(options.n_threads)
        self.made: OrderedDict[Key, Executor] = OrderedDict()
        self._outputs: dict[tuple[Shape, str], Outputs] = {}
        self._lock = renewed(self, "_lock")

    def outputs(self, sample: Shape, kind: str) -> Outputs:
        """What the outputs for samples of this shape are."""
        with self._lock:
            if (sample, kind) not in self._outputs:
                self._fits(sample, kind)
                start, stop = self._between(kind)
                self._outputs[sample, kind] = outputs(
                    self._layers, sample, self._words, kind, start, stop, self._book, self._reads
                )
            return self._outputs[sample, kind]

    def apart(self, sample: Shape, kind: str, token: int) -> bool:
        """Whether this token of the outputs has a plan of its own."""
        found = self.outputs(sample, kind)
        with self._lock:
            if self._backend != "oracle" and found.narrows and len(found.planned) < TOKENS:
                found.planned.add(token)
            return token in found.planned

    @property
    def nbytes(self) -> int:
        """Bytes of packed weights in main memory, and of plans."""
        with self._lock:
            weights = self._shared.nbytes if self._backend == "cpu" else 0
            return int(weights + sum(e.program.nbytes for e in self.made.values()))

    def __call__(self, sample: Shape, kind: str, *, exact: bool = False, token: int | None = None) -> Executor:
        """The executor for samples of this shape, made once; with `exact` in float64 whatever precision was asked for;
        with `token` for that place of the outputs alone.
        """
        key = sample, kind, exact, token
        with self._lock:
            executor = self.made.get(key)
            if executor is None:
                self._fits(sample, kind)
                with planning():
                    executor = self._executor(self._program(*key))
                self.made[key] = executor
                most = min(KEPT, budget() // 8)
                while len(self.made) > 1 and sum(e.program.nbytes for e in list(self.made.values())) > most:
                    self.made.popitem(last=False)
            elif len(self.made) > 1 and next(reversed(self.made)) != key:
                with suppress(KeyError):
                    self.made.move_to_end(key)
            return executor

    def _fits(self, sample: Shape, kind: str) -> None:
        check(sample)
        last = last_entry(self._layers, self._between(kind)[0], kind)
        check_sample(self._layers, sample, self._words, last, self._reads)

    def _between(self, kind: str) -> tuple[int | None, int | None]:
        """The options start and stop."""
        return self._options.start if kind != PREDICT else None, self._options.stop

    @property
    def _words(self) -> bool:
        """Whether the input holds integers."""
        return self._check.words is not None

    def _program(self, sample: Shape, kind: str, exact: bool, token: int | None) -> Program:
        book, domain = self._book, replace(self._domain, real=self._taken)
        if kind != EXPLAIN:
            book, domain = RuleBook("dtd", convention_of("dtd")), Domain("real")
        start, stop = self._between(kind)
        precision = "float64" if exact else "" if self._backend == "cuda" else self._options.precision
        whole = self._backend == "oracle"
        return prepare(
            self._layers, sample, self._words, kind, start, stop, book, domain, precision, token, whole, self._reads
        )

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

        store = WeightStore(options.n_threads) if self._backend == "cuda" else self._shared  # float64 is for the CPU
        precision = "float64" if wide else options.precision
        return CpuExecutor(program, options.batch_size, options.n_threads, store, precision)
