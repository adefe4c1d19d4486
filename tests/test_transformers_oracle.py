"""Attention, norms and softmax against explicit message matrices and the equations that define them."""

from __future__ import annotations

import numpy as np
import pytest

import dtdfast as dtd
import explicit
from cases import HELD_CASES, by_oracle
from cases.held import CAUSAL, SOME, softmax
from support import LONG

TOLERANCE = 1e-12  # as in test_oracle.py


def test_there_are_enough_cases():
    assert len(HELD_CASES) >= 400
    assert len({case.id for case in HELD_CASES}) == len(HELD_CASES)


@pytest.mark.parametrize("case", HELD_CASES, ids=lambda case: case.id)
def test_explicit(case):
    x, r_out = case.x.astype(np.float64), case.r_out.astype(np.float64)
    expected, bound = case.expected(x, r_out, TOLERANCE)
    r_in = by_oracle(case)
    assert r_in.shape == x.shape
    assert np.isfinite(r_in).all()
    assert (abs(r_in - expected) <= bound).all()
    assert np.isfinite(bound).mean() > 0.9


@pytest.mark.parametrize("case", HELD_CASES[::13], ids=lambda case: case.id)
def test_predict(case):
    x = case.x.astype(np.float64)
    taps = [case.taps_of(sample) for sample in x]
    expected = np.array([t.matrix @ sample.ravel() + t.bias for t, sample in zip(taps, x, strict=True)])
    outputs = dtd.predict(case.layers, x, backend="oracle").reshape(expected.shape)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-12 * max(1, abs(expected).max()) * taps[0].bias.size)


# a Linear that mixes heads would take the rule too
ALONE = [case for case in HELD_CASES[::17] if not any(isinstance(record, dtd.Linear) for record in case.layers)]


@pytest.mark.parametrize("case", ALONE, ids=lambda case: case.id)
def test_one_rule_for_all_is_the_entry_s_own(case):
    options = case.options("oracle")
    own = dtd.explain(case.layers, case.x, case.r_out, **options)
    np.testing.assert_array_equal(
        dtd.explain(case.layers, case.x, case.r_out, **options | {"rules": case.row.rule}), own
    )


# --------------------------------------------------------------------------- the sums of a norm, without its d² weights


def _messages_of_a_norm(x, r, sign):
    """R_i of z⁺ with held σ for one vector, by its sums; `sign`: of the weights, turned by that of y where y says."""
    p, m, d = np.maximum(x, 0), np.maximum(-x, 0), x.size
    whole_p, whole_m = p.sum(), m.sum()
    z = np.where(
        sign > 0,
        p * (1 - 1 / d) + (whole_m - m) / d,
        np.where(sign < 0, m * (1 - 1 / d) + (whole_p - p) / d, 0),
    )
    u = np.divide(r, z, out=np.zeros(d), where=z != 0)
    up, down = np.where(sign > 0, u, 0), np.where(sign < 0, u, 0)
    return p * ((1 - 1 / d) * up + (down.sum() - down) / d) + m * ((1 - 1 / d) * down + (up.sum() - up) / d)


@pytest.mark.parametrize("d", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("by_sign", [False, True], ids=["zplus", "dtd"])
def test_sums_of_a_norm(by_sign, d, rng):
    """|w_j| and 1/σ cancel under the bias "none"; "dtd" turns the sign of w_j where y_j < 0."""
    x, r, weight, bias = rng.standard_normal((4, d))
    weight[d // 2 :: 5] = 0
    norm = dtd.LayerNorm(weight=weight, bias=bias)
    y = dtd.predict([norm], x[None], backend="oracle")[0]
    turned = np.sign(weight) * (np.where(y < 0, -1, 1) if by_sign else 1)
    rule = dtd.ZPlusBySign() if by_sign else dtd.ZPlus()
    got = dtd.explain([norm], x[None], r[None], rules={0: rule}, backend="oracle")[0]
    expected = _messages_of_a_norm(x, r, turned)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11 * d * max(abs(r).sum(), 1e-300))


def test_dtd_takes_the_norm_by_the_sign_of_y(rng):
    """Behind the first layer, which the domain has its own rule for."""
    x, r, weight, bias, other = rng.standard_normal((5, 6))
    first = dtd.Linear(np.eye(6) + 0.1 * np.outer(other, other))
    layers = [first, dtd.LayerNorm(weight=weight, bias=bias)]
    inner = dtd.predict([first], x[None], backend="oracle")[0]
    y = dtd.predict(layers, x[None], backend="oracle")[0]
    got = dtd.explain(layers, x[None], r[None], stop=0, backend="oracle")[0]
    expected = _messages_of_a_norm(inner, r, np.sign(weight) * np.where(y < 0, -1, 1))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11)


