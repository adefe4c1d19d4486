"""The element-wise kernels, copies and borders against the float64 reference, in both layouts and with gaps."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

import kernel_reference as ref
from kernel_checks import LAYOUTS, agree, each, each_kernels, operand, same_bits
from kernel_steps import Kernels, Step, lib, place, vector
from support import over

ELEMENTWISE = [(n, c, h, w) for n, c in ((1, 1), (2, 3), (6, 17), (2, 65)) for h, w in ((1, 1), (5, 7), (17, 31))]
each_shape = each("shape", ELEMENTWISE, 4)


@each_shape
@over("mode", ref.INPUT_MAPS)
def test_map(kernels: Kernels, shape: Any, mode: str) -> None:
    rng = np.random.default_rng(1)
    x, out = operand(kernels, rng, shape), operand(kernels, rng, shape)
    x.reshape(-1)[0] = x[0, 0, 0, 0, 0, 0] = np.nan
    bounds = kernels.normal(rng, 1, shape[1], 1, 1, 1, 1)
    bounds[0, 0] = -np.inf if mode == "X_ABOVE_LOW" else np.inf
    bounds[0, 1:2] = -bounds[0, 0]  # a box without width
    m = np.broadcast_to(place(bounds), x.shape) if mode in ("X_ABOVE_LOW", "X_BELOW_HIGH") else None
    Step("MAP", {"x": x, "out": out, "m": m}, {"input_map": getattr(lib, f"DTD_{mode}")}).run(kernels)
    expected = ref.INPUT_MAPS[mode](x.astype(kernels.wide), np.broadcast_to(bounds, x.shape).astype(kernels.wide))
    agree(out, expected, kernels.u * np.abs(expected))


@each_shape
def test_convert(kernels: Kernels, shape: Any) -> None:
    """From the other type: exact to double, rounded once to float; NaN and infinities as they are."""
    rng = np.random.default_rng(15)
    other = np.dtype(np.float32 if kernels.dtype == np.float64 else np.float64)
    values = rng.standard_normal((shape[0], shape[1], 1, shape[2], shape[3], 1)).astype(other)
    values.reshape(-1)[:3] = [np.nan, -np.inf, 1 + 2.0**-23][: values.size]
    out = operand(kernels, rng, shape)
    for order in LAYOUTS.values():
        Step("CONVERT", {"x": place(values, order=order, gap=1), "out": out}, {}).run(kernels, n_threads=2)
        assert np.array_equal(out, values.astype(kernels.dtype), equal_nan=True)


@each_shape
@over("multiplier", ref.MULTIPLIERS)
def test_multiply(kernels: Kernels, shape: Any, multiplier: str) -> None:
    rng = np.random.default_rng(2)
    repeat = 2 if shape[0] % 2 == 0 else 1
    x, out, m = (
        operand(kernels, rng, shape),
        operand(kernels, rng, shape),
        operand(kernels, rng, (shape[0] // repeat, *shape[1:]), zeros=True),
    )
    m[0, -1, 0, 0, 0, 0] = np.nan
    start = out.astype(kernels.wide)
    for accumulate in (0, 1):
        numbers = {"multiplier": getattr(lib, f"DTD_{multiplier}"), "accumulate": accumulate, "repeat": repeat}
        Step("MULTIPLY", {"x": x, "out": out, "m": m}, numbers).run(kernels)
        term = ref.MULTIPLIERS[multiplier](np.repeat(m.astype(kernels.wide), repeat, 0)) * x
        if multiplier == "M_NONE":
            term = x.astype(kernels.wide)
        agree(out, term + accumulate * start, 2 * kernels.u * (np.abs(term) + np.abs(start)))
        start = out.astype(kernels.wide)


@over("sign", ["ANY_SIGN", "POSITIVE", "NEGATIVE"])
@each_shape
def test_divide(kernels: Kernels, shape: Any, sign: str) -> None:
    rng = np.random.default_rng(3)
    repeat = 2 if shape[0] % 2 == 0 else 1
    x, out, m = (
        operand(kernels, rng, shape, zeros=True),
        operand(kernels, rng, shape),
        operand(kernels, rng, (shape[0] // repeat, *shape[1:]), zeros=True),
    )
    Step("DIVIDE", {"x": x, "out": out, "m": m}, {"repeat": repeat, "select": getattr(lib, f"DTD_{sign}")}).run(kernels)
    divisor = np.repeat(m.astype(kernels.wide), repeat, 0)
    has = {"ANY_SIGN": divisor != 0, "POSITIVE": divisor > 0, "NEGATIVE": divisor < 0}[sign]
    expected = np.where(has, ref.quotient(x.astype(kernels.wide), divisor), 0)
    agree(out, expected, kernels.u * np.abs(expected))


@each_kernels
@over("kind", ref.ACTIVATIONS)
@over("derivative", [False, True])
def test_activate(kernels: Kernels, kind: str, derivative: bool) -> None:
    """Functions and derivatives, far from 0 and at their kinks too: the derivative there is the one from the left."""
    numbers = {
        "CLIP": (-1, 2),
        "HARD_SIGMOID": (0.25, 0.5),
        "LEAKY_RELU": (0.125, 0),
        "THRESHOLD": (2, -1),
        "HARD_SHRINK": (2, 0),
    }
    alpha, beta = numbers.get(kind, (1.5, 0))
    grid = np.concatenate([np.linspace(-6, 6, 97), [-90, -30, -2, 2, 30, 90, -1, 0, 3, -3]]).astype(kernels.dtype)
    x = place(grid.reshape(1, -1, 1, 1, 1, 1))
    out = place(np.zeros_like(x))
    numbers = {"activation": getattr(lib, f"DTD_{kind}"), "act_alpha": alpha, "act_beta": beta}
    Step("ACTIVATE", {"x": x, "out": out}, {**numbers, "derivative": int(derivative)}).run(kernels)
    with np.errstate(over="ignore"):
        expected = ref.ACTIVATIONS[kind][derivative](x.astype(kernels.wide), alpha, beta)
    # rounding x·(…) inside exp and tanh costs |x| ulp; the tanh of the reference cancels for large negative x
    u, size, reference = kernels.u, np.abs(x), np.finfo(kernels.wide).eps * (1 + x**2)
    agree(out, expected, 8 * u * (1 + size) * np.abs(expected) + 4 * u * np.minimum(1, np.exp(-size)) + reference)
    x[...] = np.nan
    Step("ACTIVATE", {"x": x, "out": out}, numbers).run(kernels)
    assert np.isnan(out).all()


def test_each_activation_has_a_name() -> None:
    assert len(ref.ACTIVATIONS) == lib.DTD_N_ACTIVATIONS


@each_shape
@over("derivative", [False, True])
@over("per_channel", [False, True])
def test_activate_with_slopes(kernels: Kernels, shape: Any, derivative: bool, per_channel: bool) -> None:
    """Of a prelu: one per channel, or per element of a sample."""
    rng = np.random.default_rng(16)
    x, out = operand(kernels, rng, shape, zeros=True), operand(kernels, rng, shape)
    x[0, 0, 0, 0, 0, 0] = np.nan
    slopes = kernels.normal(rng, 1, *((shape[1], 1, 1, 1, 1) if per_channel else x.shape[1:]))
    m = np.broadcast_to(place(slopes), x.shape)
    numbers = {"derivative": int(derivative), "activation": lib.DTD_LEAKY_RELU}
    Step("ACTIVATE", {"x": x, "out": out, "m": m}, numbers).run(kernels, 2)
    expected = ref.ACTIVATIONS["LEAKY_RELU"][derivative](x.astype(kernels.wide), m.astype(kernels.wide), 0)
    expected[np.isnan(x)] = np.nan
    agree(out, expected, kernels.u * np.abs(expected))


@each_shape
@over("biased", [False, True])
def test_affine(kernels: Kernels, shape: Any, biased: bool) -> None:
    rng = np.random.default_rng(4)
    x, out, weight, bias = (
        operand(kernels, rng, shape),
        operand(kernels, rng, shape),
        kernels.normal(rng, shape[1]),
        kernels.normal(rng, shape[1]),
    )
    start = out.astype(kernels.wide)
    Step(
        "AFFINE",
        {"x": x, "out": out, "weight": vector(weight), "bias": vector(bias) if biased else None},
        {"accumulate": 1},
    ).run(kernels)
    column = (slice(None), None, None, None, None)
    product_, b = x * weight.astype(kernels.wide)[column], biased * bias.astype(kernels.wide)[column]
    agree(out, start + product_ + b, 3 * kernels.u * (np.abs(start) + np.abs(product_) + np.abs(b)))


@each_kernels
@over("seed", range(4))
def test_signed_factor(kernels: Kernels, seed: int) -> None:
    """Terms where y ≥ 0; what y has beside them and its bias, at most 0, where y < 0; away from 0 by the stabilizer."""
    rng = np.random.default_rng(seed)
    shape = (2, 17, 5, 7)
    factor, terms, m = (operand(kernels, rng, shape, zeros=True) for _ in range(3))
    bias, scale = kernels.normal(rng, 17), 0.5 + kernels.uniform(rng, 1, 1, 1, 5, 7, 1)
    has = rng.random(2) < 0.5
    stabilizer = 0.1 * (seed % 2)
    arrays = {"factor": factor, "terms": terms, "m": m, "bias": vector(bias) if has[0] else None,
              "scale": np.broadcast_to(place(scale), m.shape) if has[1] else None}  # fmt: skip
    Step("FACTOR", arrays, {"factor_kind": lib.DTD_F_SIGNED, "stabilizer": stabilizer}).run(kernels)
    y = m + has[0] * bias[:, None, None, None, None]
    s = scale.astype(kernels.wide) if has[1] else 1.0
    expected = (
        np.where(
            y < 0, np.minimum(m.astype(kernels.wide) - terms, 0) - stabilizer, terms.astype(kernels.wide) + stabilizer
        )
        / s
    )
    agree(factor, expected, 4 * kernels.u * (np.abs(m) + np.abs(terms) + stabilizer) / s)


@each_kernels
@over("mode", ["GATE", "DENOMINATOR", "DERIVATIVE"])
@over("select", ["ANY_SIGN", "POSITIVE", "NEGATIVE"])
@over("seed", range(4))
def test_factor(kernels: Kernels, mode: str, select: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (2, 17, 5, 7)
    factor, terms, x, m, other = (operand(kernels, rng, shape, zeros=True) for _ in range(5))
    has = rng.random(4) < 0.5
    bias, bias_d = kernels.normal(rng, 17), kernels.normal(rng, 17)
    scale = 0.5 + kernels.uniform(rng, 1, 1, 1, 5, 7, 1)
    stabilizer = 0.1 * (seed % 2)
    arrays = {
        "factor": factor, "terms": terms, "x": x, "m": m, "bias": vector(bias) if has[0] else None,
        "bias_d": vector(bias_d) if has[1] else None, "terms_prev": other if has[2] else None,
        "scale": np.broadcast_to(place(scale), x.shape) if has[3] else None,
    }  # fmt: skip
    numbers = {
        "factor_kind": getattr(lib, f"DTD_F_{mode}"), "select": getattr(lib, f"DTD_{select}"),
        "coefficient": 2.0, "stabilizer": stabilizer, "activation": lib.DTD_SIGMOID,
    }  # fmt: skip
    Step("FACTOR", arrays, numbers).run(kernels)
    column = (slice(None), None, None, None, None)
    y = m.astype(kernels.wide) + has[0] * bias.astype(kernels.wide)[column]
    b_d, s = has[1] * bias_d.astype(kernels.wide)[column], scale.astype(kernels.wide) if has[3] else 1.0
    d = ref.stabilised(terms + b_d, stabilizer)
    coefficient = np.where(has[2] & (other == 0), 1.0, 2.0)
    if mode == "DERIVATIVE":
        expected = ref.ACTIVATIONS["SIGMOID"][1](y, 0, 0) * s
        agree(factor, expected, 16 * kernels.u * np.abs(expected) * (1 + np.abs(y)))
        return
    expected = ref.quotient(coefficient * x, d) * s if mode == "GATE" else d / (coefficient * s)
    if select != "ANY_SIGN":
        expected = np.where(y > 0 if select == "POSITIVE" else y < 0, expected, 0)
    cancelled = (np.abs(terms) + np.abs(b_d) + stabilizer) / np.abs(np.where(d == 0, 1, d))
    agree(factor, expected, np.abs(expected) * kernels.u * (6 + 4 * cancelled))


# ------------------------------------------------------------------------------------------------- copies and borders


@each_shape
@over("accumulate", [0, 1])
def test_move(kernels: Kernels, shape: Any, accumulate: int) -> None:
    rng = np.random.default_rng(8)
    for x_order, out_order in product(LAYOUTS.values(), LAYOUTS.values()):
        values = kernels.normal(rng, shape[0], shape[1], 1, shape[2], shape[3], 1)
        x, out = (
            place(values, order=x_order, gap=2),
            place(values[::-1], order=out_order, frame=(0, 0, 0, 2, 1, 0), phase=2),
        )
        start = out.copy()
        Step("MOVE", {"x": x, "out": out}, {"accumulate": accumulate}).run(kernels, 2)
        assert same_bits(out, x + start if accumulate else x)


@each_kernels
def test_move_permutes_and_broadcasts(kernels: Kernels) -> None:
    rng = np.random.default_rng(9)
    x = place(kernels.normal(rng, 3, 17, 1, 5, 7, 4))
    out = place(kernels.zeros(3, 7, 1, 5, 17, 4))
    Step("MOVE", {"x": x.transpose(0, 4, 2, 3, 1, 5), "out": out}).run(kernels)
    assert same_bits(out, x.transpose(0, 4, 2, 3, 1, 5))
    row = place(kernels.normal(rng, 1, 1, 1, 1, 17, 1))
    Step("MOVE", {"x": np.broadcast_to(row, out.shape), "out": out}).run(kernels)
    assert same_bits(out, np.broadcast_to(row, out.shape))


@each_kernels
@over("channels", [1, 17])
@over("gap", [0, 3])
def test_clear_border(kernels: Kernels, channels: int, gap: int) -> None:
    border = (1, 0, 2, 1, 0, 3)
    rng = np.random.default_rng(10)
    whole = place(kernels.normal(rng, 2, channels, 4, 8, 10, 1), gap=gap)
    out = whole[:, :, 1:3, 2:6, 1:6]  # columns 0 and 9 lie beyond the frame
    expected = whole.copy()
    expected[:, :, 0:3, 0:7, 1:9] = 0
    expected[:, :, 1:3, 2:6, 1:6] = out
    Step("CLEAR_BORDER", {"out": out, "whole": whole}, {"border": border}).run(kernels)
    assert same_bits(whole, expected)
