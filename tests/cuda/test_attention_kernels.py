"""Products of computed matrices, norms, softmax and relevance through them, emulated thread by thread in any order of
axes, against NumPy in float64.

Tolerance: a chain of n fused multiply-adds in float32 errs by n·u·Σ|terms|, u = 2⁻²⁴, and a few roundings follow. Norms
and relevance through a softmax are computed in float64 and rounded once. What is kept in bfloat16 is rounded once more,
by 2⁻⁸.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

import kernel_reference as ref
from dtdfast.cuda.kernels.formulas import MULTIPLIERS, WEIGHT_MAPS
from dtdfast.plan.steps import Buffer, Step, View
from dtdfast.plan.tensors import Region
from layers import World

U, NARROW = 2.0**-24, 2.0**-8
N, T = 2, 3
MAPS = dict(zip(WEIGHT_MAPS, ref.WEIGHT_MAPS.values(), strict=True))
TIMES = {name.removeprefix("M_").replace("_", " ").lower(): f for name, f in ref.MULTIPLIERS.items()}


class Operands(World):
    """A world whose arrays are random, in random orders of axes, and per sample or per target."""

    def __init__(self, rng: np.random.Generator, real: str = "f4") -> None:
        super().__init__(N, T, real=real)
        self.rng, self.error = rng, 0.0 if real == "f4" else NARROW

    def some(self, shape: tuple[int, ...], batch: str, *, zeros: bool = False, positive: bool = False) -> Buffer:
        count = {"n": N, "nt": N * T, "1": 1}[batch]
        values = self.rng.standard_normal((count, *shape), dtype=np.float32)
        if zeros:
            values.reshape(-1)[::3] = 0
        orders = list(permutations(range(len(shape))))
        order = orders[int(self.rng.integers(len(orders)))]
        return self.buffer(shape, np.abs(values) + 0.5 if positive else values, batch, order=order)

    def exact(self, buffer: Buffer) -> Any:
        """Its values in float64, for every target."""
        values = self.view_of(buffer).astype(np.float64)
        return values if len(values) == N * T else np.repeat(values, N * T // len(values), 0)

    def judge(self, step: Step, expected: Any, bound: Any) -> None:
        """Run the step; out (+)= expected within the bound and what keeping it costs."""
        start = self.exact(step.out.buffer) * step.accumulate
        step.repeat = T
        self.lowering.emit(step)
        self.run()
        found = self.view_of(step.out.buffer).astype(np.float64)
        added = (self.error + U) * np.abs(start + expected)
        assert (np.abs(found - start - expected) <= bound + added).all(), step.op
        self.lowering.taken()


def flag(rng: np.random.Generator) -> bool:
    return bool(rng.integers(2))


def turned(buffer: Buffer) -> View:
    """Its last two axes exchanged."""
    rank = len(buffer.shape)
    ranges = tuple((0, 1, size) for size in buffer.shape)
    return View(buffer, Region(ranges, (*range(rank - 2), rank - 1, rank - 2)))


# ----------------------------------------------------------------------------------------------------------- products

PRODUCTS = [  # rows, terms, columns, heads; a tile has 64 rows, 16 terms, 64 columns
    (1, 1, 1, (1,)), (3, 5, 16, (2,)), (66, 17, 5, (1,)), (4, 33, 70, (1,)), (7, 16, 9, (2, 1)), (2, 40, 3, (1, 2)),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(PRODUCTS)))
def test_matmul(number: int) -> None:
    """out (+)= coefficient·multiplier(m)·x·other, x, other and m of a sample, of a target or of all."""
    rng = np.random.default_rng(number)
    rows, terms, columns, heads = PRODUCTS[number]
    world = Operands(rng, "bf16" if number == 3 else "f4")
    out, m = (world.some((*heads, rows, columns), batch, zeros=True) for batch in ("nt", "n"))
    x = world.some((*heads, rows, terms), "n" if flag(rng) else "nt")
    other = world.some((*heads, columns, terms), "n1"[number % 2] if flag(rng) else "nt")
    coefficient, multiplier = float(rng.choice([1, -1.5])), list(MULTIPLIERS)[-1 - number]
    step = Step("MATMUL", None, View(out), View(x), other=turned(other), m=View(m), multiplier=multiplier)
    step.coefficient, step.accumulate = coefficient, flag(rng)
    if multiplier == "none":
        step.m = None
    by = coefficient * TIMES[multiplier](world.exact(m))
    left, right = world.exact(x), np.swapaxes(world.exact(other), -1, -2)
    world.judge(step, by * (left @ right), (terms + 4) * U * np.abs(by) * (np.abs(left) @ np.abs(right)))


def test_bits_of_a_product_follow_from_its_row_and_column() -> None:
    rng = np.random.default_rng(0)
    x, other = rng.standard_normal((1, 1, 67, 21), np.float32), rng.standard_normal((1, 1, 21, 9), np.float32)

    def product(x: Any, other: Any, order: tuple[int, ...]) -> Any:
        world = World(1)
        out = world.buffer((1, x.shape[2], other.shape[3]), order=order)
        views = [View(world.buffer(a.shape[1:], a, order=order)) for a in (x, other)]
        world.lowering.emit(Step("MATMUL", None, View(out), views[0], other=views[1]))
        world.run()
        return world.view_of(out)

    whole = product(x, other, (0, 1, 2))
    np.testing.assert_array_equal(product(x, other, (0, 2, 1)), whole)
    np.testing.assert_array_equal(product(x[:, :, 65:66], other[..., 4:], (1, 0, 2))[0, 0, 0], whole[0, 0, 65, 4:])


# -------------------------------------------------------------------------------------------------------------- norms

NORMS = [(True, (5, 3)), (False, (33,)), (True, (67, 2)), (False, (4, 2, 3)), (True, (1, 2))]


def constant(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Numbers of a whole sample, or of channels alone, with zeros; or None."""
    kind = int(rng.integers(3))
    if kind == 0:
        return None
    values = rng.standard_normal(shape if kind == 1 else (shape[0], *(1,) * (len(shape) - 1)), np.float32)
    values.reshape(-1)[1::4] = 0
    return values


