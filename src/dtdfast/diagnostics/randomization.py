"""Does a map depend on what the network has learnt?  Its weights are replaced by random ones, and the maps compared.

Model-parameter randomisation of Adebayo et al., "Sanity checks for saliency maps" (arXiv:1810.03292).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from ..calls import explain
from ..errors import LayerError, at
from ..layout import channel_axis
from ..models import opened
from ..options import seeded, split
from ..plan.wiring import sources
from ..results import Chart
from ..sizes import copied
from ..verdicts import WEIGHTS
from .attribution import Attribution, classes, explained, given_by, maps_by, name_of, one_hot
from .similarity import MEASURES, compare, median

WEIGHTED = (L.Linear, L.Conv, L.ConvTranspose)
NORMS = (L.BatchNorm, L.Scale)
STATISTICAL = (L.LayerNorm, L.RMSNorm, L.GroupNorm, L.InstanceNorm)
SAME = WEIGHTS.bounds[-1]  # |cosine| above which a map counts as the original


@dataclass
class Randomization(Chart):
    """The similarity to the original map after each step.

    Attributes
    ----------
    method : str
        What was compared.
    order : str
        "cascading" or "independent".
    positions, names : list
        The layer that each step randomises, from the output down.
    similarity : dict of str to ndarray of shape (steps, n)
        By measure: cosine and Spearman with their sign, SSIM the larger one over the sign, total variation from 0
        (equal) to 1 (disjoint).
    """

    method: str
    order: str
    positions: list[int]
    names: list[str]
    similarity: dict[str, NDArray[np.float64]]

    header = ("randomised", *MEASURES)

    def rows(self) -> list[tuple[str, ...]]:
        prefix = "down to " if self.order == "cascading" else ""
        return [
            (prefix + n, *(f"{median(self.similarity[m][k]):.3f}" for m in MEASURES)) for k, n in enumerate(self.names)
        ]

    @property
    def reading(self) -> str:
        alike = np.array([median(np.abs(v)) for v in self.similarity["cosine"]])
        if np.isnan(alike).all():
            return f"{self.method}: no map is left to compare: a map that is 0 is like no other."
        if self.order == "independent":
            least, unmoved = int(np.nanargmin(alike)), int((alike > SAME).sum())
            return (
                f"{self.method}: the map changes most when {self.names[least]} alone is randomised (median |cosine| "
                f"{alike[least]:.3f} "
                f"to the original); for {unmoved} of {len(alike)} layers it stays above {SAME}, and hardly depends on "
                "them."
            )
        kept = int(np.argmin([*(alike > SAME), False]))
        if np.isnan(alike[min(kept, len(alike) - 1)]):
            return (
                f"{self.method}: no map is left to compare once {self.names[kept]} is randomised: a map that is 0 is "
                "like no other."
            )
        if kept == 0:
            return (
                f"{self.method}: the map changes as soon as {self.names[0]} is randomised (median |cosine| "
                f"{alike[0]:.3f} to the original)."
            )
        return (
            f"{self.method}: with the top {kept} of {len(alike)} layers random the map is still the original (median "
            "|cosine| "
            f"{alike[kept - 1]:.3f}), so it does not show what these layers have learnt."
        )

    def _draw(self, ax: Any) -> None:
        for name, values in self.similarity.items():
            ax.plot([median(v) for v in values], marker="o", label=name)
        ax.set_xticks(range(len(self.names)), self.names, rotation=45, ha="right", parse_math=False)
        ax.set(ylabel=f"similarity to the original map ({self.order})", ylim=(-1.02 if ax.dataLim.y0 < 0 else 0, 1.02))
        ax.legend()


def randomized(record: L.Layer, rng: np.random.Generator) -> L.Layer:
    """The record untrained: weights N(0, 2 / fan-in) (He et al., arXiv:1502.01852), biases 0; an Embedding N(0, 1), as
    PyTorch begins; a BatchNorm or Scale the identity, other norms without weight and bias.
    """
    if isinstance(record, L.Embedding):
        return replace(record, weight=rng.standard_normal(record.weight.shape, dtype=np.float32))
    if isinstance(record, L.BatchNorm):
        ones = np.ones_like(record.variance)
        return replace(record, mean=np.zeros_like(record.mean), variance=ones, weight=None, bias=None)
    if isinstance(record, L.Scale):
        return replace(record, scale=np.ones_like(record.scale), shift=None)
    if isinstance(record, STATISTICAL):
        absent: dict[str, Any] = {key: None for key in ("weight", "bias") if hasattr(record, key)}
        return replace(record, **absent)
    assert isinstance(record, WEIGHTED)
    shape = record.weight.shape
    fan_in = int(np.prod(shape[1:]))
    if isinstance(record, L.ConvTranspose):
        fan_in = shape[0] * int(np.prod(shape[2:])) // record.groups
    weight = rng.standard_normal(shape, dtype=np.float32)
    weight *= np.float32(np.sqrt(2 / fan_in))
    return replace(record, weight=weight, bias=None if record.bias is None else np.zeros_like(record.bias))


def _affine(record: L.Layer) -> bool:
    return any(getattr(record, key, None) is not None for key in ("weight", "bias"))


def _steps(layers: list[L.Layer]) -> list[tuple[int, ...]]:
    """From the output down: each weighted layer with the affine maps that read it, each other BatchNorm, and each norm
    that has a weight or a bias. A Scale that reads something else may be fixed, and stays.
    """
    steps: dict[int, list[int]] = {}
    for position, (record, read) in enumerate(zip(layers, sources(layers), strict=True)):
        if isinstance(record, NORMS) and read[0] in steps:
            steps[read[0]].append(position)
        elif isinstance(record, (*WEIGHTED, L.Embedding, L.BatchNorm)) or (
            isinstance(record, STATISTICAL) and _affine(record)
        ):
            steps[position] = [position]
    return [tuple(steps[p]) for p in sorted(steps, reverse=True)]


def _networks(
    layers: list[L.Layer], steps: list[tuple[int, ...]], order: str, rng: np.random.Generator
) -> Iterator[list[L.Layer]]:
    current = copied(layers)
    for step in steps:
        if order == "independent":
            current = copied(layers)
        for position in step:
            current[position] = randomized(layers[position], rng)
        yield list(current)


def parameter_randomization(
    layers: Sequence[L.Layer],
    x: Any,
    target: Any = None,
    *,
    order: str = "cascading",
    attribution: Attribution = explain,
    seed: int = 0,
    **options: Any,
) -> Randomization:
    """Compare the maps of the network with those of the network with randomised layers [1]_.

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        The network; its outputs have shape (n, classes).
    x : array_like
        The inputs, as `explain` takes them.
    target : int or array_like of int, optional
        The class that is explained, one for all samples or an array of shape (n,); by default the original's largest
        output. It stays the same throughout.
    order : {"cascading", "independent"}, default "cascading"
        Whether a step randomises all layers from the output down to one, or one layer alone.
    attribution : callable, default dtdfast.explain
        What makes the maps: a callable ``(layers, x, start, **options)`` that returns them, such as `dtdfast.explain`
        or a function of `dtdfast.baselines`. The start is 1 at the class and 0 elsewhere, of shape (n, classes), or (n,
        t, classes) for t maps of each sample.
    seed : int, default 0
        The seed of what is drawn at random.
    **options
        Options of the attribution: rules, domain, backend and others.

    Returns
    -------
    Randomization
        The similarity to the original map after each step.

    Raises
    ------
    LayerError
        The order is unknown, or the network has no weights.
    ShapeError
        The outputs are no classes.

    Notes
    -----
    Relevance starts with 1 at the class, whatever the randomised output is. A class that a random network leaves
    without relevance counts as undefined (NaN), and is left out of the medians.

    Quantus's MPRT scores Spearman's correlation of the flattened maps of absolute values divided by their maximum
    (`abs` and `normalise` at their defaults). This function sums channels and keeps signs; on maps of one channel that
    are not negative the two agree. MPRT re-initialises by `reset_parameters`, and shares one seed among the layers.

    References
    ----------
    .. [1] Adebayo et al., "Sanity checks for saliency maps", arXiv:1810.03292.
    """
    if not isinstance(order, str) or order not in ("cascading", "independent"):
        raise LayerError(f'order is {order!r:.60}, expected "cascading" or "independent"')
    layers, x = opened(layers, x, split(options)[1])
    rng = np.random.default_rng(seeded(seed))
    given_by(attribution)
    steps = _steps(explained(layers, options))
    if not steps:
        raise LayerError("the network has no layer with weights to randomise")
    index, n_classes = classes(layers, x, target, options)
    start = one_hot(index, n_classes)
    original = maps_by(attribution, layers, x, start, options)
    axis = channel_axis(layers, original.ndim, options.get("stop"))
    similarities = [
        compare(original, maps_by(attribution, network, x, start, options), axis)
        for network in _networks(layers, steps, order, rng)
    ]
    names = [at(step[0], layers[step[0]]) for step in steps]
    collected = {m: np.stack([s[m] for s in similarities]) for m in MEASURES}
    return Randomization(name_of(attribution, options), order, [s[0] for s in steps], names, collected)
