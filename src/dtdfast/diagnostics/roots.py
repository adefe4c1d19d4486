"""Root points: where a rule expands a neuron.

Deep Taylor Decomposition hands a neuron's relevance to its inputs as the first-order terms of an expansion at a root x̃
of that neuron (Montavon et al., arXiv:1512.02479); every rule whose numerators are v_ij w_ij says where that root lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays.checks import host_array
from ..errors import LayerError, RuleError
from ..layers import Layer
from ..models import opened
from ..options import split
from ..oracle.maths import INPUT_MAPS, WEIGHT_MAPS
from ..plan import units as U
from ..plan.network import Network
from ..rules import Share
from ..show import OneLine
from .piecewise import Frozen, network_of

Array = NDArray[Any]
MOVES = (U.Move, U.Reshaping)


@dataclass
class RootPoints(OneLine):
    """The root points of some neurons of one layer, for one sample.

    Attributes
    ----------
    neurons : ndarray of shape (m,)
        Flat indices into one sample of the layer's output.
    points : list of ndarray
        The roots in each array that the layer reads (a residual addition reads several), of shape ``(m, *shape of the
        array)``.
    here : list of ndarray
        The same arrays at x.
    y : ndarray of shape (m,)
        The values before the activation at x.
    y_at_root : ndarray of shape (m,)
        The same at the root: 0 up to rounding where the rule's denominator is y itself. NaN where there is no root.
    """

    neurons: NDArray[np.intp]
    points: list[Array]
    here: list[Array]
    y: NDArray[np.float64]
    y_at_root: NDArray[np.float64]


@dataclass
class NeuronLayer(OneLine):
    """One unit of neurons in a frozen network at one sample."""

    frozen: Frozen
    unit: U.Neuron

    @property
    def sources(self) -> tuple[U.Tensor, ...]:
        return tuple({t.index: t for t in self.unit.sources}.values())

    @property
    def pre(self) -> Array:
        return self.frozen.pre[self.unit.out.index].ravel()

    def steps_back(self, neuron: int) -> list[Array]:
        """x − x̃ per source: y_j Σ_shares coefficient · n_ij / (w_ij d_j), so that R_i←j = (x − x̃)_i w_ij R_j /
        y_j.
        """
        unit, row = self.unit, self.unit.row
        assert row is not None
        y = self.pre[neuron]
        weights = {t.index: np.zeros(t.shape).ravel() for t in self.sources}
        result = {t.index: np.zeros(t.shape).ravel() for t in self.sources}
        place = np.unravel_index(neuron, (unit.out.channels, *unit.out.space))
        c, where = int(place[0]), (int(place[1]), int(place[2]), int(place[3]))
        taps = [(part, *_taps_of(part, c, where)) for part in unit.parts]
        for part, places, w in taps:
            np.add.at(weights[part.source.index], places, w)
        denominators = []
        numerators: list[dict[int, Array]] = []
        for k, share in enumerate(row.shares):
            n = {t.index: np.zeros(t.shape).ravel() for t in self.sources}
            d = self._bias(share, c)
            for part, places, w in taps:
                for term in part.terms[k]:
                    x = INPUT_MAPS[term.x](self.frozen.values[part.source.index][0], part.box).ravel()[places]
                    values = x * WEIGHT_MAPS[term.w](w, row.gamma)
                    np.add.at(n[part.source.index], places, values)
                    d += values.sum()
            numerators.append(n)
            denominators.append(d + row.stabilizer * (-1.0 if d < 0 else 1.0))
        for k, (share, n, d) in enumerate(zip(row.shares, numerators, denominators, strict=True)):
            if d == 0 or not {"all": True, "y>0": y > 0, "y>=0": y >= 0, "y<0": y < 0}[share.select]:
                continue
            falls_back = row.falls_back and k == 0 and not any(values.any() for values in numerators[1].values())
            for index, values in n.items():
                result[index] += (1.0 if falls_back else share.coefficient) * y * values / d
        return [
            np.divide(
                result[t.index], weights[t.index], out=np.zeros(weights[t.index].size), where=weights[t.index] != 0
            ).reshape(t.shape)
            for t in self.sources
        ]

    def _bias(self, share: Share, c: int) -> float:
        if share.bias is None or self.unit.bias is None:
            return 0.0
        assert self.unit.row is not None
        return float(WEIGHT_MAPS[share.bias](np.asarray(self.unit.bias, np.float64).ravel()[c], self.unit.row.gamma))

    def roots(self, neurons: NDArray[np.intp]) -> RootPoints:
        here = [self.frozen.values[t.index][0] for t in self.sources]
        steps = [self.steps_back(int(j)) for j in neurons]
        points = [h - np.stack([s[k] for s in steps]) if steps else np.zeros((0, *h.shape)) for k, h in enumerate(here)]
        there = self.frozen.at_seeds(self.seeds(points)) if steps else None
        y_at_root = (
            np.zeros(0)
            if there is None
            else there.pre[self.unit.out.index].reshape(len(neurons), -1)[range(len(neurons)), neurons]
        )
        moved = np.array([any(a.any() for a in s) for s in steps], bool)
        return RootPoints(neurons, points, here, self.pre[neurons], np.where(moved, y_at_root, np.nan))

    @property
    def numbers(self) -> NDArray[np.intp]:
        """The plan's number of each neuron, in the order of the layer's output, whose axes the plan may have turned."""
        return _carried(self.frozen.network, self.unit.out, self.frozen.network.at[self.unit.position]).ravel()

    def as_listed(self, found: RootPoints, neurons: NDArray[np.intp]) -> RootPoints:
        """The same with neurons and arrays as the caller's list has them."""
        network, kept = self.frozen.network, {part.position for part in self.unit.parts}
        makers = {u.out.index: u for u in network.units}
        points, here = [], []
        for source, at_roots, at_x in zip(self.sources, found.points, found.here, strict=True):
            origin = source
            while isinstance(unit := makers.get(origin.index), MOVES) and unit.position in kept:
                (origin,) = unit.sources
            numbers = _carried(network, origin, source).ravel()
            if len(np.unique(numbers)) < np.prod(origin.shape):  # the layer reads a part
                origin, numbers = source, np.arange(len(numbers))
            back = np.argsort(numbers)
            n = len(at_roots)
            points.append(at_roots.reshape(n, len(back))[:, back].reshape(n, *origin.shape))
            here.append(at_x.ravel()[back].reshape(origin.shape))
        return RootPoints(neurons, points, here, found.y, found.y_at_root)

    def seeds(self, values: list[Array]) -> dict[int, Array]:
        return {t.index: v for t, v in zip(self.sources, values, strict=True)}


