"""Taylor terms of first and second order of a smooth network, and what they leave out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import host_array
from ..errors import InputError, ShapeError, TargetError
from ..explainer import Explainer
from ..layers import Layer
from ..models import opened
from ..options import OF_RULES, split
from ..plan.program import GRADIENT
from ..results import Report, number

Floats = NDArray[np.float64]

STEP = float(np.finfo(np.float64).eps) ** (1 / 3)
"""Step of the central difference, relative to the way from the root to x: its own error and rounding are then both of
size u^(2/3)."""

KINK = 1e-3
"""Of twice the change within a step, how far that within two steps may be from it: beyond, the gradient jumps there."""

FLAT = 1e-8
"""Change of the gradient within a step, relative to it, that is no jump: rounding, or hardly any curvature."""


@dataclass
class TaylorTerms(Report):
    """The expansion of outputs at root points.

    Attributes
    ----------
    first, second : ndarray of shape (n, ...)
        The terms of first and of second order, each input's own; of x's shape. Those of second order are NaN where the
        root lies on a kink: the gradient jumps there, and there is no Hessian.
    outputs, at_root : ndarray of shape (n,)
        The explained outputs at x and at the root.
    """

    first: Floats
    second: Floats
    outputs: Floats
    at_root: Floats

    header = ("sample", "f(x) − f(root)", "first order", "second order", "left out")

    @property
    def left_out(self) -> Floats:
        """f(x) − f(root) − Σ first: what a map of first order leaves out, of shape (n,)."""
        return self.outputs - self.at_root - _sums(self.first)

    @property
    def rest(self) -> Floats:
        """What both orders leave out, of shape (n,)."""
        return self.left_out - _sums(self.second)

    def rows(self) -> list[tuple[str, ...]]:
        columns = (self.outputs - self.at_root, _sums(self.first), _sums(self.second), self.rest)
        return [(str(i), *map(number, cells)) for i, cells in enumerate(zip(*columns, strict=True))]

    @property
    def reading(self) -> str:
        change = np.abs(self.outputs - self.at_root)
        known, kinked = change > 0, np.isnan(self.rest)
        if not known.any():
            return "The outputs at x and at the root are equal: there is nothing to share out."
        kinks = f" {int(kinked.sum())} root(s) lie on a kink, where there is no second order." if kinked.any() else ""
        first, both = (
            f"{np.median(np.abs(part[some]) / change[some]):.0%}" if some.any() else "an unknown part"
            for part, some in ((self.left_out, known), (self.rest, known & ~kinked))
        )
        return (
            f"A map of first order leaves out {first} of f(x) − f(root), both orders leave out {both} "
            f"(medians of {int(known.sum())} sample(s)).{kinks}"
        )


def taylor_terms(
    layers: Sequence[Layer], x: Any, target: Any = None, *, root: Any = 0.0, **options: Any
) -> TaylorTerms:
    """Expand outputs at a root point to second order, with H the Hessian of f.

        first_i = v_i ∂f/∂x_i(root),    second_i = v_i (H(root) v)_i / 2,    v = x − root

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        The network, as `explain` takes it.
    x : array_like of float
        The inputs, n of them.
    target : int, array_like of int or None, default None
        The output that is expanded, as in `dtdfast.explain`, one for each sample; by default its largest one at x.
    root : float or array_like, default 0.0
        Where it is expanded: a number, or an array that broadcasts to x.
    **options
        Options of `dtdfast.Explainer`: backend ("cpu" by default), n_threads, device; and what the network's Givens are
        called.

    Returns
    -------
    TaylorTerms
        The terms, and properties that say what they leave out.

    Raises
    ------
    ShapeError
        The root does not fit x, or the outputs are no classes.
    TargetError
        `target` is no integer, nor one for each sample, or no such output exists.
    LayerError
        The network holds an LRN, which has no gradient here.

    Notes
    -----
    H v is a central difference of two gradients in float64. Within a linear region of a ReLU network all terms beyond
    the first vanish: there Σ first = f(x) − f(root) exactly. Where the way from the root to x leaves the region, they
    still vanish at the root, and say nothing about what first order leaves out; `left_out` says it. Terms of second
    order speak where activations are smooth (softplus, GELU, tanh) or where inputs are multiplied.
    """
    known, given = split(options, *OF_RULES, "stop")
    layers, x = opened(layers, x, given)
    exact = {"backend": "cpu", "precision": "float64"} | known
    array, at = (floats_of(values, name) for values, name in ((x, "x"), (root, "root")))
    try:
        at = np.broadcast_to(at, array.shape)
    except ValueError:
        raise ShapeError(f"root has shape {np.shape(root)}, but x has shape {array.shape}") from None
    explainer = Explainer(layers, kind=GRADIENT, **exact)

    def gradients(where: Floats, classes: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """∂f/∂x of each sample's class, and that output."""
        found, outputs = explainer.explain(where, classes, return_outputs=True, **given)
        return found, outputs[np.arange(len(where)), classes]

    index = _classes(explainer, array, target, given)
    way = array - at
    _, outputs = gradients(array, index)
    slope, at_root = gradients(at, index)

    def change(steps: float) -> tuple[Floats, Floats]:
        """Of the gradient from before the root to behind it, and the gradient's largest element there."""
        behind, before = (gradients(at + sign * steps * STEP * way, index)[0] for sign in (1, -1))
        return behind - before, np.maximum(_largest(behind), _largest(before))

    near, size = change(1)
    if (bends := _largest(near) > FLAT * size).any():  # twice as much within two steps, where it has a slope
        jumps = _largest(change(2)[0] - 2 * near) > KINK * _largest(near)
        near[bends & jumps] = np.nan
    return TaylorTerms(way * slope, way * near / (4 * STEP), outputs, at_root)


def floats_of(values: Any, name: str) -> Floats:
    """InputError where these are no real numbers."""
    array = host_array(values, name)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} has dtype {array.dtype}, expected numbers")
    return array.astype(np.float64)


def _classes(explainer: Explainer, x: Floats, target: Any, given: dict[str, Any]) -> NDArray[np.int64]:
    """The class of each sample that is expanded."""
    outputs = explainer.predict(x, **given)
    if outputs.ndim != 2:
        raise ShapeError(f"the outputs are {outputs.shape}, expected (n, classes)")
    if target is None:
        return np.asarray(outputs.argmax(axis=1), np.int64)
    index = host_array(target, "target", TargetError)
    if index.dtype.kind not in "iu" or index.shape not in ((), (len(x),)):
        raise TargetError(f"target is {target!r:.60}, expected one integer, or one for each of {len(x)} samples")
    return np.full(len(x), index, np.int64)


def _largest(terms: Floats) -> Floats:
    """Largest absolute value of each sample."""
    result: Floats = np.abs(terms.reshape(len(terms), -1)).max(axis=1, initial=0.0)
    return result


def _sums(terms: Floats) -> Floats:
    result: Floats = terms.reshape(len(terms), -1).sum(axis=1)
    return result
