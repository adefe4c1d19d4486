"""Weights and channels of least score set to 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from .. import layers as L
from ..arrays.checks import host_array
from ..errors import InputError, LayerError, ShapeError, at
from ..plan.wiring import sources
from ..sizes import copied

PRUNED = (L.Linear, L.Conv, L.ConvTranspose)


def prune(layers: Sequence[L.Layer], scores: Mapping[int, Any], fraction: float) -> list[L.Layer]:
    """Set the weights, or whole output channels, of least score to 0.

    Parameters
    ----------
    layers : sequence of Layer
        The network.
    scores : dict of int to array_like
        {position: scores} of Linear, Conv or ConvTranspose entries: one score for each weight, in the shape of the
        record's weights, or one for each output channel, whose weights and bias then go together. A `WeightRelevance`
        serves under rules without negative terms; else give the absolute values.
    fraction : float
        The share of all that has a score, over all entries together, between 0 and 1.

    Returns
    -------
    list of Layer
        The network with other weights; entries without scores are the same records.

    Raises
    ------
    LayerError
        An entry has no weights to prune, or `fraction` is no number between 0 and 1.
    InputError
        `scores` is no dict, or holds no numbers, or NaN.
    ShapeError
        Scores have neither the shape of the weights nor one number per output channel.

    Notes
    -----
    Of equal scores, those that come first in the list go first. The arrays keep their shapes: this shows what pruning
    does to a network, and makes it no faster.
    """
    sources(layers)  # says what it expects
    if not isinstance(scores, Mapping):
        raise InputError(f"scores is {scores!r:.40}, expected a dict of positions to arrays")
    if (
        isinstance(fraction, bool)
        or not isinstance(fraction, (int, float, np.floating, np.integer))
        or not 0 <= fraction <= 1
    ):
        raise LayerError(f"fraction is {fraction!r:.40}, expected a number between 0 and 1")
    arrays = {position: _checked(layers, position, score) for position, score in scores.items()}
    ranked = np.concatenate([a.reshape(-1) for a in arrays.values()]) if arrays else np.zeros(0)
    gone = np.zeros(ranked.size, bool)
    gone[np.argsort(ranked, kind="stable")[: round(float(fraction) * ranked.size)]] = True
    result, first = copied(layers), 0
    for position, array in arrays.items():
        result[position] = _without(layers[position], gone[first : first + array.size].reshape(array.shape))
        first += array.size
    return result


def _checked(layers: Sequence[L.Layer], position: int, score: Any) -> Any:
    if isinstance(position, bool) or not isinstance(position, (int, np.integer)):
        raise LayerError(f"scores holds {position!r:.40}, expected positions of entries")
    if not 0 <= position < len(layers) or not isinstance(layers[position], PRUNED):
        where = at(position, layers[position]) if 0 <= position < len(layers) else f"entry {position}"
        raise LayerError(f"{where} has no weights to prune: expected a Linear, Conv or ConvTranspose")
    array = host_array(score, f"scores[{position}]")
    if array.dtype.kind not in "fiub" or np.isnan(array).any():
        raise InputError(f"scores[{position}] holds NaN, or no real numbers")
    array = array.astype(np.float64)
    weight = layers[position].weight  # type: ignore[attr-defined]
    if array.shape not in (weight.shape, (_outputs(layers[position]),)):
        raise ShapeError(
            f"{at(position, layers[position])}: scores have shape {array.shape}, expected {weight.shape}, or "
            f"({_outputs(layers[position])},) for channels"
        )
    return array


def _outputs(record: Any) -> int:
    return int(
        record.weight.shape[1] * record.groups if isinstance(record, L.ConvTranspose) else record.weight.shape[0]
    )


def _without(record: Any, gone: Any) -> L.Layer:
    """The record with these weights, or output channels, at 0."""
    weight, bias = record.weight, record.bias
    if gone.shape == weight.shape:
        return cast(L.Layer, replace(record, weight=np.where(gone, 0, weight)))
    column = (-1, *(1,) * (weight.ndim - 1))
    if isinstance(record, L.ConvTranspose):  # (c_in, c_out/groups, *k): a group of inputs for each group of outputs
        by_group = np.repeat(gone.reshape(record.groups, 1, -1), weight.shape[0] // record.groups, axis=1)
        mask = by_group.reshape(*weight.shape[:2], *(1,) * (weight.ndim - 2))
    else:
        mask = gone.reshape(column)
    bias = None if bias is None else np.where(gone, 0, bias)
    return cast(L.Layer, replace(record, weight=np.where(mask, 0, weight), bias=bias))
