"""What single channels stand for: relevance through them alone, and the samples in which they matter most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays.beside import beside_rows
from .arrays.checks import as_array, samples_of
from .arrays.foreign import take
from .errors import InputError, LayerError, TargetError
from .explainer import Explainer
from .layers import Given, Layer
from .options import at_least_one, split
from .results import Report, number
from .targets import rows_of

__all__ = ["TopSamples", "channel_relevance", "conditional", "top_channels", "top_samples"]

BLOCK = 64
"""Samples that are ranked in one call."""

Array = NDArray[Any]
Channels = Sequence[int | Sequence[int]]


def conditional(
    layers: Sequence[Layer],
    x: Any,
    target: Any = None,
    *,
    conditions: Mapping[int, Channels],
    axis: int = 1,
    **options: Any,
) -> Array:
    """Explain with the relevance of all but some channels of a layer taken away: concept relevance [1]_.

    Parameters
    ----------
    layers : sequence of Layer
        The network.
    x : array_like
        The inputs, n of them, as `explain` takes them.
    target : int, tuple, array_like or None, default None
        What is explained, as in `dtdfast.explain`, one for each sample.
    conditions : dict of int to sequence
        {position of an entry: channels}. Each item of `channels` is one condition: the number of the channel that is
        kept, or several of them. With several entries, condition k holds at all of them at once, so that each lists as
        many.
    axis : int, default 1
        The axis of the entries' outputs, the batch's counted, that holds channels; −1 for features of tokens.
    **options
        Options of `dtdfast.Explainer`, such as rules; and what the network's Givens are called.

    Returns
    -------
    ndarray
        Maps of shape ``(n, t, *x.shape[1:])`` for t conditions. The maps of all channels of one entry add up to the map
        without conditions.

    Raises
    ------
    TargetError
        A channel does not exist, or the entries do not list equally many conditions.
    LayerError
        `conditions` is empty, names no entry of the network, or one that plays no part in what is explained.

    Notes
    -----
    Relevance is propagated to the uppermost of the entries once. From there the conditions share forward pass, gates
    and weights, as targets do.

    References
    ----------
    .. [1] Achtibat et al., "From attribution maps to human-understandable explanations through concept relevance
       propagation", Nature Machine Intelligence 5 (2023), doi:10.1038/s42256-023-00711-8.
    """
    if not conditions or not isinstance(conditions, Mapping):
        held = repr(conditions) if conditions else "empty"
        raise LayerError(f"conditions is {held:.60}; name at least one entry, for example {{3: [0, 1]}}")
    for position, channels in conditions.items():
        if not isinstance(channels, (Sequence, np.ndarray)) or isinstance(channels, str):
            raise TargetError(f"conditions[{position}] is {channels!r:.60}, expected a list of channels")
    counts = {position: len(channels) for position, channels in conditions.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        raise TargetError(
            f"conditions: the entries list {counts} conditions; each entry needs equally many, at least 1"
        )
    known, given = split(options)
    outer, start, stop = known.pop("start", None), target, known.pop("stop", None)
    for position in sorted(conditions, reverse=True):
        above = Explainer(layers, **known, start=outer, stop=position)
        if start is target:
            found = one_map(above, x, target, given)[:, None]
        else:
            found = np.asarray(above.explain(x, start, **given))
        start = masked(found, conditions[position], axis, position)
        outer = position
    return np.asarray(Explainer(layers, **known, start=outer, stop=stop).explain(x, start, **given))


def masked(relevance: Array, conditions: Channels, axis: int, position: int) -> Array:
    """Relevance (n, 1 or t, *shape) with all but the channels of each condition set to 0: (n, t, *shape)."""
    check_axis(axis, relevance.ndim - 1, position)
    along = axis if axis < 0 else axis + 1
    size, result = relevance.shape[along], []
    for number_of, channels in enumerate(conditions):
        kept = np.atleast_1d(as_array(channels, f"conditions[{position}][{number_of}]", TargetError))
        if kept.dtype.kind not in "iu" or kept.ndim > 1 or kept.size == 0:
            raise TargetError(f"conditions[{position}][{number_of}] is {channels!r:.40}, expected channels by number")
        if kept.min() < 0 or kept.max() >= size:
            wrong = kept.min() if kept.min() < 0 else kept.max()
            raise TargetError(f"channel {wrong} is outside the {size} channels of entry {position}")
        shape = [1] * (relevance.ndim - 1)
        shape[along if along < 0 else along - 1] = size
        mask = np.isin(np.arange(size), kept).reshape(shape)
        result.append(relevance[:, number_of if relevance.shape[1] > 1 else 0] * mask)
    return np.stack(result, axis=1)


def check_axis(axis: Any, ndim: int, position: int | None) -> None:
    """TargetError where an output with so many axes, the batch's counted, has no such axis of channels."""
    whole = isinstance(axis, (int, np.integer)) and not isinstance(axis, bool)
    if not whole or not (-ndim < axis < 0 or 0 < axis < ndim):
        raise TargetError(
            f"axis is {axis!r:.40}, but the output of entry {position} has {ndim} axes, the batch's first"
        )


