"""The relevance of weights by CUDA's kernels, on a device that is the host: the oracle's, and what the ledger says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import test_parameters as shared

import dtdfast as dtd
from cases.networks import small
from dtdfast import parameters
from dtdfast.cuda.kernels import weight_gradient

SOME = shared.SOME[:: 1 if shared.LONG else 8]


def test_blocks_are_those_of_the_cpu() -> None:
    assert weight_gradient.POSITIONS == shared.POSITIONS


@pytest.mark.parametrize("case", SOME, ids=lambda case: case.id)
def test_explicit(case: Any, explainer: Any) -> None:
    options = case.options("cuda")
    del options["backend"]
    exact, bound = shared.expected(case, case.tolerance(shared.U) + (shared.POSITIONS + 8) * shared.U)
    found = parameters.relevance(explainer(case.layers, **options), case.x, case.r_out)
    assert (abs(found[0] - exact) <= bound).all()


@pytest.mark.parametrize(("name", "precision"), [("cnn", "float32"), ("digits_mlp", "bfloat16")])
def test_networks(name: str, precision: str, explainer: Any) -> None:
    net = small(name)
    x = net.sample(2)
    made = explainer(net.layers, precision=precision)
    found = parameters.relevance(made, x, net.target)
    balance = found.against(made.ledger(x, net.target))
    assert balance.closed, str(balance)


def test_batches_have_the_same_bits(explainer: Any, rng: np.random.Generator) -> None:
    x, layers = rng.standard_normal((5, 3, 19, 15)).astype(np.float32), shared.network(rng)
    seen = []
    for sizes in ((5,), (2, 3)):
        sums = parameters.Accumulator(explainer(layers))
        for first, size in zip(np.cumsum((0, *sizes)), sizes, strict=False):
            sums.add(x[first : first + size], 1)
        seen.append(sums.result())
    for position in seen[0]:
        np.testing.assert_array_equal(seen[0][position], seen[1][position])
    assert isinstance(seen[0], parameters.WeightRelevance)
    assert seen[0].against(dtd.Explainer(layers, backend="cpu").ledger(x, 1)).closed
