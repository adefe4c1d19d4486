"""Masks of the sample: tensors of 0 and 1 that the module is called with, compared, turned round, and filled in."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ... import layers as L
from .. import masks
from ..algebra import of_sample, total
from ..masks import added, both, filled, turned_round
from ..records import Refused, Value
from .call import Array, Call, Records
from .turned import PERMUTES, VIEWS, Turned

COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, name) for name in ("eq", "ne", "gt", "ge", "lt", "le")
}
JOINED = ("__and__", "bitwise_and", "logical_and")
TURNED_ROUND = ("logical_not", "bitwise_not")
OF_MASKS = (*COMPARED, *JOINED, *TURNED_ROUND)
"""Operators that only masks have a record for."""
MOVED = (*PERMUTES, *VIEWS, "_to_copy", "to", "clone", "detach", "alias", "contiguous", "expand", "slice", "select")
"""Operators whose results are 0 and 1 where their operand's are."""


def is_mask(x: Any) -> bool:
    return isinstance(x, Value) and (x.truth or x.hides)


def carried(x: Any) -> Value | None:
    """The mask that an operand is, or is turned."""
    value: Any = x.value if isinstance(x, Turned) else x
    return value if is_mask(value) else None


def moved_mask(records: Records, call: Call, make: Callable[[str, Call], Any]) -> Any:
    """A mask, moved as numbers are; as floats it is one of numbers."""
    x, mask = call.get("self"), carried(call.get("self"))
    assert mask is not None
    plain = replace(mask, truth=False, hides=False)
    arguments = call.arguments | {"self": replace(x, value=plain) if isinstance(x, Turned) else plain}
    result = make(call.name, Call(call.name, arguments, call.shape, call.users, call.target, call.dtype))
    value: Any = result.value if isinstance(result, Turned) else result
    value = replace(value, truth=mask.truth and not call.dtype.is_floating_point, hides=mask.hides)
    records.layers.masks.add(value.position)
    return replace(result, value=value) if isinstance(result, Turned) else value


def truth(records: Records, call: Call) -> Value | None:
    """What an operator makes of a mask; None where it takes it for numbers."""
    x = call.get("self")
    if call.name in COMPARED and is_mask(x) and not isinstance(call.other, Value):
        outcome = [bool(COMPARED[call.name](v, float(call.other))) for v in (0, 1)]
        if outcome[0] == outcome[1]:
            raise Refused("it compares a mask of 0 and 1 with another number")
        return x if outcome[1] else turned_round(records.add, x)
    if call.name in TURNED_ROUND:
        if "bool" not in str(call.dtype):
            raise Refused("it turns the bits of integers round; give the mask as booleans")
        return turned_round(records.add, call.x())
    if call.name == "rsub" and not call.dtype.is_floating_point and call.other == 1 and call.get("alpha", 1) == 1:
        return turned_round(records.add, call.x())
    if call.name in JOINED or (call.name == "mul" and all(v.truth for v in call.values()) and _joins(records, call)):
        return _both(records, call)
    if call.name == "index_put" and isinstance(x, Value) and len(call.indices) == 1 and not call.accumulate:
        return _put(records, call)
    if call.name == "index" and is_mask(x):
        return _of_batch(records, call)
    if call.name == "masked_fill" and is_mask(call.mask):
        return _filled(records, call.mask, records.array(call.value, "value"), x, where=1)
    if call.name == "where" and is_mask(call.condition):
        if isinstance(x, Value) and isinstance(call.other, Value):
            parts = ((x, 0), (call.other, 1))  # each 0 where the other is taken
            return total(records.add, *(_filled(records, call.condition, np.zeros(1), v, where=i) for v, i in parts))
        if isinstance(x, Value):
            return _filled(records, call.condition, _number(records, call.other), x, where=0)
        return _filled(records, call.condition, _number(records, x), call.other, where=1)
    return None


def _number(records: Records, value: Any) -> Array:
    return np.asarray(records.array(value, "constant operand"), np.float64)


def _joins(records: Records, call: Call) -> bool:
    """Whether a product is a mask too: its other factor is one, or holds nothing but 0 and 1."""
    fixed = [f for f in (call.get("self"), call.other) if not isinstance(f, Value)]
    return not call.dtype.is_floating_point and all(np.isin(_number(records, f), (0, 1)).all() for f in fixed)


def _put(records: Records, call: Call) -> Value:
    """x[mask] = a number, or numbers along the axes that the mask lacks."""
    x, (mask,), number = call.x(), call.indices, _number(records, call.get("values"))
    more = len(x.shape) - len(mask.shape)
    if number.ndim > more:
        raise Refused("it puts other numbers in for every element that the mask chooses")
    return _filled(records, mask.under(mask.shape + (1,) * more), number, x, where=1)


def _filled(records: Records, mask: Value, number: Array, x: Any, *, where: int) -> Value:
    """x with numbers where the mask is `where`; of a constant x by the mask one of two constants."""
    if isinstance(x, Value):
        return filled(records.add, x, mask, of_sample(number, len(x.shape), records.n_batch), where=where)
    pair = [of_sample(_number(records, value), len(mask.shape), records.n_batch) for value in (x, number)]
    return masks.chosen(records.add, mask, pair[where], pair[1 - where])


def _both(records: Records, call: Call) -> Value:
    pair = [call.get("self"), call.other]
    if all(isinstance(m, Value) for m in pair):
        return both(records.add, pair[0], pair[1], call.shape)
    mask, fixed = pair if isinstance(pair[0], Value) else pair[::-1]
    table = of_sample(np.asarray(records.array(fixed, "mask"), np.float64), len(mask.shape), records.n_batch)
    return both(records.add, mask, table, call.shape)


def hidden(records: Records, call: Call, pair: list[Any]) -> Value | None:
    """The sum of two, where one is a mask written as 0 and −∞ and the other scores, or another such mask; else None."""
    masks_of = [m for m in pair if isinstance(m, Value) and m.hides]
    if not masks_of:
        return None
    mask = masks_of[-1]
    x = pair[0] if mask is pair[1] else pair[1]
    if isinstance(x, Value):
        return added(records.add, x, mask)
    table = of_sample(_number(records, x), len(mask.shape), records.n_batch)
    if not (np.isneginf(table) | (table == 0)).all():
        raise Refused("it adds numbers to a mask of 0 and −∞; add them to the scores first")
    return masks.hiding(both(records.add, replace(mask, hides=False), table == 0, call.shape))


def _of_batch(records: Records, call: Call) -> Value:
    """mask[samples, places], the samples in their order: places of the mask's one axis in any shape."""
    x, indices = call.x(), [i for i in call.indices if i is not None]
    if len(x.shape) == 1 and len(indices) == len(call.indices) == 2 and not any(isinstance(i, Value) for i in indices):
        full = (records.n_batch, *call.shape)
        samples, places = (np.broadcast_to(records.array(i, "indices").astype(np.int64), full) for i in indices)
        order = np.arange(records.n_batch).reshape(-1, *(1,) * len(call.shape))
        if (samples == order).all() and (places == places[:1]).all():
            chosen = places[0].ravel() % x.shape[0]
            if not np.array_equal(chosen, np.arange(x.shape[0])):
                x = records.add(L.Gather, x, indices=chosen, axis=1)
            return replace(x, truth=True).under(call.shape)
    raise Refused("it takes other elements of a mask than a table of places, the same for all samples, in their order")
