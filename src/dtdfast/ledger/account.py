"""What an executor reports of one unit while relevance passes it; ledger.py turns it into a row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..plan.tensors import Handed
from ..plan.units import Unit
from ..show import OneLine

Float64 = NDArray[np.float64]


@dataclass
class ShareAccount(OneLine):
    """One share of a neuron's row; arrays of shape (n, *out) or broadcastable to it."""

    terms: NDArray[Any]  # Σ_i n_ij
    around: NDArray[Any]  # of these, what belongs to operands from which relevance does not come to `stop`
    bias: NDArray[Any]  # the bias in the denominator
    magnitude: NDArray[Any]  # Σ_i |in(x_i)| |wm(w_ij)|, for the rounding bound


@dataclass
class Account(OneLine):
    """Relevance on a unit's outputs and handed to its sources, with what is needed to say where the difference went."""

    unit: Unit
    r_out: Float64  # (n, *out)
    r_in: Float64  # (n,): the sum handed to all sources
    handed: Float64  # (n,): the sum of absolute values now on those sources, for the rounding bound
    passed: Handed | None = None  # of an affine unit
    y: NDArray[Any] | None = None  # pre-activations, where a share selects by their sign
    shares: list[ShareAccount] = field(default_factory=list)
