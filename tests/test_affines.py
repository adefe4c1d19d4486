"""Affine maps that cannot fold, under z⁺ and αβ: one neuron with the linear layers behind them, one tap behind an
activation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
import explicit
from support import by_matrix, close, normal

pytestmark = pytest.mark.parametrize("backend", ["oracle", "cpu"])
A, B, C = (np.array(v) for v in ([2.0, -0.5, 0.0, -1.5], [0.5, -1.0, 0.25, 2.0], [1.0, -2.0, 3.0, -0.5]))


def test_a_dead_neuron_hands_nothing_on(backend: str) -> None:
    layers = [dtd.Linear([[-1.0, -1.0]]), dtd.ReLU(), dtd.BatchNorm([0.0], [1.0], [1.0], [1.0], eps=0.0)]
    x = np.array([[1.0, 3.0]])
    for rules, cause in (
        ("lrp-0", "bias"),
        ("lrp-epsilon", "bias"),
        ("dtd", "zero denominator"),
        ("excitation-backprop", "zero denominator"),
    ):
        explainer = dtd.Explainer(layers, rules=rules, domain="nonnegative", backend=backend)
        assert not explainer.explain(x, 0).any()
        ledger = explainer.ledger(x, 0)
        assert ledger.closed
        np.testing.assert_allclose(ledger.absorbed[cause], 1, atol=1e-5)


def test_a_negative_logit_goes_to_what_made_it_negative(backend: str) -> None:
    x = np.array([[1.0, 3.0]])
    np.testing.assert_array_equal(
        dtd.explain([dtd.Linear([[1.0, -1.0]])], x, domain="nonnegative", backend=backend), [[0, -2]]
    )
    np.testing.assert_array_equal(
        dtd.explain([dtd.Linear([[1.0, -1.0]])], x, rules=dtd.ZPlus(), backend=backend), [[-2, 0]]
    )


def both(weight: Any, x: Any, plus: Any, minus: Any) -> Any:
    """Relevance `plus` by the positive products of x w, `minus` by the negative ones."""
    taps = explicit.linear((weight.shape[1],), weight)
    negated = explicit.linear((weight.shape[1],), -weight)
    return by_matrix([explicit.zplus(taps, s.astype(float)) for s in x], plus) + by_matrix(
        [explicit.zplus(negated, s.astype(float)) for s in x], minus
    )


@pytest.mark.parametrize("way", ["read twice", "concat", "moves"])
def test_scales_of_both_signs_behind_a_linear_layer(way: str, backend: str, rng: np.random.Generator) -> None:
    """Scale > 0 hands on whole, < 0 shares as the layer with −w, 0 nothing; the sign of the layer's value has no part
    in it.
    """
    weight, x, start = normal(rng, 4, 6), normal(rng, 3, 6), rng.standard_normal((3, 8))
    layers: list[dtd.Layer] = [dtd.Linear(weight, normal(rng, 4))]
    if way == "concat":
        layers += [dtd.Concat(inputs=(0, 0)), dtd.Scale(np.concatenate([A, C]), np.concatenate([B, B]))]
    elif way == "moves":
        layers += [dtd.Reshape((2, 2)), dtd.Permute((0, 2, 1)), dtd.Permute((0, 2, 1)), dtd.Flatten(),
                   dtd.Concat(inputs=(4, 0)), dtd.Scale(np.concatenate([A, C]), np.concatenate([B, B]))]  # fmt: skip
    else:
        layers += [dtd.Scale(A, B, inputs=0), dtd.Scale(C, B, inputs=0), dtd.Concat(inputs=(1, 2))]
    left, right = start[:, :4], start[:, 4:]
    plus, minus = left * (A > 0) + right * (C > 0), left * (A < 0) + right * (C < 0)
    rules = "excitation-backprop"
    close(dtd.explain(layers, x, start, rules=rules, backend=backend), both(weight, x, plus, minus), backend)
    alpha, beta = 2.0, 1.0
    expected = both(weight, x, alpha * plus - beta * minus, alpha * minus - beta * plus)
    close(dtd.explain(layers, x, start, rules=dtd.AlphaBeta(alpha, beta), backend=backend), expected, backend)
    assert dtd.Explainer(layers, rules=rules, backend=backend).ledger(x, start).closed


@pytest.mark.parametrize("way", ["rule for all", "rule of the affine", "behind moves"])
def test_a_joined_affine_has_no_fallback(way: str, backend: str, rng: np.random.Generator) -> None:
    """Refused by name: α = 1 where the layer and the affine together have no negative term is not what a twin can hand
    on.
    """
    layers: list[dtd.Layer] = [dtd.Linear(normal(rng, 4, 6))]
    if way == "behind moves":
        layers += [dtd.Concat(inputs=(0, 0)), dtd.Scale(np.concatenate([A, C]), np.concatenate([B, B]))]
    else:
        layers += [dtd.Scale(A, B, inputs=0), dtd.Scale(C, B, inputs=0), dtd.Concat(inputs=(1, 2))]
    rule = dtd.AlphaBeta(fallback=True)
    rules = {1: rule} if way == "rule of the affine" else rule
    with pytest.raises(dtd.RuleError, match=r"Scale.*fallback"):
        dtd.explain(layers, normal(rng, 3, 6), 0, rules=rules, backend=backend)
    dtd.explain(layers, normal(rng, 3, 6), 0, rules=dtd.AlphaBeta(), backend=backend)
    for passed in (dtd.Pass(), dtd.ZPlus()):  # what the message offers
        others = {0: rule, **{p: passed for p, layer in enumerate(layers) if isinstance(layer, dtd.Scale)}}
        dtd.explain(layers, normal(rng, 3, 6), 0, rules=others, backend=backend)


def test_an_affine_alone_falls_back(backend: str, rng: np.random.Generator) -> None:
    """One tap behind an activation hands on R once where a·x > 0, with a fallback or without."""
    x, start = normal(rng, 3, 4), rng.standard_normal((3, 4))
    layers = [dtd.Activation("tanh"), dtd.Scale(A, B), dtd.Activation("tanh")]
    close(
        dtd.explain(layers, x, start, rules=dtd.AlphaBeta(fallback=True), backend=backend),
        start * (A * np.tanh(x) > 0),
        backend,
    )


def test_another_reader_has_the_sign_of_the_value(backend: str, rng: np.random.Generator) -> None:
    first, weight, x, start = abs(normal(rng, 6, 5)), normal(rng, 4, 6), abs(normal(rng, 3, 5)), normal(rng, 3, 8)
    layers = [dtd.Linear(first), dtd.ReLU(), dtd.Linear(weight), dtd.Scale(A, B), dtd.Concat(inputs=(2, 3))]
    hidden = x @ first.T.astype(float)
    y, (left, right) = hidden @ weight.T.astype(float), (start[:, :4], start[:, 4:])
    inner = both(weight, hidden, left * (y >= 0) + right * (A > 0), left * (y < 0) + right * (A < 0))
    close(dtd.explain(layers, x, start, stop=1, backend=backend), inner, backend)


def test_one_tap_behind_an_activation(backend: str, rng: np.random.Generator) -> None:
    x, start = normal(rng, 3, 4), rng.standard_normal((3, 4))
    for kind, value in (("tanh", np.tanh(x)), ("leaky_relu", x)):
        layers = [dtd.Activation(kind), dtd.Scale(A, B), dtd.Activation("tanh")]
        explainer = dtd.Explainer(layers, rules="excitation-backprop", backend=backend)
        close(explainer.explain(x, start), start * (A * value > 0), backend)
        ledger = explainer.ledger(x, start)
        assert ledger.closed
        close(ledger.absorbed["zero denominator"], (start * (A * value <= 0)).sum(1), backend)


def test_a_convolution_and_its_pool_are_one_neuron(backend: str, rng: np.random.Generator) -> None:
    """Behind an average pool both streams share by the pooled products, as the convolution and the pool written as one
    layer do.
    """
    weight, x = normal(rng, 4, 3, 1), normal(rng, 2, 3, 6)
    layers = [dtd.Conv(weight), dtd.AvgPool(2), dtd.Scale(A, B)]
    taps = explicit.conv((3, 6), np.repeat(weight / 2, 2, axis=2), stride=2)
    start = normal(rng, 2, *taps.out_shape)
    plus, minus = (start * (s * A > 0)[:, None] for s in (1, -1))
    expected = by_matrix([explicit.zplus(taps, s.ravel().astype(float)) for s in x], plus)
    expected += by_matrix(
        [explicit.zplus(taps._replace(matrix=-taps.matrix), s.ravel().astype(float)) for s in x], minus
    )
    r_in = dtd.explain(layers, x, start, rules="excitation-backprop", backend=backend)
    close(r_in, expected.reshape(x.shape), backend)


@pytest.mark.parametrize("rule", [dtd.ZPlus(), dtd.AlphaBeta(3.0, 2.0)])
def test_a_winner_is_one_neuron_with_the_affine_behind_it(
    rule: dtd.Rule, backend: str, rng: np.random.Generator
) -> None:
    """A max-pool hands on the value of the neuron that won: scale > 0 shares as its layer does, < 0 as with −w."""
    weight, x, start = normal(rng, 4, 3, 1), normal(rng, 2, 3, 6), normal(rng, 2, 4, 3)
    layers = [dtd.Conv(weight, normal(rng, 4)), dtd.MaxPool(2), dtd.Scale(A, B)]
    y = dtd.predict(layers[:1], x, backend="oracle").reshape(2, 4, 3, 2)
    won = (y == y.max(axis=3, keepdims=True)) * start.astype(float)[..., None]
    above, below = (won * (s * A > 0)[:, None, None] for s in (1, -1))
    alpha, beta = (rule.alpha, rule.beta) if isinstance(rule, dtd.AlphaBeta) else (1.0, 0.0)
    taps = explicit.conv((3, 6), weight)
    plus, minus = (part.reshape(2, 4, 6) for part in (alpha * above - beta * below, alpha * below - beta * above))
    expected = by_matrix([explicit.zplus(taps, s.ravel().astype(float)) for s in x], plus)
    expected += by_matrix(
        [explicit.zplus(taps._replace(matrix=-taps.matrix), s.ravel().astype(float)) for s in x], minus
    )
    explainer = dtd.Explainer(layers, rules=rule, backend=backend)
    close(explainer.explain(x, start), expected.reshape(x.shape), backend)
    assert explainer.ledger(x, start).closed


@pytest.mark.parametrize("rules", ["dtd", "excitation-backprop", dtd.AlphaBeta()])
def test_a_pool_before_or_behind_batch_norm_and_relu(rules: Any, backend: str, rng: np.random.Generator) -> None:
    """Scales > 0 keep the order, so the two networks are one function, and one neuron each: the same map."""
    conv, norm = dtd.Conv(normal(rng, 4, 3, 3), normal(rng, 4)), (normal(rng, 4), abs(normal(rng, 4)), abs(A) + 0.1, B)
    head, x = dtd.Linear(normal(rng, 5, 8)), abs(normal(rng, 3, 3, 6))
    first = [conv, dtd.MaxPool(2), dtd.BatchNorm(*norm), dtd.ReLU(), dtd.Flatten(), head]
    last = [conv, dtd.BatchNorm(*norm), dtd.ReLU(), dtd.MaxPool(2), dtd.Flatten(), head]
    options: dict[str, Any] = dict(rules=rules, domain="nonnegative", backend=backend)
    found = dtd.explain(first, x, **options)
    assert found.any()
    close(found, dtd.explain(last, x, **options), backend)


def test_a_scale_of_zeros_hands_nothing_on(backend: str, rng: np.random.Generator) -> None:
    layers, x = [dtd.Linear(normal(rng, 4, 6)), dtd.Scale(np.zeros(4), B)], normal(rng, 3, 6)
    explainer = dtd.Explainer(layers, backend=backend)
    assert not explainer.explain(x, 0).any()
    ledger = explainer.ledger(x, 0)
    assert ledger.closed
    close(ledger.absorbed["zero denominator"], np.full(3, B[0]), backend)


def test_two_affines_in_a_row_are_one(backend: str, rng: np.random.Generator) -> None:
    weight, x, start = normal(rng, 4, 6), normal(rng, 3, 6), normal(rng, 3, 12)
    layers = [dtd.Linear(weight), dtd.Scale(A, B), dtd.Scale(C, B), dtd.Concat(inputs=(0, 1, 2))]
    signs = np.ones(4), np.sign(A), np.sign(A * C)
    pieces = np.split(start.astype(float), 3, axis=1)
    plus = sum(p * (s > 0) for p, s in zip(pieces, signs, strict=True))
    minus = sum(p * (s < 0) for p, s in zip(pieces, signs, strict=True))
    close(
        dtd.explain(layers, x, start, rules="excitation-backprop", backend=backend),
        both(weight, x, plus, minus),
        backend,
    )
    alpha, beta = 3.0, 2.0
    expected = both(weight, x, alpha * plus - beta * minus, alpha * minus - beta * plus)
    close(dtd.explain(layers, x, start, rules=dtd.AlphaBeta(alpha, beta), backend=backend), expected, backend)


@pytest.mark.parametrize("rule", [dtd.ZPlus(), dtd.AlphaBeta(), dtd.AlphaBeta(3.0, 2.0, fallback=True)])
def test_two_affines_in_a_row_behind_an_activation_are_one_tap(
    rule: dtd.Rule, backend: str, rng: np.random.Generator
) -> None:
    x, start = normal(rng, 3, 4), normal(rng, 3, 4)
    layers = [dtd.Activation("tanh"), dtd.Scale(A, B), dtd.Scale(C, B), dtd.Activation("tanh")]
    close(dtd.explain(layers, x, start, rules=rule, backend=backend), start * (A * C * np.tanh(x) > 0), backend)


@pytest.mark.parametrize("stop", [None, 0, 1])
def test_an_operand_without_negative_products(
    stop: int | None, backend: str, rng: np.random.Generator, dirty_arenas: None
) -> None:
    """Behind an Add every scale is negative, so its operand ≥ 0 takes nothing: 0 is there, not what memory held, and
    the account closes.
    """
    x, eye = normal(rng, 3, 4), np.ones(4)
    layers = [dtd.Linear(normal(rng, 4, 4)), dtd.ReLU(), dtd.Linear(normal(rng, 4, 4), inputs=0),
        dtd.Add(inputs=(1, 2)),
              dtd.Scale(-eye, eye), dtd.ReLU(), dtd.Scale(-eye, eye, inputs=3), dtd.Add(inputs=(5, 6))]  # fmt: skip
    explainer = dtd.Explainer(layers, rules="excitation-backprop", backend=backend, stop=stop)
    r_in = explainer.explain(x, 0)
    assert r_in.any() == (stop != 1)
    assert stop == 1 or explainer.ledger(x, 0).closed


def test_ledger_where_one_half_of_an_add_leaves_an_operand_out(
    backend: str, rng: np.random.Generator, dirty_arenas: None
) -> None:
    x, signs = normal(rng, 3, 4), np.array([1.0, -1.0, 1.0, -1.0])
    layers = [dtd.Linear(normal(rng, 4, 4)), dtd.ReLU(), dtd.Scale(signs, B, inputs=0), dtd.Scale(-signs, B, inputs=0),
              dtd.Add(inputs=(1, 2)), dtd.Scale(signs, B), dtd.Add(inputs=(5, 3))]  # fmt: skip
    ledger = dtd.Explainer(layers, rules="excitation-backprop", backend=backend).ledger(x, 0)
    assert ledger.closed, str(ledger)


def test_a_frame_around_a_linear_layer_absorbs(backend: str, rng: np.random.Generator) -> None:
    """Scales per element of a padded layer: what the padding's taps take is absorbed by it, and the account says so."""
    x, start = normal(rng, 2, 3, 4), normal(rng, 2, 2, 6)
    factor, value = rng.choice([-1.0, 1.0], (2, 6)) * rng.uniform(0.5, 1.5, (2, 6)), 0.5
    layers = [
        dtd.Conv(normal(rng, 2, 3, 1)),
        dtd.Pad(((1, 1),), value=value),
        dtd.Scale(factor),
        dtd.Activation("tanh"),
    ]
    explainer = dtd.Explainer(layers, rules="excitation-backprop", backend=backend)
    ledger = explainer.ledger(x, start)
    assert ledger.closed, str(ledger)
    frame = start.astype(float)[:, :, [0, 5]] * (factor * value > 0)[:, [0, 5]]
    close(ledger.absorbed["constant"], frame.sum(axis=(1, 2)), backend)


