"""A list of records in NumPy, with derivatives carried forward: those of the function, or of what rules make of it.

Nothing here calls the package. Every entry carries its values (n, 1, *shape) and its derivatives by the m numbers of
the input (n, m, *shape), so that a linear record is one function for both. A local derivative is

    "gradient"  the function's own;
    "held"      that with softmax weights, a norm's 1/σ, gates and act(y)/y held constant (CP-LRP, rule 0);
    "taylor"    "held" but for the softmax's own derivative, and half of a product of two computed operands to each
                (AttnLRP, ε → 0),

so that input ⊙ derivative is the relevance where no rule but 0 is used.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.special import erf, expit

import dtdfast as dtd

MOVED = (dtd.Dropout, dtd.Flatten, dtd.Reshape, dtd.Permute, dtd.Slice, dtd.Gather, dtd.Expand)


class Flow(NamedTuple):
    """What an entry carries."""

    value: np.ndarray  # (n, 1, *shape)
    tangent: np.ndarray  # (n, m, *shape)
    weighs: bool = False  # made by a softmax, perhaps mixed since
    gates: bool = False  # made by an activation
    fixed: bool = False  # a Constant


def _silu(v, alpha=1.0):
    return v * expit(alpha * v)


ACTIVATIONS = {  # function, derivative
    "gelu": (
        lambda v: v * 0.5 * (1 + erf(v / np.sqrt(2))),
        lambda v: 0.5 * (1 + erf(v / np.sqrt(2))) + v * np.exp(-v * v / 2) / np.sqrt(2 * np.pi),
    ),
    "silu": (_silu, lambda v: expit(v) * (1 + v * (1 - expit(v)))),
    "tanh": (np.tanh, lambda v: 1 - np.tanh(v) ** 2),
    "sigmoid": (expit, lambda v: expit(v) * (1 - expit(v))),
}


def _gelu_tanh(v):
    return 0.5 * v * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v**3)))


def _gelu_tanh_derivative(v):
    t = np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v**3))
    return 0.5 * (1 + t) + 0.5 * v * (1 - t * t) * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * v * v)


ACTIVATIONS["gelu_tanh"] = _gelu_tanh, _gelu_tanh_derivative


def flow(layers, x, mode):
    """What the last entry carries; x of numbers, or of words whose vectors are the input then."""
    flows = {}
    for position, record in enumerate(layers):
        operands = record.inputs if record.inputs is not None else (position - 1,) if record.arity != 0 else ()
        read = [
            _input(x) if p == dtd.INPUT and not isinstance(record, dtd.Embedding) else flows.get(p) for p in operands
        ]
        flows[position] = _embedded(record, x) if isinstance(record, dtd.Embedding) else _apply(record, read, mode)
    return flows[len(layers) - 1]


def relevance(layers, x, start, mode):
    """Input ⊙ Σ start/output · derivative; of words the sum over each vector."""
    found = flow(layers, x, mode)
    c = _summed(found.tangent, start / found.value[:, 0])
    if x.dtype.kind == "i":
        first = next(record for record in layers if isinstance(record, dtd.Embedding))
        vectors = np.asarray(first.weight, np.float64)[x]
        return (vectors * c.reshape(vectors.shape)).sum(axis=-1)
    return x * c.reshape(x.shape)


def derivative(layers, x, start, mode):
    """Σ start · derivative; of words by the numbers of their vectors."""
    c = _summed(flow(layers, x, mode).tangent, start)
    return c if x.dtype.kind == "i" else c.reshape(x.shape)


def _summed(tangent, start):
    """Σ start · tangent over the outputs: (n, m)."""
    return (tangent * start[:, None]).reshape(*tangent.shape[:2], -1).sum(axis=-1)


def predict(layers, x):
    return flow(layers, x, "gradient").value[:, 0]


# ---------------------------------------------------------------------------------------------------------------- parts


def _input(x):
    size = x[0].size
    return Flow(
        x[:, None].astype(np.float64),
        np.broadcast_to(np.eye(size).reshape(1, size, *x.shape[1:]), (len(x), size, *x.shape[1:])),
    )


def _embedded(record, x):
    return _input(np.asarray(record.weight, np.float64)[x])


def _place(axis, v):
    """An axis, the batch counted, from the end of an array (n, m, *shape)."""
    return axis if axis < 0 else axis - (v.ndim - 1)


def _axes(record, v):
    """A record's axes from the end of an array, in order."""
    return tuple(sorted(_place(a, v) for a in np.atleast_1d(record.axes).tolist()))


