"""Tensors of an ONNX file as NumPy arrays: sizes are checked against the bytes before anything is allocated."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...budget import require as require_memory
from ...errors import ModelError
from ...extras import require

Array = NDArray[Any]
Proto = Any  # a message of onnx, which is imported when it is needed and not before

FLOATS = (1, 10, 11, 16)  # TensorProto.DataType: float, float16, double, bfloat16
RAW = {
    1: "<f4",
    2: "u1",
    3: "i1",
    4: "<u2",
    5: "<i2",
    6: "<i4",
    7: "<i8",
    9: "u1",
    10: "<f2",
    11: "<f8",
    12: "<u4",
    13: "<u8",
    16: "<u2",
}  # TensorProto.DataType → how raw data hold an element; bfloat16 is the upper half of a float32
TOKENS = (6, 7)  # what an Embedding's input may be: int32, int64
BOOL, BFLOAT16 = 9, 16
EXTERNAL = 1  # TensorProto.DataLocation
# all others: int32_data
TYPED = {1: "float_data", 11: "double_data", 7: "int64_data", 12: "uint64_data", 13: "uint64_data"}
WHOLE = (1, 11, 6, 7, 13)  # types whose field holds nothing else; halves stand there as bits


class Tensors:
    """Decodes tensors; those kept in other files come from the model's own folder and from nowhere else.

    Parameters
    ----------
    folder : the model file's; None where there is only a ModelProto
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._helper = require("onnx.numpy_helper", "onnx")
        # what other files hold: many tensors may be one stretch of one file
        self._files: dict[tuple[Any, ...], Array] = {}
        self._bytes = 0
        self.decoded = 0  # elements, so far

    def array(self, tensor: Proto) -> Array:
        """One tensor; floats narrower than float32 become float32. Raises MemoryBudgetError where all of them need too
        much.
        """
        what = f"tensor {tensor.name!r:.80}"
        if tensor.data_type not in RAW:
            raise ModelError(
                f"{what} has element type {element_type(tensor.data_type)}, expected floats, integers or booleans"
            )
        if any(d < 0 for d in tensor.dims) or len(tensor.dims) > 16:
            raise ModelError(f"{what} has shape {tuple(tensor.dims)!s:.80}")
        if tensor.HasField("segment"):
            raise ModelError(f"{what} is split into segments; save the model again with its tensors whole")
        count, itemsize = math.prod(tensor.dims), np.dtype(RAW[tensor.data_type]).itemsize
        self.decoded += count
        try:
            if tensor.data_location == EXTERNAL:
                return self._external(tensor, what, count * itemsize)
            if tensor.HasField("raw_data"):
                _expect(what, tensor.dims, "bytes", len(tensor.raw_data), count * itemsize)
                return self._raw(tensor, what, tensor.raw_data)
            numbers = getattr(tensor, TYPED.get(tensor.data_type, "int32_data"))
            _expect(what, tensor.dims, "numbers", len(numbers), count)
            self._take(what, count * itemsize)
            if tensor.data_type not in WHOLE:
                _check_range(what, numbers, tensor.data_type)
            return plain(self._helper.to_array(tensor))
        except ModelError:
            raise
        except (ValueError, TypeError, OverflowError) as error:  # of NumPy, protobuf or onnx
            raise ModelError(f"{what} cannot be read: {error!s:.200}") from None

    def _take(self, what: str, n_bytes: int) -> None:
        require_memory(self._bytes + n_bytes, f"{what}: the tensors up to it")
        self._bytes += n_bytes

    def _raw(self, tensor: Proto, what: str, content: bytes) -> Array:
        """A view of its bytes, where they are float32, float64 or integers."""
        self._take(what, len(content))
        array = np.frombuffer(content, RAW[tensor.data_type]).reshape(tuple(tensor.dims))
        if tensor.data_type == BOOL:
            _check_range(what, array.ravel(), BOOL)
        if tensor.data_type == BFLOAT16:
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array != 0 if tensor.data_type == BOOL else plain(array)

    def _external(self, tensor: Proto, what: str, n_bytes: int) -> Array:
        """A tensor in another file: location, offset and length as the specification has them."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if self._folder is None:
            raise ModelError(
                f"{what} is kept in the file {entries.get('location')!r}; pass the model's path so that it can be found"
            )
        path = self._inside(what, entries.get("location", ""))
        try:
            offset, length = int(entries.get("offset") or 0), int(entries.get("length") or n_bytes)
        except ValueError:  # also of thousands of digits
            raise ModelError(f"{what}: offset or length of its external data is not a number") from None
        if length != n_bytes or offset < 0:
            raise ModelError(
                f"{what} has shape {tuple(tensor.dims)}: {n_bytes} bytes, but its external data has {length} at "
                f"{offset}"
            )
        key = (path, offset, tensor.data_type, tuple(tensor.dims))
        if key not in self._files:
            self._files[key] = self._raw(tensor, what, self._stretch(what, path, offset, length))
        return self._files[key]

    def _stretch(self, what: str, path: Path, offset: int, length: int) -> bytes:
        """Bytes of another file."""
        try:
            held = path.stat().st_size
            if offset + length > held:
                raise ModelError(f"{what}: {path} holds {held} bytes, expected at least {offset + length}")
            require_memory(self._bytes + length, f"{what}: the tensors up to it")
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(length)
        except OSError as error:
            raise ModelError(f"{what}: its external data {path} cannot be read: {error.strerror}") from None

    def _inside(self, what: str, location: str) -> Path:
        assert self._folder is not None
        folder = self._folder.resolve()
        try:
            path = (folder / location).resolve()
            usable = (
                bool(location) and not Path(location).is_absolute() and path.is_relative_to(folder) and path.is_file()
            )
        except (OSError, ValueError, RuntimeError):  # a name too long, a null byte, a circle of links
            usable = False
        if not usable:
            raise ModelError(f"{what}: its external data {location!r:.200} is not a file inside the model's folder")
        return path


def element_type(number: int) -> str:
    """The name of a TensorProto.DataType, lower case; the number itself where it has none."""
    kinds = require("onnx", "onnx").TensorProto.DataType
    return str(kinds.Name(number)).lower() if number in kinds.values() else str(number)


def _expect(what: str, dims: Any, unit: str, given: int, expected: int) -> None:
    if given != expected:
        raise ModelError(f"{what} has shape {tuple(dims)}: {expected} {unit}, but the file has {given}")


def _check_range(what: str, numbers: Any, data_type: int) -> None:
    """Readers differ in what they make of a 2 in booleans, or of 300 in a byte."""
    bits = 8 * np.dtype(RAW[data_type]).itemsize
    signed = np.dtype(RAW[data_type]).kind == "i"
    least, most = (0, 1) if data_type == BOOL else (-(1 << bits - 1) if signed else 0, (1 << bits - signed) - 1)
    if len(numbers) and (np.min(numbers) < least or np.max(numbers) > most):
        raise ModelError(f"{what} is of {element_type(data_type)}, but holds numbers beyond {least} to {most}")


def plain(value: Any) -> Array:
    """float32 or float64, integers and booleans as they are."""
    array = np.asarray(value)
    if array.dtype.kind in "biu" or array.dtype in (np.float32, np.float64):
        return array
    return array.astype(np.float32)  # float16, and bfloat16 by whatever type onnx gives it
