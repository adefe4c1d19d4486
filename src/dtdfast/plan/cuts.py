"""How the steps of an attention are cut into slices: by blocks of rows or columns of its scores, and along the other
axis as far as a mask leaves something of a block.
"""

from __future__ import annotations

import numpy as np

from .sliced import COLUMNS, ROWS, Cuts
from .steps import Buffer, Reals, Step, View
from .tensors import whole

SUMMED = 32
"""A multiple of the numbers in any vector of csrc/: sums over a line keep their bits if terms that are 0 are left out
behind such a number of them."""

PIECE = 512
"""Elements of a line that these sums take one after another: DTD_ROW of csrc/rows/rows.h."""


def turned(view: View) -> bool | None:
    """Whether rows and columns of a whole buffer are exchanged; None where it is not all of it."""
    if view.expand is not None or view.trailing:
        return None
    if view.region is None:
        return False
    rank = len(view.buffer.shape)
    order = (*range(rank - 2), rank - 1, rank - 2)
    if view.region.ranges != whole(view.buffer.shape).ranges or view.region.order not in (None, order):
        return None
    return view.region.order is not None


def _held(step: Step, weights: Buffer) -> tuple[str, int] | None:
    """Of a product with the weights: the field that they are, and the axis of that view which is not summed over."""
    fields = [key for key in ("x", "other") if (view := getattr(step, key)) is not None and view.buffer is weights]
    if step.op != "MATMUL" or len(fields) != 1 or turned(getattr(step, fields[0])) is None:
        return None
    others = [view for view in step.views() if view is not getattr(step, fields[0])]
    if any(view.buffer.root is weights for view in others):
        return None
    return fields[0], ROWS if fields[0] == "x" else COLUMNS


def axis_of(step: Step, weights: Buffer) -> int | None:
    """The axis of the weights that a product with them does not sum over, and so may be cut."""
    held = _held(step, weights)
    if held is None:
        return None
    key, axis = held
    return ROWS + COLUMNS - axis if turned(getattr(step, key)) else axis


def cuts(step: Step, axis: int, tall: set[int]) -> Cuts:
    """The views of a step that are cut, where scores and weights, and their relevance, are along an axis."""
    if step.op != "MATMUL":  # its stored numbers of rows are cut with these
        rows = ("factor", "scale", *(("m",) if step.op == "SOFTMAX" else ()))
        same = ("out", "x", "m" if step.op in ("SOFTMAX_BACK", "MULTIPLY") else "other")
        return {**dict.fromkeys(same, axis), **(dict.fromkeys(rows, axis) if axis == ROWS else {})}
    key = next(key for key in ("out", "x", "other") if id(getattr(step, key).buffer) in tall)
    if key == "out":
        at = ROWS + COLUMNS - axis if turned(step.out) else axis
        return {"out": at, "x" if at == ROWS else "other": at}
    at = ROWS if key == "x" else COLUMNS
    return {"out": at, key: at, "m": at}


def seen(step: Step, own: dict[int, Buffer]) -> Step:
    """A step with other buffers."""
    return step.moved(lambda buffer: own.get(id(buffer), buffer))


def spans(step: Step, axis: int, tall: set[int]) -> Cuts:
    """The views of a step that are needed in part, where scores and weights, and their relevance, are along an axis."""
    key = next((key for key in ("out", "x", "other") if id(getattr(step, key).buffer) in tall), "")
    if step.op != "MATMUL" or key == "out":
        return cuts(step, axis, tall)
    return {"x": COLUMNS, "other": ROWS}


def ranges(mask: Reals, scores: Buffer, axis: int, block: int) -> list[tuple[int, int]] | None:
    """Of every block of rows, the columns (of columns, the rows) that a mask leaves something of: from, to. None where
    it leaves all.
    """
    rows, columns = scores.shape[-2:]
    left = np.broadcast_to(np.not_equal(mask, 0), (*mask.shape[:-2], rows, columns)).reshape(-1, rows, columns)
    kept = np.logical_or.reduce(left) if axis == ROWS else np.logical_or.reduce(left).T
    found = []
    for first in range(0, len(kept), block):
        some = np.flatnonzero(kept[first : first + block].any(axis=0))
        low, high = (int(some[0]), int(some[-1]) + 1) if some.size else (0, 1)
        if axis == ROWS:  # along which lines are summed
            low, high = low // PIECE * PIECE, min(columns, -(-high // SUMMED) * SUMMED)
        found.append((low, high))
    return None if all(each == (0, kept.shape[1]) for each in found) else found


def share(found: list[tuple[int, int]] | None, scores: Buffer, axis: int, block: int) -> float:
    """How much of the scores these ranges take."""
    if found is None:
        return 1.0
    length, other = scores.shape[-2:][:: 1 if axis == ROWS else -1]
    sizes = [min(block, length - number * block) * (high - low) for number, (low, high) in enumerate(found)]
    return sum(sizes) / (length * other)
