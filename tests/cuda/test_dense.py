"""The contraction kernel in emulation against the oracle's loops: same source, same launches, awkward sizes.

Tolerance: a unit errs in Σ x·w by at most e(n)·Σ|x·w|, n terms, u = 2⁻²⁴:

    fma     n·u
    tf32    2·2⁻¹¹ + 2⁻²² + n·u                     two operands rounded to nearest, products exact
    bf16    2·2⁻⁸ + 2⁻¹⁶ + n·u, or 2⁻⁸ + n·u where x lies in bfloat16 and so is exact ("bf16_rounded",
            "bf16" and "bf16_wgmma")
    tf32x3  12u: what h + l leave of two operands, and l·l′, 2⁻²² each; 6u: three sums of eight terms, truncated; n/8·u:
    their sum

and every operation of the epilogue adds u; a result kept in bfloat16 is rounded by 2⁻⁸ more.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
import kernel_reference as ref
import on_gpu
from cases.layers import LAYERS
from dtdfast.cuda.kernels.formulas import MULTIPLIERS
from dtdfast.cuda.run import contraction, tiles
from dtdfast.oracle.maths import WEIGHT_MAPS, gather, scatter
from dtdfast.plan.steps import View
from dtdfast.plan.units import Part
from layers import World, geometry
from support import LONG, chosen

U = 2.0**-24
HALF = 2.0**-8
UNITS = {  # by unit the precision asked for, and how arrays are kept
    "tf32x3": ("float32", "f4"), "tf32": ("tf32", "f4"), "bf16_rounded": ("bfloat16", "f4"), "bf16": ("bfloat16",
    "bf16"), "bf16_wgmma": ("bfloat16", "bf16"), "tf32_wgmma": ("tf32", "f4"),
}  # fmt: skip

# plain, transposed
EVEN = {
    "even": (True, True),
    "even groups": (True, False),
    "even back": (False, True),
    "even to an image": (False, True),
}  # along, across
SOME = ("image", "padded", "skipping", "aligned groups", *EVEN)
OF_UNIT = dict.fromkeys(("tf32x3", "bf16"), LAYERS) | {"bf16_wgmma": ("even",), "tf32_wgmma": ("even",) * LONG}
RUNS = [
    (number + place, (case, unit))
    for number, case in enumerate(LAYERS)
    for place, unit in enumerate(UNITS)
    if case in OF_UNIT.get(unit, SOME)
]
EVERY = 1 if on_gpu.WANTED else 2
# every layer in both directions, by each of its units in one of them; with DTDFAST_LONG=1 in both
NEURONS, SCATTERS = ([run for place, run in RUNS if LONG or place % 2 == way] for way in (0, 1))


def bound(unit: str, n_terms: int) -> float:
    """e(n) of the module's docstring."""
    operands = {
        "fma": 0.0,
        "tf32": 2 * 2.0**-11 + 2.0**-22,
        "tf32_wgmma": 2 * 2.0**-11 + 2.0**-22,
        "bf16": HALF,
        "bf16_wgmma": HALF,
        "bf16_rounded": 2 * HALF + HALF**2,
        "tf32x3": 18 * U,
    }[unit]
    return operands + (n_terms / 8 + 1 if unit == "tf32x3" else n_terms) * U


def kept(values: Any, real: str) -> Any:
    """Values as memory of this type has them."""
    return (contraction.bf16(values).astype(np.uint32) << 16).view(np.float32) if real == "bf16" else values


def with_rounding(error: Any, exact: Any, real: str) -> Any:
    """The error of a result that is kept in this type."""
    return error if real == "f4" else error + HALF * (np.abs(exact) + error)


def n_terms(part: Part, transposed: bool) -> int:
    return part.taps.n_taps * (part.taps.c_out if transposed else part.taps.c_in) // part.taps.groups


def near(result: Any, expected: Any, tolerance: Any) -> None:
    assert result.shape == expected.shape
    assert np.array_equal(np.isnan(result), np.isnan(expected))
    excess = np.nan_to_num(np.abs(result - expected) - tolerance)
    assert excess.max() <= 0, f"off by {excess.max():.2e} more than allowed"


def neuron(part: Part, world: World, x: Any, **fields: Any) -> dict[str, Any]:
    """Emit a neuron's steps; returns its results' buffers."""
    shape = (part.taps.c_out, *part.taps.out_size)
    results = {name: world.buffer(shape) for name in ("out", "factor")}
    views = {name: View(buffer) for name, buffer in results.items()}
    world.lowering.taps(
        "NEURON", part, View(world.buffer(part.source.shape, x)), {**views, "coefficient": 1.0, **fields}
    )
    return results


