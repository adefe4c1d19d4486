"""The code on the pages of docs runs as it stands; the pages about PyTorch and Keras in pytorch/test_pages.py."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import onnx_models
from support import run_page


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_sklearn_page() -> None:
    assert run_page("sklearn.md")["features"].shape == (5, 64)


def test_onnx_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    body = "h = Conv<strides=[8,8]>(x, w) r = Relu(h) f = Flatten(r) y = Gemm<transB=1>(f, v)"
    onnx.save(
        onnx_models.model(body, "float[4,3,8,8] w, float[10,64] v", "float[N,3,32,32] x"), tmp_path / "model.onnx"
    )
    assert run_page("onnx.md")["relevance"].shape == (2, 3, 32, 32)
    assert "node 0 (LayerNormalization): it divides by statistics of the very sample" in capsys.readouterr().out
