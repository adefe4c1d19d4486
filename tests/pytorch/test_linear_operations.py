"""What is linear or piecewise linear, and routine: LRP-0 is gradient × input whatever PyTorch calls it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dtdfast as dtd

Function = Callable[[Tensor], Tensor]


def constant(*shape: int) -> Tensor:
    """The same numbers for the same shape."""
    return torch.tensor(np.random.default_rng(shape).standard_normal(shape))


class Between(nn.Module):
    """A ReLU network with a function in its middle."""

    def __init__(self, function: Function, x: Tensor) -> None:
        super().__init__()
        self.function = function
        self.first = nn.Conv2d(3, 4, 3, padding=1) if x.ndim == 4 else nn.Linear(x.shape[-1], 6)
        self.double()
        size = self.function(self.first(x).relu()).flatten(1).shape[1]
        self.last = nn.Linear(size, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x).relu()).flatten(1))


def written_into(y: Tensor) -> Tensor:
    z = torch.zeros_like(y)
    z[:, :2] = y[:, 2:]
    z[:, 3, 1] = 0.5
    return z


def dueling(h: Tensor) -> Tensor:
    advantage = F.linear(h.flatten(1), constant(3, 30))
    return F.linear(h.flatten(1), constant(1, 30)) + advantage - advantage.mean(1, keepdim=True)


IMAGES: dict[str, Function] = {  # (n, 4, 8, 6)
    "bilinear": lambda y: F.interpolate(y, scale_factor=2, mode="bilinear"),
    "bilinear, corners": lambda y: F.interpolate(y, size=(11, 5), mode="bilinear", align_corners=True),
    "bicubic": lambda y: F.interpolate(y, size=(9, 12), mode="bicubic"),
    "nearest to any size": lambda y: F.interpolate(y, size=(5, 9)),
    "area": lambda y: F.interpolate(y, size=(3, 4), mode="area"),
    "the same size": lambda y: F.interpolate(y, size=(8, 6), mode="bilinear"),
    "adaptive mean": lambda y: F.adaptive_avg_pool2d(y, (3, 4)),
    "adaptive mean, larger": lambda y: F.adaptive_avg_pool2d(y, (9, 7)),
    "adaptive maximum": lambda y: F.adaptive_max_pool2d(y, (3, 4)),
    "maximum of two": lambda y: torch.max(y, 2 * y.flip(1)),
    "minimum of two": lambda y: torch.minimum(y, y.roll(1, 2)),
    "maximum and a constant": lambda y: torch.maximum(y, constant(4, 1, 1)),
    "maxout": lambda y: y.view(2, 2, 2, 8, 6).amax(2),
    "mean of channels": lambda y: y.mean(1, keepdim=True) + y,
    "sum of rows": lambda y: y.sum(2),
    "largest channel": lambda y: y.max(1)[0],
    "a difference": lambda y: y - y.mean((2, 3), keepdim=True),
    "add with alpha": lambda y: torch.add(y, y.flip(3), alpha=-0.5),
    "rsub": lambda y: torch.rsub(y, 1.0),
    "stack": lambda y: torch.stack([y, -y], 2).sum(2) + torch.stack([y, y], 1)[:, 0],
    "stack and unbind": lambda y: torch.stack(y.unbind(1), 1),
    "flip": lambda y: y.flip((2, 3)) * constant(4, 8, 6),
    "roll": lambda y: y.roll((2, -1), (2, 3)) * constant(8, 6),
    "index": lambda y: y[:, [3, 0, 0]],
    "index_select": lambda y: y.index_select(3, torch.tensor([5, 1])),
    "pixel_shuffle": lambda y: F.pixel_shuffle(y, 2),
    "pixel_unshuffle": lambda y: F.pixel_unshuffle(y, 2),
    "unfold": lambda y: F.unfold(y, 3, padding=1),
    "where with a mask": lambda y: torch.where(torch.arange(6) > 2, y, 0.5),
    "masked_fill": lambda y: y.masked_fill(torch.arange(8).view(8, 1) < 3, -1.0),
    "clamp from above": lambda y: y.clamp(max=0.3),
    "a table of positions": lambda y: y + constant(1, 4, 8, 6),
    "narrow, select, chunk": lambda y: (
        torch.cat([y.narrow(2, 1, 3), y.chunk(2, 2)[1]], 2) + y.select(1, 2).unsqueeze(1)[:, :, :7]
    ),
    "reflected padding": lambda y: F.pad(y, (1, 2, 0, 1), mode="reflect"),
    "replicated padding": lambda y: F.pad(y, (1, 2, 0, 1), mode="replicate"),
    "padded channels": lambda y: F.pad(y, (0, 0, 0, 0, 1, 2)),
    "a constant beside": lambda y: torch.cat([y, constant(1, 1, 8, 6).expand(2, -1, -1, -1)], 1),
    "no-ops": lambda y: y[...].expand(2, 4, 8, 6).type_as(y).repeat(1, 1, 1, 1).roll(0)[:, :4].contiguous().clone(),
    "cumulative sum": lambda y: y.cumsum(1),
    "absolute": lambda y: (y - 0.3).abs(),
    "antialiased": lambda y: F.interpolate(y, size=(4, 3), mode="bilinear", antialias=True),
    "fold": lambda y: F.fold(F.unfold(y, 3, padding=1), (8, 6), 3, padding=1),
    "fold with a stride": lambda y: F.fold(F.unfold(y, (3, 2), stride=2), (8, 6), (3, 2), stride=2),
    "lerp by a table": lambda y: y.lerp(y.flip(2), constant(4, 1, 1)),
    "addcdiv": lambda y: torch.addcdiv(y, y.flip(1), constant(4, 1, 1).abs() + 1, value=0.5),
    "largest of all but the samples": lambda y: y + y.amax((1, 2, 3), keepdim=True),
    "index_add": lambda y: torch.zeros_like(y[:, :2]).index_add(1, torch.tensor([0, 1, 1, 0]), y, alpha=2),
    "index_copy": lambda y: y.new_ones(2, 5, 8, 6).index_copy(1, torch.tensor([2, 0, 4, 3]), y),
    "diagonals": lambda y: y.mean(3).diag_embed(),
    "second differences": lambda y: y.diff(n=2, dim=2),
    "written into": written_into,
    "coordinates beside": lambda y: torch.cat(
        [y, torch.linspace(-1, 1, 8).double().view(1, 1, 8, 1).expand(2, 1, 8, 6)], 1
    ),
    "einsum of two constants": lambda y: torch.einsum("nchw,cd,he->ndew", y, constant(4, 3), constant(8, 2)),
    "lerp from a constant": lambda y: torch.lerp(constant(6), y, constant(6)),
    "addcmul of constants": lambda y: torch.addcmul(y, constant(6), constant(8, 6), value=2.0),
    "addcdiv of a constant": lambda y: torch.addcdiv(constant(6), y, constant(8, 6), value=2.0),
    "smallest": lambda y: y.amin(1),
    "a standardised kernel": lambda y: F.conv2d(
        y, F.normalize(constant(5, 4, 3, 3) - constant(5, 4, 3, 3).mean((1, 2, 3), keepdim=True))
    ),
}
TOKENS: dict[str, Function] = {  # (n, 5, 6)
    "a matrix from the left": lambda h: constant(5, 5) @ h,
    "einsum": lambda h: torch.einsum("ij,bjk->bik", constant(7, 5), h),
    "einsum, time first": lambda h: torch.einsum("ij,bjk->ibk", constant(7, 5), h).transpose(0, 1),
    "einsum over both": lambda h: torch.einsum("btc,tcd->bd", h, constant(5, 6, 2)),
    "bmm": lambda h: torch.bmm(constant(1, 5, 5).expand(2, 5, 5), h),
    "addmm of constants": lambda h: torch.addmm(
        h.flatten(1), constant(1, 3).expand(2, 3), constant(3, 30), beta=0.5, alpha=2.0
    ),
    "tensordot from the left": lambda h: torch.tensordot(constant(5), h, ([0], [1])),
    "linear on the last axis": lambda h: F.linear(h, constant(3, 6), constant(3)),
    "mean of tokens": lambda h: h.mean(1),
    "first token": lambda h: h[:, 0],
    "a class token": lambda h: torch.cat([constant(1, 1, 6).expand(2, -1, -1), h], 1),
    "positions": lambda h: h + constant(1, 5, 6),
    "transposed twice": lambda h: h.transpose(1, 2).transpose(1, 2) * constant(6),
    "broadcast sum": lambda h: h + h.mean(1, keepdim=True) - h.mean(2, keepdim=True),
    "through the batch axis": lambda h: h.transpose(0, 1).relu().transpose(0, 1),
    "time first": lambda h: (F.linear(h.transpose(0, 1), constant(3, 6), constant(3)) @ constant(3, 2)).mean(0),
    "inner": lambda h: torch.inner(h, constant(3, 6)),
    "dueling": dueling,
    "sums of samples": lambda h: torch.stack(
        [h.sum((1, 2)), h.amax((1, 2)), (2 * h.mean((1, 2)) + 1).relu(), h[:, 0, 0]], 1
    ),
}
CASES = [("image", name, f) for name, f in IMAGES.items()] + [("tokens", name, f) for name, f in TOKENS.items()]


@pytest.mark.parametrize(("kind", "name", "function"), CASES, ids=[f"{k}: {n}" for k, n, _ in CASES])
def test_lrp_0_is_gradient_times_input(kind: str, name: str, function: Function) -> None:
    torch.manual_seed(0)
    x = torch.randn((2, 3, 8, 6) if kind == "image" else (2, 5, 4), dtype=torch.float64)
    module = Between(function, x).eval()
    layers = dtd.from_torch(module, x)
    z = x.clone().requires_grad_()
    outputs = module(z)
    (gradient,) = torch.autograd.grad(outputs[:, 1].sum(), z)
    expected = (gradient * z).detach().numpy()
    found = dtd.explain(layers, x.numpy(), 1, rules="lrp-0", precision="float64")
    np.testing.assert_allclose(
        dtd.predict(layers, x.numpy(), backend="oracle"), outputs.detach().numpy(), rtol=0, atol=1e-12 * 100
    )
    # the same sums in another order: a few hundred roundings of float64, against the whole
    assert np.abs(found - expected).sum() <= 1e-9 * np.abs(expected).sum()
