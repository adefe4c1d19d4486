"""dtdfast on a GPU beside its rivals: python bench/gpu.py [--references FILE] [--json FILE]; ends within eight
minutes.

First every kernel is compared with the float64 oracle's maps (--references: gpu_references.py computes them, on any
machine), on small networks of every kind and on one image through each network that is timed, and batches with single
images; then calls are timed by CUDA events, and every step by itself.
Each network and precision runs in a process of its own (gpu_jobs.py), and the file is written after every row. Without
a GPU it goes as far as it can: all plans, all launches, all kernels compiled, and with --expect the times that their
shapes suggest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from typing import Any

import dtdfast as dtd
from dtdfast.cuda.compile import cache as kept
from gpu_jobs import (
    BATCHES,
    MARK,
    NETS,
    PRECISIONS,
    SEED,
    Row,
    checks,
    explainer,
    network,
    read_reference,
    weight_bytes,
)
from nets import Net
from paper import PaperDevice, on_paper

GOALS = {  # milliseconds on an H200
    ("VGG-16", 64): (90, 34, 16), ("VGG-16", 1): (2.0, 1.5, 1.2), ("ResNet-50", 64): (28, 16, 11), ("ResNet-50",
    1): (3, 3, 2.5),
    ("GoogLeNet", 1): (3, 3, 2.5), ("GoogLeNet", 64): (14, 10, 8),
}  # fmt: skip
MEMORY = {"float32": 4.5e9, "bfloat16": 2.5e9}  # bytes beyond the weights, VGG-16 with 64 images in one pass


class Clock:
    """How much of the time allowed is left."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.end = seconds, time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self.end - time.monotonic()


# --------------------------------------------------------------------------------------------------- without a device


def require(references: Path) -> None:
    """Raise where a check's reference is missing, or of other weights or samples."""
    for check in checks():
        read_reference(references, check.what, check.net, check.x)
    for name in NETS:
        read_reference(references, name, network(name), network(name).sample(1, SEED, box=(0.0, 1.0)))


def plan_everything() -> PaperDevice:
    """Plans and launches of all that will be run, on a device on paper."""
    with on_paper() as device:
        for name, precision in product(NETS, PRECISIONS):
            net = network(name)
            for n in BATCHES:
                explainer(net, precision).explain(net.sample(n, box=(0.0, 1.0)), 0)
        for check in checks():
            for precision in check.precisions:
                check.run("cuda", precision)  # computes nothing: the results are what memory held
    return device


def memory_needed(net: Net, precision: str) -> dict[str, Any]:
    """What 64 images in one pass take of a GPU's memory beside the weights: arena, what goes in and comes out,
    tables.
    """
    with on_paper() as device:
        made = explainer(net, precision, batch_size=64)
        made.explain(net.sample(64, box=(0.0, 1.0)), 0)
        arena = made.plan_for((64, *net.input_shape)).arena
    beyond = sum(device.allocated.values()) - weight_bytes(net, precision)
    return {"precision": precision, "arena": arena, "bytes beyond weights": beyond, "goal": MEMORY[precision]}


def expected_ms(name: str, precision: str, n: int) -> float:
    """What expect.py says of all steps."""
    with on_paper():
        net = network(name)
        return 1e3 * float(explainer(net, precision, batch_size=n).profile(net.sample(n, box=(0.0, 1.0))).seconds)


def compile_everything(device: PaperDevice, clock: Clock, workers: int | None = None) -> tuple[int, int, list[str]]:
    """Compile what no cache holds, in processes of their own, until an eighth of the time is left: (compiled, missing,
    problems).
    """
    missing = [k for k in device.kernels if kept.stored(k, device.capability) is None]
    done, problems = 0, []
    if missing:
        pool = ProcessPoolExecutor(workers)
        futures = [
            pool.submit(kept.compiled, kernel, device.capability)
            for kernel in sorted(missing, key=lambda k: k.name not in ("dtd_dense", "dtd_matmul"))
        ]
        try:
            for future in as_completed(futures, timeout=max(1.0, clock.left - clock.seconds / 8)):
                problem = future.exception()
                done += problem is None
                if problem is not None:
                    problems.append(f"{type(problem).__name__}: {problem}")
        except TimeoutError:
            pass  # a slow machine: what is left is compiled when it is first needed
        pool.shutdown(cancel_futures=True)
    return done, len(missing), problems