def test_a_scale_of_0_ends_a_box_of_any_size(backend: str, rng: np.random.Generator) -> None:
    """Beside the input an inner tensor has no bounds; times 0 they are those of a constant, as if no weight read it."""
    x, hidden, w, v = np.clip(normal(rng, 3, 4), -1, 1), normal(rng, 2, 4), normal(rng, 5, 6), normal(rng, 5, 6)
    factor = np.array([1.0, 0.0, 2.0, -1.0, 1.0, 0.0])

    def network(factor: Any, w: Any, v: Any) -> list[dtd.Layer]:
        layers: list[dtd.Layer] = [dtd.Linear(hidden), dtd.ReLU(), dtd.Concat(inputs=(dtd.INPUT, 1)), dtd.Scale(factor)]
        return [*layers, dtd.Linear(w), dtd.ReLU(inputs=3), dtd.Linear(v), dtd.Add(inputs=(4, 6))]

    found, expected = (
        dtd.explain(layers, x, 0, domain=(-1.0, 1.0), backend=backend)
        for layers in (network(factor, w, v), network(factor + (factor == 0), w * (factor != 0), v * (factor != 0)))
    )
    close(found, expected, backend)


SIZES = {
    "no width": np.zeros(4),
    "some no width": np.array([1.0, 0.0, -2.0, 0.0]),
    "narrow": np.array([1e-6, -1e-5, 1e-6, 3e-6]),
    "one narrow": np.array([1.0, -1e-6, 0.5, 1.0]),
    "wide": np.array([1.3, -0.7, 0.4, 2.1]),
}


