"""A certificate: how different the maps of two outputs can be at all.

On a chain of dense layers whose messages share all relevance and none negative, R_i = Σ_j P_ij R_j with
column-stochastic P, so that for relevances of equal sum TV(P R, P R') ≤ δ(P) TV(R, R') with Dobrushin's coefficient
δ(P) = ½ max_jj' Σ_i |P_ij − P_ij'| (Dobrushin 1956).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import LayerError, ShapeError, at
from ..explainer import Explainer
from ..layers import Layer, ReLU
from ..models import opened
from ..options import by_oracle, seeded, split
from ..oracle.executor import Oracle
from ..oracle.maths import INPUT_MAPS, WEIGHT_MAPS
from ..plan import units as U
from ..results import Chart
from ..vocabulary import W_NEG, W_ONE, W_POS, W_SQUARE, X_ABOVE_LOW, X_BELOW_HIGH, X_NEG, X_ONE, X_POS, X
from .piecewise import network_of
from .similarity import largest, median

Array = NDArray[Any]
NONNEGATIVE = {
    (X, W_POS),
    (X_POS, W_POS),
    (X_NEG, W_NEG),
    (X_ONE, W_SQUARE),
    (X_ONE, W_ONE),
    (X_ABOVE_LOW, W_POS),
    (X_BELOW_HIGH, W_NEG),
}
N_PAIRS = 10


@dataclass
class MixingBound(Chart):
    """Dobrushin coefficients, from the output down, and the differences of maps that were seen.

    Attributes
    ----------
    positions : list of int
        The layers' entries.
    names : list of str
        Their names.
    coefficients : ndarray of shape (n, layers)
        The coefficient δ of each layer for each sample.
    seen : ndarray of shape (n, pairs)
        The total variation between the maps of two outputs; NaN where one of them has no relevance.
    """

    positions: list[int]
    names: list[str]
    coefficients: NDArray[np.float64]
    seen: NDArray[np.float64]

    header = ("layer", "δ (median)", "product")

    @property
    def bound(self) -> NDArray[np.float64]:
        """Π δ, of shape (n,): two outputs' maps, each divided by its sum, differ by no more in total variation."""
        return np.asarray(self.coefficients.prod(axis=1), np.float64)

    @property
    def holds(self) -> bool:
        """Whether every pair that was seen lies within the bound, up to rounding."""
        return not bool((self.seen > self.bound[:, None] * (1 + 1e-9) + 1e-12).any())

    def rows(self) -> list[tuple[str, ...]]:
        products = np.median(np.cumprod(self.coefficients, axis=1), axis=0)
        middle = np.median(self.coefficients, axis=0)
        return [(n, f"{d:.3f}", f"{p:.3g}") for n, d, p in zip(self.names, middle, products, strict=True)]

    @property
    def reading(self) -> str:
        bound, most, seen = float(np.median(self.bound)), float(self.bound.max()), largest(self.seen)
        if np.isnan(seen):
            return "No output has relevance to share out: there are no maps to compare."
        verdict = "" if self.holds else " (BROKEN: a map violates the bound, which cannot be)"
        return (
            f"Whatever two outputs are explained, at most {100 * bound:.3g} % of the relevance can lie elsewhere "
            f"(median over the inputs; {100 * most:.3g} % for the one with the largest bound; "
            f"the most seen on {self.seen.size} pairs was {100 * seen:.3g} %){verdict}."
        )

    def _draw(self, ax: Any) -> None:
        ax.semilogy(np.median(np.cumprod(self.coefficients, axis=1), axis=0), marker="o", label="bound")
        ax.axhline(median(self.seen), color="0.6", label="seen (median)")
        ax.set(xlabel="layers below the output", ylabel="total variation between two maps")
        ax.legend()


