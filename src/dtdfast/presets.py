"""Presets: which rule each kind of layer takes, as one row each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .errors import RuleError
from .layers import BatchNorm, Conv, Layer, Linear, Scale
from .rules import AlphaBeta, Convention, Epsilon, Flat, Gamma, Pass, Rule, Slope, ZBox, Zero, ZPlus, ZPlusBySign
from .vocabulary import INPUT_MAPS

DOMAIN = "domain"
"""As a preset's `first`: the rule that the input domain asks for."""


@dataclass(frozen=True)
class Preset:
    """The rule that each kind of layer takes."""

    linear: Rule  # fully connected layers
    conv: Rule  # convolutions, plain and transposed
    taps: Rule  # pools, and an Add with no linear operand of its own
    first: Rule | str | None = None  # layers that read the input; None: as any other
    clip_start: bool = False  # a negative start becomes 0
    pool: Rule | None = None  # under the innvestigate convention
    add: Rule | None = None
    # the preset that it stands for where a Preparation makes real inputs, of both signs around 0
    prepared: str | None = None
    attention: str = "held"


_EPSILON_PLUS = Preset(Epsilon(), ZPlus(), ZPlus())
_EPSILON_ALPHA_BETA = Preset(Epsilon(), AlphaBeta(2.0, 1.0), ZPlus())
_DEEP_TAYLOR = Preset(ZPlus(), ZPlus(), ZPlus(), clip_start=True, pool=Flat(), add=Pass())

PRESETS: dict[str, Preset] = {
    "dtd": Preset(ZPlusBySign(), ZPlusBySign(), ZPlusBySign(), first=DOMAIN, prepared="lrp-epsilon"),
    "lrp-0": Preset(Zero(), Zero(), Zero()),
    "lrp-epsilon": Preset(Epsilon(), Epsilon(), Epsilon()),
    "epsilon-plus": _EPSILON_PLUS,
    "epsilon-plus-flat": replace(_EPSILON_PLUS, first=Flat()),
    "epsilon-alpha2-beta1": _EPSILON_ALPHA_BETA,
    "epsilon-alpha2-beta1-flat": replace(_EPSILON_ALPHA_BETA, first=Flat()),
    "epsilon-gamma-box": Preset(Epsilon(), Gamma(0.25), ZPlus(), first=ZBox()),
    "excitation-backprop": Preset(ZPlus(), ZPlus(), ZPlus()),
    "cp-lrp": Preset(Zero(), Zero(), Zero()),
    "attnlrp": Preset(Zero(), Zero(), Zero(), attention="taylor"),
    "deep_taylor": _DEEP_TAYLOR,
    "deep_taylor.bounded": replace(_DEEP_TAYLOR, first=ZBox()),
}

ATTENTION = ("held", "taylor")
"""What relevance makes of attention weights and of products of two computed operands."""

Rules = str | Rule | Mapping[int, Rule] | Callable[[int, Layer], Rule | None]


def settled(rules: Rules, layers: Sequence[Layer]) -> Rules:
    """The rules as they are now, whatever the caller's dict holds, or callable says, later."""
    if isinstance(rules, Mapping):
        return {_position(position): _rule(f"rules[{position}]", rule) for position, rule in rules.items()}
    if isinstance(rules, (str, Rule, type)) or not callable(rules):
        return rules
    found = ((position, record, rules(position, record)) for position, record in enumerate(layers))
    return {
        position: _rule(f"rules({position}, {type(record).__name__})", rule, " or None")
        for position, record, rule in found
        if rule is not None
    }


def clips(rules: Rules) -> bool:
    """Whether a negative start becomes 0."""
    return isinstance(rules, str) and PRESETS[rules].clip_start


def _position(key: Any) -> int:
    if isinstance(key, bool) or not isinstance(key, (int, np.integer)):
        raise RuleError(f"rules: the key {key!r} is not a position (an integer)")
    return int(key)


def _rule(what: str, rule: Any, more: str = "") -> Rule:
    if not isinstance(rule, Rule):
        raise RuleError(f"{what} is {rule!r:.60}, expected a rule such as dtdfast.ZPlus(){more}")
    return rule


