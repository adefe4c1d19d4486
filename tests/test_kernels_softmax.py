"""Softmax with a selector, relevance through it, and maps of computed weights, against the float64 reference."""

from __future__ import annotations

from typing import Any

import numpy as np

import kernel_reference as ref
from kernel_checks import LAYOUTS, agree, each, each_kernels, operand, same_bits
from kernel_steps import Kernels, Step, lib, place
from support import over

U = 2.0**-53
SHAPES = [(2, 3, 5, 7), (1, 2, 17, 16), (2, 2, 3, 197), (1, 1, 2, 530), (1, 2, 2, 1100)]


def some_selector(kernels: Kernels, rng: np.random.Generator, shape: Any) -> Any:
    """Zeros and other numbers: of every element, of rows and columns alike in all samples, or of columns alone."""
    axes = [shape, (1, 1, *shape[2:]), (1, 1, 1, shape[3])][int(rng.integers(3))]
    values = kernels.normal(rng, axes[0], axes[1], 1, axes[2], axes[3], 1)
    values[rng.random(values.shape) < 0.4] = 0
    return np.broadcast_to(place(values), (shape[0], shape[1], 1, *shape[2:], 1))


def softmax(x: Any, kept: Any, axis: int) -> Any:
    """0 where nothing is kept."""
    t = np.where(kept, x, -np.inf)
    largest = t.max(axis, keepdims=True)
    e = np.exp(t - np.where(np.isinf(largest), 0, largest))
    total = e.sum(axis, keepdims=True)
    return e / np.where(total == 0, 1, total)


@each("shape", SHAPES, 2)
@over("axis", [4, 3, 1])
@over("seed", range(3))
def test_softmax_of_what_is_selected(kernels: Kernels, shape: Any, axis: int, seed: int) -> None:
    rng = np.random.default_rng([*shape, axis, seed])
    x, out = operand(kernels, rng, shape), operand(kernels, rng, shape)
    selector, coefficient = some_selector(kernels, rng, shape), float(rng.choice([1, 0.125, -3]))
    kept = selector != 0
    x *= 20
    x[~kept] = rng.choice([np.nan, np.inf, 1])  # not read
    Step("SOFTMAX", {"x": x, "out": out, "other": selector}, {"axis": axis, "coefficient": coefficient}).run(kernels)
    t = kernels.wide(coefficient) * np.where(kept, x, 0).astype(kernels.wide)
    expected = softmax(t, kept, axis)
    # coefficient·x and its difference from the largest are rounded
    relative = (shape[{1: 1, 3: 2, 4: 3}[axis]] + 8 + 4 * np.abs(t).max()) * kernels.u
    agree(out, expected, relative * expected + np.finfo(kernels.dtype).smallest_subnormal)
    assert (out[~kept] == 0).all()


@each_kernels
def test_rows_left_out_wholly_are_0(kernels: Kernels) -> None:
    rng = np.random.default_rng(1)
    x, selector = kernels.normal(rng, 1, 2, 1, 5, 40, 1), np.ones((1, 2, 1, 5, 40, 1), kernels.dtype)
    x[0, 0, 0, 1], x[0, 0, 0, 2, 3] = -np.inf, np.nan
    selector[0, 0, 0, 3], selector[0, 1, 0, 4], selector[0, 0, 0, 2, 5] = 0, 0, 0
    out = place(np.ones_like(x))
    Step("SOFTMAX", {"x": place(x), "out": out, "other": place(selector)}, {"axis": 4}).run(kernels)
    assert (out[selector == 0] == 0).all()
    assert np.isnan(out[0, 0, 0, 1]).all()  # as without a selector: kept, and nothing but -inf
    assert np.isnan(out[0, 0, 0, 2][selector[0, 0, 0, 2] != 0]).all()
    sums = out.sum(4)[0, :, 0, :, 0]
    np.testing.assert_allclose(sums[[0, 0, 1, 1], [0, 4, 0, 3]], 1, rtol=80 * kernels.u)


