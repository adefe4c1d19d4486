"""How far a map is from gradient × input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import host_array
from ..baselines import input_x_gradient
from ..calls import explain
from ..errors import TargetError, at
from ..explainer import Explainer
from ..layers import Activation, Layer
from ..layout import channel_axis
from ..models import opened
from ..options import differentiating, split
from ..plan import units as U
from ..results import Chart
from .attribution import name_of
from .similarity import cosine, largest, median, per_pixel

SAME = 1e-3  # float32 sums over a deep network differ by less
PROPORTIONAL = ("leaky_relu", "prelu", "hard_shrink")  # on both sides of 0 the quotient y/x is the slope


@dataclass
class GradientEquivalence(Chart):
    """Distances to gradient × input, Σ|a − b| / Σ|b|, as arrays of shape (n,).

    Attributes
    ----------
    method : str
        The rules of the map.
    lrp0 : ndarray of shape (n,)
        The distance of LRP-0 with the bias in the denominator: rounding only, on a ReLU network.
    distance : ndarray of shape (n,)
        The distance of the map.
    alike : ndarray of shape (n,)
        The cosine of the map and gradient × input, channels summed.
    causes : tuple of str
        The entries through which LRP-0 and the gradient go different ways; none on a network of linear layers, ReLUs
        and max-pools.
    """

    method: str
    lrp0: NDArray[np.float64]
    distance: NDArray[np.float64]
    alike: NDArray[np.float64]
    causes: tuple[str, ...] = ()

    header = ("distance to gradient × input", "median", "largest")

    def rows(self) -> list[tuple[str, ...]]:
        distances = (("LRP-0", self.lrp0), (self.method, self.distance))
        cosines = (f"cosine of {self.method}", f"{median(self.alike):.3f}", f"{largest(self.alike):.3f}")
        return [*((name, f"{np.median(v):.2g}", f"{v.max():.2g}") for name, v in distances), cosines]

    @property
    def reading(self) -> str:
        first = "LRP-0 is gradient × input here, as it must be for a ReLU network"
        if self.lrp0.max() > SAME:
            more = f"; and {len(self.causes) - 3} more like these" if len(self.causes) > 3 else ""
            rounding = "sums that cancel beyond the working precision; backend='oracle' computes in float64"
            causes = "; ".join(self.causes[:3]) + more or rounding
            first = f"LRP-0 is not gradient × input here ({causes})"
        alike = median(self.alike)
        if np.isnan(alike):
            return f"{first}; the map under {self.method}, or gradient × input, is 0: there is nothing to compare."
        far = "another explanation" if alike < 0.9 else "almost the same explanation"
        return f"{first}; the map under {self.method} is {far} (median cosine {alike:.2f})."

    def _draw(self, ax: Any) -> None:
        ax.hist(self.alike[np.isfinite(self.alike)], bins=20, range=(-1, 1))
        ax.set(xlabel=f"cosine of {self.method} and gradient × input", ylabel="samples")


def gradient_equivalence(layers: Sequence[Layer], x: Any, target: Any = None, **options: Any) -> GradientEquivalence:
    """Compare LRP-0, and a map, with gradient × input.

    On ReLU networks LRP-0 equals gradient × input [1]_.

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        The network, as `explain` takes it.
    x : array_like
        The inputs, as `explain` takes them.
    target : int or array_like of int, optional
        The output that is explained, one for all samples or one per sample; by default the largest.
    **options
        Options of `dtdfast.Explainer`: rules and domain are those of the map. backend="oracle" compares in float64.

    Returns
    -------
    GradientEquivalence
        The distances, and what causes them.

    Raises
    ------
    LayerError
        The network holds an LRN, which has no gradient here.
    TargetError
        `target` is a float start.

    References
    ----------
    .. [1] Ancona et al., "Towards better understanding of gradient-based attribution methods for deep neural networks",
       arXiv:1711.06104, proposition 1.
    """
    if target is not None and host_array(target, "target", TargetError).dtype.kind == "f":
        raise TargetError("target is a float start, expected classes: LRP-0 begins with the output itself")
    known, given = split(options)
    layers, x = opened(layers, x, given)
    kept = differentiating(known) | {key: known[key] for key in ("start", "stop") if key in known}
    expected = np.asarray(input_x_gradient(layers, x, target, **kept, **given))
    zero = np.asarray(explain(layers, x, target, rules="lrp-0", **kept, **given))
    relevance = np.asarray(explain(layers, x, target, **options))
    n = len(relevance)
    size = np.abs(expected).reshape(n, -1).sum(axis=1, dtype=np.float64)

    def distance(a: NDArray[Any]) -> NDArray[np.float64]:
        difference = np.abs(a - expected).reshape(n, -1).sum(axis=1, dtype=np.float64)
        return np.asarray(difference / np.where(size > 0, size, 1), np.float64)

    axis = channel_axis(layers, relevance.ndim, known.get("stop"))
    alike = cosine(per_pixel(relevance, axis), per_pixel(expected, axis))
    return GradientEquivalence(
        name_of(explain, options), distance(zero), distance(relevance), alike, _causes(layers, x, kept)
    )


def _causes(layers: Sequence[Layer], x: Any, options: dict[str, Any]) -> tuple[str, ...]:
    """The units through which LRP-0 and gradient × input go different ways: f(y)/y is not f'(y), one factor takes all,
    or weights that depend on x are held.
    """
    network = Explainer(layers, rules="lrp-0", **options).plan_for(np.shape(x)).program.network
    causes = []
    for unit in network.units:
        where, activation = at(unit.position, layers[unit.position]), getattr(unit, "activation", None)
        if not unit.in_relevance:
            continue
        if isinstance(activation, Activation) and activation.kind not in PROPORTIONAL:
            causes.append(f"{where}: the quotient of {activation.kind} and its input is not its slope")
        elif isinstance(unit, U.Gating):
            causes.append(f"{where}: relevance goes to the signal, the gradient to the gate too")
        elif isinstance(unit, U.Norm):
            causes.append(f"{where}: relevance takes the scale for a constant, the gradient does not")
        elif isinstance(unit, U.Attention):
            causes.append(f"{where}: relevance goes to the values, the gradient to the attention weights too")
    return tuple(causes)
