"""Where the taps of a layer fall: geometry as plain numbers, for gather and scatter alike.

Every layer with taps (linear, convolution, transposed convolution, pools, the operands of an add) is

    conv:        out[p] = Σ_t w[t] x[p·stride − before + t·dilation]
    transposed:  out[p] = Σ_t w[t] x[q]   for all q with q·stride = p + before − t·dilation

and the scatter of one has the form of the other. A *phase* is a set of outputs p = start + step·q that share their
taps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from ..locks import cached_property

Triple = tuple[int, int, int]

PHASE = 64
"""Entries of a table that a phase, which is a step of its own, counts as."""


class Taps(NamedTuple):
    """Geometry of a tap layer; three spatial axes, the leading ones of size 1 where the layer has fewer."""

    transposed: bool
    c_in: int
    c_out: int
    groups: int
    x_size: Triple
    out_size: Triple
    kernel: Triple = (1, 1, 1)
    stride: Triple = (1, 1, 1)
    dilation: Triple = (1, 1, 1)
    before: Triple = (0, 0, 0)

    @property
    def n_taps(self) -> int:
        return self.kernel[0] * self.kernel[1] * self.kernel[2]

    @property
    def depthwise(self) -> bool:
        return self.groups == self.c_in == self.c_out

    @property
    def apart(self) -> bool:
        """Whether windows share no element of x and leave none out."""
        whole = all(out * step == x for out, step, x in zip(self.out_size, self.stride, self.x_size, strict=True))
        return (
            not self.transposed
            and self.kernel == self.stride
            and self.dilation == (1, 1, 1)
            and self.before == (0, 0, 0)
            and whole
        )

    @property
    def table(self) -> int:
        """Entries of the tables that say where taps fall: those that meet x, and phases in either direction."""
        met, phases = 1, 1
        for a in range(3):
            axis = self.kernel[a], self.stride[a], self.dilation[a], self.before[a]
            met *= len(_axis_taps(self.transposed, *axis, self.x_size[a], self.out_size[a]))
            phases *= min(self.stride[a], self.out_size[a] if self.transposed else self.x_size[a])
        return met + PHASE * phases

    @property
    def at_most(self) -> int:
        """What `table` cannot exceed."""
        (a, b, c), (d, h, w) = self.kernel, self.stride
        return a * b * c + PHASE * d * h * w

    @property
    def macs(self) -> int:
        """Multiply-adds of one product for one sample (padding counted, as usual)."""
        size = self.x_size if self.transposed else self.out_size
        return size[0] * size[1] * size[2] * self.n_taps * (self.c_in // self.groups) * self.c_out


@lru_cache(1024)
def identity(channels: int, size: Triple) -> Taps:
    """One tap of weight 1: an operand of an add."""
    return Taps(False, channels, channels, channels, size, size)


@lru_cache(1024)
def pointwise(c_in: int, c_out: int, size: Triple) -> Taps:
    """One tap that sums over all channels."""
    return Taps(False, c_in, c_out, 1, size, size)


@dataclass(frozen=True)
class Phase:
    """Outputs p = start + step·q, q < count; out[p] = Σ_(k, offset) w[k] x[q·x_step + offset]."""

    start: Triple
    step: Triple
    count: Triple
    x_step: Triple
    taps: tuple[tuple[int, Triple], ...]
    border: tuple[Triple, Triple]  # how far the taps reach beyond x, before and after, per axis

    @cached_property
    def framed(self) -> bool:
        """Whether the taps reach beyond x."""
        return self.border != ((0, 0, 0), (0, 0, 0))

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """Those of its taps."""
        return tuple(k for k, _ in self.taps)

    @cached_property
    def points(self) -> int:
        """Products of one weight and one number of x, for a pair of channels."""
        return self.count[0] * self.count[1] * self.count[2] * len(self.taps)

    @cached_property
    def alone(self) -> bool:
        """Whether it is one tap, where the output is."""
        return len(self.taps) == 1 and self.taps[0][1] == (0, 0, 0) and self.x_step == (1, 1, 1)


POINT = Phase((0, 0, 0), (1, 1, 1), (1, 1, 1), (1, 1, 1), ((0, (0, 0, 0)),), ((0, 0, 0), (0, 0, 0)))
"""The one phase of a layer without spatial axes."""


class _AxisPhase(NamedTuple):
    start: int
    step: int
    n: int
    x_step: int
    taps: tuple[tuple[int, int], ...]

    def border(self, x_size: int) -> tuple[int, int]:
        """How far its taps, of which there are some, reach beyond x, before and after."""
        offsets = [offset for _, offset in self.taps]
        return max(0, -min(offsets)), max(0, max(offsets) + (self.n - 1) * self.x_step - x_size + 1)


def _axis_taps(transposed: bool, kernel: int, stride: int, dilation: int, before: int, x: int, out: int) -> range:
    """The taps that meet x: the others see padding alone, and are dropped."""
    if transposed:  # 0 ≤ p + before − t·dilation < x·stride for some p < out
        first, last = before - x * stride + 1, out - 1 + before
    else:  # 0 ≤ p·stride − before + t·dilation < x
        first, last = before - (out - 1) * stride, x - 1 + before
    return range(max(0, -(-first // dilation)), min(kernel - 1, last // dilation) + 1)


def _axis_phases(
    transposed: bool, kernel: int, stride: int, dilation: int, before: int, x: int, out: int
) -> list[_AxisPhase]:
    met = _axis_taps(transposed, kernel, stride, dilation, before, x, out)
    if not transposed:
        return [_AxisPhase(0, 1, out, stride, tuple((t, t * dilation - before) for t in met))]
    hits: list[list[tuple[int, int]]] = [[] for _ in range(min(stride, out))]
    for t in met:
        r = (t * dilation - before) % stride
        if r < len(hits):
            offset, last = (r + before - t * dilation) // stride, (out - 1 - r) // stride
            if offset < x and offset + last >= 0:
                hits[r].append((t, offset))
    return [_AxisPhase(r, stride, -(-(out - r) // stride), 1, tuple(h)) for r, h in enumerate(hits)]


@lru_cache(4096)  # a network has many layers of a few geometries
def phases(taps: Taps, *, scatter: bool = False) -> tuple[Phase, ...]:
    """The phases of the layer's sum over its inputs, or with `scatter` of its transposed sum over its outputs."""
    transposed = taps.transposed != scatter
    x_size, out_size = (taps.out_size, taps.x_size) if scatter else (taps.x_size, taps.out_size)
    axes = [
        _axis_phases(
            transposed, taps.kernel[a], taps.stride[a], taps.dilation[a], taps.before[a], x_size[a], out_size[a]
        )
        for a in range(3)
    ]
    _, k_h, k_w = taps.kernel
    result = []
    for d, h, w in product(*axes):
        numbered = tuple(
            ((td * k_h + th) * k_w + tw, (od, oh, ow))
            for (td, od), (th, oh), (tw, ow) in product(d.taps, h.taps, w.taps)
        )
        (d0, d1), (h0, h1), (w0, w1) = (
            axis.border(size) if numbered else (0, 0) for axis, size in zip((d, h, w), x_size, strict=True)
        )
        result.append(
            Phase(
                (d.start, h.start, w.start),
                (d.step, h.step, w.step),
                (d.n, h.n, w.n),
                (d.x_step, h.x_step, w.x_step),
                numbered,
                ((d0, h0, w0), (d1, h1, w1)),
            )
        )
    return tuple(result)
