"""The records in PyTorch: an independent forward pass, and a module that PyTorch's explanation tools can hook into.

Layers with weights, pools and activations become modules, because tools recognise layers by module type; what remains
is functional.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dtdfast as dtd
from nets import Net, wiring

Operation = Callable[..., Tensor]


class TorchNet(nn.Module):
    """A network as a PyTorch module in evaluation mode, without gradients of its weights.

    Parameters
    ----------
    net : Net
    dtype : torch.dtype
        Of the weights (copied).
    add : callable
        A module for every Add, where a tool asks for its own kind.
    """

    def __init__(self, net: Net, dtype: torch.dtype = torch.float32, add: Callable[[], nn.Module] | None = None):
        super().__init__()
        self.wiring = tuple(wiring(net.layers))
        self.operations: list[Operation] = []
        global_pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[
            max(len(net.input_shape) - 2, 0)
        ]
        for position, layer in enumerate(net.layers):
            if isinstance(layer, dtd.Add) and add:
                operation = add()
            elif isinstance(layer, dtd.GlobalAvgPool):
                operation = global_pool(1)
            else:
                operation = OPERATIONS[type(layer)](layer, dtype)
            self.operations.append(operation)
            if isinstance(operation, nn.Module):
                self.add_module(f"{position}_{type(layer).__name__}", operation)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        values: list[Tensor] = []
        for operation, operands in zip(self.operations, self.wiring, strict=True):
            values.append(operation(*(x if i == dtd.INPUT else values[i] for i in operands)))
        return values[-1]


def _tensor(array: Any, dtype: torch.dtype) -> Tensor:
    return torch.tensor(np.asarray(array), dtype=dtype)


def _load(module: nn.Module, layer: Any, dtype: torch.dtype) -> nn.Module:
    """A meta module with a record's arrays in the place of its parameters."""
    for key in ("weight", "bias"):
        value = getattr(layer, key)
        setattr(module, key, None if value is None else nn.Parameter(_tensor(value, dtype), requires_grad=False))
    return module


def _symmetric(padding: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    if any(before != after for before, after in padding):
        raise NotImplementedError("asymmetric padding")
    return tuple(before for before, _ in padding)


def _linear(layer: Any, dtype: torch.dtype) -> Operation:
    n_out, n_in = layer.weight.shape
    module = _load(nn.Linear(n_in, n_out, device="meta"), layer, dtype)
    return module if layer.axis == -1 else lambda x: module(x.movedim(layer.axis, -1)).movedim(-1, layer.axis)


def _conv(layer: Any, dtype: torch.dtype) -> nn.Module:
    c_out, c_group, *kernel = layer.weight.shape
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(kernel) - 1]
    padding = _symmetric(layer.padding)
    module = kind(
        c_group * layer.groups, c_out, kernel, layer.stride, padding, layer.dilation, layer.groups, device="meta"
    )
    return _load(module, layer, dtype)


def _conv_transpose(layer: Any, dtype: torch.dtype) -> nn.Module:
    c_in, c_group, *kernel = layer.weight.shape
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[len(kernel) - 1]
    padding = _symmetric(layer.padding)
    module = kind(
        c_in,
        c_group * layer.groups,
        kernel,
        layer.stride,
        padding,
        layer.output_padding,
        layer.groups,
        True,
        layer.dilation,
        device="meta",
    )
    return _load(module, layer, dtype)


def _batch_norm(layer: Any, dtype: torch.dtype) -> Operation:
    arrays = [None if a is None else _tensor(a, dtype) for a in (layer.mean, layer.variance, layer.weight, layer.bias)]
    return lambda x: F.batch_norm(x, *arrays, eps=layer.eps)


def _embedding(layer: Any, dtype: torch.dtype) -> Operation:
    weight = _tensor(layer.weight, dtype)
    return lambda words: F.embedding(words, weight)


def _max_pool(layer: Any, dtype: torch.dtype) -> nn.Module:
    kind = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[len(layer.kernel) - 1]
    return kind(layer.kernel, layer.stride, _symmetric(layer.padding), layer.dilation, ceil_mode=layer.ceil_mode)


def _avg_pool(layer: Any, dtype: torch.dtype) -> nn.Module:
    kind = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[len(layer.kernel) - 1]
    return kind(layer.kernel, layer.stride, _symmetric(layer.padding), layer.ceil_mode, layer.count_include_pad)


def _activation(layer: Any, dtype: torch.dtype) -> nn.Module:
    a, b = layer.alpha, layer.beta
    kinds: dict[str, Callable[[], nn.Module]] = {
        "leaky_relu": lambda: nn.LeakyReLU(a),
        "clip": lambda: nn.Hardtanh(a, b),
        "elu": lambda: nn.ELU(a),
        "threshold": lambda: nn.Threshold(a, b),
        "hard_shrink": lambda: nn.Hardshrink(a),
        "soft_shrink": lambda: nn.Softshrink(a),
        "tanh_shrink": nn.Tanhshrink,
        "selu": nn.SELU,
        "celu": lambda: nn.CELU(a),
        "mish": nn.Mish,
        "log_sigmoid": nn.LogSigmoid,
        "softsign": nn.Softsign,
        "silu": nn.SiLU,
        "gelu": nn.GELU,
        "gelu_tanh": lambda: nn.GELU("tanh"),
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
        "softplus": lambda: nn.Softplus(a),
        "hard_swish": nn.Hardswish,
        "hard_sigmoid": nn.Hardsigmoid,
    }
    return kinds[layer.kind]()


