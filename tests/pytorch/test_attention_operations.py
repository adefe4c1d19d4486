"""Products of two computed operands, softmax, masks and norms, whatever PyTorch calls them: LRP-0 is gradient × input
of the module with attention weights, norms and gates held.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dtdfast as dtd
from calls import Calls, Function
from held import check_held

T, D = 5, 8  # tokens and features in the middle


def constant(*shape: int) -> Tensor:
    """The same numbers for the same shape."""
    return torch.tensor(np.random.default_rng(shape).standard_normal(shape))


class Between(nn.Module):
    """A linear network with a function of tokens (n, 5, 8), or of images (n, 4, 6, 3), in its middle."""

    def __init__(self, function: Function, x: Tensor) -> None:
        super().__init__()
        self.function = function
        self.first = nn.Conv2d(3, 4, 1) if x.ndim == 4 else nn.Linear(x.shape[-1], D)
        self.double()
        self.last = nn.Linear(self.function(self.first(x)).flatten(1).shape[1], 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)).flatten(1))


def heads(h: Tensor, n: int = 2) -> Tensor:
    return h.unflatten(-1, (n, -1)).transpose(1, 2)


def joined(h: Tensor) -> Tensor:
    return h.transpose(1, 2).flatten(2)


UPPER = torch.ones(T, T, dtype=torch.bool).triu(1)
BLIND = UPPER | (torch.arange(T)[:, None] == 2)  # the third row sees nothing


def scores(h: Tensor) -> Tensor:
    return h @ (h * constant(D)).mT / math.sqrt(D)


def sdpa(mask: Tensor | None = None, **options: float | bool) -> Function:
    return lambda h: joined(
        F.scaled_dot_product_attention(heads(h), heads(h * constant(D)), heads(h), mask, **options)  # type: ignore[arg-type]
    )


def pooled(h: Tensor) -> Tensor:
    """Attention with a learned query."""
    query = heads(constant(1, D)[None].expand(len(h), -1, -1))
    return joined(F.scaled_dot_product_attention(query, heads(h * constant(D)), heads(h)))


def queried(h: Tensor) -> Tensor:
    """Learned queries that look at one another first, as in a decoder of objects: constants in evaluation mode."""
    q = heads(constant(T, D).expand(len(h), -1, -1))
    return h + joined(F.scaled_dot_product_attention(q, q, q)) + F.rrelu(constant(D))


def folded(h: Tensor) -> Tensor:
    """Heads beside the samples, as nn.MultiheadAttention has them."""
    q, k, v = (heads(h * constant(i, D)[0]).reshape(-1, T, D // 2) for i in (1, 2, 3))
    weights = torch.baddbmm(torch.zeros(T, T).double().masked_fill(UPPER, -torch.inf), q, k.mT).softmax(-1)
    return torch.bmm(weights, v).view(-1, 2, T, D // 2).mean(1)


def windows(h: Tensor) -> Tensor:
    """Attention within windows, which stand beside the samples for a while."""
    y = h.view(-1, 2, 3, 2, 2, 3).permute(0, 1, 3, 2, 4, 5).reshape(-1, 6, 3)
    y = F.layer_norm(y, (3,), constant(3), constant(3))
    y = (y @ y.mT + constant(6, 6)).softmax(-1) @ y
    mask = torch.arange(2 * 2 * 6).view(4, 1, 6) % 5 > 2
    y = (y.view(-1, 4, 6, 3) * mask.transpose(1, 2)).view(-1, 6, 3)
    return y.view(-1, 2, 2, 3, 2, 3).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 6, 3)


def halves(y: Tensor) -> Tensor:
    """(n·2, 4, 3, 3): two windows beside the samples."""
    return y.view(-1, 4, 2, 3, 3).transpose(1, 2).reshape(-1, 4, 3, 3)


def rotary(h: Tensor) -> Tensor:
    def turned(x: Tensor) -> Tensor:
        low, high = x.chunk(2, -1)
        angles = torch.outer(torch.arange(T), 10.0 ** -torch.arange(2.0)).double().repeat(1, 2)
        return x * angles.cos() + torch.cat([-high, low], -1) * angles.sin()

    q, k = turned(heads(h)), turned(heads(h.flip(2)))
    return joined((q @ k.mT).softmax(-1) @ heads(h))


def complex_rotary(h: Tensor) -> Tensor:
    """As Llama was published."""
    angles = torch.outer(torch.arange(T), 10.0 ** -torch.arange(2.0)).double()

    def turned(x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * torch.polar(torch.full_like(angles, 1.1), angles)).flatten(3)

    q, k = turned(heads(h)), turned(heads(h.flip(2)))
    return joined((q @ k.mT).softmax(-1) @ heads(h))


def gated(h: Tensor) -> Tensor:
    return F.linear(h, constant(6, D)).sigmoid() * F.linear(h, constant(6, D) * 2)


TOKENS: dict[str, Function] = {
    "learned queries": queried,
    "scaled_dot_product_attention": sdpa(),
    "scale": sdpa(scale=0.3),
    "causal": sdpa(is_causal=True),
    "a learned query": pooled,
    "boolean mask": sdpa(~UPPER),
    "a mask for each head": sdpa(torch.stack([~UPPER, UPPER | torch.eye(T).bool()])),
    "a row that sees nothing": sdpa(~BLIND),
    "numbers added": sdpa(constant(T, T)),
    "infinities among them": sdpa(constant(T, T).masked_fill(UPPER, -torch.inf)),
    "the least number": sdpa(torch.zeros(T, T).double().masked_fill(BLIND, torch.finfo(torch.float64).min)),
    "grouped heads": lambda h: joined(
        F.scaled_dot_product_attention(heads(h, 4), heads(h)[..., :2], heads(h)[..., 2:], enable_gqa=True)
    ),
    "repeated heads": lambda h: joined(
        F.scaled_dot_product_attention(
            heads(h, 4), *(x[:, :, None].expand(-1, -1, 2, -1, -1).reshape(-1, 4, T, 2) for x in heads(h).chunk(2, -1))
        )
    ),
    "matmul": lambda h: scores(h).softmax(-1) @ h,
    "masked_fill": lambda h: scores(h).masked_fill(UPPER, -torch.inf).softmax(-1) @ h,
    "masked_fill, finite": lambda h: scores(h).masked_fill(UPPER, -1e4).softmax(-1) @ h,
    "masked_fill of a view": lambda h: scores(h)[:, None].masked_fill(UPPER, -torch.inf).softmax(-1)[:, 0] @ h,
    "masked_fill, the least number": lambda h: (
        scores(h).masked_fill(UPPER, torch.finfo(torch.float64).min).softmax(-1) @ h
    ),
    "where": lambda h: torch.where(~UPPER, scores(h), -torch.inf).softmax(-1) @ h,
    "a mask added": lambda h: (scores(h) + torch.full((T, T), -torch.inf).triu(1)).softmax(-1) @ h,
    "two masks, one softmax": lambda h: (
        (scores(h).masked_fill(UPPER, -torch.inf) / 2).masked_fill(torch.arange(T) == 3, -torch.inf).softmax(-1) @ h
    ),
    "the other axis": lambda h: scores(h).softmax(1).mT @ h,
    "einsum": lambda h: torch.einsum(
        "nhqk,nkhd->nqhd",
        torch.einsum("nqhd,nkhd->nhqk", h.unflatten(2, (2, 4)), h.unflatten(2, (2, 4)) * constant(4)).softmax(-1),
        h.unflatten(2, (2, 4)),
    ),
    "einsum without a sum": lambda h: torch.einsum("nqk,nkd->nqdk", scores(h).softmax(-1), h).sum(3),
    "bmm of merged heads": folded,
    "attention over features": lambda h: h @ (h.mT @ h).softmax(-1),
    "weights that move": lambda h: scores(h).softmax(-1).flip(2).roll(1, 1)[:, :, 1:] @ h[:, 1:],
    "rotary": rotary,
    "rotary, complex numbers": complex_rotary,
    "a gate": gated,
    "gates of pairs": lambda h: (
        h.unsqueeze(1).expand(-1, T, -1, -1) * 2 * h.unsqueeze(2).expand(-1, -1, T, -1).sigmoid()
    ).sum(1),
    "layer_norm": lambda h: F.layer_norm(h, (D,), constant(D), constant(D)),
    "over two axes": lambda h: F.layer_norm(h, (T, D), constant(T, D)),
    "rms_norm": lambda h: F.rms_norm(h, (D,), constant(D)),
    "rms_norm, eps": lambda h: F.rms_norm(h, (D,), None, 0.1),
    "RMSNorm, Llama's": lambda h: (
        constant(D) * (h.float().double() * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 0.1))
    ),
    "RMSNorm, a quotient": lambda h: h / (h.square().mean(-1, keepdim=True) + 0.1).sqrt() * constant(D),
    "RMSNorm, a power": lambda h: h * ((h * h).sum(-1, keepdim=True) / D + 0.1).pow(-0.5),
    "LayerNorm by var": lambda h: (h - h.mean(-1, keepdim=True)) / (h.var(-1, False, True) + 0.1).sqrt(),
    "LayerNorm by its centre": lambda h: (
        (h - h.mean(-1, keepdim=True))
        * torch.rsqrt((h - h.mean(-1, keepdim=True)).pow(2).mean(-1, keepdim=True) + 0.1)
        * constant(D)
        + constant(D)
    ),
    "LayerNorm by std": lambda h: (h - h.mean(-1, keepdim=True)) / h.std(-1, keepdim=True),
    "normalize": lambda h: F.normalize(h, dim=-1),
    "cosines": lambda h: (F.normalize(h, dim=-1) @ F.normalize(h.flip(1), dim=-1).mT * 3).softmax(-1) @ h,
    "time first": lambda h: (F.gelu(F.layer_norm(h.transpose(0, 1), (D,), constant(D))) + constant(T, 1, D)).transpose(
        0, 1
    ),
    "silu": F.silu,
    "tanh": lambda h: h.tanh(),
}
IMAGES: dict[str, Function] = {  # (n, 4, 6, 3)
    "group_norm": lambda y: F.group_norm(y, 2, constant(4), constant(4)),
    "one group": lambda y: F.group_norm(y, 1),
    "instance_norm": lambda y: F.instance_norm(y, weight=constant(4), bias=constant(4)),
    "LayerNorm2d": lambda y: F.layer_norm(y.permute(0, 2, 3, 1), (4,), constant(4)).permute(0, 3, 1, 2),
    "LayerNorm2d by var": lambda y: (
        (y - y.mean(1, keepdim=True)) / (y.var(1, unbiased=False, keepdim=True) + 0.1).sqrt() * constant(4, 1, 1)
    ),
    "windows": windows,
    "a convolution in windows": lambda y: F.conv2d(halves(y), constant(5, 4, 2, 2), constant(5)).view(-1, 2, 5, 2, 2),
    "pools in windows": lambda y: (F.max_pool2d(halves(y), 2, 1) + F.avg_pool2d(halves(y), 2, 1)).view(-1, 2, 4, 2, 2),
    "overlapping windows": lambda y: y.unfold(2, 3, 1).unfold(3, 2, 1),
    "overlapping windows of the channels": lambda y: y.unfold(1, 2, 2),
    "chosen channels of windows": lambda y: halves(y)[:, [2, 0, 3]].view(-1, 2, 3, 3, 3),
    "chosen columns before the batch": lambda y: y.permute(3, 0, 1, 2)[[2, 0, 0]].permute(1, 0, 2, 3),
    "padded windows": lambda y: F.pad(halves(y), (1, 0, 0, 2)).view(-1, 2, 4, 5, 4),
    "BatchNorm beside": lambda y: F.batch_norm(
        y.permute(0, 2, 3, 1).flatten(0, 2), constant(4), constant(4).abs() + 1, constant(4)
    ).view(-1, 18, 4),
    "a sample for all its windows": lambda y: (halves(y) + y.mean((2, 3), keepdim=True).repeat_interleave(2, 0)).view(
        -1, 2, 4, 3, 3
    ),
    "stacked before the samples": lambda y: torch.stack([y, y.flip(1) * 2]).mean(0),
    "channels attend": lambda y: (y.flatten(2) @ y.flatten(2).mT).softmax(-1) @ y.flatten(2),
}
CASES = [("image", name, f) for name, f in IMAGES.items()] + [("tokens", name, f) for name, f in TOKENS.items()]


def example(kind: str) -> Tensor:
    torch.manual_seed(0)
    return torch.randn((2, 3, 6, 3) if kind == "image" else (2, T, 4), dtype=torch.float64)


@pytest.mark.parametrize(("kind", "name", "function"), CASES, ids=[f"{k}: {n}" for k, n, _ in CASES])
def test_lrp_0_is_gradient_times_input_of_the_held_module(kind: str, name: str, function: Function) -> None:
    x = example(kind)
    module = Between(function, x).eval()
    check_held(module, dtd.from_torch(module, x), x, rtol=1e-6 if "Llama" in name else 1e-9)


# ---------------------------------------------------------------------------------------------------- known in pieces

SQRT2, GELU = math.sqrt(2), math.sqrt(2 / math.pi)
WRITTEN: dict[str, tuple[Function, str]] = {
    "gelu": (lambda h: h * 0.5 * (1 + torch.erf(h / SQRT2)), "gelu"),
    "gelu, another order": (lambda h: 0.5 * (h * (1 + torch.erf(h * math.sqrt(0.5)))), "gelu"),
    "gelu by erfc": (lambda h: h * torch.erfc(-h / SQRT2) / 2, "gelu"),
    "gelu by a tanh": (
        lambda h: 0.5 * h * (1 + torch.tanh(GELU * (h + 0.044715 * torch.pow(h, 3.0)))), "gelu_tanh"),
    "gelu by a tanh, products": (
        lambda h: 0.5 * h * (1 + torch.tanh(h * GELU * (1 + 0.044715 * h * h))), "gelu_tanh"),
    "quick gelu": (lambda h: h * torch.sigmoid(1.702 * h), "silu"),
    "silu": (lambda h: h * h.sigmoid(), "silu"),
    "silu by exp": (lambda h: h / (1 + torch.exp(-h)), "silu"),
    "sigmoid by exp": (lambda h: 1 / (1 + (-h).exp()), "sigmoid"),
    "softplus": (lambda h: torch.log1p(h.exp()), "softplus"),
    "mish": (lambda h: h * torch.tanh(torch.log(1 + torch.exp(h))), "mish"),
    "after another": (lambda h: F.relu(h) * 0.5 * (1 + torch.erf(F.relu(h) / SQRT2)), "ReLU gelu"),
    "layer_norm": (lambda h: F.layer_norm(h, (D,), constant(D), constant(D)), "LayerNorm"),
    "layer norm": (
        lambda h: (h - h.mean(-1, keepdim=True)) / (h.var(-1, False, True) + 1e-5).sqrt() * constant(D) + constant(D),
        "LayerNorm"),
    "rms norm": (lambda h: constant(D) * (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)), "RMSNorm"),
    "a scaled product": (lambda h: (h @ h.mT) / 3, "MatMul"),
    "mask and softmax": (lambda h: (h @ h.mT).masked_fill(UPPER, -torch.inf).softmax(-1), "MatMul Softmax"),
    "heads": (
        lambda h: joined(F.scaled_dot_product_attention(heads(h), heads(h), heads(h))),
        "Reshape Permute MatMul Softmax MatMul Permute Reshape"),
}  # fmt: skip


def words(layers: list[dtd.layers.Layer]) -> str:
    return " ".join(getattr(layer, "kind", type(layer).__name__) for layer in layers)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_out_becomes_one_record(name: str) -> None:
    function, expected = WRITTEN[name]
    x = example("tokens")
    module = Between(function, x).eval()
    layers = dtd.from_torch(module, x)
    found = words(layers[1:-2])
    assert found.split() == expected.split() or sorted(set(found.split())) == sorted(set(expected.split()))
    outputs = module(x).detach().numpy()
    np.testing.assert_allclose(dtd.predict(layers, x.numpy(), backend="oracle"), outputs, rtol=0, atol=1e-9)


def test_products_read_their_operands_without_transposing_them() -> None:
    x = example("tokens")
    module = Between(lambda h: h @ h.transpose(1, 2), x).eval()
    (product,) = [layer for layer in dtd.from_torch(module, x) if isinstance(layer, dtd.MatMul)]
    assert product.transpose_b
    assert not product.transpose_a
    assert product.inputs == (0, 0)


def test_moves_of_more_axes_than_records_have() -> None:
    """Two orders of six axes: one that five would do for, and one that they would not."""
    x = torch.randn(2, 3, dtype=torch.float64)
    for order in ((0, 2, 4, 6, 1, 3, 5), (0, 6, 4, 2, 5, 3, 1)):
        first = nn.Linear(3, 96).double()
        module = Calls(lambda x, f=first, o=order: f(x).view(-1, 2, 2, 3, 2, 2, 2).permute(o).reshape(-1, 12, 8))
        layers = dtd.from_torch(module.eval(), x)
        np.testing.assert_allclose(
            dtd.predict(layers, x.numpy(), backend="oracle"), module(x).detach().numpy(), rtol=0, atol=1e-12
        )


def test_batches_of_any_size() -> None:
    """Heads and windows beside the samples: the list knows which axis is the batch, whatever the example's size."""
    for kind, function in (("image", windows), ("tokens", folded)):
        x = example(kind)
        module = Between(function, x).eval()
        layers = dtd.from_torch(module, x[:1])
        more = torch.cat([x, -x, 2 * x])[:5]
        np.testing.assert_allclose(
            dtd.predict(layers, more.numpy(), backend="oracle"), module(more).detach().numpy(), rtol=0, atol=1e-12
        )


