"""DenseNet-121, whose BatchNorms read concatenations and cannot fold, with the statistics of photographs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision.models as tv
from skimage import data

import dtdfast as dtd


@pytest.fixture(scope="module")
def network() -> tuple[list[dtd.Layer], Any]:
    """Random weights; BatchNorms that have seen crops of four photographs; these crops."""
    torch.manual_seed(0)
    model = tv.densenet121(weights=None)
    photographs = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    x = np.stack([p[50:178:2, 60:188:2].transpose(2, 0, 1) for p in photographs]).astype(np.float32) / 255
    x = (x - np.float32([0.485, 0.456, 0.406])[:, None, None]) / np.float32([0.229, 0.224, 0.225])[:, None, None]
    model.train()
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None  # the mean of all that it sees
    with torch.no_grad():
        for seen in (x, x[..., ::-1].copy(), x[..., ::-1, :].copy()):
            model(torch.from_numpy(seen))
    return dtd.from_torch(model.eval(), torch.from_numpy(x[:1])), x


def test_relevance_is_kept_and_not_negative(network: tuple[list[dtd.Layer], Any]) -> None:
    layers, x = network
    r_in, outputs = dtd.explain(layers, x, backend="cpu", return_outputs=True)
    f = outputs.max(axis=1)
    assert f.min() > 0
    assert r_in.min() >= 0
    assert (r_in.sum(axis=(1, 2, 3)) >= 0.9 * f).all()
    exact = dtd.explain(layers, x[:1], backend="oracle")
    assert abs(r_in[:1] - exact).max() <= 1e-4 * abs(exact).max()
    explainer = dtd.Explainer(layers, backend="cpu")
    assert explainer.ledger(x[:1]).closed


def test_lrp0_is_gradient_times_input(network: tuple[list[dtd.Layer], Any]) -> None:
    layers, x = network
    expected = dtd.baselines.input_x_gradient(layers, x[:1], backend="oracle")
    assert (
        abs(dtd.explain(layers, x[:1], rules="lrp-0", backend="oracle") - expected).max() <= 1e-9 * abs(expected).max()
    )
