"""Rules as rows: how one layer shares the relevance of its outputs among its inputs.

Every rule is a row of shares, every share a list of terms in(x_i)·wm(w_ij):

    n_ij = Σ_terms in(x_i) wm(w_ij)    d_j = Σ_i n_ij + bias + stabilizer·sgn    R_i←j = coefficient · n_ij / d_j · R_j

(0/0 := 0; sgn 0 := +1). The same terms stand above and below the fraction, so conservation holds by construction. A
share may be selected by the sign of the pre-activation y_j. Formulas: Montavon et al., "Explaining nonlinear
classification decisions with deep Taylor decomposition" (arXiv:1512.02479) for w², z⁺ and zB; Bach et al. 2015
(doi:10.1371/journal.pone.0130140) for LRP-0, ε and αβ; Montavon et al. 2019 (doi:10.1007/978-3-030-28954-6_10) for γ;
Lapuschkin et al. 2019 for flat.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from numpy.typing import ArrayLike

from .errors import RuleError
from .show import OneLine
from .vocabulary import (
    INPUT_MAPS,
    W_GAMMA_NEG,
    W_GAMMA_POS,
    W_NEG,
    W_ONE,
    W_POS,
    W_SQUARE,
    WEIGHT_MAPS,
    X_ABOVE_LOW,
    X_BELOW_HIGH,
    X_NEG,
    X_ONE,
    X_POS,
    W,
    X,
)


@dataclass(frozen=True)
class Term:
    x: str
    w: str


@dataclass(frozen=True)
class Share:
    """Terms over one denominator; `select` is the sign of y_j at which it holds, `bias` the weight map of the bias in
    it.
    """

    terms: tuple[Term, ...]
    coefficient: float = 1.0
    select: str = "all"  # "all", "y>0", "y>=0", "y<0"
    bias: str | None = None


@dataclass(frozen=True)
class Row:
    """What a layer does, ready for an executor."""

    label: str
    shares: tuple[Share, ...]
    stabilizer: float = 0.0
    gamma: float = 0.0
    fallback: bool = False

    @property
    def falls_back(self) -> bool:
        """Whether the first share takes the coefficient 1, and the second 0, where the second has no term (Σ of its
        terms is 0).
        """
        return self.fallback and len(self.shares) == 2

    @property
    def holds_bias(self) -> bool:
        """Whether a bias stands in a denominator, and so absorbs relevance."""
        return any(share.bias is not None for share in self.shares)

    @property
    def by_sign(self) -> bool:
        """Whether every neuron takes one of two shares, whose sums with its bias make up y."""
        return [share.select for share in self.shares] == ["y>=0", "y<0"]

    @property
    def product_form(self) -> bool:
        return all(INPUT_MAPS[term.x].product is not None for share in self.shares for term in share.terms)


@dataclass(frozen=True)
class Convention:
    """Whose habits the maps follow where a rule leaves them open (explicit field > convention > the rule's default)."""

    name: str
    biases: dict[str, str] = field(default_factory=dict)  # rule's name → its default bias
    stabilizer: float = 0.0  # of every rule but Epsilon
    epsilon: float = 1e-6  # of Epsilon
    pool: Rule | None = None  # rule of average and sum pools; None: the preset's
    add: Rule | None = None  # rule of an Add; None: one neuron with its linear operands
    affine: Rule | None = None  # rule of an affine that cannot fold; None: that of the linear layers of its kind
    winner: Rule | None = None  # how a max-pool's output shares with its winner; None: all of it
    pairs_signs: bool = True  # z⁺ and γ of a negative input: x⁻w⁻, x⁻(w+γw⁻) (True) or x·w⁺, x(w+γw⁺) (False)
    # nothing that counts in float32 keeps its denominators from 0: where they may cancel it takes float64
    unheld: bool = False


@dataclass(frozen=True)
class Rule:
    """Base of the rules; those with fields of their own are frozen dataclasses as it is, the others inherit that.

    Parameters
    ----------
    bias : {"none", "positive", "signed", "by_sign", "full", "square"}, optional
        What of the bias stands in the denominator (and so absorbs relevance); None: by convention.
    stabilizer : float, optional
        ε of d + ε·sgn d; None: by convention.
    """

    bias: str | None = field(default=None, kw_only=True)
    stabilizer: float | None = field(default=None, kw_only=True)

    # bias name → the bias's weight map in each share; the first is the default
    biases: ClassVar[dict[str, tuple[str | None, ...]]] = {"none": (None,)}

    def __post_init__(self) -> None:
        if self.bias is not None and self.bias not in self.biases:
            raise RuleError(f"{self.name}: bias {self.bias!r} is not one of {', '.join(self.biases)}")
        if self.stabilizer is not None and not 0 <= self.stabilizer < float("inf"):
            raise RuleError(f"{self.name}: stabilizer is {self.stabilizer!r}, expected a number of at least 0")

    @property
    def name(self) -> str:
        return type(self).__name__

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        """The row's shares without their bias."""
        raise RuleError(f"{self.name} has no row of terms")

    def row(self, convention: Convention) -> Row:
        """The rule under a convention."""
        bias = self.bias or convention.biases.get(self.name) or next(iter(self.biases))
        shares = tuple(
            Share(s.terms, s.coefficient, s.select, b)
            for s, b in zip(self.shares(convention), self.biases[bias], strict=False)
        )
        _check_words(self, shares)
        stabilizer = self.stabilizer
        if stabilizer is None:
            stabilizer = convention.epsilon if isinstance(self, Epsilon) else convention.stabilizer
        return Row(str(self), shares, stabilizer, getattr(self, "gamma", 0.0), getattr(self, "fallback", False))

    def __str__(self) -> str:
        return self.name


def _check_words(rule: Rule, shares: tuple[Share, ...]) -> None:
    """RuleError where a rule names a map that no executor has."""
    for share in shares:
        for word in (share.bias, *(term.w for term in share.terms)):
            if word is not None and word not in WEIGHT_MAPS:
                raise RuleError(f"{rule}: {word!r} is no weight map; there are {', '.join(WEIGHT_MAPS)}")
        for term in share.terms:
            if term.x not in INPUT_MAPS or INPUT_MAPS[term.x].times is None:
                known = (name for name, row in INPUT_MAPS.items() if row.times is not None)
                raise RuleError(f"{rule}: {term.x!r} is no input map of a rule; there are {', '.join(known)}")


class ZPlus(Rule):
    """z⁺ (inputs ≥ 0): x w⁺ / Σ x w⁺; with inputs of any sign (xw)⁺ / Σ (xw)⁺.  arXiv:1512.02479, eq. 14."""

    biases: ClassVar[dict[str, tuple[str | None, ...]]] = {"none": (None,), "positive": (W_POS,), "signed": (W,)}

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        if not convention.pairs_signs:
            return (Share((Term(X, W_POS),)),)
        return (Share((Term(X_POS, W_POS), Term(X_NEG, W_NEG))),)


class ZPlusBySign(Rule):
    """z⁺ by the sign of y: (sgn(y) x w)⁺ / Σ (sgn(y) x w)⁺, sgn 0 = +1.

    Z⁺ where y ≥ 0; the reflection y → −y, w → −w where y < 0, so that a negative value's relevance goes to what made it
    negative. A neuron that is known to be ≥ 0, as behind a ReLU, takes z⁺. What "dtd" does inside a network.
    """

    biases: ClassVar[dict[str, tuple[str | None, ...]]] = {"none": (None, None)}

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        return (
            Share((Term(X_POS, W_POS), Term(X_NEG, W_NEG)), select="y>=0"),
            Share((Term(X_POS, W_NEG), Term(X_NEG, W_POS)), select="y<0"),
        )


class WSquare(Rule):
    """w² (real inputs): w² / Σ w² over the valid taps.  arXiv:1512.02479, eq. 10."""

    biases: ClassVar[dict[str, tuple[str | None, ...]]] = {"none": (None,), "square": (W_SQUARE,)}

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        return (Share((Term(X_ONE, W_SQUARE),)),)


@dataclass(frozen=True)
class ZBox(OneLine, Rule):
    """zB (low ≤ x ≤ high): ((x−low) w⁺ + (x−high) w⁻) / Σ, the two-term form that never cancels. arXiv:1512.02479, eq.
    17.

    low, high : float, (c,) or full arrays, optional
        The box of this layer's input; None: the call's `domain`. An operand without a box (an inner activation that
        meets the input in one layer) takes [min(0,x), max(0,x)], which is z⁺.
    """

    low: ArrayLike | None = None
    high: ArrayLike | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.low is None) != (self.high is None):
            raise RuleError("ZBox: give both low and high, or neither (then `domain` says the box)")

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        return (Share((Term(X_ABOVE_LOW, W_POS), Term(X_BELOW_HIGH, W_NEG))),)


