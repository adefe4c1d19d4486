"""What a device does, step by step: buffers, views of them, and steps; the same for every device executor.

Layouts: tensors with spatial axes lie channels-last (n, d, h, w, c), framed by a border of zeros as wide as their
widest reader needs; all others lie row-major. Offsets and strides count elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..show import OneLine
from .parts import Part
from .shapes import Shape
from .taps import Phase, Triple
from .tensors import Node, Region

REALS = {"f4": 4, "f8": 8, "bf16": 2}
SIZES = {**REALS, "u1": 1, "u2": 2, "i8": 8}

NO_BORDER = ((0, 0), (0, 0), (0, 0))

Reals = NDArray[np.floating[Any]]
Strides = tuple[int, tuple[int, ...], int]

SUMMING = ("SUMS", "ACCOUNT")
"""Operations whose results are sums over their x, in float64 whatever its type."""

WEIGHT_GRADIENT = "WEIGHT_GRADIENT"
"""That too, over samples as well, added to what is there."""

REDUCING = (*SUMMING, WEIGHT_GRADIENT)


@lru_cache(1024)
def row_major(shape: Shape) -> tuple[int, ...]:
    """Strides in elements."""
    strides = [1] * len(shape)
    for a in range(len(shape) - 2, -1, -1):
        strides[a] = strides[a + 1] * shape[a + 1]
    return tuple(strides)


@lru_cache(1024)
def plain_strides(shape: Shape) -> Strides:
    """Those of `Buffer.strides`, row-major."""
    return 0, row_major(shape), math.prod(shape)


@lru_cache(1024)
def framed_strides(shape: Shape, frame: tuple[tuple[int, int], ...]) -> Strides:
    """The same channels last, in a border."""
    n_space = len(shape) - 1
    border = frame[-n_space:] if n_space <= 3 else NO_BORDER[:1] * n_space
    offset, stride, inner = 0, shape[0], [1] * len(shape)
    for a in range(n_space, 0, -1):
        before, after = border[a - 1]
        inner[a] = stride
        offset += before * stride
        stride *= before + shape[a] + after
    return offset, tuple(inner), stride


def strided(region: Region, offset: int, strides: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """(offset, strides) of a region of an array that has these."""
    offset += sum(start * s for (start, _, _), s in zip(region.ranges, strides, strict=True))
    strides = tuple(step * s for (_, step, _), s in zip(region.ranges, strides, strict=True))
    return offset, strides if region.order is None else tuple(strides[a] for a in region.order)


@dataclass(eq=False, slots=True)
class Buffer:
    """An array in device memory.

    batch : "n" (samples), "nt" (samples × targets) or "1" (the same for all)
    external : "" in the arena, else the name of the caller's array that it is
    """

    name: str
    shape: Shape  # of one sample
    batch: str
    dtype: str = "f4"
    plain: bool = True  # row-major; else channels last
    external: str = ""
    # in the memory of another buffer: under another shape (row-major), a block of its channels, or a region of it
    alias: Buffer | None = None
    channel: int = 0  # the first of that block
    seen: Region | None = None  # that region
    frozen: bool = False  # seen under another shape, so that no border may come into it
    border: tuple[tuple[int, int], ...] = NO_BORDER  # before, after; d, h, w
    offset: int = 0  # bytes from the start of the arena
    first: int = -1  # steps that use it
    last: int = -1

    def __repr__(self) -> str:
        return f"Buffer({self.name!r}, {self.shape}, batch={self.batch!r}, dtype={self.dtype!r})"

    @property
    def root(self) -> Buffer:
        if self.alias is None:
            return self
        # the way gets shorter for whoever asks next
        while self.alias is not None and self.alias.alias is not None and not (self.seen or self.alias.seen):
            self.alias, self.channel = self.alias.alias, self.channel + self.alias.channel
        return self.alias.root if self.seen or self.alias.seen else self.alias

    @property
    def framed(self) -> bool:
        return self.border != NO_BORDER

    def frame(self) -> tuple[Triple, Triple]:
        (d, d1), (h, h1), (w, w1) = self.border
        return (d, h, w), (d1, h1, w1)

    def widen(self, before: Triple, after: Triple) -> None:
        if any(before) or any(after):
            sides = zip(self.border, before, after, strict=True)
            self.border = tuple((max(side[0], b), max(side[1], a)) for side, b, a in sides)

    def strides(self) -> Strides:
        """(offset of the first element, strides per sample axis, elements of one sample)."""
        if self.seen is not None:
            assert self.alias is not None
            first, strides, per_sample = self.alias.strides()
            return *strided(self.seen, first, strides), per_sample
        if self.plain:
            return plain_strides(self.shape)
        if self.alias is not None:
            first, strides, per_sample = self.root.strides()
            return first + self.channel, strides, per_sample
        return framed_strides(self.shape, self.border)

    def elements(self, n: int, t: int) -> int:
        return self.nbytes(n, t) // SIZES[self.dtype]

    def nbytes(self, n: int, t: int) -> int:
        samples = 1 if self.batch == "1" else n if self.batch == "n" else n * t
        return samples * self.strides()[2] * SIZES[self.dtype]


@dataclass(eq=False)
class Kept:
    """What the forward pass made of a neuron: per share Σ terms, y where shares select by it, and Σ |x w|."""

    terms: list[Buffer] = field(default_factory=list)
    y: Buffer | None = None
    sizes: Buffer | None = None


@dataclass(eq=False, init=False, slots=True)
class View(OneLine):
    """A buffer, or a region of it; never changed, but not frozen, which takes three times as long to make.

    expand : repeat axes of size 1 to this shape
    trailing : one more axis of size 1 behind (word numbers beside their vectors)
    whole : whether it is all of the buffer, as it is
    """

    buffer: Buffer
    region: Region | None = None
    expand: Shape | None = None
    trailing: bool = False
    whole: bool = field(init=False, repr=False)

    def __init__(
        self, buffer: Buffer, region: Region | None = None, expand: Shape | None = None, trailing: bool = False
    ) -> None:
        self.buffer = buffer  # one by one: a tuple of them would be made first
        self.region = region
        self.expand = expand
        self.trailing = trailing
        self.whole = region is None and expand is None and not trailing

    def phase(self, start: Triple, step: Triple, count: Triple) -> View:
        """The outputs of one phase; axes are the last of (d, h, w) that the buffer has."""
        n_space = len(self.buffer.shape) - 1
        if n_space == 0:
            return self
        triples = list(zip(start, step, count, strict=True))[-n_space:]
        return replace(self, region=Region(((0, 1, self.buffer.shape[0]), *triples)))

    def layout(self) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        """(offset, shape, strides) over (c, d, h, w, extra), without the batch axis."""
        return self.sample_layout()[:3]

    def sample_layout(self) -> tuple[int, tuple[int, ...], tuple[int, ...], int]:
        """The same, and the elements of a sample."""
        offset, strides, per_sample = self.buffer.strides()
        shape: tuple[int, ...] = self.buffer.shape
        if self.whole:
            shape, strides = _five(shape, strides)
            return offset, shape, strides, per_sample
        if self.region is not None:
            offset, strides = strided(self.region, offset, strides)
            shape = tuple(count for _, _, count in self.region.ranges)
            if self.region.order is not None:
                shape = tuple(shape[a] for a in self.region.order)
        if self.expand is not None:
            strides = tuple(0 if s == 1 else st for s, st in zip(shape, strides, strict=True))
            shape = self.expand
        if self.trailing:
            shape, strides = (*shape, 1), (*strides, 0)
        return (offset, *_five(shape, strides), per_sample)


@lru_cache(4096)
def _five(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The same over (c, d, h, w, extra): (c, w) → (c, 1, 1, w)."""
    gap = (1,) * max(0, 4 - len(shape))
    shape, strides = (shape[0], *gap, *shape[1:]), (strides[0], *(0 for _ in gap), *strides[1:])
    tail = 5 - len(shape)
    return shape + (1,) * tail, strides + (0,) * tail


