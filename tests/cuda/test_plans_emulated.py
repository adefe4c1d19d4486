"""Whole networks with the contraction kernels themselves in emulation, in memory that guards its ends; the maps equal
the oracle's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
import emulation
from dtdfast.cuda.compile.kernel import Kernel
from dtdfast.cuda.kernels.strided import elements, skeleton
from dtdfast.cuda.run import driver, tiles, usable
from dtdfast.explainer import Explainer
from host import HostDevice
from nets import gpt2, llama
from support import close


def together(kernel: Kernel) -> bool:
    """Whether threads of a block, or of a warp, work together."""
    alone = kernel.factory is skeleton and not kernel.constants[-1]
    return not (alone or kernel.factory is elements)


class EmulatingDevice(HostDevice):
    """A host device whose contractions, and kernels that give a line to a warp, run thread by thread."""

    def launch(self, launches: Sequence[Any], stream: int) -> None:
        self._catch_up(stream)
        for launch in launches:
            if not together(launch.kernel):
                super().launch([launch], stream)
                continue
            memory = emulation.Memory()
            for block in self.blocks.values():
                memory.add(block)
            emulation.run(launch, memory)
            name = launch.kernel.name
            self.contractions.add(launch.kernel.constants[0] if name == "dtd_dense" else name)

    contractions: set[str]  # units of contractions, and other kernels whose threads work together


def network(rng: np.random.Generator) -> list[Any]:
    """Convolutions with stride, groups and padding, a residual add, linear layers; channels that are and are not
    multiples of four.
    """

    def weight(*shape: int) -> Any:
        return rng.standard_normal(shape, dtype=np.float32) / np.sqrt(np.prod(shape[1:]), dtype=np.float32)

    return [
        dtd.Conv(weight(8, 3, 3, 3), -abs(weight(8)), padding=1),
        dtd.ReLU(),
        dtd.Conv(weight(8, 4, 3, 3), None, stride=2, padding=1, groups=2),
        dtd.ReLU(),
        dtd.Conv(weight(8, 8, 1, 1), -abs(weight(8))),
        dtd.Add(inputs=(4, 3)),
        dtd.ReLU(),
        dtd.Flatten(),
        dtd.Linear(weight(6, 72)),
        dtd.ReLU(),
        dtd.Linear(weight(5, 6)),
    ]


def along_axes(rng: np.random.Generator) -> list[Any]:
    """Linear layers along axes, one of them added to what it reads; a permutation of channels, a bilinear resizing, a
    mean.
    """

    def weight(*shape: int) -> Any:
        return rng.standard_normal(shape, dtype=np.float32) / np.sqrt(shape[1], dtype=np.float32)

    resize = np.maximum(0, 1 - abs(np.linspace(0, 1, 3)[:, None] - np.arange(2))).astype(np.float32)
    return [
        dtd.Linear(weight(36, 3), axis=1),
        dtd.ReLU(),
        dtd.Gather(rng.permutation(36), 1),
        dtd.Linear(weight(3, 3), axis=3),
        dtd.Add(inputs=(3, 2)),
        dtd.ReLU(),
        dtd.Resample((resize, None)),
        dtd.Reduce("mean", (2, 3)),
        dtd.Linear(weight(5, 36)),
    ]


CASES = [
    ("float32", "dtd", 2.0**-24 * np.sqrt(72), 0.0, {"fma", "tf32x3"}),
    ("float32", "epsilon-alpha2-beta1", 2.0**-24 * np.sqrt(72), 0.0, {"fma", "tf32x3"}),
    ("bfloat16", "dtd", 2.0**-8, 3 * 2.0**-8, {"bf16", "bf16_rounded"}),
    ("mixed", "dtd", 2.0**-24 * np.sqrt(72), 4 * 2.0**-8, {"fma", "tf32x3", "bf16"}),
]


@pytest.mark.parametrize(("precision", "rules", "error", "kept", "units"), CASES)
def test_network(
    precision: str,
    rules: str,
    error: float,
    kept: float,
    units: set[str],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two targets at once, within what rounding costs.

    A float32 result is the exact one of a network whose weights are off by u·√n, n terms in its longest sum (Higham,
    Accuracy and Stability, 3.1), and tf32x3 errs no more than that (test_dense.py); ten times the distance to two such
    networks allows for the network drawn. In bfloat16, u = 2⁻⁸, a product's two operands are off by u√(2/3) together,
    in the mean, and what is kept of the relevance of a layer (gates, their product with what came, the sums) by 3u at
    most, which adds up without cancelling. "mixed" has a forward pass in float32; weights that hand relevance down are
    rounded once more.
    """
    device = EmulatingDevice(compiled=True)
    device.contractions = set()
    monkeypatch.setattr(usable, "survey", lambda: (None, "the host"))
    monkeypatch.setattr(driver, "open_device", lambda number: device)
    layers = network(rng)
    x, targets = rng.standard_normal((2, 3, 6, 5), dtype=np.float32), np.array([[0, 3], [4, 1]])

    def oracle(layers: list[Any]) -> Any:
        return dtd.explain(layers, x, targets, rules=rules, backend="oracle")

    def perturbed(layer: Any) -> Any:
        if not hasattr(layer, "weight"):
            return layer
        weight = layer.weight.astype(np.float64)
        return replace(layer, weight=weight * (1 + error * rng.standard_normal(weight.shape)))

    exact = oracle(layers)
    found = Explainer(layers, backend="cuda", rules=rules, precision=precision).explain(x, targets)
    assert device.contractions == {*units, "clear_border"}
    rounding = max(np.abs(oracle([perturbed(layer) for layer in layers]) - exact).sum() for _ in range(2))
    n_layers = sum(hasattr(layer, "weight") for layer in layers)
    assert np.abs(found - exact).sum() <= 10 * rounding + ((1 + kept) ** n_layers - 1) * np.abs(exact).sum()


