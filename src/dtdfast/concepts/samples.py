"""Of every channel of an entry the samples in which it matters most: of an array, or of a run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.beside import beside_rows, meant
from ..arrays.checks import as_array, samples_of
from ..arrays.foreign import take
from ..errors import InputError, RunError
from ..layers import Given, Layer
from ..models import opened
from ..options import at_least_one, split
from ..results import Report, number
from ..targets import rows_of
from .channels import Channels, ChannelScores

BLOCK = 64
"""Samples that are ranked in one call."""

Array = NDArray[Any]


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
    layers : sequence of Layer, model or path-like
        The network, as `explain` takes it.
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
    channels, (known, given) = Channels(position, by, axis), split(options, "stop")
    host, k = take(x)[0], at_least_one("k", k)
    if not hasattr(host, "shape"):
        host = samples_of(host)
    if not len(host.shape) or not len(host):
        raise InputError(f"x has shape {tuple(host.shape)}: there is no sample to choose from")
    layers, _ = opened(layers, host.iloc[:1] if hasattr(host, "iloc") else host[:1], given)
    names = {record.name for record in layers if isinstance(record, Given)}
    if unknown := [name for name in given if name not in names]:  # activations are computed without some of them
        raise InputError(f"{unknown[0]}= is no option, and no Given of the network has this name{meant(unknown[0])}")
    scores = ChannelScores.of(layers, channels, known)

    def block(first: int) -> tuple[int, Array]:
        rows = slice(first, first + BLOCK)
        some, beside = as_array(host.iloc[rows] if hasattr(host, "iloc") else host[rows]), beside_rows(given, rows)
        return first, scores(some, rows_of(target, rows, len(host)), beside)

    return best_samples(map(block, range(0, len(host), BLOCK)), k, by)


def stored_samples(path: str | os.PathLike[str], k: int = 8) -> TopSamples:
    """Find the same in a run that kept the channels of an entry: ``dtdfast.run(..., channels=Channels(position))``.

    Parameters
    ----------
    path : str or path-like
        The run's output. If it is not finished yet, the samples so far are ranked.
    k : int, default 8
        How many samples.

    Returns
    -------
    TopSamples
        Samples and scores; prints as a table. Of equal scores the earlier sample comes first.

    Raises
    ------
    InputError
        `path` is none, or k is not at least 1.
    RunError
        There is no output of a run, it kept no channels, or no sample was explained.
    """
    from ..runs.stored import Stored  # here, as few need it

    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"path is {path!r:.60}, expected that of a run's output")
    stored, k = Stored(path), at_least_one("k", k)
    if "channels" not in stored:
        raise RunError(f"{path} holds no channels; begin the run with channels=dtdfast.concepts.Channels(position)")
    by = stored.attribute("channels", "by")
    if by not in ("relevance", "activation") or stored.array("channels").ndim != 2:
        raise stored.damaged("its array 'channels'", f"by is {by!r:.40}")
    found = best_samples(((of.start, stored.rows("channels", of.start, of.stop)) for of in stored.finished), k, by)
    if not found.samples.size:
        raise RunError(f"{path}: no sample was explained yet")
    return found


def best_samples(blocks: Iterable[tuple[int, Array]], k: int, by: str) -> TopSamples:
    """Of scores (first sample's number, (n, channels)) in the order of the samples: the k largest of each channel, of
    equal ones the earlier sample; NaN is none.
    """
    samples: NDArray[np.int64] = np.zeros((0, 0), np.int64)
    scores: NDArray[np.float64] = np.zeros((0, 0))
    for first, block in blocks:
        known = np.flatnonzero(~np.isnan(block).any(axis=1))
        if not known.size:
            continue
        table = block[known].T
        numbers = np.broadcast_to(first + known, table.shape)
        samples = np.concatenate([samples.reshape(len(table), -1), numbers], axis=1)
        scores = np.concatenate([scores.reshape(len(table), -1), table], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        samples, scores = np.take_along_axis(samples, order, axis=1), np.take_along_axis(scores, order, axis=1)
    return TopSamples(samples, scores, by)
