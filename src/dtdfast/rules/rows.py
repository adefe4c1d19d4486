"""Rows, shares and terms: what an executor follows, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..locks import cached_property
from ..vocabulary import (
    INPUT_MAPS,
    W_GAMMA_NEG,
    W_GAMMA_POS,
    W_NEG,
    W_POS,
    WEIGHT_MAPS,
    X_ABS,
    X_NEG,
    X_POS,
    W,
    X,
)

SELECTS = ("all", "y>0", "y<0")


WITH_Y = {(X, W_POS), (X_POS, W_POS), (X_NEG, W_NEG)}  # products that are ≥ 0, (X, W_POS) where x ≥ 0


AGAINST_Y = {(X_POS, W_NEG), (X_NEG, W_POS)}


OF_RULES = {"x": tuple(name for name in INPUT_MAPS if name != X_ABS), "w": tuple(WEIGHT_MAPS)}
"""The maps that a rule may name."""


@dataclass(frozen=True)
class Term:
    """One product in(x_i)·wm(w_ij) of a rule's numerator.

    Parameters
    ----------
    x : {"x", "x+", "x-", "1", "x-low", "x-high"}
        The input map: x, max(x, 0), min(x, 0), 1, x − low, x − high. The last two need the box of a `ZBox` or of a
        subclass of it.
    w : {"w", "w+", "w-", "w2", "1", "|w|", "w+g.w+", "w+g.w-"}
        The weight map: w, max(w, 0), min(w, 0), w², 1, ``|w|``, w + γ max(w, 0), w + γ min(w, 0). γ is the rule's field
        `gamma`, or 0 if it has none. "1" is 1 for every weight that meets an input, whatever its value.

    See Also
    --------
    Share : A sum of terms over one denominator.
    """

    x: str
    w: str


@dataclass(frozen=True)
class Share:
    """A sum of terms over one denominator: n_ij = Σ_terms in(x_i)·wm(w_ij), d_j = Σ_i n_ij + bias + stabilizer·sgn.

    Parameters
    ----------
    terms : tuple of Term
        The terms of the numerator, and so of the denominator. Their weight maps must scale alike: all of them "1", or
        all "w2", or neither.
    coefficient : float, default 1.0
        A factor of n_ij / d_j, such as α or −β. Where the coefficients of an output's shares do not sum to 1, the
        ledger shows the difference as surplus.
    select : {"all", "y>0", "y<0"}, default "all"
        The outputs j that take this share, by the sign of their value y_j before the activation.
    bias : str, optional
        The weight map of the bias in the denominator, as `Term.w`; None leaves the bias out. `Rule.shares` leaves it
        None, and `Rule.row` sets it from the rule's field `bias`.

    See Also
    --------
    Rule : How shares make a rule.
    """

    terms: tuple[Term, ...]
    coefficient: float = 1.0
    select: str = "all"
    bias: str | None = None


def conserves(shares: tuple[Share, ...]) -> bool:
    """Whether every share holds for every output, and their coefficients sum to 1."""
    coefficients = [share.coefficient for share in shares]
    return all(share.select == "all" for share in shares) and abs(sum(coefficients) - 1) <= 1e-12 * max(
        1.0, *map(abs, coefficients)
    )


BY_SIGN = (
    Share((Term(X_POS, W_POS), Term(X_NEG, W_NEG)), select="y>=0"),
    Share((Term(X_POS, W_NEG), Term(X_NEG, W_POS)), select="y<0"),
)
"""The shares of `ZPlusBySign`, which alone select "y>=0": with the bias they make up y, so one factor serves both."""


GAMMA = (
    Share((Term(X_POS, W_GAMMA_POS), Term(X_NEG, W_GAMMA_NEG)), select="y>0"),
    Share((Term(X_POS, W_GAMMA_NEG), Term(X_NEG, W_GAMMA_POS)), select="y<0"),
)
"""The shares of `Gamma` where signs are paired."""


Terms = tuple[tuple[Term, ...], ...]
"""Of every share."""


def _reduced(term: Term, x_positive: bool, w_positive: bool) -> Term | None:
    x = INPUT_MAPS[term.x].positive if x_positive else term.x
    w = WEIGHT_MAPS[term.w].positive if w_positive else term.w
    return None if x is None or w is None else Term(x, w)


@dataclass(frozen=True)
class Row:
    """A rule under a convention, ready for an executor."""

    label: str
    shares: tuple[Share, ...]
    stabilizer: float = 0.0
    gamma: float = 0.0
    fallback: bool = False

    @property
    def falls_back(self) -> bool:
        """Whether the first share takes the coefficient 1, and the second 0, where the second's terms sum to 0."""
        return self.fallback and len(self.shares) == 2

    @property
    def holds_bias(self) -> bool:
        """Whether a bias stands in a denominator, and so absorbs relevance."""
        return any(share.bias is not None for share in self.shares)

    @cached_property
    def by_sign(self) -> bool:
        """Whether every neuron takes one of two shares, whose sums with its bias make up y."""
        return self.shares == BY_SIGN

    @cached_property
    def paired(self) -> tuple[float, float] | None:
        """(ρ, p) = (γ/(2 + γ), 1 + γ/2) of γ, where n_ij = p·(x w + ρ·sgn(y)·|x w|); None for other rows.

        z⁺ by the sign of y is of this form too (ρ = 1), but what it leaves out would then be a difference that rounding
        keeps from being 0.
        """
        biases = tuple(share.bias for share in self.shares)
        bare = tuple(replace(share, bias=None) for share in self.shares)
        known = bare == GAMMA and biases in ((None, None), (W_GAMMA_POS, W_GAMMA_NEG))
        return (self.gamma / (2.0 + self.gamma), 1.0 + self.gamma / 2.0) if known else None

    @property
    def splits(self) -> bool:
        """Whether the first share sums the products of y's sign, and a second one, if any, those of the other sign."""
        if self.by_sign:
            return True
        first, *others = [{(term.x, term.w) for term in share.terms} for share in self.shares]
        plain = all(share.bias is None for share in self.shares) and conserves(self.shares)
        return plain and len(others) < 2 and first <= WITH_Y and all(other <= AGAINST_Y for other in others)

    @property
    def split(self) -> tuple[float, float] | None:
        """Of a row that `splits`: how much goes by the products of y's sign, and by the others."""
        if not self.splits:
            return None
        return self.shares[0].coefficient, 0.0 if self.by_sign or len(self.shares) == 1 else self.shares[1].coefficient

    @cached_property
    def one_signed(self) -> bool:
        """Whether some term sums products of one sign of the weights alone."""
        terms = {term for share in self.shares for term in share.terms}
        return self.product_form and any(WEIGHT_MAPS[term.w].sign is not None for term in terms)

    @cached_property
    def of_rectified(self) -> Row:
        """What is left of it where R = x ⊙ c is 0 for y <= 0, as behind a ReLU: a share that holds there passes
        nothing.
        """
        shares = tuple(s for s in self.shares if s.select != "y<0") or self.shares[:1]
        if len(shares) == 1 and shares[0].select == "y>0":
            shares = (replace(shares[0], select="all"),)
        return self if shares == self.shares else replace(self, shares=shares)

    @cached_property
    def reduced(self) -> dict[tuple[bool, bool], Terms]:
        """What remains of its terms, per share, where it is known that (all x ≥ 0, all w ≥ 0): x⁺ is x there and x⁻ is
        nothing, likewise for weights.
        """
        return {
            (x, w): tuple(tuple(t for term in share.terms if (t := _reduced(term, x, w))) for share in self.shares)
            for x in (False, True)
            for w in (False, True)
        }

    @cached_property
    def product_form(self) -> bool:
        return all(INPUT_MAPS[term.x].product is not None for share in self.shares for term in share.terms)


# The gradient ∂y_f/∂x in the same machinery: c_i = Σ_j w_ij act'(y_j) c_j. Not a rule to choose: `dtdfast.baselines`
# uses it.
GRADIENT = Row("gradient", (Share((Term(X, W),)),))
