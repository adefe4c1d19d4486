"""dtdfast on a GPU beside its rivals: python bench/gpu.py [--json FILE]; ends within eight minutes.

First every kernel is compared with the float64 oracle, on small networks of every kind and on one image through each network that is
timed; then calls are timed by CUDA events.  Without a GPU it goes as far as it can: all plans, all launches, all kernels compiled.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import dtdfast as dtd
import nets
from dtdfast.cuda import cache as kept
from nets import SMALL, Net
from paper import PaperDevice, on_paper

NETS: dict[str, Callable[..., Net]] = {
    "VGG-16": nets.vgg16, "ResNet-50": nets.resnet50, "GoogLeNet": nets.googlenet, "MobileNetV2": nets.mobilenet_v2,
}  # fmt: skip
BATCHES = (1, 16, 64)
PRECISIONS = ("float32", "tf32", "bfloat16")
UNITS = {"float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-8, "mixed": 2.0**-8}
GOALS = {  # milliseconds on an H200
    ("VGG-16", 64): (90, 34, 16), ("VGG-16", 1): (2.0, 1.5, 1.2), ("ResNet-50", 64): (28, 16, 11), ("ResNet-50", 1): (3, 3, 2.5),
    ("GoogLeNet", 1): (3, 3, 2.5), ("GoogLeNet", 64): (14, 10, 8),
}  # fmt: skip
MEMORY = {"float32": 4.5e9, "bfloat16": 2.5e9}  # bytes beyond the weights, VGG-16 with 64 images in one pass
RULES = ("dtd", "lrp-epsilon", "epsilon-alpha2-beta1-flat", "epsilon-gamma-box")  # what the small networks are checked under


@cache
def network(name: str) -> Net:
    """Built once: random weights of VGG-16 take seconds."""
    return NETS[name]()


class Clock:
    """How much of the time allowed is left."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.end = seconds, time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self.end - time.monotonic()


# ---------------------------------------------------------------------------------------------------------- without a device


def plan_everything() -> PaperDevice:
    """Plans and launches of all that will be run, on a device on paper."""
    with on_paper() as device:
        for name, precision in product(NETS, PRECISIONS):
            net = network(name)
            for n in BATCHES:
                explainer = dtd.Explainer(net.layers, domain="nonnegative", backend="cuda", precision=precision)
                explainer.explain(net.sample(n, box=(0.0, 1.0)), 0)
        for check in checks():
            for precision in check.precisions:
                check.run("cuda", precision)  # computes nothing: the results are what memory held
    return device


def memory_needed(net: Net, precision: str) -> dict[str, Any]:
    """What 64 images in one pass take of a GPU's memory beside the weights: arena, what goes in and comes out, tables."""
    with on_paper() as device:
        explainer = dtd.Explainer(net.layers, domain="nonnegative", backend="cuda", precision=precision, batch_size=64)
        explainer.explain(net.sample(64, box=(0.0, 1.0)), 0)
        arena = explainer.plan_for((64, *net.input_shape)).arena
    beyond = sum(device.allocated.values()) - weight_bytes(net, precision)
    return {"precision": precision, "arena": arena, "bytes beyond weights": beyond, "goal": MEMORY[precision]}


def weight_bytes(net: Net, precision: str) -> int:
    """Of dtdfast's weights on the device."""
    return (2 if precision == "bfloat16" else 4) * net.parameters


def compile_everything(device: PaperDevice, clock: Clock, workers: int | None = None) -> tuple[int, int]:
    """Compile what no cache holds, in processes of their own, until an eighth of the time is left; returns (compiled, missing)."""
    missing = [k for k in device.kernels if kept.stored(k, device.capability) is None]
    done = 0
    if missing:
        pool = ProcessPoolExecutor(workers)
        futures = [pool.submit(kept.compiled, kernel, device.capability) for kernel in missing]
        try:
            for future in as_completed(futures, timeout=max(1.0, clock.left - clock.seconds / 8)):
                done += bool(future.result().image)
        except TimeoutError:
            pass  # a slow machine: what is left is compiled when it is first needed
        pool.shutdown(cancel_futures=True)
    return done, len(missing)


