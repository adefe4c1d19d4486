"""Which body computes a step: named by the ABI, chosen by the shape, and by the zeros of x where that is said; in plans
and profiles.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
import nets
from kernel_checks import FLOATS, NARROW, each_kernels
from kernel_layers import Taps, taps_step
from kernel_steps import RUNNER, Kernels, Step, isa_name, lib

pytestmark = pytest.mark.skipif(bool(RUNNER), reason="the runner computes steps, and names no bodies")

SQUARE = tuple(product((0,), (1, 0, -1), (1, 0, -1)))
# as many sums of a row as every vector but the shortest has room for
ROWS = tuple(product((0,), (2, 1, 0, -1, -2), (1, 0)))
# inputs, outputs, sizes, taps; body by shape, bodies for an x that is mostly 0
LAYERS: dict[str, tuple[int, int, tuple[int, int, int], Any, str, list[str]]] = {
    "three colours": (64, 3, (1, 9, 9), SQUARE, "inner_product", []),
    "few outputs": (2, 8, (1, 9, 32), ROWS, "channels_first", ["sparse_scatter"]),
    "many outputs": (64, 64, (1, 9, 9), SQUARE, "direct", ["sparse_gather"]),
    "groups": (64, 64, (1, 9, 9), SQUARE, "direct", []),
}


def step_of(kernels: Kernels, name: str, zeros: float) -> Step:
    c_in, c_out, count, taps, _, _ = LAYERS[name]
    layer = Taps(
        "DENSE", kernels, np.random.default_rng(2), 2, c_in, c_out, 4 if name == "groups" else 1, count=count, taps=taps
    )
    layer.sieve(zeros)
    step, _, _ = taps_step(layer, "W", "M_NONE", False, 1, False)
    step.numbers["x_step"] = (1, 1, 1)
    return step


@each_kernels
@pytest.mark.parametrize("name", LAYERS)
def test_dense_bodies(kernels: Kernels, name: str) -> None:
    *_, by_shape, sparse = LAYERS[name]
    if name == "many outputs" and isa_name(kernels.isa) == "amx":
        by_shape, sparse = "bf16x3", []
    if name == "few outputs" and isa_name(kernels.isa) == "baseline" and kernels.real == lib.DTD_F8:
        sparse = []  # vectors of two numbers
    assert step_of(kernels, name, 0.0).bodies(kernels) == (by_shape, sparse, by_shape)
    assert step_of(kernels, name, 0.99).bodies(kernels) == (by_shape, sparse, sparse[0] if sparse else by_shape)


@pytest.mark.skipif(not NARROW, reason="this CPU has no bfloat16")
@pytest.mark.parametrize("kernels", NARROW, ids=str)
def test_narrow_precision(kernels: Kernels) -> None:
    step = step_of(kernels, "many outputs", 0.99)
    step.numbers["precision"] = lib.DTD_BFLOAT16
    plain = step_of(kernels, "many outputs", 0.99).bodies(kernels)
    assert step.bodies(kernels) == (plain if isa_name(kernels.isa) == "avx512f32" else ("bf16", [], "bf16"))


@each_kernels
@pytest.mark.parametrize(("n", "body"), [(2, "scatter"), (40, "scatter_batch")])
def test_scatter_bodies(kernels: Kernels, n: int, body: str) -> None:
    layer = Taps("LINEAR", kernels, np.random.default_rng(2), n, 30, 20)
    step, _, _ = taps_step(layer, "W", "M_NONE", False, 1, True)
    assert step.bodies(kernels) == (body, [], body)


def test_other_operations_have_one() -> None:
    layer = Taps("LINEAR", FLOATS[0], np.random.default_rng(2), 2, 30, 20)
    step, _, _ = taps_step(layer, "W", "M_NONE", False, 1, False)
    assert step.bodies(FLOATS[0]) == ("", [], "")


def test_plans_and_profiles_name_bodies() -> None:
    net = nets.lenet5()
    explainer, x = dtd.Explainer(net.layers, backend="cpu"), net.sample(2)
    plan, profile = explainer.plan_for(x.shape), explainer.profile(x)
    steps = [*plan.forward, *plan.relevance]
    assert len(plan.bodies) == len(steps) == len(profile.timings)
    for step, body, timing in zip(steps, plan.bodies, profile.timings, strict=True):
        assert bool(body) == step.op.startswith(("NEURON_DENSE", "TAPS_DENSE", "SCATTER"))
        assert timing.body in body
        assert bool(timing.body) == bool(body)
    assert all(body in str(plan) for body in plan.bodies)
    assert all(timing.body in str(profile) for timing in profile.timings)
    assert "body" not in str(dtd.Explainer(net.layers, backend="oracle").plan_for(x.shape))