def channel_relevance(
    layers: Sequence[Layer], x: Any, target: Any = None, *, position: int, axis: int = 1, **options: Any
) -> Array:
    """Relevance of every channel of an entry, summed over its other axes.

    Parameters
    ----------
    layers : sequence of Layer
        The network.
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
    known, given = split(options)
    found = one_map(Explainer(layers, **{**known, "stop": position}), x, target, given)
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
    values = as_array(take(relevance)[0], "relevance")
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise InputError(f"relevance has shape {values.shape} and dtype {values.dtype}, expected numbers (n, channels)")
    order = np.argsort(-values, axis=1, kind="stable")[:, : at_least_one("k", k)]
    return [[(int(c), float(row[c])) for c in best] for row, best in zip(values, order, strict=True)]


@dataclass
class TopSamples(Report):
    """Of every channel of an entry the samples in which it matters most.

    Attributes
    ----------
    samples : ndarray of int, of shape (channels, k)
        Their numbers, the foremost first.
    scores : ndarray of shape (channels, k)
        What they were ranked by.
    by : {"relevance", "activation"}
        Which of the two that is.
    """

    samples: NDArray[np.int64]
    scores: NDArray[np.float64]
    by: str

    header = ("channel", "samples", "scores")

    def rows(self) -> list[tuple[str, ...]]:
        return [
            (str(c), ", ".join(map(str, samples)), ", ".join(map(number, scores)))
            for c, (samples, scores) in enumerate(zip(self.samples, self.scores, strict=True))
        ]

    @property
    def reading(self) -> str:
        return (
            f"{len(np.unique(self.samples))} different samples stand for {len(self.samples)} channels by {self.by}; "
            "`conditional` shows what a channel sees in them."
        )


def top_samples(
    layers: Sequence[Layer],
    x: Any,
    target: Any = None,
    *,
    position: int,
    k: int = 8,
    by: str = "relevance",
    axis: int = 1,
    **options: Any,
) -> TopSamples:
    """Find the samples in which each channel of an entry matters most.

    Parameters
    ----------
    layers : sequence of Layer
        The network.
    x : array_like
        The samples to choose from, n of them; read block by block, so that it may be a memory map.
    target : int, array_like of shape (n,) or None, default None
        What is explained; by default each sample's largest output. It is not read for activations.
    position : int
        The position of the entry in the list.
    k : int, default 8
        How many samples.
    by : {"relevance", "activation"}, default "relevance"
        What they are ranked by: the relevance that passes the channel (what the network used), or the largest
        activation (what the channel responds to).
    axis : int, default 1
        The axis of the entry's output, the batch's counted, that holds channels; −1 for features of tokens.
    **options
        Options of `dtdfast.Explainer`, such as rules; and what the network's Givens are called.

    Returns
    -------
    TopSamples
        Samples and scores; prints as a table.

    Raises
    ------
    TargetError
        `by` is neither of the two.
    LayerError
        No entry has this position, or it plays no part in what is explained.
    """
    if by not in ("relevance", "activation"):
        raise TargetError(f'by is {by!r}, expected "relevance" or "activation"')
    known, given = split(options)
    host, scores, k = take(x)[0], [], at_least_one("k", k)
    if not hasattr(host, "shape"):
        host = samples_of(host)
    if not len(host.shape) or not len(host):
        raise InputError(f"x has shape {tuple(host.shape)}: there is no sample to choose from")
    above = Explainer(layers, **{**known, "stop": position})
    cut = layers[: position + 1]
    below = Explainer(cut, **{key: known[key] for key in ("backend", "n_threads") if key in known})
    names = {record.name for record in cut if isinstance(record, Given)}
    for first in range(0, len(host), BLOCK):
        rows = slice(first, first + BLOCK)
        block, beside = as_array(host.iloc[rows] if hasattr(host, "iloc") else host[rows]), beside_rows(given, rows)
        if by == "relevance":
            found = one_map(above, block, rows_of(target, rows, len(host)), beside)
            scores.append(_by_channel(found, axis, position))
        else:
            outputs = below.predict(block, **{name: v for name, v in beside.items() if name in names})
            scores.append(_channels(outputs, axis, position).max(axis=2).astype(np.float64))
    table = np.concatenate(scores).T  # (channels, n)
    order = np.argsort(-table, axis=1, kind="stable")[:, :k]
    return TopSamples(order, np.take_along_axis(table, order, axis=1), by)


def one_map(explainer: Explainer, x: Any, target: Any, given: Mapping[str, Any]) -> Array:
    """One map for each sample, as it comes to the entry at which the Explainer stops."""
    found = np.asarray(explainer.explain(x, target, **given))
    shape = explainer.plan_for(np.shape(take(x)[0])).program.leaves.shape
    if found.shape[1:] != tuple(shape):
        raise TargetError("target names several outputs for each sample: explain one at a time")
    return found


def _channels(values: Any, axis: int, position: int | None) -> Array:
    """Values (n, *out) as (n, channels, all other axes)."""
    values = np.asarray(values)
    check_axis(axis, values.ndim, position)
    moved = np.moveaxis(values, axis, 1)
    result: Array = moved.reshape(*moved.shape[:2], -1)
    return result


def _by_channel(relevance: Array, axis: int, position: int | None) -> NDArray[np.float64]:
    return np.asarray(_channels(relevance, axis, position).sum(axis=2, dtype=np.float64))
