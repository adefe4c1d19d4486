"""from_torch, operation by operation: the records that it makes (it checks their values itself), and what it
refuses.
"""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dtdfast as dtd
from calls import Calls, Function
from dtdfast.activations import ACTIVATIONS
from dtdfast.importers.records import Value
from dtdfast.importers.torch import reader as importer
from dtdfast.importers.torch.call import Call, Records
from support import kinds

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore:Using padding='same'"
)


def images() -> Tensor:
    return torch.randn((2, 4, 8, 6), generator=torch.Generator().manual_seed(0))


def constant(*shape: int) -> Tensor:
    """Numbers of both signs; not random, which would be refused."""
    return (1 + torch.arange(math.prod(shape))).sin().view(shape)


def attention(x: Tensor) -> Tensor:
    gate = torch.sigmoid(F.linear(x.mean((2, 3)), constant(4, 4)))
    return x * gate.view(2, 4, 1, 1).expand_as(x)


def shuffled(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def in_place(x: Tensor) -> Tensor:
    y = x.clone()
    y.mul_(2.0)
    other = y.view(len(y), -1)
    y.relu_()  # `other` sees it
    return other


def lines(x: Tensor) -> Tensor:
    return x.flatten(2)


OPERATIONS: dict[str, tuple[Function, str]] = {
    "conv2d": (lambda x: F.conv2d(x, constant(6, 2, 3, 3), constant(6), (2, 1), (1, 0), (1, 2), 2), "Conv"),
    "conv2d same": (lambda x: F.conv2d(x, constant(4, 4, 2, 3), padding="same", dilation=(1, 2)), "Conv"),
    "conv1d valid": (lambda x: F.conv1d(lines(x), constant(3, 4, 5), padding="valid"), "Reshape Conv"),
    "conv3d": (lambda x: F.conv3d(x.view(2, 2, 2, 8, 6), constant(3, 2, 2, 3, 3)), "Reshape Conv"),
    "conv_transpose2d": (lambda x: F.conv_transpose2d(x, constant(4, 3, 3, 3), None, 2, 1, 1, 2), "ConvTranspose"),
    "linear": (lambda x: F.linear(x.flatten(1), constant(3, 192), constant(3)), "Flatten Linear"),
    "linear along the last axis": (lambda x: F.linear(x, constant(3, 6), constant(3)), "Linear"),
    "linear layers along the last axis": (lambda x: F.linear(x, constant(3, 6)) @ constant(3, 2), "Linear Linear"),
    "constants along the last axis": (lambda x: x * constant(6) + constant(6), "Scale Scale"),
    "matmul": (lambda x: x.flatten(1) @ constant(192, 3) + constant(3), "Flatten Linear"),
    "mm": (lambda x: x.flatten(1).mm(constant(192, 3)), "Flatten Linear"),
    "addmm": (lambda x: torch.addmm(constant(3), x.flatten(1), constant(192, 3)), "Flatten Linear"),
    "batch_norm": (lambda x: F.batch_norm(x, constant(4), constant(4).exp(), constant(4), constant(4), eps=1e-3),
    "BatchNorm"),
    "local_response_norm": (lambda x: F.local_response_norm(x, 3, 0.1, 0.5, 2.0), "LRN"),
    "local_response_norm 1-d": (lambda x: F.local_response_norm(lines(x), 5), "Reshape LRN"),
    "relu": (lambda x: F.relu(x, inplace=False), "ReLU"),
    "clamp": (lambda x: x.clamp(-1, 1), "clip"),
    "clip by one bound": (lambda x: torch.clip(x, None, 0.3), "Scale ReLU Scale"),
    "clamp by tensors": (lambda x: x.clamp(torch.tensor(-1.0), torch.ones(1)), "clip"),
    "clamp from 0": (lambda x: x.clamp(min=0), "ReLU"),
    "clamp_min": (lambda x: x.clamp_min(0), "ReLU"),
    "relu6": (F.relu6, "clip"),
    "hardtanh": (lambda x: F.hardtanh(x, -0.5, 2.0), "clip"),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), "leaky_relu"),
    "elu": (lambda x: F.elu(x, 0.7), "elu"),
    "silu": (F.silu, "silu"),
    "gelu": (F.gelu, "gelu"),
    "gelu tanh": (lambda x: F.gelu(x, approximate="tanh"), "gelu_tanh"),
    "sigmoid": (torch.sigmoid, "sigmoid"),
    "hardsigmoid": (F.hardsigmoid, "hard_sigmoid"),
    "hardswish": (F.hardswish, "hard_swish"),
    "gelu tanh written out, halved last": (
        lambda x: x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * (x * (x * x))))) / 2, "gelu_tanh"),
    "SiLU by a tanh": (lambda x: 0.5 * (x * (1 + torch.tanh(x / 2))), "silu"),
    "tanh": (torch.tanh, "tanh"),
    "softplus": (lambda x: F.softplus(x, 2.0), "softplus"),
    "clamp from above": (lambda x: x.clamp(max=0.5), "Scale ReLU Scale"),
    "clamp_min, not at 0": (lambda x: x.clamp_min(-0.5), "Scale ReLU Scale"),
    "clamp_max": (lambda x: x.clamp_max(0.5), "Scale ReLU Scale"),
    "clamp by tensors that do not bound": (
        lambda x: F.relu(x.clamp(torch.tensor(-torch.inf), torch.tensor(torch.inf))), "ReLU"),
    "prelu": (lambda x: F.prelu(x, constant(4)), "prelu"),
    "prelu of one slope": (lambda x: F.prelu(x, constant(1)), "leaky_relu"),
    "rrelu": (lambda x: F.rrelu(x, 0.1, 0.4), "leaky_relu"),
    "selu": (F.selu, "selu"),
    "celu": (lambda x: F.celu(x, 0.5), "celu"),
    "mish": (F.mish, "mish"),
    "mish written out": (lambda x: F.softplus(x).tanh() * x, "mish"),
    "threshold": (lambda x: F.threshold(x, 0.1, -0.5), "threshold"),
    "hardshrink": (lambda x: F.hardshrink(x, 0.3), "hard_shrink"),
    "softshrink": (lambda x: F.softshrink(x, 0.3), "soft_shrink"),
    "tanhshrink": (F.tanhshrink, "tanh_shrink"),
    "logsigmoid": (F.logsigmoid, "log_sigmoid"),
    "softsign": (F.softsign, "softsign"),
    "activations of constants": (
        lambda x: F.relu(x * F.hardshrink(constant(6), 0.1) + F.softsign(constant(6))
                         + F.local_response_norm(constant(1, 4, 6), 3)[0][:, None]), "Scale Scale Constant Add ReLU"),
    "softsign written out": (lambda x: x / (1 + x.abs()), "softsign"),
    "glu": (lambda x: F.glu(x, 1), "Slice Slice sigmoid Mul"),
    "hardswish written out": (lambda x: x * F.relu6(x + 3) / 6, "hard_swish"),
    "hardswish written out, divided first": (lambda x: (x / 6) * F.relu6(x + 3), "hard_swish"),
    "hard sigmoid written out": (lambda x: x * (0.2 * x + 0.5).clamp(0, 1), "hard_sigmoid Mul"),
    "gate of 1 + sigmoid": (lambda x: x.tanh() * (1 + x.sigmoid()), "tanh sigmoid Scale Mul"),
    "softmax": (lambda x: x.softmax(1), "Softmax"),
    "dropout": (lambda x: F.dropout(F.relu(x), 0.5, training=False), "ReLU"),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), "MaxPool"),
    "max_pool2d, padded before": (
        lambda x: F.max_pool2d(F.pad(x, (0, 1, 1, 0), value=-torch.inf), 3, 2, (1, 0)), "MaxPool"),
    "max_pool2d, a window beyond": (lambda x: F.max_pool2d(x, (9, 7), 3, ceil_mode=True), "MaxPool"),
    "max_pool2d with indices": (lambda x: F.max_pool2d(x, 2, return_indices=True)[0], "MaxPool"),
    "max_pool1d": (lambda x: F.max_pool1d(lines(x), 3, 1, 1, 2), "Reshape MaxPool"),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1, True, False), "AvgPool"),
    "adaptive to 1": (lambda x: F.adaptive_avg_pool2d(x, 1), "GlobalAvgPool"),
    "adaptive to a divisor": (lambda x: F.adaptive_avg_pool2d(x, (4, 2)), "AvgPool"),
    "adaptive to the same": (lambda x: F.relu(F.adaptive_avg_pool2d(x, (8, 6))), "AvgPool ReLU"),
    "adaptive maximum": (lambda x: F.adaptive_max_pool2d(x, (2, 1)), "MaxPool"),
    "mean": (lambda x: x.mean((2, 3)), "GlobalAvgPool Flatten"),
    "mean of rows": (lambda x: x.mean(-1, keepdim=True), "AvgPool"),
    "amax": (lambda x: x.amax((2, 3)), "MaxPool Flatten"),
    "max over an axis": (lambda x: lines(x).max(2)[0], "Reshape MaxPool Flatten"),
    "abs": (torch.abs, "ReLU Scale ReLU Add"),
    "what only the shape decides": (lambda x: x.relu() + torch.zeros_like(x) * x.new_full((1,), 3.0), "ReLU"),
    "add": (lambda x: x.relu() + x, "ReLU Add"),
    "sum of a list": (lambda x: sum([x, x.relu()]), "ReLU Add"),
    "add_": (lambda x: x.relu().add_(x), "ReLU Add"),
    "mul": (lambda x: x * x.flip(1).sigmoid(), "Gather sigmoid Mul"),
    "squeeze and excitation": (attention, "GlobalAvgPool Flatten Linear sigmoid Reshape Mul"),
    "a gate written out": (lambda x: x * (F.relu6(x.flip(1) + 3) / 6), "Gather hard_sigmoid Mul"),
    "gates of their own input": (lambda x: x * (F.relu6(x + 3) / 6) + x * x.sigmoid(), "hard_swish silu Add"),
    "a gate written out, its parts read": (lambda x: F.relu6(x + 3) / 6 + F.relu6(x + 3), ("hard_sigmoid Scale clip "
    "Add")),
    "not quite a gate": (lambda x: F.relu6(x + 2) / 6, "Scale clip Scale"),
    "constants": (lambda x: (x - constant(4, 1, 1)) / constant(1, 4, 1, 1) * 2 + 1, "Scale Scale Scale Scale"),
    "constants on the left": (lambda x: 1 - (constant(4, 1, 1) * -x), "Scale Scale Scale"),
    "clamp of one number per sample": (lambda x: x.sum((1, 2, 3)).clamp(min=0.2), "Reduce Flatten Scale ReLU Scale"),
    "addcmul of one number per sample": (
        lambda x: (y := x.sum((1, 2, 3))).addcmul(y, torch.tensor(2.0)), "Reduce Flatten Scale Add"),
    "a product of two that are repeated": (
        lambda x: (y := x.mean((2, 3), True).expand_as(x)) * y.sigmoid(), "GlobalAvgPool Expand silu"),
    "a product of two that are repeated alike": (
        lambda x: x.mean((2, 3), True).expand_as(x) * x.amax((2, 3), True).sigmoid().expand_as(x),
        "GlobalAvgPool MaxPool sigmoid Mul Expand"),
    "weight @ x, the batch last": (lambda x: (constant(5, 4) @ x.flatten(2).sum(2).t()).t(), "Reshape Reduce Linear"),
    "weight @ x, the batch within the last axis": (
        lambda x: (constant(5, 4) @ x[:, :, 0].permute(1, 0, 2).flatten(1)).unflatten(1, (-1, 6)).transpose(0, 1),
        "Slice Reshape Linear"),
    "weight @ x, the batch behind others in the last axis": (
        lambda x: (constant(5, 4) @ x[:, :, 0].permute(1, 2, 0).flatten(1)).unflatten(1, (6, -1)).permute(2, 0, 1),
        "Slice Reshape Linear"),
    "repeated before the batch": (
        lambda x: (x.sum((2, 3)).t()[None].expand(3, -1, -1) * constant(3, 4, 1)).permute(2, 0, 1),
        "Reduce Reshape Expand Scale"),
    "neutral constants": (lambda x: (x * 1 + 0).relu(), "ReLU"),
    "cat": (lambda x: torch.cat([x, x.relu(), x], 1), "ReLU Concat"),
    "chunk": (lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), "Slice Slice Concat"),
    "split": (lambda x: x.split([1, 3], 1)[1], "Slice"),
    "split, a piece of it empty": (lambda x: torch.cat(x.split([1, 0, 3], 1)[::-1], 1), "Slice Slice Concat"),
    "a sparse weight": (lambda x: (constant(3, 192).to_sparse() @ x.flatten(1).t()).t(), "Flatten Linear"),
    "zeros in place": (lambda x: [y := x.clone(), y[:, 0].zero_()][0], "Constant Flatten Concat Gather Reshape"),
    "unbind": (lambda x: x.unbind(1)[2], "Slice Reshape"),
    "slice": (lambda x: x[:, 1:3, ::2, :-1], "Slice Slice Slice"),
    "select and unsqueeze": (lambda x: x[:, -1].unsqueeze(1), "Slice"),
    "squeeze": (lambda x: x.mean((2, 3), True).squeeze(-1).squeeze(-1), "GlobalAvgPool Flatten"),
    "pad": (lambda x: F.pad(x, (1, 2)), "Pad"),
    "pad with a value": (lambda x: F.pad(x, (1, 2, 0, 3), value=2.0), "Pad"),
    "permute": (lambda x: x.permute(0, 2, 3, 1), "Permute"),
    "transpose": (lambda x: x.transpose(-1, 1), "Permute"),
    "channel shuffle": (shuffled, "Reshape Permute Reshape"),
    "interpolate": (lambda x: F.interpolate(x, scale_factor=2), "Upsample"),
    "interpolate to a size": (lambda x: F.interpolate(x, size=(16, 18), mode="nearest-exact"), "Upsample"),
    "copies": (lambda x: x.detach().double().contiguous().float().relu(), "ReLU"),
    "reshape of a permuted": (lambda x: x.permute(0, 2, 3, 1).reshape(2, -1), "Permute Flatten"),
    "views alone": (lambda x: x.flatten(1).view(2, 8, -1).reshape(2, 4, 8, 6).relu(), "ReLU"),
    "in place": (in_place, "Scale ReLU Flatten"),
    "power of 1": (lambda x: x.relu() ** 1, "ReLU"),
    "smallest": (lambda x: x.amin(1), "Scale Reduce Scale"),
    "smallest with its places": (lambda x: x.min(2, keepdim=True)[0], "Scale Reduce Scale Reshape"),
    "expand to more axes": (lambda x: x[:, None].expand(2, 3, 4, 8, 6).relu(), "Reshape Expand ReLU"),
    "many windows": (lambda x: x.flatten(1).unfold(1, 3, 2), "Flatten Gather Reshape"),
    "many places of a patch": (lambda x: F.unfold(F.pad(x, (2, 2, 1, 1)), (9, 8)), "Pad Flatten Gather Reshape"),
    "channel_shuffle": (lambda x: torch.channel_shuffle(x, 2), "Reshape Permute Reshape"),
    "all samples": (lambda x: x[0:2].relu(), "ReLU"),
    "an empty part before the batch": (
        lambda x: (y := x.transpose(0, 1), torch.cat([y[4:], y]).transpose(0, 1).relu())[1], "ReLU"),
    "an empty part": (lambda x: torch.cat([x[:, 3:3], x], 1).relu(), "ReLU"),
    "stack with a constant": (lambda x: torch.stack([x[:, 0], constant(8, 6).expand(2, 8, 6)], 1),
                              "Slice Constant Concat"),
    "instance_norm, stored": (lambda x: F.instance_norm(x, constant(4), constant(4).exp(), use_input_stats=False),
                              "BatchNorm"),
    "mean beside its variance": (lambda x: torch.var_mean(x, (2, 3))[1].relu(), "Reduce Flatten ReLU"),
    "softmax under fewer axes": (lambda x: x[:, :1].softmax(-1).squeeze(1) @ constant(6, 3),
                                 "Slice Reshape Softmax Linear"),
}  # fmt: skip


