"""Activations that models write in several operations: known again while a layer list grows, whoever made the records."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..layers import Activation, Layer, Mul, Scale
from .rewrites import record_at, source_of


def written_out(records: list[Layer], cls: type[Layer], positions: list[int], fields: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
    """(position of y, fields of an Activation of y) where the entry about to be added makes just that of y."""
    if cls is Mul:
        for x, gate in (positions, positions[::-1]):
            if _is_tanh_of_softplus(records, gate, x):
                return x, {"kind": "mish"}
            sixth = record_at(records, x, Scale)
            if sixth is not None and _scales(sixth, 1 / 6) and _is_relu6_of_3_more(records, gate, source_of(records, x)):
                return source_of(records, x), {"kind": "hard_swish"}
    if cls is Scale and fields.get("shift") is None and np.allclose(fields["scale"], 1 / 6, 1e-6):
        product = record_at(records, positions[0], Mul)
        if product is not None:
            for x, gate in (product.inputs, product.inputs[::-1]):
                if _is_relu6_of_3_more(records, gate, x):
                    return x, {"kind": "hard_swish"}
    if cls is Activation and (fields["kind"], fields.get("alpha"), fields.get("beta")) == ("clip", 0.0, 1.0):
        affine = record_at(records, positions[0], Scale)
        if affine is not None and _is_half_around_0(affine):
            return source_of(records, positions[0]), {"kind": "hard_sigmoid", "alpha": float(affine.scale.flat[0]), "beta": 0.5}
    return None


def _is_half_around_0(record: Scale) -> bool:
    """Whether this is a·x + 1/2 with one a > 0: clipped to (0, 1), a piecewise linear sigmoid and so a gate."""
    one = bool(np.ptp(record.scale) == 0 and record.scale.flat[0] > 0)
    return one and record.shift is not None and bool(np.all(record.shift == 0.5))


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


def _is_tanh_of_softplus(records: list[Layer], position: int, x: int) -> bool:
    """Whether this entry is tanh(log(1 + eˣ))."""
    for kind in ("tanh", "softplus"):
        record = record_at(records, position, Activation)
        if record is None or record.kind != kind or (kind == "softplus" and record.alpha != 1):
            return False
        position = source_of(records, position)
    return position == x
