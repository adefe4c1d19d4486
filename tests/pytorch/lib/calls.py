"""A module of one function."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]


class Calls(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
