"""iNNvestigate's published rules on Keras layers, by gradients of layers with other weights; Keras runs on PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import torch
from keras import layers as kl
from torch import Tensor

Given = Callable[[Any, Tensor, Tensor], Tensor]  # layer, x, relevance of its output → relevance of x


def _divided(a: Tensor, b: Tensor) -> Tensor:
    return a / torch.where(b == 0, 1e-7, b)


def _back(z: Tensor, x: Tensor, s: Tensor) -> Tensor:
    return torch.autograd.grad(z, x, s)[0]


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_()


def _linear(layer: Any, x: Tensor, weights: Any, bias: Any = None) -> Tensor:
    """A layer without activation, of other weights."""
    plain = type(layer).from_config({**layer.get_config(), "activation": "linear", "use_bias": bias is not None})
    plain.build(x.shape)
    plain.set_weights([weights] if bias is None else [weights, bias])
    return plain(x)


def _signed(epsilon: float | None, positive: bool = False) -> Given:
    """z, ε (a number), and z⁺ with the sign of x."""

    def rule(layer: Any, x: Tensor, r: Tensor) -> Tensor:
        weights, *bias = layer.get_weights()
        x = _leaf(x)
        z = _linear(layer, x, np.maximum(weights, 0)) if positive else _linear(layer, x, weights, *bias)
        s = _divided(r, z) if epsilon is None else r / (z + torch.where(z >= 0, epsilon, -epsilon))
        return x * _back(z, x, s)

    return rule


def _of_weights(change: Callable[[Any], Any]) -> Given:
    """w² and flat."""

    def rule(layer: Any, x: Tensor, r: Tensor) -> Tensor:
        weights, x = change(layer.get_weights()[0]), _leaf(x)
        return _back(_linear(layer, x, weights), x, _divided(r, _linear(layer, torch.ones_like(x), weights)))

    return rule


def _alpha_beta(alpha: float, beta: float, biased: bool) -> Given:
    def rule(layer: Any, x: Tensor, r: Tensor) -> Tensor:
        weights, *bias = layer.get_weights()
        parts = [[np.maximum(w, 0), np.minimum(w, 0)] for w in (weights, *bias[:biased])]
        (up, down), biases = parts[0], list(zip(*parts[1:], strict=True)) or [(), ()]
        positive, negative = _leaf(x.clamp(min=0)), _leaf(x.clamp(max=0))
        result = torch.zeros_like(x)
        for factor, a, b, i in ((alpha, up, down, 0), (-beta, down, up, 1)):
            z1, z2 = _linear(layer, positive, a, *biases[i]), _linear(layer, negative, b, *biases[1 - i])
            s = _divided(r, z1 + z2)
            result = result + factor * (positive * _back(z1, positive, s) + negative * _back(z2, negative, s))
        return result

    return rule


def _box(low: Any, high: Any) -> Given:
    def rule(layer: Any, x: Tensor, r: Tensor) -> Tensor:
        weights = layer.get_weights()[0]
        ends = [_leaf(torch.zeros_like(x) + e) for e in (x, torch.as_tensor(low), torch.as_tensor(high))]
        kinds = weights, np.maximum(weights, 0), np.minimum(weights, 0)
        a, b, c = (_linear(layer, end, w) for end, w in zip(ends, kinds, strict=True))
        s = _divided(r, a - b - c)
        shares = [end * _back(z, end, s) for end, z in zip(ends, (a, b, c), strict=True)]
        return shares[0] - shares[1] - shares[2]

    return rule


_FLAT = _of_weights(np.ones_like)
_A1, _A2 = _alpha_beta(1, 0, True), _alpha_beta(2, 1, True)
KERNELS: dict[str, tuple[Given, Given]] = {  # of dense layers, of convolutions
    "lrp.w_square": (_of_weights(np.square),) * 2,
    "lrp.flat": (_FLAT,) * 2,
    "lrp.alpha_2_beta_1": (_A2,) * 2,
    "lrp.z_plus_fast": (_signed(None, positive=True),) * 2,
    "lrp.sequential_preset_a_flat": (_signed(0.1), _A1),
    "deep_taylor": (_alpha_beta(1, 0, False),) * 2,
    "deep_taylor.bounded": (_alpha_beta(1, 0, False),) * 2,
}


def analyzed(name: str, model: keras.Sequential, x: Any, low: Any = None, high: Any = None) -> Any:
    """The map of the largest output of a chain of layers."""
    values = [torch.tensor(x)]
    for layer in model.layers:
        values.append(layer(values[-1]).detach())
    output, deep = values.pop(), name.startswith("deep_taylor")
    r = torch.where(output == output.max(1, keepdim=True).values, output, 0)
    r = r.clamp(min=0) if deep else r
    for position, layer in reversed(list(enumerate(model.layers))):
        value = _leaf(values[position])
        if hasattr(layer, "kernel"):
            rule = KERNELS[name][not isinstance(layer, kl.Dense)]
            if all(isinstance(before, (kl.Flatten, kl.Permute, kl.Reshape)) for before in model.layers[:position]):
                rule = _FLAT if name.endswith("_flat") else rule if low is None else _box(low, high)
            r = rule(layer, value, r)
        elif isinstance(layer, (kl.AveragePooling2D, kl.GlobalAveragePooling2D)) and not deep:
            z = layer(value)
            r = value * _back(z, value, _divided(r, z))
        elif not (isinstance(layer, kl.Activation) and not deep):
            r = _back(layer(value), value, r)
        r = r.detach()
    return r.numpy()
