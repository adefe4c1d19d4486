"""The tools compared: each one prepared outside the clock, then called with images and a target."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from folding import folded
from handwritten import ZPlus, channels_last
from nets import Net
from torch_reference import TorchNet

Array = NDArray[np.float32]
Explain = Callable[[Array, int], Array]


def handwritten(net: Net) -> Explain:
    return ZPlus(folded(net))


def forward(net: Net) -> Explain:
    """PyTorch's forward pass alone, folded and channels-last: no explanation, a yardstick."""
    module = TorchNet(folded(net)).to(memory_format=torch.channels_last)

    def run(images: Array, target: int) -> Array:
        with torch.no_grad():
            return module(channels_last(images)).numpy()

    return run


def zennit_module(net: Net) -> nn.Module:
    """A module whose gradient is z+ without bias on every linear layer; an Add split in proportion, as zennit's ResNet
    canonizer has it.
    """
    _stand_in_for_torchvision()
    from zennit.core import Composite
    from zennit.layer import Sum
    from zennit.rules import Norm, Pass
    from zennit.rules import ZPlus as Rule
    from zennit.types import Activation, AvgPool, Linear

    class StackedSum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sum = Sum()

        def forward(self, *operands: Tensor) -> Tensor:
            return self.sum(torch.stack(operands, -1))

    rules = ((Activation, Pass()), (Sum, Norm()), (AvgPool, Norm()), (Linear, Rule(zero_params="bias")))

    def choose(ctx: object, name: str, module: nn.Module) -> object:
        return next((rule for kinds, rule in rules if isinstance(module, kinds)), None)

    module = TorchNet(folded(net), add=StackedSum)
    Composite(module_map=choose).register(module)
    return module


def relevance_of(module: nn.Module, x: Tensor, target: int) -> Tensor:
    """What the hooks of a zennit module leave in the place of the gradient, from output `target` down."""
    x = x.detach().requires_grad_()
    y = module(x)
    start = torch.zeros_like(y)
    start[:, target] = y[:, target].detach()
    return torch.autograd.grad(y, x, start)[0]


def zennit(net: Net, folder: str | None = None) -> Explain:
    """The installed version, or the one that lies in `folder`."""
    with _imported_from(folder) if folder else nullcontext():
        module = zennit_module(net)
    return lambda images, target: relevance_of(module, torch.from_numpy(images), target).numpy()


def captum(net: Net) -> Explain:
    from captum.attr import LRP
    from captum.attr._utils.custom_modules import Addition_Module
    from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule

    module = TorchNet(folded(net), add=Addition_Module)

    def run(images: Array, target: int) -> Array:
        for layer in module.modules():  # every call takes the rules away
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.rule = Alpha1_Beta0_Rule(set_bias_to_zero=True)
        return LRP(module).attribute(torch.from_numpy(images).requires_grad_(), target).detach().numpy()

    return run


def _stand_in_for_torchvision() -> None:
    """Give zennit the classes that it imports for canonizers and types, not used here; empty ones do where torchvision
    fails.
    """
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        resnet, ops = ModuleType("torchvision.models.resnet"), ModuleType("torchvision.ops")
        vars(resnet).update(dict.fromkeys(("Bottleneck", "BasicBlock"), type("Block", (), {})))
        vars(ops)["FrozenBatchNorm2d"] = type("FrozenBatchNorm2d", (), {})
        for name in ("torchvision", "torchvision.models"):
            sys.modules[name] = ModuleType(name)
        sys.modules[resnet.__name__] = resnet
        vars(sys.modules["torchvision"])["ops"] = ops


@contextmanager
def _imported_from(folder: str) -> Iterator[None]:
    """zennit from `folder`: its modules go by their names while they are imported, then those before are back."""

    def taken_out() -> dict[str, ModuleType]:
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "zennit"}

    before = taken_out()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        taken_out()
        sys.modules.update(before)


PEERS: dict[str, Callable[[Net], Explain]] = {
    "hand-written PyTorch": handwritten,
    "zennit": zennit,
    "captum": captum,
}
if OTHER := os.environ.get("OTHER_ZENNIT"):
    (found,) = importlib.metadata.distributions(name="zennit", path=[OTHER])
    PEERS[f"zennit {found.version}"] = partial(zennit, folder=OTHER)