# ------------------------------------------------------------------------------------------------- AttnLRP's equations

SHAPES = [  # rows (that a softmax runs along), columns, axis
    ((2, 3, 5), -1, None),
    ((2, 3, 5), 2, None),
    ((4, 3), 1, None),
    ((1, 1, 1), -1, None),
    ((3, 1, 4), 2, None),
    ((2, 4, 3), -1, SOME),
    ((5, 5), -1, CAUSAL),
    ((6,), 1, None),
]
ROWS = [
    (dtd.Zero(), explicit.epsilon),
    (dtd.Epsilon(stabilizer=0.125), explicit.epsilon),
    (dtd.Gamma(0.25), explicit.gamma),
]


@pytest.mark.parametrize(("rule", "function"), ROWS, ids=[type(rule).__name__ for rule, _ in ROWS])
@pytest.mark.parametrize(("shape", "axis", "mask"), SHAPES, ids=str)
def test_softmax_by_its_own_rule(shape, axis, mask, rule, function, rng):
    """R_i = x_i (R_i − s_i Σ_j R_j) along each line, masked logits taken as 0; R of s by the rule of a Linear."""
    weight = rng.standard_normal((4, np.prod(shape)))
    layers = [dtd.Softmax(axis, mask=mask), dtd.Flatten(), dtd.Linear(weight)]
    x, r_out = rng.standard_normal((2, *shape)), rng.standard_normal((2, 4))
    r_in = dtd.explain(layers, x, r_out, rules=rule, attention="taylor", backend="oracle")
    place = axis - 1 if axis > 0 else axis
    for sample, r, got in zip(x, r_out, r_in, strict=True):
        s = softmax(sample, axis, mask)
        r_s = explicit.propagate(function(explicit.linear((s.size,), weight), s.ravel()), r, rule.stabilizer or 0.0)[0]
        r_s = r_s.reshape(shape)
        expected = sample * (r_s - s * r_s.sum(axis=place, keepdims=True))
        if mask is not None:
            expected = np.where(mask, expected, 0)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10 * abs(r_s).sum())


PRODUCTS = [  # heads of A, heads of B, rows, inner, columns, transposed, scale
    ((2,), (2,), 3, 4, 2, (False, False), 1.0),
    ((2,), (2,), 3, 4, 2, (False, True), 0.5),
    ((2,), (2,), 3, 4, 2, (True, False), -2.0),
    ((), (), 3, 4, 5, (True, True), 1.0),
    ((3,), (1,), 2, 3, 2, (False, True), 1.0),
    ((1,), (3,), 2, 3, 2, (False, False), 1.0),
    ((2, 2), (2, 2), 2, 1, 3, (False, True), 1.0),
    ((1,), (1,), 1, 1, 1, (False, False), 1.0),
]


