"""The arena: borders cleared when memory is taken over, and buffers that live at different times sharing it."""

from __future__ import annotations

from .steps import Buffer, Step, View

ALIGN = 64  # bytes


def insert_clears(steps: list[Step], known: set[int]) -> list[Step]:
    """Before the first step that writes a framed buffer, a step that zeroes its frame; `known` holds ids of buffers done."""
    result = []
    for step in steps:
        for view in step.views():
            buffer = view.buffer.root
            if buffer.framed and id(buffer) not in known:
                known.add(id(buffer))
                result.append(Step("CLEAR_BORDER", step.unit, View(buffer)))
        result.append(step)
    return result


def live_ranges(steps: list[Step]) -> list[Buffer]:
    """Set every arena buffer's first and last step; returns them in order of first use."""
    buffers: dict[int, Buffer] = {}
    for number, step in enumerate(steps):
        for view in step.views():
            buffer = view.buffer.root
            if buffer.external:
                continue
            if id(buffer) not in buffers:
                buffers[id(buffer)] = buffer
                buffer.first = number
            buffer.last = number
    return list(buffers.values())


def place(buffers: list[Buffer], n: int, t: int, *, reuse: bool) -> int:
    """Offsets for buffers, largest first, each at the lowest place free throughout its life; returns the arena's bytes."""
    placed: list[tuple[Buffer, int]] = []
    top = 0
    for buffer in sorted(buffers, key=lambda b: (-b.nbytes(n, t), b.first)):
        size = -(-buffer.nbytes(n, t) // ALIGN) * ALIGN
        offset = 0
        if reuse:
            rivals = sorted((b.offset, s) for b, s in placed if b.first <= buffer.last and buffer.first <= b.last)
            for start, length in rivals:
                if offset + size <= start:
                    break
                offset = max(offset, start + length)
        else:
            offset = top
        buffer.offset = offset
        placed.append((buffer, size))
        top = max(top, offset + size)
    return top
