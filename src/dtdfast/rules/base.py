"""The base of all rules (a choice of bias, a stabiliser, and shares), and what a convention decides for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar

from ..errors import RuleError
from ..vocabulary import (
    INPUT_MAPS,
    WEIGHT_MAPS,
)
from .rows import BY_SIGN, OF_RULES, SELECTS, Row, Share, Term


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
    # whether layers whose denominators may cancel compute in float64: no stabilizer keeps these from 0 in float32
    needs_float64: bool = False


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
    ...     def shares(self, convention):
    ...         return (dtdfast.Share((dtdfast.Term("x+", "w+"),)),)
    >>> relevance = dtdfast.explain(layers, x, rules=Excitatory())
    """

    bias: str | None = field(default=None, kw_only=True)
    stabilizer: float | None = field(default=None, kw_only=True)

    # bias name → the bias's weight map in each share; the first is the default
    biases: ClassVar[dict[str, tuple[str | None, ...]]] = {"none": (None,)}
    takes_box: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.bias is not None and not (isinstance(self.bias, str) and self.bias in self.biases):
            raise RuleError(f"{self.name}: bias {self.bias!r} is not one of {', '.join(self.biases)}")
        if self.stabilizer is not None:
            self._number("stabilizer")

    def _number(self, key: str) -> None:
        """RuleError where a field is no finite number of at least 0; becomes one of Python's."""
        object.__setattr__(self, key, self._positive(key, getattr(self, key)))

    def _positive(self, key: str, value: Any) -> float:
        try:
            number = float("nan") if isinstance(value, (str, bool)) else float(value)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            number = float("nan")
        if not 0 <= number < float("inf"):
            raise RuleError(f"{self.name}: {key} is {value!r:.60}, expected a number of at least 0")
        return number

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
            `shares`, `biases` or a field hold something that an executor could not follow; the message names it.
        """
        Rule.__post_init__(self)  # fields may have been set behind it, and a subclass may have another
        bias = self.bias or convention.biases.get(self.name)
        bias = bias if bias in self.biases else next(iter(self.biases))
        given = self._checked(self.shares(convention), self.biases[bias])
        shares = tuple(
            Share(s.terms, s.coefficient, s.select, b) for s, b in zip(given, self.biases[bias], strict=False)
        )
        stabilizer = self.stabilizer
        if stabilizer is None:
            stabilizer = self._by_default(convention)
        gamma = self._positive("gamma", getattr(self, "gamma", 0.0))
        return Row(str(self), shares, stabilizer, gamma, getattr(self, "fallback", False))

    def _by_default(self, convention: Convention) -> float:
        """The stabilizer where none is given."""
        return convention.stabilizer

    def _checked(self, shares: tuple[Share, ...], biases: tuple[str | None, ...]) -> tuple[Share, ...]:
        """What `shares` and `biases` of a rule give, refused where an executor could not follow it."""
        if (
            not isinstance(shares, (tuple, list))
            or not shares
            or not all(isinstance(s, Share) and s.terms and all(isinstance(t, Term) for t in s.terms) for s in shares)
        ):
            raise RuleError(
                f"{self.name}.shares: expected at least one Share, each with at least one Term, got {shares!r}"
            )
        if len(biases) < len(shares):
            raise RuleError(
                f"{self.name}.biases: {biases!r} has {len(biases)} weight maps, "
                f"expected one for each of {len(shares)} shares"
            )
        for share in shares:
            if share.bias is not None:
                raise RuleError(f"{self.name}.shares: bias is {share.bias!r}, which the rule's class says, in `biases`")
            if not isinstance(share.coefficient, Real) or not abs(share.coefficient) < float("inf"):
                raise RuleError(f"{self.name}.shares: coefficient is {share.coefficient!r:.60}, expected a number")
            if share.select not in SELECTS and shares != BY_SIGN:
                raise RuleError(f"{self.name}.shares: select is {share.select!r}, expected one of {', '.join(SELECTS)}")
            for term in share.terms:
                for key, maps in OF_RULES.items():
                    if getattr(term, key) not in maps:
                        raise RuleError(
                            f"{self.name}.shares: {term} has {key}={getattr(term, key)!r}, "
                            f"expected one of {', '.join(maps)}"
                        )
                if INPUT_MAPS[term.x].bound is not None and not self.takes_box:
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