@pytest.mark.parametrize(("first", "second", "rows", "inner", "columns", "turned", "scale"), PRODUCTS, ids=str)
def test_half_to_each_factor(first, second, rows, inner, columns, turned, scale, rng):
    """R_A[j, i] = Σ_p A_ji B_ip R_jp / (2 O_jp), R_B[i, p] = Σ_j A_ji B_ip R_jp / (2 O_jp), over heads that share."""
    a_shape, b_shape = (
        (*heads, *(size[::-1] if turn else size))
        for heads, size, turn in zip((first, second), ((rows, inner), (inner, columns)), turned, strict=True)
    )
    middle = int(np.prod(a_shape))
    layers = [
        dtd.Slice(1, 0, middle),
        dtd.Reshape(a_shape),
        dtd.Slice(1, middle, inputs=dtd.INPUT),
        dtd.Reshape(b_shape),
        dtd.MatMul(*turned, scale, inputs=(1, 3)),
    ]
    heads = np.broadcast_shapes(first, second)
    x = rng.standard_normal((2, middle + int(np.prod(b_shape))))
    r_out = rng.standard_normal((2, *heads, rows, columns))
    r_in = dtd.explain(layers, x, r_out, rules="attnlrp", backend="oracle")
    for sample, r, got in zip(x, r_out, r_in, strict=True):
        a, b = sample[:middle].reshape(a_shape), sample[middle:].reshape(b_shape)
        r_a, r_b = np.zeros(a_shape), np.zeros(b_shape)
        views = [
            v.swapaxes(-1, -2) if turn else v for v, turn in zip((a, b, r_a, r_b), (*turned, *turned), strict=True)
        ]
        for h in np.ndindex(*heads):
            of_a, of_b = ([0 if n == 1 else i for i, n in zip(h, own, strict=True)] for own in (first, second))
            one, two, to_one, to_two = (v[tuple(k)] for v, k in zip(views, (of_a, of_b, of_a, of_b), strict=True))
            outputs = scale * one @ two
            for j, i, p in np.ndindex(rows, inner, columns):
                message = scale * one[j, i] * two[i, p] * r[(*h, j, p)] / (2 * outputs[j, p])
                to_one[j, i] += message
                to_two[i, p] += message
        expected = np.concatenate([r_a.ravel(), r_b.ravel()])
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10 * max(abs(expected).max(), abs(r).max()))


@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("mask", [None, "causal"])
def test_attention_by_attnlrp(tokens, mask, rng):
    """softmax(s)·v of scores and values that lie beside each other: halves, then the softmax's own rule."""
    kept = np.tril(np.ones((tokens, tokens), bool)) if mask else np.ones((tokens, tokens), bool)
    n = tokens * tokens
    layers = [
        dtd.Slice(1, 0, n),
        dtd.Reshape((tokens, tokens)),
        dtd.Softmax(-1, mask=kept if mask else None),
        dtd.Slice(1, n, inputs=dtd.INPUT),
        dtd.Reshape((tokens, 3)),
        dtd.MatMul(inputs=(2, 4)),
    ]
    x, r = rng.standard_normal(n + 3 * tokens), rng.standard_normal((tokens, 3))
    got = dtd.explain(layers, x[None], r[None], rules="attnlrp", backend="oracle")[0]
    scores, values = x[:n].reshape(tokens, tokens), x[n:].reshape(tokens, 3)
    a = softmax(scores, -1, kept)
    outputs = a @ values
    r_a = np.array([[sum(a[j, i] * values[i] * r[j] / (2 * outputs[j])) for i in range(tokens)] for j in range(tokens)])
    r_v = np.array([sum(a[j, i] * values[i] * r[j] / (2 * outputs[j]) for j in range(tokens)) for i in range(tokens)])
    r_s = scores * (r_a - a * r_a.sum(axis=1, keepdims=True))
    expected = np.concatenate([r_s.ravel(), r_v.ravel()])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11 * abs(expected).max())
    if tokens == 1:
        assert got[:n] == 0
        np.testing.assert_allclose(got.sum(), r.sum() / 2, rtol=1e-12)


# ------------------------------------------------------------------------------------------------------ what is extreme


