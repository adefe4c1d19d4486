"""What plans take of a GPU's memory, counted on paper."""

from __future__ import annotations

import pytest

import gpu
import nets
from dtdfast.plan import frames


@pytest.mark.parametrize("precision", gpu.MEMORY)
def test_vgg16(precision):
    """64 images in one pass: less than the goals, and in bfloat16 about half."""
    net = nets.vgg16(seed=None)
    row = gpu.memory_needed(net, precision)
    size = {"float32": 4, "bfloat16": 2}[precision]
    largest = size * 64 * 64 * 224 * 224
    assert 4 * largest < row["arena"] < row["bytes beyond weights"] <= row["goal"]
    assert row["arena"] <= 5.01 * largest * (1 + 1 / frames.MORE)
