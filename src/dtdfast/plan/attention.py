"""Scaled dot-product attention among the steps: fused, so that scores stay in cache, and long rows of weights are made
again where they are read rather than kept.

A fused step runs its own steps slice by slice: of one sample (with its targets) and one head, a block of rows or
columns of the weights. Products and softmax have the same bits in slices: each result is one sum in one order, and what
is made again is exp(score − maximum)·(1/sum) of the same score, with the maximum and sum that were kept of its row.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import NamedTuple

from .sliced import COLUMNS, MOST, ROWS, Cuts, Local, Sliced
from .steps import SIZES, Buffer, Step, View
from .tensors import whole

SLICE = 2**19
"""Bytes of scores that a slice has at most, if that leaves it LEAST rows: they stay in a core's second cache. With half
of it, 1,024 tokens took 9 % more of the time of an explanation under held weights."""

HEAD = 2**24
"""Bytes of scores and their relevance that a thread may have, on the way back through a softmax: of a whole head, or of
a block of at least LEAST rows. Blocks need two more products: 6 % of the time with 1,024 tokens."""

LEAST = 32
"""Rows or columns of a block, and what its length is a multiple of."""

WORTH = 2
"""Weights so many times the size of the queries and keys that they are made of are kept; larger ones are made again,
which costs 1 % of the time with 512 tokens under held weights, and nothing with 1,024."""

CHANGED = "its queries, keys or mask change"


class Fused(NamedTuple):
    """Forward and relevance steps with attention fused, and what became of its weights: (entries, what)."""

    forward: list[Step]
    relevance: list[Step]
    notes: list[tuple[tuple[int, ...], str]]


def fuse_attention(forward: list[Step], relevance: list[Step], t: int, *, local: bool) -> Fused:
    """Parameters
    ----------
    t : targets of a sample
    local : slices run one by one, with memory of each thread; else all at once, in the arena
    """
    notes: list[tuple[tuple[int, ...], str]] = []
    if not any(step.op == "SOFTMAX" for step in forward):
        return Fused(forward, relevance, notes)
    fusion = _Fusion([*forward, *relevance], len(forward), t, local=local)
    for number, step in enumerate(forward):
        found = fusion.found(number) if step.op == "SOFTMAX" else None
        if found is not None:
            what = f"kept: {found}" if isinstance(found, str) else fusion.fuse(found)
            notes.append((step.entries, what))
    steps = fusion.steps
    return Fused(
        [s for step in steps[: len(forward)] for s in step], [s for step in steps[len(forward) :] for s in step], notes
    )


@dataclass
class _Attention:
    """Numbers of its steps.

    readers : products with the weights
    back : the steps of relevance through the softmax, those that read the weights among them
    """

    scores: int
    softmax: int
    readers: list[int]
    back: list[int]


class _Fusion:
    """All steps of a plan, each as a list of what stands in its place."""

    def __init__(self, steps: list[Step], n_forward: int, t: int, *, local: bool) -> None:
        self.original, self.n_forward, self.t, self.local = steps, n_forward, t, local
        self.steps: list[list[Step]] = [[step] for step in steps]
        self._users: dict[int, list[int]] = defaultdict(list)  # id of a root → numbers of steps
        self._writers: dict[int, list[int]] = defaultdict(list)
        for number, step in enumerate(steps):
            for root in {id(view.buffer.root) for view in step.views()}:
                self._users[root].append(number)
            for root in _written(step):
                self._writers[root].append(number)

    # ------------------------------------------------------------------------------------------------------ recognition

    def found(self, softmax: int) -> _Attention | str | None:
        """The attention whose weights this softmax makes; why its steps stay apart; None where it makes no weights."""
        step = self.original[softmax]
        assert step.x is not None
        scores, weights = step.x.buffer, step.out.buffer
        makers, readers = self._users[id(scores.root)][:-1], self._users[id(weights.root)][1:]
        if not any(self.original[r].op == "MATMUL" for r in readers):
            return None
        makes = [self.original[number] for number in makers]
        if len(makers) != 1 or makes[0].op != "MATMUL" or makes[0].out.buffer is not scores:
            return "its scores are more than one product, or others read them"
        if not self._may_wait([makers[0], softmax]):
            return CHANGED
        if step.axis != COLUMNS or not all(map(_plain, (scores, weights))) or makes[0].out.region or step.out.region:
            return "its scores or weights lie in another order"
        back = [r for r in readers if self.original[r].op == "SOFTMAX_BACK"]
        products = [r for r in readers if r not in back]
        if len(back) > 1 or any(_axis(self.original[r], weights) is None for r in products):
            return "others read its weights, or change them"
        if back:
            back = self._through(back[0], [r for r in products if r >= self.n_forward])
            if not back:
                return "others read the relevance of scores or weights, or change it"
        readers = [r for r in products if r not in back]
        if any(r < self.n_forward and _axis(self.original[r], weights) != ROWS for r in readers):
            return "its weights are transposed"
        return _Attention(makers[0], softmax, readers, back)

    def _through(self, number: int, products: list[int]) -> list[int]:
        """The steps of relevance through the softmax and the products on either side of it, to run in one place; none
        where others have a part in it.
        """
        step = self.original[number]
        assert step.x is not None
        above, below = (self._users[id(view.buffer)] for view in (step.x, step.out))
        makers, takers = above[:-1], below[1:]
        own = above[-1:] == [number] and below[:1] == [number] and len(makers) == 1
        plain = step.coefficient == 1.0 and not step.accumulate and _plain(step.x.buffer) and _plain(step.out.buffer)
        others = [self.original[other] for other in (*makers, *takers)]
        steps = sorted({*makers, *products, number, *takers})
        few = len(steps) <= MOST - 2  # beside scores and softmax
        fits = own and plain and few and all(other.op == "MATMUL" for other in others) and self._may_wait(steps)
        return steps if fits else []

    # ----------------------------------------------------------------------------------------------------------- fusing

    def fuse(self, found: _Attention) -> str:
        """Put fused steps in the place of an attention's; says what becomes of the weights."""
        scores, softmax = self.original[found.scores], self.original[found.softmax]
        forward = [r for r in found.readers if r < self.n_forward]
        first = self._movable([found.scores, found.softmax, *forward], MOST)
        rest = [r for r in forward if r not in first]
        later = [r for r in found.readers if r >= self.n_forward]
        needed = [*rest, *later, *found.back]
        if needed and _small(scores):
            self._put(first, found, softmax, ROWS, keep=True)
            return f"kept: no more than {WORTH} times its queries and keys"
        if needed and not self._lasts(scores, softmax, max(needed)):
            self._put(first, found, softmax, ROWS, keep=True)
            return f"kept: {CHANGED}"
        again = softmax
        if needed and self.local:
            stats = self._stats(softmax.out.buffer)
            softmax, again = softmax.but(factor=View(stats)), softmax.but(m=View(stats))
        self._put(first, found, softmax, ROWS)
        if found.back:
            self._put_back(found, again)
        for axis in (ROWS, COLUMNS):
            alike = [r for r in (*rest, *later) if _axis(self.original[r], again.out.buffer) == axis]
            while alike:
                group = self._movable(alike, MOST - 2)
                self._put(group, found, again, axis)
                alike = alike[len(group) :]
        return "made again where they are read" if needed else "not kept: nothing reads them again"

    def _movable(self, numbers: list[int], most: int) -> list[int]:
        """As many of these steps as may all run in the place of the last one of them, `most` of them at most."""
        for end in range(min(len(numbers), most), 1, -1):
            if self._may_wait(numbers[:end]):
                return numbers[:end]
        return numbers[:1]

    def _may_wait(self, numbers: list[int]) -> bool:
        """Whether no step behind one of them, before the last one, reads what it writes or writes what it reads; and
        slices of them have nothing to do with one another.
        """
        if not self._sliceable([self.original[number] for number in numbers]):
            return False
        written, read = set[int](), set[int]()
        for number in range(numbers[0], numbers[-1]):
            step = self.original[number]
            roots = {id(view.buffer.root) for view in step.views()}
            if number in numbers:
                written.update(_written(step))
                read |= roots
            elif written & roots or read.intersection(_written(step)):
                return False
        return True

    @staticmethod
    def _sliceable(steps: list[Step]) -> bool:
        """Whether none of them uses what another one writes but scores and weights, and their relevance: of all else, a
        slice may meet what another slice has still to write.
        """
        through = [step for step in steps if step.op in ("SOFTMAX", "SOFTMAX_BACK")]
        own = {id(view.buffer.root) for step in through for view in (step.out, step.x) if view is not None}
        for step in steps:
            written = set(_written(step)) - own
            others = (view.buffer.root for other in steps if other is not step for view in other.views())
            if any(id(root) in written for root in others):
                return False
        return True

    def _lasts(self, scores: Step, softmax: Step, until: int) -> bool:
        """Whether what scores are made of is still there at that step."""
        views = (scores.x, scores.other, softmax.other)
        roots = [id(view.buffer.root) for view in views if view is not None]
        first = self._writers[id(scores.out.buffer)][0]
        return not any(first < number <= until for root in roots for number in self._writers[root])

    @staticmethod
    def _stats(weights: Buffer) -> Buffer:
        """Maximum and 1/sum of each row."""
        return Buffer(f"{weights.name}.rows", (*weights.shape[:-1], 2), weights.batch, weights.dtype)

    def _put(
        self, numbers: list[int], found: _Attention, softmax: Step, axis: int | None, *, keep: bool = False
    ) -> None:
        """One fused step in the place of the last of these: scores and weights, and the others of them."""
        own = (found.scores, found.softmax)
        others = [self.original[number] for number in numbers if number not in own]
        for number in numbers[:-1]:
            self.steps[number] = []
        self.steps[numbers[-1]] = [self._sliced([self.original[found.scores], softmax, *others], axis, keep=keep)]

    def _put_back(self, found: _Attention, softmax: Step) -> None:
        """Relevance through the softmax: head by head, or where that takes too much memory by blocks of rows, which
        store Σ s c of each row, and then of columns.
        """
        steps = [self.original[number] for number in found.back]
        (back,) = (step for step in steps if step.op == "SOFTMAX_BACK")
        assert back.x is not None
        weights, c, below = softmax.out.buffer, back.x.buffer, back.out.buffer
        scores = self.original[found.scores]
        fused: list[tuple[list[Step], int | None]] = [(steps, None)]
        size = math.prod(weights.shape[-2:]) * SIZES[weights.dtype] * (1 + self.t)
        if self.local and size > HEAD:
            sums = Buffer(f"{weights.name}.sums", (*weights.shape[:-1], 1), c.batch, "f8")
            maker = next(step for step in steps if step.out.buffer is c)
            rows, columns = (
                [s for s in steps if (_axis(s, below) or _axis(s, weights)) == axis] for axis in (ROWS, COLUMNS)
            )
            fused = [([maker, back.but(factor=View(sums)), *rows], ROWS)]
            if any(_axis(step, below) == COLUMNS for step in columns):
                columns = [maker, back.but(scale=View(sums)), *columns]
            if columns:  # none where keys and values take nothing
                fused.append((columns, COLUMNS))
        for number in found.back:
            self.steps[number] = []
        self.steps[found.back[-1]] = [self._sliced([scores, softmax, *group], axis) for group, axis in fused]

    def _sliced(self, steps: list[Step], axis: int | None, *, keep: bool = False) -> Sliced:
        """One step of scores, softmax and others; with memory of its own for scores, for weights that are not kept,
        and for relevance of both.
        """
        scores, softmax, *others = steps
        axis = axis if self.local else None
        back = [step for step in others if step.op == "SOFTMAX_BACK"]
        block = 0 if axis is None else _block(scores.out.buffer, axis, self.t if back else 0)
        tall = {id(step.out.buffer) for step in (scores, softmax, *back)}
        tall |= {id(step.x.buffer) for step in back if step.x is not None}
        own: dict[int, Buffer] = {}  # id of a buffer → what stands for it in a slice

        def stand_in(first: Buffer, second: Buffer) -> None:
            """Both in one place, for the second comes from the first element by element."""
            own[id(first)] = own[id(second)] = self._own(first, axis, block)
            if not self.local:
                own[id(second)] = self._own(second, axis, block)

        stand_in(scores.out.buffer, softmax.out.buffer)
        if keep:
            del own[id(softmax.out.buffer)]
        for step in back:
            assert step.x is not None
            stand_in(step.x.buffer, step.out.buffer)
        cuts = [{} if axis is None else _cuts(step, axis, tall) for step in steps]
        return Sliced([_seen(step, own) for step in steps], cuts, block)

    def _own(self, buffer: Buffer, axis: int | None, block: int) -> Buffer:
        if not self.local:
            return replace(buffer)
        rank = len(buffer.shape)
        at = None if axis is None else rank - 2 + (axis == COLUMNS)
        return Local(buffer.name, buffer.shape, buffer.batch, buffer.dtype, axis=at, block=block)


