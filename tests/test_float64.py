"""float64 on the CPU: asked for, or taken by need where a convention's sums may cancel."""

import contextlib

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast.backends import KNOWN, Backend
from dtdfast.plan.domain import Domain
from dtdfast.plan.program import EXPLAIN, prepare
from dtdfast.presets import RuleBook
from dtdfast.rules import CONVENTIONS
from support import classifier, normal

NEEDED = {  # rules, domain, biases made of random ones, what the plan says of the last sum that may cancel
    "no bias": (dtd.ZPlus(), "nonnegative", None, None),
    "no bias counts": (dtd.ZPlus(bias="none"), "nonnegative", np.negative, None),
    "biases of the terms' sign": (dtd.ZPlus(), "nonnegative", np.abs, None),
    "x⁺w⁺ and x⁻w⁻": (dtd.AlphaBeta(1.0, 0.0), "real", np.negative, None),
    "biases of both signs": (dtd.ZPlus(), "nonnegative", np.positive, None),
    "inputs of both signs": (dtd.ZPlus(bias="none"), "real", None, "0+1, ZPlus"),
    "weights of both signs": (dtd.Epsilon(), "nonnegative", None, "3, Epsilon"),
    "more of the positive weights": (dtd.Gamma(0.25), "nonnegative", None, "3, Gamma(0.25)"),
    "held by a ReLU": ({0: dtd.Gamma(0.25), 3: dtd.ZPlus(bias="none")}, "nonnegative", np.positive, None),
    "one layer of two": ({0: dtd.ZPlus(), 3: dtd.Epsilon()}, "nonnegative", None, "3, Epsilon"),
}


@pytest.mark.parametrize(("rules", "domain", "biases", "first"), NEEDED.values(), ids=NEEDED)
def test_float64_by_need(rules, domain, biases, first, rng):
    """Under captum's convention alone; the result is float32, and the plan says why."""
    weights = normal(rng, 6, 3, 3, 3), normal(rng, 5, 96)
    b = (None, None) if biases is None else [biases(normal(rng, c)) for c in (6, 5)]
    layers = [dtd.Conv(weights[0], b[0]), dtd.ReLU(), dtd.Flatten(), dtd.Linear(weights[1], b[1])]
    x, options = abs(normal(rng, 2, 3, 6, 6)), dict(rules=rules, domain=domain)
    explainer = dtd.Explainer(layers, convention="captum", backend="cpu", **options)
    text = str(explainer.plan_for(x.shape))
    assert ("because sums that captum's rules divide by may cancel" in text) == (first is not None)
    assert first is None or f"(last in {first}:" in text
    r_in = explainer.explain(x, 0)
    assert r_in.dtype == np.float32
    assert explainer.ledger(x, 0).closed
    if first is not None:
        exact = dtd.explain(layers, x, 0, convention="captum", backend="oracle", **options)
        assert abs(r_in - exact).sum() <= 1e-5 * abs(exact).sum()  # as in test_peers, where float32 layers lie above
    for convention in ("dtd", "zennit", "innvestigate"):
        assert "arithmetic" not in str(
            dtd.Explainer(layers, convention=convention, backend="cpu", **options).plan_for(x.shape)
        )


@pytest.mark.parametrize("rules", [dtd.Epsilon(), dtd.Gamma(0.25)], ids=str)
def test_relevance_in_float32_on_values_in_float64(rules, rng):
    """Hidden neurons whose y is smaller than float32's rounding of it, on either side of 0: none of them may change its
    side. What is left is the rounding of messages: of every input, 2u of a gate, u of each product, n u of their sum.
    """
    n_in, n_hidden = 50, 300
    x, onward = normal(rng, 1, n_in), normal(rng, 1, n_hidden)
    weight = normal(rng, n_hidden, n_in)
    y = weight.astype(np.float64) @ x[0]
    bias = np.float32(-y)  # so that about half of what is left, the rounding of the bias, is positive
    layers = [dtd.Linear(weight, bias), dtd.ReLU(), dtd.Linear(onward)]
    explainer = dtd.Explainer(layers, rules=rules, convention="captum", backend="cpu")
    assert "arithmetic: float64 for values, float32 for relevance" in str(explainer.plan_for(x.shape))
    r_in, exact = explainer.explain(x, 0), dtd.explain(layers, x, 0, rules=rules, convention="captum", backend="oracle")
    gamma = getattr(rules, "gamma", 0.0)
    raised, above = (w + gamma * np.maximum(w, 0) for w in (weight.astype(np.float64), onward[0].astype(np.float64)))
    left = y + bias
    hidden = np.maximum(left, 0)
    d, top = (z + 1e-9 * np.where(z < 0, -1, 1) for z in (raised @ x[0] + bias, above @ hidden))
    s = hidden / d * above * (onward[0] @ hidden) / top
    sizes = abs(x[0]) * (abs(s) @ abs(raised))
    flipped = (np.float32(weight @ x[0]) + bias > 0) != (left > 0)
    assert flipped.sum() > n_hidden // 10
    assert np.all(abs(r_in[0] - exact[0]) <= (n_hidden + 12) * 2.0**-24 * sizes)
    single = dtd.Explainer(layers, rules=rules, convention="captum", backend="cpu", precision="single")
    assert "float64" not in str(single.plan_for(x.shape))
    off = abs(single.explain(x, 0)[0] - exact[0])  # the messages of neurons that fell to the other side
    assert np.any(off > (n_hidden + 12) * 2.0**-24 * sizes)


