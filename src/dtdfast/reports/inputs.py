"""What a report is about: photographs, rows of a table or texts, with the names that people know them by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import as_array, host_array
from ..arrays.foreign import take
from ..errors import InputError, ShapeError
from ..images import Preparation
from ..layers import Layer
from ..layout import channel_axis, domain_of
from ..options import texts
from ..results import of_kind

Array = NDArray[Any]
PICTURES, TABLE, TEXT = "pictures", "table", "text"
NHWC = "nhwc"


@dataclass(frozen=True)
class Inputs:
    """All samples, checked.

    Parameters
    ----------
    x : as the network takes them
    kind : PICTURES, TABLE or TEXT
    names : of the samples
    columns : of a table; names of the features
    tokens : of a text; the words of each sample
    pictures : bytes (n, h, w) or (n, h, w, 3), as people see them
    channels_last : whether a picture's channels are its last axis
    """

    x: Array
    kind: str
    names: list[str]
    columns: list[str]
    tokens: list[list[str]]
    pictures: Array | None = None
    channels_last: bool = False

    def summed(self, relevance: Array) -> Array:
        """Per pixel, feature or word: (n, h, w), (n, features) or (n, words), of (n, …)."""
        if self.kind != PICTURES:
            return np.asarray(relevance, np.float64)
        return np.asarray(relevance.sum(axis=-1 if self.channels_last else 1, dtype=np.float64))

    def spoken(self, count: int) -> str:
        """So many samples, in words."""
        noun = {PICTURES: "picture", TABLE: "row", TEXT: "text"}[self.kind]
        return f"{count} {noun}{'' if count == 1 else 's'}"


def inputs_of(
    x: Any,
    *,
    names: Sequence[Any] | None,
    features: Sequence[Any] | None,
    tokens: Sequence[Sequence[Any]] | None,
    pictures: Any,
    preparation: Preparation | None,
    domain: Any,
    layers: Sequence[Layer],
) -> Inputs:
    """Raises ShapeError, InputError."""
    if hasattr(x, "columns") and hasattr(x, "to_numpy"):  # a DataFrame
        features = x.columns if features is None else features
        names = getattr(x, "index", None) if names is None else names  # polars has none
    host = take(x)[0]
    array = as_array(host.to_numpy() if hasattr(host, "to_numpy") else host)
    if array.ndim not in (2, 4) or not array.size:
        raise ShapeError(
            f"x has shape {array.shape}, expected pictures (n, channels, height, width), the rows of a table (n, "
            "features), or texts as word numbers (n, words)"
        )
    kind = PICTURES if array.ndim == 4 else TEXT if tokens is not None or array.dtype.kind in "iu" else TABLE
    if kind == TABLE and array.dtype.kind not in "f":
        raise InputError(f"x has dtype {array.dtype}, expected floats, or the numbers of words")
    if preparation is not None:
        of_kind(preparation, Preparation, "preparation")
    n = len(array)
    shown = _listed("names", names, n) or [f"sample {k}" for k in range(n)]
    columns = _listed("features", features, array.shape[1]) if kind == TABLE else []
    if kind == TABLE and not columns:
        columns = [f"feature {k}" for k in range(array.shape[1])]
    words = _words(tokens, array) if kind == TEXT else []
    if kind != PICTURES:
        return Inputs(array, kind, shown, columns, words)
    size = None if pictures is None else np.shape(pictures)[1:3]
    last = channel_axis(layers, 4) < 0 if preparation is None else preparation.layout == NHWC
    last = last or (size == array.shape[1:3] and size != array.shape[2:])
    seen = _seen(array, last, preparation, domain, layers) if pictures is None else host_array(pictures, "pictures")
    expected = (n, *(array.shape[1:3] if last else array.shape[2:]))
    if seen.dtype != np.uint8 or seen.shape[:3] != expected or seen.shape[3:] not in ((), (3,)):
        raise ShapeError(f"pictures has shape {seen.shape} and dtype {seen.dtype}, expected {(*expected, 3)} and uint8")
    return Inputs(array, kind, shown, columns, words, seen, last)


def _listed(key: str, given: Any, n: int) -> list[str]:
    found = [] if given is None else texts(key, given)
    if given is not None and len(found) != n:
        raise ShapeError(f"{key} holds {len(found)}, expected {n}")
    return found


def _words(tokens: Any, ids: Array) -> list[list[str]]:
    if tokens is None:
        return [[str(i) for i in row] for row in ids]
    if isinstance(tokens, str) or not isinstance(tokens, Iterable):
        raise InputError(f"tokens is {tokens!r:.60}, expected the words of each text")
    found = [texts("tokens", text) for text in tokens]
    if [len(text) for text in found] != [ids.shape[1]] * len(ids):
        raise ShapeError(f"tokens does not hold {ids.shape[1]} words for each of {len(ids)} samples")
    return found


def _seen(
    x: Array, last: bool, preparation: Preparation | None, domain: Any, layers: Sequence[Layer]
) -> NDArray[np.uint8]:
    """What was fed, as bytes: black and white are the ends of the domain, else each picture's own."""
    bounds = domain_of(domain, layers).bounds(x.shape[1:]) if isinstance(domain, (tuple, list)) else None
    axes = (1, 2, 3)
    low, high = (x.min(axes, keepdims=True), x.max(axes, keepdims=True)) if bounds is None else bounds
    share = (x - low) / np.where(high > low, high - low, 1)
    planes = share if last else np.moveaxis(share, 1, -1)
    if planes.shape[-1] == 3:
        colours = planes[..., ::-1] if preparation is not None and preparation.channels == "bgr" else planes
    else:
        colours = planes.mean(axis=-1)
    with np.errstate(invalid="ignore"):  # NaN is refused by what explains it
        return np.asarray(np.rint(255 * np.clip(colours, 0, 1)), np.uint8)
