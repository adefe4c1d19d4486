"""Attention in slices: the bits of its steps one by one, and what they leave where no slice reaches."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtdfast.plan.cuts import ranges
from dtdfast.plan.steps import Buffer
from kernel_checks import agree, each, each_kernels, operand, same_bits
from kernel_steps import GUARD, SENTINEL, Kernels, Step, ffi, lib, place, vector
from support import over

ROWS, COLUMNS = 3, 4
SHAPES = [
    # samples, targets, heads, queries, keys, features
    (1, 1, 1, 1, 1, 1),
    (2, 1, 3, 17, 33, 7),
    (1, 3, 2, 65, 16, 3),
    (2, 2, 1, 31, 130, 16),
    (1, 1, 2, 3, 1030, 5),
]


def local(kernels: Kernels, n_threads: int, *sizes: int) -> tuple[Any, list[Any]]:
    """Memory of threads for matrices of these sizes: (threads, elements of each), and the first thread's matrices."""
    room = sum(sizes)
    block = np.empty(n_threads * room + 2 * GUARD, kernels.dtype)
    block.view(np.uint8)[:] = SENTINEL
    starts = np.cumsum((GUARD, *sizes[:-1]))
    return block[GUARD:-GUARD].reshape(n_threads, room), [block[a : a + size] for a, size in zip(starts, sizes)]  # noqa: B905


def matrices(memory: Any, samples: int, heads: int, rows: int, columns: int) -> Any:
    """The view of all slices of a matrix that every slice has in the same place."""
    return np.broadcast_to(memory.reshape(1, 1, 1, rows, columns, 1), (samples, heads, 1, rows, columns, 1))


def turned(a: Any) -> Any:
    return a.swapaxes(ROWS, COLUMNS)


