"""The other rules of the LRP family, and those of what shares nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import RuleError
from ..vocabulary import (
    W_GAMMA_NEG,
    W_GAMMA_POS,
    W_NEG,
    W_ONE,
    W_POS,
    X_NEG,
    X_ONE,
    X_POS,
    W,
    X,
)
from .base import Convention, Rule
from .rows import GAMMA, Share, Term


class Zero(Rule):
    """LRP-0: n_ij = x_i w_ij, and d_j = y_j if the bias is in the denominator [1]_.

    On networks of linear layers, ReLUs and max-pools it equals gradient × input.

    Parameters
    ----------
    bias : {"signed", "none"}, optional
        The part of the bias in the denominator, where it absorbs relevance: "signed" is b, "none" nothing. By default
        the convention's choice, "signed" under "dtd".
    stabilizer : float, optional
        ε ≥ 0: the denominator d becomes d + ε·sgn d, with sgn 0 = 1. By default the convention's choice, 0 under "dtd".

    Notes
    -----
    A linear neuron of value exactly 0 has no relevance to hand on. There CPU and GPU, which carry R/x, hand on what
    gradient × input does, which sums to 0 but for the bias; the oracle hands on nothing.

    References
    ----------
    .. [1] Bach et al., "On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance
       propagation", PLOS ONE 10 (2015), doi:10.1371/journal.pone.0130140, eq. 56.
    """

    biases: ClassVar[dict[str, tuple[str | None, ...]]] = {"signed": (W,), "none": (None,)}

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        return (Share((Term(X, W),)),)


@dataclass(frozen=True)
class Epsilon(Zero):
    """LRP-ε: n_ij = x_i w_ij and d_j = y_j + ε·sgn(y_j), which absorbs relevance where y_j is small [1]_.

    Parameters
    ----------
    epsilon : float, optional
        ε ≥ 0, the same number as `stabilizer`. By default that of the convention: 1e-6 under "dtd" and "zennit", 1e-7
        under "innvestigate", 1e-9 under "captum".
    bias : {"signed", "none"}, optional
        The part of the bias in the denominator, where it absorbs relevance: "signed" is b, "none" nothing. By default
        the convention's choice, "signed" under "dtd".
    stabilizer : float, optional
        Another name of `epsilon`.

    Raises
    ------
    RuleError
        epsilon and stabilizer are given and differ.

    References
    ----------
    .. [1] Bach et al., "On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance
       propagation", PLOS ONE 10 (2015), doi:10.1371/journal.pone.0130140, eq. 58.
    """

    epsilon: float | None = None

    def __post_init__(self) -> None:
        if self.epsilon is not None:
            if self.stabilizer not in (None, self.epsilon):
                raise RuleError("Epsilon: epsilon and stabilizer are names of one number; give one, or both the same")
            object.__setattr__(self, "stabilizer", self.epsilon)
        super().__post_init__()
        object.__setattr__(self, "epsilon", None if self.epsilon is None else self.stabilizer)

    def _by_default(self, convention: Convention) -> float:
        return convention.epsilon

    def __str__(self) -> str:
        return "Epsilon" if self.stabilizer is None else f"Epsilon({self.stabilizer:g})"


@dataclass(frozen=True)
class Gamma(Rule):
    """LRP-γ: n_ij = x_i⁺ (w_ij + γ w_ij⁺) + x_i⁻ (w_ij + γ w_ij⁻) where y_j > 0, with w⁺ and w⁻ exchanged elsewhere.

    For x ≥ 0 and y > 0 this is the published rule [1]_; the rest is its reflection x → −x, y → −y. "Elsewhere" is y_j <
    0; a neuron with y_j = 0 hands nothing on.

    Parameters
    ----------
    gamma : float, default 0.25
        γ ≥ 0: how much positive contributions are favoured.
    bias : {"signed", "none", "full"}, optional
        The part of the bias in the denominator, where it absorbs relevance: "signed" is b + γ b⁺ where y > 0 and b + γ
        b⁻ where y < 0, "none" nothing, "full" b. By default the convention's choice, "signed" under "dtd".
    stabilizer : float, optional
        ε ≥ 0: the denominator d becomes d + ε·sgn d, with sgn 0 = 1. By default the convention's choice, 0 under "dtd".

    Raises
    ------
    RuleError
        `gamma` is negative or not finite.

    Notes
    -----
    Under the convention "captum" it is x_i (w_ij + γ w_ij⁺) for every sign of x and y.

    References
    ----------
    .. [1] Montavon et al., "Layer-wise relevance propagation: an overview" (2019), doi:10.1007/978-3-030-28954-6_10,
       table 10.1.
    """

    gamma: float = 0.25
    biases: ClassVar[dict[str, tuple[str | None, ...]]] = {
        "signed": (W_GAMMA_POS, W_GAMMA_NEG),
        "none": (None, None),
        "full": (W, W),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("gamma")

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        if not convention.pairs_signs:
            return (Share((Term(X, W_GAMMA_POS),)),)
        return GAMMA

    def __str__(self) -> str:
        return f"Gamma({self.gamma:g})"


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """LRP-αβ: α (x_i w_ij)⁺ / Σ_i (x_i w_ij)⁺ − β (x_i w_ij)⁻ / Σ_i (x_i w_ij)⁻, with α − β = 1 [1]_.

    Parameters
    ----------
    alpha : float, default 2.0
        α, the factor of the positive products.
    beta : float, default 1.0
        β ≥ 0, the factor of the negative products.
    fallback : bool, default False
        Whether a neuron without negative products takes α = 1 and β = 0. Otherwise such a neuron hands on α times the
        relevance that came, and the ledger shows β of it as surplus.
    bias : {"none", "by_sign", "full"}, optional
        The part of the bias in the denominator, where it absorbs relevance: "none" is nothing, "by_sign" b⁺ with α and
        b⁻ with β, "full" b with both. By default the convention's choice, "none" under "dtd".
    stabilizer : float, optional
        ε ≥ 0: the denominator d becomes d + ε·sgn d, with sgn 0 = 1. By default the convention's choice, 0 under "dtd".

    Raises
    ------
    RuleError
        α − β is not 1, or β is negative.

    Notes
    -----
    A product is negative where x w < 0; bias and stabiliser do not count. A neuron without positive products absorbs α
    of its relevance, with and without `fallback`: the ledger names the cause (bias, stabiliser or a zero denominator).
    It hands on the −β of its negative products. A BatchNorm or Scale that forms one neuron with the linear layer behind
    it has no fallback, and is refused.

    References
    ----------
    .. [1] Bach et al., "On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance
       propagation", PLOS ONE 10 (2015), doi:10.1371/journal.pone.0130140, eq. 60.
    """

    alpha: float = 2.0
    beta: float = 1.0
    fallback: bool = False
    biases: ClassVar[dict[str, tuple[str | None, ...]]] = {
        "none": (None, None),
        "by_sign": (W_POS, W_NEG),
        "full": (W, W),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("alpha")
        self._number("beta")
        if not isinstance(self.fallback, (bool, np.bool_)):
            raise RuleError(f"AlphaBeta: fallback is {self.fallback!r:.60}, expected True or False")
        if not abs(self.alpha - self.beta - 1) <= 1e-12 * max(1.0, self.alpha):
            raise RuleError(
                f"AlphaBeta: alpha - beta must be 1 and beta not negative, got alpha={self.alpha}, beta={self.beta}"
            )

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        positive = Share((Term(X_POS, W_POS), Term(X_NEG, W_NEG)), self.alpha)
        negative = Share((Term(X_POS, W_NEG), Term(X_NEG, W_POS)), -self.beta)
        return (positive, negative) if self.beta else (positive,)

    def __str__(self) -> str:
        return f"AlphaBeta({self.alpha:g},{self.beta:g})"


class Flat(Rule):
    """Flat: n_ij = 1, so every input of a neuron gets the same [1]_.

    The inputs are those that meet a weight, so padding gets nothing.

    Parameters
    ----------
    bias : {"none"}, optional
        The part of the bias in the denominator: nothing.
    stabilizer : float, optional
        ε ≥ 0: the denominator d becomes d + ε·sgn d, with sgn 0 = 1. By default the convention's choice, 0 under "dtd".

    References
    ----------
    .. [1] Lapuschkin et al., "Unmasking Clever Hans predictors and assessing what machines really learn", Nature
       Communications 10 (2019), doi:10.1038/s41467-019-08987-4.
    """

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        return (Share((Term(X_ONE, W_ONE),)),)


class Pass(Rule):
    """Relevance passes unchanged.

    It is a rule for a Scale or BatchNorm, which then folds nowhere, and for an Add, which then gives all of its
    relevance to every operand.

    Parameters
    ----------
    bias : {"none"}, optional
        Without meaning here.
    stabilizer : float, optional
        Without meaning here.
    """


class Slope(Rule):
    """Relevance times the derivative: an affine's scale, an activation's slope.

    It is the rule of zennit's parts that have none, as its drop-in says them.
    """
