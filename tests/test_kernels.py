"""The kernels of tap layers against the float64 reference: values, guard bands, NaN, and bits independent of threads
and batch.
"""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import kernel_reference as ref
from dtdfast._kernels import ffi
from kernel_checks import LAYOUTS, agree, each, each_kernels, same_bits
from kernel_layers import Taps, bare_taps_step, some_layer, taps_step
from kernel_steps import REFS, USABLE_ISAS, VIEWS, Kernels, Step, isa_name, lib, place, vector
from support import LONG

CASES = [(kind, seed) for kind in ("DENSE", "SPARSE", "CHANNEL", "LINEAR") for seed in range(30)]
each_case = each("kind,seed", CASES, 4)


@each_case
def test_neuron(kernels: Kernels, kind: str, seed: int) -> None:
    """out, terms and factor of NEURON_*, with every operand that a step may have."""
    layer = some_layer(kernels, kind, seed)
    rng = layer.rng
    dual, has = bool(rng.integers(2)), rng.random(5) < 0.5
    order = LAYOUTS["channels first" if rng.random() < 0.3 else "channels last"]
    bias, bias_d = (kernels.normal(rng, layer.c_out) if h else None for h in has[:2])
    y_prev, terms_prev = (kernels.normal(rng, *layer.shape) if h else None for h in (has[2], has[2] and dual))
    scale = kernels.uniform(rng, *layer.count)[None, None, ..., None] + kernels.dtype(0.5) if has[3] else None
    activation, mode = (
        str(rng.choice(["IDENTITY", "LEAKY_RELU"])),
        str(rng.choice(["NONE", "GATE", "DENOMINATOR", "DERIVATIVE", "SIGNED"])),
    )
    select, stabilizer, coefficient = (
        str(rng.choice(["ANY_SIGN", "POSITIVE", "NEGATIVE"])),
        float(rng.choice([0, 0.1])),
        -1.5,
    )
    if mode == "SIGNED":
        select, bias_d = "ANY_SIGN", None
        activation = str(rng.choice(["IDENTITY", activation]))  # most of them, in one pass too
    if seed % 3 == 0:  # what most steps are, which the kernels finish in one pass
        activation, mode, select = "RELU" if seed % 2 else "CLIP", "GATE", "ANY_SIGN"
        bias_d = scale = None
    beta = 0.75 if activation == "CLIP" else 0.0

    results = {k: layer.place(kernels.zeros(*layer.shape), order) for k in ("out", "terms", "factor")}
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
        "act_beta": beta,
        "factor_kind": getattr(lib, f"DTD_F_{mode}"), "activation": getattr(lib, f"DTD_{activation}"),
        "select": getattr(lib, f"DTD_{select}"),
    }  # fmt: skip
    Step(f"NEURON_{layer.kind}", arrays, numbers).run(kernels)

    s = 1.0 if scale is None else scale.astype(kernels.wide)
    column = (slice(None), None, None, None, None)
    b, b_d = (0.0 if v is None else v.astype(kernels.wide)[column] for v in (bias, bias_d))
    previous = [0.0 if v is None else v.astype(kernels.wide) for v in (y_prev, terms_prev)]
    total, size = layer.sums()
    y, y_size = s * total + previous[0] + b, s * size + np.abs(previous[0]) + np.abs(b)
    # compare what is stored before the activation; the derivative's kink makes it discontinuous
    act, slope = ref.ACTIVATIONS[activation]
    agree(results["out"], act(y, 0.25, beta), (layer.n_terms + 4) * kernels.u * y_size)
    total, size = layer.sums("W_POSITIVE") if dual else (total, size)
    terms = s * total + previous[1 if dual else 0]
    agree(results["terms"], terms, (layer.n_terms + 3) * kernels.u * (s * size + np.abs(previous[1 if dual else 0])))
    if mode == "NONE":
        return
    # factor is a function of what the kernel stored: a few roundings, whatever the condition of the sums
    out, d = (
        results["out"].astype(kernels.wide),
        ref.stabilised(results["terms"].astype(kernels.wide) + b_d, stabilizer),
    )
    if mode == "DERIVATIVE":
        agree(results["factor"], slope(out, 0.25, 0) * s * np.ones(layer.shape), 2 * kernels.u)
        return
    if mode == "SIGNED":  # the sum of y is not stored: its rest is off by the errors of both sums
        sums, whole = results["terms"].astype(kernels.wide), s * layer.sums()[0] + previous[0]
        below, error = (
            np.minimum(whole - sums, 0) - stabilizer,
            (layer.n_terms + 6) * kernels.u * (y_size + abs(sums)) / s,
        )
        factor = np.where(out < 0, below, sums + stabilizer) / s
        agree(results["factor"], factor, error + 6 * kernels.u * abs(factor))
        return
    factor = ref.quotient(coefficient * out, d) * s if mode == "GATE" else d / (coefficient * s)
    if select != "ANY_SIGN":
        factor = np.where(out > 0 if select == "POSITIVE" else out < 0, factor, 0)
    cancelled = np.abs(results["terms"].astype(kernels.wide)) + np.abs(b_d) + stabilizer
    agree(
        results["factor"],
        factor,
        np.abs(factor) * (6 * kernels.u + 4 * kernels.u * cancelled / np.abs(np.where(d == 0, 1, d))),
    )


