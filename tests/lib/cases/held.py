"""Geometries whose weights are numbers of the sample: norms, and products with attention weights.

As in cases/geometries.py, but for the matrix, which is a function of one sample: worked out in loops over elements, and
over the whole input, of which the scores of an attention take nothing.
"""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np

import dtdfast as dtd
import explicit
from cases.geometries import Geometry, Network

# ---------------------------------------------------------------------------------------------------------------- norms


def norm_matrix(sample, groups, weight, bias, eps, centred):
    """y_j = b_j + Σ_i (δ_ij − κ) w_j/σ x_i within each group of elements; weight and bias of the sample's shape."""
    x = sample.astype(np.float64).ravel()
    matrix, valid = np.zeros((x.size, x.size)), np.eye(x.size, dtype=bool)
    for group in groups:
        mean = sum(x[i] for i in group) / len(group) if centred else 0.0
        sigma = math.sqrt(sum((x[i] - mean) ** 2 for i in group) / len(group) + eps)
        for j, i in itertools.product(group, group):
            matrix[j, i] = ((i == j) - (1 / len(group) if centred else 0)) * weight.flat[j] / sigma
            valid[j, i] |= centred
    return explicit.Taps(matrix, valid, bias.ravel(), sample.shape)


def _groups(shape, key):
    """Flat positions of elements with equal key(index)."""
    found = {}
    for flat, index in enumerate(np.ndindex(*shape)):
        found.setdefault(key(index), []).append(flat)
    return list(found.values())


def _arrays(rng, sizes, given):
    """Weight and bias of awkward numbers: of both signs, one of them 0 each; None where not given."""
    weight, bias = (rng.standard_normal(sizes).astype(np.float32) for _ in range(2))
    if weight.size >= 3:
        weight.flat[1], bias.flat[-1] = 0, 0
    return weight if "w" in given else None, bias if "b" in given else None


def _norm(make, sizes_of, groups_of, spread, given, centred, eps):
    """`sizes_of` a sample: those of weight and bias, which `spread` broadcasts against the sample."""

    def build(rng, x_shape):
        weight, bias = _arrays(rng, sizes_of(x_shape), given)
        full = [
            np.full(x_shape, absent) if a is None else np.broadcast_to(spread(a.astype(np.float64), x_shape), x_shape)
            for a, absent in ((weight, 1.0), (bias, 0.0))
        ]
        arrays = {key: a for key, a in (("weight", weight), ("bias", bias)) if a is not None}
        matrix = partial(norm_matrix, groups=groups_of(x_shape), weight=full[0], bias=full[1], eps=eps, centred=centred)
        return Network([make(eps=eps, **arrays)], matrix)

    return build, "b" in given


def along(record, axes, given="wb", eps=1e-3):
    """A LayerNorm or RMSNorm."""

    def places(shape):
        return sorted((a + len(shape) + 1 if a < 0 else a) - 1 for a in (axes if isinstance(axes, tuple) else (axes,)))

    def sizes_of(shape):
        return tuple(shape[a] for a in places(shape))

    def groups_of(shape):
        return _groups(shape, lambda index: tuple(v for a, v in enumerate(index) if a not in places(shape)))

    def spread(values, shape):
        return values.reshape([s if a in places(shape) else 1 for a, s in enumerate(shape)])

    centred = record is dtd.LayerNorm
    given = given if centred else given.replace("b", "")
    return _norm(partial(record, axes), sizes_of, groups_of, spread, given, centred, eps)


