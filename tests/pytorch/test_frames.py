"""from_torch of what works on every frame of a sample alone: the frames share PyTorch's first axis with the samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dtdfast as dtd

Function = Callable[[Tensor], Tensor]

FRAMES = 4  # as many as channels, so that these are not taken for those


def constant(*shape: int) -> Tensor:
    return (1 + torch.arange(int(np.prod(shape)))).sin().view(shape)


OF_FRAMES: dict[str, Function] = {
    "conv_transpose2d": lambda y: F.conv_transpose2d(y, constant(4, 3, 3, 3), constant(3), 2, 1, 1),
    "adaptive average": lambda y: F.adaptive_avg_pool2d(y, 1),
    "adaptive average of uneven windows": lambda y: F.adaptive_avg_pool2d(y, (4, 2)),
    "adaptive maximum": lambda y: F.adaptive_max_pool2d(y, (2, 3)),
    "adaptive average 1-d": lambda y: F.adaptive_avg_pool1d(y.flatten(2), 5),
    "bilinear": lambda y: F.interpolate(y, scale_factor=1.5, mode="bilinear"),
    "nearest": lambda y: F.interpolate(y, scale_factor=2),
    "nearest to a size": lambda y: F.interpolate(y, size=(7, 5)),
    "prelu": lambda y: F.prelu(y, constant(4)),
    "reflected borders": lambda y: F.pad(y, (1, 1, 2, 0), mode="reflect"),
    "pixel_shuffle": lambda y: F.pixel_shuffle(y, 2),
    "pixel_unshuffle": lambda y: F.pixel_unshuffle(y, 2),
    "channel_shuffle": lambda y: F.channel_shuffle(y, 2),
    "unfold": lambda y: F.unfold(y, 2, stride=2),
    "repeat": lambda y: y.repeat(1, 2, 1, 1),
    "repeat_interleave": lambda y: y.repeat_interleave(2, 1),
    "rot90": lambda y: torch.rot90(y, 1, (2, 3)),
    "diagonal": lambda y: y.diagonal(0, 2, 3),
}
OF_THEIR_STATISTICS: dict[str, Function] = {
    "group_norm": lambda y: F.group_norm(y, 2, constant(4), constant(4)),
    "instance_norm": lambda y: F.instance_norm(y, weight=constant(4), bias=constant(4)),
}


class Frames(nn.Module):
    """A function of every frame; the frames before or behind the samples."""

    def __init__(self, function: Function, before: bool) -> None:
        super().__init__()
        self.function, self.before = function, before

    def forward(self, x: Tensor) -> Tensor:
        y = self.function((x.transpose(0, 1) if self.before else x).flatten(0, 1))
        y = y.unflatten(0, (FRAMES, -1)).transpose(0, 1) if self.before else y.unflatten(0, (-1, FRAMES))
        return y.flatten(1)


@pytest.mark.parametrize(
    ("name", "before"), [(name, i % 2 == 1) for i, name in enumerate(OF_FRAMES | OF_THEIR_STATISTICS)]
)
def test_each_frame_by_itself(name: str, before: bool) -> None:
    module = Frames((OF_FRAMES | OF_THEIR_STATISTICS)[name], before).eval()
    example, x = torch.randn(2, 3, FRAMES, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    layers = dtd.from_torch(module, example[:2])
    x.requires_grad_()
    y = module(x)
    np.testing.assert_allclose(dtd.predict(layers, x), y.detach(), rtol=1e-4, atol=1e-5)
    if name in OF_FRAMES:
        start = constant(*y.shape)
        (y * start).sum().backward()
        found = dtd.explain(layers, x, (y * start).detach(), rules="lrp-0", backend="oracle")
        np.testing.assert_allclose(found, (x.grad * x).detach(), rtol=1e-3, atol=1e-4)
