"""What the theory promises, shown on small networks: conservation, positivity, roots, and identities between
methods.
"""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

import dtdfast as dtd
import explicit
import nets
from cases import CASES
from support import normal

BOTH = pytest.mark.parametrize("backend", ["oracle", "cpu"])
UNIT = {"oracle": 2.0**-53, "cpu": 2.0**-24}


def mlp(rng, *widths, bias=lambda b: -abs(b)):
    """ReLU layers of the given widths, the last one linear."""
    layers = []
    for n_in, n_out in pairwise(widths):
        weight = rng.standard_normal((n_out, n_in)) * np.sqrt(2 / n_in)
        layers += [dtd.Linear(weight, bias(0.1 * rng.standard_normal(n_out))), dtd.ReLU()]
    return layers[:-1]


def convnet(rng, bias=lambda b: -abs(b)):
    def conv(c_out, c_in, **options):
        weight = rng.standard_normal((c_out, c_in, 3, 3)) * np.sqrt(2 / (9 * c_in))
        return dtd.Conv(weight, bias(0.1 * rng.standard_normal(c_out)), padding=1, **options)

    head = dtd.Linear(rng.standard_normal((10, 32 * 4)) / 8, bias(0.1 * rng.standard_normal(10)))
    return [
        conv(16, 3),
        dtd.ReLU(),
        dtd.MaxPool(2),
        conv(32, 16, stride=2),
        dtd.ReLU(),
        dtd.AvgPool(2),
        dtd.Flatten(),
        head,
    ]


def rounding(layers, backend):
    """Relative error of a sum after as many layers: each adds at most (fan-in + fan-out + c) roundings."""
    return UNIT[backend] * sum(np.size(r.weight) / len(r.weight) + np.size(r.weight) / r.weight.shape[1] + 12
                               for r in layers if hasattr(r, "weight"))  # fmt: skip


FIRST = {  # domain, and what it makes of standard normal numbers
    "real": ("real", lambda x: x),
    "nonnegative": ("nonnegative", abs),
    "box": ((-1.0, 1.5), lambda x: np.clip(x, -1, 1.5)),
    "box from zero": ((0.0, 1.5), lambda x: np.clip(abs(x), 0, 1.5)),
}


@BOTH
@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("kind", ["mlp", "convnet"])
def test_conservation_and_positivity(kind, first, backend, rng):
    """B <= 0: the relevance of the inputs sums to the output that is explained, and none of it is negative."""
    layers = mlp(rng, 64, 128, 64, 10) if kind == "mlp" else convnet(rng)
    domain, clip = FIRST[first]
    x = clip(rng.standard_normal((16, 64) if kind == "mlp" else (16, 3, 16, 16))).astype(np.float32)
    outputs = dtd.predict(layers, x, backend=backend).max(axis=1)
    assert (outputs > 0).sum() >= 8
    r_in = dtd.explain(layers, x, domain=domain, backend=backend)[outputs > 0]
    outputs = outputs[outputs > 0]
    assert r_in.min() >= 0
    sums = r_in.reshape(len(r_in), -1).sum(axis=1, dtype=np.float64)
    assert (abs(sums - outputs) <= rounding(layers, backend) * outputs).all()


@BOTH
def test_flat_first_layer_conserves(backend, rng):
    layers = mlp(rng, 64, 128, 64, 10)
    x = rng.standard_normal((16, 64)).astype(np.float32)
    outputs = dtd.predict(layers, x, backend=backend).max(axis=1)
    x, outputs = x[outputs > 0], outputs[outputs > 0]
    r_in = dtd.explain(layers, x, rules={0: dtd.Flat()}, backend=backend)
    assert len(x)
    assert r_in.min() >= 0
    assert (abs(r_in.sum(axis=1, dtype=np.float64) - outputs) <= rounding(layers, backend) * outputs).all()


@pytest.mark.parametrize("first", FIRST)
def test_roots(first, rng):
    """R_i = (x - root)_i w_i with the root on y = 0 and inside the domain: the root, read off the relevance."""
    domain, clip = FIRST[first]
    checked = 0
    for _ in range(20):
        weight, bias = rng.standard_normal(12), -abs(rng.standard_normal())
        x = clip(rng.standard_normal(12))
        y = weight @ x + bias
        if y <= 0:
            continue
        checked += 1
        layers = [dtd.Linear(weight[None], [bias]), dtd.ReLU()]
        root = x - dtd.explain(layers, x[None], 0, domain=domain, backend="oracle")[0] / weight
        assert abs(weight @ root + bias) <= 1e-14 * (abs(weight) @ abs(x) + abs(bias))
        if domain == "nonnegative":
            assert root.min() >= -1e-15
        elif domain != "real":
            assert root.min() >= domain[0] - 1e-15
            assert root.max() <= domain[1] + 1e-15
    assert checked >= 3


