"""Working memory of the CPU executors: lent to one session at a time, kept for the next, within one budget for the
process.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict, deque
from collections.abc import Hashable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..budget import budget, readable
from ..errors import MemoryBudgetError
from ..locks import renewed

Array = NDArray[Any]

KEPT = 2**29
"""Bytes of idle arenas that are kept for later calls, or an eighth of the memory budget where that is less; and always
the last one."""


MOST_SCRATCH = 8
"""Pieces of scratch memory that are kept for later calls, however many ran at the same time."""


def aligned(nbytes: int) -> Array:
    """Memory that begins on a cache line."""
    try:
        raw = np.empty(nbytes + 64, np.uint8)
    except MemoryError:
        raise MemoryBudgetError(
            f"the system gives no {readable(nbytes)} of working memory; use a smaller batch_size or sample"
        ) from None
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes]


class Arena:
    """Working memory, and what stays in it from call to call.

    Attributes
    ----------
    ready : the constants of its shelf's plan lie in it
    bases : their table of pointers, the arena's own and the constants' filled in
    """

    __slots__ = ("__weakref__", "bases", "entry", "memory", "nbytes", "ready")

    def __init__(self, memory: Array, shelf: Shelf, gone: deque[Hashable]) -> None:
        self.memory, self.nbytes = memory, memory.nbytes
        self.ready = False
        self.bases: Any = None
        key = id(self)
        # of the pool, while it is idle
        self.entry = weakref.ref(self, lambda _: gone.append(key)), weakref.ref(shelf), self.nbytes


class Shelf:
    """The idle arenas of one layout: they go with it, or before where others need the memory."""

    __slots__ = ("__weakref__", "idle")

    def __init__(self) -> None:
        self.idle: deque[Arena] = deque()


class ArenaPool:
    """All idle arenas of the process; beyond `kept` bytes, the least recently used go first."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self._lock = renewed(self, "_lock")
        self._idle: OrderedDict[Hashable, tuple[weakref.ref[Arena], weakref.ref[Shelf], int]] = OrderedDict()
        self._limit = kept
        # of arenas that went with their layout: a collector may come by while the lock is held
        self._gone: deque[Hashable] = deque()

    @property
    def nbytes(self) -> int:
        """Bytes of idle arenas."""
        with self._lock:
            self._sweep()
            return self._total()

    def take(self, shelf: Shelf, nbytes: int) -> Arena:
        """One of `shelf`'s arenas, all of at least so many bytes, or a new one; to be given back."""
        with self._lock:
            with suppress(IndexError):
                arena = shelf.idle.pop()
                self._forget(id(arena))
                return arena
            self._sweep()
            memory = self._make_room(nbytes)
        return Arena(aligned(nbytes) if memory is None else memory, shelf, self._gone)

    def give(self, shelf: Shelf, arena: Arena) -> None:
        with self._lock:
            if self._gone:
                self._sweep()
            # whichever of these finds no memory, an arena that its shelf knows is one that the pool knows
            self._idle[id(arena)] = arena.entry
            shelf.idle.append(arena)
            while len(self._idle) > 1 and self._total() > self._limit:
                self._drop_oldest()

    def clear(self) -> None:
        """Let go of all idle arenas."""
        with self._lock:
            self._sweep()
            while self._idle:
                self._drop_oldest()

    def _make_room(self, nbytes: int) -> Array | None:
        """Drop idle arenas until so many bytes more may be kept; the memory of one of them if it fits: it is mapped
        already.
        """
        self._limit = min(self.kept, budget() // 8)
        while self._idle and self._total() + nbytes > self._limit:
            arena = self._drop_oldest()
            if arena is not None and nbytes <= arena.nbytes <= 2 * nbytes:
                return arena.memory
        return None

    def _drop_oldest(self) -> Arena | None:
        try:
            _, (arena_of, shelf_of, _) = self._idle.popitem(last=False)
        except KeyError:
            return None
        arena, shelf = arena_of(), shelf_of()
        if arena is not None and shelf is not None:
            with suppress(ValueError):
                shelf.idle.remove(arena)
        return arena

    def _total(self) -> int:
        return sum(nbytes for _, _, nbytes in list(self._idle.values()))

    def _forget(self, key: Hashable) -> None:
        self._idle.pop(key, None)

    def _sweep(self) -> None:
        while self._gone:
            key = self._gone.popleft()
            found = self._idle.get(key)
            if found is not None and found[0]() is None:
                self._forget(key)


ARENAS = ArenaPool(KEPT)


class Scratch:
    """What kernels use within a step, whoever's it is: lent to one session at a time and kept for the next."""

    def __init__(self) -> None:
        self._free: deque[Array] = deque()  # whose pop and append need no lock

    def take(self, nbytes: int) -> Array:
        """At least so many bytes, to be given back."""
        try:
            memory = self._free.pop()
        except IndexError:
            return aligned(nbytes)
        return memory if memory.nbytes >= nbytes else aligned(nbytes)  # which replaces it

    def give(self, memory: Array) -> None:
        if len(self._free) < MOST_SCRATCH:
            self._free.append(memory)

    def clear(self) -> None:
        self._free.clear()


SCRATCH = Scratch()
