"""Blocks on any shape, and the lists that the networks choose from."""

from __future__ import annotations

import dtdfast as dtd
from dtdfast.activations import ACTIVATIONS
from graphs.along import ALONG, batch_norm, scale
from graphs.builder import bind
from graphs.spatial import (
    avg_pool,
    conv,
    conv_transpose,
    flatten,
    global_avg_pool,
    lrn,
    max_pool,
    pad,
    permute,
    resample,
    shuffle,
    sum_pool,
    upsample,
)
from graphs.tokens import TOKENS


def relu(b, p):
    return b.put(bind(dtd.ReLU), p, b.shape(p), moves=True)


def activation(b, p):
    kind = str(b.rng.choice(list(ACTIVATIONS)))
    slopes = b.vector(b.shape(p) if b.rng.random() < 0.5 else b.shape(p)[0]) if kind == "prelu" else None
    return b.put(bind(dtd.Activation, kind, slopes=slopes), p, b.shape(p))


def dropout(b, p):
    return b.put(bind(dtd.Dropout), p, b.shape(p), moves=True)


def slices(b, p):
    shape = list(b.shape(p))
    axis = b.int(0, len(shape) - 1)
    start, step = b.int(0, shape[axis] - 1), b.int(1, 2)
    stop = b.int(start + 1, shape[axis])
    shape[axis] = len(range(start, stop, step))
    signed = axis + 1 if b.rng.random() < 0.5 else axis - len(shape)
    return b.put(bind(dtd.Slice, signed, start, stop if stop < b.shape(p)[axis] else None, step), p, shape, moves=True)


def _partner(b, p, fits):
    """An earlier entry of a fitting shape, or p itself."""
    choices = [q for q in range(b.first, len(b.layers)) if q not in b.inner and fits(b.shape(q))]
    return int(b.rng.choice(choices)) if choices else p


def concat(b, p):
    shape = b.shape(p)
    axis = b.int(0, len(shape) - 1)
    q = _partner(
        b, p, lambda s: len(s) == len(shape) and s[:axis] == shape[:axis] and s[axis + 1 :] == shape[axis + 1 :]
    )
    size = shape[axis] + b.shape(q)[axis]
    return b.put(bind(dtd.Concat, axis + 1), (p, q), (*shape[:axis], size, *shape[axis + 1 :]), ties=1, moves=True)


def add(b, p):
    q = _partner(b, p, lambda s: s == b.shape(p))
    return b.put(bind(dtd.Add), (p, q) if b.rng.random() < 0.8 else (p, q, p), b.shape(p))


def linear(b, p):
    (n_in,) = b.shape(p)
    n_out = int(b.rng.choice([1, 2, 3, 7, 16, 17]))
    return b.put(bind(dtd.Linear, b.weight(n_out, n_in, fan_in=n_in), b.bias(n_out)), p, (n_out,))


def reshape(b, p):
    (n,) = b.shape(p)
    c = int(b.rng.choice([g for g in range(1, n + 1) if n % g == 0]))
    return b.put(bind(dtd.Reshape, (c, -1)), p, (c, n // c), moves=True)


def residual(b, p):
    """A linear layer and what it read, added; the Add is its only reader."""
    c, *size = b.shape(p)
    if size:
        make = bind(dtd.Conv, b.weight(c, c, *[1] * len(size), fan_in=c), b.bias(c))
    else:
        make = bind(dtd.Linear, b.weight(c, c, fan_in=c), b.bias(c))
    branch = b.put(make, p, b.shape(p))
    if b.rng.random() < 0.4:
        branch = batch_norm(b, branch)
    return b.put(bind(dtd.Add), (branch, p) if b.rng.random() < 0.5 else (p, branch), b.shape(p))


def squeeze_excite(b, p):
    """A gate per channel, made by a sigmoid; the signal is made by something else."""
    p = relu(b, p)
    c, *size = b.shape(p)
    q = global_avg_pool(b, p) if size else p
    make = (
        bind(dtd.Conv, b.weight(c, c, *[1] * len(size), fan_in=c))
        if size
        else bind(dtd.Linear, b.weight(c, c, fan_in=c))
    )
    q = b.put(make, q, (c, *[1] * len(size)))
    q = b.put(bind(dtd.Activation, str(b.rng.choice(["sigmoid", "hard_sigmoid"]))), q, (c, *[1] * len(size)))
    return b.put(bind(dtd.Mul), (q, p) if b.rng.random() < 0.5 else (p, q), b.shape(p))


ANYWHERE = [
    relu,
    activation,
    dropout,
    batch_norm,
    scale,
    slices,
    concat,
    add,
    residual,
    squeeze_excite,
    *ALONG,
    *TOKENS,
]
FLAT = [linear, linear, linear, reshape, *ANYWHERE]
SPATIAL = [conv, conv, conv, conv, conv_transpose, conv_transpose, max_pool, max_pool, max_pool, avg_pool, sum_pool,
global_avg_pool,
           lrn, pad, upsample, resample, permute, shuffle, flatten, relu, *ANYWHERE]  # fmt: skip