def test_what_float32_cannot_hold_on_the_way_back() -> None:
    """Relevance beyond float32 in an inner layer, and within it at the input: that sample is computed in float64."""
    layers = [
        dtd.Linear(np.full((1, 1), 1e-30, np.float32)),
        dtd.ReLU(),
        dtd.Linear(np.full((1, 1), 1e-15, np.float32)),
        dtd.ReLU(),
        dtd.Linear(np.full((1, 1), 1e30, np.float32)),
        dtd.ReLU(),
        dtd.Linear(np.full((1, 1), 1e30, np.float32)),
    ]
    x, options = np.full((2, 1), 1.0, np.float32), dict(rules=dtd.Zero(stabilizer=0.0), convention="captum")
    r_in = dtd.explain(layers, x, 0, backend="cpu", **options)
    np.testing.assert_allclose(r_in, dtd.explain(layers, x, 0, backend="oracle", **options), rtol=2.0**-22)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("domain", ["real", "nonnegative"])
@pytest.mark.parametrize("seed", range(6))
def test_float64_below_float32(seed, domain, n_threads):
    """A signed input takes float64 in its own layer alone; the map is the oracle's as far as the layers in float32
    allow.
    """
    rng = np.random.default_rng(seed)
    layers = [
        dtd.Conv(normal(rng, 8, 3, 3, 3), normal(rng, 8), padding=1),
        dtd.ReLU(),
        dtd.Conv(normal(rng, 8, 8, 3, 3), 3 * normal(rng, 8), padding=1),
        dtd.ReLU(),
        dtd.Add(inputs=(1, 3)),  # reads both sides of the boundary
        dtd.MaxPool(2),
        dtd.Flatten(),
        dtd.Linear(normal(rng, 5, 128), normal(rng, 5)),
    ]
    x = normal(rng, 3, 3, 8, 8) if domain == "real" else abs(normal(rng, 3, 3, 8, 8))
    options = dict(
        rules={0: dtd.ZPlus(), 2: dtd.ZPlus(), 4: dtd.Zero(), 7: dtd.ZPlus()}, convention="captum", domain=domain
    )
    explainer = dtd.Explainer(layers, backend="cpu", n_threads=n_threads, **options)
    text = str(explainer.plan_for(x.shape))
    r_in, exact = explainer.explain(x, 0), dtd.explain(layers, x, 0, backend="oracle", **options)
    assert abs(r_in - exact).sum() <= 1e-5 * abs(exact).sum()
    np.testing.assert_array_equal(r_in[1:2], explainer.explain(x[1:2], 0))
    np.testing.assert_array_equal(r_in, dtd.explain(layers, x, 0, backend="cpu", **options))
    assert explainer.ledger(x, 0).closed
    assert "checked in every sample" in text or "arithmetic: float64" in text


@pytest.mark.parametrize("gap", [1e-2, 1e-5, 1e-7])
def test_a_denominator_that_nearly_vanishes(gap, rng):
    """An output whose bias takes away all but a little of its sum: float32 would keep few of its digits, so that sample
    has float64.
    """
    w, x = abs(normal(rng, 1, 16)), abs(normal(rng, 4, 16))
    layers = [
        dtd.Linear(np.eye(16, dtype=np.float32)),
        dtd.ReLU(),
        dtd.Linear(w, -(1 - gap) * (x[:1].astype(np.float64) @ w.T)[0]),
    ]
    options = dict(rules=dtd.ZPlus(), convention="captum", domain="nonnegative")
    explainer = dtd.Explainer(layers, backend="cpu", **options)
    assert "checked in every sample: where the bias of entry 2" in str(explainer.plan_for(x.shape))
    r_in, exact = explainer.explain(x, 0), dtd.explain(layers, x, 0, backend="oracle", **options)
    assert abs(r_in - exact).sum() <= 1e-5 * abs(exact).sum()
    np.testing.assert_array_equal(r_in[:1], explainer.explain(x[:1], 0))