@pytest.mark.parametrize(("case", "unit"), NEURONS)
def test_neuron(case: str, unit: str, rng: np.random.Generator) -> None:
    """Out = relu(y), factor = the gate relu(y) / z⁺, from one pass over x and w."""
    part = geometry(rng, **LAYERS[case])
    precision, real = UNITS[unit]
    x = kept(np.abs(rng.standard_normal((2, *part.source.shape), dtype=np.float32)), real)
    bias = rng.standard_normal(part.taps.c_out, dtype=np.float32)
    world = World(2, real=real)
    results = neuron(part, world, x, dual=True, factor_kind="gate", bias=bias, activation=("relu", 0.0, 0.0))
    ((found, even),) = {(launch.kernel.constants[0], launch.kernel.constants[6]) for launch in world.run(precision)}
    assert even == (found in tiles.EVEN_UNITS and EVEN.get(case, (False, False))[0])
    assert found == ("fma" if unit == "tf32x3" and part.taps.c_in // part.taps.groups % 4 else unit)

    weight, x64 = part.weight.astype(np.float64), x.astype(np.float64)
    y, size = gather(x64, weight, part.taps) + bias[:, None, None, None], gather(x64, np.abs(weight), part.taps)
    z, out = gather(x64, np.maximum(weight, 0), part.taps), np.maximum(y, 0)
    e = bound(found, n_terms(part, False))
    error_y = (e + 2 * U) * (size + np.abs(bias)[:, None, None, None])
    near(world.view_of(results["out"]), out, with_rounding(error_y, out, real))
    gate = ref.quotient(out, z)
    near(
        world.view_of(results["factor"]),
        gate,
        with_rounding(1.01 * ref.quotient(error_y + gate * e * z, z) + 4 * U * gate, gate, real),
    )
    for buffer in results.values():
        assert world.untouched(buffer)


@pytest.mark.parametrize(("case", "unit"), SCATTERS)
def test_scatter(case: str, unit: str, rng: np.random.Generator) -> None:
    """r_in += x · Σ_j w⁺ s_j for three targets at once, phase by phase."""
    part, n, t = geometry(rng, **LAYERS[case]), 2, 3
    precision, real = UNITS[unit]
    x = kept(rng.standard_normal((n, *part.source.shape), dtype=np.float32), real)
    s = kept(rng.standard_normal((n * t, part.taps.c_out, *part.taps.out_size), dtype=np.float32), real)
    before = kept(rng.standard_normal((n * t, *part.source.shape), dtype=np.float32), real)
    world = World(n, t, real=real)
    given, m, out = (
        world.buffer(s.shape[1:], s, "nt"),
        world.buffer(x.shape[1:], x),
        world.buffer(x.shape[1:], before, "nt"),
    )
    fields = dict(out=View(out), m=View(m), multiplier="times", weight_map="w+", repeat=t, accumulate=True)
    world.lowering.taps("TAPS", part, View(given), fields, scatter=True)
    constants = [launch.kernel.constants for launch in world.run(precision)]
    units = {c[0] for c in constants}
    assert {c[6] for c in constants} == {unit in tiles.EVEN_UNITS and EVEN.get(case, (False, False))[1]}
    positive, factor = np.maximum(part.weight, 0).astype(np.float64), np.repeat(x, t, axis=0)
    expected = before + factor * scatter(s.astype(np.float64), positive, part.taps)
    size = np.abs(before) + np.abs(factor) * scatter(np.abs(s).astype(np.float64), positive, part.taps)
    error = (max(bound(u, n_terms(part, True)) for u in units) + 3 * U) * size
    near(world.view_of(out), expected, with_rounding(error, expected, real))
    assert world.untouched(out)


WAYS = [("tf32x3", False), ("tf32x3", True), ("bf16", True), ("bf16", False)]


@pytest.mark.parametrize(("weight_map", "way"), chosen(list(WEIGHT_MAPS), WAYS, every=EVERY))
def test_weight_maps(weight_map: str, way: tuple[str, bool], rng: np.random.Generator) -> None:
    """Maps are taken in registers; one weight is zero, and gamma is no power of two. In bfloat16 w² doubles w's error
    and is rounded. In the short form each unit goes one way.
    """
    (unit, scattered), part, gamma = way, geometry(rng, 8, 12, (1, 1, 3), (1, 1, 2)), 0.3
    part.weight[0, 0] = 0
    shapes = (part.source.shape, (part.taps.c_out, *part.taps.out_size))
    precision, real = UNITS[unit]
    x = kept(rng.standard_normal((2, *shapes[scattered]), dtype=np.float32), real)
    world = World(2, real=real)
    out = world.buffer(shapes[not scattered])
    fields = dict(out=View(out), weight_map=weight_map, gamma=gamma)
    world.lowering.taps("TAPS", part, View(world.buffer(x.shape[1:], x)), fields, scatter=scattered)
    world.run(precision)
    mapped, sum_over = (
        WEIGHT_MAPS[weight_map](part.weight.astype(np.float64), float(np.float32(gamma))),
        scatter if scattered else gather,
    )
    size = sum_over(np.abs(x).astype(np.float64), np.abs(mapped), part.taps)
    expected = sum_over(x.astype(np.float64), mapped, part.taps)
    error = bound(unit, n_terms(part, scattered)) + 4 * U + (2 * HALF + 4 * HALF**2 if unit == "bf16" else 0)
    near(world.view_of(out), expected, with_rounding(error * size, expected, real))


@pytest.mark.parametrize("multiplier", MULTIPLIERS)
def test_multipliers(multiplier: str, rng: np.random.Generator) -> None:
    part = geometry(rng, 5, 9, (1, 1, 4), (1, 1, 1))
    m = rng.standard_normal((1, 9, 1, 1, 4), dtype=np.float32)
    m[..., 0] = 0
    x = rng.standard_normal((1, *part.source.shape), dtype=np.float32)
    world = World(1)
    out = world.buffer(m.shape[1:])
    fields = dict(out=View(out), multiplier=multiplier, m=View(world.buffer(m.shape[1:], m)))
    world.lowering.taps("TAPS", part, View(world.buffer(x.shape[1:], x)), fields)
    world.run()
    factor = ref.MULTIPLIERS["M_" + multiplier.upper().replace(" ", "_")](m.astype(np.float64))
    weight, x = part.weight.astype(np.float64), x.astype(np.float64)
    size = np.abs(factor) * gather(np.abs(x), np.abs(weight), part.taps)
    near(world.view_of(out), factor * gather(x, weight, part.taps), 7 * U * size)


@pytest.mark.parametrize("kind", ["gate", "denominator", "derivative", "none"])
@pytest.mark.parametrize("dual", [False, True])
def test_every_field_of_a_neuron(kind: str, dual: bool, rng: np.random.Generator) -> None:
    """Shares of a sum, a number per pixel, bias of the denominator, stabiliser, coefficient, an activation with
    parameters.
    """
    part = geometry(rng, 6, 9, (1, 2, 3), (1, 1, 1))
    shape = (9, *part.taps.out_size)
    x, y_prev, terms_prev = (rng.standard_normal((2, *s), dtype=np.float32) for s in (part.source.shape, shape, shape))
    bias, bias_d = (rng.standard_normal(9, dtype=np.float32) for _ in range(2))
    window = rng.random(part.taps.out_size, dtype=np.float32) + 0.5
    world = World(2)
    terms = world.buffer(shape)
    fields = dict(
        terms=View(terms),
        y_prev=View(world.buffer(shape, y_prev)),
        bias=bias,
        bias_d=bias_d,
        dual=dual,
        factor_kind=kind,
    )
    fields.update(coefficient=2.0, stabilizer=0.25, activation=("leaky_relu", 0.125, 0.0))
    if dual:
        fields["terms_prev"] = View(world.buffer(shape, terms_prev))
    buffers = {name: world.buffer(shape) for name in ("out", "factor")}
    fields["out"] = View(buffers["out"])
    if kind != "none":
        fields["factor"] = View(buffers["factor"])
    world.lowering.taps("NEURON", part, View(world.buffer(part.source.shape, x)), fields, window=window)
    world.run()

    weight, x64, column = part.weight.astype(np.float64), x.astype(np.float64), (slice(None), None, None, None)
    size = window * gather(np.abs(x64), np.abs(weight), part.taps) + np.abs(y_prev) + np.abs(terms_prev)
    y = window * gather(x64, weight, part.taps) + y_prev
    acc_n = window * gather(x64, np.maximum(weight, 0), part.taps) + terms_prev if dual else y
    e, y = bound("fma", 6) + 4 * U, y + bias[column]
    out, d = np.where(y < 0, 0.125 * y, y), ref.stabilised(acc_n + bias_d[column], 0.25)
    near(world.view_of(buffers["out"]), out, e * (size + np.abs(bias[column])))
    near(world.view_of(terms), acc_n, e * size)
    if kind == "gate":
        error = (
            2
            * window
            * (1 + np.abs(ref.quotient(out, d)))
            * e
            * (size + np.abs(bias[column]) + np.abs(bias_d[column]) + 0.25)
        )
        near(world.view_of(buffers["factor"]), 2 * window * ref.quotient(out, d), 1.01 * error / np.abs(d))
    elif kind == "denominator":
        near(
            world.view_of(buffers["factor"]),
            ref.quotient(d, 2 * window),
            e * (size + np.abs(bias_d[column]) + 0.25) / (2 * window),
        )
    elif kind == "derivative":
        near(world.view_of(buffers["factor"]), np.where(y > 0, 1.0, 0.125) * window, U)


@pytest.mark.parametrize(("n_in", "n_out"), [(37, 10), (64, 40), (5, 65)])
@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("unit", ["tf32x3", "bf16"])
def test_linear(n_in: int, n_out: int, scattered: bool, unit: str, rng: np.random.Generator) -> None:
    """Fully connected: the record's own rows, read plain and transposed."""
    part = geometry(rng, n_in, n_out, (1, 1, 1), (1, 1, 1))
    part.linear = True
    sizes = (n_in, n_out)
    precision, real = UNITS[unit]
    x = kept(rng.standard_normal((3, sizes[scattered]), dtype=np.float32), real)
    world = World(3, real=real)
    out, given = world.buffer((sizes[not scattered],)), world.buffer((sizes[scattered],), x)
    world.lowering.taps("TAPS", part, View(given), dict(out=View(out)), scatter=scattered)
    (launch,) = world.run(precision)
    weight = part.weight.reshape(n_out, n_in).astype(np.float64)
    weight = weight if scattered else weight.T
    error = bound(launch.kernel.constants[0], len(weight)) * (np.abs(x) @ np.abs(weight))
    near(world.view_of(out), x @ weight, with_rounding(error, x @ weight, real))


TILES = [
    ("broad", 132, True, 64),
    ("wide", 129, False, 64),
    ("tall", 65, False, 64),
    ("half", 72, True, 64),
    ("square", 40, False, 64),
    ("oblong", 68, True, 64),
    ("low", 72, False, 64),
    ("uneven square", 40, False, 20),
    ("uneven small", 40, True, 20),
    ("thin", 8, True, 64),
    ("thin", 5, True, 20),
]


@pytest.mark.parametrize(
    ("tile", "unit"), [*chosen(TILES, ["bf16", "tf32"], every=EVERY), (("small group", 64, True, 64), "tf32_wgmma")],
    ids=lambda value: value if isinstance(value, str) else value[0],
)  # fmt: skip
def test_bits_are_the_same_for_every_tile_and_batch(
    tile: tuple[str, int, bool, int], unit: str, rng: np.random.Generator, monkeypatch: Any
) -> None:
    """Each tile of the table, against the smallest that serves all shapes, with one sample more before; in the short
    form for one type of numbers. In emulation units by wgmma give the bits of their counterparts, too.
    """
    (name, channels, transposed, inner), (precision, real) = tile, UNITS[unit]
    part = geometry(rng, *((channels, inner) if transposed else (inner, channels)), (1, 2, 3), (1, 1, 2), after=1)
    x, results = rng.standard_normal((2, inner, *part.taps.out_size), dtype=np.float32), []
    small = tiles.NAMED["small group" if unit in tiles.WGMMA and on_gpu.WANTED else "small"]
    for row, n in ((small, 1), (tiles.NAMED[name], 2)):
        monkeypatch.setattr(tiles, "choose", lambda *_, row=row: row)
        monkeypatch.setattr(tiles, "USE_WGMMA", row in tiles.WARPGROUPS)
        world = World(n, real=real)
        out = world.buffer((channels, *part.taps.x_size))
        given = world.buffer(x.shape[1:], x[2 - n :])
        world.lowering.taps("TAPS", part, View(given), dict(out=View(out), weight_map="w+"), scatter=transposed)
        (launch,) = world.run(precision)
        assert (launch.kernel.constants[3], launch.kernel.constants[6]) == (row.tile.constants, inner == 64)
        results.append(world.view_of(out)[-1].copy())
    assert np.array_equal(*(r.view(np.uint32) for r in results))


@pytest.mark.parametrize("shared_bytes", [99 * 1024, 163 * 1024, 227 * 1024])
@pytest.mark.parametrize("unit", UNITS)
def test_blocks_fit_the_device(unit: str, shared_bytes: int, rng: np.random.Generator) -> None:
    """A GPU of compute capability 8.9 has less shared memory than the largest tiles take."""
    part = geometry(rng, 64, 128, (1, 40, 40), (1, 3, 3), before=1, after=1)
    world = World(2, real=UNITS[unit][1])
    neuron(part, world, np.zeros((2, *part.source.shape)), dual=True)
    plan: Any = SimpleNamespace(n=2, t=1)
    (launch,) = contraction.launches(world.steps[-1], plan, world.address_of, UNITS[unit][0], 4, shared_bytes)
    assert launch.shared_bytes <= shared_bytes
    large = [tiles.NAMED[name].tile.constants for name in ("wide", "half")]
    assert (launch.kernel.constants[3] in large) == (unit in ("tf32", "bf16"))


def test_nan_stays_where_it_is(rng: np.random.Generator) -> None:
    """Columns and pixels beyond the end are zeros, not what memory happens to hold there."""
    part = geometry(rng, 8, 12, (1, 4, 4), (1, 3, 3), before=1, after=1)
    x = rng.standard_normal((2, *part.source.shape), dtype=np.float32)
    x[1, 3, 0, 2, 1] = np.nan
    world = World(2)
    results = neuron(part, world, x)
    world.run()
    expected = gather(x.astype(np.float64), part.weight.astype(np.float64), part.taps)
    assert 0 < np.isnan(expected).mean() < 0.5
    assert np.array_equal(np.isnan(world.view_of(results["out"])), np.isnan(expected))


def test_unaligned_arrays_take_the_kernel_for_them(rng: np.random.Generator) -> None:
    part = geometry(rng, 8, 12, (1, 2, 3), (1, 1, 1))
    x = rng.standard_normal((1, *part.source.shape), dtype=np.float32)
    world = World(1, shift=1)
    results = neuron(part, world, x)
    (launch,) = world.run()
    assert launch.kernel.constants[0] == "fma"
    weight, x = part.weight.astype(np.float64), x.astype(np.float64)
    near(
        world.view_of(results["out"]),
        gather(x, weight, part.taps),
        bound("fma", 8) * gather(np.abs(x), np.abs(weight), part.taps),
    )


@pytest.mark.parametrize("dual", [False, True])
def test_float32_errs_no_more_than_multiply_adds(dual: bool, rng: np.random.Generator) -> None:
    """Split operands, on tensor cores that truncate: at most four times the error of a chain of float32
    multiply-adds.
    """
    part = geometry(rng, 64, 32, (1, 4, 4), (1, 3, 3), before=1, after=1)
    x = np.abs(rng.standard_normal((1, *part.source.shape), dtype=np.float32))
    world = World(1)
    results = neuron(part, world, x, dual=dual, factor_kind="denominator", coefficient=1.0)  # the factor is z itself
    (launch,) = world.run()
    assert launch.kernel.constants[0] == "tf32x3"
    weight = np.maximum(part.weight, 0) if dual else part.weight
    exact = gather(x.astype(np.float64), weight.astype(np.float64), part.taps)
    padded = np.pad(x[0, :, 0], [(0, 0), (1, 1), (1, 1)])
    chain = np.zeros(exact.shape[1:], np.float64)
    for i, j, c in np.ndindex(3, 3, 64):
        products = weight[:, c, 0, i, j, None, None].astype(np.float64) * padded[c, i : i + 4, j : j + 4]
        chain[:, 0] = (chain[:, 0] + products).astype(np.float32)
    found, usual = (np.abs(a - exact[0]).sum() for a in (world.view_of(results["factor"])[0], chain))
    assert found <= 4 * usual


def test_channels_apart_are_refused(rng: np.random.Generator) -> None:
    part, world = geometry(rng, 4, 8, (1, 1, 3), (1, 1, 1)), World(1)
    given = View(world.buffer((4, 1, 1, 3), order=(0, 1, 2, 3)))
    world.lowering.taps("TAPS", part, View(world.buffer((4, 1, 1, 3))), dict(out=View(world.buffer((8, 1, 1, 3)))))
    world.steps[-1].x = given
    with pytest.raises(dtd.BackendError, match=r"the channels of b.* do not lie next to each other"):
        world.run()
