"""Elements repeated or picked, which relevance goes back to: Gather, Expand, and what broadcasts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import layers as L
from ...errors import ShapeError
from ...vocabulary import W
from ..builder import Builder
from ..entries import Entry
from ..geometry import triple
from ..lowering import Lowering, activation_of
from ..parts import Part
from ..shapes import Shape, axis_of, join
from ..steps import Buffer, Step, View
from ..taps import Taps
from ..tensors import Box, Region, Tensor, whole
from .axes import ordered, own, reshaped, turned, turned_back
from .base import Balance, Recipe, Unit, passes
from .move import Move

FEW = 16  # runs of indices that are moved one by one; more become a matrix of 0 and 1
MOST_WEIGHTS = 2**24  # of a matrix that picks
MOST_RUNS = 4096


@dataclass(eq=False, repr=False)
class Copy(Unit):
    """Every output is one element of the source, which relevance goes back to: by taps of weight 1, or a matrix of 0
    and 1.
    """

    transparent = True
    part: Part = field(kw_only=True)
    picks: tuple[int, ...] | None = None  # along the first axis; None: axes of size 1 are repeated

    def apply(self, values: NDArray[Any], lead: int = 0) -> NDArray[Any]:
        """Values (*lead axes, *source) → (*lead axes, *out)."""
        if self.picks is not None:
            return values.take(self.picks, axis=lead)
        return np.broadcast_to(values, (*values.shape[:lead], *self.out.shape))

    def sign(self) -> bool:
        return self.sources[0].nonnegative

    def box(self, given: list[Box]) -> Box | None:
        return self.apply(given[0][0]), self.apply(given[0][1])

    @property
    def form(self) -> str:
        return self.out.form

    def refusal(self, *, gradient: bool) -> str:
        return ""

    def forward(self, lowering: Lowering) -> None:
        x, out = View(lowering.value(self.sources[0])), View(lowering.new_value(self))
        if self.picks is None:
            lowering.emit(Step("MOVE", self, out, replace(x, expand=self.out.shape)))
        else:
            x = View(lowering.spatial(self.sources[0]))
            lowering.taps("NEURON", self.part, x, dict(out=out, activation=activation_of(None)))

    def relevance(self, lowering: Lowering, r: Buffer) -> None:
        """Every element gets the sum over its copies."""

        def write(out: Buffer, accumulate: bool) -> None:
            fields: dict[str, Any] = dict(out=View(out), weight_map=W, accumulate=accumulate, repeat=lowering.t)
            lowering.taps("TAPS", self.part, View(r), fields, scatter=True)

        lowering.deliver(self, self.sources[0], write)

    def balance(self) -> Balance:
        taps = self.part.taps
        return passes(4.0 + taps.n_taps * taps.c_out // taps.groups)


# ------------------------------------------------------------------------------------------------------------- records


def runs(indices: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Stretches (first place, first index, step, count) of equally spaced indices, of any step but 0."""
    result: list[tuple[int, int, int, int]] = []
    place = 0
    while place < len(indices):
        end, step = place + 1, 1
        if end < len(indices) and indices[end] != indices[place]:
            step = indices[end] - indices[place]
            while end < len(indices) and indices[end] - indices[end - 1] == step:
                end += 1
        result.append((place, indices[place], step, end - place))
        place = end
    return result


