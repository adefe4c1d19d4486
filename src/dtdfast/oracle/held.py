"""The oracle's sums with weights of the sample: norms and products of matrices, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..plan import units as U
from ..plan.held import Held, Normed, Weighted

Array = NDArray[Any]
WeightMap = Callable[[Array], Array]

# -------------------------------------------------------------------------------------- norms along axis 1: (n, C, ...)


def standardised(x: Array, *, centred: bool, epsilon: float) -> tuple[Array, Array]:
    """((x − mean)·ρ, ρ), ρ = 1/√(mean (x − mean)² + ε)."""
    below = x - x.mean(axis=1, keepdims=True) if centred else x
    scale = 1.0 / np.sqrt((below * below).mean(axis=1, keepdims=True) + epsilon)
    return below * scale, scale


def entries(part: Normed, scale: Array, wm: WeightMap) -> tuple[Array, Array | None]:
    """wm(w_jj) and wm(w_ij), i ≠ j, of w_ij = (δ_ij − κ)·ρ·weight_j."""
    weight = 1.0 if part.weights is None else spatial(np.asarray(part.weights, np.float64)[None])
    scaled = scale * weight * np.ones((1, part.source.channels, 1, 1, 1))
    if not part.centred:
        return wm(scaled), None
    share = 1.0 / part.source.channels
    return wm((1.0 - share) * scaled), wm(-share * scaled)


def all_but_own(u: Array) -> Array:
    """Σ_{i ≠ j} u_i, by sums from either side, in which nothing cancels."""
    before, after = np.zeros_like(u), np.zeros_like(u)
    before[:, 1:] = np.cumsum(u, axis=1)[:, :-1]
    after[:, :-1] = np.cumsum(u[:, ::-1], axis=1)[:, ::-1][:, 1:]
    return before + after


def norm_sum(part: Normed, scale: Array, u: Array, wm: WeightMap) -> Array:
    """Σ_i u_i wm(w_ij)."""
    own, other = entries(part, scale, wm)
    return u * own if other is None else u * own + all_but_own(u) * other


def norm_back(part: Normed, scale: Array, s: Array, wm: WeightMap) -> Array:
    """Σ_j wm(w_ij) s_j."""
    own, other = entries(part, scale, wm)
    return s * own if other is None else s * own + all_but_own(s * other)


def norm_derivative(part: Normed, x: Array, c: Array) -> Array:
    """∂y/∂x applied to c, ρ not held: ρ·(g − mean g − x̂·mean(g x̂)), g = weight ⊙ c."""
    hat, scale = standardised(x, centred=part.centred, epsilon=part.epsilon)
    g = c if part.weights is None else c * np.asarray(part.weights, np.float64)
    mean = g.mean(axis=1, keepdims=True) if part.centred else 0.0
    result: Array = scale * (g - mean - hat * (g * hat).mean(axis=1, keepdims=True))
    return result


# ------------------------------------------------------------------------------------------- products: (n, ..., i, k)


def exchanged(a: Array, exchange: bool) -> Array:
    return a.swapaxes(-1, -2) if exchange else a


def product_sum(part: Weighted, matrix: Array, u: Array, wm: WeightMap) -> Array:
    """Σ_i u_i wm(w_ij): A u, or u A."""
    a, u = exchanged(wm(matrix), part.transposed[1]), exchanged(u, part.transposed[0])
    result: Array = a @ u if part.left else u @ a
    return result


def product_back(part: Weighted, matrix: Array, s: Array, wm: WeightMap) -> Array:
    """Σ_j wm(w_ij) s_j: Aᵀ s, or s Aᵀ."""
    a = exchanged(wm(matrix), not part.transposed[1])
    return exchanged(a @ s if part.left else s @ a, part.transposed[0])


def product_derivatives(
    first: Array, second: Array, transposed: tuple[bool, bool], c: Array, factor: float
) -> tuple[Array, Array]:
    """Of y = A B: (factor · c Bᵀ, factor · Aᵀ c), each as its operand lies."""
    a, b = exchanged(first, transposed[0]), exchanged(second, transposed[1])
    return (
        exchanged(factor * (c @ b.swapaxes(-1, -2)), transposed[0]),
        exchanged(factor * (a.swapaxes(-1, -2) @ c), transposed[1]),
    )


def applied(oracle: Any, part: Held, u: Array, wm: WeightMap) -> Array:
    """Σ_i u_i wm(w_ij) for u (n, C, d, h, w), in that shape."""
    if isinstance(part, Normed):
        return norm_sum(part, np.repeat(oracle.scales[id(part)], oracle.repeat, axis=0), u, wm)
    assert isinstance(part, Weighted)
    return spatial(product_sum(part, oracle.x(part.matrix), u.reshape(-1, *part.source.shape), wm))


def back(oracle: Any, part: Held, s: Array, wm: WeightMap) -> Array:
    """Σ_j wm(w_ij) s_j for s (n, C, d, h, w), in that shape."""
    if isinstance(part, Normed):
        return norm_back(part, np.repeat(oracle.scales[id(part)], oracle.repeat, axis=0), s, wm)
    assert isinstance(part, Weighted)
    matrix = oracle.x(part.matrix)
    return spatial(product_back(part, matrix, s.reshape(*s.shape[:2], *s.shape[7 - part.rank :]), wm))


def spatial(a: Array) -> Array:
    """(n, C, *space) with three spatial axes."""
    return a.reshape(*a.shape[:2], *(1,) * (5 - a.ndim), *a.shape[2:])


# ----------------------------------------------------------------------------------- units, as the executor asks


def norm_forward(oracle: Any, unit: U.Norm) -> Any:
    oracle.repeat, part = 1, unit.normed
    x = oracle.spatial(part.source)
    hat, oracle.scales[id(part)] = standardised(x, centred=part.centred, epsilon=part.epsilon)
    weight = 1.0 if part.weights is None else np.asarray(part.weights, np.float64)
    bias = 0.0 if unit.bias is None else np.asarray(unit.bias, np.float64).reshape(unit.column)
    oracle.pre[unit.out.index] = (hat.reshape(len(x), *unit.out.shape) * weight) + bias
    return oracle.pre[unit.out.index]


def norm_relevance(oracle: Any, unit: U.Norm, r: Array) -> list[Array]:
    if not oracle.gradient:
        return [*oracle.neuron_relevance(unit, r)]
    return [norm_derivative(unit.normed, oracle.x(unit.sources[0]), r)]


def attention_forward(oracle: Any, unit: U.Attention) -> Any:
    x, matrix = (oracle.values[s.index] for s in unit.sources)
    oracle.pre[unit.out.index] = product_sum(unit.weighted, matrix, x, lambda w: w)
    return oracle.pre[unit.out.index]


def attention_relevance(oracle: Any, unit: U.Attention, r: Array) -> list[Array | None]:
    if not oracle.gradient:
        return [*oracle.neuron_relevance(unit, r), None]
    part = unit.weighted
    order = (1, 0) if part.left else (0, 1)
    operands = [oracle.x(unit.sources[k]) for k in order]
    exchange = [part.transposed[k] for k in order]
    both = product_derivatives(operands[0], operands[1], (exchange[0], exchange[1]), r, 1.0)
    return [both[order.index(0)], both[order.index(1)]]


def product_forward(oracle: Any, unit: U.Product) -> Any:
    a, b = (exchanged(oracle.values[s.index], e) for s, e in zip(unit.sources, unit.transposed, strict=True))
    return unit.scale * (a @ b)


def product_relevance(oracle: Any, unit: U.Product, r: Array) -> list[Array]:
    """R_A = A ⊙ ½ (R/y) Bᵀ, R_B = B ⊙ ½ Aᵀ (R/y)."""
    a, b = (oracle.x(s) for s in unit.sources)
    if oracle.gradient:
        return list(product_derivatives(a, b, unit.transposed, r, unit.scale))
    y = oracle.x(unit.out)
    c = np.divide(r, y, out=np.zeros_like(r), where=y != 0)
    both = product_derivatives(a, b, unit.transposed, c, 0.5 * unit.scale)
    return [a * both[0], b * both[1]]


def probabilities_forward(oracle: Any, unit: U.Probabilities) -> Any:
    x = oracle.values[unit.sources[0].index]
    kept: Any = True if unit.mask is None else unit.mask
    if len(unit.sources) > 1:
        kept = oracle.values[unit.sources[1].index] != 0
    kept = np.broadcast_to(kept, x.shape)
    largest = np.max(x, axis=unit.axis, keepdims=True, where=kept, initial=-np.inf)
    below = x - np.where(kept.any(axis=unit.axis, keepdims=True), largest, 0.0)
    each = np.where(kept, np.exp(np.where(kept, below, 0.0)), 0.0)
    total = each.sum(axis=unit.axis, keepdims=True)
    return below - np.log(total) if unit.log else np.divide(each, total, out=each, where=total != 0)


def probabilities_relevance(oracle: Any, unit: U.Probabilities, r: Array) -> list[Array | None]:
    """R_i = x_i (R_i − s_i Σ_j R_j); a gradient: s ⊙ (c − Σ s c); nothing for a mask."""
    none = [None] * (len(unit.sources) - 1)
    s, x = oracle.x(unit.out), oracle.x(unit.sources[0])
    if oracle.gradient:
        return [s * (r - (s * r).sum(axis=unit.axis, keepdims=True)), *none]
    r = np.where(s == 0, 0.0, r)
    return [x * (r - s * r.sum(axis=unit.axis, keepdims=True)), *none]
