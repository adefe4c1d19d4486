"""Cosine similarity convergence: whether what enters above still matters below.

A chain of non-negative matrices converges to rank 1, so that the relevance that a z⁺ chain delivers points the same way
whatever it began with (Sixt, Granz & Landgraf, arXiv:1912.09818, theorem 1 and sec. 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import LayerError, at
from ..explainer import Explainer
from ..layers import INPUT, Layer
from ..layout import axis_within, channel_axis
from ..models import opened
from ..options import Options, alone, by_oracle, predicting, seeded, split
from ..plan import units as U
from ..plan.network import Network
from ..presets import clips
from ..results import Chart
from .similarity import median

Array = NDArray[Any]
N_STARTS = 5


@dataclass
class Convergence(Chart):
    """How similar relevances become that start independently, from where they enter down to the input.

    Attributes
    ----------
    positions : list of int
        The entries of the list at which they were compared; `dtdfast.INPUT` is the network's input.
    names : list of str
        Their names.
    cosine : ndarray of shape (places,)
        The median ``|cosine|`` between relevances that started independently.
    baseline : ndarray of shape (places,)
        The same for random vectors drawn there.
    """

    positions: list[int]
    names: list[str]
    cosine: NDArray[np.float64]
    baseline: NDArray[np.float64]

    header = ("relevance at", "|cosine|", "random vectors")

    def rows(self) -> list[tuple[str, ...]]:
        return [(n, f"{c:.4f}", f"{b:.4f}") for n, c, b in zip(self.names, self.cosine, self.baseline, strict=True)]

    @property
    def reading(self) -> str:
        end, chance = self.cosine[-1], self.baseline[-1]
        if np.isnan(end):
            return f"No relevance that begins at random at {self.names[0]} arrives: there is nothing to compare."
        start = (
            f"Relevance that begins at random at {self.names[0]} arrives with a median |cosine| of {end:.3f} (chance: "
            f"{chance:.3f})"
        )
        if end > 0.99:
            return (
                f"{start}: at every place it points the same way whatever began above; only how much of it arrives "
                "there can still differ."
            )
        if end > 0.8:
            return f"{start}: at most places it points nearly the same way whatever began above."
        return f"{start}: it still depends on what began above."

    def _draw(self, ax: Any) -> None:
        ax.plot(self.cosine, marker="o", label="relevance")
        ax.plot(self.baseline, color="0.6", label="random vectors")
        ax.set(xlabel="layers below the start", ylabel="median |cosine|", ylim=(0, 1.02))
        ax.legend()


def waists(network: Network) -> list[U.Neuron]:
    """The layers of neurons through whose outputs everything passes, from the output down: no later layer reads past
    them.
    """
    last_reader = {network.input.index: 0}
    for number, unit in enumerate(network.units):
        for source in unit.sources:
            last_reader[source.index] = number
    result: list[U.Neuron] = []
    reach = last_reader[network.input.index]
    for number, unit in enumerate(network.units):
        if reach <= number and isinstance(unit, U.Neuron) and not unit.twin:
            result.append(unit)
        reach = max(reach, last_reader.get(unit.out.index, 0))
    return result[::-1]


def cosine_convergence(
    layers: Sequence[Layer], x: Any, *, start: int | None = None, seed: int = 0, **options: Any
) -> Convergence:
    """Measure after how many layers relevance no longer depends on its start.

    Five Gaussian relevances start at a layer and are propagated to the input. At each place and image, ``|cosine|``
    over the channels is taken of each of the 10 pairs.

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        The network, as `explain` takes it.
    x : array_like
        The inputs, as `explain` takes them.
    start : int, optional
        The entry at whose output the relevances start: one that the whole network passes through. By default the last
        such hidden layer.
    seed : int, default 0
        The seed of what is drawn at random.
    **options
        Options of `dtdfast.Explainer`: rules, domain, convention, backend and others.

    Returns
    -------
    Convergence
        Medians over images, places and pairs. Cosines of relevance that vanished are undefined and left out.

    Raises
    ------
    InputError
        The network has a Given.
    LayerError
        `start` is no layer of neurons that the whole network passes through, or there is none.

    Notes
    -----
    The measure is that of [1]_, with two departures. Relevance starts only on neurons whose value is not 0, because no
    rule puts relevance on others. A tensor of one channel is taken as a whole, because one number has no direction. The
    places are the outputs of layers of neurons that everything passes through. Relevance goes from one to the next, so
    all of them together cost one explanation with five targets and a forward pass each.

    References
    ----------
    .. [1] Sixt et al., "When explanations lie: why many modified BP attributions fail", arXiv:1912.09818, section 4.
    """
    layers, x = opened(layers, x, split(options, "stop", "kind")[1])
    rng = np.random.default_rng(seeded(seed))
    alone(layers, "cosine_convergence")
    network: Network = Explainer(layers, **by_oracle(options)).plan_for(x.shape).program.network
    units = [u for u in waists(network) if u.out is not network.output]
    positions = [u.out.position for u in units]
    if start is not None:
        if not isinstance(start, (int, np.integer)) or start not in positions:
            raise LayerError(
                f"start={start} is no hidden layer that everything passes through; those end at entries "
                f"{sorted(positions)}"
            )
        first = positions.index(start)
        units, positions = units[first:], positions[first:]
    if not units:
        raise LayerError("the network has no hidden layer that everything passes through")
    active = Explainer(layers[: positions[0] + 1], **predicting(options)).predict(x) != 0
    relevance = _gaussian(rng, active)
    if clips(options.get("rules", Options.rules)):
        relevance = np.maximum(relevance, 0)
    axes = [*(axis_within(layers, *_places(u)) for u in units), channel_axis(layers, x.ndim)]
    cosines = [median(_pairs(relevance, axes[0]))]
    chances = [*cosines]
    for (above, below), axis in zip(pairwise([*positions, None]), axes[1:], strict=True):
        explainer = Explainer(layers, **{**options, "start": above, "stop": below})
        relevance = explainer.explain(x, relevance)
        cosines.append(median(_pairs(relevance, axis)))
        chances.append(median(_pairs(_gaussian(rng, np.ones(relevance[:, 0].shape, bool)), axis)))
    names = [*(at(p, layers[p]) for p in positions), "input"]
    return Convergence([*positions, INPUT], names, np.array(cosines), np.array(chances))


def _gaussian(rng: np.random.Generator, active: Array) -> Array:
    """(n, 5, *shape), each of mean size 1 over what is active."""
    n, *shape = active.shape
    return rng.standard_normal((n, N_STARTS, *shape), dtype=np.float32) * active[:, None]


def _places(unit: U.Neuron) -> tuple[list[int], int, int]:
    """Of a layer: the positions of its records, that of its output, and the axes of that, the batch's counted."""
    return [part.position for part in unit.parts], unit.out.position, len(unit.out.shape) + 1


def _pairs(relevance: Array, axis: int) -> Array:
    """|cosine| of all pairs of the second axis, over channels, which lie along this axis of one relevance (n, ...);
    → (10, n, places).
    """
    r = np.moveaxis(relevance, axis if axis < 0 else axis + 1, 2)
    r = r.reshape(*r.shape[:3], -1)
    if r.shape[2] == 1:
        r = np.swapaxes(r, 2, 3)
    pairs = list(combinations(range(r.shape[1]), 2))
    result = np.empty((len(pairs), len(r), r.shape[3]), np.float32)
    for n, maps in enumerate(r):  # one sample at a time in float64: all at once would be gigabytes
        one = maps.astype(np.float64)
        norms = [np.sqrt(np.einsum("cp,cp->p", a, a)) for a in one]
        for k, (a, b) in enumerate(pairs):
            size = norms[a] * norms[b]
            inner = np.abs(np.einsum("cp,cp->p", one[a], one[b]))
            result[k, n] = np.divide(inner, size, out=np.full(size.shape, np.nan), where=size > 0)
    return result
