"""Products in bfloat16 components (csrc/bf16): float32 on matrix units, bfloat16 and "mixed" on these and on dot
products; where neither is faster, they are float32's.

Bounds of one product, v = 2⁻⁸ the unit roundoff of bfloat16: with one component of each operand (2v + v²)|x w|; with
two, where the product of the second ones is left out, 3v²|x w|; with three, where those of 2⁻²⁴ and less are, 2⁻²³|x
w|. The n terms of a sum become 6n, 3n or n, added in pairs: as many roundings of u = 2⁻²⁴.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from kernel_checks import FLOATS, LAYOUTS, NARROW, WITHOUT_UNITS, agree, same_bits
from kernel_layers import Taps, taps_step
from kernel_steps import Step, isa_name, lib
from support import over

V = 2.0**-8
PRODUCT = {1: 2 * V + V * V, 2: 3 * V * V, 3: 2.0**-23}
TERMS = {1: 1, 2: 3, 3: 6}
COMPONENTS = {"FLOAT32": (3, 3), "BFLOAT16": (2, 1), "BFLOAT16_TERMS": (3, 1)}  # of y, of what stands beside it

MATRIX = [k for k in NARROW if isa_name(k.isa) == "amx"]
PLAIN = [k for k in NARROW if isa_name(k.isa) in WITHOUT_UNITS]

SQUARE = tuple(product((0,), (-1, 0, 1), (-1, 0, 1)))
LAYERS: dict[str, dict[str, Any]] = {
    "3x3": {"n": 2, "c_in": 64, "c_out": 64, "count": (1, 7, 7), "taps": SQUARE},
    "3x3, odd channels": {"n": 3, "c_in": 33, "c_out": 47, "count": (1, 9, 5), "taps": SQUARE},
    "3x3, stride 2": {"n": 1, "c_in": 17, "c_out": 16, "count": (1, 6, 15), "taps": SQUARE, "step": (1, 2, 2)},
    "3x3, gaps": {"n": 2, "c_in": 16, "c_out": 31, "count": (1, 5, 17), "taps": SQUARE, "gap": 3, "phase": 2},
    "3x3x3": {"n": 1, "c_in": 31, "c_out": 33, "count": (3, 4, 5), "taps": tuple(product((-1, 0, 1), repeat=3))},
    "1x1": {"n": 3, "c_in": 65, "c_out": 97, "count": (1, 3, 11)},
    "1x1, stride 2": {"n": 2, "c_in": 130, "c_out": 33, "count": (1, 4, 4), "step": (1, 2, 2)},
    # groups of chunks, of units
    "many channels": {"n": 1, "c_in": 1100, "c_out": 600, "count": (1, 2, 5), "taps": SQUARE[3:6]},
    "1-d": {"n": 2, "c_in": 24, "c_out": 16, "count": (1, 1, 40), "taps": ((0, 0, -2), (0, 0, 0), (0, 0, 2))},
    # far from sample to sample
    "wide frames": {"n": 3, "c_in": 64, "c_out": 16, "count": (1, 9, 20), "taps": SQUARE, "wider": (0, 80, 0)},
    "wide frames, planes": {"n": 2, "c_in": 32, "c_out": 16, "count": (2, 5, 7), "taps": SQUARE, "wider": (3, 30, 0)},
    "few pixels": {"n": 2, "c_in": 32, "c_out": 32, "count": (1, 2, 3), "taps": SQUARE},  # too few for tiles
}
FEW = {"few pixels"}

each_layer = pytest.mark.parametrize("name", LAYERS)


def chain(components: int, n_terms: int, u: float) -> float:
    """Bound of a sum relative to that of its terms' sizes; 6 roundings before and after it."""
    return PRODUCT[components] + (TERMS[components] * n_terms + 6) * u


@pytest.mark.skipif(not NARROW, reason="this CPU has no bfloat16")
@pytest.mark.parametrize("kernels", NARROW, ids=str)
@over("weight_map", ["W", "W_POSITIVE", "W_SQUARE", "W_ONE", "W_GAMMA_NEGATIVE"])
@each_layer
def test_taps_in_bfloat16(kernels: Any, weight_map: str, name: str) -> None:
    layer = Taps("DENSE", kernels, np.random.default_rng(len(name)), **LAYERS[name])
    step, expected, size = taps_step(layer, weight_map, "M_TIMES", True, 1, False)
    step.numbers["precision"] = lib.DTD_BFLOAT16
    step.run(kernels)
    agree(step.arrays["out"], expected, chain(1, layer.n_terms, kernels.u) * size)
    # and not only because a better one stood in for it: rounded at random, operands are off by about V/√n of their
    # sum's size, sums by u
    narrow = np.abs(step.arrays["out"] - expected).max() > 16 * kernels.u * size.max()
    assert narrow == (name not in FEW and isa_name(kernels.isa) != "avx512f32")


