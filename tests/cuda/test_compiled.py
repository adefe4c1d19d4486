"""The contraction kernel as machine code for sm_80 and sm_90: registers within what its blocks may use, nothing spilled, and the
instructions that it is written for.

The cost of a kernel in registers decides which tiles are in `contraction.TILES`, so this is a table: one row per unit, tile and direction.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest

from assembler import SHARED, count, resources
from dtdfast.cuda.contraction import THIN, TILES
from dtdfast.cuda.dense import Tile, dense
from dtdfast.cuda.epilogue import FIRST_VIEW, N_FLOATS, PER_VIEW, Finish
from dtdfast.cuda.launch import Kernel

REGISTERS = 65536  # of a multiprocessor, sm_80 and sm_90
TENSOR = {  # of a unit: the instruction that multiplies
    "fma": ("FFMA",), "tf32x3": ("HMMA", "1688", "F32", "TF32"), "tf32": ("HMMA", "1688", "F32", "TF32"),
    "bf16_rounded": ("HMMA", "16816", "F32", "BF16"), "bf16": ("HMMA", "16816", "F32", "BF16"),
}  # fmt: skip
Case = tuple[str, int, bool, Tile]


def kernel_of(unit: str, n_products: int, across: bool, tile: Tile) -> Kernel:
    real, wide = ("bf16", 8) if unit == "bf16" else ("f4", 4)
    if n_products == 2:
        ending, maps = Finish(True, "relu", "gate", True, ("out", "factor"), (real, real), wide), ("w", "w+")
    else:
        ending, maps = Finish(False, "identity", "times", False, ("out", "m"), (real, real), wide), ("w+",)
    vector = 1 if unit == "fma" else wide
    constants = (unit, maps, across, tile.constants, vector, vector, ending.constants)
    return Kernel("dtd_dense", dense, constants, FIRST_VIEW + PER_VIEW * len(ending.views), N_FLOATS, tile.threads, tile.min_blocks)


def specialisations() -> Iterator[Case]:
    """The dual product along, which no plan asks for across, and the single product both ways, for every tile."""
    for unit, by_products in TILES.items():
        for tile in by_products[2]:
            yield unit, 2, False, tile
        for tile in by_products[1]:
            yield unit, 1, True, tile
            yield unit, 1, False, tile
        yield unit, 1, True, THIN


def assembled(case: Case) -> dict[str, Any]:
    return resources(kernel_of(*case), disassembled=True)


@pytest.fixture(scope="module")
def table() -> dict[Case, dict[str, Any]]:
    cases = list(specialisations())
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(cases, pool.map(assembled, cases), strict=True))


def test_registers(table: Any) -> None:
    """No kernel spills, and as many blocks fit on a multiprocessor as its launch bounds promise."""
    bad = []
    print(f"\n{'unit':13}{'products':9}{'':8}{'tile':30}{'registers: ' + ', '.join(SHARED)}")
    for (unit, n_products, across, tile), row in table.items():
        used = [row["targets"][target]["registers"] for target in SHARED]
        print(f"{unit:13}{n_products:<9}{'across' if across else 'along':8}{tile.constants!s:30}{used}")
        for target, found in row["targets"].items():
            fits = found["registers"] * tile.threads * tile.min_blocks <= REGISTERS
            if not fits or found["local"] or row["float64"]:
                bad.append((unit, n_products, across, tile, target, found))
    assert not bad


def test_shared_memory() -> None:
    for unit, by_products in TILES.items():
        for n_products, tiles in by_products.items():
            for tile in (*tiles, THIN):
                assert tile.shared_bytes(n_products, 6) <= min(SHARED.values()), (unit, n_products, tile)


def test_instructions(table: Any) -> None:
    """Every product in the instruction meant for it, copies and results 16 bytes at a time, fragments by ldmatrix; no other arithmetic.

    A tile is 128 bytes deep: a few steps of k, written out or in a loop, of 16 × 8 blocks, three instructions each in tf32x3.
    """
    for (unit, n_products, across, tile), row in table.items():
        code, blocks = row["code"], tile.warp_pixels // 16 * (tile.warp_channels // 8)
        where = (unit, n_products, across, tile, dict(code))
        assert not any(name.startswith(("LDL", "STL", "DADD", "DMUL", "DFMA", "DSETP")) for name in code), where
        tensor = count(code, *TENSOR[unit])
        if unit == "fma":
            assert count(code, "HMMA") == 0, where
            assert tensor >= n_products * blocks * 4, where
            assert count(code, "LDGSTS") > 0 == count(code, "LDGSTS", "128"), where
            continue
        assert tensor == count(code, "HMMA"), where
        steps = tensor / (n_products * blocks * (3 if unit == "tf32x3" else 1))
        assert steps in ((1, 2) if unit == "bf16_rounded" else (1, 2, 4)), where
        assert count(code, "LDGSTS") == count(code, "LDGSTS", "128") > 0, where
        assert count(code, "LDSM") == count(code, "LDSM", "4") > 0, where
        assert bool(count(code, "LDSM", "MT88")) == (unit == "bf16" and across), where
        assert bool(count(code, "LDG", "128")) == (n_products == 1), where  # the gate's dual product reads no view
        assert count(code, "STG") == count(code, "STG", "128") > 0, where
        if unit == "bf16":  # nothing is converted between copies and products: four conversions to each store of eight results
            assert count(code, "F2FP") == 4 * count(code, "STG"), where


def test_linking() -> None:
    """What the executor loads: a cubin with the kernel's name in it."""
    binary = kernel_of("tf32", 1, True, THIN).compile((9, 0))
    assert binary.image.startswith(b"\x7fELF")
    assert binary.entry.encode() in binary.image
    assert np.frombuffer(binary.image[18:20], np.uint16)[0] == 190  # EM_CUDA