def _linear(record, v):
    axis = _place(record.axis, v)
    return np.moveaxis(np.moveaxis(v, axis, -1) @ np.asarray(record.weight, np.float64).T, -1, axis)


def _convolved(record, v):
    """A convolution of images without padding, tap by tap."""
    weight = np.asarray(record.weight, np.float64)
    (high, wide), (down, right) = weight.shape[2:], np.broadcast_to(record.stride, 2)
    rows, columns = (v.shape[-2] - high) // down + 1, (v.shape[-1] - wide) // right + 1
    taps = (
        np.einsum(
            "nmcyx,oc->nmoyx", v[..., k : k + down * rows : down, m : m + right * columns : right], weight[..., k, m]
        )
        for k, m in np.ndindex(high, wide)
    )
    return sum(taps)


def _along(values, ndim, axis):
    """A vector along an axis counted from the end."""
    return np.asarray(values, np.float64).reshape([-1 if a == ndim + axis else 1 for a in range(ndim)])


def _moved(record, v):
    if isinstance(record, dtd.Reshape):
        return v.reshape(*v.shape[:2], *record.shape)
    if isinstance(record, dtd.Flatten):
        return v.reshape(*v.shape[:2], -1)
    if isinstance(record, dtd.Permute):
        return v.transpose(0, 1, *(a + 1 for a in record.order[1:]))
    if isinstance(record, dtd.Expand):
        return np.broadcast_to(v, (*v.shape[:2], *record.shape))
    if isinstance(record, dtd.Gather):
        return v.take(np.asarray(record.indices), axis=_place(record.axis, v))
    if isinstance(record, dtd.Slice):
        index = [slice(None)] * v.ndim
        index[_place(record.axis, v)] = slice(record.start, record.stop, record.step)
        return v[tuple(index)]
    return v


def _affine(record, v):
    """Scale and shift, as arrays that broadcast against v."""
    parts = []
    for a in (record.scale, record.shift):
        a = np.asarray(0.0 if a is None else a, np.float64)
        parts.append(_along(a, v.ndim, 2 - v.ndim) if a.ndim == 1 else a)
    return parts


def _norm(record, v, t, mode):
    centred = not isinstance(record, dtd.RMSNorm)
    shape = v.shape
    if isinstance(record, (dtd.GroupNorm, dtd.InstanceNorm)):
        groups = getattr(record, "groups", shape[2])
        v, t = v.reshape(len(v), 1, groups, -1), t.reshape(*t.shape[:2], groups, -1)
        axes, each = (-1,), partial(_along, ndim=len(shape), axis=2 - len(shape))
    else:
        axes = _axes(record, v)
        sizes = [size if k - len(shape) in axes else 1 for k, size in enumerate(shape)]

        def each(a):
            return np.asarray(a, np.float64).reshape(sizes)

    def below(a):
        return a - a.mean(axis=axes, keepdims=True) if centred else a

    rho = 1 / np.sqrt((below(v) ** 2).mean(axis=axes, keepdims=True) + record.eps)
    hat, slope = below(v) * rho, below(t) * rho
    if mode == "gradient":
        slope = slope - hat * (hat * slope).mean(axis=axes, keepdims=True)
    weight = 1.0 if record.weight is None else each(record.weight)
    bias = 0.0 if getattr(record, "bias", None) is None else each(record.bias)
    return hat.reshape(shape) * weight + bias, slope.reshape(*t.shape[:2], *shape[2:]) * weight


def _softmax(record, v, t, mode):
    axis = _place(record.axis, v)
    kept = np.broadcast_to(True if record.mask is None else record.mask, v.shape)
    any_kept = kept.any(axis=axis, keepdims=True)
    each = np.where(
        kept, np.exp(np.where(kept, v - v.max(axis=axis, keepdims=True, where=kept, initial=-np.inf), 0)), 0
    )
    s = each / np.where(any_kept, each.sum(axis=axis, keepdims=True), 1)
    return s, s * (t - (s * t).sum(axis=axis, keepdims=True)) if mode != "held" else np.zeros(t.shape)


