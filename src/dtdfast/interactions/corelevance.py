"""Co-relevance: which inputs pass relevance through the same neurons of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays.beside import beside_rows
from ..budget import require
from ..concepts.channels import one_map
from ..explainer import Explainer
from ..layers import Layer
from ..models import opened
from ..options import split
from ..targets import rows_of
from .pairs import Pairs
from .regions import labels_of, summed

STARTS = 64
"""Neurons whose shares are computed in one call."""


def co_relevance(
    layers: Sequence[Layer], x: Any, target: Any = None, *, position: int, regions: Any = None, **options: Any
) -> Pairs:
    """Share out the relevance of a layer's neurons over pairs of inputs.

        C = P diag(R) Pᵀ,    P_ij the share of neuron j's relevance that arrives at input i

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        The network, as `explain` takes it.
    x : array_like
        The inputs, as `explain` takes them.
    target : int, tuple, array_like or None, default None
        The output whose relevance comes to the layer, as in `dtdfast.explain`, one for each sample.
    position : int
        The position of the layer's entry in the list.
    regions : array_like of int, optional
        For each input of one sample the number of the region that it belongs to, such as `patches` gives. By default
        each input is a region of its own.
    **options
        Options of `dtdfast.Explainer`, such as rules; and what the network's Givens are called.

    Returns
    -------
    Pairs
        Relevance of shape (n, p, p) for p regions: symmetric. If the layers below absorb nothing, row i sums to the
        relevance R_i of region i. Under rules that give shares ≥ 0, and for R ≥ 0 at the layer, the matrix has no
        negative element.

    Raises
    ------
    ShapeError
        `regions` does not fit x.
    LayerError
        No entry has this position, or it plays no part in what is explained.
    MemoryBudgetError
        The pairs need more memory than the budget: take larger regions.

    Notes
    -----
    Every neuron of the layer with R_j ≠ 0 costs one pass back: take a layer with few of them. Two inputs have a large
    C_ii' where the same neurons hand relevance to both; this says where a layer combines inputs, and not whether their
    effect is more than additive.
    """
    known, given = split(options, "stop")
    layers, host = opened(layers, x, given)
    above, below = Explainer(layers, **{**known, "stop": position}), Explainer(layers, **{**known, "start": position})
    matrices, totals = [], []
    for i in range(len(host)):
        row = slice(i, i + 1)
        one, beside = host[row], beside_rows(given, row)
        relevance = one_map(above, one, rows_of(target, row, len(host)), beside)[0].astype(np.float64)
        labels = labels_of(regions, one.shape[1:])
        count = int(labels.max()) + 1 if labels.size else 0
        require(8 * count**2, f"the pairs of {count} inputs")
        flat, matrix = relevance.reshape(-1), np.zeros((count, count))
        neurons = np.flatnonzero(flat)
        for first in range(0, len(neurons), STARTS):
            some = neurons[first : first + STARTS]
            starts = np.zeros((1, len(some), flat.size), np.float32)
            starts[0, np.arange(len(some)), some] = 1
            maps = below.explain(one, starts.reshape(1, len(some), *relevance.shape), **beside)
            halves = summed(maps.reshape(len(some), -1), labels, count) * np.sqrt(np.abs(flat[some]))[:, None]
            for sign in (1, -1):  # a product of a matrix with itself is symmetric to the last bit
                part = halves[flat[some] * sign > 0]
                matrix += sign * (part.T @ part)
        matrices.append(matrix)
        totals.append(flat.sum())
    return Pairs(np.stack(matrices), np.array(totals), f"relevance at entry {position}")
