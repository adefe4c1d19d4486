"""What zennit's hooks see of a model, and what they do not: canonizers, functions, pools, activations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import zennit.rules as zr
from torch import Tensor, nn
from torch.nn import functional as F
from zennit import composites as zc
from zennit.canonizers import (
    AttributeCanonizer,
    Canonizer,
    CompositeCanonizer,
    NamedMergeBatchNorm,
    SequentialMergeBatchNorm,
)
from zennit.layer import Sum
from zennit.types import AvgPool, Linear, MaxPool

import dtdfast as dtd
from dtdfast.compat.zennit import Gradient
from modules import randomise
from zennit_same import BOX, LRP, RULES, one_hot_max, same


class Residual(nn.Module):
    """A bare addition, its operands convolutions with BatchNorm; functions for what has modules too."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.norm, self.fc = nn.BatchNorm2d(4), nn.Linear(4, 5)
        self.norm.running_mean.uniform_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(F.relu(self.norm(self.a(x)) + self.b(x)), 1).flatten(1))


class AddedBySum(AttributeCanonizer):
    """Marks the addition in `Residual`."""

    def __init__(self) -> None:
        super().__init__(
            lambda name, part: (
                dict(sum=Sum(), forward=partial(self.forward, part)) if isinstance(part, Residual) else None
            )
        )

    @staticmethod
    def forward(part: Any, x: Tensor) -> Tensor:
        added = part.sum(torch.stack([part.norm(part.a(x)), part.b(x)], dim=-1))
        return part.fc(F.adaptive_avg_pool2d(F.relu(added), 1).flatten(1))


MERGE = NamedMergeBatchNorm([(("a",), "norm")])


SETS: dict[str, Callable[[], list[Any]]] = {
    "none": list,
    "a merge": lambda: [MERGE],
    "a mark": lambda: [AddedBySum()],
    "both": lambda: [CompositeCanonizer([MERGE, AddedBySum()])],
}


@pytest.mark.parametrize("canonizers", SETS)
def test_canonizers_decide_what_is_merged_and_added(canonizers: str) -> None:
    """As in zennit: without them BatchNorms pass relevance or multiply it, additions give all of it to both, functions
    are gradients.
    """
    torch.manual_seed(0)
    model, x = Residual().double().eval(), torch.randn(2, 3, 5, 5, dtype=torch.float64)
    for cls in LRP:
        same(model, x, cls(**BOX.get(cls, {}), canonizers=SETS[canonizers]()))


def test_names_merge_and_add_as_the_package_does() -> None:
    """A composite's name has no canonizers: additions and average pools in proportion, BatchNorms merged, as in
    `explain`.
    """
    torch.manual_seed(0)
    model = Residual().double().eval()
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    layers = dtd.from_torch(model, x)
    expected = dtd.explain(layers, x, model(x).detach(), rules="epsilon-plus", convention="zennit", backend="oracle")
    _, ours = Gradient(model, "epsilon_plus")(x)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_canonizers_that_are_not_understood() -> None:
    class Another(Canonizer):
        def apply(self, root_module: nn.Module) -> list[Any]:
            return []

        def register(self) -> None: ...

        def remove(self) -> None: ...

    model, x = Residual().double().eval(), torch.randn(2, 3, 5, 5, dtype=torch.float64)
    shorter = AttributeCanonizer(lambda name, part: dict(forward=part.forward) if name == "norm" else None)
    for canonizer, message in (
        (Another(), "Another has no equal"),
        (shorter, "BatchNorm2d 'norm'; only a forward that marks additions"),
    ):
        with pytest.raises(dtd.RuleError, match=message):
            Gradient(model, zc.EpsilonPlus(canonizers=[canonizer]))(x)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    **{f.__name__: lambda f=f: Function(f) for f in (F.relu, F.silu, F.hardtanh, F.leaky_relu, F.sigmoid, F.softplus)},
    "modules": nn.ReLU,
    "ELU": nn.ELU,
    "PReLU": lambda: nn.PReLU(4),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_without_a_rule_multiply_relevance_by_their_slope(name: str) -> None:
    """Relevance of a flat rule comes where an activation is 0 too, that of the others where its slope is not 1."""
    torch.manual_seed(0)
    make = ACTIVATIONS[name]
    model = nn.Sequential(nn.Conv2d(3, 4, 3), make(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), make(), nn.Flatten())
    model, x = randomise(model).double(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for rule in (zr.Flat, zr.ZPlus, zr.Epsilon):
        same(model, x, zc.LayerMapComposite([(Linear, rule())]))


def test_fixed_shifts_and_scales_multiply_relevance_by_their_scale() -> None:
    torch.manual_seed(0)
    scale = torch.rand(3, 1, 1, dtype=torch.float64) + 0.5
    before = Function(lambda x: (x - 0.3) * scale)
    model = (
        nn.Sequential(before, nn.Conv2d(3, 4, 3), Function(lambda x: 2 * x), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4))
        .double()
        .eval()
    )
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    for cls in LRP:
        same(model, x, cls(**BOX.get(cls, {})))