def by_channel(record, groups=None, given="wb", eps=1e-3):
    """A GroupNorm, or without groups an InstanceNorm."""

    def groups_of(shape):
        return _groups(shape, lambda index: index[0] // (shape[0] // (groups or shape[0])))

    def spread(values, shape):
        return values.reshape(-1, *[1] * (len(shape) - 1))

    make = partial(record, groups) if groups else record
    return _norm(make, lambda shape: shape[:1], groups_of, spread, given, True, eps)


# ------------------------------------------------------------------------------------------------------------- products


def softmax(scores, axis, mask=None):
    """exp(x)/Σ exp(x) of one sample over what the mask keeps, line by line; 0 where it keeps nothing. The batch axis
    counts.
    """
    axis -= axis > 0
    scores = np.asarray(scores, np.float64)
    kept = np.broadcast_to(True if mask is None else mask, scores.shape)
    result = np.zeros(scores.shape)
    lines = np.moveaxis(scores, axis, -1), np.moveaxis(kept, axis, -1), np.moveaxis(result, axis, -1)
    for index in np.ndindex(*lines[0].shape[:-1]):
        places = np.flatnonzero(lines[1][index])
        if places.size:
            values = lines[0][index][places]
            each = np.exp(values - values.max())
            lines[2][index][places] = each / each.sum()
    return result


def product_matrix(weights, values, size, *, left, exchanged, scale, first):
    """y = scale · A V (left) or scale · V A, over the last two axes; of the input, V begins at `first`. `exchanged`: A,
    V as they lie.  Heads of V that are 1 meet all of A's.
    """
    a = weights.swapaxes(-1, -2) if exchanged[0] else weights
    flat = np.arange(values.size).reshape(values.shape) + first
    v = flat.swapaxes(-1, -2) if exchanged[1] else flat
    rows, inner = a.shape[-2:] if left else (v.shape[-2], v.shape[-1])
    columns = v.shape[-1] if left else a.shape[-1]
    heads = np.broadcast_shapes(a.shape[:-2], v.shape[:-2])
    a, v = np.broadcast_to(a, (*heads, *a.shape[-2:])), np.broadcast_to(v, (*heads, *v.shape[-2:]))
    out = (*heads, rows, columns)
    matrix = np.zeros((math.prod(out), size))
    for j, (*h, row, column) in enumerate(np.ndindex(*out)):
        for k in range(inner):
            weight, i = (a[(*h, row, k)], v[(*h, k, column)]) if left else (a[(*h, k, column)], v[(*h, row, k)])
            matrix[j, i] = scale * weight
    return explicit.Taps(matrix, matrix != 0, np.zeros(len(matrix)), out)


def attention(
    heads, queries, keys, width, *, left=True, exchanged=(False, False), axis=-1, mask=None, added=None, mixing=False,
    scale=1.0, shared=False, moved=False,
):  # fmt: skip
    """Scores and values beside each other in the input; the softmax of the scores weighs the values.

    `added` to the scores, before the softmax; `mixing` over the heads, behind it; `shared`: one head of values.
    """
    a_shape = (queries, keys) if left else (keys, queries)
    a_shape = (*heads, *(a_shape[::-1] if exchanged[0] else a_shape))
    v_shape = (keys, width) if left else (width, keys)
    v_shape = (*([1] * len(heads) if shared else heads), *(v_shape[::-1] if exchanged[1] else v_shape))
    first, size = math.prod(a_shape), math.prod(a_shape) + math.prod(v_shape)

    def build(rng, x_shape):
        assert x_shape == (size,)
        layers = [dtd.Slice(1, 0, first, inputs=dtd.INPUT), dtd.Reshape(a_shape)]
        if added is not None:
            layers += [dtd.Constant(added), dtd.Add(inputs=(1, 2))]
        layers.append(dtd.Softmax(axis, mask=mask))
        mix = rng.standard_normal((heads[0], heads[0])).astype(np.float32) if mixing else None
        layers += [dtd.Linear(mix, axis=1)] if mixing else []
        layers += [dtd.Dropout(), dtd.Reshape((size - math.prod(v_shape),)), dtd.Reshape(a_shape)] if moved else []
        made = len(layers) - 1
        layers += [dtd.Slice(1, first, inputs=dtd.INPUT), dtd.Reshape(v_shape)]
        options = dict(zip(("transpose_a", "transpose_b"), exchanged if left else exchanged[::-1], strict=True))
        operands = (made, len(layers) - 1)
        layers.append(dtd.MatMul(inputs=operands if left else operands[::-1], scale=scale, **options))

        def matrix(sample):
            scores = sample[:first].astype(np.float64).reshape(a_shape) + (0 if added is None else added)
            weights = softmax(scores, axis, mask)
            if mixing:
                weights = np.einsum("gh,h...->g...", mix.astype(np.float64), weights)
            values = sample[first:].reshape(v_shape)
            return product_matrix(weights, values, size, left=left, exchanged=exchanged, scale=scale, first=first)

        return Network(layers, matrix)

    return (2, size), build, False


CAUSAL = np.tril(np.ones((5, 5), bool))
SOME = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]], bool)  # one row is masked wholly
PADDING = np.array([1, 1, 0, 1, 0], bool)
# which leaves the scores' own weights where it masks all; e⁻¹⁰²⁴ is 0 in float64 as well
FINITE = np.where(SOME, 0, np.float32(-1024)).astype(np.float32)
SLOPE = -0.5 * np.abs(np.subtract.outer(np.arange(4.0), np.arange(3.0)))  # a bias of positions

