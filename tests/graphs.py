"""Random valid networks: a hypothesis strategy over every record, wired into directed acyclic graphs.

Hypothesis draws what shrinks well (which blocks, what each reads); a seeded generator draws the sizes and the numbers.
A block reads one entry `p` and appends one or more records. Shapes are worked out here, not by the package.

`ties` follows equal values that are built in: 0 none, 1 copies (which tie exactly in any arithmetic), 2 sums over
copies, equal up to rounding only. In the last the winner of a MaxPool hangs on an executor's last bit, so no MaxPool
reads them.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from hypothesis import strategies as st

import dtdfast as dtd
from dtdfast.activations import ACTIVATIONS
from dtdfast.presets import PRESETS
from dtdfast.rules import CONVENTIONS
from rule_space import draw_rule, rule_classes

MAX_ELEMENTS = 1500  # of one tensor of one sample
WEIGHTED = (dtd.Linear, dtd.Conv, dtd.ConvTranspose)
POOLED = (dtd.AvgPool, dtd.SumPool, dtd.GlobalAvgPool, dtd.Resample)
AGES = [0, 0, 0, 0, 0, 1, 2, 3]  # how far back a block reads
SHARING = [cls for cls in rule_classes() if cls is not dtd.Pass]


class Graph:
    """A network, per entry the shape of one sample, an input, relevance on the outputs, and the options rules and
    domain.
    """

    def __init__(self, layers, shapes, x, start, options):
        self.layers, self.shapes, self.x, self.start, self.options = layers, shapes, x, start, options

    def __repr__(self):
        """Short enough to read when hypothesis reports it."""
        entries = [f"{type(r).__name__}{shape}<-{r.inputs}" for r, shape in zip(self.layers, self.shapes, strict=True)]
        return f"Graph({self.x.shape} {' | '.join(entries)}, {self.options})"

    def explain(self, backend, **options):
        return dtd.explain(self.layers, self.x, self.start, backend=backend, **self.options, **options)


class Builder:
    """A network under construction."""

    def __init__(self, rng, input_shape, ties=0, words=False):
        self.rng = rng
        self.first = 0 if words else dtd.INPUT  # the oldest tensor that blocks may read
        self.layers, self.shapes, self.ties = [], [], []
        self.input_shape, self.input_ties = input_shape, ties

    def shape(self, p):
        return self.input_shape if p == dtd.INPUT else self.shapes[p]

    def tied(self, p):
        return self.input_ties if p == dtd.INPUT else self.ties[p]

    def put(self, make, p, shape, ties=0, moves=False):
        """Append make(inputs=...) with output `shape`; a record that `moves` only does not add. Returns the
        position.
        """
        sources = p if isinstance(p, tuple) else (p,)
        implicit = not sources or (sources == (len(self.layers) - 1,) and self.rng.random() < 0.5)
        self.layers.append(make(inputs=None if implicit else sources if len(sources) > 1 else sources[0]))
        self.shapes.append(tuple(int(s) for s in shape))
        inherited = max(map(self.tied, sources), default=0)
        self.ties.append(max(ties, inherited if moves or not inherited else 2))
        return len(self.layers) - 1

    def int(self, low, high):
        return int(self.rng.integers(low, high + 1))

    def ints(self, low, highs):
        return tuple(self.int(low, high) for high in highs)

    def weight(self, *shape, fan_in):
        return (self.rng.standard_normal(shape) / math.sqrt(fan_in)).astype(np.float32)

    def vector(self, n):
        return (0.3 * self.rng.standard_normal(n)).astype(np.float32)

    def bias(self, n):
        return self.vector(n) if self.rng.random() < 0.7 else None

    def positive(self, n):
        return self.rng.uniform(0.5, 1.5, n).astype(np.float32)


def _bind(record, *args, **kwargs):
    return lambda inputs: record(*args, inputs=inputs, **kwargs)


# ------------------------------------------------------------------------------------------------- blocks on (channels,
# *space)


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
    make = _bind(dtd.Conv, weight, b.bias(c_out), stride=stride, padding=padding, dilation=dilation, groups=groups)
    # some outputs are the bias
    alone = any(max(pads) > d * (k - 1) for pads, d, k in zip(padding, dilation, kernel, strict=True))
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
    make = _bind(dtd.ConvTranspose, weight, b.bias(per_group * groups), stride=stride, padding=padding,
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
        _bind(record, kernel, stride=stride, padding=padding, ceil_mode=ceil_mode, **kwargs),
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
    return b.put(_bind(dtd.GlobalAvgPool), p, (c, *[1] * len(size)))


def lrn(b, p):
    return b.put(_bind(dtd.LRN, b.int(1, 5), alpha=0.1), p, b.shape(p))


def pad(b, p):
    c, *size = b.shape(p)
    padding = tuple(b.ints(0, (2, 1)) for _ in size)
    value = float(b.rng.choice([0.0, 0.0, 0.5]))
    out = [h + sum(pads) for h, pads in zip(size, padding, strict=True)]
    return b.put(_bind(dtd.Pad, padding, value=value), p, (c, *out), ties=1, moves=True)


def upsample(b, p):
    c, *size = b.shape(p)
    factor = b.ints(1, [2] * len(size))
    return b.put(
        _bind(dtd.Upsample, factor), p, (c, *(h * f for h, f in zip(size, factor, strict=True))), ties=1, moves=True
    )


def permute(b, p):
    shape = b.shape(p)
    order = b.rng.permutation(len(shape))
    return b.put(_bind(dtd.Permute, (0, *(int(a) + 1 for a in order))), p, [shape[a] for a in order], moves=True)


def shuffle(b, p):
    """ShuffleNet's: channels as (groups, c / groups), transposed."""
    c, *size = b.shape(p)
    groups = int(b.rng.choice([g for g in range(1, c + 1) if c % g == 0]))
    p = b.put(
        _bind(dtd.Reshape, (groups, -1, *size) if len(size) < 4 else (c, *size)),
        p,
        (groups, c // groups, *size),
        moves=True,
    )
    p = b.put(_bind(dtd.Permute, (0, 2, 1, *range(3, 3 + len(size)))), p, (c // groups, groups, *size), moves=True)
    return b.put(_bind(dtd.Reshape, (c, *size)), p, (c, *size), moves=True)


def flatten(b, p):
    return b.put(_bind(dtd.Flatten), p, (math.prod(b.shape(p)),), moves=True)


def residual(b, p):
    """A linear layer and what it read, added; the Add is its only reader."""
    c, *size = b.shape(p)
    if size:
        make = _bind(dtd.Conv, b.weight(c, c, *[1] * len(size), fan_in=c), b.bias(c))
    else:
        make = _bind(dtd.Linear, b.weight(c, c, fan_in=c), b.bias(c))
    branch = b.put(make, p, b.shape(p))
    if b.rng.random() < 0.4:
        branch = batch_norm(b, branch)
    return b.put(_bind(dtd.Add), (branch, p) if b.rng.random() < 0.5 else (p, branch), b.shape(p))


def squeeze_excite(b, p):
    """A gate per channel, made by a sigmoid; the signal is made by something else."""
    p = relu(b, p)
    c, *size = b.shape(p)
    q = global_avg_pool(b, p) if size else p
    make = (
        _bind(dtd.Conv, b.weight(c, c, *[1] * len(size), fan_in=c))
        if size
        else _bind(dtd.Linear, b.weight(c, c, fan_in=c))
    )
    q = b.put(make, q, (c, *[1] * len(size)))
    q = b.put(_bind(dtd.Activation, str(b.rng.choice(["sigmoid", "hard_sigmoid"]))), q, (c, *[1] * len(size)))
    return b.put(_bind(dtd.Mul), (q, p) if b.rng.random() < 0.5 else (p, q), b.shape(p))


# ------------------------------------------------------------------------------------------------------- blocks on any
# shape


def relu(b, p):
    return b.put(_bind(dtd.ReLU), p, b.shape(p), moves=True)


def activation(b, p):
    kind = str(b.rng.choice(list(ACTIVATIONS)))
    slopes = b.vector(b.shape(p) if b.rng.random() < 0.5 else b.shape(p)[0]) if kind == "prelu" else None
    return b.put(_bind(dtd.Activation, kind, slopes=slopes), p, b.shape(p))


def dropout(b, p):
    return b.put(_bind(dtd.Dropout), p, b.shape(p), moves=True)


def batch_norm(b, p):
    n = b.shape(p)[0]
    weight = b.positive(n) * b.rng.choice([-1, 1], n, p=[0.25, 0.75])
    return b.put(_bind(dtd.BatchNorm, b.vector(n), b.positive(n), weight, b.bias(n)), p, b.shape(p))


def scale(b, p):
    """Factors of both signs and, now and then, 0."""
    n = b.shape(p)[0]
    factor = b.positive(n) * b.rng.choice([-1.0, 0.0, 1.0], n, p=[0.3, 0.1, 0.6]).astype(np.float32)
    return b.put(_bind(dtd.Scale, factor, b.bias(n)), p, b.shape(p), ties=1)


def slices(b, p):
    shape = list(b.shape(p))
    axis = b.int(0, len(shape) - 1)
    start, step = b.int(0, shape[axis] - 1), b.int(1, 2)
    stop = b.int(start + 1, shape[axis])
    shape[axis] = len(range(start, stop, step))
    signed = axis + 1 if b.rng.random() < 0.5 else axis - len(shape)
    return b.put(_bind(dtd.Slice, signed, start, stop if stop < b.shape(p)[axis] else None, step), p, shape, moves=True)


def _partner(b, p, fits):
    """An earlier entry of a fitting shape, or p itself."""
    choices = [q for q in range(b.first, len(b.layers)) if fits(b.shape(q))]
    return int(b.rng.choice(choices)) if choices else p


def concat(b, p):
    shape = b.shape(p)
    axis = b.int(0, len(shape) - 1)
    q = _partner(
        b, p, lambda s: len(s) == len(shape) and s[:axis] == shape[:axis] and s[axis + 1 :] == shape[axis + 1 :]
    )
    size = shape[axis] + b.shape(q)[axis]
    return b.put(_bind(dtd.Concat, axis + 1), (p, q), (*shape[:axis], size, *shape[axis + 1 :]), ties=1, moves=True)


def add(b, p):
    q = _partner(b, p, lambda s: s == b.shape(p))
    return b.put(_bind(dtd.Add), (p, q) if b.rng.random() < 0.8 else (p, q, p), b.shape(p))


def linear(b, p):
    (n_in,) = b.shape(p)
    n_out = int(b.rng.choice([1, 2, 3, 7, 16, 17]))
    return b.put(_bind(dtd.Linear, b.weight(n_out, n_in, fan_in=n_in), b.bias(n_out)), p, (n_out,))


def along(b, p):
    """A fully connected layer along any axis, now and then added to what it read."""
    shape = b.shape(p)
    axis = b.int(0, len(shape) - 1)
    n_in = shape[axis]
    n_out = n_in if b.rng.random() < 0.4 else b.int(1, 7)
    signed = axis + 1 if b.rng.random() < 0.5 else axis - len(shape)
    q = b.put(
        _bind(dtd.Linear, b.weight(n_out, n_in, fan_in=n_in), b.bias(n_out), axis=signed),
        p,
        (*shape[:axis], n_out, *shape[axis + 1 :]),
    )
    return b.put(_bind(dtd.Add), (q, p), shape) if n_out == n_in else q


def reduce(b, p):
    shape = b.shape(p)
    axes = [a for a in range(len(shape)) if b.rng.random() < 0.5] or [len(shape) - 1]
    keepdims = len(axes) == len(shape) or bool(b.rng.random() < 0.5)
    kind = str(b.rng.choice(["mean", "sum"] if b.tied(p) == 2 else ["mean", "sum", "max"]))
    out = [1 if a in axes else s for a, s in enumerate(shape) if keepdims or a not in axes]
    signed = tuple(a + 1 if b.rng.random() < 0.5 else a - len(shape) for a in axes)
    return b.put(_bind(dtd.Reduce, kind, signed, keepdims), p, out, moves=kind == "max")


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
        _bind(dtd.Gather, tuple(int(i) for i in picks), axis + 1),
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
            _bind(dtd.Reduce, "mean", tuple(a + 1 for a in axes), True),
            p,
            [1 if a in axes else s for a, s in enumerate(shape)],
        )
        if axes
        else p
    )
    out = [b.int(1, 4) if s == 1 else s for s in b.shape(p)]
    return b.put(_bind(dtd.Expand, tuple(out)), p, out, ties=1, moves=True)


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
        _bind(dtd.Resample, tuple(weights)),
        p,
        (c, *(h if w is None else len(w) for h, w in zip(size, weights, strict=True))),
    )


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
        q = b.put(_bind(dtd.Constant, b.vector(own)), (), own)
        return b.put(
            _bind(dtd.Concat, axis + 1),
            (p, q),
            (*shape[:axis], shape[axis] + own[axis], *shape[axis + 1 :]),
            moves=True,
        )
    own = _part(b, shape)[b.int(0, len(shape) - 1) :]
    q = b.put(_bind(dtd.Constant, b.vector(own)), (), own)
    return b.put(_bind((dtd.Add, dtd.Mul)[kind]), (p, q) if b.rng.random() < 0.5 else (q, p), shape, ties=1)


