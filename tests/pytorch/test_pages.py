"""The code on the pages of docs about PyTorch, Keras and other tools runs as it stands."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import matplotlib as mpl
import pytest
import torch

import dtdfast
from support import run_page
from tutorial import MODEL

mpl.use("agg")

os.environ.setdefault("KERAS_BACKEND", "torch")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def test_torch_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_page("torch.md")
    assert names["relevance"].shape == (4, 3, 32, 32)
    assert torch.is_tensor(names["maps"])
    assert Path("map.png").exists()
    assert [type(a) for a in names["from_file"]] == [type(a) for a in names["layers"]]
    assert not names["words"][names["padding"]].any()
    assert names["words"][~names["padding"]].all()


def test_lxt_page() -> None:
    names = run_page("lxt.md")
    maps = [names[key] for key in ("attnlrp", "cp", "gamma")]
    assert all(r.shape == (1, 6) for r in maps)
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(maps, 2))


def test_peers_page() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 4))
    x, start = torch.rand(2, 6), torch.eye(4)[[1, 2]]
    names = run_page("peers.md", dtdfast=dtdfast, model=module, x=x, start=start)
    assert names["relevance"].shape == (2, 6)


def test_captum_and_zennit() -> None:
    assert run_page("start/captum-zennit.md")["ledger"].closed


@pytest.mark.skipif(not MODEL.exists(), reason="SqueezeNet's weights are not in ../shared/data")
@pytest.mark.filterwarnings("ignore")  # captum's own
def test_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_page("side-by-side.md", kinds=("python squeezenet",), model=str(MODEL))
    assert list(names["took"]) == ["dtdfast", "captum, integrated gradients", "captum, LRP"]
    assert {path.name for path in tmp_path.glob("*.png")} == {"side-by-side-dtdfast.png", "side-by-side-captum.png"}


def test_keras_page() -> None:
    assert run_page("keras.md")["relevance"].shape == (2, 32, 32, 3)


@pytest.mark.filterwarnings("ignore")  # Quantus's own, of every kind
def test_drop_in_page() -> None:
    names = run_page("drop-in.md")
    assert names["delta"].shape == (4,)
    assert names["inner"].shape == (4, 8, 6, 6)
    assert names["output"].shape == (4, 10)
    assert len(names["scores"]) == 4
    assert names["bounded"].shape == names["preset"].shape == (4, 8, 8, 3)
    assert names["relevance"].shape == (2, 3)
