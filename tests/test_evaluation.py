"""Perturbation curves against a plain loop over copies, and their statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import ndimage, stats

import dtdfast as dtd
from dtdfast import baselines, concepts, diagnostics, evaluation
from dtdfast.data import digits, sentiment
from dtdfast.evaluation import comparison, curves, operators, perturbation
from dtdfast.evaluation.comparison import gini

mpl.use("agg")


def sums(rng: np.random.Generator, c: int = 2, h: int = 7, w: int = 8) -> tuple[list[dtd.Layer], Any, Any]:
    """A linear network, on which the effect of every pixel is known."""
    weight = rng.standard_normal((3, c * h * w))
    return [dtd.Flatten(), dtd.Linear(weight)], rng.random((4, c, h, w)), weight


def test_curves_agree_with_a_loop_over_regions(rng: np.random.Generator) -> None:
    """Regions of 3 × 3 on 7 × 8 pixels: the last ones smaller; constants per channel; most and least relevant first."""
    layers, x, _ = sums(rng)
    relevance = rng.standard_normal(x.shape)
    result = evaluation.region_perturbation(
        layers, x, relevance, 1, size=3, steps=5, operator=[0.25, -1.0], backend="oracle"
    )
    blocks = [(slice(i, i + 3), slice(j, j + 3)) for i in range(0, 7, 3) for j in range(0, 8, 3)]
    for n, image in enumerate(x):
        scores = np.array([relevance[n][:, r, c].sum() for r, c in blocks])
        for sign, outputs in ((-1, result.outputs), (1, result.outputs_least)):
            current, expected = image.copy(), [dtd.predict(layers, image[None], backend="oracle")[0, 1]]
            for k in np.argsort(sign * scores, kind="stable")[:5]:
                current[:, *blocks[k]] = np.array([0.25, -1.0])[:, None, None]
                expected.append(dtd.predict(layers, current[None], backend="oracle")[0, 1])
            np.testing.assert_allclose(outputs["relevance"][n], expected, atol=1e-12)
    aopc = np.mean([(f[0] - f).mean() for f in result.outputs["relevance"]])
    assert result.aopc("relevance").mean == pytest.approx(aopc, rel=1e-12)


def test_the_right_map_of_a_linear_network_is_the_best_order(rng: np.random.Generator) -> None:
    """Set to zero, pixels matter by x ⊙ w: no order falls faster, its reverse slowest, the random order between."""
    layers, x, weight = sums(rng, c=1)
    target = 2
    right = x * weight[target].reshape(x.shape[1:])
    result = evaluation.region_perturbation(
        layers, x, {"right": right, "wrong": -right}, target, size=1, steps=20, operator=0.0
    )
    best, random, worst = (result.aopc(m).mean for m in ("right", result.random, "wrong"))
    assert best > random > worst
    assert (result.verdict("right"), result.verdict("wrong")) == ("yes", "no")
    assert result.abpc("right").mean == pytest.approx(-result.abpc("wrong").mean, rel=1e-5)
    assert set(result.outputs) == {"right", "wrong", "sensitivity", "random order"}
    assert result.reading.startswith("1×1 regions, constant, 4 inputs: right")


def test_noise_is_repeated_and_stays_in_the_domain(rng: np.random.Generator) -> None:
    seen = []

    class Watching(dtd.Explainer):
        def predict(self, x: Any) -> Any:
            seen.append(np.array(x))
            return super().predict(x)

    layers, x, _ = sums(rng)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perturbation, "Explainer", Watching)
        first = evaluation.region_perturbation(
            layers, x[:1], x[:1], size=2, steps=4, repeats=3, domain=(-1.0, 2.0), seed=5
        )
    copies = max(seen, key=len)
    assert len(copies) == 12  # all repetitions of all steps in one call
    changed = copies[11] != x[0]
    assert changed.any(axis=0).sum() <= 4 * 4
    assert copies.min() >= -1
    assert copies.max() <= 2
    assert copies[11][changed].std() > 0.3
    again = evaluation.region_perturbation(layers, x[:1], x[:1], size=2, steps=4, repeats=3, domain=(-1.0, 2.0), seed=5)
    np.testing.assert_array_equal(first.outputs["relevance"], again.outputs["relevance"])
    assert first.verdict("relevance") == "unknown (one sample)"


def test_columns_of_a_table_have_ranges_of_their_own(rng: np.random.Generator) -> None:
    """The domain is that of a sample, as `explain` takes it: one bound for each column."""
    layers, high = [dtd.Linear(np.eye(3))], np.array([1.0, 10.0, 100.0])
    x = rng.random((4, 3)) * high
    result = evaluation.pixel_flipping(layers, x, x, 1, steps=3, domain=(np.zeros(3), high), backend="oracle")
    np.testing.assert_allclose(result.outputs["relevance"][:, -1], high[1] - x[:, 1], rtol=1e-12)
    evaluation.compare(layers, x, methods=["dtd"], size=1, domain=(np.zeros(3), high))


def test_operators(rng: np.random.Generator) -> None:
    x = rng.random((2, 30, 40))
    low, high = np.full((2, 1, 1), -1.0), np.full((2, 1, 1), 2.0)
    expected = ndimage.gaussian_filter(x, (0, operators.SIGMA, operators.SIGMA), mode="reflect", truncate=4)
    np.testing.assert_allclose(operators.blur(x, rng), expected, atol=1e-12)
    mixed = operators.dirichlet(x, rng)
    assert x.min() <= mixed.min() < mixed.max() <= x.max()
    assert mixed.std() < x.std()
    np.testing.assert_array_equal(operators.flip(low, high)(x, rng), 1 - x)
    noise = operators.uniform(low, high)(x, rng)
    assert stats.kstest((noise.ravel() + 1) / 3, "uniform").pvalue > 1e-4
    np.testing.assert_array_equal(operators.constant([1.0, 2.0])(x, rng)[:, 3, 4], [1, 2])


def test_pixel_flipping_flips(rng: np.random.Generator) -> None:
    layers = [dtd.Linear(np.eye(6))]
    x = rng.random((3, 6))
    result = evaluation.pixel_flipping(layers, x, x, 2, steps=6, domain=(0.0, 1.0))
    np.testing.assert_allclose(result.outputs["relevance"][:, -1], 1 - x[:, 2], atol=1e-6)
    assert result.what == "1 regions, flip"


@pytest.mark.parametrize("last", [[dtd.Softmax()], [dtd.Softmax(), dtd.Dropout()], [dtd.Softmax(log=True)]])
def test_probabilities_are_those_of_a_final_softmax(last: list[Any], rng: np.random.Generator) -> None:
    layers, x = [dtd.Linear(rng.standard_normal((4, 6)))], rng.standard_normal((3, 6))
    expected, found = (
        evaluation.region_perturbation(net, x, x, 2, size=1, steps=3, operator=0.0, probability=True).outputs[
            "relevance"
        ]
        for net in (layers, layers + last)
    )
    np.testing.assert_array_equal(found, expected)


def test_students_quantile() -> None:
    """The series ends with the fourth power: what it leaves out falls with the fifth."""
    for degrees in (1, 2, 3, 4, 5, 8, 12, 30, 1000):
        rel = 1e-7 + (0.4 / degrees**5 if degrees > 2 else 0)
        assert curves.student(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=rel)
    assert np.isnan(curves.student(0))


def test_estimates_cover_the_mean(rng: np.random.Generator) -> None:
    """95 % intervals hold the mean in 95 % of 2,000 draws, up to 4 standard deviations of that share."""
    hits = [abs(e.mean) <= e.half_width for e in (curves.Estimate.of(rng.standard_normal(6)) for _ in range(2000))]
    assert abs(np.mean(hits) - 0.95) <= 4 * np.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": 0}, dtd.InputError, "size is 0"),
        ({"repeats": 0}, dtd.InputError, "repeats is 0"),
        ({"size": 8}, dtd.InputError, "one region has no order"),
        ({"operator": "melt"}, dtd.InputError, "operator is 'melt'"),
        ({"operator": [0.0, 1.0, 2.0]}, dtd.InputError, "one number for each of 2 channels"),
        ({"operator": np.nan}, dtd.InputError, "operator is nan"),
        ({"operator": 1j}, dtd.InputError, "operator is 1j"),
        ({"target": 3}, dtd.ShapeError, "classes 0 to 2"),
        ({"domian": (0.0, 1.0)}, dtd.InputError, "domian= is no option of a perturbation; there are backend"),
        ({"domain": "box"}, dtd.DomainError, "domain"),
        ({"relevance": {"random order": np.zeros((4, 2, 7, 8))}}, dtd.InputError, "a map is called 'random order'"),
        ({"relevance": {"a": np.full((4, 2, 7, 8), np.nan)}}, dtd.InputError, "the maps of 'a' hold NaN"),
        ({"relevance": np.zeros((1, 2, 7, 8))}, dtd.ShapeError, r"'relevance' have shape \(1, 2, 7, 8\)"),
    ],
)
def test_bad_arguments_are_named(
    options: dict[str, Any], error: type[Exception], message: str, rng: np.random.Generator
) -> None:
    layers, x, _ = sums(rng)
    with pytest.raises(error, match=message):
        evaluation.region_perturbation(layers, x, **{"relevance": x, "size": 3, **options})


@pytest.mark.parametrize("operator", [0.0, "uniform"])
def test_every_map_of_the_digits_beats_random(operator: Any) -> None:
    """1 × 1 regions, 20 pixels of 64, on the network that ships with the package."""
    layers, images, _ = digits()
    x = images[:100]
    maps = {"zB": dtd.explain(layers, x, domain=(0.0, 1.0)), "LRP-0": dtd.explain(layers, x, rules="lrp-0")}
    result = evaluation.region_perturbation(
        layers, x, maps, size=1, steps=20, repeats=2, operator=operator, probability=True, domain=(0.0, 1.0)
    )
    assert [m for m in result.outputs if m != result.random and result.verdict(m) != "yes"] == []
    assert "every map marks" in result.reading
    ax = Figure().subplots()
    assert len(result.plot(ax).lines) == 2 * 3 + 1


# --------------------------------------------------------------------------------------------------------- comparison


def test_compare_is_what_the_single_calls_return() -> None:
    layers, x, _ = digits()
    x, box = x[:6], (0.0, 1.0)
    methods = ["dtd", dtd.Gamma(0.25), dtd.baselines.input_x_gradient]
    found = evaluation.compare(layers, x, methods=methods, size=1, steps=10, repeats=2, domain=box)
    assert set(found.methods) == {"dtd", "Gamma(0.25)", "input x gradient"}
    start = np.eye(10, dtype=np.float32)[dtd.predict(layers, x).argmax(axis=1)]
    maps = dtd.explain(layers, x, start, domain=box)
    curves = evaluation.region_perturbation(layers, x, {"dtd": maps}, size=1, steps=10, repeats=2, domain=box)
    numbers = found.numbers("dtd")
    assert numbers["AOPC"] == curves.aopc("dtd").mean
    alike = diagnostics.class_sensitivity(layers, x, domain=box)
    assert numbers["two classes' |cosine|"] == np.median(alike.similarity["|cosine|"])
    assert 0 < numbers["sensitivity"] < found.numbers("Gamma(0.25)")["sensitivity"]
    assert str(found).splitlines()[0].split("  ")[0] == "method"
    assert "dtd changes least under noise; the maps of" in found.reading
    axes = found.plot(Figure().subplots())
    assert [text.get_text() for text in axes.get_legend().get_texts()] == found.methods


def test_compare_words_and_one_output(rng: np.random.Generator) -> None:
    layers, _, ids, _ = sentiment()
    found = evaluation.compare(layers, ids[:5], methods={"held": "cp-lrp"}, size=1, steps=3, operator="resample")
    assert np.isnan(found.numbers("held")["sensitivity"])
    single = [dtd.Linear(rng.standard_normal((1, 6)))]
    found = evaluation.compare(single, rng.random((5, 6)), methods=["lrp-0"], size=1, steps=3, operator="resample")
    assert np.isnan(found.numbers("lrp-0")["two classes' |cosine|"])
    assert "class" not in found.reading
    assert found.rows()[0][-1] == "-"
    with pytest.raises(dtd.InputError, match="two methods are called 'dtd'"):
        evaluation.compare(single, rng.random((2, 6)), methods=["dtd", "dtd"])
    with pytest.raises(dtd.InputError, match="methods is empty"):
        evaluation.compare(single, rng.random((2, 6)), methods=[])


def test_gini() -> None:
    values = np.array([[1.0, 1, 1, 1], [0, 0, 0, -5], [0, 0, 0, 0]])
    np.testing.assert_allclose(gini(values), [0, 0.75, np.nan])
    np.testing.assert_array_equal(gini(2.0**-40 * values), gini(values))


def test_sensitivity_is_the_largest_change_of_a_map_under_noise(rng: np.random.Generator) -> None:
    layers, x = [dtd.Linear(rng.standard_normal((3, 4)))], rng.standard_normal((5, 4))
    found = evaluation.compare(layers, x, 1, methods=["lrp-0"], size=1, steps=2, seed=3, backend="oracle")
    start = np.eye(3)[[1] * 5]
    maps = [
        dtd.explain(layers, y, start, rules="lrp-0", backend="oracle")
        for y in (x, *comparison._noisy(layers, x, None, 3))
    ]
    changes = [np.linalg.norm(other - maps[0], axis=1) / np.linalg.norm(maps[0], axis=1) for other in maps[1:]]
    assert len(changes) == 4
    np.testing.assert_allclose(found.sensitivity["lrp-0"], np.max(changes, axis=0), rtol=1e-12)


def test_resampled_values_come_from_the_same_place(rng: np.random.Generator) -> None:
    images = np.arange(5 * 2 * 6).reshape(5, 2, 6)
    drawn = operators.resample(images)(images[0], rng)
    for place in range(6):
        assert any((drawn[:, place] == image[:, place]).all() for image in images)
    wide = np.broadcast_to(np.arange(5)[:, None, None], (5, 2, 100))
    assert len(np.unique(operators.resample(wide)(wide[0], rng))) == 5  # each place from a sample of its own


def test_compare_guards_its_inputs(rng: np.random.Generator) -> None:
    layers, x = [dtd.Linear(rng.standard_normal((3, 4)))], rng.standard_normal((5, 4)).astype(np.float32)
    before = x.copy()

    def careless(layers: Any, x: Any, start: Any, **options: Any) -> Any:
        found = dtd.explain(layers, x, start, **options)
        x[...] = 0
        return found

    both = evaluation.compare(layers, x, methods={"a": careless, "b": "dtd"}, size=1, steps=2)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(both.sensitivity["a"], both.sensitivity["b"])
    np.testing.assert_array_equal(both.classes["a"].similarity["|cosine|"], both.classes["b"].similarity["|cosine|"])


def test_nothing_is_claimed_of_maps_that_are_0() -> None:
    layers, x = [dtd.Linear(np.zeros((3, 4)))], np.ones((5, 4))
    found = evaluation.compare(layers, x, methods=["dtd"], size=1, steps=2)
    assert "class" not in found.reading
    assert np.isnan(found.numbers("dtd")["two classes' |cosine|"])


def test_compare_refuses(rng: np.random.Generator) -> None:
    layers, x = [dtd.Linear(rng.standard_normal((3, 4)))], rng.standard_normal((5, 4))
    for options, message in (
        ({"x": np.ma.array(x, mask=x > 0)}, "x is a masked array"),
        ({"target": 1.5}, "target is 1.5, expected one class"),
        ({"target": [[0, 1]] * 5}, "target is"),
        ({"target": np.uint64(2**64 - 1)}, "target is .*18446744073709551615"),
        ({"target": dtd.Contrast(0, 1)}, "target is a Contrast"),
        ({"steps": 1.5}, "steps is 1.5"),
        ({"rules": "dtd"}, "rules= is no option of a comparison"),
        ({"methods": [lambda layers, x, start, **_: x]}, "one map for each class"),
    ):
        with pytest.raises(dtd.DtdError, match=message):
            evaluation.compare(layers, **{"x": x, "methods": ["dtd"], "size": 1, **options})


def test_a_curve_is_the_mean_over_its_draws() -> None:
    image, order = np.ones((1, 4)), np.arange(4)
    fills = [np.zeros((1, 4)), np.full((1, 4), 2.0)]  # the sums fall by one at each step, and rise
    found = perturbation._curve(image, order, [order] * 2, fills, lambda copies: copies.sum(axis=(1, 2)))
    np.testing.assert_array_equal(found, [4, 4, 4, 4, 4])


def test_the_random_order_has_every_draw(rng: np.random.Generator) -> None:
    """Where everything has been replaced, the order is of no account."""
    layers, x = [dtd.Linear(np.ones((1, 4)))], rng.random((2, 4))
    found = evaluation.region_perturbation(layers, x, x, size=1, steps=4, repeats=3, domain=(0.0, 1.0))
    np.testing.assert_allclose(found.outputs[found.random][:, -1], found.outputs["relevance"][:, -1], rtol=1e-6)


def test_without_a_domain_values_range_as_the_channel_does() -> None:
    images = np.stack([[np.full((2, 2), -1.0), np.full((2, 2), 5.0)], [np.full((2, 2), 1.0), np.full((2, 2), 9.0)]])
    low, high = perturbation._range(images, None, 1)
    np.testing.assert_array_equal(low.ravel(), [-1, 5])
    np.testing.assert_array_equal(high.ravel(), [1, 9])


@pytest.mark.parametrize(("domain", "width"), [((-5.0, 5.0), 10.0), ("nonnegative", 1.0), (None, 1.0)])
def test_noise_is_a_share_of_the_range_and_stays_in_the_domain(domain: Any, width: float) -> None:
    x = np.linspace(0, 1, 200)[:, None, None].repeat(3, axis=1)  # (n, channels, pixels)
    noisy = np.array(comparison._noisy([], x, domain, 0))
    moved = np.abs(noisy - x).max()
    assert 0.9 * comparison.RADIUS * width < moved <= comparison.RADIUS * width
    assert (noisy.min() < 0) == (domain != "nonnegative")


ASKED: dict[str, Callable[..., Any]] = {
    "class_sensitivity": diagnostics.class_sensitivity,
    "parameter_randomization": diagnostics.parameter_randomization,
    "gradient_equivalence": diagnostics.gradient_equivalence,
    "cosine_convergence": diagnostics.cosine_convergence,
    "region_perturbation": lambda layers, x, **o: evaluation.region_perturbation(layers, x, x, size=1, steps=2, **o),
    "compare": lambda layers, x, **o: evaluation.compare(layers, x, methods=["dtd"], size=1, steps=2, repeats=1, **o),
    "input_x_gradient": lambda layers, x, **o: baselines.input_x_gradient(layers, x, stop=1, **o),
    "activations": lambda layers, x, **o: concepts.top_samples(layers, x, position=1, by="activation", **o),
}


@pytest.mark.parametrize("name", ASKED)
def test_everything_is_computed_where_and_how_it_is_asked_for(
    name: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the predictions behind a map or a choice."""
    asked = []

    def choose(backend: str, precision: str, device: Any) -> str:
        asked.append((precision, device))
        return "oracle" if backend == "oracle" else "cpu"

    monkeypatch.setattr("dtdfast.explainer.choose", choose)
    layers = [dtd.Linear(rng.standard_normal((5, 4))), dtd.ReLU(), dtd.Linear(rng.standard_normal((3, 5)))]
    ASKED[name](layers, rng.random((6, 4)), backend="cpu", precision="float64", device="cuda:1")
    plan = name == "cosine_convergence"  # whose network is looked at without computing anything
    assert set(asked[plan:]) == {("float64", "cuda:1")}
    assert len(asked) > plan
