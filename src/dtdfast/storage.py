"""Layer lists on disk: one safetensors file, arrays as tensors, everything else as JSON in its header.

    tensor "<position>.<field>"   every array of every record; an array that is not there is None
    metadata "dtdfast"            {"version": 1, "layers": [{"record": "Conv", "fields": {"stride": [1, 1], ...}}, ...]}
                                  and "sizes", what a `Sized` list says of its import

The records' own dataclass fields are the schema, and their own checks run again on loading. A file is data: nothing in
it is executed, and its sizes are checked before anything is allocated for them.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import operator
import os
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from . import budget
from .errors import DtdError, LayerError, StorageError, at
from .extras import require
from .files import regular, written
from .layers import RECORDS, Layer
from .plan.wiring import sources
from .record import Array
from .sizes import Sized

VERSION = 1
# fields that files of this version may lack: their defaults are what was meant
LATER = {"Linear": {"axis"}, "Softmax": {"log"}, "Mul": {"share"}}
KEY = "dtdfast"
MAX_HEADER = 1 << 24  # bytes
MAX_LAYERS = 1 << 16
MAX_ARRAYS = 8  # in one tuple
MAX_ELEMENTS = 1 << 33  # 32 GiB in float32
ITEMSIZE = {"F32": 4, "F64": 8, "BOOL": 1}


def save(layers: Sequence[Layer], path: str | os.PathLike[str]) -> None:
    """Write a network to a safetensors file.

    Parameters
    ----------
    layers : sequence of Layer
        The network, as given to `explain`.
    path : str or path-like
        The file. An existing one is replaced once the new one is complete.

    Raises
    ------
    LayerError
        `layers` is no list, or holds what is none of dtdfast's records.
    StorageError
        The network is larger than `load` would read, or the file cannot be written.
    BackendError
        The package safetensors is missing (extra `io`).

    Examples
    --------
    >>> dtdfast.save(dtdfast.from_torch(module.eval(), example), "model.safetensors")  # for the command line
    """
    safetensors = _safetensors()
    if not isinstance(layers, (list, tuple)):
        sources(layers)  # says what it expects
    tensors: dict[str, Any] = {}
    entries = []
    for position, record in enumerate(layers):
        if RECORDS.get(type(record).__name__) is not type(record):
            raise LayerError(f"{at(position, record)}: not one of dtdfast's records, which alone can be saved")
        kind = type(record).__name__
        tensors |= {f"{position}.{key}": value for key, value in arrays_in(record).items()}
        fields = {key: getattr(record, key) for key in fields_of(kind)[1]} | {
            key: len(getattr(record, key)) for key in lists_of(kind)
        }
        entries.append({"record": kind, "fields": fields})
    _limit("layers", len(entries), MAX_LAYERS)
    _limit("array elements", sum(array.size for array in tensors.values()), MAX_ELEMENTS)
    content = {"version": VERSION, "layers": entries} | ({"sizes": vars(layers)} if isinstance(layers, Sized) else {})
    metadata = json.dumps(content, separators=(",", ":"), allow_nan=False)
    _limit("bytes of header", len(json.dumps(metadata)) + sum(len(key) + 200 for key in tensors), MAX_HEADER)
    with written(path) as part:
        try:
            safetensors.numpy.save_file(tensors, part, metadata={KEY: metadata})
        except safetensors.SafetensorError as error:
            _refuse(Path(path), f"cannot be written ({error})", "make room, or choose another place")


def load(path: str | os.PathLike[str]) -> list[Layer]:
    """Read a network that `save` wrote: equal records, equal bits.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    list of Layer
        The network.

    Raises
    ------
    StorageError
        The file is corrupt, cut short, too large, of a later format, or not a network that `save` wrote.
    InputError
        The path is a folder, a pipe or a device.
    BackendError
        The package safetensors is missing (extra `io`).
    """
    safetensors = _safetensors()
    path = regular(path)
    with path.open("rb") as file:
        header = _header(file, path)
    entries, sizes = _entries(header, path)
    tensors = {key: info for key, info in header.items() if key != "__metadata__"}
    used: set[str] = set()
    layers = []
    try:
        with safetensors.safe_open(path, framework="np") as file:
            for position, entry in enumerate(entries):
                record, settings, arrays = _entry(position, entry, tensors, path)
                used.update(
                    name
                    for names in arrays.values()
                    for name in (names if isinstance(names, tuple) else (names,))
                    if name
                )
                values = {key: _tensor(file, names) for key, names in arrays.items()}
                layers.append(_build(position, record, {**settings, **values}, path))
    except safetensors.SafetensorError as error:
        _refuse(path, f"is corrupt ({error})", "copy or save it again")
    if unused := sorted(tensors.keys() - used):
        _refuse(
            path,
            f"holds tensors that no layer uses ({', '.join(unused[:3])})",
            "save it again with this version of dtdfast",
        )
    return layers if sizes is None else _sized(layers, sizes, path)


def _safetensors() -> Any:
    require("safetensors.numpy", "io")
    return require("safetensors", "io")


@functools.cache
def fields_of(kind: str) -> tuple[list[str], list[str]]:
    """Names of a record's arrays, and of its other fields."""
    record = RECORDS[kind]
    types = typing.get_type_hints(record)
    names = [f.name for f in dataclasses.fields(record)]
    arrays = [name for name in names if _holds_arrays(types[name])]
    return arrays, [name for name in names if name not in arrays]


