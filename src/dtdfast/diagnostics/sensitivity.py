"""Whether a map depends on the class that it explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calls import explain
from ..errors import InputError, ShapeError
from ..layers import Layer
from ..layout import channel_axis
from ..models import opened
from ..options import seeded, split
from ..results import Chart
from ..verdicts import CLASS
from .attribution import Attribution, classes, given_by, maps_by, name_of, one_hot
from .similarity import MEASURES, compare, median


@dataclass
class ClassSensitivity(Chart):
    """How similar the maps of two classes of the same inputs are.

    Attributes
    ----------
    method : str
        What was compared.
    target, other : ndarray of shape (n,)
        The classes.
    similarity : dict of str to ndarray of shape (n,)
        By measure: ``|cosine|``, ``|Spearman|``, SSIM (the larger one over the sign), and total variation (0 for equal
        maps, 1 for disjoint ones).
    """

    method: str
    target: NDArray[np.intp]
    other: NDArray[np.intp]
    similarity: dict[str, NDArray[np.float64]]

    header = ("two classes' maps", "median", "lower quartile", "upper quartile")

    def rows(self) -> list[tuple[str, ...]]:
        result = []
        for name, values in self.similarity.items():
            known = values[np.isfinite(values)]
            cells = [f"{q:.4f}" for q in np.percentile(known, [50, 25, 75])] if known.size else ["undefined"] * 3
            result.append((name, *cells))
        return result

    @property
    def reading(self) -> str:
        alike = median(self.similarity["|cosine|"])
        if np.isnan(alike):
            return f"{self.method}: of no input are there two maps to compare: a map that is 0 is like no other."
        start = f"{self.method}: the maps of two classes have a median |cosine| of {alike:.3f}"
        largely, wholly = CLASS.bounds
        if alike > wholly:
            return f"{start}: they are one map, so it shows what the network responds to, not why it chose this class."
        if alike > largely:
            return f"{start}: they are largely the same, so only their difference speaks of the class."
        return f"{start}: they depend on the class."

    def _draw(self, ax: Any) -> None:
        values = {k: v[np.isfinite(v)] for k, v in self.similarity.items() if np.isfinite(v).any()}
        ax.boxplot(list(values.values()))
        ax.set_xticks(range(1, len(values) + 1), list(values))
        ax.set_title(f"{self.method}: two classes", parse_math=False)
        ax.set_ylim(0, 1.02)


def class_sensitivity(
    layers: Sequence[Layer],
    x: Any,
    target: Any = None,
    other: Any = None,
    *,
    attribution: Attribution = explain,
    seed: int = 0,
    **options: Any,
) -> ClassSensitivity:
    """Compare the maps of two classes.

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        The network; its outputs have shape (n, classes).
    x : array_like
        The inputs, as `explain` takes them.
    target : int or array_like of int, optional
        The class that is explained, one for all samples or an array of shape (n,); by default the largest output of
        each sample.
    other : int or array_like of int, optional
        The class to compare with, as `target`; by default another class drawn at random for each sample, the "random
        logit" of [1]_.
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
    ClassSensitivity
        The similarity by several measures.

    Raises
    ------
    ShapeError
        The outputs are no classes, there is only one, or a class is asked for that does not exist.
    InputError
        Both classes of a sample are the same.

    References
    ----------
    .. [1] Sixt et al., "When explanations lie: why many modified BP attributions fail", arXiv:1912.09818, section 4.
    """
    layers, x = opened(layers, x, split(options)[1])
    rng = np.random.default_rng(seeded(seed))
    given_by(attribution)
    index, n_classes = classes(layers, x, target, options)
    if n_classes < 2:
        raise ShapeError("the network has one output: there is no other class to compare with")
    if other is None:
        second = (index + rng.integers(1, n_classes, len(index))) % n_classes
    else:
        second, _ = classes(layers, x, other, options)
        if (index == second).any():
            same = int(np.argmax(index == second))
            raise InputError(
                f"other is {second[same]}, the class that is explained of sample {same}: name another, or leave it out"
            )
    start = np.stack([one_hot(index, n_classes), one_hot(second, n_classes)], axis=1)
    maps = maps_by(attribution, layers, x, start, options)
    similarity = compare(maps[:, 0], maps[:, 1], channel_axis(layers, maps.ndim - 1, options.get("stop")))
    signed = {"cosine", "Spearman"}
    named = {f"|{m}|" if m in signed else m: np.abs(similarity[m]) if m in signed else similarity[m] for m in MEASURES}
    return ClassSensitivity(name_of(attribution, options), index, second, named)
