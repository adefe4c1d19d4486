"""Linear regions and root points against brute force: bisection in plain NumPy, and the relevance that the rules hand
down.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

import dtdfast as dtd
from dtdfast.diagnostics import region_reach, root_audit, root_points, same_region
from dtdfast.diagnostics.audit import _choose
from support import LONG

Array = NDArray[np.float64]
SEGMENTS = 10_000 if LONG else 2_000


@dataclass
class Twin:
    """A network as layers, and its pattern at (n, ...) points in plain NumPy: every ReLU's sign and every pool's
    winner.
    """

    layers: list[dtd.Layer]
    shape: tuple[int, ...]
    pattern: Any

    def same(self, a: Array, b: Array, pattern: list[Any] | None = None) -> NDArray[np.bool_]:
        """Whether a and b share a region; `pattern` is that of a, where it is known."""
        result = np.ones(len(a), bool)
        for p, q in zip(pattern or self.pattern(a), self.pattern(b), strict=True):
            result &= (p == q).reshape(len(a), -1).all(axis=1)
        return result


def conv(x: Array, w: Array, b: Array) -> Array:
    """3 × 3, padded by 1; x (n, c, h, w)."""
    windows = sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3))
    n, c, h, v = x.shape
    columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * h * v, c * 9)
    return (columns @ w.reshape(len(w), -1).T + b).reshape(n, h, v, -1).transpose(0, 3, 1, 2)


def pools(x: Array) -> tuple[Array, NDArray[np.intp]]:
    """2 × 2: maxima and winners."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // 2, w // 2, 4)
    return blocks.max(axis=-1), blocks.argmax(axis=-1)


def dense() -> Twin:
    rng = np.random.default_rng(0)
    w = [rng.standard_normal(s) / 2 for s in ((12, 6), (12, 12), (3, 12))]
    b = [0.3 * rng.standard_normal(len(m)) for m in w]
    layers = [dtd.Linear(w[0], b[0]), dtd.ReLU(), dtd.Linear(w[1], b[1]), dtd.ReLU(), dtd.Linear(w[2], b[2])]

    def pattern(x: Array) -> list[Any]:
        y1 = x @ w[0].T + b[0]
        y2 = np.maximum(y1, 0) @ w[1].T + b[1]
        return [y1 > 0, y2 > 0]

    return Twin(layers, (6,), pattern)


def pooled() -> Twin:
    """Convolution, ReLU, max-pool; two branches concatenated; a residual add of a convolution and what it read."""
    rng = np.random.default_rng(1)
    w = {
        k: rng.standard_normal(s) / 3
        for k, s in (("a", (4, 2, 3, 3)), ("b", (3, 4, 3, 3)), ("c", (2, 4, 3, 3)), ("d", (5, 5, 3, 3)))
    }
    b = {k: 0.2 * rng.standard_normal(len(m)) for k, m in w.items()}
    layers = [
        dtd.Conv(w["a"], b["a"], padding=1),
        dtd.ReLU(),
        dtd.MaxPool(2),
        dtd.Conv(w["b"], b["b"], padding=1, inputs=2),
        dtd.ReLU(),
        dtd.Conv(w["c"], b["c"], padding=1, inputs=2),
        dtd.Concat(1, inputs=(4, 5)),
        dtd.Conv(w["d"], b["d"], padding=1),
        dtd.Add(inputs=(7, 6)),
        dtd.ReLU(),
        dtd.GlobalAvgPool(),
    ]

    def pattern(x: Array) -> list[Any]:
        ya = conv(x, w["a"], b["a"])
        p, winners = pools(np.maximum(ya, 0))
        yb = conv(p, w["b"], b["b"])
        joined = np.concatenate((np.maximum(yb, 0), conv(p, w["c"], b["c"])), axis=1)
        return [ya > 0, winners, yb > 0, conv(joined, w["d"], b["d"]) + joined > 0]

    return Twin(layers, (2, 4, 4), pattern)


def bisected(twin: Twin, x: Array, d: Array, longest: float) -> Array:
    """Where x + t·d leaves its region, by bisection on a convex region; `longest` where it does not within that."""
    column = (-1,) + (1,) * (x.ndim - 1)
    low, high = np.zeros(len(x)), np.full(len(x), longest)
    known = twin.pattern(x)
    stays = twin.same(x, x + high.reshape(column) * d, known)
    for _ in range(38):  # 2⁻³⁸ of `longest`, below the tolerance
        middle = (low + high) / 2
        inside = twin.same(x, x + middle.reshape(column) * d, known)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.where(stays, longest, high)


