"""Layer and RMS norms, products with the matrix that each is, and its true derivative, against the float64 reference.

The kernels compute in double and round each result once, so that a float differs from the reference by u|result| and
the errors of sums in double, (n + k)·2⁻⁵³·Σ|terms| (twice: the reference has them too).
"""

from __future__ import annotations

from typing import Any

import numpy as np

import kernel_reference as ref
from kernel_checks import agree, each, each_kernels, operand, same_bits
from kernel_steps import Kernels, Step, lib, place
from support import LONG, over

SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (2, 17, 1, 33), (3, 64, 1, 5), (1, 530, 2, 3), (2, 1537, 1, 1)]
each_shape = each("shape", SHAPES, 2)
each_centring = over("centred", [0, 1])
U = 2.0**-53
GAMMA = 0.25


def column(values: Any, kernels: Kernels) -> Any:
    return 0.0 if values is None else values.astype(kernels.wide)


def mean(values: Any, centred: int) -> Any:
    return values.mean(1, keepdims=True) if centred else np.zeros_like(values[:, :1])


def some_constant(kernels: Kernels, rng: np.random.Generator, shape: Any) -> Any:
    """A constant of the channels, or of the positions too, with some zeros, repeated over samples; or None."""
    kind = int(rng.integers(4))
    if kind == 0:
        return None
    values = kernels.normal(rng, 1, shape[1], 1, *(shape[2:] if kind == 1 else (1, 1)), 1)
    values.reshape(-1)[::4] = 0
    return np.broadcast_to(place(values, gap=int(rng.integers(2))), (shape[0], shape[1], 1, *shape[2:], 1))


@each_shape
@each_centring
@over("seed", range(4))
def test_norm(kernels: Kernels, shape: Any, centred: int, seed: int) -> None:
    rng = np.random.default_rng([seed, *shape])
    x, out = operand(kernels, rng, shape), operand(kernels, rng, shape)
    x += kernels.dtype(seed)
    w, b = some_constant(kernels, rng, shape), some_constant(kernels, rng, shape)
    factor = place(kernels.zeros(shape[0], 1, 1, *shape[2:], 1)) if seed % 2 else None
    epsilon = 1e-3
    arrays = {"x": x, "out": out, "other": w, "shift": b, "factor": factor}
    Step("NORM", arrays, {"epsilon": epsilon, "centred": centred}).run(kernels, 1 + seed % 2)

    n, values, weight = shape[1], x.astype(kernels.wide), 1.0 if w is None else w.astype(kernels.wide)
    rest = values - mean(values, centred)
    rho = 1 / np.sqrt((rest**2).mean(1, keepdims=True) + kernels.wide(epsilon))
    scaled = rest * rho * weight
    expected = scaled + column(b, kernels)
    # the mean errs by n U mean|x|, rho by half as much as the mean of n squares does
    shift = np.abs(rho * weight) * np.abs(values).mean(1, keepdims=True) * centred
    error = 2 * (n + 12) * U * (shift + np.abs(scaled) + np.abs(column(b, kernels)))
    agree(out, expected, kernels.u * np.abs(expected) + error)
    if factor is not None:
        agree(factor, rho, kernels.u * rho + (n + 12) * U * rho)


@ref.remembered
def by_matrix(x: Any, rho: Any, w: Any, centred: int, weight_map: str, scatter: bool, wide: Any) -> tuple[Any, Any]:
    """Sums of x·wm(m_ij) over i, or over j, and what bounds each of their terms; axes of the matrices:
    (n, i, j, d, h, w, extra).
    """
    channels, values = x.shape[1], x.astype(wide)
    unit = np.eye(channels, dtype=wide)[None, :, :, None, None, None, None]
    weight = wide(1) if w is None else w.astype(wide)[:, None]
    m = (unit - centred / wide(channels)) * rho.astype(wide)[:, None] * weight
    wm = ref.WEIGHT_MAPS[weight_map](m, wide(GAMMA))
    wm = wm if centred else wm * unit
    total = np.einsum("nijdhwe,njdhwe->nidhwe" if scatter else "nijdhwe,nidhwe->njdhwe", wm, values)
    if not centred:
        return total, np.abs(total)
    # what is beside the diagonal stands in every term of its sum
    return total, (np.abs(values) * np.abs(wm).max((1, 2))[:, None]).sum(1, keepdims=True)