def _carried(network: Network, source: U.Tensor, tensor: U.Tensor) -> NDArray[np.intp]:
    """The numbers of the elements of a tensor that moves alone make of the source, as the source has them."""
    makers, chain = {u.out.index: u for u in network.units}, list[U.Unit]()
    while tensor is not source and isinstance(unit := makers.get(tensor.index), MOVES):
        chain.insert(0, unit)
        (tensor,) = unit.sources
    numbers: Any = np.arange(int(np.prod(source.shape))).reshape(source.shape)
    for unit in chain if tensor is source else ():
        numbers, _ = unit.box([(numbers, numbers)]) or (numbers, None)
    return np.asarray(numbers, np.intp)


def _taps_of(part: U.Part, c: int, place: tuple[int, int, int]) -> tuple[NDArray[np.intp], Array]:
    """Where one output element reads its source (flat indices), and the weights there."""
    taps = part.taps
    group, c_in = c // (taps.c_out // taps.groups), taps.c_in // taps.groups
    factor = 1.0 if part.window is None else float(np.broadcast_to(part.window, taps.out_size)[place])
    row = None if part.weight is None else np.asarray(part.weight[c], np.float64)
    channels = np.arange(group * c_in, (group + 1) * c_in)
    places, weights = [], []
    for tap in product(*map(range, taps.kernel)):
        at = _source_of(part, place, (tap[0], tap[1], tap[2]))
        if at is not None:
            places.append(np.ravel_multi_index((channels, *(np.full(c_in, a) for a in at)), (taps.c_in, *taps.x_size)))
            weights.append(np.full(c_in, factor) if row is None else row[:, tap[0], tap[1], tap[2]])
    if not places:
        return np.zeros(0, np.intp), np.zeros(0)
    return np.concatenate(places), np.concatenate(weights)


