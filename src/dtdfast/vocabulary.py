"""The words that rules and activations are written with: one row of facts per weight map, input map and function.

What each computes stands in every executor by itself, under the keys here: oracle/maths.py, csrc,
cuda/kernels/formulas.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# Weight maps of a term, also applied to the bias (the weight of a neuron that is always 1).
W, W_POS, W_NEG, W_SQUARE, W_ONE, W_ABS = "w", "w+", "w-", "w2", "1", "|w|"
W_GAMMA_POS, W_GAMMA_NEG = "w+g.w+", "w+g.w-"
# Input maps of a term.
X, X_POS, X_NEG, X_ONE, X_ABOVE_LOW, X_BELOW_HIGH, X_ABS = "x", "x+", "x-", "1", "x-low", "x-high", "|x|"


class WeightMap(NamedTuple):
    """wm(w)."""

    c: str  # its name in csrc/dtdfast.h, behind DTD_
    of: Callable[[Any, float], Any]  # wm(b) of a bias, by γ
    sign: int | None  # of wm(w) whatever w: 1 (≥ 0), -1 (≤ 0); None: w's
    positive: str | None  # the map that it is where w ≥ 0; None: 0
    mirror: str  # wm(−w) is this map of w, or minus it
    power: int  # wm(s·w) = s^power wm(w) for s > 0
    exceeds: bool  # wm(w) ≥ w


class InputMap(NamedTuple):
    """in(x)."""

    c: str | None  # as above; None: x needs no map
    sign: int | None  # of in(x) whatever x: 1 (≥ 0), -1 (≤ 0); None: x's
    positive: str | None  # the map that it is where x ≥ 0; None: 0
    product: str | None  # how in(x) = x·m multiplies c in R = x ⊙ c; None: not of product form
    times: str  # how in(x) multiplies R
    bound: int | None = None  # which bound of the box is subtracted, in a buffer of its own: 0 low, 1 high


class Function(NamedTuple):
    """act(x), an activation's kind; its name in csrc/dtdfast.h is the kind in capitals, behind DTD_."""

    formula: str
    sign: Callable[[Any, bool], bool]  # whether outputs are known to be ≥ 0, by the record and whether inputs are
    alpha: float | None = None  # the record's defaults; None: takes none
    beta: float | None = None
    needs: str = ""  # "alpha > 0" or "alpha >= 0"
    kernel: str | None = None  # takes slopes: the kind whose kernels compute it, with alpha by channel or element
    rectifies: Callable[[Any], bool] = lambda record: False  # act(y) = max(0, y), perhaps cut off above
    gates: bool = False  # between 0 and 1, as a gate is
    product: bool = False  # act(x) = x·1[x > 0]: relevance R = act(x) ⊙ c is c where it is active, and 0 elsewhere


def _at_most_0(value: Any) -> bool:
    return bool(np.max(value) <= 0)


def _at_least_0(value: Any) -> bool:
    return bool(np.min(value) >= 0)


def _always(record: Any, nonnegative: bool) -> bool:
    return True


def _never(record: Any, nonnegative: bool) -> bool:
    return False


def _as_x(record: Any, nonnegative: bool) -> bool:
    return nonnegative


# fmt: off
WEIGHT_MAPS: dict[str, WeightMap] = {
    W: WeightMap("W", lambda b, g: b, None, W, W, 1, True),
    W_POS: WeightMap("W_POSITIVE", lambda b, g: np.maximum(b, 0), 1, W, W_NEG, 1, True),
    W_NEG: WeightMap("W_NEGATIVE", lambda b, g: np.minimum(b, 0), -1, None, W_POS, 1, False),
    W_SQUARE: WeightMap("W_SQUARE", lambda b, g: b * b, 1, W_SQUARE, W_SQUARE, 2, False),
    W_ONE: WeightMap("W_ONE", lambda b, g: np.ones_like(b), 1, W_ONE, W_ONE, 0, False),
    W_ABS: WeightMap("W_ABS", lambda b, g: np.abs(b), 1, W_ABS, W_ABS, 1, True),
    W_GAMMA_POS: WeightMap(
        "W_GAMMA_POSITIVE", lambda b, g: b + g * np.maximum(b, 0), None, W_GAMMA_POS, W_GAMMA_NEG, 1, True),
    W_GAMMA_NEG: WeightMap(
        "W_GAMMA_NEGATIVE", lambda b, g: b + g * np.minimum(b, 0), None, W_GAMMA_NEG, W_GAMMA_POS, 1, False),
}

