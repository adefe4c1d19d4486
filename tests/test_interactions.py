"""dtdfast.interactions: BiLRP, co-relevance, and Taylor terms of second order."""

import numpy as np
import pytest
from numpy.random import Generator

import dtdfast as dtd
from dtdfast import interactions
from support import classifier, normal, run_page

EXACT = {"backend": "cpu", "precision": "float64"}


def embedding(rng: Generator) -> list[dtd.Layer]:
    """Six features of (3, 6, 6) images, with a final axis pair that is flattened."""
    return [dtd.Conv(normal(rng, 4, 3, 3, 3), padding=1), dtd.ReLU(), dtd.Conv(normal(rng, 6, 4, 6, 6))]


def smooth(rng: Generator) -> list[dtd.Layer]:
    first, second = dtd.Linear(normal(rng, 8, 5), normal(rng, 8)), dtd.Linear(normal(rng, 3, 8), normal(rng, 3))
    return [first, dtd.Activation("softplus"), second]


@pytest.mark.parametrize("rules", ["lrp-0", dtd.Gamma(0.25), "dtd"])
def test_bilrp_is_the_sum_over_single_explanations(rng: Generator, rules: object) -> None:
    layers, x, other = embedding(rng), normal(rng, 2, 3, 6, 6), normal(rng, 2, 3, 6, 6)
    regions = interactions.patches((3, 6, 6), 2)
    found = interactions.bilrp(layers, x, other, regions=regions, rules=rules, **EXACT)
    expected = np.zeros((2, 9, 9))
    for m in range(6):
        r, s = (dtd.explain(layers, side, (m, 0, 0), rules=rules, **EXACT) for side in (x, other))
        pooled = [side.sum(axis=1).reshape(2, 3, 2, 3, 2).sum(axis=(2, 4)).reshape(2, 9) for side in (r, s)]
        expected += pooled[0][:, :, None] * pooled[1][:, None, :]
    np.testing.assert_allclose(found.relevance, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    a, b = (dtd.explain(layers, side, (0, 0, 0), return_outputs=True, **EXACT)[1] for side in (x, other))
    np.testing.assert_allclose(found.explained, (a * b).sum(axis=(1, 2, 3)), rtol=1e-12)
    if rules == "lrp-0":  # no bias: nothing is absorbed
        np.testing.assert_allclose(found.absorbed, 0, atol=1e-9 * np.abs(expected).sum())


def test_equal_sides_give_a_symmetric_matrix(rng: Generator) -> None:
    layers, x = embedding(rng), normal(rng, 1, 3, 6, 6)
    found = interactions.bilrp(layers, x, **EXACT)
    assert found.relevance.shape == (1, 108, 108)
    np.testing.assert_array_equal(found.relevance, found.relevance.transpose(0, 2, 1))
    # NumPy multiplies a matrix with itself by another routine than two that are equal, and which of them it is may
    # depend on where they lie: six terms each, of which Σ |terms| is at most the largest of the diagonal
    twice = interactions.bilrp(layers, x, x.copy(), **EXACT).relevance
    np.testing.assert_allclose(twice, found.relevance, rtol=0, atol=2 * 6 * 2.0**-53 * found.relevance.max())


def test_one_forward_pass_and_one_back_for_each_feature(rng: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    from dtdfast.cpu.executor import CpuSession

    forward, back, layers, x = [], [], embedding(rng), normal(rng, 1, 3, 6, 6)
    run, share = CpuSession.forward, CpuSession.relevance
    monkeypatch.setattr(CpuSession, "forward", lambda self, x: forward.append(len(x)) or run(self, x))
    monkeypatch.setattr(CpuSession, "relevance", lambda self, s, *r: back.append(s.shape[1]) or share(self, s, *r))
    interactions.bilrp(layers, x, backend="cpu")
    assert (sum(forward), sum(back)) == (1, 6)
    interactions.bilrp(layers, x, x.copy(), backend="cpu")
    assert (sum(forward), sum(back)) == (1 + 2, 6 + 12)


def test_the_strongest_pairs_are_those_of_the_whole_matrix(rng: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    layers, x, other = embedding(rng), normal(rng, 2, 3, 6, 6), normal(rng, 2, 3, 6, 6)
    whole = interactions.bilrp(layers, x, other, **EXACT)
    monkeypatch.setitem(interactions.top_pairs.__globals__, "BLOCK", 1000)  # nine rows at a time
    for mine, expected, matrix in zip(
        interactions.top_pairs(layers, x, other, k=7, **EXACT), whole.top(7), whole.relevance, strict=True
    ):
        assert [p[:2] for p in mine] == [p[:2] for p in expected]
        np.testing.assert_allclose([p.relevance for p in mine], [matrix[p[:2]] for p in mine], rtol=1e-12)
        assert abs(mine[-1].relevance) == pytest.approx(np.sort(np.abs(matrix).ravel())[-7])


def test_words_are_pairs_of_tokens(rng: Generator) -> None:
    layers = [dtd.Embedding(normal(rng, 9, 4)), dtd.Linear(normal(rng, 5, 4)), dtd.Reduce("mean", axes=(1,))]
    found = interactions.bilrp(layers, np.array([[1, 2, 3]]), np.array([[3, 4, 5]]), rules="lrp-0", **EXACT)
    assert found.relevance.shape == (1, 3, 3)
    np.testing.assert_allclose(found.absorbed, 0, atol=1e-9 * np.abs(found.relevance).sum())


@pytest.mark.parametrize("position", [1, 2])
def test_co_relevance(rng: Generator, position: int) -> None:
    layers, x = classifier(rng), np.abs(normal(rng, 2, 3, 6, 6))
    options = {"rules": dtd.ZPlus(), "domain": "nonnegative", **EXACT}
    regions = interactions.patches((3, 6, 6), 3)
    found = interactions.co_relevance(layers, x, np.array([0, 1]), position=position, regions=regions, **options)
    start = np.abs(dtd.explain(layers, x, np.array([0, 1]), stop=position, **options))
    relevance = dtd.explain(layers, x, np.array([0, 1]), **options)
    rows = np.stack([[one[:, regions[0] == r].sum() for r in range(4)] for one in relevance])
    assert found.relevance.shape == (2, 4, 4)
    np.testing.assert_array_equal(found.relevance, found.relevance.transpose(0, 2, 1))
    np.testing.assert_allclose(found.relevance.sum(axis=2), rows, atol=1e-6 * start.sum())
    sign = np.sign(found.explained)[:, None, None]  # of the output, which z⁺ hands on
    assert (found.relevance * sign >= 0).all()


def test_terms_of_second_order(rng: Generator) -> None:
    layers, x, root = smooth(rng), normal(rng, 3, 5).astype(np.float64), 0.3
    w, b, v, c = (np.asarray(a, np.float64) for r in (layers[0], layers[2]) for a in (r.weight, r.bias))
    found = interactions.taylor_terms(layers, x, 1, root=root)
    at = np.full_like(x, root) @ w.T + b
    slope = 1 / (1 + np.exp(-at))
    way = x - root
    first = way * ((slope * v[1]) @ w)
    bent = np.einsum("nj,ji,jk,nk->ni", slope * (1 - slope) * v[1], w, w, way)
    np.testing.assert_allclose(found.first, first, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.second, way * bent / 2, rtol=0, atol=1e-8 * np.abs(way * bent).max())
    f = [np.log1p(np.exp(p)) @ v[1] + c[1] for p in (x @ w.T + b, at)]
    np.testing.assert_allclose(found.outputs, f[0], rtol=1e-12)
    np.testing.assert_allclose(found.rest, f[0] - f[1] - first.sum(1) - (way * bent / 2).sum(1), atol=1e-7)


def test_beyond_first_order_all_vanishes_within_a_linear_region(rng: Generator) -> None:
    layers = [dtd.Linear(normal(rng, 8, 5), normal(rng, 8)), dtd.ReLU(), dtd.Linear(normal(rng, 3, 8), normal(rng, 3))]
    x = normal(rng, 4, 5).astype(np.float64)
    y = x @ layers[0].weight.T.astype(np.float64) + layers[0].bias
    way = 1e-3 * normal(rng, 4, 5)
    assert (np.abs(y) > np.abs(way) @ np.abs(layers[0].weight.T)).all(), "the roots lie in the region of x"
    found = interactions.taylor_terms(layers, x, root=x - way)
    np.testing.assert_array_equal(found.second, 0)
    np.testing.assert_allclose(found.left_out, 0, atol=1e-14 * np.abs(found.outputs).max() * 64)
    far = interactions.taylor_terms(layers, x, root=-x)  # another region: no term says what is left out
    assert np.abs(far.left_out).max() > 0.1
    np.testing.assert_array_equal(far.second, 0)


def test_a_root_on_a_kink_has_no_second_order(rng: Generator) -> None:
    hidden, last = dtd.Linear(normal(rng, 4, 8)), dtd.Linear(normal(rng, 3, 4))
    pooled = [dtd.Reshape((2, 4)), dtd.MaxPool(2), dtd.Flatten(), last]  # at 0 all elements are equal
    both = [dtd.Linear(np.concatenate([np.eye(8), -np.eye(8)])), dtd.ReLU(), dtd.Linear(np.ones((1, 16)))]  # Σ|x|
    x = normal(rng, 3, 8).astype(np.float64)
    for layers in ([hidden, dtd.ReLU(), last], pooled, both):
        found = interactions.taylor_terms(layers, x, 0)
        assert np.isnan(found.second).all(), layers
        assert np.isfinite(found.left_out).all(), layers
        assert "3 root(s) lie on a kink" in found.reading
    root = np.array([0.0, 1, 0])[:, None] * x / 2
    np.testing.assert_array_equal(np.isnan(interactions.taylor_terms(both, x, 0, root=root).rest), [True, False, True])
    square = [dtd.Mul(inputs=(dtd.INPUT, dtd.INPUT)), dtd.Linear(np.ones((1, 8)))]  # whose gradient is 0 at 0
    np.testing.assert_allclose(interactions.taylor_terms(square, x, 0).second, x**2, rtol=1e-12)


def test_refused(rng: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    layers, x = embedding(rng), normal(rng, 2, 3, 6, 6)
    with pytest.raises(dtd.ShapeError, match="2 samples, but 1 to compare"):
        interactions.bilrp(layers, x, x[:1])
    with pytest.raises(dtd.ShapeError, match=r"regions has shape \(6, 6\)"):
        interactions.bilrp(layers, x, regions=np.zeros((6, 6), int))
    with pytest.raises(dtd.ShapeError, match="integers from 0"):
        interactions.bilrp(layers, x, regions=np.zeros((3, 6, 6)))
    with pytest.raises(dtd.InputError, match="'deep_taylor' leaves out what is below 0"):
        interactions.bilrp(layers, x, rules="deep_taylor")
    with pytest.raises(dtd.ShapeError, match="root has shape"):
        interactions.taylor_terms(smooth(rng), normal(rng, 2, 5), root=np.zeros(3))
    with pytest.raises(dtd.TargetError, match="one integer"):
        interactions.taylor_terms(smooth(rng), normal(rng, 2, 5), [0.5, 1.0])
    with pytest.raises(dtd.ShapeError, match="at least 1"):
        interactions.patches((3, 6, 6), 0)
    monkeypatch.setenv("DTDFAST_MEMORY", "60K")
    with pytest.raises(dtd.MemoryBudgetError, match="pairs of 108 and 108"):
        interactions.bilrp(layers, x)


def test_page(capsys: pytest.CaptureFixture[str]) -> None:
    names = run_page("interactions.md")
    assert names["pairs"].relevance.shape == (1, 64, 64)
    assert "the ten strongest pairs hold" in capsys.readouterr().out


@pytest.mark.parametrize("x", [3.0, "a", np.ones((0, 3, 6, 6)), np.ma.masked_all((1, 3, 6, 6)), [[1.0], [1.0, 2.0]]])
def test_x_that_is_no_batch(rng: Generator, x: object) -> None:
    layers = classifier(rng)
    for call in (
        lambda: interactions.bilrp(layers, x),
        lambda: interactions.bilrp(layers, np.ones((1, 3, 6, 6)), x),
        lambda: interactions.top_pairs(layers, x),
        lambda: interactions.co_relevance(layers, x, position=1),
        lambda: interactions.taylor_terms(layers, x, root=0.0),
    ):
        with pytest.raises(dtd.DtdError, match=r"x has|other has|is text|masked array|cannot be read"):
            call()


@pytest.mark.parametrize("label", [27 * 4, 2**40, 2**62, np.uint64(2**63)])
def test_labels_beyond_the_inputs(rng: Generator, label: object) -> None:
    layers, x = classifier(rng), normal(rng, 1, 3, 6, 6)
    regions = np.full((3, 6, 6), label)
    for call in (interactions.bilrp, interactions.top_pairs):
        with pytest.raises(dtd.ShapeError, match=f"the label {label}, but there are 108 inputs"):
            call(layers, x, regions=regions)


def test_targets_of_one_sample(rng: Generator) -> None:
    layers, x = classifier(rng), normal(rng, 2, 3, 6, 6)
    options = {"position": len(layers) - 2, "regions": np.zeros((3, 6, 6), int), "backend": "cpu"}
    found = interactions.co_relevance(layers, x, dtd.Contrast([0, 1], [2, 2]), **options)
    for i in range(2):
        one = interactions.co_relevance(layers, x[i : i + 1], dtd.Contrast(i, 2), **options)
        np.testing.assert_array_equal(found.relevance[i], one.relevance[0])
    np.testing.assert_array_equal(
        interactions.co_relevance(layers, x, np.array(1), **options).relevance,
        interactions.co_relevance(layers, x, 1, **options).relevance,
    )
    with pytest.raises(dtd.TargetError, match="several outputs for each sample"):
        interactions.co_relevance(layers, x, [[0, 1]] * 2, **options)
    with pytest.raises(dtd.InputError, match="k is -1"):
        interactions.top_pairs(layers, x, k=-1)


@pytest.mark.parametrize("backend", ["cpu", "oracle"])
def test_simple_taylor_within_the_network(backend, rng):
    """At `stop` it is that of the layers above, of what stands there at x and at the root."""
    tanh = dtd.Activation("tanh")
    layers = [dtd.Linear(rng.standard_normal((6, 4))), tanh, dtd.Linear(rng.standard_normal((3, 6))), tanh]
    x, root = rng.standard_normal((2, 2, 4))
    found = dtd.baselines.simple_taylor(layers, x, root, 1, backend=backend, stop=1)
    below = [dtd.predict(layers[:2], a, backend=backend) for a in (x, root)]
    expected = dtd.baselines.simple_taylor(layers[2:], *below, 1, backend=backend)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [np.int64, np.uint8])
def test_simple_taylor_of_words_is_that_of_their_vectors(kind, rng):
    """Summed over each vector, and no difference of the words' numbers."""
    table, tanh = rng.standard_normal((9, 4)), dtd.Activation("tanh")
    layers = [dtd.Embedding(table), tanh, dtd.Flatten(), dtd.Linear(rng.standard_normal((3, 12)))]
    x, root = rng.integers(0, 9, (2, 5, 3)).astype(kind)
    found = dtd.baselines.simple_taylor(layers, x, root, 1, **EXACT)
    expected = dtd.baselines.simple_taylor(layers[1:], table[x], table[root], 1, **EXACT).sum(axis=2)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_simple_taylor_subtracts_in_float64(rng):
    layers, x = [dtd.Linear(np.ones((1, 2)))], np.array([[60000, 1]], np.float16)
    found = dtd.baselines.simple_taylor(layers, x, -x, 0)
    np.testing.assert_array_equal(found, [[120000, 2]])  # beyond float16


def test_values_at_an_entry_have_the_precision_that_is_asked_for(rng):
    first, weight = rng.standard_normal((2, 6, 6)).astype(np.float32)
    layers, x = [dtd.Linear(first), dtd.Activation("tanh"), dtd.Linear(weight)], rng.standard_normal((2, 6))
    expected = np.tanh(x @ first.T.astype(np.float64)) * weight[1]
    found = dtd.baselines.input_x_gradient(layers, x, 1, stop=1, **EXACT)
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15)
    found = dtd.baselines.simple_taylor(layers, x, 0 * x, 1, stop=1, **EXACT)
    np.testing.assert_allclose(found, np.tanh(x @ first.T.astype(np.float64)) * weight[1], rtol=1e-13, atol=1e-15)


def test_options_that_would_be_overwritten_or_ignored_are_refused(rng):
    layers, x = (
        [dtd.Linear(rng.standard_normal((3, 4))), dtd.ReLU(), dtd.Linear(rng.standard_normal((3, 3)))],
        np.ones((2, 4)),
    )
    for call, option in (
        (lambda **k: interactions.co_relevance(layers, x, 0, position=0, **k), dict(stop=1)),
        (lambda **k: interactions.taylor_terms(layers, x, 0, **k), dict(rules="lrp-0")),
        (lambda **k: dtd.diagnostics.cosine_convergence(layers, x, **k), dict(stop=1)),
        (lambda **k: dtd.diagnostics.root_audit(layers, x, **k), dict(kind="gradient")),
        (lambda **k: dtd.diagnostics.top_neurons(layers, x, position=0, **k), dict(stop=1)),
        (lambda **k: dtd.diagnostics.mixing_bound(layers, x, **k), dict(stop=1)),
        (lambda **k: dtd.evaluation.compare(layers, x, **k), dict(start=1)),
        (lambda **k: dtd.evaluation.compare(layers, x, **k), dict(stop=1)),
        (lambda **k: dtd.diagnostics.conservation(layers, x, **k), dict(return_ledger=True)),
        (lambda **k: dtd.concepts.channel_relevance(layers, x, position=0, **k), dict(stop=1)),
    ):
        with pytest.raises(dtd.InputError, match=f"{next(iter(option))}= is for `explain` alone"):
            call(**option)
