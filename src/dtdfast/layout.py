"""Where a network's input has its channels, as the first layers tell that know them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    Layer,
    LayerNorm,
    Linear,
    MaxPool,
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


def domain_of(domain: Any, layers: Sequence[Layer]) -> Domain:
    """What the inputs of this network may be; bounds per channel are along the axis that it tells."""

    def axis(rank: int) -> int | None:
        found = seen(layers, rank + 1)
        return None if found is None else {"nchw": 0, "nhwc": rank - 1}[found[0]]

    return Domain.parse(domain, axis)


def channel_axis(layers: Sequence[Layer], rank: int) -> int:
    """Along which axis of maps (n, ...) of this rank the input's channels lie: the last one, or 1."""
    found = seen(layers, rank)
    return -1 if found is not None and found[0] == "nhwc" else 1


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
    """Of a record's input, if it tells; three numbers of an affine layer, or of a Linear on pictures, are for colours,
    others may be for rows.
    """
    if isinstance(record, Linear) and rank > 2 and -rank < record.axis < rank:
        n = int(record.weight.shape[1])
        return n if rank == 3 or n == 3 else None
    if isinstance(record, Conv) and record.weight.ndim == rank:
        return int(record.weight.shape[1]) * int(record.groups)
    if isinstance(record, ConvTranspose) and record.weight.ndim == rank:
        return int(record.weight.shape[0])
    if (
        isinstance(record, (BatchNorm, Scale))
        and len(record.mean if isinstance(record, BatchNorm) else record.scale) == 3
    ):
        return 3
    return None
