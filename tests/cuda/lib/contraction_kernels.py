"""Every kind of contraction kernel: one per unit, tile and direction, for NVIDIA's assembler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dtdfast.cuda.compile.kernel import Kernel
from dtdfast.cuda.kernels.dense import Tile, dense
from dtdfast.cuda.kernels.epilogue import FIRST_VIEW, N_FLOATS, PER_VIEW, Finish
from dtdfast.cuda.kernels.warp_product import WGMMA, bytes_of
from dtdfast.cuda.run.tiles import EVEN, EVEN_UNITS, NAMED, SHALLOW, UNEVEN

REGISTERS = 65536  # of a multiprocessor, sm_80 and sm_90
UNITS = ("fma", "tf32x3", "tf32", "bf16_rounded", "bf16")  # of uneven contractions
Case = tuple[str, bool, int, bool, Tile]

SPILLED = {
    ("tf32x3", 2, False, NAMED["square"].tile): 6,
    ("tf32x3", 1, False, NAMED["tall"].tile): 4,
    ("tf32x3", 1, True, NAMED["tall"].tile): 1,
}
"""By unit, products, direction and tile: numbers of a thread that the assembler keeps in memory for sm_90, at most. A
third block on the multiprocessor leaves 168 registers. They are stored before the loop over tiles, and read once in
each, ahead of 192 products on the tensor cores. On an H200 these tiles were the fastest nonetheless (tiles.py).
"""


SPILLED_WALKING = {("tf32x3", 2): 58, ("tf32", 2): 1}
"""The same of sums in segments, by unit and products: totals, which are only needed where a segment ends."""


def spilled(kernel: Kernel, target: str) -> int:
    """How many numbers of a thread may spill."""
    unit, maps, transposed, tile, *more = kernel.constants
    if len(more) > 4:
        return SPILLED_WALKING.get((unit, len(maps)), 0)  # type: ignore[arg-type]
    found = unit, len(maps), transposed, Tile(*tile, kernel.min_blocks)  # type: ignore[arg-type, misc]
    return SPILLED.get(found, 0) if target == "sm_90" else 0  # type: ignore[arg-type]


def local_bytes(numbers: int) -> int:
    """Of so many spilled numbers in assembler.resources: of the stack, which is filled up to 8, of stores and loads."""
    return -(-numbers // 2) * 8 + 2 * 4 * numbers


def kernel_of(unit: str, even: bool, n_products: int, transposed: bool, tile: Tile) -> Kernel:
    real, wide = ("bf16", 8) if bytes_of(unit) == 2 else ("f4", 4)
    if n_products == 2:
        mode = "denominator" if unit in WGMMA else "gate"  # a division, which is no call there
        ending, maps = Finish(True, "relu", mode, True, ("out", "factor"), (real, real), wide), ("w", "w+")
    else:
        ending, maps = Finish(False, "identity", "times", False, ("out", "m"), (real, real), wide), ("w+",)
    vector = 1 if unit == "fma" else wide
    constants = (unit, maps, transposed, tile.constants, vector, vector, even, ending.constants)
    return Kernel(
        "dtd_dense",
        dense,
        constants,
        FIRST_VIEW + PER_VIEW * len(ending.views),
        N_FLOATS,
        tile.threads,
        tile.min_blocks,
    )


def tiles_for(unit: str, products: int, *forms: str) -> list[Tile]:
    return [row.tile for row in NAMED.values() if (unit, products) in row.costs and set(forms) & set(row.forms)]


def specialisations() -> Iterator[Case]:
    """The dual product, which no plan asks for transposed, and the single product both ways, for every tile.

    Of uneven ones with one product the largest stands for all: the others have as many registers and fewer sums.
    """
    for unit, even in [*((u, True) for u in EVEN_UNITS), *((u, False) for u in UNITS)]:
        for tile in tiles_for(unit, 2, *((EVEN,) if even else (UNEVEN, SHALLOW))):
            yield unit, even, 2, False, tile
        for tile in tiles_for(unit, 1, EVEN) if even else tiles_for(unit, 1, UNEVEN)[:1]:
            yield unit, even, 1, True, tile
            yield unit, even, 1, False, tile
        if unit not in WGMMA:
            yield unit, even, 1, True, NAMED["thin"].tile


def kinds(case: Case) -> set[tuple[Any, ...]]:
    """What the tables need one kernel of, at least: every unit as it is fed and as it is used, every tile; of
    wgmma, which is not in use, a kernel of each unit, and one dual.
    """
    unit, even, n_products, transposed, tile = case
    if unit in WGMMA:
        return {(unit,), ("wgmma", n_products)}
    return {(unit, even, n_products), (unit, n_products, transposed), (tile, n_products)}


def selected() -> list[Case]:
    """The fewest kernels that have every kind, those with most sums to a thread first, since these take most
    registers.
    """
    chosen, known = [], set[tuple[Any, ...]]()
    every = sorted(specialisations(), key=lambda case: -case[2] * case[4].warp_pixels * case[4].warp_channels)
    while lacking := [case for case in every if kinds(case) - known]:
        chosen.append(max(lacking, key=lambda case: len(kinds(case) - known)))
        known |= kinds(chosen[-1])
    return chosen
