"""Arrays of other libraries: read in place where they lie in this machine's memory, results of the same kind on the
same device.

Nothing here imports such a library: whoever passes one of its arrays has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DtdError, InputError

Array = NDArray[Any]


@dataclass(frozen=True)
class Home:
    """Where an array came from, and so where its results go.

    Attributes
    ----------
    library : "numpy" (also for lists and whatever else NumPy reads), "torch", "cupy", "jax", "pandas" or "polars"
    device : the library's own name of the device
    here : whether `take` shares the array's memory instead of copying it from another device
    labels : index and columns of a DataFrame; polars has no index, so the numbers of its rows
    """

    library: str = "numpy"
    device: Any = None
    here: bool = True
    labels: tuple[Any, Any] | None = None

    def of_inputs(self, result: Array) -> Any:
        """One number for each input: as `give`, but with the rows' and columns' names of a DataFrame."""
        if self.labels is not None and result.shape == tuple(map(len, self.labels)):
            frame, (index, columns) = sys.modules[self.library].DataFrame, self.labels
            return frame(result, index, columns) if self.library == "pandas" else frame(result, schema=columns)
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
        if self.library == "jax":  # float64 becomes float32 there, unless jax_enable_x64 is set
            return sys.modules["jax"].device_put(result, self.device)
        return result


NUMPY = Home()


def take(x: Any, name: str = "x", error: type[DtdError] = InputError) -> tuple[Any, Home]:
    """X as something that NumPy reads, and where results for it go.

    A tensor of PyTorch in main memory becomes an array of the same memory, with its strides; bfloat16, which NumPy does
    not know, is widened. Arrays on a GPU are copied to main memory. What NumPy cannot read by itself is asked for its
    memory by DLPack. Everything else passes unchanged. `name` names it in messages of an `error`.

    Raises
    ------
    error : a sparse tensor or array, one without numbers that NumPy knows, an array that JAX traces, or a lazy table
    """
    if x is None:
        return x, NUMPY
    if isinstance(x, np.ndarray):
        return _widened(x), NUMPY
    if _is(x, "torch", "Tensor"):
        return _take_tensor(x, name, error)
    if _is(x, "cupy", "ndarray"):
        return x.get(), Home("cupy", x.device.id, here=False)
    if _is(x, "jax", "Array"):
        return _take_jax(x, name, error)
    if _is(x, "pandas", "DataFrame"):
        words = [(key, t) for key, t in x.dtypes.items() if getattr(t, "kind", "O") not in "fiubc"]
        _refuse_words(words, name, error)
        return _of_pandas(x), Home("pandas", labels=(x.index, x.columns))
    if _is(x, "polars", "LazyFrame"):
        raise error(f"{name} is a LazyFrame of polars, whose rows are not there yet; pass {name}.collect()")
    if _is(x, "polars", "DataFrame"):
        boolean = sys.modules["polars"].Boolean
        words = [(key, t) for key, t in x.schema.items() if not t.is_numeric() and t != boolean]
        _refuse_words(words, name, error)
        return x.to_numpy(), Home("polars", labels=(range(x.height), x.columns))
    if hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
        return _widened(_from_dlpack(x, name, error)), NUMPY
    if hasattr(x, "toarray") and hasattr(x, "nnz"):
        raise error(f"{name} is a sparse {type(x).__name__}; pass what its toarray() gives")
    return x, NUMPY


def _of_pandas(x: Any) -> Any:
    """A table of numbers; as an array where NumPy would make objects of it, because columns may hold NA, or hold truth
    values beside numbers.
    """
    kinds = {t.kind for t in x.dtypes}
    plain = all(isinstance(t, np.dtype) for t in x.dtypes)
    if "c" in kinds or (plain and ("b" not in kinds or len(kinds) == 1)):
        return x
    if kinds <= {"i", "u"} and not x.isna().to_numpy().any():
        return x.to_numpy(np.int64)
    return x.to_numpy(np.float64, na_value=np.nan)


def _refuse_words(columns: Sequence[tuple[Any, Any]], name: str, error: type[DtdError]) -> None:
    """An error that names the columns of a table, and their types, which hold no numbers."""
    if found := [f"{str(key)!r:.60} ({kind})" for key, kind in columns]:
        raise error(f"{name} has columns that hold no numbers: {', '.join(found[:5])}; leave them out, or encode them")


def _widened(x: Array) -> Array:
    """Float32 in place of ml_dtypes' bfloat16, with which JAX extends NumPy."""
    return x.astype(np.float32) if x.dtype.kind == "V" and x.dtype.name == "bfloat16" else x


def _take_jax(x: Any, name: str, error: type[DtdError]) -> tuple[Array, Home]:
    jax = sys.modules["jax"]
    if isinstance(x, jax.core.Tracer):
        raise error(
            f"{name} is traced by JAX (jit, grad, vmap), so it has no values yet; call this outside, or by "
            "jax.pure_callback"
        )
    devices = x.devices()
    return _widened(np.asarray(x)), Home("jax", next(iter(devices)) if len(devices) == 1 else None, here=False)


def _from_dlpack(x: Any, name: str, error: type[DtdError]) -> Array:
    try:
        return np.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError, ValueError, AttributeError) as found:  # other devices and types
        raise error(
            f"{name} is a {type(x).__name__} whose memory NumPy cannot read by DLPack: {found}; copy it to main memory "
            "as float32"
        ) from None


def masked(x: Any) -> bool:
    """Whether x is a masked array of NumPy, whose masked values are no values, or a list with such an array."""
    one = getattr(sys.modules.get("numpy.ma"), "MaskedArray", ())
    return isinstance(x, one) or (isinstance(x, (list, tuple)) and any(isinstance(row, one) for row in x))


def _is(x: Any, library: str, kind: str) -> bool:
    cls = getattr(sys.modules.get(library), kind, None)
    return cls is not None and isinstance(x, cls)


def _take_tensor(x: Any, name: str, error: type[DtdError]) -> tuple[Array, Home]:
    torch = sys.modules["torch"]
    if x.layout != torch.strided:
        raise error(f"{name} is a tensor of layout {x.layout}; pass what its to_dense() gives")
    home = Home("torch", x.device, here=x.device.type == "cpu")
    try:
        plain = x.detach().cpu().resolve_conj().resolve_neg()
        if plain.dtype == torch.bfloat16:
            plain = plain.float()
        return plain.numpy(), home
    except (NotImplementedError, RuntimeError, TypeError) as found:  # without data, quantized, of 8-bit floats
        raise error(f"{name} is a {x.dtype} tensor on {x.device} that NumPy cannot read: {found}") from None


def take_out(out: Any) -> Any:
    """The memory of an array that results are written into; None stays None.

    Raises
    ------
    InputError : it lies on another device, or NumPy cannot see its memory (bfloat16, or a tensor that negates when it
    is read)
    """
    host, home = take(out, "out")
    if home.library == "jax":
        raise InputError("out is an array of JAX, which cannot be written into; leave out=None")
    if not home.here:
        raise InputError(
            f"out lies on device {home.device}; results are written into main memory only, so leave out=None"
        )
    if home.library == "torch" and out.numel() and host.ctypes.data != out.data_ptr():
        raise InputError(
            f"out is a {out.dtype} tensor whose memory cannot be written as it is; give a plain float32 tensor"
        )
    return host
