"""Records that divide by sums over channels or outputs."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import LayerError
from ..record import Layer


@dataclass(frozen=True, eq=False)
class Softmax(Layer):
    """exp(x)/Σ exp(x) along an axis, or its logarithm.

    `explain` starts before a final Softmax. One inside a network is refused.

    Parameters
    ----------
    axis : int, default 1
        The axis, the batch axis counted.
    log : bool, default False
        Whether to take the logarithm.
    inputs, name : optional
        As in `Layer`.
    """

    axis: int = 1
    log: bool = False

    def _check(self) -> None:
        self._int("axis", None)
        self._bool("log")


@dataclass(frozen=True, eq=False)
class LRN(Layer):
    """Local response normalisation: x / (k + alpha/size · Σ x²)^beta, the sum over `size` neighbouring channels.

    Relevance passes it unchanged.

    Parameters
    ----------
    size : int
        The number of neighbouring channels.
    alpha : float, default 1e-4
        The factor of the sum, at least 0.
    beta : float, default 0.75
        The exponent.
    k : float, default 1.0
        The constant, more than 0.
    inputs, name : optional
        As in `Layer`.

    Raises
    ------
    LayerError
        k is not positive, or alpha is negative.
    """

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def _check(self) -> None:
        self._int("size", 1)
        for key in ("alpha", "beta", "k"):
            self._number(key)
        if self.k <= 0 or self.alpha < 0:
            raise LayerError(f"LRN: k must be positive and alpha not negative, got k={self.k}, alpha={self.alpha}")
