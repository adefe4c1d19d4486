"""What a Deep Taylor map is compared with: gradients and what is made of them, through the same kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays.foreign import take
from .errors import ShapeError
from .explainer import GRADIENT, Explainer
from .layers import Layer

Array = NDArray[Any]


def gradient(layers: Sequence[Layer], x: Any, target: Any = None, **options: Any) -> Any:
    """∂f/∂x of the targeted outputs, of x's shape ((n, t, ...) for several targets); ReLU'(0) = 0.

    Parameters
    ----------
    target : as in `dtdfast.explain`; a float start is multiplied with the Jacobian from the left
    options : backend, batch_size, n_threads, start, stop

    Raises
    ------
    LayerError
        A network with LRN.
    """
    return Explainer(layers, kind=GRADIENT, **options).explain(x, target)


def input_x_gradient(layers: Sequence[Layer], x: Any, target: Any = None, **options: Any) -> Any:
    """X ⊙ ∂f/∂x; equals LRP-0 with the bias in the denominator on ReLU networks (Ancona et al. 2018, prop. 1)."""
    host, home = take(x)
    g = gradient(layers, host, target, **options)
    return home.give(_over_targets(np.asarray(host), g) * g)


def sensitivity(layers: Sequence[Layer], x: Any, target: Any = None, **options: Any) -> Any:
    """(∂f/∂x)², the sensitivity analysis that Montavon et al. (arXiv:1512.02479, sec. 2) compare with."""
    return gradient(layers, x, target, **options) ** 2


def simple_taylor(layers: Sequence[Layer], x: Any, root: Any, target: Any = None, **options: Any) -> Any:
    """(x − x̃) ⊙ ∂f/∂x at x̃, the Taylor decomposition at a root x̃ of x's shape (arXiv:1512.02479, eq. 3)."""
    host, home = take(x)
    point = np.asarray(host)
    origin = np.asarray(take(root)[0])
    if origin.shape != point.shape:
        raise ShapeError(f"root has shape {origin.shape}, expected x's shape {point.shape}")
    g = gradient(layers, origin, target, **options)
    return home.give(_over_targets(point - origin, g) * g)


def _over_targets(x: Array, g: Array) -> Array:
    return (x if g.ndim == x.ndim else x[:, None]).astype(g.dtype)
