"""A run in this process: threads read ahead and write behind while the kernels run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from ..threads import default_threads
from .store import Store
from .task import Read, Task
from .work import Work

AHEAD = 2  # chunks that are being read, and at most as many that wait to be written: memory is that of a few chunks
READERS = 8  # threads, at most: more do not help where the kernels use the cores


def run_locally(work: Work, store: Store, tasks: Iterator[Task], done: Callable[[Task], None]) -> None:
    """Work off the tasks, in order."""
    readers = ThreadPoolExecutor(min(READERS, default_threads()), "dtdfast-read")
    writer = ThreadPoolExecutor(1, "dtdfast-write")
    reading: deque[tuple[Task, list[Future[Read]]]] = deque()
    writing: deque[tuple[Task, Future[None]]] = deque()

    def read_ahead() -> None:
        for task in islice(tasks, AHEAD - len(reading)):
            reading.append((task, [readers.submit(piece.read) for piece in task.pieces]))

    def settle(most: int) -> None:
        while len(writing) > most or (writing and writing[0][1].done()):
            task, future = writing.popleft()
            future.result()
            done(task)

    try:
        read_ahead()
        while reading:
            task, futures = reading.popleft()
            parts = [future.result() for future in futures]
            read_ahead()
            rows = task.rows(work, parts)
            settle(AHEAD - 1)
            writing.append((task, writer.submit(store.commit, task.number, rows)))
        settle(0)
    finally:
        readers.shutdown(cancel_futures=True)
        writer.shutdown()
