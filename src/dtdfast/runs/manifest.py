"""What a run is: everything that its numbers depend on, as JSON, so that it is only ever continued as what it was begun
as.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np

from ..config import build_config
from ..extras import require
from ..layers import Layer
from ..presets import settled
from ..rules import Rule, own_row
from ..storage import arrays_in, fields_of
from ..version import __version__

FORMAT = 1
MODULES = {"numpy": "numpy", "zarr": "zarr", "pillow": "PIL"}  # of packages; Pillow where it decodes


def digest_of(value: Any) -> str:
    """SHA-256 of an array's bytes, in C order."""
    return hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()


def model_digest(layers: Sequence[Layer]) -> str:
    """SHA-256 of every record: its kind, settings and arrays, names included."""
    digest = hashlib.sha256()
    for record in layers:
        _, settings = fields_of(type(record).__name__)
        digest.update(repr([type(record).__name__, *((key, getattr(record, key)) for key in settings)]).encode())
        for key, value in arrays_in(record).items():
            digest.update(f"{key} {value.dtype.str} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


@cache
def _version(package: str) -> str:
    """Read once, as a package is imported once."""
    return metadata.version(package)


def environment(backend: str, *, pictures: bool) -> dict[str, Any]:
    """Of this process: what decides bits beside the model, the data and the options."""
    packages = [name for name in MODULES if pictures or name != "pillow"]
    for name in packages:
        require(MODULES[name], "run")
    versions = {"dtdfast": __version__, **{name: _version(name) for name in packages}}
    isa = build_config().get("instruction set") if backend == "cpu" else None
    return {"versions": versions, "backend": backend, "instruction set": isa}


def described(value: Any, layers: Sequence[Layer]) -> Any:
    """An option as JSON that is equal only for equal options."""
    if isinstance(value, Rule):
        arrays = {k: described(v, layers) for k, v in vars(value).items() if isinstance(v, np.ndarray)}
        own = {} if (row := own_row(value)) is None else {"row": repr(row)}
        return {"rule": repr(value), **own, **arrays} if own or arrays else repr(value)
    if callable(value):
        return described(settled(value, layers), layers)
    if is_dataclass(value) and not isinstance(value, type):
        return described(asdict(value), layers)
    if isinstance(value, Mapping):
        return {str(key): described(v, layers) for key, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [described(v, layers) for v in value]
    if isinstance(value, np.ndarray):
        return {"shape": list(value.shape), "dtype": value.dtype.str, "sha256": digest_of(value)}
    if isinstance(value, np.generic):
        return value.item()
    return value


def as_stored(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest as it reads back."""
    stored: dict[str, Any] = json.loads(json.dumps(manifest, default=repr))  # of other numbers, such as a Fraction
    return stored


def differences(begun: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line for each entry that differs: its name, what it was and what it is."""
    before, after = dict(flat(begun)), dict(flat(now))
    keys = [*before, *(key for key in after if key not in before)]
    return [
        f"{key} was {before.get(key, 'absent')!r:.80} and is {after.get(key, 'absent')!r:.80}"
        for key in keys
        if before.get(key, "absent") != after.get(key, "absent")
    ]


def flat(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Its leaves, each under the keys that lead to it, however deep it is."""
    left = [("", iter(tree.items()))]
    while left:
        prefix, items = left[-1]
        key, value = next(items, (None, None))
        if key is None:
            left.pop()
        elif isinstance(value, Mapping):
            left.append((f"{prefix}{key}, ", iter(value.items())))
        else:
            yield prefix + key, value
