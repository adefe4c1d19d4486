"""Hashes of what the CPU executor computes, to compare two commits: equal lines are equal bits.

    PYTHONPATH=src python tests/bits.py > new        (the package may be another commit's: PYTHONPATH=/elsewhere/src)
    diff old new

One line for every instruction set × precision × network × preset, with the hash of the maps (and for "dtd" of the
outputs, and of maps from several starts), or the error's name. Networks are the small ones of tests/nets, larger ones
for the tiles of wide layers, the cases of tests/cases.py and random graphs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings

import dtdfast as dtd
import nets
from cases import CASES, HELD_CASES
from dtdfast.cpu.executor import isa_names, precisions
from dtdfast.presets import PRESETS
from graphs import graphs

BOXED = ("epsilon-gamma-box", "deep_taylor.bounded")
LARGER = {
    "vgg16 of 64 pixels": lambda: nets.vgg16(64, 2, 10),
    "resnet50 of 64 pixels": lambda: nets.resnet50(64, 2, 10),
    "mnist_mlp": lambda: nets.mnist_mlp(),
}
SOME_CASES, RANDOM_GRAPHS = 9, 120  # every so many of the cases, so many graphs

Compute = Callable[[], Any]


def digest(compute: Compute) -> str:
    try:
        arrays = compute()
    except dtd.DtdError as error:
        return type(error).__name__
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()[:24]


def of_net(net: nets.Net, rules: str, precision: str, n: int, n_threads: int) -> Compute:
    def compute() -> Any:
        box = net.box if rules in BOXED else "real"
        options = {"rules": rules, "domain": box, "backend": "cpu", "precision": precision, "n_threads": n_threads}
        explainer = dtd.Explainer(net.layers, **options)
        x, target = net.sample(n), net.target if isinstance(net.target, tuple) else None
        maps = explainer.explain(x, target), explainer.explain(x[:1], target)
        return (*maps, explainer.predict(x), explainer.explain(x, starts(net, n))) if rules == "dtd" else maps

    return compute


def starts(net: nets.Net, n: int) -> Any:
    """Three starts for every sample, one of them 0 at every other output, as several targets are."""
    start = np.random.default_rng(n).random((n, 3, *net.output_shape), np.float32)
    start[:, 0].reshape(n, -1)[:, ::2] = 0
    return start


def network_lines(precision: str) -> Iterator[tuple[str, Compute]]:
    for name, build in nets.SMALL.items():
        net = build()
        for rules in PRESETS:
            yield f"{name}, {rules}", of_net(net, rules, precision, 3, 1)
        yield f"{name}, dtd, 2 threads", of_net(net, "dtd", precision, 4, 2)
        yield f"{name}, dtd, 17 samples", of_net(net, "dtd", precision, 17, 1)
    for name, build in LARGER.items():
        net = build()
        for rules in ("dtd", "epsilon-alpha2-beta1-flat", "epsilon-gamma-box"):
            yield f"{name}, {rules}", of_net(net, rules, precision, 2, 1)
    net = nets.mnist_mlp()
    yield "mnist_mlp, 40 samples", of_net(net, "dtd", precision, 40, 2)


def case_lines(precision: str) -> Iterator[tuple[str, Compute]]:
    for case in (CASES + HELD_CASES)[::SOME_CASES]:
        options = {**case.options("cpu"), "precision": precision}
        yield (
            f"case {case.id}",
            lambda case=case, options=options: [dtd.explain(case.layers, case.x, case.r_out, **options)],
        )


def graph_lines(precision: str) -> Iterator[tuple[str, Compute]]:
    drawn: list[Any] = []

    @settings(
        max_examples=RANDOM_GRAPHS,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(graphs())
    def draw(graph: Any) -> None:
        drawn.append(graph)

    draw()
    for number, graph in enumerate(drawn):
        yield f"graph {number}", lambda graph=graph: [graph.explain("cpu", precision=precision)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", action="append", help="instruction sets (default: all that this CPU runs)")
    chosen = parser.parse_args().isa
    for isa in isa_names():
        os.environ["DTDFAST_ISA"] = isa
        if chosen and isa not in chosen:
            continue
        try:
            known = precisions()
        except dtd.BackendError:
            continue
        for precision in known:
            for lines in (network_lines, case_lines, graph_lines):
                for name, compute in lines(precision):
                    print(f"{isa}, {precision}, {name}: {digest(compute)}", flush=True)
        print(f"{isa} done", file=sys.stderr)


if __name__ == "__main__":
    main()
