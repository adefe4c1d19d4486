"""from_torch where its example does not show what the module does with other inputs: far from 0, near 0, or in batches
of another size.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import dtdfast as dtd
from calls import Calls, Function


def imported(function: Function) -> list[dtd.Layer]:
    return dtd.from_torch(Calls(function).eval(), torch.linspace(-2, 2, 12).reshape(3, 4))


FAR: dict[str, Function] = {
    "softplus of what is bounded above": lambda x: torch.log1p(x.clamp(max=20).exp()),
    "softplus of what is bounded on both sides": lambda x: torch.log(1 + x.clamp(-30, 15).exp()),
    "sigmoid of what is bounded": lambda x: 1 / (1 + torch.exp(-x.clamp(-12, 12))),
    "silu of what is bounded": lambda x: x.clamp(-25, 25) / (1 + torch.exp(-x.clamp(-25, 25))),
    "bounds per feature, some of them infinite": lambda x: x.clamp(
        torch.tensor([-math.inf, 0.0, -1.0, 9.0]), torch.tensor([0.1, math.inf, 0.5, 99.0])
    ),
    "a maximum with -inf for one": lambda x: torch.maximum(x, torch.tensor([-math.inf, 0.0, -1.0, 1.0])),
    "a minimum with inf for one": lambda x: torch.minimum(x, torch.tensor([math.inf, 0.0, -1.0, 1.0])),
    "a bound of half precision": lambda x: x.clamp(max=65504.0),
    "a bound of half precision from below": lambda x: x.clamp(min=-65504.0),
}


@pytest.mark.parametrize("name", FAR)
def test_far_from_0(name: str) -> None:
    x = torch.cat([torch.linspace(-300, 300, 60), torch.tensor([-1e5, -9e4, 9e4, 1e5])]).reshape(4, -1).t()
    expected = FAR[name](x.double())
    finite = expected.isfinite().numpy()
    found = dtd.predict(imported(FAR[name]), x.numpy())
    # x + bound − bound, and e^x of a rounded x
    np.testing.assert_allclose(found[finite], expected.numpy()[finite], rtol=1e-5, atol=1e-5)


NEAR: dict[str, Function] = {
    "a length bounded below": lambda x: F.normalize(x, dim=1, eps=0.05),
    "a mean of squares bounded below": lambda x: x * x.square().mean(1, keepdim=True).clamp(min=1e-4).rsqrt(),
}


@pytest.mark.parametrize("name", NEAR)
def test_norms_near_0_are_refused(name: str) -> None:
    """Their records have no such bound; the example is too long to meet it."""
    with pytest.raises(dtd.ModelError, match="no known activation or norm is made of it"):
        imported(NEAR[name])


SMALL: dict[str, Function] = {
    "bounded to guard against 0 alone": lambda x: F.normalize(x, dim=1),
    "a small number is added": lambda x: x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt(),
}


@pytest.mark.parametrize("name", SMALL)
def test_norms_of_what_is_small(name: str) -> None:
    x = 1e-4 * torch.linspace(-2, 2, 12).reshape(3, 4)
    np.testing.assert_allclose(dtd.predict(imported(SMALL[name]), x.numpy()), SMALL[name](x), rtol=1e-5)


def deviated(x: torch.Tensor, guard: float) -> torch.Tensor:
    """The norm of the Annotated Transformer."""
    return 2 * (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + guard)


def test_a_guard_beside_a_deviation() -> None:
    """It is taken for its square beside the variance, which is the same to 1e-6 of the deviation."""
    x = torch.linspace(-2, 2, 12).reshape(3, 4)
    np.testing.assert_allclose(
        dtd.predict(imported(lambda x: deviated(x, 1e-6)), x.numpy()), deviated(x, 1e-6), rtol=1e-5
    )
    with pytest.raises(dtd.ModelError, match="std has no record"):
        imported(lambda x: deviated(x, 1e-5))


BATCHES: dict[str, Function] = {
    "a division by their number": lambda x: x / len(x),
    "another branch for one alone": lambda x: 2 * x if len(x) > 1 else x,
    "a term that one alone has not": lambda x: 2 * x + (len(x) - 1),
}


@pytest.mark.parametrize("n_batch", [1, 2])
@pytest.mark.parametrize("name", BATCHES)
def test_modules_that_count_samples_are_refused(name: str, n_batch: int) -> None:
    with pytest.raises(dtd.ModelError, match="when it is called with a sample fewer; explain one that does not mix"):
        dtd.from_torch(Calls(BATCHES[name]).eval(), torch.ones(n_batch, 4))
