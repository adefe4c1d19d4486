"""Microseconds a step from a list of layers to its plan, by the number of layers: `python bench/planning.py
[LAYERS...]` (200, 2,000 and 8,000). They are alike where planning takes time in proportion; the least of three counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

import dtdfast as dtd

Layers = list[dtd.Layer]

W = (0.4 * np.eye(4)).astype(np.float32)


def chain(n: int) -> Layers:
    return [record for _ in range(n // 2) for record in (dtd.Linear(W), dtd.ReLU())]


def residual(n: int) -> Layers:
    layers: Layers = [dtd.Linear(W), dtd.ReLU()]
    while len(layers) < n:
        p = len(layers) - 1
        layers += [dtd.Linear(W), dtd.ReLU(), dtd.Linear(W), dtd.Add(inputs=(p, p + 3)), dtd.ReLU()]
    return layers


def readers(n: int) -> Layers:
    """One tensor that many layers read, and the sum of what they make."""
    count = n - 3
    return [
        dtd.Linear(W),
        dtd.ReLU(),
        *(dtd.Linear(W, inputs=1) for _ in range(count)),
        dtd.Add(inputs=tuple(range(2, 2 + count))),
    ]


def pruned(n: int) -> Layers:
    return [dtd.Linear(W), *(dtd.Linear(W, inputs=0) for _ in range(n))]


def dense(n: int) -> Layers:
    """Blocks of concatenations, each of what came before and one channel more."""
    layers: Layers = []
    source, width = dtd.INPUT, 4
    while len(layers) < n:
        p = len(layers)
        layers += [
            dtd.Conv(np.ones((1, width, 1)) / width, inputs=source),
            dtd.ReLU(),
            dtd.Concat(inputs=(source, p + 1)),
        ]
        source, width = p + 2, width + 1
        if width > 12:
            layers.append(dtd.Conv(np.ones((4, width, 1)) / width))
            source, width = len(layers) - 1, 4
    return [*layers, dtd.Flatten(), dtd.Linear(np.ones((1, 3 * width)))]


NETWORKS: dict[Callable[[int], Layers], tuple[int, ...]] = {
    chain: (1, 4),
    residual: (1, 4),
    readers: (1, 4),
    pruned: (1, 4),
    dense: (1, 4, 3),
}


def a_step(layers: Layers, shape: tuple[int, ...]) -> float:
    times = []
    for _ in range(3):
        explainer = dtd.Explainer(layers, backend="cpu")
        start = time.perf_counter()
        plan = explainer.plan_for(shape)
        times.append(time.perf_counter() - start)
    return 1e6 * min(times) / (len(plan.forward) + len(plan.relevance))


def main() -> None:
    sizes = [int(n) for n in sys.argv[1:]] or [200, 2000, 8000]
    print(f"{'layers':<10}" + "".join(f"{n:>10,}" for n in sizes))
    for make, shape in NETWORKS.items():
        print(f"{make.__name__:<10}" + "".join(f"{a_step(make(n), shape):7.1f} µs" for n in sizes), flush=True)


if __name__ == "__main__":
    main()
