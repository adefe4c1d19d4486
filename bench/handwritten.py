"""z+ written by hand in PyTorch, as tightly as PyTorch allows: the strongest rival on the CPU.

BatchNorms folded, weights clamped once, channels-last, no autograd and no hooks, pool winners kept from the forward
pass; the negative half of z+ only where a layer's input may be negative. It computes what dtdfast's "dtd" preset does:
an Add is one neuron with the convolutions that only it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

import dtdfast as dtd
from nets import Net, readers
from torch_reference import TorchNet

TINY = 1e-30  # makes 0/0 zero: numerators of a zero denominator are zero too


def channels_last(images: NDArray[np.float32]) -> Tensor:
    x = torch.from_numpy(images)
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


class ZPlus:
    """The explanation of one output of a 2-d network whose input is not negative.

    Parameters
    ----------
    net : Net
        Without BatchNorms.
    """

    def __init__(self, net: Net):
        self.layers = net.layers
        self.module = TorchNet(net).to(memory_format=torch.channels_last)
        self.operations = self.module.operations
        self.wiring = self.module.wiring
        self.read_by = readers(net.layers)
        self.weights = {
            p: (operation.weight.clamp(min=0), operation.weight.clamp(max=0))
            for p, operation in enumerate(self.operations)
            if isinstance(operation, (nn.Conv2d, nn.Linear))
        }
        self.nonnegative = self._signs()

    def _signs(self) -> list[bool]:
        """Which entries are known not to be negative."""
        signs: list[bool] = []
        for p, (layer, operands) in enumerate(zip(self.layers, self.wiring, strict=True)):
            clipped = isinstance(layer, dtd.ReLU) or (isinstance(layer, dtd.Activation) and layer.kind == "clip")
            signs.append(clipped or (p not in self.weights and all(i == dtd.INPUT or signs[i] for i in operands)))
        return signs

    def __call__(self, images: NDArray[np.float32], target: int) -> NDArray[np.float32]:
        with torch.no_grad():
            return self._explain(channels_last(images), target).contiguous().numpy()

    def _explain(self, x: Tensor, target: int) -> Tensor:
        values: list[Tensor] = []
        winners: dict[int, Tensor] = {}
        for p, (operation, operands) in enumerate(zip(self.operations, self.wiring, strict=True)):
            a = [x if i == dtd.INPUT else values[i] for i in operands]
            if isinstance(operation, nn.MaxPool2d):
                value, winners[p] = F.max_pool2d(
                    a[0],
                    operation.kernel_size,
                    operation.stride,
                    operation.padding,
                    ceil_mode=operation.ceil_mode,
                    return_indices=True,
                )
            elif isinstance(operation, nn.ReLU) and self.read_by[operands[0]] == [p]:
                value = F.relu_(a[0])
            else:
                value = operation(*a)
            values.append(value)
        read = [*values, x]  # by position; the input stands last, where dtd.INPUT = -1 finds it
        start = torch.zeros_like(values[-1])
        start[:, target] = values[-1][:, target]
        relevance: dict[int, Tensor] = {len(values) - 1: start}

        def give(to: int, r: Tensor) -> None:
            relevance[to] = relevance[to] + r if to in relevance else r

        for p in reversed(range(len(values))):
            if p not in relevance:
                continue
            r = relevance.pop(p)
            operation, operands = self.operations[p], self.wiring[p]
            i = operands[0]
            if p in self.weights:
                self._neuron(read, [p], [], r, give)
            elif isinstance(self.layers[p], dtd.Add):
                own = [q for q in operands if q in self.weights and self.read_by[q] == [p]]
                self._neuron(read, own, [q for q in operands if q not in own], r, give)
            elif p in winners:
                give(i, _unpool(r, read[i], operation, winners[p]))
            elif isinstance(operation, nn.AdaptiveAvgPool2d):
                positive = read[i] if self._is_nonnegative(i) else read[i].clamp(min=0)
                give(i, positive * (r / positive.sum((2, 3), keepdim=True).add_(TINY)))
            elif isinstance(self.layers[p], dtd.Concat):
                for q, part in zip(operands, r.split([read[q].shape[1] for q in operands], 1), strict=True):
                    give(q, part)
            else:
                give(i, r.reshape(read[i].shape))
        return relevance[dtd.INPUT]

    def _is_nonnegative(self, position: int) -> bool:
        return position == dtd.INPUT or self.nonnegative[position]

    def _neuron(
        self,
        read: Sequence[Tensor],
        linear: Sequence[int],
        taps: Sequence[int],
        r: Tensor,
        give: Callable[[int, Tensor], None],
    ) -> None:
        """R_i = sum over signs of x_i (w^T s), s = R / z, z = sum (x w)+, over linear layers and taps of weight 1 of
        one neuron.
        """
        parts = []  # (linear layer, operand, its non-negative or non-positive half, the weights of that sign)
        for p in linear:
            (i,) = self.wiring[p]
            positive, negative = self.weights[p]
            if self._is_nonnegative(i):
                parts.append((p, i, read[i], positive))
            else:
                parts += [(p, i, read[i].clamp(min=0), positive), (p, i, read[i].clamp(max=0), negative)]
        halves = [(i, read[i] if self._is_nonnegative(i) else read[i].clamp(min=0)) for i in taps]
        terms = chain((self._product(p, x, w) for p, _, x, w in parts), (x for _, x in halves))
        z = next(terms) if parts else next(terms).clone()
        for term in terms:
            z += term
        s = torch.div(r, z.add_(TINY), out=z)  # every fresh large tensor costs page faults
        for p, i, x, w in parts:
            give(i, self._transposed(p, x, w, s).mul_(x))
        for i, x in halves:
            give(i, x * s)

    def _product(self, p: int, x: Tensor, w: Tensor) -> Tensor:
        operation = self.operations[p]
        if isinstance(operation, nn.Linear):
            return F.linear(x, w)
        return F.conv2d(x, w, None, operation.stride, operation.padding, operation.dilation, operation.groups)

    def _transposed(self, p: int, x: Tensor, w: Tensor, s: Tensor) -> Tensor:
        operation = self.operations[p]
        if isinstance(operation, nn.Linear):
            return s @ w
        return conv2d_input(x.shape, w, s, operation.stride, operation.padding, operation.dilation, operation.groups)


def _unpool(r: Tensor, x: Tensor, pool: nn.MaxPool2d, winners: Tensor) -> Tensor:
    """Every window's relevance to its winner."""
    kernel, stride, padding = (
        [value] * 2 if isinstance(value, int) else list(value)
        for value in (pool.kernel_size, pool.stride, pool.padding)
    )
    return torch.ops.aten.max_pool2d_with_indices_backward(
        r, x, kernel, stride, padding, [1, 1], pool.ceil_mode, winners
    )