# --------------------------------------------------------------------------------------------------------------- jobs


def rows_of(job: Row, seconds: float) -> Iterator[Row]:
    """The rows that a process of its own finds for a job; one that dies or takes too long leaves a row that says so."""
    with tempfile.TemporaryFile("w+") as said:
        command = [sys.executable, str(Path(__file__).with_name("gpu_jobs.py")), json.dumps(job)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
        watch = threading.Timer(max(1.0, seconds), process.kill)
        watch.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(MARK):
                    yield json.loads(line.removeprefix(MARK))
            code = process.wait()
        finally:
            watch.cancel()
            process.kill()
            process.wait()
        if code:
            said.seek(0)
            yield {**job, "kind": "failed", "what": job["kind"], "exit": code, "said": said.read()[-2000:]}


class Report:
    """All rows found, printed as they come, and written at once."""

    def __init__(self, file: Path | None) -> None:
        self.file, self.limits = file, {}  # type: ignore[var-annotated]
        self.results: dict[str, Any] = {"dtdfast": dtd.build_config(), "seed": SEED, "rows": [], "unmeasured": []}

    def write(self) -> None:
        if self.file:
            self.file.write_text(json.dumps(self.results, indent=1, default=str))

    def rows(self, kind: str) -> list[Row]:
        return [row for row in self.results["rows"] if row["kind"] == kind]

    def add(self, row: Row) -> None:
        self.results["rows"].append(row)
        self.write()
        if row["kind"] == "limits":
            self.limits = row
        shown = {"check": self.check, "time": self.time, "profile": self.profile}
        print(shown.get(row["kind"], str)(row), flush=True)

    def check(self, row: Row) -> str:
        found = row.get("why") or (
            f"error {row['error']:.1e} (at most {row['bound']:.1e}), "
            f"of the worst piece {row['of the worst piece']:.1e} ({row['its bound']:.1e})"
        )
        return f"{'right' if row['right'] else 'WRONG'}  {row['what']:44} {row['precision']:9} {found}"

    def time(self, row: Row) -> str:
        what = f"{row['network']:12} {row['batch']:3} {row['precision']:9} {row['tool']:26}"
        if "why" in row:
            return f"{what} FAILED {row['why'][:200]}"
        share = row["TFLOP/s"] / self.limits[row["precision"]] if row["precision"] in self.limits else float("nan")
        return (
            f"{what} {row['min ms']:9.3f} {row['median ms']:9.3f} ms {row['TFLOP/s']:7.1f} TFLOP/s {share:5.0%}  "
            f"{row['bytes beyond weights'] / 2**30:6.2f} GiB beyond weights"
        )

    def profile(self, row: Row) -> str:
        """The steps that take longest, and how far they are from what was expected."""
        steps = sorted(row["steps"], key=lambda s: -s["ms"])
        total, expected = sum(s["ms"] for s in steps), sum(s["expected ms"] for s in steps)
        lines = [
            (
                f"steps of {row['network']}, {row['batch']} images, {row['precision']}: {total:.3f} ms, expected "
                f"{expected:.3f}"
            )
        ]
        for s in steps[:6]:
            rate = f"{s['TFLOP/s']:6.1f} TFLOP/s {s['unit']} {s['tile']}" if "unit" in s else f"{s['GB/s']:6.0f} GB/s"
            lines.append(
                f"    {s['step']:4} {s['operation']:15} {s['ms']:8.4f} ms, expected {s['expected ms']:8.4f}  {rate}"
            )
        return "\n".join(lines)


def run_small(report: Report, clock: Clock, references: Path) -> None:
    """Small networks; where a case ends its process, another goes on behind it."""
    first = 0
    while clock.left > 30:
        ended = True
        for row in rows_of({"kind": "small", "first": first, "references": str(references)}, 120):
            report.add(row)
            first = row.get("number", first) + 1
            ended = row["kind"] != "failed" and "why" not in row
        if ended:
            return


def run_all(report: Report, clock: Clock, references: Path) -> None:
    """Everything that needs a GPU, dtdfast first; what there was no time for is listed."""
    for row in rows_of({"kind": "limits"}, 60):
        report.add(row)
    run_small(report, clock, references)
    jobs = [{"kind": k, "network": n, "precision": p} for k, n, p in product(("network", "rivals"), NETS, PRECISIONS)]
    for job in jobs:
        if clock.left < 15:
            report.results["unmeasured"].append({**job, "why": "out of time"})
            continue
        for row in rows_of({**job, "references": str(references)}, min(clock.left, 120)):
            report.add(row)


def judge(report: Report) -> None:
    """The goals, row by row."""
    found = {
        (r["network"], r["batch"], r["precision"]): r.get("median ms")
        for r in report.rows("time")
        if r["tool"] == "dtdfast"
    }
    report.results["goals"] = []
    for (name, n), bounds in GOALS.items():
        for precision, bound in zip(PRECISIONS, bounds, strict=True):
            ms = found.get((name, n, precision))
            verdict = "unmeasured" if ms is None else "met" if ms <= bound else "missed"
            report.results["goals"].append(
                {"network": name, "batch": n, "precision": precision, "goal ms": bound, "ms": ms, "verdict": verdict}
            )
            print(f"goal {name:10} {n:3} {precision:9} {bound:6.1f} ms: {'-' if ms is None else f'{ms:.2f}'} {verdict}")
    wrong = [r for r in report.rows("check") if not r["right"]]
    print(f"{len(report.rows('check'))} checks, {len(wrong)} wrong; {len(report.rows('failed'))} jobs failed")


# --------------------------------------------------------------------------------------------------------------- main


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write all numbers")
    parser.add_argument("--references", type=Path, help="maps of all checks, by bench/gpu_references.py")
    parser.add_argument("--seconds", type=float, default=470, help="time allowed (%(default)s)")
    parser.add_argument("--workers", type=int, help="processes that compile (all cores)")
    parser.add_argument(
        "--expect", action="store_true", help="print only what an H200 should take, by the shapes of all launches"
    )
    options = parser.parse_args()
    if options.expect:
        for (name, n), bounds in GOALS.items():
            for precision, bound in zip(PRECISIONS, bounds, strict=True):
                print(
                    f"{name:10} {n:3} {precision:9} expected {expected_ms(name, precision, n):7.2f} ms, goal {bound}",
                    flush=True,
                )
        return 0
    problem = dtd.backends()["cuda"]
    if problem.usable:
        if options.references is None:
            parser.error("a GPU needs --references FILE, which python bench/gpu_references.py FILE makes anywhere")
        require(options.references)
    clock, report = Clock(options.seconds), Report(options.json)

    begin = time.monotonic()
    device = plan_everything()
    launches = sum(device.kernels.values())
    print(
        f"{launches} launches of {len(device.kernels)} kernels planned in {time.monotonic() - begin:.0f} s", flush=True
    )
    begin = time.monotonic()
    done, missing, problems = compile_everything(device, clock, options.workers)
    found = len(device.kernels) - missing
    print(
        f"{done} of {missing} kernels compiled for sm_90 in {time.monotonic() - begin:.0f} s, {found} found in "
        f"{kept.folder()}",
        flush=True,
    )
    if problems:
        print(f"{len(problems)} could not be compiled, the first: {problems[0][:500]}", flush=True)
    numbers = {"launches": launches, "kernels": len(device.kernels), "compiled": done, "found": found}
    report.results["kernels"] = {**numbers, "problems": problems}

    report.results["memory"] = [memory_needed(network("VGG-16"), precision) for precision in MEMORY]
    for row in report.results["memory"]:
        needed, goal = row["bytes beyond weights"], row["goal"]
        verdict = "holds" if needed <= goal else "MISSED"
        print(
            f"VGG-16, 64 images, {row['precision']:9} arena {row['arena']:,} bytes, beyond the weights {needed:,}: <= "
            f"{goal:.1e} {verdict}"
        )
    print(problem.reason if problem.usable else f"here a GPU is needed: {problem.reason}")
    if not problem.usable:
        report.results["unmeasured"] = [{"why": problem.reason}]
        report.write()
        return 2
    run_all(report, clock, options.references)
    judge(report)
    report.write()
    return 0 if all(row["right"] for row in report.rows("check")) and not report.rows("failed") else 1


if __name__ == "__main__":
    sys.exit(main())
