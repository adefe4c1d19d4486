"""The drop-in for captum: values worked out by hand, captum itself beside it, and what it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LRP as CaptumLRP
from captum.attr import InputXGradient
from captum.attr import LayerLRP as CaptumLayerLRP
from captum.attr._utils.custom_modules import Addition_Module
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule, IdentityRule, PropagationRule
from torch import Tensor, nn
from torch.nn import functional as F

import dtdfast as dtd
from captum_models import PIXELS, ConvNet, TwoLayers, X, ruled
from dtdfast.compat.captum import LRP, LayerLRP

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


BY_HAND = [  # rules of the two layers, the first weight, relevance of X
    (EpsilonRule(), EpsilonRule(), 2.0, [18.0, 36.0, 54.0]),
    (None, None, 2.0, [18.0, 36.0, 54.0]),
    (GammaRule(gamma=1), GammaRule(), -2.0, [28 / 3, 104 / 3, 52.0]),
    (Alpha1_Beta0_Rule(), Alpha1_Beta0_Rule(), -2.0, [12.0, 33.6, 50.4]),
    (IdentityRule(), EpsilonRule(), -2.0, [24.0, 36.0, 36.0]),
    (dtd.Flat(), dtd.Epsilon(), 2.0, [36.0, 36.0, 36.0]),
]


@pytest.mark.parametrize(("one", "two", "first_weight", "expected"), BY_HAND)
def test_rules_of_layers(one: Any, two: Any, first_weight: float, expected: list[float]) -> None:
    relevance = LRP(ruled(one, two, first_weight)).attribute(X)
    assert relevance.dtype == torch.float32
    assert not relevance.requires_grad
    torch.testing.assert_close(relevance, torch.tensor([expected]), rtol=1e-6, atol=0)


def test_a_batch_with_delta() -> None:
    model = ruled(EpsilonRule(), EpsilonRule())
    relevance, delta = LRP(model).attribute(torch.cat([X, 3 * X]), 0, return_convergence_delta=True)
    torch.testing.assert_close(relevance, torch.tensor([[18.0, 36.0, 54.0], [54.0, 108.0, 162.0]]))
    torch.testing.assert_close(delta, torch.zeros(2), rtol=0, atol=1e-4)
    (inside,) = LRP(model).attribute((X,))
    torch.testing.assert_close(inside, torch.tensor([[18.0, 36.0, 54.0]]))


def test_a_convolution_exactly() -> None:
    relevance, delta = LRP(ConvNet()).attribute(PIXELS, 0, return_convergence_delta=True)
    assert delta.item() == 0
    expected = PIXELS.clone()
    expected[..., 3, :] = 0
    expected[..., 0] = 0
    # ε = 1e-9, which float32 would lose, beside sums of at least 4, in two layers; x ≤ 15, in at most 4 windows
    torch.testing.assert_close(relevance, expected, rtol=1e-6, atol=15 * 4 * 2 * 1e-9 / 4)
    exact = CaptumLRP(ConvNet().double()).attribute(PIXELS.double(), 0).detach()
    for found, u in ((relevance, 2.0**-24), (LRP(ConvNet().double()).attribute(PIXELS.double(), 0), 2.0**-53)):
        torch.testing.assert_close(found.double(), exact, rtol=4 * u, atol=15 * 4 * 2 * u)


def test_single_precision_when_asked_for() -> None:
    model = ConvNet()
    network = dtd.from_torch(ConvNet().eval(), PIXELS)
    options = dict(rules=dtd.Epsilon(), convention="captum", domain="nonnegative", backend="cpu", precision="single")
    expected = dtd.explain(network, PIXELS, 0, **options)
    torch.testing.assert_close(LRP(model, precision="single").attribute(PIXELS, 0), expected, rtol=0, atol=0)
    first = LayerLRP(model, next(model.children()), precision="single")
    found = first.attribute(PIXELS, 0, attribute_to_layer_input=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_more_arguments_of_forward() -> None:
    lrp = LRP(ConvNet())
    plain = lrp.attribute(PIXELS, 0)
    for arguments in ((None,), 0, torch.zeros(1)):
        assert torch.equal(lrp.attribute(PIXELS, 0, additional_forward_args=arguments), plain)
    shifted, delta = lrp.attribute(PIXELS, 0, (1.0,), return_convergence_delta=True)
    assert shifted.sum() + delta == ConvNet()(PIXELS + 1)[0, 0]


def test_tanh_and_inplace_relu_pass() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 1, bias=False))
    for layer in (model[0], model[2]):
        nn.init.constant_(layer.weight, 0.1)
    torch.testing.assert_close(LRP(model).attribute(X), torch.tensor([[0.0269, 0.0537, 0.0806]]), rtol=0, atol=1e-4)
    torch.testing.assert_close(LRP(TwoLayers(inplace=True)).attribute(X), LRP(TwoLayers()).attribute(X))


@pytest.mark.parametrize("n_space", [1, 2, 3])
def test_max_pools(n_space: int) -> None:
    pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[n_space - 1](2)
    x = torch.arange(1.0, 1 + 2**n_space).reshape(1, 1, *(2,) * n_space)
    expected = torch.where(x == x.max(), x, 0)
    torch.testing.assert_close(LRP(nn.Sequential(pool)).attribute(x), expected)


def test_a_linear_layer_over_the_last_axis() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.MaxPool1d(2))
    nn.init.constant_(model[0].weight, 2.0)
    relevance = LRP(model).attribute(torch.tensor([[[1.0, 2.0], [5.0, 6.0]]]), target=1)
    torch.testing.assert_close(relevance, torch.tensor([[[0.0, 0.0], [10.0, 12.0]]]))


class Skip(nn.Module):
    def __init__(self, marked: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2, bias=False)
        nn.init.constant_(self.linear.weight, 5.0)
        self.add = Addition_Module() if marked else torch.add

    def forward(self, x: Tensor) -> Tensor:
        return self.add(self.linear(x), x)


@pytest.mark.parametrize(("marked", "captum"), [(True, [10.0, 18.0]), (False, [28 * 10 / 25, 28 * 15 / 25 + 28 * 3])])
def test_additions(marked: bool, captum: list[float]) -> None:
    """y₁ = 28. Unmarked, captum hands 28 to both operands, and what comes over x itself is multiplied by x once
    more.
    """
    model, x = Skip(marked), torch.tensor([[2.0, 3.0]])
    torch.testing.assert_close(LRP(model).attribute(x, target=1), torch.tensor([[10.0, 18.0]]))
    torch.testing.assert_close(
        CaptumLRP(model).attribute(x.clone().requires_grad_(), target=1).detach(), torch.tensor([captum])
    )


def test_the_epsilon_of_an_addition_stands_for_itself() -> None:
    """Its stabiliser and its operand's are two, one after the other."""
    model, x = Skip(marked=True), torch.tensor([[2.0, 3.0]])
    model.linear.rule, model.add.rule = EpsilonRule(0.5), EpsilonRule(0.5)
    theirs = copy.deepcopy(model)
    torch.testing.assert_close(
        LRP(model).attribute(x, 0), CaptumLRP(theirs).attribute(x, 0).detach(), rtol=1e-6, atol=0
    )


