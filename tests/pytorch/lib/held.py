"""Autograd with attention weights, norms and gates held: gradient × input then is LRP-0 under attention="held"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import dtdfast as dtd

CONSTANTS = ("softmax", "sigmoid", "std", "sqrt", "rsqrt", "norm", "linalg_vector_norm")
PASSING = ("gelu", "silu", "tanh")


def _scaled(x: Tensor, axes: Sequence[int], eps: float) -> Tensor:
    """x divided by the root of its mean square, which is a constant."""
    return x / (x.square().mean(list(axes), keepdim=True) + eps).sqrt().detach()


def _centred(x: Tensor, axes: Sequence[int], eps: float) -> Tensor:
    return _scaled(x - x.mean(list(axes), keepdim=True), axes, eps)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None, channels: bool) -> Tensor:
    column = (-1, *(1,) * (x.ndim - 2)) if channels else None
    for value, apply in ((weight, torch.mul), (bias, torch.add)):
        if value is not None:
            x = apply(x, value.reshape(column) if column else value)
    return x


def layer_norm(x: Tensor, shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    return _affine(_centred(x, range(-len(shape), 0), eps), weight, bias, channels=False)


def rms_norm(x: Tensor, shape: Sequence[int], weight: Any = None, eps: float | None = None) -> Tensor:
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    return _affine(_scaled(x, range(-len(shape), 0), eps), weight, None, channels=False)


def group_norm(x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    grouped = x.reshape(len(x), groups, -1)
    return _affine(_centred(grouped, [2], eps).reshape(x.shape), weight, bias, channels=True)


def instance_norm(x: Tensor, *stored: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, **_: Any) -> Tensor:
    return _affine(_centred(x, range(2, x.ndim), eps), weight, bias, channels=True)


def attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    if enable_gqa:
        k, v = (x.repeat_interleave(q.shape[-3] // x.shape[-3], -3) for x in (k, v))
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1).nan_to_num(0.0).detach() @ v


WHOLE: dict[str, Callable[..., Tensor]] = {
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "scaled_dot_product_attention": attention,
    "normalize": lambda x, p=2.0, dim=1, eps=1e-12, out=None: x / x.norm(p, dim, keepdim=True).clamp_min(eps).detach(),
}


class Held(TorchFunctionMode):
    """Every call of PyTorch within takes the factors of attention, norms, gates and activations for constants.

    Parameters
    ----------
    gates : activations that make the gate of a product, and take no relevance
    """

    def __init__(self, gates: Sequence[str] = ()) -> None:
        super().__init__()
        self.gates = gates

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        if name in WHOLE:
            return WHOLE[name](*args, **kwargs)
        if name == "multi_head_attention_forward":  # whose own calls are wanted
            with mock.patch.object(F, "has_torch_function", return_value=False), self:
                return function(*args, **kwargs)
        result = function(*args, **kwargs)
        if name in CONSTANTS or name in self.gates or (name == "pow" and args[1] == -0.5):
            return result.detach()
        if name in PASSING:
            x = args[0]
            return x * torch.where(x == 0, 0.5, result / torch.where(x == 0, 1.0, x)).detach()
        return result


def held_relevance(module: nn.Module, x: Tensor, start: Tensor, gates: Sequence[str] = ()) -> Any:
    """x ⊙ ∂(start·outputs)/∂x with everything held, summed over an Embedding's numbers where x holds words."""
    reads: list[Tensor] = []

    def keep(part: nn.Module, given: Any, made: Tensor) -> Tensor:
        if given[0].shape == x.shape and not reads:
            reads.append(made.detach().requires_grad_())
            return reads[0]
        return made

    if x.is_floating_point():
        reads.append(x.clone().requires_grad_())
    handles = [part.register_forward_hook(keep) for part in module.modules() if isinstance(part, nn.Embedding)]
    with Held(gates):
        outputs = module(reads[0] if x.is_floating_point() else x)
    for handle in handles:
        handle.remove()
    (gradient,) = torch.autograd.grad((outputs * start).sum(), reads[0])
    relevance = (gradient * reads[0]).detach()
    return (relevance if x.is_floating_point() else relevance.sum(-1)).numpy()


def check_held(
    module: nn.Module, layers: list[Any], x: Tensor, gates: Sequence[str] = (), rtol: float = 1e-9, *, held: bool = True
) -> None:
    """`predict` is the module's output; the maps of "lrp-0" and "cp-lrp" are gradient × input of the held module,
    where that is written easily (`held`).
    """
    outputs = module(x).detach()
    predicted = dtd.predict(layers, x.numpy(), backend="oracle").reshape(outputs.shape)
    np.testing.assert_allclose(predicted, outputs.numpy(), rtol=0, atol=rtol * float(outputs.abs().max()))
    if not held:
        return
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(outputs.shape, generator=generator, dtype=outputs.dtype)
    expected = held_relevance(module, x, start, gates)
    for rules in ("lrp-0", "cp-lrp"):
        found = dtd.explain(layers, x.numpy(), start.numpy() * predicted, rules=rules, backend="oracle")
        assert np.abs(found - expected).sum() <= rtol * np.abs(expected).sum()
        assert np.abs(expected).max() > 0
