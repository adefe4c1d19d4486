"""Element-wise functions: the one list of their kinds, and the records that hold them.

What each kind computes stands in oracle/maths.py, csrc/rows/activation.c and cuda/kernels/formulas.py, what is known
of its sign in plan/signs.py; the importers' tables name those that they make and those that they lack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import LayerError
from .record import Array, Layer

LARGEST = float(np.finfo(np.float32).max)
OPEN = {"alpha": -np.inf, "beta": np.inf}
"""Of a clip: the end that does not bound."""

ACTIVATIONS: dict[str, tuple[float | None, float | None]] = {  # kind → defaults of alpha and beta (None: takes none)
    "leaky_relu": (0.01, None),
    "prelu": (None, None),
    "clip": (0.0, 6.0),
    "threshold": (1.0, 0.0),
    "hard_shrink": (0.5, None),
    "soft_shrink": (0.5, None),
    "tanh_shrink": (None, None),
    "elu": (1.0, None),
    "selu": (None, None),
    "celu": (1.0, None),
    "silu": (1.0, None),
    "gelu": (None, None),
    "gelu_tanh": (None, None),
    "mish": (None, None),
    "sigmoid": (None, None),
    "hard_sigmoid": (1 / 6, 0.5),
    "log_sigmoid": (None, None),
    "hard_swish": (None, None),
    "tanh": (None, None),
    "softplus": (1.0, None),
    "softsign": (None, None),
}
_POSITIVE = ("softplus", "celu")  # whose alpha is more than 0
_NOT_NEGATIVE = ("hard_shrink", "soft_shrink")  # whose alpha is at least 0


@dataclass(frozen=True, eq=False)
class ReLU(Layer):
    """max(0, x), element by element.

    Relevance passes a ReLU unchanged: it belongs to the neuron of the linear layer before.

    Parameters
    ----------
    inputs, name : optional
        As in `Layer`.
    """


@dataclass(frozen=True, eq=False)
class Activation(Layer):
    """An element-wise function other than ReLU.

    Relevance passes it unchanged.

    Parameters
    ----------
    kind : str
        The function:

        - "leaky_relu": x where x > 0, else alpha·x. "prelu": the same with `slopes`.
        - "clip": min(max(x, alpha), beta). One of the bounds may be infinite; it becomes the largest float32.
        - "threshold": x where x > alpha, else beta.
        - "hard_shrink": x where ``|x|`` > alpha, else 0. "soft_shrink": x − clip(x, −alpha, alpha). "tanh_shrink": x −
          tanh x.
        - "elu": x where x > 0, else alpha·(eˣ − 1). "celu": x where x > 0, else alpha·(e^(x/alpha) − 1). "selu": a
          scaled elu with the constants of [1]_.
        - "silu": x·sigmoid(alpha·x). "gelu": x·Φ(x). "gelu_tanh": its approximation by a tanh. "mish": x·tanh(log(1 +
          eˣ)).
        - "sigmoid". "hard_sigmoid": clip(alpha·x + beta, 0, 1). "log_sigmoid". "hard_swish": x·clip(x/6 + 1/2, 0, 1).
        - "tanh". "softplus": log(1 + e^(alpha·x))/alpha. "softsign": x/(1 + ``|x|``).
    alpha, beta : float, optional
        The numbers in the formulas above; by default those of the kind in `dtdfast.layers.ACTIVATIONS`.
    slopes : array_like, optional
        Of "prelu" alone, which needs them: one slope per channel (axis 1), or one per element of a sample.
    inputs, name : optional
        As in `Layer`.

    Raises
    ------
    LayerError
        The kind is unknown, or does not take a number that was given.

    Notes
    -----
    The derivative, which gradients use, is the one from the left at a kink. At the ends of a clip, a shrink or a
    threshold it is that of the flat piece; at those of hard_swish it is that of the outer piece.

    References
    ----------
    .. [1] Klambauer et al., "Self-normalizing neural networks", arXiv:1706.02515.
    """

    kind: str
    alpha: float | None = None
    beta: float | None = None
    slopes: Array | None = None

    def _check(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in ACTIVATIONS:
            raise LayerError(f"Activation: {self.kind!r} is not one of {', '.join(ACTIVATIONS)}")
        for key, default in zip(("alpha", "beta"), ACTIVATIONS[self.kind], strict=True):
            if getattr(self, key) is None:
                self._set(key, default)
            elif default is None:
                raise LayerError(f"Activation: {self.kind} takes no {key}")
            else:
                if self.kind == "clip" and getattr(self, key) == OPEN[key]:
                    self._set(key, float(np.clip(OPEN[key], -LARGEST, LARGEST)))
                self._number(key)
        if self.kind == "clip" and (not self.alpha < self.beta or (self.alpha, self.beta) == (-LARGEST, LARGEST)):  # type: ignore[operator]
            raise LayerError(
                f"Activation: clip needs alpha < beta and one of them finite, got {self.alpha} and {self.beta}"
            )
        if self.kind in _POSITIVE and not self.alpha > 0:  # type: ignore[operator]
            raise LayerError(f"Activation: {self.kind} needs alpha > 0, got {self.alpha}")
        if self.kind in _NOT_NEGATIVE and not self.alpha >= 0:  # type: ignore[operator]
            raise LayerError(f"Activation: {self.kind} needs alpha >= 0, got {self.alpha}")
        if (self.kind == "prelu") != (self.slopes is not None):
            wrong = "needs slopes, one per channel" if self.slopes is None else "takes no slopes; prelu does"
            raise LayerError(f"Activation: {self.kind} {wrong}")
        if self.slopes is not None:
            self._array("slopes", (1, 2, 3, 4, 5))

    def slopes_for(self, rank: int) -> Array:
        """The slopes of a prelu, of a shape that broadcasts against samples.

        Parameters
        ----------
        rank : int
            The number of axes of a sample.

        Returns
        -------
        ndarray
            One slope per channel or element.
        """
        assert self.slopes is not None
        return self.slopes.reshape(-1, *(1,) * (rank - 1)) if self.slopes.ndim == 1 else self.slopes
