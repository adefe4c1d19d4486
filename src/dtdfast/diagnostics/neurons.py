"""Which neurons of a layer hold the relevance, and through which layers, branches and channels it flows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..colours import LINES, NEUTRAL
from ..concepts.channels import check_axis, one_map
from ..errors import LayerError, at
from ..explainer import Explainer
from ..layers import Add, Concat, Layer
from ..models import opened
from ..options import at_least_one, split, whole_numbers
from ..plan import units as U
from ..plan.wiring import sources
from ..results import Chart, Report, axes_or_current, number, percent
from .similarity import median

Floats = NDArray[np.float64]


@dataclass
class TopNeurons(Chart):
    """The neurons of an entry with the largest relevance, means over samples.

    Attributes
    ----------
    title : str
        The entry.
    neurons : ndarray of int, of shape (k, axes)
        Their places in one sample of the entry's output, the foremost first.
    relevance : ndarray of shape (k,)
        Their mean relevance.
    share : ndarray of shape (k,)
        Their share of the entry's ``|relevance|``.
    samples : ndarray of int, of shape (k,)
        In how many samples they hold any.
    """

    title: str
    neurons: NDArray[np.int64]
    relevance: Floats
    share: Floats
    samples: NDArray[np.int64]

    header = ("neuron", "relevance", "share", "samples")

    def rows(self) -> list[tuple[str, ...]]:
        named = [", ".join(map(str, place)) for place in self.neurons.tolist()]
        columns = (named, map(number, self.relevance), map(percent, self.share), map(str, self.samples))
        return list(zip(*columns, strict=True))

    @property
    def reading(self) -> str:
        return (
            f"{len(self.neurons)} neurons of {self.title} hold {percent(float(self.share.sum()))} of its |relevance|."
        )

    def _draw(self, ax: Any) -> None:
        ax.barh(range(len(self.neurons)), self.relevance, color=LINES[0])
        ax.set_yticks(range(len(self.neurons)), [row[0] for row in self.rows()])
        ax.invert_yaxis()
        ax.axvline(0, color="0.3", linewidth=0.8)
        ax.set_xlabel("mean relevance")
        ax.set_title(self.title, parse_math=False)


def top_neurons(
    layers: Sequence[Layer], x: Any, target: Any = None, *, position: int, k: int = 10, **options: Any
) -> TopNeurons:
    """List the neurons of an entry that hold the most relevance.

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
    k : int, default 10
        How many neurons.
    **options
        Options of `dtdfast.Explainer`, such as rules; and what the network's Givens are called.

    Returns
    -------
    TopNeurons
        Those whose relevance, the mean over the samples, is largest by size; of equal ones the first.

    Raises
    ------
    InputError
        k is not at least 1.
    LayerError
        No entry has this position, or it plays no part in what is explained.
    """
    k, (known, given) = at_least_one("k", k), split(options, "stop")
    layers, x = opened(layers, x, given)
    if position is None:
        raise LayerError(f"position is None, expected one from 0 to {len(layers) - 1}")
    found = one_map(Explainer(layers, **{**known, "stop": position}), x, target, given)
    flat = found.reshape(len(found), -1).astype(np.float64)
    sizes, mean = np.abs(flat).mean(axis=0), flat.mean(axis=0)
    best = np.argsort(-np.abs(mean), kind="stable")[:k]
    places = np.stack(np.unravel_index(best, found.shape[1:]), axis=1)
    share = sizes[best] / (sizes.sum() or 1.0)
    return TopNeurons(at(position, layers[position]), places, mean[best], share, (flat[:, best] != 0).sum(axis=0))


@dataclass
class Flow(Report):
    """How much relevance passes through every layer, branch and channel, means over samples.

    Attributes
    ----------
    positions, names : list
        The entries, from the output down.
    branch_of : list of int or None
        The Add or Concat that all of the entry leads to, without a fork on the way: the entry lies on a branch of it.
    share : ndarray of shape (entries,)
        What passes through the entry, relative to the explained outputs.
    channels : list of ndarray of shape (channels,)
        The same of each of its channels, Σ ``|R|`` relative to the outputs.
    """

    positions: list[int]
    names: list[str]
    branch_of: list[int | None]
    share: Floats
    channels: list[Floats]

    header = ("entry", "passes", "branch of", "channels", "hold half", "largest")

    def rows(self) -> list[tuple[str, ...]]:
        result: list[tuple[str, ...]] = []
        for name, branch, share, one in zip(self.names, self.branch_of, self.share, self.channels, strict=True):
            best = int(one.argmax())
            largest = f"{best}: {percent(float(one[best] / (one.sum() or 1.0)))}"
            cells = (
                "" if branch is None else str(branch),
                str(len(one)),
                str(half_of(one)) if one.any() else "-",
                largest,
            )
            result.append((name, percent(float(share)), *cells))
        return result

    @property
    def reading(self) -> str:
        if not any(one.any() for one in self.channels):
            return "No relevance passes through any of these entries."
        few = [half_of(one) / len(one) if one.any() else np.inf for one in self.channels]
        least = int(np.argmin(few))
        return (
            f"Half of the |relevance| passes through {percent(median(np.array(few)))} of the channels (median of "
            f"{np.isfinite(few).sum()} entries), through the fewest at {self.names[least]}: "
            f"{half_of(self.channels[least])} of {len(self.channels[least])}."
        )

    def plot(self, ax: Any = None, *, top: int = 3) -> Any:
        """Draw a bar for each entry: its largest channels in colour, all others in grey.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            The axes; by default the current ones.
        top : int, default 3
            How many channels have a colour.

        Returns
        -------
        matplotlib.axes.Axes
            The axes that were drawn on.
        """
        ax, top = axes_or_current(ax), at_least_one("top", top)
        for row, one in enumerate(self.channels):
            left = 0.0
            for rank, channel in enumerate(np.argsort(-one, kind="stable")[:top]):
                ax.barh(row, one[channel], left=left, color=LINES[rank % len(LINES)])
                left += float(one[channel])
            ax.barh(row, one.sum() - left, left=left, color=NEUTRAL)
        ax.set_yticks(range(len(self.names)), self.names, parse_math=False)
        ax.invert_yaxis()
        ax.set_xlabel(f"|relevance| / output, from the output (top) to the input; in colour the {top} largest channels")
        return ax


def relevance_flow(
    layers: Sequence[Layer],
    x: Any,
    target: Any = None,
    *,
    positions: Sequence[int] | None = None,
    axis: int = 1,
    **options: Any,
) -> Flow:
    """Measure how much relevance passes through every layer, branch and channel.

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        The network, as `explain` takes it.
    x : array_like
        The inputs, n of them, as `explain` takes them.
    target : int, tuple, array_like or None, default None
        What is explained, as in `dtdfast.explain`, one for each sample.
    positions : sequence of int, optional
        The entries; by default the outputs of all layers of neurons and sums that relevance passes, but the last.
    axis : int, default 1
        The axis of the entries' outputs, the batch's counted, that holds channels; −1 for features of tokens.
    **options
        Options of `dtdfast.Explainer`, such as rules; and what the network's Givens are called.

    Returns
    -------
    Flow
        Shares of the explained outputs; prints as a table, and draws itself.

    Raises
    ------
    LayerError
        No entry has such a position, or it plays no part in what is explained.

    Notes
    -----
    Each entry takes one explanation that stops there. An entry that several others read holds what comes from all of
    them. So the part of an Add that goes around a branch is what the Add passes, less what the branch does.
    """
    known, given = split(options)
    layers, x = opened(layers, x, given)
    explainer = Explainer(layers, **known)
    network = explainer.plan_for(x.shape).program.network
    if positions is None:
        passed = (u.out for u in network.units if isinstance(u, U.Neuron) and u.in_relevance and not u.twin)
        chosen = sorted({t.position for t in passed if t is not network.output})
    else:
        chosen = whole_numbers("positions", positions)
    if not chosen:
        raise LayerError("the network has no layer below its output: there is nothing that relevance passes")
    start = explainer.ledger(x, target, **given).start
    names, shares, channels = [], [], []
    for position in chosen[::-1]:
        found = one_map(Explainer(layers, **{**known, "stop": position}), x, target, given)
        check_axis(axis, found.ndim, position)
        by_channel = np.moveaxis(found, axis, 1).reshape(len(found), found.shape[axis], -1).astype(np.float64)
        size = np.where(start == 0, np.inf, start)
        names.append(at(position, layers[position]))
        shares.append(float((by_channel.sum(axis=(1, 2)) / size).mean()))
        channels.append((np.abs(by_channel).sum(axis=2) / np.abs(size)[:, None]).mean(axis=0))
    return Flow(chosen[::-1], names, _branches(layers, chosen[::-1]), np.array(shares), channels)


def half_of(channels: Floats) -> int:
    """How many channels it takes to hold half of all, the largest first."""
    held = np.cumsum(np.sort(channels)[::-1])
    return int(np.searchsorted(held, held[-1] / 2)) + 1


def _branches(layers: Sequence[Layer], positions: list[int]) -> list[int | None]:
    """The Add or Concat that an entry leads to without a fork on the way."""
    readers: dict[int, list[int]] = {}
    for reader, read in enumerate(sources(layers)):
        for source in set(read):
            readers.setdefault(source, []).append(reader)
    result: list[int | None] = []
    for position in positions:
        above = readers.get(position, [])
        while len(above) == 1 and not isinstance(layers[above[0]], (Add, Concat)):
            above = readers.get(above[0], [])
        result.append(above[0] if len(above) == 1 else None)
    return result
