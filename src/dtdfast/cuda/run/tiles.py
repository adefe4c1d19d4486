"""Which tile a contraction takes, by its shape alone: one table of measured times, the row that takes least."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..kernels.dense import Tile
from ..kernels.warp_product import ROW_BYTES, WGMMA

UNITS = {"float32": ("tf32x3", "fma"), "tf32": ("tf32", "tf32"), "bfloat16": ("bf16_rounded", "bf16_rounded")}
UNITS["mixed"] = UNITS["float32"]
"""Per precision the unit for rows of float32 x and w that are 16-byte aligned, and for others; what lies in bfloat16
takes "bf16"."""

EVEN, UNEVEN, SHALLOW, THIN = "even", "uneven", "shallow", "thin"
"""Forms of a contraction: its channels fill tiles, or do not; it is no deeper than one tile, such as 3 × 3 × 3 of an
image; its results have at most 8 channels, such as relevance of an image (transposed products only)."""

EVEN_UNITS = ("tf32", "bf16", "tf32x3", *WGMMA)
"""Units with kernels for channels that fill tiles; the others run the uneven ones: a small part of most networks."""

THIN_CHANNELS = 8

USE_WGMMA = False
"""Whether the contractions that `suits_wgmma` names take that unit: not until it has run on a GPU. A developer may set
it where the GPU is of compute capability 9.0.
"""

SEGMENTS = (4, 3, 2)
"""How many a long sum may have, where that many are equally long."""

FEW_PIXELS, FEW_TILES = 64, 32
"""A sum is long where a sample has at most so many pixels (7 × 7, or one), and a result at least so many tiles to add,
or half as many as a sample has blocks of 32 × 32 results."""

SCRATCH = 2**26
"""Bytes that sums of segments may take until they are added."""

MULTIPROCESSORS, SHARED_BYTES = 132, 163 * 1024
"""What a choice without a device assumes: as many as an H200 has, and what a block may have on an A100."""


@dataclass(frozen=True)
class Cost:
    """What blocks take, in microseconds, measured on an H200 (bench/tiles.py).

    Attributes
    ----------
    shared : of a tile, per block on a multiprocessor, where blocks wait for its units
    alone : of a tile where a block waits for itself
    fixed : before the first tile and behind the last
    """

    shared: float
    alone: float
    fixed: float

    def of(self, blocks: int, tiles: int) -> float:
        """Of some blocks at once on one multiprocessor, so many tiles deep."""
        return self.fixed + tiles * max(blocks * self.shared, self.alone) if blocks else 0.0


@dataclass(frozen=True)
class Row:
    """A tile, and the contractions that it is for.

    Attributes
    ----------
    forms : of the contractions
    costs : by unit, and how many products at once (2: the dual product). Where a unit is not among them, the sums do
        not fit the registers (tests/cuda/test_compiled.py), or it is never the best
    """

    name: str
    tile: Tile
    forms: tuple[str, ...]
    costs: dict[tuple[str, int], Cost]

    def microseconds(self, shape: Shape, multiprocessors: int) -> float:
        """On the busiest multiprocessor, where `tile.min_blocks` blocks are under way at once."""
        tile, cost = self.tile, self.costs[shape.unit, shape.products]
        blocks = -(-shape.pixels // tile.pixels) * -(-shape.channels // tile.channels) * shape.groups
        full, rest = divmod(-(-blocks // multiprocessors), tile.min_blocks)
        tiles = -(-shape.depth // (ROW_BYTES * tile.together)) * tile.together
        return full * cost.of(tile.min_blocks, tiles) + cost.of(rest, tiles)


def _costs(**given: tuple[float, float, float]) -> dict[tuple[str, int], Cost]:
    """unit_products=(shared, alone, fixed)."""
    return {(name[:-2], int(name[-1])): Cost(*numbers) for name, numbers in given.items()}


ANY = {
    (unit, products): Cost(1, 1, 1) for unit in ("fma", "tf32x3", "tf32", "bf16_rounded", "bf16") for products in (1, 2)
}
"""Of the only row for a form."""

TILES = (
    Row("thin", Tile(128, 8, 32, 8, 4), (THIN,), ANY),
    Row(
        "narrow", Tile(128, 16, 32, 16, 4, 1, 3), (EVEN,),
        _costs(tf32x3_1=(0.62, 0.75, 2.6), tf32_1=(0.34, 0.45, 3.1), bf16_1=(0.30, 0.43, 2.2)),
    ),
    Row("shallow", Tile(64, 64, 32, 32, 2, 1, 2), (SHALLOW,), ANY),
    Row("wide", Tile(128, 128, 64, 32, 2, 2), (EVEN,), _costs(tf32_2=(1.24, 1.24, 7.9), bf16_2=(1.17, 1.17, 6.3))),
    Row("half", Tile(128, 64, 64, 32, 3, 1, 2), (EVEN,), _costs(tf32_2=(0.68, 0.77, 5.5), bf16_2=(0.67, 0.75, 4.4))),
    Row("broad", Tile(128, 128, 64, 32, 3, 1, 2), (EVEN,), _costs(tf32_1=(0.95, 0.95, 6.4), bf16_1=(0.82, 0.82, 4.3))),
    Row(
        "tall", Tile(128, 64, 64, 32, 3, 1, 3), (EVEN,),
        _costs(tf32x3_1=(1.28, 1.52, 4.4), tf32_1=(0.50, 0.57, 5.4), bf16_1=(0.42, 0.52, 3.8)),
    ),
    Row(
        "square", Tile(64, 64, 32, 32, 3, 1, 3), (EVEN,),
        _costs(
            tf32x3_1=(0.74, 1.01, 2.6), tf32_1=(0.30, 0.41, 3.1), bf16_1=(0.26, 0.39, 2.2),
            tf32x3_2=(1.16, 1.44, 2.9), tf32_2=(0.38, 0.47, 3.7), bf16_2=(0.36, 0.46, 3.2),
        ),
    ),
    Row(
        "oblong", Tile(32, 64, 16, 32, 4, 2, 2), (EVEN,),
        _costs(
            tf32x3_1=(0.43, 0.51, 1.9), tf32_1=(0.26, 0.26, 2.1), bf16_1=(0.23, 0.23, 1.6),
            tf32x3_2=(0.76, 0.93, 2.0), tf32_2=(0.27, 0.27, 2.4), bf16_2=(0.23, 0.29, 2.1),
        ),
    ),
    Row(
        "small", Tile(32, 32, 16, 16, 6, 2, 2), (EVEN,),
        _costs(
            tf32x3_1=(0.28, 0.34, 1.5), tf32_1=(0.17, 0.24, 1.7), bf16_1=(0.15, 0.21, 1.4),
            tf32x3_2=(0.38, 0.38, 1.6), tf32_2=(0.16, 0.22, 1.8), bf16_2=(0.16, 0.22, 1.5),
        ),
    ),
    Row(
        "low", Tile(16, 64, 16, 16, 6, 2, 2), (EVEN,),
        _costs(
            tf32x3_1=(0.39, 0.39, 2.6), tf32_1=(0.26, 0.26, 3.0), bf16_1=(0.22, 0.22, 2.4),
            tf32x3_2=(0.44, 0.44, 2.6), tf32_2=(0.23, 0.23, 3.1), bf16_2=(0.22, 0.22, 2.7),
        ),
    ),
    Row(
        "uneven square", Tile(64, 64, 32, 32, 3, 2, 2), (UNEVEN,),
        _costs(
            fma_1=(1.27, 1.27, 2.0), tf32x3_1=(1.01, 1.33, 2.9), tf32_1=(0.51, 0.66, 3.6), bf16_1=(0.51, 0.59, 2.1),
            fma_2=(2.54, 2.54, 2.0), tf32x3_2=(1.19, 1.39, 2.8), tf32_2=(0.55, 0.66, 3.6), bf16_2=(0.44, 0.54, 2.2),
            bf16_rounded_1=(0.60, 0.61, 3.6), bf16_rounded_2=(0.60, 0.61, 3.6),
        ),
    ),
    Row(
        "uneven small", Tile(32, 32, 16, 16, 4, 2, 2), (UNEVEN,),
        _costs(
            fma_1=(0.51, 0.61, 1.0), tf32x3_1=(0.33, 0.48, 1.2), tf32_1=(0.20, 0.33, 1.3), bf16_1=(0.21, 0.32, 0.9),
            fma_2=(1.02, 1.02, 1.0), tf32x3_2=(0.39, 0.45, 1.6), tf32_2=(0.20, 0.33, 1.3), bf16_2=(0.19, 0.19, 0.8),
            bf16_rounded_1=(0.30, 0.30, 1.3), bf16_rounded_2=(0.30, 0.30, 1.3),
        ),
    ),
)  # fmt: skip
"""bench/tiles.py measures what each takes; of two that cost the same, the first is chosen.

