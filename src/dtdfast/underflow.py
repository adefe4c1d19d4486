"""Results that are all 0: right (a dead neuron), or because something was too small for float32?  Float64 tells.

Every executor in float32 says which rows of a result may have underflowed (`Session.empty`); the Explainer computes
these again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays.device import write
from .errors import NumericsError

Array = NDArray[Any]
Rows = Sequence[tuple[int, int]]
"""Numbers of samples and of their targets."""

REMEDY = "rescale the network, or use precision='float64' or backend='oracle'"


def empty(rows: Array) -> list[int]:
    """The rows of an array (n, ...) in which all is 0."""
    n = len(rows)
    if rows.flags.c_contiguous:  # a few elements of each row usually are enough
        flat = rows.reshape(n, -1)
        if np.count_nonzero(flat[:, :: max(1, flat.shape[1] // 16)].any(axis=1)) == n:
            return []
    some = rows.any(axis=tuple(range(1, rows.ndim)))
    return [int(i) for i in np.flatnonzero(~some)]


def empty_maps(maps: Array) -> list[tuple[int, int]]:
    """The maps of an array (n, t, ...) in which all is 0."""
    n, t = maps.shape[:2]
    if np.count_nonzero(maps[_middle(maps.shape)]) == n * t:  # that of each map usually is not
        return []
    if n * t == 1:
        return [] if maps.any() else [(0, 0)]
    return [(i, k) for k in range(t) for i in empty(maps[:, k])]


@lru_cache(maxsize=64)
def _middle(shape: tuple[int, ...]) -> tuple[slice | int, ...]:
    return (slice(None), slice(None), *(size // 2 for size in shape[2:]))


def may_underflow(found: Rows, given: Array | None, outputs: Array, start: Array) -> list[tuple[int, int]]:
    """Of maps that are all 0, those that float64 may know better.

    Where no relevance enters, none arrives. But that an output is 0 may itself be for want of digits: where all of a
    sample's are.

    Parameters
    ----------
    given : the caller's own start relevance (n, t, *out)
    outputs : (n, *out), and the start that was made of them (n, t, *out)
    """
    if given is not None:
        return [(i, k) for i, k in found if given[i, k].any()]
    return [(i, k) for i, k in found if start[i, k].any() or not outputs[i].any()]


def refill(what: str, rows: Any, lost: Rows, again: Callable[[int], Array], remedy: str) -> None:
    """Put what float64 finds into rows (n, t, ...) that are all 0.

    Parameters
    ----------
    rows : on the host or a GPU
    lost : which these are
    again : the rows (t, ...) of a sample in float64
    remedy : what the caller may do where float32 cannot hold it

    Raises
    ------
    NumericsError : it is smaller than float32's numbers
    """
    for i in sorted({i for i, _ in lost}):
        exact = again(i)
        for k in (k for j, k in lost if j == i and exact[k].any()):
            with np.errstate(under="ignore"):
                rounded = exact[k].astype(np.float32)
            if not rounded.any():
                raise NumericsError(
                    f"the {what} of sample {i} underflowed float32: all is 0, but in float64 up to "
                    f"{np.abs(exact[k]).max():.1e}; {remedy}"
                )
            write(rows, (i, k), rounded)
