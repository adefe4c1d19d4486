"""Rules with every use of the bias and the stabilizer, beside the terms that the explicit matrix computes them from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import dtdfast as dtd
import explicit


class RuleRow(NamedTuple):
    id: str
    rule: dtd.Rule
    terms: Callable  # of (taps, x), and low and high for a box
    on_bias: bool = False  # differs from another row in its use of the bias alone
    box: str = ""  # "scalar", "channel" or "full" bounds

    @property
    def conserves(self):
        """Whether every denominator is the sum of what it divides: then a neuron passes all of its relevance on."""
        options = self.terms.keywords
        return (
            options["bias"] == "none"
            and not self.rule.stabilizer
            and options.get("alpha", 2) - options.get("beta", 1) == 1
        )


def _row(name, rule, function, bias="none", on_bias=False, box="", **options):
    return RuleRow(name, rule, partial(function, bias=bias, **options), on_bias, box)


RULES = [
    _row("zplus", dtd.ZPlus(), explicit.zplus),
    _row("zplus-stabilized", dtd.ZPlus(stabilizer=1e-3), explicit.zplus),
    _row("zplus-positive", dtd.ZPlus(bias="positive"), explicit.zplus, "positive", True),
    _row("zplus-signed", dtd.ZPlus(bias="signed", stabilizer=0.25), explicit.zplus, "signed", True),
    _row("zplus-by-sign", dtd.ZPlusBySign(), explicit.zplus_by_sign),
    _row("zplus-by-sign-stabilized", dtd.ZPlusBySign(stabilizer=1e-3), explicit.zplus_by_sign),
    _row("wsquare", dtd.WSquare(), explicit.wsquare),
    _row("wsquare-square", dtd.WSquare(bias="square", stabilizer=1e-6), explicit.wsquare, "square", True),
    _row("zbox-scalar", dtd.ZBox(), explicit.zbox, box="scalar"),
    _row("zbox-channel", dtd.ZBox(), explicit.zbox, box="channel"),
    _row("zbox-full", dtd.ZBox(stabilizer=1e-3), explicit.zbox, box="full"),
    _row("zero", dtd.Zero(), explicit.epsilon, "signed"),
    _row("zero-nobias", dtd.Zero(bias="none"), explicit.epsilon, "none", True),
    _row("epsilon", dtd.Epsilon(stabilizer=0.125), explicit.epsilon, "signed"),
    _row("epsilon-nobias", dtd.Epsilon(stabilizer=0.125, bias="none"), explicit.epsilon, "none", True),
    _row("gamma", dtd.Gamma(), explicit.gamma, "signed"),
    _row("gamma-full", dtd.Gamma(0.5, bias="full"), explicit.gamma, "full", True, gamma=0.5),
    _row("gamma-nobias", dtd.Gamma(10.0, bias="none"), explicit.gamma, "none", True, gamma=10.0),
    _row("alpha2beta1", dtd.AlphaBeta(), explicit.alpha_beta),
    _row("alpha2beta1-fallback", dtd.AlphaBeta(fallback=True), explicit.alpha_beta, fallback=True),
    _row(
        "alpha2beta1-fallback-by-sign",
        dtd.AlphaBeta(fallback=True, bias="by_sign", stabilizer=0.25),
        explicit.alpha_beta,
        "by_sign",
        True,
        fallback=True,
    ),
    _row(
        "alpha2beta1-fallback-full",
        dtd.AlphaBeta(fallback=True, bias="full"),
        explicit.alpha_beta,
        "full",
        True,
        fallback=True,
    ),
    _row("alpha2beta1-by-sign", dtd.AlphaBeta(bias="by_sign", stabilizer=1e-6), explicit.alpha_beta, "by_sign", True),
    _row(
        "alpha3beta2-full", dtd.AlphaBeta(3.0, 2.0, bias="full"), explicit.alpha_beta, "full", True, alpha=3.0, beta=2.0
    ),
    _row("alpha1beta0", dtd.AlphaBeta(1.0, 0.0), explicit.alpha_beta, alpha=1.0, beta=0.0),
    _row("flat", dtd.Flat(), explicit.flat),
]