Not measured, but estimated from their neighbours: "narrow"; uneven tiles with `bf16_rounded`, with `fma` and one
product, and with `tf32` and two. The shared memory of "low" leaves room for one block on an H200; its two bound the
registers.
"""

WARPGROUPS = (
    Row(
        "groups", Tile(256, 128, 256, 16, 3), (EVEN,),
        _costs(bf16_wgmma_1=(0.73, 0.88, 7.0), tf32_wgmma_1=(1.10, 1.25, 7.0)),
    ),
    Row(
        "groups, dual", Tile(128, 128, 128, 16, 4), (EVEN,),
        _costs(bf16_wgmma_2=(0.73, 0.88, 6.3), tf32_wgmma_2=(0.82, 0.97, 7.9)),
    ),
    Row(
        "group", Tile(128, 64, 128, 16, 3, 1, 2), (EVEN,),
        _costs(
            bf16_wgmma_1=(0.27, 0.42, 3.8), tf32_wgmma_1=(0.46, 0.61, 5.4),
            bf16_wgmma_2=(0.37, 0.52, 4.4), tf32_wgmma_2=(0.55, 0.70, 5.5),
        ),
    ),
    Row(
        "small group", Tile(32, 64, 32, 16, 4, 2, 2), (EVEN,),
        _costs(
            bf16_wgmma_1=(0.14, 0.21, 1.6), tf32_wgmma_1=(0.18, 0.25, 1.7),
            bf16_wgmma_2=(0.16, 0.23, 2.1), tf32_wgmma_2=(0.21, 0.28, 2.4),
        ),
    ),
)  # fmt: skip
"""Tiles of units by wgmma: a warp has 16 channels of all pixels that its four multiply together.