def bound_strides(bound: Reals, shape: Shape) -> tuple[int, ...]:
    """Strides over (c, d, h, w, extra) of a constant that samples of this shape meet; a single number may have fewer
    axes.
    """
    whole = bound.reshape((1,) * len(shape)) if bound.size == 1 else bound
    return View(Buffer("", whole.shape, "1"), expand=shape).layout()[2]


@dataclass(eq=False, slots=True)
class Weights(OneLine):
    """Weights of a part, as a kernel wants them: packed for the taps of one phase. Never changed, as a view."""

    part: Part
    layout: str  # "dense", "channel" or "rows"
    scatter: bool = False
    taps: tuple[int, ...] = ()
    real: str = "f4"  # of its numbers: that of what they are multiplied with

    @property
    def key(self) -> tuple[Any, ...]:
        shape = None if self.part.weight is None else self.part.weight.shape  # an affine's depends on that of its input
        return self.part.position, self.part.variant, shape, self.layout, self.scatter, self.taps, self.real


@dataclass(eq=False, init=False)
class Step:
    """One operation of csrc/README.md; fields are those of dtd_step.

    A step has its own values of few of them: `vars(step)`; all others are those of the class.
    """

    op: str
    unit: Node | None
    out: View
    x: View | None = None
    factor: View | None = None
    terms: View | None = None
    y_prev: View | None = None
    terms_prev: View | None = None
    m: View | None = None
    other: View | None = None  # MATMUL: the second operand
    shift: View | None = None
    scale: View | None = None  # NORM_*: what NORM stored as its factor
    weights: Weights | None = None
    bias: Reals | None = None  # arrays of the program's type
    bias_d: Reals | None = None
    vector: Reals | None = None  # per-channel factors, or an embedding's rows
    window: Reals | None = None  # per output position (d, h, w)
    norm_weight: Reals | None = None  # NORM*: of one sample's shape, or 1 along an axis; the other of dtd_step
    norm_bias: Reals | None = None  # NORM: likewise; its shift
    selector: Reals | None = None  # SOFTMAX: likewise, 0 where an element is left out; its other
    within: Reals | None = None  # SOFTMAX: where this is 0, other is 0 too; no kernel reads it
    bound: Reals | None = (
        None  # of one sample's shape, or 1 along an axis: the m of a MAP, MULTIPLY, ACTIVATE or SUMS, the x of a MOVE
    )
    table: NDArray[np.int64] | None = None  # taps of max-pools
    phase: Phase | None = None
    weight_map: str = "w"
    input_map: str = "x"  # MAP: that of x
    multiplier: str = "none"  # MULTIPLY and products: what m multiplies by
    factor_kind: str = "none"  # NEURON_* and FACTOR: "gate", "denominator", "derivative" or "signed"
    select: str = "all"  # NEURON_* and FACTOR: by the sign of y
    sign: str = "none"  # DIVIDE: "positive" or "negative", which m must be; the select of dtd_step
    activation: tuple[str, float, float] = ("identity", 0.0, 0.0)
    derivative: bool = False  # ACTIVATE and NORM_SCATTER
    dual: bool = False
    groups: int = 1
    accumulate: bool = False
    repeat: int = 1
    coefficient: float = 1.0
    stabilizer: float = 0.0
    gamma: float = 0.0
    epsilon: float = 0.0  # NORM*: beside the variance
    centred: bool = False  # NORM*: the mean is subtracted
    axis: int = 0  # along which SOFTMAX*, LOG_SOFTMAX, EMBED and EMBED_SUM work
    winner_bytes: int = 0  # MAX_*
    size: int = 0  # LRN: channels of a sum
    lrn: tuple[float, float, float] = (0.0, 0.0, 0.0)  # k, alpha / size, beta
    macs: int = 0

    def __init__(self, op: str, unit: Node | None, out: View, x: View | None = None, **own: Any) -> None:
        _check_fields(tuple(own))
        own["op"], own["unit"], own["out"], own["x"] = op, unit, out, x
        self.__dict__ = own

    @staticmethod
    def of(own: dict[str, Any]) -> Step:
        """The step with these fields; the dict becomes its own, which takes a quarter of the time."""
        step = Step.__new__(Step)
        step.__dict__ = own
        return step

    def but(self, **own: Any) -> Step:
        """The same step with other values of some fields."""
        _check_fields(tuple(own))
        return Step.of(vars(self) | own)

    def __repr__(self) -> str:
        return f"Step({self.op!r}, unit={self.unit!r}, out={self.out.buffer!r})"

    def views(self) -> list[View]:
        own = self.__dict__
        return [view for view in VIEWS_AMONG[tuple(own)](own) if view is not None]

    def roots(self) -> list[Buffer]:
        """The memory of its views."""
        own = self.__dict__
        return [
            buffer if (buffer := view.buffer).alias is None else buffer.root
            for view in VIEWS_AMONG[tuple(own)](own)
            if view is not None
        ]

    def written(self) -> list[View]:
        """Those that it writes, as a step of values."""
        terms, winners = None if self.op == "FACTOR" else self.terms, self.m if self.op == "MAX_POOL" else None
        return [view for view in (self.out, self.factor, terms, winners) if view is not None]

    def moved(self, place: Callable[[Buffer], Buffer]) -> Step:
        """The same step, where each buffer has another place."""
        views = {key: view for key in VIEWS if (view := self.__dict__.get(key)) is not None}
        places = {key: place(view.buffer) for key, view in views.items()}
        found = {key: replace(views[key], buffer=to) for key, to in places.items() if to is not views[key].buffer}
        return self.but(**found)

    @property
    def entries(self) -> tuple[int, ...]:
        """Positions of the caller's list that it belongs to."""
        return self.unit.entries if self.unit else ()

    def parts(self) -> list[Step]:
        """The steps that it is made of: itself, or those of a fused one (sliced.py)."""
        return [self]

    @property
    def domain(self) -> View:
        """The view whose elements it runs over."""
        if self.op not in REDUCING:
            return self.out
        assert self.x is not None
        return self.x

    @property
    def real(self) -> str:
        """The type of a run that it can stand in."""
        buffer = self.domain.buffer
        return buffer.dtype if buffer.alias is None else buffer.root.dtype

    @property
    def constant(self) -> bool:
        """Whether it computes the same for every x."""
        return self.out.buffer.batch == "1" and all(root.batch == "1" for root in self.roots())


@lru_cache(1024)
def _check_fields(own: tuple[str, ...]) -> None:
    if unknown := set(own) - STEP_FIELDS:
        raise TypeError(f"a step has no {', '.join(unknown)}")


STEP_FIELDS = {f.name for f in fields(Step)}
VIEWS = ("out", "x", "factor", "terms", "y_prev", "terms_prev", "m", "other", "shift", "scale")
"""Fields of a step that are views."""


Seen = Callable[[dict[str, Any]], tuple[View | None, ...]]


class _Views(dict[tuple[str, ...], Seen]):
    """Of the fields that a step has, what takes the views out of them."""

    def __missing__(self, keys: tuple[str, ...]) -> Seen:
        found = [key for key in VIEWS if key in keys]
        # an itemgetter of one key gives no tuple
        self[keys] = seen = itemgetter(*found) if len(found) > 1 else lambda own: tuple(own[key] for key in found)
        return seen


VIEWS_AMONG = _Views()  # steps have the same few sets of fields
