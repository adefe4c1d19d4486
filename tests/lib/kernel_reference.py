"""What the kernels compute, in NumPy at the precision of the operands given: plain loops over taps, no code of the
package.

Every function returns its values together with the sum of the absolute values of the terms they are made of, in which
rounding errors are bounded.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Triple = tuple[int, int, int]

WEIGHT_MAPS: dict[str, Callable[[Array, float], Array]] = {
    "W": lambda w, g: w,
    "W_POSITIVE": lambda w, g: np.maximum(w, 0),
    "W_NEGATIVE": lambda w, g: np.minimum(w, 0),
    "W_SQUARE": lambda w, g: w * w,
    "W_ONE": lambda w, g: np.ones_like(w),
    "W_ABS": lambda w, g: np.abs(w),
    "W_GAMMA_POSITIVE": lambda w, g: w + g * np.maximum(w, 0),
    "W_GAMMA_NEGATIVE": lambda w, g: w + g * np.minimum(w, 0),
}

INPUT_MAPS: dict[str, Callable[[Array, Array], Array]] = {
    "X_POSITIVE": lambda x, m: np.maximum(x, 0),
    "X_NEGATIVE": lambda x, m: np.minimum(x, 0),
    "X_ABOVE_LOW": lambda x, m: np.where(m == -np.inf, np.maximum(x, 0), x - np.where(np.isinf(m), x, m)),
    "X_BELOW_HIGH": lambda x, m: np.where(m == np.inf, np.minimum(x, 0), x - np.where(np.isinf(m), x, m)),
    "X_ONE": lambda x, m: np.ones_like(x),
    "X_ABS": lambda x, m: np.abs(x),
}

MULTIPLIERS: dict[str, Callable[[Array], Array]] = {
    "M_NONE": lambda m: np.ones_like(m),
    "M_TIMES": lambda m: m,
    "M_POSITIVE": lambda m: np.where(np.isnan(m), m, m > 0),
    "M_NEGATIVE": lambda m: np.where(np.isnan(m), m, m < 0),
    "M_TIMES_POSITIVE": lambda m: np.maximum(m, 0),
    "M_TIMES_NEGATIVE": lambda m: np.minimum(m, 0),
    "M_SIGN": lambda m: np.where(m < 0, -1, 1).astype(m.dtype),
    "M_ABSOLUTE": np.abs,
}

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _hard(x: Array, a: float, b: float) -> Array:
    return np.clip(a * x + b, 0, 1)


def _inside(x: Array, low: float, high: float) -> Array:
    return ((x > low) & (x < high)) * 1.0


_TANH = math.sqrt(2 / math.pi)
_SELU = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946  # alpha and scale of arXiv:1706.02515

# kind -> (function, derivative), both of (x, alpha, beta)
ACTIVATIONS: dict[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "IDENTITY": (lambda x, a, b: x, lambda x, a, b: np.ones_like(x)),
    "RELU": (lambda x, a, b: np.maximum(x, 0), lambda x, a, b: (x > 0) * 1.0),
    "LEAKY_RELU": (lambda x, a, b: np.where(x > 0, x, a * x), lambda x, a, b: np.where(x > 0, 1, a)),
    "CLIP": (lambda x, a, b: np.clip(x, a, b), lambda x, a, b: _inside(x, a, b)),
    "THRESHOLD": (lambda x, a, b: np.where(x > a, x, b), lambda x, a, b: (x > a) * 1.0),
    "HARD_SHRINK": (lambda x, a, b: np.where(abs(x) > a, x, 0), lambda x, a, b: (abs(x) > a) * 1.0),
    "SOFT_SHRINK": (lambda x, a, b: np.sign(x) * np.maximum(abs(x) - a, 0), lambda x, a, b: (abs(x) > a) * 1.0),
    "TANH_SHRINK": (lambda x, a, b: x - np.tanh(x), lambda x, a, b: np.tanh(x) ** 2),
    "ELU": (lambda x, a, b: np.where(x > 0, x, a * np.expm1(x)), lambda x, a, b: np.where(x > 0, 1, a * np.exp(x))),
    "SELU": (
        lambda x, a, b: _SELU[1] * np.where(x > 0, x, _SELU[0] * np.expm1(x)),
        lambda x, a, b: _SELU[1] * np.where(x > 0, 1, _SELU[0] * np.exp(x)),
    ),
    "CELU": (
        lambda x, a, b: np.maximum(x, 0) + np.minimum(a * np.expm1(np.minimum(x, 0) / a), 0),
        lambda x, a, b: np.where(x > 0, 1, np.exp(np.minimum(x, 0) / a)),
    ),
    "SILU": (lambda x, a, b: x * _sigmoid(a * x), lambda x, a, b: _sigmoid(a * x) * (1 + a * x * _sigmoid(-a * x))),
    "GELU": (
        lambda x, a, b: x / 2 * _erfc(-x / math.sqrt(2)),
        lambda x, a, b: _erfc(-x / math.sqrt(2)) / 2 + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    ),
    "GELU_TANH": (
        lambda x, a, b: x / 2 * (1 + np.tanh(_TANH * (x + 0.044715 * x**3))),
        lambda x, a, b: (
            (1 + np.tanh(_TANH * (x + 0.044715 * x**3))) / 2
            + x / 2 * (1 - np.tanh(_TANH * (x + 0.044715 * x**3)) ** 2) * _TANH * (1 + 3 * 0.044715 * x * x)
        ),
    ),
    "MISH": (
        lambda x, a, b: x * np.tanh(np.logaddexp(0, x)),
        lambda x, a, b: np.tanh(np.logaddexp(0, x)) + x * _sigmoid(x) / np.cosh(np.logaddexp(0, x)) ** 2,
    ),
    "SIGMOID": (lambda x, a, b: _sigmoid(x), lambda x, a, b: _sigmoid(x) * _sigmoid(-x)),
    "HARD_SIGMOID": (_hard, lambda x, a, b: a * _inside(a * x + b, 0, 1)),
    "LOG_SIGMOID": (lambda x, a, b: -np.logaddexp(0, -x), lambda x, a, b: _sigmoid(-x)),
    "HARD_SWISH": (
        lambda x, a, b: x * np.clip(x / 6 + 0.5, 0, 1),
        lambda x, a, b: np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + 0.5)),
    ),
    "TANH": (lambda x, a, b: np.tanh(x), lambda x, a, b: 1 / np.cosh(x) ** 2),
    "SOFTPLUS": (lambda x, a, b: np.logaddexp(0, a * x) / a, lambda x, a, b: _sigmoid(a * x)),
    "SOFTSIGN": (lambda x, a, b: x / (1 + abs(x)), lambda x, a, b: 1 / (1 + abs(x)) ** 2),
}


def remembered(reference: Callable[..., tuple[Array, ...]]) -> Callable[..., tuple[Array, ...]]:
    """A reference that keeps its last results, by the content of its arguments: the kernels of all instruction sets
    are tested on the same numbers, one set after the other.
    """
    results: dict[Any, tuple[Array, ...]] = {}

    @functools.wraps(reference)
    def call(*args: Any) -> tuple[Array, ...]:
        key = tuple((a.shape, a.dtype.char, a.tobytes()) if isinstance(a, np.ndarray) else a for a in args)
        if key not in results:
            if len(results) == KEPT:
                del results[next(iter(results))]
            results[key] = reference(*args)
            for array in results[key]:
                array.flags.writeable = False
        return results[key]

    return call


KEPT = 64  # more than one test asks for


def windows(x: Array, frame: Triple, count: Triple, step: Triple, tap: Triple) -> Array:
    """x[p·step + tap] for all p < count, x with `frame` zeros around it; both (n, c, d, h, w, 1)."""
    padded = np.pad(x, [(0, 0), (0, 0), *[(f, f) for f in frame], (0, 0)])
    index = [frame[a] + tap[a] + step[a] * np.arange(count[a]) for a in range(3)]
    return padded[:, :, index[0]][:, :, :, index[1]][:, :, :, :, index[2]]


def dense(
    x: Array, weight: Array, taps: Sequence[Triple], frame: Triple, count: Triple, step: Triple, groups: int
) -> tuple[Array, Array]:
    """sum[p,j] = Σ_k Σ_i x[p·step + tap_k, i] w[j,i,k] within each group; weight (c_out, c_in/groups, n_taps)."""
    c_out, c_in = weight.shape[:2]
    per_group = c_out // groups
    total, size = (np.zeros((x.shape[0], c_out, *count, 1), x.dtype) for _ in range(2))
    for k, tap in enumerate(taps):
        part = windows(x, frame, count, step, tap)
        for g in range(groups):
            w = weight[g * per_group : (g + 1) * per_group, :, k]
            xs = part[:, g * c_in : (g + 1) * c_in]
            total[:, g * per_group : (g + 1) * per_group] += np.einsum("ncdhwe,jc->njdhwe", xs, w)
            size[:, g * per_group : (g + 1) * per_group] += np.einsum("ncdhwe,jc->njdhwe", np.abs(xs), np.abs(w))
    return total, size


def channel(
    x: Array, weight: Array, taps: Sequence[Triple], frame: Triple, count: Triple, step: Triple
) -> tuple[Array, Array]:
    """sum[p,c] = Σ_k x[p·step + tap_k, c] w[k,c]."""
    total, size = (np.zeros((*x.shape[:2], *count, 1), x.dtype) for _ in range(2))
    for k, tap in enumerate(taps):
        term = windows(x, frame, count, step, tap) * weight[k][:, None, None, None, None]
        total += term
        size += np.abs(term)
    return total, size


@remembered
def layer(
    kind: str, values: Array, weight: Array, taps: Sequence[Triple], frame: Triple, count: Triple, step: Triple,
    groups: int, weight_map: str, gamma: float, wide: Any,
) -> tuple[Array, Array]:  # fmt: skip
    """Σ x·wm(w) and Σ|x·wm(w)| of a layer, in the type `wide`."""
    mapped = WEIGHT_MAPS[weight_map](weight.astype(wide), gamma)
    args = (values.astype(wide), mapped, taps, frame, count, step)
    return channel(*args) if kind == "CHANNEL" else dense(*args, groups)


def quotient(a: Array, b: Array) -> Array:
    """a / b with x/0 := 0."""
    return np.where(b == 0, 0, a / np.where(b == 0, 1, b))


def stabilised(d: Array, stabilizer: float) -> Array:
    """d + stabilizer·sgn d, sgn 0 = +1."""
    return d + np.where(d < 0, -stabilizer, stabilizer)
