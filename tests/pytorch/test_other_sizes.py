"""Lists imported at one shape of sample and used at another: refused, or what the model computes there."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl
from torch import Tensor, nn
from torch.nn import functional as F

import dtdfast as dtd

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

TOKENS, IMAGES = ((8, 6), (10, 6), (13, 6), (16, 6)), ((3, 8, 8), (3, 12, 12), (3, 9, 9), (3, 4, 16), (3, 11, 8))


class Net(nn.Module):
    """A function of x, of a linear layer, and of a convolution with and without a stride."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.linear, self.conv, self.strided = nn.Linear(6, 5), nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, 2)
        self.norm = nn.LayerNorm(6)
        nn.init.normal_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def padded(x: Tensor) -> Tensor:
    """With what TensorFlow pads before a kernel of 3 and a stride of 2."""
    around = [max((math.ceil(s / 2) - 1) * 2 + 3 - s, 0) for s in x.shape[:1:-1]]
    return F.pad(x, [p for t in around for p in (t // 2, t - t // 2)])


def encoder(net: Any, x: Tensor) -> Tensor:
    q = net.linear(net.norm(x))
    return (torch.softmax(q @ q.transpose(1, 2) / math.sqrt(5), -1) @ q)[:, 0]


# what must be answered at other sizes
SAME = {
    "convolutions": (lambda net, x: net.strided(F.max_pool2d(net.conv(x).relu()[:, :3], 2, 1)), IMAGES),
    "mean of the image": (lambda net, x: F.adaptive_avg_pool2d(net.conv(x).relu(), 1), IMAGES),
    "normalised": (lambda net, x: net.conv((x / 255 - torch.tensor([[[0.5]], [[0.4]], [[0.3]]])) / 0.25), IMAGES),
    "upsampled": (lambda net, x: F.interpolate(net.conv(x), scale_factor=2), IMAGES),
    "channels": (lambda net, x: net.conv(x).chunk(2, 1)[1].flip(1), IMAGES),
    "encoder": (encoder, TOKENS),
    "attention": (lambda net, x: F.scaled_dot_product_attention(*[net.linear(x)] * 3).mean(1), TOKENS),
    "features": (lambda net, x: net.linear(x.roll(2, -1))[..., 1:4], TOKENS),
}  # fmt: skip
OTHER = {
    "last": (lambda net, x: net.linear(x[:, -1]), TOKENS),
    "a fixed token": (lambda net, x: net.linear(x[:, 7]), TOKENS),
    "all but the first": (lambda net, x: net.linear(x[:, 1:]).mean(1), TOKENS),
    "every other": (lambda net, x: net.linear(x[:, ::2]).sum(1), TOKENS),
    "flip": (lambda net, x: net.linear(x.flip(1)), TOKENS),
    "roll": (lambda net, x: net.linear(x.roll(1, 1)), TOKENS),
    "chunk": (lambda net, x: net.linear(x.chunk(2, 1)[0]).sum(1), TOKENS),
    "divided": (lambda net, x: net.linear(x.sum(1) / x.shape[1]), TOKENS),
    "divided, inside a norm": (lambda net, x: net.norm(x).sum(1) / x.shape[1], TOKENS),
    "one number": (lambda net, x: net.linear(x).sum(1) + x.shape[1], TOKENS),
    "root": (lambda net, x: net.linear(x.sum(1)) * x.shape[1] ** -0.5, TOKENS),
    "logarithm": (lambda net, x: net.linear(x.mean(1)) * math.log(x.shape[1]), TOKENS),
    "of all but one": (lambda net, x: net.linear(x.sum(1)) / (x.shape[1] - 1), TOKENS),
    "repeated": (lambda net, x: x.mean(1, keepdim=True).expand(-1, x.shape[1], -1).sum(1), TOKENS),
    "scaled attention": (lambda net, x: (torch.softmax(x @ x.mT * x.shape[1] ** -0.5, -1) @ x).sum(1), TOKENS),
    "focus": (lambda net, x: net.conv(x[..., ::2, ::2]), IMAGES),
    "sum of the image": (lambda net, x: net.conv(x).sum((2, 3)) / (x.shape[2] * x.shape[3]), IMAGES),
    "adaptive maximum": (lambda net, x: F.adaptive_max_pool2d(net.conv(x), 1), IMAGES),
    "adaptive means": (lambda net, x: F.adaptive_avg_pool2d(net.conv(x), 2).sum((2, 3)), IMAGES),
    "adaptive to its own size": (lambda net, x: F.adaptive_max_pool2d(net.conv(x), 8).sum((2, 3)), IMAGES),
    "maximum of the image": (lambda net, x: F.max_pool2d(net.conv(x), x.shape[2:]), IMAGES),
    "a size": (lambda net, x: F.interpolate(net.conv(x), size=(16, 16)).sum((2, 3)), IMAGES),
    "padded": (lambda net, x: net.strided(padded(x)), IMAGES),
    "padded maximum": (lambda net, x: F.max_pool2d(padded(x.abs()), 3, 2), IMAGES),
    "tiles": (lambda net, x: net.conv(x)[:, :3].flatten(2).mT.unflatten(1, (8, 8)).sum(1), IMAGES[:1] + IMAGES[3:4]),
}  # fmt: skip


@pytest.mark.parametrize("name", [*SAME, *OTHER])
def test_another_shape_is_answered_as_the_module_does_or_refused(name: str) -> None:
    function, shapes = (SAME | OTHER)[name]
    net, answered = Net(function).eval(), 0
    layers = dtd.from_torch(net, torch.randn(1, *shapes[0]))
    for shape in shapes:
        x = torch.randn(2, *shape)
        try:
            given = dtd.predict(layers, x.numpy())
        except dtd.ShapeError:
            assert shape != shapes[0]
            continue
        np.testing.assert_allclose(given, net(x).detach().numpy(), rtol=1e-4, atol=1e-4, err_msg=str(shape))
        answered += 1
    assert answered == len(shapes) or name not in SAME
    assert answered < len(shapes) or name not in OTHER


def test_the_refusal_names_the_shapes_and_the_layer_and_a_plain_list_is_taken() -> None:
    layers = dtd.from_torch(Net(lambda net, x: net.linear(x[:, -1])).eval(), torch.randn(1, 8, 6))
    with pytest.raises(
        dtd.ShapeError, match=r"\(10, 6\), .* \(8, 6\), and layer 0 .*Slice.*; import .* list\(layers\)"
    ):
        dtd.explain(layers, np.ones((1, 10, 6), np.float32))
    divided = dtd.from_torch(Net(OTHER["divided"][0]).eval(), torch.randn(1, 8, 6))
    with pytest.raises(dtd.ShapeError, match=r"the number 0\.125 in Scale 'div'"):
        dtd.explain(divided, np.ones((1, 10, 6), np.float32))
    assert dtd.predict(list(layers), np.ones((1, 10, 6), np.float32)).shape == (1, 5)


KERAS = {
    "same": lambda x: kl.Conv2D(2, 3, strides=2, padding="same")(x),
    "same pool": lambda x: kl.MaxPooling2D(3, 2, padding="same")(x),
    "whole image": lambda x: kl.GlobalMaxPooling2D()(x),
    "resized": lambda x: kl.GlobalAveragePooling2D()(kl.Resizing(16, 16, interpolation="nearest")(x)),
    "cropped": lambda x: kl.Cropping2D(1)(x),
    "convolutions": lambda x: kl.GlobalAveragePooling2D()(kl.ReLU()(kl.Conv2D(4, 3, padding="same")(x))),
}


@pytest.mark.parametrize("name", KERAS)
def test_another_shape_is_answered_as_keras_does_or_refused(name: str) -> None:
    x = keras.Input((None, None, 3))
    model = keras.Model(x, KERAS[name](x))
    images = [np.random.default_rng(0).uniform(-1, 1, (2, h, w, 3)).astype("f4") for h, w in ((8, 8), (12, 12), (9, 9))]
    layers, refused = dtd.from_keras(model, images[0]), 0
    for image in images:
        try:
            given = dtd.predict(layers, image)
        except dtd.ShapeError:
            refused += 1
            continue
        np.testing.assert_allclose(given, keras.ops.convert_to_numpy(model(image)), atol=1e-5)
    assert refused == {"same": 1, "same pool": 1, "convolutions": 0}.get(name, 2)
