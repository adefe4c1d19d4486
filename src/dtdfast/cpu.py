"""The CPU executor: plans run by the OpenMP kernels of csrc/."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._kernels import ffi, lib
from .account import Account
from .accounting import Accounts
from .cpu_encode import EXTERNALS, NARROW, Encoded
from .errors import BackendError
from .packing import WeightStore
from .plan.batches import Batches
from .plan.lower import bias_map, lower
from .plan.plan import Plan
from .plan.steps import Buffer
from .profile import Profile, Timing
from .program import Program, refuse_cancelling
from .session import HostSession, put
from .threads import default_threads, threads_for_run

Array = NDArray[Any]

MEMORY_BUDGET = 2**28
"""Bytes of arena that a pass may use where the caller gives no batch_size (one sample may need more)."""

ENOUGH = 5 * 2**25
"""Bytes of arena that leave the caches anyway: beyond them, more samples in a pass spare only the weights' way from memory."""

REALS = {"f4": lib.DTD_F4, "f8": lib.DTD_F8}

if lib.dtd_step_size() != ffi.sizeof("dtd_step"):
    raise ImportError("the compiled kernels do not fit this version's Python; reinstall dtdfast")


# ---------------------------------------------------------------------------------------------------------- instruction sets


def isa_names() -> list[str]:
    """Compiled instruction sets, slowest first."""
    return [ffi.string(lib.dtd_isa_name(i)).decode() for i in range(lib.dtd_isa_count())]


def isa_index() -> int:
    """The one to use: DTDFAST_ISA, else the fastest that this CPU runs."""
    names = isa_names()
    forced = os.environ.get("DTDFAST_ISA")
    if forced:
        if forced not in names or not lib.dtd_isa_usable(names.index(forced)):
            usable = ", ".join(n for i, n in enumerate(names) if lib.dtd_isa_usable(i))
            raise BackendError(f"DTDFAST_ISA={forced!r} cannot be used here; this CPU and build have {usable}")
        return names.index(forced)
    return max(i for i in range(len(names)) if lib.dtd_isa_usable(i))


def isa_name() -> str:
    return isa_names()[isa_index()]


def precisions() -> tuple[str, ...]:
    """What the instruction set in use computes in."""
    return ("float32", "float64", *(NARROW if lib.dtd_isa_bfloat16(isa_index()) else ()))


def kernel_config() -> dict[str, Any]:
    """What `build_config` says of the compiled kernels."""
    return {
        "compiler": ffi.string(lib.dtd_compiler()).decode(),
        "openmp": lib.dtd_openmp_version() or None,
        "instruction sets": isa_names(),
        "instruction set": isa_name(),
        "threads": default_threads(),
    }


# -------------------------------------------------------------------------------------------------------------------- arenas


@dataclass(eq=False)
class Arena:
    """Working memory, and the plan whose constants lie in it, with the number of pieces that they lie there for."""

    memory: Array
    holds: tuple[Encoded, int] | None = None

    @property
    def nbytes(self) -> int:
        return self.memory.nbytes


class ArenaPool:
    """Arenas, lent to one session at a time and kept for the next."""

    def __init__(self) -> None:
        self._free: list[Arena] = []
        self._lock = threading.Lock()

    @contextmanager
    def borrow(self, nbytes: int, holds: tuple[Encoded, int] | None = None) -> Iterator[Arena]:
        """One of at least so many bytes, with these constants if there is one."""
        with self._lock:
            fits = [a for a in self._free if a.nbytes >= nbytes]
            arena = min(fits, key=lambda a: (a.holds != holds, a.nbytes)) if fits else None
            if arena is not None:
                self._free = [a for a in self._free if a is not arena]
            elif self._free:
                self._free.pop()  # too small: make room for the one that replaces it
        if arena is None:
            raw = np.empty(nbytes + 64, np.uint8)
            start = -raw.ctypes.data % 64
            arena = Arena(raw[start : start + nbytes])
        try:
            yield arena
        finally:
            with self._lock:
                self._free.append(arena)


SCRATCH = ArenaPool()
"""What kernels use within a step, whoever's it is."""


# ------------------------------------------------------------------------------------------------------------------ sessions


