"""The choice of a tile: every contraction has one on every GPU, more work never takes less time, and a full device
spends least.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from dtdfast.cuda.run import tiles
from dtdfast.cuda.run.tiles import EVEN, EVEN_UNITS, SHALLOW, THIN, TILES, UNEVEN, UNITS, WARPGROUPS, WGMMA, Shape

MULTIPROCESSORS = (1, 46, 132)
SHARED_BYTES = (99 * 1024, 163 * 1024, 227 * 1024)
"""Of GeForce cards of compute capability 8.6 and later, of an A100, of an H200."""

VIEWS = 7
"""At most: those of `contraction.launches`."""

ROWS = (*TILES, *WARPGROUPS)
KINDS = [
    (form, unit, products)
    for unit in sorted({"bf16", *itertools.chain(*UNITS.values())})
    for form in (EVEN, UNEVEN, SHALLOW, THIN)
    for products in (1, 2)
    if form != EVEN or unit in EVEN_UNITS
    if form != THIN or products == 1  # transposed, as no dual product is
] + [(EVEN, unit, products) for unit in WGMMA for products in (1, 2)]
"""What `contraction.launches` can ask for."""


def shapes(form: str, unit: str, products: int) -> list[Shape]:
    """From a pixel of a small layer to 64 images of a large one."""
    depths = (27 * 4, 128) if form == SHALLOW else (256, 9 * 2048)
    channels = (3, 8) if form == THIN else (10, 64, 2048)
    return [
        Shape(unit, form, products, pixels, across, groups, depth, VIEWS)
        for pixels in (1, 49, 3136, 64 * 50176)
        for across in channels
        for groups in (1, 32)
        for depth in depths
    ]


@pytest.mark.parametrize("shared_bytes", SHARED_BYTES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(map(str, kind)))
def test_every_contraction_has_a_tile(kind, shared_bytes):
    """One that fits, and takes least of those that do."""
    for shape in shapes(*kind):
        rows = list(tiles.suiting(shape, shared_bytes))
        for multiprocessors in MULTIPROCESSORS:
            chosen = tiles.choose(shape, multiprocessors, shared_bytes)
            assert chosen.tile.shared_bytes(shape.products, VIEWS) <= shared_bytes
            times = [row.microseconds(shape, multiprocessors) for row in rows]
            assert chosen.microseconds(shape, multiprocessors) == min(times) > 0


def test_costs():
    """Positive; a block that waits for itself takes no less than its share of a multiprocessor."""
    for row in ROWS:
        for cost in row.costs.values():
            assert 0 < cost.shared <= cost.alone
            assert cost.fixed > 0
            assert cost.of(0, 8) == 0 < cost.of(1, 1) <= cost.of(1, 8) <= cost.of(2, 8)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_more_work_takes_no_less(row):
    """With a tile, and so with the best of them; of more multiprocessors the busiest has no more to do."""
    for form, (unit, products) in itertools.product(row.forms, row.costs):
        for shape in shapes(form, unit, products):
            before = row.microseconds(shape, 46)
            assert row.microseconds(shape, 132) <= before
            for axis in ("pixels", "channels", "groups", "depth"):
                for factor in (2, 3, 7):
                    assert row.microseconds(replace(shape, **{axis: factor * getattr(shape, axis)}), 46) >= before


def test_names_and_tiles_are_unique():
    """A kernel says by its constants and its blocks which row it is of."""
    assert len(tiles.NAMED) == len({row.tile for row in ROWS}) == len(ROWS)


def test_a_full_device():
    """With pixels without end the tile is taken that spends least on each of them."""
    for unit in EVEN_UNITS:
        for products in (1, 2):
            shape = Shape(unit, EVEN, products, 2**30, 512, 1, 9 * 2048, 3)
            chosen = tiles.choose(shape, 132, SHARED_BYTES[-1])
            per_result = {
                row.name: row.costs[unit, products].of(row.tile.min_blocks, 144)
                / (row.tile.min_blocks * row.tile.pixels * row.tile.channels)
                for row in tiles.suiting(shape, SHARED_BYTES[-1])
            }
            assert chosen.name == min(per_result, key=per_result.__getitem__)
