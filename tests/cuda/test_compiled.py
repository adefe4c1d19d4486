"""The contraction kernel as machine code for sm_80 and sm_90: registers within what its blocks may use, nothing spilled.

The cost of a kernel in registers decides which tiles are in `contraction.TILES`, so this is a table: one row per unit, tile and direction.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest

from assembler import SHARED, resources
from dtdfast.cuda.contraction import THIN, TILES
from dtdfast.cuda.dense import Tile, dense
from dtdfast.cuda.epilogue import FIRST_VIEW, N_FLOATS, PER_VIEW, Finish
from dtdfast.cuda.launch import Kernel

REGISTERS = 65536  # of a multiprocessor, sm_80 and sm_90
GATE = Finish(True, "relu", "gate", True, False, ("out", "factor"), 4)
TIMES = Finish(False, "identity", "times", False, True, ("out", "m"), 4)


def kernel_of(unit: str, n_products: int, across: bool, tile: Tile) -> Kernel:
    ending, maps = (GATE, ("w", "w+")) if n_products == 2 else (TIMES, ("w+",))
    vector = 1 if unit == "fma" else 4
    constants = (unit, maps, across, tile.constants, vector, vector, ending.constants)
    return Kernel("dtd_dense", dense, constants, FIRST_VIEW + PER_VIEW * len(ending.views), N_FLOATS, tile.threads, tile.min_blocks)


def specialisations() -> Iterator[tuple[str, int, bool, Tile]]:
    """The dual product and the one across for every tile; the single product along, which needs about as much, for the largest of a unit.

    With DTDFAST_LONG, along for every tile.
    """
    for unit, by_products in TILES.items():
        for tile in by_products[2]:
            yield unit, 2, False, tile
        for tile in by_products[1]:
            yield unit, 1, True, tile
            if tile is by_products[1][0] or os.environ.get("DTDFAST_LONG"):
                yield unit, 1, False, tile
        yield unit, 1, True, THIN


def assembled(case: tuple[str, int, bool, Tile]) -> dict[str, Any]:
    return resources(kernel_of(*case))


@pytest.fixture(scope="module")
def table() -> dict[tuple[str, int, bool, Tile], dict[str, dict[str, Any]]]:
    cases = list(specialisations())
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(cases, pool.map(assembled, cases), strict=True))


def test_registers(table: Any) -> None:
    """No kernel spills, and as many blocks fit on a multiprocessor as its launch bounds promise."""
    bad = []
    print(f"\n{'unit':8}{'products':9}{'':8}{'tile':30}{'registers: ' + ', '.join(SHARED)}")
    for (unit, n_products, across, tile), by_target in table.items():
        used = [by_target[target]["registers"] for target in SHARED]
        print(f"{unit:8}{n_products:<9}{'across' if across else 'along':8}{tile.constants!s:30}{used}")
        for target, found in by_target.items():
            fits = found["registers"] * tile.threads * tile.min_blocks <= REGISTERS
            if not fits or found["spilled"] or found["instructions"][r"\.local"]:
                bad.append((unit, n_products, across, tile, target, found))
    assert not bad


def test_shared_memory() -> None:
    for unit, by_products in TILES.items():
        for n_products, tiles in by_products.items():
            for tile in (*tiles, THIN):
                assert tile.shared_bytes(n_products, 6) <= min(SHARED.values()), (unit, n_products, tile)


def test_instructions(table: Any) -> None:
    """Tensor cores where they should be, copies of 16 bytes where rows are aligned, no float64 anywhere."""
    for (unit, _, _, _), by_target in table.items():
        for found in by_target.values():
            count = found["instructions"]
            assert bool(count["mma.sync"]) == (unit != "fma")
            assert bool(count["cp.async.ca"]) == (unit == "fma")
            assert bool(count["cp.async.cg"]) == (unit != "fma")
            assert count[r"\.f64"] == 0


def test_linking() -> None:
    """What the executor loads: a cubin with the kernel's name in it."""
    binary = kernel_of("tf32", 1, True, THIN).compile((9, 0))
    assert binary.image.startswith(b"\x7fELF")
    assert binary.entry.encode() in binary.image
    assert np.frombuffer(binary.image[18:20], np.uint16)[0] == 190  # EM_CUDA
