"""Tensors of an ONNX file as NumPy arrays: sizes are checked against the bytes before anything is allocated."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..extras import require

Array = NDArray[Any]
Proto = Any  # a message of onnx, which is imported when it is needed and not before

FLOATS = {1: 4, 10: 2, 11: 8, 16: 2}  # TensorProto.DataType → bytes per element: float, float16, double, bfloat16
INTEGERS = {2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 12: 4, 13: 8}  # uint8, int8, uint16, int16, int32, int64, bool, uint32, uint64
TOKENS = (6, 7)  # what an Embedding's input may be: int32, int64
EXTERNAL = 1  # TensorProto.DataLocation
TYPED = {1: "float_data", 11: "double_data", 7: "int64_data", 12: "uint64_data", 13: "uint64_data"}  # all others: int32_data


class Tensors:
    """Decodes tensors; those kept in other files come from the model's own folder and from nowhere else.

    Parameters
    ----------
    folder : the model file's; None where there is only a ModelProto
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._helper = require("onnx.numpy_helper", "onnx")
        self.decoded = 0  # elements, so far

    def array(self, tensor: Proto) -> Array:
        """One tensor; floats narrower than float32 become float32."""
        what = f"tensor {tensor.name!r}"
        itemsize = FLOATS.get(tensor.data_type) or INTEGERS.get(tensor.data_type)
        if itemsize is None:
            raise ModelError(f"{what} has element type {tensor.data_type}, expected floats, integers or booleans")
        if any(d < 0 for d in tensor.dims) or len(tensor.dims) > 16:
            raise ModelError(f"{what} has shape {tuple(tensor.dims)!s:.80}")
        if tensor.HasField("segment"):
            raise ModelError(f"{what} is split into segments; save the model again with its tensors whole")
        count = math.prod(tensor.dims)
        if tensor.data_location == EXTERNAL:
            copy = type(tensor)(dims=tensor.dims, data_type=tensor.data_type, name=tensor.name)
            copy.raw_data = self._external(tensor, what, count * itemsize)
            tensor = copy
        elif tensor.HasField("raw_data"):
            _expect(what, tensor.dims, "bytes", len(tensor.raw_data), count * itemsize)
        else:
            _expect(what, tensor.dims, "numbers", len(getattr(tensor, TYPED.get(tensor.data_type, "int32_data"))), count)
        self.decoded += count
        try:
            return plain(self._helper.to_array(tensor))
        except Exception as error:  # onnx raises whatever NumPy and protobuf do
            raise ModelError(f"{what} cannot be read: {error}") from None

    def _external(self, tensor: Proto, what: str, n_bytes: int) -> bytes:
        """The bytes of a tensor in another file: location, offset and length as the specification has them."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if self._folder is None:
            raise ModelError(f"{what} is kept in the file {entries.get('location')!r}; pass the model's path so that it can be found")
        path = self._inside(what, entries.get("location", ""))
        try:
            offset, length = int(entries.get("offset") or 0), int(entries.get("length") or n_bytes)
        except ValueError:
            raise ModelError(f"{what}: offset or length of its external data is not a number") from None
        if length != n_bytes or offset < 0:
            raise ModelError(f"{what} has shape {tuple(tensor.dims)}: {n_bytes} bytes, but its external data has {length} at {offset}")
        if offset + length > path.stat().st_size:
            raise ModelError(f"{what}: {path} holds {path.stat().st_size} bytes, expected at least {offset + length}")
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def _inside(self, what: str, location: str) -> Path:
        assert self._folder is not None
        folder = self._folder.resolve()
        try:
            path = (folder / location).resolve()
            usable = bool(location) and not Path(location).is_absolute() and path.is_relative_to(folder) and path.is_file()
        except (OSError, ValueError, RuntimeError):  # a name too long, a null byte, a circle of links
            usable = False
        if not usable:
            raise ModelError(f"{what}: its external data {location!r:.200} is not a file inside the model's folder")
        return path


def _expect(what: str, dims: Any, unit: str, given: int, expected: int) -> None:
    if given != expected:
        raise ModelError(f"{what} has shape {tuple(dims)}: {expected} {unit}, but the file has {given}")


def plain(value: Any) -> Array:
    """float32 or float64, integers and booleans as they are."""
    array = np.asarray(value)
    if array.dtype.kind in "biu" or array.dtype in (np.float32, np.float64):
        return array
    return array.astype(np.float32)  # float16, and bfloat16 by whatever type onnx gives it