class Zero(Rule):
    """LRP-0: x w / y.  doi:10.1371/journal.pone.0130140, eq. 56."""

    biases: ClassVar[dict[str, tuple[str | None, ...]]] = {"signed": (W,), "none": (None,)}

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        return (Share((Term(X, W),)),)


@dataclass(frozen=True)
class Epsilon(Zero):
    """ε: x w / (y + ε·sgn y); ε is the stabilizer.  doi:10.1371/journal.pone.0130140, eq. 58."""

    epsilon: float | None = None

    def __post_init__(self) -> None:
        if self.epsilon is not None:
            if self.stabilizer is not None:
                raise RuleError("Epsilon: epsilon and stabilizer are the same number; give one")
            object.__setattr__(self, "stabilizer", self.epsilon)
        super().__post_init__()

    def __str__(self) -> str:
        return "Epsilon" if self.stabilizer is None else f"Epsilon({self.stabilizer:g})"


@dataclass(frozen=True)
class Gamma(Rule):
    """γ: x⁺(w+γw⁺) + x⁻(w+γw⁻) where y > 0, x⁺(w+γw⁻) + x⁻(w+γw⁺) where y < 0, over their sum with the bias likewise.

    For x ≥ 0 and y > 0 this is doi:10.1007/978-3-030-28954-6_10, table 10.1; the rest is its reflection x → −x, y → −y.
    """

    gamma: float = 0.25
    biases: ClassVar[dict[str, tuple[str | None, ...]]] = {
        "signed": (W_GAMMA_POS, W_GAMMA_NEG),
        "none": (None, None),
        "full": (W, W),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.gamma < float("inf"):
            raise RuleError(f"Gamma: gamma is {self.gamma!r}, expected a number of at least 0")

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        if not convention.pairs_signs:
            return (Share((Term(X, W_GAMMA_POS),)),)
        return (
            Share((Term(X_POS, W_GAMMA_POS), Term(X_NEG, W_GAMMA_NEG)), select="y>0"),
            Share((Term(X_POS, W_GAMMA_NEG), Term(X_NEG, W_GAMMA_POS)), select="y<0"),
        )

    def __str__(self) -> str:
        return f"Gamma({self.gamma:g})"


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """αβ: α (xw)⁺/Σ(xw)⁺ − β (xw)⁻/Σ(xw)⁻ with α − β = 1.  doi:10.1371/journal.pone.0130140, eq. 60.

    Where a neuron has no negative term (no x w < 0; its bias and a stabilizer do not count), there is nothing that β
    relevance could be taken from: α relevance leaves for 1 that came (the ledger shows β as surplus), whatever stands
    in the denominators; `fallback` takes α = 1, β = 0 there instead. Where it has no positive term, α relevance has
    nowhere to go and is absorbed (by the bias, the stabilizer or a zero denominator, as the ledger says), with
    `fallback` or without; the −β of the negative terms are handed on. A BatchNorm or Scale that is one neuron with the
    linear layer behind it has no fallback: RuleError.
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
        if not (self.beta >= 0 and abs(self.alpha - self.beta - 1) <= 1e-12 * max(1.0, abs(self.alpha))):
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
    """flat: 1 / number of valid taps."""

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        return (Share((Term(X_ONE, W_ONE),)),)


class Pass(Rule):
    """Relevance passes unchanged: through an affine that cannot fold; an Add under it gives all of it to every
    operand.
    """


# The gradient ∂y_f/∂x in the same machinery: c_i = Σ_j w_ij act'(y_j) c_j. Not a rule to choose; `dtdfast.baselines`
# uses it.
GRADIENT = Row("gradient", (Share((Term(X, W),)),))

CONVENTIONS = {
    c.name: c
    for c in (
        Convention("dtd"),
        Convention(
            "zennit",
            {"ZPlus": "positive", "AlphaBeta": "by_sign", "WSquare": "square"},
            stabilizer=1e-6,
            pool=Zero(),
            add=Zero(),
            affine=Pass(),
        ),
        Convention(
            "captum",
            {"ZPlus": "signed", "Gamma": "full"},
            stabilizer=1e-9,
            epsilon=1e-9,
            pool=Zero(),
            add=Zero(),
            affine=Epsilon(),
            winner=Zero(),
            pairs_signs=False,
            unheld=True,
        ),
        Convention("innvestigate", {"AlphaBeta": "full"}, epsilon=1e-7, pool=Zero(), add=Zero(), affine=Pass()),
    )
}


def convention_of(name: str) -> Convention:
    if name not in CONVENTIONS:
        raise RuleError(f"convention {name!r} is not one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]
