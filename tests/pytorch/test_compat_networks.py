"""zennit's and captum's rules on VGG-11-bn, ResNet-18 and DenseNet-121 in float64: the drop-ins on the networks as they
are published.

zennit runs on the same module, without canonizers and with several; what these leave of BatchNorms depends on the
installed version. captum, which has no canonizers, runs on a copy with additions marked and ReLUs out of place. Where a
tool has no answer, a test says so.
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
from zennit import composites as zc
from zennit.attribution import Gradient as ZennitGradient
from zennit.canonizers import NamedMergeBatchNorm, SequentialMergeBatchNorm
from zennit.rules import Flat, WSquare
from zennit.torchvision import ResNetBasicBlockCanonizer, ResNetCanonizer, VGGCanonizer
from zennit.types import Linear

import dtdfast as dtd
from dtdfast.compat.captum import LRP
from dtdfast.compat.zennit import Gradient
from modules import randomise
from parity import BOX, CAPTUM, gamma_box

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

Report = Callable[[str, tuple[str, ...]], None]
TABLE = "| network, 32×32, float64 | tool | rules | largest difference |"
SAME = 1e-9


class Dense(nn.Module):
    """A DenseNet with the ReLU and the pool at its end as modules, which captum can see."""

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
    """With a pool that gives back what it takes at this image size, and small linear layers."""
    model = tv.vgg11_bn(num_classes=10)
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    for place, sizes in {0: (512, 64), 3: (64, 64), 6: (64, 10)}.items():
        model.classifier[place] = nn.Linear(*sizes)
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
    torch.manual_seed(seed)
    model = randomise(NETWORKS[name](), seed).double()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eps = 1e-3  # what 0.5.1's canonizers leave of it is seen in the maps
    return model


@cache
def images(nonnegative: bool = False, seed: int = 2) -> Tensor:
    """One image; on the one of seed 2 no sum that captum's rules divide by comes near 0."""
    x = torch.randn((1, 3, 32, 32), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).clamp(*BOX)
    return x.abs() if nonnegative else x


def worst(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    assert ours.dtype == torch.float64
    return float((ours - theirs).abs().max() / theirs.abs().max())


# ---------------------------------------------------------------------------------------------------------------------
# zennit


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
SEEDS = (0, 1, 2)  # of weights and of images, in turn


def first(output: Tensor) -> Tensor:
    return nn.functional.one_hot(output.argmax(1), 10).to(output)


@pytest.mark.parametrize(("name", "canonizers"), [(name, kind) for name, kinds in CANONIZERS.items() for kind in kinds])
def test_zennit(name: str, canonizers: str, report: Report) -> None:
    for number, (rules, composite) in enumerate(COMPOSITES.items()):
        seed = SEEDS[number % len(SEEDS)]
        model, x = network(name, seed), images(seed=seed)

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
        Gradient(model, composite)(images())


# ---------------------------------------------------------------------------------------------------------------------
# captum


class Block(nn.Module):
    """A ResNet's block as captum wants it."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.first = row([block.conv1, block.bn1, nn.ReLU(), block.conv2, block.bn2])
        self.beside = block.downsample
        self.add, self.last = Addition_Module(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.add(self.first(x), x if self.beside is None else self.beside(x)))


class DenseLayer(nn.Module):
    """A DenseNet's layer as captum wants it."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.parts = row([layer.norm1, nn.ReLU(), layer.conv1, layer.norm2, nn.ReLU(), layer.conv2])

    def forward(self, x: list[Tensor]) -> Tensor:
        return self.parts(torch.cat(x, 1))


class Ends(nn.Module):
    """What works on images, and what follows a flattening, for which captum has no module."""

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


def row(parts: list[nn.Module]) -> nn.Sequential:
    """In a row, ReLUs out of place, no Dropout."""
    return nn.Sequential(
        *(nn.ReLU() if isinstance(part, nn.ReLU) else part for part in parts if not isinstance(part, nn.Dropout))
    )


def for_captum(model: Any) -> nn.Module:
    model = copy.deepcopy(model)
    if isinstance(model, tv.VGG):
        return Ends(row([*model.features, model.avgpool]), row(list(model.classifier))).eval()
    if isinstance(model, tv.ResNet):
        stages = [Block(block) for stage in (model.layer1, model.layer2, model.layer3, model.layer4) for block in stage]
        return Ends(row([model.conv1, model.bn1, model.relu, model.maxpool, *stages, model.avgpool]), model.fc).eval()
    for block in model.features:
        for name, layer in list(block.named_children()):
            if name.startswith("denselayer"):
                setattr(block, name, DenseLayer(layer))
            elif isinstance(layer, nn.ReLU):
                layer.inplace = False
    return Ends(row([*model.features, model.relu, model.pool]), model.classifier).eval()


def ruled(model: nn.Module, rule: Callable[[], Any]) -> nn.Module:
    for part in model.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            part.rule = rule()
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_captum(name: str, report: Report) -> None:
    model = network(name)
    model = Dense(model).eval() if isinstance(model, tv.DenseNet) else model
    for rules, (rule, _) in CAPTUM.items():
        for nonnegative in (False, True):
            x = images(nonnegative)
            theirs = CaptumLRP(ruled(for_captum(model), rule)).attribute(x.clone().requires_grad_(), 3).detach()
            ours = LRP(ruled(model, rule)).attribute(x, 3)
            report(TABLE, (name, "captum", rules + (", x ≥ 0" if nonnegative else ""), f"{worst(ours, theirs):.0e}"))
            assert worst(ours, theirs) <= SAME, rules
