"""NEURON_DENSE with the terms of x⁺ and of x⁻ beside y: the bits are those of the steps that it stands for."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

import kernel_reference as ref
from kernel_checks import agree, each, same_bits
from kernel_layers import Taps
from kernel_steps import Kernels, Step, lib, place, vector

# inputs, outputs, pixels, groups; one pixel, one channel, odd numbers, more outputs than sums that are kept at a time
SHAPES = [
    (1, 1, (1, 1), 1),
    (3, 17, (5, 7), 1),
    (16, 96, (3, 29), 1),
    (24, 33, (1, 15), 2),
    (65, 31, (7, 7), 1),
    (7, 300, (2, 16), 1),
    (48, 528, (1, 3), 1),
]
ENDINGS = {
    "clip": {"activation": lib.DTD_CLIP, "act_alpha": 0.0, "act_beta": 0.5, "factor_kind": lib.DTD_F_GATE},
    "relu": {"activation": lib.DTD_RELU, "factor_kind": lib.DTD_F_GATE, "stabilizer": 1e-3},
    "any": {"activation": lib.DTD_LEAKY_RELU, "act_alpha": 0.25, "factor_kind": lib.DTD_F_DENOMINATOR},
}


def neuron(kernels: Kernels, layer: Taps, ending: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Operands and numbers of the step in one; x⁺ and x⁻ lie otherwise than x."""
    plus, minus = (place(f(layer.values, 0), gap=gap) for f, gap in ((np.maximum, 5), (np.minimum, 1)))
    results = {k: layer.place(kernels.zeros(*layer.shape)) for k in ("out", "factor")}
    biases = {k: vector(kernels.normal(layer.rng, layer.c_out)) for k in ("bias", "bias_d")}
    arrays = {**layer.operands(), **results, **biases, "other": plus, "shift": minus}
    return arrays, {**layer.numbers(), **ENDINGS[ending], "coefficient": 1.0}


def apart(kernels: Kernels, layer: Taps, arrays: dict[str, Any], numbers: dict[str, Any]) -> dict[str, Any]:
    """out and factor by steps of their own."""
    out, factor, terms = (layer.place(kernels.zeros(*layer.shape)) for _ in range(3))
    of_y = {k: v for k, v in numbers.items() if k not in ("factor_kind", "stabilizer", "coefficient")}
    of_factor = {k: numbers[k] for k in ("factor_kind", "stabilizer", "coefficient") if k in numbers}
    given = {k: arrays[k] for k in ("weight", "taps")}
    Step("NEURON_DENSE", {**given, "x": arrays["x"], "bias": arrays["bias"], "out": out}, of_y).run(kernels)
    for x, weight_map, accumulate in (("other", lib.DTD_W_POSITIVE, 0), ("shift", lib.DTD_W_NEGATIVE, 1)):
        more = {**layer.numbers(), "weight_map": weight_map, "accumulate": accumulate}
        Step("TAPS_DENSE", {**given, "x": arrays[x], "out": terms}, more).run(kernels)
    gate = {"x": out} if numbers["factor_kind"] == lib.DTD_F_GATE else {}
    operands = {**gate, "terms": terms, "factor": factor, "bias_d": arrays["bias_d"]}
    Step("FACTOR", operands, of_factor).run(kernels)
    return {"out": out, "factor": factor}


@each("shape,ending", list(product(SHAPES, ENDINGS)), 3)
def test_pair(kernels: Kernels, shape: Any, ending: str) -> None:
    c_in, c_out, (h, w), groups = shape
    sizes = {"n": 2, "c_in": groups * c_in, "c_out": groups * c_out, "groups": groups, "count": (1, h, w)}
    layer = Taps("DENSE", kernels, np.random.default_rng(3), **sizes, gap=3)
    arrays, numbers = neuron(kernels, layer, ending)
    for n_threads in (1, 2, 3):
        arrays["out"][...] = arrays["factor"][...] = 0
        Step("NEURON_DENSE", arrays, numbers).run(kernels, n_threads)
        if n_threads == 1:
            first = {k: arrays[k].copy() for k in ("out", "factor")}
        assert all(same_bits(arrays[k], first[k]) for k in first)
    expected = apart(kernels, layer, arrays, numbers)
    assert all(same_bits(arrays[k], expected[k]) for k in expected)

    total, size = layer.sums()
    column = (slice(None), None, None, None, None)
    b, b_d = (arrays[k].astype(kernels.wide)[column] for k in ("bias", "bias_d"))
    alpha, beta = numbers.get("act_alpha", 0), numbers.get("act_beta", 0)
    act = ref.ACTIVATIONS[{"any": "LEAKY_RELU"}.get(ending, ending.upper())][0]
    agree(arrays["out"], act(total + b, alpha, beta), (layer.n_terms + 4) * kernels.u * (size + np.abs(b)))
    if ending == "any":  # d = Σ x⁺w⁺ + Σ x⁻w⁻ + bias = (Σ x w + Σ |x w|) / 2 + bias
        bound = 2 * (layer.n_terms + 4) * kernels.u * (size + np.abs(b_d))
        agree(arrays["factor"], (total + size) / 2 + b_d, bound)
