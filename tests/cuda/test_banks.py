"""How often lanes of a warp meet in a bank of shared memory: never, in the loops of the contraction kernel; where they
do behind them, as often as is said here.
"""

from __future__ import annotations

import numpy as np
import pytest

import banks
import test_attention_kernels
from dtdfast.cuda.kernels.warp_product import bytes_of
from dtdfast.cuda.run import tiles
from dtdfast.plan.steps import View
from layers import World, geometry
from support import LONG
from test_dense import UNITS, neuron

Case = tuple[str, str, int, bool]
CASES: list[Case] = [
    (unit, row.name, products, transposed)
    for row in tiles.NAMED.values()
    for unit, products in row.costs
    for transposed in (False, True)
    if unit in tiles.EVEN_UNITS and not (transposed and products == 2)
    if transposed or tiles.THIN not in row.forms  # the thin tile is for relevance alone
]
MAIN: list[Case] = [
    ("tf32", "wide", 2, False), ("tf32", "broad", 1, True), ("tf32x3", "square", 2, False), ("bf16", "half", 2, False),
    ("bf16", "broad", 1, True), ("tf32", "thin", 1, True),
    ("tf32", "narrow", 1, True),
    ("bf16_wgmma", "group", 1, True),
]  # fmt: skip


def expected(unit: str, name: str) -> dict[str, float]:
    """Turns that an instruction takes, for each that it would take if no lanes met; 1 where nothing is said.

    In bfloat16 a thread finishes eight channels, and its neighbour's lie 32 bytes behind: every second lane meets the
    first. Of the thin tile, sums lie in rows of 16 floats: every second row meets the first; of the narrow one in rows
    of 24, of which four are read at once.
    """
    found = {"shared_load4": 2.0} if bytes_of(unit) == 2 or name == "narrow" else {}
    if name == "thin":
        found |= {"shared_store2": 2.0, "shared_load4": 3.0 if unit == "bf16" else 1.5}
    return found


@pytest.mark.parametrize(("unit", "name", "products", "transposed"), CASES if LONG else MAIN)
def test_contraction(
    unit: str, name: str, products: int, transposed: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = tiles.NAMED[name]
    monkeypatch.setattr(tiles, "choose", lambda *_: row)
    channels = row.tile.channels
    precision, real = UNITS[unit]
    part = geometry(rng, *((channels, 64) if transposed else (64, channels)), (1, 2, 3), (1, 1, 1))
    world = World(1, real=real)
    x = rng.random((1, 64, 1, 2, 3), dtype=np.float32)
    with banks.watched() as seen:
        if products == 2:
            neuron(part, world, x, dual=True, factor_kind="gate")
        else:
            given, out = world.buffer(x.shape[1:], x), world.buffer((channels, 1, 2, 3))
            fields = dict(out=View(out), weight_map="w+")
            world.lowering.taps("TAPS", part, View(given), fields, scatter=transposed)
        world.run(precision)
    turns = seen.turns()
    assert {"copy16", "shared_store" if unit in tiles.WGMMA else "shared_store2", "shared_load4"} <= set(turns)
    assert ("shared_load" in turns) == (transposed and bytes_of(unit) == 4)  # the transposed product's weights
    assert {name: taken / least for name, (taken, least) in turns.items() if taken > least} == expected(unit, name)


@pytest.mark.parametrize(("number", "stores"), [(0, 1.5), (1, 1.0)])
def test_matmul(number: int, stores: float) -> None:
    """Of an operand whose terms lie together in memory, 16 come at once, and go to rows of which every eighth meets: in
    the first case one operand of the two.
    """
    with banks.watched() as seen:
        test_attention_kernels.test_matmul(number)
    ratios = {name: taken / least for name, (taken, least) in seen.turns().items()}
    assert ratios == {"shared_store": stores, "shared_load4": 1}


@pytest.mark.parametrize(
    ("size", "step", "turns"), [(4, 4, [1]), (4, 8, [2]), (4, 0, [1]), (4, 128, [32]), (8, 8, [1, 1]), (8, 16, [2, 2]),
                                (16, 16, [1] * 4), (16, 32, [2] * 4), (16, 128, [8] * 4)],
)  # fmt: skip
def test_turns(size: int, step: int, turns: list[int]) -> None:
    assert banks.turns(size, {lane: lane * step for lane in range(32)}) == turns
