"""zennit's and captum's rules on VGG-11-bn, ResNet-18 and DenseNet-121 in float64: the drop-ins on the networks as they
are published.

zennit runs on the same module, without canonizers and with several; what these leave of BatchNorms depends on the
installed version. captum, which has no canonizers, runs on a copy with additions marked. Where a tool has no answer, a
test says so.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import torchvision.models as tv
from captum.attr import LRP as CaptumLRP
from captum.attr._utils.custom_modules import Addition_Module
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock
from zennit import composites as zc
from zennit.attribution import Gradient as ZennitGradient
from zennit.canonizers import NamedMergeBatchNorm, SequentialMergeBatchNorm
from zennit.rules import Flat, WSquare
from zennit.torchvision import ResNetBasicBlockCanonizer, ResNetCanonizer, VGGCanonizer
from zennit.types import Linear

import dtdfast as dtd
from dtdfast.compat.captum import LRP
from dtdfast.compat.zennit import Gradient
from modules import blank, randomise
from parity import BOX, CAPTUM, gamma_box

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

Report = Callable[[str, tuple[str, ...]], None]
TABLE = "| network, float64 | tool | rules | largest difference |"
SAME = 1e-9
SEEDS = {"VGG-11-bn": 3, "ResNet-18": 3, "DenseNet-121": 1}  # of weights and of images, in turn


class Dense(nn.Module):
    """A DenseNet with the ReLU and the pool at its end as modules, which captum sees."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.features, self.classifier = net.features, net.classifier
        self.relu, self.pool = nn.ReLU(), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.relu(self.features(x))).flatten(1))


def named(model: nn.Module) -> NamedMergeBatchNorm:
    """The convolutions of a DenseNet that a BatchNorm follows alone."""
    layers = [name for name, _ in model.named_modules() if name.rpartition(".")[2].startswith("denselayer")]
    pairs = [("features.conv0", "features.norm0"), *((f"{name}.conv1", f"{name}.norm2") for name in layers)]
    return NamedMergeBatchNorm([((conv,), norm) for conv, norm in pairs])


def vgg11_bn() -> nn.Module:
    """With a pool that gives back what it takes at this image size."""
    model = tv.vgg11_bn(num_classes=10)
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier[0] = nn.Linear(512, 4096)
    return model


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "VGG-11-bn": vgg11_bn,
    "ResNet-18": lambda: tv.resnet18(num_classes=10),
    "DenseNet-121": lambda: tv.densenet121(num_classes=10),  # whose forward calls functions for its last ReLU and pool
}
CANONIZERS: dict[str, dict[str, Callable[[Any], list[Any]]]] = {
    "VGG-11-bn": {
        "none": lambda model: [],
        "NamedMergeBatchNorm of one": lambda model: [NamedMergeBatchNorm([(("features.4",), "features.5")])],
        "VGGCanonizer": lambda model: [VGGCanonizer()],
    },
    "ResNet-18": {
        "none": lambda model: [],
        "SequentialMergeBatchNorm": lambda model: [SequentialMergeBatchNorm()],
        "ResNetBasicBlockCanonizer": lambda model: [ResNetBasicBlockCanonizer()],
        "ResNetCanonizer": lambda model: [ResNetCanonizer()],
    },
    "DenseNet-121": {"none": lambda model: [], "NamedMergeBatchNorm": lambda model: [named(model)]},
}


@cache
def network(name: str, seed: int = 0) -> nn.Module:
    model = randomise(blank(NETWORKS[name]), seed).double()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eps = 1e-3  # what 0.5.1's canonizers leave of it is seen in the maps
    return model