INPUT_MAPS: dict[str, InputMap] = {
    X: InputMap(None, None, X, "none", "times"),
    X_POS: InputMap("X_POSITIVE", 1, X, "positive", "times positive"),
    X_NEG: InputMap("X_NEGATIVE", -1, None, "negative", "times negative"),
    X_ONE: InputMap("X_ONE", 1, X_ONE, None, "none"),
    X_ABOVE_LOW: InputMap("X_ABOVE_LOW", 1, X_ABOVE_LOW, None, "times", bound=0),
    X_BELOW_HIGH: InputMap("X_BELOW_HIGH", -1, X_BELOW_HIGH, None, "times", bound=1),
    X_ABS: InputMap("X_ABS", 1, X_ABS, "sign", "absolute"),
}

RELU = Function("max(0, x)", _always, rectifies=lambda record: True, product=True)

ACTIVATIONS: dict[str, Function] = {
    "leaky_relu": Function("x where x > 0, else alpha·x", lambda r, nonneg: nonneg or _at_most_0(r.alpha), 0.01),
    "prelu": Function(
        "leaky_relu with `slopes`", lambda r, nonneg: nonneg or _at_most_0(r.slopes), kernel="leaky_relu"),
    "clip": Function(
        "min(max(x, alpha), beta); one of the bounds may be infinite, it becomes the largest float32",
        lambda r, nonneg: _at_least_0(r.alpha) or (nonneg and _at_least_0(r.beta)), 0.0, 6.0,
        rectifies=lambda r: bool(r.alpha == 0)),
    "threshold": Function(
        "x where x > alpha, else beta",
        lambda r, nonneg: (nonneg or _at_least_0(r.alpha)) and _at_least_0(r.beta), 1.0, 0.0),
    "hard_shrink": Function("x where |x| > alpha, else 0", _as_x, 0.5, needs="alpha >= 0"),
    "soft_shrink": Function("x − clip(x, −alpha, alpha)", _as_x, 0.5, needs="alpha >= 0"),
    "tanh_shrink": Function("x − tanh x", _as_x),
    "elu": Function("x where x > 0, else alpha·(eˣ − 1)", _as_x, 1.0),
    "selu": Function("a scaled elu with the constants of Klambauer et al. [1]_", _as_x),
    "celu": Function("x where x > 0, else alpha·(e^(x/alpha) − 1)", _as_x, 1.0, needs="alpha > 0"),
    "silu": Function("x·sigmoid(alpha·x)", _as_x, 1.0),
    "gelu": Function("x·Φ(x)", _as_x),
    "gelu_tanh": Function("gelu's approximation by a tanh", _as_x),
    "mish": Function("x·tanh(log(1 + eˣ))", _as_x),
    "sigmoid": Function("1/(1 + e⁻ˣ)", _always, gates=True),
    "hard_sigmoid": Function("clip(alpha·x + beta, 0, 1)", _always, 1 / 6, 0.5, gates=True),
    "log_sigmoid": Function("log of the sigmoid", _never),
    "hard_swish": Function("x·clip(x/6 + 1/2, 0, 1)", _as_x),
    "tanh": Function("tanh x", _as_x),
    "softplus": Function("log(1 + e^(alpha·x))/alpha", _always, 1.0, needs="alpha > 0"),
    "softsign": Function("x/(1 + |x|)", _as_x),
}
# fmt: on

KERNELS = ("identity", "relu", *(kind for kind, row in ACTIVATIONS.items() if row.kernel is None))
"""The functions that kernels compute."""
