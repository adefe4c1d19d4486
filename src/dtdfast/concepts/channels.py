"""The channels of an entry: what each of them holds of relevance, or of activation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import host_array
from ..arrays.foreign import take
from ..calls import cached
from ..errors import InputError, TargetError
from ..explainer import Explainer
from ..layers import Given, Layer
from ..models import opened
from ..options import Options, at_least_one, predicting, split

Array = NDArray[Any]


@dataclass(frozen=True)
class Channels:
    """The channels of an entry, for `dtdfast.run` to keep what `stored_samples` ranks samples by.

    Parameters
    ----------
    position : int
        The position of the entry in the list.
    by : {"relevance", "activation"}, default "relevance"
        What is kept of every sample and channel: the relevance that passes it, or its largest activation.
    axis : int, default 1
        The axis of the entry's output, the batch's counted, that holds channels; −1 for features of tokens.

    Raises
    ------
    TargetError
        `by` is neither of the two.
    """

    position: int
    by: str = "relevance"
    axis: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.by, str) or self.by not in ("relevance", "activation"):
            raise TargetError(f'by is {self.by!r:.60}, expected "relevance" or "activation"')
        for key in ("position", "axis"):
            if isinstance(getattr(self, key), np.integer):  # which a manifest could not hold
                object.__setattr__(self, key, int(getattr(self, key)))


def channel_relevance(
    layers: Sequence[Layer], x: Any, target: Any = None, *, position: int, axis: int = 1, **options: Any
) -> Array:
    """Relevance of every channel of an entry, summed over its other axes.

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        The network, as `explain` takes it.
    x : array_like
        The inputs, n of them, as `explain` takes them.
    target : int, tuple, array_like or None, default None
        What is explained, as in `dtdfast.explain`, one for each sample.
    position : int
        The position of the entry in the list.
    axis : int, default 1
        The axis of the entry's output, the batch's counted, that holds channels; −1 for features of tokens.
    **options
        Options of `dtdfast.Explainer`, such as rules; and what the network's Givens are called.

    Returns
    -------
    ndarray
        Float64, of shape (n, channels).

    Raises
    ------
    LayerError
        No entry has this position, or it plays no part in what is explained.
    """
    known, given = split(options, "stop")
    layers, x = opened(layers, x, given)
    found = one_map(cached(layers, Options(**{**known, "stop": position}), x, given), x, target, given)
    return _by_channel(found, axis, position)


def top_channels(relevance: Any, k: int = 10) -> list[list[tuple[int, float]]]:
    """Rank channels by relevance.

    Parameters
    ----------
    relevance : array_like of shape (n, channels)
        What `channel_relevance` returns.
    k : int, default 10
        How many.

    Returns
    -------
    list of list of (int, float)
        Of each sample the k channels with the largest relevance, and that relevance, the largest first.

    Raises
    ------
    InputError
        `relevance` is no table of numbers, or k is not at least 1.
    """
    values = host_array(relevance, "relevance")
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise InputError(f"relevance has shape {values.shape} and dtype {values.dtype}, expected numbers (n, channels)")
    order = np.argsort(-values.astype(np.float64), axis=1, kind="stable")[:, : at_least_one("k", k)]
    return [[(int(c), float(row[c])) for c in best] for row, best in zip(values, order, strict=True)]


@dataclass(frozen=True)
class ChannelScores:
    """What the channels of an entry are ranked by, of any samples; it travels to other processes.

    Parameters
    ----------
    explainer : stops at the entry, or has it for its output
    names : Givens that are read on the way to the entry
    """

    channels: Channels
    explainer: Explainer
    names: frozenset[str]

    @classmethod
    def of(cls, layers: Sequence[Layer], channels: Channels, options: Mapping[str, Any]) -> ChannelScores:
        above = Explainer(layers, **{**options, "stop": channels.position})
        if channels.by == "relevance":
            return cls(channels, above, frozenset())
        cut = layers[: channels.position + 1]
        names = frozenset(record.name or "" for record in cut if isinstance(record, Given))
        return cls(channels, Explainer(cut, **predicting(options)), names)

    def __call__(self, x: Any, target: Any, given: Mapping[str, Any]) -> NDArray[np.float64]:
        """Scores (n, channels) of samples x; sample by sample, so that none depends on the others."""
        position, axis = self.channels.position, self.channels.axis
        if self.channels.by == "relevance":
            return _by_channel(one_map(self.explainer, x, target, given), axis, position)
        outputs = self.explainer.predict(x, **{name: v for name, v in given.items() if name in self.names})
        return np.asarray(_channels(outputs, axis, position).max(axis=2), np.float64)


def one_map(explainer: Explainer, x: Any, target: Any, given: Mapping[str, Any]) -> Array:
    """One map for each sample, as it comes to the entry at which the Explainer stops."""
    found = np.asarray(explainer.explain(x, target, **given))
    shape = explainer.plan_for(np.shape(take(x)[0])).program.leaves.shape
    if found.shape[1:] != tuple(shape):
        raise TargetError("target names several outputs for each sample: explain one at a time")
    return found


def check_axis(axis: Any, ndim: int, position: int | None) -> None:
    """TargetError where an output with so many axes, the batch's counted, has no such axis of channels."""
    whole = isinstance(axis, (int, np.integer)) and not isinstance(axis, bool)
    if not whole or not (-ndim < axis < 0 or 0 < axis < ndim):
        raise TargetError(
            f"axis is {axis!r:.40}, but the output of entry {position} has {ndim} axes, the batch's first"
        )


def _channels(values: Any, axis: int, position: int | None) -> Array:
    """Values (n, *out) as (n, channels, all other axes)."""
    values = np.asarray(values)
    check_axis(axis, values.ndim, position)
    moved = np.moveaxis(values, axis, 1)
    result: Array = moved.reshape(*moved.shape[:2], -1)
    return result


def _by_channel(relevance: Array, axis: int, position: int | None) -> NDArray[np.float64]:
    values = _channels(relevance, axis, position)
    return np.array([one.astype(np.float64).sum(axis=1) for one in values]).reshape(values.shape[:2])
