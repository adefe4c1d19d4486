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
