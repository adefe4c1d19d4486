"""What other tools do with biases, stabilisers, pools and additions."""

from __future__ import annotations

from ..errors import RuleError
from .base import Convention, Rule
from .lrp import Epsilon, Pass, Zero
from .rows import Row

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
            needs_float64=True,
        ),
        Convention("innvestigate", {"AlphaBeta": "full"}, epsilon=1e-7, pool=Zero(), add=Zero(), affine=Pass()),
    )
}


def convention_of(name: str) -> Convention:
    if not isinstance(name, str) or name not in CONVENTIONS:
        raise RuleError(f"convention {name!r} is not one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]


def own_row(rule: Rule) -> Row | None:
    """What a rule of the caller's own comes to, which may depend on more than the fields that it compares by; None of
    dtdfast's rules.
    """
    if type(rule).__module__.startswith("dtdfast."):
        return None
    try:
        return rule.row(CONVENTIONS["dtd"])
    except RuleError:  # which planning tells
        return None
