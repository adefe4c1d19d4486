"""Neurons: everything that makes up one layer of them; relevance by a rule's row.

weighted.py, pools.py, add.py and resample.py decide which records become neurons.
"""

from __future__ import annotations

import numpy as np

from ...rules import GRADIENT
from ...vocabulary import W_SQUARE, WEIGHT_MAPS, W, X
from ..account import Line
from ..lowering import Lowering
from ..parts import Sum, sign_of_term
from ..steps import Buffer
from ..tensors import Box, Floats
from . import neuron_account, neuron_steps, neuron_weights
from .base import Balance, Unit

SIGNED_TERMS, SIGNED_BIAS = "its terms are of both signs", "its bias may cancel its terms"

ABOVE, BELOW = (f"squares of its weights are {side} float32's numbers" for side in ("above", "below"))

SQUARED = 2.0**-50, 2.0**50
"""What lies between is far enough from the ends of float32's numbers to be squared and added up."""


class Neuron(Sum, Unit):
    """y = Σ_parts + bias, out = activation(y); relevance by a row."""

    transparent = False

    def sign(self) -> bool:
        act = self.activation
        if act is not None and act.function.sign(act, False):  # whatever the sum
            return True
        least = _least(self.bias)
        for source in self.sources:
            least = least and source.nonnegative
        for part in self.parts:
            least = least and (part.positive or (not part.held and _least(part.weight)))
        return least if act is None else act.function.sign(act, least)

    def box(self, given: list[Box]) -> Box | None:
        return None

    @property
    def form(self) -> str:
        assert self.row is not None
        return "c" if self.row.product_form else "R"

    def refusal(self, *, gradient: bool) -> str:
        return ""

    def reduce(self, *, gradient: bool) -> None:
        """What remains of its rule where relevance comes in this form, and by the signs of its operands."""
        if gradient:
            self.row = GRADIENT
        row = self.row
        assert row is not None
        if self.out.form == "c" and self.activation is not None and self.activation.function.product and not gradient:
            self.row = row = row.of_rectified
        for part in self.parts:
            part.terms = row.reduced[part.source.nonnegative, part.positive]
            if gradient:
                part.box = None

    def forward(self, lowering: Lowering) -> None:
        neuron_steps.forward(lowering, self)

    def relevance(self, lowering: Lowering, r: Buffer) -> None:
        neuron_steps.relevance(lowering, self, r)

    def prepare(self, lowering: Lowering) -> None:
        neuron_account.prepare(lowering, self)

    def account(self, lowering: Lowering, r: Buffer, line: Line) -> None:
        neuron_account.account(lowering, self, r, line)

    def around(self, lowering: Lowering, r: Buffer, line: Line) -> None:
        neuron_account.around(lowering, self, r, line)

    def weigh(self, lowering: Lowering, r: Buffer) -> None:
        neuron_weights.weigh(lowering, self, r)

    def balance(self) -> Balance:
        """What it absorbs hangs on its sums, and rounding counts from their terms: the ledger works them out."""
        assert self.row is not None
        terms = max(len(t) for p in self.parts for t in p.terms)
        fan_in = sum(p.taps.n_taps * p.taps.c_in // p.taps.groups for p in self.parts) * terms
        fan_in += sum(
            p.taps.n_taps * p.taps.c_in // p.taps.groups * max(map(len, p.terms))
            for p in self.parts
            if not p.source.wanted
        )
        fan_out = max(p.taps.n_taps * p.taps.c_out // p.taps.groups for p in self.parts)
        return Balance(self.row.label, fan_in + fan_out + 12.0)

    @property
    def cancels(self) -> bool:
        """Whether its rule sums products of both signs, so that rounded operands may leave nothing right of the
        sum.
        """
        if self.row is None:
            return False
        return any(
            WEIGHT_MAPS[term.w].sign is None
            for part in self.parts
            if not part.positive
            for share in part.terms
            for term in share
        )

    @property
    def squares(self) -> str:
        """How its rule divides by sums of w² that float32 does not hold, by each output's largest weight: of small
        ones where a bias keeps the output on, since else there is no relevance to share. "" if it does not.
        """
        if self.row is None or not any(term.w == W_SQUARE for share in self.row.shares for term in share.terms):
            return ""
        rows = [np.ones((1, 1)) if p.weight is None else p.weight.reshape(len(p.weight), -1) for p in self.parts]
        largest = np.max(np.broadcast_arrays(*(np.maximum(w.max(axis=1), -w.min(axis=1)) for w in rows)), axis=0)
        act, bias, (low, high) = self.activation, np.zeros(1) if self.bias is None else self.bias, SQUARED
        on = bias > 0 if act is not None and act.function.rectifies(act) else bias != 0
        if (largest > high).any():
            return ABOVE
        return BELOW if ((largest < low) & (largest > 0) & on).any() else ""

    def cancellation(self) -> str:
        """Why a denominator of its rule may cancel; "" where something known here keeps it away from 0.

        Terms and bias of one sign cannot cancel. And where a ReLU follows, a denominator d that exceeds y = Σ x w + b
        term by term is held by it: relevance R = max(0, y)·c comes only where 0 < y ≤ d, so that the gate g = y/d is at
        most 1. With y and d off by e each, e the rounding errors of sums over Σ|x w| + |b|, the gate is off by δ ≤
        min(1, 2e/d) and all the messages of the neuron together by (d − b)·δ·c ≤ (2e + |b⁻|·min(1, 2e/d))·c: never more
        than what its bias weighs, and next to nothing unless d is itself of the size of e, which takes Σ x(wm(w) − w) =
        d − y as small. Not so for d = y (LRP-0, ε), where the gate is 1 right down to the y at which rounding decides
        whether there is any relevance, nor for R that was not made by y.
        """
        if self.row is None or not self.in_relevance:
            return ""
        found = ""
        for number, share in enumerate(self.row.shares):
            signs = {sign_of_term(part, term) for part in self.parts for term in part.terms[number]}
            bias = None if self.bias is None or share.bias is None else _sign_of_bias(self.bias, share.bias)
            if None in signs or len(signs) > 1:
                found = SIGNED_TERMS
            elif bias is not None and signs and signs != {bias}:
                found = found or SIGNED_BIAS
        return "" if found and self._bounded() else found

    def _bounded(self) -> bool:
        """Whether 0 < y ≤ d wherever relevance comes."""
        row, act = self.row, self.activation
        assert row is not None
        rectified = act is not None and act.function.rectifies(act)
        if self.out.form != "c" or not rectified or len(row.shares) != 1 or row.shares[0].select != "all":
            return False
        terms = [(part, part.terms[0]) for part in self.parts]
        if not all(part.source.nonnegative and len(t) == 1 and t[0].x == X for part, t in terms):
            return False
        exceeds = all(
            (t[0].w != W and WEIGHT_MAPS[t[0].w].exceeds) or part.weight is None or part.nonnegative
            for part, t in terms
        )
        weighted = any(part.weight is not None for part in self.parts)
        return (
            exceeds
            and weighted
            and (
                self.bias is None
                or ((bias := row.shares[0].bias) is not None and WEIGHT_MAPS[bias].exceeds)
                or bool(self.bias.max() <= 0)
            )
        )


def _least(numbers: Floats | None) -> bool:
    """Whether weights or biases are all ≥ 0 (absent ones are), the larger weights not looked at: theirs are of both
    signs.
    """
    return numbers is None or (numbers[0].size < 1024 and bool((numbers >= 0).all()))


def _sign_of_bias(bias: Floats, weight_map: str) -> int:
    """1, -1, or 0 for both."""
    return WEIGHT_MAPS[weight_map].sign or (1 if bias.min() >= 0 else -1 if bias.max() <= 0 else 0)