HELD = [
    Geometry(name, shape, *kind)
    for name, shape, kind in [
        ("layernorm-features", (2, 7), along(dtd.LayerNorm, -1)),
        ("layernorm-tokens", (2, 3, 5), along(dtd.LayerNorm, -1)),
        ("layernorm-plain", (2, 2, 6), along(dtd.LayerNorm, 2, "")),
        ("layernorm-bias-alone", (1, 4, 3), along(dtd.LayerNorm, -1, "b")),
        ("layernorm-two-axes", (2, 2, 3, 4), along(dtd.LayerNorm, (-2, -1))),
        ("layernorm-all-axes", (2, 3, 4), along(dtd.LayerNorm, (1, 2), "w")),
        ("layernorm-channels", (2, 5, 2, 3), along(dtd.LayerNorm, 1)),
        ("layernorm-outer-axes", (2, 3, 2, 4), along(dtd.LayerNorm, (3, 1))),
        ("layernorm-of-five", (1, 2, 1, 2, 2, 3), along(dtd.LayerNorm, -1)),
        ("layernorm-one-element", (2, 3, 1), along(dtd.LayerNorm, -1)),
        ("layernorm-two-elements", (3, 2), along(dtd.LayerNorm, -1)),
        ("layernorm-17", (1, 17), along(dtd.LayerNorm, 1, "w", eps=0.5)),
        ("rmsnorm-features", (2, 7), along(dtd.RMSNorm, -1)),
        ("rmsnorm-plain", (2, 3, 4), along(dtd.RMSNorm, -1, "")),
        ("rmsnorm-outer-axes", (2, 3, 2, 3), along(dtd.RMSNorm, (1, 3))),
        ("rmsnorm-one-element", (2, 3, 1), along(dtd.RMSNorm, -1)),
        ("groupnorm", (2, 6, 3), by_channel(dtd.GroupNorm, 2)),
        ("groupnorm-space", (1, 4, 3, 2), by_channel(dtd.GroupNorm, 2)),
        ("groupnorm-one-group", (2, 3, 4), by_channel(dtd.GroupNorm, 1, "w")),
        ("groupnorm-features", (2, 6), by_channel(dtd.GroupNorm, 3, "b")),
        ("groupnorm-volume", (1, 4, 2, 1, 3), by_channel(dtd.GroupNorm, 4)),
        ("instancenorm", (2, 3, 5), by_channel(dtd.InstanceNorm)),
        ("instancenorm-space", (1, 2, 3, 4), by_channel(dtd.InstanceNorm, given="")),
        ("instancenorm-volume", (1, 2, 2, 2, 3), by_channel(dtd.InstanceNorm)),
    ]
] + [
    Geometry(name, shape, build, has_bias)
    for name, (shape, build, has_bias) in {
        "attention": attention((2,), 4, 3, 5),
        "attention-one-head": attention((1,), 3, 3, 4),
        "attention-no-heads": attention((), 3, 5, 2),
        "attention-one-token": attention((2,), 1, 1, 3),
        "attention-one-query": attention((3,), 1, 5, 1),
        "attention-two-batch-axes": attention((2, 2), 2, 3, 2),
        "attention-causal": attention((2,), 5, 5, 3, mask=CAUSAL),
        "attention-masked-rows": attention((2,), 4, 3, 2, mask=SOME),
        "attention-masked-by-head": attention((2,), 4, 3, 2, mask=np.stack([SOME, ~SOME])),
        "attention-padding": attention((), 4, 5, 3, mask=PADDING),
        "attention-finite-mask": attention((2,), 4, 3, 2, added=FINITE),
        "attention-slope": attention((2,), 4, 3, 2, added=SLOPE),
        "attention-scaled": attention((2,), 3, 4, 2, scale=-0.25),
        "attention-transposed": attention((2,), 4, 3, 2, exchanged=(True, True), axis=2),
        "attention-keys-transposed": attention((), 4, 3, 2, exchanged=(True, False)),
        "attention-values-transposed": attention((2,), 4, 3, 2, exchanged=(False, True)),
        "attention-right": attention((2,), 4, 3, 2, left=False),
        "attention-right-transposed": attention((2,), 4, 3, 2, left=False, exchanged=(True, True), mask=SOME),
        "attention-right-keys-transposed": attention((), 3, 4, 5, left=False, exchanged=(True, False)),
        "attention-right-values-transposed": attention((), 3, 4, 5, left=False, exchanged=(False, True), axis=1),
        "attention-over-queries": attention((2,), 4, 3, 2, axis=2),
        "attention-talking-heads": attention((3,), 3, 4, 2, mixing=True),
        "attention-shared-values": attention((3,), 2, 3, 2, shared=True),
        "attention-moved": attention((2,), 3, 4, 2, moved=True),
    }.items()
]  # fmt: skip