@pytest.mark.parametrize("signed", [False, True])
def test_cancelled_sums_below_a_gate(signed, rng):
    """Hidden neurons whose Σ x w⁺ + b all but vanishes: messages are off by no more than themselves, and the less the
    less they cancel.
    """
    n_in, n_hidden = 200, 400
    x = np.abs(normal(rng, 1, n_in))
    weight = np.abs(normal(rng, n_hidden, n_in)) * (
        np.where(rng.random((n_hidden, n_in)) < 1e-2, -1e-6, 1) if signed else 1
    )
    above = np.maximum(weight.astype(np.float64), 0) * x
    left = 10.0 ** rng.uniform(-9, 0, n_hidden)
    bias = (-above.sum(1) * (1 - left)).astype(np.float32)
    onward = np.abs(normal(rng, 1, n_hidden))  # of one sign: R = y c with c these weights
    layers = [dtd.Linear(weight.astype(np.float32), bias), dtd.ReLU(), dtd.Linear(onward)]
    options = dict(rules=dtd.ZPlus(), convention="captum", domain="nonnegative")
    explainer = dtd.Explainer(layers, backend="cpu", **options)
    assert "arithmetic" not in str(explainer.plan_for(x.shape))
    sizes, d = above.sum(1) + np.abs(bias), np.maximum(above.sum(1) + bias, 0)
    with np.errstate(divide="ignore"):
        share = np.minimum(1, 4 * (n_in + 4) * 2.0**-24 * sizes / d)
    error = np.abs(explainer.explain(x, 0) - dtd.explain(layers, x, 0, backend="oracle", **options)).sum()
    assert error <= (onward[0] * above.sum(1) * (share + (n_in + n_hidden) * 2.0**-24)).sum()


def test_several_targets_by_need(rng):
    """Computed in float64 and handed over in float32, in chunks that the targets do not fill."""
    layers, x = classifier(rng), normal(rng, 3, 3, 6, 6)
    options = dict(rules=dtd.Epsilon(), convention="captum", backend="cpu")
    explainer, chunked = dtd.Explainer(layers, **options), dtd.Explainer(layers, **options)
    executor = chunked._executor((3, 6, 6), "explain")
    executor.batches.budget = executor.batches.per_sample + executor.batches.per_target  # two targets at once
    r_in, outputs = explainer.explain(x, [list(range(5))] * 3, return_outputs=True)
    assert r_in.dtype == outputs.dtype == np.float32
    np.testing.assert_array_equal(chunked.explain(x, [list(range(5))] * 3), r_in)
    for t in range(5):
        np.testing.assert_array_equal(explainer.explain(x, t), r_in[:, t])


def test_only_what_is_explained_decides(rng):
    """Below `stop` and in a prediction nothing is divided."""
    layers = classifier(rng)
    options = dict(rules=dtd.ZPlus(bias="none"), convention="captum", backend="cpu")
    assert "float64" in str(dtd.Explainer(layers, **options).plan_for((1, 3, 6, 6)))
    assert "float64" not in str(dtd.Explainer(layers, stop=1, **options).plan_for((1, 3, 6, 6)))
    x = normal(rng, 2, 3, 6, 6)
    np.testing.assert_array_equal(dtd.Explainer(layers, **options).predict(x), dtd.predict(layers, x, backend="cpu"))


@pytest.mark.parametrize("given", [np.float32, np.float64])
def test_float64_as_asked_for(given, rng):
    layers, x = classifier(rng), normal(rng, 2, 3, 6, 6).astype(given)
    options = dict(backend="cpu", precision="float64")
    r_in, outputs = dtd.explain(layers, x, return_outputs=True, **options)
    exact, exact_outputs = dtd.explain(layers, x, return_outputs=True, backend="oracle")
    assert r_in.dtype == outputs.dtype == np.float64
    np.testing.assert_allclose(outputs, exact_outputs, rtol=1e-13)
    np.testing.assert_allclose(r_in, exact, rtol=0, atol=1e-13 * abs(exact).max())
    np.testing.assert_array_equal(dtd.explain(layers, x, out=np.empty_like(exact), **options), r_in)
    with pytest.raises(dtd.ShapeError, match="float64"):
        dtd.explain(layers, x, out=np.empty(x.shape, np.float32), **options)
    gradient = dtd.Explainer(layers, kind="gradient", **options).explain(x, 0)
    np.testing.assert_allclose(
        gradient, dtd.Explainer(layers, kind="gradient", backend="oracle").explain(x, 0), rtol=1e-12
    )


