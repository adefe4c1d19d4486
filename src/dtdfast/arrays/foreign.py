"""Arrays of other libraries: read in place where they lie in this machine's memory, results of the same kind on the
same device.

Nothing here imports such a library: whoever passes one of its arrays has imported it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

Array = NDArray[Any]


@dataclass(frozen=True)
class Home:
    """Where an array came from, and so where its results go.

    Attributes
    ----------
    library : "numpy" (also for lists and whatever else NumPy reads), "torch", "cupy" or "pandas"
    device : the library's own name of the device
    here : whether `take` shares the array's memory instead of copying it from another device
    labels : index and columns of a DataFrame
    """

    library: str = "numpy"
    device: Any = None
    here: bool = True
    labels: tuple[Any, Any] | None = None

    def of_inputs(self, result: Array) -> Any:
        """One number for each input: as `give`, but with the rows' and columns' names of a DataFrame."""
        if self.labels is not None and result.shape == tuple(map(len, self.labels)):
            return sys.modules["pandas"].DataFrame(result, *self.labels)
        return self.give(result)

    def give(self, result: Array) -> Any:
        """A result as an array of this kind: without a copy on the CPU, copied to the device elsewhere."""
        if self.library == "torch":
            tensor = sys.modules["torch"].from_numpy(result)
            return tensor if self.here else tensor.to(self.device)
        if self.library == "cupy":
            cupy = sys.modules["cupy"]
            with cupy.cuda.Device(self.device):
                return cupy.asarray(result)
        return result


NUMPY = Home()


def take(x: Any) -> tuple[Any, Home]:
    """X as something that NumPy reads, and where results for it go.

    A tensor of PyTorch in main memory becomes an array of the same memory, with its strides; bfloat16, which NumPy does
    not know, is widened. Arrays on a GPU are copied to main memory. Everything else passes unchanged.

    Raises
    ------
    InputError : a sparse tensor, or one without numbers that NumPy knows
    """
    if x is None or isinstance(x, np.ndarray):
        return x, NUMPY
    if _is(x, "torch", "Tensor"):
        return _take_tensor(x)
    if _is(x, "cupy", "ndarray"):
        return x.get(), Home("cupy", x.device.id, here=False)
    if _is(x, "pandas", "DataFrame"):
        return x, Home("pandas", labels=(x.index, x.columns))
    return x, NUMPY


def masked(x: Any) -> bool:
    """Whether x is a masked array of NumPy, whose masked values are no values."""
    return _is(x, "numpy.ma", "MaskedArray")


def _is(x: Any, library: str, kind: str) -> bool:
    cls = getattr(sys.modules.get(library), kind, None)
    return cls is not None and isinstance(x, cls)


def _take_tensor(x: Any) -> tuple[Array, Home]:
    torch = sys.modules["torch"]
    if x.layout != torch.strided:
        raise InputError(f"x is a tensor of layout {x.layout}; pass x.to_dense()")
    home = Home("torch", x.device, here=x.device.type == "cpu")
    try:
        plain = x.detach().cpu().resolve_conj().resolve_neg()
        if plain.dtype == torch.bfloat16:
            plain = plain.float()
        return plain.numpy(), home
    except (NotImplementedError, RuntimeError, TypeError) as error:  # without data, quantized, of 8-bit floats
        raise InputError(f"x is a {x.dtype} tensor on {x.device} that NumPy cannot read: {error}") from None


def take_out(out: Any) -> Any:
    """The memory of an array that results are written into; None stays None.

    Raises
    ------
    InputError : it lies on another device, or NumPy cannot see its memory (bfloat16, or a tensor that negates when it
    is read)
    """
    host, home = take(out)
    if not home.here:
        raise InputError(
            f"out lies on device {home.device}; results are written into main memory only, so leave out=None"
        )
    if home.library == "torch" and out.numel() and host.ctypes.data != out.data_ptr():
        raise InputError(
            f"out is a {out.dtype} tensor whose memory cannot be written as it is; give a plain float32 tensor"
        )
    return host