def _holds_arrays(hint: Any) -> bool:
    return hint == Array or any(_holds_arrays(part) for part in typing.get_args(hint) if hint != Array)


@functools.cache
def lists_of(kind: str) -> list[str]:
    """Those of its arrays' names that hold several: tuples of arrays and None."""
    types = typing.get_type_hints(RECORDS[kind])
    return [name for name in fields_of(kind)[0] if typing.get_origin(types[name]) is Sequence]


def arrays_in(record: Layer) -> dict[str, Array]:
    """Every array of a record by its name, those of a tuple by their numbers in it as well; what is None is left
    out.
    """
    found: dict[str, Array] = {}
    for key in fields_of(type(record).__name__)[0]:
        value = getattr(record, key)
        named = {f"{key}.{k}": v for k, v in enumerate(value)} if isinstance(value, tuple) else {key: value}
        found |= {name: array for name, array in named.items() if array is not None}
    return found


def _header(file: BinaryIO, path: Path) -> dict[str, Any]:
    """The header: n = 8 bytes little-endian, n bytes of JSON, then the tensors; sizes checked against the file's."""
    size = os.fstat(file.fileno()).st_size
    n = int.from_bytes(file.read(8), "little")
    if size < 8 or n > size - 8:
        _refuse(path, f"is {size} bytes long, cut short or not a safetensors file", "copy or save it again")
    _limit("bytes of header", n, MAX_HEADER, path)
    header = _json(file.read(n), path)
    if not isinstance(header, dict):
        _refuse(path, "has no safetensors header", "give a file written by dtdfast.save")
    n_bytes = _count_bytes(header, path)
    if n_bytes != size - 8 - n:
        _refuse(
            path, f"holds {size - 8 - n} bytes of arrays where its header promises {n_bytes}", "copy or save it again"
        )
    return header


def _count_bytes(header: Mapping[str, Any], path: Path) -> int:
    n_elements = n_bytes = 0
    for name, info in header.items():
        if name == "__metadata__":
            continue
        dtype, shape = (info.get("dtype"), info.get("shape")) if isinstance(info, dict) else (None, None)
        if not isinstance(shape, list) or not all(type(s) is int and s >= 0 for s in shape) or len(shape) > 8:
            _refuse(path, f"is corrupt: tensor {name!r} has shape {shape!r}", "copy or save it again")
        if not isinstance(dtype, str) or dtype not in ITEMSIZE:
            _refuse(
                path,
                f"holds tensor {name!r} of type {dtype!r}, expected {' or '.join(ITEMSIZE)}",
                "give a file written by dtdfast.save",
            )
        n_elements += math.prod(shape)
        n_bytes += math.prod(shape) * ITEMSIZE[dtype]
    _limit("array elements", n_elements, MAX_ELEMENTS, path)
    budget.require(n_bytes, f"{path}: its arrays")
    return n_bytes


