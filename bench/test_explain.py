"""Milliseconds per call, dtdfast beside its peers in one run; a table of ratios follows at the end.

All tools get the same weights and non-negative images and compute z+ without bias on every layer. Maps are compared
where the tools' conventions agree.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from itertools import product

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

import dtdfast as dtd
import nets
import peers
from conftest import Row
from machine import threads
from nets import Net
from ours import NARROW, Z_PLUS, dtdfast, forward

NETS: dict[str, Callable[[], Net]] = {**nets.FULL, "LeNet-5": nets.lenet5, "MLP": nets.mnist_mlp}
BATCHES = {"LeNet-5": (1, 32), "MLP": (1, 32, 256)}
TOOLS: dict[str, Callable[[Net], peers.Explain]] = {
    "dtdfast": dtdfast, **NARROW, "dtdfast forward": forward, "PyTorch forward": peers.forward, **peers.PEERS,
}  # fmt: skip
FORWARD = ("dtdfast forward", "PyTorch forward")
UNSUPPORTED = {
    ("MobileNetV2", "captum"),  # no rule for ReLU6
    ("AlexNet", "captum"),  # nor for local response normalisation
    ("AlexNet", "hand-written PyTorch"),
    *(
        ("DenseNet-121", tool) for tool in TOOLS if not tool.startswith("dtdfast")
    ),  # a BatchNorm after a Concat folds into no layer: no peer explains it
}
OTHER_MAPS = {  # an Add is split in proportion, signs included; the gradient goes through local response normalisation
    ("ResNet-50", "zennit"),
    ("ResNet-50", "captum"),
    ("MobileNetV2", "zennit"),
    ("AlexNet", "zennit"),
}
TARGET = 0
SECONDS = 4.0  # per tool and case, for at least 3 rounds
CASES = [(*case, n) for case in product(NETS, TOOLS) if case not in UNSUPPORTED for n in BATCHES.get(case[0], (1, 8))]


def computes_another_map(name: str, tool: str) -> bool:
    """Whether the tool, in any version, has another convention for something in this network."""
    return any(name == of and tool.startswith(kind) for of, kind in OTHER_MAPS)


@lru_cache(maxsize=1)
def network(name: str) -> Net:
    return NETS[name]()


@lru_cache(maxsize=1)
def prepared(name: str, tool: str) -> peers.Explain:
    return TOOLS[tool](network(name))


@lru_cache(maxsize=1)
def exact_map(name: str) -> peers.Array:
    net = network(name)
    return dtd.explain(net.layers, net.sample(1, box=(0.0, 1.0)), TARGET, **Z_PLUS, backend="oracle")


@lru_cache(maxsize=1)
def error(name: str, tool: str) -> float | None:
    """Distance of the tool's map of one image to the oracle's, relative, in L1; None where it computes no map, or
    another.
    """
    if tool in FORWARD or computes_another_map(name, tool):
        return None
    exact = exact_map(name)
    return float(
        np.abs(prepared(name, tool)(network(name).sample(1, box=(0.0, 1.0)), TARGET) - exact).sum()
        / np.abs(exact).sum()
    )


@lru_cache(maxsize=2)
def our_map(name: str, n_batch: int) -> peers.Array:
    return dtdfast(network(name))(network(name).sample(n_batch, box=(0.0, 1.0)), TARGET)


@pytest.mark.parametrize(("name", "tool", "n_batch"), CASES)
def test_explain(benchmark: BenchmarkFixture, rows: list[Row], name: str, tool: str, n_batch: int) -> None:
    torch.set_num_threads(threads())
    images = network(name).sample(n_batch, box=(0.0, 1.0))
    run = prepared(name, tool)
    start = time.perf_counter()
    relevance = run(images, TARGET)
    once = time.perf_counter() - start
    if tool in peers.PEERS and not computes_another_map(name, tool):
        ours = our_map(name, n_batch)
        # sums, not elements: a ReLU at 0 or a tie in a pool may fall the other way in another tool's rounding
        assert np.abs(relevance - ours).sum() <= 1e-3 * np.abs(ours).sum()

    benchmark.group = f"{name}, {n_batch} images"
    benchmark.pedantic(run, args=(images, TARGET), rounds=max(3, min(300, int(SECONDS / once))))
    if benchmark.stats:
        stats = benchmark.stats.stats
        products = 1 if tool in FORWARD else 3
        rows.append(
            Row(
                f"{name}, {n_batch}",
                tool,
                stats.min,
                stats.median,
                2 * products * network(name).macs * n_batch,
                error(name, tool),
            )
        )
