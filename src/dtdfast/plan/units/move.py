"""Elements moved as they are: Concat, Slice, Permute, Pad, Upsample."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ... import layers as L
from ...errors import ShapeError
from ..builder import Builder
from ..entries import Entry
from ..lowering import Lowering
from ..shapes import MAX_COPIES, MAX_ELEMENTS, Shape, axis_of, join, pairs, spatial, spatial_rank
from ..steps import Buffer, Step, View
from ..tensors import Box, Lost, Region, Tensor, take, whole
from .base import Balance, Recipe, Unit, passes

Pairs = list[tuple[Region, int, Region]]  # (in out, number of the source, in the source)


@dataclass(eq=False, repr=False)
class Move(Unit):
    """out[region] = source[region] for pairs of regions; elements left out hold `fill`.

    Attributes
    ----------
    unlisted : it stands for no entry, and has no row of a ledger
    """

    transparent = True
    pairs: Pairs = field(default_factory=list)
    fill: float | None = None
    unlisted: bool = False

    def sign(self) -> bool:
        return all(s.nonnegative for s in self.sources) and (self.fill is None or self.fill >= 0)

    def box(self, given: list[Box]) -> Box | None:
        result = []
        for side in (0, 1):
            array = np.full(self.out.shape, self.fill or 0.0, given[0][0].dtype)
            for to, source, of in self.pairs:
                take(array, to)[...] = take(given[source][side], of)
            result.append(array)
        return result[0], result[1]

    @property
    def form(self) -> str:
        return self.out.form

    def refusal(self, *, gradient: bool) -> str:
        return ""

    @property
    def order(self) -> tuple[int, ...] | None:
        if len(self.pairs) != 1 or self.fill is not None:
            return None
        ((to, _, of),) = self.pairs
        plain = to == whole(self.out.shape) and of.ranges == whole(self.sources[0].shape).ranges
        return of.order if plain else None

    def forward(self, lowering: Lowering) -> None:
        if (seen := self._seen(lowering)) is not None:
            lowering.values[self.out.index] = seen
            return
        out = lowering.new_value(self)
        if self.fill is not None:
            lowering.emit(Step("MOVE", self, View(out), bound=lowering.constant([self.fill])))
        for to, number, of in self.pairs:
            lowering.emit(Step("MOVE", self, View(out, to), View(lowering.value(self.sources[number]), of)))

    def _seen(self, lowering: Lowering) -> Buffer | None:
        """Its values in the memory of its source: of a permutation, or a piece of what does not lie channels-last."""
        if len(self.pairs) != 1 or self.fill is not None or self.pairs[0][0] != whole(self.out.shape):
            return None
        source = lowering.value(self.sources[0])
        exact = lowering.numbers if self.out.is_input or self.out is lowering.output else lowering.real
        apart = self.order is None and not source.plain and source.seen is None
        if apart or len(self.out.shape) < 2 or source.root.dtype != exact or source.batch != "n":
            return None
        return lowering.region(source, self.pairs[0][2])

    def relevance(self, lowering: Lowering, r: Buffer) -> None:
        """Every piece goes back where it came from; what was not read keeps 0."""
        if self.order is not None and lowering.hands_over(self, self.sources[0], r):
            back = tuple(self.order.index(a) for a in range(len(self.order)))
            seen = lowering.region(r, Region(whole(r.shape).ranges, back))
            lowering.relevances[self.sources[0].index] = seen
            return
        pieces: list[list[tuple[Region, Region]]] = [[] for _ in self.sources]
        for to, number, of in self.pairs:
            pieces[number].append((to, of))
        for source, own in zip(self.sources, pieces, strict=True):
            if source.wanted:
                lowering.deliver(self, source, partial(self._back, lowering, r, pieces=own))

    def _back(
        self, lowering: Lowering, r: Buffer, out: Buffer, accumulate: bool, pieces: list[tuple[Region, Region]]
    ) -> None:
        if not accumulate and not all(covers(of, out.shape) for _, of in pieces):
            lowering.emit(Step("MOVE", self, View(out), bound=lowering.constant([0.0])))
            accumulate = True
        for to, of in pieces:
            lowering.emit(Step("MOVE", self, View(out, of), View(r, to), accumulate=accumulate))
            accumulate = True

    def balance(self) -> Balance:
        apart = [Lost("around stop", region=to) for to, number, _ in self.pairs if not self.sources[number].wanted]
        if self.fill is not None:
            apart += [Lost("constant"), *(Lost("constant", -1.0, to) for to, _, _ in self.pairs)]
        return passes(4.0 + len(self.pairs), *apart)


def covers(region: Region, shape: Shape) -> bool:
    """Whether a region is every element of a sample, in any order."""
    return all(count == size and abs(step) == 1 for (_, step, count), size in zip(region.ranges, shape, strict=True))


# ------------------------------------------------------------------------------------------------------------- records


def moving(pairs_of: Callable[[Any, tuple[Tensor, ...], Shape], Pairs]) -> Callable[..., Tensor]:
    """A record that becomes one Move, by its pieces."""

    def make(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
        record, pieces = entry.record, pairs_of(entry.record, sources, entry.shape)
        fill = float(record.value) if isinstance(record, L.Pad) else None
        return builder.put(Move((entry.position,), sources, builder.tensor(entry), pairs=pieces, fill=fill))

    return make


def concat(record: L.Concat, sources: tuple[Tensor, ...], shape: Shape) -> Pairs:
    full = whole(shape)
    axis = record.axis % (len(shape) + 1) - 1
    pieces, start = [], 0
    for number, source in enumerate(sources):
        count = source.shape[axis]
        ranges = (*full.ranges[:axis], (start, 1, count), *full.ranges[axis + 1 :])
        pieces.append((Region(ranges), number, whole(source.shape)))
        start += count
    return pieces


def concat_shape(record: L.Concat, *shapes: Shape) -> Shape:
    axis = axis_of(record.axis, shapes[0], "Concat")
    for other in shapes[1:]:
        if len(other) != len(shapes[0]) or any(
            p != q for i, (p, q) in enumerate(zip(shapes[0], other, strict=True)) if i != axis
        ):
            raise ShapeError(
                f"its operands are (n, {join(shapes[0])}) and (n, {join(other)}); they may differ along axis "
                f"{axis + 1} only"
            )
    return (*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])


def slices(record: L.Slice, sources: tuple[Tensor, ...], shape: Shape) -> Pairs:
    given = sources[0].shape
    axis = record.axis % (len(given) + 1) - 1
    start, _, step = slice(record.start, record.stop, record.step).indices(given[axis])
    ranges = whole(given).ranges
    return [(whole(shape), 0, Region((*ranges[:axis], (start, step, shape[axis]), *ranges[axis + 1 :])))]


def slice_shape(record: L.Slice, shape: Shape) -> Shape:
    axis = axis_of(record.axis, shape, "Slice")
    count = len(range(*slice(record.start, record.stop, record.step).indices(shape[axis])))
    if count == 0:
        stop, step = "" if record.stop is None else record.stop, f":{record.step}" if record.step > 1 else ""
        raise ShapeError(
            f"[{record.start}:{stop}{step}] of axis {axis + 1}, which has length {shape[axis]}, leaves nothing"
        )
    return (*shape[:axis], count, *shape[axis + 1 :])


def permute(record: L.Permute, sources: tuple[Tensor, ...], shape: Shape) -> Pairs:
    ranges = whole(sources[0].shape).ranges
    return [(whole(shape), 0, Region(ranges, tuple(a - 1 for a in record.order[1:])))]


def permute_shape(record: L.Permute, shape: Shape) -> Shape:
    if len(record.order) != len(shape) + 1:
        raise ShapeError(
            f"order {tuple(record.order)} has {len(record.order)} axes; its input has {len(shape) + 1} (batch included)"
        )
    return tuple(shape[a - 1] for a in record.order[1:])


def pad(record: L.Pad, sources: tuple[Tensor, ...], shape: Shape) -> Pairs:
    given = sources[0].shape
    widths = pairs(record.padding, len(given) - 1, "padding")
    inner = ((0, 1, given[0]), *((before, 1, s) for (before, _), s in zip(widths, given[1:], strict=True)))
    return [(Region(inner), 0, whole(given))]


def pad_shape(record: L.Pad, shape: Shape) -> Shape:
    n = spatial_rank(shape, "Pad")
    return (shape[0], *(s + b + a for s, (b, a) in zip(shape[1:], pairs(record.padding, n, "padding"), strict=True)))


def upsample(record: L.Upsample, sources: tuple[Tensor, ...], shape: Shape) -> Pairs:
    given = sources[0].shape
    factors = spatial(record.factor, len(given) - 1, "factor")
    pieces = []
    for offset in np.ndindex(*factors):
        ranges = ((0, 1, given[0]), *((o, f, s) for o, f, s in zip(offset, factors, given[1:], strict=True)))
        pieces.append((Region(ranges), 0, whole(given)))
    return pieces


def upsample_shape(record: L.Upsample, shape: Shape) -> Shape:
    n = spatial_rank(shape, "Upsample")
    copies = math.prod(spatial(record.factor, n, "factor"))
    if copies > MAX_COPIES and copies * math.prod(shape) <= MAX_ELEMENTS:  # what is larger is refused for that
        raise ShapeError(f"it makes {copies:,} of every element, at most {MAX_COPIES:,} are supported")
    return (shape[0], *(s * f for s, f in zip(shape[1:], spatial(record.factor, n, "factor"), strict=True)))


MOVES = (L.Concat, L.Slice, L.Permute, L.Pad, L.Upsample)

RECORDS: dict[type[L.Layer], Recipe] = {
    L.Concat: Recipe(concat_shape, moving(concat)),
    L.Slice: Recipe(slice_shape, moving(slices)),
    L.Permute: Recipe(permute_shape, moving(permute)),
    L.Pad: Recipe(pad_shape, moving(pad)),
    L.Upsample: Recipe(upsample_shape, moving(upsample)),
}
