"""Which tile suits which contraction: python bench/tiles.py [--json FILE] [--network VGG-16] …; what the costs of
cuda/run/tiles.py follow from.

Every contraction of a network is timed alone with each tile that it may take, those that are not in use among them
(TRIED), and with wgmma where that suits (tiles.USE_WGMMA). Long sums are whole meanwhile; beside it stands what they
take in segments. Without a GPU the times are those of expect.py.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import dtdfast as dtd
from dtdfast.cuda.kernels.dense import Tile
from dtdfast.cuda.kernels.tile_copies import INNER, N_TAPS
from dtdfast.cuda.kernels.warp_product import WGMMA
from dtdfast.cuda.run import contraction, tiles
from dtdfast.cuda.run.prepared import Prepared
from dtdfast.cuda.run.tiles import EVEN, Cost, Row
from gpu_jobs import NETS, PRECISIONS, explainer, network
from paper import on_paper

CHOOSE = tiles.choose
BATCHES = (64, 1)
REPEATS = 2
TRIED = (  # not in use: to be measured
    Row("huge", Tile(256, 128, 64, 64, 3), (EVEN,), tiles.ANY),
    Row("half, eight warps", Tile(128, 64, 32, 32, 3, 1, 2), (EVEN,), tiles.ANY),
)
GROUPS_TRIED = (  # the same, by wgmma
    Row("groups, two", Tile(128, 128, 128, 16, 3, 1, 2), (EVEN,), {(unit, 1): Cost(1, 1, 1) for unit in WGMMA}),
    Row("group, three", Tile(128, 64, 128, 16, 3, 1, 3), (EVEN,), {(unit, 1): Cost(1, 1, 1) for unit in WGMMA}),
    Row(
        "group, 64",
        Tile(64, 64, 64, 16, 4, 2, 2),
        (EVEN,),
        {key: Cost(1, 1, 1) for key in product(WGMMA, (1, 2))},
    ),
)


def whole() -> AbstractContextManager[object]:
    """No sum is taken apart."""
    return mock.patch.object(tiles, "SEGMENTS", ())


def chosen(row: Row) -> AbstractContextManager[object]:
    """Contractions take this row, and wgmma where it is for that."""
    by_wgmma = any(unit in WGMMA for unit, _ in row.costs)
    return mock.patch.multiple(tiles, choose=lambda *ignored: row, USE_WGMMA=by_wgmma)


def rows_for(shape: tiles.Shape, shared_bytes: int) -> list[Row]:
    """Those in use, those that are only tried, and those of wgmma."""
    tried: dict[str, Any] = {"TILES": (*tiles.TILES, *TRIED), "WARPGROUPS": (*tiles.WARPGROUPS, *GROUPS_TRIED)}
    with mock.patch.multiple(tiles, **tried):
        rows = list(tiles.suiting(shape, shared_bytes))
        if tiles.suits_wgmma(shape.unit, shape.form, shape.channels):
            rows += tiles.suiting(replace(shape, unit=tiles.by_wgmma(shape.unit)), shared_bytes)
    return rows


def prepared_for(name: str, precision: str, n: int) -> Prepared:
    net = network(name)
    made = explainer(net, precision, batch_size=n)
    made.explain(net.sample(n, box=(0.0, 1.0)), 0)
    executor: Any = made._executor(net.input_shape, made._kind)
    prepared: Prepared = executor._plan(n, 1, False)
    return prepared


def compare(name: str, precision: str, n: int) -> dict[str, Any]:
    """Per contraction milliseconds by tile, with the one chosen; one of several alike stands for them."""
    prepared = prepared_for(name, precision, n)
    device, plan = prepared._memory.device, prepared.plan
    found: dict[Any, dict[str, Any]] = {}
    shapes: list[tiles.Shape] = []

    def listening(shape: tiles.Shape, multiprocessors: int, shared_bytes: int) -> Row:
        shapes.append(shape)
        return CHOOSE(shape, multiprocessors, shared_bytes)

    for step in (*plan.forward, *plan.relevance):
        if step.op not in contraction.OPERATIONS or step.op == "MATMUL":
            continue
        with whole(), mock.patch.object(tiles, "choose", listening):
            (launch,) = prepared._launches(step)
        shape, constants = shapes[-1], launch.kernel.constants
        taps, inner = launch.integers[N_TAPS], launch.integers[INNER]
        key = (shape, taps, inner, constants[:3], constants[-1])
        if key in found:
            found[key]["count"] += 1
            continue
        rows, times = rows_for(shape, device.shared_bytes), {}
        for row in rows:
            with whole(), chosen(row), suppress(Exception):  # a tile that is only tried may ask for too many registers
                times[row.name] = 1e3 * device.seconds(prepared._launches(step), REPEATS)
        taken = prepared._launches(step)
        apart = len(taken) > 1 or len(taken[0].kernel.constants) > len(constants)
        segments = {"in segments": 1e3 * device.seconds(taken, REPEATS)} if apart else {}
        named = next(row.name for row in rows if row.tile.constants == constants[3])
        found[key] = {
            "count": 1, "operation": step.op, "unit": shape.unit, "form": shape.form, "products": shape.products,
            "transposed": constants[2], "pixels": shape.pixels, "channels": shape.channels, "groups": shape.groups,
            "taps": taps, "inner": inner, "macs": step.macs, "chosen": named, "by tile": times,
            **segments,
        }  # fmt: skip
    return {"network": name, "precision": precision, "batch": n, "steps": list(found.values())}


def show(found: dict[str, Any]) -> None:
    steps: list[dict[str, Any]] = found["steps"]
    now = sum(s["count"] * s["by tile"][s["chosen"]] for s in steps)
    best = sum(s["count"] * min(s["by tile"].values()) for s in steps)
    in_use = {row.name for row in tiles.TILES}
    used = sum(s["count"] * min(t for row, t in s["by tile"].items() if row in in_use) for s in steps)
    groups = {row.name for row in (*tiles.WARPGROUPS, *GROUPS_TRIED)}
    by_wgmma = sum(
        s["count"] * min([t for row, t in s["by tile"].items() if row in groups] or [s["by tile"][s["chosen"]]])
        for s in steps
    )
    apart = sum(s["count"] * s.get("in segments", s["by tile"][s["chosen"]]) for s in steps)
    print(
        f"{found['network']}, {found['batch']} images, {found['precision']}: {now:.3f} ms as chosen, {apart:.3f} in "
        f"segments, {used:.3f} with "
        f"the best tiles in use, {best:.3f} with the best of all, {by_wgmma:.3f} with wgmma wherever it suits",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write all numbers")
    parser.add_argument("--network", choices=NETS, action="append", help="default: all")
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help="default: all")
    parser.add_argument(
        "--seconds", type=float, default=400, help="no further network is begun after these (%(default)s)"
    )
    options = parser.parse_args()
    end, results = time.monotonic() + options.seconds, []
    for name, n, precision in product(options.network or NETS, BATCHES, options.precision or PRECISIONS):
        if time.monotonic() < end:
            with nullcontext() if dtd.backends()["cuda"].usable else on_paper():
                results.append(compare(name, precision, n))
            show(results[-1])
            if options.json:
                options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
