"""The small models of the tests of captum's drop-in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

X = torch.tensor([[1.0, 2.0, 3.0]])


PIXELS = torch.arange(16.0).reshape(1, 1, 4, 4)


class TwoLayers(nn.Module):
    """Linear 2·1 (3 to 3), ReLU, Linear 3·1 (3 to 1), Dropout; by default in training mode."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.one, self.relu, self.two = nn.Linear(3, 3, bias=False), nn.ReLU(inplace), nn.Linear(3, 1, bias=False)
        self.drop = nn.Dropout(0.01)
        nn.init.constant_(self.one.weight, 2.0)
        nn.init.constant_(self.two.weight, 3.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.two(self.relu(self.one(x))))


def ruled(one: Any, two: Any, first_weight: float = 2.0) -> TwoLayers:
    model = TwoLayers()
    model.one.weight.data[0, 0] = first_weight
    model.one.rule, model.two.rule = one, two
    return model


class ConvNet(nn.Module):
    """A convolution whose second channel dies, ReLU, a linear layer, ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 2, 3), nn.Linear(8, 4)
        nn.init.ones_(self.conv.weight)
        self.conv.bias.data = torch.tensor([-50.0, -75.0])
        self.fc.weight.data = torch.cat([torch.ones(4, 5), -torch.ones(4, 3)], 1)
        nn.init.zeros_(self.fc.bias)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        x = x if other is None else x + other
        return self.relu2(self.fc(self.relu1(self.conv(x)).view(-1, 8)))
