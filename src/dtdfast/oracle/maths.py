"""The oracle's own maths: rule maps, activations and tap loops in NumPy float64, shared with nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import erfc, factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from ..plan.domain import widthless
from ..plan.taps import Taps, Triple
from ..plan.tensors import Box

Array = NDArray[Any]

# ---------------------------------------------------------------------------------------------------------- rule maps

WEIGHT_MAPS: dict[str, Callable[[Array, float], Array]] = {
    "w": lambda w, gamma: w,
    "w+": lambda w, gamma: np.where(w < 0, 0, w),
    "w-": lambda w, gamma: np.where(w > 0, 0, w),
    "w2": lambda w, gamma: w * w,
    "1": lambda w, gamma: np.ones_like(w),
    "|w|": lambda w, gamma: np.abs(w),
    "w+g.w+": lambda w, gamma: w + gamma * np.where(w < 0, 0, w),
    "w+g.w-": lambda w, gamma: w + gamma * np.where(w > 0, 0, w),
}


def _above(x: Array, box: Box | None) -> Array:
    """x − low; x⁺ where there is no lower bound."""
    assert box is not None
    low = box[0]
    mapped = np.where(np.isinf(low), np.where(x < 0, 0, x), x - np.where(np.isinf(low), 0, low))
    return np.where(widthless(box), 0, mapped)  # what cannot vary contributes nothing


def _below(x: Array, box: Box | None) -> Array:
    """x − high; x⁻ where there is no upper bound."""
    assert box is not None
    high = box[1]
    mapped = np.where(np.isinf(high), np.where(x > 0, 0, x), x - np.where(np.isinf(high), 0, high))
    return np.where(widthless(box), 0, mapped)


INPUT_MAPS: dict[str, Callable[[Array, Box | None], Array]] = {
    "x": lambda x, box: x,
    "x+": lambda x, box: np.where(x < 0, 0, x),
    "x-": lambda x, box: np.where(x > 0, 0, x),
    "1": lambda x, box: np.ones_like(x),
    "|x|": lambda x, box: np.abs(x),
    "x-low": _above,
    "x-high": _below,
}


# -------------------------------------------------------------------------------------------------------- activations


SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # arXiv:1706.02515


def _sigmoid(x: Array) -> Any:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _softplus(x: Array) -> Any:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _flat(x: Array, a: float) -> Any:
    """The flat piece of a shrink: |x| <= a."""
    return np.abs(x) <= a


def _tanh_shrink(x: Array) -> Any:
    """x − tanh x = (x cosh x − sinh x)/cosh x; the numerator's series Σ 2k/(2k+1)!·x^(2k+1) has one sign.  |x| ≤ 1."""
    terms = [2 * k / factorial(2 * k + 1) for k in range(1, 12)]
    return x**3 * np.polyval(terms[::-1], x * x) / np.cosh(x)


def activate(record: L.ReLU | L.Activation | None, x: Array) -> Any:
    """act(x); x (n, *shape), channels on axis 1."""
    if record is None:
        return x
    if isinstance(record, L.ReLU):
        return np.where(x < 0, 0, x)
    a, b = record.alpha or 0.0, record.beta or 0.0
    match record.kind:
        case "leaky_relu":
            return np.where(x < 0, a * x, x)
        case "prelu":
            return np.where(x < 0, record.slopes_for(x.ndim - 1) * x, x)
        case "clip":
            return np.where(x < a, a, np.where(x > b, b, x))
        case "threshold":
            return np.where(x <= a, b, x)
        case "hard_shrink":
            return np.where(_flat(x, a), 0, x)
        case "soft_shrink":
            return x - np.clip(x, -a, a)
        case "tanh_shrink":
            return np.where(np.abs(x) < 1, _tanh_shrink(np.clip(x, -1, 1)), x - np.tanh(x))
        case "elu":
            return np.where(x < 0, a * np.expm1(np.minimum(x, 0)), x)
        case "selu":
            return SELU_SCALE * np.where(x < 0, SELU_ALPHA * np.expm1(np.minimum(x, 0)), x)
        case "celu":
            return np.where(x < 0, a * np.expm1(np.minimum(x, 0) / a), x)
        case "silu":
            return x * _sigmoid(a * x)
        case "gelu":
            # 1 + erf cancels in the tail, where the sign still counts
            return 0.5 * x * np.vectorize(erfc)(-x / np.sqrt(2))
        case "gelu_tanh":
            return x * _sigmoid(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
        case "mish":
            return x * np.tanh(_softplus(x))
        case "sigmoid":
            return _sigmoid(x)
        case "hard_sigmoid":
            return np.clip(a * x + b, 0, 1)
        case "log_sigmoid":
            return -_softplus(-x)
        case "hard_swish":
            return x * np.clip((x + 3) / 6, 0, 1)
        case "tanh":
            return np.tanh(x)
        case "softplus":
            return _softplus(a * x) / a
        case "softsign":
            return x / (1 + np.abs(x))
    raise NotImplementedError(f"the oracle does not know the activation {record.kind!r}")


def derivative(record: L.ReLU | L.Activation | None, x: Array) -> Any:
    """act'(x); at a kink the derivative from the left (ReLU'(0) = 0), at the ends of a clip, shrink or threshold 0."""
    if record is None:
        return np.ones_like(x)
    if isinstance(record, L.ReLU):
        return (x > 0).astype(np.float64)
    a, b = record.alpha or 0.0, record.beta or 0.0
    match record.kind:
        case "leaky_relu":
            return np.where(x > 0, 1.0, a)
        case "prelu":
            return np.where(x > 0, 1.0, record.slopes_for(x.ndim - 1))
        case "clip":
            return ((x > a) & (x < b)).astype(np.float64)
        case "threshold":
            return (x > a).astype(np.float64)
        case "hard_shrink" | "soft_shrink":
            return (~_flat(x, a)).astype(np.float64)
        case "tanh_shrink":
            return np.tanh(x) ** 2
        case "elu":
            return np.where(x > 0, 1.0, a * np.exp(np.minimum(x, 0)))
        case "selu":
            return SELU_SCALE * np.where(x > 0, 1.0, SELU_ALPHA * np.exp(np.minimum(x, 0)))
        case "celu":
            return np.where(x > 0, 1.0, np.exp(np.minimum(x, 0) / a))
        case "silu":
            return _sigmoid(a * x) * (1 + a * x * _sigmoid(-a * x))
        case "gelu":
            return 0.5 * np.vectorize(erfc)(-x / np.sqrt(2)) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
        case "gelu_tanh":
            k, x = 2 * np.sqrt(2 / np.pi), np.clip(x, -32, 32)  # 0 and 1 beyond
            u = k * (x + 0.044715 * x**3)
            return _sigmoid(u) * (1 + x * _sigmoid(-u) * k * (1 + 3 * 0.044715 * x * x))
        case "mish":
            t = np.tanh(_softplus(x))
            return t + x * np.cosh(np.minimum(_softplus(x), 700)) ** -2.0 * _sigmoid(x)
        case "sigmoid":
            return _sigmoid(x) * _sigmoid(-x)
        case "hard_sigmoid":
            return np.where((a * x + b > 0) & (a * x + b < 1), a, 0.0)
        case "log_sigmoid":
            return _sigmoid(-x)
        case "hard_swish":
            return np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, (2 * x + 3) / 6))
        case "tanh":
            return 4 * _sigmoid(2 * x) * _sigmoid(-2 * x)  # 1 − tanh² cancels
        case "softplus":
            return _sigmoid(a * x)
        case "softsign":
            return (1 + np.abs(x)) ** -2.0
    raise NotImplementedError(f"the oracle does not know the derivative of {record.kind!r}")


