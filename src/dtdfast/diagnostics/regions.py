"""Whether two points lie in one linear region of the network, and how far the region of a point reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import host_array
from ..errors import InputError, ShapeError
from ..layers import Layer
from ..models import opened
from ..options import split
from .piecewise import Frozen, network_of


def same_region(layers: Sequence[Layer], x: Any, other: Any, **options: Any) -> NDArray[np.bool_]:
    """Whether two inputs lie in one linear region: every ReLU has the same sign and every max-pool the same winner.

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        Linear layers, pools, ReLU, leaky ReLU, clip and hard sigmoid; a final Softmax is left out.
    x : array_like
        The inputs, as `explain` takes them.
    other : array_like
        The inputs to compare with, of x's shape.
    **options
        Options of `dtdfast.Explainer`: `start` ends the network at an entry.

    Returns
    -------
    ndarray of bool, of shape (n,)
        A ReLU at exactly 0 counts as off, and the first maximum of a pool wins.

    Raises
    ------
    InputError
        The network has a Given.
    ShapeError
        x and `other` differ in shape.
    LayerError
        A layer is not piecewise linear.
    """
    layers, x = opened(layers, x, split(options)[1])
    network, point = network_of(layers, x, options)
    here = Frozen(network, layers, point)
    there = Frozen(network, layers, _like(x, other, "other"))
    same = np.ones(len(point), bool)
    for a, b in zip(here.cells(), there.cells(), strict=True):
        same &= (a == b).reshape(len(a), -1).all(axis=1)
    return same


def region_reach(layers: Sequence[Layer], x: Any, direction: Any, **options: Any) -> NDArray[np.float64]:
    """How far a ray from x stays in the linear region of x.

    It is the largest t* such that x + t·direction lies in the region for 0 ≤ t < t*.

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        As in `same_region`.
    x : array_like
        The inputs, as `explain` takes them.
    direction : array_like
        The rays' directions, of x's shape.
    **options
        Options of `dtdfast.Explainer`: `start` ends the network at an entry.

    Returns
    -------
    ndarray of float64, of shape (n,)
        t*, in units of `direction`; infinite where the ray never leaves the region.

    Raises
    ------
    InputError
        The network has a Given.
    ShapeError
        x and `direction` differ in shape.
    LayerError
        A layer is not piecewise linear.

    Notes
    -----
    With ẏ the derivative along the direction while the region stays frozen, t* is the minimum of (k − y)/ẏ over
    activations that approach a kink k, and of (x_w − x_l)/(ẋ_l − ẋ_w) over losers l of max-pools that overtake the
    winner w. This takes one forward pass and one forward-mode derivative in float64, and no search.
    """
    layers, x = opened(layers, x, split(options)[1])
    network, point = network_of(layers, x, options)
    return Frozen(network, layers, point).along({0: _like(x, direction, "direction")})[0]


def _like(x: Any, other: Any, what: str) -> NDArray[np.float64]:
    array = host_array(other, what)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{what} has dtype {array.dtype}, expected numbers")
    if array.shape != np.shape(x):
        raise ShapeError(f"{what} has shape {array.shape}, expected x's shape {np.shape(x)}")
    return array.astype(np.float64)