def test_wsquare_is_sensitivity_times_output(rng):
    """One neuron: w^2 / sum w^2 * y, with w^2 the sensitivity."""
    weight, x = rng.standard_normal((2, 1, 12))
    layers = [dtd.Linear(weight), dtd.ReLU()]
    x = x if weight[0] @ x[0] > 0 else -x
    sensitivity = dtd.baselines.sensitivity(layers, x, 0, backend="oracle")
    np.testing.assert_allclose(sensitivity, weight**2, rtol=1e-15)
    expected = sensitivity / sensitivity.sum() * dtd.predict(layers, x, backend="oracle")
    np.testing.assert_allclose(dtd.explain(layers, x, 0, backend="oracle"), expected, rtol=1e-14)


@BOTH
def test_simple_taylor_at_a_root(backend, rng):
    """On one neuron the first-order expansion at a root of y is exact: it sums to y."""
    weight, x = rng.standard_normal((2, 1, 12))
    x = (x if weight[0] @ x[0] > 0 else -x).astype(np.float32)
    layers = [dtd.Linear(weight)]
    y = dtd.predict(layers, x, backend=backend).item()
    root = x - y * weight / (weight**2).sum()
    taylor = dtd.baselines.simple_taylor(layers, x, root, 0, backend=backend)
    assert abs(taylor.sum() - y) <= 64 * UNIT["cpu"] * abs(weight * x).sum()
    np.testing.assert_allclose(
        taylor, dtd.explain(layers, x, 0, backend=backend), rtol=0, atol=64 * UNIT["cpu"] * abs(weight * x).sum()
    )


@BOTH
def test_simple_taylor_takes_the_gradient_at_the_root(backend, rng):
    """Of Σ w tanh x: (x − root) w (1 − tanh² root)."""
    weight, x, root = rng.standard_normal((3, 1, 12)).astype(np.float32)
    layers = [dtd.Activation("tanh"), dtd.Linear(weight)]
    taylor = dtd.baselines.simple_taylor(layers, x, root, 0, backend=backend)
    expected = (x - root) * weight * (1 - np.tanh(root) ** 2)
    np.testing.assert_allclose(taylor, expected, rtol=0, atol=64 * UNIT["cpu"] * abs(expected).max())


