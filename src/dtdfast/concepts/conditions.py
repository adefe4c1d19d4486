"""Relevance with all but some channels of an entry taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import as_array
from ..calls import cached
from ..errors import LayerError, TargetError
from ..layers import Layer
from ..models import opened
from ..options import Options, split
from .channels import check_axis, one_map

Array = NDArray[Any]
Conditions = Sequence[int | Sequence[int]]


def conditional(
    layers: Sequence[Layer],
    x: Any,
    target: Any = None,
    *,
    conditions: Mapping[int, Conditions],
    axis: int = 1,
    **options: Any,
) -> Array:
    """Explain with the relevance of all but some channels of a layer taken away: concept relevance [1]_.

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        The network, as `explain` takes it.
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
        without conditions, less what goes around the entry (by a skip connection), which no condition holds.

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
    if not isinstance(conditions, Mapping) or not conditions:
        held = "empty" if isinstance(conditions, Mapping) else repr(conditions)
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
    layers, x = opened(layers, x, given)
    outer, start, stop = known.pop("start", None), target, known.pop("stop", None)
    for position in sorted(conditions, reverse=True):
        above = cached(layers, Options(**known, start=outer, stop=position), x, given)
        if start is target:
            found = one_map(above, x, target, given)[:, None]
        else:
            found = np.asarray(above.explain(x, start, **given))
        start = masked(found, conditions[position], axis, position)
        outer = position
    return np.asarray(cached(layers, Options(**known, start=outer, stop=stop), x, given).explain(x, start, **given))


def masked(relevance: Array, conditions: Conditions, axis: int, position: int) -> Array:
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
