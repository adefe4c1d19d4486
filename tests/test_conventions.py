"""Each convention's habits on one neuron or pool, by formulas written out by hand, for relevance 1 at the output."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import dtdfast as dtd

BACKENDS = [b.name for b in dtd.backends().values() if b.usable and b.name != "cuda"]
X = (1.5, -0.5)
W = (2.0, 1.0)
Z = [x * w for x, w in zip(X, W, strict=True)]  # 3 and −0.5
B = -0.75
A = 0.01  # an activation small enough for the stabilisers to show in float32


def neuron(w: Any = W, b: float = B) -> list[dtd.Layer]:
    return [dtd.Linear(np.array([w]), np.array([b]))]


def explain(layers: list[dtd.Layer], x: Any, backend: str, **options: Any) -> NDArray[Any]:
    """Relevance of one sample, 1 at its first output."""
    values = np.asarray([x], np.float64 if backend == "oracle" else np.float32)
    start = np.zeros_like(dtd.predict(layers, values, backend=backend))
    start.reshape(-1)[0] = 1
    return dtd.explain(layers, values, start, backend=backend, **options)[0]


def agree(ours: NDArray[Any], by_hand: Any, backend: str) -> None:
    assert np.abs(by_hand).max() > 0
    np.testing.assert_allclose(ours, by_hand, rtol=1e-14 if backend == "oracle" else 1e-6, atol=1e-14)


GAMMA = {  # x⁺(w+γw⁺) + x⁻(w+γw⁻) and b + γb⁺ where y > 0
    "zennit": ([1.25 * Z[0], Z[1]], B, 1e-6),
    "captum": ([1.25 * Z[0], 1.25 * Z[1]], B, 1e-9),  # w+γw⁺ on x of either sign
    "dtd": ([1.25 * Z[0], Z[1]], B, 0.0),
}

ONE_NEURON = [  # rule, convention, n_i, bias in the denominator, stabiliser
    *((dtd.Gamma(0.25), name, *case) for name, case in GAMMA.items()),
    (dtd.Epsilon(), "zennit", Z, B, 1e-6),
    (dtd.Epsilon(), "captum", Z, B, 1e-9),
    (dtd.Epsilon(), "innvestigate", Z, B, 1e-7),
    (dtd.Epsilon(0.1), "innvestigate", Z, B, 0.1),  # the presets' Dense layers
    (dtd.ZPlus(), "dtd", [3, 0], 0, 0.0),
    (dtd.ZPlus(), "zennit", [3, 0], 0, 1e-6),  # the bias is negative, and b⁺ alone counts
    (dtd.ZPlus(), "captum", Z, B, 1e-9),  # x w⁺ with its sign, b with its sign
    (dtd.ZPlus(bias="none"), "captum", Z, 0, 1e-9),
    (dtd.ZPlus(), "innvestigate", [3, 0], 0, 0.0),
    (dtd.WSquare(), "zennit", [4, 1], B * B, 1e-6),
    (dtd.WSquare(), "innvestigate", [4, 1], 0, 0.0),
    (dtd.Flat(), "zennit", [1, 1], 0, 1e-6),
    (dtd.AlphaBeta(1.0, 0.0), "innvestigate", [3, 0], B, 0.0),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("rule", "convention", "n", "bias", "stabiliser"), ONE_NEURON)
def test_one_neuron(
    rule: dtd.Rule, convention: str, n: list[float], bias: float, stabiliser: float, backend: str
) -> None:
    denominator = sum(n) + bias + stabiliser
    agree(explain(neuron(), X, backend, rules=rule, convention=convention), np.divide(n, denominator), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bias", [B, -B])
def test_both_shares_of_alpha_beta(bias: float, backend: str) -> None:
    positive, negative = Z
    rule = dtd.AlphaBeta(2.0, 1.0)
    full = [2 * positive / (positive + bias), -negative / (negative + bias)]
    agree(explain(neuron(b=bias), X, backend, rules=rule, convention="innvestigate"), full, backend)
    by_sign = [2 * positive / (positive + max(bias, 0) + 1e-6), -negative / (negative + min(bias, 0) - 1e-6)]
    agree(explain(neuron(b=bias), X, backend, rules=rule, convention="zennit"), by_sign, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_stabilisers_have_the_sign_of_what_they_stabilise(backend: str) -> None:
    for x, epsilon in ((1e-6, 1e-6), (-1e-6, -1e-6)):
        agree(
            explain(neuron((1.0,), 0.0), (x,), backend, rules="lrp-epsilon", convention="zennit"),
            [x / (x + epsilon)],
            backend,
        )


POOL = [dtd.AvgPool(2), dtd.Flatten()]
PIXELS = np.array([[[0.01, 0.03], [0.02, 0.04]]])
PROPORTIONAL = PIXELS / 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_average_pools(backend: str) -> None:
    mean = PIXELS.mean()
    for convention, stabiliser in (("zennit", 1e-6), ("captum", 1e-9), ("innvestigate", 0.0)):
        ours = explain(POOL, PIXELS, backend, rules="epsilon-plus", convention=convention)
        agree(ours, PROPORTIONAL / (mean + stabiliser), backend)
    agree(
        explain(POOL, PIXELS, backend, rules="deep_taylor", convention="innvestigate"),
        np.full_like(PIXELS, 0.25),
        backend,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_max_pools(backend: str) -> None:
    layers = [dtd.MaxPool(2), dtd.Flatten()]
    winner = np.array([[[0, 0], [0, 1.0]]])
    for convention in ("dtd", "zennit", "innvestigate"):
        agree(explain(layers, PIXELS, backend, convention=convention), winner, backend)
    small = np.array([[[0.0, 1e-9], [2e-9, 3e-9]]])
    agree(explain(layers, small, backend, convention="captum"), winner * 3 / 4, backend)  # x / (x + 1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_adds(backend: str) -> None:
    """relu(3x) + relu(−x + 2a), both of them a neuron's output: 3a and a at x = a."""
    layers = [
        dtd.Linear([[3.0]], inputs=(dtd.INPUT,)),
        dtd.ReLU(),
        dtd.Linear([[-1.0]], [2 * A], inputs=(dtd.INPUT,)),
        dtd.ReLU(),
        dtd.Add(inputs=(1, 3)),
    ]
    options = dict(rules={0: dtd.Zero(stabilizer=0), 2: dtd.Zero(stabilizer=0)})
    one, other = 3 * A, -A  # the shares x w; the second neuron's output is a, so its denominator is too
    for convention, stabiliser in (("zennit", 1e-6), ("captum", 1e-9), ("innvestigate", 0.0)):
        agree(
            explain(layers, [A], backend, convention=convention, **options),
            [(one + other) / (4 * A + stabiliser)],
            backend,
        )
    # deep_taylor gives both operands everything; the second neuron's z⁺ is 0 and loses it
    agree(explain(layers, [A], backend, rules="deep_taylor", convention="innvestigate"), [1.0], backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_deep_taylor_clips_a_negative_start(backend: str) -> None:
    layers = neuron((-1.0, 2.0), 0.0)
    start = np.array([[-3.0]], np.float32)
    x = np.array([[1.0, 1.0]], np.float32)
    for rules in ("deep_taylor", "deep_taylor.bounded"):
        options = dict(rules=rules, convention="innvestigate", backend=backend, domain=(-1.0, 2.0))
        assert not dtd.explain(layers, x, start, **options).any()
        assert dtd.explain(layers, x, -start, **options).any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_deep_taylor_bounded_is_z_box_first(backend: str) -> None:
    """(x−l)w⁺ + (x−h)w⁻ over their sum, without bias."""
    layers = [*neuron((-1.0, 2.0), 0.5), dtd.ReLU(), dtd.Linear([[1.5]], [-0.1])]
    n = np.array([(0.5 - 2.0) * -1.0, (1.0 + 1.0) * 2.0])
    ours = explain(
        layers, (0.5, 1.0), backend, rules="deep_taylor.bounded", convention="innvestigate", domain=(-1.0, 2.0)
    )
    agree(ours, n / n.sum(), backend)
