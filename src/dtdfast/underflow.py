"""Results that are all 0: right (a dead neuron), or because something was too small for float32?  Float64 tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .device_arrays import on_device
from .errors import NumericsError

Array = NDArray[Any]


def empty(rows: Any) -> list[int]:
    """The rows of an array (n, ...) in which all is 0; an array on a GPU is not looked at, which would wait for the GPU."""
    if on_device(rows):
        return []
    if len(rows) == 1:  # the usual case, and any() is slow to start
        flat = rows.ravel("K")
        if flat[flat.argmax()] > 0:
            return []
        some = np.array([flat.any()])
    else:
        some = rows.any(axis=tuple(range(1, rows.ndim)))
    return [] if some.all() else [int(i) for i in np.flatnonzero(~some)]


def check_empty(what: str, rows: Any, again: Callable[[int], Array], remedy: str) -> None:
    """Put what float64 finds into rows that are all 0.

    Parameters
    ----------
    again : the row of a sample in float64
    remedy : what the caller may do where float32 cannot hold it

    Raises
    ------
    NumericsError : it is smaller than float32's numbers
    """
    for i in empty(rows):
        exact = again(i)
        if not exact.any():
            continue
        rounded = exact.astype(np.float32)
        if not rounded.any():
            raise NumericsError(
                f"the {what} of sample {i} underflowed float32: all is 0, but in float64 up to {np.abs(exact).max():.1e}; {remedy}"
            )
        rows[i] = rounded
