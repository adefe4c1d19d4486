"""Transformers through from_torch: outputs, LRP-0 as the held network's gradient × input, positive relevance, closed
ledgers, and what is refused.
"""

from __future__ import annotations

import functools
import importlib.util

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dtdfast as dtd
from attention_models import CASES, SMALL, Case, Only
from held import check_held

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def available(case: Case) -> None:
    if case.needs and importlib.util.find_spec(case.needs) is None:
        pytest.skip(f"{case.needs} is not installed")


@functools.cache
def imported(name: str) -> tuple[nn.Module, Tensor, list[dtd.Layer]]:
    case = CASES[name]
    module, x = case.module(), case.sample()
    return module, x, dtd.from_torch(module, x[:1])


@pytest.mark.parametrize("name", CASES)
def test_held_gradient(name: str) -> None:
    case = CASES[name]
    available(case)
    module, x, layers = imported(name)
    check_held(module, layers, x, case.gates, case.rtol, held=case.held)


@pytest.mark.parametrize("name", CASES)
def test_dtd(name: str) -> None:
    """Nothing is negative for a positive start, and what does not arrive is absorbed."""
    available(CASES[name])
    _, x, layers = imported(name)
    outputs = dtd.predict(layers, x.numpy(), backend="oracle")
    start = np.zeros(outputs.shape)
    start.reshape(len(start), -1)[:, 1] = 1
    explainer = dtd.Explainer(layers, backend="oracle")
    relevance = explainer.explain(x.numpy(), start)
    assert relevance.min() >= 0
    assert relevance.sum() > 0
    ledger = explainer.ledger(x.numpy(), start)
    assert ledger.closed, str(ledger)


@pytest.mark.parametrize("name", ["encoder", "vit", "BERT", "Llama"])
def test_float32(name: str) -> None:
    case = CASES[name]
    available(case)
    module, x = case.module().float(), case.sample()
    x = x.float() if x.is_floating_point() else x
    expected = module(x).numpy()
    found = dtd.predict(dtd.from_torch(module, x), x.numpy(), backend="oracle")
    # weights of float32, some hundred sums of them one after another
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_programs_without_the_fused_encoder() -> None:
    """A program that was exported without gradients holds PyTorch's fused encoder; the module itself does not."""
    module, x = CASES["encoder"].module(), CASES["encoder"].sample()
    with torch.no_grad():
        program = torch.export.export(module, (x,))
    if any("_transformer_encoder_layer_fwd" in str(node.target) for node in program.graph.nodes):
        with pytest.raises(dtd.ModelError, match=r"set_fastpath_enabled\(False\)"):
            dtd.from_torch(program)
    before = torch.backends.mha.get_fastpath_enabled()
    dtd.from_torch(module, x)
    assert torch.backends.mha.get_fastpath_enabled() == before


# ------------------------------------------------------------------------------------------------------------ refused


class Padded(nn.Module):
    """A mask that depends on the words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        return self.layer(self.words(ids), src_key_padding_mask=ids == 0).mean(1)


IDS = "it computes with the words themselves, .* calls it with masks and positions that are constants"


def test_masks_made_of_words() -> None:
    with pytest.raises(dtd.ModelError, match=IDS):
        dtd.from_torch(Padded().eval(), torch.tensor([[3, 1, 4], [1, 5, 2]]))


def test_positions_made_of_words() -> None:
    transformers = pytest.importorskip("transformers")
    network = transformers.RobertaForSequenceClassification(transformers.RobertaConfig(**SMALL)).eval()
    with pytest.raises(dtd.ModelError, match=IDS):
        dtd.from_torch(network, torch.tensor([[3, 1, 4], [1, 5, 2]]))


def test_several_inputs() -> None:
    module, x = CASES["encoder"].module(), CASES["encoder"].sample()
    with pytest.raises(dtd.InputError, match=r"is a tuple, .* calls it with masks and positions that are constants"):
        dtd.from_torch(module, (x, torch.ones_like(x)))


def test_an_output_of_several() -> None:
    """transformers' outputs by their names; caches among them are no outputs."""
    transformers = pytest.importorskip("transformers")
    ids = torch.tensor([[3, 1, 4], [1, 5, 2]])
    network = transformers.BertModel(transformers.BertConfig(**SMALL)).eval()
    with pytest.raises(dtd.ModelError, match=r"returns 2 tensors: 0 \('last_hidden_state'\), 1 \('pooler_output'\)"):
        dtd.from_torch(network, ids)
    layers = dtd.from_torch(network, ids, output="pooler_output")
    expected = Only(network, "pooler_output")(ids).detach().numpy()
    np.testing.assert_allclose(dtd.predict(layers, ids.numpy(), backend="oracle"), expected, rtol=0, atol=1e-5)
    options = SMALL | {"num_key_value_heads": 2}
    causal = transformers.LlamaForCausalLM(transformers.LlamaConfig(**options)).eval()
    layers = dtd.from_torch(causal, ids, output="logits")
    expected = causal(ids).logits.detach().numpy()
    np.testing.assert_allclose(dtd.predict(layers, ids.numpy(), backend="oracle"), expected, rtol=0, atol=1e-5)