# ----------------------------------------------------------------------------------------------------------------- checking


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
        """On float32: four times the error of the CPU's kernels, which multiply and add in float32 (or a few roundings).

        Narrow operands: ten times the distance to networks whose weights are off by as much, which allows for the network drawn and for
        what is kept in two bytes.
        """
        u = UNITS[precision]
        if precision == "float32":
            return 4 * usual + 2**6 * u
        return 10 * max(distance(self.run("oracle", net=self.net.perturbed(u, seed)), exact) for seed in range(2))


def checks() -> list[Check]:
    small = [SMALL[name]() for name in SMALL]
    return [Check(net, RULES[number % len(RULES)], net.sample(3, seed=int(time.time()))) for number, net in enumerate(small)]


def distance(found: Any, exact: Any) -> float:
    """Σ |found − exact| / Σ |exact|."""
    return float(np.abs(np.asarray(found, np.float64) - exact).sum() / np.abs(exact).sum())


def check_small() -> list[dict[str, Any]]:
    rows = []
    for check in checks():
        exact = check.run("oracle")
        usual = distance(check.run("cpu"), exact)
        for precision in check.precisions:
            error, bound = distance(check.run("cuda", precision), exact), check.bound(precision, exact, usual)
            what = f"{check.net.name}, {check.rules}"
            rows.append({"what": what, "precision": precision, "error": error, "cpu": usual, "bound": bound, "right": error <= bound})
    return rows


def check_network(name: str, net: Net) -> list[dict[str, Any]]:
    """One random image.  Narrow operands: about 5 u per layer given the activations, and ReLUs that flip; L layers of random weights."""
    x = net.sample(1, seed=int(time.time()), box=(0.0, 1.0))
    exact = dtd.explain(net.layers, x, 0, domain="nonnegative", backend="oracle")
    usual = distance(dtd.explain(net.layers, x, 0, domain="nonnegative", backend="cpu"), exact)
    n_layers = sum(hasattr(layer, "weight") for layer in net.layers)
    rows = []
    for precision in PRECISIONS:
        error = distance(dtd.explain(net.layers, x, 0, domain="nonnegative", backend="cuda", precision=precision), exact)
        bound = 4 * usual + 2**6 * UNITS["float32"] if precision == "float32" else (1 + 5 * UNITS[precision]) ** n_layers - 1 + 0.02
        rows.append({"what": name, "precision": precision, "error": error, "cpu": usual, "bound": bound, "right": error <= bound})
    return rows


# ------------------------------------------------------------------------------------------------------------------- timing


def time_all(clock: Clock, results: dict[str, Any]) -> None:
    """Rows of the table, dtdfast first, as long as there is time; what there was no time for is listed."""
    import torch

    import gpu_tools as tools

    results["limits"] = tools.limits()
    order = [(tool, name, precision) for tool in tools.TOOLS for name in NETS for precision in PRECISIONS]
    for tool, name, precision in order:
        if (tool, precision) in tools.UNSUPPORTED:
            continue
        net = network(name)
        for n in BATCHES:
            case = {"tool": tool, "network": name, "batch": n, "precision": precision}
            if clock.left < 15:
                results["unmeasured"].append({**case, "why": "out of time"})
                continue
            try:
                results["rows"].append({**case, **_measure(tools, torch, net, tool, precision, n)})
            except Exception as error:  # a rival that fails must not cost the other rows
                results["unmeasured"].append({**case, "why": f"{type(error).__name__}: {error}"})
            _print_row((results["rows"] or [case])[-1], results["limits"])


