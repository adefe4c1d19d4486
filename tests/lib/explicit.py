"""The oracle's oracle: one layer written out as a dense float64 matrix, tap by tap, and each rule as a formula on it.

Nothing here calls the package: shapes, padding, divisors and winners are worked out again from the layers' definitions,
in plain Python loops over output positions and taps. A rule becomes a list of terms (n, d, coefficient) with

    r_in[i] = sum_terms sum_j coefficient[j] * n[j, i] * r_out[j] / d[j]          (R / 0 := 0)

and `propagate` returns, next to r_in, a bound on the error of any algorithm that sums d and r_in in arithmetic of a
given tolerance.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


class Taps(NamedTuple):
    """y = matrix @ x + bias for one sample, both flattened; `valid` marks the taps that exist, whatever their
    weight.
    """

    matrix: Matrix  # (n_out, n_in)
    valid: NDArray[np.bool_]
    bias: Matrix  # (n_out,)
    out_shape: tuple[int, ...]


def _each(value, n):
    """An integer, or one per axis, as n integers."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * n


def _pairs(padding, n):
    """Padding as n pairs (before, after)."""
    return tuple(p if isinstance(p, (tuple, list)) else (p, p) for p in _each(padding, n))


def _bias(bias, channels, size):
    return np.zeros(channels * size) if bias is None else np.repeat(np.asarray(bias, float), size)


def linear(x_shape, weight, bias=None, axis=-1):
    """y[.., o, ..] = b[o] + sum_i w[o, i] x[.., i, ..] along an axis, the batch counted."""
    a = (axis + len(x_shape) + 1 if axis < 0 else axis) - 1
    before, n_in, after = x_shape[:a], x_shape[a], x_shape[a + 1 :]
    n_out = len(weight)
    assert weight.shape[1] == n_in
    matrix = np.zeros((*before, n_out, *after, *before, n_in, *after))
    valid = np.zeros(matrix.shape, bool)
    for p, q in itertools.product(np.ndindex(*before), np.ndindex(*after)):
        for o, i in np.ndindex(n_out, n_in):
            matrix[(*p, o, *q, *p, i, *q)] = weight[o, i]
            valid[(*p, o, *q, *p, i, *q)] = True
    out = (*before, n_out, *after)
    size = (math.prod(out), math.prod(x_shape))
    b = np.zeros(n_out) if bias is None else np.asarray(bias, float)
    spread = np.broadcast_to(b.reshape(-1, *[1] * len(after)), out).ravel()
    return Taps(matrix.reshape(size), valid.reshape(size), spread, out)