def _source_of(part: U.Part, place: tuple[int, int, int], tap: tuple[int, int, int]) -> list[int] | None:
    """The position that a tap meets, None in the padding; see plan/taps.py."""
    taps, result = part.taps, []
    for a in range(3):
        if taps.transposed:
            q, rest = divmod(place[a] + taps.before[a] - tap[a] * taps.dilation[a], taps.stride[a])
            if rest:
                return None
        else:
            q = place[a] * taps.stride[a] - taps.before[a] + tap[a] * taps.dilation[a]
        if not 0 <= q < taps.x_size[a]:
            return None
        result.append(q)
    return result


def find_layer(network: Network, layer: int | None) -> U.Neuron:
    """The unit of neurons that stands for an entry; None: the first that reads the input."""
    neurons = [u for u in network.units if isinstance(u, U.Neuron) and u.in_relevance and not u.twin]
    if layer is not None and (isinstance(layer, bool) or not isinstance(layer, (int, np.integer))):
        raise LayerError(f"layer is {layer!r:.60}, expected the position of an entry")
    for unit in neurons:
        if layer in unit.entries or (layer is None and any(p.source.is_input for p in unit.parts)):
            return unit
    known = ", ".join(str(u.entries[0]) for u in neurons[:12])
    if layer is None:
        raise LayerError(f"relevance passes no neurons that read the input: name a layer, one of entries {known}")
    raise LayerError(f"layer={layer} is no layer of neurons that relevance passes; those are at entries {known}")


def root_points(
    layers: Sequence[Layer], x: Any, neurons: ArrayLike, *, layer: int | None = None, **options: Any
) -> RootPoints:
    """The points x̃ at which the rule of a layer expands its neurons: R_i←j = (x − x̃)_i w_ij · R_j / y_j.

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        The network; it must be piecewise linear.
    x : array_like of shape (1, ...)
        One sample.
    neurons : array_like of int
        Flat indices into one sample of the layer's output.
    layer : int, optional
        The position of the layer; by default the first that reads the input.
    **options
        Options of `dtdfast.Explainer`: rules, domain, convention.

    Returns
    -------
    RootPoints
        The root of each neuron.

    Raises
    ------
    InputError
        The network has a Given.
    LayerError
        The layer does not exist, is not one of neurons, or x holds several samples.
    RuleError
        An index is out of range.

    Notes
    -----
    With a direction v_ij of the rule, n_ij = v_ij w_ij [1]_, the root is x̃ = x − (y_j / d_j) v_j. For w², v is w; for
    z⁺, it is the inputs of positive contributions; for zB, the way to the corner of the box; for γ, x (1 + γ 1[w > 0]);
    for flat, 1/w. αβ has a root too, the combination of those of its two shares. LRP-0 expands at the origin, which is
    a root only where the bias is 0. For ε, and wherever a bias or a stabiliser is in the denominator, x̃ is the point
    from which the messages come; `y_at_root` shows that it is not quite a root.

    References
    ----------
    .. [1] Montavon et al., "Explaining nonlinear classification decisions with deep Taylor decomposition",
       arXiv:1512.02479, eq. 7.
    """
    layers, x = opened(layers, x, split(options, "kind")[1])
    network, point = network_of(layers, x, options)
    if len(point) != 1:
        raise LayerError(f"x holds {len(point)} samples, expected one: root points belong to one input")
    unit = find_layer(network, layer)
    index = np.atleast_1d(host_array(neurons, "neurons", RuleError))
    if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
        raise RuleError(f"neurons is {neurons!r:.60}, expected a list of integers")
    size = int(np.prod(unit.out.shape))
    if index.size and not (index.min() >= 0 and index.max() < size):
        raise RuleError(f"neurons goes from {index.min()} to {index.max()}, but the layer has neurons 0 to {size - 1}")
    place, neurons = NeuronLayer(Frozen(network, layers, point), unit), index.astype(np.intp)
    return place.as_listed(place.roots(place.numbers[neurons]), neurons)
