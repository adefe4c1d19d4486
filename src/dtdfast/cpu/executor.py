"""The CPU executor: plans run by the OpenMP kernels of csrc/."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from .._kernels import ffi, lib
from ..arrays.checks import finite
from ..budget import budget, require
from ..errors import BackendError
from ..layers import Layer
from ..ledger.ledger import Row
from ..ledger.rows import rows_of_units
from ..locks import renewed
from ..packing import WeightStore
from ..plan.batches import Batches
from ..plan.lower import lower
from ..plan.parts import bias_map
from ..plan.plan import Plan
from ..plan.profile import Profile, Timing
from ..plan.program import Program, planning, refuse_cancelling
from ..plan.steps import Buffer
from ..plan.weights import ProductSums
from ..session import Beside, HostSession, put
from ..threads import default_threads, kernel_threads
from .arenas import ARENAS, SCRATCH, Shelf
from .encode import Encoded
from .rows import NARROW

Array = NDArray[Any]
Positions = frozenset[int]

MEMORY_BUDGET = 2**28
"""Bytes of arena that a pass may use where the caller gives no batch_size (one sample may need more)."""

LEDGER = 8
"""Times the working memory of an explanation that its ledger may take."""

ENOUGH = 5 * 2**25
"""Bytes of arena that leave the caches anyway: beyond them, more samples in a pass spare only the weights' way from
memory."""

MATRIX_UNITS = ("amx",)
"""Instruction sets whose products of terms are the faster for being steps of their own."""

MOST_PLANS = 64
"""Plans, and layouts of batches, that are kept for one shape of sample: the oldest goes first."""

if lib.dtd_step_size() != ffi.sizeof("dtd_step"):
    raise ImportError("the compiled kernels do not fit this version's Python; reinstall dtdfast")


# --------------------------------------------------------------------------------------------------- instruction sets


@cache
def isa_names() -> tuple[str, ...]:
    """Compiled instruction sets, slowest first."""
    return tuple(ffi.string(lib.dtd_isa_name(i)).decode() for i in range(lib.dtd_isa_count()))


@cache
def _fastest_isa() -> int:
    """Asked for once: a virtual machine may take 40 µs to answer, which every Explainer would wait for."""
    return int(lib.dtd_isa_fastest())


def isa_index() -> int:
    """The one to use: DTDFAST_ISA, else the fastest that this CPU runs."""
    names = isa_names()
    forced = os.environ.get("DTDFAST_ISA")
    if forced:
        if forced not in names or not lib.dtd_isa_usable(names.index(forced)):
            usable = ", ".join(n for i, n in enumerate(names) if lib.dtd_isa_usable(i))
            raise BackendError(f"DTDFAST_ISA={forced!r} cannot be used here; this CPU and build have {usable}")
        return names.index(forced)
    return _fastest_isa()


def isa_name() -> str:
    return isa_names()[isa_index()]


def precisions() -> tuple[str, ...]:
    """What the instruction set in use computes in."""
    return ("float32", "float64", "single", *(NARROW if lib.dtd_isa_bfloat16(isa_index()) else ()))


def kernel_config() -> dict[str, Any]:
    """What `build_config` says of the compiled kernels."""
    return {
        "compiler": ffi.string(lib.dtd_compiler()).decode(),
        "openmp": lib.dtd_openmp_version() or None,
        "instruction sets": [*isa_names()],
        "instruction set": isa_name(),
        "threads": default_threads(),
    }


# ----------------------------------------------------------------------------------------------------------- sessions


class Layout(NamedTuple):
    """How a batch runs: the plan of all of it, or of a piece where several run side by side."""

    plan: Plan
    encoded: Encoded
    pieces: int
    c_pieces: Any  # NULL for one
    shelf: Shelf  # of its idle arenas

    @classmethod
    def of(cls, n: int, threads: int, plan: Plan, encoded: Encoded) -> Layout:
        pieces = -(-n // plan.n)
        last = n - (pieces - 1) * plan.n
        c_pieces = ffi.NULL if pieces == 1 else ffi.new("dtd_pieces *", (pieces, plan.n, last, encoded.n_bases))
        require(pieces * plan.arena + threads * plan.local, f"{plan.largest()}: working memory of {n} sample(s)")
        return cls(plan, encoded, pieces, c_pieces, Shelf())


class CpuSession(HostSession):
    """One batch: forward once, relevance as often as there are chunks of targets."""

    def __init__(
        self, layout: Layout, isa: int, n_threads: int, n: int, beside: Beside, weights: ProductSums | None
    ) -> None:
        self.plan, self._encoded, self._pieces, self._c_pieces, self._shelf = layout
        self._isa, self._n_threads, self._n, self._beside = isa, n_threads, n, beside
        self._real, self._low = self.plan.program.real, self.plan.program.low
        self.narrow = self._real == "f4"
        self._externals: dict[str, Array] = {}
        self._weights = weights

    def __enter__(self) -> CpuSession:
        encoded, pieces = self._encoded, self._pieces
        self._arena = arena = ARENAS.take(self._shelf, pieces * self.plan.arena)
        if arena.bases is None:
            arena.bases = encoded.bases(arena.memory, self.plan.arena, pieces)
        self._bases = arena.bases
        scratch, local = (self._n_threads * size for size in (lib.dtd_isa_scratch(self._isa), self.plan.local))
        self._scratch = SCRATCH.take(scratch + local)
        self._place(0, scratch=self._scratch[:scratch], local=self._scratch[scratch:])
        if not arena.ready:
            for first, last in encoded.constant_runs:
                self.run(first, last)
            arena.ready = True
        return self

    def __exit__(self, *raised: object) -> None:
        SCRATCH.give(self._scratch)
        ARENAS.give(self._shelf, self._arena)

    def forward(self, x: Array) -> Array:
        program = self.plan.program
        outputs = np.empty((self._n, *program.network.output.shape), self._real)
        given = x if program.tokens else np.ascontiguousarray(x, self._low)
        beside = {
            unit.external: np.ascontiguousarray(self._beside[unit.name], None if unit.integer else self._low)
            for unit in program.supplied
        }
        self._place(self.plan.n, x=given, outputs=outputs, **beside)
        for first, last in self._encoded.forward_runs:
            self.run(first, last)
        return outputs

    def relevance(self, start: Array, result: Array) -> None:
        plan = self.plan
        self.inexact = self._find_inexact(start)
        real = plan.program.result
        for chunk in range(0, start.shape[1], plan.t):
            one = start.shape[1] == plan.t  # the only chunk
            piece = np.ascontiguousarray(start if one else start[:, chunk : chunk + plan.t], self._real)
            short = plan.t - piece.shape[1]
            if short:  # the last chunk is filled up with targets of no relevance
                piece = np.concatenate([piece, np.zeros((len(piece), short, *piece.shape[2:]), self._real)], axis=1)
            target = result if one else result[:, chunk : chunk + plan.t]
            direct = not short and target.flags.c_contiguous and target.dtype == real
            into = target if direct else np.empty((self._n, plan.t, *plan.program.leaves.shape), real)
            self._place(plan.n, start=piece, result=into)
            if plan.book is not None:
                self._place(plan.n, ledger=np.zeros((self._n, *plan.book.buffer.shape)))
            if plan.weighing is not None and self._weights is not None:
                self._place(plan.n, weights=self._weights.of(plan.weighing))
            for first, last in self._encoded.relevance_runs:
                self.run(first, last)
            if not direct:
                put(into[:, : target.shape[1]], target)
        if plan.program.halved and not finite(result):  # gates multiply: float64 may hold what float32 does not
            beyond = (i for i, maps in enumerate(result) if not finite(maps))
            self.inexact = sorted({*self.inexact, *beyond})

    def rows(self, layers: list[Layer], u: float) -> list[Row]:
        assert self.plan.book is not None
        return rows_of_units(self.plan.book, self._externals["ledger"], layers, u)

    def timings(self, x: Array, start: Callable[[Array], Array]) -> list[tuple[float, str]]:
        """Seconds of every step, the least of three runs, and the body that ran it."""
        n_forward, n_steps = len(self.plan.forward), len(self.plan.forward) + len(self.plan.relevance)
        best, bodies = [np.inf] * n_steps, [""] * n_steps
        for _ in range(3):
            outputs = self.forward(x)
            self.relevance(
                start(outputs)[:, :1], np.empty((self.plan.n, 1, *self.plan.program.leaves.shape), self._low)
            )
            for steps in (range(n_forward), range(n_forward, n_steps)):
                for i in steps:
                    bodies[i] = self._encoded.body(self._isa, i, self._bases, lib.DTD_BY_DATA)
                    begin = time.perf_counter()
                    self.run(i, i + 1)
                    best[i] = min(best[i], time.perf_counter() - begin)
        return list(zip(best, bodies, strict=True))

    def _place(self, samples: int, **arrays: Array) -> None:
        """Where the kernels find these externals, of so many samples for each piece; the session keeps them alive."""
        self._externals.update(arrays)
        for name, array in arrays.items():
            place, start = self._encoded.places[name], ffi.from_buffer(array)
            self._bases[place] = start
            if self._pieces > 1:
                step = array.nbytes // self._n * samples
                for piece in range(1, self._pieces):
                    self._bases[piece * self._encoded.n_bases + place] = start + piece * step

    def run(self, first: int, last: int) -> None:
        """Steps first .. last−1, without the interpreter lock."""
        encoded = self._encoded
        first, last = encoded.starts[first], encoded.starts[last]
        while first < last:
            real, end = encoded.spans[first]
            end = min(end, last)
            message = lib.dtd_run(
                self._isa, real, encoded.c_steps, first, end, self._bases, self._n_threads, self._c_pieces
            )
            if message != ffi.NULL:
                raise BackendError(f"the kernels refused a step: {ffi.string(message).decode()}")
            first = end

    def _find_inexact(self, start: Array) -> list[int]:
        """Samples with relevance on an output whose denominator d = Σ x w⁺ + b is less than its bias.

        Elsewhere Σ x w⁺ ≤ |d| + |b| ≤ 2|d|: d is off by no more than three times the relative error of what it is the
        sum of.
        """
        unit = self.plan.program.checked
        if unit is None or unit.row is None or unit.bias is None:
            return []
        (share,) = unit.row.shares
        ((d, _),) = self.plan.factors[unit.out.index]
        small = np.abs(self._read(d)) < np.abs(bias_map(unit.bias, share, unit.row.gamma))
        return [int(i) for i in np.flatnonzero(((start != 0).any(axis=1) & small).any(axis=1))]

    def _read(self, buffer: Buffer) -> Array:
        """A buffer's values (n, *shape), of a session in one piece."""
        root, dtype = buffer.root, np.dtype(buffer.root.dtype)
        if root.external:
            flat = self._externals[root.external].reshape(-1).view(dtype)
        else:
            flat = self._arena.memory[root.offset :][: root.nbytes(self.plan.n, self.plan.t)].view(dtype)
        offset, strides, per_sample = buffer.strides()
        steps = tuple(flat.itemsize * s for s in (per_sample, *strides))
        return as_strided(flat[offset:], (self.plan.n, *buffer.shape), steps, writeable=False)