@pytest.mark.parametrize("inputs", ["inside", "low", "high"])
@pytest.mark.parametrize("sign", [-1, 0, 1])
@pytest.mark.parametrize("size", SIZES)
def test_a_box_behind_affines_that_do_not_fold(
    size: str, sign: int, inputs: str, backend: str, rng: np.random.Generator
) -> None:
    """(ax + b − low)w is (x − low)aw or (x − high)aw, whatever is left of the box: exactly nothing where x lies on its
    corner.
    """
    low, high = -0.7, 1.3
    x = {"inside": rng.uniform(low, high, (3, 4, 5)), "low": np.full((3, 4, 5), low), "high": np.full((3, 4, 5), high)}[
        inputs
    ]
    weight, start, second = normal(rng, 5, 4, 3), normal(rng, 3, 5, 5), rng.uniform(0.5, 2, 4)
    weight = weight if sign == 0 else sign * abs(weight)
    layers = [dtd.Scale(SIZES[size], normal(rng, 4)), dtd.Scale(second, normal(rng, 4)), dtd.Conv(weight, padding=1)]
    found = dtd.explain(layers, x, start, domain=(low, high), backend=backend)
    scale = (SIZES[size] * second)[None, :, None]
    taps = explicit.conv((4, 5), weight.astype(float) * scale, padding=1)
    ends = [np.full(20, end) for end in (low, high)]
    expected = by_matrix([explicit.zbox(taps, v.ravel(), *ends) for v in x], start).reshape(x.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=(1e-5 if backend == "cpu" else 1e-8) * abs(start).max())


