"""What an attention's softmax reads: a product of queries and keys, and what is added to it.

A sum of the product and numbers that are there already (relative positions, a mask of numbers) becomes steps that add
to the product's own result, one addition after the other. So a slice of it is all that anyone needs, and the bits stay.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from .steps import SUMMING, Buffer, Reals, Step, View

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
    given : numbers of the steps whose results are read where they come from, and perhaps by nobody else
    """

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.users: dict[int, list[int]] = defaultdict(list)
        self.writers: dict[int, list[int]] = defaultdict(list)
        self.given: set[int] = set()
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
            if isinstance(self._source(own), View):  # no constants
                found = self.scores(own, number)
                if not isinstance(found, str):
                    return self._with(found, number, other)
        return found

    def _with(self, found: Scores, number: int, addend: View) -> Scores | str:
        step, product = self.steps[number], self.steps[found.product].out
        view = self._source(addend)
        if not isinstance(view, View):
            added = Step("MOVE", step.unit, product, bound=view, accumulate=True)
        elif view.buffer.root.batch != product.buffer.batch or view.buffer.root.dtype != product.buffer.dtype:
            return "what is added to its scores is of another type"
        else:
            added = Step("MOVE", step.unit, product, view, accumulate=True)
        return Scores(found.product, [*found.between, number], [*found.added, added])

    def _source(self, view: View) -> View | Reals:
        """Where a copy comes from: constants of the plan, or a smaller buffer."""
        dtype = view.buffer.dtype
        while view.whole and len(self.writers[id(view.buffer.root)]) == 1:
            (number,) = self.writers[id(view.buffer.root)]
            step = self.steps[number]
            if step.op != "MOVE" or step.accumulate or not step.out.whole or step.out.buffer is not view.buffer:
                break
            if step.bound is not None and step.bound.dtype.str[1:] == dtype:
                self.given.add(number)
                return step.bound
            x = step.x
            if x is None or x.region is not None or x.trailing or x.buffer.root.dtype != dtype:
                break
            self.given.add(number)
            view = x
        return view


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
