"""dtdfast as one of the tools compared."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dtdfast as dtd
from machine import threads
from nets import Net

Array = NDArray[np.float32]

Z_PLUS: dict[str, Any] = {"rules": dtd.ZPlus(), "domain": "nonnegative"}
"""What is timed: z⁺ on every layer, as the peers have it ("dtd" takes it by the sign of y)."""


def dtdfast(net: Net, precision: str = "float32") -> Callable[[Array, int], Array]:
    """z+ on every layer, on the CPU: the images are not negative."""
    options: dict[str, Any] = {"backend": "cpu", "n_threads": threads(), "precision": precision}
    explainer = dtd.Explainer(net.layers, **Z_PLUS, **options)
    return lambda images, target: explainer.explain(images, target)


def forward(net: Net) -> Callable[[Array, int], Array]:
    """`predict` alone."""
    explainer = dtd.Explainer(net.layers, backend="cpu", n_threads=threads())
    return lambda images, target: explainer.predict(images)


NARROW = {
    f"dtdfast {p}": partial(dtdfast, precision=p)
    for p in ("mixed", "bfloat16")
    if p in dtd.backends()["cpu"].precisions
}