# ---------------------------------------------------------------------------------------------------- of single steps


def _plain(buffer: Buffer) -> bool:
    """Row-major matrices of samples in memory of their own."""
    own = buffer.alias is None and not buffer.external and not buffer.framed and not buffer.frozen
    return own and buffer.plain and len(buffer.shape) in (3, 4) and buffer.batch != "1"


def _written(step: Step) -> list[int]:
    views = (step.out, step.factor, step.terms, step.m if step.op == "MAX_POOL" else None)
    return [id(view.buffer.root) for view in views if view is not None]


def _turned(view: View) -> bool | None:
    """Whether rows and columns of a whole buffer are exchanged; None where it is not all of it."""
    if view.expand is not None or view.trailing:
        return None
    if view.region is None:
        return False
    rank = len(view.buffer.shape)
    order = (*range(rank - 2), rank - 1, rank - 2)
    if view.region.ranges != whole(view.buffer.shape).ranges or view.region.order not in (None, order):
        return None
    return view.region.order is not None


def _held(step: Step, weights: Buffer) -> tuple[str, int] | None:
    """Of a product with the weights: the field that they are, and the axis of that view which is not summed over."""
    fields = [key for key in ("x", "other") if (view := getattr(step, key)) is not None and view.buffer is weights]
    if step.op != "MATMUL" or len(fields) != 1 or _turned(getattr(step, fields[0])) is None:
        return None
    others = [view for view in step.views() if view is not getattr(step, fields[0])]
    if any(view.buffer.root is weights for view in others):
        return None
    return fields[0], ROWS if fields[0] == "x" else COLUMNS


