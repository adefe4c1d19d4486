"""From captum to dtdfast by one changed import: the same code on the same module, batch 8, with the class that it
imports exchanged.

The first call reads the module into layers, once per model and image size; it is outside the clock and printed. Each
call notices whether weights or rules changed, which is inside.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import pytest
import torch
from captum.attr import LRP as CaptumLRP
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

import nets
from conftest import Row
from dtdfast.compat.captum import LRP
from machine import threads
from torch_reference import TorchNet

CASE, N_BATCH, TARGET = "VGG-16, 8, one import", 8, 0
BOX = (-2.0, 2.0)  # photographs as networks take them, less their mean and over their deviation
TOOLS: dict[str, Any] = {"dtdfast": LRP, "captum": CaptumLRP}
SECONDS = 12.0  # per tool, for at least 3 rounds


@cache
def module() -> tuple[nn.Module, Tensor, int]:
    """The network, its images and the multiply-adds of one forward pass."""
    net = nets.vgg16()
    return TorchNet(net), torch.from_numpy(net.sample(N_BATCH, box=BOX)), net.macs


def explain(tool: Any, images: Tensor | None = None) -> Tensor:
    """What a user of captum writes: rules on the layers (each call takes them away), then `attribute`."""
    model, x, _ = module()
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.rule = Alpha1_Beta0_Rule()
    return tool(model).attribute(x if images is None else images, target=TARGET).detach()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TOOLS)
def test_one_changed_import(benchmark: BenchmarkFixture, rows: list[Row], name: str) -> None:
    torch.set_num_threads(threads())
    start = time.perf_counter()
    relevance = explain(TOOLS[name])
    first = time.perf_counter() - start
    print(f"{name}: first call {first:.2f} s")
    if name != "dtdfast":
        model, x, _ = module()
        ours = explain(LRP)[:1]
        difference = (relevance[:1] - ours).abs().sum() / ours.abs().sum()
        model.double()
        try:  # in float32, what captum divides by cancels
            exact = explain(TOOLS[name], x[:1].double())
        finally:
            model.float()
        print(
            f"difference from captum in float32: {difference:.0e}, in float64: "
            f"{(exact - ours).abs().sum() / exact.abs().sum():.0e}"
        )
        assert (exact - ours).abs().sum() <= 1e-4 * exact.abs().sum()
    start = time.perf_counter()
    explain(TOOLS[name])
    once = time.perf_counter() - start
    benchmark.group = CASE
    benchmark.pedantic(explain, args=(TOOLS[name],), rounds=max(3, min(20, int(SECONDS / once))))
    if benchmark.stats:
        stats = benchmark.stats.stats
        rows.append(Row(CASE, name, stats.min, stats.median, 2 * 3 * module()[2] * N_BATCH))
