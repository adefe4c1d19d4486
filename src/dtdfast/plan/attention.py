"""Scaled dot-product attention among the steps: fused, so that scores stay in cache, and long rows of weights are made
again where they are read rather than kept.

A fused step runs its own steps slice by slice: of one sample (with its targets) and one head, a block of rows or
columns of the weights. Products and softmax have the same bits in slices: each result is one sum in one order, and what
is made again is exp(score − maximum)·(1/sum) of the same score, with the maximum and sum that were kept of its row.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import NamedTuple

from .cuts import axis_of, cuts, ranges, seen, share, spans
from .scores import APART, Chains, Scores, copies, own_memory, written
from .sliced import COLUMNS, MOST, ROWS, Local, Sliced
from .steps import SIZES, Buffer, Step, View

SLICE = 2**19
"""Bytes of scores that a slice has at most, if that leaves it LEAST rows: they stay in a core's second cache. With half
of it, 1,024 tokens took 9 % more of the time of an explanation under held weights."""

HEAD = 2**24
"""Bytes of scores and their relevance that a thread may have, on the way back through a softmax: of a whole head, or of
a block of at least LEAST rows. Blocks need two more products: 6 % of the time with 1,024 tokens."""

SPARSE = 0.7
"""The share of the scores that a mask leaves, below which blocks are worth their two products more."""

LEAST = 32
"""Rows or columns of a block, and what its length is a multiple of."""

SPARED = 0.5
"""Weights are made again where that spares more than this part of their bytes. What it takes are the queries and keys,
unless they are kept anyway, as they are for relevance through a softmax. The product and the exponentials are 1 % of
the time with 128 to 512 tokens, and nothing with 1,024."""

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
    fusion.drop_given()
    steps = fusion.steps
    return Fused(
        [s for step in steps[: len(forward)] for s in step], [s for step in steps[len(forward) :] for s in step], notes
    )


@dataclass
class _Attention:
    """Numbers of its steps.

    between, changes : the steps between scores and softmax, and what is run instead (scores.py)
    readers : products with the weights
    back : the steps of relevance through the softmax, those that read the weights among them
    """

    scores: int
    softmax: int
    between: list[int]
    changes: list[Step]
    readers: list[int]
    back: list[int]

    @property
    def makers(self) -> list[int]:
        """The steps that make the weights."""
        return [self.scores, *self.between, self.softmax]


class _Fusion:
    """All steps of a plan, each as a list of what stands in its place."""

    def __init__(self, steps: list[Step], n_forward: int, t: int, *, local: bool) -> None:
        self.original, self.n_forward, self.t, self.local = steps, n_forward, t, local
        self.steps: list[list[Step]] = [[step] for step in steps]
        self._chains = Chains(steps)
        self._users, self._writers = self._chains.users, self._chains.writers
        self._tall: set[int] = set()  # ids of buffers that slices have for themselves, beside weights and their c

    # ------------------------------------------------------------------------------------------------------ recognition

    def found(self, softmax: int) -> _Attention | str | None:
        """The attention whose weights this softmax makes; why its steps stay apart; None where it makes no weights."""
        step = self.original[softmax]
        assert step.x is not None
        weights = step.out.buffer
        readers = self._users[id(weights.root)][1:]
        scores = self._chains.scores(step.x, softmax)
        if not any(self.original[r].op == "MATMUL" for r in readers):
            while readers and copies(self.original[readers[0]]):
                readers = self._users[id(self.original[readers[0]].out.buffer.root)][1:]
            made = isinstance(scores, Scores) and readers
            return f"{self.original[readers[0]].op} reads its weights, and is no product with values" if made else None
        if isinstance(scores, str):
            return scores
        product = self.original[scores.product].out
        self._tall |= {id(self.original[number].out.buffer.root) for number in (scores.product, *scores.between)}
        if not self._may_wait([scores.product, *scores.between, softmax]):
            return CHANGED
        if step.axis != COLUMNS or not all(map(_plain, (product.buffer, weights))) or product.region or step.out.region:
            return APART
        if product.buffer.shape != weights.shape:
            return APART
        back = [r for r in readers if self.original[r].op == "SOFTMAX_BACK"]
        products = [r for r in readers if r not in back]
        if len(back) > 1 or any(axis_of(self.original[r], weights) is None for r in products):
            return "others read its weights, or change them"
        room = MOST - 2 - len(scores.changes)
        if room < 5:
            return "more becomes of its scores than one step takes"
        if back:
            back = self._through(back[0], [r for r in products if r >= self.n_forward], room)
            if not back:
                return "others read the relevance of scores or weights, or change it"
        readers = [r for r in products if r not in back]
        if any(r < self.n_forward and axis_of(self.original[r], weights) != ROWS for r in readers):
            return "its weights are transposed"
        return _Attention(scores.product, softmax, scores.between, scores.changes, readers, back)

    def _through(self, number: int, products: list[int], room: int) -> list[int]:
        """The steps of relevance through the softmax and the products on either side of it, to run in one place; none
        where others have a part in it.
        """
        step = self.original[number]
        assert step.x is not None
        for place in self._chains.read_through(number):
            self.steps[place] = [] if place in self._chains.gone else [self.original[place]]
        above, below = (self._users[id(view.buffer)] for view in (step.x, step.out))
        makers, takers = above[:-1], below[1:]
        own = above[-1:] == [number] and below[:1] == [number] and len(makers) == 1
        plain = step.coefficient == 1.0 and not step.accumulate and _plain(step.x.buffer) and _plain(step.out.buffer)
        steps = sorted({*makers, *products, number, *takers})
        changes = [
            n for n in takers if self.original[n].op == "MULTIPLY" and self.original[n].out.buffer is step.out.buffer
        ]
        others = [self.original[other] for other in (*makers, *takers) if other not in changes]
        known = all(other.op == "MATMUL" or (copies(other) and other.x is not step.x) for other in others)
        fits = own and plain and len(steps) <= room and known and self._may_wait(steps)
        return steps if fits else []

    # ----------------------------------------------------------------------------------------------------------- fusing

    def fuse(self, found: _Attention) -> str:
        """Put fused steps in the place of an attention's; says what becomes of the weights."""
        scores, softmax = self.original[found.scores], self.original[found.softmax]
        softmax = softmax.but(x=View(scores.out.buffer))
        forward, room = [r for r in found.readers if r < self.n_forward], MOST - 2 - len(found.changes)
        first = self._movable([*found.makers, *forward], room + len(found.makers))
        rest = [r for r in forward if r not in first]
        later = [r for r in found.readers if r >= self.n_forward]
        needed = [*rest, *later, *found.back]
        if needed and not self._spares(scores):
            self._put(first, found, softmax, ROWS, keep=True)
            return f"kept: made again, they would spare no more than {SPARED:.0%} of their bytes"
        if needed and any(_as_large(step, softmax.out.buffer) for step in found.changes):
            self._put(first, found, softmax, ROWS, keep=True)
            return "kept: what is added to its scores is as large"
        if needed and not self._lasts([scores, *found.changes, softmax], found.softmax, max(needed)):
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
            alike = [r for r in (*rest, *later) if axis_of(self.original[r], again.out.buffer) == axis]
            while alike:
                group = self._movable(alike, room)
                self._put(group, found, again, axis)
                alike = alike[len(group) :]
        return "made again where they are read" if needed else "not kept: nothing reads them again"

    def _spares(self, scores: Step) -> bool:
        """Whether making weights again takes little memory for what is spared of theirs."""
        roots = {id(view.buffer.root): view.buffer.root for view in (scores.x, scores.other) if view is not None}
        operands = sum(root.nbytes(1, 1) for key, root in roots.items() if self._users[key][-1] < self.n_forward)
        weights = scores.out.buffer.nbytes(1, 1)
        return weights - operands > SPARED * weights

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
        wrote, read = set[int](), set[int]()
        for number in range(numbers[0], numbers[-1]):
            step = self.original[number]
            roots = {id(view.buffer.root) for view in step.views()}
            if number in numbers:
                wrote.update(written(step))
                read |= roots
            elif number not in self._chains.gone and (wrote & roots or read.intersection(written(step))):
                return False
        return True

    def _sliceable(self, steps: list[Step]) -> bool:
        """Whether none of them uses what another one writes but scores and weights, and their relevance: of all else, a
        slice may meet what another slice has still to write.
        """
        through = [step for step in steps if step.op in ("SOFTMAX", "SOFTMAX_BACK")]
        own = {id(view.buffer.root) for step in through for view in (step.out, step.x) if view is not None} | self._tall
        for step in steps:
            wrote = set(written(step)) - own
            others = (view.buffer.root for other in steps if other is not step for view in other.views())
            if any(id(root) in wrote for root in others):
                return False
        return True

    def _lasts(self, makers: list[Step], first: int, until: int) -> bool:
        """Whether what weights were made of at one step is still there at another one."""
        roots = {id(view.buffer.root) for step in makers for view in (step.x, step.other) if view is not None}
        return not any(first < number <= until for root in roots for number in self._writers[root])

    @staticmethod
    def _stats(weights: Buffer) -> Buffer:
        """Maximum and 1/sum of each row."""
        return Buffer(f"{weights.name}.rows", (*weights.shape[:-1], 2), weights.batch, weights.dtype)

    def _put(
        self, numbers: list[int], found: _Attention, softmax: Step, axis: int | None, *, keep: bool = False
    ) -> None:
        """One fused step in the place of the last of these: scores and weights, and the others of them."""
        others = [self.original[number] for number in numbers if number not in found.makers]
        for number in numbers[:-1]:
            self.steps[number] = []
        self.steps[numbers[-1]] = [self._sliced(found, softmax, others, axis, keep=keep)]

    def _put_back(self, found: _Attention, softmax: Step) -> None:
        """Relevance through the softmax: head by head, or where that takes too much memory by blocks of rows, which
        store Σ s c of each row, and then of columns.
        """
        steps = [self.original[number] for number in found.back]
        (back,) = (step for step in steps if step.op == "SOFTMAX_BACK")
        assert back.x is not None
        weights, c, below = softmax.out.buffer, back.x.buffer, back.out.buffer
        fused: list[tuple[list[Step], int | None]] = [(steps, None)]
        size = math.prod(weights.shape[-2:]) * SIZES[weights.dtype] * (1 + self.t)
        block = _block(weights, ROWS, self.t)
        part = share(self._ranges(softmax, ROWS, block), weights, ROWS, block) if self.local else 1.0
        if self.local and (size > HEAD or part < SPARSE):
            sums = Buffer(f"{weights.name}.sums", (*weights.shape[:-1], 1), c.batch, "f8")
            maker = next(step for step in steps if step.out.buffer is c)
            rows, columns = (
                [s for s in steps if (axis_of(s, below) or axis_of(s, weights) or _copied(s, below)) == axis]
                for axis in (ROWS, COLUMNS)
            )
            changes = [step for step in steps if step.op == "MULTIPLY"]
            fused = [([maker, back.but(factor=View(sums)), *changes, *rows], ROWS)]
            if any(axis_of(step, below) == COLUMNS for step in columns):
                columns = [maker, back.but(scale=View(sums)), *changes, *columns]
            if columns:  # none where keys and values take nothing
                fused.append((columns, COLUMNS))
        for number in found.back:
            self.steps[number] = []
        self.steps[found.back[-1]] = [self._sliced(found, softmax, group, axis) for group, axis in fused]

    def _sliced(
        self, found: _Attention, softmax: Step, others: list[Step], axis: int | None, *, keep: bool = False
    ) -> Sliced:
        """One step of scores, softmax and others; with memory of its own for scores, for weights that are not kept,
        and for relevance of both.
        """
        scores = self.original[found.scores]
        steps = [scores, *found.changes, softmax, *others]
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
        steps = [seen(step, own) for step in steps]
        tall |= {id(buffer) for buffer in own.values()}
        if axis is None:
            return Sliced(steps, [{}] * len(steps), block, [], None)
        some = None if keep or any(map(copies, others)) else self._ranges(softmax, axis, block)
        if some is not None:  # products take as many fewer terms, or make as many fewer
            part = share(some, scores.out.buffer, axis, block)
            steps = [step.but(macs=round(step.macs * part)) if step.macs else step for step in steps]
        spanned = [] if some is None else [spans(step, ROWS + COLUMNS - axis, tall) for step in steps]
        return Sliced(steps, [cuts(step, axis, tall) for step in steps], block, spanned, some)

    @staticmethod
    def _ranges(softmax: Step, axis: int, block: int) -> list[tuple[int, int]] | None:
        mask = softmax.within if softmax.selector is None else softmax.selector
        return None if mask is None else ranges(mask, softmax.out.buffer, axis, block)

    def drop_given(self) -> None:
        """Leave out the steps that move what the plan has at hand, if nobody reads their results."""
        users = Counter(
            root for steps in self.steps for step in steps for root in {id(view.buffer.root) for view in step.views()}
        )
        for number in sorted(self._chains.given, reverse=True):
            step = self.original[number]
            if users[id(step.out.buffer.root)] == 1:
                self.steps[number] = []
                users.subtract({id(view.buffer.root) for view in step.views()})

    def _own(self, buffer: Buffer, axis: int | None, block: int) -> Buffer:
        if not self.local:
            return replace(buffer)
        rank = len(buffer.shape)
        at = None if axis is None else rank - 2 + (axis == COLUMNS)
        return Local(buffer.name, buffer.shape, buffer.batch, buffer.dtype, axis=at, block=block)


# ---------------------------------------------------------------------------------------------------- of single steps


def _plain(buffer: Buffer) -> bool:
    """Row-major matrices of samples in memory of their own."""
    return own_memory(buffer) and buffer.plain and len(buffer.shape) in (3, 4)


def _as_large(change: Step, weights: Buffer) -> bool:
    """Whether it adds what is kept, and as many numbers as weights are."""
    kept = change.op == "MOVE" and change.x is not None
    return kept and change.x is not None and math.prod(change.x.buffer.shape) >= math.prod(weights.shape)


def _copied(step: Step, c: Buffer) -> int:
    """The axis along which a copy of the relevance of scores is cut; 0 where it is none."""
    return ROWS if step.x is not None and step.x.buffer is c and copies(step) else 0


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
