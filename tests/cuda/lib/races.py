"""Races of an emulated launch: two threads at the same bytes, one of them writing, with nothing that orders them.

In shared memory a barrier orders the threads of a block, and a barrier of the warp those of a warp. So only accesses
between two barriers of the block can race, and they are judged together when the second is reached. An asynchronous
copy writes from its issue until its thread has waited for it, across barriers too. What `ldmatrix` reads, every lane of
the warp reads.

In global memory nothing orders the threads of a launch: no kernel of this backend waits for another block, and none
hands numbers from thread to thread there.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Longs = NDArray[np.int64]
READ, WARP_READ, CONSTANT, WRITE, ISSUE, LAND = range(6)
"""What an instruction does at its bytes. CONSTANT: reads through the cache that is for what no thread of the launch
writes. ISSUE, LAND: a copy to shared memory begins, and has been waited for.
"""

GRAIN = 2  # bytes: no access of shared memory is smaller
NEVER, BEFORE = 2**62, -1

# an access of shared memory is one number: barriers of the warp so far, thread, code of the instruction, place
PLACE_BITS, CODE_BITS, THREAD_BITS = 20, 6, 10
PLACE, CODE, THREAD = (1 << PLACE_BITS) - 1, (1 << CODE_BITS) - 1, (1 << THREAD_BITS) - 1
TURN = 1 << PLACE_BITS + CODE_BITS + THREAD_BITS  # a barrier of the warp

_CODES: list[tuple[str, int, int]] = []  # by code the instruction, its bytes, what it does


def code(name: str, size: int, what: int) -> int:
    """The number by which an instruction is noted."""
    _CODES.append((name, size, what))
    assert len(_CODES) <= CODE
    return len(_CODES) - 1


class Access(NamedTuple):
    """A stretch of time in which a thread, or a copy of it, is at bytes first … end−1 of shared memory.

    when : from and to which access of the block
    turns : from and to which barrier of the warp
    """

    code: int
    thread: int
    first: int
    end: int
    when: tuple[int, int]
    turns: tuple[int, int]

    @property
    def writes(self) -> bool:
        return _CODES[self.code][2] >= WRITE

    def races(self, other: Access) -> bool:
        """Whether nothing orders the two, of which one writes."""
        if not (self.writes or other.writes) or self.first >= other.end or other.first >= self.end:
            return False
        by_lanes = WARP_READ in (_CODES[self.code][2], _CODES[other.code][2])
        if self.thread == other.thread and not by_lanes:
            return not _apart(self.when, other.when)
        return self.thread // 32 != other.thread // 32 or not _apart(self.turns, other.turns)

    def __str__(self) -> str:
        name, _, what = _CODES[self.code]
        done = "writes" if what >= WRITE else "reads"
        return f"thread {self.thread} {done} bytes {self.first} to {self.end - 1} ({name})"


def _apart(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[1] < b[0] or b[1] < a[0]


class Shared:
    """Accesses of one block's shared memory since its last barrier, and copies still under way."""

    def __init__(self, nbytes: int) -> None:
        self.grains = nbytes // GRAIN + 1
        self.log = array("q")
        self._flying = np.empty(0, np.int64)  # copies issued before the last barrier

    def barrier(self) -> None:
        """All threads have come here: nothing since the last time may race."""
        noted = np.frombuffer(self.log, np.int64) if self.log else np.empty(0, np.int64)
        size, what = np.array([row[1:] for row in _CODES]).T
        kinds = what[noted >> PLACE_BITS & CODE]
        copies, when = self._copies(noted, np.flatnonzero(kinds >= ISSUE))
        plain = np.flatnonzero(kinds < ISSUE)
        number = np.concatenate([noted[plain], copies])
        when = np.concatenate([np.stack([plain, plain], 1), when])
        first = number & PLACE
        end = first + size[number >> PLACE_BITS & CODE]
        writes = what[number >> PLACE_BITS & CODE] >= WRITE
        written, read = (self._cover(first[some], end[some]) for some in (writes, ~writes))
        doubtful = np.concatenate([[0], np.cumsum((written > 1) | (written > 0) & (read > 0))])
        if doubtful[-1]:  # several write there, or some read what one writes
            concerned = np.flatnonzero(doubtful[end // GRAIN] > doubtful[first // GRAIN])
            self._judge([self._access(noted, *row) for row in zip(number[concerned], when[concerned], strict=True)])
        self._flying = copies[when[len(plain) :, 1] == NEVER]
        self.log = array("q")

    def _copies(self, noted: Longs, places: Longs) -> tuple[Longs, Longs]:
        """Of every copy that was under way at some time its number, and from and to which access it was."""
        events = np.concatenate([self._flying, noted[places]])
        when = np.concatenate([np.full(len(self._flying), BEFORE), places])
        lands = np.array([row[2] == LAND for row in _CODES])[events >> PLACE_BITS & CODE]
        # by thread and place, then by time
        order = np.lexsort((when, events & (THREAD << PLACE_BITS + CODE_BITS | PLACE)))
        events, when, lands = events[order], when[order], lands[order]
        until = np.full(len(when), NEVER)  # the event behind an issue is where it lands
        until[:-1] = np.where(lands, when, NEVER)[1:]
        return events[~lands], np.stack([when, until], 1)[~lands]

    def _cover(self, first: Longs, end: Longs) -> Longs:
        """Of every grain of memory how many of these stretches it lies in."""
        starts, ends = (np.bincount(edge // GRAIN, minlength=self.grains) for edge in (first, end))
        return np.cumsum(starts - ends)[:-1]

    def _access(self, noted: Longs, number: Any, when: Any) -> Access:
        turns = tuple(int(at) if at in (BEFORE, NEVER) else int(noted[at]) // TURN for at in when)
        which, first = int(number >> PLACE_BITS & CODE), int(number & PLACE)
        thread = int(number >> PLACE_BITS + CODE_BITS & THREAD)
        return Access(which, thread, first, first + _CODES[which][1], (int(when[0]), int(when[1])), turns)  # type: ignore[arg-type]

    def _judge(self, accesses: list[Access]) -> None:
        at = defaultdict(list)
        for access in accesses:
            for grain in range(access.first // GRAIN, access.end // GRAIN):
                at[grain].append(access)
        for there in at.values():
            for a, b in combinations(dict.fromkeys(there), 2):
                assert not a.races(b), f"{a} and {b}: no barrier between"


class Global:
    """Accesses of global memory by all threads of a launch."""

    def __init__(self) -> None:
        self.who, self.where = array("q"), array("q")  # thread of the launch, then the instruction's code; address

    def end(self) -> None:
        """No byte may be written by two threads, nor be read by another than wrote it."""
        if not self.who:
            return
        who, first = (np.frombuffer(log, np.int64) for log in (self.who, self.where))
        size, what = np.array([row[1:] for row in _CODES])[who & CODE].T
        writes = what == WRITE
        bytes_ = _bytes(first[writes], size[writes])
        owners = np.repeat(who[writes], size[writes])
        order = np.argsort(bytes_, kind="stable")
        bytes_, owners = bytes_[order], owners[order]
        twice = np.flatnonzero((bytes_[1:] == bytes_[:-1]) & (owners[1:] >> CODE_BITS != owners[:-1] >> CODE_BITS))
        assert not len(twice), _said(owners[twice[0]], owners[twice[0] + 1], bytes_[twice[0]])
        reads = np.flatnonzero(~writes)
        meets = np.searchsorted(bytes_, first[reads]) < np.searchsorted(bytes_, first[reads] + size[reads])
        for i in reads[meets]:
            for at in range(np.searchsorted(bytes_, first[i]), np.searchsorted(bytes_, first[i] + size[i])):
                alone = owners[at] >> CODE_BITS == who[i] >> CODE_BITS and what[i] != CONSTANT
                assert alone, _said(owners[at], who[i], bytes_[at])


def _bytes(first: Longs, size: Longs) -> Longs:
    """The addresses of all bytes of these stretches, one stretch after the other."""
    return np.repeat(first - np.cumsum(size) + size, size) + np.arange(size.sum())


def _said(a: Any, b: Any, address: Any) -> str:
    names = [_CODES[int(who) & CODE][0] for who in (a, b)]
    return (
        f"threads {int(a) >> CODE_BITS} ({names[0]}) and {int(b) >> CODE_BITS} ({names[1]}) of a launch meet at "
        f"global address {int(address):#x}"
    )
