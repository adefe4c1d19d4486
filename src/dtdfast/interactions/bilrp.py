"""BiLRP: a similarity ⟨φ(x), φ(x')⟩ shared out over pairs of inputs, by one map for each dimension of φ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.beside import beside_rows
from ..arrays.checks import samples_of
from ..budget import require
from ..errors import InputError, ShapeError
from ..explainer import Explainer
from ..layers import Flatten, Layer
from ..models import opened
from ..options import at_least_one, split
from ..plan.program import EXPLAIN, last_entry
from ..presets import clips
from .pairs import Floats, Pair, Pairs, strongest
from .regions import labels_of, summed

BLOCK = 2**22
"""Pairs that are held at once where only the strongest are kept."""


def bilrp(
    layers: Sequence[Layer],
    x: Any,
    other: Any = None,
    *,
    regions: Any = None,
    other_given: Mapping[str, Any] | None = None,
    **options: Any,
) -> Pairs:
    """Explain the similarity ⟨φ(x), φ(x')⟩ of two samples by pairs of their inputs [1]_.

        R_ii' = Σ_m r_i^(m)(x) r_i'^(m)(x'),    r^(m)(x) the relevance for output φ_m(x)

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        The network whose outputs are φ. Outputs with several axes are flattened.
    x : array_like
        The first samples, n of them, as `explain` takes them.
    other : array_like, optional
        The samples that they are compared with, n too; by default x itself, which takes half the time.
    regions : array_like of int, optional
        For each input of one sample the number of the region that it belongs to, such as `patches` gives; relevance is
        added within regions. By default each input is a region of its own.
    other_given : dict of str to array_like, optional
        Values of the network's Givens for `other`, such as its attention_mask; by default those for x.
    **options
        Options of `dtdfast.Explainer`, such as rules; and what the network's Givens are called: their values for x.

    Returns
    -------
    Pairs
        Relevance of shape (n, p, p) for p regions. Its sum is the similarity, less what layers absorbed.

    Raises
    ------
    ShapeError
        There are not as many others as samples, or `regions` does not fit them.
    InputError
        An output is negative under a preset that takes no negative start, such as "deep_taylor".
    MemoryBudgetError
        The maps of one sample, or the pairs, need more memory than the budget: take larger regions, or `top_pairs`.

    Notes
    -----
    Each sample costs one forward pass and as many passes back as φ has dimensions, which share gates and weights.

    References
    ----------
    .. [1] Eberle et al., "Building and interpreting deep similarity models", arXiv:2003.05431, equation 5.
    """
    matrices, similarities = [], []
    for left, right, similarity in _sides(layers, x, other, regions, options, other_given):
        require(8 * left.shape[1] * right.shape[1], f"the pairs of {left.shape[1]} and {right.shape[1]} inputs")
        matrices.append(left.T @ right)
        similarities.append(similarity)
    return Pairs(np.stack(matrices), np.array(similarities), "similarity")


def top_pairs(
    layers: Sequence[Layer],
    x: Any,
    other: Any = None,
    *,
    k: int = 10,
    regions: Any = None,
    other_given: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[list[Pair]]:
    """List the strongest pairs of BiLRP without holding all of them.

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        The network whose outputs are φ, as in `bilrp`.
    x : array_like
        The first samples, n of them.
    other : array_like, optional
        The samples that they are compared with; by default x itself.
    k : int, default 10
        How many pairs.
    regions : array_like of int, optional
        As in `bilrp`.
    other_given : dict of str to array_like, optional
        As in `bilrp`.
    **options
        As in `bilrp`.

    Returns
    -------
    list of list of Pair
        Of each sample the k pairs with the largest ``|relevance|``, the largest first.

    Raises
    ------
    ShapeError
        As in `bilrp`.
    """
    k, result = at_least_one("k", k), []
    for left, right, _ in _sides(layers, x, other, regions, options, other_given):
        best: list[Pair] = []
        step = max(1, BLOCK // right.shape[1])
        for first in range(0, left.shape[1], step):
            found = strongest(left[:, first : first + step].T @ right, k)
            best += [Pair(first + i, j, value) for i, j, value in found]
            best = sorted(best, key=lambda pair: -abs(pair.relevance))[:k]
        result.append(best)
    return result


def _sides(
    layers: Sequence[Layer],
    x: Any,
    other: Any,
    regions: Any,
    options: dict[str, Any],
    other_given: Mapping[str, Any] | None,
) -> Iterator[tuple[Floats, Floats, float]]:
    """Of each pair of samples: the maps of both, (m, p) and (m, q), and their similarity."""
    known, given = split(options)
    layers, first = opened(layers, x, given)
    named = isinstance(other_given, Mapping) and all(isinstance(key, str) for key in other_given)
    if other_given is not None and not named:
        raise InputError(f"other_given is {other_given!r:.60}, expected {{name: values}}")
    explainer = Explainer(_flat(layers, known), **known)
    second = None if other is None else samples_of(other, "other")
    if second is not None and len(second) != len(first):
        raise ShapeError(f"there are {len(first)} samples, but {len(second)} to compare them with")
    for i in range(len(first)):
        left, phi = right, other_phi = _maps(explainer, first[i : i + 1], regions, beside_rows(given, slice(i, i + 1)))
        if second is not None:
            beside = beside_rows(given | dict(other_given or {}), slice(i, i + 1))
            right, other_phi = _maps(explainer, second[i : i + 1], regions, beside)
        yield left, right, float(phi @ other_phi)


def _flat(layers: list[Layer], options: dict[str, Any]) -> list[Layer]:
    """The network up to the entry that relevance starts at, its outputs flattened."""
    last = last_entry(layers, options.pop("start", None), EXPLAIN)
    flat: list[Layer] = layers[: last + 1]
    flat.append(Flatten())
    return flat


def _maps(explainer: Explainer, x: NDArray[Any], regions: Any, given: dict[str, Any]) -> tuple[Floats, Floats]:
    """One sample's maps of all outputs, summed over regions (m, p), and its outputs (m,)."""
    program = explainer.plan_for(x.shape).program
    (size,) = program.network.output.shape
    shape = program.leaves.shape if explainer.options["stop"] is not None else x.shape[1:]
    labels = labels_of(regions, shape)
    require(4 * size * labels.size, f"the maps of {size} outputs")
    every = np.arange(size)[None]
    maps, outputs = explainer.explain(x, every, return_outputs=True, **given)
    rules = explainer.options["rules"]
    if clips(rules) and outputs.size and outputs.min() < 0:
        raise InputError(
            f"the outputs hold {outputs.min():.6g}, and {rules!r} leaves out what is below 0: take rules='dtd'"
        )
    count = int(labels.max()) + 1 if labels.size else 0
    return summed(maps.reshape(size, -1), labels, count), outputs[0].astype(np.float64)
