"""Seconds from a list of layers to a plan, by the number of layers: `python bench/planning.py [LAYERS]` (20,000), and
half as many.
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


def seconds(layers: Layers, shape: tuple[int, ...]) -> float:
    explainer = dtd.Explainer(layers, backend="cpu")
    start = time.perf_counter()
    explainer.plan_for(shape)
    return time.perf_counter() - start


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    print(f"{'network':<10} {n // 2:>9,} {n:>9,}  ratio")
    for make, shape in NETWORKS.items():
        half, whole = (seconds(make(k), shape) for k in (n // 2, n))
        print(f"{make.__name__:<10} {half:8.2f}s {whole:8.2f}s  {whole / half:5.2f}")


if __name__ == "__main__":
    main()
