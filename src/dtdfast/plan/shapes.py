"""Shapes of one sample, without the batch axis (which axes in records count), and what checks against them share."""

from __future__ import annotations

from typing import Any

from ..errors import ShapeError

Shape = tuple[int, ...]

MAX_AXES = 5  # of one sample
MAX_ELEMENTS = 2**33  # of one tensor of one sample
MAX_COPIES = 2**16  # of one element
MAX_TABLE = 2**23  # entries of the table of a layer's taps
MAX_WINDOW = 65535  # taps of a max-pool: winners are stored in at most two bytes


def spatial(value: Any, n: int, key: str) -> tuple[int, ...]:
    """An integer or a tuple, as one integer per spatial axis."""
    values: tuple[int, ...] = value if isinstance(value, tuple) else (value,) * n
    if len(values) != n:
        raise ShapeError(f"{key} is {value!r}, but its input has {n} spatial axes")
    return values


def pairs(value: Any, n: int, key: str) -> tuple[tuple[int, int], ...]:
    """Padding as one (before, after) pair per spatial axis."""
    values: tuple[tuple[int, int], ...] = value if isinstance(value, tuple) else ((value, value),) * n
    if len(values) != n:
        raise ShapeError(f"{key} is {value!r}, but its input has {n} spatial axes")
    return values


def spatial_rank(shape: Shape, what: str) -> int:
    if not 2 <= len(shape) <= 4:
        raise ShapeError(
            f"{what} needs an input (n, channels, *space) with 1 to 3 spatial axes; its input is (n, {join(shape)})"
        )
    return len(shape) - 1


def join(shape: Shape) -> str:
    return ", ".join(map(str, shape))


def axis_of(axis: int, shape: Shape, what: str) -> int:
    """A record's axis as an index into one sample's shape."""
    full = len(shape) + 1
    index = axis + full if axis < 0 else axis
    if index == 0:
        raise ShapeError(f"{what}: axis 0 is the batch; choose another")
    if not 0 < index < full:
        raise ShapeError(f"{what}: axis is {axis}, but its input has {full} axes (batch included)")
    return index - 1


def check_channels(channels: int, shape: Shape) -> None:
    """ShapeError where a record's channels are not those of its input."""
    if shape[0] != channels:
        raise ShapeError(f"it has {channels} channels; its input has {shape[0]} (axis 1 of (n, {join(shape)}))")