class CpuExecutor:
    """Runs one program; plans are made per batch shape and kept."""

    def __init__(
        self, program: Program, batch_size: int | None, n_threads: int | None, store: WeightStore, precision: str
    ) -> None:
        if precision in NARROW and program.relevant:
            refuse_cancelling(program, precision)
        self.program, self._precision = program, precision
        self._n_threads, self._store = n_threads, store
        self._plans: dict[tuple[int, int, int, bool, Positions, bool], tuple[Plan, Encoded]] = {}
        self._layouts: dict[tuple[int, int, int, bool, Positions, bool], Layout] = {}
        self._lock = renewed(self, "_lock")
        self._isa = isa_index()
        self._pairs = isa_names()[self._isa] not in MATRIX_UNITS
        self.batches = Batches(program, batch_size, min(MEMORY_BUDGET, budget()), ENOUGH, pairs=self._pairs)

    def batch_size(self, n: int, n_targets: int, *, ledger: bool = False) -> int:
        size, room = self.batches.samples(n, n_targets), budget()
        tight = size > 1 and size * self.batches.per_sample * LEDGER > room
        if ledger and tight and self.batches.batch_size is None:
            plan, _ = self._encoded(1, 1, 1, True)
            most = max(1, (room - self._threads() * plan.local) // max(1, plan.arena))
            size = min(size, -(-n // -(-n // most)))
        return size

    def plan(self, n: int, n_targets: int) -> Plan:
        piece = self.batches.piece(n, self._threads())
        pieces = -(-n // piece)
        plan, encoded = self._encoded(piece, pieces, n_targets)
        return replace(plan, pieces=pieces, bodies=encoded.bodies(self._isa))

    def _threads(self) -> int:
        return kernel_threads(self._n_threads)

    def _encoded(
        self, n: int, pieces: int, n_targets: int, ledger: bool = False, weights: Positions = frozenset()
    ) -> tuple[Plan, Encoded]:
        """The plan of a piece; so many share the memory."""
        t = self.batches.targets(n_targets)
        key = (n, pieces, t, ledger, weights, t < n_targets)
        with self._lock:
            found = self._plans.get(key)
            if found is None:
                plain = key[2:] == (1, False, frozenset(), False)
                with planning():
                    most, threads = budget() // pieces, -(-self._threads() // pieces)
                    options: dict[str, Any] = {"ledger": ledger, "weights": weights, "chunked": t < n_targets}
                    plan = (
                        self.batches.first(n, most, threads)
                        if plain
                        else lower(self.program, n, t, pairs=self._pairs, most=most, threads=threads, **options)
                    )
                    found = self._plans[key] = plan, Encoded(plan, self._store, self._precision)
                while len(self._plans) > MOST_PLANS:
                    self._plans.pop(next(iter(self._plans)))
            return found

    def weight_sums(self, positions: Positions) -> ProductSums:
        return ProductSums(positions)

    def session(
        self,
        n: int,
        n_targets: int,
        beside: Beside,
        *,
        ledger: bool = False,
        weights: ProductSums | None = None,
        whole: bool = False,
    ) -> CpuSession:
        """A session in one piece where its numbers are read, samples added up, or `whole` is asked for, else in as many
        as pay.
        """
        threads, positions = self._threads(), weights.positions if weights is not None else frozenset()
        key = n, n_targets, threads, ledger, positions, whole
        layout = self._layouts.get(key)
        if layout is None:
            piece = n if whole or positions or self.program.checked else self.batches.piece(n, threads)
            layout = Layout.of(n, threads, *self._encoded(piece, -(-n // piece), n_targets, ledger, positions))
            with self._lock:
                self._layouts[key] = layout
                while len(self._layouts) > MOST_PLANS:
                    self._layouts.pop(next(iter(self._layouts)))
        return CpuSession(layout, self._isa, threads, n, beside, weights)

    def profile(self, x: Array, beside: Beside, start: Callable[[Array], Array]) -> Profile:
        """Every step run alone, on the whole batch; the least of three runs counts."""
        with self.session(len(x), 1, beside, whole=True) as session:
            timings = session.timings(x, start)
            plan = session.plan
        steps = [*plan.forward, *plan.relevance]
        return Profile(
            [Timing.of(plan, i, s, *timing) for i, (s, timing) in enumerate(zip(steps, timings, strict=True))]
        )
