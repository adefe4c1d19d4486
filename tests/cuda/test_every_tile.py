"""Every unit × tile × direction × feed of the contraction kernel against the oracle's loops, with several blocks along
pixels and channels and a remainder in both.

Tolerances are those of test_dense.py. Emulated, a large tile takes seconds: a few stand for all but in the long form
and on a GPU (DTDFAST_GPU=1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import on_gpu
from contraction_kernels import Case, specialisations
from dtdfast.cuda.kernels.dense import Tile
from dtdfast.cuda.run import tiles
from dtdfast.oracle.maths import gather, scatter
from dtdfast.plan.steps import View
from layers import World, geometry
from support import LONG
from test_dense import UNITS, U, bound, kept, n_terms, near, neuron, with_rounding

PRECISIONS = {**UNITS, "fma": ("float32", "f4")}
EVERY = [case for case in specialisations() if case[0] != "fma" or not case[1]]
CASES = EVERY if LONG or on_gpu.WANTED else [c for c in EVERY if c[4].pixels * c[4].channels <= 32 * 32][::5]


def name_of(case: Case) -> str:
    unit, even, products, transposed, tile = case
    row = next(row.name for row in tiles.NAMED.values() if row.tile == tile)
    return f"{unit} {row} {products} {'transposed' if transposed else 'plain'} {'even' if even else 'uneven'}"


def sizes(unit: str, even: bool, tile: Tile) -> tuple[int, int, tuple[int, int, int]]:
    """Channels summed and of the result, and pixels: more than one tile of each, the last one not full."""
    thin = tile.channels == 8
    inner = 64 if even else 7 if unit == "fma" else 20
    large = on_gpu.WANTED or LONG
    across = (
        (tile.channels if thin else tile.channels + 4)
        if large or unit in tiles.WGMMA
        else tile.channels - 4 * (not thin)
    )
    return inner, across, (1, 5, -(-tile.pixels // 5) + 2 if large else 4)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_every_tile(case: Case, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    unit, even, products, transposed, tile = case
    row = next(row for row in tiles.NAMED.values() if row.tile == tile)
    monkeypatch.setattr(tiles, "choose", lambda *_: row)
    inner, across, size = sizes(unit, even, tile)
    shallow = row.forms == (tiles.SHALLOW,)
    kernel = (1, 1, 1) if shallow else (1, 2, 3)
    if shallow:
        inner = {"bf16": 24, "fma": 7}.get(unit, 20)
    c_in, c_out = (across, inner) if transposed else (inner, across)
    part = geometry(rng, c_in, c_out, size, kernel, before=1, after=1)
    precision, real = PRECISIONS[unit]
    world = World(2, real=real)
    if products == 2:
        dual(part, world, unit, precision, real, rng)
    else:
        single(part, world, unit, precision, real, rng, transposed)


def check_kernels(launches: list[Any], unit: str) -> None:
    assert {launch.kernel.constants[0] for launch in launches} == {unit}
    assert launches[0].grid[0] > 1 or not (LONG or on_gpu.WANTED)


def dual(part: Any, world: World, unit: str, precision: str, real: str, rng: np.random.Generator) -> None:
    """Both sums of the dual product: y, and z⁺ as the denominator."""
    x = kept(np.abs(rng.standard_normal((2, *part.source.shape), dtype=np.float32)), real)
    results = neuron(part, world, x, dual=True, factor_kind="denominator")
    check_kernels(world.run(precision), unit)
    weight, x64 = part.weight.astype(np.float64), x.astype(np.float64)
    e = bound(unit, n_terms(part, False)) + 3 * U
    for name, mapped in (("out", weight), ("factor", np.maximum(weight, 0))):
        expected, size = gather(x64, mapped, part.taps), gather(x64, np.abs(mapped), part.taps)
        near(world.view_of(results[name]), expected, with_rounding(e * size, expected, real))
        assert world.untouched(results[name])


def single(
    part: Any, world: World, unit: str, precision: str, real: str, rng: np.random.Generator, transposed: bool
) -> None:
    """out += Σ x w⁺, multiplied by m."""
    shapes = (part.source.shape, (part.taps.c_out, *part.taps.out_size))
    given, made = (shapes[1], shapes[0]) if transposed else shapes
    x, m, before = (kept(rng.standard_normal((2, *s), dtype=np.float32), real) for s in (given, made, made))
    out = world.buffer(made, before)
    fields = dict(out=View(out), m=View(world.buffer(made, m)), multiplier="times", weight_map="w+", accumulate=True)
    world.lowering.taps("TAPS", part, View(world.buffer(given, x)), fields, scatter=transposed)
    check_kernels(world.run(precision), unit)
    positive, sums = np.maximum(part.weight, 0).astype(np.float64), scatter if transposed else gather
    expected = before + m.astype(np.float64) * sums(x.astype(np.float64), positive, part.taps)
    size = np.abs(before) + np.abs(m) * sums(np.abs(x).astype(np.float64), positive, part.taps)
    error = (bound(unit, n_terms(part, transposed)) + 3 * U) * size
    near(world.view_of(out), expected, with_rounding(error, expected, real))
    assert world.untouched(out)