class CpuSession(Accounts, HostSession):
    """One batch: forward once, relevance as often as there are chunks of targets.

    The plan is that of the whole batch, or of a piece of it where several run side by side.
    """

    def __init__(self, plan: Plan, encoded: Encoded, arena: Arena, isa: int, n_threads: int, scratch: Array, n: int) -> None:
        super().__init__(plan)
        self._encoded, self._arena = encoded, arena
        self._isa, self._n_threads = isa, n_threads
        self._real, self._low = plan.program.real, plan.program.low
        self._n, self._count = n, -(-n // plan.n)
        self._bases = encoded.bases(self._count)
        self._pieces = ffi.NULL
        if self._count > 1:
            self._pieces = ffi.new("dtd_pieces *", (self._count, plan.n, n - (self._count - 1) * plan.n, encoded.n_bases))
        self._table: dict[str, Array] = {}
        self._place(0, scratch=scratch)
        self._place(plan.arena, arena=arena.memory)

    def forward(self, x: Array) -> Array:
        plan = self.plan
        outputs = np.empty((self._n, *plan.program.network.output.shape), self._real)
        given = x if plan.program.tokens else np.ascontiguousarray(x, self._low)
        self._place_samples(x=given, outputs=outputs)
        self._compute_constants()
        for first, last in self._encoded.forward_runs:
            self.run(first, last)
        return outputs

    def _compute_constants(self) -> None:
        holds = self._encoded, self._count
        if self._arena.holds == holds:
            return
        self._arena.holds = None
        for first, last in self._encoded.constant_runs:
            self.run(first, last)
        self._arena.holds = holds

    def relevance(self, start: Array, result: Array, accounts: list[Account] | None = None) -> None:
        plan = self.plan
        self.doubtful = self._find_doubtful(start)
        for chunk in range(0, start.shape[1], plan.t):
            piece = np.ascontiguousarray(start[:, chunk : chunk + plan.t], self._real)
            short = plan.t - piece.shape[1]
            if short:  # the last chunk is filled up with targets of no relevance
                piece = np.concatenate([piece, np.zeros((len(piece), short, *piece.shape[2:]), self._real)], axis=1)
            target = result[:, chunk : chunk + plan.t]
            direct = not short and target.flags.c_contiguous and target.dtype == self._low
            into = target if direct else np.empty((self._n, plan.t, *plan.program.leaves.shape), self._low)
            self._place_samples(start=piece, result=into)
            self._relevance_steps(accounts)
            if not direct:
                put(into[:, : target.shape[1]], target)

    def _relevance_steps(self, accounts: list[Account] | None) -> None:
        if accounts is not None:
            self.run_accounts(accounts)
            return
        for first, last in self._encoded.relevance_runs:
            self.run(first, last)

    def timings(self, x: Array, start: Callable[[Array], Array], repeats: int = 3) -> list[float]:
        """Seconds of every step, the least of `repeats` runs."""
        n_forward, n_steps = len(self.plan.forward), len(self.plan.forward) + len(self.plan.relevance)
        best = [np.inf] * n_steps
        for _ in range(repeats):
            outputs = self.forward(x)
            self.relevance(start(outputs)[:, :1], np.empty((self.plan.n, 1, *self.plan.program.leaves.shape), self._low))
            for steps in (range(n_forward), range(n_forward, n_steps)):
                for i in steps:
                    begin = time.perf_counter()
                    self.run(i, i + 1)
                    best[i] = min(best[i], time.perf_counter() - begin)
        return best

    def _place(self, step: int, **arrays: Array) -> None:
        """Where the kernels find these externals, each piece `step` bytes after the one before; the session keeps them alive."""
        for name, array in arrays.items():
            self._table[name] = array
            place, start = EXTERNALS.index(name), ffi.from_buffer(array)
            for piece in range(self._count):
                self._bases[piece * self._encoded.n_bases + place] = start + piece * step

    def _place_samples(self, **arrays: Array) -> None:
        for name, array in arrays.items():
            self._place(array.nbytes // self._n * self.plan.n, **{name: array})

    def run(self, first: int, last: int) -> None:
        """Steps first .. last−1, without the interpreter lock."""
        steps, mixed = self._encoded.steps, self._low != self._real
        while first < last:
            real = steps[first].real
            end = next((i for i in range(first, last) if steps[i].real != real), last) if mixed else last
            message = lib.dtd_run(self._isa, REALS[real], self._encoded.c_steps, first, end, self._bases, self._n_threads, self._pieces)
            if message != ffi.NULL:
                raise BackendError(f"the kernels refused a step: {ffi.string(message).decode()}")
            first = end

    def _find_doubtful(self, start: Array) -> list[int]:
        """Samples with relevance on an output whose denominator d = Σ x w⁺ + b is less than its bias.

        Elsewhere Σ x w⁺ ≤ |d| + |b| ≤ 2|d|: d is off by no more than three times the relative error of what it is the sum of.
        """
        unit = self.plan.program.checked
        if unit is None or unit.row is None or unit.bias is None:
            return []
        (share,) = unit.row.shares
        ((d, _),) = self.plan.factors[unit.out.index]
        small = np.abs(self.read(d)) < np.abs(bias_map(unit.bias, share, unit.row.gamma))
        return [int(i) for i in np.flatnonzero(((start != 0).any(axis=1) & small).any(axis=1))]

    def read_root(self, root: Buffer) -> Array:
        dtype = np.dtype(root.dtype)
        if root.external:
            return self._table[root.external].reshape(-1).view(dtype)
        return self._table["arena"][root.offset :][: root.nbytes(self.plan.n, self.plan.t)].view(dtype)


class CpuExecutor:
    """Runs one program; plans are made per batch shape and kept."""

    def __init__(self, program: Program, batch_size: int | None, n_threads: int | None, store: WeightStore, precision: str) -> None:
        if precision in NARROW and program.relevant:
            refuse_cancelling(program, precision)
        self.program, self._precision = program, precision
        self._n_threads, self._store = n_threads, store
        self._plans: dict[tuple[int, int, bool, bool], tuple[Plan, Encoded]] = {}
        self._lock = threading.Lock()
        self._pool = ArenaPool()
        self._isa = isa_index()
        self.batches = Batches(program, batch_size, MEMORY_BUDGET, ENOUGH)

    def batch_size(self, n: int, n_targets: int, *, ledger: bool = False) -> int:
        return self.batches.samples(n, n_targets)

    def plan(self, n: int, n_targets: int) -> Plan:
        piece = self.batches.piece(n, self._threads())
        return replace(self._encoded(piece, n_targets, False)[0], pieces=-(-n // piece))

    def _threads(self) -> int:
        return threads_for_run(self._n_threads, lib.dtd_max_threads())

    def _encoded(self, n: int, n_targets: int, ledger: bool) -> tuple[Plan, Encoded]:
        t = self.batches.targets(n_targets)
        key = (n, t, ledger, t < n_targets)
        with self._lock:
            if key not in self._plans:
                plan = lower(self.program, n, t, ledger=ledger, chunked=t < n_targets)
                self._plans[key] = plan, Encoded(plan, self._store, self._precision)
            return self._plans[key]

    @contextmanager
    def session(self, n: int, n_targets: int, *, ledger: bool = False, whole: bool = False) -> Iterator[CpuSession]:
        """A session in one piece where its numbers are read or `whole` is asked for, else in as many as pay."""
        threads = self._threads()
        piece = n if ledger or whole or self.program.checked else self.batches.piece(n, threads)
        plan, encoded = self._encoded(piece, n_targets, ledger)
        pieces = -(-n // piece)
        memory = self._pool.borrow(pieces * plan.arena, (encoded, pieces))
        with memory as arena, SCRATCH.borrow(threads * lib.dtd_isa_scratch(self._isa)) as scratch:
            yield CpuSession(plan, encoded, arena, self._isa, threads, scratch.memory, n)

    def profile(self, x: Array, start: Callable[[Array], Array]) -> Profile:
        """Every step run alone, on the whole batch; the least of three runs counts."""
        with self.session(len(x), 1, whole=True) as session:
            seconds = session.timings(x, start)
            plan = session.plan
        steps = [*plan.forward, *plan.relevance]
        return Profile([Timing.of(plan, i, s, t) for i, (s, t) in enumerate(zip(steps, seconds, strict=True))])
