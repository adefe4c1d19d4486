"""Arrays of other libraries, on a GPU and on the host: read where they lie, results of their kind.

Nothing here imports those libraries: whoever passes one of their arrays has.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class DeviceArray:
    """A C-contiguous array in a GPU's memory.

    Attributes
    ----------
    stream : handle of the stream on which its library works now
    device : number of its GPU
    """

    address: int
    nbytes: int
    stream: int
    device: int


def library_of(x: Any) -> str:
    """The top-level package that x's type comes from."""
    return type(x).__module__.partition(".")[0]


def on_device(x: Any) -> bool:
    """Whether x is a PyTorch or CuPy array in a GPU's memory."""
    if isinstance(x, np.ndarray):
        return False
    library = library_of(x)
    return (library == "torch" and bool(getattr(x, "is_cuda", False))) or (
        library == "cupy" and hasattr(x, "__cuda_array_interface__")
    )


def device_array(x: Any) -> DeviceArray | None:
    """Where an array on a GPU lies; None for one that does not."""
    if not on_device(x):
        return None
    address = x.__cuda_array_interface__["data"][0]
    if library_of(x) == "torch":
        stream = sys.modules["torch"].cuda.current_stream(x.device)
        return DeviceArray(address, x.numel() * x.element_size(), stream.cuda_stream, x.device.index)
    with x.device:  # of which CuPy says the stream
        return DeviceArray(address, x.nbytes, sys.modules["cupy"].cuda.get_current_stream().ptr, x.device.id)


def contiguous(x: Any, dtype: str) -> Any:
    """An array on a GPU as a C-contiguous one of this type, without a copy where it is one."""
    if library_of(x) == "torch":
        return x.detach().to(getattr(sys.modules["torch"], dtype)).contiguous()
    with x.device:
        return sys.modules["cupy"].ascontiguousarray(x, dtype)


def copy_of(x: Any) -> Any:
    """A copy of an array on a GPU, beside it."""
    if library_of(x) == "torch":
        return x.detach().clone()
    with x.device:
        return x.copy()


def empty_beside(x: Any, shape: tuple[int, ...]) -> Any:
    """A float32 array of x's kind on x's GPU."""
    if library_of(x) == "torch":
        return x.new_empty(shape, dtype=sys.modules["torch"].float32)
    with x.device:
        return sys.modules["cupy"].empty(shape, "float32")


def write(into: Any, place: tuple[int, ...], values: np.ndarray[Any, Any]) -> None:
    """into[place] = values, which are the host's; `into` is there or on a GPU."""
    if not on_device(into):
        into[place] = values
    elif library_of(into) == "torch":
        into[place] = sys.modules["torch"].from_numpy(values).to(into.device)
    else:
        with into.device:
            into[place] = sys.modules["cupy"].asarray(values)


def dtype_of(x: Any) -> np.dtype[Any]:
    """The NumPy type of an array, on a GPU too (bfloat16, which NumPy lacks, counts as float32)."""
    if isinstance(x.dtype, np.dtype):
        return x.dtype
    name = str(x.dtype).removeprefix("torch.")
    return np.dtype("float32" if name == "bfloat16" else name)


def to_host(x: Any) -> Any:
    """An array on a GPU as a NumPy array; anything else as it is."""
    if not on_device(x):
        return x
    if library_of(x) == "torch":
        x = x.detach()
        return (x.float() if dtype_of(x) == np.float32 else x).cpu().numpy()
    return x.get()
