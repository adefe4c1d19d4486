"""A run in this process: threads read ahead and explain, this one writes behind them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice

from ..threads import default_threads
from .store import Store
from .task import Task
from .work import Chunk, Work

# chunks that are being read or explained: one that ends, one that goes on where that left, and one that is read
AHEAD = 3
READERS = 8  # threads, at most: more do not help where the kernels use the cores
STREAMS = 4  # passes, at most, that run side by side; each has working memory of its own


def streams(threads: int) -> int:
    """Passes side by side, of `threads` / this many threads each.

    The fewer threads share a pass, the fewer wait where reading and writing take a core from one of them: with a single
    thread none does.
    """
    return max(n for n in range(1, STREAMS + 1) if threads % n == 0)


def run_locally(
    work: Work, store: Store, tasks: Iterator[Task], done: Callable[[Task], None], side_by_side: int
) -> None:
    """Work off the tasks; they are finished in order.

    Parameters
    ----------
    side_by_side : passes, by an explainer that uses so much fewer threads for each
    """
    readers = ThreadPoolExecutor(min(READERS, default_threads()), "dtdfast-read")
    kernels = ThreadPoolExecutor(side_by_side, "dtdfast-explain")
    chunks = ThreadPoolExecutor(AHEAD, "dtdfast-chunk")  # these wait for the threads above
    flowing: deque[tuple[Task, Future[Chunk]]] = deque()

    def explained(task: Task) -> Chunk:
        x, pieces = task.room()
        found = readers.map(lambda piece: piece[0].read(piece[1]), pieces)
        chunk = task.chunk(work, [error for errors in found for error in errors])
        for _ in kernels.map(partial(work.explain, chunk, x), work.blocks(x)):
            pass
        work.check(chunk)
        return chunk

    try:
        flowing.extend((task, chunks.submit(explained, task)) for task in islice(tasks, AHEAD))
        while flowing:
            task, future = flowing.popleft()
            chunk = future.result()
            flowing.extend((task, chunks.submit(explained, task)) for task in islice(tasks, 1))
            store.commit(task.number, work.rows(chunk))
            done(task)
    finally:
        for pool in (readers, kernels, chunks):
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in (readers, kernels, chunks):
            pool.shutdown()
