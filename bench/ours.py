"""dtdfast as one of the tools compared."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import dtdfast as dtd
from machine import threads
from nets import Net

Array = NDArray[np.float32]


def dtdfast(net: Net) -> Callable[[Array, int], Array]:
    """z+ on every layer, on the CPU: the images are not negative."""
    explainer = dtd.Explainer(net.layers, domain="nonnegative", backend="cpu", n_threads=threads())
    return lambda images, target: explainer.explain(images, target)
