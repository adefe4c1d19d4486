"""All that is asked of a rented GPU in one call: python bench/gpu_call.py PACK OUT [--seconds 400] [--stages …].

PACK is what gpu_pack.py made: kernels as machine code, references, a manifest, wheels. Beside it the machine gets
bench/, tests/ and pyproject.toml of the same commit, and needs Python 3.12, PyTorch, numba-cuda and pytest:

    pip install --no-index --no-deps --target SITE PACK/wheels/*.whl
    PYTHONPATH=SITE python bench/gpu_call.py PACK OUT

Stages run in this order, and end the call where one shows that nothing behind it can be trusted. Every row is written
to OUT/rows.json when it is found:

    versions    what is there
    kernels     every kernel loaded: registers, local memory, blocks on a multiprocessor
    smoke       a fill, a contraction, a graph, the default stream
    tests       every unit × tile × direction × feed against bounds; kernels and plans of tests/cuda on the device
    small       small networks of every kind in every precision
    limits      a copy, cuBLAS
    networks    the goals of gpu.py: maps, bits, times, steps
    dependent   ResNet-50, one image, by programmatic dependent launch: maps and bits, then times with and without
    rivals      the same as networks by cuDNN, by hand, by zennit

Networks have a process each, which builds on the CPU while another measures. The call returns 1 if something in a stage
failed or was wrong, and 0 else, goals missed or not.
"""

from __future__ import annotations

import argparse
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "lib"))

from gpu import Clock, Report, judge, rows_of
from gpu_jobs import PRECISIONS, Row

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("versions", "kernels", "smoke", "tests", "small", "limits", "networks", "dependent", "rivals")
TRUSTED = ("kernels", "smoke")  # behind a failure of these nothing is asked
MANY_LAUNCHES = "ResNet-50"
NETWORKS = ("VGG-16", "ResNet-50", "GoogLeNet")
GOAL_BATCHES = (1, 64)
TESTS = [
    f"tests/cuda/{name}.py"
    for name in (
        "test_every_tile",
        "test_dense",
        "test_attention_kernels",
        "test_plans_on_host",
        "test_weights_on_host",
        "test_given_on_host",
    )
] + ["tests/cuda/test_frames.py::test_frames", "tests/cuda/test_neighbours.py::test_the_same_bits"]
SKIPPED = "not graphs and not refused"  # networks at random ask for kernels that the pack has not


def side_by_side(jobs: Sequence[Row], seconds: float) -> Iterator[Row]:
    """The rows of several processes, as they come."""
    found: queue.Queue[Row | None] = queue.Queue()

    def follow(job: Row) -> None:
        for row in rows_of(job, seconds):
            found.put(row)
        found.put(None)

    for job in jobs:
        threading.Thread(target=follow, args=(job,), daemon=True).start()
    ended = 0
    while ended < len(jobs):
        row = found.get()
        if row is None:
            ended += 1
        else:
            yield row


def tests(out: Path, seconds: float) -> Iterator[Row]:
    """Files of tests/cuda on the device, their failures in OUT; several processes where pytest-xdist is there."""
    log = out / "tests.txt"
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "--tb=short", "-p", "no:cacheprovider", "-k", SKIPPED]
    command += [*TESTS, *(["-n", "10"] if find_spec("xdist") else [])]
    with log.open("w") as file:
        try:
            environment = {**os.environ, "DTDFAST_GPU": "1"}
            done = subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=file, timeout=seconds)
            code = done.returncode
        except subprocess.TimeoutExpired:
            code = 124
    said = log.read_text().strip().splitlines()
    failed = [line for line in said if line.startswith(("FAILED", "ERROR"))]
    yield {"kind": "tests", "right": code == 0, "exit": code, "said": said[-1:], "failed": failed[:60]}


def rows(stage: str, pack: Path, out: Path, lock: Path, clock: Clock) -> Iterator[Row]:
    references = str(pack / "references.npz")
    if stage == "tests":
        yield from tests(out, min(clock.left, 90))
    elif stage in ("networks", "rivals"):
        kind = "network" if stage == "networks" else "rivals"
        common = {"kind": kind, "precisions": PRECISIONS, "batches": GOAL_BATCHES, "references": references}
        yield from side_by_side([{**common, "network": n, "lock": str(lock)} for n in NETWORKS], clock.left)
    elif stage == "dependent":
        job = {"kind": stage, "network": MANY_LAUNCHES, "precisions": PRECISIONS, "references": references}
        yield from rows_of(job, min(clock.left, 60))
    elif stage == "small":
        yield from rows_of({"kind": "small", "first": 0, "references": references}, min(clock.left, 60))
    else:
        yield from rows_of({"kind": stage, "pack": str(pack)}, min(clock.left, 60))


def failed(row: Row) -> bool:
    """Whether it says so: a process that ended, a result that is wrong, a call that could not be timed."""
    return row["kind"] == "failed" or not row.get("right", True) or "why" in row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=lambda name: Path(name).resolve())
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=400, help="time allowed (%(default)s)")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    options = parser.parse_args()
    clock, report = Clock(options.seconds), Report(options.out / "rows.json")
    os.environ["DTDFAST_CACHE"] = str(options.pack / "kernels")
    with tempfile.TemporaryDirectory() as scratch:
        for stage in options.stages:
            begin = time.monotonic()
            found: list[Row] = []
            for row in rows(stage, options.pack, options.out, Path(scratch) / "lock", clock):
                report.add(row)
                found.append(row)
            print(f"--- {stage}: {time.monotonic() - begin:.0f} s, {clock.left:.0f} s left", flush=True)
            if stage in TRUSTED and any(map(failed, found)):
                break
    judge(report)
    report.write()
    return int(any(map(failed, report.results["rows"])))


if __name__ == "__main__":
    sys.exit(main())
