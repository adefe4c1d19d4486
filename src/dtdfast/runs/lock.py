"""One process at a time writes into an output: a lock that the kernel drops when its process dies, however it dies."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import RunError
from ..files import LOCK

if sys.platform == "win32":
    import msvcrt

    FLAGS = os.O_RDWR | os.O_BINARY | os.O_NOINHERIT
    BEHIND = 1 << 20  # what is locked cannot be read by others, and this is behind the text

    def _lock(file: int) -> None:
        os.lseek(file, BEHIND, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:  # another process holds it
            raise BlockingIOError from None
else:
    import fcntl

    FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


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
        ours = _text(file) == LOCK
        if ours and sys.platform != "win32":
            path.unlink(missing_ok=True)  # while it is still held, so that it is ours
        os.close(file)
        if ours and sys.platform == "win32":  # which removes no open file: neither ours before, nor another's now
            with suppress(PermissionError):
                path.unlink(missing_ok=True)


def _taken(path: Path, output: Path) -> int:
    while True:
        file, new = _opened(path)
        try:
            state = os.fstat(file)
            if not stat.S_ISREG(state.st_mode) or (state.st_size and _text(file) != LOCK):
                raise RunError(
                    f"{path} is needed as a lock, but holds something else; move it away, or choose another output"
                )
            _lock(file)
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
    while True:
        try:
            return os.open(path, FLAGS | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            pass
        try:
            return os.open(path, FLAGS), False
        except FileNotFoundError:
            continue  # its holder has just removed it
        except OSError as error:
            raise RunError(
                f"{path} is needed as a lock, but cannot be opened ({error.strerror}); move it away"
            ) from None


def _text(file: int) -> bytes:
    os.lseek(file, 0, os.SEEK_SET)
    return os.read(file, len(LOCK) + 1)


def _mark(file: int, path: Path) -> None:
    os.lseek(file, 0, os.SEEK_SET)
    try:
        os.write(file, LOCK)
    except OSError:  # a full disk, on which it would stay
        with suppress(PermissionError):
            path.unlink(missing_ok=True)
        raise


def _same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