def numbers(values: Any, absent: float) -> Any:
    return absent if values is None else values.astype(np.float64)


@pytest.mark.parametrize(("centred", "shape"), NORMS)
def test_norm(centred: bool, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(shape) + shape[0])
    world, epsilon = Operands(rng), 1e-3
    world.t = 1
    x, out, factor = (world.some(s, "n") for s in (shape, shape, (1, *shape[1:])))
    w, b = constant(rng, shape), constant(rng, shape)
    step = Step("NORM", None, View(out), View(x), factor=View(factor), norm_weight=w, norm_bias=b, centred=centred)
    step.epsilon = epsilon
    world.lowering.emit(step)
    world.run()
    values = world.view_of(x).astype(np.float64)
    rest = values - values.mean(1, keepdims=True) * centred
    rho = 1 / np.sqrt((rest**2).mean(1, keepdims=True) + np.float32(epsilon))
    np.testing.assert_allclose(world.view_of(factor), rho, rtol=1.01 * U)
    expected = rest * rho * numbers(w, 1.0) + numbers(b, 0.0)
    np.testing.assert_allclose(world.view_of(out), expected, rtol=1.01 * U, atol=1e-13)


def matrix(rho: Any, w: Any, shape: tuple[int, ...], centred: bool, weight_map: str, gamma: float) -> Any:
    """wm(m_ij), axes (batch, i, j, …)."""
    unit = np.eye(shape[0]).reshape(1, shape[0], shape[0], *(1,) * (len(shape) - 1))
    weight = np.broadcast_to(numbers(w, 1.0), shape)[None, None]
    mapped = MAPS[weight_map]((unit - centred / shape[0]) * rho[:, None] * weight, gamma)
    return mapped if centred else mapped * unit


@pytest.mark.parametrize("scatter", [False, True])
@pytest.mark.parametrize(("centred", "shape"), NORMS)
def test_products_with_the_matrix_of_a_norm(centred: bool, shape: tuple[int, ...], scatter: bool) -> None:
    rng = np.random.default_rng([len(shape), shape[0], scatter])
    for number in (0, 3) if shape[0] > 60 else range(0, len(MAPS), 2):
        weight_map, multiplier = list(MAPS)[number + scatter], list(MULTIPLIERS)[number - scatter]
        world = Operands(rng, "bf16" if number == 4 else "f4")
        x = world.some(shape, "nt" if scatter else "n")
        out, m = world.some(shape, "nt"), world.some(shape, "n", zeros=True)
        scale, w = world.some((1, *shape[1:]), "n", positive=True), constant(rng, shape)
        step = Step("NORM_SCATTER" if scatter else "NORM_TAPS", None, View(out), View(x), scale=View(scale))
        step.weight_map, step.gamma, step.centred, step.norm_weight = weight_map, 0.25, centred, w
        step.accumulate, by = bool(number % 4), np.ones(1)
        if scatter:
            step.m, step.multiplier = View(m), multiplier
            by = TIMES[multiplier](world.exact(m))
        wm, values = matrix(world.exact(scale), w, shape, centred, weight_map, 0.25), world.exact(x)
        sums = "bij...,bj...->bi..." if scatter else "bij...,bi...->bj..."
        expected = by * np.einsum(sums, wm, values)
        largest = np.abs(wm).max((1, 2), keepdims=True)[:, 0] * np.abs(values).sum(1, keepdims=True)
        world.judge(step, expected, (world.error + 3 * U) * np.abs(expected) + 1e-13 * np.abs(by) * largest)


