"""Values that are made again on the way back instead of being kept, where a plan takes more memory than it may.

The forward steps are cut into segments where little passes from one to the next. Of the first of them, only that is
kept. Before the first step of relevance that reads anything else of a segment, the forward steps that it takes run
again, each once. They are the same steps, so that the bits are the same; executors see no difference.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from typing import NamedTuple

from .memory import Laid
from .steps import Buffer, Step

SEGMENTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Numbers of segments that are tried. Many take little memory each, but what passes between them is kept. The last one
is always kept whole: its values would be made again at once."""


class Again(NamedTuple):
    """Steps of relevance with those that make values again, the multiply-adds of these, and what they make in words."""

    steps: list[Step]
    macs: int
    what: str


def make_again(values: Values, lay_out: Callable[[list[Step]], Laid], most: int) -> tuple[Laid, str]:
    """The plan of at most so many bytes of arena that has the fewest multiply-adds, of those that are tried; if none is
    that small, the smallest. And what it makes again.

    Parameters
    ----------
    lay_out : memory for the forward steps and these of relevance
    """
    found: list[tuple[Laid, Again]] = []
    for number in SEGMENTS:
        cuts = values.cuts(number)
        again = values.again(cuts)
        laid = lay_out(again.steps)
        few, many = 0, len(cuts)  # segments made again: too few, and enough
        while laid.arena <= most and many - few > 1:
            middle = (few + many) // 2
            fewer = values.again(cuts[:middle])
            if (smaller := lay_out(fewer.steps)).arena <= most:
                many, laid, again = middle, smaller, fewer
            else:
                few = middle
        found.append((laid, again))
    fits = [each for each in found if each[0].arena <= most]
    laid, again = min(fits, key=lambda each: each[1].macs) if fits else min(found, key=lambda each: each[0].arena)
    return lay_out(again.steps), again.what


@dataclass(eq=False)
class _Made:
    """Forward steps that write the same memory: all of them run again, or none.

    numbers : of the steps, ascending
    roots : what they write, by id
    kept : for other reasons than those of memory
    """

    numbers: list[int]
    roots: dict[int, Buffer]
    kept: bool = False


class Values:
    """What the forward steps write, who reads it, and where the steps may be cut."""

    def __init__(
        self, forward: list[Step], relevance: list[Step], counts: tuple[int, int], fixed: Collection[int]
    ) -> None:
        self._forward, self._relevance = forward, relevance
        self._made: dict[int, _Made] = {}  # id of a root → what makes it
        self._readers: dict[int, list[int]] = defaultdict(list)
        for number, step in enumerate(forward):
            roots = {id(view.buffer.root): view.buffer.root for view in step.written()}
            for root in {id(view.buffer.root) for view in step.views()} - roots.keys():
                self._readers[root].append(number)
            numbers = {number}
            for made in {id(m): m for root in roots if (m := self._made.get(root))}.values():
                numbers.update(made.numbers)
                roots |= made.roots
            made = _Made(sorted(numbers), roots)
            self._made |= dict.fromkeys(roots, made)
        changed = {id(view.buffer.root) for step in relevance for view in step.written()}.union(fixed)
        for made in self._made.values():
            own = made.roots.items()
            free = not any(root.external or root.batch == "1" or key in changed for key, root in own)
            made.kept = not free or not all(map(self._repeatable, made.numbers))
        self._measure(counts)

    def _repeatable(self, number: int) -> bool:
        """Whether all that a step reads stays as it is."""
        step = self._forward[number]
        read = {id(view.buffer.root) for view in step.views()} - {id(view.buffer.root) for view in step.written()}
        return all(self._made[root].numbers[-1] < number for root in read if root in self._made)

    def _measure(self, counts: tuple[int, int]) -> None:
        """Before every step: the bytes that pass, and those so far that relevance reads."""
        read = {id(view.buffer.root) for step in self._relevance for view in step.views()}
        passing, kept = [0] * (len(self._forward) + 1), [0] * (len(self._forward) + 1)
        for key, made in self._made.items():
            root = made.roots[key]
            if root.external or root.batch == "1":
                continue
            size, written, last = root.nbytes(*counts), made.numbers[-1], max(self._readers.get(key, [0]))
            if last > written:
                passing[written + 1] += size
                passing[last + 1] -= size
            if key in read:
                kept[written + 1] += size
        self._passing, self._kept = list(accumulate(passing)), list(accumulate(kept))

    def cuts(self, number: int) -> list[int]:
        """The steps before which all but the first of so many segments begin: near each end of an equal part of what
        relevance reads, the one before which least passes.
        """
        found, part = [], self._kept[-1] / number
        for segment in range(1, number):
            begin, end = (bisect_right(self._kept, (segment + side) * part) for side in (-0.5, 0.5))
            near = range(max(begin, 1), min(end, len(self._forward) - 1) + 1)
            if near:
                found.append(min(near, key=lambda k: (self._passing[k], abs(self._kept[k] - segment * part))))
        return sorted(set(found))

    def again(self, cuts: list[int]) -> Again:
        """What relevance reads of the segments up to the last cut, made again."""
        copies: dict[int, Buffer] = {}
        done: set[int] = set()

        @cache
        def kept(root: int) -> bool:
            made = self._made.get(root)
            if made is None or made.kept:
                return True
            users = made.numbers[0], made.numbers[-1], *self._readers.get(root, ())
            segments = {bisect_right(cuts, number) for number in users}
            return len(segments) > 1 or segments == {len(cuts)}

        def copy(buffer: Buffer) -> Buffer:
            if id(buffer) not in copies:
                alias = None if buffer.alias is None else copy(buffer.alias)
                copies[id(buffer)] = replace(buffer, alias=alias, name=f"{buffer.name}'")
            return copies[id(buffer)]

        def moved(step: Step, own: Collection[int] = ()) -> Step:
            def place(buffer: Buffer) -> Buffer:
                root = id(buffer.root)
                return copy(buffer) if root in own or not kept(root) else buffer

            return step.moved(place)

        def steps_for(root: int) -> Iterator[int]:
            """Numbers of the steps that make it and have not run again."""
            wanted = [root]
            while wanted:
                made = self._made[wanted.pop()]
                for number in made.numbers if made.numbers[0] not in done else ():
                    done.add(number)
                    yield number
                    roots = {id(view.buffer.root) for view in self._forward[number].views()}
                    wanted += [root for root in roots if root not in made.roots and not kept(root)]

        steps: list[Step] = []
        macs, entries = 0, set[int]()
        for step in self._relevance:
            gone = [root for view in step.views() if not kept(root := id(view.buffer.root))]
            for number in sorted(number for root in gone for number in steps_for(root)):
                old = self._forward[number]
                steps.append(moved(old, {id(view.buffer.root) for view in old.written()}))
                macs += old.macs
                entries.update(old.entries)
            steps.append(moved(step) if gone else step)
        share = macs / max(1, sum(step.macs for step in (*self._forward, *self._relevance)))
        last, parts = max(entries, default=0), f"{len(cuts)} segment{'s' * (len(cuts) > 1)}"
        what = f"{len(entries)} entries up to {last}, in {parts}, for {share:.0%} more multiply-adds" if entries else ""
        return Again(steps, macs, what)
