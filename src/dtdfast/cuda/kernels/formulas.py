"""Scalar formulas of float32, the same lines and names as in csrc/rows/: activation.c, elementwise.c, factor.c.

A NaN passes: `t < 0 ? 0 : t`. Constants are float32, since a bare Python number would turn a kernel's arithmetic into
float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Scalar = Any  # float32 in a kernel
Function = Callable[..., Any]

ZERO, HALF, ONE, TWO, FOUR, THREE, SIX = (np.float32(v) for v in (0, 0.5, 1, 2, 4, 3, 6))
SQRT_HALF, INV_SQRT_2_PI = np.float32(math.sqrt(0.5)), np.float32(1 / math.sqrt(2 * math.pi))
TWO_SQRT_2_OVER_PI, GELU_CUBIC = np.float32(2 * math.sqrt(2 / math.pi)), np.float32(0.044715)
SELU_ALPHA, SELU_SCALE = np.float32(1.6732632423543772), np.float32(1.0507009873554805)
INFINITY = np.float32(np.inf)
NEAR = np.float32(32)
FIVE, SEVEN, NINE, ELEVEN, THIRTEEN = (np.float32(v) for v in (5, 7, 9, 11, 13))


def positive(t: Scalar) -> Scalar:
    return ZERO if t < ZERO else t


def negative(t: Scalar) -> Scalar:
    return ZERO if t > ZERO else t


def is_positive(t: Scalar) -> Scalar:
    return ONE if t > ZERO else ZERO if t <= ZERO else t


def is_negative(t: Scalar) -> Scalar:
    return ONE if t < ZERO else ZERO if t >= ZERO else t


def magnitude(t: Scalar) -> Scalar:
    return -t if t < ZERO else t


def quotient(a: Scalar, b: Scalar) -> Scalar:
    """a / b with x/0 := 0."""
    return ZERO if b == ZERO else a / b


def stabilised(d: Scalar, stabilizer: Scalar) -> Scalar:
    """d + stabilizer·sgn d, sgn 0 = +1."""
    return d - stabilizer if d < ZERO else d + stabilizer


# -------------------------------------------------------------------------------------------------------- activations


def sigmoid(x: Scalar) -> Scalar:
    """1 / (1 + exp(-x)) without overflow."""
    e = math.exp(x if x < ZERO else -x)
    return (e if x < ZERO else ONE) / (ONE + e)


def clip(x: Scalar, low: Scalar, high: Scalar) -> Scalar:
    return low if x < low else high if x > high else x


def inside(x: Scalar, low: Scalar, high: Scalar) -> Scalar:
    """1 strictly inside, 0 on and outside the bounds."""
    return ONE if low < x < high else ZERO if x <= low or x >= high else x


def gelu_argument(x: Scalar) -> Scalar:
    """The argument of tanh in gelu_tanh, doubled: 1 + tanh(u) = 2 sigmoid(2u)."""
    return TWO_SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x)


def identity(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return t


def relu(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return positive(t)


def leaky_relu(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return a * t if t <= ZERO else t


def threshold(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return b if t <= a else t


def hard_shrink(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return ZERO if -a <= t <= a else t


def soft_shrink(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return t - clip(t, -a, a)


def tanh_shrink(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    """Near 0, where that cancels, t q / (1 + q) with tanh(t) = t / (1 + q) and Lambert's q = t²/(3 + t²/(5 + t²/(7 +
    ...))).
    """
    near = magnitude(t) < ONE
    z = t * t if near else ONE
    q = z / (THREE + z / (FIVE + z / (SEVEN + z / (NINE + z / (ELEVEN + z / THIRTEEN)))))
    return t * q / (ONE + q) if near else t - math.tanh(t)


def elu(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return t if t > ZERO else a * math.expm1(t)


def selu(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return SELU_SCALE * (t if t > ZERO else SELU_ALPHA * math.expm1(t))


def celu(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return t if t > ZERO else a * math.expm1(t / a)


def silu(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return t * sigmoid(a * t)


def gelu(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return HALF * t * math.erfc(-t * SQRT_HALF)


def gelu_tanh(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return t * sigmoid(gelu_argument(t))


def mish_gate(t: Scalar) -> Scalar:
    """tanh(softplus(t)) = ((1 + e^t)² − 1) / ((1 + e^t)² + 1), in e = exp(−|t|)."""
    e = math.exp(t if t < ZERO else -t)
    n = e * (e + TWO) if t < ZERO else ONE + TWO * e
    return n / (n + TWO * (ONE if t < ZERO else e * e))


def mish(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return t * mish_gate(t)


def sigmoid_of(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return sigmoid(t)


def hard_sigmoid(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return clip(a * t + b, ZERO, ONE)


def log_sigmoid(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return -softplus(-t, ONE, b)


def hard_swish(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return t * clip((t + THREE) / SIX, ZERO, ONE)


def tanh(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return math.tanh(t)


def softplus(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    x = a * t
    return (positive(x) + math.log1p(math.exp(x if x < ZERO else -x))) / a


def softsign(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return t / (ONE + magnitude(t))


ACTIVATIONS: dict[str, Function] = {
    "identity": identity, "relu": relu, "leaky_relu": leaky_relu, "clip": clip, "threshold": threshold,
    "hard_shrink": hard_shrink, "soft_shrink": soft_shrink, "tanh_shrink": tanh_shrink, "elu": elu, "selu": selu,
    "celu": celu, "silu": silu, "gelu": gelu, "gelu_tanh": gelu_tanh, "mish": mish, "sigmoid": sigmoid_of,
    "hard_sigmoid": hard_sigmoid, "log_sigmoid": log_sigmoid, "hard_swish": hard_swish, "tanh": tanh,
    "softplus": softplus, "softsign": softsign,
}  # fmt: skip

# ------------------------------------------------------------------------------- derivatives, from the left at a kink


def identity_derivative(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return ONE if t == t else t


def relu_derivative(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return is_positive(t)


def leaky_relu_derivative(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return ONE if t > ZERO else a if t <= ZERO else t


def threshold_derivative(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return ONE if t > a else ZERO if t <= a else t


def outside(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    """1 outside [−a, a], 0 inside and on its ends."""
    return ONE if t > a or t < -a else ZERO if t <= a else t


def tanh_shrink_derivative(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return math.tanh(t) * math.tanh(t)


def elu_derivative(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return ONE if t > ZERO else a * math.exp(t)


def selu_derivative(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return SELU_SCALE if t > ZERO else SELU_SCALE * SELU_ALPHA * math.exp(t)


def celu_derivative(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return ONE if t > ZERO else math.exp(t / a)


def silu_derivative(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return sigmoid(a * t) * (ONE + a * t * sigmoid(-a * t))


def gelu_derivative(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    """Φ(t) + t φ(t)."""
    return HALF * math.erfc(-t * SQRT_HALF) + t * INV_SQRT_2_PI * math.exp(-HALF * t * t)


def gelu_tanh_derivative(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    """0 and 1 beyond the clip, where t² may overflow."""
    x = clip(t, -NEAR, NEAR)
    u = gelu_argument(x)
    p = sigmoid(u)
    return p + x * p * sigmoid(-u) * TWO_SQRT_2_OVER_PI * (ONE + THREE * GELU_CUBIC * x * x)


def mish_derivative(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    """gate + t·(1 − gate²)·sigmoid(t), where (1 − gate²)·sigmoid(t) = 4 e^t (1 + e^t) / ((1 + e^t)² + 1)²."""
    e = math.exp(t if t < ZERO else -t)
    d = e * (e + TWO) + TWO if t < ZERO else ONE + TWO * e + TWO * e * e
    return mish_gate(t) + t * FOUR * e * (ONE + e) * (ONE if t < ZERO else e) / (d * d)


def sigmoid_derivative(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return sigmoid(t) * sigmoid(-t)


def hard_sigmoid_derivative(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return a * inside(a * t + b, ZERO, ONE)


def log_sigmoid_derivative(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return sigmoid(-t)


def hard_swish_derivative(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return ZERO if t <= -THREE else ONE if t >= THREE else (TWO * t + THREE) / SIX


def tanh_derivative(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    """1 − tanh²(t) = 4 sigmoid(2t) sigmoid(−2t), which does not cancel."""
    return FOUR * sigmoid(TWO * t) * sigmoid(-TWO * t)


def softplus_derivative(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return sigmoid(a * t)


def softsign_derivative(t: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return (ONE / (ONE + magnitude(t))) * (ONE / (ONE + magnitude(t)))


DERIVATIVES: dict[str, Function] = {
    "identity": identity_derivative, "relu": relu_derivative, "leaky_relu": leaky_relu_derivative, "clip": inside,
    "threshold": threshold_derivative, "hard_shrink": outside, "soft_shrink": outside,
    "tanh_shrink": tanh_shrink_derivative, "elu": elu_derivative, "selu": selu_derivative, "celu": celu_derivative,
    "silu": silu_derivative, "gelu": gelu_derivative, "gelu_tanh": gelu_tanh_derivative, "mish": mish_derivative,
    "sigmoid": sigmoid_derivative, "hard_sigmoid": hard_sigmoid_derivative, "log_sigmoid": log_sigmoid_derivative,
    "hard_swish": hard_swish_derivative, "tanh": tanh_derivative, "softplus": softplus_derivative,
    "softsign": softsign_derivative,
}  # fmt: skip

# -------------------------------------------------------------------------------------------------- maps, multipliers


def above_low(x: Scalar, m: Scalar) -> Scalar:
    """x − low; x⁺ where there is no lower bound, 0 where low = ∞: a box without width."""
    return positive(x) if m == -INFINITY else x - (x if m == INFINITY else m)


def below_high(x: Scalar, m: Scalar) -> Scalar:
    """x − high; x⁻ where there is no upper bound, 0 where high = −∞: a box without width."""
    return negative(x) if m == INFINITY else x - (x if m == -INFINITY else m)


INPUT_MAPS: dict[str, Function] = {
    "x+": lambda x, m: positive(x),
    "x-": lambda x, m: negative(x),
    "x-low": above_low,
    "x-high": below_high,
    "1": lambda x, m: ONE,
    "|x|": lambda x, m: magnitude(x),
}

WEIGHT_MAPS: dict[str, Function] = {
    "w": lambda w, gamma: w,
    "w+": lambda w, gamma: positive(w),
    "w-": lambda w, gamma: negative(w),
    "w2": lambda w, gamma: w * w,
    "1": lambda w, gamma: ONE,
    "|w|": lambda w, gamma: magnitude(w),
    "w+g.w+": lambda w, gamma: w + gamma * positive(w),
    "w+g.w-": lambda w, gamma: w + gamma * negative(w),
}

MULTIPLIERS: dict[str, Function] = {
    "none": lambda m, r: r,
    "times": lambda m, r: m * r,
    "positive": lambda m, r: is_positive(m) * r,
    "negative": lambda m, r: is_negative(m) * r,
    "times positive": lambda m, r: positive(m) * r,
    "times negative": lambda m, r: negative(m) * r,
    "sign": lambda m, r: -r if m < ZERO else r,
    "absolute": lambda m, r: magnitude(m) * r,
}

# ------------------------------------------------------------------------------------------------------------ factors

SELECTS = {"all": 0, "y>0": 1, "y<0": 2, "y!=0": 3}


def selected(select: int, y: Scalar, f: Scalar) -> Scalar:
    """f where y has the selected sign (1: y > 0, 2: y < 0, 3: either), else 0; a NaN passes."""
    dropped = (select == 1 and y <= ZERO) or (select == 2 and y >= ZERO) or (select == 3 and y == ZERO)
    return ZERO if dropped else f


def gate(d: Scalar, a: Scalar, scale: Scalar, c: Scalar) -> Scalar:
    """coefficient · act(y) / d · scale; d is stabilised, a = act(y), c the coefficient."""
    return quotient(c * a, d) * scale


def denominator(d: Scalar, a: Scalar, scale: Scalar, c: Scalar) -> Scalar:
    """d / (coefficient · scale)."""
    return quotient(d, c * scale)


def signed(terms: Scalar, rest: Scalar, y: Scalar, stabilizer: Scalar) -> Scalar:
    """The denominator of the share that y's sign takes: terms where y ≥ 0, rest = Σ x w − terms (≤ 0) where y < 0."""
    return negative(rest) - stabilizer if y < ZERO else terms + stabilizer


def paired(terms: Scalar, m: Scalar, y: Scalar, b: Scalar, coefficient: Scalar) -> Scalar:
    """m + b + coefficient·sgn(y)·(terms + |b|), m = y without its bias, b = bias_d."""
    size = coefficient * (terms + magnitude(b))
    return m + b + (-size if y < ZERO else size)


QUOTIENTS: dict[str, Function] = {
    "none": quotient,
    "positive": lambda a, b: ZERO if b <= ZERO else a / b,
    "negative": lambda a, b: ZERO if b >= ZERO else a / b,
}

FACTORS: dict[str, Function] = {"gate": gate, "denominator": denominator}