@pytest.mark.parametrize(("centred", "shape"), NORMS[:3])
def test_derivative_of_a_norm(centred: bool, shape: tuple[int, ...]) -> None:
    """By finite differences of the norm itself."""
    rng = np.random.default_rng(shape[0])
    world, epsilon = Operands(rng), 0.5
    x, out, m = world.some(shape, "nt"), world.some(shape, "nt"), world.some(shape, "n")
    w = constant(rng, shape)
    step = Step("NORM_SCATTER", None, View(out), View(x), m=View(m), norm_weight=w, centred=centred, derivative=True)
    step.epsilon, step.accumulate = epsilon, True
    g, y = world.exact(x) * numbers(w, 1.0), world.exact(m)

    def norm(y: Any) -> Any:
        rest = y - y.mean(1, keepdims=True) * centred
        return rest / np.sqrt((rest**2).mean(1, keepdims=True) + epsilon)

    expected, h = np.empty_like(y), 1e-5
    for i in range(shape[0]):
        ahead, behind = y.copy(), y.copy()
        ahead[:, i] += h
        behind[:, i] -= h
        expected[:, i] = (g * (norm(ahead) - norm(behind))).sum(1) / (2 * h)
    world.judge(step, expected, 1e-9 + 2 * U * np.abs(expected))


# ------------------------------------------------------------------------------------------------------------ softmax


@pytest.mark.parametrize(("shape", "axis"), [((3, 5), 2), ((2, 3, 37), 3), ((35, 2), 1)])
def test_softmax(shape: tuple[int, ...], axis: int) -> None:
    """Of those whose selector is not 0; a line without any is 0.  And relevance back through it."""
    rng = np.random.default_rng(axis)
    world, slot = Operands(rng), axis if axis == 1 else axis + 3 - len(shape) + 1
    x, out, back = world.some(shape, "n"), world.some(shape, "n"), world.some(shape, "nt")
    c = world.some(shape, "nt")
    selector = (rng.random(shape) < 0.7).astype(np.float32)
    np.moveaxis(selector, axis - 1, -1)[0, ..., :] = 0
    world.t = 1
    step = Step("SOFTMAX", None, View(out), View(x), selector=selector, axis=slot, coefficient=1.5)
    world.lowering.emit(step)
    world.run()
    world.lowering.taken()
    values = np.where(selector != 0, 1.5 * world.view_of(x).astype(np.float64), -np.inf)
    e = np.where(selector != 0, np.exp(values - values.max(axis, keepdims=True, initial=-100)), 0)
    total = e.sum(axis, keepdims=True)
    found, expected = world.view_of(out), np.where(total == 0, 0, e / np.where(total == 0, 1, total))
    # exp errs by what its argument does, |x| + |max x| roundings, and 3 units; then a quotient
    np.testing.assert_allclose(found, expected, rtol=float(np.abs(values[np.isfinite(values)]).max() * 4 + 6) * U)
    assert (found[:, selector == 0] == 0).all()

    world.t = T
    y, given = world.exact(out), world.exact(c)
    step = Step("SOFTMAX_BACK", None, View(back), View(c), m=View(out), axis=slot, coefficient=-0.5, accumulate=True)
    product = -0.5 * y * (given - (y * given).sum(axis, keepdims=True))
    world.judge(step, product, 2 * U * np.abs(product) + 1e-14)


def test_weights_of_a_held_matrix() -> None:
    for weight_map, formula in MAPS.items():
        world = World(N)
        values = np.random.default_rng(0).standard_normal((N, 2, 3), np.float32)
        values[0, 0] = 0
        x, out = world.buffer((2, 3), values, order=(1, 0)), world.buffer((2, 3), order=(0, 1))
        world.lowering.emit(Step("MAP_WEIGHT", None, View(out), View(x), weight_map=weight_map, gamma=0.25))
        world.run()
        expected = (values != 0) if weight_map == "1" else formula(values.astype(np.float64), 0.25)
        np.testing.assert_allclose(world.view_of(out), expected, rtol=2 * U)
