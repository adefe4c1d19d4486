"""Where a network's input has its channels, as the first layers tell that know them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .layers import (
    INPUT,
    LRN,
    Activation,
    Add,
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dropout,
    GlobalAvgPool,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    Linear,
    MaxPool,
    Mul,
    Pad,
    Permute,
    ReLU,
    RMSNorm,
    Scale,
    SumPool,
    Upsample,
)
from .plan.domain import Domain
from .plan.wiring import sources

CHANNEL_AXIS = {"nchw": 1, "nhwc": 3}
# Records that leave the channels as they are.
TRANSPARENT = (
    Activation,
    Add,
    AvgPool,
    BatchNorm,
    Dropout,
    LRN,
    LayerNorm,
    MaxPool,
    Pad,
    RMSNorm,
    ReLU,
    Scale,
    SumPool,
    Upsample,
)

OF_AXIS_1 = (
    Conv, ConvTranspose, BatchNorm, GroupNorm, InstanceNorm, LRN, MaxPool, AvgPool, SumPool,
    GlobalAvgPool, Upsample,
)  # fmt: skip
KEEPING = (Activation, Add, Dropout, Mul, ReLU, Scale)  # axes, without telling which the channels' is


def domain_of(domain: Any, layers: Sequence[Layer]) -> Domain:
    """What the inputs of this network may be; bounds per channel are along the axis that it tells."""

    def axis(rank: int) -> int | None:
        found = seen(layers, rank + 1)
        return None if found is None else {"nchw": 0, "nhwc": rank - 1}[found[0]]

    return Domain.parse(domain, axis)


def channel_axis(layers: Sequence[Layer], rank: int, stop: int | None = None) -> int:
    """Along which axis of maps (n, ...) of this rank channels lie: of the input the last one, or 1; of the output of an
    entry any.
    """
    if stop is not None:
        return axis_within(layers, [stop], stop, rank)
    found = seen(layers, rank)
    return -1 if found is not None and found[0] == "nhwc" else 1


def axis_within(layers: Sequence[Layer], own: Sequence[int], out: int, rank: int) -> int:
    """The axis of the output of an entry, the batch's counted, along which its channels lie: as its own records tell,
    else the nearest above, else the nearest below.
    """
    reads = sources(layers)
    readers = {p: [reader for reader, read in enumerate(reads) if p in read] for p in range(len(layers))}
    for start, step in ((own, {}), (readers[out], readers), (own, dict(enumerate(reads)))):
        queue = [*start]
        for position in queue:
            if position == INPUT:
                continue
            if (axis := _told(layers[position])) is not None:
                return axis % rank
            if isinstance(layers[position], KEEPING):
                queue += [p for p in step.get(position, ()) if p not in queue]
    return 1


def _told(record: Layer) -> int | None:
    """The axis of the channels of what a record reads and writes, if it tells."""
    if isinstance(record, (LayerNorm, RMSNorm)):
        axes = np.atleast_1d(record.axes)
        return int(axes[0]) if len(axes) == 1 else None
    return record.axis if isinstance(record, Linear) else 1 if isinstance(record, OF_AXIS_1) else None


def seen(layers: Sequence[Layer], rank: int = 4) -> tuple[str, int] | None:
    """Layout and number of channels of the network's input of so many axes, as the first layer tells that knows
    them.
    """
    reads = sources(layers) if layers else ()
    axes = tuple(range(rank))  # of the network's input, as the entry at `position` has them
    position = INPUT
    while (reader := next((i for i, read in enumerate(reads) if position in read), None)) is not None:
        record, position = layers[reader], reader
        if isinstance(record, Permute):
            if len(record.order) != rank:
                return None
            axes = tuple(axes[a] for a in record.order)
        elif (n := _channels(record, rank)) is not None:
            layout = {1: "nchw", rank - 1: "nhwc"}.get(axes[record.axis if isinstance(record, Linear) else 1])
            return None if layout is None else (layout, n)
        elif not isinstance(record, TRANSPARENT):
            return None
    return None


def _channels(record: Layer, rank: int) -> int | None:
    """Of a record's input, if it tells; three numbers of an affine layer that are not one repeated, or of a Linear on
    pictures, are for colours, others may be for rows.
    """
    if isinstance(record, Linear) and rank > 2 and -rank < record.axis < rank:
        n = int(record.weight.shape[1])
        return n if rank == 3 or n == 3 else None
    if isinstance(record, Conv) and record.weight.ndim == rank:
        return int(record.weight.shape[1]) * int(record.groups)
    if isinstance(record, ConvTranspose) and record.weight.ndim == rank:
        return int(record.weight.shape[0])
    if isinstance(record, BatchNorm):
        return 3 if len(record.mean) == 3 else None
    if isinstance(record, Scale) and len(record.scale) == 3:
        varies = [np.ptp(numbers) > 0 for numbers in (record.scale, record.shift) if numbers is not None]
        return 3 if any(varies) else None
    return None
