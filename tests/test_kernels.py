"""Every C kernel against the float64 reference: values, guard bands, NaN, and bits that do not depend on threads or batch.

Tolerance: a sum of n rounded products errs by at most (n + k)·u·Σ|terms|, u = 2⁻²⁴, where k counts the roundings before and after it
(weight map, scale, multiplier, bias, accumulation); a few ulp more where a libm function or a division follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest

import kernel_reference as ref
from dtdfast._kernels import ffi
from kernel_steps import USABLE_ISAS, Step, isa_name, lib, pack_dense, place, vector

U = 2.0**-24
SIZES = (1, 2, 3, 7, 15, 16, 17, 31, 33, 65)
LAYOUTS = {"channels last": (0, 2, 3, 4, 5, 1), "channels first": (0, 1, 2, 3, 4, 5)}

each_isa = pytest.mark.parametrize("isa", USABLE_ISAS, ids=isa_name)


def normal(rng: np.random.Generator, *shape: int) -> Any:
    return rng.standard_normal(shape, dtype=np.float32)


def agree(result: Any, expected: Any, bound: Any) -> None:
    """|result − expected| ≤ bound, NaN exactly where expected."""
    assert result.shape == expected.shape
    assert np.array_equal(np.isnan(result), np.isnan(expected))
    excess = np.nan_to_num(np.abs(result.astype(np.float64) - expected) - bound, nan=0.0)
    worst = np.unravel_index(excess.argmax(), excess.shape)
    assert excess[worst] <= 0, (
        f"at {worst}: {result[worst]!r}, expected {expected[worst]!r} within {np.broadcast_to(bound, result.shape)[worst]:.2e}"
    )


def same_bits(a: Any, b: Any) -> bool:
    return bool(np.array_equal(np.ascontiguousarray(a).view(np.uint32), np.ascontiguousarray(b).view(np.uint32)))


# ------------------------------------------------------------------------------------------------------------- tap layers


@dataclass
class Taps:
    """A random tap layer: its geometry, its operands in guarded memory, and the reference's sums."""

    kind: str
    rng: np.random.Generator
    n: int
    c_in: int
    c_out: int
    groups: int = 1
    count: tuple[int, int, int] = (1, 1, 1)
    step: tuple[int, int, int] = (1, 1, 1)
    taps: tuple[tuple[int, int, int], ...] = ((0, 0, 0),)
    gap: int = 0
    phase: int = 1
    weighted: bool = True

    def __post_init__(self) -> None:
        rng = self.rng
        size = tuple((self.count[a] - 1) * self.step[a] + 1 for a in range(3))
        self.frame = tuple(max((abs(t[a]) for t in self.taps), default=0) for a in range(3))
        self.values = normal(rng, self.n, self.c_in, *size, 1)
        self.weight = normal(rng, self.c_out, self.c_in // self.groups, len(self.taps))
        if self.kind == "CHANNEL":
            self.weight = normal(rng, len(self.taps), self.c_in)
            if not self.weighted:
                self.weight[...] = 1
        self.refill(self.values)

    def refill(self, values: Any) -> None:
        """Place x anew."""
        self.values = values
        self.whole_x = place(values, frame=(0, 0, *self.frame, 0), gap=self.gap)
        stride = [s // 4 for s in self.whole_x.strides]
        # the kernels walk x by its own step: axis strides are scaled, the shape is that of the pixels of out
        self.x = self.whole_x[:, :, :: self.step[0], :: self.step[1], :: self.step[2]]
        self.table = vector(np.array([sum(t[a] * stride[2 + a] for a in range(3)) for t in self.taps], np.int64))

    def packed(self) -> Any:
        if self.kind == "DENSE":
            return pack_dense(self.weight, self.groups)
        if self.kind == "CHANNEL":
            return vector(self.weight) if self.weighted else None
        return vector(self.weight[:, :, 0])

    def operands(self) -> dict[str, Any]:
        return {"x": self.x, "weight": self.packed(), "taps": self.table}

    def numbers(self) -> dict[str, Any]:
        return {"groups": self.groups, "n_taps": len(self.taps)}

    @property
    def n_terms(self) -> int:
        return max(1, len(self.taps) * (1 if self.kind == "CHANNEL" else self.c_in // self.groups))

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.c_out, *self.count, 1)

    def place(self, values: Any, order: tuple[int, ...] = LAYOUTS["channels last"]) -> Any:
        return place(values, order=order, frame=(0, 0, 0, 1, 2, 0), gap=self.gap, phase=self.phase)

    def sums(self, weight_map: str = "W", gamma: float = 0) -> tuple[Any, Any]:
        """Σ x·wm(w) and Σ|x·wm(w)|."""
        weight = ref.WEIGHT_MAPS[weight_map](self.weight.astype(np.float64), gamma)
        args = (self.values.astype(np.float64), weight, self.taps, self.frame, self.count, self.step)
        return ref.channel(*args) if self.kind == "CHANNEL" else ref.dense(*args, self.groups)


def some_taps(rng: np.random.Generator) -> tuple[tuple[int, int, int], ...]:
    reach = [(0,), (-1, 0, 1), (-2, 0), (0, 1, 2)]
    axes = [reach[rng.integers(len(reach))] if rng.random() < p else (0,) for p in (0.2, 0.7, 0.7)]
    taps = tuple(product(*axes))
    return taps if rng.random() < 0.9 else ()  # a phase may have none


def some_layer(kind: str, seed: int) -> Taps:
    """A tap layer of awkward sizes."""
    rng = np.random.default_rng([seed, len(kind)])
    n = int(rng.choice((1, 2, 3)))
    if kind == "LINEAR":
        return Taps(kind, rng, int(rng.choice((1, 2, 5, 7, 13, 17, 19))), int(rng.choice((*SIZES, 1025, 2500))), int(rng.choice(SIZES)))
    count = (int(rng.choice((1, 1, 2))), int(rng.choice((1, 2, 5))), int(rng.choice((1, 2, 3, 6, 7, 8, 14, 15, 17, 29))))
    step = (1, int(rng.choice((1, 2))), int(rng.choice((1, 1, 2))))
    common = {"count": count, "step": step, "taps": some_taps(rng), "gap": int(rng.choice((0, 3))), "phase": int(rng.choice((1, 2)))}
    if kind == "CHANNEL":
        c = int(rng.choice(SIZES))
        return Taps(kind, rng, n, c, c, weighted=bool(rng.random() < 0.7), **common)
    groups = int(rng.choice((1, 1, 2, 3)))
    return Taps(kind, rng, n, groups * int(rng.choice(SIZES[:8])), groups * int(rng.choice(SIZES)), groups=groups, **common)


CASES = [(kind, seed) for kind in ("DENSE", "CHANNEL", "LINEAR") for seed in range(30)]
each_case = pytest.mark.parametrize(("kind", "seed"), CASES)


@each_isa
@each_case
def test_neuron(isa: int, kind: str, seed: int) -> None:
    """out, terms and factor of NEURON_*, with every operand that a step may have."""
    layer = some_layer(kind, seed)
    rng = layer.rng
    dual, has = bool(rng.integers(2)), rng.random(5) < 0.5
    order = LAYOUTS["channels first" if rng.random() < 0.3 else "channels last"]
    bias, bias_d = (normal(rng, layer.c_out) if h else None for h in has[:2])
    y_prev, terms_prev = (normal(rng, *layer.shape) if h else None for h in (has[2], has[2] and dual))
    scale = rng.random(layer.count, np.float32)[None, None, ..., None] + np.float32(0.5) if has[3] else None
    activation, mode = str(rng.choice(["IDENTITY", "LEAKY_RELU"])), str(rng.choice(["NONE", "GATE", "DENOMINATOR", "DERIVATIVE"]))
    select, stabilizer, coefficient = str(rng.choice(["ALL", "Y_POSITIVE", "Y_NEGATIVE"])), float(rng.choice([0, 0.1])), -1.5

    results = {k: layer.place(np.zeros(layer.shape, np.float32), order) for k in ("out", "terms", "factor")}
    arrays = {
        **layer.operands(),
        **(results if mode != "NONE" else {k: results[k] for k in ("out", "terms")}),
        "bias": None if bias is None else vector(bias),
        "bias_d": None if bias_d is None else vector(bias_d),
        "y_prev": None if y_prev is None else layer.place(y_prev),
        "terms_prev": None if terms_prev is None else layer.place(terms_prev),
        "scale": None if scale is None else np.broadcast_to(place(scale), layer.shape),
    }
    numbers = {
        **layer.numbers(), "dual": int(dual), "coefficient": coefficient, "stabilizer": stabilizer, "act_alpha": 0.25,
        "mode": getattr(lib, f"DTD_F_{mode}"), "activation": getattr(lib, f"DTD_{activation}"),
        "select": getattr(lib, "DTD_ALL" if select == "ALL" else f"DTD_{select}"),
    }  # fmt: skip
    Step(f"NEURON_{kind}", arrays, numbers).run(isa)

    s = 1.0 if scale is None else scale.astype(np.float64)
    column = (slice(None), None, None, None, None)
    b, b_d = (0.0 if v is None else v.astype(np.float64)[column] for v in (bias, bias_d))
    previous = [0.0 if v is None else v.astype(np.float64) for v in (y_prev, terms_prev)]
    total, size = layer.sums()
    y, y_size = s * total + previous[0] + b, s * size + np.abs(previous[0]) + np.abs(b)
    # compare what is stored before the activation; the derivative's kink makes it discontinuous
    act, slope = ref.ACTIVATIONS[activation]
    agree(results["out"], act(y, 0.25, 0), (layer.n_terms + 4) * U * y_size)
    total, size = layer.sums("W_POSITIVE") if dual else (total, size)
    terms = s * total + previous[1 if dual else 0]
    agree(results["terms"], terms, (layer.n_terms + 3) * U * (s * size + np.abs(previous[1 if dual else 0])))
    if mode == "NONE":
        return
    # factor is a function of what the kernel stored: a few roundings, whatever the condition of the sums
    out, d = results["out"].astype(np.float64), ref.stabilised(results["terms"].astype(np.float64) + b_d, stabilizer)
    if mode == "DERIVATIVE":
        agree(results["factor"], slope(out, 0.25, 0) * s * np.ones(layer.shape), 2 * U)
        return
    factor = ref.quotient(coefficient * out, d) * s if mode == "GATE" else d / (coefficient * s)
    if select != "ALL":
        factor = np.where(out > 0 if select == "Y_POSITIVE" else out < 0, factor, 0)
    cancelled = np.abs(results["terms"].astype(np.float64)) + np.abs(b_d) + stabilizer
    agree(results["factor"], factor, np.abs(factor) * (6 * U + 4 * U * cancelled / np.abs(np.where(d == 0, 1, d))))


def test_each_weight_map_and_multiplier_has_a_name() -> None:
    assert len(ref.WEIGHT_MAPS) == lib.DTD_N_WEIGHT_MAPS
    assert len(ref.MULTIPLIERS) == lib.DTD_M_TIMES_NEGATIVE + 1


def taps_step(layer: Taps, weight_map: str, multiplier: str, accumulate: bool, repeat: int, scatter: bool) -> tuple[Step, Any, Any]:
    """A TAPS_* (or SCATTER_LINEAR) step, its expected result and the size of its terms."""
    rng, shape = layer.rng, layer.shape
    m = normal(rng, shape[0] // repeat, *shape[1:])
    m.reshape(-1)[::7] = 0
    start = normal(rng, *shape)
    scale = None if scatter or rng.random() < 0.5 else np.float32(0.5) + rng.random(layer.count, np.float32)[None, None, ..., None]
    arrays = {
        **layer.operands(),
        "out": layer.place(start),
        "m": None if multiplier == "M_NONE" else layer.place(m, LAYOUTS["channels first" if rng.random() < 0.3 else "channels last"]),
        "scale": None if scale is None else np.broadcast_to(place(scale), shape),
    }
    if scatter:  # its rows are the columns of the layer's weights
        arrays["weight"] = vector(np.ascontiguousarray(layer.weight[:, :, 0].T))
    numbers = {
        **layer.numbers(), "weight_map": getattr(lib, f"DTD_{weight_map}"), "gamma": 0.25, "mode": getattr(lib, f"DTD_{multiplier}"),
        "accumulate": int(accumulate), "repeat": repeat,
    }  # fmt: skip
    total, size = layer.sums(weight_map, 0.25)
    factor = ref.MULTIPLIERS[multiplier](np.repeat(m.astype(np.float64), repeat, 0)) * (1 if scale is None else scale.astype(np.float64))
    base = start.astype(np.float64) if accumulate else 0.0
    step = Step("SCATTER_LINEAR" if scatter else f"TAPS_{layer.kind}", arrays, numbers)
    return step, base + factor * total, np.abs(base) + np.abs(factor) * size


@each_isa
@pytest.mark.parametrize("kind", ["DENSE", "CHANNEL", "LINEAR", "SCATTER"])
@pytest.mark.parametrize("weight_map", ref.WEIGHT_MAPS)
def test_taps(isa: int, kind: str, weight_map: str) -> None:
    """out (+)= multiplier(m)·scale·Σ x·wm(w), all maps by all multipliers."""
    scatter = kind == "SCATTER"
    for seed, multiplier in enumerate(ref.MULTIPLIERS):
        layer = some_layer("LINEAR" if scatter else kind, 100 + 10 * seed + lib.DTD_N_WEIGHT_MAPS)
        if scatter:
            layer.values[layer.rng.random(layer.values.shape) < 0.6] = 0  # dead units, whose rows are skipped
            layer.refill(layer.values)
        repeat = 3 if layer.n % 3 == 0 else 2 if layer.n % 2 == 0 else 1
        step, expected, size = taps_step(layer, weight_map, multiplier, bool(seed % 2), repeat, scatter)
        step.run(isa)
        agree(step.arrays["out"], expected, (layer.n_terms + 6) * U * size)


@each_isa
def test_linear_takes_strided_inputs(isa: int) -> None:
    rng = np.random.default_rng(7)
    layer = Taps("LINEAR", rng, 19, 2500, 33)
    layer.x = place(layer.values, order=(1, 0, 2, 3, 4, 5))  # samples fastest
    step, expected, size = taps_step(layer, "W", "M_TIMES", True, 1, False)
    step.run(isa)
    agree(step.arrays["out"], expected, (layer.n_terms + 6) * U * size)


@each_isa
@each_case
def test_nan_reaches_what_it_should(isa: int, kind: str, seed: int) -> None:
    """One NaN in x makes NaN of the outputs that read it, through the activation, and of no other."""
    layer = some_layer(kind, seed)
    values = layer.values.copy()
    values[tuple(int(layer.rng.integers(s)) for s in values.shape)] = np.nan
    layer.refill(values)
    out, factor = (layer.place(np.zeros(layer.shape, np.float32)) for _ in range(2))
    numbers = {**layer.numbers(), "dual": 1, "mode": lib.DTD_F_GATE, "activation": lib.DTD_RELU}
    Step(f"NEURON_{kind}", {**layer.operands(), "out": out, "factor": factor}, numbers).run(isa)
    expected = np.isnan(layer.sums()[0])
    assert expected.any() or not layer.taps or max(layer.step) > 1
    assert np.array_equal(np.isnan(out), expected)
    assert np.array_equal(np.isnan(factor), expected)


LARGE = {
    "DENSE": {"n": 4, "c_in": 31, "c_out": 65, "count": (1, 33, 33), "taps": tuple(product((0,), (-1, 0, 1), (-1, 0, 1)))},
    "DENSE 1x1": {"n": 4, "c_in": 65, "c_out": 65, "count": (1, 31, 33)},
    "CHANNEL": {"n": 4, "c_in": 65, "c_out": 65, "count": (1, 33, 33), "taps": tuple(product((0,), (-1, 0, 1), (-1, 0, 1)))},
    "LINEAR": {"n": 19, "c_in": 2500, "c_out": 333},
    "SCATTER": {"n": 19, "c_in": 333, "c_out": 4500},
}


@each_isa
@pytest.mark.parametrize("name", LARGE)
def test_bits_do_not_depend_on_threads_or_batch(isa: int, name: str) -> None:
    kind = name.split()[0]
    scatter = kind == "SCATTER"
    layer = Taps("LINEAR" if scatter else kind, np.random.default_rng(5), **LARGE[name])  # type: ignore[arg-type]
    if scatter:
        layer.values[layer.rng.random(layer.values.shape) < 0.6] = 0
        layer.refill(layer.values)
    steps = [taps_step(layer, "W_POSITIVE", "M_TIMES", False, 1, scatter)[0]]
    if not scatter:
        arrays = {**layer.operands(), **{k: layer.place(np.zeros(layer.shape, np.float32)) for k in ("out", "factor")}}
        numbers = {**layer.numbers(), "dual": 1, "mode": lib.DTD_F_GATE, "activation": lib.DTD_GELU}
        steps.append(Step(f"NEURON_{kind}", arrays, numbers))
    for step in steps:
        step.run(isa, 1)
        first = {k: step.arrays[k].copy() for k in step.results if step.arrays.get(k) is not None}
        for n_threads in (2, 3):
            for k in first:
                step.arrays[k][...] = 0
            step.run(isa, n_threads)
            assert all(same_bits(step.arrays[k], first[k]) for k in first)
        for sample in range(layer.n):
            alone = {k: a[sample : sample + 1] if a is not None and k not in ("weight", "taps") else a for k, a in step.arrays.items()}
            for k in first:
                alone[k] = layer.place(np.zeros_like(alone[k]))
            Step(step.op, alone, step.numbers).run(isa, 2)
            assert all(same_bits(alone[k], first[k][sample : sample + 1]) for k in first)


# ------------------------------------------------------------------------------------------------- element-wise operations

ELEMENTWISE = [(n, c, h, w) for n, c in ((1, 1), (2, 3), (6, 17), (2, 65)) for h, w in ((1, 1), (5, 7), (33, 31))]
each_shape = pytest.mark.parametrize("shape", ELEMENTWISE, ids=lambda s: "x".join(map(str, s)))


def operand(rng: np.random.Generator, shape: tuple[int, int, int, int], zeros: bool = False) -> Any:
    """A random array in one of the two layouts."""
    values = normal(rng, shape[0], shape[1], 1, shape[2], shape[3], 1)
    if zeros:
        values.reshape(-1)[::5] = 0
    return place(values, order=LAYOUTS[str(rng.choice(list(LAYOUTS)))], gap=int(rng.integers(3)), frame=(0, 0, 0, 1, 1, 0))


@each_isa
@each_shape
@pytest.mark.parametrize("mode", ref.INPUT_MAPS)
def test_map(isa: int, shape: Any, mode: str) -> None:
    rng = np.random.default_rng(1)
    x, out = operand(rng, shape), operand(rng, shape)
    x.reshape(-1)[0] = x[0, 0, 0, 0, 0, 0] = np.nan
    bounds = normal(rng, 1, shape[1], 1, 1, 1, 1)
    bounds[0, 0] = -np.inf if mode == "X_ABOVE_LOW" else np.inf
    m = np.broadcast_to(place(bounds), x.shape) if mode in ("X_ABOVE_LOW", "X_BELOW_HIGH") else None
    Step("MAP", {"x": x, "out": out, "m": m}, {"mode": getattr(lib, f"DTD_{mode}")}).run(isa)
    expected = ref.INPUT_MAPS[mode](x.astype(np.float64), np.broadcast_to(bounds, x.shape).astype(np.float64))
    agree(out, expected, U * np.abs(expected))


@each_isa
@each_shape
@pytest.mark.parametrize("multiplier", ref.MULTIPLIERS)
def test_multiply(isa: int, shape: Any, multiplier: str) -> None:
    rng = np.random.default_rng(2)
    repeat = 2 if shape[0] % 2 == 0 else 1
    x, out, m = operand(rng, shape), operand(rng, shape), operand(rng, (shape[0] // repeat, *shape[1:]), zeros=True)
    m[0, -1, 0, 0, 0, 0] = np.nan
    start = out.astype(np.float64)
    for accumulate in (0, 1):
        numbers = {"mode": getattr(lib, f"DTD_{multiplier}"), "accumulate": accumulate, "repeat": repeat}
        Step("MULTIPLY", {"x": x, "out": out, "m": m}, numbers).run(isa)
        term = ref.MULTIPLIERS[multiplier](np.repeat(m.astype(np.float64), repeat, 0)) * x
        if multiplier == "M_NONE":
            term = x.astype(np.float64)
        agree(out, term + accumulate * start, 2 * U * (np.abs(term) + np.abs(start)))
        start = out.astype(np.float64)


@each_isa
@each_shape
def test_divide(isa: int, shape: Any) -> None:
    rng = np.random.default_rng(3)
    repeat = 2 if shape[0] % 2 == 0 else 1
    x, out, m = operand(rng, shape, zeros=True), operand(rng, shape), operand(rng, (shape[0] // repeat, *shape[1:]), zeros=True)
    Step("DIVIDE", {"x": x, "out": out, "m": m}, {"repeat": repeat}).run(isa)
    expected = ref.quotient(x.astype(np.float64), np.repeat(m.astype(np.float64), repeat, 0))
    agree(out, expected, U * np.abs(expected))


@each_isa
@pytest.mark.parametrize("kind", ref.ACTIVATIONS)
@pytest.mark.parametrize("derivative", [False, True])
def test_activate(isa: int, kind: str, derivative: bool) -> None:
    """Functions and derivatives, far from 0 and at their kinks too: the derivative there is the one from the left."""
    alpha, beta = {"CLIP": (-1, 2), "HARD_SIGMOID": (0.25, 0.5), "LEAKY_RELU": (0.125, 0)}.get(kind, (1.5, 0))
    grid = np.concatenate([np.linspace(-6, 6, 97), [-90, -30, -2, 2, 30, 90, -1, 0, 3, -3]]).astype(np.float32)
    x = place(grid.reshape(1, -1, 1, 1, 1, 1))
    out = place(np.zeros_like(x))
    numbers = {"activation": getattr(lib, f"DTD_{kind}"), "act_alpha": alpha, "act_beta": beta}
    Step("ACTIVATE", {"x": x, "out": out}, {**numbers, "mode": lib.DTD_F_DERIVATIVE if derivative else 0}).run(isa)
    with np.errstate(over="ignore"):
        expected = ref.ACTIVATIONS[kind][derivative](x.astype(np.float64), alpha, beta)
    # rounding x·(…) inside exp and tanh costs |x| ulp; the erf and tanh of the reference cancel for large negative x
    agree(out, expected, 8 * U * (1 + np.abs(x)) * np.abs(expected) + 4 * U * np.minimum(1, np.exp(-np.abs(x))) + 1e-15)
    x[...] = np.nan
    Step("ACTIVATE", {"x": x, "out": out}, numbers).run(isa)
    assert np.isnan(out).all()


@each_isa
@each_shape
@pytest.mark.parametrize("biased", [False, True])
def test_affine(isa: int, shape: Any, biased: bool) -> None:
    rng = np.random.default_rng(4)
    x, out, weight, bias = operand(rng, shape), operand(rng, shape), normal(rng, shape[1]), normal(rng, shape[1])
    start = out.astype(np.float64)
    Step("AFFINE", {"x": x, "out": out, "weight": vector(weight), "bias": vector(bias) if biased else None}, {"accumulate": 1}).run(isa)
    column = (slice(None), None, None, None, None)
    product_, b = x * weight.astype(np.float64)[column], biased * bias.astype(np.float64)[column]
    agree(out, start + product_ + b, 3 * U * (np.abs(start) + np.abs(product_) + np.abs(b)))


@each_isa
@pytest.mark.parametrize("mode", ["GATE", "DENOMINATOR", "DERIVATIVE"])
@pytest.mark.parametrize("select", ["ALL", "Y_POSITIVE", "Y_NEGATIVE"])
@pytest.mark.parametrize("seed", range(4))
def test_factor(isa: int, mode: str, select: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (2, 17, 5, 7)
    factor, terms, x, m, other = (operand(rng, shape, zeros=True) for _ in range(5))
    has = rng.random(4) < 0.5
    bias, bias_d = normal(rng, 17), normal(rng, 17)
    scale = 0.5 + rng.random((1, 1, 1, 5, 7, 1), np.float32)
    stabilizer = 0.1 * (seed % 2)
    arrays = {
        "factor": factor, "terms": terms, "x": x, "m": m, "bias": vector(bias) if has[0] else None,
        "bias_d": vector(bias_d) if has[1] else None, "terms_prev": other if has[2] else None,
        "scale": np.broadcast_to(place(scale), x.shape) if has[3] else None,
    }  # fmt: skip
    numbers = {
        "mode": getattr(lib, f"DTD_F_{mode}"), "select": getattr(lib, "DTD_ALL" if select == "ALL" else f"DTD_{select}"),
        "coefficient": 2.0, "stabilizer": stabilizer, "activation": lib.DTD_SIGMOID,
    }  # fmt: skip
    Step("FACTOR", arrays, numbers).run(isa)
    column = (slice(None), None, None, None, None)
    y = m.astype(np.float64) + has[0] * bias.astype(np.float64)[column]
    b_d, s = has[1] * bias_d.astype(np.float64)[column], scale.astype(np.float64) if has[3] else 1.0
    d = ref.stabilised(terms + b_d, stabilizer)
    coefficient = np.where(has[2] & (other == 0), 1.0, 2.0)
    if mode == "DERIVATIVE":
        expected = ref.ACTIVATIONS["SIGMOID"][1](y, 0, 0) * s
        agree(factor, expected, 16 * U * np.abs(expected) * (1 + np.abs(y)))
        return
    expected = ref.quotient(coefficient * x, d) * s if mode == "GATE" else d / (coefficient * s)
    if select != "ALL":
        expected = np.where(y > 0 if select == "Y_POSITIVE" else y < 0, expected, 0)
    cancelled = (np.abs(terms) + np.abs(b_d) + stabilizer) / np.abs(np.where(d == 0, 1, d))
    agree(factor, expected, np.abs(expected) * U * (6 + 4 * cancelled))


# ----------------------------------------------------------------------------------------------------- copies and borders


@each_isa
@each_shape
@pytest.mark.parametrize("accumulate", [0, 1])
def test_move(isa: int, shape: Any, accumulate: int) -> None:
    rng = np.random.default_rng(8)
    for x_order, out_order in product(LAYOUTS.values(), LAYOUTS.values()):
        values = normal(rng, shape[0], shape[1], 1, shape[2], shape[3], 1)
        x, out = place(values, order=x_order, gap=2), place(values[::-1], order=out_order, frame=(0, 0, 0, 2, 1, 0), phase=2)
        start = out.copy()
        Step("MOVE", {"x": x, "out": out}, {"accumulate": accumulate}).run(isa, 2)
        assert same_bits(out, x + start if accumulate else x)


@each_isa
def test_move_permutes_and_broadcasts(isa: int) -> None:
    rng = np.random.default_rng(9)
    x = place(normal(rng, 3, 17, 1, 5, 7, 4))
    out = place(np.zeros((3, 7, 1, 5, 17, 4), np.float32))
    Step("MOVE", {"x": x.transpose(0, 4, 2, 3, 1, 5), "out": out}).run(isa)
    assert same_bits(out, x.transpose(0, 4, 2, 3, 1, 5))
    row = place(normal(rng, 1, 1, 1, 1, 17, 1))
    Step("MOVE", {"x": np.broadcast_to(row, out.shape), "out": out}).run(isa)
    assert same_bits(out, np.broadcast_to(row, out.shape))


@each_isa
@pytest.mark.parametrize("channels", [1, 17])
@pytest.mark.parametrize("gap", [0, 3])
def test_clear_border(isa: int, channels: int, gap: int) -> None:
    border = (1, 0, 2, 1, 0, 3)
    rng = np.random.default_rng(10)
    whole = place(normal(rng, 2, channels, 4, 8, 10, 1), gap=gap)
    out = whole[:, :, 1:3, 2:6, 1:6]  # columns 0 and 9 lie beyond the frame
    expected = whole.copy()
    expected[:, :, 0:3, 0:7, 1:9] = 0
    expected[:, :, 1:3, 2:6, 1:6] = out
    Step("CLEAR_BORDER", {"out": out, "whole": whole}, {"border": border}).run(isa)
    assert same_bits(whole, expected)


# ----------------------------------------------------------------------------------------------- pools, LRN, softmax, rows


POOLS = [  # size of x, kernel, step, padding before
    ((1, 6, 8), (1, 2, 2), (1, 2, 2), (0, 0, 0)),
    ((1, 7, 9), (1, 3, 3), (1, 2, 2), (0, 1, 1)),
    ((3, 5, 4), (2, 3, 2), (1, 1, 2), (1, 1, 0)),
    ((1, 1, 40), (1, 1, 300), (1, 1, 1), (0, 0, 299)),  # more taps than a byte counts
]
each_pool = pytest.mark.parametrize(("size", "kernel", "step", "before"), POOLS)


def pool_taps(kernel: Any, before: Any) -> list[Any]:
    return [tuple(t[a] - before[a] for a in range(3)) for t in product(*map(range, kernel))]


@each_isa
@each_pool
@pytest.mark.parametrize("channels", [3, 17, 600])
def test_max_pool_and_unpool(isa: int, size: Any, kernel: Any, step: Any, before: Any, channels: int) -> None:
    rng = np.random.default_rng(11)
    n, repeat = 2, 3
    count = tuple((size[a] + 2 * before[a] - kernel[a]) // step[a] + 1 for a in range(3))
    values = rng.integers(-3, 4, (n, channels, *size, 1)).astype(np.float32)  # many ties
    values[rng.random(values.shape) < 0.01] = np.nan
    taps = pool_taps(kernel, before)
    kind = np.uint8 if len(taps) <= 256 else np.uint16
    shape = (n, channels, *count, 1)
    x, out, m = place(values, gap=1), place(np.zeros(shape, np.float32)), place(np.zeros(shape, kind))
    numbers = {"n_taps": len(taps), "x_step": step, "mode": np.dtype(kind).itemsize}
    Step("MAX_POOL", {"x": x, "out": out, "m": m, "taps": vector(np.array(taps, np.int64))}, numbers).run(isa)

    padded = np.full((n, channels, *(size[a] + 2 * before[a] for a in range(3)), 1), -np.inf)
    padded[(slice(None), slice(None), *(slice(before[a], before[a] + size[a]) for a in range(3)))] = values
    frame = tuple(before)
    stack = np.stack([windows_of(padded, count, step, tuple(t[a] + frame[a] for a in range(3))) for t in taps])
    winner = np.where(np.isnan(stack).any(0), np.isnan(stack).argmax(0), np.nan_to_num(stack, nan=-np.inf).argmax(0))
    assert np.array_equal(out, np.take_along_axis(stack, winner[None], 0)[0], equal_nan=True)
    assert np.array_equal(m, winner)
    outputs_only = place(np.zeros(shape, np.float32))
    Step("MAX_POOL", {"x": x, "out": outputs_only, "taps": vector(np.array(taps, np.int64))}, numbers).run(isa)
    assert np.array_equal(outputs_only, out, equal_nan=True)

    # back: relevance goes to the winner; one phase per residue of the step
    relevance = normal(rng, n * repeat, channels, *count, 1)
    back = place(normal(rng, n * repeat, channels, *size, 1))
    expected, sizes = back.astype(np.float64), np.abs(back).astype(np.float64)
    for index in np.ndindex(relevance.shape):
        t = taps[winner[(index[0] // repeat, *index[1:])]]
        at = (*index[:2], *(index[2 + a] * step[a] + t[a] for a in range(3)), 0)
        expected[at] += relevance[index]
        sizes[at] += abs(relevance[index])
    r = place(relevance)
    for start in product(*map(range, step)):
        rows = [
            (k, *((start[a] - t[a]) // step[a] for a in range(3)))
            for k, t in enumerate(taps)
            if all((start[a] - t[a]) % step[a] == 0 for a in range(3))
        ]
        phase = back[:, :, start[0] :: step[0], start[1] :: step[1], start[2] :: step[2]]
        if phase.size:
            arrays = {"x": r, "m": m, "out": phase, "taps": vector(np.array(rows, np.int64).reshape(-1, 4))}
            numbers = {"n_taps": len(rows), "mode": m.itemsize, "repeat": repeat, "accumulate": 1}
            Step("MAX_UNPOOL", arrays, numbers).run(isa)
    agree(back, expected, (len(taps) + 1) * U * sizes)


def windows_of(padded: Any, count: Any, step: Any, tap: Any) -> Any:
    index = [tap[a] + step[a] * np.arange(count[a]) for a in range(3)]
    return padded[:, :, index[0]][:, :, :, index[1]][:, :, :, :, index[2]]


@each_isa
@pytest.mark.parametrize("size", [1, 4, 5])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 65, 1, 3)])
def test_lrn(isa: int, size: int, shape: Any) -> None:
    rng = np.random.default_rng(12)
    x, out = operand(rng, shape), operand(rng, shape)
    alpha, beta, k = 0.5, 0.75, 2.0
    numbers = {"n_taps": size, "act_alpha": alpha / size, "act_beta": beta, "stabilizer": k}
    Step("LRN", {"x": x, "out": out}, numbers).run(isa)
    squares = x.astype(np.float64) ** 2
    total = np.zeros_like(squares)
    for c in range(shape[1]):
        total[:, c] = squares[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1].sum(1)
    expected = x / (k + alpha / size * total) ** beta
    agree(out, expected, (size + 8) * U * np.abs(expected))


@each_isa
@pytest.mark.parametrize("axis", [1, 3, 4])
def test_softmax(isa: int, axis: int) -> None:
    rng = np.random.default_rng(13)
    x, out = operand(rng, (3, 17, 5, 7)), operand(rng, (3, 17, 5, 7))
    x *= 30
    Step("SOFTMAX", {"x": x, "out": out}, {"mode": axis}).run(isa)
    e = np.exp(x.astype(np.float64) - x.max(axis, keepdims=True))
    expected = e / e.sum(axis, keepdims=True)
    agree(out, expected, (x.shape[axis] + 4 + 2 * np.abs(x).max()) * U * expected + 2.0**-149)


@each_isa
@pytest.mark.parametrize("axis", [1, 4])
def test_embed_and_sum(isa: int, axis: int) -> None:
    rng = np.random.default_rng(14)
    n, words, features, vocabulary = 4, 7, 17, 23
    shape = (n, features, 1, 1, words, 1) if axis == 1 else (n, words, 1, 1, features, 1)
    one = tuple(1 if a == axis else s for a, s in enumerate(shape))
    ids, weight = place(rng.integers(0, vocabulary, one)), normal(rng, vocabulary, features)
    out = place(np.zeros(shape, np.float32))
    Step("EMBED", {"x": ids, "weight": vector(weight), "out": out}, {"mode": axis}).run(isa)
    assert same_bits(out, np.moveaxis(weight[np.squeeze(ids, axis)], -1, axis))

    repeat = 2
    x, sums = place(normal(rng, n * repeat, *shape[1:])), place(normal(rng, n * repeat, *one[1:]))
    for m in (out, None):
        start = sums.astype(np.float64)
        numbers = {"mode": axis, "repeat": repeat, "accumulate": 1}
        Step("EMBED_SUM", {"x": x, "m": m, "out": sums}, numbers).run(isa)
        terms = x * (1.0 if m is None else np.repeat(m.astype(np.float64), repeat, 0))
        agree(sums, start + terms.sum(axis, keepdims=True), (features + 3) * U * (np.abs(start) + np.abs(terms).sum(axis, keepdims=True)))


# ------------------------------------------------------------------------------------------------------------- the entry


def test_instruction_sets() -> None:
    assert isa_name(0) == "baseline"
    assert 0 in USABLE_ISAS
    assert lib.dtd_isa_name(-1) == lib.dtd_isa_name(lib.dtd_isa_count()) == ffi.NULL
    assert not lib.dtd_isa_usable(lib.dtd_isa_count())
    assert lib.dtd_step_size() == ffi.sizeof("dtd_step")
    assert ffi.string(lib.dtd_compiler())


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"op": -1}, "unknown operation"),
        ({"op": lib.DTD_N_OPS}, "unknown operation"),
        ({"weight_map": lib.DTD_N_WEIGHT_MAPS}, "unknown weight map"),
        ({"groups": 0}, "groups and repeat"),
        ({"repeat": 0}, "groups and repeat"),
    ],
)
def test_faulty_steps_are_refused(numbers: dict[str, int], message: str) -> None:
    steps = ffi.new("dtd_step[1]")
    steps[0].groups = steps[0].repeat = 1
    for name, number in numbers.items():
        setattr(steps[0], name, number)
    given = lib.dtd_run(0, steps, 0, 1, ffi.new("void *[1]"), 1)
    assert message in ffi.string(given).decode()
    assert "instruction set" in ffi.string(lib.dtd_run(99, steps, 0, 1, ffi.NULL, 1)).decode()
