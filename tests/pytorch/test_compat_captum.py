"""The drop-in for captum: values worked out by hand, captum itself beside it, and what it refuses."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LRP as CaptumLRP
from captum.attr import InputXGradient, NoiseTunnel
from captum.attr import LayerLRP as CaptumLayerLRP
from captum.attr._utils.custom_modules import Addition_Module
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule, IdentityRule, PropagationRule
from captum.metrics import sensitivity_max
from torch import Tensor, nn
from torch.nn import functional as F

import dtdfast as dtd
from dtdfast.compat.captum import LRP, LayerLRP

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

X = torch.tensor([[1.0, 2.0, 3.0]])
PIXELS = torch.arange(16.0).reshape(1, 1, 4, 4)


class TwoLayers(nn.Module):
    """Linear 2·1 (3 to 3), ReLU, Linear 3·1 (3 to 1), Dropout; by default in training mode."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.one, self.relu, self.two = nn.Linear(3, 3, bias=False), nn.ReLU(inplace), nn.Linear(3, 1, bias=False)
        self.drop = nn.Dropout(0.01)
        nn.init.constant_(self.one.weight, 2.0)
        nn.init.constant_(self.two.weight, 3.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.two(self.relu(self.one(x))))


def ruled(one: Any, two: Any, first_weight: float = 2.0) -> TwoLayers:
    model = TwoLayers()
    model.one.weight.data[0, 0] = first_weight
    model.one.rule, model.two.rule = one, two
    return model


class ConvNet(nn.Module):
    """A convolution whose second channel dies, ReLU, a linear layer, ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 2, 3), nn.Linear(8, 4)
        nn.init.ones_(self.conv.weight)
        self.conv.bias.data = torch.tensor([-50.0, -75.0])
        self.fc.weight.data = torch.cat([torch.ones(4, 5), -torch.ones(4, 3)], 1)
        nn.init.zeros_(self.fc.bias)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        x = x if other is None else x + other
        return self.relu2(self.fc(self.relu1(self.conv(x)).view(-1, 8)))


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
    torch.testing.assert_close(relevance.double(), exact, rtol=2.0**-23, atol=15 * 4 * 2 * 2.0**-53)


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


def test_the_model_stays_as_it_was() -> None:
    model = ruled(GammaRule(), Alpha1_Beta0_Rule())
    model.drop.eval()
    before, modes = copy.deepcopy(model.state_dict()), [part.training for part in model.modules()]
    lrp = LRP(model)
    first = lrp.attribute(X)
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert isinstance(model.one.rule, GammaRule)
    assert torch.equal(lrp.attribute(X), first)


def _by_data(model: TwoLayers) -> None:
    model.one.weight.data[1, 2] = -7.0


def _in_place(model: TwoLayers) -> None:
    with torch.no_grad():
        model.two.weight.mul_(-1.5)


def _new_parameter(model: TwoLayers) -> None:
    model.one.weight = nn.Parameter(torch.full((3, 3), 0.5))


def _new_layer(model: TwoLayers) -> None:
    model.two = nn.Linear(3, 1)


def _new_rule(model: TwoLayers) -> None:
    model.one.rule = GammaRule(2.0)


@pytest.mark.parametrize("change", [_by_data, _in_place, _new_parameter, _new_layer, _new_rule])
def test_changes_between_calls_are_noticed(change: Any) -> None:
    model = TwoLayers().eval()
    model.one.weight.data[0, 0] = -2.0
    lrp = LRP(model)
    before = lrp.attribute(X)
    change(model)
    after = lrp.attribute(X)
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, CaptumLRP(copy.deepcopy(model)).attribute(X).detach())


TARGETS = [None, 1, torch.tensor(1), torch.tensor([1]), torch.tensor([0, 1]), [0, 1], (1,), [(1,), (0,)], -1]


@pytest.mark.parametrize("target", TARGETS[1:], ids=str)
def test_targets(target: Any) -> None:
    model, x = (
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)),
        torch.tensor([[1.0, 2.0, -3.0], [0.5, 1.0, 1.0]]),
    )
    theirs = CaptumLRP(copy.deepcopy(model)).attribute(x, target).detach()
    torch.testing.assert_close(LRP(model).attribute(x, target), theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("target", [(1, 0, 2), [(1, 0, 2), (0, 1, 1)]], ids=str)
def test_targets_of_maps(target: Any) -> None:
    model, x = nn.Conv2d(3, 2, 2), torch.rand(2, 3, 3, 4)
    theirs = CaptumLRP(copy.deepcopy(nn.Sequential(model))).attribute(x, target).detach()
    torch.testing.assert_close(LRP(nn.Sequential(model)).attribute(x, target), theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("target", [None, 7, [0], [0, 1, 1], (0, 0), "1", 1.5, True], ids=str)
def test_targets_that_are_none(target: Any) -> None:
    with pytest.raises(dtd.TargetError):
        LRP(nn.Sequential(nn.Linear(3, 2))).attribute(torch.ones(2, 3), target if target != [0] else [0, 0.5])


def test_layers() -> None:
    model = ConvNet()
    relevance, delta = LayerLRP(model, model.conv).attribute(PIXELS, 0, return_convergence_delta=True)
    theirs = CaptumLayerLRP(copy.deepcopy(model), model.conv)
    theirs.layer = theirs.model.conv
    torch.testing.assert_close(relevance, theirs.attribute(PIXELS, 0).detach())
    torch.testing.assert_close(relevance, torch.tensor([[[[0.0, 4.0], [31.0, 40.0]], [[0.0, 0.0], [-6.0, -15.0]]]]))
    assert delta.tolist() == [0.0]


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


def test_a_layer_that_is_gone_frees_its_layers() -> None:
    """The layers of a model are kept only while the model lives."""
    import gc
    import weakref

    model = nn.Sequential(nn.Linear(3, 2))
    LRP(model).attribute(X, 0)
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


def twins() -> tuple[nn.Sequential, nn.Sequential]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double().eval()
    return model, copy.deepcopy(model)


def test_captums_own_tools_take_it() -> None:
    """NoiseTunnel with its kinds and parts, on layers too, and sensitivity."""
    model, other = twins()
    x, targets = torch.randn(3, 4, dtype=torch.float64), torch.tensor([0, 2, 1])
    for options in (dict(nt_type="smoothgrad"), dict(nt_type="vargrad", nt_samples_batch_size=2), dict(stdevs=0.5)):
        seen = []
        for lrp in (LRP(model), CaptumLRP(copy.deepcopy(other))):
            torch.manual_seed(1)
            seen.append(
                NoiseTunnel(lrp).attribute(x, nt_samples=4, target=targets, return_convergence_delta=True, **options)
            )
        (ours, delta), (theirs, their_delta) = seen
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(delta, their_delta.detach(), rtol=1e-6, atol=1e-9)
    torch.manual_seed(1)
    # captum's own LayerLRP cannot be wrapped
    inner = NoiseTunnel(LayerLRP(model, model[0])).attribute(x, nt_samples=2, target=1)
    torch.manual_seed(1)
    noisy = x.repeat_interleave(2, 0) + torch.normal(0, torch.ones(6, 4))
    torch.testing.assert_close(inner, LayerLRP(model, model[0]).attribute(noisy, target=1).reshape(3, 2, 5).mean(1))
    changes = []
    for lrp in (LRP(model), CaptumLRP(copy.deepcopy(other))):
        torch.manual_seed(1)
        changes.append(sensitivity_max(lrp.attribute, x, target=1, n_perturb_samples=2))
        assert lrp.has_convergence_delta()
        assert lrp.multiplies_by_inputs
    torch.testing.assert_close(*changes, rtol=1e-5, atol=1e-9)


class Shifted(nn.Module):
    """Per-sample or common arguments after the input."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor, shift: Tensor | float = 0.0, scale: Tensor | float = 1.0) -> Tensor:
        return self.two(torch.relu(self.one(x) + shift)) * scale


