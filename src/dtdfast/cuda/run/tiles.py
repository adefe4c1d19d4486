"""Which tile a contraction takes, by its shape alone: one table, the row of least cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..kernels.dense import Tile

UNITS = {"float32": ("tf32x3", "fma"), "tf32": ("tf32", "tf32"), "bfloat16": ("bf16_rounded", "bf16_rounded")}
UNITS["mixed"] = UNITS["float32"]
"""Per precision the unit for rows of float32 x and w that are 16-byte aligned, and for others; what lies in bfloat16
takes "bf16"."""

ISSUING = ("tf32x3", "fma")
"""Units that are bound by the instructions they issue; the others are bound by what they fetch."""

EVEN, UNEVEN, SHALLOW, THIN = "even", "uneven", "shallow", "thin"
"""Forms of a contraction: its channels fill tiles, or do not; it is no deeper than one tile, such as 3 × 3 × 3 of an
image; its results have at most 8 channels, such as relevance of an image (transposed products only)."""

EVEN_UNITS = ("tf32", "bf16", "tf32x3")
"""Units with kernels for channels that fill tiles; the others run the uneven ones: a small part of most networks."""

THIN_CHANNELS = 8

MULTIPROCESSORS, SHARED_BYTES = 132, 163 * 1024
"""What a choice without a device assumes: as many as an H200 has, and what a block may have on an A100."""


@dataclass(frozen=True)
class Row:
    """A tile, and the contractions that it is for.

    Attributes
    ----------
    forms : of the contractions
    products : how many of them at once (2: the dual product)
    fetching, issuing : the share of the peak that a multiprocessor full of such tiles is thought to reach, with a unit
        bound by what it fetches from the second-level cache, or by the instructions it issues (ISSUING). None: the sums
        do not fit the registers (tests/cuda/test_compiled.py). Predicted, not measured.
    """

    name: str
    tile: Tile
    forms: tuple[str, ...]
    products: tuple[int, ...]
    fetching: float | None
    issuing: float | None

    def pays(self, unit: str) -> float | None:
        return self.issuing if unit in ISSUING else self.fetching


BOTH = (EVEN, UNEVEN)
TILES = (
    Row("thin", Tile(128, 8, 32, 8, 4), (THIN,), (1, 2), 1.0, 1.0),
    Row("shallow", Tile(64, 64, 32, 32, 2, 1, 2), (SHALLOW,), (1, 2), 0.7, 0.85),
    Row("huge", Tile(256, 128, 64, 64, 3), (EVEN,), (1,), 1.0, None),
    Row("wide", Tile(128, 128, 64, 32, 3), (EVEN,), (2,), 0.95, None),
    Row("broad", Tile(128, 128, 64, 32, 3, 1, 2), (EVEN,), (1,), 0.95, None),
    Row("tall", Tile(256, 64, 64, 32, 3), (EVEN,), (1, 2), 0.9, None),
    Row("narrow", Tile(128, 64, 32, 32, 3, 1, 2), (EVEN,), (1,), None, 0.9),
    Row("square", Tile(64, 64, 32, 32, 3, 2, 2), BOTH, (1, 2), 0.7, 0.85),
    Row("small", Tile(32, 32, 16, 16, 4, 2, 2), BOTH, (1, 2), 0.35, 0.65),
)
"""bench/tiles.py measures what each would take; of two that cost the same, the first is chosen."""

NAMED = {row.name: row for row in TILES}


@dataclass(frozen=True)
class Shape:
    """What the choice follows from.

    Attributes
    ----------
    unit, form, products : as in a row
    pixels : results per channel, of all samples
    channels, groups : of the results, per group
    views : arrays that the epilogue reads or writes
    """

    unit: str
    form: str
    products: int
    pixels: int
    channels: int
    groups: int
    views: int


def suiting(shape: Shape, shared_bytes: int) -> Iterator[tuple[Row, float]]:
    """The rows for a contraction, and the share of the peak of each, of a device whose blocks may have so much shared
    memory.
    """
    for row in TILES:
        share = row.pays(shape.unit)
        fits = row.tile.shared_bytes(shape.products, shape.views) <= shared_bytes
        if shape.form in row.forms and shape.products in row.products and share is not None and fits:
            yield row, share


def choose(shape: Shape, multiprocessors: int, shared_bytes: int) -> Row:
    """The row whose blocks take the least time on the busiest multiprocessor.

    The order of summation is the same for all tiles, so the choice may follow the size of the batch.
    """

    def cost(candidate: tuple[Row, float]) -> float:
        row, share = candidate
        tile = row.tile
        blocks = -(-shape.pixels // tile.pixels) * -(-shape.channels // tile.channels) * shape.groups
        return -(-blocks // multiprocessors) * tile.pixels * tile.channels / share

    return min(suiting(shape, shared_bytes), key=cost)[0]
