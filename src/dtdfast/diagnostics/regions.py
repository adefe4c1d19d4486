"""Do two points lie in one linear region of the network, and how far does the region of a point reach?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ShapeError
from ..layers import Layer
from .piecewise import Frozen, network_of


def same_region(layers: Sequence[Layer], x: Any, other: Any, **options: Any) -> NDArray[np.bool_]:
    """Whether every ReLU has the same sign and every max-pool the same winner at x and at `other`: one convex region.

    Parameters
    ----------
    layers : list of records
        Linear layers, pools, ReLU, leaky ReLU, clip and hard sigmoid; a final Softmax is left out.
    x, other : (n, ...) float
    options : of `dtdfast.Explainer`; `start` looks at a part of the network only

    Returns
    -------
    (n,) bool. A ReLU at exactly 0 counts as off, and the first maximum of a pool wins.

    Raises
    ------
    ShapeError
        x and `other` differ in shape.
    LayerError
        A layer is not piecewise linear.
    """
    layers = list(layers)
    network, point = network_of(layers, x, options)
    here = Frozen(network, layers, point)
    there = Frozen(network, layers, _like(x, other, "other"))
    same = np.ones(len(point), bool)
    for a, b in zip(here.cells(), there.cells(), strict=True):
        same &= (a == b).reshape(len(a), -1).all(axis=1)
    return same


def region_reach(layers: Sequence[Layer], x: Any, direction: Any, **options: Any) -> NDArray[np.float64]:
    """The largest t* such that x + t·direction, 0 ≤ t < t*, stays in the linear region of x.

    t* = min over activations that head for a kink of (k − y)/ẏ, and over max-pool losers that overtake of (x_w −
    x_l)/(ẋ_l − ẋ_w), with ẏ the derivative along the direction while the pattern stays frozen: one forward pass and one
    forward-mode derivative in float64, no search.

    Parameters
    ----------
    layers, x, options : as of `same_region`
    direction : of x's shape

    Returns
    -------
    (n,) float64, in units of `direction`; inf where the ray never leaves the region.

    Raises
    ------
    ShapeError, LayerError
        As `same_region`.
    """
    layers = list(layers)
    network, point = network_of(layers, x, options)
    return Frozen(network, layers, point).along({0: _like(x, direction, "direction")})[0]


def _like(x: Any, other: Any, what: str) -> NDArray[np.float64]:
    array = np.asarray(other, np.float64)
    if array.shape != np.shape(x):
        raise ShapeError(f"{what} has shape {array.shape}, expected x's shape {np.shape(x)}")
    return array
