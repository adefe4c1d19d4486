"""Givens on a device that is the host: uploaded beside x, read by embeddings, softmax masks and gates.

Python itself runs the kernels, which are many and have few numbers: sooner than they are compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast.explainer import Explainer
from host import HostDevice
from nets.masked import GIVEN, IDS, OTHERS, REAL, encoder


@pytest.mark.parametrize(
    ("kind", "rules"), [("added", "dtd"), ("boolean", "attnlrp"), ("causal", "epsilon-alpha2-beta1-flat")]
)
def test_masks_on_a_device(explainer: Callable[..., Explainer], kind: str, rules: str) -> None:
    net = encoder(kind)
    made = explainer(net.layers, HostDevice(compiled=False), rules=rules, batch_size=3)
    maps = made.explain(IDS, [[0, 2]], **GIVEN)
    expected = dtd.explain(net.layers, IDS, [[0, 2]], rules=rules, backend="oracle", **GIVEN)
    np.testing.assert_allclose(maps, expected, rtol=0, atol=3e-5 * abs(expected).max())
    assert not maps.swapaxes(1, 2)[REAL == 0].any()
    np.testing.assert_array_equal(made.explain(OTHERS, [[0, 2]], **GIVEN), maps)
    np.testing.assert_allclose(
        made.predict(IDS, **GIVEN), dtd.predict(net.layers, IDS, backend="oracle", **GIVEN), rtol=0, atol=1e-5
    )
    assert made.ledger(IDS, 0, **GIVEN).closed


def test_refused_before_anything_is_uploaded(explainer: Callable[..., Explainer]) -> None:
    made = explainer(encoder("added").layers)
    given: dict[str, Any] = GIVEN | {"attention_mask": REAL[:1]}
    with pytest.raises(dtd.ShapeError, match="attention_mask"):
        made.explain(IDS, 0, **given)


def test_targets_at_tokens(explainer: Callable[..., Explainer]) -> None:
    """The last real token of each sample; which of its outputs is the largest shows in the forward pass."""
    net = encoder("boolean", "tokens")
    made = explainer(net.layers, HostDevice(compiled=False))
    outputs = made.predict(IDS, **GIVEN)
    tokens = [3, 5, 0, 4]
    for target, classes in (("last", outputs[range(4), tokens].argmax(axis=-1)), (("last", 1), 1)):
        start = np.zeros_like(outputs)
        start[range(4), tokens, classes] = outputs[range(4), tokens, classes]
        np.testing.assert_array_equal(made.explain(IDS, target, **GIVEN), made.explain(IDS, start, **GIVEN))
