"""captum's LRP between calls: targets, changes of the model, what captum's own tools ask of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from captum.attr import LRP as CaptumLRP
from captum.attr import NoiseTunnel
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, GammaRule
from captum.metrics import sensitivity_max
from torch import Tensor, nn

import dtdfast as dtd
from captum_models import TwoLayers, X, ruled
from dtdfast.compat.captum import LRP, LayerLRP


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
