"""A step of the plan as launches: its views become addresses and byte strides, its fields the constants and numbers of
a body.

No decisions and no maths: csrc/README.md says what each operation does with its fields.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...plan.plan import Plan
from ...plan.steps import SIZES, Buffer, Step
from ..kernels import depthwise, elementwise, embedding, normalise, sums
from ..kernels.formulas import SELECTS
from ..kernels.weight_gradient import weight_gradient
from .launch import AddressOf, Launch
from .pools import max_pool, max_scatter, max_unpool
from .site import Site
from .strided import ABSENT, SPACE, C, N, Strided, W, block_sums, coordinate, launches, without

Pieces = np.ndarray[Any, np.dtype[np.int64]]


LONGEST = 2048
"""Bytes of a frame that a warp clears at most."""


def clear_borders(steps: list[Step], plan: Plan, address_of: AddressOf) -> list[Launch]:
    """The frames of several buffers; one launch for those of as many samples."""
    by_samples: dict[int, list[tuple[int, int, Pieces]]] = {}
    for step in steps:
        buffer, site = step.out.buffer.root, Site(step, plan, address_of)
        size, (first, _, sample) = SIZES[buffer.dtype], buffer.strides()
        # a sample's frame starts before its first element
        frame = site.view(step.out).at - size * first, size * sample, size * buffer.shape[0] * _frame(buffer)
        by_samples.setdefault(site.shape(step.out)[0], []).append(frame)
    result = []
    for samples, frames in by_samples.items():
        base = min(at for at, _, _ in frames)
        rows = [
            (at - base + start, sample, min(LONGEST, end - start))
            for at, sample, pieces in frames
            for first, end in pieces.tolist()
            for start in range(first, end, LONGEST)
        ]
        table = Strided(address_of(np.array(rows, np.int64)), (0, 0, 0, 0, 24, 0))
        shape = (samples, 1, 1, 1, len(rows), 1)
        result += launches((elementwise.clear_border,), shape, [table, coordinate(N)], (base,), per_line=True)
    return result


def _frame(buffer: Buffer) -> Pieces:
    """What lies around a channels-last buffer, from the start of its frame: first pixels, and those behind the last."""
    space = list(zip((1,) * (4 - len(buffer.shape)) + buffer.shape[1:], buffer.border, strict=True))
    around = np.ones([before + size + after for size, (before, after) in space], bool)
    around[tuple(slice(before, before + size) for size, (before, _) in space)] = False
    return np.flatnonzero(np.diff(around.ravel(), prepend=False, append=False)).reshape(-1, 2)


def move(site: Site) -> list[Launch]:
    x = site.view(site.step.x) if site.step.bound is None else site.bound()
    return site.elements((elementwise.move,), [site.view(site.step.out), x])


def map_input(site: Site) -> list[Launch]:
    step = site.step
    views = [site.view(step.out), site.view(step.x), site.bound()]
    return site.elements((elementwise.map_input, step.input_map), views)


def map_weight(site: Site) -> list[Launch]:
    step = site.step
    views = [site.view(step.out), site.view(step.x)]
    return site.elements((elementwise.map_weight, step.weight_map), views, (), (step.gamma,))


def multiply(site: Site) -> list[Launch]:
    step = site.step
    m = site.view(step.m, kept=True) if step.bound is None else site.bound()
    views = [site.view(step.out), site.view(step.x), m]
    return site.elements((elementwise.multiply, step.multiplier), views, (), (step.coefficient,))


def divide(site: Site) -> list[Launch]:
    step = site.step
    views = [site.view(step.out), site.view(step.x), site.view(step.m, kept=True)]
    return site.elements((elementwise.divide, step.sign), views)


def activate(site: Site) -> list[Launch]:
    step = site.step
    kind, alpha, beta = step.activation
    views = [site.view(step.out), site.view(step.x), site.bound()]
    function = (elementwise.activate, kind, step.derivative, step.bound is not None)
    return site.elements(function, views, (), (alpha, beta))


def affine(site: Site) -> list[Launch]:
    step = site.step
    views = [site.view(step.out), site.view(step.x), site.per_channel(step.vector), site.per_channel(step.bias)]
    return site.elements((elementwise.affine,), views)


def factor(site: Site) -> list[Launch]:
    step = site.step
    views = [
        site.view(step.factor), site.view(step.terms), site.per_channel(step.bias_d), site.view(step.x),
            site.view(step.m),
        site.per_channel(step.bias), site.window(), site.view(step.terms_prev),
    ]  # fmt: skip
    numbers = (step.coefficient, step.stabilizer)
    return site.elements((elementwise.factor, step.factor_kind), views, (SELECTS[step.select],), numbers)


# --------------------------------------------------------------------------------------------------------------- taps


def _taps(site: Site) -> tuple[Strided, int, int]:
    """x as the taps of a phase walk it; the address of their byte offsets from it, and how many there are."""
    step = site.step
    assert step.x is not None
    assert step.phase is not None
    x = site.view(step.x)
    table = [sum(o * x.strides[a] for o, a in zip(offset, SPACE, strict=True)) for _, offset in step.phase.taps]
    scaled = list(x.strides)
    for a, by in zip(SPACE, step.phase.x_step, strict=True):
        scaled[a] *= by
    address = site.address_of(np.array(table, np.int64)) if table else 0
    return Strided(x.at, tuple(scaled), dtype=x.dtype), address, len(table)


def _weights(site: Site) -> tuple[Strided, int]:
    """Weights [tap][c], and the bytes between two taps."""
    weights = site.step.weights
    if weights is None or not weights.taps:
        return ABSENT, 0
    return Strided(site.address_of(weights), (0, 4, 0, 0, 0, 0)), 4 * site.shape(site.step.out)[C]


def neuron_channel(site: Site) -> list[Launch]:
    step = site.step
    (x, taps, n_taps), (weight, row) = _taps(site), _weights(site)
    kind, alpha, beta = step.activation
    views = [
        site.view(step.out), site.view(step.factor), site.view(step.terms), x, weight, site.view(step.y_prev),
            site.view(step.terms_prev),
        site.window(), site.per_channel(step.bias), site.per_channel(step.bias_d),
    ]  # fmt: skip
    factor_kind = step.factor_kind if step.factor is not None else "none"
    numbers = (step.coefficient, step.stabilizer, alpha, beta)
    body = (depthwise.neuron_channel, kind, factor_kind, step.dual)
    return site.run(body, views, (taps, n_taps, row, SELECTS[step.select]), numbers)


def taps_channel(site: Site) -> list[Launch]:
    step = site.step
    (x, taps, n_taps), (weight, row) = _taps(site), _weights(site)
    views = [site.view(step.out), x, weight, site.view(step.m, kept=True), site.window()]
    body = (depthwise.taps_channel, step.weight_map, step.multiplier)
    return site.run(body, views, (taps, n_taps, row, int(step.accumulate)), (step.gamma,))


# ------------------------------------------------------------------------------------------------------ along an axis


def lrn(site: Site) -> list[Launch]:
    step = site.step
    x = site.view(step.x)
    k, alpha, beta = step.lrn
    longs = (site.shape(step.out)[C], step.size, x.strides[C])
    return site.run((normalise.lrn,), [site.view(step.out), x, coordinate(C)], longs, (alpha, beta, k))


def length(site: Site) -> list[Launch]:
    step = site.step
    assert step.x is not None
    x, channels, blocks = site.view(step.x), site.shape(step.x)[C], site.shape(step.out)[C]
    width, stride = -(-channels // blocks), x.strides[C]
    starts = Strided(x.at, (x.strides[0], width * stride, *x.strides[2:]), dtype=x.dtype)
    return site.run((normalise.length,), [site.view(step.out), starts, coordinate(C)], (channels, width, stride))


def _lines(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return tuple(1 if a == axis else s for a, s in enumerate(shape))


def _along(
    site: Site, body: tuple[Any, ...], axis: int, views: list[Strided], walked: list[Strided],
    more: tuple[int, ...] = (), floats: tuple[float, ...] = (),
) -> list[Launch]:  # fmt: skip
    """A body over the lines of an axis, a warp for each; it gets their length and the stride of each view in `walked`
    along them.
    """
    shape = site.shape(site.step.out)
    longs = (shape[axis], *(view.strides[axis] for view in walked), *more)
    return launches(body, _lines(shape, axis), views, longs, floats, site.step.repeat, per_line=True)


def softmax(site: Site) -> list[Launch]:
    step = site.step
    selector = site.constant(step.selector) if step.other is None else site.view(step.other)
    views = [site.view(step.out), site.view(step.x), selector]
    return _along(site, (normalise.softmax,), step.axis, views, views, (), (step.coefficient,))


def log_softmax(site: Site) -> list[Launch]:
    views = [site.view(site.step.out), site.view(site.step.x)]
    return _along(site, (normalise.log_softmax,), site.step.axis, views, views)


def softmax_back(site: Site) -> list[Launch]:
    step = site.step
    views = [site.view(step.out), site.operand(step.x), site.operand(step.m)]
    return _along(
        site, (normalise.softmax_back,), step.axis, views, views, (int(step.accumulate),), (step.coefficient,)
    )


def norm(site: Site) -> list[Launch]:
    step = site.step
    out, factor, x = site.view(step.out), site.view(step.factor), site.view(step.x)
    w, b = site.constant(step.norm_weight), site.constant(step.norm_bias)
    return _along(site, (normalise.norm, step.centred), C, [out, factor, x, w, b], [out, x, w, b], (), (step.epsilon,))


def norm_products(site: Site) -> list[Launch]:
    """NORM_TAPS, NORM_SCATTER."""
    step = site.step
    out, x, m, w = site.view(step.out), site.operand(step.x), site.operand(step.m), site.constant(step.norm_weight)
    more = (int(step.accumulate),)
    if step.derivative:
        views = [out, x, m, w]
        return _along(site, (normalise.norm_derivative, step.centred), C, views, views, more, (step.epsilon,))
    body = (normalise.norm_products, step.weight_map, step.multiplier, step.centred, step.op == "NORM_SCATTER")
    views = [out, x, site.operand(step.scale), w, m]
    return _along(site, body, C, views, [out, x, w, m], more, (step.gamma,))


def embed(site: Site) -> list[Launch]:
    step = site.step
    assert step.vector is not None
    axis = step.axis
    ids = without(site.view(step.x), axis)
    longs = (site.address_of(step.vector), 4 * site.shape(step.out)[axis])
    return site.run((embedding.embed,), [site.view(step.out), ids, coordinate(axis)], longs)


def embed_sum(site: Site) -> list[Launch]:
    step = site.step
    assert step.x is not None
    axis, shape, x, m = step.axis, site.shape(step.x), site.view(step.x), site.view(step.m, kept=True)
    longs = (shape[axis], x.strides[axis], m.strides[axis], int(step.accumulate))
    return launches((embedding.embed_sum,), _lines(shape, axis), [site.view(step.out), x, m], longs, (), step.repeat)


# --------------------------------------------------------------------------------------------------------------- sums


def _summed(
    site: Site, body: tuple[Any, ...], views: list[Strided], longs: tuple[int, ...] = (), floats: tuple[float, ...] = ()
) -> list[Launch]:
    assert site.step.x is not None
    return block_sums(
        body, site.shape(site.step.x), site.view(site.step.out), site.shape(site.step.out)[W], views, longs, floats
    )


def add_up(site: Site) -> list[Launch]:
    step = site.step
    m = site.view(step.m) if step.bound is None else site.bound()
    return _summed(site, (sums.sums, step.multiplier), [site.view(step.x), m])


def account(site: Site) -> list[Launch]:
    step = site.step
    views = [
        site.view(step.x), site.view(step.m), site.view(step.factor), site.view(step.terms), site.view(step.terms_prev),
        site.view(step.y_prev), site.per_channel(step.bias), site.per_channel(step.bias_d), site.window(),
    ]  # fmt: skip
    numbers = (step.coefficient, step.stabilizer, step.gamma)
    return _summed(site, (sums.account, step.factor_kind), views, (SELECTS[step.select],), numbers)


def gradient_of_weights(site: Site) -> list[Launch]:
    """A thread for each output, group, input of a group and tap."""
    step = site.step
    assert step.x is not None
    assert step.m is not None
    x, table, n_taps = _taps(site)
    m, groups = site.view(step.m), step.groups
    inputs, outputs = site.shape(step.x)[C] // groups, site.shape(step.m)[C] // groups
    row = SIZES["f8"] * outputs * groups
    views = [
        Strided(site.view(step.out).at, (0, 8, 8 * outputs, row, row * inputs, 0), dtype="f8"),
        Strided(x.at, (0, 0, inputs * x.strides[C], x.strides[C], 0, 0), dtype=x.dtype),
        Strided(m.at, (0, m.strides[C], outputs * m.strides[C], 0, 0, 0), dtype=m.dtype),
        Strided(table, (0, 0, 0, 0, 8, 0), dtype="i8"),
    ]
    samples, _, *space, _ = site.shape(step.m)
    longs = (samples, x.strides[0], m.strides[0], *space, *(v.strides[a] for v in (x, m) for a in SPACE))
    return launches((weight_gradient,), (1, outputs, groups, inputs, n_taps, 1), views, longs)


OPERATIONS: dict[str, Callable[[Site], list[Launch]]] = {
    "CLEAR_BORDER": lambda site: clear_borders([site.step], site.plan, site.address_of),
    "MOVE": move,
    "MAP": map_input,
    "NEURON_CHANNEL": neuron_channel,
    "TAPS_CHANNEL": taps_channel,
    "FACTOR": factor,
    "MAP_WEIGHT": map_weight,
    "MULTIPLY": multiply,
    "DIVIDE": divide,
    "ACTIVATE": activate,
    "AFFINE": affine,
    "LRN": lrn,
    "LENGTH": length,
    "SOFTMAX": softmax,
    "LOG_SOFTMAX": log_softmax,
    "SOFTMAX_BACK": softmax_back,
    "NORM": norm,
    "NORM_TAPS": norm_products,
    "NORM_SCATTER": norm_products,
    "MAX_POOL": max_pool,
    "MAX_UNPOOL": max_unpool,
    "MAX_SCATTER": max_scatter,
    "EMBED": embed,
    "EMBED_SUM": embed_sum,
    "SUMS": add_up,
    "ACCOUNT": account,
    "WEIGHT_GRADIENT": gradient_of_weights,
}


def step_launches(step: Step, plan: Plan, address_of: AddressOf) -> list[Launch]:
    """The launches of a step that is no contraction."""
    return OPERATIONS[step.op](Site(step, plan, address_of))
