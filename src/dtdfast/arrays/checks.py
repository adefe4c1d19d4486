"""Arrays in and out: what may be explained, checked before any work."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..budget import FREE, require
from ..errors import DtdError, InputError, NumericsError, ShapeError
from ..plan.domain import Domain
from ..plan.shapes import Shape
from .device import contiguous, copy_of, device_array, dtype_of, empty_beside, library_of, on_device, to_host
from .foreign import masked, take

Array = NDArray[Any]


def is_dask(x: Any) -> bool:
    """Whether x is a Dask array; imports nothing."""
    if type(x) is np.ndarray:
        return False
    array = getattr(sys.modules.get("dask.array"), "Array", None)
    return array is not None and isinstance(x, array)


AT_ONCE = 2**24
"""Elements that are looked at together, so that a look at a large array takes little memory."""


def finite(values: Array) -> bool:
    """Whether no value is NaN or infinite."""
    if values.size > AT_ONCE and len(values) > 1:
        some = max(1, AT_ONCE * len(values) // values.size)
        return all(finite(values[i : i + some]) for i in range(0, len(values), some))
    found = np.isfinite(values).ravel("K")
    return bool(found.item(found.argmin()))  # as all() says, which is slow to start


def check_range(what: str, values: Array) -> None:
    """A result beyond its type's numbers is an error, which names the first sample that has one."""
    if not finite(values):
        sample = next(i for i, one in enumerate(values) if not finite(one))
        raise NumericsError(overflow(what, values.dtype, f" of sample {sample}"))


def overflow(what: str, dtype: Any, of: str = "") -> str:
    """What a result beyond its type's numbers says. The map is in proportion to its start, and relevance over what an
    activation has all but zeroed (SiLU at −90) needs the numbers below 1.
    """
    smaller = "start with the outputs' floats times 2.0**-64, and multiply the map by 2.0**64; or " * (
        what == "relevance"
    )
    wider = "use precision='float64' on the CPU; or " * (np.dtype(dtype) == np.float32)
    return f"the {what}{of} overflowed {dtype}; {wider}{smaller}rescale the network, or see with backend='oracle' where"


def check_input(x: Any, words: tuple[int, int] | None, dtype: type) -> Array:
    """X as a C-contiguous array of `dtype` (int64 for words), batch first.

    Parameters
    ----------
    words : (position, n_words) of the Embedding that reads the input, None for other networks

    Raises
    ------
    InputError : wrong type, no samples, NaN or infinity, a word number out of range
    """
    array = _structure(as_array(x), words)
    fits = array.dtype == (np.int64 if words is not None else dtype)
    ready = fits and array.flags.c_contiguous
    if not ready:
        require(
            array.size * (8 if words is not None else np.dtype(dtype).itemsize),
            f"x of shape {array.shape}: a contiguous copy",
        )
    if words is not None:
        n_words = words[1]
        if array.min() < 0 or array.max() >= n_words:
            position = words[0]
            raise InputError(
                f"x holds word numbers {array.min()} to {array.max()}; layer {position} (Embedding) knows 0 to "
                f"{n_words - 1}"
            )
        return np.ascontiguousarray(array, np.int64)
    if not finite(array):
        bad = np.argwhere(~np.isfinite(array))[0]
        raise InputError(f"x holds NaN or infinity, first at {tuple(int(i) for i in bad)}")
    if fits:
        return array if ready else np.ascontiguousarray(array)
    with np.errstate(over="ignore", under="ignore"):
        converted: Array = np.ascontiguousarray(array, dtype)
    if not finite(converted):
        raise InputError(f"x holds values beyond the range of {np.dtype(dtype)}")
    return converted


def as_array(x: Any, name: str = "x", error: type[DtdError] = InputError) -> Array:
    """What NumPy makes of an array; `name` names it in messages of an `error`."""
    if type(x) is np.ndarray:
        return x
    if masked(x):
        raise error(
            f"{name} is a masked array, or a list that holds one; put numbers where it is masked: array.filled(value)"
        )
    if isinstance(x, Mapping):
        keys = [*x]
        raise error(
            f"{name} is a {type(x).__name__} of {', '.join(map(repr, keys)):.80}; give one of its arrays, such as "
            f"{name}[{keys[0] if keys else ''!r}], and others by their names"
        )
    try:
        array = np.asarray(x)
    except (TypeError, ValueError, RuntimeError, OverflowError, MemoryError) as found:
        ragged = "its rows have different lengths; pad them to one" if "inhomogeneous" in str(found) else found
        raise error(f"{name} cannot be read as an array: {ragged}") from None
    if array.dtype.kind == "O" and not array.ndim:
        raise error(f"{name} is {'None' if x is None else f'a {type(x).__name__}'}, expected an array")
    if array.dtype.kind in "US":
        words = " (of words: the numbers that the model's tokenizer gives them)" if name == "x" else ""
        raise error(f"{name} is text, expected integers or floats{words}")
    return array


def host_array(x: Any, name: str, error: type[DtdError] = InputError) -> Array:
    """The same of an array of any library, in main memory."""
    return as_array(take(x, name, error)[0], name, error)


def samples_of(x: Any, name: str = "x") -> Array:
    """All samples as an array that is cut up, with at least one in it."""
    array = host_array(x, name)
    if array.ndim < 2 or not len(array):
        raise ShapeError(f"{name} has shape {array.shape}, expected (n, ...) with the batch axis first, and n ≥ 1")
    return array


