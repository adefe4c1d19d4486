"""Phases of a transposed product put together as columns: right, with the bits of phase by phase, and only where that
saves something.

Tolerances are those of test_dense.py; the product and the product by m are rounded one after the other, as they were.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast.cuda.kernels.formulas import WEIGHT_MAPS
from dtdfast.cuda.kernels.warp_product import ROW_BYTES
from dtdfast.cuda.run import tiles
from dtdfast.oracle.maths import scatter
from dtdfast.plan import columns
from dtdfast.plan.steps import View
from dtdfast.vocabulary import W_ONE
from layers import World, geometry
from support import LONG, chosen
from test_dense import UNITS, U, bound, kept, n_terms, near, with_rounding

GIVEN = ["tf32x3", "tf32", "bf16"]
joined = partial(columns.joined, row_bytes=ROW_BYTES)


def layer(rng: np.random.Generator, *, channels: int = 3, outputs: int = 64, **options: Any) -> Any:
    """The first layer of a ResNet, smaller: 7 × 7 taps, of which phases have 4 or 3 along each axis."""
    given = dict(x_size=(1, 8, 6), kernel=(1, 7, 7), stride=2, before=3, after=3) | options
    size, kernel = given.pop("x_size"), given.pop("kernel")
    return geometry(rng, channels, outputs, size, kernel, **given)


def steps_of(part: Any, n: int, t: int, real: str, rng: np.random.Generator, fields: dict[str, Any]) -> Any:
    """A world with the layer's transposed product, and what is given there; `fields` may name arrays m and before."""
    world = World(n, t, real=real)
    s = kept(rng.standard_normal((n * t, part.taps.c_out, *part.taps.out_size), dtype=np.float32), real)
    own = dict(fields)
    out = world.lowering.ordered("r", part.source.shape, (1, 2, 3, 0), "nt", dtype="f4")
    if "before" in own:
        world.values[id(out)] = own.pop("before")
    if "m" in own:
        m = world.lowering.ordered("x", part.source.shape, (1, 2, 3, 0), "n", dtype="f4")
        world.values[id(m)] = own.pop("m")
        own |= {"m": View(m), "multiplier": "times"}
    own |= {"out": View(out), "repeat": t, "weight_map": "w+"}
    world.lowering.taps("TAPS", part, View(world.buffer(s.shape[1:], s, "nt")), own, scatter=True)
    return world, s, out


