"""Arrays in and out: what may be explained, checked before any work."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, ShapeError

Array = NDArray[Any]


def is_dask(x: Any) -> bool:
    """Whether x is a Dask array; imports nothing."""
    array = getattr(sys.modules.get("dask.array"), "Array", None)
    return array is not None and isinstance(x, array)


def check_input(x: Any, words: tuple[int, int] | None, dtype: type) -> Array:
    """X as a C-contiguous array of `dtype` (int64 for words), batch first.

    Parameters
    ----------
    words : (position, n_words) of the Embedding that reads the input, None for other networks

    Raises
    ------
    InputError : wrong type, no samples, NaN or infinity, a word number out of range
    """
    try:
        array = np.asarray(x)
    except (TypeError, ValueError) as error:
        raise InputError(f"x cannot be read as an array: {error}") from None
    if array.ndim < 2:
        raise ShapeError(f"x has shape {array.shape}, expected (n, ...) with the batch axis first; for one sample pass x[None]")
    if array.size == 0:
        raise InputError(f"x has shape {array.shape}: there is nothing to explain")
    if words is not None:
        position, n_words = words
        if array.dtype.kind not in "iu":
            raise InputError(f"x has dtype {array.dtype}, but layer {position} (Embedding) reads it: expected integers (word numbers)")
        if array.min() < 0 or array.max() >= n_words:
            raise InputError(f"x holds word numbers {array.min()} to {array.max()}; layer {position} (Embedding) knows 0 to {n_words - 1}")
        return np.ascontiguousarray(array, np.int64)
    if array.dtype.kind in "iub":
        raise InputError(f"x has dtype {array.dtype}; integers are for an Embedding only: convert to float, for example x / 255")
    if array.dtype.kind != "f":
        raise InputError(f"x has dtype {array.dtype}, expected float32 or float64")
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))[0]
        raise InputError(f"x holds NaN or infinity, first at {tuple(int(i) for i in bad)}")
    with np.errstate(over="ignore"):
        converted: Array = np.ascontiguousarray(array, dtype)
    if converted.dtype != array.dtype and not np.isfinite(converted).all():
        raise InputError(f"x holds values beyond the range of {np.dtype(dtype)}")
    return converted


def check_out(out: Any, shape: tuple[int, ...], dtype: type) -> Array:
    """The caller's result array, or a new one."""
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != dtype or not out.flags.writeable:
        given = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ShapeError(f"out is {given}, expected a writable {np.dtype(dtype)} array of shape {shape}")
    return out
