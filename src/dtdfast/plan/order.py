"""The order of axes in which tensors lie, so that permutations and reshapes are seen in memory and not carried out.

A tensor that one permutation alone reads (going back: that a permutation made) lies as the permutation's other side
wants it.
"""

from __future__ import annotations

from .steps import Buffer, row_major
from .tensors import Node, Region, Tensor, whole

Axes = tuple[int, ...]  # of one sample, the outermost in memory first


def default_order(rank: int) -> Axes:
    """Channels last."""
    return (*range(1, rank), 0)


def channels_last(buffer: Buffer, framed: bool) -> bool:
    """Whether kernels that want channels last can read it, with a border where they are `framed`."""
    if len(buffer.shape) < 2:
        return True
    if framed and (buffer.seen is not None or buffer.root.frozen):
        return False
    return buffer.shape[0] == 1 or buffer.strides()[1][0] == 1 if buffer.seen is not None else not buffer.plain


def undone(first: Region, second: Region, between: Axes) -> bool:
    """Whether the second of two regions takes back the first, a permutation; `between` is the shape between them."""
    if first.order is None or second.order is None or second.ranges != whole(between).ranges:
        return False
    whole_first = first.ranges == whole(tuple(count for _, _, count in first.ranges)).ranges
    return whole_first and all(first.order[a] == number for number, a in enumerate(second.order))


def order_in(buffer: Buffer) -> Axes:
    """The order of axes in which a buffer lies."""
    strides = buffer.strides()[1]
    return tuple(sorted(range(len(strides)), key=lambda a: -strides[a]))


def row_major_memory(buffer: Buffer) -> bool:
    """Whether its samples lie row-major, without a border, in memory that holds nothing else."""
    offset, strides, per_sample = buffer.strides()
    root = buffer.root
    wanted = row_major(buffer.shape)
    dense = all(s == w for s, w, size in zip(strides, wanted, buffer.shape, strict=True) if size > 1)
    whole = offset == 0 and per_sample == wanted[0] * buffer.shape[0]
    return dense and whole and not root.framed and root.strides()[2] == per_sample


def order_of(tensor: Tensor) -> Axes:
    """As its one reader wants it, else row-major."""
    return order_above(tensor) or tuple(range(len(tensor.shape)))


def order_above(tensor: Tensor) -> Axes | None:
    """The order in which the one reader of a tensor's values wants them; None: it does not mind."""
    if len(tensor.readers) != 1:
        return None
    (reader,) = tensor.readers
    if reader.order is None:
        return tuple(range(len(tensor.shape))) if reader.reshapes else None
    wanted = order_above(reader.out) or default_order(len(tensor.shape))
    return tuple(reader.order[a] for a in wanted)


def order_below(tensor: Tensor, makers: dict[int, Node]) -> Axes | None:
    """The order in which the maker of a tensor wants its relevance; None: it does not mind."""
    maker = makers.get(tensor.index)
    if maker is None:
        return None
    if maker.order is None:
        return tuple(range(len(tensor.shape))) if maker.reshapes else None
    wanted = order_below(maker.sources[0], makers) or default_order(len(tensor.shape))
    return tuple(maker.order.index(a) for a in wanted)
