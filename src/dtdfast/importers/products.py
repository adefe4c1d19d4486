"""What importers make of products with constants, in index notation; `add` adds a record, and shapes are those of one
sample.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from .algebra import of_sample, permuted, reshaped, scaled, vector
from .attention import contraction
from .records import Add, Refused, Value

Array = NDArray[Any]


def contracted(add: Add, x: Value, of_x: str, weight: Array, of_weight: str, result: str) -> Value:
    """Σ x·weight over the letters that `result` lacks, one letter per axis of a sample; none stands twice in one
    operand.
    """
    for letters in (of_x, of_weight, result):
        if len(set(letters)) < len(letters):
            raise Refused("an index that stands twice in one operand has no record")
    sizes = dict(zip(of_x, x.shape, strict=True)) | dict(zip(of_weight, weight.shape, strict=True))
    alone = tuple(i + 1 for i, k in enumerate(of_x) if k not in of_weight + result)
    if alone:
        whole = len(alone) == len(of_x)
        x, of_x = (
            add(L.Reduce, x, kind="sum", axes=alone, keepdims=whole),
            "".join(k for k in of_x if k in of_weight + result),
        )
        x = reshaped(add, x, (1,)) if whole else x
    summed = "".join(k for k in of_x if k in of_weight and k not in result)
    shared = "".join(k for k in of_x if k in of_weight and k in result)
    kept = "".join(k for k in of_x if k not in of_weight)
    new = "".join(k for k in of_weight if k not in of_x)
    count = {
        name: math.prod(sizes[k] for k in letters)
        for name, letters in dict(summed=summed, shared=shared, new=new).items()
    }

    def arranged(array: Array, letters: str) -> Array:
        return array.transpose([of_weight.index(k) for k in letters])

    if not summed and not new:
        aligned = arranged(weight, shared).reshape([sizes[k] if k in shared else 1 for k in of_x])
        y = scaled(add, x, aligned)
        return permuted(add, y, [of_x.index(k) for k in result]) if of_x else y
    if not shared and len(summed) == 1 and len(new) == 1:  # in place
        x = add(L.Linear, x, weight=arranged(weight, new + summed), axis=of_x.index(summed) + 1)
        of_x = of_x.replace(summed, new)
    elif not shared:
        x = permuted(add, x, [of_x.index(k) for k in kept + summed])
        x = reshaped(add, x, (*(sizes[k] for k in kept), count["summed"]))
        x = add(L.Linear, x, weight=arranged(weight, new + summed).reshape(count["new"], count["summed"]), axis=-1)
        of_x = kept + new
        x = reshaped(add, x, tuple(sizes[k] for k in of_x) or (1,))
    else:  # one matrix for each value of the shared letters: a convolution of one element in as many groups
        x = permuted(add, x, [of_x.index(k) for k in shared + summed + kept])
        x = reshaped(add, x, (count["shared"] * count["summed"], math.prod(sizes[k] for k in kept)))
        kernel = arranged(weight, shared + new + summed).reshape(count["shared"] * count["new"], count["summed"], 1)
        x = add(L.Conv, x, weight=kernel, groups=count["shared"])
        of_x = shared + new + kept
        x = reshaped(add, x, tuple(sizes[k] for k in of_x))
    return permuted(add, x, [of_x.index(k) for k in result])


def terms(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The letters of every operand and of the result of an equation, an ellipsis replaced by letters of its own.

    Parameters
    ----------
    ranks : axes of the operands, the batch counted
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    operands = left.split(",")
    if len(operands) != len(ranks):
        raise Refused(f"equation {equation!r:.60} has {len(operands)} operands, but there are {len(ranks)}")
    letters = {c for c in left + right if c not in ".,"}
    if not all(c.isascii() and c.isalpha() for c in letters):
        raise Refused(f"equation is {equation!r:.60}")
    if not arrow:
        right = ("..." if "..." in left else "") + "".join(sorted(c for c in letters if left.count(c) == 1))
    spare = [c for c in string.ascii_uppercase + string.ascii_lowercase if c not in letters]
    widest = 0
    for i, (names, axes) in enumerate(zip(operands, ranks, strict=True)):
        hidden = axes - len(names.replace("...", "", 1))
        if hidden < 0 or ("..." not in names and hidden) or hidden > len(spare):
            raise Refused(f"operand {i} has {axes} axes, but equation {equation!r:.60} names others")
        operands[i] = names.replace("...", "".join(spare[:hidden][::-1]))  # aligned at the right
        widest = max(widest, hidden)
    return operands, right.replace("...", "".join(spare[:widest][::-1]))


def batch_first(
    equation: str, ranks: Sequence[int], places: dict[int, int], merged: int, leading: bool
) -> tuple[str, int]:
    """An equation of operands whose batch axis is not the first as one of operands where it is, and its place in the
    result.

    Parameters
    ----------
    places : of the batch axis, of every computed operand
    merged : how many axes are merged with it; each gets a letter of its own
    leading : whether these stand behind the batch axis, else where that was
    """
    named, result = terms(equation, ranks)
    (batch, *others) = {named[i][place] for i, place in places.items()}
    if others or any(named[i].count(batch) > 1 for i in places) or result.count(batch) != 1:
        raise Refused(f"the equation {equation!r:.60} does not keep the batch axis")
    free = [c for c in string.ascii_letters if c not in "".join([*named, result])]
    if merged > len(free) or (merged and any(batch in names for i, names in enumerate(named) if i not in places)):
        raise Refused(f"the equation {equation!r:.60} meets a constant along axes that are merged with the batch's")
    own = "".join(free[:merged])

    def first(names: str) -> str:
        place = names.index(batch)
        apart = names[:place] + own + names[place + 1 :] if not leading else own + names.replace(batch, "")
        return batch + apart

    operands = [first(names) if i in places else names for i, names in enumerate(named)]
    return f"{','.join(operands)}->{first(result)}", result.index(batch)


def einsum(add: Add, equation: str, operands: Sequence[Value | Array], n_batch: int) -> Value:
    """One operand is computed, and its first letter is the batch's; the others are constant. Two operands may be
    computed where there is no other.
    """
    at = [i for i, o in enumerate(operands) if isinstance(o, Value)]
    named, result = terms(equation, [len(o.shape) + isinstance(o, Value) for o in operands])
    if len(at) > 1:
        return _of_computed(add, equation, operands, named, result)
    x, of_x = operands[at[0]], named[at[0]]
    assert isinstance(x, Value)
    batch = of_x[:1]
    if not batch or batch in of_x[1:] or result[:1] != batch:
        raise Refused(f"the equation {equation!r:.60} does not keep the batch axis first")
    sizes, arrays, names = dict(zip(of_x[1:], x.shape, strict=True)), [], []
    for i, operand in enumerate(operands):
        if isinstance(operand, Value):
            continue
        array, letters = np.asarray(operand, np.float64), named[i]
        if batch in letters:
            array = of_sample(np.moveaxis(array, letters.index(batch), 0), array.ndim - 1, n_batch)
            letters = letters.replace(batch, "")
        stretched = tuple(
            j for j, (k, s) in enumerate(zip(letters, array.shape, strict=True)) if s == 1 and sizes.get(k, 1) > 1
        )
        array, letters = array.squeeze(stretched), "".join(k for j, k in enumerate(letters) if j not in stretched)
        if any(sizes.setdefault(k, s) != s for k, s in zip(letters, array.shape, strict=True)):
            raise Refused(
                f"a constant of shape {array.shape} does not fit its other factor (n, {', '.join(map(str, x.shape))})"
            )
        arrays.append(array)
        names.append(letters)
    if not set(result) <= set("".join(named)) or len(set(result)) < len(result):
        raise Refused(f"the equation {equation!r:.60} makes an axis that no operand has, or one twice")
    weight, of_weight = np.ones(()), ""
    if arrays:
        of_weight = "".join(k for k in dict.fromkeys("".join(names)) if k in of_x or k in result)
        weight = np.einsum(",".join(names) + "->" + of_weight, *arrays)
    return (
        contracted(add, vector(x), of_x[1:], weight, of_weight, result[1:])
        if x.shape
        else scaled(add, vector(x), weight)
    )


def _of_computed(add: Add, equation: str, operands: Sequence[Value | Array], named: list[str], result: str) -> Value:
    """Two operands, both computed, the batch first in both and in the result."""
    a, b, *others = operands
    if others or not isinstance(a, Value) or not isinstance(b, Value):
        raise Refused(f"the equation {equation!r:.60} has more than two operands; multiply two at a time")
    if not result or any(letters[:1] != result[0] or result[0] in letters[1:] for letters in named):
        raise Refused(f"the equation {equation!r:.60} does not keep the batch axis first")
    return contraction(add, vector(a), named[0][1:], vector(b), named[1][1:], result[1:])


def tensordot(
    add: Add, x: Value, weight: Array, of_x: Sequence[int], of_weight: Sequence[int], left: bool = False
) -> Value:
    """Sums over pairs of axes, those of x with the batch counted.

    Parameters
    ----------
    left : whether the axes of weight that stay come before those of x
    """
    letters = string.ascii_lowercase
    mine, other = letters[: len(x.shape) + 1], list(letters[len(x.shape) + 1 :][: weight.ndim])
    for i, j in zip(of_x, of_weight, strict=True):
        other[j] = mine[i]
    rest = [k for k in mine if k not in other], [k for k in other if k not in mine]
    result = "".join(rest[1] + rest[0] if left else rest[0] + rest[1])
    if result[:1] != mine[0]:
        raise Refused("the batch axis does not stay first")
    return contracted(add, x, mine[1:], weight, "".join(other), result[1:])


def of_matrices(constant: Array, x: Value, n_batch: int) -> Array:
    """A constant factor of x as one sample meets it; a vector or matrix has no batch axis."""
    return constant if constant.ndim <= 2 else of_sample(constant, max(len(x.shape), constant.ndim - 1), n_batch)


def product(add: Add, x: Value, weight: Array, left: bool = False) -> Value:
    """x @ weight, or with `left` weight @ x, by NumPy's rules; weight as one sample meets it."""
    rank = len(x.shape)
    if rank == 0 or (left and rank == 1):
        raise Refused("it sums over the batch, so that samples would be mixed")
    if weight.ndim == 1:
        axis = rank - 1 if left else rank
        y = add(L.Linear, x, weight=weight[None], axis=axis)
        shape = (*x.shape[: axis - 1], *x.shape[axis:])
        return reshaped(add, y, shape) if shape else y
    letters = "abcdefgh"[: max(rank, weight.ndim) - 2]
    of_x = letters[len(letters) - max(rank - 2, 0) :] + ("ij" if rank > 1 else "j")
    leads = [k for k, s in zip(letters[len(letters) - weight.ndim + 2 :], weight.shape[:-2], strict=True) if s > 1]
    weight = weight.reshape(*(s for s in weight.shape[:-2] if s > 1), *weight.shape[-2:])
    lead = "".join(leads)
    sizes = dict(zip(of_x, x.shape, strict=True))
    if any(sizes.get(k) != s for k, s in zip(lead, weight.shape, strict=False)):
        raise Refused(f"matrices of shape {weight.shape} do not meet (n, {', '.join(map(str, x.shape))}) one by one")
    if left:  # k i, i j → k j
        return contracted(add, x, of_x, weight, lead + "ki", of_x[:-2] + "kj")
    return contracted(add, x, of_x, weight, lead + "jk", of_x[:-1] + "k")