# --------------------------------------------------------------------------------------------------------------- taps


def canvas(size: Triple, taps: Taps, other: Triple) -> list[int]:
    """Size of a padded array in which every tap of every position stays inside."""
    return [
        max(size[a] + taps.before[a], (other[a] - 1) * taps.stride[a] + (taps.kernel[a] - 1) * taps.dilation[a] + 1)
        for a in range(3)
    ]


def interior(taps: Taps, size: Triple) -> Any:
    """Index of the unpadded part of such an array."""
    return (..., *(slice(b, b + s) for b, s in zip(taps.before, size, strict=True)))


def tap_slices(taps: Taps, count: Triple) -> Iterator[tuple[Any, Any]]:
    """For every tap: its index in a kernel, and that of the places it meets in the padded array, for all `count`
    positions.
    """
    for tap in np.ndindex(*taps.kernel):
        first = tuple(t * dil for t, dil in zip(tap, taps.dilation, strict=True))
        yield (
            (..., *tap),
            (..., *(slice(f, f + s * (c - 1) + 1, s) for f, s, c in zip(first, taps.stride, count, strict=True))),
        )


def _product(x: Array, w: Array, groups: int) -> Any:
    """out[n,g,o,p] = Σ_c x[n,g,c,p] w[g,o,c] for one tap; x (n, c_in, d, h, w), w (c_out, c_in/groups)."""
    n, _, *space = x.shape
    if groups == x.shape[1] == w.shape[0]:
        return x * w[:, 0].reshape(-1, 1, 1, 1)
    grouped = w.reshape(groups, -1, w.shape[1])
    return (grouped @ x.reshape(n, groups, w.shape[1], -1)).reshape(n, w.shape[0], *space)


def _gather_taps(x: Array, w: Array, taps: Taps, out_size: Triple) -> Array:
    """out[p] = Σ_k w[k] x[p·stride − before + k·dilation]."""
    size = canvas(x.shape[2:], taps, out_size)
    padded = np.zeros((*x.shape[:2], *size))
    inner = interior(taps, x.shape[2:])
    padded[inner] = x
    out = np.zeros((x.shape[0], w.shape[0], *out_size))
    for k, places in tap_slices(taps, out_size):
        out += _product(padded[places], w[k], taps.groups)
    return out


def _scatter_taps(x: Array, w: Array, taps: Taps, out_size: Triple) -> Any:
    """out[q·stride − before + k·dilation] += w[k] x[q]: the adjoint of `_gather_taps` when w is transposed."""
    size = canvas(out_size, taps, x.shape[2:])
    padded = np.zeros((x.shape[0], w.shape[0], *size))
    for k, places in tap_slices(taps, x.shape[2:]):
        padded[places] += _product(x, w[k], taps.groups)
    inner = interior(taps, out_size)
    return padded[inner]


def gather(x: Array, w: Array, taps: Taps) -> Any:
    """z[n,j] = Σ_i x[n,i] w[j,i]; x (n, c_in, d, h, w), w (c_out, c_in/groups, *kernel)."""
    return (_scatter_taps if taps.transposed else _gather_taps)(x, w, taps, taps.out_size)


def scatter(s: Array, w: Array, taps: Taps) -> Array:
    """r[n,i] = Σ_j w[j,i] s[n,j], the adjoint of gather."""
    c_out, c_group = w.shape[:2]
    grouped = w.reshape(taps.groups, c_out // taps.groups, c_group, *taps.kernel)
    transposed = np.swapaxes(grouped, 1, 2).reshape(taps.c_in, c_out // taps.groups, *taps.kernel)
    return (_gather_taps if taps.transposed else _scatter_taps)(s, transposed, taps, taps.x_size)