def test_layers_with_computed_weights_are_layers() -> None:
    torch.manual_seed(0)
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(64, 4)).double().eval()
    same(
        model,
        torch.randn(2, 3, 6, 6, dtype=torch.float64),
        zc.LayerMapComposite([*zc.layer_map_base(), (Linear, zr.Epsilon())]),
    )


class Squeeze(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


UNLIKE: dict[str, tuple[Callable[[], nn.Module], Any, str]] = {
    "a gate": (Squeeze, zc.EpsilonPlus(), "gradient through it is not implemented"),
    "a normalisation": (lambda: nn.LocalResponseNorm(3), zc.EpsilonPlus(), "gradient through it is not implemented"),
    "a rule on a max-pool": (
        lambda: nn.MaxPool2d(2),
        zc.LayerMapComposite([(Linear, zr.ZPlus()), (MaxPool, zr.Norm())]),
        "MaxPool2d '1': Norm on what shares no relevance",
    ),
    "a box on a pool": (
        lambda: nn.AvgPool2d(2),
        zc.LayerMapComposite([(Linear, zr.ZPlus()), (AvgPool, zr.ZBox(-3.0, 3.0))]),
        "AvgPool '1'.: ZBox on a layer without weights",
    ),
    "a rule on what is left out": (
        nn.Dropout,
        zc.LayerMapComposite([(Linear, zr.ZPlus()), (nn.Dropout, zr.Epsilon(1.0))]),
        "Dropout '1': Epsilon on what changes nothing",
    ),
    "a rule on an activation": (
        nn.Tanh,
        zc.LayerMapComposite([(Linear, zr.ZPlus()), (nn.Tanh, zr.Norm())]),
        "Norm is refused there",
    ),
    "a rule on a container": (
        nn.ReLU,
        zc.NameMapComposite([(("0", "3"), zr.ZPlus()), (("",), zr.Pass())]),
        "holds other parts",
    ),
    "padding that counts": (
        lambda: Function(lambda x: F.avg_pool2d(x, 3, padding=1)),
        zc.EpsilonPlus(),
        "no rule in this composite",
    ),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_what_zennit_answers_otherwise_is_refused(name: str) -> None:
    make, composite, message = UNLIKE[name]
    body = nn.Sequential(nn.Conv2d(3, 4, 3), make(), nn.Flatten())
    wide = body(torch.rand(1, 3, 6, 6)).shape[1]
    with pytest.raises(dtd.RuleError, match=message):
        Gradient(nn.Sequential(*body, nn.Linear(wide, 4)).double().eval(), composite)(
            torch.randn(2, 3, 6, 6, dtype=torch.float64)
        )


@pytest.mark.parametrize("cls", [zc.EpsilonPlus, zc.EpsilonAlpha2Beta1])
def test_unequal_windows_and_tokens(cls: type[Any]) -> None:
    torch.manual_seed(0)
    windows = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d((3, 4)), nn.Flatten(), nn.Linear(48, 4)
    ).double()
    same(windows, torch.randn(2, 3, 9, 8, dtype=torch.float64), cls(), one_hot_max)
    tokens = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5), nn.Flatten(), nn.Linear(35, 4)).double()
    same(tokens, torch.randn(2, 7, 8, dtype=torch.float64), cls(), one_hot_max)
    enlarged = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Flatten(), nn.Linear(64, 5)
    )
    with pytest.raises(dtd.RuleError, match=r"layer 2 .* no rule in this composite"):
        Gradient(enlarged.double(), cls())(torch.randn(2, 3, 4, 4, dtype=torch.float64))


CANONIZERS: dict[str, Callable[[], Any]] = {
    "in their order": SequentialMergeBatchNorm,
    "by name": lambda: NamedMergeBatchNorm([(("0",), "1"), (("3",), "4")]),
    "within others": lambda: CompositeCanonizer([SequentialMergeBatchNorm()]),
}


@pytest.mark.parametrize("eps", [1e-5, 0.1])
@pytest.mark.parametrize("canonizer", CANONIZERS)
def test_what_the_installed_canonizer_leaves_of_batch_norms(canonizer: str, eps: float) -> None:
    """A factor 1/√(1 + eps) in zennit 0.5.1, nothing in 1.0.0; outputs, stabilisers and BatchNorms without a rule
    tell.
    """
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps), nn.ReLU(), nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6, eps),
            nn.ReLU(),
        nn.Flatten(), nn.Linear(96, 4),
    )  # fmt: skip
    model, x = randomise(model).double(), torch.randn(2, 3, 8, 8, dtype=torch.float64).clamp(-3, 3)
    every_layer = [
        lambda rule=rule: zc.LayerMapComposite([*zc.layer_map_base(), (Linear, RULES[rule]())]) for rule in RULES
    ]
    for make in (*(lambda cls=cls: cls(**BOX.get(cls, {})) for cls in LRP), *every_layer):
        composite = make()
        composite.canonizers = [CANONIZERS[canonizer]()]
        same(model, x, composite, one_hot_max)


