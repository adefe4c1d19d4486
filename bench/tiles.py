"""Which tile suits which step: python bench/tiles.py [--json FILE] [--network VGG-16] …; what `fetching`
and `issuing` of cuda/run/tiles.py should say.

Every contraction of a network is timed alone with each tile that it may take. Without a GPU the times are those of
expect.py.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import nullcontext
from dataclasses import astuple, replace
from itertools import product
from pathlib import Path

import dtdfast as dtd
from dtdfast.cuda.kernels.dense import Tile
from dtdfast.cuda.run import tiles
from gpu_jobs import BATCHES, NETS, PRECISIONS, Row, network, profile
from paper import on_paper

CHOOSE = tiles.choose
TILES = {row.name: row.tile for row in tiles.TILES}
NARROW_UNITS = {
    "wide, two tiles to a step": Tile(128, 128, 64, 32, 2, 2),
    "two blocks of half": Tile(128, 64, 64, 32, 3, 1, 2),
}
TRIED: dict[str, dict[str, Tile]] = {  # not in use: to be measured
    "tf32": NARROW_UNITS, "bfloat16": NARROW_UNITS,
    "float32": {"tall": Tile(128, 64, 32, 32, 3), "eight warps": Tile(64, 64, 32, 16, 3, 2)},
}  # fmt: skip


def steps_with(tile: Tile | None, name: str, precision: str, n: int) -> list[Row]:
    """All contractions, with this tile wherever it can be had."""
    net, anywhere = network(name), tile in TRIED[precision].values()

    def choose(shape: tiles.Shape, multiprocessors: int, shared_bytes: int) -> tiles.Row:
        chosen = CHOOSE(shape, multiprocessors, shared_bytes)
        suits = any(row.tile == tile for row, _ in tiles.suiting(shape, shared_bytes))
        if tile is not None and (suits or (anywhere and shape.form != tiles.THIN)):
            return replace(chosen, tile=tile)
        return chosen

    tiles.choose = choose
    try:
        return [s for s in profile(net, precision, net.sample(n, box=(0.0, 1.0))) if "unit" in s]
    finally:
        tiles.choose = CHOOSE


def compare(name: str, precision: str, n: int) -> Row:
    """Per contraction milliseconds by tile, with the one chosen."""
    chosen = steps_with(None, name, precision, n)
    rows = [{**step, "by tile": {}} for step in chosen]
    for label, tile in (TILES | TRIED[precision]).items():
        for row, step in zip(rows, steps_with(tile, name, precision, n), strict=True):
            if step["tile"] == astuple(tile):
                row["by tile"][label] = step["ms"]
    return {"network": name, "precision": precision, "batch": n, "steps": rows}


def show(found: Row) -> None:
    labels = {astuple(tile): label for label, tile in TILES.items()}
    chosen = sum(s["by tile"][labels[s["tile"]]] for s in found["steps"])
    best = sum(min(s["by tile"].values()) for s in found["steps"])
    print(
        f"{found['network']}, {found['batch']} images, {found['precision']}: {chosen:.3f} ms as chosen, {best:.3f} "
        "with the best tiles"
    )
    for s in found["steps"]:
        times = "  ".join(f"{label} {ms:.4f}" for label, ms in sorted(s["by tile"].items(), key=lambda item: item[1]))
        if labels[s["tile"]] != min(s["by tile"], key=s["by tile"].__getitem__):
            way = "transposed" if s["transposed"] else "plain"
            print(f"    {s['step']:4} {s['unit']:8} {s['products']} {way:10}  chose {labels[s['tile']]}: {times}")


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
    for name, n, precision in product(
        options.network or NETS, (max(BATCHES), min(BATCHES)), options.precision or PRECISIONS
    ):
        if time.monotonic() < end:
            with nullcontext() if dtd.backends()["cuda"].usable else on_paper():
                results.append(compare(name, precision, n))
            show(results[-1])
            if options.json:
                options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
