"""What no case may do: take long, take much memory, open files elsewhere, start programs, or run what a file brings;
and which lines of the sources it reaches.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

SECONDS = 10.0  # of processor time
BYTES = 1 << 30
STARTS = (
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "pickle.find_class"
)  # fmt: skip
CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "shutil.rmtree", "os.chmod")
PLACES = (*sysconfig.get_paths().values(), sys.prefix, sys.pycache_prefix, *sys.path)
PROGRAMS = {str(Path(p).resolve()) for p in PLACES if p}
platform.processor()  # starts a program the first time, as libraries do where a case is the first to import them
READABLE = (*PROGRAMS, "/proc", "/sys", "/dev", "/usr", "/etc")


class Watch:
    """Notes, through audit events and counters, what a case does beside its result."""

    def __init__(self) -> None:
        self.folder = ""  # outside of which nothing may be opened; empty: nobody looks
        self.seen: list[str] = []
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder:
            return
        if event in STARTS:
            self.seen.append(f"{event}{arguments!r:.80}")
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            mode, flags = arguments[1], arguments[2]
            writes = any(m in "wax+" for m in mode) if mode else bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            self._opened(os.fsdecode(arguments[0]), writes)
        elif event in CHANGES and isinstance(arguments[0], (str, bytes, os.PathLike)):
            self._opened(os.fsdecode(arguments[0]), True)

    def _opened(self, path: str, writes: bool) -> None:
        whole = os.path.realpath(path)
        allowed = (self.folder,) if writes else (self.folder, *READABLE)
        if whole != os.devnull and not any(whole == a or whole.startswith(f"{a}/") for a in allowed):
            self.seen.append(f"{'wrote' if writes else 'read'} {path:.80}")

    def during(self, case: Callable[[], None], folder: Path) -> None:
        """Run a case in its folder; AssertionError where it did what it may not."""
        self.seen, self.folder = [], os.path.realpath(folder)
        memory, started = _peak(), time.process_time()
        bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # of what a case is the first to import
        try:
            case()
        finally:
            self.folder, sys.dont_write_bytecode = "", bytecode
            took, grown = time.process_time() - started, _peak() - memory
            assert not self.seen, self.seen[0]
            assert took <= SECONDS, f"{took:.0f} s"
            assert grown <= BYTES, f"{grown / 1e9:.1f} GB"


def _peak() -> int:
    """Bytes of memory that this process had at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def lines_of(path: Path) -> set[int]:
    """Lines of a file's functions."""
    left, found = [compile(path.read_text(), str(path), "exec")], set()
    while left:
        code = left.pop()
        left += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        if code.co_flags & 2:  # of a function; the others ran when it was imported
            found |= {line for *_, line in code.co_lines() if line is not None and line != code.co_firstlineno}
    return found


def lines_reached(run: Callable[[], Any], known: dict[str, set[int]]) -> dict[str, set[int]]:
    """Those of some files that run meanwhile."""
    reached: dict[str, set[int]] = {path: set() for path in known}

    def within(frame: FrameType, event: str, argument: Any) -> Any:
        reached[frame.f_code.co_filename].add(frame.f_lineno)
        return within

    sys.settrace(lambda frame, event, argument: within if frame.f_code.co_filename in reached else None)
    try:
        run()
    finally:
        sys.settrace(None)
    return reached