def conv(x_shape, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """y[o, q] = b[o] + sum_{i, k} w[o, i, k] x[i, q*stride + k*dilation - before]."""
    c_in, *size = x_shape
    c_out, c_tap, *kernel = weight.shape
    n = len(size)
    stride, dilation, padding = _each(stride, n), _each(dilation, n), _pairs(padding, n)
    out = [
        (h + a + b - d * (k - 1) - 1) // s + 1
        for h, (a, b), d, k, s in zip(size, padding, dilation, kernel, stride, strict=True)
    ]
    matrix = np.zeros((c_out, *out, c_in, *size))
    valid = np.zeros(matrix.shape, bool)
    per_group = c_out // groups
    for q in np.ndindex(*out):
        for k in np.ndindex(*kernel):
            p = tuple(qa * s + ka * d - a for qa, s, ka, d, (a, _) in zip(q, stride, k, dilation, padding, strict=True))
            if all(0 <= pa < h for pa, h in zip(p, size, strict=True)):
                for o in range(c_out):
                    first = (o // per_group) * c_tap
                    for i in range(c_tap):
                        matrix[(o, *q, first + i, *p)] = weight[(o, i, *k)]
                        valid[(o, *q, first + i, *p)] = True
    n_out, n_in = c_out * math.prod(out), c_in * math.prod(size)
    return Taps(
        matrix.reshape(n_out, n_in), valid.reshape(n_out, n_in), _bias(bias, c_out, math.prod(out)), (c_out, *out)
    )


def conv_transpose(x_shape, weight, bias=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    """y[o, p*stride + k*dilation - before] += w[i, o, k] x[i, p]."""
    c_in, *size = x_shape
    _, per_group, *kernel = weight.shape
    n = len(size)
    stride, dilation, extra, padding = (
        _each(stride, n),
        _each(dilation, n),
        _each(output_padding, n),
        _pairs(padding, n),
    )
    out = [
        (h - 1) * s + d * (k - 1) + 1 - a - b + e
        for h, s, d, k, (a, b), e in zip(size, stride, dilation, kernel, padding, extra, strict=True)
    ]
    c_out = per_group * groups
    matrix = np.zeros((c_out, *out, c_in, *size))
    valid = np.zeros(matrix.shape, bool)
    for p in np.ndindex(*size):
        for k in np.ndindex(*kernel):
            q = tuple(pa * s + ka * d - a for pa, s, ka, d, (a, _) in zip(p, stride, k, dilation, padding, strict=True))
            if all(0 <= qa < h for qa, h in zip(q, out, strict=True)):
                for i in range(c_in):
                    first = (i // (c_in // groups)) * per_group
                    for o in range(per_group):
                        matrix[(first + o, *q, i, *p)] = weight[(i, o, *k)]
                        valid[(first + o, *q, i, *p)] = True
    n_out, n_in = c_out * math.prod(out), c_in * math.prod(size)
    return Taps(
        matrix.reshape(n_out, n_in), valid.reshape(n_out, n_in), _bias(bias, c_out, math.prod(out)), (c_out, *out)
    )


def _windows(size, kernel, stride, padding, dilation, ceil_mode):
    """For each output position, (position, elements of the padded window inside input plus padding, valid input
    positions).
    """
    n = len(size)
    kernel, padding, dilation = _each(kernel, n), _pairs(padding, n), _each(dilation, n)
    stride = kernel if stride is None else _each(stride, n)
    out = []
    for h, k, s, (a, b), d in zip(size, kernel, stride, padding, dilation, strict=True):
        span = h + a + b - d * (k - 1) - 1
        length = (-(-span // s) if ceil_mode else span // s) + 1
        if ceil_mode and (length - 1) * s >= h + a:  # the last window would start in the padding after the input
            length -= 1
        out.append(length)
    windows = []
    for q in np.ndindex(*out):
        taps = [tuple(qa * s + ka * d - a for qa, s, ka, d, (a, _) in zip(q, stride, k, dilation, padding, strict=True))
                for k in np.ndindex(*kernel)]  # fmt: skip
        padded = sum(all(pa < h + b for pa, h, (_, b) in zip(p, size, padding, strict=True)) for p in taps)
        windows.append((q, padded, [p for p in taps if all(0 <= pa < h for pa, h in zip(p, size, strict=True))]))
    return out, windows


def pool(x_shape, kernel, stride=None, padding=0, ceil_mode=False, count_include_pad=True, mean=True):
    """y[c, q] = sum over the window of x / divisor; the divisor counts padding if asked, never what ceil_mode adds
    beyond it.
    """
    channels, *size = x_shape
    out, windows = _windows(size, kernel, stride, padding, 1, ceil_mode)
    matrix = np.zeros((channels, *out, channels, *size))
    for c in range(channels):
        for q, padded, taps in windows:
            for p in taps:
                matrix[(c, *q, c, *p)] = 1 / (padded if count_include_pad else len(taps)) if mean else 1
    matrix = matrix.reshape(channels * math.prod(out), channels * math.prod(size))
    return Taps(matrix, matrix > 0, np.zeros(len(matrix)), (channels, *out))


def sum_pool(x_shape, kernel, stride=None, padding=0, ceil_mode=False):
    return pool(x_shape, kernel, stride, padding, ceil_mode, mean=False)


def global_avg_pool(x_shape):
    return pool(x_shape, x_shape[1:])


def max_pool(x, kernel, stride=None, padding=0, dilation=1, ceil_mode=False):
    """For one sample x: the matrix that picks each window's first maximum in row-major order of its taps."""
    channels, *size = x.shape
    out, windows = _windows(size, kernel, stride, padding, dilation, ceil_mode)
    matrix = np.zeros((channels, *out, channels, *size))
    for c in range(channels):
        for q, _, taps in windows:
            winner = taps[0]
            for p in taps[1:]:
                if x[(c, *p)] > x[(c, *winner)]:
                    winner = p
            matrix[(c, *q, c, *winner)] = 1
    matrix = matrix.reshape(channels * math.prod(out), channels * math.prod(size))
    return Taps(matrix, matrix > 0, np.zeros(len(matrix)), (channels, *out))


def reduce(x_shape, kind, axes, keepdims=False):
    """y[p] = sum (or mean) of x over some axes, the batch counted."""
    axes = [(a + len(x_shape) + 1 if a < 0 else a) - 1 for a in _each(axes, 1)]
    kept = [1 if a in axes else s for a, s in enumerate(x_shape)]
    matrix = np.zeros((*kept, *x_shape))
    for p in np.ndindex(*x_shape):
        matrix[(*(0 if a in axes else pa for a, pa in enumerate(p)), *p)] = 1
    matrix = matrix.reshape(math.prod(kept), math.prod(x_shape))
    if kind == "mean":
        matrix /= math.prod(x_shape) / math.prod(kept)
    out = tuple(s for a, s in enumerate(kept) if keepdims or a not in axes)
    return Taps(matrix, matrix > 0, np.zeros(len(matrix)), out)


def resample(x_shape, weights):
    """y[c, q] = sum_p prod_a w_a[q_a, p_a] x[c, p]; weights of 0 are no taps."""
    channels, *size = x_shape
    weights = [np.eye(s) if w is None else np.asarray(w, float) for w, s in zip(weights, size, strict=True)]
    out = [len(w) for w in weights]
    matrix = np.zeros((channels, *out, channels, *size))
    for c, q, p in itertools.product(range(channels), np.ndindex(*out), np.ndindex(*size)):
        matrix[(c, *q, c, *p)] = math.prod(w[qa, pa] for w, qa, pa in zip(weights, q, p, strict=True))
    matrix = matrix.reshape(channels * math.prod(out), channels * math.prod(size))
    return Taps(matrix, matrix != 0, np.zeros(len(matrix)), (channels, *out))


def upsample(x_shape, factor):
    """y[c, q] = x[c, q // factor]."""
    channels, *size = x_shape
    factor = _each(factor, len(size))
    out = [h * f for h, f in zip(size, factor, strict=True)]
    matrix = np.zeros((channels, *out, channels, *size))
    for c, q in itertools.product(range(channels), np.ndindex(*out)):
        matrix[(c, *q, c, *(qa // f for qa, f in zip(q, factor, strict=True)))] = 1
    matrix = matrix.reshape(channels * math.prod(out), channels * math.prod(size))
    return Taps(matrix, matrix > 0, np.zeros(len(matrix)), (channels, *out))


def identity(x_shape):
    size = math.prod(x_shape)
    return Taps(np.eye(size), np.eye(size, dtype=bool), np.zeros(size), tuple(x_shape))


def scale(x_shape, factor, shift=None):
    """y[c] = x[c] * factor[c] + shift[c]."""
    size = math.prod(x_shape[1:])
    matrix = np.diag(np.repeat(np.asarray(factor, float), size))
    return Taps(matrix, np.eye(len(matrix), dtype=bool), _bias(shift, len(factor), size), tuple(x_shape))


def add(*operands):
    """One neuron z = sum of all operands' terms; its input is the operands' inputs, one after the other."""
    return Taps(np.concatenate([t.matrix for t in operands], 1), np.concatenate([t.valid for t in operands], 1),
                np.sum([t.bias for t in operands], 0), operands[0].out_shape)  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- rules


class Term(NamedTuple):
    """One summand of a rule: n[j, i] / (t[j] + stabilizer * sgn t[j]), where t is a sum of summands of absolute sum
    `size`.
    """

    n: Matrix
    t: Matrix
    size: Matrix
    coefficient: Matrix | float = 1.0
    undecided: Matrix | float = 0.0  # sum of |summands| / |value| of a sign that selects this term


def _term(n, bias=0.0, **kwargs):
    return Term(n, n.sum(1) + bias, abs(n).sum(1) + abs(bias), **kwargs)


def zplus(taps, x, bias="none"):
    b = taps.bias
    return [_term(np.maximum(taps.matrix * x, 0), {"none": 0 * b, "positive": np.maximum(b, 0), "signed": b}[bias])]


def zplus_by_sign(taps, x, bias="none"):
    """(sgn(y) x w)+, sgn 0 = +1."""
    n, b = taps.matrix * x, taps.bias
    y = n.sum(1) + b
    with np.errstate(invalid="ignore", divide="ignore"):
        undecided = np.where(y == 0, 0, (abs(n).sum(1) + abs(b)) / abs(y))
    # what is found as the rest of y has the error of all its terms
    whole = abs(n).sum(1)
    return [_term(np.maximum(n, 0), coefficient=1.0 * (y >= 0), undecided=undecided),
            _term(np.minimum(n, 0), coefficient=1.0 * (y < 0),
                undecided=undecided)._replace(size=2 * whole)]  # fmt: skip


def wsquare(taps, x, bias="none"):
    return [_term(taps.matrix**2, {"none": 0, "square": 1}[bias] * taps.bias**2)]


def zbox(taps, x, low, high, bias="none"):
    w = taps.matrix
    return [_term((x - low) * np.maximum(w, 0) + (high - x) * np.maximum(-w, 0))]


def epsilon(taps, x, bias="signed"):
    return [_term(taps.matrix * x, {"none": 0, "signed": 1}[bias] * taps.bias)]


def gamma(taps, x, gamma=0.25, bias="signed"):
    w, b = taps.matrix, taps.bias
    y = (w * x).sum(1) + b
    with np.errstate(invalid="ignore", divide="ignore"):
        undecided = np.where(y == 0, 0, (abs(w * x).sum(1) + abs(b)) / abs(y))
    terms = []
    # where y > 0 the terms of the output's sign are x+ w+ and x- w-, where y < 0 they are x+ w- and x- w+
    for sign in (1, -1):
        n = np.maximum(x, 0) * (w + gamma * sign * np.maximum(sign * w, 0)) + np.minimum(x, 0) * (
            w - gamma * sign * np.maximum(-sign * w, 0)
        )
        extra = {"none": 0 * b, "signed": b + gamma * sign * np.maximum(sign * b, 0), "full": b}[bias]
        terms.append(_term(n, extra, coefficient=1.0 * (sign * y > 0), undecided=undecided))
    return terms


def alpha_beta(taps, x, alpha=2.0, beta=1.0, fallback=False, bias="none"):
    b, n = taps.bias, taps.matrix * x
    plus = _term(np.maximum(n, 0), {"none": 0 * b, "by_sign": np.maximum(b, 0), "full": b}[bias])
    minus = _term(np.minimum(n, 0), {"none": 0 * b, "by_sign": np.minimum(b, 0), "full": b}[bias], coefficient=-beta)
    plus = plus._replace(coefficient=np.where((n < 0).any(1), alpha, 1.0) if fallback else alpha)
    return [plus, minus] if beta else [plus]


def flat(taps, x, bias="none"):
    return [_term(1.0 * taps.valid)]


def propagate(terms, r_out, stabilizer=0.0, tolerance=0.0):
    """r_in[i] = sum_terms sum_j coefficient[j] n[j, i] r_out[j] / d[j] and a bound on its error.

    An algorithm that adds up t with a relative error of `tolerance` in terms of sum |summands| has d (1 + delta),
    |delta| <= tolerance * size / |d|; so s = r / d is off by at most a factor 1 / (1 - tolerance * size / |d|), and
    r_in by the same tolerance again for its own sum. Where the error can turn a sign that decides (of d under the
    stabiliser, of y in gamma), or exceeds d itself, nothing can be promised: the bound is infinite.
    """
    r_in = np.zeros(terms[0].n.shape[1])
    bound = np.zeros_like(r_in)
    for n, t, size, coefficient, undecided in terms:
        d = t + stabilizer * np.where(t < 0, -1, 1)
        s = coefficient * np.divide(r_out, d, out=np.zeros_like(d), where=d != 0)
        r_in += n.T @ s
        condition = np.divide(size, abs(d), out=np.ones_like(d), where=d != 0)
        risk = tolerance * np.maximum(condition, undecided)
        if stabilizer:
            risk = np.maximum(risk, tolerance * np.divide(size, abs(t), out=np.zeros_like(d), where=t != 0))
        growth = np.where(risk < 1, np.maximum(condition, 1) / np.where(risk < 1, 1 - risk, 1), np.inf)
        reach = np.where(risk < 1, abs(s), r_out != 0)  # a neuron at risk may have any s, a 0 included
        weight = np.multiply(tolerance * reach, growth, out=np.zeros_like(d), where=reach > 0)
        bound += (abs(n) * np.where(n != 0, weight[:, None], 0)).sum(0)
    return r_in, bound