def test_preactivation_blocks_conserve(backend: str, rng: np.random.Generator) -> None:
    """Sums read by a BatchNorm and by the next sum: ΣR is the logit's and R ≥ 0 where biases take nothing."""

    def norm(c: int) -> dtd.BatchNorm:
        return dtd.BatchNorm(
            0.1 * rng.standard_normal(c), np.ones(c), rng.uniform(0.5, 1.5, c) * rng.choice([-1, 1], c), np.zeros(c)
        )

    layers: list[dtd.Layer] = [dtd.Conv(rng.standard_normal((8, 3, 3, 3)), padding=1)]
    for _ in range(3):
        last = len(layers) - 1
        layers += [
            norm(8),
            dtd.ReLU(),
            dtd.Conv(rng.standard_normal((8, 8, 3, 3)) / 8, padding=1),
            dtd.Add(inputs=(last + 3, last)),
        ]
    layers += [norm(8), dtd.ReLU(), dtd.GlobalAvgPool(), dtd.Flatten(), dtd.Linear(rng.standard_normal((4, 8)))]
    x = rng.standard_normal((4, 3, 8, 8))
    r_in, outputs = dtd.explain(layers, x, backend=backend, return_outputs=True)
    f = outputs.max(axis=1)
    assert (np.sign(f)[:, None, None, None] * r_in).min() >= 0
    np.testing.assert_allclose(r_in.sum(axis=(1, 2, 3)) / f, 1, atol=0.1)
    expected = dtd.baselines.input_x_gradient(layers, x, 1, backend="oracle")
    found = dtd.explain(layers, x, 1, rules="lrp-0", backend="oracle")
    assert abs(found - expected).max() <= 1e-9 * abs(expected).max()