@pytest.mark.parametrize("make", [dense, pooled])
def test_reach_is_where_bisection_leaves_the_region(make: Any) -> None:
    """On thousands of random segments.  t = (k − y)/ẏ errs by the rounding of y, about n·u·Σ|xw| ≈ 1e-14, over |ẏ|.

    So t is wrong by at most 1e-9 unless |ẏ| is below 1e-5 of its size, which a few of the millions of units in the test
    are, but hardly ever the one that comes first; the tolerance takes |ẏ| ≥ 1e-6.
    """
    twin, rng, longest = make(), np.random.default_rng(2), 8.0
    x, d = rng.standard_normal((2, SEGMENTS, *twin.shape))
    reach = region_reach(twin.layers, x, d)
    np.testing.assert_allclose(np.minimum(reach, longest), bisected(twin, x, d, longest), rtol=0, atol=1e-8)
    assert (reach < longest).mean() > 0.9  # the segments do leave
    lengths = np.exp(rng.uniform(-6, 1, SEGMENTS)).reshape((-1,) + (1,) * len(twin.shape))
    same = same_region(twin.layers, x, x + lengths * d)
    np.testing.assert_array_equal(same, twin.same(x, x + lengths * d))
    assert 0.1 < same.mean() < 0.9


def test_reach_never_ends_where_nothing_changes() -> None:
    layers = [dtd.Linear(np.eye(2)), dtd.ReLU()]
    np.testing.assert_array_equal(region_reach(layers, np.ones((1, 2)), np.array([[1.0, 0.0]])), [np.inf])
    np.testing.assert_array_equal(region_reach(layers, np.ones((1, 2)), np.array([[0.0, -0.5]])), [2.0])


def test_kinks_of_other_activations() -> None:
    """Clip leaves its region at both ends."""
    layers = [dtd.Linear(np.eye(1)), dtd.Activation("clip", alpha=-1.0, beta=3.0)]
    x = np.zeros((2, 1))
    np.testing.assert_array_equal(region_reach(layers, x, np.array([[1.0], [-1.0]])), [3.0, 1.0])


@pytest.mark.parametrize(
    ("record", "word"), [(dtd.Activation("silu"), "silu"), (dtd.LRN(3), "LRN"), (dtd.Activation("sigmoid"), "sigmoid")]
)
def test_smooth_layers_have_no_regions(record: dtd.Layer, word: str) -> None:
    layers = [dtd.Conv(np.ones((2, 1, 1, 1))), record]
    with pytest.raises(dtd.LayerError, match=f"layer 1.*{word}"):
        same_region(layers, np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2)))


def test_shapes_must_agree() -> None:
    with pytest.raises(dtd.ShapeError, match="direction"):
        region_reach([dtd.Linear(np.eye(2))], np.ones((1, 2)), np.ones((2, 2)))


# -------------------------------------------------------------------------------------------------------- root points

RULES: dict[str, dict[str, Any]] = {
    "zplus": {"rules": dtd.ZPlus()},
    "wsquare": {"rules": dtd.WSquare()},
    "box": {"domain": (-4.0, 4.0)},
    "flat": {"rules": dtd.Flat()},
    "zero without bias": {"rules": dtd.Zero(bias="none")},
    "gamma": {"rules": dtd.Gamma(0.5, bias="none")},
    "alpha-beta": {"rules": dtd.AlphaBeta()},
}


@pytest.mark.parametrize(("rule", "layer"), [(r, p) for p in (0, 3, 7) for r in RULES if not (p and r == "box")])
def test_roots_lie_on_the_hinge_and_give_the_messages(rule: str, layer: int, rng: np.random.Generator) -> None:
    """y(x̃) = 0, and (x − x̃)_i w_ij R_j / y_j is what the rule hands down, for single neurons of a convolution and of
    a residual add.
    """
    twin, options = pooled(), RULES[rule]
    x = np.clip(rng.standard_normal((1, *twin.shape)), -4, 4)
    readers = {0: 1, 3: 4, 7: 9}  # the entry whose outputs are the layer's neurons
    if "rules" in options:
        options = {"rules": dict.fromkeys((layer, 8) if layer == 7 else (layer,), options["rules"])}
    source = {0: None, 3: 2, 7: 6}[layer]
    below = dtd.Explainer(twin.layers, start=readers[layer], stop=source, backend="oracle", **options)
    outputs = dtd.predict(twin.layers[: readers[layer] + 1], x, backend="oracle")[0]
    active = np.flatnonzero(outputs > 0.05)[:4]
    assert len(active)
    roots = root_points(twin.layers, x, active, layer=layer, **options)
    np.testing.assert_allclose(roots.y, outputs.ravel()[active], rtol=1e-12)
    slack = 1e-11 * np.abs(np.array([p - h for p, h in zip(roots.points, roots.here, strict=True)])).max()
    np.testing.assert_allclose(roots.y_at_root, 0, atol=slack)
    for j, point in zip(active, roots.points[0], strict=True):
        start = np.zeros((1, outputs.size))
        start[0, j] = outputs.ravel()[j]
        messages = below.explain(x, start.reshape(1, *outputs.shape))[0]
        by_root = (roots.here[0] - point) * _weights_of(twin.layers, layer, j, outputs.shape, point.shape)
        np.testing.assert_allclose(by_root, messages, rtol=0, atol=1e-11 * abs(messages).max())