# ----------------------------------------------------------------------------------------------------------- refusals

REFUSALS: dict[str, tuple[Function, str]] = {
    "a mask that nothing keeps": (lambda h: scores(h).masked_fill(UPPER, -torch.inf).relu(), "fills in infinity"),
    "a deviation and more": (lambda h: (h - h.mean(-1, keepdim=True)) / (h.std(-1, keepdim=True) + 1e-3), "std has no"),
    "exp": (lambda h: torch.exp(h), "exp has no record, and no known activation or norm is made of it"),
    "a softmax written out": (
        lambda h: h.exp() / h.exp().sum(-1, keepdim=True), "exp has no record, and no known activation"),
    "divided by another's norm": (
        lambda h: h.flip(1) / (h.square().mean(-1, keepdim=True) + 1.0).sqrt(), "sqrt has no record"),
    "samples attend to samples": (
        lambda h: (h.flatten(1) @ h.flatten(1).T).softmax(-1) @ h.flatten(1), "batch axes stand in different"),
    "matrices of other ranks": (lambda h: h[:, None] @ h.mT, "the batch first and a matrix last"),
    "an outer product": (lambda h: torch.tensordot(h, h, dims=([2], [2])), "write it as matmul or einsum"),
    "a norm over the samples": (lambda h: F.layer_norm(h, (2, T, D)), "over the batch axis"),
    "a norm of another order": (lambda h: h / h.norm(1, -1, keepdim=True), "norm of order 1"),
    "dropout": (
        lambda h: F.scaled_dot_product_attention(h, h, h, dropout_p=0.5), "it draws a dropout of 0.5"),
    "dropout of constants": (
        lambda h: h + F.scaled_dot_product_attention(*3 * [constant(1, T, D)], dropout_p=0.5), "it draws random"),
    "a softmax of nothing": (
        lambda h: scores(h).masked_fill(BLIND, -torch.inf).softmax(-1) @ h, "the module itself gives NaN or infinity"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str) -> None:
    function, message = REFUSALS[name]
    x = example("tokens")
    with pytest.raises(dtd.ModelError, match=message):
        dtd.from_torch(Between(function, x).eval(), x)
