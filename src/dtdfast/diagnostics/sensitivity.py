"""Does a map depend on the class that it explains?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ShapeError
from ..explainer import explain
from ..layers import Layer
from ..report import Report, axes_or_current
from .attribution import Array, Attribution, classes, name_of, one_hot
from .similarity import MEASURES, compare, median


@dataclass
class ClassSensitivity(Report):
    """How alike the maps of two classes of the same inputs are.

    Attributes
    ----------
    method : what was compared
    target, other : (n,) the classes
    similarity : measure → (n,): |cosine|, |Spearman|, SSIM (larger over sign), total variation (0 the same, 1 disjoint)
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
        start = f"{self.method}: the maps of two classes have a median |cosine| of {alike:.3f}"
        if alike > 0.95:
            return f"{start}: they are one map, so it shows what the network responds to, not why it chose this class."
        if alike > 0.7:
            return f"{start}: they are largely the same, so only their difference speaks of the class."
        return f"{start}: they depend on the class."

    def plot(self, ax: Any = None) -> Any:
        ax = axes_or_current(ax)
        values = {k: v[np.isfinite(v)] for k, v in self.similarity.items() if np.isfinite(v).any()}
        ax.boxplot(list(values.values()))
        ax.set_xticks(range(1, len(values) + 1), list(values))
        ax.set(title=f"{self.method}: two classes", ylim=(0, 1.02))
        return ax


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
    """Similarity of the maps of two classes.

    Parameters
    ----------
    layers, x : the network with outputs (n, classes), and its input
    target : None (the largest output), an int or (n,) ints
    other : as `target`; None: another class drawn at random per sample, the "random logit" of Sixt et al.
        (arXiv:1912.09818, sec. 4)
    attribution : what makes the maps, see `diagnostics.attribution`
    seed : int
    options : of the attribution: rules, domain, backend, ...

    Raises
    ------
    ShapeError
        The outputs are no classes, or a class is asked for that does not exist.
    """
    index, n_classes = classes(layers, x, target, options)
    if n_classes < 2:
        raise ShapeError("the network has one output: there is no other class to compare with")
    if other is None:
        rng = np.random.default_rng(seed)
        second = (index + rng.integers(1, n_classes, len(index))) % n_classes
    else:
        second, _ = classes(layers, x, other, options)
    start = np.stack([one_hot(index, n_classes), one_hot(second, n_classes)], axis=1)
    maps: Array = attribution(layers, x, start, **options)
    similarity = compare(maps[:, 0], maps[:, 1])
    signed = {"cosine", "Spearman"}
    named = {f"|{m}|" if m in signed else m: np.abs(similarity[m]) if m in signed else similarity[m] for m in MEASURES}
    return ClassSensitivity(name_of(attribution, options), index, second, named)
