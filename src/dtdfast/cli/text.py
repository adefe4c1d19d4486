"""What the command line prints in columns, and which outputs it names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOP = 3  # outputs that are named


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def ranked(values: NDArray[Any]) -> list[int]:
    """Positions of the few largest values, the largest first, of equal ones the first."""
    return [int(i) for i in np.argsort(-values, kind="stable")[:TOP]]
