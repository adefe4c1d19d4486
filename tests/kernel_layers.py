"""Random tap layers of awkward sizes for the kernel tests."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

import kernel_reference as ref
from kernel_checks import LAYOUTS
from kernel_steps import Kernels, pack_dense, place, vector

SIZES = (1, 2, 3, 7, 15, 16, 17, 31, 33, 65)


@dataclass
class Taps:
    """A random tap layer: its geometry, its operands in guarded memory, and the reference's sums."""

    kind: str
    kernels: Kernels
    rng: np.random.Generator
    n: int
    c_in: int
    c_out: int
    groups: int = 1
    count: tuple[int, int, int] = (1, 1, 1)
    step: tuple[int, int, int] = (1, 1, 1)
    taps: tuple[tuple[int, int, int], ...] = ((0, 0, 0),)
    gap: int = 0
    phase: int = 1
    weighted: bool = True
    wider: tuple[int, int, int] = (0, 0, 0)  # than its taps need: the frame of x

    def __post_init__(self) -> None:
        rng = self.rng
        size = tuple((self.count[a] - 1) * self.step[a] + 1 for a in range(3))
        self.frame = tuple(max((abs(t[a]) for t in self.taps), default=0) + self.wider[a] for a in range(3))
        normal = self.kernels.normal
        self.values = normal(rng, self.n, self.c_in, *size, 1)
        self.weight = normal(rng, self.c_out, self.c_in // self.groups, len(self.taps))
        if self.kind == "CHANNEL":
            self.weight = normal(rng, len(self.taps), self.c_in)
            if not self.weighted:
                self.weight[...] = 1
        self.refill(self.values)

    def sieve(self, share: float, samples: slice = slice(None)) -> None:
        """Make about this share of x zero, of either sign, as ReLUs and max-pools do."""
        values = self.values
        dropped = self.rng.random(values[samples].shape) < share
        values[samples] = np.where(dropped, np.copysign(self.kernels.dtype(0), values[samples]), values[samples])
        self.refill(values)

    def refill(self, values: Any) -> None:
        """Place x anew."""
        self.values = values
        self.whole_x = place(values, frame=(0, 0, *self.frame, 0), gap=self.gap)
        stride = [s // self.whole_x.itemsize for s in self.whole_x.strides]
        # the kernels walk x by its own step: axis strides are scaled, the shape is that of the pixels of out
        self.x = self.whole_x[:, :, :: self.step[0], :: self.step[1], :: self.step[2]]
        self.table = vector(np.array([sum(t[a] * stride[2 + a] for a in range(3)) for t in self.taps], np.int64))

    def packed(self) -> Any:
        if self.kind == "DENSE":
            return pack_dense(self.weight, self.groups)
        if self.kind == "CHANNEL":
            return vector(self.weight) if self.weighted else None
        return vector(self.weight[:, :, 0])

    def operands(self) -> dict[str, Any]:
        return {"x": self.x, "weight": self.packed(), "taps": self.table}

    def numbers(self) -> dict[str, Any]:
        return {"groups": self.groups, "n_taps": len(self.taps)}

    @property
    def n_terms(self) -> int:
        return max(1, len(self.taps) * (1 if self.kind == "CHANNEL" else self.c_in // self.groups))

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.c_out, *self.count, 1)

    def place(self, values: Any, order: tuple[int, ...] = LAYOUTS["channels last"]) -> Any:
        return place(values, order=order, frame=(0, 0, 0, 1, 2, 0), gap=self.gap, phase=self.phase)

    def sums(self, weight_map: str = "W", gamma: float = 0) -> tuple[Any, Any]:
        """Σ x·wm(w) and Σ|x·wm(w)|."""
        weight = ref.WEIGHT_MAPS[weight_map](self.weight.astype(self.kernels.wide), gamma)
        args = (self.values.astype(self.kernels.wide), weight, self.taps, self.frame, self.count, self.step)
        return ref.channel(*args) if self.kind == "CHANNEL" else ref.dense(*args, self.groups)


def some_taps(rng: np.random.Generator) -> tuple[tuple[int, int, int], ...]:
    reach = [(0,), (-1, 0, 1), (-2, 0), (0, 1, 2)]
    axes = [reach[rng.integers(len(reach))] if rng.random() < p else (0,) for p in (0.2, 0.7, 0.7)]
    taps = tuple(product(*axes))
    return taps if rng.random() < 0.9 else ()  # a phase may have none


def some_layer(kernels: Kernels, kind: str, seed: int) -> Taps:
    """A tap layer of awkward sizes."""
    rng = np.random.default_rng([seed, len(kind)])
    n = int(rng.choice((1, 2, 3)))
    if kind == "LINEAR":
        n = int(rng.choice((1, 2, 5, 7, 13, 17, 19, 33, 70)))
        return Taps(kind, kernels, rng, n, int(rng.choice((*SIZES, 1025, 2500))), int(rng.choice(SIZES)))
    count = (
        int(rng.choice((1, 1, 2))),
        int(rng.choice((1, 2, 5))),
        int(rng.choice((1, 2, 3, 6, 7, 8, 14, 15, 17, 29))),
    )
    step = (1, int(rng.choice((1, 2))), int(rng.choice((1, 1, 2))))
    common = {
        "count": count,
        "step": step,
        "taps": some_taps(rng),
        "gap": int(rng.choice((0, 3))),
        "phase": int(rng.choice((1, 2))),
    }
    if kind == "CHANNEL":
        c = int(rng.choice(SIZES))
        return Taps(kind, kernels, rng, n, c, c, weighted=bool(rng.random() < 0.7), **common)
    if kind == "SPARSE":  # dense layers whose zeros are left out, with more channels than an item has
        layer = Taps(
            "DENSE",
            kernels,
            rng,
            n,
            int(rng.choice((1, 16, 17, 64, 65, 130))),
            int(rng.choice((1, 16, 33, 65, 129, 200))),
            **common,
        )
        layer.sieve(0.85)
        return layer
    groups = int(rng.choice((1, 1, 2, 3)))
    return Taps(
        kind,
        kernels,
        rng,
        n,
        groups * int(rng.choice(SIZES[:8])),
        groups * int(rng.choice(SIZES)),
        groups=groups,
        **common,
    )
