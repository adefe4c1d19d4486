"""What an attention's softmax reads: a product of queries and keys, and what becomes of it element by element.

Sums of the product and numbers that are there already (relative positions, a mask of numbers), factors and activations
become steps that change the product's own result, one after the other. So a slice of it is all that anyone needs, and
the bits stay. Whatever shapes it is seen in, its elements keep their order.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import NamedTuple

import numpy as np

from .cuts import seen
from .shapes import Shape
from .steps import SUMMING, Buffer, Reals, Step, View
from .tensors import Region

LEDGER = "a ledger reads its scores"
OTHERS = "others read its scores"
APART = "its scores lie in another order"


class Scores(NamedTuple):
    """Of a product and what becomes of it.

    product : number of its step
    between : numbers of the steps between it and the softmax
    changes : what to run instead
    """

    product: int
    between: list[int]
    changes: list[Step]


class Chains:
    """Sums and copies among a plan's steps.

    Attributes
    ----------
    users, writers : id of a root → numbers of the steps that use it, that write it
    given : numbers of the steps that move constants, whose results are perhaps read by nobody
    gone : numbers of copies that nobody reads any more
    """

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.users: dict[int, list[int]] = defaultdict(list)
        self.writers: dict[int, list[int]] = defaultdict(list)
        self.given: set[int] = set()
        self.gone: set[int] = set()
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
        if not (view.whole and own_memory(view.buffer.root) and same_order(step.out.buffer, view.buffer)):
            return APART
        if step.op == "MATMUL":
            return Scores(number, [], [])
        if copies(step):
            assert step.x is not None
            copied = self.scores(step.x, number)
            return copied if isinstance(copied, str) else copied._replace(between=[*copied.between, number])
        if scales(step) or _activates(step):
            assert step.x is not None
            changed = self.scores(step.x, number)
            return changed if isinstance(changed, str) else self._changed(changed, number)
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
            bound = like(constant, step.out.buffer.shape, product.buffer.shape)
            added = Step("MOVE", step.unit, product, bound=bound, accumulate=True)
        elif addend.buffer.root.batch != product.buffer.batch or addend.buffer.root.dtype != product.buffer.dtype:
            return "what is added to its scores is of another type"
        elif step.out.buffer.shape != product.buffer.shape:
            return APART
        else:
            added = Step("MOVE", step.unit, product, addend, accumulate=True)
        return Scores(found.product, [*found.between, number], [*found.changes, added])

    def _changed(self, found: Scores, number: int) -> Scores:
        """By factors and a bias of each channel, or an activation."""
        step, product = self.steps[number], self.steps[found.product].out
        changes = [*found.changes]
        if step.op == "ACTIVATE":
            changes.append(Step("ACTIVATE", step.unit, product, product, activation=step.activation))
        else:
            changes.append(scaled(step, product))
        if step.bias is not None:
            bound = like(per_channel(step.bias, step), step.out.buffer.shape, product.buffer.shape)
            changes.append(Step("MOVE", step.unit, product, bound=bound, accumulate=True))
        return Scores(found.product, [*found.between, number], changes)

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

    def read_through(self, number: int) -> list[int]:
        """Let products that alone read a copy of what this step writes read that itself, factors taken in
        place; returns the numbers of the steps that change.
        """
        out = self.steps[number].out
        users = self.users[id(out.buffer.root)]
        starts, places = users[1:], list[int]()
        for start in starts if self.writers[id(out.buffer.root)] == [number] else ():
            trail, at, readers = list[int](), out.buffer, [start]
            while len(readers) == 1 and self._is_copied(self.steps[readers[0]], readers[0], at):
                (last,) = readers
                trail.append(last)
                at = self.steps[last].out.buffer
                readers = [reader for reader in self.users[id(at.root)] if reader != last]
            changes = [copy for copy in trail if scales(self.steps[copy])]
            taken = trail and readers and all(_reads(self.steps[reader], at, out.buffer) for reader in readers)
            if not taken or (changes and len(starts) > 1):
                continue
            for copy in changes:
                self.steps[copy] = scaled(self.steps[copy], out)
            for reader in readers:
                step = self.steps[reader]
                same = {id(view.buffer): out.buffer for view in step.views() if view.buffer.root is at.root}
                self.steps[reader] = seen(step, same)
            places += [*trail, *readers]
            self.gone.update(set(trail) - set(changes))
            self.writers[id(out.buffer.root)] = [number, *changes]
            users[:] = sorted({*users, *changes, *readers} - self.gone)
        return places

    def _is_copied(self, step: Step, number: int, buffer: Buffer) -> bool:
        """Whether a step makes nothing but a copy of a buffer, or one times factors."""
        x, out = step.x, step.out.buffer
        alone = own_memory(out.root) and self.writers[id(out.root)] == [number]
        return alone and (copies(step) or scales(step)) and x is not None and x.whole and same_order(x.buffer, buffer)


def _part(numbers: Reals, region: Region) -> Reals:
    part = numbers[tuple(slice(start, start + step * count, step) for start, step, count in region.ranges)]
    return part if region.order is None else part.transpose(region.order)


def written(step: Step) -> list[int]:
    """Ids of the roots of what it writes."""
    return [id(view.buffer.root) for view in step.written()]


def own_memory(buffer: Buffer) -> bool:
    """Samples in memory of their own."""
    own = buffer.alias is None and not buffer.external and not buffer.framed and not buffer.frozen
    return own and buffer.batch != "1"


def same_order(first: Buffer, second: Buffer) -> bool:
    """Whether both are the same memory, with all of its elements in one order."""

    def row_major(buffer: Buffer) -> bool:
        below = buffer.alias is None or (buffer.seen is None and row_major(buffer.alias))
        return buffer.plain and below

    alike = math.prod(first.shape) == math.prod(second.shape) and row_major(first) and row_major(second)
    return first is second or (first.root is second.root and alike)


def per_channel(numbers: Reals, step: Step) -> Reals:
    """Numbers of its channels, as a column before its samples."""
    buffer = step.out.buffer
    return np.ascontiguousarray(numbers, buffer.dtype).reshape(-1, *(1,) * (len(buffer.shape) - 1))


def like(numbers: Reals, shape: Shape, other: Shape) -> Reals:
    """Numbers that meet samples of one shape, for the same ones in another shape; 1 for axes that they repeat along."""
    if shape == other:
        return numbers
    numbers = np.broadcast_to(numbers, shape).reshape(other)
    for axis in range(len(other)):
        first = numbers.take([0], axis)
        numbers = first if np.array_equal(np.broadcast_to(first, numbers.shape), numbers) else numbers
    return np.ascontiguousarray(numbers)


def scaled(step: Step, product: View) -> Step:
    """What multiplies a product's result by the factors of a step."""
    weight = None if step.weights is None else step.weights.part.weight
    assert weight is not None
    factors = like(per_channel(weight, step), step.out.buffer.shape, product.buffer.shape)
    return Step("MULTIPLY", step.unit, product, product, bound=factors, multiplier="times")


def scales(step: Step) -> bool:
    """Whether its result is what it reads times a factor of each channel, and a bias at most."""
    weight = None if step.weights is None else step.weights.part.weight
    if step.op not in ("NEURON_CHANNEL", "TAPS_CHANNEL") or weight is None or step.phase is None or step.accumulate:
        return False
    alone = step.phase.alone and step.window is None and step.weight_map == "w" and len(step.views()) == 2
    plain = not step.dual and step.multiplier == "none" and step.activation[0] == "identity" and step.out.whole
    return alone and plain and weight.size == step.out.buffer.shape[0]


def _reads(step: Step, memory: Buffer, like: Buffer) -> bool:
    """Whether it is a product that reads a buffer's memory, in the shape and order of another one."""
    views = [view for view in step.views() if view.buffer.root is memory.root]
    alike = all(view.buffer.shape == like.shape and same_order(view.buffer, memory) for view in views)
    return step.op == "MATMUL" and step.out not in views and alike


def _activates(step: Step) -> bool:
    return step.op == "ACTIVATE" and len(step.views()) == 2 and step.bound is None and not step.derivative


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
