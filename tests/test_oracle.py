"""The oracle against the explicit matrix: every rule on every layer with taps, and the movements that carry no rule."""

import numpy as np
import pytest

import dtdfast as dtd
import explicit
from cases import CASES, RULES, by_oracle
from rule_space import rule_classes

TOLERANCE = 1e-12  # times sum_j |n_ij s_j| and the condition number of each denominator


def test_every_rule_has_a_reference_and_is_public():
    rules = {cls for cls in rule_classes() if cls.shares is not dtd.Rule.shares}  # Pass has no row
    assert rules == {type(row.rule) for row in RULES}, "give it a formula in explicit.py and a row in the cases"
    assert {cls.__name__ for cls in rules} <= set(dtd.__all__), "export it in __init__.py"


def test_there_are_enough_cases():
    assert len(CASES) >= 500
    assert len({case.id for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_explicit(case):
    x, r_out = case.x.astype(np.float64), case.r_out.astype(np.float64)
    expected, bound = case.expected(x, r_out, TOLERANCE)
    r_in = by_oracle(case)
    assert r_in.dtype == np.float64
    assert r_in.shape == x.shape
    assert np.isfinite(r_in).all()
    assert (abs(r_in - expected) <= bound).all()
    assert np.isfinite(bound).mean() > 0.9


@pytest.mark.parametrize("case", CASES[:: len(CASES) // 60], ids=lambda case: case.id)
def test_predict(case):
    x = case.x.astype(np.float64)
    copies = case.taps.matrix.shape[1] // x[0].size
    expected = np.array([case.taps.matrix @ np.tile(sample.ravel(), copies) + case.taps.bias for sample in x])
    outputs = dtd.predict(case.layers, x, backend="oracle")
    np.testing.assert_allclose(
        outputs.reshape(len(x), -1), expected, rtol=0, atol=1e-12 * max(1, abs(expected).max()) * len(expected[0])
    )


POOLS = [
    ((2, 3, 7), {"kernel": 2}),
    ((2, 1, 15), {"kernel": 3, "stride": 2, "padding": 1}),
    ((2, 2, 16), {"kernel": 3, "stride": 3, "ceil_mode": True}),
    ((2, 16, 7, 7), {"kernel": 2}),
    ((2, 3, 7, 7), {"kernel": 3, "stride": 2, "padding": 1}),
    ((1, 2, 15, 16), {"kernel": 3, "stride": 2, "ceil_mode": True}),
    ((1, 2, 7, 9), {"kernel": (3, 2), "stride": (1, 3), "dilation": (2, 1)}),
    ((1, 17, 5, 5), {"kernel": 3, "stride": 1, "padding": 1}),
    ((1, 3, 5, 6), {"kernel": 2, "stride": 2, "padding": ((1, 0), (0, 1))}),
    ((1, 2, 7, 7), {"kernel": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ((2, 3, 2, 1), {"kernel": 2, "stride": 3, "padding": ((1, 0), (1, 1))}),  # some taps meet padding alone
    ((2, 2, 2, 7), {"kernel": 3, "stride": 2, "ceil_mode": True}),  # a window is longer than its axis
    ((1, 1, 33, 31), {"kernel": 5, "stride": 4}),
    ((1, 2, 3, 5, 4), {"kernel": 2}),
    ((1, 2, 5, 5, 5), {"kernel": 3, "stride": 2, "padding": 1}),
]


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize(("shape", "options"), POOLS, ids=str)
def test_max_pool(shape, options, ties, backend, rng):
    """All to the first maximum. Whole numbers as relevance, so that sums are exact; few whole numbers as inputs, so
    that maxima tie.
    """
    x = (
        rng.integers(-2, 3, shape).astype(np.float32)
        if ties
        else rng.permutation(np.prod(shape)).reshape(shape).astype(np.float32)
    )
    taps = [explicit.max_pool(sample, **options) for sample in x]
    r_out = rng.integers(-9, 10, (len(x), *taps[0].out_shape)).astype(np.float32)
    expected = np.array([t.matrix.T @ r.ravel() for t, r in zip(taps, r_out, strict=True)]).reshape(shape)
    np.testing.assert_array_equal(dtd.explain([dtd.MaxPool(**options)], x, r_out, backend=backend), expected)


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
@pytest.mark.parametrize(
    ("shape", "factor"),
    [((2, 3, 7), 2), ((2, 1, 5), 3), ((1, 16, 3, 2), 2), ((2, 3, 2, 5), (1, 3)), ((1, 2, 2, 1, 3), (2, 3, 1))],
    ids=str,
)
def test_upsample(shape, factor, backend, rng):
    x = rng.standard_normal(shape).astype(np.float32)
    taps = explicit.upsample(shape[1:], factor)
    r_out = rng.integers(-9, 10, (len(x), *taps.out_shape)).astype(np.float32)
    expected = (r_out.reshape(len(x), -1) @ taps.matrix).reshape(shape)
    np.testing.assert_array_equal(dtd.explain([dtd.Upsample(factor)], x, r_out, backend=backend), expected)


MOVES = {  # record, how the outputs are indexed from an array of the same shape as x
    "flatten": (lambda: [dtd.Flatten()], lambda a: a.reshape(len(a), -1)),
    "reshape": (lambda: [dtd.Reshape((10, -1))], lambda a: a.reshape(len(a), 10, -1)),
    "permute": (lambda: [dtd.Permute((0, 3, 1, 2))], lambda a: a.transpose(0, 3, 1, 2)),
    "slice": (lambda: [dtd.Slice(2, 1, 4, 2)], lambda a: a[:, :, 1:4:2]),
    "slice-negative": (lambda: [dtd.Slice(-1, -3, -1)], lambda a: a[..., -3:-1]),
    "slice-channels": (lambda: [dtd.Slice(1, 1)], lambda a: a[:, 1:]),
    "pad": (lambda: [dtd.Pad(((1, 2), (0, 3)))], lambda a: np.pad(a, ((0, 0), (0, 0), (1, 2), (0, 3)))),
    "concat": (lambda: [dtd.Concat(inputs=(dtd.INPUT, dtd.INPUT))], lambda a: np.concatenate([a, a], 1)),
    "concat-space": (lambda: [dtd.Concat(3, inputs=(dtd.INPUT, dtd.INPUT))], lambda a: np.concatenate([a, a], 3)),
    "shuffle": (
        lambda: [dtd.Reshape((2, 3, 4, 5)), dtd.Permute((0, 2, 1, 3, 4)), dtd.Reshape((6, 4, 5))],
        lambda a: a.reshape(len(a), 2, 3, 4, 5).transpose(0, 2, 1, 3, 4).reshape(a.shape),
    ),
    "relu": (lambda: [dtd.ReLU()], lambda a: a),
    "dropout": (lambda: [dtd.Dropout()], lambda a: a),
    "activation": (lambda: [dtd.Activation("tanh")], lambda a: a),
    "lrn": (lambda: [dtd.LRN(3)], lambda a: a),
}


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
@pytest.mark.parametrize("name", MOVES)
def test_movement(name, backend, rng):
    """Each output is a copy of one input, so each input collects the relevance of its copies; what was padded absorbs
    its own.
    """
    records, index = MOVES[name]
    x = rng.standard_normal((2, 6, 4, 5)).astype(np.float32)
    source = index(np.arange(1, x.size + 1).reshape(x.shape))
    r_out = rng.integers(-9, 10, source.shape).astype(np.float32)
    expected = np.bincount(source.ravel(), r_out.ravel(), x.size + 1)[1:].reshape(x.shape)
    np.testing.assert_array_equal(dtd.explain(records(), x, r_out, backend=backend), expected)


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
def test_mul_gives_all_to_the_signal(backend, rng):
    x = rng.standard_normal((2, 3, 4, 4)).astype(np.float32)
    r_out = rng.integers(-9, 10, x.shape).astype(np.float32)
    gate = [dtd.GlobalAvgPool(), dtd.Conv(rng.standard_normal((3, 3, 1, 1))), dtd.Activation("sigmoid")]
    r_in = dtd.explain([*gate, dtd.Mul(inputs=(dtd.INPUT, 2))], x, r_out, backend=backend)
    np.testing.assert_array_equal(r_in, r_out)


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
@pytest.mark.parametrize("rule", [dtd.Epsilon(stabilizer=0.125), dtd.Zero()], ids=str)
def test_scale_with_a_rule(rule, backend, rng):
    """A Scale is one tap per neuron; under a rule that counts its shift, the shift absorbs."""
    x, r_out = rng.standard_normal((2, 2, 5, 3, 3)).astype(np.float32)
    factor, shift = rng.standard_normal((2, 5)).astype(np.float32)
    tolerance = 1e-12 if backend == "oracle" else 16 * 2.0**-24
    terms = [explicit.epsilon(explicit.scale(x.shape[1:], factor, shift), sample.astype(float).ravel()) for sample in x]
    expected, bound = np.array([explicit.propagate(t, r.astype(float).ravel(), rule.stabilizer or 0.0, tolerance)
                                for t, r in zip(terms, r_out, strict=True)]).transpose(1, 0, 2).reshape(2,
                                *x.shape)  # fmt: skip
    r_in = dtd.explain([dtd.Scale(factor, shift)], x, r_out, rules={0: rule}, backend=backend)
    assert (abs(r_in - expected) <= bound).all()


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
@pytest.mark.parametrize("rule", [dtd.ZPlus(), dtd.WSquare(), dtd.Flat(), dtd.Epsilon(stabilizer=0.125)], ids=str)
def test_embedding(rule, backend, rng):
    """Relevance of an index is the sum over its vector; equal indices at different positions stay apart."""
    words, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((7, 5), (4, 15)))
    ids = np.array([[0, 6, 0], [3, 3, 2]])
    r_out = rng.standard_normal((2, 4)).astype(np.float32)
    layers = [dtd.Embedding(words), dtd.Flatten(), dtd.Linear(weight)]
    function = {
        "ZPlus": explicit.zplus,
        "WSquare": explicit.wsquare,
        "Flat": explicit.flat,
        "Epsilon": explicit.epsilon,
    }[type(rule).__name__]
    tolerance = 1e-12 if backend == "oracle" else 48 * 2.0**-24
    for sample, r, r_in in zip(ids, r_out, dtd.explain(layers, ids, r_out, rules=rule, backend=backend), strict=True):
        terms = function(explicit.linear((15,), weight), words[sample].astype(float).ravel())
        expected, bound = explicit.propagate(terms, r.astype(float), rule.stabilizer or 0.0, tolerance)
        assert (abs(r_in - expected.reshape(3, 5).sum(1)) <= 8 * bound.reshape(3, 5).sum(1)).all()


ZEROS = {  # layer, its matrix, for inputs (2, 8, 5)
    "linear": (
        lambda w: [dtd.Flatten(), dtd.Linear(w.reshape(-1, 40))],
        lambda w: explicit.linear((40,), w.reshape(-1, 40)),
    ),
    "conv": (lambda w: [dtd.Conv(w.reshape(-1, 8, 1))], lambda w: explicit.conv((8, 5), w.reshape(-1, 8, 1))),
    "depthwise": (
        lambda w: [dtd.Conv(w.reshape(-1, 1, 2)[:16], groups=8)],
        lambda w: explicit.conv((8, 5), w.reshape(-1, 1, 2)[:16], groups=8),
    ),
}


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
@pytest.mark.parametrize("row", [r for r in RULES if not r.box], ids=lambda row: row.id)
@pytest.mark.parametrize("kind", ZEROS)
def test_sums_that_are_exactly_zero(kind, row, backend, rng):
    """Small whole numbers, so that y = 0 and d = 0 happen by cancellation: R / 0 := 0, sgn 0 := +1, and gamma passes
    nothing at y = 0.
    """
    x, weight = rng.integers(-1, 2, (6, 8, 5)).astype(np.float32), rng.integers(-1, 2, (17, 40)).astype(np.float32)
    weight[:, 6:] *= kind != "linear"  # few terms cancel often
    make, matrix = ZEROS[kind]
    taps = matrix(weight)
    r_out = rng.standard_normal((6, *taps.out_shape)).astype(np.float32)
    tolerance = 1e-12 if backend == "oracle" else 64 * 2.0**-24
    r_in = dtd.explain(make(weight), x, r_out, rules=row.rule, backend=backend).reshape(6, -1)
    zeros = 0
    for sample, r, got in zip(x.astype(np.float64), r_out, r_in, strict=True):
        terms = row.terms(taps, sample.ravel())
        products = taps.matrix * sample.ravel()
        zeros += np.count_nonzero((products.sum(1) == 0) & products.any(1))
        expected, bound = explicit.propagate(terms, r.astype(np.float64).ravel(), row.rule.stabilizer or 0.0, tolerance)
        assert np.isfinite(bound).all()
        assert (abs(got - expected) <= bound).all()
    assert zeros > 10
