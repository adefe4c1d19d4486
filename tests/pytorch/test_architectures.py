"""Published architectures through the importers: outputs, ledgers, positive relevance, and the same maps from both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from modules import CASES, Case
from numpy.typing import NDArray

import dtdfast as dtd

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def start(outputs: NDArray[Any], case: Case) -> NDArray[np.float32]:
    """Relevance 1 at one output of every sample."""
    relevance = np.zeros(outputs.shape, np.float32)
    relevance[(slice(None), *case.at)] = 1
    return relevance


def relative(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("name", CASES)
def test_from_torch(name: str) -> None:
    case = CASES[name]
    module, x = case.module(), case.sample()
    layers = dtd.from_torch(module, x[:1])
    with torch.no_grad():
        expected = module(x).numpy()
    assert relative(dtd.predict(layers, x.numpy()), expected) <= 1e-4

    explainer = dtd.Explainer(layers)
    one = start(expected, case)
    ledger = explainer.ledger(x.numpy(), one)
    assert ledger.closed, str(ledger)
    relevance = explainer.explain(x.numpy(), one)
    assert relevance.shape == x.shape
    assert relevance.min() >= 0
    assert relevance.sum() > 0
