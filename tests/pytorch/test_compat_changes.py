"""A model that changes between two calls of a drop-in: every change is seen, and what changes nothing costs nothing.

ε = 1e-9 on a network that is piecewise linear gives gradient × input (Ancona et al. 2018, proposition 1), which PyTorch
knows of the model as it is now. Biases take part, sums are of the order of 1: 1e-6 is ε beside the smallest sums of two
layers.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from captum.attr._utils.lrp_rules import GammaRule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune

import dtdfast as dtd
from dtdfast.compat import model as kept
from dtdfast.compat.captum import LRP
from dtdfast.compat.fingerprint import _sum_elsewhere, checksum, fingerprint

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

X = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
FACTOR = 1.0


def helper(y: Tensor) -> Tensor:
    return y * FACTOR


class Net(nn.Module):
    gain = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu, self.drop = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout()
        self.fc = nn.Linear(36, 3)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.scale, self.twice, self.config = 1.0, False, types.SimpleNamespace(shares=[1.0])
        self.activation, self.activations = torch.neg, [torch.neg]  # as captum calls its own
        self.mask, self.parts = torch.ones(3, dtype=torch.float64), [nn.Linear(3, 3)]

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm(self.conv(x)))
        if self.twice:
            y = 2 * y
        y = self.fc(self.drop(y).flatten(1) * self.scale * self.config.shares[0] * self.gain) * self.mask
        return helper(self.parts[0](self.activations[0](self.activation(y))))


def network() -> Net:
    torch.manual_seed(0)
    net = Net().double().eval()
    net.parts[0].double()
    return net


class Watch:
    """A model and the maps that its drop-in gives."""

    def __init__(self, net: Any = None) -> None:
        self.net = network() if net is None else net
        self.lrp = LRP(self.net)
        self.last = self.check()

    def check(self) -> Tensor:
        x = X.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.net(x)[:, 1].sum(), x)
        ours = self.lrp.attribute(X, target=1)
        torch.testing.assert_close(ours, (gradient * x).detach(), rtol=1e-6, atol=1e-6)
        return ours

    def sees(self, change: Callable[[Net], Any]) -> None:
        change(self.net)
        now = self.check()
        assert (now - self.last).abs().max() > 1e-3 * self.last.abs().max()
        self.last = now


@contextmanager
def readings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every time that a model's weights are read."""
    read, seen = kept._read, []
    monkeypatch.setattr(kept, "_read", lambda *args: (seen.append(1), read(*args))[1])
    yield seen


def swapped(tensor: Tensor, i: int, j: int) -> None:
    tensor[[i, j]] = tensor[[j, i]].clone()


def _no_grad(change: Callable[[Net], Any]) -> Callable[[Net], Any]:
    return torch.no_grad()(change)


WEIGHTS: dict[str, Callable[[Net], Any]] = {
    "filters permuted": lambda net: net.conv.weight.data.copy_(net.conv.weight.data[[2, 0, 3, 1]].clone()),
    "rows flipped": lambda net: net.fc.weight.data.copy_(net.fc.weight.data.flip(1)),
    "a pair swapped": lambda net: swapped(net.parts[0].weight.data[1], 0, 2),
    "round numbers": lambda net: net.parts[0].weight.data.copy_(torch.tensor([[1.0, 2, 0], [2, 1, 0], [0, 0, 1]])),
    "two pairs swapped, sums of rows and columns kept": lambda net: swapped(net.parts[0].weight.data, 0, 1),
    "another tensor": lambda net: setattr(net.fc.weight, "data", net.fc.weight.data.flip(0).contiguous()),
    "another view of the same words": lambda net: setattr(
        net.conv.weight, "data", net.conv.weight.data.transpose(2, 3)
    ),
    "set_": _no_grad(lambda net: net.fc.weight.set_(net.fc.weight.flip(0).contiguous())),
    "copy_": _no_grad(lambda net: net.fc.weight.copy_(net.fc.weight.flip(0))),
    "a statistic": lambda net: swapped(net.norm.running_mean.data, 0, 1),
    "the other statistic": lambda net: net.norm.running_var.copy_(net.norm.running_var.flip(0)),
    "a parameter": lambda net: setattr(net.fc, "weight", nn.Parameter(net.fc.weight.detach() * -1)),
    "one number": lambda net: net.norm.weight.data[2].mul_(3),
}


