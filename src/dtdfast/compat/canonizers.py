"""What zennit's canonizers do: BatchNorms merged, found by trying the installed ones, and additions marked."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

import numpy as np

from .. import layers as L
from ..errors import RuleError
from ..extras import require
from ..rules import Convention, Flat, Rule, Share, WSquare
from .model import Imported


@dataclass(frozen=True)
class Canonized:
    """What canonizers make of a model.

    Attributes
    ----------
    left : by position of every merged BatchNorm the factor by which it still multiplies its output
    sums : name of a part whose additions are marked → (name, zennit's `Sum`) of the marks
    """

    left: dict[int, float]
    sums: dict[str, list[tuple[str, Any]]]


def canonized(canonizers: Iterable[Any], network: Imported, model: Any) -> Canonized:
    """zennit 0.5.1 makes a merged BatchNorm the identity but for its eps, which leaves 1/√(1 + eps); 1.0.0 sets eps to
    0.

    Raises
    ------
    RuleError
        A canonizer merges a BatchNorm into a layer that does not compute its input alone, which changes the model's
        answers; one that changes a part in another way than by a forward with its additions marked; one of another
        kind.
    """
    every = [*_each(canonizers)]
    return Canonized(_left_by((c for c in every if _is_a(c, "MergeBatchNorm")), network, model), _marked(every, model))


def _left_by(canonizers: Iterable[Any], network: Imported, model: Any) -> dict[int, float]:
    folded, parts, found = network.folded(), network.parts(model), {}
    names = {id(part): name for name, part in model.named_modules()}
    for canonizer in canonizers:
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
    return dict(sorted(found.items()))


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


def scaled(rule: Rule, factor: float, *, passes: bool) -> Rule:
    """The rule of a layer whose weights hold a factor that stays with its BatchNorm in zennit.

    Its stabilizer keeps its share of the sum. A BatchNorm that does not pass relevance, for want of a rule, multiplies
    it by the factor.
    """
    if not isinstance(rule, Flat) and rule.stabilizer is not None:
        rule = replace(rule, stabilizer=rule.stabilizer * (factor**2 if isinstance(rule, WSquare) else factor))
    if not passes:
        rule, kind = copy(rule), cast(Hashable, type(rule))
        object.__setattr__(rule, "__class__", _damped(kind, factor))  # which keeps all that the rule was made with
    return rule


@lru_cache(64)
def _damped(kind: Any, factor: float) -> Any:
    """A kind of rule, its relevance times a factor."""

    def shares(self: Rule, convention: Convention) -> tuple[Share, ...]:
        return tuple(replace(share, coefficient=factor * share.coefficient) for share in kind.shares(self, convention))

    return type(kind.__name__, (kind,), {"shares": shares})


def _marked(canonizers: Iterable[Any], model: Any) -> dict[str, list[tuple[str, Any]]]:
    """The parts that are given a forward which adds by `Sum`."""
    found: dict[str, list[tuple[str, Any]]] = {}
    for canonizer in canonizers:
        if not _is_a(canonizer, "AttributeCanonizer"):
            continue
        for name, part in model.named_modules():
            attributes = canonizer.attribute_map(name, part)
            if attributes is None:
                continue
            sums = [
                (f"{name}.{key}".lstrip("."), mark) for key, mark in attributes.items() if type(mark).__name__ == "Sum"
            ]
            others = set(attributes) - {key.rpartition(".")[2] for key, _ in sums} - {"forward"}
            if not sums or others:
                raise RuleError(
                    f"{type(canonizer).__name__} changes {', '.join(attributes)} of the {type(part).__name__} "
                    f"{name!r}; only a forward "
                    "that marks additions with zennit.layer.Sum is known; apply it to the model, then leave it out"
                )
            found[name] = sums
    return found


def _each(canonizers: Iterable[Any]) -> Iterator[Any]:
    """Those that do something, also within others."""
    for canonizer in canonizers:
        if _is_a(canonizer, "CompositeCanonizer"):
            yield from _each(canonizer.canonizers)
        elif _is_a(canonizer, "MergeBatchNorm") or _is_a(canonizer, "AttributeCanonizer"):
            yield canonizer
        else:
            raise RuleError(
                f"the canonizer {type(canonizer).__name__} has no equal here; known are those that merge BatchNorms "
                "(MergeBatchNorm) and those that mark additions (AttributeCanonizer)"
            )


def _is_a(canonizer: Any, name: str) -> bool:
    return any(cls.__name__ == name for cls in type(canonizer).__mro__)


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
