"""zennit's rules and hooks as rules of dtdfast."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import layers as L
from ..arrays.foreign import take
from ..errors import RuleError
from ..plan.shapes import Shape
from ..rules import AlphaBeta, Epsilon, Flat, Gamma, Pass, Rule, WSquare, ZBox, Zero, ZPlus
from .model import POOLS

MEANS = (*POOLS, L.Reduce, L.Resample)
"""Linear records without weights."""


def rule_for(hook: Any, record: L.Layer, where: str, sample: Shape) -> Rule:
    """The rule of an entry that reads samples of this shape."""
    if isinstance(record, L.Add):
        return Pass() if hook is None else rule_of_sum(hook, where)
    if hook is None:
        return Flat(stabilizer=0.0)
    if isinstance(record, MEANS):
        return _rule_of_mean(hook, record, where, sample)
    return READERS[kind_of(hook)](hook, sample, where)


def _rule_of_mean(hook: Any, record: L.Layer, where: str, sample: Shape) -> Rule:
    """zennit's rules change a layer's parameters, of which a pool has none: the parts of x of either sign meet in one
    sum again, which leaves ε, or, where x is 1, the pool of 1.
    """
    kind, stabilizer = kind_of(hook), _stabilizer(hook, where)
    if kind == "ZBox":
        raise RuleError(f"{where}: ZBox on a layer without weights is not supported, Norm is")
    if kind in ("WSquare", "Flat"):  # Σ 1 + k·stabilizer over a window of k is k times the mean's denominator
        return Flat(stabilizer=stabilizer * _window(record, sample))
    return Epsilon(stabilizer)


def _window(record: L.Layer, sample: Shape) -> int:
    """By what a mean divides; 1 for a sum."""
    if isinstance(record, L.Reduce):
        return int(np.prod(np.take((1, *sample), record.axes))) if record.kind == "mean" else 1
    if isinstance(record, L.AvgPool):
        return math.prod(np.broadcast_to(record.kernel, len(sample) - 1).tolist())
    return math.prod(sample[1:]) if isinstance(record, L.GlobalAvgPool) else 1


def rule_of_sum(hook: Any, where: str) -> Rule:
    kind = kind_of(hook)
    if kind not in ("Norm", "Pass"):
        raise RuleError(f"{where}: zennit's {kind} on an addition is not supported, only Norm and Pass")
    return Pass() if kind == "Pass" else Zero(stabilizer=_stabilizer(hook, where))


def kind_of(hook: Any) -> str:
    """The name of one of zennit's own rules; of anything else a name that no rule has."""
    cls = type(hook)
    return cls.__name__ if cls.__module__ == "zennit.rules" else f"{cls.__module__}.{cls.__name__}"


def _inside(function: Any, name: str, where: str) -> Any:
    """What a rule was made with: a variable that one of its functions encloses."""
    try:
        return inspect.getclosurevars(function).nonlocals[name]
    except (KeyError, TypeError):
        raise RuleError(
            f"{where}: this version of zennit keeps {name!r} elsewhere; tested are zennit 0.5.1 and 1.0.0"
        ) from None


def _stabilizer(hook: Any, where: str) -> float:
    found = _inside(hook.gradient_mapper, "stabilizer_fn", where)
    if type(found).__name__ != "Stabilizer" or found.clip or found.norm_scale:
        raise RuleError(f"{where}: only a stabilizer that adds a number is supported, not {found!r}")
    return float(found.epsilon)


def _no_bias(hook: Any, where: str) -> bool:
    """Whether the rule sets the bias to zero."""
    zero = hook.param_modifiers[0].zero_params or []
    names = [zero] if isinstance(zero, str) else list(zero)
    if set(names) - {"bias"}:
        raise RuleError(f"{where}: zero_params={zero!r}, expected nothing but 'bias'")
    return bool(names)


def _weighted(make: Callable[..., Rule], **read: Callable[[Any, str], Any]) -> Callable[[Any, Shape, str], Rule]:
    """Reads one of zennit's rules: `make` with what `read` finds, the stabilizer, and the bias where it is set to
    zero.
    """

    def reader(hook: Any, sample: Shape, where: str) -> Rule:
        fields = {key: get(hook, where) for key, get in read.items()}
        if _no_bias(hook, where) and make is not Flat and make is not ZBox:
            fields["bias"] = "none"
        return make(**fields, stabilizer=_stabilizer(hook, where))

    return reader


def _alpha(name: str) -> Callable[[Any, str], float]:
    return lambda hook, where: float(_inside(hook.reducer, name, where))


def _gamma(hook: Any, where: str) -> float:
    return float(_inside(hook.param_modifiers[0].modifier, "gamma", where))


def _box(hook: Any, sample: Shape, where: str) -> Rule:
    bounds = []
    for index, name in ((1, "low"), (2, "high")):
        bound = np.array(take(_inside(hook.input_modifiers[index], name, where))[0], np.float64)
        if bound.ndim:  # the first axis is the batch's, and the last ones may be left out
            bound = bound.reshape(bound.shape + (1,) * (len(sample) + 1 - bound.ndim))
            if (bound != bound[:1]).any():
                raise RuleError(f"{where}: ZBox has another {name} for every sample; one for all is supported")
            bound = bound[0]
        bounds.append(bound)
    _no_bias(hook, where)
    return ZBox(*bounds, stabilizer=_stabilizer(hook, where))


READERS: dict[str, Callable[[Any, Shape, str], Rule]] = {
    "Epsilon": _weighted(Epsilon),
    "Norm": _weighted(Epsilon),
    "ZPlus": _weighted(ZPlus),
    "Gamma": _weighted(Gamma, gamma=_gamma),
    "AlphaBeta": _weighted(AlphaBeta, alpha=_alpha("alpha"), beta=_alpha("beta")),
    "WSquare": _weighted(WSquare),
    "Flat": _weighted(Flat),
    "ZBox": _box,
}