def test_the_plan_counts_eight_bytes(rng):
    layers = classifier(rng)
    single, double = (
        dtd.Explainer(layers, backend="cpu", precision=p).plan_for((8, 3, 6, 6)) for p in ("float32", "float64")
    )
    assert "arithmetic: float64, as asked for" in str(double)
    assert {b.dtype for b in single.buffers} == {"f4", "u1"}
    assert {b.dtype for b in double.buffers} == {"f8", "u1"}
    assert single.macs == double.macs
    assert 1.8 * single.arena <= double.arena <= 2 * single.arena


def test_beyond_float32(rng):
    """What float32 cannot hold is an error where float32 is returned, and a number where float64 is."""
    layers = [dtd.Linear(normal(rng, 4, 3).astype(np.float64) * 1e200), dtd.ReLU(), dtd.Linear(normal(rng, 2, 4))]
    x = normal(rng, 2, 3)
    with pytest.raises(dtd.NumericsError, match="float32"):
        dtd.explain(layers, x, backend="cpu")
    with pytest.raises(dtd.NumericsError, match="float32"):
        dtd.explain(layers, x, 0, rules=dtd.Epsilon(), convention="captum", backend="cpu")
    assert np.isfinite(dtd.explain(layers, x, backend="cpu", precision="float64")).all()


@pytest.mark.parametrize("size", [1e-43, 1e-22, 1e-17, 1e21])
@pytest.mark.parametrize("alone", [False, True])
def test_squares_of_weights_beyond_float32(size, alone, rng):
    """w² of a neuron whose weights have decayed, or grown: its bias keeps it on, so that it has relevance to share."""
    weight = normal(rng, 3, 4)
    weight[0] *= size
    onward = np.array([[1.0, 2.0, 3.0]]) / np.array([max(size, 1.0), 1.0, 1.0])
    layers = [dtd.Linear(weight.astype(np.float32), np.ones(3, np.float32) * max(size, 1.0)), dtd.ReLU()]
    layers += [] if alone else [dtd.Linear(onward.astype(np.float32))]
    x, start = normal(rng, 2, 4), np.ones((2, 3 if alone else 1))
    expected = dtd.explain(layers, x, start, backend="oracle")
    np.testing.assert_allclose(dtd.explain(layers, x, start, backend="cpu"), expected, rtol=1e-5)
    assert "squares" in str(dtd.Explainer(layers, backend="cpu").plan_for(x.shape))
    assert "arithmetic" not in str(dtd.Explainer(layers, backend="cpu", rules=dtd.ZPlus()).plan_for(x.shape))
    off = [dtd.Linear(layers[0].weight, -layers[0].bias), *layers[1:]]  # no relevance, or in the ends of the numbers
    assert ("squares" in str(dtd.Explainer(off, backend="cpu").plan_for(x.shape))) == (size > 1)


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (1e21, pytest.raises(dtd.RuleError, match=r"layer 0.*squares of its weights are above.*backend='cpu'")),
        (1e-17, pytest.warns(match=r"layer 0.*squares of its weights are below.*backend='cpu'.*lost")),
        (1.0, contextlib.nullcontext()),
    ],
)
def test_squares_of_weights_beyond_what_has_no_float64(size, told, rng):
    """On a GPU, and in bfloat16."""
    weight = normal(rng, 3, 4)
    weight[0] *= size
    layers = [dtd.Linear(weight, np.ones(3)), dtd.ReLU(), dtd.Linear(normal(rng, 2, 3))]
    book = RuleBook("dtd", CONVENTIONS["dtd"])
    with told:
        prepare(layers, (4,), False, EXPLAIN, None, None, book, Domain("real"), "bfloat16")


