"""The code on the pages of docs about PyTorch, Keras and other tools runs as it stands."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import torch

from support import run_page

os.environ.setdefault("KERAS_BACKEND", "torch")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def test_torch_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_page("torch.md")
    assert names["relevance"].shape == (4, 3, 32, 32)
    assert [type(a) for a in names["from_file"]] == [type(a) for a in names["layers"]]
    assert not names["words"][names["padding"]].any()
    assert names["words"][~names["padding"]].all()


def test_lxt_page() -> None:
    names = run_page("lxt.md")
    maps = [names[key] for key in ("attnlrp", "cp", "gamma")]
    assert all(r.shape == (1, 6) for r in maps)
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(maps, 2))


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
