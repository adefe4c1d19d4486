"""How many threads the kernels use."""

from __future__ import annotations

import functools
import math
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from .locks import renewed

MOST = 1024
"""Threads that a run may have."""

GIVEN = os.environ.get("OMP_NUM_THREADS")
"""Read once, as OpenMP reads it: Dask sets it to 1 later on, in the process that starts workers."""

_told: set[str] = set()
_lock = renewed(sys.modules[__name__], "_lock")


@functools.cache
def cgroup_cores(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Cores that the control group's quota allows; infinity without one."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return math.inf
    if quota in ("max", "-1"):
        return math.inf
    return int(quota) / int(period)


def default_threads() -> int:
    """OMP_NUM_THREADS, else the cores that this process may use."""
    if GIVEN and (first := GIVEN.split(",")[0].strip()[:20]).isdecimal() and int(first) > 0:
        return min(int(first), MOST)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, cgroup_cores())))


def threads_for_run(wanted: int | None, limit: int) -> int:
    """Threads of one run: `wanted`, else the default within `limit` (what OpenMP was told, by threadpoolctl for
    example).
    """
    return wanted if wanted is not None else min(default_threads(), limit)


def started(count: int, secure: Callable[[int], int]) -> int:
    """Threads of a run that `count` are wanted for: as many as the system lets the process start.

    OpenMP ends the process where it cannot start a thread, so it is asked for none that was not seen to start.
    """
    if count == 1:
        return 1
    found = max(1, secure(count))
    if found < count:
        _tell(
            "limit",
            f"only {found} of {count} threads can be started with the stack that kernels need (see ulimit -u and -s, "
            "OMP_STACKSIZE, and the control group's pids.max)",
        )
    return found


def kernel_threads(wanted: int | None) -> int:
    """Threads that the kernels get: as `threads_for_run` says, of which the system lets so many start."""
    from ._kernels import lib

    return started(threads_for_run(wanted, lib.dtd_max_threads()), lib.dtd_secure_threads)


def _tell(what: str, message: str) -> None:
    """A warning, once."""
    with _lock:
        first = what not in _told
        _told.add(what)
    if first:
        warnings.warn(message, RuntimeWarning, stacklevel=3)