@BOTH
@pytest.mark.parametrize("x", [(3.0, 1.0), (1.0, 0.25), (2.0, 0.0), (1.0, 3.0)])
def test_maximum_of_two(x, backend):
    """F = max(x1, x2) as a network: for x1 > x2 >= 0, R = ((2 x1 - x2) / 2, x2 / 2)."""
    layers = [dtd.Linear([[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]), dtd.ReLU(), dtd.Linear([[0.5, 0.5, 0.5]]), dtd.ReLU()]
    high, low = max(x), min(x)
    expected = np.array([(2 * high - low) / 2, low / 2])[:: 1 if x[0] > x[1] else -1]
    given = np.array([x])
    assert dtd.predict(layers, given, backend=backend).item() == high
    np.testing.assert_allclose(
        dtd.explain(layers, given, 0, domain="nonnegative", backend=backend), expected[None], rtol=4 * UNIT[backend]
    )


@pytest.mark.parametrize("kind", ["mlp", "biased mlp", "convnet", "biased convnet"])
def test_zero_is_gradient_times_input(kind, rng):
    bias = (lambda b: 3 * b) if "biased" in kind else (lambda b: 0 * b)
    layers = mlp(rng, 64, 128, 64, 10, bias=bias) if "mlp" in kind else convnet(rng, bias)
    x = rng.standard_normal((4, 64) if "mlp" in kind else (4, 3, 16, 16))
    expected = dtd.baselines.input_x_gradient(layers, x, 3, backend="oracle")
    r_in = dtd.explain(layers, x, 3, rules="lrp-0", backend="oracle")
    # the start is f, and the gradient's is 1: R = f / f * x * gradient only through s = R / y; so each agrees to its
    # own rounding
    assert abs(r_in - expected).max() <= 1e-12 * abs(expected).max()


def test_zero_is_gradient_times_input_of_words_and_inside(rng):
    """Of words, vectors times gradients; at `stop`, what stands there."""
    words = nets.text_cnn(12, 8, bias="none")
    for layers, x, options in (
        (words.layers, words.sample(3), {}),
        (words.layers, words.sample(3), {"stop": 0}),
        (convnet(rng, lambda b: 0 * b), rng.standard_normal((2, 3, 16, 16)), {"stop": 1}),
    ):
        expected = dtd.baselines.input_x_gradient(layers, x, 1, backend="oracle", **options)
        r_in = dtd.explain(layers, x, 1, rules="lrp-0", backend="oracle", **options)
        assert expected.shape == r_in.shape
        assert abs(r_in - expected).max() <= 1e-12 * abs(expected).max()


@BOTH
def test_the_gradient_of_words_is_summed_over_their_vectors(backend, rng):
    table, weight, ids = normal(rng, 9, 4), normal(rng, 3, 12), rng.integers(0, 9, (5, 3))
    layers = [dtd.Embedding(table), dtd.ReLU(), dtd.Flatten(), dtd.Linear(weight)]
    expected = ((table[ids] > 0) * weight[1].astype(np.float64).reshape(3, 4)).sum(axis=2)
    found = dtd.baselines.gradient(layers, ids, 1, backend=backend)
    np.testing.assert_allclose(found, expected, rtol=0, atol=4 * UNIT[backend] * 4 * abs(weight).max())  # 4 terms


@BOTH
@pytest.mark.parametrize("twice", [False, True], ids=["one vector", "two vectors"])
def test_the_sensitivity_of_words_is_the_squared_length_of_their_gradient(twice, backend, rng):
    """Arras et al., whatever kind of array holds the words."""
    table, weight, ids = normal(rng, 9, 4), normal(rng, 3, 24 if twice else 12), rng.integers(0, 9, (5, 3))
    second = [dtd.Embedding(-table, inputs=dtd.INPUT), dtd.Concat(-1, inputs=(0, 1))] if twice else []
    layers = [dtd.Embedding(table), *second, dtd.ReLU(), dtd.Flatten(), dtd.Linear(weight)]
    vectors = np.concatenate([table, -table], axis=1) if twice else table
    expected = (((vectors[ids] > 0) * weight[1].astype(np.float64).reshape(3, -1)) ** 2).sum(axis=2)
    found = dtd.baselines.sensitivity(layers, ids, 1, backend=backend)
    np.testing.assert_allclose(found, expected, rtol=20 * UNIT[backend])  # up to 8 squares
    frame = dtd.baselines.sensitivity(layers, pd.DataFrame(ids, columns=list("abc")), 1, backend=backend)
    assert list(frame.columns) == list("abc")
    np.testing.assert_array_equal(frame, found)
    several = dtd.baselines.sensitivity(layers, ids, [[0, 1]], backend=backend)
    np.testing.assert_array_equal(several[:, 1], found)


@BOTH
def test_gate_form_is_message_form(backend, rng):
    """R_i = x_i c_i, c_i = sum_j w+_ij g_j c_j, g_j = x_j / z+_j, written out against the messages x_i w+_ij R_j /
    z+_j.
    """
    layers = mlp(rng, 20, 32, 32, 8)
    x = abs(rng.standard_normal((5, 20))).astype(np.float32)
    activations, weights = [x.astype(float)], [np.asarray(r.weight, float) for r in layers[::2]]
    for record in layers[::2]:
        y = activations[-1] @ np.asarray(record.weight).T + record.bias
        activations.append(np.maximum(y, 0))
    start = activations.pop()
    gate_form, messages = None, start
    c = np.ones_like(start)
    gates_of = [start, *activations[:0:-1]]
    for a, w, out in zip(activations[::-1], weights[::-1], gates_of, strict=True):
        z = a @ np.maximum(w, 0).T
        c = (np.divide(out, z, out=np.zeros_like(z), where=z > 0) * c) @ np.maximum(w, 0)
        messages = a * (np.divide(messages, z, out=np.zeros_like(z), where=z > 0) @ np.maximum(w, 0))
        gate_form = a * c
    np.testing.assert_allclose(gate_form, messages, rtol=0, atol=1e-15 * messages.max())
    r_in = dtd.explain(layers, x, start, domain="nonnegative", backend=backend)
    assert abs(r_in - messages).max() <= 3 * rounding(layers, backend) * messages.max()


@BOTH
def test_negative_start_stays_negative(backend, rng):
    layers = mlp(rng, 16, 32, 4)
    x = rng.standard_normal((6, 16)).astype(np.float32)
    start = -abs(rng.standard_normal((6, 4))).astype(np.float32)
    r_in = dtd.explain(layers, x, start, backend=backend)
    assert r_in.max() <= 0
    np.testing.assert_array_equal(dtd.explain(layers, x, -start, backend=backend), -r_in)


@BOTH
def test_relevance_is_linear_in_its_start(backend, rng):
    """R(a + b) = R(a) + R(b): the denominators belong to the forward pass."""
    layers = convnet(rng, bias=np.asarray)
    x = rng.standard_normal((2, 3, 16, 16)).astype(np.float32)
    a, b = rng.integers(-9, 10, (2, 2, 10)).astype(np.float32)  # whole numbers, so that a + b is exact
    together = dtd.explain(layers, x, a + b, backend=backend)
    parts = dtd.explain(layers, x, a, backend=backend) + dtd.explain(layers, x, b, backend=backend)
    size = dtd.explain(layers, x, abs(a) + abs(b), backend=backend)
    assert (abs(together - parts) <= 3 * rounding(layers, backend) * size).all()


# ------------------------------------------------------------------------------------------------------------- ledger

CANCELS = (explicit.epsilon, explicit.gamma)
WELL_CONDITIONED = [case for case in CASES if case.row.terms.func not in CANCELS and case.row.rule.bias != "full"]


@BOTH
@pytest.mark.parametrize("case", WELL_CONDITIONED[:: len(WELL_CONDITIONED) // 80], ids=lambda case: case.id)
def test_ledger_says_where_relevance_went(case, backend):
    """Absorbed by bias, stabilizer, zero denominators and surplus, each as the explicit matrix has it."""
    x, r_out = case.x, case.r_out
    ledger = dtd.Explainer(case.layers, **case.options(backend)).ledger(x, r_out)
    expected = dict.fromkeys(("bias", "stabilizer", "zero denominator", "surplus"), 0.0)
    size = 0.0
    for sample, r in zip(x, r_out.reshape(len(x), -1).astype(np.float64), strict=True):
        terms = case.terms(sample)
        for n, t, term_size, coefficient, *_ in terms:
            stabilizer = (case.row.rule.stabilizer or 0.0) * np.where(t < 0, -1, 1)
            d = t + stabilizer
            empty = (np.min(coefficient) < 0) & ~n.any(axis=1)  # no negative term: β is surplus, whatever else is in d
            if not getattr(case.row.rule, "fallback", False):
                expected["surplus"] += (coefficient * r)[empty].sum()
            coefficient = np.where(empty, 0.0, coefficient)
            s = np.divide(coefficient * r, d, out=np.zeros_like(d), where=d != 0)
            size += abs(s) @ term_size + abs(r).sum()
            expected["bias"] += s @ (t - n.sum(axis=1))
            expected["stabilizer"] += s @ stabilizer
            expected["zero denominator"] += (coefficient * r)[d == 0].sum()
    tolerance = 1e-12 if backend == "oracle" else case.tolerance(UNIT["cpu"])
    for cause, amount in expected.items():
        assert abs(ledger.absorbed[cause].sum() - amount) <= tolerance * size, cause
    assert ledger.closed, str(ledger)


def five_percent(packed):
    packed.flat[packed.argmax()] *= 1.05


def lost_tap(packed):
    packed[..., 0, :, :] = 0  # of [group][block][tap][channel][16]


def swapped_channels(packed):
    packed[..., [0, 1], :] = packed[..., [1, 0], :]


@pytest.mark.parametrize("defect", [five_percent, lost_tap, swapped_channels])
@pytest.mark.parametrize("rules", ["dtd", "lrp-epsilon", {2: dtd.WSquare()}], ids=str)
def test_ledger_exposes_a_wrong_kernel(defect, rules, rng, monkeypatch):
    """A defect in what one layer's transposed product reads opens that layer's row and no other."""
    layers = [dtd.Conv(abs(rng.standard_normal((16, 3, 3, 3))), padding=1), dtd.ReLU(),
              dtd.Conv(rng.standard_normal((17, 16, 3, 3))), dtd.ReLU(), dtd.GlobalAvgPool()]  # fmt: skip
    x, start = abs(rng.standard_normal((2, 3, 6, 6))), abs(rng.standard_normal((2, 17, 1, 1)))

    def ledger():
        return dtd.Explainer(layers, rules=rules, domain="nonnegative", backend="cpu").ledger(x, start)

    assert ledger().closed
    packing = pytest.importorskip("dtdfast.packing")
    right = packing.pack

    def wrong(weights, *threads):
        packed = right(weights, *threads)
        if weights.scatter and weights.part.position == 2:
            packed = packed.copy()
            defect(packed)
        return packed

    monkeypatch.setattr(packing, "pack", wrong)
    spoilt = ledger()
    assert not spoilt.closed
    assert [row.entries for row in spoilt.rows if not row.closed] == [(2, 3)]
    assert "open" in str(spoilt)


def test_ledger_exposes_a_wrong_oracle(rng, monkeypatch):
    from dtdfast.oracle import executor as oracle

    layers = mlp(rng, 16, 32, 4)
    x = rng.standard_normal((4, 16))
    assert dtd.Explainer(layers, backend="oracle").ledger(x).closed
    right = oracle.scatter
    monkeypatch.setattr(oracle, "scatter", lambda s, w, taps: right(s, w, taps) * (1 + 1e-9))
    assert not dtd.Explainer(layers, backend="oracle").ledger(x).closed


# -------------------------------------------------------------------------------------------------- a trained network


@BOTH
def test_digits_conserve_and_are_positive(backend):
    """The network that ships with the package, on digits that it never saw: sum R = f, R >= 0."""
    from dtdfast.data import digits

    layers, images, labels = digits()
    assert all(record.bias is None or np.max(record.bias) <= 0 for record in layers if hasattr(record, "weight"))
    for domain in ((0.0, 1.0), "nonnegative", "real"):
        r_in, outputs = dtd.explain(layers, images, domain=domain, backend=backend, return_outputs=True)
        f = outputs.max(axis=1)
        assert f.min() > 0
        assert r_in.min() >= 0
        sums = r_in.reshape(len(r_in), -1).sum(axis=1, dtype=np.float64)
        assert (abs(sums - f) <= rounding(layers, backend) * f).all()
    assert (outputs.argmax(axis=1) == labels).mean() > 0.95


JOINED = {
    "add": [dtd.Add(inputs=(1, 3))],
    "add of scaled": [dtd.Scale([1.0, -2.0, 0.5, -1.0], [0.5, -0.5, 1.0, 0.0], inputs=1), dtd.Add(inputs=(4, 3))],
    "concat": [dtd.Concat(inputs=(1, 3))],
    "concat, scaled": [dtd.Concat(inputs=(1, 3)), dtd.Scale([1.0, -2.0, 0.5, -1.0] * 2, [0.5, -0.5, 1.0, 0.0] * 2)],
    "add, scaled": [dtd.Add(inputs=(1, 3)), dtd.Scale([1.0, -2.0, 0.5, -1.0], [0.5, -0.5, 1.0, 0.0])],
    "slice of concat": [dtd.Concat(inputs=(1, 3)), dtd.Slice(1, 2, 7)],
    "add that doubles": [dtd.Add(inputs=(1, 3))],
}
SHARED = {
    "dtd": "dtd",
    "lrp-epsilon": "lrp-epsilon",
    "excitation-backprop": "excitation-backprop",
    "alpha 2 beta 1": dtd.AlphaBeta(bias="by_sign", stabilizer=0.1),
    "gamma": dtd.Gamma(),
}


@BOTH
@pytest.mark.parametrize("rules", SHARED)
@pytest.mark.parametrize("joined", JOINED)
def test_the_ledger_names_what_goes_around_stop(joined, rules, backend, rng):
    """It closes at either of two operands, and what it says to go around the one is what arrives at the other."""
    x, start = normal(rng, 3, 5), normal(rng, 3, 2)
    layers = [
        dtd.Linear(normal(rng, 4, 5)),
        dtd.ReLU(),
        dtd.Linear(normal(rng, 4, 5), inputs=dtd.INPUT),
        dtd.ReLU(),
        *JOINED[joined],
    ]
    layers.append(dtd.Linear(normal(rng, 2, dtd.predict(layers, x).shape[1])))
    given = {4: dtd.Pass()} if joined == "add that doubles" else SHARED[rules]
    left, right = (dtd.Explainer(layers, rules=given, backend=backend, stop=stop).ledger(x, start) for stop in (1, 3))
    for ledger, other in ((left, right), (right, left)):
        assert ledger.closed, str(ledger)
        if joined == "add of scaled":  # the scale, too, absorbs, at the one operand alone
            continue
        atol = 64 * UNIT[backend] * (abs(ledger.end) + abs(other.end) + abs(start).sum(1)).max()
        np.testing.assert_allclose(ledger.absorbed["around stop"], other.end, rtol=0, atol=atol)
    assert not dtd.Explainer(layers, rules=given, backend=backend).ledger(x, start).absorbed["around stop"].any()
