"""What an attention's softmax reads: a product of queries and keys, and what is added to it.

A sum of the product and numbers that are there already (relative positions, a mask of numbers) becomes steps that add
to the product's own result, one addition after the other. So a slice of it is all that anyone needs, and the bits stay.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from .steps import SUMMING, Buffer, Reals, Step, View
from .tensors import Region

LEDGER = "a ledger reads its scores"
OTHERS = "others read its scores"
APART = "its scores lie in another order"


class Scores(NamedTuple):
    """Of a product and what is added to it.

    product : number of its step
    between : numbers of the steps between it and the softmax: sums and copies
    added : what to run instead
    """

    product: int
    between: list[int]
    added: list[Step]


class Chains:
    """Sums and copies among a plan's steps.

    Attributes
    ----------
    users, writers : id of a root → numbers of the steps that use it, that write it
    given : numbers of the steps that move constants, whose results are perhaps read by nobody
    """

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.users: dict[int, list[int]] = defaultdict(list)
        self.writers: dict[int, list[int]] = defaultdict(list)
        self.given: set[int] = set()
        self._constants: dict[int, Reals | None] = {}  # id of a buffer → its numbers
        for number, step in enumerate(steps):
            for root in {id(view.buffer.root) for view in step.views()}:
                self.users[root].append(number)
            for root in written(step):
                self.writers[root].append(number)

    def scores(self, view: View, reader: int) -> Scores | str:
        """Of what this step, the only one to do so, reads; why they are none."""
        root = id(view.buffer.root)
        if len(self.writers[root]) != 1 or self.users[root] != [*self.writers[root], reader]:
            others = (self.steps[number].op for number in self.users[root])
            return LEDGER if any(op in SUMMING for op in others) else OTHERS
        (number,) = self.writers[root]
        step = self.steps[number]
        if step.out.buffer is not view.buffer or not (view.whole and plain_memory(view.buffer)):
            return APART
        if step.op == "MATMUL":
            return Scores(number, [], [])
        if copies(step):
            assert step.x is not None
            copied = self.scores(step.x, number)
            return copied if isinstance(copied, str) else copied._replace(between=[*copied.between, number])
        if not _sums(step):
            return f"{step.op} stands between its product and its softmax"
        assert step.x is not None
        assert step.y_prev is not None
        found: Scores | str = OTHERS
        for own, other in ((step.x, step.y_prev), (step.y_prev, step.x)):
            if self._constant(own) is None:
                found = self.scores(own, number)
                if not isinstance(found, str):
                    return self._with(found, number, other)
        return found

    def _with(self, found: Scores, number: int, addend: View) -> Scores | str:
        step, product = self.steps[number], self.steps[found.product].out
        constant = self._constant(addend)
        if constant is not None:
            added = Step("MOVE", step.unit, product, bound=constant, accumulate=True)
        elif addend.buffer.root.batch != product.buffer.batch or addend.buffer.root.dtype != product.buffer.dtype:
            return "what is added to its scores is of another type"
        else:
            added = Step("MOVE", step.unit, product, addend, accumulate=True)
        return Scores(found.product, [*found.between, number], [*found.added, added])

    def _constant(self, view: View) -> Reals | None:
        """Its numbers, with 1 for the size of an axis that is repeated; None where they are not the plan's own."""
        key = id(view.buffer)
        if not view.whole:
            return None
        if key not in self._constants:
            steps: list[int] = []
            found = self._numbers(view.buffer, steps)
            if found is not None:
                self.given.update(steps)
                once = tuple(slice(1 if stride == 0 else None) for stride in found.strides)
                found = np.ascontiguousarray(found[once])
            self._constants[key] = found
        return self._constants[key]

    def _numbers(self, buffer: Buffer, steps: list[int]) -> Reals | None:
        """What steps that only move make of constants of the plan; adds the numbers of these steps."""
        if buffer.alias is not None:
            source = self._numbers(buffer.alias, steps)
            if source is None or buffer.seen is not None or not buffer.plain:
                return None if source is None or buffer.seen is None else _part(source, buffer.seen)
            in_memory = source if buffer.alias.plain or buffer.alias.seen else np.moveaxis(source, 0, -1)
            return in_memory.reshape(buffer.shape)
        writers = self.writers[id(buffer)]
        step = self.steps[writers[0]] if len(writers) == 1 else None
        if step is None or step.op != "MOVE" or step.accumulate or not step.out.whole or step.out.buffer is not buffer:
            return None
        steps.append(writers[0])
        if step.bound is not None:
            return np.broadcast_to(step.bound, buffer.shape) if step.bound.dtype.str[1:] == buffer.dtype else None
        if step.x is None or step.x.trailing or step.x.buffer.root.dtype != buffer.dtype:
            return None
        found = self._numbers(step.x.buffer, steps)
        if found is None:
            return None
        found = found if step.x.region is None else _part(found, step.x.region)
        return found if step.x.expand is None else np.broadcast_to(found, step.x.expand)


def _part(numbers: Reals, region: Region) -> Reals:
    part = numbers[tuple(slice(start, start + step * count, step) for start, step, count in region.ranges)]
    return part if region.order is None else part.transpose(region.order)


def written(step: Step) -> list[int]:
    """Ids of the roots of what it writes."""
    views = (step.out, step.factor, step.terms, step.m if step.op == "MAX_POOL" else None)
    return [id(view.buffer.root) for view in views if view is not None]


def plain_memory(buffer: Buffer) -> bool:
    """Matrices of samples in memory of their own."""
    own = buffer.alias is None and not buffer.external and not buffer.framed and not buffer.frozen
    return own and len(buffer.shape) in (3, 4) and buffer.batch != "1"


def copies(step: Step) -> bool:
    """Whether its result is what it reads, in another order at most."""
    x = step.x
    return (
        step.op == "MOVE"
        and x is not None
        and x.whole
        and step.out.whole
        and not step.accumulate
        and step.out.buffer.batch == x.buffer.batch
        and step.out.buffer.dtype == x.buffer.dtype
    )


def _sums(step: Step) -> bool:
    """Whether its result is the sum of two operands, and nothing else is made of it."""
    alone = step.phase is not None and step.phase.alone and step.weights is None and step.window is None
    bare = step.bias is None and not step.dual and step.activation[0] == "identity"
    views = step.op == "NEURON_CHANNEL" and step.y_prev is not None and len(step.views()) == 3
    return views and alone and bare and step.out.whole
