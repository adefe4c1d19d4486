"""Results that are all 0: right (a dead neuron), or because something was too small for float32?  Float64 tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import NumericsError

Array = NDArray[Any]


REMEDY = "rescale the network, or use precision='float64' or backend='oracle'"


def sound(values: Array) -> bool:
    """Whether all is finite and something above 0, the usual case; False may also mean that a closer look is needed."""
    flat = values.ravel("K")
    # NaN is both largest and least; isfinite() and any() are slow to start
    return bool(0 < flat[flat.argmax()] < np.inf and flat[flat.argmin()] > -np.inf)


def empty(rows: Array) -> list[int]:
    """The rows of an array (n, ...) in which all is 0."""
    if rows.flags.c_contiguous:  # a few elements of each row usually are enough
        flat = rows.reshape(len(rows), -1)
        if flat[:, :: max(1, flat.shape[1] // 16)].any(axis=1).all():
            return []
    some = rows.any(axis=tuple(range(1, rows.ndim)))
    return [int(i) for i in np.flatnonzero(~some)]


def refill(what: str, rows: Any, lost: list[int], again: Callable[[int], Array], remedy: str) -> None:
    """Put what float64 finds into rows that are all 0.

    Parameters
    ----------
    lost : which these are
    again : the row of a sample in float64
    remedy : what the caller may do where float32 cannot hold it

    Raises
    ------
    NumericsError : it is smaller than float32's numbers
    """
    for i in lost:
        exact = again(i)
        if not exact.any():
            continue
        rounded = exact.astype(np.float32)
        if not rounded.any():
            raise NumericsError(
                f"the {what} of sample {i} underflowed float32: all is 0, but in float64 up to "
                f"{np.abs(exact).max():.1e}; {remedy}"
            )
        rows[i] = rounded