def test_each_weight_map_and_multiplier_has_a_name() -> None:
    assert len(ref.WEIGHT_MAPS) == lib.DTD_N_WEIGHT_MAPS
    assert len(ref.MULTIPLIERS) == lib.DTD_N_MULTIPLIERS
    assert len(ref.INPUT_MAPS) == lib.DTD_N_INPUT_MAPS
    assert len(ref.ACTIVATIONS) == lib.DTD_N_ACTIVATIONS


@each_kernels
@pytest.mark.parametrize("kind", ["DENSE", "SPARSE", "CHANNEL", "LINEAR", "SCATTER"])
@pytest.mark.parametrize("weight_map", ref.WEIGHT_MAPS)
def test_taps(kernels: Kernels, kind: str, weight_map: str) -> None:
    """out (+)= multiplier(m)·scale·Σ x·wm(w), each map by half of the multipliers; by all with DTDFAST_LONG=1."""
    scatter, first = kind == "SCATTER", list(ref.WEIGHT_MAPS).index(weight_map)
    for seed, multiplier in enumerate(ref.MULTIPLIERS):
        if (first + seed // 2) % 2 and not LONG:
            continue
        layer = some_layer(kernels, "LINEAR" if scatter else kind, 100 + 10 * seed + lib.DTD_N_WEIGHT_MAPS)
        if scatter:
            layer.sieve(0.6)  # dead units, whose rows are skipped
        repeat = 3 if layer.n % 3 == 0 else 2 if layer.n % 2 == 0 else 1
        step, expected, size = taps_step(layer, weight_map, multiplier, bool(seed % 2), repeat, scatter)
        step.run(kernels)
        agree(step.arrays["out"], expected, (layer.n_terms + 6) * kernels.u * size)


@each_kernels
def test_linear_takes_strided_inputs(kernels: Kernels) -> None:
    rng = np.random.default_rng(7)
    layer = Taps("LINEAR", kernels, rng, 19, 2500, 33)
    layer.x = place(layer.values, order=(1, 0, 2, 3, 4, 5))  # samples fastest
    step, expected, size = taps_step(layer, "W", "M_TIMES", True, 1, False)
    step.run(kernels)
    agree(step.arrays["out"], expected, (layer.n_terms + 6) * kernels.u * size)


@each_case
def test_nan_reaches_what_it_should(kernels: Kernels, kind: str, seed: int) -> None:
    """One NaN in x makes NaN of the outputs that read it, through the activation, and of no other."""
    layer = some_layer(kernels, kind, seed)
    values = layer.values.copy()
    values[tuple(int(layer.rng.integers(s)) for s in values.shape)] = np.nan
    layer.refill(values)
    out, factor = (layer.place(kernels.zeros(*layer.shape)) for _ in range(2))
    numbers = {**layer.numbers(), "dual": 1, "factor_kind": lib.DTD_F_GATE, "activation": lib.DTD_RELU}
    Step(f"NEURON_{layer.kind}", {**layer.operands(), "out": out, "factor": factor}, numbers).run(kernels)
    expected = np.isnan(layer.sums()[0])
    assert expected.any() or not layer.taps or max(layer.step) > 1
    assert np.array_equal(np.isnan(out), expected)
    assert np.array_equal(np.isnan(factor), expected)


LARGE = {
    "DENSE": {
        "n": 4,
        "c_in": 31,
        "c_out": 65,
        "count": (1, 12, 33),
        "taps": tuple(product((0,), (-1, 0, 1), (-1, 0, 1))),
    },
    "DENSE 1x1": {"n": 4, "c_in": 65, "c_out": 65, "count": (1, 12, 33)},
    "SPARSE": {
        "n": 5,
        "c_in": 67,
        "c_out": 150,
        "count": (1, 9, 9),
        "taps": tuple(product((0,), (-1, 0, 1), (-1, 0, 1))),
    },
    "SPARSE 1x1": {"n": 5, "c_in": 130, "c_out": 65, "count": (1, 9, 11)},
    "CHANNEL": {
        "n": 4,
        "c_in": 65,
        "c_out": 65,
        "count": (1, 12, 33),
        "taps": tuple(product((0,), (-1, 0, 1), (-1, 0, 1))),
    },
    "LINEAR": {"n": 19, "c_in": 2500, "c_out": 333},
    "LINEAR 9": {"n": 9, "c_in": 2500, "c_out": 333},
    "LINEAR 70": {"n": 70, "c_in": 333, "c_out": 90},
    "SCATTER": {"n": 19, "c_in": 333, "c_out": 4500},
    "SCATTER 70": {"n": 70, "c_in": 300, "c_out": 1130},
}


@each("name", LARGE, 2)
def test_bits_do_not_depend_on_threads_or_batch(kernels: Kernels, name: str) -> None:
    kind = name.split()[0]
    scatter = kind == "SCATTER"
    layer = Taps(
        {"SCATTER": "LINEAR", "SPARSE": "DENSE"}.get(kind, kind), kernels, np.random.default_rng(5), **LARGE[name]
    )  # type: ignore[arg-type]
    if scatter:
        layer.sieve(0.6)
    if kind == "SPARSE":  # zeros left out in the batch, but not in the first sample alone
        layer.sieve(0.9, slice(1, None))
    steps = [bare_taps_step(layer, "W_POSITIVE", "M_TIMES", False, 1, scatter)]
    if not scatter:
        arrays = {**layer.operands(), **{k: layer.place(kernels.zeros(*layer.shape)) for k in ("out", "factor")}}
        numbers = {**layer.numbers(), "dual": 1, "factor_kind": lib.DTD_F_GATE, "activation": lib.DTD_GELU}
        steps.append(Step(f"NEURON_{layer.kind}", arrays, numbers))
    for step in steps:
        step.run(kernels, 1)
        first = {k: step.arrays[k].copy() for k in step.results if step.arrays.get(k) is not None}
        for n_threads in (2, 3):
            for k in first:
                step.arrays[k][...] = 0
            step.run(kernels, n_threads)
            assert all(same_bits(step.arrays[k], first[k]) for k in first)
        for sample in range(layer.n) if LONG else {0, layer.n // 2, layer.n - 1}:
            alone = {
                k: a[sample : sample + 1] if a is not None and k not in ("weight", "taps") else a
                for k, a in step.arrays.items()
            }
            for k in first:
                alone[k] = layer.place(np.zeros_like(alone[k]))
            Step(step.op, alone, step.numbers).run(kernels, 2)
            assert all(same_bits(alone[k], first[k][sample : sample + 1]) for k in first)


# ------------------------------------------------------------------------------------------------------------ the entry


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
        ({"op": -1}, "unknown operation -1"),
        ({"op": lib.DTD_N_OPS}, f"unknown operation {lib.DTD_N_OPS}"),
        (
            {"op": lib.DTD_TAPS_DENSE, "weight_map": lib.DTD_N_WEIGHT_MAPS},
            f"TAPS_DENSE: unknown weight_map {lib.DTD_N_WEIGHT_MAPS}",
        ),
        ({"op": lib.DTD_ACTIVATE, "activation": -1}, "ACTIVATE: unknown activation -1"),
        (
            {"op": lib.DTD_ACTIVATE, "activation": lib.DTD_N_ACTIVATIONS},
            f"ACTIVATE: unknown activation {lib.DTD_N_ACTIVATIONS}",
        ),
        ({"op": lib.DTD_MAP, "input_map": lib.DTD_N_INPUT_MAPS}, f"MAP: unknown input_map {lib.DTD_N_INPUT_MAPS}"),
        (
            {"op": lib.DTD_MULTIPLY, "multiplier": lib.DTD_N_MULTIPLIERS},
            f"MULTIPLY: unknown multiplier {lib.DTD_N_MULTIPLIERS}",
        ),
        (
            {"op": lib.DTD_NEURON_DENSE, "factor_kind": lib.DTD_N_FACTORS},
            f"NEURON_DENSE: unknown factor_kind {lib.DTD_N_FACTORS}",
        ),
        ({"op": lib.DTD_FACTOR, "select": lib.DTD_N_SIGNS}, f"FACTOR: unknown select {lib.DTD_N_SIGNS}"),
        (
            {"op": lib.DTD_TAPS_DENSE, "precision": lib.DTD_N_PRECISIONS},
            f"TAPS_DENSE: unknown precision {lib.DTD_N_PRECISIONS}",
        ),
        ({"groups": 0}, "CLEAR_BORDER: impossible groups 0"),
        ({"repeat": 0}, "CLEAR_BORDER: impossible repeat 0"),
    ],
)
def test_faulty_steps_are_refused(numbers: dict[str, int], message: str) -> None:
    steps = ffi.new("dtd_step[1]")
    steps[0].groups = steps[0].repeat = 1
    for name, number in numbers.items():
        setattr(steps[0], name, number)
    given = lib.dtd_run(0, lib.DTD_F4, steps, 0, 1, ffi.new("void *[1]"), 1, ffi.NULL)
    assert message in ffi.string(given).decode()
    assert "instruction set" in ffi.string(lib.dtd_run(99, lib.DTD_F4, steps, 0, 1, ffi.NULL, 1, ffi.NULL)).decode()