@cache
def images(seed: int, size: int = 32) -> Tensor:
    """One image."""
    return torch.randn((1, 3, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).clamp(
        *BOX
    )


def worst(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    assert ours.dtype == torch.float64
    return float((ours - theirs).abs().max() / theirs.abs().max())


# ------------------------------------------------------------------------------------------------------------- zennit


def every(rule: Callable[[], Any]) -> Callable[..., Any]:
    return lambda **options: zc.LayerMapComposite([*zc.layer_map_base(), (Linear, rule())], **options)


COMPOSITES: dict[str, Callable[..., Any]] = {
    "EpsilonPlus": zc.EpsilonPlus,
    "EpsilonPlusFlat": zc.EpsilonPlusFlat,
    "EpsilonAlpha2Beta1": zc.EpsilonAlpha2Beta1,
    "EpsilonAlpha2Beta1Flat": zc.EpsilonAlpha2Beta1Flat,
    "EpsilonGammaBox": gamma_box,
    "ExcitationBackprop": zc.ExcitationBackprop,
    "WSquare": every(WSquare),
    "Flat": every(Flat),
    "Flat, nothing else": lambda **options: zc.LayerMapComposite([(Linear, Flat())], **options),
}
# where not all: VGG has every composite without canonizers and with NamedMergeBatchNorm, ResNet with
# SequentialMergeBatchNorm
SOME = {
    ("VGG-11-bn", "VGGCanonizer"): ("EpsilonPlus", "EpsilonGammaBox", "Flat"),  # a SequentialMergeBatchNorm
    ("ResNet-18", "none"): ("EpsilonPlus", "ExcitationBackprop", "Flat, nothing else"),
    ("DenseNet-121", "none"): ("EpsilonPlusFlat", "ExcitationBackprop", "Flat, nothing else"),
    ("DenseNet-121", "NamedMergeBatchNorm"): ("EpsilonAlpha2Beta1", "EpsilonGammaBox"),
}


def first(output: Tensor) -> Tensor:
    return nn.functional.one_hot(output.argmax(1), 10).to(output)


@pytest.mark.parametrize(("name", "canonizers"), [(name, kind) for name, kinds in CANONIZERS.items() for kind in kinds])
def test_zennit(name: str, canonizers: str, report: Report) -> None:
    for number, rules in enumerate(SOME.get((name, canonizers), COMPOSITES)):
        composite, seed = COMPOSITES[rules], number % SEEDS[name]
        model, x = network(name, seed), images(seed)

        def chosen(composite: Callable[..., Any] = composite, model: nn.Module = model) -> Any:
            return composite(canonizers=CANONIZERS[name][canonizers](model))

        with ZennitGradient(model, chosen(), first) as attributor:
            their_output, theirs = attributor(x.clone())
        output, ours = Gradient(model, chosen(), first)(x)
        torch.testing.assert_close(output, their_output.detach(), rtol=1e-12, atol=1e-12)
        report(
            TABLE, (name, f"zennit, canonizers: {canonizers}", f"{rules}, seed {seed}", f"{worst(ours, theirs):.0e}")
        )
        assert worst(ours, theirs) <= SAME, (rules, seed)


def test_canonizers_that_merge_what_does_not_belong_together() -> None:
    """In DenseNet's order of parts a BatchNorm follows a convolution that it does not read alone: zennit fails
    there.
    """
    model, composite = network("DenseNet-121"), zc.EpsilonPlus(canonizers=[SequentialMergeBatchNorm()])
    with pytest.raises(RuntimeError, match="must match the size"):
        ZennitGradient(copy.deepcopy(model), composite).__enter__()
    with pytest.raises(dtd.RuleError, match=r"denselayer2\.norm1.*NamedMergeBatchNorm"):
        Gradient(model, composite)(images(0))


# ------------------------------------------------------------------------------------------------------------- captum


class Marked(BasicBlock):
    """A ResNet's block with captum's module for the addition."""

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(self.add(inner, x if self.downsample is None else self.downsample(x)))


def marked(model: nn.Module) -> nn.Module:
    """A copy with every addition marked."""
    model = copy.deepcopy(model)
    for block in model.modules():
        if isinstance(block, BasicBlock):
            block.__class__, block.add = Marked, Addition_Module()
    return model


def ruled(model: nn.Module, rule: Callable[[], Any]) -> nn.Module:
    for part in model.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            part.rule = rule()
    return model


def both(model: nn.Module, theirs: nn.Module, rule: Callable[[], Any], x: Tensor) -> tuple[Tensor, Tensor]:
    """Our relevance of the fourth class for `model`, and captum's for `theirs`."""
    relevance = CaptumLRP(ruled(theirs, rule)).attribute(x.clone().requires_grad_(), 3)
    return LRP(ruled(model, rule)).attribute(x, 3), relevance.detach()


def same(name: str, model: nn.Module, rules: str, seed: int, size: int, report: Report) -> None:
    theirs, x = marked(model), images(seed, size)
    for kind, image in (("signed", x), ("x ≥ 0", x.abs())):
        difference = worst(*both(model, theirs, CAPTUM[rules][0], image))
        report(TABLE, (name, f"captum, {size}×{size}", f"{rules}, {kind}, seed {seed}", f"{difference:.0e}"))
        assert difference <= SAME, (rules, kind, seed)


@pytest.mark.parametrize("name", NETWORKS)
def test_captum(name: str, report: Report) -> None:
    """The functions at DenseNet's end have their modules' maps where these compute nothing: the pool at this size."""
    for number, rules in enumerate(CAPTUM):
        seed = number % SEEDS[name]
        same(name, network(name, seed), rules, seed, 32, report)


def test_captum_on_densenet_of_modules(report: Report) -> None:
    for seed, rules in enumerate(("EpsilonRule", "GammaRule", "Alpha1_Beta0_Rule")):
        same("DenseNet-121, all modules", Dense(network("DenseNet-121", seed)).eval(), rules, seed, 64, report)


def test_captum_where_additions_are_not_marked(report: Report) -> None:
    """It multiplies what goes around a block by the activation once more, block by block (test_compat_captum.py, in
    closed form).
    """
    model, x = network("ResNet-18"), images(0).abs()
    logit = float(model(x)[0, 3])
    for rules, (rule, _) in CAPTUM.items():
        ours, theirs = (float(relevance.sum()) / logit for relevance in both(model, copy.deepcopy(model), rule, x))
        report(
            "| ResNet-18 as it is, x ≥ 0: relevance / logit | captum | here |", (rules, f"{theirs:.1e}", f"{ours:.2f}")
        )
        assert abs(theirs) > 1e4 * abs(ours)