def test_the_vocabulary_of_activations() -> None:
    """Each is made by some operation."""
    made = {word for _, words in OPERATIONS.values() for word in words.split()}
    assert not ACTIVATIONS.keys() - made


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name: str) -> None:
    function, expected = OPERATIONS[name]
    assert kinds(dtd.from_torch(Calls(function).eval(), images())) == expected


REFUSALS: dict[str, tuple[Function, str]] = {
    "random": (lambda x: x + torch.rand(4, 1, 1), "random numbers"),
    "statistics of the batch": (lambda x: F.batch_norm(x, None, None, training=True), "own statistics"),
    "weights from the input": (lambda x: F.conv2d(x, x[:1, :, :2, :2]), "takes the batch apart"),
    "batch into channels": (lambda x: x.reshape(1, -1, 8, 6).relu(), "axis at place 1, merged with others; return it"),
    "quotient": (lambda x: x / (1 + x.relu()), "only a division by constants"),
    "scaled elu": (lambda x: torch.ops.aten.elu(x, 0.5, 2.0, 1.0), "no elu, celu or selu"),
    "softplus that jumps": (lambda x: F.softplus(x, 1.0, 2.0), "at least 20"),
    "sign": (lambda x: x + x.sign(), "a ReLU of x and one of −x"),
    "logsumexp": (lambda x: x.logsumexp(1), "a statistic of the very sample"),
    "a rounding": (lambda x: x % 2, "makes a choice by the data"),
    "even normalisation": (lambda x: F.local_response_norm(x, 2), "only odd sizes"),
    "infinite padding": (lambda x: F.pad(x, (0, 1), value=-torch.inf).relu(), "pads by −∞"),
    "infinite padding and ceil_mode": (
        lambda x: F.max_pool2d(F.pad(x, (0, 1), value=-torch.inf), 2, ceil_mode=True), "pools with ceil_mode"),
    "indices": (lambda x: F.max_pool2d(x, 2, return_indices=True)[1].relu(), "only the first result"),
    "matrices @ x, the batch last": (
        lambda x: constant(8, 5, 4) @ x[..., 0].permute(2, 1, 0), r"shape \(8, 5, 4\) has 4 elements beside the batch"),
    "nothing": (lambda x: x * 1, "there is nothing to explain"),
    "no input": (lambda x: torch.ones(2, 3), "does not depend on its input"),
    "not traceable": (lambda x: x.numpy(), "torch.export cannot read this module"),
    "a branch on the data": (lambda x: x if x.sum() > 0 else -x, ("depends on the data; make the branch to be "
    "explained a module")),
    "dropout in training": (lambda x: F.dropout(x, 0.5, training=True), ("exported in training mode; export the module "
    r"after module.eval\(\), and call F.dropout with training=self.training")),
    "a statistic by itself": (lambda x: torch.cosine_similarity(x, x.flip(1), 3), "a statistic of the very sample"),
    "samples beside channels": (lambda x: F.conv2d(x.reshape(1, -1, 8, 6), torch.ones(1, 8, 1, 1)),
    "the batch .* place 1"),
    "unknown": (lambda x: torch.erfinv(x), r"node erfinv \(aten.erfinv.default\): this operator has no record"),
    "all axes": (lambda x: x.mean().view(1, 1), "it reduces all axes, the batch axis among them"),
    "batch permuted": (lambda x: x.transpose(0, 1), "return it with the batch axis first"),
    "a sum over the batch": (lambda x: x.cumsum(0), "batch axis"),
    "largest of all": (lambda x: x / x.max(), "batch axis|division"),
    "several outputs": (lambda x: (x.relu(), x.tanh()), "the module returns 2 tensors: .* choose one"),
    "a function": (lambda x: x.exp(), "the module's output: exp has no record"),
    "a function transposed": (lambda x: x.exp().transpose(1, 2).log(), r"node transpose .*: exp has no record"),
    "a function multiplied": (lambda x: constant(3, 4) @ x.sum((2, 3)).exp().t(), "node matmul .*: exp has no record"),
    "a function moved": (lambda x: x.exp().reshape(8, 8, 6).flip(1), "node flip .*: exp has no record"),
    "a function summed": (lambda x: torch.einsum("cbhw,cd->dbhw", x.exp().transpose(0, 1), constant(4, 3)),
                          "node einsum .*: exp has no record"),
    "a function repeated": (lambda x: x.exp().repeat_interleave(2, 0), "repeats samples that stand beside"),
    "a size by the data": (lambda x: x.repeat_interleave(torch.tensor([1, 2, 1, 3]), 1),
                           "node repeat_interleave.*: the size of its result is known only when it runs"),
    "samples repeated": (lambda x: x.repeat_interleave(2, 0), "batch axis at place 0, merged with others"),
    "samples torn apart": (lambda x: x.transpose(0, 1).reshape(3, 128).relu(), "tears the batch axis of 2 samples"),
    "a sum of other axes": (lambda x: x[:, :2].mean(3) + x.mean((1, 3)), "give both the same number of axes"),
    "a product of other axes": (lambda x: x[:, :2].mean(3) * x.mean((1, 3)), "give both the same number of axes"),
    "the larger of other axes": (lambda x: torch.maximum(x[:, :2].mean(3), x.mean((1, 3))), "the same number of axes"),
    "a rounded quotient": (lambda x: torch.div(x, 2, rounding_mode="floor"), "it rounds, and only a true division"),
    "a quotient by 0": (lambda x: x / torch.arange(6.0), "it divides by a constant that holds 0"),
    "a quotient by a SiLU": (lambda x: torch.tensor(2.0) / (x * (1 + torch.tanh(x / 2))), "div has no record"),
    "a quotient added": (lambda x: torch.addcdiv(x, x, x.sigmoid()), "only a division by constants"),
    "a computed weight": (lambda x: torch.lerp(x, x.relu(), x.sigmoid()), "its weight is computed"),
    "another power": (lambda x: x.relu() ** 3, "pow has no record"),
    "infinity filled in": (lambda x: x.masked_fill(constant(6) > 0, torch.inf), "fills in infinity or NaN"),
    "a tensor into itself": (lambda x: torch.slice_scatter(x, x, dim=1), "more than one of its operands is computed"),
    "samples more often": (lambda x: x.expand(3, 2, 4, 8, 6).relu(), "the batch axis does not stay first"),
    "samples padded": (lambda x: F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0)), "it pads the batch axis"),
    "padding beside the batch": (lambda x: F.pad(x.transpose(0, 1), (1, 1, 1, 1), mode="reflect"),
                                 "only constant padding is read beside the batch"),
    "a layer over the batch": (lambda x: F.linear(x.permute(1, 2, 3, 0), constant(3, 2)), "the batch is among the"),
    "one sample": (lambda x: x.transpose(0, 1)[:, 0], "it works along the batch axis"),
    "samples chosen": (lambda x: x.transpose(0, 1)[:, torch.tensor([0, 1])], "its operand has the batch at place 1"),
    "samples added": (lambda x: x.index_add(0, torch.tensor([0, 1]), x), "it adds along the batch axis"),
    "differences beside others": (lambda x: x.diff(prepend=x[..., :1]), "without prepend or append"),
    "products of pairs": (lambda x: torch.inner(x, x), "write it as matmul or einsum"),
    "constants first": (lambda x: torch.inner(constant(3, 6), x), r"write x @ w\.T for a constant w"),
    "samples multiplied": (lambda x: x.sum((1, 2, 3)) @ constant(2), "it sums over the batch"),
    "matrices for one": (lambda x: x[:, :1] @ constant(4, 6, 3), r"\(4, 6, 3\) do not meet \(n, 1, 8, 6\) one by one"),
    "samples summed": (lambda x: torch.tensordot(x, constant(3, 2), ([0], [1])), "the batch axis does not stay first"),
    "variance of the batch": (lambda x: x.var(0), "a statistic over the batch axis"),
    "a choice by the data": (lambda x: torch.where(x > 0, x, -x), "a choice by the data"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str) -> None:
    function, message = REFUSALS[name]
    with pytest.raises(dtd.ModelError, match=message):
        dtd.from_torch(Calls(function).eval(), images())


