"""What bench/gpu.py has other processes do, so that a kernel that poisons its GPU context costs no other row: a job in,
rows out.

python bench/gpu_jobs.py '{"kind": "network", "network": "VGG-16", "precision": "tf32", "references": "references.npz"}'

Every row is a line of JSON after the mark; what else is printed is for people.
"""

from __future__ import annotations

import fcntl
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "lib"))

import dtdfast as dtd
import dtdfast.explainer as explainers
import expect
import gpu_first
import nets
from dtdfast import passes
from dtdfast.cuda.run import driver
from dtdfast.cuda.run.device import Device
from dtdfast.cuda.run.launch import Launch
from nets import SMALL, Net
from ours import Z_PLUS

NETS = {name: nets.FULL[name] for name in ("VGG-16", "ResNet-50", "GoogLeNet", "MobileNetV2")}
BATCHES = (1, 16, 64)
PRECISIONS = ("float32", "tf32", "bfloat16")
SEED = 23  # of all images
# what the small networks are checked under
RULES = ("dtd", "lrp-epsilon", "epsilon-alpha2-beta1-flat", "epsilon-gamma-box")
CALLS = 50  # of dependent launches, whose bits are compared
MARK = "ROW "
Row = dict[str, Any]


@cache
def network(name: str) -> Net:
    """Built once: random weights of VGG-16 take seconds."""
    return NETS[name]()


def explainer(net: Net, precision: str, **options: Any) -> dtd.Explainer:
    return dtd.Explainer(net.layers, **Z_PLUS, backend="cuda", precision=precision, **options)


def weight_bytes(net: Net, precision: str) -> int:
    """Of dtdfast's weights on the device."""
    return (2 if precision == "bfloat16" else 4) * net.parameters


# --------------------------------------------------------------------------------------------------------- references

PIECE = 128  # pixels of the tile for the relevance of images ("thin" in cuda/run/tiles.py)


def errors(found: Any, exact: Any) -> Any:
    """Σ |found − exact| / Σ |exact| of the whole map, where a tile left out may be lost, and of its worst piece.

    A piece is some pixels of a sample one after the other, with all channels; Σ |exact| of a piece counts as a
    hundredth of the mean of all where it is less.
    """
    exact = np.asarray(exact, np.float64)

    def pieces(values: Any) -> Any:
        pixels = np.abs(values).reshape(*exact.shape[:2], -1).sum(1)
        return np.add.reduceat(pixels, np.arange(0, pixels.shape[1], PIECE), axis=1)

    wrong, right = pieces(found - exact), pieces(exact)
    return np.array([wrong.sum() / right.sum(), (wrong / np.maximum(right, 0.01 * right.mean())).max()])


@dataclass(frozen=True, eq=False)
class Reference:
    """What a map is checked against; bench/gpu_references.py computes it, so that a rented GPU waits for no CPU.

    Attributes
    ----------
    exact : the oracle's map
    usual : by precision, `errors` of others that round as much (gpu_references.py)
    given : `fingerprint` of what was explained
    """

    exact: Any
    usual: dict[str, Any]
    given: Any

    def bound(self, precision: str) -> Any:
        """Of `errors`: sums in another order are off by other roundings, and flip other ReLUs and pools."""
        return (4 if precision == "float32" else 3) * self.usual[precision] + 2.0**-18

    def row(self, found: Any, precision: str) -> Row:
        """What a check's row says of a map."""
        error, bound = errors(found, self.exact), self.bound(precision)
        numbers = {"error": error[0], "bound": bound[0], "of the worst piece": error[1], "its bound": bound[1]}
        return {**numbers, "right": bool((error <= bound).all())}


def fingerprint(net: Net, x: Any) -> Any:
    """Σ |values| of x and of every array of weights: random numbers may differ between machines by a few roundings."""
    values = [x, *(getattr(layer, field.name) for layer in net.layers for field in fields(layer))]
    return np.array([np.abs(a).sum(dtype=np.float64) for a in values if isinstance(a, np.ndarray)])


def write_references(file: Path, references: dict[str, Reference]) -> None:
    arrays: dict[str, Any] = {}
    for name, found in references.items():
        arrays |= {f"{name}|exact": found.exact.astype(np.float32), f"{name}|given": found.given}
        arrays |= {f"{name}|usual|{precision}": usual for precision, usual in found.usual.items()}
    np.savez_compressed(file, **arrays)


def read_reference(file: str | Path, name: str, net: Net, x: Any) -> Reference:
    """That of a network on samples, which must be those that it was made of."""
    with np.load(file) as stored:
        held = {key: stored[key] for key in stored if key.startswith(f"{name}|")}
    if not held:
        raise ValueError(f"{file} has no {name}: make it again with bench/gpu_references.py")
    given, here = held[f"{name}|given"], fingerprint(net, x)
    if given.shape != here.shape or not np.allclose(given, here, rtol=1e-6, atol=0):
        raise ValueError(f"{name} has other weights or samples here than in {file}: make it again with this version")
    usual = {key.rpartition("|")[2]: value for key, value in held.items() if "|usual|" in key}
    return Reference(held[f"{name}|exact"], usual, given)