def _axis(step: Step, weights: Buffer) -> int | None:
    """The axis of the weights that a product with them does not sum over, and so may be cut."""
    held = _held(step, weights)
    if held is None:
        return None
    key, axis = held
    return ROWS + COLUMNS - axis if _turned(getattr(step, key)) else axis


def _cuts(step: Step, axis: int, tall: set[int]) -> Cuts:
    """The views of a step that are cut, where scores and weights, and their relevance, are along an axis."""
    if step.op != "MATMUL":  # its stored numbers of rows are cut with these
        rows = ("factor", "scale", *(("m",) if step.op == "SOFTMAX" else ()))
        same = ("out", "x", "m" if step.op == "SOFTMAX_BACK" else "other")
        return {**dict.fromkeys(same, axis), **(dict.fromkeys(rows, axis) if axis == ROWS else {})}
    key = next(key for key in ("out", "x", "other") if id(getattr(step, key).buffer) in tall)
    if key == "out":
        at = ROWS + COLUMNS - axis if _turned(step.out) else axis
        return {"out": at, "x" if at == ROWS else "other": at}
    at = ROWS if key == "x" else COLUMNS
    return {"out": at, key: at, "m": at}


def _seen(step: Step, own: dict[int, Buffer]) -> Step:
    """A step with other buffers."""
    views = {key: value for key, value in vars(step).items() if isinstance(value, View) and id(value.buffer) in own}
    return step.but(**{key: replace(view, buffer=own[id(view.buffer)]) for key, view in views.items()})


def _small(scores: Step) -> bool:
    """Whether weights are so small that to keep them costs less than to make them again."""
    assert scores.x is not None
    rows, columns = scores.out.buffer.shape[-2:]
    return rows * columns <= WORTH * (rows + columns) * scores.x.layout()[1][3]


def _block(scores: Buffer, axis: int, t: int) -> int:
    """Rows or columns of a slice, which has their relevance for t targets too: blocks are of about one length."""
    rows, columns = scores.shape[-2:]
    length, line = (rows, columns) if axis == ROWS else (columns, rows)
    line *= SIZES[scores.dtype]
    most = min(SLICE // line, HEAD // (line * (1 + t))) if t else SLICE // line
    most = max(LEAST, most // LEAST * LEAST)
    if length <= most:
        return length
    return -(-length // (-(-length // most) * LEAST)) * LEAST