def test_network_of_warpgroups(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Both passes of an even layer by wgmma, and by mma alike: here nothing but their names differs."""
    device = EmulatingDevice()
    monkeypatch.setattr(usable, "survey", lambda: (None, "the host"))
    monkeypatch.setattr(driver, "open_device", lambda number: device)
    first, second = (rng.standard_normal((64, n, 1, 1), dtype=np.float32) / 8 for n in (8, 64))
    layers = [dtd.Conv(first), dtd.ReLU(), dtd.Conv(second), dtd.ReLU(), dtd.Reduce("mean", (2, 3))]
    x, maps = rng.random((1, 8, 2, 2), dtype=np.float32), []
    for wanted in (True, False):
        monkeypatch.setattr(tiles, "USE_WGMMA", wanted)
        device.contractions = set()
        explainer = Explainer(layers, backend="cuda", domain="nonnegative", precision="bfloat16")
        maps.append(explainer.explain(x, 1))
        assert ("bf16_wgmma" in device.contractions) == wanted
        assert ("bf16_wgmma, small group 32×64" in str(explainer.plan_for((1, 8, 2, 2)))) == wanted
    assert np.array_equal(*maps)


def test_network_along_axes(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in test_network, in float32."""
    device = EmulatingDevice(compiled=True)
    device.contractions = set()
    monkeypatch.setattr(usable, "survey", lambda: (None, "the host"))
    monkeypatch.setattr(driver, "open_device", lambda number: device)
    layers = along_axes(rng)
    x, targets = rng.uniform(0, 1, (1, 3, 2, 3)).astype(np.float32), np.array([[4]])
    exact = dtd.explain(layers, x, targets, domain="nonnegative", backend="oracle")
    found = Explainer(layers, backend="cuda", domain="nonnegative").explain(x, targets)
    assert device.contractions
    error = 2.0**-24 * np.sqrt(36)
    shaken = [
        replace(r, weight=r.weight * (1 + error * rng.standard_normal(r.weight.shape))) if hasattr(r, "weight") else r
        for r in layers
    ]
    rounding = np.abs(dtd.explain(shaken, x, targets, domain="nonnegative", backend="oracle") - exact).sum()
    assert np.abs(found - exact).sum() <= 10 * rounding


BLOCKS = {  # one block each: grouped queries, rotary positions, RMS norms; causal masks, layer norms
    "llama": (llama(3, 96, 1, n_words=9), "dtd", {"norm", "norm_products", "softmax", "dtd_matmul"}),
    "gpt2": (gpt2(3, 96, 1, n_words=9), "attnlrp", {"norm", "norm_products", "softmax", "softmax_back", "dtd_matmul"}),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_transformer_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two targets, in memory seen through permutations."""
    device = EmulatingDevice()
    device.contractions = set()
    monkeypatch.setattr(usable, "survey", lambda: (None, "the host"))
    monkeypatch.setattr(driver, "open_device", lambda number: device)
    net, rules, kernels = BLOCKS[name]
    x, targets = net.sample(2), np.array([[0, 3], [4, 1]])
    found = Explainer(net.layers, backend="cuda", rules=rules).explain(x, targets)
    assert device.contractions >= kernels
    close(found, dtd.explain(net.layers, x, targets, rules=rules, backend="oracle"), "cuda")