def refusal(op: str, given: str, **numbers: int) -> str:
    """Why a step with these views and numbers is refused."""
    steps = ffi.new("dtd_step[1]")
    steps[0].op = getattr(lib, f"DTD_{op}")
    steps[0].groups = steps[0].repeat = steps[0].coefficient = 1
    for name in VIEWS + REFS:
        getattr(steps[0], name).base = 0 if name in given.split() else -1
    for name, number in numbers.items():
        setattr(steps[0], name, number)
    return str(ffi.string(lib.dtd_run(0, lib.DTD_F4, steps, 0, 1, ffi.new("void *[1]"), 1, ffi.NULL)).decode())


@pytest.mark.parametrize(
    ("op", "given", "numbers", "message"),
    [
        ("MOVE", "out", {}, "MOVE needs x"),
        ("MOVE", "out x bias", {}, "MOVE does not take bias"),
        ("MOVE", "out x", {"select": lib.DTD_POSITIVE}, "MOVE does not take select"),
        ("MAP", "out", {"input_map": lib.DTD_X_POSITIVE}, "MAP needs x"),
        ("MAP", "out x", {"input_map": lib.DTD_X_BELOW_HIGH}, "MAP needs m"),
        ("NEURON_DENSE", "out x", {}, "NEURON_DENSE needs weight"),
        ("NEURON_DENSE", "out x weight factor", {}, "NEURON_DENSE needs factor_kind"),
        ("NEURON_LINEAR", "out x weight", {"factor_kind": lib.DTD_F_GATE}, "NEURON_LINEAR needs factor"),
        ("NEURON_CHANNEL", "out x terms_prev", {}, "NEURON_CHANNEL needs y_prev"),
        ("NEURON_CHANNEL", "out x", {"precision": lib.DTD_BFLOAT16}, "NEURON_CHANNEL does not take precision"),
        ("NEURON_LINEAR", "out x weight m", {}, "NEURON_LINEAR does not take m"),
        ("NEURON_LINEAR", "out x weight other shift", {}, "NEURON_LINEAR does not take other"),
        ("NEURON_DENSE", "out x weight other", {}, "NEURON_DENSE needs shift"),
        ("NEURON_DENSE", "out x weight other shift", {"dual": 1}, "NEURON_DENSE does not take dual"),
        ("TAPS_DENSE", "out x weight", {"multiplier": lib.DTD_M_TIMES}, "TAPS_DENSE needs m"),
        ("TAPS_DENSE", "out x weight", {"n_taps": 1}, "TAPS_DENSE needs taps"),
        ("TAPS_LINEAR", "out x weight", {"activation": lib.DTD_RELU}, "TAPS_LINEAR does not take activation"),
        ("SCATTER_LINEAR", "out x weight scale", {}, "SCATTER_LINEAR does not take scale"),
        ("FACTOR", "factor terms", {"factor_kind": lib.DTD_F_GATE}, "FACTOR needs x"),
        (
            "FACTOR",
            "factor terms",
            {"factor_kind": lib.DTD_F_DENOMINATOR, "select": lib.DTD_NEGATIVE},
            "FACTOR needs m",
        ),
        ("DIVIDE", "out x m", {"multiplier": lib.DTD_M_TIMES}, "DIVIDE does not take multiplier"),
        ("LRN", "out x", {}, "LRN needs lrn_size"),
        ("LRN", "out x", {"lrn_size": 3, "act_alpha": 1}, "LRN does not take activation"),
        ("LRN", "out x", {"lrn_size": 3, "stabilizer": 1}, "LRN does not take stabilizer"),
        ("SOFTMAX", "out x", {}, "SOFTMAX needs axis"),
        ("MAX_POOL", "out x taps", {}, "MAX_POOL needs winner_bytes"),
        ("EMBED_SUM", "out x", {"axis": 4, "weight_map": lib.DTD_W_ONE}, "EMBED_SUM does not take weight_map"),
        ("MATMUL", "out x", {}, "MATMUL needs other"),
        ("MATMUL", "out x other", {"multiplier": lib.DTD_M_TIMES}, "MATMUL needs m"),
        ("MATMUL", "out x other", {"weight_map": lib.DTD_W_ABS}, "MATMUL does not take weight_map"),
        ("NORM", "out x", {"accumulate": 1}, "NORM does not take accumulate"),
        ("NORM", "out x m", {}, "NORM does not take m"),
        ("NORM_TAPS", "out x", {}, "NORM_TAPS needs scale"),
        ("NORM_TAPS", "out x scale", {"epsilon": 1}, "NORM_TAPS does not take epsilon"),
        ("NORM_SCATTER", "out x", {}, "NORM_SCATTER needs scale"),
        ("NORM_SCATTER", "out x", {"derivative": 1}, "NORM_SCATTER needs m"),
        ("NORM_SCATTER", "out x m scale", {"derivative": 1}, "NORM_SCATTER does not take scale"),
        ("NORM_SCATTER", "out x m", {"derivative": 1, "gamma": 1}, "NORM_SCATTER does not take weight_map"),
        ("SOFTMAX", "out x other", {"axis": 4, "centred": 1}, "SOFTMAX does not take centred"),
        ("LOG_SOFTMAX", "out x other", {"axis": 4}, "LOG_SOFTMAX does not take other"),
        ("SOFTMAX_BACK", "out x", {"axis": 4}, "SOFTMAX_BACK needs m"),
        ("MAP_WEIGHT", "out x shift", {}, "MAP_WEIGHT does not take shift"),
    ],
)
def test_fields_are_those_of_the_operation(op: str, given: str, numbers: dict[str, int], message: str) -> None:
    assert refusal(op, given, **numbers) == message