def mixing_bound(layers: Sequence[Layer], x: Any, *, seed: int = 0, **options: Any) -> MixingBound:
    """Bound how much the maps of two outputs can differ: by Π δ, the product of the layers' Dobrushin coefficients.

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        A chain of Linear layers and ReLUs with hidden biases ≤ 0, under z⁺. The first layer may take w², zB or flat
        instead.
    x : array_like of shape (n, features)
        The inputs.
    seed : int, default 0
        The seed of what is drawn at random.
    **options
        Options of `dtdfast.Explainer`: rules, domain.

    Returns
    -------
    MixingBound
        The bound, and the total variation between the maps of sampled pairs of outputs.

    Raises
    ------
    InputError
        The network has a Given.
    LayerError
        The network is something else; the message names the layer. `ShapeError` where it has one output.
    """
    layers, x = opened(layers, x, split(options, "stop")[1])
    seed = seeded(seed)
    network, points = network_of(layers, x, options)
    for unit in network.units:
        _check(unit, layers, first=unit is network.units[0])
    if network.output.shape[0] < 2:
        raise ShapeError("the network has one output: there is no other to compare its map with")
    oracle = Oracle(network, network.input, gradient=False)
    oracle.forward(points)
    chain = network.units[::-1]
    coefficients = np.empty((len(points), len(chain)))
    active = np.ones((len(points), *network.output.shape), bool)
    for k, unit in enumerate(chain):
        assert isinstance(unit, U.Neuron)
        x_in = oracle.values[unit.sources[0].index]
        for n in range(len(points)):
            coefficients[n, k] = _dobrushin(_messages(unit, x_in[n], oracle.pre[unit.out.index][n])[:, active[n]])
        active = x_in != 0  # z⁺ leaves no relevance on the others
    names = [at(u.entries[0], layers[u.entries[0]]) for u in chain]
    return MixingBound(
        [u.entries[0] for u in chain],
        names,
        coefficients,
        _pairs_seen(layers, points, network.output.shape[0], seed, options),
    )


def _check(unit: U.Unit, layers: list[Layer], *, first: bool) -> None:
    where = at(unit.entries[0], layers[unit.entries[0]])
    if not isinstance(unit, U.Neuron) or len(unit.parts) != 1 or len(unit.out.shape) != 1 or not unit.parts[0].linear:
        raise LayerError(f"{where}: the mixing bound is for chains of Linear layers and ReLUs")
    if not (unit.activation is None or isinstance(unit.activation, ReLU)):
        raise LayerError(
            f"{where}: the mixing bound is for chains of Linear layers and ReLUs, not {unit.activation.kind}"
        )
    row = unit.row
    assert row is not None
    shared = (row.by_sign or len(row.shares) == 1) and row.shares[0].bias is None and row.stabilizer == 0
    if not shared or not {(t.x, t.w) for t in row.shares[0].terms} <= NONNEGATIVE or not (first or row.product_form):
        raise LayerError(
            f"{where}: under {row.label} messages may be negative, absorbed or go to inactive neurons; the mixing "
            "bound needs z⁺, "
            "in the first layer z⁺, w², zB or flat"
        )
    if unit.activation is not None and unit.bias is not None and np.max(unit.bias) > 0:
        raise LayerError(
            f"{where}: has a positive bias, so that a neuron may be active with nothing to share; biases ≤ 0 are needed"
        )


def _messages(unit: U.Neuron, x: Array, y: Array) -> Array:
    """P_ij = n_ij / d_j of one sample, (n_in, n_out); 0 where d_j = 0, and by the sign of y_j where the row is."""
    (part,), row = unit.parts, unit.row
    assert row is not None
    assert part.weight is not None
    w = np.asarray(part.weight, np.float64).reshape(len(part.weight), -1).T
    n = np.zeros_like(w)
    for share, terms in zip(row.shares, part.terms, strict=True):
        taken = {"all": np.ones(y.shape, bool), "y>=0": y >= 0, "y<0": y < 0}[share.select]
        for term in terms:
            n += taken * INPUT_MAPS[term.x](x, part.box)[:, None] * WEIGHT_MAPS[term.w](w, 0.0)
    d = n.sum(axis=0)
    messages: Array = np.divide(n, d, out=np.zeros_like(n), where=d != 0)
    return messages


def _dobrushin(p: Array) -> float:
    """½ max_jj' Σ_i |P_ij − P_ij'| over the columns."""
    p = p[:, p.any(axis=0)]
    return max((0.5 * float(np.abs(p - p[:, j : j + 1]).sum(axis=0).max()) for j in range(p.shape[1])), default=0.0)


def _pairs_seen(layers: list[Layer], x: Array, n_out: int, seed: int, options: dict[str, Any]) -> NDArray[np.float64]:
    """TV between the maps of pairs of outputs, each begun with 1."""
    rng = np.random.default_rng(seed)
    pairs = np.array([rng.choice(n_out, 2, replace=False) for _ in range(N_PAIRS)])
    start = np.broadcast_to(np.eye(n_out), (len(x), n_out, n_out))
    maps = Explainer(layers, **by_oracle(options)).explain(x, start)
    totals = maps.sum(axis=2, keepdims=True)
    shares = np.divide(maps, totals, out=np.full_like(maps, np.nan), where=totals > 0)
    return np.asarray(0.5 * np.abs(shares[:, pairs[:, 0]] - shares[:, pairs[:, 1]]).sum(axis=2), np.float64)
