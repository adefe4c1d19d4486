"""The drop-in for zennit beside zennit itself, in float64: every rule on every kind of layer, every composite, and what
it refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import zennit.rules as zr
from torch import Tensor, nn
from zennit import composites as zc
from zennit.core import Composite, Stabilizer
from zennit.types import Convolution, Linear

import dtdfast as dtd
from dtdfast.compat.zennit import NAMES, Gradient
from zennit_same import BOX, CONVS, LRP, RULES, one_hot_max, same

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

MODULES: dict[str, Callable[[], nn.Module]] = {
    "Linear": lambda: nn.Linear(16, 15),
    "Linear, no bias": lambda: nn.Linear(16, 15, bias=False),
    **{
        f"{'ConvTranspose' if kind > 2 else 'Conv'}{kind % 3 + 1}d": lambda kind=kind: CONVS[kind](
            3, 2, 2 + kind % 2, bias=kind != 4
        )
        for kind in range(6)
    },
}


def layer(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    module = MODULES[name]().double().eval()
    shape = (3, 16) if isinstance(module, nn.Linear) else (3, 3, *(4,) * (module.weight.ndim - 2))
    return module, torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("name", MODULES)
def test_rules(name: str) -> None:
    module, x = layer(name)
    for rule in RULES.values():
        same(module, x, zc.LayerMapComposite([(Linear, rule())]))


@pytest.mark.parametrize("shape", [(1,), (3,), (1, 4), (1, 4, 4), (1, 4, 4, 4)], ids=str)
def test_bounds_meet_the_first_axes(shape: tuple[int, ...]) -> None:
    """Of which the first is the batch's; as many channels as rows, where one could be taken for the other."""
    torch.manual_seed(0)
    low, high = -3 - torch.rand(shape, dtype=torch.float64), 3 + torch.rand(shape, dtype=torch.float64)
    rule = zc.LayerMapComposite([(Linear, zr.ZBox(low, high))])
    for module, axes in ((nn.Conv2d(4, 2, 2), 4), (nn.Linear(4, 2), 3), (nn.Linear(4, 2), 2)):
        if len(shape) > axes:
            continue
        x = torch.randn((3, *(4,) * (axes - 1)), dtype=torch.float64)
        if shape == (3,):
            with pytest.raises(dtd.RuleError, match="has another low for every sample"):
                Gradient(module.double(), rule)(x)
        else:
            same(module.double(), x, rule)


def network(name: str) -> tuple[nn.Module, Tensor]:
    module, x = layer(name)
    wide = module(x)[0].numel()
    return nn.Sequential(module, nn.ReLU(), nn.Flatten(), nn.Linear(wide, 4, dtype=torch.float64)).eval(), x


STARTS = [None, one_hot_max, torch.eye(4, dtype=torch.float64)[[0, 3, 1]]]


@pytest.mark.parametrize("start", STARTS, ids=["output", "function", "tensor"])
@pytest.mark.parametrize("name", ["Linear", "Conv2d", "ConvTranspose3d"])
def test_composites(name: str, start: Any) -> None:
    model, x = network(name)
    for composite in (Composite, *LRP):
        same(model, x, composite(**BOX.get(composite, {})), start)


def test_mixed_composites_and_names_of_layers() -> None:
    model, x = network("Conv2d")
    by_name = zc.NameMapComposite([(("3",), zr.Gamma(0.1))])
    same(model, x, zc.MixedComposite([by_name, zc.EpsilonPlusFlat()]))
    same(model, x, zc.NameLayerMapComposite([(("0",), zr.WSquare())], zc.EpsilonPlus().layer_map))


def test_names_need_no_composite() -> None:
    model, x = network("Conv2d")
    for name in NAMES:
        options, box = (dict(low=-5.0, high=5.0), (-5.0, 5.0)) if name == "epsilon_gamma_box" else ({}, "real")
        _, named = Gradient(model, name, domain=box)(x)
        _, read = Gradient(model, zc.COMPOSITES[name](**options))(x)
        torch.testing.assert_close(named, read, rtol=1e-12, atol=1e-12)


def test_without_a_composite_it_is_the_gradient() -> None:
    model, x = network("Conv1d")
    same(model, x, None)
    same(model, x, None, one_hot_max)
    _, gradient = Gradient(model, create_graph=True)(x.clone().requires_grad_())
    assert gradient.requires_grad


def test_the_model_stays_as_it_was_and_may_change() -> None:
    model, x = network("Conv2d")
    gradient = Gradient(model, zc.EpsilonPlus())
    with gradient:
        _, first = gradient(x)
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
        model[0].weight.data[0] *= -3
        _, second = gradient(x)
    assert not torch.allclose(first, second)
    same(model, x, zc.EpsilonPlus())


class Own(zr.Epsilon):
    pass


REFUSED: list[tuple[Any, str]] = [
    (zc.GuidedBackprop(), "ReLUGuidedBackprop has no equal"),
    (zc.LayerMapComposite([(Linear, Own())]), "Own has no equal"),
    (zc.LayerMapComposite([(Convolution, zr.ZPlus())]), "has no rule in this composite"),
    (zc.LayerMapComposite([(Linear, zr.Epsilon(epsilon=lambda z: z + 1))]), "adds a number"),
    (zc.LayerMapComposite([(Linear, zr.ZPlus(stabilizer=Stabilizer(clip=True)))]), "adds a number"),
    (zc.LayerMapComposite([(Linear, zr.ZPlus(zero_params="weight"))]), "zero_params"),
    (zc.LayerMapComposite([(Linear, zr.Pass())]), "identity rule, but turns"),
]


@pytest.mark.parametrize(("composite", "message"), REFUSED)
def test_refusals(composite: Any, message: str) -> None:
    model, x = network("Conv2d")
    with pytest.raises(dtd.RuleError, match=message):
        Gradient(model, composite)(x)


def test_refusals_of_arguments() -> None:
    model, x = network("Linear")
    for composite in ("epsilon", 3):
        with pytest.raises(dtd.RuleError, match="composite"):
            Gradient(model, composite)
    with pytest.raises(NotImplementedError, match="create_graph"):
        Gradient(model, zc.EpsilonPlus(), create_graph=True)
    with pytest.raises(dtd.InputError, match="attr_output"):
        Gradient(model, zc.EpsilonPlus(), 1)(x)
    with pytest.raises(dtd.TargetError, match="float start"):
        Gradient(model, zc.EpsilonPlus(), torch.ones(3, 7))(x)