FLATTENED = [
    case
    for case in HELD_CASES
    if "norm" in case.id and case.row.id in ("zero", "epsilon", "zplus", "zplus-by-sign", "gamma")
]


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
@pytest.mark.parametrize("case", FLATTENED[:: 1 if LONG else 2], ids=lambda case: case.id)
def test_norms_of_equal_elements(case, backend):
    """Their variance is 0, and each sum over a row of weights; zeros have no relevance. None comes where y is 0, which
    rounding would decide.
    """
    x = np.zeros_like(case.x)
    x[0] = 0.75
    r_out = np.where(abs(dtd.predict(case.layers, x.astype(np.float64), backend="oracle")) > 1e-9, case.r_out, 0)
    unit = {"oracle": 2.0**-53, "cpu": 2.0**-24}[backend]
    expected, bound = case.expected(x.astype(np.float64), r_out, case.tolerance(unit))
    r_in = dtd.explain(case.layers, x, r_out, **case.options(backend))
    assert np.isfinite(r_in).all()
    assert (abs(r_in - expected) <= bound).all()
    if len(x) > 1:
        np.testing.assert_array_equal(r_in[1:], 0)
    ledger = dtd.Explainer(case.layers, **case.options(backend)).ledger(x, r_out)
    assert ledger.closed, str(ledger)


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
@pytest.mark.parametrize("least", [np.finfo(np.float32).min, -1e30])
def test_a_finite_mask_that_masks_all_gives_uniform_weights(least, backend, rng):
    """Since no score is large enough to tell its keys apart; it selects where it does not mask all."""
    added = np.zeros((2, 4), np.float32)
    added[0], added[1, 2:] = least, least
    layers = [
        dtd.Slice(1, 0, 8),
        dtd.Reshape((2, 4)),
        dtd.Constant(added),
        dtd.Add(inputs=(1, 2)),
        dtd.Softmax(-1),
        dtd.Slice(1, 8, inputs=dtd.INPUT),
        dtd.Reshape((4, 3)),
        dtd.MatMul(inputs=(4, 6)),
    ]
    x, r = rng.standard_normal((1, 20)).astype(np.float32), np.ones((1, 2, 3), np.float32)
    values = x[0, 8:].reshape(4, 3)
    outputs = dtd.predict(layers, x, backend=backend)[0]
    np.testing.assert_allclose(outputs[0], values.mean(axis=0), rtol=1e-5, atol=1e-6)
    weights = softmax(x[0, 4:6], -1)
    np.testing.assert_allclose(outputs[1], weights @ values[:2], rtol=1e-5, atol=1e-6)
    r[0, 0] = 0
    r_in = dtd.explain(layers, x, r, rules="lrp-0", backend=backend)[0, 8:].reshape(4, 3)
    np.testing.assert_array_equal(r_in[2:], 0)
    np.testing.assert_allclose(r_in[:2].sum(axis=0), 1, rtol=1e-4)


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
def test_scores_of_any_size(backend, rng):
    """exp is of differences to the largest: finite, and 1 at it."""
    layers = [dtd.Slice(1, 0, 4), dtd.Reshape((1, 4)), dtd.Softmax(-1), dtd.Slice(1, 4, inputs=dtd.INPUT),
              dtd.Reshape((4, 2)), dtd.MatMul(inputs=(2, 4))]  # fmt: skip
    x = rng.standard_normal((2, 12)).astype(np.float32)
    x[0, :4], x[1, :4] = [3e38, -3e38, 0, 1e38], [-3e38, -3e38, -3e38, -3e38]
    outputs = dtd.predict(layers, x, backend=backend)
    np.testing.assert_allclose(outputs[0, 0], x[0, 4:6], rtol=1e-6)
    np.testing.assert_allclose(outputs[1, 0], x[1, 4:].reshape(4, 2).mean(axis=0), rtol=1e-5, atol=1e-6)
    for rules in ("cp-lrp", "attnlrp"):
        assert np.isfinite(dtd.explain(layers, x, np.ones((2, 1, 2), np.float32), rules=rules, backend=backend)).all()
