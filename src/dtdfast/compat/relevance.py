"""From an output of a model to relevance at its input or at one of its layers, also past layers that pass relevance
unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import RuleError, at
from ..layers import INPUT
from ..plan.wiring import sources
from ..presets import Rules
from .model import Imported


@dataclass(frozen=True)
class Chosen:
    """What a tool's rules come to: rules of dtdfast, and the entries that a tool skips (identity rules)."""

    rules: Rules
    skipped: tuple[int, ...] = ()


def relevance(
    network: Imported, x: Any, target: Any, chosen: Chosen, stop: int | None, options: dict[str, Any]
) -> tuple[Any, Any]:
    """Relevance of x, or of the output of the entry `stop`, and the network's outputs.

    A layer with weights cannot pass relevance unchanged within one plan, so relevance stops at its output and starts
    again at its input; this is exact where all relevance comes through that layer.

    Raises
    ------
    RuleError
        Where relevance also has ways around a skipped layer, or that layer changes the shape.
    """
    start, outputs = None, None
    for position in sorted(chosen.skipped, reverse=True):
        if stop is not None and position <= stop:
            break
        _check_skippable(network, position, start, stop)
        explainer = network.explainer(chosen.rules, start=start, stop=position, **options)
        target, seen = explainer.explain(x, target, return_outputs=True)
        outputs = seen if outputs is None else outputs
        (start,) = sources(network.layers)[position]
        if start in (INPUT, stop):
            return target, outputs
    explainer = network.explainer(chosen.rules, start=start, stop=stop, **options)
    result, seen = explainer.explain(x, target, return_outputs=True)
    return result, seen if outputs is None else outputs


def _check_skippable(network: Imported, position: int, start: int | None, stop: int | None) -> None:
    where = at(position, network.layers[position])
    reads = sources(network.layers)
    end = INPUT if stop is None else stop
    stack, seen = [len(reads) - 1 if start is None else start], set()
    while stack:
        entry = stack.pop()
        if entry == end and entry != position:
            raise RuleError(
                f"{where} has an identity rule, but relevance also reaches what lies below it by other ways; give it "
                "another rule"
            )
        if entry != INPUT and entry not in seen and entry != position:
            seen.add(entry)
            stack.extend(reads[entry])
    shapes = network.shapes()
    before, after = shapes[reads[position][0]], shapes[position]
    if before != after:
        raise RuleError(f"{where} has an identity rule, but turns samples of shape {before} into {after}")
