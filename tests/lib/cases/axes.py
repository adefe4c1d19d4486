"""Records that work along any axes: of each case the shape of a sample, the layers, and the same function in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

import dtdfast as dtd

INPUT = dtd.INPUT
RNG = np.random.default_rng(16)


def weight(*shape: int) -> Any:
    return RNG.standard_normal(shape) / np.sqrt(shape[-1])


def linear(x: Any, w: Any, axis: int) -> Any:
    return np.moveaxis(np.moveaxis(x, axis, -1) @ w.T, -1, axis)


def resampled(x: Any, weights: Any) -> Any:
    for axis, w in enumerate(weights, 2):
        x = x if w is None else linear(x, w, axis)
    return x


CASES: dict[str, tuple[tuple[int, ...], list[Any], Any]] = {}  # name → shape of a sample, layers, the same in NumPy


def case(name: str, shape: tuple[int, ...], layers: list[Any], function: Any) -> None:
    CASES[name] = shape, layers, function


def _linear(shape: tuple[int, ...], axis: int) -> None:
    w, square, last, each = weight(7, 6), weight(6, 6), weight(3, 7), np.arange(1.0, shape[0] + 1)
    place = axis - 1 if axis > 0 else len(shape) - 1
    vary = w[:, 0].reshape([7 if a == place else 1 for a in range(len(shape))])
    column = each.reshape(-1, *[1] * (len(shape) - 1))
    one = np.ones([1] * len(shape))
    name = f"{shape} {axis}"
    layers = [dtd.Linear(w, w[:, 0], axis), dtd.ReLU(), dtd.Linear(last, axis=axis)]
    case(f"linear {name}", shape, layers, lambda x: linear(np.maximum(linear(x, w, axis) + vary, 0), last, axis))
    layers = [dtd.Linear(square, axis=axis), dtd.Add(inputs=(0, INPUT)), dtd.ReLU()]
    case(f"linear and add {name}", shape, layers, lambda x: np.maximum(linear(x, square, axis) + x, 0))
    case(
        f"affine and linear {name}",
        shape,
        [dtd.Scale(each), dtd.Linear(w, axis=axis)],
        lambda x: linear(x * column, w, axis),
    )
    case(
        f"linear and affine {name}",
        shape,
        [dtd.Linear(w, axis=axis), dtd.Scale(vary, one)],
        lambda x: linear(x, w, axis) * vary + 1,
    )


for shape, axis in [
    ((5, 6), -1), ((6, 5), 1), ((3, 6, 4), 2), ((2, 3, 4, 6), 4), ((6, 2, 3, 4), 1), ((2, 2, 3, 2, 6), -1), ((6, 2, 1,
    2, 2), 1),
]:  # fmt: skip
    _linear(shape, axis)


def _reduce(kind: str, shape: tuple[int, ...], axes: Any, keepdims: bool) -> None:
    whole = getattr(np, kind)
    layers = [dtd.Reduce(kind, axes, keepdims)]
    case(f"{kind} {shape} {axes}", shape, layers, lambda x: whole(x, axis=axes, keepdims=keepdims))


for kind in ("mean", "sum", "max"):
    for shape, axes, keepdims in [
        ((5,), 1, True), ((5, 4), -1, False), ((3, 4, 5), (2, 3), False), ((3, 4, 5), (1, 3), True), ((3, 4, 5), 2,
        True),
        ((3, 4, 2, 5), (2, -1), False), ((2, 3, 2, 3, 2), (1, 5), False), ((2, 3, 2, 3, 2), 3, True),
    ]:  # fmt: skip
        _reduce(kind, shape, axes, keepdims)


def _gather(shape: tuple[int, ...], axis: int, picks: Any) -> None:
    case(
        f"gather {shape} {axis} {len(picks)}",
        shape,
        [dtd.Gather(np.asarray(picks), axis)],
        lambda x: np.take(x, picks, axis=axis),
    )


for shape, axis, picks in [
    ((5,), 1, [2]), ((5, 4), -1, [3, 2, 1, 0]), ((3, 6, 5), 2, [4, 5, 0, 1, 2, 3]), ((3, 6, 5), 1, [0, 0, 2, 2, -1]),
    ((40, 3, 4), 1, RNG.permutation(40)), ((40,), 1, RNG.permutation(40)), ((2, 40, 3), 2, RNG.integers(-40, 40, 60)),
    ((2, 3, 40, 2, 2), 3, RNG.permutation(40)), ((2, 1, 4, 2, 9), 5, [8, 6, 4, 2, 0]),
]:  # fmt: skip
    _gather(shape, axis, picks)


def _expand(shape: tuple[int, ...], big: tuple[int, ...]) -> None:
    case(f"expand {shape}", shape, [dtd.Expand(big)], lambda x: np.broadcast_to(x, (len(x), *big)))


for shape, big in [
    ((1,), (5,)), ((3, 1), (3, 5)), ((1, 4), (3, 4)), ((1, 1, 1), (3, 4, 5)), ((3, 1, 1), (3, 4, 5)), ((1, 4, 5), (3,
    4, 5)),
    ((3, 1, 5), (3, 4, 5)), ((2, 1, 2, 1, 3), (2, 2, 2, 4, 3)), ((1, 2, 1, 2, 1), (3, 2, 3, 2, 3)), ((3, 4), (3, 4)),
]:  # fmt: skip
    _expand(shape, big)


def _resample(shape: tuple[int, ...], sizes: tuple[int | None, ...]) -> None:
    matrices = tuple(None if o is None else weight(o, s) for o, s in zip(sizes, shape[1:], strict=True))
    case(f"resample {shape} {sizes}", shape, [dtd.Resample(matrices)], lambda x: resampled(x, matrices))


for shape, sizes in [((3, 5), (7,)), ((3, 4, 5), (7, 3)), ((3, 4, 5), (None, 9)), ((2, 3, 4, 5), (2, None, 3))]:
    _resample(shape, sizes)


def _constant(shape: tuple[int, ...], part: tuple[int, ...]) -> None:
    c = weight(*part)
    case(f"add constant {shape} {part}", shape, [dtd.Constant(c), dtd.Add(inputs=(INPUT, 0))], lambda x: x + c)
    case(f"times constant {shape} {part}", shape, [dtd.Constant(c), dtd.Mul(inputs=(0, INPUT))], lambda x: x * c)
    if len(part) == len(shape) and np.broadcast_shapes(part, shape) == shape:
        case(f"scale {shape} {part}", shape, [dtd.Scale(c, -c)], lambda x: x * c - c)


for shape, part in [
    ((5,), (5,)), ((5,), (1,)), ((3, 4), (4,)), ((3, 4), (3, 1)), ((3, 4, 5), (4, 1)), ((3, 4, 5), (3, 4, 5)), ((1, 4,
    5), (3, 1, 1)),
    ((2, 1, 2, 2, 3), (2, 1, 3)),
]:  # fmt: skip
    _constant(shape, part)

TOKEN = np.arange(4.0).reshape(4, 1) - 1
case(
    "a constant beside", (4, 3), [dtd.Constant(TOKEN), dtd.Concat(2, inputs=(0, INPUT)), dtd.ReLU()],
    lambda x: np.maximum(np.concatenate([np.broadcast_to(TOKEN, (len(x), 4, 1)), x], 2), 0),
)  # fmt: skip
VALUE, ADVANTAGE = weight(1, 6), weight(5, 6)
case(
    "dueling heads", (6,),
    [dtd.Linear(VALUE), dtd.Linear(ADVANTAGE, inputs=INPUT), dtd.Reduce("mean", 1, True), dtd.Scale([-1.0]),
    dtd.Add(inputs=(0, 1, 3))],
    lambda x: x @ VALUE.T + x @ ADVANTAGE.T - (x @ ADVANTAGE.T).mean(1, keepdims=True),
)  # fmt: skip
MAXOUT = weight(8, 6)
case(
    "maxout", (6,), [dtd.Linear(MAXOUT), dtd.Reshape((4, 2)), dtd.Reduce("max", -1)],
    lambda x: (x @ MAXOUT.T).reshape(-1, 4, 2).max(-1),
)  # fmt: skip
case(
    "maximum of two", (2, 3),
    [dtd.Scale([2.0, -1.0]), dtd.Reshape((1, 2, 3)), dtd.Reshape((1, 2, 3), inputs=INPUT), dtd.Concat(1, inputs=(1, 2)),
     dtd.Reduce("max", 1)],
    lambda x: np.maximum(x * np.array([[2.0], [-1.0]]), x),
)  # fmt: skip
case(
    "adaptive maximum", (2, 5), [dtd.Gather((0, 1, 1, 2, 3, 4), 2), dtd.MaxPool(2)],
    lambda x: np.stack([x[..., :2].max(-1), x[..., 1:3].max(-1), x[..., 3:].max(-1)], -1),
)  # fmt: skip
case(
    "gate and signal repeated", (4, 3, 3),
    [dtd.Activation("sigmoid"), dtd.Reduce("mean", (1, 3), True, inputs=INPUT), dtd.Mul(inputs=(0, 1))],
    lambda x: x.mean((1, 3), keepdims=True) / (1 + np.exp(-x)),
)  # fmt: skip
