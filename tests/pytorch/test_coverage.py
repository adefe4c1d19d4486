"""The table of graph nodes in docs/architectures.md still holds, by some of its rows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import modules
from architecture_models import CASES
from covered import of_onnx, of_torch

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporters: what they will change
ROWS = ("text_cnn", "BERT", "BLOOM", "ConvNeXt v2")


def versions() -> dict[str, str]:
    """Of what makes the graphs: the numbers are theirs."""
    found = {"PyTorch": torch.__version__}
    transformers = pytest.importorskip("transformers")
    return {k: ".".join(v.split(".")[:2]) for k, v in (found | {"transformers": transformers.__version__}).items()}


@pytest.mark.parametrize("name", ROWS)
def test_rows(name: str, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text(encoding="utf-8")
    made = versions()
    (row,) = re.findall(rf"^\| {re.escape(name)} \| (.*?) \| .*? \| (.*?) \|.*\| (.*?) \|$", page, re.MULTILINE)[:1]
    case = (modules.CASES | CASES)[name]
    module, x = case.module(), case.sample()
    torch.onnx.export(module, (x,), tmp_path / "net.onnx", dynamo=False, verbose=False)
    found = of_torch(module, x), of_onnx(tmp_path / "net.onnx")
    for covered, cell in zip(found, row, strict=False):
        assert (covered.read == covered.nodes) == (not row[2]) == (covered.layers is not None), covered.refused
        if all(f"{kind} {number}" in page for kind, number in made.items()):
            assert str(covered) == cell
