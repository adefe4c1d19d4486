"""What zennit's canonizers that merge BatchNorms leave of them, found by trying the ones that are installed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import layers as L
from ..errors import RuleError
from ..extras import require
from ..rules import Convention, Flat, Rule, Share, WSquare, ZPlus
from .model import Imported


def left_by(canonizers: Iterable[Any], network: Imported, model: Any) -> dict[int, float]:
    """The factors by which merged BatchNorms still multiply their outputs, by position; those that leave nothing are
    left out.

    zennit 0.5.1 makes a BatchNorm the identity but for its eps, which leaves 1/√(1 + eps); 1.0.0 sets eps to 0.

    Raises
    ------
    RuleError
        A canonizer merges a BatchNorm into a layer that does not compute its input alone, which changes the model's
        answers.
    """
    folded, parts, found = network.folded(), network.parts(model), {}
    names = {id(part): name for name, part in model.named_modules()}
    for canonizer in _merging(canonizers):
        for linears, norm in _pairs(canonizer, model):
            into = {id(part) for part in linears}
            for position in (p for p, part in enumerate(parts) if part is norm):
                takers = folded.get(position, ())
                if not takers or max(takers) > position or not {id(parts[t]) for t in takers} <= into:
                    raise RuleError(
                        f"{type(canonizer).__name__} merges the BatchNorm {names[id(norm)]!r} into "
                        f"{', '.join(names[i] for i in into)}, "
                        "which does not compute its input alone: the model would give other answers; "
                        "name what belongs together with zennit.canonizers.NamedMergeBatchNorm"
                    )
                found[position] = _left(canonizer, norm.eps)
    return {position: factor for position, factor in sorted(found.items()) if factor != 1.0}


def with_factors(network: Imported, left: dict[int, float]) -> Imported:
    """The layers with the outputs of these BatchNorms multiplied by what is left of them."""
    layers = list(network.layers)
    for position, factor in left.items():
        record = layers[position]
        assert isinstance(record, L.BatchNorm)
        weight = np.ones(np.shape(record.mean)) if record.weight is None else np.asarray(record.weight, np.float64)
        bias = None if record.bias is None else np.asarray(record.bias, np.float64) * factor
        layers[position] = replace(record, weight=weight * factor, bias=bias)
    return replace(network, layers=layers, explainers=OrderedDict(), variants={})


def scaled(rule: Rule, factor: float, *, passes: bool, where: str) -> Rule:
    """The rule of a layer whose weights hold a factor that stays with its BatchNorm in zennit.

    Its stabilizer keeps its share of the sum. A BatchNorm that does not pass relevance, for want of a rule, multiplies
    it by the factor.
    """
    if not isinstance(rule, Flat) and rule.stabilizer is not None:
        rule = replace(rule, stabilizer=rule.stabilizer * (factor**2 if isinstance(rule, WSquare) else factor))
    if passes:
        return rule
    if type(rule) is not ZPlus:
        raise RuleError(
            f"{where}: the BatchNorm behind it has no rule in this composite; zennit would multiply relevance by "
            f"{factor:.6g}"
        )
    return Damped(rule.bias, rule.stabilizer, factor)


@dataclass(frozen=True)
class Damped(ZPlus):
    """z⁺ times a factor."""

    bias: str | None = None
    stabilizer: float | None = None
    factor: float = 1.0

    @property
    def name(self) -> str:
        return "ZPlus"

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        return tuple(
            replace(share, coefficient=self.factor * share.coefficient) for share in super().shares(convention)
        )


def _merging(canonizers: Iterable[Any]) -> Iterator[Any]:
    """Those that merge BatchNorms, also within others."""
    for canonizer in canonizers:
        if any(cls.__name__ == "MergeBatchNorm" for cls in type(canonizer).__mro__):
            yield canonizer
        yield from _merging(getattr(canonizer, "canonizers", ()))


def _pairs(canonizer: Any, model: Any) -> list[tuple[Any, Any]]:
    """(linear parts, BatchNorm) that a canonizer merges in a model, which stays as it is."""
    pairs = []

    class Noting(type(canonizer)):  # type: ignore[misc]
        def register(self, linears: Any, batch_norm: Any) -> None:
            pairs.append((linears, batch_norm))

    noting = copy(canonizer)
    noting.__class__ = Noting
    noting.apply(model)
    return pairs


def _left(canonizer: Any, eps: float) -> float:
    """What a merged BatchNorm still makes of 1."""
    torch = require("torch", "peers")
    linear, norm = torch.nn.Linear(1, 1).double(), torch.nn.BatchNorm1d(1, eps=eps).double().eval()
    with torch.no_grad():
        canonizer.copy().register((linear,), norm)
        return float(norm(torch.ones(1, 1, dtype=torch.float64)))
