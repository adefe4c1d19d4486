"""Shared memory's banks: how often an access of an emulated warp waits because lanes meet in one.

32 banks, four bytes wide. A warp's access of 4 bytes a lane is served at once, one of 8 bytes in halves of a warp, one
of 16 bytes in quarters; each of these takes as many turns as the bank that is asked for most different words.
(`ldmatrix` is checked by the emulation itself.)
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

import emulation

SIZES = {
    "shared_load": 4, "shared_load4": 16, "shared_load_int": 4, "shared_store": 4, "shared_store2": 8,
    "shared_store_int": 4, "copy4": 4, "copy16": 16,
}  # fmt: skip


class Banks:
    """Accesses by warp: the instruction, its line in the kernel, and how often the lane has been there."""

    def __init__(self) -> None:
        self.accesses: dict[tuple[Any, ...], dict[int, int]] = defaultdict(dict)

    def instruction(self, name: str, right: Any) -> Any:
        def noted(address: int, *rest: Any) -> Any:
            thread, line = emulation._S.current, sys._getframe(1).f_lineno
            times = thread.__dict__.setdefault("times", Counter())
            times[name, line] += 1
            key = (name, thread.block, thread.number // 32, line, times[name, line])
            self.accesses[key][thread.number % 32] = address
            return right(address, *rest)

        return partial(noted)  # a plain function would be written out, and have no line in the kernel

    def turns(self) -> dict[str, tuple[int, int]]:
        """By instruction the turns of all warps, and as many as there were if no lanes met."""
        taken, least = Counter[str](), Counter[str]()
        for (name, *_), by_lane in self.accesses.items():
            parts = turns(SIZES[name], by_lane)
            taken[name] += sum(parts)
            least[name] += len(parts)
        return {name: (taken[name], least[name]) for name in taken}


def turns(size: int, by_lane: dict[int, int]) -> list[int]:
    """Of each part of a warp that is served at once the turns that it takes."""
    parts = defaultdict(set)
    for lane, address in by_lane.items():
        parts[lane * size // 128].update(range(address // 4, (address + size + 3) // 4))
    return [max(Counter(word % 32 for word in words).values()) for words in parts.values()]


@contextmanager
def watched() -> Iterator[Banks]:
    """What kernels do that run meanwhile."""
    banks = Banks()
    emulation.function_of.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        for name in SIZES:
            patch.setattr(emulation, name, banks.instruction(name, getattr(emulation, name)))
        yield banks
    emulation.function_of.cache_clear()
