"""What bench/gpu.py has other processes do, so that a kernel that poisons its GPU context costs no other row: a job in,
rows out.

python bench/gpu_jobs.py '{"kind": "network", "network": "VGG-16", "precision": "tf32", "seed": 1, "scratch": "/tmp"}'

Every row is a line of JSON after the mark; what else is printed is for people.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "lib"))

import dtdfast as dtd
import expect
import nets
from dtdfast.cuda.run import driver
from nets import SMALL, Net
from ours import Z_PLUS

NETS = {name: nets.FULL[name] for name in ("VGG-16", "ResNet-50", "GoogLeNet", "MobileNetV2")}
BATCHES = (1, 16, 64)
PRECISIONS = ("float32", "tf32", "bfloat16")
ROUNDING = {"float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-8, "mixed": 2.0**-8}
# what the small networks are checked under
RULES = ("dtd", "lrp-epsilon", "epsilon-alpha2-beta1-flat", "epsilon-gamma-box")
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


def distance(found: Any, exact: Any) -> float:
    """Σ |found − exact| / Σ |exact|."""
    return float(np.abs(np.asarray(found, np.float64) - exact).sum() / np.abs(exact).sum())


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

    def run(self, backend: str, precision: str = "float32", net: Net | None = None) -> Any:
        start = np.zeros((len(self.x), *self.net.output_shape), np.float32)
        at = self.net.target if isinstance(self.net.target, tuple) else (0,)
        start[(slice(None), *at)] = 1  # an output itself may be 0
        domain = self.net.box if self.rules == "epsilon-gamma-box" else "real"
        layers = (net or self.net).layers
        return dtd.explain(layers, self.x, start, backend=backend, precision=precision, rules=self.rules, domain=domain)

    def bound(self, precision: str, exact: Any, usual: float) -> float:
        """On float32: four times the error of the CPU's kernels, which multiply and add in float32 (or a few
        roundings).

        Narrow operands: ten times the distance to networks whose weights are off by as much, which allows for the
        network drawn and for what is kept in two bytes.
        """
        u = ROUNDING[precision]
        if precision == "float32":
            return 4 * usual + 2**6 * u
        return 10 * max(distance(self.run("oracle", net=self.net.perturbed(u, seed)), exact) for seed in range(2))


def checks(seed: int) -> list[Check]:
    """Every small network under one set of rules."""
    made = [SMALL[name]() for name in SMALL]
    return [Check(net, RULES[number % len(RULES)], net.sample(3, seed=seed)) for number, net in enumerate(made)]


def small(job: Row) -> Iterator[Row]:
    """Cases from job["first"] on; a process ends at the first that fails outright, since its context may be
    poisoned.
    """
    cases = [(check, precision) for check in checks(job["seed"]) for precision in check.precisions]
    for number, (check, precision) in enumerate(cases[job["first"] :], job["first"]):
        exact = check.run("oracle")
        usual = distance(check.run("cpu"), exact)
        row = {
            "kind": "check",
            "number": number,
            "what": f"{check.net.name}, {check.rules}",
            "precision": precision,
            "cpu": usual,
        }
        try:
            error = distance(check.run("cuda", precision), exact)
        except Exception as problem:
            yield {**row, "right": False, "why": f"{type(problem).__name__}: {problem}"}
            return
        bound = check.bound(precision, exact, usual)
        yield {**row, "error": error, "bound": bound, "right": error <= bound}


# ----------------------------------------------------------------------------------------------- one network, dtdfast


def references(job: Row, net: Net, x: Any) -> tuple[Any, float]:
    """The oracle's map of the first image, and the CPU's error; computed by the first process that asks."""
    kept = Path(job["scratch"]) / f"{job['network']}.npz"
    if not kept.exists():
        exact = dtd.explain(net.layers, x, 0, **Z_PLUS, backend="oracle")
        usual = distance(dtd.explain(net.layers, x, 0, **Z_PLUS, backend="cpu"), exact)
        np.savez(kept, exact=exact, usual=usual)
    stored = np.load(kept)
    return stored["exact"], float(stored["usual"])


def bound_of(net: Net, precision: str, usual: float) -> float:
    """Narrow operands: about 5 u per layer given the activations, and ReLUs that flip; L layers of random weights."""
    if precision == "float32":
        return 4 * usual + 2**6 * ROUNDING["float32"]
    n_layers = sum(hasattr(layer, "weight") for layer in net.layers)
    return float((1 + 5 * ROUNDING[precision]) ** n_layers - 1 + 0.02)


def whole(job: Row) -> Iterator[Row]:
    """One network in one precision: against the oracle, bits from call to call and from batch to batch, times,
    steps.
    """
    net, precision = network(job["network"]), job["precision"]
    case = {"network": job["network"], "precision": precision}
    x = net.sample(max(BATCHES), seed=job["seed"], box=(0.0, 1.0))
    exact, usual = references(job, net, x[:1])
    made = explainer(net, precision)
    alone = made.explain(x[:1], 0)
    error, bound = distance(alone, exact), bound_of(net, precision, usual)
    row = {"kind": "check", "precision": precision, "cpu": usual}
    yield {**row, "what": job["network"], "error": error, "bound": bound, "right": error <= bound}
    for n in BATCHES:
        first, second = made.explain(x[:n], 0), made.explain(x[:n], 0)
        last = made.explain(x[n - 1 : n], 0)
        same = np.array_equal(first, second), np.array_equal(first[:1], alone), np.array_equal(first[-1:], last)
        what = f"{job['network']}, {n} images, bits of two calls, of the first and of the last alone"
        yield {**row, "what": what, "error": distance(first[:1], exact), "same": same, "right": all(same)}
    del made
    yield from timings("dtdfast", net, case)
    for n in (min(BATCHES), max(BATCHES)):
        yield {"kind": "profile", **case, "batch": n, "steps": profile(net, precision, x[:n])}


def profile(net: Net, precision: str, x: Any) -> list[Row]:
    """Every step alone, measured and expected."""
    launches: list[Any] = []
    opened = driver.open_device

    def listening(number: Any) -> Any:
        device = opened(number)
        seconds = device.seconds
        device.seconds = lambda given, repeats: (launches.append(list(given)), seconds(given, repeats))[1]  # type: ignore[method-assign]
        return device

    driver.open_device = listening
    try:
        measured = explainer(net, precision, batch_size=len(x)).profile(x)
    finally:
        driver.open_device = opened
    rows = []
    for timing, given in zip(measured.timings, launches, strict=True):
        row = {
            "step": timing.number,
            "operation": timing.operation,
            "ms": 1e3 * timing.seconds,
            "expected ms": 1e3 * expect.seconds(given),
        }
        if timing.macs and given[0].kernel.name == "dtd_dense":
            unit, maps, transposed, tile, _, _, even, _ = given[0].kernel.constants
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


def timings(tool: str, net: Net, case: Row) -> Iterator[Row]:
    """A tool with every batch."""
    import torch

    import gpu_tools as tools

    for n in BATCHES:
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

    net, precision = network(job["network"]), job["precision"]
    for tool in tools.TOOLS:
        if tool != "dtdfast" and (tool, precision) not in tools.UNSUPPORTED:
            yield from timings(tool, net, {"network": job["network"], "precision": precision})


def limits(job: Row) -> Iterator[Row]:
    import torch

    import gpu_tools as tools

    yield {"kind": "limits", "device": torch.cuda.get_device_name(), "torch": torch.__version__, **tools.limits()}


KINDS: dict[str, Callable[[Row], Iterator[Row]]] = {
    "small": small,
    "network": whole,
    "rivals": rivals,
    "limits": limits,
}


def main() -> None:
    job = json.loads(sys.argv[1])
    for row in KINDS[job["kind"]](job):
        print(MARK + json.dumps(row, default=str), flush=True)


if __name__ == "__main__":
    main()
