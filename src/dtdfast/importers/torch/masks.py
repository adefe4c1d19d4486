"""Masks of the sample: tensors of 0 and 1 that the module is called with, compared, turned round, and filled in."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ... import layers as L
from ..algebra import left_out, of_sample, scaled, total
from ..records import Refused, Value
from .call import Call, Records

LOWEST = -1e4
"""What is filled in has to be at most this to be added instead."""

COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, name) for name in ("eq", "ne", "gt", "ge", "lt", "le")
}
KEPT = ("_to_copy", "to", "clone", "detach", "alias", "contiguous", "expand", "slice", "unsqueeze", "squeeze")
"""Operators whose results are 0 and 1 where their operand's are."""


def truth(records: Records, call: Call) -> Value | None:
    """What an operator makes of a mask; None where it takes it for numbers."""
    x = call.get("self")
    if call.name in COMPARED and isinstance(x, Value) and not isinstance(call.other, Value):
        outcome = [bool(COMPARED[call.name](v, float(call.other))) for v in (0, 1)]
        if outcome[0] == outcome[1]:
            raise Refused("it compares a mask of 0 and 1 with another number")
        return x if outcome[1] else turned_round(records, x)
    if call.name in ("logical_not", "bitwise_not"):
        if "bool" not in str(call.dtype):
            raise Refused("it turns the bits of integers round; give the mask as booleans")
        return turned_round(records, call.x())
    if call.name == "rsub" and not call.dtype.is_floating_point and call.other == 1 and call.get("alpha", 1) == 1:
        return turned_round(records, call.x())
    if call.name in ("__and__", "bitwise_and", "logical_and"):
        return both(records, call)
    if call.name == "masked_fill" and isinstance(call.mask, Value):
        return filled(records, call.x(), call.mask, records.array(call.value, "value"))
    if call.name == "where" and isinstance(call.condition, Value):
        chosen, other = call.get("self"), call.other
        if isinstance(chosen, Value):
            return filled(records, chosen, turned_round(records, call.condition), records.array(other, "other"))
        return filled(records, call.x("other"), call.condition, records.array(chosen, "self"))
    return None


def turned_round(records: Records, mask: Value) -> Value:
    """1 − mask."""
    one = np.ones((1,) * len(mask.shape))
    return replace(records.add(L.Scale, mask, scale=-one, shift=one), truth=True)


def both(records: Records, call: Call) -> Value:
    """1 where two masks are, of which one may be the same for all samples."""
    pair = [call.get("self"), call.other]
    if all(isinstance(m, Value) for m in pair):
        return replace(records.add(L.Mul, *pair), truth=True)
    mask, fixed = pair if isinstance(pair[0], Value) else pair[::-1]
    table = of_sample(np.asarray(records.array(fixed, "mask"), np.float64), len(mask.shape), records.n_batch)
    full = np.broadcast_shapes(mask.shape, table.shape)
    whole = mask if mask.shape == full else records.add(L.Expand, mask, shape=full)
    return replace(records.add(L.Scale, whole, scale=np.broadcast_to(table != 0, full).astype(float)), truth=True)


def filled(records: Records, x: Value, mask: Value, number: Any) -> Value:
    """x with a low number where the mask is 1."""
    if number.size != 1 or not number.item() <= LOWEST:
        raise Refused(f"it fills in other numbers than −∞ or at most {LOWEST:g} where the mask is")
    if np.isneginf(number.item()):
        return left_out(x, turned_round(records, mask))
    mask = records.entry(mask.under((1,) * (len(x.shape) - len(mask.shape)) + mask.shape))
    return total(records.add, x, scaled(records.add, mask, float(number.item())))