def test_which_backend_has_float64(monkeypatch, rng):
    """CUDA has none and says so; "auto" finds one that has."""
    monkeypatch.setitem(KNOWN, "cuda", lambda: Backend("cuda", True, "a GPU", ("float32", "tf32", "bfloat16")))
    layers = classifier(rng)
    with pytest.raises(
        dtd.BackendError,
        match=r"'float64' is not available on backend 'cuda', which computes in float32, tf32, bfloat16",
    ):
        dtd.Explainer(layers, backend="cuda", precision="float64")
    assert dtd.Explainer(layers, precision="float64").backend == "cpu"
    assert dtd.Explainer(layers, backend="oracle", precision="float64").backend == "oracle"
    with pytest.raises(dtd.BackendError, match="float64"):
        dtd.Explainer(layers, precision="float16")


def test_a_preparation_under_a_convention_that_takes_float64(rng):
    """Both reasons for float64 at once: all of the network takes it, and nothing is converted in between."""
    layers = [dtd.Preparation(normal(rng, 5), normal(rng, 5)), dtd.Linear(normal(rng, 7, 5), normal(rng, 7))]
    x, start = normal(rng, 3, 5), normal(rng, 3, 7)
    for rules in ("dtd", "lrp-epsilon", dtd.Gamma()):
        options = dict(rules=rules, convention="captum")
        expected = dtd.explain(layers, x, start, backend="oracle", **options)
        np.testing.assert_allclose(dtd.explain(layers, x, start, backend="cpu", **options), expected, rtol=1e-6)


@pytest.mark.parametrize("stop", [None, *range(6)])
@pytest.mark.parametrize("kind", ["dtd", "lrp-epsilon", "gradient"])
def test_relevance_leaves_above_what_takes_float64(kind, stop, rng):
    """At `stop` in the float32 part of a network with a Preparation, and everywhere else."""
    layers = [
        dtd.Preparation(normal(rng, 3), abs(normal(rng, 3)) + 0.5),
        dtd.Conv(normal(rng, 6, 3, 3, 3), normal(rng, 6)),
        dtd.ReLU(),
        dtd.Flatten(),
        dtd.Linear(normal(rng, 5, 96), normal(rng, 5)),
        dtd.ReLU(),
        dtd.Linear(normal(rng, 4, 5), normal(rng, 4)),
    ]
    x, options = normal(rng, 3, 3, 6, 6), dict(kind=kind) if kind == "gradient" else dict(rules=kind)
    found, exact = (dtd.Explainer(layers, stop=stop, backend=b, **options) for b in ("cpu", "oracle"))
    expected = exact.explain(x, [0, 1, 3])
    np.testing.assert_allclose(
        found.explain(x, [0, 1, 3]), expected, rtol=1e-4, atol=1e-6 * abs(expected).max(), err_msg=str(stop)
    )
    if kind != "gradient":
        assert found.ledger(x, 0).closed


def test_the_ledger_reads_the_bias_that_a_wide_unit_computed_with(rng):
    """Float64 below, float32 above: a bias that nearly cancels its terms must not be rounded on its way into the
    account.
    """
    weight, x = normal(rng, 7, 5).astype(float), normal(rng, 3, 5)
    bias = -(weight @ x[0]) * (1 + 1e-7)  # which float32 does not hold
    layers = [dtd.Linear(weight, bias), dtd.ReLU(), dtd.Linear(abs(normal(rng, 4, 7))), dtd.ReLU()]
    start = abs(normal(rng, 3, 4))
    for rules in ({0: dtd.Epsilon(), 2: dtd.ZPlus()}, {0: dtd.Zero(), 2: dtd.ZPlus()}):
        explainer = dtd.Explainer(layers, rules=rules, convention="captum", domain="real", backend="cpu")
        assert "float64 for values up to entry 1 and float32 above" in str(explainer.plan_for(x.shape))
        ledger = explainer.ledger(x, start)
        assert ledger.closed, str(ledger)


def test_relevance_beyond_float32():
    """All of it goes over a value that SiLU has all but zeroed. A smaller start has the range, as the message says."""
    layers = [
        dtd.Linear(np.full((1, 1), -98.0)), dtd.Activation("silu"), dtd.Linear(np.full((1, 1), -1.0), np.ones(1)),
    ]  # fmt: skip
    x, explain = np.ones((1, 1)), dtd.Explainer(layers, backend="cpu").explain
    with pytest.raises(dtd.NumericsError, match=r"start with the outputs' floats times 2\.0\*\*-64"):
        explain(x, 0)
    start = dtd.predict(layers, x)
    # one value, which float32 holds to few bits so near 0; everything is given back
    np.testing.assert_allclose(explain(x, start * 2.0**-64) * 2.0**64, start, rtol=8 * 2.0**-24)
