"""Kernels compiled side by side: numba compiles one at a time in a process, and a first call wants twenty of them."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata

import numpy as np

from ...errors import BackendError
from ...threads import default_threads
from . import cache
from .kernel import Binary, Kernel

FEW = 2  # kernels that are compiled while another process starts
_WORKER = f"import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); from {__name__} import work; work()"


def obstacle() -> str | None:
    """Why no kernel can be compiled here, and what to do; those that are kept on disk need no compiler.

    numba-cuda looks for np.row_stack, which NumPy 2.5 does not have, when it compiles its first kernel.
    """
    if tuple(map(int, np.__version__.split(".")[:2])) < (2, 5):
        return None
    version = metadata.version("numba-cuda")
    return f"numba-cuda {version} cannot compile kernels with NumPy {np.__version__}: pip install 'numpy<2.5'"


def compile_all(kernels: Sequence[Kernel], cc: tuple[int, int]) -> dict[Kernel, Binary]:
    """Machine code of every kernel, by as many processes as there are cores to use; it goes to the cache as well.

    What a process does not bring back is compiled here, so that errors show where they can be read.

    Raises
    ------
    BackendError
        The packages installed here cannot compile.
    """
    if problem := obstacle():
        raise BackendError(f"{len(kernels)} kernel(s) are not kept in {cache.folder()}, and {problem}")
    count = max(1, min(default_threads(), len(kernels) // FEW))
    # products take ten times as long as others
    by_cost = sorted(kernels, key=lambda k: k.name not in ("dtd_dense", "dtd_matmul"))
    shares = [by_cost[i::count] for i in range(count)]
    workers = [worker for share in shares[1:] if (worker := _start(share, cc)) is not None]
    try:
        made = {kernel: cache.compiled(kernel, cc) for kernel in shares[0]}
        for share, process in workers:
            made.update(zip(share, _finish(process), strict=False))
    finally:
        for _, process in workers:
            process.kill()
            process.wait()
    return {kernel: made.get(kernel) or cache.compiled(kernel, cc) for kernel in kernels}


def _start(share: list[Kernel], cc: tuple[int, int]) -> tuple[list[Kernel], subprocess.Popen[bytes]] | None:
    """A Python of its own, not a fork nor a second run of the caller's script; None where there is no interpreter to
    start.
    """
    if not sys.executable:
        return None
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return None
    assert process.stdin is not None
    with suppress(OSError):  # one that has ended brings nothing back
        process.stdin.write(pickle.dumps(sys.path) + pickle.dumps((share, cc)))
        process.stdin.close()
    return share, process


def _finish(process: subprocess.Popen[bytes]) -> list[Binary]:
    assert process.stdout is not None
    try:
        made: list[Binary] = pickle.loads(process.stdout.read())
    except (EOFError, pickle.UnpicklingError):
        return []
    return made


def work() -> None:
    """The other end of `_start`: kernels from stdin, machine code to stdout."""
    out, sys.stdout = sys.stdout.buffer, sys.stderr
    kernels, cc = pickle.load(sys.stdin.buffer)
    out.write(pickle.dumps([cache.compiled(kernel, cc) for kernel in kernels]))
