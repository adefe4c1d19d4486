"""What importers make of products of two computed operands, and of attention; shapes are those of one sample."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from .algebra import hidden, left_out, permuted, reshaped, scaled, total
from .records import Add, Refused, Value

Array = NDArray[Any]


def _text(x: Value) -> str:
    return f"(n, {', '.join(map(str, x.shape))})"


def product(
    add: Add, a: Value, b: Value, *, transpose_a: bool = False, transpose_b: bool = False, scale: float = 1.0
) -> Value:
    """scale·a @ b over the last two axes, sample by sample."""
    if len(a.shape) != len(b.shape) or len(a.shape) < 2:
        raise Refused(
            f"its operands {_text(a)} and {_text(b)} are not multiplied sample by sample; give both the same number of "
            "axes, the batch first and a matrix last"
        )
    return add(L.MatMul, a, b, transpose_a=transpose_a, transpose_b=transpose_b, scale=scale)


def contraction(add: Add, a: Value, of_a: str, b: Value, of_b: str, result: str) -> Value:
    """Σ a·b over the letters that `result` lacks, one letter per axis of a sample; none stands twice in one operand."""
    for letters in (of_a, of_b, result):
        if len(set(letters)) < len(letters):
            raise Refused("an index that stands twice in one operand has no record")
    a, of_a = _summed(add, a, of_a, of_b + result)
    b, of_b = _summed(add, b, of_b, of_a + result)
    sizes = dict(zip(of_a, a.shape, strict=True))
    for k, size in zip(of_b, b.shape, strict=True):
        sizes[k] = max(size, sizes.get(k, 1))
    shared = [k for k in of_a if k in of_b and k in result]
    over = [k for k in of_a if k in of_b and k not in result]
    rows = [k for k in of_a if k not in of_b]
    columns = [k for k in of_b if k not in of_a]

    def matrix(x: Value, letters: str, *groups: list[str]) -> Value:
        """x with axes (shared, groups[0], groups[1])."""
        order = [*shared, *groups[0], *groups[1]]
        held = dict(zip(letters, x.shape, strict=True))
        if any(held[k] != sizes[k] for k in order):
            raise Refused("it repeats an axis of size 1 of a computed operand; expand that before")
        x = permuted(add, x, [letters.index(k) for k in order])
        return reshaped(add, x, (*(sizes[k] for k in shared), *(math.prod(sizes[k] for k in g) for g in groups)))

    y = add(L.MatMul, matrix(a, of_a, rows, over), matrix(b, of_b, over, columns))
    order = [*shared, *rows, *columns]
    y = reshaped(add, y, tuple(sizes[k] for k in order))
    return permuted(add, y, [order.index(k) for k in result]) if order else y


def _summed(add: Add, x: Value, letters: str, wanted: str) -> tuple[Value, str]:
    """x without the axes that nothing else names."""
    alone = tuple(i + 1 for i, k in enumerate(letters) if k not in wanted)
    if not alone:
        return x, letters
    if len(alone) == len(letters):
        raise Refused("it sums a computed operand up before it multiplies; write the sum as an operation of its own")
    return add(L.Reduce, x, kind="sum", axes=alone), "".join(k for k in letters if k in wanted)


def attention(
    add: Add,
    q: Value,
    k: Value,
    v: Value,
    *,
    mask: Array | Value | None = None,
    causal: bool = False,
    scale: float | None = None,
    softcap: float = 0.0,
) -> Value:
    """softmax(scale·q kᵀ, masked) v over the last two axes; q may have several times the heads of k and v.

    Parameters
    ----------
    mask : of one sample: boolean, True where a score stays, or numbers that are added, of which −∞ hides a score; or
        computed numbers that are added
    causal : whether row i only sees columns up to i
    scale : by default 1/√(size of the last axis)
    softcap : if it is not 0, scores s become softcap·tanh(s/softcap) before they are masked
    """
    if len({len(x.shape) for x in (q, k, v)}) > 1 or len(q.shape) < 2:
        raise Refused(
            f"its operands {_text(q)}, {_text(k)} and {_text(v)} do not meet sample by sample; give all the same "
            "number of axes, the batch first and (tokens, size) last"
        )
    shape = (*q.shape[:-1], v.shape[-1])
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    full = (*q.shape[:-1], k.shape[-2])
    groups = 1
    if len(q.shape) > 2 and k.shape[-3] not in (1, q.shape[-3]):
        groups, rest = divmod(q.shape[-3], k.shape[-3])
        if rest:
            raise Refused(f"{q.shape[-3]} heads of queries do not divide into {k.shape[-3]} of keys")
        q, k, v = (_grouped(add, x, k.shape[-3]) for x in (q, k, v))
    scores = product(add, q, k, transpose_b=True, scale=scale)
    if softcap:
        scores = scaled(add, add(L.Activation, scaled(add, scores, 1 / softcap), kind="tanh"), softcap)
    if causal:
        scores = hidden(scores, np.tri(*full[-2:], dtype=bool))
    if isinstance(mask, Value) and (mask.truth or mask.hides):
        if groups > 1 and any(s > 1 for s in mask.shape[:-2]):
            raise Refused("a mask that differs from head to head meets heads that share keys")
        scores = left_out(scores, mask)
    elif isinstance(mask, Value):
        scores = total(add, scores, reshaped(add, mask, scores.shape) if groups > 1 else mask)
    elif mask is not None:
        if groups > 1 and mask.ndim > 2:
            mask = np.broadcast_to(mask, full).reshape(scores.shape)
        scores = hidden(scores, mask) if mask.dtype == bool else scaled(add, scores, 1.0, mask)
    return reshaped(add, product(add, add(L.Softmax, scores, axis=-1), v), shape)


def _grouped(add: Add, x: Value, heads: int) -> Value:
    """(…, heads·g, t, d) as (…, heads, g, t, d)."""
    return reshaped(add, x, (*x.shape[:-3], heads, x.shape[-3] // heads, *x.shape[-2:]))
