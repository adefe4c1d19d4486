"""One process at a time writes into an output: a lock that the kernel drops when its process dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import RunError
from ..files import LOCK


@contextmanager
def locked(path: Path, output: Path) -> Iterator[None]:
    """Hold the file `path`, which is removed in the end, while `output` is written.

    Raises
    ------
    RunError : another process holds it, or it is something else than a lock of dtdfast
    """
    file = _taken(path, output)
    try:
        yield
    finally:
        if os.pread(file, len(LOCK) + 1, 0) == LOCK:
            path.unlink(missing_ok=True)  # while it is still held, so that it is ours
        os.close(file)


def _taken(path: Path, output: Path) -> int:
    while True:
        file, new = _opened(path)
        try:
            state = os.fstat(file)
            if not stat.S_ISREG(state.st_mode) or (state.st_size and os.pread(file, len(LOCK) + 1, 0) != LOCK):
                raise RunError(
                    f"{path} is needed as a lock, but holds something else; move it away, or choose another output"
                )
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same(file, path):
                if new:  # an empty one of others is held like a lock of ours, and left behind
                    _mark(file, path)
                return file
        except BlockingIOError:
            os.close(file)
            raise RunError(
                f"{output}: another process is writing there (it holds {path}); wait for it, or choose another output"
            ) from None
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # its holder removed it between our opening and locking it


def _opened(path: Path) -> tuple[int, bool]:
    """The file, and whether it is new."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        try:
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            pass
        try:
            return os.open(path, flags), False
        except FileNotFoundError:
            continue  # its holder has just removed it
        except OSError as error:
            raise RunError(
                f"{path} is needed as a lock, but cannot be opened ({error.strerror}); move it away"
            ) from None


def _mark(file: int, path: Path) -> None:
    try:
        os.pwrite(file, LOCK, 0)
    except OSError:  # a full disk, on which it would stay
        path.unlink(missing_ok=True)
        raise


def _same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
