"""ONNX's own tests of its operators: none of them ends in a wrong answer, and as many are right as before
(onnx_node_tests.py).
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from onnx_node_tests import end, generated, stored, table

LONG = bool(os.environ.get("DTDFAST_LONG"))
FLOOR = {"generated": 310, "stored": 100}  # right ones, of all


@pytest.mark.parametrize("source", [generated, stored])
def test_onnx_s_own_tests(source) -> None:  # type: ignore[no-untyped-def]
    """All of them in the long form, else those of every twelfth module or file."""
    ends = [end(case) for case in source(1 if LONG else 12)]
    counts = Counter(e.kind for e in ends)
    assert not counts["wrong"], table(ends)
    assert counts["right"] >= (FLOOR[source.__name__] if LONG else 1), table(ends)
