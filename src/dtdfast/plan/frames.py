"""Steps that clear borders brought together, for a device that runs neighbours of them at once.

A buffer's memory is its own from the step that clears its border to its last one. So the step may come earlier, if the
memory is its own from there.
"""

from __future__ import annotations

from .memory import MANY, Laid, place

MORE = 64
"""An arena may grow by one part in so many for it."""

LITTLE = 2**28
"""Bytes of an arena that may be taken in any case: batches of one sample have the most launches for their time."""


def together(laid: Laid, n: int, t: int) -> Laid:
    """The same with each border cleared beside one before it, where its arena still is small enough."""
    if len(laid.buffers) > MANY // 8:  # each trial takes time that grows with the square of their number
        return laid
    steps, buffers = [*laid.forward, *laid.relevance], laid.buffers
    half, most = len(laid.forward), max(laid.arena + laid.arena // MORE, LITTLE)
    places = list(range(len(steps)))  # each step goes behind the one of that number
    for first, last in ((laid.n_constant, half), (half, len(steps))):
        leader = -1
        for number in range(first, last):
            buffer = steps[number].out.buffer.root
            if steps[number].op != "CLEAR_BORDER" or buffer.external:
                continue
            buffer.first = leader if leader >= 0 else number
            if leader < 0 or place(buffers, n, t, reuse=True) > most:
                buffer.first = leader = number
            places[number] = leader
    order = sorted(range(len(steps)), key=lambda number: (places[number], number))
    now = {number: k for k, number in enumerate(order)}
    for buffer in buffers:
        buffer.first, buffer.last = now[buffer.first], now.get(buffer.last, buffer.last)
    for number, leader in enumerate(places):
        if leader != number:
            steps[number].out.buffer.root.first = now[number]
    moved = [steps[number] for number in order]
    return laid._replace(forward=moved[:half], relevance=moved[half:], arena=place(buffers, n, t, reuse=True))
