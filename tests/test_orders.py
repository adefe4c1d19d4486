"""LRP-0 is gradient × input on every ReLU network, whatever the order of its layers: a generator of such orders."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
from graphs import AGES, MAX_ELEMENTS, Builder
from graphs import blocks as g

LONG = bool(os.environ.get("DTDFAST_LONG"))
NETWORKS, BLOCK = (10_000, 500) if LONG else (400, 100)

ANYWHERE = [g.relu, g.relu, g.batch_norm, g.scale, g.concat, g.add, g.residual, g.slices, g.dropout]
FLAT = [g.linear, g.linear, g.reshape, *ANYWHERE]
SPATIAL = [g.conv, g.conv, g.conv, g.conv_transpose, g.max_pool, g.avg_pool, g.sum_pool, g.global_avg_pool, g.pad,
    g.upsample, g.permute,
           g.shuffle, g.flatten, *ANYWHERE]  # fmt: skip


def network(seed: int) -> tuple[list[dtd.Layer], np.ndarray[Any, Any]]:
    """A network of 2 to 14 blocks and a sample; scales and shifts are of both signs, none of them 0."""
    rng = np.random.default_rng(seed)
    rank = int(rng.choice([0, 1, 2, 2, 2, 3]))
    shape = (int(rng.integers(1, 6)), *(int(s) for s in rng.integers(2, 8 if rank < 3 else 5, rank)))
    b = Builder(rng, shape)
    p = dtd.INPUT
    for _ in range(int(rng.integers(2, 15))):
        source = max(p - int(rng.choice(AGES)), dtd.INPUT)
        blocks = FLAT if len(b.shape(source)) == 1 else SPATIAL
        if len(b.shape(source)) > 4 or math.prod(b.shape(source)) > MAX_ELEMENTS:
            blocks = [g.slices, g.relu]
        blocks[int(rng.integers(len(blocks)))](b, source)
        p = len(b.layers) - 1
    if not b.layers:
        g.relu(b, p)
    return b.layers, rng.standard_normal((1, *shape))


@pytest.mark.parametrize("first", range(0, NETWORKS, BLOCK))
def test_lrp0_is_gradient_times_input_in_any_order(first: int) -> None:
    """To 1e-9 in float64 for one output, drawn at random."""
    kept = 0
    for seed in range(first, first + BLOCK):
        layers, x = network(seed)
        explainer = dtd.Explainer(layers, rules="lrp-0", backend="oracle")
        outputs = explainer.predict(x)
        target = tuple(int(i) for i in np.random.default_rng([seed, 1]).integers(outputs.shape[1:]))
        expected = dtd.baselines.input_x_gradient(layers, x, target, backend="oracle")
        r_in = explainer.explain(x, target)
        kept += bool(expected.any())
        assert abs(r_in - expected).max() <= 1e-9 * abs(expected).max(), (seed, layers)
    assert kept >= BLOCK // 2
