"""The arena: borders cleared when memory is taken over, and buffers that live at different times sharing it."""

from __future__ import annotations

from bisect import bisect_left, insort
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._kernels import ffi, lib
from .steps import NO_BORDER, Buffer, Step, View

ALIGN = 64  # bytes

MANY = 4096
"""Buffers beyond which they are placed in the order of their first use, so that planning takes time in proportion to
their number."""


def with_clears(steps: list[Step], number: int, buffers: dict[int, Buffer]) -> list[Step]:
    """The steps, the first of which has this number, and before the first one that writes a framed buffer a step that
    zeroes its frame. Of arena buffers, their first and last steps are set; `buffers` holds, by id, those of all steps
    so far in the order of first use.
    """
    result = []
    for step in steps:
        roots = step.roots()
        for root in roots:
            if root.border is not NO_BORDER and root.framed and id(root) not in buffers:
                buffers[id(root)], root.first = root, number
                result.append(Step("CLEAR_BORDER", step.unit, View(root)))
                number += 1
        for root in roots:
            if id(root) not in buffers:
                buffers[id(root)], root.first = root, number
            root.last = number
        result.append(step)
        number += 1
    return result


class Laid(NamedTuple):
    """Steps with their borders cleared, and memory for what they use: `arena` bytes."""

    forward: list[Step]
    relevance: list[Step]
    n_constant: int
    buffers: list[Buffer]
    arena: int


def lay_out(forward: list[Step], relevance: list[Step], n: int, t: int, *, chunked: bool) -> Laid:
    """Memory for n samples with t targets each. The forward steps begin with those that depend on no x.

    Parameters
    ----------
    chunked : as in lower
    """
    used: dict[int, Buffer] = {}
    forward = with_clears(forward, 0, used)
    relevance = with_clears(relevance, len(forward), used)
    buffers = [buffer for buffer in used.values() if not buffer.external]
    n_constant = sum(step.constant for step in forward) if forward and forward[0].constant else 0
    for buffer in buffers if n_constant or chunked else ():  # the results of constant steps are there in the next call
        if buffer.first < n_constant <= buffer.last or (chunked and buffer.first < len(forward) <= buffer.last):
            buffer.last = len(forward) + len(relevance)
    return Laid(forward, relevance, n_constant, buffers, place(buffers, n, t, reuse=True))


def place(buffers: list[Buffer], n: int, t: int, *, reuse: bool) -> int:
    """Offsets for buffers; returns the arena's bytes."""
    numbers = [b.nbytes(n, t) for b in buffers], [b.first for b in buffers], [b.last for b in buffers]
    nbytes, first, last = np.array(numbers, np.int64)
    sizes = -(-nbytes // ALIGN) * ALIGN
    if reuse and len(buffers) > MANY:
        return _in_order(buffers, sizes.tolist())
    order = np.lexsort((first, -nbytes))
    largest_first, sizes = [buffers[i] for i in order.tolist()], sizes[order]
    if not reuse:
        for buffer, end, size in zip(largest_first, np.cumsum(sizes).tolist(), sizes.tolist(), strict=True):
            buffer.offset = end - size
        return int(sizes.sum())
    return _lowest(largest_first, np.stack([sizes, first[order], last[order]]))


def _lowest(buffers: list[Buffer], lives: NDArray[np.int64]) -> int:
    """Each buffer at the lowest place free throughout its life (bytes, first and last step): little memory, in time
    that grows with the square of their number.
    """
    table = np.zeros((5, len(buffers)), np.int64)
    table[:3] = lives
    top: int = lib.dtd_place(len(buffers), *(ffi.from_buffer("int64_t[]", row) for row in table))
    for buffer, offset in zip(buffers, table[3].tolist(), strict=True):
        buffer.offset = offset
    return top


def _in_order(buffers: list[Buffer], sizes: list[int]) -> int:
    """Buffers as they come: each in the smallest hole that holds it, what is left of the hole and what has ended become
    holes again.
    """
    holes: list[tuple[int, int]] = []  # (size, offset), sorted
    starts, ends = dict[int, int](), dict[int, int]()  # offset → size, and end → offset, of the holes
    ending: list[tuple[int, int, int]] = []  # (last step, offset, size) of what lives
    top = 0

    def take(size: int, offset: int) -> None:
        holes.pop(bisect_left(holes, (size, offset)))
        del starts[offset], ends[offset + size]

    def give(size: int, offset: int) -> None:
        if offset in ends:
            before = ends[offset]
            length = starts[before]
            take(length, before)
            size, offset = size + length, before
        if offset + size in starts:
            length = starts[offset + size]
            take(length, offset + size)
            size += length
        insort(holes, (size, offset))
        starts[offset], ends[offset + size] = size, offset

    for number in sorted(range(len(buffers)), key=lambda i: buffers[i].first):
        buffer, size = buffers[number], sizes[number]
        while ending and ending[0][0] < buffer.first:
            _, offset, ended = heappop(ending)
            give(ended, offset)
        found = bisect_left(holes, (size, -1))
        if found < len(holes):
            length, offset = holes[found]
            take(length, offset)
            if length > size:
                give(length - size, offset + size)
        else:
            offset, top = top, top + size
        buffer.offset = offset
        heappush(ending, (buffer.last, offset, size))
    return top