def _measure(tools: Any, torch: Any, net: Net, tool: str, precision: str, n: int) -> dict[str, Any]:
    x = torch.from_numpy(net.sample(n, box=(0.0, 1.0))).to("cuda")
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
        "TFLOP/s": 2e-9 * products * net.macs * n / statistics.median(times), "bytes": taken, "bytes beyond weights": taken - parameters,
    }  # fmt: skip


def _print_row(row: dict[str, Any], limits: dict[str, float]) -> None:
    if "median ms" in row:
        share = row["TFLOP/s"] / limits[row["precision"]]
        print(
            f"{row['network']:12} {row['batch']:3} {row['precision']:9} {row['tool']:26} {row['min ms']:9.3f} {row['median ms']:9.3f} ms "
            f"{row['TFLOP/s']:7.1f} TFLOP/s {share:5.0%}  {row['bytes beyond weights'] / 2**30:6.2f} GiB beyond weights",
            flush=True,
        )


def judge(results: dict[str, Any]) -> None:
    """The goals, row by row."""
    found = {(r["network"], r["batch"], r["precision"]): r["median ms"] for r in results["rows"] if r["tool"] == "dtdfast"}
    results["goals"] = []
    for (name, n), bounds in GOALS.items():
        for precision, bound in zip(PRECISIONS, bounds, strict=True):
            ms = found.get((name, n, precision))
            verdict = "unmeasured" if ms is None else "met" if ms <= bound else "missed"
            results["goals"].append({"network": name, "batch": n, "precision": precision, "goal ms": bound, "ms": ms, "verdict": verdict})
            print(f"goal {name:10} {n:3} {precision:9} {bound:6.1f} ms: {'-' if ms is None else f'{ms:.2f}'} {verdict}")


# --------------------------------------------------------------------------------------------------------------------- main


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write all numbers")
    parser.add_argument("--seconds", type=float, default=470, help="time allowed (%(default)s)")
    parser.add_argument("--workers", type=int, help="processes that compile (all cores)")
    options = parser.parse_args()
    clock = Clock(options.seconds)
    results: dict[str, Any] = {"dtdfast": dtd.build_config(), "checks": [], "rows": [], "unmeasured": []}

    begin = time.monotonic()
    device = plan_everything()
    launches = sum(device.kernels.values())
    print(f"{launches} launches of {len(device.kernels)} kernels planned in {time.monotonic() - begin:.0f} s", flush=True)
    begin = time.monotonic()
    done, missing = compile_everything(device, clock, options.workers)
    found = len(device.kernels) - missing
    print(
        f"{done} of {missing} kernels compiled for sm_90 in {time.monotonic() - begin:.0f} s, {found} found in {kept.folder()}", flush=True
    )
    results["kernels"] = {"launches": launches, "kernels": len(device.kernels), "compiled": done, "found": found}

    results["memory"] = [memory_needed(network("VGG-16"), precision) for precision in MEMORY]
    for row in results["memory"]:
        needed, goal = row["bytes beyond weights"], row["goal"]
        verdict = "holds" if needed <= goal else "MISSED"
        print(
            f"VGG-16, 64 images, {row['precision']:9} arena {row['arena']:,} bytes, beyond the weights {needed:,}: <= {goal:.1e} {verdict}"
        )
    problem = dtd.backends()["cuda"]
    if not problem.usable:
        print(f"here a GPU is needed: {problem.reason}")
        results["unmeasured"] = [{"why": problem.reason}]
    else:
        print(problem.reason)
        for rows in (check_small, *(partial(check_network, name, network(name)) for name in NETS)):
            for row in rows():
                results["checks"].append(row)
                verdict = "right" if row["right"] else "WRONG"
                print(f"{verdict}  {row['what']:40} {row['precision']:9} error {row['error']:.1e} (CPU {row['cpu']:.1e})", flush=True)
        time_all(clock, results)
        judge(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1, default=str))
    if not problem.usable:
        return 2
    return 0 if all(row["right"] for row in results["checks"]) else 1


if __name__ == "__main__":
    sys.exit(main())
