"""One run at a time writes into an output: a lock that the kernel drops when its process dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import RunError


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Hold `output`.lock, a file beside the output that is removed in the end.

    Raises
    ------
    RunError : another process holds it
    """
    path = output.with_name(output.name + ".lock")
    file = _taken(path, output)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is still held, so that it is ours
        os.close(file)


def _taken(path: Path, output: Path) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same(file, path):
                return file
        except BlockingIOError:
            os.close(file)
            raise RunError(f"{output}: another process is writing there (it holds {path}); wait for it, or choose another output") from None
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # its holder removed it between our opening and locking it


def _same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