def test_gradient_times_input() -> None:
    """ε = 1e-9 on a network without biases: Ancona et al. 2018, proposition 1."""
    model = TwoLayers().eval()
    torch.testing.assert_close(
        LRP(model).attribute(X), InputXGradient(model).attribute(X.clone().requires_grad_()).detach()
    )


def test_layers() -> None:
    model = ConvNet()
    relevance, delta = LayerLRP(model, model.conv).attribute(PIXELS, 0, return_convergence_delta=True)
    theirs = CaptumLayerLRP(copy.deepcopy(model), model.conv)
    theirs.layer = theirs.model.conv
    torch.testing.assert_close(relevance, theirs.attribute(PIXELS, 0).detach())
    torch.testing.assert_close(relevance, torch.tensor([[[[0.0, 4.0], [31.0, 40.0]], [[0.0, 0.0], [-6.0, -15.0]]]]))
    assert delta.tolist() == [0.0]


def test_layers_beside_a_flatten() -> None:
    """The shape is that of the layer's own input, and a Flatten is a layer as well."""
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3))
    behind = LayerLRP(model, model[3]).attribute(PIXELS, 1, attribute_to_layer_input=True)
    before = LayerLRP(model, model[1]).attribute(PIXELS, 1)
    assert (behind.shape, before.shape) == ((1, 18), (1, 2, 3, 3))
    torch.testing.assert_close(behind, before.flatten(1), rtol=0, atol=0)
    torch.testing.assert_close(LayerLRP(model, model[2]).attribute(PIXELS, 1), behind, rtol=0, atol=0)
    torch.testing.assert_close(LayerLRP(model, model[2]).attribute(PIXELS, 1, None, False, True), before)