SHIFTS = [
    (torch.arange(9.0, dtype=torch.float64).reshape(3, 3),),  # one row per sample
    (torch.arange(3.0, dtype=torch.float64),),  # one number per channel, as many as samples
    (torch.ones(1, 3, dtype=torch.float64), 2.0),
    (0.5, torch.tensor([[1.0], [-2.0], [3.0]], dtype=torch.float64)),
]


@pytest.mark.parametrize("arguments", SHIFTS, ids=range(4))
def test_tensors_after_the_input(arguments: tuple[Any, ...]) -> None:
    """Gradient × input sample by sample, also for inner layers and for new values of the same shape."""
    torch.manual_seed(0)
    model, x = Shifted().double().eval(), torch.randn(3, 3, dtype=torch.float64)
    for factor in (1.0, -2.0):
        arguments = tuple(a * factor for a in arguments)
        z = x.clone().requires_grad_()
        outputs = model(z, *arguments)[torch.arange(3), [0, 2, 1]]
        (gradient,) = torch.autograd.grad(outputs.sum(), z)
        relevance, delta = LRP(model).attribute(x, [0, 2, 1], arguments, return_convergence_delta=True)
        torch.testing.assert_close(relevance, (gradient * x).detach(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(delta, (outputs - (gradient * x).sum(1)).detach(), rtol=1e-6, atol=1e-6)
        (inner, last), deltas = LayerLRP(model, [model.one, model.two]).attribute(x, [0, 2, 1], arguments, True, True)
        torch.testing.assert_close(inner, relevance, rtol=1e-6, atol=1e-6)
        assert last.shape == (3, 3)
        assert [d.shape for d in deltas] == [(3,), (3,)]
