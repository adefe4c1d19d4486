"""Lists that an importer made at one shape of sample, and what in them may be another function at another shape."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from . import layers as L
from .errors import LayerError, ShapeError, at
from .plan.entries import Entry
from .plan.shapes import Shape, axis_of, pairs, spatial
from .plan.wiring import Reads, wire

SMALL = 4
"""Below this a size inside the network, or a window, says nothing: too many numbers and pools are equal to it."""

CLOSE = 1e-5  # relative: numbers that float32 may hold

Number = tuple[str, float, int | None]
"""The name of an entry, a number in it, and the size that a product of attention is scaled by, if it is one."""


class Sized(list[L.Layer]):
    """The layers of a model, as they are for samples of one shape.

    Attributes
    ----------
    sample : this shape
    numbers : that the importer wrote into records, which the model may have computed from sizes
    fixed : what the importer made of the sizes alone, if there is something of this kind
    same : whether some padding was computed from sizes
    """

    def __init__(
        self, layers: Iterable[L.Layer], sample: Shape, numbers: Sequence[Number], fixed: str, same: bool
    ) -> None:
        super().__init__(layers)
        self.sample, self.numbers, self.fixed, self.same = sample, tuple(dict.fromkeys(numbers)), fixed, same

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        begins = isinstance(index, slice) and index.start in (None, 0) and index.step in (None, 1)
        return Sized(found, self.sample, self.numbers, self.fixed, self.same) if begins else found

    def __add__(self, more: Any) -> Any:
        return Sized(super().__add__(more), self.sample, self.numbers, self.fixed, self.same)


def copied(layers: Sequence[L.Layer]) -> list[L.Layer]:
    """The same records as a list of its own, of the same kind where it is `Sized`."""
    return copy(layers) if isinstance(layers, Sized) else list(layers)


@dataclass(frozen=True)
class Site:
    """An entry at the shape of the import and at another one."""

    was: Shape  # its first operand, one sample
    now: Shape
    made: Shape  # its output as it was
    sizes: frozenset[int]  # that have changed, here or before
    framed: tuple[tuple[int, int], ...] | None  # the padding of a Pad that it reads
    same: bool

    def changed(self, axis: int) -> bool:
        """Whether its operand has another size along an axis, the batch counted."""
        place = axis_of(axis, self.was, "")
        return len(self.was) != len(self.now) or self.was[place] != self.now[place]


def check_sample(layers: Sequence[L.Layer], sample: Shape, words: bool, last: int, reads: Sequence[Reads]) -> None:
    """ShapeError where an importer's list may be another function for samples of this shape than its model is."""
    if not isinstance(layers, Sized) or sample == layers.sample:
        return
    try:
        was, now = (wire(layers, s, tokens=words, last=last, reads=reads) for s in (layers.sample, sample))
    except LayerError:  # the plan says why
        return
    if reason := _reason(layers, sample, was, now):
        raise ShapeError(
            f"a sample of x has shape {sample}, but the layers were imported for samples of shape {layers.sample}, and "
            f"{reason} may depend on that; import the model again with an example of this shape, or pass list(layers) "
            "if you know that it is the same network at every size"
        )


def _reason(layers: Sized, sample: Shape, was: dict[int, Entry], now: dict[int, Entry]) -> str:
    """What may depend on the shape, or nothing."""
    if layers.fixed:
        return layers.fixed
    if any(1 in pair and set(pair) != {1} for pair in zip(layers.sample, sample, strict=False)):
        return "what was done along an axis of size 1"
    shapes = {L.INPUT: (layers.sample, sample), **{p: (was[p].shape, now[p].shape) for p in was}}
    sizes = set(_changed(*shapes[L.INPUT]))
    for position, entry in was.items():
        if not entry.sources:
            continue
        first, record = entry.sources[0], layers[position]
        sizes.update(_changed(*shapes[first]))
        before = layers[first] if first != L.INPUT else None
        framed = pairs(before.padding, len(entry.shape) - 1, "padding") if isinstance(before, L.Pad) else None
        meets = DEPENDS[type(record)]
        if meets and meets(record, Site(*shapes[first], entry.shape, frozenset(sizes), framed, layers.same)):
            return at(position, record)
    inner = {s for pair in shapes.values() for s in _products(*pair) if s > SMALL}
    outer = _products(layers.sample, sample)
    for name, number, width in layers.numbers:
        if width not in sizes and width is not None and math.isclose(number, width**-0.5, rel_tol=CLOSE):
            continue
        value = max(abs(number), 1 / abs(number))
        counts = inner | outer | {s - 1 for s in outer}
        if any(math.isclose(value, f, rel_tol=CLOSE) for s in counts if s > 1 for f in (s, s**0.5, math.log(s))):
            return f"the number {number:.6g} in {name}"
    return ""


