"""Whether a layer list computes what the model does that it was read from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..explainer import Explainer
from ..layers import INPUT, Embedding, Layer
from ..plan.wiring import sources

Array = NDArray[Any]

# of `predict` against the model, relative to its largest output; more where the model computes in half precision
TOLERANCE = 1e-4


def random_input(layers: list[Layer], shape: tuple[int, ...], source: int = INPUT) -> Array:
    """Numbers, or words where an Embedding reads the input, or the entry `source` that stands for one."""
    rng = np.random.default_rng(0)
    for position, record in enumerate(layers):
        if isinstance(record, Embedding) and source in sources(layers)[position]:
            return rng.integers(len(record.weight), size=shape)
    return rng.standard_normal(shape, dtype=np.float32)


def difference(ours: Array, theirs: Array) -> float:
    """Largest absolute difference, relative to the largest value; infinite where one has other elements."""
    if ours.size != theirs.size or not ours.size:
        return math.inf
    scale = max(float(np.abs(theirs).max()), float(np.finfo(np.float32).tiny))
    return float(np.abs(ours.reshape(theirs.shape) - theirs).max()) / scale


def check_finite(expected: Array, by: str) -> None:
    """Raise ModelError where the model's own answer is no number."""
    if not np.isfinite(expected).all():
        raise ModelError(
            f"{by} itself gives NaN or infinity for the example: look at its weights, its masks (a row of which "
            "nothing is left) and the example"
        )


def check_outputs(
    layers: list[Layer],
    x: Array,
    expected: Array,
    tolerance: float = TOLERANCE,
    link: Callable[[Array], Array] = lambda y: y,
    given: Mapping[str, Any] | None = None,
    by: str = "the model",
    hint: str = "",
) -> None:
    """Raise ModelError where `predict`, through `link`, gives something else than the model did."""
    check_finite(expected, by)
    error = difference(link(Explainer(layers).predict(x, **(given or {}))), expected)
    if not error <= tolerance:
        raise ModelError(
            f"the output differs from {by}'s by {error:.1e} of its largest value; at most {tolerance:.0e} is "
            f"accepted{hint}"
        )
