"""The CUDA executor: plans run as graphs of kernels on one GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...arrays.checks import Check
from ...errors import BackendError
from ...plan.batches import Batches
from ...plan.lower import lower
from ...plan.plan import Plan
from ...plan.profile import Profile, Timing
from ...plan.program import EXPLAIN, Program, refuse_cancelling
from ...plan.weights import ProductSums
from ...session import Beside
from ..kernels.warp_product import ROW_BYTES
from . import contraction
from .device import Device, OutOfMemory
from .memory import Memory
from .prepared import Prepared
from .session import CudaSession

Array = NDArray[Any]

BUDGET = 2**33
"""Bytes of an arena where the caller gives no batch_size, or half of the free memory where that is less."""

REALS = {"bfloat16": ("bf16", "bf16"), "mixed": ("f4", "bf16")}
"""How values, and how gates and relevance lie in memory, in the precisions that keep them in two bytes."""

ANY = 2**62


class Workplace:
    """What the executors of one Explainer share: a device, its memory, and the lock under which one call at a time uses
    them.
    """

    def __init__(self, device: Device, precision: str) -> None:
        self.device, self.precision = device, precision
        self.reals = REALS.get(precision, ("f4", "f4"))
        self.memory = Memory(device, contraction)
        self.lock = threading.RLock()


@dataclass(frozen=True)
class _Key:
    n: int
    t: int
    ledger: bool
    chunked: bool
    weights: frozenset[int] = frozenset()


class CudaExecutor:
    """Runs one program; plans are made per batch shape and kept, with their graphs."""

    def __init__(self, program: Program, batch_size: int | None, place: Workplace, check: Check) -> None:
        self.program, self._place, self._check = program, place, check
        if place.precision != "float32" and program.relevant:
            refuse_cancelling(program, place.precision)
        self._prepared: dict[_Key, Prepared] = {}
        # samples and targets, halved when memory ran out; a ledger takes more
        self._most = {False: (ANY, ANY), True: (ANY, ANY)}
        self._room: int | None = None  # bytes of an arena, once one sample with one target ran out of memory
        self._lock = place.lock
        free, _ = place.device.memory()
        self._batches = Batches(program, batch_size, min(BUDGET, free // 2), reals=place.reals, local=False)
        self._bounds = check.bounds(program.input_shape) if program.kind == EXPLAIN else (None, None)

    # ---------------------------------------------------------------------------------------------------------- sizes

    def batch_size(self, n: int, n_targets: int, *, ledger: bool = False) -> int:
        """Samples per pass, with memory for them at hand: halved until they fit; then values are made again."""
        with self._lock:
            while True:
                samples, targets = self._sizes(n, n_targets, ledger)
                prepared = self._plan(samples, n_targets, ledger)
                try:
                    prepared.bind()
                    return samples
                except OutOfMemory as problem:
                    # a smaller one follows, and what failed may have been a weight beside it
                    self._place.memory.drop_arena()
                    if samples == 1 and targets == 1:
                        arena, room = prepared.plan.arena, self._room
                        self._room = 3 * arena // 4 if room is None or arena <= room else None
                        if self._room is None:
                            self._forget(prepared)
                            raise self._too_large(prepared, problem) from None
                    self._most[ledger] = (
                        (-(-samples // 2), self._most[ledger][1]) if samples > 1 else (1, -(-targets // 2))
                    )
                    self._forget(prepared)

    def _sizes(self, n: int, n_targets: int, ledger: bool) -> tuple[int, int]:
        samples, targets = self._most[ledger]
        return min(samples, self._batches.samples(n, n_targets)), min(targets, self._batches.targets(n_targets))

    def _forget(self, prepared: Prepared) -> None:
        prepared.unbind()
        self._prepared = {k: p for k, p in self._prepared.items() if p is not prepared}

    def _too_large(self, prepared: Prepared, problem: OutOfMemory) -> BackendError:
        free, total = self._place.device.memory()
        return BackendError(
            f"the GPU is out of memory: one sample with one target needs {prepared.nbytes:,} bytes beside the "
            "weights, and an allocation "
            f"of {problem.wanted:,} bytes failed with {free:,} of {total:,} free; free memory there, choose another "
            "by device=, or use "
            "backend='cpu'"
        )

    # ---------------------------------------------------------------------------------------------------------- plans

    def _plan(self, n: int, n_targets: int, ledger: bool, weights: frozenset[int] = frozenset()) -> Prepared:
        t = self._sizes(n, n_targets, ledger)[1]
        key = _Key(n, t, ledger, t < n_targets, weights)
        if key not in self._prepared:
            options: dict[str, Any] = {"chunked": key.chunked, "reals": self._place.reals, "most": self._room}
            options |= {"local": False, "early": True, "columns": ROW_BYTES}
            plan = lower(self.program, n, t, ledger=ledger, weights=weights, **options)
            self._prepared[key] = Prepared(plan, self._place.memory, contraction, self._place.precision, self._bounds)
        return self._prepared[key]

    def plan(self, n: int, n_targets: int) -> Plan:
        with self._lock:
            prepared = self._plan(n, n_targets, False)
            return replace(prepared.plan, bodies=prepared.bodies)

    def weight_sums(self, positions: frozenset[int]) -> ProductSums:
        return ProductSums(positions)

    @contextmanager
    def session(
        self, n: int, n_targets: int, beside: Beside, *, ledger: bool = False, weights: ProductSums | None = None
    ) -> Iterator[CudaSession]:
        with self._lock:
            prepared = self._plan(n, n_targets, ledger, weights.positions if weights is not None else frozenset())
            try:
                prepared.bind()
            except OutOfMemory as problem:
                raise self._too_large(prepared, problem) from None
            weighing, device = prepared.plan.weighing, self._place.device
            if weights is None or weighing is None:
                yield CudaSession(prepared, device, self._check, beside)
                return
            sums = weights.of(weighing)
            device.upload(prepared.at("weights"), sums, device.stream)
            device.synchronize(device.stream)
            yield CudaSession(prepared, device, self._check, beside)
            device.download(sums, prepared.at("weights"), device.stream)
            device.synchronize(device.stream)

    def profile(self, x: Any, beside: Beside, start: Callable[[Array], Array]) -> Profile:
        """Every step timed alone by events of the GPU; the least of ten runs counts."""
        with self.session(len(x), 1, beside) as session:
            outputs = session.forward(x)
            session.relevance(start(outputs)[:, :1], np.empty((len(x), 1, *self.program.leaves.shape), np.float32))
            prepared, plan = session.prepared, session.prepared.plan
            steps = [*plan.forward, *plan.relevance]
            given = [prepared.steps(i, i + 1) for i in range(len(steps))]
            # the first of several borders stands for all
            seconds = [self._place.device.seconds(launches, 10) if launches else 0.0 for launches in given]
        rows = zip(steps, seconds, prepared.bodies, strict=True)
        return Profile([Timing.of(plan, i, *row) for i, row in enumerate(rows)])
