"""Rules as rows: how one layer shares the relevance of its outputs among its inputs.

Every rule is a row of shares, every share a list of terms in(x_i)·wm(w_ij):

    n_ij = Σ_terms in(x_i) wm(w_ij)    d_j = Σ_i n_ij + bias + stabilizer·sgn    R_i←j = coefficient · n_ij / d_j · R_j

(0/0 := 0; sgn 0 := +1). The same terms stand above and below the fraction, so conservation holds by construction. A
share may be selected by the sign of the pre-activation y_j. Each rule names the source of its formula.
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

SELECTS = ("all", "y>0", "y<0")
WITH_Y = {(X, W_POS), (X_POS, W_POS), (X_NEG, W_NEG)}  # products that are ≥ 0, (X, W_POS) where x ≥ 0
AGAINST_Y = {(X_POS, W_NEG), (X_NEG, W_POS)}
OF_RULES = {"x": tuple(name for name, row in INPUT_MAPS.items() if row.times is not None), "w": tuple(WEIGHT_MAPS)}
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

    @property
    def by_sign(self) -> bool:
        """Whether every neuron takes one of two shares, whose sums with its bias make up y."""
        return self.shares == BY_SIGN

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
    """The base of all rules. A subclass of it is a rule of your own.

    A rule is a row of shares, and every share is a sum of terms over one denominator:

        n_ij = Σ_terms in(x_i)·wm(w_ij),    d_j = Σ_i n_ij + bias + stabilizer·sgn,    R_i = Σ_j Σ_shares coefficient ·
        n_ij / d_j · R_j,

    with 0/0 = 0 and sgn 0 = 1. The same terms stand in numerator and denominator, so a rule without bias and stabiliser
    conserves relevance. Every executor runs every rule that is made in this way.

    Parameters
    ----------
    bias : str, optional
        The part of the bias in the denominator, where it absorbs relevance: a key of the class attribute `biases`. By
        default the convention's choice, else the first key.
    stabilizer : float, optional
        ε ≥ 0: the denominator d becomes d + ε·sgn d. By default the convention's choice, 0 under "dtd".

    Attributes
    ----------
    biases : dict of str to tuple
        For each choice of `bias`, the weight map of the bias in each share, or None for no bias. A class attribute;
        {"none": (None,)} unless a subclass says otherwise.

    Raises
    ------
    RuleError
        `bias` is no key of `biases`, or `stabilizer` is negative or not finite.

    Notes
    -----
    A subclass gives `shares`. Fields of its own need `@dataclass(frozen=True)`; a field `gamma` is the γ of the weight
    maps "w+g.w+" and "w+g.w-".

    Examples
    --------
    >>> class Excitatory(dtdfast.Rule):
    ...    def shares(self, convention): ...        return (dtdfast.Share((dtdfast.Term("x+", "w+"),)),)
    >>> relevance = dtdfast.explain(layers, x, rules=Excitatory())
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
        """The rule's name in plans and messages: that of its class."""
        return type(self).__name__

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        """The shares of the rule's row. A subclass gives them.

        Parameters
        ----------
        convention : Convention
            Whose habits are followed where the rule leaves them open; most rules do not look at it.

        Returns
        -------
        tuple of Share
            Without the bias, which `row` adds.

        Raises
        ------
        RuleError
            The rule has no row of terms, as `Pass`.
        """
        raise RuleError(f"{self.name} has no row of terms")

    def row(self, convention: Convention) -> Row:
        """The rule under a convention, as executors take it.

        Parameters
        ----------
        convention : Convention
            Whose bias and stabiliser are taken where the rule's own fields are None.

        Returns
        -------
        Row
            The shares with their bias, the stabiliser and γ.

        Raises
        ------
        RuleError
            `shares` or `biases` hold something that an executor could not follow; the message names it.
        """
        bias = self.bias or convention.biases.get(self.name) or next(iter(self.biases))
        given = self._checked(self.shares(convention), self.biases[bias])
        shares = tuple(
            Share(s.terms, s.coefficient, s.select, b) for s, b in zip(given, self.biases[bias], strict=False)
        )
        stabilizer = self.stabilizer
        if stabilizer is None:
            stabilizer = convention.epsilon if isinstance(self, Epsilon) else convention.stabilizer
        return Row(str(self), shares, stabilizer, getattr(self, "gamma", 0.0), getattr(self, "fallback", False))

    def _checked(self, shares: tuple[Share, ...], biases: tuple[str | None, ...]) -> tuple[Share, ...]:
        """What `shares` and `biases` of a rule give, refused where an executor could not follow it."""
        if not shares or not all(isinstance(share, Share) and share.terms for share in shares):
            raise RuleError(
                f"{self.name}.shares: expected at least one Share, each with at least one Term, got {shares!r}"
            )
        if len(biases) < len(shares):
            raise RuleError(
                f"{self.name}.biases: {biases!r} has {len(biases)} weight maps, "
                f"expected one for each of {len(shares)} shares"
            )
        for share in shares:
            if share.select not in SELECTS and shares != BY_SIGN:
                raise RuleError(f"{self.name}.shares: select is {share.select!r}, expected one of {', '.join(SELECTS)}")
            for term in share.terms:
                for key, maps in OF_RULES.items():
                    if getattr(term, key) not in maps:
                        raise RuleError(
                            f"{self.name}.shares: {term} has {key}={getattr(term, key)!r}, "
                            f"expected one of {', '.join(maps)}"
                        )
                if INPUT_MAPS[term.x].bound is not None and not isinstance(self, ZBox):
                    raise RuleError(
                        f"{self.name}.shares: {term} needs the box of the layer's input; "
                        "make the rule a subclass of ZBox"
                    )
            if len({WEIGHT_MAPS[term.w].power for term in share.terms}) > 1:
                raise RuleError(
                    f"{self.name}.shares: terms of one Share must have weight maps of one degree "
                    "(w2: 2, 1: 0, others: 1)"
                )
        for weight_map in biases:
            if weight_map is not None and weight_map not in OF_RULES["w"]:
                raise RuleError(f"{self.name}.biases: {weight_map!r} is not one of {', '.join(OF_RULES['w'])}")
        return shares

    def __str__(self) -> str:
        return self.name


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
        The box of this layer's input: numbers, arrays of one value per channel, or arrays of the input's shape. Give
        both or neither; by default the `domain` of the call. An operand without a box, such as an inner activation that
        is added to the input, takes [min(0, x), max(0, x)], which makes zB to z⁺.
    bias : {"none"}, optional
        The part of the bias in the denominator: nothing.
    stabilizer : float, optional
        ε ≥ 0: the denominator d becomes d + ε·sgn d, with sgn 0 = 1. By default the convention's choice, 0 under "dtd".

    Raises
    ------
    RuleError
        Only one of low and high is given.

    References
    ----------
    .. [1] Montavon et al., "Explaining nonlinear classification decisions with deep Taylor decomposition",
       arXiv:1512.02479, eq. 17.
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
    """LRP-0: n_ij = x_i w_ij, and d_j = y_j if the bias is in the denominator [1]_.

    On networks of linear layers, ReLUs and max-pools it equals gradient × input.

    Parameters
    ----------
    bias : {"signed", "none"}, optional
        The part of the bias in the denominator, where it absorbs relevance: "signed" is b, "none" nothing. By default
        the convention's choice, "signed" under "dtd".
    stabilizer : float, optional
        ε ≥ 0: the denominator d becomes d + ε·sgn d, with sgn 0 = 1. By default the convention's choice, 0 under "dtd".

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
        Both epsilon and stabilizer are given.

    References
    ----------
    .. [1] Bach et al., "On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance
       propagation", PLOS ONE 10 (2015), doi:10.1371/journal.pone.0130140, eq. 58.
    """

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


# The gradient ∂y_f/∂x in the same machinery: c_i = Σ_j w_ij act'(y_j) c_j. Not a rule to choose: `dtdfast.baselines`
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