def test_several_layers() -> None:
    model = TwoLayers()
    lrp = LayerLRP(model, [model.one, model.two])
    relevance, delta = lrp.attribute(
        torch.cat([X, 2 * X]), attribute_to_layer_input=True, return_convergence_delta=True
    )
    torch.testing.assert_close(relevance[0], torch.tensor([[18.0, 36.0, 54.0], [36.0, 72.0, 108.0]]))
    torch.testing.assert_close(relevance[1], torch.tensor([[36.0, 36.0, 36.0], [72.0, 72.0, 72.0]]))
    assert len(delta) == 2
    torch.testing.assert_close(LayerLRP(model, model.one).attribute(X), torch.tensor([[36.0, 36.0, 36.0]]))


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.linear(F.relu(self.linear(x))))


class Unknown(PropagationRule):
    def _manipulate_weights(self, *_: Any) -> None:
        pass


def test_what_is_no_rule() -> None:
    for model in (ruled(1, None), ruled("EpsilonRule", None)):
        with pytest.raises(TypeError, match="'one'"):
            LRP(model)
        with pytest.raises(TypeError, match="'one'"):
            LayerLRP(model, model.two)
    with pytest.raises(TypeError, match="Unknown"):
        LRP(ruled(Unknown(), None)).attribute(X)


def test_activations_without_a_rule() -> None:
    model = TwoLayers()
    model.add_module("sigmoid", nn.Sigmoid())
    with pytest.raises(TypeError, match="Sigmoid 'sigmoid'"):
        LRP(model).attribute(X)
    model.sigmoid.rule = dtd.Pass()
    assert LRP(model).attribute(X).sum() > 0


class Ending(TwoLayers):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(super().forward(x))


@pytest.mark.parametrize("end", [lambda y: y.softmax(1), torch.sigmoid, lambda y: F.softplus(y).sum(1, keepdim=True)])
def test_functions_without_a_rule(end: Callable[[Tensor], Tensor]) -> None:
    """A softmax was left out, and a sigmoid passed, where captum explains what is behind them by a gradient."""
    with pytest.raises(TypeError, match="as a function"):
        LRP(Ending(end)).attribute(X, 0)


def test_a_gate_needs_no_rule() -> None:
    assert LRP(Ending(lambda y: y * torch.sigmoid(2 * y))).attribute(X, 0).any()


def test_refusals() -> None:
    with pytest.raises(RuntimeError, match="more than once"):
        LRP(Reused()).attribute(torch.ones(2, 3), 0)
    with pytest.raises(dtd.InputError, match="several inputs"):
        LRP(ConvNet()).attribute((PIXELS, PIXELS), 0)
    with pytest.raises(dtd.ModelError, match="training mode"):
        LRP(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))).attribute(torch.ones(2, 3), 0)
    with pytest.raises(NotImplementedError):
        LRP(TwoLayers()).attribute_future()
    skip = Skip(marked=True)
    skip.linear.rule = IdentityRule()
    with pytest.raises(dtd.RuleError, match="other ways"):
        LRP(skip).attribute(torch.ones(1, 2), 0)
    with pytest.raises(dtd.RuleError, match=r"\(3,\) into \(1,\)"):
        LRP(ruled(None, IdentityRule())).attribute(X)
    with pytest.raises(dtd.LayerError, match="does not take part"):
        LayerLRP(TwoLayers(), nn.Linear(3, 3)).attribute(X)


def test_float64_is_computed_in_float64() -> None:
    model, x = ConvNet().double(), PIXELS.double() / 7
    theirs = CaptumLRP(copy.deepcopy(model)).attribute(x, 0).detach()
    relevance = LRP(model).attribute(x, 0)
    assert relevance.dtype == torch.float64
    np.testing.assert_allclose(relevance, theirs, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(LRP(model, backend="oracle").attribute(x, 0), theirs, rtol=1e-12, atol=1e-12)
