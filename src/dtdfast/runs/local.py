"""A run in this process: threads read ahead and write behind while the kernels run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from ..threads import default_threads
from .store import Store
from .task import Array, Task
from .work import Explained, Work

AHEAD = 2  # chunks that are being read, and at most as many that wait to be written: memory is that of a few chunks
READERS = 8  # threads, at most: more do not help where the kernels use the cores


def run_locally(work: Work, store: Store, tasks: Iterator[Task], done: Callable[[Task], None]) -> None:
    """Work off the tasks, in order."""
    readers = ThreadPoolExecutor(min(READERS, default_threads()), "dtdfast-read")
    writer = ThreadPoolExecutor(1, "dtdfast-write")
    reading: deque[tuple[Task, Array, list[Future[list[str]]]]] = deque()
    writing: deque[tuple[Task, Future[None]]] = deque()

    def read_ahead() -> None:
        for task in islice(tasks, AHEAD - len(reading)):
            x, pieces = task.room()
            reading.append((task, x, [readers.submit(piece.read, part) for piece, part in pieces]))

    def write(task: Task, explained: Explained) -> None:
        store.commit(task.number, work.rows(explained))

    def settle(most: int) -> None:
        while len(writing) > most or (writing and writing[0][1].done()):
            task, future = writing.popleft()
            future.result()
            done(task)

    try:
        read_ahead()
        while reading:
            task, x, futures = reading.popleft()
            errors = [error for future in futures for error in future.result()]
            read_ahead()
            explained = task.explained(work, x, errors)
            settle(AHEAD - 1)
            writing.append((task, writer.submit(write, task, explained)))
        settle(0)
    finally:
        readers.shutdown(cancel_futures=True)
        writer.shutdown()