def scale_along(b, p):
    """Scale and shift along any axes."""
    shape = b.shape(p)
    return b.put(
        _bind(dtd.Scale, b.vector(_part(b, shape)), b.vector(_part(b, shape)) if b.rng.random() < 0.7 else None),
        p,
        shape,
    )


def broadcast(b, p):
    """A mean over some axes, added to what it is the mean of."""
    shape = b.shape(p)
    axes = tuple(a + 1 for a in range(len(shape)) if b.rng.random() < 0.5) or (1,)
    q = b.put(_bind(dtd.Reduce, "mean", axes, True), p, [1 if a + 1 in axes else s for a, s in enumerate(shape)])
    return b.put(_bind(dtd.Add), (p, q) if b.rng.random() < 0.5 else (q, p), shape)


def reshape(b, p):
    (n,) = b.shape(p)
    c = int(b.rng.choice([g for g in range(1, n + 1) if n % g == 0]))
    return b.put(_bind(dtd.Reshape, (c, -1)), p, (c, n // c), moves=True)


ALONG = [along, along, reduce, gather, expand, constant, scale_along, broadcast]
ANYWHERE = [relu, activation, dropout, batch_norm, scale, slices, concat, add, residual, squeeze_excite, *ALONG]
FLAT = [linear, linear, linear, reshape, *ANYWHERE]
SPATIAL = [conv, conv, conv, conv, conv_transpose, conv_transpose, max_pool, max_pool, max_pool, avg_pool, sum_pool,
    global_avg_pool,
           lrn, pad, upsample, resample, permute, shuffle, flatten, relu, *ANYWHERE]  # fmt: skip


def _input(draw, rng):
    """Input array, a Builder on it, and the domain."""
    n = draw(st.integers(1, 3))
    rank = draw(st.sampled_from([0, 1, 2, 2, 2, 3]))
    if rank == 1 and draw(st.booleans()):  # words
        length, features = (int(v) for v in rng.integers(2, 8, 2))
        words = rng.integers(0, 9, (n, length))
        b = Builder(rng, (length,), ties=1, words=True)
        p = b.put(
            _bind(dtd.Embedding, rng.standard_normal((9, features)).astype(np.float32)),
            dtd.INPUT,
            (length, features),
            moves=True,
        )
        b.put(_bind(dtd.Permute, (0, 2, 1)), p, (features, length), moves=True)
        return words, b, "real"
    shape = (int(rng.integers(1, 6)), *rng.integers(1, 8 if rank < 3 else 5, rank).tolist())
    x = rng.standard_normal((n, *shape)).astype(np.float32)
    domain = draw(st.sampled_from(["real", "nonnegative", (-2.5, 3.0)]))
    if domain == "nonnegative":
        x = abs(x)
    elif domain != "real":
        x = np.clip(x, *domain)
    b = Builder(rng, shape)
    if draw(st.integers(0, 5)) == 0:
        b.put(_bind(dtd.Preparation, b.vector(shape[0]), b.bias(shape[0])), dtd.INPUT, shape)
    return x, b, domain


def options(rng, b, domain):
    """The default, a preset, one rule for all, or rules of all kinds on some of the layers that take one; and a
    convention.
    """
    choice = rng.random()
    if choice < 0.2:
        rules = "dtd"
    elif choice < 0.5:
        boxed = isinstance(domain, tuple)
        rules = str(
            rng.choice([name for name, preset in PRESETS.items() if boxed or not isinstance(preset.first, dtd.ZBox)])
        )
    elif choice < 0.6:
        rules = draw_rule(rng, rng.choice(SHARING))
        if getattr(rules, "fallback", False) and any(
            isinstance(record, (dtd.Scale, dtd.BatchNorm)) for record in b.layers
        ):
            # an affine joined with its layer refuses it: tests/test_affines.py
            rules = dataclasses.replace(rules, fallback=False)
    else:
        rules = {
            p: rule
            for p, record in enumerate(b.layers)
            if rng.random() < 0.5 and (rule := _rule_of(rng, b, p, record)) is not None
        }
    return {"rules": rules, "domain": domain, "convention": str(rng.choice(list(CONVENTIONS)))}


def _rule_of(rng, b, p, record):
    if isinstance(record, dtd.Add):
        return draw_rule(rng, rng.choice([dtd.Pass, *SHARING]))
    if not isinstance(record, (*WEIGHTED, *POOLED)):
        return None
    source = p - 1 if record.inputs is None else record.inputs[0]
    before = b.layers[source] if source != dtd.INPUT else None
    moved = isinstance(before, (dtd.Pad, dtd.Dropout))  # which may fold, so that another shape is read
    return draw_rule(rng, rng.choice(SHARING), None if moved else b.shape(source))


@st.composite
def graphs(draw, max_blocks=10):
    """A valid network with its input, start relevance and options."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x, b, domain = _input(draw, rng)
    p = len(b.layers) - 1
    count = draw(st.sampled_from(range(1, max_blocks + 1)))
    for number, age in draw(
        st.lists(st.tuples(st.integers(0, 99), st.sampled_from(AGES)), min_size=count, max_size=count)
    ):
        source = max(p - age, b.first)  # reading an older entry gives it several readers, or leaves a dead branch
        if source != dtd.INPUT and isinstance(b.layers[source], dtd.Constant):
            source += 1  # nothing is to be learnt of constants alone
        blocks = FLAT if len(b.shape(source)) == 1 else SPATIAL
        if len(b.shape(source)) > 4 or math.prod(b.shape(source)) > MAX_ELEMENTS:
            blocks = (
                [slices, relu, reduce]
                if math.prod(b.shape(source)) > MAX_ELEMENTS
                else [slices, relu, add, scale, *ALONG]
            )
        before = len(b.layers)
        blocks[number % len(blocks)](b, source)
        if len(b.layers) == before:
            relu(b, source)
        p = len(b.layers) - 1
    if len(b.shape(p)) == 1 and draw(st.booleans()):
        p = b.put(_bind(dtd.Softmax), p, b.shape(p))
    sign = draw(st.sampled_from([abs, np.asarray]))
    start = sign(rng.standard_normal((len(x), *b.shape(p)))).astype(np.float32)
    return Graph(b.layers, b.shapes, x, start, options(rng, b, domain))