def _slice(layer: Any, dtype: torch.dtype) -> Operation:
    span = slice(layer.start, layer.stop, layer.step)
    return lambda x: x[(slice(None),) * (layer.axis % x.dim()) + (span,)]


def _scale(layer: Any, dtype: torch.dtype) -> Operation:
    scale, shift = _tensor(layer.scale, dtype), _tensor(0.0 if layer.shift is None else layer.shift, dtype)

    def run(x: Tensor) -> Tensor:
        column = (-1, *(1,) * (x.dim() - 2))
        factor, added = (a.reshape(column) if a.dim() < 2 else a for a in (scale, shift))
        return x * factor + added

    return run


def _softmax(layer: Any, dtype: torch.dtype) -> Operation:
    mask = None if layer.mask is None else torch.tensor(np.asarray(layer.mask))

    def run(x: Tensor) -> Tensor:
        if mask is None:
            return x.log_softmax(layer.axis) if layer.log else x.softmax(layer.axis)
        return x.masked_fill(~mask, -torch.inf).softmax(layer.axis).nan_to_num()  # NaN where it keeps nothing

    return run


def _constant(layer: Any, dtype: torch.dtype) -> Operation:
    value = _tensor(layer.value, dtype)[None]
    return lambda: value


def _concat(layer: Any, dtype: torch.dtype) -> Operation:
    def run(*operands: Tensor) -> Tensor:
        n = max(map(len, operands))  # constants have one sample
        return torch.cat([o.expand(n, *o.shape[1:]) for o in operands], layer.axis)

    return run


def _affine(layer: Any, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
    weight, bias = (getattr(layer, key, None) for key in ("weight", "bias"))
    return None if weight is None else _tensor(weight, dtype), None if bias is None else _tensor(bias, dtype)


def _layer_norm(layer: Any, dtype: torch.dtype) -> Operation:
    (weight, bias), n_axes = _affine(layer, dtype), len(layer.axes)
    if sorted(layer.axes) != list(range(-n_axes, 0)):
        raise NotImplementedError("a norm over axes but the last")
    if isinstance(layer, dtd.RMSNorm):
        return lambda x: F.rms_norm(x, x.shape[-n_axes:], weight, layer.eps)
    return lambda x: F.layer_norm(x, x.shape[-n_axes:], weight, bias, layer.eps)


def _group_norm(layer: Any, dtype: torch.dtype) -> Operation:
    weight, bias = _affine(layer, dtype)
    groups = layer.groups if isinstance(layer, dtd.GroupNorm) else None
    return lambda x: F.group_norm(x, groups or x.shape[1], weight, bias, layer.eps)


def _matmul(layer: Any, dtype: torch.dtype) -> Operation:
    def turned(x: Tensor, exchange: bool) -> Tensor:
        return x.transpose(-1, -2) if exchange else x

    return lambda a, b: layer.scale * (turned(a, layer.transpose_a) @ turned(b, layer.transpose_b))


def _reduce(layer: Any, dtype: torch.dtype) -> Operation:
    function = {"mean": torch.mean, "sum": torch.sum, "max": torch.amax}[layer.kind]
    return lambda x: function(x, dim=layer.axes, keepdim=layer.keepdims)


def _gather(layer: Any, dtype: torch.dtype) -> Operation:
    picks = torch.tensor(layer.indices)
    return lambda x: x[(slice(None),) * (layer.axis % x.dim()) + (picks,)]


OPERATIONS: dict[type[dtd.Layer], Callable[[Any, torch.dtype], Operation]] = {
    dtd.Linear: _linear,
    dtd.Conv: _conv,
    dtd.ConvTranspose: _conv_transpose,
    dtd.Embedding: _embedding,
    dtd.BatchNorm: _batch_norm,
    dtd.Scale: _scale,
    dtd.MaxPool: _max_pool,
    dtd.AvgPool: _avg_pool,
    dtd.ReLU: lambda layer, dtype: nn.ReLU(),
    dtd.Activation: _activation,
    dtd.LRN: lambda layer, dtype: nn.LocalResponseNorm(layer.size, layer.alpha, layer.beta, layer.k),
    dtd.LayerNorm: _layer_norm,
    dtd.RMSNorm: _layer_norm,
    dtd.GroupNorm: _group_norm,
    dtd.InstanceNorm: _group_norm,
    dtd.Softmax: _softmax,
    dtd.Dropout: lambda layer, dtype: lambda x: x,
    dtd.Add: lambda layer, dtype: lambda *operands: sum(operands[1:], operands[0]),
    dtd.Mul: lambda layer, dtype: lambda x, gate: x * gate,
    dtd.MatMul: _matmul,
    dtd.Constant: _constant,
    dtd.Concat: _concat,
    dtd.Gather: _gather,
    dtd.Reduce: _reduce,
    dtd.Expand: lambda layer, dtype: lambda x: x.expand(len(x), *layer.shape),
    dtd.Flatten: lambda layer, dtype: lambda x: x.flatten(1),
    dtd.Reshape: lambda layer, dtype: lambda x: x.reshape(len(x), *layer.shape),
    dtd.Permute: lambda layer, dtype: lambda x: x.permute(layer.order),
    dtd.Slice: _slice,
    dtd.Upsample: lambda layer, dtype: lambda x: F.interpolate(x, scale_factor=layer.factor, mode="nearest"),
}