TAPS = [(1, 530, 1, 2) if shape[1] == 530 else shape for shape in SHAPES if shape[1] < 600]  # matrices of few lines
SCATTERS = [(*shape[:3], 1) if shape[1] == 530 else shape for shape in TAPS]  # `repeat` makes them more


@each("shape", TAPS, 2)
@each_centring
@over("weight_map", ref.WEIGHT_MAPS)
def test_norm_taps(kernels: Kernels, shape: Any, centred: int, weight_map: str) -> None:
    rng = np.random.default_rng([*shape, centred])
    x, out = operand(kernels, rng, shape, zeros=True), operand(kernels, rng, shape)
    scale = place(kernels.uniform(rng, shape[0], 1, 1, *shape[2:], 1) + kernels.dtype(0.5))
    w = some_constant(kernels, rng, shape)
    total, size = by_matrix(x, scale, w, centred, weight_map, False, kernels.wide)
    for accumulate in (0, 1):
        start = accumulate * out.astype(kernels.wide)
        numbers = {
            "weight_map": getattr(lib, f"DTD_{weight_map}"), "gamma": GAMMA, "centred": centred,
            "accumulate": accumulate,
        }  # fmt: skip
        Step("NORM_TAPS", {"x": x, "out": out, "scale": scale, "other": w}, numbers).run(kernels)
        error = 2 * (shape[1] + 12) * U * size + accumulate * kernels.u * np.abs(start + total)
        agree(out, start + total, kernels.u * np.abs(total) * (1 + kernels.u) + error)


