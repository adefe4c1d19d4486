"""Blocks along one axis or some: fully connected layers, affine maps, reductions, picks, repeats and constants."""

from __future__ import annotations

import numpy as np

import dtdfast as dtd
from graphs.builder import bind


def batch_norm(b, p):
    n = b.shape(p)[0]
    weight = b.positive(n) * b.rng.choice([-1, 1], n, p=[0.25, 0.75])
    return b.put(bind(dtd.BatchNorm, b.vector(n), b.positive(n), weight, b.bias(n)), p, b.shape(p))


def scale(b, p):
    """Factors of both signs and, now and then, 0."""
    n = b.shape(p)[0]
    factor = b.positive(n) * b.rng.choice([-1.0, 0.0, 1.0], n, p=[0.3, 0.1, 0.6]).astype(np.float32)
    return b.put(bind(dtd.Scale, factor, b.bias(n)), p, b.shape(p), ties=1)


def along(b, p):
    """A fully connected layer along any axis, now and then added to what it read."""
    shape = b.shape(p)
    axis = b.int(0, len(shape) - 1)
    n_in = shape[axis]
    n_out = n_in if b.rng.random() < 0.4 else b.int(1, 7)
    signed = axis + 1 if b.rng.random() < 0.5 else axis - len(shape)
    q = b.put(
        bind(dtd.Linear, b.weight(n_out, n_in, fan_in=n_in), b.bias(n_out), axis=signed),
        p,
        (*shape[:axis], n_out, *shape[axis + 1 :]),
    )
    return b.put(bind(dtd.Add), (q, p), shape) if n_out == n_in else q


def reduce(b, p):
    shape = b.shape(p)
    axes = [a for a in range(len(shape)) if b.rng.random() < 0.5] or [len(shape) - 1]
    keepdims = len(axes) == len(shape) or bool(b.rng.random() < 0.5)
    kind = str(b.rng.choice(["mean", "sum"] if b.tied(p) == 2 else ["mean", "sum", "max"]))
    out = [1 if a in axes else s for a, s in enumerate(shape) if keepdims or a not in axes]
    signed = tuple(a + 1 if b.rng.random() < 0.5 else a - len(shape) for a in axes)
    return b.put(bind(dtd.Reduce, kind, signed, keepdims), p, out, moves=kind == "max")


def gather(b, p):
    """A flip, a roll, a permutation, any picks."""
    shape = b.shape(p)
    axis = b.int(0, len(shape) - 1)
    n = shape[axis]
    picks = [
        np.arange(n)[::-1],
        np.roll(np.arange(n), 1),
        b.rng.permutation(n),
        b.rng.integers(-n, n, b.int(1, min(2 * n, 40))),
    ][b.int(0, 3)]
    return b.put(
        bind(dtd.Gather, tuple(int(i) for i in picks), axis + 1),
        p,
        (*shape[:axis], len(picks), *shape[axis + 1 :]),
        1,
        True,
    )


def expand(b, p):
    """Axes of size 1, made of larger ones where there are none."""
    shape = b.shape(p)
    axes = [a for a in range(len(shape)) if b.rng.random() < 0.5]
    p = (
        b.put(
            bind(dtd.Reduce, "mean", tuple(a + 1 for a in axes), True),
            p,
            [1 if a in axes else s for a, s in enumerate(shape)],
        )
        if axes
        else p
    )
    out = [b.int(1, 4) if s == 1 else s for s in b.shape(p)]
    return b.put(bind(dtd.Expand, tuple(out)), p, out, ties=1, moves=True)


def _part(b, shape):
    """The shape of an array that broadcasts against a sample."""
    return tuple(s if b.rng.random() < 0.6 else 1 for s in shape)


def constant(b, p):
    """A Constant that is added, multiplied or put beside."""
    shape = b.shape(p)
    kind = b.int(0, 2)
    if kind == 2:
        axis = b.int(0, len(shape) - 1)
        own = (*shape[:axis], b.int(1, 2), *shape[axis + 1 :])
        q = b.put(bind(dtd.Constant, b.vector(own)), (), own)
        return b.put(
            bind(dtd.Concat, axis + 1), (p, q), (*shape[:axis], shape[axis] + own[axis], *shape[axis + 1 :]), moves=True
        )
    own = _part(b, shape)[b.int(0, len(shape) - 1) :]
    q = b.put(bind(dtd.Constant, b.vector(own)), (), own)
    return b.put(bind((dtd.Add, dtd.Mul)[kind]), (p, q) if b.rng.random() < 0.5 else (q, p), shape, ties=1)


def scale_along(b, p):
    """Scale and shift along any axes."""
    shape = b.shape(p)
    return b.put(
        bind(dtd.Scale, b.vector(_part(b, shape)), b.vector(_part(b, shape)) if b.rng.random() < 0.7 else None),
        p,
        shape,
    )


def broadcast(b, p):
    """A mean over some axes, added to what it is the mean of."""
    shape = b.shape(p)
    axes = tuple(a + 1 for a in range(len(shape)) if b.rng.random() < 0.5) or (1,)
    q = b.put(bind(dtd.Reduce, "mean", axes, True), p, [1 if a + 1 in axes else s for a, s in enumerate(shape)])
    return b.put(bind(dtd.Add), (p, q) if b.rng.random() < 0.5 else (q, p), shape)


ALONG = [along, along, reduce, gather, expand, constant, scale_along, broadcast]
