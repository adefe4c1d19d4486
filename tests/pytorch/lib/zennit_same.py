"""Whether zennit and its drop-in give the same: rules, composites and starts that both know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import zennit.rules as zr
from torch import Tensor, nn
from torch.nn import functional as F
from zennit import composites as zc
from zennit.attribution import Gradient as ZennitGradient

from dtdfast.compat.zennit import NAMES, Gradient

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


RULES: dict[str, Callable[[], Any]] = {
    "Epsilon": zr.Epsilon,
    "Epsilon(1), no bias": lambda: zr.Epsilon(1.0, zero_params="bias"),
    "Norm": zr.Norm,
    "ZPlus": zr.ZPlus,
    "ZPlus, no bias": lambda: zr.ZPlus(stabilizer=1e-3, zero_params=["bias"]),
    "Gamma": lambda: zr.Gamma(0.25),
    "Gamma, no bias": lambda: zr.Gamma(0.5, zero_params="bias"),
    "AlphaBeta(2,1)": lambda: zr.AlphaBeta(2.0, 1.0),
    "AlphaBeta(1,0), no bias": lambda: zr.AlphaBeta(1.0, 0.0, zero_params="bias"),
    "ZBox": lambda: zr.ZBox(-3.0, 3.0),
    "ZBox of tensors": lambda: zr.ZBox(torch.tensor(-3.0), torch.tensor(3.0), zero_params="bias"),
    "WSquare": zr.WSquare,
    "WSquare, no bias": lambda: zr.WSquare(zero_params="bias"),
    "Flat": zr.Flat,
}


def same(model: nn.Module, x: Tensor, composite: Any, attr_output: Any = None) -> None:
    with ZennitGradient(model, composite, attr_output) as attributor:
        their_output, theirs = attributor(x.clone())
    with Gradient(model, composite, attr_output) as attributor:
        output, ours = attributor(x)
    torch.testing.assert_close(output.detach(), their_output.detach(), rtol=1e-12, atol=1e-12)
    assert (ours - theirs).abs().max() <= 1e-9 * theirs.abs().max()
    assert theirs.abs().max() > 0


def one_hot_max(output: Tensor) -> Tensor:
    return F.one_hot(output.argmax(1), 4).to(output)


LRP = [cls for name, cls in zc.COMPOSITES.items() if name in NAMES]


BOX = {zc.EpsilonGammaBox: dict(low=-3.0, high=torch.tensor(3.0))}
