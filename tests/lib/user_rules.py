"""Rules that the package does not have, made of `Share` and `Term` as a user makes them, and a network for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

import dtdfast as dtd
import explicit
from support import normal


class Excitatory(dtd.Rule):
    """Only positive inputs over positive weights: x⁺w⁺ / Σ x⁺w⁺."""

    def shares(self, convention: Any) -> tuple[dtd.Share, ...]:
        return (dtd.Share((dtd.Term("x+", "w+"),)),)


@dataclass(frozen=True)
class Magnitude(dtd.Rule):
    """A part of the relevance by |w|, the rest by x(w + γw⁺) where y > 0, over a denominator that may hold the bias."""

    part: float = 0.25
    gamma: float = 0.5
    biases: ClassVar[dict[str, tuple[str | None, ...]]] = {"none": (None, None), "signed": (None, "w")}

    def shares(self, convention: Any) -> tuple[dtd.Share, ...]:
        return (
            dtd.Share((dtd.Term("1", "|w|"),), self.part),
            dtd.Share((dtd.Term("x", "w+g.w+"),), 1 - self.part, select="y>0"),
        )


class Inhibitory(dtd.Rule):
    """Only negative inputs: behind a ReLU no term is left, and all relevance is absorbed."""

    def shares(self, convention: Any) -> tuple[dtd.Share, ...]:
        return (dtd.Share((dtd.Term("x-", "w-"),)),)


class Negative(dtd.Rule):
    """Only outputs below 0: behind a ReLU none of them has relevance of its own."""

    def shares(self, convention: Any) -> tuple[dtd.Share, ...]:
        return (dtd.Share((dtd.Term("x", "w"),), select="y<0"),)


def _term(n, bias=0.0, coefficient=1.0):
    return explicit.Term(n, n.sum(1) + bias, abs(n).sum(1) + abs(bias), coefficient)


def _magnitude(taps, x, bias=0.0):
    w = taps.matrix
    y = (w * x).sum(1) + taps.bias
    return [
        _term(np.where(taps.valid, abs(w), 0), coefficient=0.25),
        _term((w + 0.5 * np.maximum(w, 0)) * x, bias=bias * taps.bias, coefficient=0.75 * (y > 0)),
    ]


RULES = {  # a rule, and the same as a formula on the explicit matrix
    "excitatory": (Excitatory(), lambda taps, x: [_term(np.maximum(taps.matrix, 0) * np.maximum(x, 0))]),
    "magnitude": (Magnitude(stabilizer=0.25), _magnitude),
    "magnitude, bias": (Magnitude(bias="signed", stabilizer=0.25), lambda taps, x: _magnitude(taps, x, 1.0)),
    "inhibitory": (Inhibitory(), lambda taps, x: [_term(np.minimum(taps.matrix, 0) * np.minimum(x, 0))]),
    "negative": (
        Negative(stabilizer=0.25),
        lambda taps, x: [_term(taps.matrix * x, coefficient=1.0 * ((taps.matrix * x).sum(1) + taps.bias < 0))],
    ),
}


def network(rng):
    """Groups and padding, a pool, an Add, a BatchNorm that cannot fold, a mean, a linear layer."""
    return [
        dtd.Conv(normal(rng, 4, 1, 3, 3), normal(rng, 4), padding=1, groups=2),
        dtd.ReLU(),
        dtd.MaxPool(2),
        dtd.Conv(normal(rng, 4, 4, 1, 1), normal(rng, 4)),
        dtd.Add(inputs=(3, 2)),
        dtd.BatchNorm(normal(rng, 4), abs(normal(rng, 4)), normal(rng, 4), normal(rng, 4)),
        dtd.Conv(normal(rng, 4, 4, 3, 3), padding=1),
        dtd.ReLU(),
        dtd.AvgPool(2),
        dtd.Flatten(),
        dtd.Linear(normal(rng, 3, 4), normal(rng, 3)),
    ]
