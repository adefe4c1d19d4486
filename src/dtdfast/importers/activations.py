"""Activations that models write in several operations: known again while a layer list grows, whoever made the
records.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..layers import Activation, Layer, Mul, Scale
from .rewrites import record_at, source_of


def written_out(
    records: list[Layer], cls: type[Layer], positions: list[int], fields: dict[str, Any]
) -> tuple[int, dict[str, Any]] | None:
    """(position of y, fields of an Activation of y) where the entry about to be added makes just that of y."""
    if cls is Mul:
        for x, gate in (positions, positions[::-1]):
            if _is_tanh_of_softplus(records, gate, x):
                return x, {"kind": "mish"}
            if (alpha := _sigmoid_of(records, gate, x)) is not None:
                return x, {"kind": "silu", "alpha": alpha}
            sixth = record_at(records, x, Scale)
            if (
                sixth is not None
                and _scales(sixth, 1 / 6)
                and _is_relu6_of_3_more(records, gate, source_of(records, x))
            ):
                return source_of(records, x), {"kind": "hard_swish"}
    if cls is Scale and fields.get("shift") is None and np.allclose(fields["scale"], 1 / 6, 1e-6):
        product = record_at(records, positions[0], Mul)
        if product is not None:
            for x, gate in (product.inputs, product.inputs[::-1]):
                if _is_relu6_of_3_more(records, gate, x):
                    return x, {"kind": "hard_swish"}
    if cls is Activation and (fields["kind"], fields.get("alpha"), fields.get("beta")) == ("clip", 0.0, 1.0):
        found = _half_around_0(records, positions[0])
        if found is not None:
            return found[0], {"kind": "hard_sigmoid", "alpha": found[1], "beta": 0.5}
    return None


def _half_around_0(records: list[Layer], position: int) -> tuple[int, float] | None:
    """(position of y, a) where this entry is a·y + 1/2 with one a > 0: clipped to (0, 1), a piecewise linear sigmoid
    and so a gate.
    """
    record = record_at(records, position, Scale)
    if record is None or record.shift is None or not np.all(record.shift == 0.5):
        return None
    before = record_at(records, source_of(records, position), Scale)
    if np.all(record.scale == 1) and before is not None and before.shift is None:
        record, position = before, source_of(records, position)
    slope = float(record.scale.flat[0])
    return (source_of(records, position), slope) if slope > 0 and np.ptp(record.scale) == 0 else None


def _scales(record: Scale, by: float) -> bool:
    return record.shift is None and np.allclose(record.scale, by, 1e-6)


def _is_relu6_of_3_more(records: list[Layer], position: int, x: int) -> bool:
    """Whether this entry is clip(x + 3, 0, 6)."""
    clip = record_at(records, position, Activation)
    if clip is None or (clip.kind, clip.alpha, clip.beta) != ("clip", 0.0, 6.0):
        return False
    shift = record_at(records, source_of(records, position), Scale)
    if shift is None or shift.shift is None or not (np.all(shift.scale == 1) and np.all(shift.shift == 3)):
        return False
    return source_of(records, source_of(records, position)) == x


def _sigmoid_of(records: list[Layer], position: int, x: int) -> float | None:
    """The a > 0 of which this entry is sigmoid(a·x)."""
    gate = record_at(records, position, Activation)
    if gate is None or gate.kind != "sigmoid":
        return None
    position = source_of(records, position)
    scale = record_at(records, position, Scale)
    if position == x:
        return 1.0
    if scale is None or scale.shift is not None or source_of(records, position) != x or np.ptp(scale.scale) > 0:
        return None
    slope = float(scale.scale.flat[0])
    return slope if slope > 0 else None


def _is_tanh_of_softplus(records: list[Layer], position: int, x: int) -> bool:
    """Whether this entry is tanh(log(1 + eˣ))."""
    for kind in ("tanh", "softplus"):
        record = record_at(records, position, Activation)
        if record is None or record.kind != kind or (kind == "softplus" and record.alpha != 1):
            return False
        position = source_of(records, position)
    return position == x