def _product(record, a, b, mode):
    turn = [lambda v, e=e: v.swapaxes(-1, -2) if e else v for e in (record.transpose_a, record.transpose_b)]
    va, ta, vb, tb = turn[0](a.value), turn[0](a.tangent), turn[1](b.value), turn[1](b.tangent)
    first, second = ta @ vb, va @ tb
    if mode == "held" and not (a.fixed or b.fixed):
        first, second = (first * (b.weighs and not a.weighs), second * (a.weighs and not b.weighs))
    part = 0.5 if mode == "taylor" and not (a.fixed or b.fixed) else 1.0
    return record.scale * (va @ vb), record.scale * part * (first + second)


def _times(record, a, b, mode):
    first, second = a.tangent * b.value, a.value * b.tangent
    shares = (1.0, 1.0)
    if mode != "gradient" and not (a.fixed or b.fixed):
        shares = (0.5, 0.5) if mode == "taylor" else (float(b.gates), float(a.gates))
        shares = shares if record.share is None else (record.share, 1 - record.share)
    return a.value * b.value, shares[0] * first + shares[1] * second


def _apply(record, read, mode):
    if isinstance(record, dtd.Constant):
        value = np.asarray(record.value, np.float64)[None, None]
        return Flow(value, np.zeros(value.shape), fixed=True)
    if isinstance(record, (dtd.Add, dtd.Mul, dtd.MatMul, dtd.Concat)):
        return _joined(record, read, mode)
    ((v, t, weighs, gates, fixed),) = read
    if isinstance(record, MOVED):
        return Flow(_moved(record, v), _moved(record, t), weighs, gates, fixed)
    if isinstance(record, dtd.Linear):
        bias = 0.0 if record.bias is None else _along(record.bias, v.ndim, _place(record.axis, v))
        return Flow(_linear(record, v) + bias, _linear(record, t), weighs)
    if isinstance(record, dtd.Conv):
        bias = 0.0 if record.bias is None else _along(record.bias, v.ndim, -3)
        return Flow(_convolved(record, v) + bias, _convolved(record, t))
    if isinstance(record, dtd.Scale):
        scale, shift = _affine(record, v)
        return Flow(v * scale + shift, t * scale, weighs, gates, fixed)
    if isinstance(record, dtd.Reduce):
        return Flow(*(getattr(np, record.kind)(a, axis=_axes(record, v), keepdims=record.keepdims) for a in (v, t)))
    if isinstance(record, dtd.ReLU):
        return Flow(np.maximum(v, 0), t * (v > 0))
    if isinstance(record, dtd.Activation):
        function, slope = ACTIVATIONS[record.kind]
        return Flow(function(v), t * (slope(v) if mode == "gradient" else function(v) / v), gates=True)
    if isinstance(record, dtd.Softmax):
        return Flow(*_softmax(record, v, t, mode), weighs=True, gates=True, fixed=fixed)
    return Flow(*_norm(record, v, t, mode))


def _aligned(v, rank):
    """With axes of size 1 before those of a sample."""
    return v.reshape(*v.shape[:2], *[1] * (rank - v.ndim), *v.shape[2:])


def _joined(record, read, mode):
    rank = max(f.value.ndim for f in read)
    read = [f._replace(value=_aligned(f.value, rank), tangent=_aligned(f.tangent, rank)) for f in read]
    if isinstance(record, dtd.MatMul):
        return Flow(*_product(record, *read, mode))
    if isinstance(record, dtd.Mul):
        return Flow(*_times(record, *read, mode))
    if isinstance(record, dtd.Add):
        return Flow(sum(f.value for f in read), sum(f.tangent for f in read))
    n, m = (max(f.tangent.shape[k] for f in read) for k in (0, 1))
    axis = _place(record.axis, read[0].value)
    values, tangents = (
        [np.broadcast_to(a, (n, count, *a.shape[2:])) for a in arrays]
        for arrays, count in (([f.value for f in read], 1), ([f.tangent for f in read], m))
    )
    return Flow(np.concatenate(values, axis), np.concatenate(tangents, axis))
