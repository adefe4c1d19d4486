"""Scores against Quantus, on the same maps and orders, where the definitions coincide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import quantus
import torch
from numpy.typing import NDArray
from torch import nn

import dtdfast as dtd
from dtdfast import diagnostics, evaluation

Array = NDArray[Any]
N, SIZE = 6, 12
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
QUIET = {"disable_warnings": True, "display_progressbar": False}


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(128, 5)
    ).eval()  # fmt: skip


@pytest.fixture
def x() -> Array:
    return np.random.default_rng(0).random((N, 3, SIZE, SIZE), dtype=np.float32)


@pytest.mark.parametrize(("order", "mine"), [("morf", "outputs"), ("lerf", "outputs_least")])
@pytest.mark.parametrize("rules", ["dtd", "lrp-0"])
def test_region_perturbation(module: nn.Module, x: Array, rules: str, order: str, mine: str) -> None:
    """A constant in regions of 4 × 4, which divide the image; their curve leaves out k = 0."""
    layers, target = dtd.from_torch(module, torch.from_numpy(x)), np.arange(N) % 5
    maps = dtd.explain(layers, x, target, rules=rules, domain=(0.0, 1.0))
    metric = quantus.RegionPerturbation(
        patch_size=4, regions_evaluation=7, order=order, perturb_baseline=0.25, normalise=False, abs=False, **QUIET
    )
    theirs = np.array(metric(model=module, x_batch=x, y_batch=target, a_batch=maps, softmax=False, device="cpu"))
    result = evaluation.region_perturbation(layers, x, maps, target, size=4, steps=7, operator=0.25)
    curves = getattr(result, mine)["relevance"]
    ours = curves[:, :1] - curves[:, 1:]
    assert theirs.shape == ours.shape == (N, 7)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(curves).max())
    aopc = np.concatenate((np.zeros((N, 1)), theirs), axis=1).mean()
    estimate = result.aopc("relevance") if order == "morf" else result.aopc_least("relevance")
    assert estimate.mean == pytest.approx(aopc, abs=1e-5 * np.abs(curves).max())


def test_randomisation_score(module: nn.Module, x: Array) -> None:
    """Their randomised networks, explained by us; then our score of the same maps, non-negative and of one channel."""
    target = np.arange(N) % 5
    recorded: list[Array] = []

    def explain(model: nn.Module, inputs: Array, targets: Array, **kwargs: Any) -> Array:
        layers = dtd.from_torch(model.eval(), torch.from_numpy(inputs))
        start = np.eye(5, dtype=np.float32)[targets]
        recorded.append(dtd.explain(layers, inputs, start, domain=(0.0, 1.0)).sum(axis=1, keepdims=True))
        return recorded[-1]

    metric = quantus.MPRT(layer_order="top_down", similarity_func=quantus.similarity_func.correlation_spearman, **QUIET)
    original = explain(module, x, target)
    theirs = metric(model=module, x_batch=x, y_batch=target, a_batch=original, explain_func=explain, device="cpu")
    steps = [scores for name, scores in theirs.items() if name != "original"]
    assert len(steps) == 3
    maps: Iterator[Array] = iter((original, *recorded[-3:]))
    layers = dtd.from_torch(module, torch.from_numpy(x))
    ours = diagnostics.parameter_randomization(layers, x, target, attribution=lambda *_, **__: next(maps))
    np.testing.assert_allclose(ours.similarity["Spearman"], steps, rtol=0, atol=1e-5)
    assert np.min(steps) < 0.999  # the maps did change
