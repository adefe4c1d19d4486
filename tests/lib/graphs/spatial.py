"""Blocks on (channels, *space): each reads entry `p` and appends one or more records."""

from __future__ import annotations

import math

import numpy as np

import dtdfast as dtd
from graphs.along import batch_norm
from graphs.builder import bind


def conv(b, p):
    if b.rng.random() < 0.2:
        p = batch_norm(b, p)
    c, *size = b.shape(p)
    groups = int(b.rng.choice([g for g in range(1, c + 1) if c % g == 0]))
    c_out = groups * b.int(1, max(1, (33 if b.rng.random() < 0.2 else 8) // groups))
    padding = tuple(b.ints(0, (2, 2)) if b.rng.random() < 0.5 else (0, 0) for _ in size)
    room = [h + sum(pad) for h, pad in zip(size, padding, strict=True)]
    kernel = b.ints(1, [min(3, r) for r in room])
    dilation = tuple(b.int(1, 2) if 2 * (k - 1) < r else 1 for k, r in zip(kernel, room, strict=True))
    stride = b.ints(1, [2] * len(size))
    out = [(r - d * (k - 1) - 1) // s + 1 for r, d, k, s in zip(room, dilation, kernel, stride, strict=True)]
    weight = b.weight(c_out, c // groups, *kernel, fan_in=c // groups * math.prod(kernel))
    make = bind(dtd.Conv, weight, b.bias(c_out), stride=stride, padding=padding, dilation=dilation, groups=groups)
    alone = any(
        max(pads) > d * (k - 1) for pads, d, k in zip(padding, dilation, kernel, strict=True)
    )  # some outputs are the bias
    return b.put(make, p, (c_out, *out), ties=int(alone))


def conv_transpose(b, p):
    c, *size = b.shape(p)
    groups = int(b.rng.choice([g for g in range(1, c + 1) if c % g == 0]))
    per_group = b.int(1, max(1, 4 // groups))
    kernel, stride, dilation = b.ints(1, [3] * len(size)), b.ints(1, [2] * len(size)), b.ints(1, [2] * len(size))
    extra = tuple(b.int(0, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True))
    full = [
        (h - 1) * s + d * (k - 1) + 1 + e for h, s, d, k, e in zip(size, stride, dilation, kernel, extra, strict=True)
    ]
    padding = tuple((b.int(0, 1), b.int(0, 1)) if f > 3 else (0, 0) for f in full)
    out = [f - sum(pad) for f, pad in zip(full, padding, strict=True)]
    weight = b.weight(c, per_group, *kernel, fan_in=c // groups * math.prod(kernel))
    make = bind(dtd.ConvTranspose, weight, b.bias(per_group * groups), stride=stride, padding=padding,
    output_padding=extra,
                 dilation=dilation, groups=groups)  # fmt: skip
    return b.put(make, p, (per_group * groups, *out), ties=1)


def _pool(b, p, record, **kwargs):
    c, *size = b.shape(p)
    kernel = b.ints(1, [min(3, h) for h in size])
    stride = b.ints(1, [3] * len(size))
    padding = tuple((b.int(0, k - 1), b.int(0, k - 1)) for k in kernel)
    ceil_mode = bool(b.rng.random() < 0.5)
    out = []
    for h, k, s, (before, after) in zip(size, kernel, stride, padding, strict=True):
        length = (math.ceil if ceil_mode else math.floor)((h + before + after - k) / s) + 1
        out.append(length - 1 if ceil_mode and (length - 1) * s >= h + before else length)
    if math.prod(out) == 0:
        return p
    winners = record is dtd.MaxPool  # overlapping windows copy one winner
    return b.put(
        bind(record, kernel, stride=stride, padding=padding, ceil_mode=ceil_mode, **kwargs),
        p,
        (c, *out),
        int(winners),
        winners,
    )


def max_pool(b, p):
    return p if b.tied(p) == 2 else _pool(b, p, dtd.MaxPool)


def avg_pool(b, p):
    return _pool(b, p, dtd.AvgPool, count_include_pad=bool(b.rng.random() < 0.5))


def sum_pool(b, p):
    return _pool(b, p, dtd.SumPool)


def global_avg_pool(b, p):
    c, *size = b.shape(p)
    return b.put(bind(dtd.GlobalAvgPool), p, (c, *[1] * len(size)))


def lrn(b, p):
    return b.put(bind(dtd.LRN, b.int(1, 5), alpha=0.1), p, b.shape(p))


def pad(b, p):
    c, *size = b.shape(p)
    padding = tuple(b.ints(0, (2, 1)) for _ in size)
    value = float(b.rng.choice([0.0, 0.0, 0.5]))
    out = [h + sum(pads) for h, pads in zip(size, padding, strict=True)]
    return b.put(bind(dtd.Pad, padding, value=value), p, (c, *out), ties=1, moves=True)


def upsample(b, p):
    c, *size = b.shape(p)
    factor = b.ints(1, [2] * len(size))
    return b.put(
        bind(dtd.Upsample, factor), p, (c, *(h * f for h, f in zip(size, factor, strict=True))), ties=1, moves=True
    )


def permute(b, p):
    shape = b.shape(p)
    order = b.rng.permutation(len(shape))
    return b.put(bind(dtd.Permute, (0, *(int(a) + 1 for a in order))), p, [shape[a] for a in order], moves=True)


def shuffle(b, p):
    """ShuffleNet's: channels as (groups, c / groups), transposed."""
    c, *size = b.shape(p)
    groups = int(b.rng.choice([g for g in range(1, c + 1) if c % g == 0]))
    p = b.put(
        bind(dtd.Reshape, (groups, -1, *size) if len(size) < 4 else (c, *size)),
        p,
        (groups, c // groups, *size),
        moves=True,
    )
    p = b.put(bind(dtd.Permute, (0, 2, 1, *range(3, 3 + len(size)))), p, (c // groups, groups, *size), moves=True)
    return b.put(bind(dtd.Reshape, (c, *size)), p, (c, *size), moves=True)


def flatten(b, p):
    return b.put(bind(dtd.Flatten), p, (math.prod(b.shape(p)),), moves=True)


def resample(b, p):
    """Weights of one sign or both, zeros among them; sometimes the rule of averages, rows that add up to 1."""
    c, *size = b.shape(p)
    weights = []
    for n_in in size:
        weight = b.weight(b.int(1, 6), n_in, fan_in=n_in)
        weight = np.where(b.rng.random(weight.shape) < 0.3, np.float32(0), weight)
        weights.append(None if b.rng.random() < 0.3 else abs(weight) if b.rng.random() < 0.5 else weight)
    if all(w is None for w in weights):
        weights[0] = np.eye(size[0], dtype=np.float32)
    return b.put(
        bind(dtd.Resample, tuple(weights)),
        p,
        (c, *(h if w is None else len(w) for h, w in zip(size, weights, strict=True))),
    )
