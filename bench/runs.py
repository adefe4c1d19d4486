"""What a data-set run costs beside the explanation: the figures of docs/scale.md.

python bench/runs.py squeezenet1_1.onnx                # rates and overheads, and what 1.3 million images take
python bench/runs.py squeezenet1_1.onnx 100 --only JPEG
"""

from __future__ import annotations

import argparse
import os
import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import distributed
import numpy as np

import dtdfast as dtd
from dtdfast.data import digits
from dtdfast.images import Preparation
from dtdfast.runs.pictures import Pictures
from dtdfast.runs.run import _work as work_of
from dtdfast.runs.sources import open_source
from dtdfast.runs.store import Store
from dtdfast.runs.work import Work

sys.path.append(str(Path(__file__).parents[1] / "tests" / "lib"))
from photographs import photographs

ROUNDS = 5
CHUNK = 27  # images in a chunk of 16 MiB
FED = Preparation(size=(227, 227), channels="bgr", mean=(104.0, 117.0, 123.0), scale=255.0)


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """By the clock, and of all cores together."""
    clock, cores = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - clock, time.process_time() - cores


def summary(times: list[tuple[float, float]]) -> tuple[float, float, float]:
    """The best and the median by the clock, and the least of all cores."""
    clock, cores = zip(*times, strict=True)
    return min(clock), median(clock), min(cores)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("count", type=int, nargs="?", default=500)
    parser.add_argument(
        "--also", nargs="*", default=[], metavar="NAME=SECONDS", help="rows for other networks: seconds per image"
    )
    parser.add_argument("--only", default="", help="cases that hold this text, beside those in memory")
    arguments = parser.parse_args()
    layers = dtd.from_onnx(arguments.model)
    n = arguments.count
    folder = Path(tempfile.mkdtemp(prefix="dtdfast-runs-"))
    try:
        for suffix in ("jpg", "png"):
            photographs(folder / suffix, n, suffix)
        paths = sorted((folder / "jpg").iterdir())
        x = np.stack([FED.normalised(FED.picture(path)) for path in paths])
        np.save(folder / "x.npy", x)
        also = {name: float(value) for name, _, value in (item.partition("=") for item in arguments.also)}
        measure(layers, folder, x, arguments.only, also)
    finally:
        shutil.rmtree(folder)


def measure(layers: list[dtd.Layer], folder: Path, x: np.ndarray, only: str, also: dict[str, float]) -> None:
    n = len(x)
    out = folder / "out.zarr"
    explainer = dtd.Explainer(layers, domain=FED.domain)
    explainer.explain(x[:8])

    def run(data: Any, **options: Any) -> Callable[[], object]:
        def call() -> None:
            dtd.run(layers, data, out, domain=FED.domain, **options)

        return call

    fed = dict(preparation=FED)
    cases: dict[str, Callable[[], object]] = {
        "in memory": lambda: explainer.explain(x),
        "run, array in memory": run(x),
        "run, .npy": run(str(folder / "x.npy")),
        "run, JPEG files": run(folder / "jpg", **fed),
        "run, JPEG files, float16 summed": run(folder / "jpg", **fed, dtype="float16", sum_channels=True),
        "run, PNG files": run(folder / "png", **fed),
        "run, one worker": run(folder / "jpg", **fed, workers=1),
        "run, two workers": run(folder / "jpg", **fed, workers=2),
    }
    cases = {name: call for name, call in cases.items() if name == "in memory" or only in name}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    nbytes = {}
    for _ in range(ROUNDS):  # in turn, so that a noisy moment touches all of them
        for name, call in cases.items():
            times[name].append(seconds(call))
            nbytes[name] = size(out) / n if out.exists() else 0
            shutil.rmtree(out, ignore_errors=True)
    print(
        f"{n} photographs, {os.cpu_count()} cores; {ROUNDS} rounds by turns, start of the run (and its cluster) "
        "included"
    )
    print(f"{'':32} images/s: best, median   of in memory: best, median, by work of the cores   kB per image")
    held = summary(times["in memory"])
    for name, taken in times.items():
        best, middle, work = summary(taken)
        rates = (
            f"{n / best:13.1f} {n / middle:10.1f} {held[0] / best:18.1%} {held[1] / middle:8.1%} {held[2] / work:18.1%}"
        )
        print(f"{name:32} {rates} {nbytes[name] / 1e3:24.1f}")
    few = x[:16]
    plain = least(lambda: explainer.explain(few))
    followed = least(lambda: explainer.explain(few, return_ledger=True), ROUNDS)
    print(f"with the ledger: {followed / plain:.2f} times the explanation alone")

    def one() -> None:
        dtd.run(layers, x[:1], out, domain=FED.domain)
        shutil.rmtree(out)

    starting = summary([seconds(one) for _ in range(ROUNDS)])
    print(f"a run of one image: {starting[0] * 1e3:.0f} ms, median {starting[1] * 1e3:.0f} ms")
    whole, narrow = chunk(layers, folder, out), chunk(layers, folder, out, dtype="float16", sum_channels=True)
    print(
        "beside the kernels, ms per image on one thread: best, median (and work) of reading and feeding | making rows "
        "| storing them"
    )
    for name, parts in (("float32", whole), ("sums over channels, float16", narrow)):
        print(
            f"{name:32} "
            + " | ".join(
                f"{best:.2f}, {middle:.2f} ({work:.2f})" for best, middle, work in 1e3 / CHUNK * np.array(parts)
            )
        )
    print(f"the model on its way to a worker: {len(pickle.dumps(explainer)) / 1e6:.1f} MB")
    stored = size(out) / CHUNK
    handing = per_task(folder)
    print(f"Dask's part of a chunk: {handing * 1e3:.1f} ms, that of its worker included")
    million({"this network": plain / len(few), **also}, narrow, stored, handing)