@each_kernels
def test_exponential(kernels: Kernels) -> None:
    """Within 2.5 u, which is 1.25 ulp: 0.4 u of the argument's rest, 0.7 u of the series and 1 u of its last addition.
    A row (0, x) has the results 1/s and exp(x)/s, the latter rounded.
    """
    rng = np.random.default_rng(6)
    span = -np.log(kernels.wide(np.finfo(kernels.dtype).smallest_normal)) - 1
    half = np.log(kernels.wide(2)) / 2
    near = half * np.arange(1, int(span / half))  # where two powers of 2 are as near
    values = np.concatenate([-rng.random(5000) * span, -near, -np.exp2(-rng.random(500) * 30)]).astype(kernels.dtype)
    x = place(np.stack([np.zeros_like(values), values], 1)[None, None, None, :, :, None])
    out = place(np.zeros_like(x))
    Step("SOFTMAX", {"x": x, "out": out}, {"axis": 4}).run(kernels)
    ratio = out[0, 0, 0, :, 1, 0].astype(kernels.wide) / out[0, 0, 0, :, 0, 0]
    expected = np.exp(values.astype(kernels.wide))
    agree(ratio, expected, 3.5 * kernels.u * expected)


@each("shape", SHAPES, 2)
@over("axis", [4, 3, 1])
def test_softmax_back(kernels: Kernels, shape: Any, axis: int) -> None:
    rng = np.random.default_rng([*shape, axis])
    repeat, coefficient = 3, 0.25
    many = (shape[0] * repeat, *shape[1:])
    x, out, m = operand(kernels, rng, many), operand(kernels, rng, many), operand(kernels, rng, shape, zeros=True)
    values, kept = x.astype(kernels.wide), np.repeat(m.astype(kernels.wide), repeat, 0)
    total = (kept * values).sum(axis, keepdims=True)
    expected = coefficient * kept * (values - total)
    size = np.abs(coefficient * kept) * (np.abs(values) + np.abs(kept * values).sum(axis, keepdims=True))
    for accumulate in (0, 1):
        start = accumulate * out.astype(kernels.wide)
        numbers = {"axis": axis, "coefficient": coefficient, "repeat": repeat, "accumulate": accumulate}
        Step("SOFTMAX_BACK", {"x": x, "out": out, "m": m}, numbers).run(kernels, 2)
        error = 2 * (x.shape[axis] + 6) * U * size
        agree(out, start + expected, kernels.u * ((1 + accumulate) * np.abs(expected) + np.abs(start)) + error)


@each_kernels
@over("weight_map", ref.WEIGHT_MAPS)
def test_map_weight(kernels: Kernels, weight_map: str) -> None:
    rng = np.random.default_rng(7)
    x, out = operand(kernels, rng, (2, 17, 5, 70), zeros=True), operand(kernels, rng, (2, 17, 5, 70))
    numbers = {"weight_map": getattr(lib, f"DTD_{weight_map}"), "gamma": 0.3}
    if not weight_map.startswith("W_GAMMA"):
        del numbers["gamma"]
    Step("MAP_WEIGHT", {"x": x, "out": out}, numbers).run(kernels, 2)
    values = x.astype(kernels.wide)
    expected = (values != 0) * kernels.wide(1) if weight_map == "W_ONE" else ref.WEIGHT_MAPS[weight_map](values, 0.3)
    agree(out, expected, 3 * kernels.u * np.abs(expected))


@each_kernels
@over("layout", LAYOUTS)
def test_bits_do_not_depend_on_threads_or_batch(kernels: Kernels, layout: str) -> None:
    rng = np.random.default_rng(8)
    x, m = (kernels.normal(rng, 3, 4, 1, 30, 197, 1) for _ in range(2))
    for op, arrays in (("SOFTMAX", {"other": m}), ("SOFTMAX", {}), ("SOFTMAX_BACK", {"m": m})):

        def run(some: slice, n_threads: int) -> Any:
            operands = {k: place(a[some], order=LAYOUTS[layout]) for k, a in {"x": x, **arrays}.items()}  # noqa: B023
            out = place(np.zeros_like(x[some]), order=LAYOUTS[layout])
            Step(op, {**operands, "out": out}, {"axis": 4}).run(kernels, n_threads)  # noqa: B023
            return out

        first = run(slice(None), 1)
        assert all(same_bits(run(slice(None), n_threads), first) for n_threads in (2, 3))
        assert same_bits(run(slice(1, 2), 1), first[1:2])
