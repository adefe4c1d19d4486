"""What tests of the command line share: a folder with a small model, a photograph and labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

import dtdfast as dtd
from dtdfast import cli
from onnx_models import model

RNG = np.random.default_rng(0)
PHOTO: NDArray[np.uint8] = RNG.integers(0, 256, (40, 60, 3), np.uint8)
BODY = "a = Conv(x, w) r = Relu(a) p = GlobalAveragePool(r) f = Flatten(p) y = Softmax(f)"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model in both formats, a photograph and its labels."""
    monkeypatch.chdir(tmp_path)
    proto = model(BODY, given="float[5,3,3,3] w", x="float[N,3,16,24] x", y="float[N,5] y")
    onnx.save(proto, "net.onnx")
    dtd.save(dtd.from_onnx(proto), "net.safetensors")
    Image.fromarray(PHOTO).save("photo.png")
    Path("labels.txt").write_text("\n".join(("ash", "beech", "cedar", "deal", "elm")))
    return tmp_path


def run(*arguments: Any) -> int:
    return cli.main(["explain", *map(str, arguments), "-o", "out"])


def entries(folder: str = "out") -> list[dict[str, Any]]:
    return json.loads((Path(folder) / "summary.json").read_text(encoding="utf-8"))["images"]