# ----------------------------------------------------------------------------------------------------- small networks


@dataclass(frozen=True, eq=False)
class Check:
    """A small network under some rules, on three random samples; relevance 1 at one output."""

    net: Net
    rules: str
    x: Any

    @property
    def precisions(self) -> tuple[str, ...]:
        """The narrow ones too where nothing cancels."""
        return (*PRECISIONS, "mixed") if self.rules == "dtd" else PRECISIONS[:1]

    @property
    def what(self) -> str:
        return f"{self.net.name}, {self.rules}"

    def run(self, backend: str, precision: str = "float32") -> Any:
        start = np.zeros((len(self.x), *self.net.output_shape), np.float32)
        at = self.net.target if isinstance(self.net.target, tuple) else (0,)
        for one in start:
            one[at] = 1  # an output itself may be 0
        domain = self.net.box if self.rules == "epsilon-gamma-box" else "real"
        options: dict[str, Any] = {"backend": backend, "precision": precision, "rules": self.rules, "domain": domain}
        return dtd.explain(self.net.layers, self.x, start, **options)


def checks() -> list[Check]:
    """Every small network under one set of rules."""
    made = [SMALL[name]() for name in SMALL]
    return [Check(net, RULES[number % len(RULES)], net.sample(3, SEED)) for number, net in enumerate(made)]


def small(job: Row) -> Iterator[Row]:
    """Cases from job["first"] on; a process ends at the first that fails outright, since its context may be
    poisoned.
    """
    cases = [(check, precision) for check in checks() for precision in check.precisions]
    for number, (check, precision) in enumerate(cases[job["first"] :], job["first"]):
        reference = read_reference(job["references"], check.what, check.net, check.x)
        row = {"kind": "check", "number": number, "what": check.what, "precision": precision}
        try:
            found = check.run("cuda", precision)
        except Exception as problem:
            yield {**row, "right": False, "why": f"{type(problem).__name__}: {problem}"}
            return
        yield {**row, **reference.row(found, precision)}


# ----------------------------------------------------------------------------------------------- one network, dtdfast


@contextmanager
def alone(job: Row) -> Iterator[None]:
    """While no other process that has the job's lock measures."""
    if "lock" not in job:
        yield
        return
    with Path(job["lock"]).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def whole(job: Row) -> Iterator[Row]:
    """One network: against the oracle, bits from call to call and from batch to batch, times, steps."""
    import torch  # noqa: F401 (seconds, while others measure)

    net, batches = network(job["network"]), tuple(job.get("batches", BATCHES))
    x = net.sample(max(batches), SEED, box=(0.0, 1.0))  # whose first is the one image of a reference
    reference = read_reference(job["references"], job["network"], net, x[:1])
    with alone(job):
        for precision in job.get("precisions", (job.get("precision"),)):
            yield from of_precision(net, job["network"], precision, batches, x, reference)


def of_precision(
    net: Net, name: str, precision: str, batches: tuple[int, ...], x: Any, reference: Reference
) -> Iterator[Row]:
    case = {"network": name, "precision": precision}
    made = explainer(net, precision)
    alone = made.explain(x[:1], 0)
    row = {"kind": "check", "precision": precision}
    yield {**row, "what": name, **reference.row(alone, precision)}
    for n in batches:
        first, second = made.explain(x[:n], 0), made.explain(x[:n], 0)
        last = made.explain(x[n - 1 : n], 0)
        same = np.array_equal(first, second), np.array_equal(first[:1], alone), np.array_equal(first[-1:], last)
        what = f"{name}, {n} images, bits of two calls, of the first and of the last alone"
        compared = reference.row(first[:1], precision)
        yield {**row, "what": what, **compared, "same": same, "right": compared["right"] and all(same)}
    del made
    yield from timings("dtdfast", net, case, batches)
    for n in (min(batches), max(batches)):
        yield {"kind": "profile", **case, "batch": n, "steps": profile(net, precision, x[:n])}


def dependent(job: Row) -> Iterator[Row]:
    """One image by programmatic dependent launch: many calls have the bits of launches that follow each other, or
    nothing is timed; then the times of both.
    """
    name, net = job["network"], network(job["network"])
    x = net.sample(1, SEED, box=(0.0, 1.0))
    reference = read_reference(job["references"], name, net, x)
    with alone(job):
        for precision in job["precisions"]:
            driver.DEPENDENT = False
            expected = explainer(net, precision).explain(x, 0)
            driver.DEPENDENT = True
            made = explainer(net, precision)
            found = [made.explain(x, 0) for _ in range(CALLS)]
            same = sum(np.array_equal(expected, each) for each in found)
            compared = reference.row(found[-1], precision)
            right = compared["right"] and same == CALLS
            row = {"kind": "check", "what": f"{name}, dependent launches", "precision": precision, "same": same}
            yield {**row, **compared, "right": right}
            for driver.DEPENDENT in (False, True) if right else ():
                tool = f"dtdfast, dependent: {driver.DEPENDENT}"
                yield from timings("dtdfast", net, {"network": name, "precision": precision, "tool": tool}, (1,))


