"""Small networks under every preset: inputs, start relevance, and how far float32 may be from the exact map."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dtdfast as dtd
import nets
from nets import SMALL, Net

PRESETS = (
    "dtd", "lrp-0", "lrp-epsilon", "epsilon-plus", "epsilon-plus-flat", "epsilon-alpha2-beta1",
    "epsilon-alpha2-beta1-flat",
    "epsilon-gamma-box", "excitation-backprop", "cp-lrp", "attnlrp", "deep_taylor", "deep_taylor.bounded",
)  # fmt: skip
BOXED = ("epsilon-gamma-box", "deep_taylor.bounded")
N_BATCH = 2


@lru_cache
def small(name: str, bias: nets.Bias = "random") -> Net:
    return SMALL[name](bias=bias)


def positive_start(net: Net) -> NDArray[np.float32]:
    """Relevance 1 at the output that the network explains."""
    start = np.zeros((N_BATCH, *net.output_shape), np.float32)
    at = net.target if isinstance(net.target, tuple) else (0,)
    start[(slice(None), *at)] = 1
    return start


def rounding(net: Net, exact: NDArray[Any], compute: Any) -> float:
    """How far float32 may be from `exact`, as a sum of absolute differences.

    A float32 result is the exact one of a network whose weights are off by γ_n in the worst case and by u·√n typically,
    n the largest number of terms in a sum (Higham, Accuracy and Stability, 3.1). So the distance is estimated on
    networks perturbed that much; ten times it allows for the network drawn and for the relevance pass, whose sums round
    as those of the forward pass do.
    """
    n = max(
        np.size(layer.weight) // len(layer.weight) for layer in net.layers if isinstance(layer, (dtd.Linear, dtd.Conv))
    )
    scale = float(np.sqrt(n)) * 2.0**-24
    return 10 * max(float(np.abs(compute(net.perturbed(scale, seed)) - exact).sum()) for seed in range(2))
