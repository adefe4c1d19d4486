"""Word indices through the drop-ins: relevance and outputs are of the model's type, not of the indices'."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dtdfast as dtd
from dtdfast.compat import innvestigate, quantus
from dtdfast.compat.captum import LRP, LayerLRP
from dtdfast.compat.zennit import Gradient

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

TYPES = [torch.float32, torch.float64]
WORDS = torch.randint(1, 30, (2, 9), generator=torch.Generator().manual_seed(0))
# rounding of 16 products in three layers; ε = 1e-9 beside the smallest sums
LIMIT = {torch.float32: 2e-5, torch.float64: 1e-6}


@pytest.fixture(scope="module", params=TYPES, ids=str)
def text(request: Any) -> nn.Sequential:
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Embedding(30, 6), nn.Conv1d(9, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
        .to(request.param)
        .eval()
    )


def gradient_times_vectors(text: nn.Sequential) -> Tensor:
    vectors = text[0](WORDS).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(text[1:](vectors)[:, 1].sum(), vectors)
    return (gradient * vectors).detach()


@pytest.mark.parametrize("kind", [torch.int64, torch.int32])
def test_captum(text: nn.Sequential, kind: torch.dtype) -> None:
    """ε = 1e-9 gives gradient × input, here × the words' vectors."""
    words, dtype, right = WORDS.to(kind), text[0].weight.dtype, gradient_times_vectors(text)
    relevance, delta = LRP(text).attribute(words, target=1, return_convergence_delta=True)
    assert relevance.dtype == delta.dtype == dtype
    torch.testing.assert_close(relevance, right.sum(2), rtol=0, atol=LIMIT[dtype])
    torch.testing.assert_close(delta, text(WORDS)[:, 1].detach() - right.sum((1, 2)), rtol=0, atol=LIMIT[dtype])
    layers = [text[0], text[1], text[4]]
    for before, (first, *others) in ((False, (right, right)), (True, (right.sum(2), right))):
        results, deltas = LayerLRP(text, layers).attribute(
            words, 1, return_convergence_delta=True, attribute_to_layer_input=before
        )
        assert {r.dtype for r in (*results, *deltas)} == {dtype}
        torch.testing.assert_close(results[0], first, rtol=0, atol=LIMIT[dtype])
        if before:
            torch.testing.assert_close(results[1], others[0], rtol=0, atol=LIMIT[dtype])
    inner = LayerLRP(text, text[0]).attribute(words, target=torch.tensor([1, 1]))
    torch.testing.assert_close(inner, right, rtol=0, atol=LIMIT[dtype])


def test_zennit(text: nn.Sequential) -> None:
    """Also with whole numbers as relevance at the output."""
    dtype, start = text[0].weight.dtype, torch.eye(3, dtype=torch.int64)[[1, 1]]
    layers = dtd.from_torch(text, WORDS)
    right = dtd.explain(
        layers, WORDS.numpy(), start.double().numpy(), rules="epsilon-plus", convention="zennit", precision="float64"
    )
    for given in (start, start.double(), lambda output: start.to(output)):
        output, relevance = Gradient(text, "epsilon_plus")(WORDS, given)
        assert output.dtype == relevance.dtype == dtype
        torch.testing.assert_close(output, text(WORDS).detach(), rtol=0, atol=LIMIT[dtype])
        torch.testing.assert_close(relevance.double(), torch.tensor(right), rtol=0, atol=LIMIT[dtype])
    with pytest.raises(dtd.InputError, match="no gradient"):
        Gradient(text)(WORDS)


def test_quantus(text: nn.Sequential) -> None:
    kind = str(text[0].weight.dtype).partition(".")[2]
    relevance = quantus.explain(text, WORDS.numpy(), np.array([1, 1]), rules="lrp-0")
    assert relevance.dtype == kind
    np.testing.assert_allclose(
        relevance * text(WORDS).detach().numpy()[:, [1]], gradient_times_vectors(text).sum(2), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_innvestigate(kind: str) -> None:
    keras.utils.set_random_seed(0)
    layer = dict(dtype=kind)
    model = keras.Sequential([
        keras.Input((9,), dtype="int64"), keras.layers.Embedding(30, 6, **layer), keras.layers.Flatten(**layer),
        keras.layers.Dense(5, activation="relu", use_bias=False, **layer), keras.layers.Dense(3, use_bias=False,
            **layer),
    ])  # fmt: skip
    relevance = innvestigate.create_analyzer("lrp.z", model, neuron_selection_mode="index").analyze(WORDS.numpy(), 1)
    assert relevance.dtype == kind
    np.testing.assert_allclose(relevance.sum(1), model(WORDS)[:, 1].detach().numpy(), rtol=1e-4)