@each("shape", SCATTERS, 2)
@each_centring
@over("weight_map", ref.WEIGHT_MAPS)
def test_norm_scatter(kernels: Kernels, shape: Any, centred: int, weight_map: str) -> None:
    """Each map by half of the multipliers; by all with DTDFAST_LONG=1."""
    first = list(ref.WEIGHT_MAPS).index(weight_map)
    for seed, multiplier in enumerate(ref.MULTIPLIERS):
        if (first + seed // 2) % 2 and not LONG:
            continue
        repeat = 1 + seed % 3
        rng = np.random.default_rng([*shape, centred, repeat])  # one reference for several multipliers
        many = (shape[0] * repeat, *shape[1:])
        x, out, m = (operand(kernels, rng, s, zeros=True) for s in (many, many, shape))
        scale = place(kernels.uniform(rng, shape[0], 1, 1, *shape[2:], 1) + kernels.dtype(0.5))
        w = some_constant(kernels, rng, shape)
        by = ref.MULTIPLIERS[multiplier](np.repeat(m.astype(kernels.wide), repeat, 0))
        repeated = None if w is None else np.repeat(w, repeat, 0)
        total, size = by_matrix(x, np.repeat(scale, repeat, 0), repeated, centred, weight_map, True, kernels.wide)
        accumulate = seed % 2
        start = accumulate * out.astype(kernels.wide)
        numbers = {
            "weight_map": getattr(lib, f"DTD_{weight_map}"), "gamma": GAMMA, "centred": centred, "repeat": repeat,
            "multiplier": getattr(lib, f"DTD_{multiplier}"), "accumulate": accumulate,
        }  # fmt: skip
        arrays = {"x": x, "out": out, "scale": scale, "other": w, "m": m if multiplier != "M_NONE" else None}
        Step("NORM_SCATTER", arrays, numbers).run(kernels)
        error = np.abs(by) * 2 * (shape[1] + 12) * U * size
        agree(out, start + by * total, 3 * kernels.u * (np.abs(start) + np.abs(by * total)) + error)


@each_kernels
@over("op", ["NORM_TAPS", "NORM_SCATTER"])
@over("channels", [3, 40, 530])
def test_a_large_number_hides_no_others(kernels: Kernels, op: str, channels: int) -> None:
    """With w = −1 and clamped weights nothing is on the diagonal: where x is large, the others alone are summed."""
    rng = np.random.default_rng(channels)
    x, scale = place(kernels.uniform(rng, 1, channels, 1, 1, 1, 1)), place(kernels.uniform(rng, 1, 1, 1, 1, 1, 1))
    large = channels // 2
    x[0, large] = 1 / np.sqrt(kernels.u)
    w, out = place(-np.ones_like(x)), place(kernels.zeros(*x.shape))
    numbers = {"weight_map": lib.DTD_W_POSITIVE, "centred": 1, "multiplier": lib.DTD_M_NONE}
    Step(op, {"x": x, "out": out, "scale": scale, "other": w}, numbers).run(kernels)
    terms = np.delete(x.astype(kernels.wide).ravel(), large) * scale.astype(kernels.wide).ravel() / channels
    assert abs(out.ravel()[large] - terms.sum()) <= ((channels + 12) * U + kernels.u) * terms.sum()


@each("shape", [(2, 3, 2, 2), (1, 17, 1, 3), (1, 65, 1, 2), (1, 1, 1, 1)], 1)
@each_centring
@over("seed", range(3))
def test_norm_derivative(kernels: Kernels, shape: Any, centred: int, seed: int) -> None:
    """The cotangent times the norm's Jacobian, by complex steps through the norm as it is defined."""
    rng = np.random.default_rng([*shape, seed])
    n, repeat, epsilon = shape[1], 2, 1e-2
    many = (shape[0] * repeat, *shape[1:])
    x, out, m = operand(kernels, rng, many), operand(kernels, rng, many), operand(kernels, rng, shape)
    w = some_constant(kernels, rng, shape)
    start = out.astype(kernels.wide)
    numbers = {"derivative": 1, "epsilon": epsilon, "centred": centred, "repeat": repeat, "accumulate": 1}
    Step("NORM_SCATTER", {"x": x, "out": out, "other": w, "m": m}, numbers).run(kernels, 2)

    point, weight = (
        np.repeat(v, repeat, 0) for v in (m.astype(kernels.wide), np.broadcast_to(1 if w is None else w, m.shape))
    )
    step = kernels.wide(2.0**-200)

    def norm(values: Any) -> Any:
        rest = values - mean(values, centred)
        return rest / np.sqrt((rest * rest).mean(1, keepdims=True) + kernels.wide(epsilon)) * weight

    total = np.zeros_like(start)
    for i in range(n):
        moved = point.astype(np.result_type(kernels.wide, np.complex64))
        moved[:, i] += 1j * step
        total[:, i] = (x * (norm(moved).imag / step)).sum(1)
    rest = point - mean(point, centred)
    rho = 1 / np.sqrt((rest**2).mean(1, keepdims=True) + epsilon)
    g, hat = np.abs(weight * x), rho * (np.abs(rest) + np.abs(point).mean(1, keepdims=True))
    size = rho * (g + g.mean(1, keepdims=True) + hat * (g * hat).mean(1, keepdims=True))
    error = 4 * (n + 12) * U * size
    agree(out, start + total, 2 * kernels.u * (np.abs(total) + np.abs(start)) + error)


@each_kernels
def test_bits_do_not_depend_on_threads_batch_or_layout(kernels: Kernels) -> None:
    rng = np.random.default_rng(5)
    shape = (4, 530, 1, 1, 33, 1)
    x, m = kernels.normal(rng, *shape), kernels.normal(rng, *shape)
    scale = place(kernels.uniform(rng, 4, 1, 1, 1, 33, 1))
    w = np.broadcast_to(place(kernels.normal(rng, 1, 530, 1, 1, 1, 1)), shape)
    steps = {
        "NORM": ({"other": w, "shift": w}, {"epsilon": 1e-5, "centred": 1}),
        "NORM_TAPS": ({"scale": scale, "other": w}, {"centred": 1, "weight_map": lib.DTD_W_POSITIVE}),
        "NORM_SCATTER": ({"scale": scale, "other": w}, {"centred": 1, "weight_map": lib.DTD_W_NEGATIVE}),
        "NORM_SCATTER derivative": ({"m": m, "other": w}, {"centred": 1, "epsilon": 1e-5, "derivative": 1}),
    }
    for name, (arrays, numbers) in steps.items():

        def run(x: Any, arrays: Any, n_threads: int, order: Any) -> Any:
            placed = {k: place(a, order=order) if k == "m" else a for k, a in arrays.items()}
            out = place(np.zeros_like(x), order=order)
            step = Step(name.split()[0], {"x": place(x, order=order), "out": out, **placed}, numbers)  # noqa: B023
            step.run(kernels, n_threads)
            return out

        last, first = (0, 2, 3, 4, 5, 1), (0, 1, 2, 3, 4, 5)
        expected = run(x, arrays, 1, last)
        for n_threads in (2, 3):
            assert same_bits(run(x, arrays, n_threads, last), expected)
        assert same_bits(run(x, arrays, 2, first), expected)
        alone = {k: a[2:3] for k, a in arrays.items()}
        assert same_bits(run(x[2:3], alone, 1, last), expected[2:3])
