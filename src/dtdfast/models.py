"""What a caller names as the network, as a list of records: a list as it is, a model or a file imported on the way."""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays.beside import meant
from .arrays.checks import as_array, is_dask, samples_of
from .arrays.foreign import take
from .errors import InputError, ModelError
from .layers import Layer
from .locks import renewed
from .plan.wiring import sources
from .sizes import copied

KEPT = 4
"""Imported networks that are kept, beside PyTorch's, which live as long as their modules."""

SUFFIXES = (".onnx", ".pt2", ".safetensors")

Files = dict[Path, tuple[int, ...]]

_kept: OrderedDict[Any, tuple[list[Layer], Files]] = OrderedDict()
_lock = renewed(sys.modules[__name__], "_lock")


def layers_of(model: Any, x: Any = None, given: Mapping[str, Any] | None = None) -> Sequence[Layer]:
    """The records of a model for inputs like x; a list of records is returned as it is.

    A model is read again when what decides its answer has changed: weights, settings, hooks; or the file.

    Raises
    ------
    ModelError
        The importer refuses the model, or a path has none of the known suffixes.
    InputError
        x is lazy, or there are other inputs beside it: what imports a model needs to see them.
    """
    if isinstance(model, (list, tuple)):
        return model
    family = family_of(model)
    if family is None:
        return model  # type: ignore[no-any-return]  # `sources` says what it expects
    if given:
        raise InputError(
            f"{', '.join(given)}: a model that is imported on the way takes x alone; import it first, with "
            f"{IMPORTERS[family]}, and explain the list{meant(next(iter(given)))}"
        )
    if is_dask(x):
        raise InputError(f"x is a Dask array: import the model first, with {IMPORTERS[family]}, and explain the list")
    array = as_array(take(x)[0])
    if array.ndim < 2 or array.dtype.kind not in "fiub":
        raise InputError(
            f"x has shape {array.shape} and dtype {array.dtype}, expected numbers (n, ...) with the batch axis first"
        )
    if family == "sklearn":
        _check_columns(model, getattr(x, "columns", None))
    try:
        return READERS[family](model, array)
    except InputError as error:
        raise InputError(f"{error}; example is x[:1], and x has shape {array.shape}, the batch axis first") from error


def opened(model: Any, x: Any, given: Mapping[str, Any] | None = None) -> tuple[list[Layer], NDArray[Any]]:
    """The records of a model for samples like x, as a list that may be cut and searched; and these samples as an array.

    Raises
    ------
    LayerError, ModelError, ShapeError, InputError
    """
    layers = layers_of(model, x, given)
    sources(layers)  # says what it expects
    return copied(layers), samples_of(x)


def family_of(model: Any) -> str | None:
    """The library that a model is of, or "file"."""
    if isinstance(model, (str, os.PathLike)):
        return "file"
    names = {cls.__module__.partition(".")[0] for cls in type(model).__mro__}
    return next((name for name in READERS if name in names), None)


def _torch(model: Any, x: Any) -> Sequence[Layer]:
    import torch

    if not isinstance(model, torch.nn.Module):
        return _program(model, x)
    from .compat.model import imported

    first = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return imported(model, _tensor(x[:1], first)).layers


def _program(program: Any, x: Any) -> list[Layer]:
    """Sizes that it leaves open are those of x, which may differ from those of the example that it keeps."""
    from .importers.torch.importer import from_torch
    from .importers.torch.program import kept_example

    kept = kept_example(program)
    if kept.shape[1:] == x.shape[1:]:
        return from_torch(program, kept)
    rows = np.resize(np.arange(len(x)), len(kept))  # it may take this number of samples alone
    return from_torch(program, _tensor(x[rows], kept))


def _tensor(x: Any, like: Any) -> Any:
    import torch

    native = x.astype(np.float64) if x.dtype.kind == "f" else x.astype(x.dtype.newbyteorder("="))
    tensor = torch.from_numpy(native).to(like.device)
    return tensor.to(like.dtype) if tensor.is_floating_point() and like.is_floating_point() else tensor