@pytest.mark.parametrize(("multiplied", "unit"), chosen([True, False], GIVEN if LONG else ["tf32", "bf16"]))
def test_as_phase_by_phase(
    multiplied: bool, unit: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """r_in (+)= m · Σ_j w⁺ s_j, of two targets, near the oracle's, and bit by bit as without. So few pixels would take
    sums of 16 taps in segments, but those of 9 whole.
    """
    monkeypatch.setattr(tiles, "SEGMENTS", ())
    part, (precision, real), n, t = layer(rng), UNITS[unit], 1, 2
    shape, fields = part.source.shape, dict[str, Any]()
    if multiplied:
        fields = {"m": rng.standard_normal((n, *shape), dtype=np.float32), "accumulate": True}
        fields["before"] = rng.standard_normal((n * t, *shape), dtype=np.float32)
    found, state = [], rng.bit_generator.state
    for together in (True, False):
        rng.bit_generator.state = state
        world, s, out = steps_of(part, n, t, real, rng, fields)
        if together:
            world.lowering.steps[:] = joined(world.steps)
            operations = [step.op for step in world.steps]
            assert operations == ["TAPS_DENSE"] + ["MULTIPLY" if multiplied else "MOVE"] * 4
            assert len(world.steps[0].phase.taps) == 16
        else:
            assert [len(step.phase.taps) for step in world.steps] == [9, 12, 12, 16]
        launches = world.run(precision)
        assert {x.kernel.constants[0] for x in launches if x.kernel.name == "dtd_dense"} == {unit}
        found.append(world.view_of(out).copy())
        assert world.untouched(out)
    before = fields.get("before", np.zeros_like(found[0]))
    factor = np.repeat(fields["m"], t, axis=0) if multiplied else np.float32(1)
    positive = np.maximum(part.weight, 0).astype(np.float64)
    expected = before + factor * scatter(s.astype(np.float64), positive, part.taps)
    size = np.abs(before) + np.abs(factor) * scatter(np.abs(s).astype(np.float64), positive, part.taps)
    near(found[0], expected, with_rounding((bound(unit, n_terms(part, True)) + 3 * U) * size, expected, "f4"))
    assert np.array_equal(*(f.view(np.uint32) for f in found))


@pytest.mark.parametrize(
    ("options", "number"),
    [
        ({}, 5),
        ({"channels": 4, "kernel": (1, 3, 3), "before": 1, "after": 1}, 5),
        ({"channels": 8}, 4),  # too many columns
        ({"outputs": 40}, 4),  # channels that fill no tile
        ({"x_size": (1, 7, 6)}, 4),  # phases of several sizes
        ({"kernel": (1, 1, 1), "before": 0, "after": 0}, 4),  # one tap for all phases
        ({"stride": 1}, 1),
        ({"stride": 3, "x_size": (1, 9, 6)}, 9),
        ({"groups": 1, "x_size": (1, 1, 8), "kernel": (1, 1, 7)}, 2),
    ],
)
def test_which(options: dict[str, Any], number: int, rng: np.random.Generator) -> None:
    world, _, _ = steps_of(layer(rng, **options), 1, 1, "f4", rng, {})
    before = list(world.steps)
    after = joined(before)
    assert len(after) == number
    assert (after == before) == (number != 5)


def test_weights_of_one(rng: np.random.Generator) -> None:
    """The map that is not 0 for a weight of 0."""
    world, _, _ = steps_of(layer(rng), 1, 1, "f4", rng, {})
    steps = [step.but(weight_map=W_ONE) for step in world.steps]
    assert joined(steps) == steps
    for name in WEIGHT_MAPS.keys() - {W_ONE}:
        assert WEIGHT_MAPS[name](np.float32(0), np.float32(0.5)) == 0
        assert len(joined([step.but(weight_map=name) for step in world.steps])) == 5


@pytest.mark.parametrize("field", ["x", "weight_map", "accumulate", "repeat"])
def test_neighbours_of_other_products_stay_apart(field: str, rng: np.random.Generator) -> None:
    """Four steps in a row that are not of one product."""
    world, _, _ = steps_of(layer(rng), 1, 1, "f4", rng, {})
    steps = list(world.steps)
    other = {"x": View(world.buffer((64, 1, 4, 3))), "weight_map": "w-", "accumulate": True, "repeat": 2}[field]
    steps[2] = steps[2].but(**{field: other})
    assert joined(steps) == steps
    assert len(joined([*world.steps, *steps, *world.steps])) == 5 + 4 + 5


@pytest.mark.parametrize("fault", ["a tap of another phase", "columns of another phase"])
def test_planted(fault: str, rng: np.random.Generator) -> None:
    part = layer(rng)
    world, s, out = steps_of(part, 1, 1, "bf16", rng, {})
    steps = joined(world.steps)
    if fault == "a tap of another phase":
        weights = steps[0].weights
        weight = weights.part.weight.copy()
        weight[:, :3, 5] = weight[:, 3:6, 5]
        steps[0] = steps[0].but(weights=replace(weights, part=replace(weights.part, weight=weight)))
    else:
        steps[1].x, steps[2].x = steps[2].x, steps[1].x
    world.lowering.steps[:] = steps
    world.run("bfloat16")
    positive = np.maximum(part.weight, 0).astype(np.float64)
    expected, size = (scatter(v.astype(np.float64), positive, part.taps) for v in (s, np.abs(s)))
    with pytest.raises(AssertionError, match="off by"):
        near(world.view_of(out), expected, bound("bf16", n_terms(part, True)) * size)


TERMS = 6 * (bound("tf32x3", 288) + 4 * U)
"""What a map may be off, relatively: numerators and denominators of three layers, whose terms are ≥ 0."""


@pytest.mark.parametrize("domain", ["nonnegative", "real", (-1.0, 2.0)])
def test_network(domain: Any, explainer: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole plan, contractions by NumPy: rules of the first layer, as the oracle has them."""
    first = rng.standard_normal((32, 3, 3, 3), dtype=np.float32)
    layers = [
        dtd.Conv(first, stride=2, padding=1), dtd.ReLU(), dtd.GlobalAvgPool(), dtd.Flatten(),
        dtd.Linear(rng.standard_normal((4, 32), dtype=np.float32)),
    ]  # fmt: skip
    x, targets = rng.random((2, 3, 8, 8), dtype=np.float32), np.array([[0, 3], [1, 2]])
    made = explainer(layers, domain=domain)
    text = str(made.plan_for(x.shape))
    assert "columns" in text
    exact = dtd.explain(layers, x, targets, domain=domain, backend="oracle")
    found = made.explain(x, targets)
    assert np.abs(found - exact).sum() <= TERMS * np.abs(exact).sum()
    monkeypatch.setattr(columns, "PHASES", 5)  # never
    assert "columns" not in str(explainer(layers, domain=domain).plan_for(x.shape))


def test_flat_rule(explainer: Any, rng: np.random.Generator) -> None:
    """Weights of one where none is 0: phase by phase. Terms and tolerance as above."""
    first = rng.standard_normal((32, 3, 3, 3), dtype=np.float32)
    layers = [dtd.Conv(first, stride=2, padding=1), dtd.ReLU(), dtd.GlobalAvgPool(), dtd.Flatten()]
    x, options = rng.random((2, 3, 8, 8), dtype=np.float32), {"rules": "epsilon-plus-flat"}
    exact = dtd.explain(layers, x, 1, **options, backend="oracle")
    made = explainer(layers, **options)
    found = made.explain(x, 1)
    assert "columns" not in str(made.plan_for(x.shape))
    assert np.abs(found - exact).sum() <= TERMS * np.abs(exact).sum()