def test_operands_that_do_not_fit_are_refused() -> None:
    steps = ffi.new("dtd_step[1]")
    step = steps[0]
    step.op, step.groups, step.repeat, step.coefficient = lib.DTD_MATMUL, 1, 2, 1
    for name in VIEWS + REFS:
        getattr(step, name).base = -1
    for name, samples, shape in (("out", 4, (3, 5)), ("x", 4, (3, 6)), ("other", 2, (7, 5))):
        view = getattr(step, name)
        view.base, view.shape, view.stride = 0, [samples, 1, 1, *shape, 1], [35, 0, 0, shape[1], 1, 0]

    def message() -> str:
        return str(ffi.string(lib.dtd_run(0, lib.DTD_F4, steps, 0, 1, ffi.new("void *[1]"), 1, ffi.NULL)).decode())

    assert message() == "MATMUL: x has 6 columns, other 7 rows"
    step.other.shape[0] = 3
    assert message() == "MATMUL: other has 3 samples, out 4"
    step.op, step.other.base, step.weight.base, step.repeat, step.groups = lib.DTD_TAPS_DENSE, -1, 0, 1, 4
    step.x.shape[1], step.out.shape[1] = 8, 6
    assert message() == "TAPS_DENSE: 4 groups do not divide 8 and 6 channels"
    step.op, step.m.base, step.taps.base, step.weight.base = lib.DTD_WEIGHT_GRADIENT, 0, 0, -1
    step.m.shape[1] = 3
    assert message() == "WEIGHT_GRADIENT: 4 groups do not divide 8 and 3 channels"


def test_operations_are_documented() -> None:
    rows = [
        line
        for line in (Path(__file__).parents[1] / "csrc" / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    documented = {name for row in rows for name in re.findall(r"`([A-Z][A-Z_]+)`", row.split("|")[1])}
    names = {refusal_name(op) for op in range(lib.DTD_N_OPS)}
    assert documented == names


def refusal_name(op: int) -> str:
    """The name of an operation, as every refusal begins with it."""
    steps = ffi.new("dtd_step[1]", [{"op": op}])
    return str(ffi.string(lib.dtd_run(0, lib.DTD_F4, steps, 0, 1, ffi.new("void *[1]"), 1, ffi.NULL)).decode()).split(
        ":"
    )[0]