class Twice(nn.Module):
    """One convolution used twice, one part inside another."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.inner(x)) + x


def test_shared_weights_appear_twice_under_their_name() -> None:
    layers = dtd.from_torch(Twice().eval(), images())
    assert kinds(layers) == "Conv ReLU Conv ReLU Add"
    assert [layer.name for layer in layers] == ["inner.0", "inner.1", "inner.0", "inner.1", "add"]
    assert np.array_equal(layers[0].weight, layers[2].weight)
    assert layers[4].inputs == (3, dtd.INPUT)


def test_training_mode_is_refused() -> None:
    module = Twice()
    with pytest.raises(dtd.ModelError, match=r"the module is in training mode; call module.eval\(\) first"):
        dtd.from_torch(module, images())
    module.eval().inner[1].train()
    with pytest.raises(dtd.ModelError, match=r"'inner\.1' is in training mode"):
        dtd.from_torch(module, images())


def test_narrow_weights_are_checked_at_their_own_precision() -> None:
    layers = dtd.from_torch(Twice().eval().bfloat16(), images().bfloat16())
    assert layers[0].weight.dtype == np.float32


def test_arguments_are_checked() -> None:
    module = Twice().eval()
    with pytest.raises(dtd.InputError, match=r"is a ndarray, expected one torch\.Tensor"):
        dtd.from_torch(module, images().numpy())
    with pytest.raises(dtd.InputError, match=r"shape \(4,\)"):
        dtd.from_torch(module, torch.zeros(4))
    with pytest.raises(dtd.ModelError, match=r"expected a torch\.nn\.Module"):
        dtd.from_torch(torch.relu, images())


def test_the_first_entry_that_differs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(records: Records, call: Call) -> Value:
        return records.add(dtd.Activation, call.x(), kind="leaky_relu", alpha=0.3)

    monkeypatch.setitem(importer.HANDLERS, "relu", wrong)
    message = (
        r"layer 1 \(Activation 'inner.1'\) is the first entry that differs from the module \(node relu .*at most 1e-04"
    )
    with pytest.raises(dtd.ModelError, match=message):
        dtd.from_torch(Twice().eval(), images())


def test_torch_is_imported_by_from_torch_alone() -> None:
    code = "import sys, dtdfast; dtdfast.from_torch; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, dtdfast; sys.modules['torch'] = None; dtdfast.from_torch(None, None)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "from_torch needs torch: pip install torch" in done.stderr