def _keras(model: Any, x: Any) -> Sequence[Layer]:
    from .importers.keras.importer import from_keras

    weights = (np.ascontiguousarray(w) for w in model.get_weights())
    state = _digest(model.to_json().encode(), *weights), x.shape[1:]
    return _kept_or(("keras", *state), lambda: from_keras(model, x[:1]))


def _sklearn(model: Any, x: Any) -> Sequence[Layer]:
    import pickle  # here, as few need it

    from .importers.sklearn.importer import from_sklearn

    try:
        state = pickle.dumps(model)
    except Exception:  # whatever an attribute raises: nothing tells whether it changed
        return from_sklearn(model)
    return _kept_or(("sklearn", _digest(state)), lambda: from_sklearn(model))


def _check_columns(model: Any, columns: Any) -> None:
    """InputError where a DataFrame has other columns than the one that an estimator was fitted on."""
    fitted = getattr(model, "feature_names_in_", None)
    if columns is None or fitted is None or list(columns) == list(fitted):
        return
    wrong = next((i for i, (a, b) in enumerate(zip(columns, fitted, strict=False)) if a != b), None)
    found = f"{len(columns)} columns" if wrong is None else f"{columns[wrong]!r:.60} as column {wrong}"
    raise InputError(
        f"x has {found}, but the estimator was fitted on {len(fitted)} columns in the order "
        f"{', '.join(map(str, fitted)):.200}; pass x[estimator.feature_names_in_]"
    )


def _onnx(model: Any, x: Any) -> Sequence[Layer]:
    from .importers.onnx.importer import from_onnx

    shape = x.shape[1:]
    return _kept_or(("onnx", _digest(model.SerializeToString()), shape), lambda: from_onnx(model, sample_shape=shape))


def _file(model: Any, x: Any) -> Sequence[Layer]:
    path = Path(os.fsdecode(model))
    if path.suffix.lower() not in SUFFIXES:
        raise ModelError(f"{path}: expected the path of a model that ends in {', '.join(SUFFIXES)}")
    try:
        state = _state(path)
    except (OSError, ValueError) as error:  # ValueError: a null byte
        raise ModelError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from None
    shape = x.shape[1:]
    beside: Files = {}

    def read() -> list[Layer]:
        if path.suffix.lower() == ".safetensors":
            from .storage import load

            return load(path)
        if path.suffix.lower() == ".pt2":
            from .importers.torch.program import load as program_of

            return _program(program_of(path), x)
        from .importers.onnx.importer import OnnxModel

        model = OnnxModel(path)
        layers = model.layers(shape)  # which refuses files outside the model's folder
        beside.update({file: _state(file) for file in (path.parent / name for name in model.files)})
        return layers

    return _kept_or((str(path.resolve()), state, shape), read, beside)


def _state(path: Path) -> tuple[int, ...]:
    """Numbers of which one changes with every write, even if the modification time and size are restored."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino


READERS: dict[str, Callable[[Any, Any], Sequence[Layer]]] = {  # models of Keras may be modules of PyTorch too
    "keras": _keras, "torch": _torch, "sklearn": _sklearn, "onnx": _onnx, "file": _file,
}  # fmt: skip
IMPORTERS = {
    "torch": "from_torch(model, example)",
    "keras": "from_keras(model)",
    "sklearn": "from_sklearn(estimator)",
    "onnx": "from_onnx(model)",
    "file": "from_onnx(path), from_torch(path) or load(path)",
}


def forget() -> None:
    """Let go of the networks that are kept here."""
    with _lock:
        _kept.clear()


def _digest(*parts: Any) -> str:
    import hashlib  # here, as few need it

    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(f"{part.shape}{part.dtype.str}".encode())
        found.update(memoryview(part).cast("B") if not isinstance(part, np.ndarray) else part.tobytes())
    return found.hexdigest()


def _kept_or(key: Any, make: Callable[[], list[Layer]], beside: Files | None = None) -> list[Layer]:
    """What was made for this key, or is now; `make` says in `beside` which other files it read."""
    with _lock:
        found = _kept.pop(key, None)
        if found is None or not _unchanged(found[1]):
            found = make(), beside or {}
        _kept[key] = found
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
        return found[0]


def _unchanged(files: Files) -> bool:
    try:
        return all(_state(path) == state for path, state in files.items())
    except OSError:
        return False
