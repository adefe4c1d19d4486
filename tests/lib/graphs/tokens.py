"""Blocks of transformers on any shape: norms, attention over the last two axes, products of two computed operands."""

from __future__ import annotations

import math

import numpy as np

import dtdfast as dtd
from graphs.builder import bind


def _affine(b, sizes, keys):
    """Weight of both signs and, now and then, 0; bias; or neither."""
    arrays = {}
    if b.rng.random() < 0.7:
        arrays["weight"] = b.positive(sizes) * b.rng.choice([-1.0, 0.0, 1.0], sizes, p=[0.3, 0.05, 0.65]).astype("f4")
    if "bias" in keys and b.rng.random() < 0.7:
        arrays["bias"] = b.vector(sizes)
    return arrays


def _of(size):
    """How the values of so many elements tie behind a norm: two become ±1 up to rounding."""
    return 2 if size <= 2 else 0


def layer_norm(b, p):
    """A LayerNorm or an RMSNorm along some axes; eps keeps groups of one or two from being all cancellation."""
    shape = b.shape(p)
    axes = [a for a in range(len(shape)) if b.rng.random() < 0.5] or [len(shape) - 1]
    sizes = tuple(shape[a] for a in axes)
    signed = tuple(a + 1 if b.rng.random() < 0.5 else a - len(shape) for a in b.rng.permutation(axes).tolist())
    record, keys = (dtd.LayerNorm, ("weight", "bias")) if b.rng.random() < 0.6 else (dtd.RMSNorm, ("weight",))
    make = bind(record, signed if len(signed) > 1 else signed[0], eps=_eps(b), **_affine(b, sizes, keys))
    return b.put(make, p, shape, ties=_of(math.prod(sizes)))


