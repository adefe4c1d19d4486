"""Slope, the gradient in the place of a rule, beside Pass: activations, affine maps that stay, additions; against
closed forms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast.rules import Pass, Rule, Slope
from support import close, normal

# one that hands relevance to what is 0, one that does not
RULES: dict[str, Rule] = {"flat": dtd.Flat(), "0": dtd.Zero()}


def network(rng: np.random.Generator) -> list[dtd.Layer]:
    norm = dtd.BatchNorm(normal(rng, 5), rng.uniform(0.5, 2, 5), normal(rng, 5), normal(rng, 5))
    return [
        dtd.Linear(normal(rng, 5, 6), normal(rng, 5)), norm, dtd.ReLU(), dtd.Linear(normal(rng, 5, 5), normal(rng, 5)),
        dtd.Activation("silu"), dtd.Add(inputs=(2, 4)), dtd.ReLU(), dtd.Linear(normal(rng, 3, 5), normal(rng, 3)),
    ]  # fmt: skip


def rules_for(rule: Rule, norm: Rule) -> dict[int, Rule]:
    return {0: rule, 1: norm, 2: Slope(), 3: rule, 4: Slope(), 5: Pass(), 6: Slope(), 7: rule}


def down(layer: Any, x: Any, r: Any, rule: Rule) -> Any:
    """R_i = Σ_j n_ij / d_j R_j of one linear layer."""
    if isinstance(rule, dtd.Flat):
        return np.repeat(r.sum(1, keepdims=True) / x.shape[1], x.shape[1], axis=1)
    return x * ((r / (x @ layer.weight.T + layer.bias)) @ layer.weight)


def by_hand(layers: list[Any], x: Any, start: Any, rule: Rule, norm: Rule) -> Any:
    scale = layers[1].weight / np.sqrt(layers[1].variance + layers[1].eps)
    y0 = x @ layers[0].weight.T + layers[0].bias
    y1 = (y0 - layers[1].mean) * scale + layers[1].bias
    y2 = np.maximum(y1, 0)
    y3 = y2 @ layers[3].weight.T + layers[3].bias
    sigmoid = 1 / (1 + np.exp(-y3))
    y5 = y2 + y3 * sigmoid
    r5 = down(layers[7], np.maximum(y5, 0), start, rule) * (y5 > 0)
    r2 = r5 + down(layers[3], y2, r5 * sigmoid * (1 + y3 * (1 - sigmoid)), rule)
    r1 = r2 * (y1 > 0)
    return down(layers[0], x, r1 * scale if isinstance(norm, Slope) else r1, rule)


@pytest.mark.parametrize("norm", [Slope(), Pass()], ids=["slope", "pass"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("backend", ["oracle", "cpu"])
def test_against_closed_form(backend: str, rule: str, norm: Rule, rng: np.random.Generator) -> None:
    layers, x, start = network(rng), normal(rng, 4, 6), rng.standard_normal((4, 3))
    options: Any = dict(
        rules=rules_for(RULES[rule], norm), backend=backend, precision="float64" if backend == "cpu" else "float32"
    )
    result = dtd.explain(layers, x.astype(float), start, **options)
    close(result, by_hand(layers, x.astype(float), start, RULES[rule], norm), "oracle")


def test_an_affine_that_relevance_passes_does_not_fold(rng: np.random.Generator) -> None:
    """The layer before it takes its own rule, with weights of its own."""
    layers, x = network(rng)[:3], normal(rng, 4, 6)
    alone = dtd.explain(layers[:1], x, np.eye(5)[[0, 1, 2, 3]], rules=dtd.WSquare(), backend="oracle")
    kept = dtd.explain(layers[:2], x, np.eye(5)[[0, 1, 2, 3]], rules={0: dtd.WSquare(), 1: Pass()}, backend="oracle")
    close(kept, alone, "oracle")


def test_slope_elsewhere_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(dtd.RuleError, match="shares by its weights"):
        dtd.explain(network(rng), normal(rng, 4, 6), 1, rules={0: Slope()})
    with pytest.raises(dtd.RuleError, match="Flatten"):
        dtd.explain([dtd.Flatten(), *network(rng)], normal(rng, 4, 6), 1, rules={0: Slope()})
    adding = [dtd.Linear(np.eye(3)), dtd.ReLU(), dtd.Add(inputs=(0, 1))]
    with pytest.raises(dtd.RuleError, match=r"layer 2 \(Add\): Slope is no rule for an Add"):
        dtd.explain(adding, normal(rng, 4, 3), 1, rules={2: Slope()})
