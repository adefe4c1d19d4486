"""The rules of Deep Taylor Decomposition: z⁺, its form by sign, w² and zB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from ..arrays.foreign import masked, take
from ..errors import DomainError, RuleError
from ..show import OneLine
from ..vocabulary import (
    W_NEG,
    W_POS,
    W_SQUARE,
    X_ABOVE_LOW,
    X_BELOW_HIGH,
    X_NEG,
    X_ONE,
    X_POS,
    W,
    X,
)
from .base import Convention, Rule
from .rows import BY_SIGN, Share, Term


def own_bound(bound: Any, what: str) -> Any:
    """A bound of a box that nobody else writes to: plans are made from it later."""
    if bound is None:
        return None
    host = take(bound, what, DomainError)[0]
    if masked(host):
        raise DomainError(f"{what} holds a masked array; say what stands for its masked values: low.filled(value)")
    try:
        array = np.array(host)
        if array.dtype.kind == "O":  # fractions and the like
            array = array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise DomainError(f"{what} cannot be read as arrays: {error}") from None
    if array.dtype.kind not in "fiub":
        raise DomainError(f"{what} holds {host!r:.60}, expected numbers")
    array.flags.writeable = False
    return array if array.ndim else array.item()


class ZPlus(Rule):
    """z⁺: n_ij = x_i⁺ w_ij⁺ + x_i⁻ w_ij⁻, the products x_i w_ij that are positive.

    For x ≥ 0 this is x w⁺ / Σ x w⁺ [1]_, the Deep Taylor rule of hidden layers.

    Parameters
    ----------
    bias : {"none", "positive", "signed"}, optional
        The part of the bias in the denominator, where it absorbs relevance: "none" is nothing, "positive" max(b, 0),
        "signed" b. By default the convention's choice, "none" under "dtd".
    stabilizer : float, optional
        ε ≥ 0: the denominator d becomes d + ε·sgn d, with sgn 0 = 1. By default the convention's choice, 0 under "dtd".

    References
    ----------
    .. [1] Montavon et al., "Explaining nonlinear classification decisions with deep Taylor decomposition",
       arXiv:1512.02479, eq. 14.
    """

    biases: ClassVar[dict[str, tuple[str | None, ...]]] = {"none": (None,), "positive": (W_POS,), "signed": (W,)}

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        if not convention.pairs_signs:
            return (Share((Term(X, W_POS),)),)
        return (Share((Term(X_POS, W_POS), Term(X_NEG, W_NEG))),)


class ZPlusBySign(Rule):
    """z⁺ by the sign of the output's value y: n_ij = (sgn(y_j) x_i w_ij)⁺, with sgn 0 = 1.

    Where y ≥ 0 this is z⁺. Where y < 0 it is z⁺ of the neuron −y = Σ x (−w) − b, so the relevance of a negative value
    goes to the inputs that made it negative. A neuron that cannot be negative, such as one behind a ReLU, takes
    `ZPlus`. It is the rule of the preset "dtd" inside a network.

    Parameters
    ----------
    bias : {"none"}, optional
        The part of the bias in the denominator: nothing.
    stabilizer : float, optional
        ε ≥ 0: the denominator d becomes d + ε·sgn d, with sgn 0 = 1. By default the convention's choice, 0 under "dtd".

    Notes
    -----
    The reflection y → −y, w → −w of z⁺ [1]_.

    References
    ----------
    .. [1] Montavon et al., "Explaining nonlinear classification decisions with deep Taylor decomposition",
       arXiv:1512.02479, eq. 14.
    """

    biases: ClassVar[dict[str, tuple[str | None, ...]]] = {"none": (None, None)}

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        return BY_SIGN


class WSquare(Rule):
    """w²: n_ij = w_ij², over the weights that meet an input.

    It is the Deep Taylor rule of a first layer with real inputs [1]_.

    Parameters
    ----------
    bias : {"none", "square"}, optional
        The part of the bias in the denominator, where it absorbs relevance: "none" is nothing, "square" b². By default
        the convention's choice, "none" under "dtd".
    stabilizer : float, optional
        ε ≥ 0: the denominator d becomes d + ε·sgn d, with sgn 0 = 1. By default the convention's choice, 0 under "dtd".

    References
    ----------
    .. [1] Montavon et al., "Explaining nonlinear classification decisions with deep Taylor decomposition",
       arXiv:1512.02479, eq. 10.
    """

    biases: ClassVar[dict[str, tuple[str | None, ...]]] = {"none": (None,), "square": (W_SQUARE,)}

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        return (Share((Term(X_ONE, W_SQUARE),)),)


@dataclass(frozen=True)
class ZBox(OneLine, Rule):
    """zB: n_ij = (x_i − low_i) w_ij⁺ + (x_i − high_i) w_ij⁻, for inputs in a box low ≤ x ≤ high.

    It is the Deep Taylor rule of a first layer with bounded inputs, such as pixels [1]_, in the form of two terms of
    one sign, which never cancel.

    Parameters
    ----------
    low, high : float or array_like, optional
        The box of this layer's input: numbers, arrays of one value per channel (axis 1, or that of a Linear), or arrays
        that broadcast to one sample of it. Give both or neither; by default the `domain` of the call. An operand
        without a box, such as an inner activation that is added to the input, takes [min(0, x), max(0, x)], which makes
        zB to z⁺.
    bias : {"none"}, optional
        The part of the bias in the denominator: nothing.
    stabilizer : float, optional
        ε ≥ 0: the denominator d becomes d + ε·sgn d, with sgn 0 = 1. By default the convention's choice, 0 under "dtd".

    Raises
    ------
    RuleError
        Only one of low and high is given.
    DomainError
        One of them holds no numbers.

    References
    ----------
    .. [1] Montavon et al., "Explaining nonlinear classification decisions with deep Taylor decomposition",
       arXiv:1512.02479, eq. 17.
    """

    takes_box: ClassVar[bool] = True
    low: ArrayLike | None = None
    high: ArrayLike | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("low", "high"):
            object.__setattr__(self, key, own_bound(getattr(self, key), "ZBox"))
        if (self.low is None) != (self.high is None):
            raise RuleError("ZBox: give both low and high, or neither (then `domain` says the box)")

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        return (Share((Term(X_ABOVE_LOW, W_POS), Term(X_BELOW_HIGH, W_NEG))),)