@pytest.mark.parametrize("n_space", [1, 2, 3])
def test_pools_that_give_back_what_they_take(n_space: int) -> None:
    """zennit divides by x + 1e-6 there too, where they are modules, and nowhere else."""
    torch.manual_seed(0)
    conv, adaptive, average = (getattr(nn, f"{kind}{n_space}d") for kind in ("Conv", "AdaptiveAvgPool", "AvgPool"))
    x = torch.randn(2, 3, *(6,) * n_space, dtype=torch.float64).clamp(-3, 3)
    ones = (1,) * (n_space - 1)
    wholes = (adaptive(4), average(1), *([adaptive((None, None)), adaptive((None, 2))] if n_space == 2 else []))
    largest, function = getattr(nn, f"AdaptiveMaxPool{n_space}d"), Function(lambda y: adaptive(4)(y))
    for pool in (*wholes, adaptive((*ones, 4)), largest(4), nn.Identity(), function):
        head = nn.Sequential(conv(3, 4, 3), nn.ReLU(), pool, nn.Flatten())
        wide = head.double()(x)[0].numel()
        model = nn.Sequential(*head, nn.Linear(wide, 4)).double().eval()
        for composite in (zc.EpsilonPlus, zc.ExcitationBackprop):
            same(model, x, composite())
        if pool in wholes:  # the convention alone, as `explain` has it
            torch.testing.assert_close(
                Gradient(model, "epsilon_plus")(x)[1], Gradient(model, zc.EpsilonPlus())(x)[1], rtol=1e-12, atol=1e-12
            )


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


POOL_RULES = {name: rule for name, rule in RULES.items() if "ZBox" not in name} | {
    "Gamma(stabilizer=0.1)": lambda: zr.Gamma(0.5, stabilizer=0.1),
    "WSquare(stabilizer=0.1)": lambda: zr.WSquare(stabilizer=0.1),
}


@pytest.mark.parametrize("pool", [nn.AvgPool2d(2), nn.AvgPool2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), Mean()])
def test_rules_on_pools(pool: nn.Module) -> None:
    """They change parameters, of which a pool has none: x of both signs meets in one sum again."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    head = nn.Sequential(nn.Conv2d(3, 4, 3), pool, nn.Flatten()).double()
    model = nn.Sequential(*head, nn.Linear(head(x)[0].numel(), 4)).double().eval()
    for rule in POOL_RULES.values():
        same(model, x, zc.LayerMapComposite([((AvgPool, Mean), rule()), (Linear, zr.Epsilon())]))


class Ending(nn.Module):
    """A function of the scores of four classes."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.scores, self.end = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4)), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.scores(x))


ENDINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "Softmax": nn.Softmax(-1),
    "softmax": lambda y: y.softmax(1),
    "log_softmax": lambda y: F.log_softmax(y, 1),
    "softmax of a view": lambda y: y.view(-1, 2, 2).softmax(1),
    "softmin": lambda y: F.softmin(y, 1),
    "one number for each sample": lambda y: y.mean(1),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_endings(name: str) -> None:
    """A softmax is differentiated, or passed where it has that rule; outputs have the model's shape."""
    torch.manual_seed(0)
    model, x = Ending(ENDINGS[name]).double().eval(), torch.randn(3, 3, dtype=torch.float64)
    rules = [(Linear, zr.Epsilon()), (nn.Softmax, zr.Pass())]
    for composite in (zc.LayerMapComposite(rules), zc.LayerMapComposite(rules[:1])):
        for start in (None, torch.square, torch.randn(model(x).shape, dtype=torch.float64)):
            same(model, x, composite, start)


@pytest.mark.parametrize("pad", [nn.ZeroPad2d((1, 0, 2, 1)), nn.ConstantPad2d(1, 0.5), nn.ReflectionPad2d(1)])
def test_padding_that_is_a_part_of_its_own(pad: nn.Module) -> None:
    """What a rule gives to the zeros is lost there, as it is not where a convolution pads."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64).clamp(-3, 3)
    head = nn.Sequential(pad, nn.Conv2d(3, 4, 3), nn.ReLU(), pad, nn.Dropout(), nn.Conv2d(4, 4, 3, 2, 1), nn.Flatten())
    model = nn.Sequential(*head, nn.Linear(head.double().eval()(x)[0].numel(), 4)).double().eval()
    for rule in RULES.values():
        same(model, x, zc.LayerMapComposite([(Linear, rule())]), one_hot_max)


class Function(nn.Module):
    """Calls a function; its modules are not seen, as in a `forward`."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.forward = function


def test_pools_that_give_back_what_they_take_pass_relevance_elsewhere() -> None:
    """dtdfast's own convention has no stabiliser: they are nothing, also for x < 0."""
    model = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(4), nn.AvgPool2d(1), nn.Conv2d(4, 5, 4), nn.Flatten())
        .double()
        .eval()
    )
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    short = nn.Sequential(model[0], *model[3:]).eval()
    for rules in ("dtd", "lrp-0", "epsilon-plus"):
        ours, theirs = (
            dtd.explain(dtd.from_torch(m, x), x.numpy(), 1, rules=rules, precision="float64") for m in (model, short)
        )
        torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-12, atol=1e-12)