@pytest.mark.skipif(not NARROW, reason="this CPU has no bfloat16")
@pytest.mark.parametrize("kernels", NARROW, ids=str)
@over("precision", COMPONENTS)
@over("dual", [False, True])
@each_layer
def test_neuron_in_components(kernels: Any, precision: str, dual: bool, name: str) -> None:
    """y as close as its components allow, terms (which positive products make) as close as theirs do."""
    layer = Taps("DENSE", kernels, np.random.default_rng(len(name)), **LAYERS[name])
    out, terms = (layer.place(kernels.zeros(*layer.shape)) for _ in range(2))
    numbers = {**layer.numbers(), "dual": int(dual), "precision": getattr(lib, f"DTD_{precision}")}
    step = Step("NEURON_DENSE", {**layer.operands(), "out": out, "terms": terms}, numbers)
    step.run(kernels)
    components_y, components_terms = COMPONENTS[precision]
    total, size = layer.sums()
    agree(out, total, chain(components_y, layer.n_terms, kernels.u) * size)
    if dual:
        total, size = layer.sums("W_POSITIVE")
    agree(terms, total, chain(components_terms if dual else components_y, layer.n_terms, kernels.u) * size)


@pytest.mark.skipif(not MATRIX, reason="this CPU has no matrix units")
@pytest.mark.parametrize("kernels", MATRIX, ids=str)
@each_layer
def test_float32_takes_the_matrix_units(kernels: Any, name: str) -> None:
    """Other bits than a chain of multiply-adds gives, but for layers that are too small."""
    layer = Taps("DENSE", kernels, np.random.default_rng(3), **LAYERS[name])
    results = []
    for which in (kernels, next(k for k in FLOATS if isa_name(k.isa) == "avx512")):
        out = layer.place(kernels.zeros(*layer.shape))
        Step("NEURON_DENSE", {**layer.operands(), "out": out}, layer.numbers()).run(which)
        results.append(out)
    assert same_bits(*results) == (name in FEW)


@pytest.mark.skipif(not PLAIN, reason="this CPU has no bfloat16")
@pytest.mark.parametrize("kernels", PLAIN, ids=str)
@over("op", ["NEURON_DENSE", "TAPS_DENSE"])
@each_layer
def test_float32_stands_in_where_it_is_faster(kernels: Any, op: str, name: str) -> None:
    """Without matrix units: for every forward product, and on avx512f32 for all."""
    if op == "TAPS_DENSE" and isa_name(kernels.isa) == "avx512bf16":
        return
    layer = Taps("DENSE", kernels, np.random.default_rng(5), **LAYERS[name])
    results = []
    for precision in (lib.DTD_FLOAT32, lib.DTD_BFLOAT16):
        out = layer.place(kernels.zeros(*layer.shape))
        Step(op, {**layer.operands(), "out": out}, {**layer.numbers(), "precision": precision}).run(kernels)
        results.append(out)
    assert same_bits(*results)


@pytest.mark.skipif(not NARROW, reason="this CPU has no bfloat16")
@pytest.mark.parametrize("kernels", NARROW, ids=str)
@over("precision", COMPONENTS)
@each_layer
def test_bits_of_components(kernels: Any, precision: str, name: str) -> None:
    """The same for any number of threads, alone and in a batch; a NaN stays in the outputs that read it."""
    layer = Taps("DENSE", kernels, np.random.default_rng(9), **LAYERS[name])
    numbers = {
        **layer.numbers(),
        "dual": 1,
        "factor_kind": lib.DTD_F_GATE,
        "precision": getattr(lib, f"DTD_{precision}"),
    }

    def run(n_threads: int, samples: slice = slice(None)) -> tuple[Any, Any]:
        out, factor = (layer.place(kernels.zeros(*layer.shape)[samples]) for _ in range(2))
        operands = layer.operands()
        Step("NEURON_DENSE", {**operands, "x": operands["x"][samples], "out": out, "factor": factor}, numbers).run(
            kernels, n_threads
        )
        return out, factor

    first = run(1)
    for n_threads in (2, 3):
        assert all(map(same_bits, run(n_threads), first))
    for i in range(layer.n):
        assert all(same_bits(a, b[i : i + 1]) for a, b in zip(run(2, slice(i, i + 1)), first, strict=True))
    values = layer.values.copy()
    values[tuple(s // 4 * 2 for s in values.shape)] = np.nan  # even, so that a stride of 2 reads it
    layer.refill(values)
    expected = np.isnan(layer.sums()[0])
    assert expected.any()
    assert all(np.array_equal(np.isnan(a), expected) for a in run(2))


@pytest.mark.parametrize("kernels", [k for k in FLOATS if k not in NARROW], ids=str)
def test_bfloat16_needs_its_instructions(kernels: Any) -> None:
    layer = Taps("DENSE", kernels, np.random.default_rng(1), n=1, c_in=16, c_out=16, count=(1, 4, 4))
    out = layer.place(kernels.zeros(*layer.shape), LAYOUTS["channels last"])
    numbers = {**layer.numbers(), "precision": lib.DTD_BFLOAT16}
    with pytest.raises(AssertionError, match="no bfloat16"):
        Step("TAPS_DENSE", {**layer.operands(), "out": out}, numbers).run(kernels)
