"""Dask arrays: a lazy one in, a lazy one out, chunk by chunk along the samples."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ..contrast import Contrast
from ..errors import InputError, TargetError
from ..extras import require
from ..plan.shapes import Shape
from ..targets import Targets
from .checks import host_array, is_dask

Array = NDArray[Any]
Call = Callable[[Any, Array, Any], Any]  # (explainer, x, target) of one chunk


class Explains(Protocol):
    """What an `Explainer` does with arrays that are there."""

    def explain(self, x: Any, target: Any = None, *, return_outputs: bool = False) -> Any: ...

    def predict(self, x: Any) -> Any: ...


_keys: WeakKeyDictionary[Explains, str] = WeakKeyDictionary()


def lazy_explain(explainer: Explains, x: Any, target: Any, return_outputs: bool) -> Any:
    """As `Explainer.explain`, later: each chunk of samples is explained on its own, with the same bits.

    Parameters
    ----------
    x : dask.array.Array (n, ...); what is chunked along other axes is joined
    target : as for `Explainer.explain`; one with a row per sample may be a Dask array too

    Returns
    -------
    relevance, and with `return_outputs` the outputs: dask.array.Array, chunked along the samples as x is

    Raises
    ------
    DtdError : now, what is wrong whatever the values are; the rest when it is computed
    """
    x = _whole_samples(x)
    one, rows = _rows(target, x)
    shapes = relevance, outputs = explainer.explain(_trial(x), one, return_outputs=True)
    if is_dask(rows) and not is_dask(target):
        Targets.parse(target, x.shape[0], outputs.shape[1:])  # the values are at hand
    if not return_outputs:
        return _blocks(_relevance, explainer, x, rows, relevance.shape[1:], relevance.dtype)
    both = _blocks(_both, explainer, x, rows, (), np.dtype(object))
    return tuple(_blocks(_item, i, both, None, values.shape[1:], values.dtype) for i, values in enumerate(shapes))


def lazy_predict(explainer: Explains, x: Any) -> Any:
    """As `Explainer.predict`, later."""
    x = _whole_samples(x)
    outputs = explainer.predict(_trial(x))
    return _blocks(_outputs, explainer, x, None, outputs.shape[1:], outputs.dtype)


# ---------------------------------------------------------------------------------------------------- before any work


def _whole_samples(x: Any) -> Any:
    if any(math.isnan(size) for size in x.shape[1:]):
        raise InputError(
            f"x has shape {x.shape}: only the number of samples may be unknown; call x.compute_chunk_sizes()"
        )
    return x.rechunk(dict.fromkeys(range(1, x.ndim), -1))


def _trial(x: Any) -> Array:
    """One sample of zeros, which lies in every domain: what does not fit the network shows without computing x."""
    return np.zeros((1, *x.shape[1:]), x.dtype)


def _rows(target: Any, x: Any) -> tuple[Any, Any]:
    """The target of one sample, for the trial; and that of every chunk: a Dask array with x's chunks, or one for
    all.
    """
    if target is None or isinstance(target, (tuple, str)):
        return target, target
    if isinstance(target, Contrast):
        if not target.common:
            raise TargetError("x is a Dask array: a contrast must be the same for all samples, of integers and words")
        return target, target
    lazy = is_dask(target)
    array: Any = target if lazy else host_array(target, "target", TargetError)
    if array.ndim == 0 or (not lazy and array.ndim == 2 and len(array) == 1 and array.dtype.kind in "iu"):
        return array, array
    if array.shape[0] != x.shape[0]:
        unknown = " (call x.compute_chunk_sizes())" * math.isnan(x.shape[0])
        raise TargetError(f"target has shape {array.shape}, but x has {x.shape[0]} samples{unknown}")
    rows = array if lazy else require("dask.array", "dask").from_array(array)
    return np.zeros((1, *array.shape[1:]), array.dtype), rows.rechunk((x.chunks[0], *array.shape[1:]))


# ---------------------------------------------------------------------------------------------------------- the graph


def _blocks(call: Call, given: Any, x: Any, target: Any, shape: Shape, dtype: np.dtype[Any]) -> Any:
    """A Dask array (n, *shape) with `call` of every chunk of x, and of target where that is chunked."""
    da = require("dask.array", "dask")
    out = range(1, 1 + len(shape))
    inner = range(100, 99 + x.ndim)  # axes that end within a chunk
    chunked = is_dask(target)
    return da.blockwise(
        call, (0, *out), _held(given), None, x, (0, *inner), target, (0,
        *range(200, 199 + target.ndim)) if chunked else None,
        new_axes=dict(zip(out, shape, strict=True)), dtype=dtype, meta=np.empty((0,) * (1 + len(shape)), dtype),
    )  # fmt: skip


def _held(given: Any) -> Any:
    """An Explainer as one node of the graph: it travels to each worker once and is kept there, whatever the number of
    chunks.
    """
    if isinstance(given, int):
        return given
    name = _keys.setdefault(given, f"dtdfast-explainer-{uuid.uuid4().hex}")
    return require("dask", "dask").delayed(given, name=name, traverse=False)


def _whole(block: Any) -> Any:
    """A chunk out of the lists that Dask wraps around an axis that ends."""
    while isinstance(block, list):
        (block,) = block
    return block


def _relevance(explainer: Explains, x: Any, target: Any) -> Any:
    return _both(explainer, x, target)[0]


def _both(explainer: Explains, x: Any, target: Any) -> tuple[Any, Any]:
    x, target = _whole(x), _whole(target)
    if len(x):
        relevance, outputs = explainer.explain(x, target, return_outputs=True)
        return relevance, outputs
    if isinstance(target, np.ndarray) and len(target) == 0:
        target = np.zeros((1, *target.shape[1:]), target.dtype)
    relevance, outputs = explainer.explain(_trial(x), target, return_outputs=True)  # for the shapes of an empty chunk
    return relevance[:0], outputs[:0]


def _outputs(explainer: Explains, x: Any, target: None) -> Any:
    x = _whole(x)
    return explainer.predict(x) if len(x) else explainer.predict(_trial(x))[:0]


def _item(number: int, both: Any, target: None) -> Any:
    return both[number]