def test_weights() -> None:
    watch = Watch()
    for change in WEIGHTS.values():
        watch.sees(change)


def test_words_that_change_places_change_the_sum() -> None:
    """Round numbers, of which most bits are 0, in every pair of places, on the CPU and by the operations that other
    devices take.
    """
    words = torch.arange(1.0, 68.0)
    for sum_of in (
        lambda t: checksum(torch, t.device, t.untyped_storage()),
        lambda t: _sum_elsewhere(torch, t[:66].view(torch.int64)),
    ):
        sums = {sum_of(words)}
        for i in range(66):
            for j in range(i):
                other = words.clone()
                swapped(other, i, j)
                sums.add(sum_of(other))
        assert len(sums) == 1 + 66 * 65 // 2


SETTINGS: dict[str, Callable[[Net], Any]] = {
    "eps": lambda net: setattr(net.norm, "eps", 0.5),
    "a flag": lambda net: setattr(net, "twice", True),
    "a number": lambda net: setattr(net, "scale", 2.0),
    "a number in an object": lambda net: net.config.shares.__setitem__(0, 3.0),
    "a tensor": lambda net: net.mask.copy_(torch.tensor([1.0, 2, 3])),
    "a module in a list": lambda net: net.parts[0].weight.data.mul_(-2),
    "its activation": lambda net: setattr(net, "activation", torch.relu),
    "one of its activations": lambda net: net.activations.__setitem__(0, F.leaky_relu),
    "stride": lambda net: (setattr(net.conv, "stride", (2, 2)), setattr(net, "fc", nn.Linear(16, 3).double())),
    "a layer": lambda net: setattr(net, "relu", nn.LeakyReLU(0.3)),
    "a layer in its place": lambda net: net.add_module("drop", nn.ReLU()),
    "the forward of a part": lambda net: setattr(net.relu, "forward", lambda x: 3 * F.relu(-x)),
    "the forward": lambda net: setattr(net, "forward", lambda x: net.fc(net.relu(net.norm(net.conv(x))).flatten(1))),
}


def test_settings_and_parts() -> None:
    watch = Watch()
    for change in SETTINGS.values():
        watch.sees(change)


def test_a_rule_that_is_a_setting() -> None:
    """And not captum's or dtdfast's, which are asked for at every call."""
    net, seen = network(), []
    for net.rule in ("mean", "sum", None, GammaRule(), GammaRule(2.0), dtd.ZPlus()):  # type: ignore[assignment]
        seen.append(fingerprint(net).structure)
    assert seen[0] != seen[1] != seen[2] == seen[3] == seen[4] == seen[5]


def test_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """What classes and functions hold, also those of PyTorch."""
    watch = Watch()
    watch.sees(lambda net: monkeypatch.setattr(Net, "gain", 3.0))
    watch.sees(lambda net: monkeypatch.setitem(globals(), "FACTOR", 2.0))
    watch.sees(lambda net: monkeypatch.setitem(globals(), "helper", lambda y: y * -1.0))
    watch.sees(lambda net: monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: F.leaky_relu(x, 0.5)))
    watch.sees(
        lambda net: monkeypatch.setattr(Net, "forward", lambda self, x: self.fc(self.norm(self.conv(x)).flatten(1)))
    )


TIMES = torch.tensor([1.0, 2, 3], dtype=torch.float64)


class Shares:
    """What code reads by its class."""

    value = 1.0

    @staticmethod
    def of(y: Tensor) -> Tensor:
        return y * Shares.value