class Case:
    """Queries, keys, values, a causal or random mask with a row left out wholly, and relevance of some targets."""

    def __init__(self, kernels: Kernels, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        self.kernels = kernels
        self.n, self.t, self.heads, self.rows, self.columns, self.width = shape
        n, rows, columns = self.n, self.rows, self.columns
        self.q, self.k, self.v = (self.operand(rng, n, length) for length in (rows, columns, columns))
        self.s = self.operand(rng, n * self.t, rows)
        kept = np.tri(rows, columns, dtype=bool) if rng.random() < 0.5 else rng.random((rows, columns)) < 0.7
        kept[rows // 2] &= rows < 3
        selector = place(kept.astype(kernels.dtype).reshape(1, 1, 1, rows, columns, 1))
        self.selector = np.broadcast_to(selector, (n, self.heads, 1, rows, columns, 1))
        self.coefficient = self.width**-0.5

    def operand(self, rng: np.random.Generator, samples: int, length: int) -> Any:
        """(samples, heads, 1, length, width, 1); its heads lie side by side, as a projection makes them."""
        values = self.kernels.normal(rng, samples, self.heads, 1, length, self.width, 1)
        return place(values, order=(0, 2, 3, 1, 4, 5))

    def empty(self, samples: int, rows: int, columns: int) -> Any:
        return place(self.kernels.zeros(samples, self.heads, 1, rows, columns, 1))

    def scores(self, out: Any, cut: int = 0) -> Step:
        arrays = {"x": self.q, "other": turned(self.k), "out": out}
        cuts, spans = ({"out": a, "x" if a == ROWS else "other": a} if cut else {} for a in (cut, ROWS + COLUMNS - cut))
        return Step("MATMUL", arrays, {"coefficient": self.coefficient}, cuts=cuts, spans=spans)

    def softmax(self, x: Any, out: Any, cut: int = 0, **stats: Any) -> Step:
        arrays = {"x": x, "out": out, "other": self.selector, **stats}
        cuts, spans = (
            dict.fromkeys((*("x", "out", "other"), *(stats if a == ROWS else ())), a) if cut else {}
            for a in (cut, ROWS + COLUMNS - cut)
        )
        return Step("SOFTMAX", arrays, {"axis": COLUMNS}, cuts=cuts, spans=spans)

    def one_by_one(self) -> tuple[Any, Any, Any, Any]:
        """Weights, (maximum, 1/sum) of rows, values, relevance of the values."""
        scores, weights = (self.empty(self.n, self.rows, self.columns) for _ in range(2))
        stats, out = self.empty(self.n, self.rows, 2), self.empty(self.n, self.rows, self.width)
        back = self.empty(self.n * self.t, self.columns, self.width)
        for step in (
            self.scores(scores),
            self.softmax(scores, weights, factor=stats),
            Step("MATMUL", {"x": weights, "other": self.v, "out": out}),
            Step("MATMUL", {"x": turned(weights), "other": self.s, "out": back}, {"repeat": self.t}),
        ):
            step.run(self.kernels)
        return weights, stats, out, back

    def sliced(self, n_threads: int, block: int, *, sparse: bool = False) -> tuple[Any, Any, Any, Any]:
        """The same by blocks of rows, and for relevance of columns; `sparse`, as far as the mask leaves something."""
        n, rows, columns = self.n, self.rows, self.columns
        weights, stats = self.empty(n, rows, columns), self.empty(n, rows, 2)
        out, back = self.empty(n, rows, self.width), self.empty(n * self.t, columns, self.width)
        memory, (matrix,) = local(self.kernels, n_threads, rows * columns)
        inside = matrices(matrix, n, self.heads, rows, columns)
        cuts, spans = {"x": ROWS, "out": ROWS}, {"x": COLUMNS, "other": ROWS}
        values = Step("MATMUL", {"x": weights, "other": self.v, "out": out}, cuts=cuts, spans=spans)
        forward = [self.scores(inside, ROWS), self.softmax(inside, weights, ROWS, factor=stats), values]
        arrays = {"x": turned(inside), "other": self.s, "out": back}
        product = Step("MATMUL", arrays, {"repeat": self.t}, cuts=cuts, spans=spans)
        backward = [self.scores(inside, COLUMNS), self.softmax(inside, inside, COLUMNS, m=stats), product]
        for steps, cut in ((forward, ROWS), (backward, COLUMNS)):
            numbers, arrays = {"n_steps": 3, "block": block}, {"out": inside, "local": memory}
            mask = self.selector[0, 0, 0, :, :, 0]
            if sparse and (found := ranges(mask, Buffer("", (1, rows, columns), "n"), cut, block)) is not None:
                numbers["n_taps"], arrays["taps"] = len(found), vector(np.array(found, np.int64))
            Step("SLICED", arrays, numbers, steps, {"out": cut}).run(self.kernels, n_threads)
        return weights, stats, out, back


@each("shape", SHAPES, 2)
@over("seed", range(2))
def test_slices_have_the_bits_of_the_steps(kernels: Kernels, shape: Any, seed: int) -> None:
    case = Case(kernels, shape, np.random.default_rng([*shape, seed]))
    expected = case.one_by_one()
    for n_threads, block in ((1, 1000), (1 + seed, 16), (3, 5)):
        found = case.sliced(n_threads, block, sparse=block < 1000)
        assert all(same_bits(a, b) for a, b in zip(found, expected, strict=True))


@each("shape", SHAPES, 2)
def test_weights_and_values(kernels: Kernels, shape: Any) -> None:
    """Scores are off by (d + 2)·u·Σ|q k|·c, their exponentials by as much and 8 u; sums of t terms follow."""
    case = Case(kernels, shape, np.random.default_rng([*shape, 9]))
    weights, stats, out, back = case.sliced(2, 16)
    q, k, v, s = (a.astype(kernels.wide)[:, :, 0, :, :, 0] for a in (case.q, case.k, case.v, case.s))
    kept = case.selector[:, :, 0, :, :, 0] != 0
    c, flat = kernels.wide(case.coefficient), np.swapaxes(k, -1, -2)
    x, sizes = c * (q @ flat), c * (abs(q) @ abs(flat))
    largest = np.where(kept, x, -np.inf).max(-1, keepdims=True)
    e = np.where(kept, np.exp(x - np.where(np.isinf(largest), 0, largest)), 0)
    total = e.sum(-1, keepdims=True)
    a = e / np.where(total == 0, 1, total)
    u, (rows, columns) = kernels.u, a.shape[-2:]
    off = (case.width + 2) * u * sizes.max(-1, keepdims=True)
    relative = 2 * off + (columns + 8 + 4 * abs(x).max()) * u
    tiny = np.finfo(kernels.dtype).smallest_subnormal
    agree(weights[:, :, 0, :, :, 0], a, relative * a + tiny)
    assert not weights[~np.broadcast_to(case.selector != 0, weights.shape)].any()
    assert np.array_equal(np.isinf(stats[..., 0, 0]), ~case.selector[..., 0].any(-1))
    agree(out[:, :, 0, :, :, 0], a @ v, ((relative + columns * u) * a) @ abs(v) + columns * tiny)
    many, error = np.repeat(np.swapaxes(a, -1, -2), case.t, 0), np.repeat(np.swapaxes(relative * a, -1, -2), case.t, 0)
    agree(back[:, :, 0, :, :, 0], many @ s, (error + rows * u * many) @ abs(s) + rows * tiny)


@each("shape", [(2, 3, 5, 7), (1, 2, 3, 197), (1, 1, 2, 1100)], 2)
@over("coefficient", [1.0, -0.75])
def test_parts_of_rows_from_what_is_stored_of_them(kernels: Kernels, shape: Any, coefficient: float) -> None:
    """Softmax from maximum and 1/sum, relevance through it from Σ s c: the bits of whole rows, column by column."""
    rng = np.random.default_rng(shape)
    n, heads, rows, columns = shape
    x, selector, out, c, back = (operand(kernels, rng, shape) for _ in range(5))
    selector[rng.random(selector.shape) < 0.3] = 0
    stats, sums = place(kernels.zeros(n, heads, 1, rows, 2, 1)), place(np.zeros((n, heads, 1, rows, 1, 1)))
    numbers = {"axis": COLUMNS, "coefficient": coefficient}
    Step("SOFTMAX", {"x": x, "other": selector, "out": out, "factor": stats}, numbers).run(kernels)
    Step("SOFTMAX_BACK", {"x": c, "m": out, "out": back, "factor": sums}, numbers).run(kernels)
    whole, through = out.copy(), back.copy()
    for first in range(0, columns, part := -(-columns // 3)):
        some = (..., slice(first, first + part), slice(None))
        out[some], back[some] = np.nan, np.nan
        arrays = {"x": x[some], "other": selector[some], "out": out[some], "m": stats}
        Step("SOFTMAX", arrays, numbers).run(kernels, 2)
        Step("SOFTMAX_BACK", {"x": c[some], "m": out[some], "out": back[some], "scale": sums}, numbers).run(kernels, 2)
    assert same_bits(out, whole)
    assert same_bits(back, through)


@each_kernels
def test_what_no_run_of_slices_is(kernels: Kernels) -> None:
    case = Case(kernels, (1, 1, 1, 4, 4, 2), np.random.default_rng(0))
    memory, (matrix,) = local(kernels, 1, 16)
    inside = matrices(matrix, 1, 1, 4, 4)
    outer = Step("SLICED", {"out": inside, "local": memory}, {"n_steps": 1, "block": 4}, [case.scores(inside, ROWS)])

    def message(change: Any, last: int = 2) -> str:
        steps, _, bases, scratch = outer._prepare(kernels, 1)
        change(steps)
        answer = lib.dtd_run(kernels.isa, kernels.real, steps, 0, last, bases, 1, ffi.NULL)
        del scratch
        return "" if answer == ffi.NULL else str(ffi.string(answer).decode())

    assert message(lambda steps: None, 1) == "steps of a SLICED are not within the run"
    assert message(lambda steps: setattr(steps[0], "n_steps", 13)) == "SLICED: impossible n_steps 13"
    outer.cuts["out"] = ROWS
    assert message(lambda steps: setattr(steps[0], "block", 0)) == "SLICED needs block"
    assert message(lambda steps: setattr(steps[1], "n_steps", 1)) == "a SLICED stands within another"
    outer.arrays["taps"], outer.numbers["n_taps"] = vector(np.zeros(4, np.int64)), 2
    assert message(lambda steps: setattr(steps[0], "block", 1)) == "SLICED needs a range for each block"
