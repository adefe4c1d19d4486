"""Average and sum pools as neurons of taps of weight 1: AvgPool, SumPool, GlobalAvgPool."""

from __future__ import annotations

import math

from ... import layers as L
from ...errors import ShapeError
from ..builder import Builder
from ..entries import Entry
from ..geometry import pool_part
from ..shapes import MAX_WINDOW, Shape, pairs, spatial, spatial_rank
from ..tensors import Tensor
from .base import Recipe, always
from .neuron import Neuron
from .reshape import Reshaping


def pool(builder: Builder, entry: Entry, sources: tuple[Tensor, ...]) -> Tensor:
    (source,) = sources
    if idle(builder, entry, source):
        return builder.put(Reshaping((entry.position,), sources, builder.tensor(entry)))
    builder.rule[entry.position] = builder.rule_for(entry, builder.book.pool())
    out = builder.tensor(entry)
    return builder.put(Neuron((entry.position,), sources, out, parts=[pool_part(entry.record, source, entry)]))


def idle(builder: Builder, entry: Entry, source: Tensor) -> bool:
    """A pool of one-element windows computes nothing; only a convention with a stabilizer takes from it, or a rule
    of its own.
    """
    kernel = source.shape[1:]
    if not isinstance(entry.record, L.GlobalAvgPool):
        kernel = spatial(getattr(entry.record, "kernel", 1), len(kernel), "kernel")
    alone = entry.shape == source.shape and set(kernel) == {1}
    own_rule = builder.book.explicit(entry.position) or builder.book.everywhere()
    return alone and builder.book.convention.stabilizer == 0 and own_rule is None


def pool_shape(record: L.MaxPool | L.AvgPool | L.SumPool, shape: Shape) -> Shape:
    n = spatial_rank(shape, type(record).__name__)
    kernel, stride = spatial(record.kernel, n, "kernel"), spatial(record.stride, n, "stride")
    dilation = spatial(getattr(record, "dilation", 1), n, "dilation")
    if isinstance(record, L.MaxPool) and math.prod(kernel) > MAX_WINDOW:
        raise ShapeError(f"its window has {math.prod(kernel)} elements, at most {MAX_WINDOW} are supported")
    size = []
    for a, (before, after) in enumerate(pairs(record.padding, n, "padding")):
        reach = dilation[a] * (kernel[a] - 1) + 1
        if before >= reach or after >= reach:
            raise ShapeError(
                f"padding ({before}, {after}) along spatial axis {a} must be smaller than the window ({reach})"
            )
        span = shape[1 + a] + before + after - reach
        if span < 0 and not (record.ceil_mode and -span < stride[a]):
            raise ShapeError(
                f"its window spans {reach} along spatial axis {a}; its padded input has {shape[1 + a] + before + after}"
            )
        length = span // stride[a] + 1
        if record.ceil_mode and span % stride[a] and length * stride[a] < shape[1 + a] + before:
            length += 1  # windows that start beyond the input plus left padding are dropped
        size.append(length)
    return (shape[0], *size)


def global_pool_shape(record: L.GlobalAvgPool, shape: Shape) -> Shape:
    return (shape[0],) + (1,) * spatial_rank(shape, "GlobalAvgPool")


RECORDS: dict[type[L.Layer], Recipe] = {
    L.AvgPool: Recipe(pool_shape, pool, always),
    L.SumPool: Recipe(pool_shape, pool, always),
    L.GlobalAvgPool: Recipe(global_pool_shape, pool, always),
}