def profile(net: Net, precision: str, x: Any) -> list[Row]:
    """Every step alone, measured and expected."""
    launches: list[Sequence[Launch]] = []
    opened = driver.open_device

    def listening(device: Any) -> Device:
        made = opened(device)
        seconds = made.seconds

        def heard(given: Sequence[Launch], repeats: int) -> float:
            launches.append(given)
            return seconds(given, repeats)

        made.seconds = heard  # type: ignore[method-assign, assignment]
        return made

    driver.open_device = listening
    try:
        measured = explainer(net, precision, batch_size=len(x)).profile(x)
    finally:
        driver.open_device = opened
    rows = []
    timed = [timing for timing in measured.timings if timing.seconds]  # with a launch of their own
    for timing, given in zip(timed, launches, strict=True):
        row = {
            "step": timing.number,
            "operation": timing.operation,
            "ms": 1e3 * timing.seconds,
            "expected ms": 1e3 * expect.seconds(given),
        }
        if timing.macs and given[0].kernel.name == "dtd_dense":
            constants: Any = given[0].kernel.constants
            unit, maps, transposed, tile, _, _, even, *_ = constants
            row |= {
                "TFLOP/s": 2e-12 * timing.macs / timing.seconds,
                "unit": unit,
                "products": len(maps),
                "transposed": transposed,
            }
            row |= {
                "tile": (*tile, given[0].kernel.min_blocks),
                "even": even,
                "blocks": given[0].grid[0] * given[0].grid[1],
            }
        else:
            row["GB/s"] = 1e-9 * timing.nbytes / timing.seconds
        rows.append(row)
    return rows


# ------------------------------------------------------------------------------------------------------------- timing


def timings(tool: str, net: Net, case: Row, batches: tuple[int, ...] = BATCHES) -> Iterator[Row]:
    """A tool with every batch."""
    import torch

    import gpu_tools as tools

    for n in batches:
        x = torch.from_numpy(net.sample(n, box=(0.0, 1.0))).to("cuda")
        row = {"kind": "time", "tool": tool, **case, "batch": n}
        try:
            yield {**row, **_measure(tools, torch, net, tool, case["precision"], x)}
        except Exception as problem:  # a rival that fails must not cost the other rows
            yield {**row, "why": f"{type(problem).__name__}: {problem}"}


def _measure(tools: Any, torch: Any, net: Net, tool: str, precision: str, x: Any) -> Row:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    free = torch.cuda.mem_get_info()[0]
    with tools.tensor_cores(precision):
        run = tools.TOOLS[tool](net, precision)
        begin = time.perf_counter()
        run(x)
        torch.cuda.synchronize()
        first = time.perf_counter() - begin
        times = tools.milliseconds(run, x, 0.4)
    products = 1 if tool == "cuDNN forward" else 3
    taken = free - torch.cuda.mem_get_info()[0]
    parameters = weight_bytes(net, precision) if tool == "dtdfast" else 4 * net.parameters
    return {
        "min ms": min(times), "median ms": statistics.median(times), "first call s": first, "calls": len(times),
        "TFLOP/s": 2e-9 * products * net.macs * len(x) / statistics.median(times), "bytes": taken,
        "bytes beyond weights": taken - parameters,
    }  # fmt: skip


def rivals(job: Row) -> Iterator[Row]:
    import gpu_tools as tools

    net, batches = network(job["network"]), tuple(job.get("batches", BATCHES))
    with alone(job):
        for precision in job.get("precisions", (job.get("precision"),)):
            for tool in tools.TOOLS:
                if tool != "dtdfast" and (tool, precision) not in tools.UNSUPPORTED:
                    yield from timings(tool, net, {"network": job["network"], "precision": precision}, batches)


def limits(job: Row) -> Iterator[Row]:
    import torch

    import gpu_tools as tools

    yield {"kind": "limits", "device": torch.cuda.get_device_name(), "torch": torch.__version__, **tools.limits()}


KINDS: dict[str, Callable[[Row], Iterator[Row]]] = {
    "small": small,
    "network": whole,
    "rivals": rivals,
    "dependent": dependent,
    "limits": limits,
    "versions": gpu_first.versions,
    "kernels": gpu_first.kernels,
    "smoke": gpu_first.smoke,
}


def refuse(what: str, *ignored: Any) -> None:
    """In the place of what computes empty rows again on the CPU: these samples have none."""
    raise AssertionError(f"a {what} of the GPU is all 0")


def main() -> None:
    job = json.loads(sys.argv[1])
    passes.refill = explainers.refill = refuse  # type: ignore[attr-defined, assignment]
    for row in KINDS[job["kind"]](job):
        print(MARK + json.dumps(row, default=str), flush=True)


if __name__ == "__main__":
    main()
