"""Transformers through both of PyTorch's ONNX exporters and from_onnx: outputs, and the maps of from_torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import dtdfast as dtd
from transformer_modules import CASES, Case

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporters: what they will change
LONG = bool(os.environ.get("DTDFAST_LONG"))

EXPORTS: dict[str, dict[str, Any]] = {
    "traced": dict(dynamo=False, opset_version=17, open_batch=True),
    "exported": dict(dynamo=True, open_batch=True),
    "traced, batch declared": dict(dynamo=False, opset_version=17, open_batch=False),
    "with Attention": dict(dynamo=True, opset_version=23, open_batch=False),
}
EVERYWHERE = ("traced", "exported")
WITH_ALL = ("ViT", "GPT-2", "Llama", "encoder, tokens first", "Swin")


def exported(case: Case, path: Path, *, dynamo: bool, open_batch: bool, **options: Any) -> torch.nn.Module:
    """The module, and its file."""
    module, x = case.module(), case.sample()
    if open_batch and dynamo:
        options["dynamic_shapes"] = ({0: torch.export.Dim.DYNAMIC},)
    elif open_batch:
        options |= dict(input_names=["x"], dynamic_axes={"x": {0: "n"}})
    torch.onnx.export(module, (x,), path, dynamo=dynamo, verbose=False, **options)
    return module


def worst(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Largest difference, relative to the largest value."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize(
    ("name", "export"),
    [(n, e) for n in CASES for e in EXPORTS if LONG or (e in EVERYWHERE and (e == "traced" or n in WITH_ALL))
     or (n in ("ViT", "Llama") and e == "with Attention")],
)  # fmt: skip
def test_outputs_and_maps(name: str, export: str, tmp_path: Path) -> None:
    case = CASES[name]
    module = exported(case, tmp_path / "net.onnx", **EXPORTS[export])
    layers, x = dtd.from_onnx(tmp_path / "net.onnx"), case.sample()
    outputs = module(x).detach().numpy()
    assert worst(dtd.predict(layers, x.numpy()), outputs) <= 1e-6
    start = np.zeros_like(outputs)
    start.reshape(len(x), -1)[:, 1] = 1
    direct = dtd.from_torch(module, x)
    for rules in ("dtd", "cp-lrp", "attnlrp"):
        ours, theirs = (
            dtd.explain(network, x.numpy(), start, rules=rules, backend="oracle") for network in (layers, direct)
        )
        # files hold factors such as 1/√d in float32
        assert worst(ours, theirs) <= 1e-6
    ledger = dtd.Explainer(layers).ledger(x.numpy(), start)
    assert ledger.closed, ledger


# ----------------------------------------------------------------------------------------------- several inputs

IDS = torch.arange(15).reshape(3, 5)
REAL = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
SIZES = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=20)


class Sentences(torch.nn.Module):
    """BERT's mean over real tokens, as sentence-transformers has it."""

    def __init__(self) -> None:
        super().__init__()
        transformers = pytest.importorskip("transformers")
        self.bert = transformers.BertModel(transformers.BertConfig(**SIZES))

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        x = self.bert(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).last_hidden_state
        mask = attention_mask.unsqueeze(-1).expand(x.size()).float()
        return (x * mask).sum(1) / torch.clamp(mask.sum(1), min=1e-9)


class Padded(torch.nn.Module):
    """nn.TransformerEncoder with padding that is True where it is ignored."""

    def __init__(self) -> None:
        super().__init__()
        layer = torch.nn.TransformerEncoderLayer(8, 2, 8, batch_first=True, norm_first=True)
        self.words, self.encoder = torch.nn.Embedding(20, 8), torch.nn.TransformerEncoder(layer, 1)

    def forward(self, input_ids: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        return self.encoder(self.words(input_ids), src_key_padding_mask=padding)[:, 0]


BESIDE = {
    "sentences": (Sentences, {"attention_mask": REAL, "token_type_ids": IDS % 2}),
    "padding": (Padded, {"padding": REAL == 0}),
}


@pytest.mark.parametrize("export", ["traced", "exported", "with Attention"])
@pytest.mark.parametrize("name", BESIDE)
def test_inputs_beside_the_words(name: str, export: str, tmp_path: Path) -> None:
    """Masks and type numbers become Givens, through both exporters; the maps are those of from_torch."""
    make, given = BESIDE[name]
    torch.manual_seed(0)
    module, names = make().eval(), ["input_ids", *given]
    options: dict[str, Any] = dict(EXPORTS[export])
    if options.pop("open_batch") and options["dynamo"]:
        options["dynamic_shapes"] = {key: {0: torch.export.Dim.DYNAMIC} for key in names}
    elif not options["dynamo"]:
        options["dynamic_axes"] = {key: {0: "n"} for key in names}
    path = tmp_path / "net.onnx"
    torch.onnx.export(module, (IDS, *given.values()), path, input_names=names, verbose=False, **options)
    layers, direct = dtd.from_onnx(path), dtd.from_torch(module, IDS, **given)
    assert {r.name for r in layers if isinstance(r, dtd.Given)} == {*given}
    arrays = {key: value.numpy() for key, value in given.items()}
    outputs = dtd.predict(layers, IDS.numpy(), **arrays)
    assert worst(outputs, module(IDS, **given).detach().numpy()) <= 1e-5
    for rules in ("cp-lrp", "attnlrp"):
        ours, theirs = (
            dtd.explain(network, IDS.numpy(), outputs, rules=rules, backend="oracle", **arrays)
            for network in (layers, direct)
        )
        assert worst(ours, theirs) <= 1e-5
        assert not ours[REAL.numpy() == 0].any()
