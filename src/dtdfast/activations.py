"""The records of element-wise functions; their kinds are the rows of vocabulary.py.

The importers' tables name the kinds that they make and those that they lack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .errors import LayerError
from .record import Array, Layer
from .vocabulary import ACTIVATIONS as ACTIVATIONS
from .vocabulary import RELU, Function

LARGEST = float(np.finfo(np.float32).max)
OPEN = {"alpha": -np.inf, "beta": np.inf}
"""Of a clip: the end that does not bound."""


@dataclass(frozen=True, eq=False)
class ReLU(Layer):
    """max(0, x), element by element.

    Relevance passes a ReLU unchanged: it belongs to the neuron of the linear layer before.

    Parameters
    ----------
    inputs, name : optional
        As in `Layer`.
    """

    function: ClassVar[Function] = RELU


@dataclass(frozen=True, eq=False)
class Activation(Layer):
    """An element-wise function other than ReLU.

    Relevance passes it unchanged.

    Parameters
    ----------
    kind : str
        The function:

        KINDS
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
        row = self.function
        for key, default in (("alpha", row.alpha), ("beta", row.beta)):
            if getattr(self, key) is None:
                self._set(key, default)
            elif default is None:
                raise LayerError(f"Activation: {self.kind} takes no {key}")
            else:
                given = getattr(self, key)
                if self.kind == "clip" and isinstance(given, (float, np.floating)) and given == OPEN[key]:
                    self._set(key, float(np.clip(OPEN[key], -LARGEST, LARGEST)))
                self._number(key)
        if self.kind == "clip" and (not self.alpha < self.beta or (self.alpha, self.beta) == (-LARGEST, LARGEST)):  # type: ignore[operator]
            raise LayerError(
                f"Activation: clip needs alpha < beta and one of them finite, got {self.alpha} and {self.beta}"
            )
        if row.needs and not (self.alpha > 0 or (self.alpha == 0 and "=" in row.needs)):  # type: ignore[operator]
            raise LayerError(f"Activation: {self.kind} needs {row.needs}, got {self.alpha}")
        if (row.kernel is not None) != (self.slopes is not None):
            wrong = "needs slopes, one per channel" if self.slopes is None else "takes no slopes; prelu does"
            raise LayerError(f"Activation: {self.kind} {wrong}")
        if self.slopes is not None:
            self._array("slopes", (1, 2, 3, 4, 5))

    @property
    def function(self) -> Function:
        """What is known of its kind."""
        return ACTIVATIONS[self.kind]

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


_KINDS = "\n".join(f'        - "{kind}": {row.formula.replace("|x|", "``|x|``")}.' for kind, row in ACTIVATIONS.items())
Activation.__doc__ = (Activation.__doc__ or "").replace("KINDS", _KINDS.lstrip(), 1)