def group_norm(b, p):
    """A GroupNorm, or an InstanceNorm where there are axes behind the channels."""
    c, *size = shape = b.shape(p)
    arrays = _affine(b, (c,), ("weight", "bias"))
    if size and b.rng.random() < 0.5:
        return b.put(bind(dtd.InstanceNorm, eps=_eps(b), **arrays), p, shape, ties=_of(math.prod(size)))
    groups = int(b.rng.choice([g for g in range(1, c + 1) if c % g == 0]))
    return b.put(bind(dtd.GroupNorm, groups, eps=_eps(b), **arrays), p, shape, ties=_of(math.prod(shape) // groups))


def _eps(b):
    return float(b.rng.choice([0.1, 0.5]))


def _mask(b, shape):
    """None, causal, of single keys, or any, rows without keys among them."""
    rows, keys = shape[-2:]
    return [
        None,
        None,
        np.tril(np.ones((rows, keys), bool)),
        b.rng.random(keys) < 0.7,
        b.rng.random(tuple(s if b.rng.random() < 0.7 else 1 for s in shape)) < 0.6,
    ][b.int(0, 4)]


def _projected(b, p, n_out):
    """A Linear along the last axis."""
    *before, n_in = b.shape(p)
    return b.put(bind(dtd.Linear, b.weight(n_out, n_in, fan_in=n_in), b.bias(n_out), axis=-1), p, (*before, n_out))


def _softmax(b, p, mask=None, axis=-1):
    """Of one element it is 1, and what a mask leaves out 0."""
    shape = b.shape(p)
    b.weighs = True
    return b.put(bind(dtd.Softmax, axis, mask=mask), p, shape, ties=int(mask is not None or shape[axis] == 1))


def _added(b, p):
    """Scores with tables added to them: of positions or of a mask, of all heads or of each one; scaled or bounded."""
    shape = b.shape(p)
    for _ in range(b.int(1, 2) if b.rng.random() < 0.5 else 0):
        own = tuple(s if b.rng.random() < 0.7 else 1 for s in shape)
        if b.rng.random() < 0.3:
            p = b.put(bind(dtd.Scale, b.positive(own), b.vector(own) if b.rng.random() < 0.5 else None), p, shape)
            continue
        if b.rng.random() < 0.1:
            p = b.put(bind(dtd.Activation, "tanh"), p, shape)
            continue
        table = b.vector(own) if b.rng.random() < 0.7 else np.where(b.rng.random(own) < 0.7, 0, -20).astype("f4")
        q = b.put(bind(dtd.Constant, table), (), own)
        p = b.put(bind(dtd.Add), (p, q) if b.rng.random() < 0.5 else (q, p), shape)
    return p


def _turned(b, p):
    """Its last two axes exchanged, and that the product exchanges them back; or as it is."""
    shape = b.shape(p)
    if b.rng.random() < 0.5:
        return p, False
    order = (*range(len(shape) - 1), len(shape), len(shape) - 1)
    return b.put(bind(dtd.Permute, order), p, (*shape[:-2], shape[-1], shape[-2]), moves=True), True


def matmul(b, first, second, shape, scale=1.0):
    """A product of operands that may lie the other way round."""
    (first, turn_a), (second, turn_b) = _turned(b, first), _turned(b, second)
    return b.put(bind(dtd.MatMul, turn_a, turn_b, scale), (first, second), shape)


def attention(b, p):
    """softmax(Q Kᵀ) V over the last two axes, heads mixed or the softmax on the right now and then; added to what it
    read.
    """
    shape = b.shape(p)
    if len(shape) == 1:
        p = b.put(bind(dtd.Reshape, (1, *shape)), p, (1, *shape), moves=True)
    *before, tokens, features = shape = b.shape(p)
    width = b.int(1, 4)
    q, k, v = (_projected(b, p, width) for _ in range(3))
    scores = (*before, tokens, tokens)
    weights = b.put(bind(dtd.MatMul, transpose_b=True, scale=width**-0.5), (q, k), scores)
    weights = _softmax(b, _added(b, weights), _mask(b, scores))
    if before and b.rng.random() < 0.2:
        heads = before[0]
        weights = b.put(bind(dtd.Linear, b.weight(heads, heads, fan_in=heads), axis=1), weights, scores)
    operands = (v, weights) if tokens == width and b.rng.random() < 0.5 else (weights, v)  # tokens as columns
    q = matmul(b, *operands, (*before, tokens, width), float(b.rng.choice([1.0, 1.0, -0.5])))
    b.attends.append(q)
    b.inner.update(range(v + 1, q))
    q = _projected(b, q, features)
    return b.put(bind(dtd.Add), (q, p), shape) if b.rng.random() < 0.7 else q


def alike(b, p):
    """A product of two computed operands, or a softmax that weighs nothing: only AttnLRP has a rule for them."""
    if not b.taylor:
        return attention(b, p)
    b.alike = b.weighs = True
    shape = b.shape(p)
    if len(shape) == 1 or b.rng.random() < 0.5:
        return _projected(b, _softmax(b, p, axis=-b.int(1, len(shape))), b.int(1, 4))
    *before, rows, _ = shape
    q, k = (_projected(b, p, 3) for _ in range(2))
    order = (*range(len(shape) - 1), len(shape), len(shape) - 1)
    return matmul(b, q, b.put(bind(dtd.Permute, order), k, (*before, 3, rows), moves=True), (*before, rows, rows))


def gate(b, p):
    """A linear signal and an activation or a softmax, or shares that the record states."""
    shape = b.shape(p)
    signal, g = (_projected(b, p, shape[-1]) for _ in range(2))
    share = float(b.rng.choice([0.0, 0.25, 0.5, 1.0])) if b.rng.random() < 0.3 else None
    if share is None and b.rng.random() < 0.2:
        g = _softmax(b, g)
        b.inner.add(g)
    elif share is None:
        kind = str(b.rng.choice(["silu", "gelu", "gelu_tanh", "tanh", "sigmoid", "softplus"]))
        g = b.put(bind(dtd.Activation, kind), g, shape)
    return b.put(bind(dtd.Mul, share), (signal, g) if b.rng.random() < 0.5 else (g, signal), shape)


TOKENS = [layer_norm, group_norm, attention, attention, alike, gate]
