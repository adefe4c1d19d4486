"""Products of a computed value and a constant, summed over shared axes: matrix products from either side, and einsum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from .records import Add, Refused, Value

Array = NDArray[Any]


def contracted(add: Add, x: Value, constant: Array, labels: str, others: str, result: str) -> Value:
    """einsum of what is computed and a constant.

    Parameters
    ----------
    labels : one letter per axis of x, the batch first
    others : one per axis of the constant
    result : those of the result, the batch first; what is not in it is summed
    """
    every = (labels, others, result)
    if any(len(set(names)) < len(names) for names in every) or not set(result) <= set(labels + others):
        raise Refused(f"'{labels},{others}->{result}' names one axis twice, or one that no operand has")
    if labels[0] in others or result[:1] != labels[:1]:
        raise Refused(f"'{labels},{others}->{result}' would mix, move or remove the batch axis")
    sizes = dict(zip(labels[1:], x.shape, strict=True))
    if any(sizes.setdefault(k, s) != s for k, s in zip(others, constant.shape, strict=True)):
        raise Refused(f"a constant of shape {constant.shape} does not fit its other factor (n, {', '.join(map(str, x.shape))})")
    constant = constant.sum(tuple(i for i, k in enumerate(others) if k not in labels + result), dtype=constant.dtype)
    others = "".join(k for k in others if k in labels + result)
    x, labels = _summed(add, x, labels, others + result)
    kept = [k for k in labels if k in others and k in result]
    gone = [k for k in labels if k in others and k not in result]
    new = [k for k in others if k not in labels]
    if not gone and not new:
        aligned = constant.transpose([others.index(k) for k in kept]).reshape([sizes[k] if k in kept else 1 for k in labels[1:]])
        return _ordered(add, add(L.Scale, x, scale=per_axis(aligned, x.shape)), labels, result)
    free = [k for k in labels[1:] if k not in others]
    weight = constant.transpose([others.index(k) for k in (*kept, *new, *gone)])
    n_kept, n_new, n_gone = (math.prod(sizes[k] for k in names) for names in (kept, new, gone))
    if not kept and len(gone) == 1 and len(new) == 1:
        y = add(L.Linear, x, weight=weight, axis=labels.index(gone[0]))
        return _ordered(add, y, labels.replace(gone[0], new[0]), result)
    x = _ordered(add, x, labels, labels[0] + "".join((*kept, *gone, *free)))
    x = _shaped(add, x, (n_kept * n_gone, math.prod(sizes[k] for k in free)))
    # one group of channels per element of the axes that both have and keep
    y = add(L.Conv, x, weight=weight.reshape(n_kept * n_new, n_gone, 1), groups=n_kept)
    order = (*kept, *new, *free)
    y = _shaped(add, y, tuple(sizes[k] for k in order) or (1,))
    return _ordered(add, y, labels[0] + "".join(order), result) if order else Value(y.position, ())


def per_axis(constant: Array, shape: tuple[int, ...]) -> Array:
    """A constant that broadcasts against a sample, as Scale takes it: per channel (axis 1) where it varies along no other axis."""
    aligned = constant.reshape((1,) * (len(shape) - constant.ndim) + constant.shape)
    if all(s == 1 for s in aligned.shape[1:]):
        return np.broadcast_to(aligned.ravel(), (shape or (1,))[:1])
    return aligned


def einsum_labels(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """The labels of all operands and of the result of an equation, an ellipsis replaced by letters of its own."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    operands = left.split(",")
    if len(operands) != len(ranks):
        raise Refused(f"equation {equation!r:.60} has {len(operands)} operands, but there are {len(ranks)}")
    letters = {c for c in left + right if c not in ".,"}
    if not all(c.isascii() and c.isalpha() for c in letters):
        raise Refused(f"equation is {equation!r:.60}")
    if not arrow:
        right = ("..." if "..." in left else "") + "".join(sorted(c for c in letters if left.count(c) == 1))
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" if c not in letters]
    widest = 0
    for i, (names, rank) in enumerate(zip(operands, ranks, strict=True)):
        hidden = rank - len(names.replace("...", "", 1))
        if hidden < 0 or ("..." not in names and hidden) or hidden > len(spare):
            raise Refused(f"operand {i} has {rank} axes, but equation {equation!r:.60} names others")
        operands[i] = names.replace("...", "".join(spare[:hidden][::-1]))  # aligned at the right
        widest = max(widest, hidden)
    return operands, right.replace("...", "".join(spare[:widest][::-1]))


def _summed(add: Add, x: Value, labels: str, read: str) -> tuple[Value, str]:
    """Without the axes that nothing reads."""
    axes = tuple(i for i, k in enumerate(labels) if i and k not in read)
    if not axes:
        return x, labels
    whole = len(axes) == len(x.shape)
    y = add(L.Reduce, x, kind="sum", axes=axes, keepdims=whole)
    return Value(_shaped(add, y, (1,)).position, ()) if whole else y, "".join(k for i, k in enumerate(labels) if i not in axes)


def _shaped(add: Add, x: Value, shape: tuple[int, ...]) -> Value:
    return x if x.shape == shape else add(L.Reshape, x, shape=shape)


def _ordered(add: Add, x: Value, labels: str, result: str) -> Value:
    order = tuple(labels.index(k) for k in result)
    return x if order == tuple(range(len(order))) else add(L.Permute, x, order=order)