class Reader(nn.Module):
    """Reads in functions and generators that it makes, from classes, and from a tensor that is a default."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(50, 3, dtype=torch.float64)

    def forward(self, x: Tensor, times: Tensor = TIMES) -> Tensor:
        def inner(y: Tensor) -> Tensor:
            return helper(y)

        return Shares.of(sum(inner(y * FACTOR) for y in [self.fc(x.flatten(1))]) * times)


def test_code_within_code(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(Reader())
    watch.sees(lambda net: monkeypatch.setitem(globals(), "FACTOR", 2.0))
    watch.sees(lambda net: monkeypatch.setitem(globals(), "helper", lambda y: y * -3.0))
    watch.sees(lambda net: monkeypatch.setattr(Shares, "value", 4.0))
    watch.sees(lambda net: monkeypatch.setattr(Shares, "of", staticmethod(lambda y: y * 7.0)))
    watch.sees(lambda net: Reader.forward.__defaults__[0].add_(1))  # type: ignore[index]


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * 2 + weight.abs()


def _removed_pruning(net: Net) -> None:
    prune.l1_unstructured(net.conv, "bias", 2)
    prune.remove(net.conv, "bias")


REPARAMETRISED: dict[str, Callable[[Net], Any]] = {
    "pruned": lambda net: prune.l1_unstructured(net.fc, "weight", 0.5),
    "pruned once more": lambda net: prune.ln_structured(net.fc, "weight", 1, 2, 0),
    "pruned for good": _removed_pruning,
    "parametrised": lambda net: parametrize.register_parametrization(net.conv, "weight", Doubled()),
    "the original of a parametrised weight": lambda net: net.conv.parametrizations.weight.original.data.copy_(
        net.conv.parametrizations.weight.original.data.flip(0)
    ),
    "weights normed": lambda net: (
        nn.utils.weight_norm(net.parts[0]),
        net.parts[0].weight_g.data.mul_(torch.tensor([[1.0], [2], [3]])),
    ),
}


def test_pruning_and_parametrisations() -> None:
    watch = Watch()
    for change in REPARAMETRISED.values():
        watch.sees(change)


def test_hooks() -> None:
    """Hooks that change values are part of what is explained, on layers with weights too, and gone when they are
    removed.
    """
    watch = Watch()
    handles = []

    def added(register: Callable[..., Any], hook: Any) -> None:
        watch.sees(lambda net: handles.append(register(hook)))

    net = watch.net
    added(net.fc.register_forward_hook, lambda part, args, out: out * TIMES)
    added(net.conv.register_forward_hook, lambda part, args, out: out * 2 + 1)
    added(net.fc.register_forward_pre_hook, lambda part, args: (args[0] * torch.linspace(1, 2, 36).double(),))
    added(net.relu.register_forward_pre_hook, lambda part, args: (-args[0],))
    added(
        nn.modules.module.register_module_forward_hook, lambda part, args, out: out * TIMES if part is net.fc else None
    )
    added(
        nn.modules.module.register_module_forward_pre_hook,
        lambda part, args: (args[0] * TIMES,) if part is net.parts[0] else None,
    )
    for handle in handles:
        watch.sees(lambda net, handle=handle: handle.remove())


def test_hooks_that_cannot_be_explained_are_named() -> None:
    net = network()
    net.fc.register_forward_hook(lambda part, args, out: out.cumprod(1))
    with pytest.raises(dtd.ModelError, match="forward hooks are part of what is explained, here those of fc"):
        LRP(net).attribute(X, target=1)


def test_training_mode_is_refused_after_a_call_too() -> None:
    watch = Watch()
    watch.net.norm.train()
    with pytest.raises(dtd.ModelError, match="BatchNorm2d is in training mode"):
        watch.lrp.attribute(X, target=1)
    watch.net.eval()
    watch.net.drop.train()  # left out, as at first
    assert torch.equal(watch.lrp.attribute(X, target=1), watch.last)
    assert watch.net.drop.training


def test_what_changes_nothing_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """requires_grad, weights loaded anew, and hooks and attributes that record what they see."""
    watch = Watch()
    net, lrp = watch.net, watch.lrp
    with readings(monkeypatch) as seen:
        net.requires_grad_(False)
        net.load_state_dict(net.state_dict())
        assert torch.equal(lrp.attribute(X, target=1), watch.last)
        assert not seen
        recorded: dict[str, Tensor] = {}
        net.fc.activations = {"cpu": (X,)}  # type: ignore[assignment]  # as captum does
        net.fc.register_forward_hook(lambda part, args, out: recorded.__setitem__("fc", out))
        lrp.attribute(X, target=1)
        assert len(seen) == 1
        for scale in (1, 2):
            net(scale * X)
            net.fc.activations = {"cpu": (scale * X,)}  # type: ignore[assignment]
            assert torch.equal(lrp.attribute(X, target=1), watch.last)
        assert len(seen) == 1
        net.double().float()
        net.parts[0].float()
        net.mask = net.mask.float()
        assert lrp.attribute(X.float(), target=1).dtype == torch.float32
        assert len(seen) == 2
