"""How much memory dtdfast may take, and the question asked before anything large is allocated."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
from pathlib import Path

from .errors import MemoryBudgetError

VARIABLE = "DTDFAST_MEMORY"

FREE = 2**20
"""Bytes that are not asked for where nobody has set a budget."""

_SUFFIXES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_UNKNOWN = 2**33
"""Bytes of a machine that does not say how many it has."""


def budget() -> int:
    """Bytes that arenas, importers, pictures or constants may take at once.

    Returns
    -------
    int
        Half of the memory of the machine, or of the control group (cgroup v1 or v2) where that has less. The
        environment variable DTDFAST_MEMORY overrides it: bytes, or a number with K, M, G or T (powers of 1024), for
        example 16G.

    Raises
    ------
    MemoryBudgetError : DTDFAST_MEMORY is not a size
    """
    given = os.environ.get(VARIABLE, "").strip()
    return _parsed(given) if given else machine_memory() // 2


def require(n_bytes: int, what: str) -> None:
    """Refuse what the budget does not hold, before it is allocated.

    Parameters
    ----------
    n_bytes : size of the allocation
    what : the layer, file or array that wants it, as the message's subject, for example "layer 3 (Pad): its output"

    Raises
    ------
    MemoryBudgetError
    """
    if n_bytes <= FREE and VARIABLE not in os.environ:
        return
    allowed = budget()
    if n_bytes > allowed:
        source = "of this variable" if os.environ.get(VARIABLE, "").strip() else "half of the memory here"
        raise MemoryBudgetError(
            f"{what} needs {readable(n_bytes)}, but the budget is {readable(allowed)} ({source}); make it smaller, "
            f"or set the environment variable {VARIABLE}, for example {VARIABLE}={-(-n_bytes // 2**30)}G"
        )


def readable(n_bytes: int) -> str:
    """A size in the largest unit that leaves at least one whole; integer arithmetic, since sizes may exceed a float."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= size:
            whole, tenths = divmod(n_bytes * 10 // size, 10)
            return f"{whole:,}.{tenths} {unit}"
    return f"{n_bytes} bytes"


def _parsed(given: str) -> int:
    found = re.fullmatch(r"(\d{1,18}(?:\.\d{1,6})?)\s*([KMGT]?)(?:i?B)?", given, re.ASCII | re.IGNORECASE)
    size = int(float(found[1]) * _SUFFIXES[found[2].upper()]) if found else 0
    if size < 1:
        raise MemoryBudgetError(
            f"{VARIABLE}={given!r:.60} is not a size; expected bytes, or a number with K, M, G or T, for example 16G"
        )
    return size


@functools.cache
def machine_memory(root: Path = Path("/")) -> int:
    """Bytes of the machine's memory, or of what the control group leaves of it; `root` is where /proc and /sys are."""
    sizes = [_UNKNOWN]
    if sys.platform == "win32":
        import ctypes

        kilobytes = ctypes.c_uint64()
        if ctypes.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kilobytes)):
            sizes = [kilobytes.value << 10]
    else:
        with contextlib.suppress(OSError, ValueError):
            sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    return min([s for s in sizes if s > 0] + _group_limits(root), default=_UNKNOWN)


def _group_limits(root: Path) -> list[int]:
    """The limits of the process's control group and of all groups above it, version 2 and 1."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    mount = root / "sys/fs/cgroup"
    # of a container, which sees its own group as the root
    places = [mount / "memory.max", mount / "memory/memory.limit_in_bytes"]
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        parts = [p for p in path.split("/") if p not in ("", "..")]
        for depth in range(1, len(parts) + 1):
            if not controllers:
                places.append(mount.joinpath(*parts[:depth], "memory.max"))
            elif "memory" in controllers.split(","):
                places.append(mount.joinpath("memory", *parts[:depth], "memory.limit_in_bytes"))
    limits = []
    for place in places:
        try:
            text = place.read_text().strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text.isascii() and text.isdigit() and int(text) > 0:  # "max" is none
            limits.append(int(text))
    return limits
