"""Max-pooling, LRN, softmax and embeddings against the float64 reference."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from kernel_checks import LAYOUTS, agree, each, each_kernels, operand, same_bits
from kernel_steps import Kernels, Step, place, vector
from support import over

POOLS = [  # size of x, kernel, step, padding before
    ((1, 6, 8), (1, 2, 2), (1, 2, 2), (0, 0, 0)),
    ((1, 7, 9), (1, 3, 3), (1, 2, 2), (0, 1, 1)),
    ((3, 5, 4), (2, 3, 2), (1, 1, 2), (1, 1, 0)),
    ((1, 1, 264), (1, 1, 260), (1, 1, 1), (0, 0, 2)),  # more taps than a byte counts
]
each_pool = pytest.mark.parametrize(("size", "kernel", "step", "before"), POOLS)


def pool_taps(kernel: Any, before: Any) -> list[Any]:
    return [tuple(t[a] - before[a] for a in range(3)) for t in product(*map(range, kernel))]


@each("channels", [3, 8, 600, 17], 2)
@each_pool
def test_max_pool_and_unpool(kernels: Kernels, size: Any, kernel: Any, step: Any, before: Any, channels: int) -> None:
    rng = np.random.default_rng(11)
    n, repeat = 2, 3
    count = tuple((size[a] + 2 * before[a] - kernel[a]) // step[a] + 1 for a in range(3))
    values = rng.integers(-3, 4, (n, channels, *size, 1)).astype(kernels.dtype)  # many ties
    values[rng.random(values.shape) < 0.01] = np.nan
    taps = pool_taps(kernel, before)
    kind = np.uint8 if len(taps) <= 256 else np.uint16
    shape = (n, channels, *count, 1)
    x, out, m = place(values, gap=1), place(kernels.zeros(*shape)), place(np.zeros(shape, kind))
    numbers = {"n_taps": len(taps), "x_step": step, "winner_bytes": np.dtype(kind).itemsize}
    Step("MAX_POOL", {"x": x, "out": out, "m": m, "taps": vector(np.array(taps, np.int64))}, numbers).run(kernels)

    padded = np.full((n, channels, *(size[a] + 2 * before[a] for a in range(3)), 1), -np.inf)
    padded[(slice(None), slice(None), *(slice(before[a], before[a] + size[a]) for a in range(3)))] = values
    largest, winner = np.full(shape, -np.inf), np.full(shape, -1)  # by the first tap of its size, or that is NaN
    for k, tap in enumerate(product(*map(range, kernel))):
        seen = padded[
            (..., *(slice(tap[a], tap[a] + step[a] * (count[a] - 1) + 1, step[a]) for a in range(3)), slice(None))
        ]
        wins = (seen > largest) | (np.isnan(seen) & ~np.isnan(largest))
        np.copyto(largest, seen, where=wins)
        np.copyto(winner, k, where=wins)
    assert np.array_equal(out, largest, equal_nan=True)
    assert np.array_equal(m, winner)
    outputs_only = place(kernels.zeros(*shape))
    Step("MAX_POOL", {"x": x, "out": outputs_only, "taps": vector(np.array(taps, np.int64))}, numbers).run(kernels)
    assert np.array_equal(outputs_only, out, equal_nan=True)

    # back: relevance goes to the winner; one phase per residue of the step
    relevance = kernels.normal(rng, n * repeat, channels, *count, 1)
    back = place(kernels.normal(rng, n * repeat, channels, *size, 1))
    factor = place(kernels.normal(rng, n, channels, *size, 1)) if rng.random() < 0.5 else None
    by = 1.0 if factor is None else np.repeat(factor.astype(kernels.wide), repeat, 0)
    came, sizes = (np.zeros(back.shape, kernels.wide) for _ in range(2))
    at = list(np.indices(relevance.shape))
    won = np.array(taps)[np.repeat(winner, repeat, 0)]
    for a in range(3):
        at[2 + a] = at[2 + a] * step[a] + won[..., a]
    np.add.at(came, tuple(at), relevance)
    np.add.at(sizes, tuple(at), np.abs(relevance))
    r, fresh = place(relevance), place(kernels.normal(rng, *back.shape))
    expected, fresh_expected, fresh_sizes = back + by * came, by * came, np.abs(by) * sizes
    sizes = np.abs(back) + fresh_sizes
    for start in product(*map(range, step)):
        rows = [
            (k, *((start[a] - t[a]) // step[a] for a in range(3)))
            for k, t in enumerate(taps)
            if all((start[a] - t[a]) % step[a] == 0 for a in range(3))
        ]
        every = (..., *(slice(start[a], None, step[a]) for a in range(3)), slice(None))
        if back[every].size:
            arrays = {
                "x": r,
                "m": m,
                "factor": None if factor is None else factor[every],
                "taps": vector(np.array(rows, np.int64).reshape(-1, 4)),
            }
            for accumulate, to in ((1, back), (0, fresh)):
                numbers = {"n_taps": len(rows), "winner_bytes": m.itemsize, "repeat": repeat, "accumulate": accumulate}
                Step("MAX_UNPOOL", {**arrays, "out": to[every]}, numbers).run(kernels)
    agree(back, expected, (len(taps) + 2) * kernels.u * sizes)
    agree(fresh, fresh_expected, (len(taps) + 1) * kernels.u * fresh_sizes)


@each("channels", [6, 3, 1, 16, 70], 2)
@over("kernel", [(1, 2, 2), (1, 1, 3), (2, 3, 1)])
@over("layout", LAYOUTS)
@over("scaled", [False, True])
def test_windows_apart_at_once(kernels: Kernels, kernel: Any, layout: str, scaled: bool, channels: int) -> None:
    """The same bits as phase by phase."""
    rng = np.random.default_rng(channels)
    n, repeat, count = 2, 2, (1, 2, 3)
    size = tuple(c * k for c, k in zip(count, kernel, strict=True))
    taps = pool_taps(kernel, (0, 0, 0))
    order = LAYOUTS[layout]
    winners = rng.integers(len(taps), size=(n, channels, *count, 1)).astype(np.uint16 if channels == 3 else np.uint8)
    x, m = place(kernels.normal(rng, n * repeat, channels, *count, 1), order=order), place(winners, order=order)
    factor = place(kernels.normal(rng, n, channels, *size, 1), order=order) if scaled else None
    held = kernels.normal(rng, n * repeat, channels, *size, 1)
    for accumulate in (0, 1):
        phased, at_once = place(held, order=order), place(held, order=order, frame=(0, 0, 0, 1, 1, 0))
        numbers = {"winner_bytes": m.itemsize, "repeat": repeat, "accumulate": accumulate}
        for k, tap in enumerate(taps):
            every = (..., *(slice(tap[a], None, kernel[a]) for a in range(3)), slice(None))
            arrays = {"x": x, "m": m, "out": phased[every], "factor": None if factor is None else factor[every]}
            Step(
                "MAX_UNPOOL", {**arrays, "taps": vector(np.array([k, 0, 0, 0], np.int64))}, {**numbers, "n_taps": 1}
            ).run(kernels)
        arrays = {"x": x, "m": m, "out": at_once, "factor": factor, "taps": vector(np.array(taps, np.int64))}
        Step("MAX_SCATTER", arrays, {**numbers, "n_taps": len(taps), "x_step": kernel}).run(
            kernels, n_threads=1 + accumulate
        )
        assert same_bits(at_once, phased)


@each_kernels
@pytest.mark.parametrize("size", [1, 4, 5])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 65, 1, 3)])
def test_lrn(kernels: Kernels, size: int, shape: Any) -> None:
    rng = np.random.default_rng(12)
    x, out = operand(kernels, rng, shape), operand(kernels, rng, shape)
    alpha, beta, k = 0.5, 0.75, 2.0
    numbers = {"lrn_size": size, "lrn_alpha": alpha / size, "lrn_beta": beta, "lrn_k": k}
    Step("LRN", {"x": x, "out": out}, numbers).run(kernels)
    squares = x.astype(kernels.wide) ** 2
    total = np.zeros_like(squares)
    for c in range(shape[1]):
        total[:, c] = squares[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1].sum(1)
    expected = x / (k + alpha / size * total) ** beta
    agree(out, expected, (size + 8) * kernels.u * np.abs(expected))


@each_kernels
@pytest.mark.parametrize(("channels", "blocks"), [(7, 1), (33, 3), (64, 4), (1100, 2), (20, 20)])
@over("layout", LAYOUTS)
def test_length(kernels: Kernels, channels: int, blocks: int, layout: str) -> None:
    """At either end of the range too, where squares would under- or overflow."""
    rng = np.random.default_rng(15)
    values = kernels.normal(rng, 3, channels, 1, 2, 5, 1)
    far = float(np.finfo(kernels.dtype).max) ** 0.75
    sizes = np.array([1 / far, 1.0, far]).reshape(3, 1, 1, 1, 1, 1)
    values = (values * sizes).astype(kernels.dtype)
    x, out = place(values, order=LAYOUTS[layout]), place(kernels.zeros(3, blocks, 1, 2, 5, 1), order=LAYOUTS[layout])
    Step("LENGTH", {"x": x, "out": out}).run(kernels)
    width = -(-channels // blocks)
    squares = np.square(values.astype(kernels.wide) / sizes)
    expected = np.sqrt(np.add.reduceat(squares, range(0, channels, width), axis=1)) * sizes
    agree(out, expected, (width + 3) * kernels.u * expected)
    x[0, channels - 1, 0, 1, 3, 0] = np.nan
    Step("LENGTH", {"x": x, "out": out}).run(kernels)
    assert np.isnan(out[0, -1, 0, 1, 3, 0])
    assert np.isnan(out).sum() == 1


@each_kernels
@over("axis", [1, 3, 4])
def test_softmax(kernels: Kernels, axis: int) -> None:
    rng = np.random.default_rng(13)
    x, out = operand(kernels, rng, (3, 17, 5, 7)), operand(kernels, rng, (3, 17, 5, 7))
    x *= 30
    Step("SOFTMAX", {"x": x, "out": out}, {"axis": axis}).run(kernels)
    e = np.exp(x.astype(kernels.wide) - x.max(axis, keepdims=True))
    expected = e / e.sum(axis, keepdims=True)
    agree(
        out,
        expected,
        (x.shape[axis] + 4 + 2 * np.abs(x).max()) * kernels.u * expected + np.finfo(kernels.dtype).smallest_subnormal,
    )
    Step("LOG_SOFTMAX", {"x": x, "out": out}, {"axis": axis}).run(kernels)
    expected = x.astype(kernels.wide) - x.max(axis, keepdims=True) - np.log(e.sum(axis, keepdims=True))
    agree(out, expected, (x.shape[axis] + 6 + 4 * np.abs(x).max()) * kernels.u)


@each_kernels
@over("axis", [1, 4])
def test_embed_and_sum(kernels: Kernels, axis: int) -> None:
    rng = np.random.default_rng(14)
    n, words, features, vocabulary = 4, 7, 17, 23
    shape = (n, features, 1, 1, words, 1) if axis == 1 else (n, words, 1, 1, features, 1)
    one = tuple(1 if a == axis else s for a, s in enumerate(shape))
    ids, weight = place(rng.integers(0, vocabulary, one)), kernels.normal(rng, vocabulary, features)
    out = place(kernels.zeros(*shape))
    Step("EMBED", {"x": ids, "weight": vector(weight), "out": out}, {"axis": axis}).run(kernels)
    assert same_bits(out, np.moveaxis(weight[np.squeeze(ids, axis)], -1, axis))

    repeat = 2
    x, sums = place(kernels.normal(rng, n * repeat, *shape[1:])), place(kernels.normal(rng, n * repeat, *one[1:]))
    for m in (out, None):
        start = sums.astype(kernels.wide)
        numbers = {"axis": axis, "repeat": repeat, "accumulate": 1}
        Step("EMBED_SUM", {"x": x, "m": m, "out": sums}, numbers).run(kernels)
        terms = x.astype(kernels.wide) * (1 if m is None else np.repeat(m, repeat, 0))
        agree(
            sums,
            start + terms.sum(axis, keepdims=True),
            (features + 3) * kernels.u * (np.abs(start) + np.abs(terms).sum(axis, keepdims=True)),
        )
