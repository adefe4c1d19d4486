"""A run on Dask's workers: the model travels to each of them once, and they write the results themselves.

Imported when a run asks for it, because it needs the extra `dask`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any

import dask
import distributed
from distributed.comm import get_address_host_port

from ..errors import RunError
from .manifest import differences, environment
from .store import Store
from .task import Task
from .work import Work

AHEAD = 3  # tasks per thread of the workers: enough that none waits, few enough that a stop is soon
PATIENCE = 10  # seconds for a scheduler to answer
VARIABLES = ("PYTHONHASHSEED", "__DASK_PARENT_PID")  # that Dask sets, beside those which its configuration names


class Equipment(distributed.WorkerPlugin):
    """What every worker holds: Dask gives it to each one, and to each that joins or comes back.

    Parameters
    ----------
    begun : the environment in which the run was begun
    """

    def __init__(self, work: Work, store: Store, begun: dict[str, Any]) -> None:
        self.work, self.store, self.begun = work, store, begun
        self.manifest = store.manifest()

    def setup(self, worker: Any) -> None:
        """Refuse a worker that might compute other bits, or does not see the output."""
        here = environment(self.begun["backend"], pictures="pillow" in self.begun["versions"])
        if differ := differences(self.begun, here):
            raise RunError(f"worker {worker.address} would not compute the same bits: {'; '.join(differ)}")
        self.check()

    def check(self) -> None:
        """Refuse an output that this worker does not see, or that was begun anew: a task may outlive its run."""
        if Store(self.store.path).manifest() != self.manifest:
            raise RunError(f"{self.store.path} was begun anew, as another run")


def explain_chunk(name: str, task: Task) -> None:
    """On a worker: read, explain and commit one chunk."""
    equipment = distributed.get_worker().plugins.get(name)
    if equipment is None:
        raise RunError("this worker could not be equipped for the run; its log says why")
    x, pieces = task.room()
    errors = [error for piece, part in pieces for error in piece.read(part)]
    work: Work = equipment.work
    chunk = task.chunk(work, errors)
    for block in work.blocks(x):
        work.explain(chunk, x, block)
    equipment.check()
    equipment.store.commit(task.number, work.rows(chunk))


def run_on_cluster(
    work: Work,
    store: Store,
    tasks: Iterator[Task],
    done: Callable[[Task], None],
    begun: dict[str, Any],
    workers: int | None,
    scheduler: str | None,
) -> None:
    """Work off the tasks, in any order; Dask gives those of a worker that is lost to another.

    Parameters
    ----------
    begun : the environment that every worker must have
    workers : processes of a cluster on this machine, where `scheduler` is None
    scheduler : address of a running one, whose workers see the output and the data under the same paths

    Raises
    ------
    RunError : no scheduler there, or it or too many workers were lost
    """
    name = f"dtdfast-{store.path}-{id(work):x}"
    with ExitStack() as stack:
        client = _client(stack, workers, scheduler)
        client.register_plugin(Equipment(work, store, begun), name=name)
        stack.callback(client.unregister_worker_plugin, name)
        running: dict[str, Task] = {}
        flowing = distributed.as_completed(loop=client.loop)

        def submit(most: int) -> None:
            for task in islice(tasks, most):
                future = client.submit(explain_chunk, name, task, key=f"{name}-{task.number}", pure=False)
                running[future.key] = task
                flowing.add(future)

        try:
            submit(AHEAD * max(1, sum(client.nthreads().values())))
            for future in flowing:
                future.result()
                done(running.pop(future.key))
                submit(1)
        except (distributed.KilledWorker, asyncio.CancelledError, concurrent.futures.CancelledError) as error:
            raise RunError(f"the cluster was lost: {error}") from None


def check_reachable(scheduler: str) -> None:
    """Refuse an address where nobody listens, before anything is written: a client would wait for it half a minute, and
    again at the end.

    Raises
    ------
    RunError
    """
    try:
        if not scheduler.startswith("inproc://"):
            with socket.create_connection(get_address_host_port(scheduler, strict=True), timeout=PATIENCE):
                pass
    except (OSError, ValueError, OverflowError) as error:
        message = str(error) or type(error).__name__
        raise RunError(
            f"no Dask scheduler answers at {scheduler} ({message}); expected an address such as tcp://host:8786"
        ) from None


@contextmanager
def _environment_kept() -> Iterator[None]:
    """What a cluster sets in this process for its workers (one thread each) ends with it."""
    names = *dask.config.get("distributed.nanny.pre-spawn-environ", {}), *VARIABLES
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _client(stack: ExitStack, workers: int | None, scheduler: str | None) -> Any:
    if scheduler is None:
        stack.enter_context(_environment_kept())
        try:
            cluster = distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0")
        except (OSError, RuntimeError) as error:
            raise RunError(
                f"workers={workers} cannot be started ({error}): a script must call this below `if __name__ == "
                '"__main__":`, and a daemonic process can start none; without workers, this process computes alone'
            ) from None
        address = stack.enter_context(cluster)
    else:
        address = scheduler
    try:
        return stack.enter_context(distributed.Client(address, set_as_default=False))
    except (OSError, ValueError) as error:
        raise RunError(f"no Dask scheduler answers at {scheduler}: {error}") from None