def _structure(array: Any, words: tuple[int, int] | None) -> Any:
    """The array, on the host or a GPU, if its shape and type will do."""
    shape, dtype = tuple(array.shape), dtype_of(array)
    if len(shape) < 2:
        raise ShapeError(
            f"x has shape {shape}, expected (n, ...) with the batch axis first; for one sample pass x[None]"
        )
    if 0 in shape:
        raise InputError(f"x has shape {shape}: there is nothing to explain")
    if words is not None:
        if dtype.kind not in "iu":
            raise InputError(
                f"x has dtype {dtype}, but layer {words[0]} (Embedding) reads it: expected integers (word numbers)"
            )
    elif dtype.kind in "iub":
        floats = "x / 255" if dtype == np.uint8 else "x.astype(float)"
        raise InputError(f"x has dtype {dtype}; integers are for an Embedding only: convert to float, with {floats}")
    elif dtype.kind != "f":
        raise InputError(f"x has dtype {dtype}, expected float32 or float64")
    return array


@dataclass(frozen=True)
class Check:
    """What x must hold, for executors that find out on the device while they compute.

    Attributes
    ----------
    words : as in check_input
    """

    words: tuple[int, int] | None
    domain: Domain

    def admit(self, x: Any) -> Any:
        """X in float32, contiguous, where it lies; its values are not looked at (word numbers are, since they become
        addresses).
        """
        if self.words is not None and not on_device(x):
            return check_input(x, self.words, np.float32)
        if not on_device(x):
            array = _structure(as_array(x), None)
            return np.ascontiguousarray(array) if array.dtype == np.float32 else check_input(array, None, np.float32)
        there = contiguous(_structure(x, self.words), "float32" if self.words is None else "int64")
        if self.words is not None:
            check_input(to_host(there), self.words, np.float32)
        return there

    def bounds(self, shape: Shape) -> tuple[Array | None, Array | None]:
        """Low and high that x must keep to, as float32 of one number or of a sample's shape; None: nothing to keep
        to.
        """
        if self.words is not None or self.domain.kind == "real":
            return None, None
        if self.domain.kind == "nonnegative":
            return np.zeros(1, np.float32), None
        return self.domain.rounded(shape, np.dtype(np.float32))

    def refuse(self, x: Any) -> NoReturn:
        """The error that says what is wrong with an x that the device found wrong."""
        host = np.asarray(to_host(x))
        check_input(host, self.words, np.float32)
        self.domain.check(host)
        raise InputError("x changed while it was explained")


def check_out(out: Any, shape: tuple[int, ...], dtype: type, x: Any) -> Any:
    """The caller's result array, or a new one beside x."""
    if on_device(x):
        return _check_device_out(out, shape, x)
    if out is None:
        if (size := math.prod(shape)) > FREE // 8:
            require(size * np.dtype(dtype).itemsize, f"the result of shape {shape}")
        return np.empty(shape, dtype)
    if (
        not isinstance(out, np.ndarray)
        or masked(out)
        or out.shape != shape
        or out.dtype != dtype
        or not out.flags.writeable
    ):
        given = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        only = " that is read-only" if isinstance(out, np.ndarray) and not out.flags.writeable else ""
        raise ShapeError(f"out is {given}{only}, expected a writable {np.dtype(dtype)} array of shape {shape}")
    if overlaps_itself(out):
        raise ShapeError(
            f"out of shape {shape} has strides {out.strides}: some of its elements are one; each needs memory of its "
            "own"
        )
    return np.asarray(out)


def overlaps_itself(array: Array) -> bool:
    """Whether two elements may share memory: some axis steps by less than the axes within it reach."""
    reach = array.itemsize
    for stride, size in sorted((abs(st), s) for st, s in zip(array.strides, array.shape, strict=True) if s > 1):
        if stride < reach:
            return True
        reach += stride * (size - 1)
    return False


def apart(array: Any, out: Any) -> Any:
    """The array, or those of a dict, or copies of them where writing into `out` might change them."""
    if isinstance(array, dict):
        return {name: apart(one, out) for name, one in array.items()}
    a, b = device_array(array), device_array(out)
    if a is not None and b is not None:
        disjoint = a.device != b.device or a.address + a.nbytes <= b.address or b.address + b.nbytes <= a.address
        return array if disjoint else copy_of(array)
    both = isinstance(array, np.ndarray) and isinstance(out, np.ndarray)
    if both and np.may_share_memory(array, out):
        require(array.nbytes, "out overlaps what is read: a copy of it")
        return array.copy()
    return array


def _check_device_out(out: Any, shape: tuple[int, ...], x: Any) -> Any:
    if out is None:
        return empty_beside(x, shape)
    there, beside = device_array(out), device_array(x)
    assert beside is not None
    fits = there is not None and there.device == beside.device and library_of(out) == library_of(x)
    strided = fits and out.__cuda_array_interface__.get("strides") is not None
    if not fits or strided or tuple(out.shape) != shape or dtype_of(out) != np.float32:
        raise ShapeError(
            f"out is {type(out).__name__} {getattr(out, 'shape', '')}, expected contiguous float32 of shape {shape} "
            "beside x on its GPU"
        )
    return out
