"""What a report draws itself: PNGs, colours, and the wiring of the flow chart."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

import dtdfast as dtd
from dtdfast import png
from dtdfast.colours import palette
from dtdfast.reports.charts import _edges


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (1, 1), (3, 300, 3)])
def test_png(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    pixels[2:4] = pixels[1:2]  # rows that repeat
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png.encoded(pixels)))), pixels)
    if len(shape) == 2:
        colours = Image.open(io.BytesIO(png.encoded(pixels, palette()))).convert("RGB")
        np.testing.assert_array_equal(np.asarray(colours), palette()[pixels])


def test_pictures_shrink_to_means_of_blocks() -> None:
    values = np.arange(35.0).reshape(5, 7)
    means = [[values[i : i + 2, j : j + 2].mean() for j in (0, 2, 4)] for i in (0, 2)]
    np.testing.assert_array_equal(png.shrunk(values, 2), means)
    colours = np.stack([values] * 3, axis=2).astype(np.uint8)
    np.testing.assert_array_equal(png.shrunk(colours, 2), np.rint(means).astype(np.uint8)[..., None].repeat(3, 2))


def test_colours_are_matplotlibs() -> None:
    from matplotlib import colormaps

    expected = 255 * colormaps["RdBu_r"](np.arange(256))[:, :3]
    np.testing.assert_allclose(palette(), expected, atol=1)  # anchors are rounded to bytes here
    values = np.array([[-2.0, 0.0, 2.0, 9.0]])
    shown = np.asarray(Image.open(io.BytesIO(png.heatmap(values, 2.0))).convert("RGB"))[0]
    np.testing.assert_array_equal(shown[[0, 2, 3]], palette()[[0, 255, 255]])
    assert shown[1].min() > 240
    plain = np.full((1, 4), 255, np.uint8)
    over = np.asarray(Image.open(io.BytesIO(png.overlay(values, 2.0, plain))))[0]
    np.testing.assert_array_equal(over[[0, 2]], palette()[[0, 255]])
    assert over[1].min() == 255


def test_flow_follows_the_wiring() -> None:
    """input → 0 → (1, 2) → add 3: from the output down, both branches, then the first layer, then the input."""
    rows = [{"entries": [3]}, {"entries": [2]}, {"entries": [1]}, {"entries": [0]}]
    reads = [(dtd.layers.INPUT,), (0,), (0,), (1, 2)]
    assert sorted(_edges(rows, reads)) == [(-1, 0), (0, 1), (0, 2), (1, 3), (2, 3), (3, 4)]
