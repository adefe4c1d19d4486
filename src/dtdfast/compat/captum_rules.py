"""captum's rules and targets as those of dtdfast."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import layers as L
from ..errors import RuleError, TargetError
from ..plan.fold import LINEAR
from ..plan.shapes import Shape
from ..rules import Epsilon, Gamma, Pass, Rule, Zero, ZPlus
from .model import NORMS


class UnsuitableRuleError(RuleError, TypeError):
    """A layer has no rule, or one that is not a rule; a TypeError, as in captum."""


def rule_for(record: L.Layer, given: Any, where: str) -> Rule:
    """What a layer's `rule` comes to; None is captum's default."""
    if isinstance(given, Rule):
        return given
    kind = kind_of(given)
    weighted = isinstance(record, LINEAR)
    if kind == "IdentityRule":
        return Pass()
    stabilizer = 1e-9 if given is None else float(given.STABILITY_FACTOR)
    if (
        given is None
        or kind == "EpsilonRule"
        or (kind in ("GammaRule", "Alpha1_Beta0_Rule") and not isinstance(record, (*LINEAR, *NORMS)))
    ):
        # Zero and not Epsilon for an addition: one of the same rule as its operands would become one neuron with them
        return Zero(stabilizer=stabilizer) if isinstance(record, L.Add) else Epsilon(stabilizer)
    bias = "none" if weighted and given.set_bias_to_zero else None
    if weighted and kind == "GammaRule":
        return Gamma(float(given.gamma), stabilizer=stabilizer, bias=bias)
    if weighted:
        return ZPlus(stabilizer=stabilizer, bias=bias)
    raise UnsuitableRuleError(
        f"{where}: {kind} is for layers with weights; a BatchNorm takes EpsilonRule or IdentityRule"
    )


KNOWN = ("EpsilonRule", "GammaRule", "Alpha1_Beta0_Rule", "IdentityRule")


def is_captums(rule: Any) -> bool:
    return any(cls.__name__ == "PropagationRule" for cls in type(rule).__mro__)


def kind_of(rule: Any) -> str | None:
    return type(rule).__name__ if rule is not None and not isinstance(rule, Rule) else None


def title_of(name: str, part: Any) -> str:
    return f"{type(part).__name__} {name!r}"


def targets_of(target: Any, n: int) -> list[Any]:
    """One target per sample."""
    if hasattr(target, "tolist"):
        target = target.tolist()
    if isinstance(target, list) and len(target) == 1:
        target = target[0]
    given = target if isinstance(target, list) else [target] * n
    if len(given) != n:
        raise TargetError(f"target holds {len(given)} entries for {n} samples")
    return given


def output_index(target: Any, n: int, out: Shape) -> np.ndarray[Any, Any]:
    """Which output of (n, *out) a target means for each sample, (n, number of axes of out).

    Raises
    ------
    TargetError : it leaves more than one output, or names one that is not there
    """
    rows = []
    for given in targets_of(target, n):
        entry = () if given is None else given
        row = tuple(entry) if isinstance(entry, (tuple, list)) else (entry,)
        if len(row) > len(out) or not all(isinstance(i, (int, np.integer)) and not isinstance(i, bool) for i in row):
            raise TargetError(f"target {given!r:.60} does not name an output of shape (n, {', '.join(map(str, out))})")
        rest = out[len(row) :]
        if any(size != 1 for size in rest):
            raise TargetError(
                f"target {given!r:.60} leaves outputs of shape {rest}; name a single one of (n, "
                f"{', '.join(map(str, out))})"
            )
        if not all(-size <= i < size for i, size in zip(row, out, strict=False)):
            raise TargetError(f"target {given!r:.60} lies outside the outputs of shape (n, {', '.join(map(str, out))})")
        rows.append([i % size for i, size in zip(row, out, strict=False)] + [0] * len(rest))
    return np.array(rows, np.intp).reshape(n, len(out))