def _entries(header: Mapping[str, Any], path: Path) -> tuple[list[Any], Any]:
    """The layers, and what a `Sized` list says of its import."""
    metadata = header.get("__metadata__")
    text = metadata.get(KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        _refuse(
            path,
            "is a safetensors file without a dtdfast layer list",
            "build the list of records from its arrays and dtdfast.save it",
        )
    content = _json(text, path)
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        _refuse(
            path,
            f"has format version {version!r}, this dtdfast reads {VERSION}",
            "save it again with this version, or upgrade dtdfast",
        )
    entries = content.get("layers")
    if not isinstance(entries, list) or content.keys() - {"version", "layers", "sizes"}:
        _refuse(path, "is corrupt: its layer list cannot be read", "save it again")
    _limit("layers", len(entries), MAX_LAYERS, path)
    return entries, content.get("sizes")


def _sized(layers: list[Layer], sizes: Any, path: Path) -> Sized:
    """With what the list says of its import."""
    try:
        sample, fixed, same = tuple(map(operator.index, sizes["sample"])), sizes["fixed"], sizes["same"]
        numbers = [(str(n), float(v), None if w is None else operator.index(w)) for n, v, w in sizes["numbers"]]
        typed = isinstance(fixed, str) and isinstance(same, bool)
        sound = min(sample) > 0 and all(0 < v < math.inf and (w is None or w > 0) for _, v, w in numbers)
    except (TypeError, ValueError, KeyError, OverflowError):
        typed = sound = False
    if not (typed and sound):
        _refuse(path, "is corrupt: the sizes of its import cannot be read", "save it again")
    return Sized(layers, sample, numbers, fixed, same)


def _entry(
    position: int, entry: Any, tensors: Mapping[str, Any], path: Path
) -> tuple[type[Layer], dict[str, Any], dict[str, str | tuple[str, ...]]]:
    """One entry of the list: its record, its settings, and the names of its tensors by field ("" of a None in a
    tuple).
    """
    kind, given = (
        (entry.get("record"), entry.get("fields")) if isinstance(entry, dict) and len(entry) == 2 else (None, None)
    )
    if not isinstance(kind, str) or kind not in RECORDS or not isinstance(given, dict):
        _refuse(
            path,
            f"layer {position}: {kind!r} is not a record of this dtdfast",
            "upgrade dtdfast, or save the list again",
        )
    (arrays, settings), lists = fields_of(kind), lists_of(kind)
    if wrong := (given.keys() - {*settings, *lists}) | ({*settings, *lists} - LATER.get(kind, set()) - given.keys()):
        _refuse(
            path,
            f"layer {position} ({kind}): unknown or missing fields: {', '.join(sorted(wrong))}",
            "save it again with this version of dtdfast",
        )
    values = {key: _tuples(value) for key, value in given.items() if key not in lists}
    names: dict[str, str | tuple[str, ...]] = {key: name for key in arrays if (name := f"{position}.{key}") in tensors}
    for key in lists:
        if type(given[key]) is not int or not 0 <= given[key] <= MAX_ARRAYS:
            _refuse(path, f"layer {position} ({kind}): {key} holds {given[key]!r:.40} arrays", "copy or save it again")
        listed = (f"{position}.{key}.{k}" for k in range(given[key]))
        names[key] = tuple(name if name in tensors else "" for name in listed)
    return RECORDS[kind], values, names


def _build(position: int, record: type[Layer], values: dict[str, Any], path: Path) -> Layer:
    try:
        return record(**values)
    # TypeError: a required array is not there, or JSON of a wrong type
    except (DtdError, TypeError, OverflowError) as error:
        _refuse(path, f"layer {position}: {error}", "save it again from a valid list")


def _tensor(file: Any, names: str | tuple[str, ...]) -> Any:
    """An array, or the tuple of those that have a name."""
    if isinstance(names, tuple):
        return tuple(file.get_tensor(name) if name else None for name in names)
    return file.get_tensor(names)


def _tuples(value: Any) -> Any:
    """JSON's lists as the records' tuples, pairs of paddings included."""
    return tuple(tuple(v) if isinstance(v, list) else v for v in value) if isinstance(value, list) else value


def _json(text: str | bytes, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"is corrupt or not a safetensors file ({error})", "give a file written by dtdfast.save")


def _limit(what: str, given: int, limit: int, path: Path | None = None) -> None:
    if given > limit:
        advice = "split the network into several lists" if path is None else "give a file written by dtdfast.save"
        raise StorageError(f"{path or 'this layer list'} has {given} {what}, expected at most {limit}; {advice}")


def _refuse(path: Path, problem: str, advice: str) -> NoReturn:
    raise StorageError(f"{path} {problem}; {advice}")