Not measured: 1.25 times what tensor cores or shared memory take for a tile at 1.75 GHz, whichever is more, and .15 more
where a block is alone.
"""

NAMED = {row.name: row for row in (*TILES, *WARPGROUPS)}


@dataclass(frozen=True)
class Shape:
    """What the choice follows from.

    Attributes
    ----------
    unit, form, products : as in a row
    pixels : results per channel, of all samples
    channels, groups : of the results, per group
    depth : bytes that a result sums over, of x
    views : arrays that the epilogue reads or writes
    """

    unit: str
    form: str
    products: int
    pixels: int
    channels: int
    groups: int
    depth: int
    views: int


def suits_wgmma(unit: str, form: str, channels: int) -> bool:
    """Whether a contraction could take "bf16_wgmma" or "tf32_wgmma" in the place of its own unit. It goes by the layer
    alone, never by the batch, since two units differ in the last bits.
    """
    return by_wgmma(unit) in WGMMA and form == EVEN and channels >= 64


def segments(pixels: int, channels: int, taps: int, tiles: int) -> int:
    """Into how many segments a sum is taken apart; 1 for most. It goes by the layer alone, as its bits follow from it.

    Parameters
    ----------
    pixels, channels : results of one sample
    taps, tiles : of the sum, and the tiles of each tap
    """
    blocks = -(-pixels // 32) * -(-channels // 32)
    if pixels > FEW_PIXELS or taps * tiles < max(FEW_TILES, blocks // 2):
        return 1
    return next((s for s in SEGMENTS if tiles % s == 0), 1)


def adding(shape: Shape, segments: int) -> float:
    """Microseconds of the launch that adds segments up; estimated."""
    return 2.5 + 8e-6 / 3 * segments * shape.products * shape.pixels * shape.channels


def by_wgmma(unit: str) -> str:
    return f"{unit}_wgmma"


def suiting(shape: Shape, shared_bytes: int) -> Iterator[Row]:
    """The rows for a contraction on a device whose blocks may have so much shared memory."""
    for row in WARPGROUPS if shape.unit in WGMMA else TILES:
        fits = row.tile.shared_bytes(shape.products, shape.views) <= shared_bytes
        if shape.form in row.forms and (shape.unit, shape.products) in row.costs and fits:
            yield row


def choose(shape: Shape, multiprocessors: int, shared_bytes: int) -> Row:
    """The row of least time on the busiest multiprocessor.

    The order of summation is the same for all tiles, so the choice may follow the size of the batch.
    """
    return min(suiting(shape, shared_bytes), key=lambda row: row.microseconds(shape, multiprocessors))
