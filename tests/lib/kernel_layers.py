"""Random tap layers of awkward sizes for the kernel tests."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

import kernel_reference as ref
from kernel_checks import LAYOUTS
from kernel_steps import Kernels, Step, lib, pack_dense, place, vector

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

    def sums(self, weight_map: str = "W", gamma: float = 0) -> tuple[Any, ...]:
        """Σ x·wm(w) and Σ|x·wm(w)|."""
        return ref.layer(
            self.kind, self.values, self.weight, self.taps, self.frame, self.count, self.step, self.groups, weight_map,
            gamma, self.kernels.wide,
        )  # fmt: skip


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


def taps_step(
    layer: Taps, weight_map: str, multiplier: str, accumulate: bool, repeat: int, scatter: bool
) -> tuple[Step, Any, Any]:
    """A TAPS_* (or SCATTER_LINEAR) step, its expected result and the size of its terms."""
    kernels, step = layer.kernels, bare_taps_step(layer, weight_map, multiplier, accumulate, repeat, scatter)

    out, m, scale = (step.arrays[name] for name in ("out", "m", "scale"))
    total, size = layer.sums(weight_map, 0.25)
    factor = 1.0 if m is None else ref.MULTIPLIERS[multiplier](np.repeat(m.astype(kernels.wide), repeat, 0))
    factor = factor if scale is None else factor * scale.astype(kernels.wide)
    base = out.astype(kernels.wide) if accumulate else 0.0
    return step, base + factor * total, np.abs(base) + np.abs(factor) * size


def bare_taps_step(layer: Taps, weight_map: str, multiplier: str, accumulate: bool, repeat: int, scatter: bool) -> Step:
    """The step alone, where no reference is needed."""
    kernels, rng, shape = layer.kernels, layer.rng, layer.shape
    m = kernels.normal(rng, shape[0] // repeat, *shape[1:])
    m.reshape(-1)[::7] = 0
    start = kernels.normal(rng, *shape)
    scale = (
        None
        if scatter or rng.random() < 0.5
        else kernels.dtype(0.5) + kernels.uniform(rng, *layer.count)[None, None, ..., None]
    )
    arrays = {
        **layer.operands(),
        "out": layer.place(start),
        "m": None
        if multiplier == "M_NONE"
        else layer.place(m, LAYOUTS["channels first" if rng.random() < 0.3 else "channels last"]),
        "scale": None if scale is None else np.broadcast_to(place(scale), shape),
    }
    if scatter:  # its rows are the columns of the layer's weights
        arrays["weight"] = vector(np.ascontiguousarray(layer.weight[:, :, 0].T))
    numbers = {
        **layer.numbers(), "weight_map": getattr(lib, f"DTD_{weight_map}"), "gamma": 0.25,
        "multiplier": getattr(lib, f"DTD_{multiplier}"),
        "accumulate": int(accumulate), "repeat": repeat,
    }  # fmt: skip
    return Step("SCATTER_LINEAR" if scatter else f"TAPS_{layer.kind}", arrays, numbers)


def named_layer(
    kernels: Kernels, rng: np.random.Generator, c_in: int, c_out: int, x_size: tuple[int, ...], kernel: tuple[int,
    ...], *, stride: int = 1,
    dilation: int = 1, before: int = 0, after: int = 0, groups: int = 1,
) -> Taps:  # fmt: skip
    """A layer of cases/layers.py that is no transposed one, of two samples; x ends with the last pixel's place."""
    wide = [s > 1 for s in x_size]
    reach = [dilation * (k - 1) for k in kernel]
    count = [
        (s + before + after - r - 1) // stride + 1 if w else 1 for s, r, w in zip(x_size, reach, wide, strict=True)
    ]
    steps = [stride if w else 1 for w in wide]
    taps = product(*(range(-before, r + 1 - before, dilation) if w else (0,) for r, w in zip(reach, wide, strict=True)))
    return Taps("DENSE", kernels, rng, 2, c_in, c_out, groups, tuple(count), tuple(steps), tuple(taps))  # type: ignore[arg-type]
