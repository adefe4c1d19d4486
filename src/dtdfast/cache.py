"""Explainers that `dtdfast.explain` keeps between calls, within a budget, and how to let go of them."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from .budget import budget
from .locks import renewed
from .rules import Rule, own_row

MOST = 8
"""Explainers that are kept."""

KEPT = 2**30
"""Bytes of weights and plans that are kept, or an eighth of the memory budget where that is less; and always the last
Explainer."""


class Kept(Protocol):
    """What a cache keeps: something of a known size."""

    @property
    def nbytes(self) -> int: ...


def key_of(value: Any) -> Any:
    """Options as something that compares by content and type (1, 1.0 and True are three values)."""
    if isinstance(value, Rule):
        return type(value), tuple(key_of(getattr(value, f.name)) for f in fields(value)), own_row(value)
    if isinstance(value, dict):
        return tuple((key_of(k), key_of(v)) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(key_of, value))
    if hasattr(value, "__array__") and not isinstance(value, np.generic):  # what it holds may change
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise TypeError("objects do not compare by content")
        return array.shape, array.dtype.str, array.tobytes()
    return type(value), value


T = TypeVar("T", bound=Kept)


class Cache(Generic[T]):
    """The last few things made, by their keys."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Any, T] = OrderedDict()
        self._lock = renewed(self, "_lock")

    def get(self, key: Any, make: Callable[[], T]) -> T:
        """What was made for this key, or is now."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                with suppress(KeyError):
                    self._kept.move_to_end(key)
                return found
        made = make()
        with self._lock:
            self._kept[key] = made
            limit = min(KEPT, budget() // 8)
            while len(self._kept) > MOST or (
                len(self._kept) > 1 and sum(k.nbytes for k in list(self._kept.values())) > limit
            ):
                self._kept.popitem(last=False)
        return made

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()


def clear_cache() -> None:
    """Release the memory that is kept to make later calls faster.

    It is what `explain` and `predict` keep of the last networks (records, packed weights and plans), and the idle
    working memory of every Explainer. Explainers that the caller holds stay usable: their next call allocates memory
    again.
    """
    calls = sys.modules.get("dtdfast.calls")
    if calls is not None:
        calls.CACHE.clear()
    models = sys.modules.get("dtdfast.models")
    if models is not None:
        models.forget()
    arenas = sys.modules.get("dtdfast.cpu.arenas")
    if arenas is not None:
        arenas.ARENAS.clear()
        arenas.SCRATCH.clear()
