"""Published architectures through both importers: outputs, ledgers, positive relevance, and the same maps from
either.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import dtdfast as dtd
from modules import CASES

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@dataclass
class Network:
    """A module with its outputs, and what from_torch makes of it; `start` is relevance 1 at one output of every
    sample.
    """

    module: torch.nn.Module
    x: torch.Tensor
    outputs: NDArray[Any]
    start: NDArray[np.float32]
    layers: list[dtd.Layer]
    sibling: bool

    @cached_property
    def explainer(self) -> dtd.Explainer:
        return dtd.Explainer(self.layers)

    @cached_property
    def relevance(self) -> NDArray[np.float32]:
        return self.explainer.explain(self.x.numpy(), self.start)


@pytest.fixture(scope="module", params=CASES)
def network(request: pytest.FixtureRequest) -> Network:
    case = CASES[request.param]
    module, x = case.module(thin=True), case.sample()
    outputs = module(x).numpy()
    start = np.zeros(outputs.shape, np.float32)
    start[(slice(None), *case.at)] = 1
    return Network(module, x, outputs, start, dtd.from_torch(module, x[:1]), case.sibling)


def worst(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Largest difference, relative to the largest value."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def test_from_torch(network: Network) -> None:
    assert worst(network.explainer.predict(network.x.numpy()), network.outputs) <= 1e-4
    ledger = network.explainer.ledger(network.x.numpy(), network.start)
    assert ledger.closed, str(ledger)
    assert network.relevance.shape == network.x.shape
    assert network.relevance.min() >= 0
    assert network.relevance.sum() > 0


def test_from_onnx(network: Network, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Through PyTorch's exporters: both of every fourth network, the older one of the others, none where another
    network has the same operations. DTDFAST_LONG=1 takes both of all.
    """
    every = bool(os.environ.get("DTDFAST_LONG"))
    if network.sibling and not every:
        pytest.skip("the operations of another network: DTDFAST_LONG=1")
    both = every or list(CASES).index(request.node.callspec.params["network"]) % 4 == 0
    for dynamo in (True, False) if both else (False,):
        path = tmp_path / f"{dynamo}.onnx"
        torch.onnx.export(network.module, (network.x,), path, dynamo=dynamo, verbose=False)
        layers, x = dtd.from_onnx(path), network.x.numpy()
        explainer = dtd.Explainer(layers)
        assert worst(explainer.predict(x), network.outputs) <= 1e-4
        ledger = explainer.ledger(x, network.start)
        assert ledger.closed, str(ledger)
        ours = explainer.explain(x, network.start)
        # as sums: exporters fold BatchNorms in float32, and where two elements of a pool's window are equal up to that
        # rounding, all of
        # the window's relevance moves
        assert np.abs(ours - network.relevance).sum() <= 1e-4 * np.abs(network.relevance).sum()
