"""The same maps from zennit, captum and this package, in float64 on the same networks with BatchNorms merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torchvision.models as tv
from captum.attr import LRP
from captum.attr._utils import lrp_rules
from captum.attr._utils.custom_modules import Addition_Module
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from zennit import composites as zc
from zennit.attribution import Gradient
from zennit.rules import ZPlus
from zennit.torchvision import ResNetCanonizer, VGGCanonizer
from zennit.types import Linear

import dtdfast as dtd
from modules import blank, randomise
from nets import Net
from support import LONG
from torch_reference import TorchNet

Array = NDArray[Any]
SIZE, BOX = 64, (-2.5, 2.5)
HEIGHT = SIZE if LONG else SIZE // 2  # of images: the last pools see two pixels still


def vgg16_bn() -> nn.Module:
    """Without the adaptive pool, whose windows overlap at this image size."""
    model = tv.vgg16_bn(num_classes=10)
    model.avgpool = nn.Identity()
    model.classifier[0] = nn.Linear(512 * (HEIGHT // 32) * (SIZE // 32), 4096)
    return model


def resnet50() -> nn.Module:
    return tv.resnet50(num_classes=10)


def merged(module: nn.Module) -> nn.Module:
    """Every BatchNorm merged into the convolution registered before it, in place."""
    for part in list(module.modules()):
        for first, second in pairwise(list(part._modules)):
            if isinstance(part._modules[second], nn.BatchNorm2d):
                part._modules[first] = fuse_conv_bn_eval(part._modules[first], part._modules[second])
                part._modules[second] = nn.Identity()
    return module.eval()


@dataclass(frozen=True)
class Network:
    """A merged module in float64, its layers, and a batch of images; relevance 1 starts at each sample's largest
    output.
    """

    name: str
    module: nn.Module
    canonizer: Callable[[], Any]
    layers: list[dtd.Layer]
    x: Tensor

    def start(self) -> Tensor:
        outputs = self.module(self.x).detach()
        return torch.zeros_like(outputs).scatter_(1, outputs.argmax(1, keepdim=True), 1.0)

    def ours(self, rules: Any, convention: str, backend: str = "oracle", x: Tensor | None = None) -> Array:
        x = self.x if x is None else x
        given = x.numpy() if backend == "oracle" else x.float().numpy()
        domain = BOX if rules == "epsilon-gamma-box" else "real"
        explained = dtd.Explainer(self.layers, rules=rules, convention=convention, backend=backend, domain=domain)
        return explained.explain(given, self.start().numpy().astype(given.dtype))

    def reference(self, add: Callable[[], nn.Module] | None) -> nn.Module:
        """The layers as modules, used once each, with ReLUs out of place."""
        net = Net(self.name, self.layers, tuple(self.x.shape[1:]), (10,), 0, BOX, None, None)
        return TorchNet(net, torch.float64, add=add)


MODULES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "VGG-16-bn": (vgg16_bn, VGGCanonizer),
    "ResNet-50": (resnet50, ResNetCanonizer),
}


def images(nonnegative: bool = False, n: int = 2) -> Tensor:
    """Of numbers that float32 holds, so that every tool and every precision gets the same."""
    x = (
        torch.randn((n, 3, HEIGHT, SIZE), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        .clamp(*BOX)
        .float()
        .double()
    )
    return x.abs() if nonnegative else x


@cache
def network(name: str, merge: bool = True) -> Network:
    make, canonizer = MODULES[name]
    torch.manual_seed(0)
    module = randomise(blank(make)).double()
    if merge:
        merged(module)
    return Network(name, module, canonizer, dtd.from_torch(module, images()), images())


# -------------------------------------------------------------------------------------------------------------- peers


def every_linear_zplus(**options: Any) -> Any:
    return zc.LayerMapComposite([*zc.layer_map_base(), (Linear, ZPlus())], **options)


def gamma_box(**options: Any) -> Any:
    low, high = (torch.full((1, 3, 1, 1), v, dtype=torch.float64) for v in BOX)
    return zc.EpsilonGammaBox(low=low, high=high, **options)


def weighted(rule: dtd.Rule) -> Callable[[int, dtd.Layer], dtd.Rule | None]:
    """One rule for the layers with weights; pools and adds keep the convention's."""
    return lambda position, record: rule if isinstance(record, (dtd.Conv, dtd.Linear)) else None


ZENNIT: dict[str, tuple[Callable[..., Any], Any]] = {  # composite, the same here
    "ZPlus": (every_linear_zplus, weighted(dtd.ZPlus())),
    "EpsilonPlus": (zc.EpsilonPlus, "epsilon-plus"),
    "EpsilonPlusFlat": (zc.EpsilonPlusFlat, "epsilon-plus-flat"),
    "EpsilonGammaBox": (gamma_box, "epsilon-gamma-box"),
    "EpsilonAlpha2Beta1": (zc.EpsilonAlpha2Beta1, "epsilon-alpha2-beta1"),
    "EpsilonAlpha2Beta1Flat": (zc.EpsilonAlpha2Beta1Flat, "epsilon-alpha2-beta1-flat"),
    "ExcitationBackprop": (zc.ExcitationBackprop, "excitation-backprop"),
}

CAPTUM: dict[str, tuple[Callable[[], Any], dtd.Rule]] = {
    "EpsilonRule": (lrp_rules.EpsilonRule, dtd.Epsilon()),
    "GammaRule": (lrp_rules.GammaRule, dtd.Gamma(0.25)),
    "Alpha1_Beta0_Rule": (lrp_rules.Alpha1_Beta0_Rule, dtd.ZPlus()),
    "Alpha1_Beta0_Rule, no bias": (lambda: lrp_rules.Alpha1_Beta0_Rule(set_bias_to_zero=True), dtd.ZPlus(bias="none")),
}


def by_zennit(net: Network, composite: Callable[..., Any], canonize: bool = True) -> Array:
    with Gradient(net.module, composite(canonizers=[net.canonizer()] if canonize else [])) as attribute:
        return attribute(net.x, net.start())[1].detach().numpy()


def by_captum(
    net: Network, rule: Callable[[], Any], x: Tensor, add: Callable[[], nn.Module] | None = Addition_Module
) -> Array:
    """Its own start is the logit: scaled to 1, which every rule here permits."""
    module = net.reference(add)
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            part.rule = rule()
    target = net.start().argmax(1)
    logit = net.reference(add)(x).gather(1, target[:, None]).reshape(-1, 1, 1, 1)
    return (LRP(module).attribute(x.clone().requires_grad_(), target).detach() / logit).numpy()


def worst(ours: Array, theirs: Array) -> float:
    """Largest difference, relative to the largest value."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def total(ours: Array, exact: Array) -> float:
    """Sum of differences, relative to the sum of absolute values."""
    return float(np.abs(ours - exact).sum() / np.abs(exact).sum())
