"""The drop-ins on published architectures as they are, BatchNorms and bare additions included, beside the tools
themselves.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch
import torchvision.models as tv
from captum.attr import LRP as CaptumLRP
from captum.attr._utils.custom_modules import Addition_Module
from torch import Tensor, nn
from zennit import composites as zc
from zennit.attribution import Gradient as ZennitGradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.torchvision import ResNetCanonizer, VGGCanonizer

import dtdfast as dtd
from dtdfast.compat.captum import LRP
from dtdfast.compat.zennit import Gradient
from modules import blank, randomise
from nets import Net
from parity import BOX, CAPTUM, HEIGHT, SIZE, gamma_box, images, merged, resnet50, vgg16_bn
from support import chosen
from torch_reference import TorchNet

SAME = 1e-4
Report = Callable[[str, tuple[str, ...]], None]
TABLE = (
    "| network | tool | rules | input | float64 | float32 | ours, float32, against theirs, float64 | theirs, float32, "
    "against float64 |"
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def googlenet() -> nn.Module:
    return tv.googlenet(num_classes=10, init_weights=False, transform_input=False)


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "VGG-16-bn": (vgg16_bn, VGGCanonizer),
    "ResNet-50": (resnet50, ResNetCanonizer),
    "GoogLeNet": (googlenet, SequentialMergeBatchNorm),
}
COMPOSITES: dict[str, Callable[..., Any]] = {
    "EpsilonPlusFlat": zc.EpsilonPlusFlat,
    "EpsilonGammaBox": gamma_box,
    "EpsilonAlpha2Beta1": zc.EpsilonAlpha2Beta1,
}
RULES = ("EpsilonRule", "GammaRule", "Alpha1_Beta0_Rule")


@lru_cache(maxsize=2)  # of one name, in both types: together they would take 18 GB
def model(name: str, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return randomise(blank(MODELS[name][0])).to(dtype)


@lru_cache(maxsize=1)
def merged_model(name: str) -> nn.Module:
    """The network with BatchNorms merged, then rounded: in float64 it is the same network."""
    return merged(copy.deepcopy(model(name, torch.float64))).float()


@lru_cache(maxsize=1)
def merged_layers(name: str) -> list[dtd.Layer]:
    return dtd.from_torch(copy.deepcopy(merged_model(name)).double(), images(n=1))


@lru_cache(maxsize=2)
def merged_for_captum(name: str, dtype: torch.dtype) -> nn.Module:
    """The same network with BatchNorms merged, every addition an Addition_Module and ReLUs out of place, as captum
    wants it.
    """
    return TorchNet(
        Net(name, merged_layers(name), (3, HEIGHT, SIZE), (10,), 0, BOX, None, None), dtype, add=Addition_Module
    )


def l1(ours: Tensor, theirs: Tensor) -> float:
    """Sum of absolute differences over the sum of absolute values."""
    assert ours.shape == theirs.shape
    assert theirs.abs().sum() > 0
    return float((ours.double() - theirs.double()).abs().sum() / theirs.double().abs().sum())


def compare(report: Report, row: tuple[str, ...], pairs: dict[torch.dtype, tuple[Tensor, Tensor]]) -> None:
    """Ours equals the tool's float64 map, in float64 and in float32, and its float32 map too where that is the same as
    its float64 one.
    """
    (ours, theirs), (exact, theirs_exact) = pairs[torch.float32], pairs[torch.float64]
    double, single = l1(exact, theirs_exact), l1(ours, theirs)
    true, own = l1(ours, theirs_exact), l1(theirs, theirs_exact)
    report(TABLE, (*row, *(f"{distance:.0e}" for distance in (double, single, true, own))))
    assert double <= 1e-9
    assert true <= SAME
    assert single <= SAME or own > SAME


@pytest.mark.parametrize(("name", "rules"), chosen(MODELS, COMPOSITES, every=2))
def test_zennit(name: str, rules: str, report: Report) -> None:
    def explain(tool: Any, module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        start = torch.eye(10, dtype=x.dtype)[[3]]
        with tool(module, COMPOSITES[rules](canonizers=[MODELS[name][1]()]), start) as attributor:
            output, relevance = attributor(x.clone())
            return output.detach(), relevance.detach()

    pairs = {}
    for dtype in (torch.float32, torch.float64):
        x = images(n=1).to(dtype)
        (output, ours), (their_output, theirs) = (
            explain(tool, model(name, dtype), x) for tool in (Gradient, ZennitGradient)
        )
        assert l1(output, their_output) <= 1e-5
        pairs[dtype] = ours, theirs
    compare(report, (name, "zennit", rules, "signed"), pairs)


@pytest.mark.parametrize(("name", "rules", "signed"), chosen(MODELS, RULES, (True, False), every=2))
def test_captum(name: str, rules: str, signed: bool, report: Report) -> None:
    x, target = images(not signed, n=1), 3

    def ruled(module: nn.Module) -> nn.Module:
        for part in module.modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                part.rule = CAPTUM[rules][0]()
        return module

    pairs = {}
    for dtype in (torch.float32, torch.float64):
        theirs = (
            CaptumLRP(ruled(merged_for_captum(name, dtype)))
            .attribute(x.to(dtype, copy=True).requires_grad_(), target)
            .detach()
        )
        pairs[dtype] = LRP(ruled(copy.deepcopy(merged_model(name)).to(dtype))).attribute(x.to(dtype), target), theirs
    row = (name, "captum", rules, "signed" if signed else "x ≥ 0")
    compare(report, row, pairs)