def _changed(was: Shape, now: Shape) -> list[int]:
    """Sizes of the axes that have another one now."""
    return [a for a, b in zip(was, now, strict=True) if a != b] if len(was) == len(now) else list(was)


def _products(was: Shape, now: Shape) -> set[int]:
    """Numbers of elements of some axes, of which one has another size now."""
    if was == now:
        return set()
    axes = range(len(was))
    moved = {a for a in axes if len(was) != len(now) or was[a] != now[a]}
    chosen = (some for n in range(1, len(was) + 1) for some in itertools.combinations(axes, n))
    return {math.prod(was[a] for a in some) for some in chosen if moved.intersection(some)}


def _slice(record: L.Slice, site: Site) -> bool:
    return site.changed(record.axis) and (record.start, record.stop) != (0, 1)


def _gather(record: L.Gather, site: Site) -> bool:
    return site.changed(record.axis) and set(record.indices) != {0}


def _target(record: L.Reshape, site: Site) -> bool:
    return not site.sizes.isdisjoint(record.shape)


def _repeated(record: L.Expand, site: Site) -> bool:
    return any(a != b and b in site.sizes for a, b in zip(site.was, site.made, strict=False))


def _pool(record: Any, site: Site) -> bool:
    """A pool of a whole axis, or what `_window` says."""
    kernel = spatial(record.kernel, len(site.was) - 1, "kernel")
    axes = enumerate(zip(kernel, site.was[1:], strict=True), 2)
    return any(k >= max(SMALL, s) and site.changed(a) for a, (k, s) in axes) or _window(record, site)


def _window(record: Any, site: Site) -> bool:
    """A padding as it makes ⌈size / stride⌉ windows, where it would be another one now."""
    if not site.same and site.framed is None:
        return False
    n = len(site.was) - 1
    kernel = record.weight.shape[2:] if isinstance(record, L.Conv) else spatial(record.kernel, n, "kernel")
    steps, dilations = (spatial(getattr(record, key, 1), n, key) for key in ("stride", "dilation"))
    own, framed = pairs(record.padding, n, "padding"), site.framed or ((0, 0),) * n
    for axis, (k, step, dilation) in enumerate(zip(kernel, steps, dilations, strict=True)):
        reach, around = dilation * (k - 1) + 1, sum(framed[axis])
        was, now = (
            max((-(-size // step) - 1) * step + reach - size, 0)
            for size in (site.was[axis + 1] - around, site.now[axis + 1] - around)
        )
        if sum(own[axis]) + around == was != now:
            return True
    return False


DEPENDS: dict[type[L.Layer], Callable[[Any, Site], bool] | None] = {
    **dict.fromkeys(
        (
            L.Linear, L.ConvTranspose, L.Embedding, L.ReLU, L.Activation, L.Softmax, L.Dropout, L.GlobalAvgPool,
            L.BatchNorm, L.Scale, L.Preparation, L.LRN, L.Add, L.Mul, L.Concat, L.Flatten, L.Permute, L.Pad,
            L.Upsample, L.Constant, L.Reduce, L.Resample, L.MatMul, L.LayerNorm, L.RMSNorm, L.GroupNorm,
            L.InstanceNorm, L.Given,
        )
    ),
    L.Slice: _slice, L.Gather: _gather, L.Reshape: _target, L.Expand: _repeated, L.Conv: _window,
    L.MaxPool: _pool, L.AvgPool: _pool, L.SumPool: _pool,
}  # fmt: skip
"""What asks whether a record may hold sizes; None where the record holds none, or those that no other shape fits.
Numbers are asked for on their own: an importer may have put them into the record before."""
