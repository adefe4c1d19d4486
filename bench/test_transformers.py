"""Milliseconds per explanation of ViT-B/16 and BERT-base: dtdfast, gradient × input, zennit and autoLRP in one run.

`pip install --no-deps autolrp==0.2.0` brings the last of these; it is left out where it is not there.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

import nets
from conftest import Row
from machine import threads
from nets import Net
from transformers_torch import TOOLS, Explain

NETS: dict[str, Callable[[], Net]] = {"ViT-B/16": nets.vit, "BERT-base": partial(nets.bert, 128)}
BATCHES = (1, 8)
SECONDS = 6.0  # per tool and case, for at least 3 rounds
PRODUCTS = {"dtdfast forward": 1, "PyTorch forward": 1, "dtdfast γ": 4, "dtdfast dtd": 4, "zennit γ": 12}
"""Products of each linear layer that the tool makes; 2 for all others."""


@lru_cache(maxsize=1)
def network(name: str) -> Net:
    return NETS[name]()


@lru_cache(maxsize=1)
def prepared(name: str, tool: str) -> Explain:
    return TOOLS[tool](network(name))


@pytest.mark.parametrize("n_batch", BATCHES)
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", NETS)
def test_transformers(benchmark: BenchmarkFixture, rows: list[Row], name: str, tool: str, n_batch: int) -> None:
    if tool.startswith("autoLRP") and importlib.util.find_spec("autolrp") is None:
        pytest.skip("autolrp is not installed")
    torch.set_num_threads(threads())
    x, run = network(name).sample(n_batch), prepared(name, tool)
    start = time.perf_counter()
    found = run(x, 0)
    once = time.perf_counter() - start
    assert np.isfinite(found).all()
    if tool == "PyTorch forward":  # the same network
        np.testing.assert_allclose(found, TOOLS["dtdfast forward"](network(name))(x, 0), rtol=1e-4, atol=1e-4)
    benchmark.group = f"{name}, {n_batch}"
    benchmark.pedantic(run, args=(x, 0), rounds=max(3, min(50, int(SECONDS / once))))
    if benchmark.stats:
        stats = benchmark.stats.stats
        flops = 2 * PRODUCTS.get(tool, 2) * network(name).macs * n_batch
        rows.append(Row(f"{name}, {n_batch}", tool, stats.min, stats.median, flops))
