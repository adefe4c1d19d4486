"""AlphaBeta(fallback): α = 1 where a neuron has no negative term; bias and stabilizer do not count, whatever the
convention.
"""

import numpy as np
import pytest

import dtdfast as dtd
import explicit
from dtdfast.rules import CONVENTIONS
from support import close, normal, over

BIASES = {None: "none", "none": "none", "by_sign": "by_sign", "full": "full"}
X = np.array([[1.0, 2.0, 3.0], [0.0, 2.0, 0.0], [-1.0, 0.5, 0.0]], np.float32)
# no, some and only negative terms; none at all
WEIGHT = np.array([[1.0, 2.0, 0.5], [1.0, -1.0, 2.0], [-1.0, -2.0, -0.5], [0.0, 0.0, 0.0]])
BIAS = np.array([-0.5, 0.75, 0.25, -1.0])


def stabilized(rule, convention):
    return CONVENTIONS[convention].stabilizer if rule.stabilizer is None else rule.stabilizer


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
@pytest.mark.parametrize("convention", CONVENTIONS)
@over("bias", BIASES)
@over("stabilizer", [None, 0.25])
@over("fallback", [False, True])
def test_no_negative_term(fallback, stabilizer, bias, convention, backend, rng):
    rule = dtd.AlphaBeta(fallback=fallback, bias=bias, stabilizer=stabilizer)
    stands = BIASES[bias] if bias else CONVENTIONS[convention].biases.get("AlphaBeta", "none")
    taps = explicit.linear((3,), WEIGHT, BIAS)
    start = normal(rng, 3, 4)
    options = dict(rules=rule, convention=convention, backend=backend)
    for layers in ([dtd.Linear(WEIGHT, BIAS)], [dtd.Linear(WEIGHT, BIAS), dtd.Activation("leaky_relu", 0.5)]):
        explainer = dtd.Explainer(layers, **options)
        expected = [
            explicit.propagate(
                explicit.alpha_beta(taps, s, fallback=fallback, bias=stands), r, stabilized(rule, convention)
            )[0]
            for s, r in zip(X.astype(float), start.astype(float), strict=True)
        ]
        close(explainer.explain(X, start), expected, backend)
        ledger = explainer.ledger(X, start)
        assert ledger.closed, str(ledger)
        empty = (WEIGHT * X[:, None] >= 0).all(axis=2)
        surplus = np.zeros(3) if fallback else -(start.astype(float) * empty).sum(axis=1)
        np.testing.assert_allclose(ledger.absorbed["surplus"], surplus, rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
def test_terms_that_vanish_by_sign(backend):
    """Behind a ReLU an average pool has no negative term that the plan could sum at all: everything is handed on
    once.
    """
    x = abs(np.arange(-8.0, 8.0, dtype=np.float32)).reshape(1, 1, 4, 4) + 1
    layers = [dtd.ReLU(), dtd.AvgPool(2)]
    for stabilizer in (0.0, 0.25):
        rule = dtd.AlphaBeta(fallback=True, stabilizer=stabilizer)
        r_in = dtd.explain(layers, x, np.ones((1, 1, 2, 2)), rules={1: rule}, backend=backend)
        means = x.reshape(2, 2, 2, 2).mean(axis=(1, 3))
        np.testing.assert_allclose(r_in.sum(), (means / (means + stabilizer)).sum(), rtol=1e-6)


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
def test_without_beta_there_is_nothing_to_fall_back_from(backend, rng):
    start = normal(rng, 3, 4)
    layers = [dtd.Linear(WEIGHT, BIAS)]
    maps = [
        dtd.explain(layers, X, start, rules=dtd.AlphaBeta(1.0, 0.0, fallback=f), backend=backend) for f in (False, True)
    ]
    np.testing.assert_array_equal(*maps)


def test_root_points_fall_back_too():
    """y_j Σ_i (x − x̃)_i w_ij / y_j is what leaves: once where there is no negative term, whatever stands in the
    denominators.
    """
    for bias in ("none", "by_sign"):
        rule = dtd.AlphaBeta(fallback=True, bias=bias, stabilizer=0.25)
        found = dtd.diagnostics.root_points([dtd.Linear(WEIGHT[:1], BIAS[:1])], X[:1], [0], rules=rule)
        moved = ((X[0] - found.points[0][0]) * WEIGHT[0]).sum()
        r_in = dtd.explain([dtd.Linear(WEIGHT[:1], BIAS[:1])], X[:1], np.ones((1, 1)), rules=rule, backend="oracle")
        np.testing.assert_allclose(moved, float(found.y[0]) * r_in.sum())