class RuleBook:
    """Who says what: an explicit rule of an entry, else the preset's for its kind.

    Parameters
    ----------
    rules : str, Rule or {position: Rule}, `settled`
    convention : Convention
    attention : of ATTENTION; None: the preset's
    """

    def __init__(self, rules: Rules, convention: Convention, attention: str | None = None) -> None:
        self.convention = convention
        if attention is not None and not (isinstance(attention, str) and attention in ATTENTION):
            raise RuleError(f"attention is {attention!r}, expected {' or '.join(map(repr, ATTENTION))}")
        self.rules = rules
        self.preset = PRESETS["dtd"]
        if isinstance(rules, str):
            if rules not in PRESETS:
                raise RuleError(f"rules {rules!r} is not a preset; the presets are {', '.join(PRESETS)}")
            self.preset = PRESETS[rules]
        elif not isinstance(rules, (Rule, dict)):
            raise RuleError(f"rules is {rules!r}, expected a preset's name, a Rule, {{position: Rule}} or a callable")
        self.listed = None if isinstance(rules, (str, Rule)) else rules  # entry by entry
        self.holds = (attention or self.preset.attention) == "held"
        self.by_sign = self.preset.first == DOMAIN and convention.name == "dtd"
        if self.preset.first == DOMAIN and not self.by_sign:
            self.preset = replace(self.preset, linear=ZPlus(), conv=ZPlus(), taps=ZPlus())  # as the peers have it

    def of_prepared_inputs(self) -> RuleBook:
        """The same for a network whose real inputs a Preparation makes."""
        book = copy(self)
        book.preset = self.preset if self.preset.prepared is None else PRESETS[self.preset.prepared]
        return book

    def explicit(self, position: int) -> Rule | None:
        """The rule that the caller gave this very entry."""
        return self.listed.get(position) if self.listed is not None else None

    def boxed(self, position: int) -> bool:
        """Whether the rule of this entry has bounds for each of several elements."""
        rule = self.explicit(position) or self.everywhere()
        return isinstance(rule, ZBox) and any(
            bound is not None and np.size(bound) > 1 for bound in (rule.low, rule.high)
        )

    def kept(self, entries: Iterable[Any]) -> frozenset[int]:
        """The affine entries that do not fold, since they have a rule of their own: passed as they are, or one tap with
        their shift; under two of the conventions also layers before which a Pad stays, since their rule gives shares to
        zeros.
        """
        if self.listed is None:
            return frozenset()
        return frozenset(e.position for e in entries if self._stays(e.record, self.explicit(e.position)))

    def _stays(self, record: Layer, rule: Rule | None) -> bool:
        if isinstance(record, (BatchNorm, Scale)):
            return isinstance(rule, (Pass, Slope, Zero))
        if rule is None or not isinstance(record, Conv) or self.convention.name not in ("zennit", "innvestigate"):
            return False
        return any(INPUT_MAPS[term.x].product is None for share in rule.shares(self.convention) for term in share.terms)

    def everywhere(self) -> Rule | None:
        """One rule for every entry that takes one."""
        return self.rules if isinstance(self.rules, Rule) else None

    def weighted(self, record: Layer) -> Rule:
        return self.preset.linear if isinstance(record, Linear) else self.preset.conv

    def affine(self, vectors: bool) -> Rule:
        """Of an affine that cannot fold, on vectors or on channels with axes behind them."""
        return self.everywhere() or self.convention.affine or (self.preset.linear if vectors else self.preset.conv)

    def norm(self, vectors: bool) -> Rule:
        """Of a norm by statistics of the sample, on features or on channels with axes behind them."""
        return self.preset.linear if vectors else self.preset.conv

    def attention(self) -> Rule:
        """Of a product with attention weights."""
        return self.preset.linear

    def pool(self) -> Rule:
        if self.convention.name == "innvestigate" and self.preset.pool:
            return self.preset.pool
        return self.convention.pool or self.preset.taps

    def add(self) -> Rule | None:
        """The rule of an Add; None: that of its linear operands, or `taps` where it has none."""
        if self.convention.name == "innvestigate" and self.preset.add:
            return self.preset.add
        return self.convention.add