def _weights_of(layers: list[dtd.Layer], layer: int, j: int, out: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """∂y_j/∂(what the layer reads), from the linear layer's response to unit vectors."""
    weight = np.asarray(layers[layer].weight)
    units = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    y = conv(units, weight, np.zeros(len(weight)))
    if layer == 7:
        y = y + units
    return y.reshape(len(units), -1)[:, j].reshape(shape)


def test_zero_expands_at_the_origin(rng: np.random.Generator) -> None:
    layers = dense().layers
    x = rng.standard_normal((1, 6))
    active = np.flatnonzero(np.asarray(layers[0].weight) @ x[0] + np.asarray(layers[0].bias) > 0)  # type: ignore[attr-defined]
    roots = root_points(layers, x, active, rules="lrp-0")
    np.testing.assert_allclose(roots.points[0], 0, atol=1e-12)
    np.testing.assert_allclose(roots.y_at_root, np.asarray(layers[0].bias)[active], rtol=1e-9)  # type: ignore[attr-defined]


def test_a_neuron_must_exist() -> None:
    layers = dense().layers
    with pytest.raises(dtd.RuleError, match="neurons 0 to 11"):
        root_points(layers, np.ones((1, 6)), [12])
    with pytest.raises(dtd.LayerError, match="layer=7"):
        root_points(layers, np.ones((1, 6)), [0], layer=7)
    with pytest.raises(dtd.LayerError, match="one input"):
        root_points(layers, np.ones((2, 6)), [0])


# -------------------------------------------------------------------------------------------------------------- audit


@pytest.mark.parametrize("make", [dense, pooled])
def test_the_audit_agrees_with_walking_to_the_roots(make: Any, rng: np.random.Generator) -> None:
    """t* ≥ 1 exactly where the brute-force pattern holds up to a hair before the root (the own hinge is at the root
    itself).
    """
    twin = make()
    x = np.abs(rng.standard_normal((4, *twin.shape)))
    target = (0, 0, 0) if make is pooled else 0
    audit = root_audit(twin.layers, x, target, domain="nonnegative", n_roots=10_000)
    for n in range(len(x)):
        mine = audit.sample == n
        if not mine.any():
            continue
        points = root_points(twin.layers, x[n : n + 1], audit.neuron[mine], domain="nonnegative").points[0]
        here = np.broadcast_to(x[n], points.shape)
        np.testing.assert_array_equal(twin.same(here, here + (1 - 1e-7) * (points - here)), audit.in_region[mine])
        np.testing.assert_array_equal((points >= -1e-9).reshape(len(points), -1).all(axis=1), audit.in_domain[mine])
        f = dtd.predict(twin.layers, np.concatenate((x[n : n + 1], points)), backend="oracle").reshape(
            len(points) + 1, -1
        )[:, 0]
        np.testing.assert_allclose(audit.output[mine], f[1:] / f[0], atol=1e-9)
    assert len(audit.reach) > 10
    assert audit.of_roots.sum() == pytest.approx(1)
    assert audit.of_relevance.sum() == pytest.approx(1)
    assert f"{100 * audit.share_of_relevance:.1f} %" in audit.reading


def test_a_network_of_one_region_has_valid_roots(rng: np.random.Generator) -> None:
    """The logits of a linear layer: the root of the only neuron with relevance is where f = 0."""
    audit = root_audit([dtd.Linear(rng.standard_normal((3, 8)))], rng.standard_normal((5, 8)))
    assert audit.share_of_relevance == audit.share_of_roots == audit.samples_all_valid == 1.0
    np.testing.assert_allclose(audit.output, 0, atol=1e-12)
    np.testing.assert_array_equal(audit.gradient_change, 0)
    assert "the Taylor argument holds" in str(audit)


def test_bias_free_networks_make_the_origin_a_valid_root(rng: np.random.Generator) -> None:
    """LRP-0 expands at 0, which lies in the closure of every region of a network without biases, and in none with
    biases ≤ 0.
    """
    weights = [rng.standard_normal(s) for s in ((16, 6), (16, 16), (2, 16))]
    x = rng.standard_normal((6, 6))
    for shift, share in ((0.0, 1.0), (-0.1, 0.0)):
        layers = [r for w in weights for r in (dtd.Linear(w, np.full(len(w), shift)), dtd.ReLU())][:-1]
        audit = root_audit(layers, x, rules="lrp-0")
        assert audit.share_of_roots == share


def test_roots_are_drawn_evenly_and_by_relevance(rng: np.random.Generator) -> None:
    """One neuron of a thousand holds half of the relevance."""
    r = np.append(-999.0, np.ones(999))
    chosen, of_roots, of_relevance = _choose(r, 400, rng)
    assert of_roots.sum() == pytest.approx(1)
    assert of_relevance.sum() == pytest.approx(1)
    assert abs(of_relevance[chosen == 0].sum() - 0.5) < 4 * np.sqrt(0.25 / 400)
    assert of_roots[chosen == 0].sum() <= 1 / 400


def test_sampling_estimates_the_whole_audit(rng: np.random.Generator) -> None:
    """Shares from draws agree with those of all roots within their binomial spread."""
    widths = (20, 300, 20, 2)
    layers = []
    for n_in, n_out in pairwise(widths):
        layers += [dtd.Linear(rng.standard_normal((n_out, n_in)) / np.sqrt(n_in), -0.5 * np.ones(n_out)), dtd.ReLU()]
    layers = [*layers[:-1]]
    x = np.abs(rng.standard_normal((6, 20)))
    whole = root_audit(layers, x, rules=dtd.WSquare(), n_roots=300)
    drawn = root_audit(layers, x, rules=dtd.WSquare(), n_roots=60)
    assert len(drawn.reach) < len(whole.reach)
    for share in ("share_of_roots", "share_of_relevance"):
        p = getattr(whole, share)
        assert abs(getattr(drawn, share) - p) <= 4 * np.sqrt(p * (1 - p) / 360) + 1e-12
    assert whole.of_relevance.sum() < 0.95  # w² leaves relevance on neurons that are off
    assert "on neurons that are off" in str(whole)


@pytest.mark.parametrize("rules", ["dtd", "deep_taylor"])
def test_an_audit_starts_as_the_explanation_does(rules: str, rng: np.random.Generator) -> None:
    """Where the preset raises a negative start to 0, too."""
    layers = [dtd.Linear(rng.standard_normal((6, 4))), dtd.ReLU(), dtd.Linear(rng.standard_normal((3, 6)))]
    x, options = rng.random((20, 4)), dict(rules=rules, domain=(0.0, 1.0), backend="oracle")
    for target in (rng.integers(0, 3, 20), rng.standard_normal((20, 3))):
        audit = root_audit(layers, x, target, n_roots=10, **options)
        expected = dtd.explain(layers, x, target, stop=1, **options)
        np.testing.assert_allclose(audit.relevance, expected[audit.sample, audit.neuron], rtol=1e-12)
        assert len(audit.relevance) == np.count_nonzero(expected)


@pytest.mark.parametrize("layer", [1, 3, 5])
def test_roots_of_tokens_are_those_of_the_neurons_that_are_named(layer: int, rng: np.random.Generator) -> None:
    """Neurons and arrays are the list's, whose features are last, in whatever order the plan computes them."""
    layers = [
        dtd.Linear(rng.standard_normal((4, 3))), dtd.ReLU(), dtd.Linear(rng.standard_normal((4, 4))), dtd.ReLU(),
        dtd.Linear(rng.standard_normal((4, 4))), dtd.Add(inputs=(4, 3)), dtd.ReLU(),
        dtd.Flatten(), dtd.Linear(rng.standard_normal((2, 16))),
    ]  # fmt: skip
    x, options = rng.random((3, 4, 3)), dict(rules=dtd.WSquare(), domain=(0.0, 1.0))
    audit = root_audit(layers, x, 0, layer=layer, n_roots=10_000, **options)
    out = layer + (layer == 5)
    expected = dtd.explain(layers, x, 0, stop=out, backend="oracle", **options).reshape(3, -1)
    np.testing.assert_allclose(audit.relevance, expected[audit.sample, audit.neuron], rtol=1e-12)
    values = [dtd.predict(layers[: position + 1], x[:1], backend="oracle")[0] for position in range(len(layers))]
    neurons = np.flatnonzero(values[out])
    found = root_points(layers, x[:1], neurons, layer=layer, **options)
    np.testing.assert_allclose(found.y, values[layer if layer == 5 else layer - 1].ravel()[neurons], rtol=1e-12)
    read = {1: x[0], 3: values[1], 5: values[3]}[layer]
    for here in found.here:
        np.testing.assert_allclose(here, read, rtol=1e-12)
    if layer == 5:  # which an Add makes one neuron with its other operand
        return
    weight = np.asarray(layers[layer - 1].weight, float)
    for neuron, root in zip(neurons, found.points[0], strict=True):
        token, feature = divmod(int(neuron), 4)
        step = np.zeros_like(read)
        step[token] = weight[feature] * values[layer - 1][token, feature] / (weight[feature] ** 2).sum()
        np.testing.assert_allclose(read - root, step, rtol=1e-9, atol=1e-12)