def gather(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    return own(builder, entry, sources, picked(builder, entry, sources[0]))


def picked(builder: Builder, entry: Entry, source: Tensor) -> Tensor:
    """A few runs are moved; many are a product with a matrix of 0 and 1."""
    record = entry.record
    assert isinstance(record, L.Gather)
    axis = axis_of(record.axis, source.shape, "Gather")
    n_in, n_out = source.shape[axis], len(record.indices)
    indices = tuple(i % n_in for i in record.indices)
    stretches = runs(indices)
    if len(stretches) > FEW and n_in * n_out <= MOST_WEIGHTS:
        weight = np.zeros((n_out, n_in), np.float32)
        weight[np.arange(n_out), indices] = 1
        read = turned(builder, entry, source, (axis,))
        out = builder.inner(entry, (n_out, *read.shape[1:]))
        taps = Taps(False, n_in, n_out, 1, read.space, out.space)
        part = Part(entry.position, read, taps, weight.reshape(n_out, n_in, 1, 1, 1), linear=len(read.shape) == 1)
        return turned_back(
            builder,
            entry,
            builder.put(Copy((entry.position,), (read,), out, part=part, picks=indices)),
            (axis,),
            entry.shape,
        )
    if len(stretches) > MOST_RUNS:
        raise ShapeError(
            f"{entry}: its {n_out} indices are {len(stretches)} irregular runs, at most {MOST_RUNS} are supported; "
            "use Reshape and Permute"
        )

    def along(shape: Shape, start: int, step: int, count: int) -> Region:
        ranges = whole(shape).ranges
        return Region((*ranges[:axis], (start, step, count), *ranges[axis + 1 :]))

    pairs = [
        (along(entry.shape, to, 1, count), 0, along(source.shape, of, step, count)) for to, of, step, count in stretches
    ]
    return builder.put(Move((entry.position,), (source,), builder.inner(entry, entry.shape), pairs=pairs))


def gather_shape(record: L.Gather, shape: Shape) -> Shape:
    axis = axis_of(record.axis, shape, "Gather")
    size = shape[axis]
    wrong = [i for i in record.indices if not -size <= i < size]
    if wrong:
        raise ShapeError(
            f"indices name {wrong[0]}, but axis {axis + 1} of its input (n, {join(shape)}) has size {size}"
        )
    return (*shape[:axis], len(record.indices), *shape[axis + 1 :])


def expanded(builder: Builder, entry: Entry, source: Tensor, shape: Shape) -> Tensor:
    """Axes of size 1 repeated; a constant of lower rank is aligned at the right."""
    if source.shape == shape:
        return source
    source = reshaped(builder, entry, source, (1,) * (len(shape) - len(source.shape)) + source.shape)
    axes = tuple(a for a, (s, big) in enumerate(zip(source.shape, shape, strict=True)) if s != big)
    if not axes:
        return source
    if 0 not in axes and 2 <= len(shape) <= 4:
        return repeated(builder, entry, source, shape)
    kept = tuple(a for a in range(len(shape)) if a not in axes)
    source = reshaped(builder, entry, source, (math.prod(source.shape), 1))
    out = repeated(builder, entry, source, (source.shape[0], math.prod(shape[a] for a in axes)))
    order = (*kept, *axes)
    out = reshaped(builder, entry, out, tuple(shape[a] for a in order))
    return ordered(builder, entry, out, tuple(order.index(a) for a in range(len(shape))))


def repeated(builder: Builder, entry: Entry, source: Tensor, shape: Shape) -> Tensor:
    """Spatial axes of size 1 repeated."""
    out = builder.inner(entry, shape)
    times = triple(tuple(big // s for s, big in zip(source.shape[1:], shape[1:], strict=True)))
    channels = source.channels
    taps = Taps(True, channels, channels, channels, source.space, out.space, times, times)
    return builder.put(Copy((entry.position,), (source,), out, part=Part(entry.position, source, taps)))


def expand(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    return own(builder, entry, sources, expanded(builder, entry, sources[0], entry.shape))


def expand_shape(record: L.Expand, shape: Shape) -> Shape:
    new = tuple(record.shape)
    if len(new) != len(shape) or any(s not in (1, big) for s, big in zip(shape, new, strict=True)):
        raise ShapeError(
            f"shape is (n, {join(new)}), but its input is (n, {join(shape)}); only sizes of 1 can be repeated"
        )
    return new


RECORDS: dict[type[L.Layer], Recipe] = {
    L.Gather: Recipe(gather_shape, gather),
    L.Expand: Recipe(expand_shape, expand),
}
