"""Which outputs the command line names, and the names that it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import regular

TOP = 3  # outputs that are named
BYTES = 1 << 26  # of a file of names, at most


def ranked(values: NDArray[Any], count: int) -> list[int]:
    """Positions of the few largest values, the largest first, of equal ones the first."""
    return [int(i) for i in np.argsort(-values, kind="stable")[:count]]


def lines_in(path: Path) -> list[str]:
    """One name per line; empty lines at the end do not count."""
    if regular(path).stat().st_size > BYTES:
        raise InputError(f"{path} is no list of names: it is larger than {BYTES >> 20} MiB")
    text = path.read_text(encoding="utf-8-sig", errors="replace").rstrip()
    return [line.rstrip("\r") for line in text.split("\n")] if text else []