def million(
    per_image: dict[str, float], parts: list[tuple[float, float, float]], stored: float, per_task: float
) -> None:
    """What 1.3 million images take, in hours, and what they write: workers of as many cores as this machine has, each
    on its own.

    Reading and storing count as work that the cores share with the kernels.
    """
    beside = sum(best for best, _, _ in parts) / CHUNK / (os.cpu_count() or 1)
    print("| | s per image | hours on 1 | on 8 | on 64 | MB/s written by 64 | chunks/s of 64 |")
    print("|---|---|---|---|---|---|---|")
    for name, explaining in per_image.items():
        each = explaining + beside
        times = " | ".join(f"{1.3e6 * each / workers / 3600:.2g}" for workers in (1, 8, 64))
        print(f"| {name} | {each:.4f} | {times} | {64 / each * stored / 1e6:.0f} | {64 / each / CHUNK:.0f} |")
    print(f"one scheduler hands out {1 / per_task:.0f} chunks per second at least")


def least(call: Callable[[], object], rounds: int = 10) -> float:
    return min(seconds(call)[0] for _ in range(rounds))


def chunk(layers: list[dtd.Layer], folder: Path, out: Path, **options: Any) -> list[tuple[float, float, float]]:
    """Seconds that one thread takes for a chunk beside the kernels: to read it, to make its rows, and to write new
    ones.
    """
    shutil.rmtree(out, ignore_errors=True)
    paths = sorted((folder / "jpg").iterdir())[:CHUNK]
    pictures = Pictures(tuple(paths), FED)
    x = np.empty((len(paths), *FED.shape), np.float32)
    reading = summary([seconds(lambda: pictures.read(x)) for _ in range(10)])
    dtd.run(layers, x, out, domain=FED.domain, chunk=len(paths), **options)
    work, numbers = kept(layers, x, **options), count(1)
    done = work.chunk([""] * len(x), None, [path.name for path in paths])
    for block in work.blocks(x):
        work.explain(done, x, block)
    rows, store = work.rows(done), Store(out)
    making = summary([seconds(lambda: work.rows(done)) for _ in range(10)])
    storing = summary([seconds(lambda: store.commit(next(numbers), rows)) for _ in range(20)])
    for number in range(1, next(numbers)):  # the first one is the run's
        for path in out.glob(f"*/c.{number}*"):
            path.unlink()
    return [reading, making, storing]


def kept(layers: list[dtd.Layer], x: np.ndarray, dtype: str = "float32", sum_channels: bool = False) -> Work:
    """What `dtdfast.run` does with every chunk."""
    return work_of(
        dtd.Explainer(layers, domain=FED.domain),
        open_source(x),
        preparation=None,
        target=None,
        dtype=dtype,
        sum_channels=sum_channels,
        last=False,
        ledger=False,
        strict=False,
        scores=None,
    )


def per_task(folder: Path) -> float:
    """Seconds per chunk on one worker beyond those in one process, of chunks that cost next to nothing themselves."""
    layers, images, _ = digits()
    np.save(folder / "digits.npy", images)
    taken = []
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        for options in (dict(scheduler=cluster.scheduler_address), {}):
            for chunk in (10, 2):

                def call(chunk: int = chunk, options: dict[str, Any] = options) -> None:
                    shutil.rmtree(folder / "tasks.zarr", ignore_errors=True)
                    dtd.run(layers, str(folder / "digits.npy"), folder / "tasks.zarr", chunk=chunk, **options)

                taken.append(least(call, ROUNDS))
    few, many, few_here, many_here = taken
    return ((many - few) - (many_here - few_here)) / (len(images) / 2 - len(images) / 10)


if __name__ == "__main__":
    main()
