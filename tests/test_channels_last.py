"""A network that takes its channels last, as Keras's do, is run and judged as the same one with its channels first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast import diagnostics, evaluation
from dtdfast.diagnostics.convergence import _places, waists
from dtdfast.layout import axis_within, channel_axis
from dtdfast.runs.overview import Overview
from run_support import stored

RNG = np.random.default_rng(12)
FIRST = [
    dtd.Conv(RNG.standard_normal((4, 3, 3, 3))), dtd.ReLU(), dtd.Flatten(), dtd.Linear(RNG.standard_normal((5, 320))),
]  # fmt: skip
LAST = [dtd.Permute((0, 3, 1, 2)), *FIRST]
X = RNG.random((4, 3, 12, 10)).astype(np.float32)
TURNED = np.ascontiguousarray(np.moveaxis(X, 1, -1))


def test_the_axis_of_the_channels() -> None:
    assert [channel_axis(layers, 4) for layers in (FIRST, LAST)] == [1, -1]
    wider = [dtd.Permute((0, 3, 1, 2)), dtd.ConvTranspose(np.ones((3, 2, 2, 2)))]
    assert [channel_axis(layers, 4) for layers in (wider, wider[1:])] == [-1, 1]
    thrice = [dtd.Scale(np.full(3, 2.0), np.ones(3)), *LAST]  # three rows by one number
    assert [channel_axis(layers, 4) for layers in (thrice, [dtd.Scale(np.arange(1.0, 4)), *FIRST])] == [-1, 1]
    line = [dtd.Permute((0, 2, 1)), dtd.Conv(np.ones((2, 3, 2)))]
    assert [channel_axis(layers, 3) for layers in (line, line[1:])] == [-1, 1]
    assert channel_axis([dtd.Linear(np.ones((2, 3)))], 2) == 1
    assert [channel_axis([dtd.Linear(np.ones((2, 3)), axis=a)], 3) for a in (-1, 2, 1, 7)] == [-1, -1, 1, 1]
    assert [channel_axis([dtd.Linear(np.ones((2, n)))], 4) for n in (3, 28)] == [-1, 1]
    places = dtd.Constant(np.ones((7, 3)))
    for record in (dtd.LayerNorm(), dtd.RMSNorm()):
        tokens = [places, dtd.Add(inputs=(0, dtd.INPUT)), record, dtd.Linear(np.ones((2, 3)))]
        assert [channel_axis(layers, 3) for layers in (tokens, tokens[2:])] == [-1, -1]


@pytest.mark.parametrize("operator", ["flip", [0.1, 0.2, 0.3]])
def test_regions_are_cut_from_rows_and_columns(operator: Any) -> None:
    a, b = (
        evaluation.region_perturbation(
            layers, x, dtd.explain(layers, x), operator=operator, size=3, steps=4, domain=(0.0, 1.0), repeats=2
        )
        for layers, x in ((FIRST, X), (LAST, TURNED))
    )
    for name, curve in a.outputs.items():
        np.testing.assert_allclose(b.outputs[name], curve, rtol=1e-4, atol=1e-4)


def test_channels_are_what_is_summed() -> None:
    options: Any = dict(methods=["dtd"], size=3, steps=2, repeats=1, domain=(0.0, 1.0), operator="flip")
    a, b = (evaluation.compare(layers, x, **options) for layers, x in ((FIRST, X), (LAST, TURNED)))
    np.testing.assert_allclose(b.sparsity["dtd"], a.sparsity["dtd"], rtol=1e-5)
    c, d = (diagnostics.parameter_randomization(layers, x) for layers, x in ((FIRST, X), (LAST, TURNED)))
    for left, right in ((a.classes["dtd"].similarity, b.classes["dtd"].similarity), (c.similarity, d.similarity)):
        for measure, values in left.items():
            np.testing.assert_allclose(right[measure], values, rtol=1e-4, atol=1e-5, err_msg=measure)
    g, h = (diagnostics.cosine_convergence(layers, x) for layers, x in ((FIRST, X), (LAST, TURNED)))
    np.testing.assert_allclose(h.cosine, g.cosine, rtol=1e-4)
    e, f = (diagnostics.gradient_equivalence(layers, x) for layers, x in ((FIRST, X), (LAST, TURNED)))
    np.testing.assert_allclose(f.alike, e.alike, rtol=1e-5)


@pytest.mark.parametrize("sum_channels", [False, True])
def test_a_run_and_its_maps(sum_channels: bool, tmp_path: Path) -> None:
    dtd.run(LAST, TURNED, tmp_path / "maps.zarr", sum_channels=sum_channels)
    expected = dtd.explain(FIRST, X).sum(axis=1, dtype=np.float64)
    if sum_channels:
        np.testing.assert_allclose(stored(tmp_path / "maps.zarr", "relevance"), expected, rtol=1e-4, atol=1e-5)
    ((_, found),) = Overview.of(tmp_path / "maps.zarr").maps([2])
    np.testing.assert_allclose(found, expected[2], rtol=1e-4, atol=1e-5)


def test_a_run_that_stops_within(tmp_path: Path) -> None:
    """The network's own channels are on axis 1, wherever those of its input are."""
    dtd.run(LAST, TURNED, tmp_path / "maps.zarr", sum_channels=True, stop=2)
    expected = dtd.explain(LAST, TURNED, stop=2).sum(axis=1)
    np.testing.assert_allclose(stored(tmp_path / "maps.zarr", "relevance"), expected, rtol=1e-5, atol=1e-6)


def test_a_run_that_stops_at_tokens(tmp_path: Path) -> None:
    layers = [dtd.Linear(RNG.standard_normal((6, 3))), dtd.ReLU(), dtd.Linear(RNG.standard_normal((2, 6)))]
    layers += [dtd.Flatten(), dtd.Linear(RNG.standard_normal((3, 8)))]
    x = RNG.random((3, 4, 3)).astype(np.float32)
    dtd.run(layers, x, tmp_path / "maps.zarr", sum_channels=True, stop=1)
    expected = dtd.explain(layers, x, stop=1).sum(axis=2)
    np.testing.assert_allclose(stored(tmp_path / "maps.zarr", "relevance"), expected, rtol=1e-5, atol=1e-6)


def test_diagnostics_that_stop_within() -> None:
    """Where channels are first again, whatever the input has."""
    of_first, of_last = dict(layers=FIRST, x=X, stop=1), dict(layers=LAST, x=TURNED, stop=2)
    for diagnose in (diagnostics.class_sensitivity, diagnostics.parameter_randomization):
        a, b = (diagnose(**given).similarity for given in (of_first, of_last))
        for measure, values in a.items():
            np.testing.assert_allclose(b[measure], values, rtol=1e-4, atol=1e-5, err_msg=measure)
    e, f = (diagnostics.gradient_equivalence(**given).alike for given in (of_first, of_last))
    np.testing.assert_allclose(f, e, rtol=1e-5)


def test_features_of_tokens_are_their_channels() -> None:
    """A Linear along an axis is a convolution of one tap along the first."""
    first, second, last = RNG.standard_normal((6, 5)), RNG.standard_normal((4, 6)), RNG.standard_normal((3, 28))
    tokens = [dtd.Linear(first), dtd.ReLU(), dtd.Linear(second), dtd.ReLU(), dtd.Permute((0, 2, 1)), dtd.Flatten(),
              dtd.Linear(last)]  # fmt: skip
    line = [dtd.Conv(first[..., None]), dtd.ReLU(), dtd.Conv(second[..., None]), dtd.ReLU(), dtd.Flatten(),
            dtd.Linear(last)]  # fmt: skip
    x = RNG.random((4, 7, 5)).astype(np.float32)
    pairs = ((tokens, x), (line, np.ascontiguousarray(np.moveaxis(x, 1, 2))))
    a, b = (diagnostics.class_sensitivity(layers, y, 0, 1).similarity for layers, y in pairs)
    np.testing.assert_allclose(a["|cosine|"], b["|cosine|"], rtol=1e-5)
    e, f = (
        evaluation.region_perturbation(layers, y, dtd.explain(layers, y), operator="flip", size=2, steps=3).outputs
        for layers, y in pairs
    )
    np.testing.assert_allclose(e["relevance"], f["relevance"], rtol=1e-4, atol=1e-5)


def test_cosines_of_tokens_are_over_features() -> None:
    """One hidden feature for each token: whatever begins there, each token's features share it alike."""
    layers = [dtd.Linear(np.abs(RNG.standard_normal((2, 5)))), dtd.ReLU(), dtd.Linear(np.ones((1, 2))), dtd.ReLU(),
              dtd.Flatten(), dtd.Linear(RNG.standard_normal((3, 7)))]  # fmt: skip
    found = diagnostics.cosine_convergence(layers, RNG.random((4, 7, 5)), domain="nonnegative")
    np.testing.assert_allclose(found.cosine[1:], 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("record", "above"),
    [
        (dtd.Add(inputs=(1, 2)), [dtd.Dropout(), dtd.Linear(np.ones((2, 5)))]),
        (dtd.Add(inputs=(1, 2)), [dtd.LayerNorm(), dtd.Linear(np.ones((2, 5)))]),
        (dtd.Add(inputs=(1, 2)), []),
        (dtd.LayerNorm(inputs=1), []),
    ],
    ids=["read by a Linear", "read by a norm", "written by a Linear", "a norm"],
)
def test_cosines_of_what_is_no_linear_layer_are_over_features(record: dtd.Layer, above: list[dtd.Layer]) -> None:
    """Positions that are added, or a norm: as their neighbours tell."""
    below = [dtd.Linear(np.abs(RNG.standard_normal((5, 4)))), dtd.ReLU(), dtd.Constant(np.ones((7, 5)))]
    layers = [*below, record, *above, dtd.Flatten(), dtd.Linear(RNG.standard_normal((3, 7 * (2 if above else 5))))]
    (unit,) = [u for u in waists(plan_of(layers, (1, 7, 4))) if u.out.position == 3]
    assert axis_within(layers, *_places(unit)) == 2


def test_a_report() -> None:
    options: Any = dict(tests=("class", "perturbation"), rules=["dtd"], domain=(0.0, 1.0))
    a, b = (dtd.report(layers, x, **options) for layers, x in ((FIRST, X), (LAST, TURNED)))
    (of_class, regions), (same, turned) = ([test for test in page.data["tests"] if test["numbers"]] for page in (a, b))
    assert same["numbers"]["value"] == pytest.approx(of_class["numbers"]["value"], rel=1e-5)
    assert turned["done"] == regions["done"]
    pictures = [re.findall('src="(data:image[^"]+)"', page.html) for page in (a, b)]
    assert pictures[0] == pictures[1]


def plan_of(layers: list[dtd.Layer], shape: tuple[int, ...]) -> Any:
    return dtd.Explainer(layers, backend="oracle").plan_for(shape).program.network


def boxes(n: int) -> tuple[Any, Any]:
    return -RNG.uniform(0.5, 2, n), RNG.uniform(0.5, 2, n)


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
@pytest.mark.parametrize("size", [4, 3], ids=["other sizes", "as many rows as channels"])
def test_bounds_per_channel_are_those_of_channels(size: int, backend: str) -> None:
    """Of pictures, of tokens' features and of words' vectors."""
    low, high = boxes(3)
    options: Any = dict(backend=backend)
    pictures = [dtd.Permute((0, 3, 1, 2)), dtd.Conv(RNG.standard_normal((4, 3, 2, 2))), dtd.ReLU(), dtd.Flatten(),
                dtd.Linear(RNG.standard_normal((2, 4 * (size - 1) ** 2)))]  # fmt: skip
    head = [dtd.ReLU(), dtd.Flatten(), dtd.Linear(RNG.standard_normal((2, 5 * size)))]
    tokens, x = [dtd.Linear(RNG.standard_normal((5, 3))), *head], RNG.uniform(-0.4, 0.4, (2, size, size, 3))
    for layers, y in ((pictures, x), (tokens, x[:, 0])):
        found, expected = (dtd.explain(layers, y, domain=box, **options) for box in (
            (low, high), (np.broadcast_to(low, y.shape[1:]), np.broadcast_to(high, y.shape[1:]))))  # fmt: skip
        np.testing.assert_array_equal(found, expected)
        rule = {0: dtd.ZBox(low, high)} if layers is tokens else {}
        np.testing.assert_array_equal(dtd.explain(layers, y, rules=rule, domain=(low, high), **options), expected)
        outside = y.copy()
        outside[0, 0, ..., 1] = high[1] + 0.1
        with pytest.raises(dtd.DomainError):
            dtd.explain(layers, outside, domain=(low, high), **options)
    words = [dtd.Embedding(np.clip(RNG.standard_normal((7, 3)), low, high)), *tokens]
    ids = RNG.integers(0, 7, (2, size))
    whole = [np.broadcast_to(b, (size, 3)) for b in (low, high)]
    found, expected = (dtd.explain(words, ids, domain=box, **options) for box in ((low, high), tuple(whole)))
    np.testing.assert_array_equal(found, expected)


def test_bounds_per_channel_where_the_channels_are_unknown() -> None:
    low, high = boxes(3)
    layers, x = [dtd.Flatten(), dtd.Linear(RNG.standard_normal((2, 36)))], RNG.uniform(-0.4, 0.4, (2, 3, 4, 3))
    with pytest.raises(dtd.DomainError, match=r"does not tell along which axis .* \(3, 1, 1\) or \(1, 1, 3\)"):
        dtd.explain(layers, x, domain=(low, high))
    y = np.ascontiguousarray(np.moveaxis(x, 3, 2))
    found, expected = (dtd.explain(layers, y, domain=box) for box in (
        (low, high), (low.reshape(3, 1, 1), high.reshape(3, 1, 1))))  # fmt: skip
    np.testing.assert_array_equal(found, expected)


def test_ranges_of_noise_per_channel() -> None:
    low, high = boxes(3)
    for operator in ("flip", "uniform"):
        a, b = (
            evaluation.region_perturbation(
                LAST, TURNED - 0.5, dtd.explain(LAST, TURNED - 0.5), operator=operator, size=3, steps=2, domain=box
            ).outputs
            for box in ((low, high), (low.reshape(1, 1, 3), high.reshape(1, 1, 3)))
        )
        np.testing.assert_array_equal(a["relevance"], b["relevance"])
    a, b = (
        evaluation.compare(LAST, TURNED - 0.5, methods=["dtd"], size=3, steps=2, repeats=1, domain=box)
        for box in ((low - 1, high + 1), (low.reshape(1, 1, 3) - 1, high.reshape(1, 1, 3) + 1))
    )
    np.testing.assert_array_equal(a.sensitivity["dtd"], b.sensitivity["dtd"])
    a, b = (
        diagnostics.root_audit(LAST, TURNED[:1], n_roots=5, domain=box)
        for box in ((low - 1, high + 1), (low.reshape(1, 1, 3) - 1, high.reshape(1, 1, 3) + 1))
    )
    np.testing.assert_array_equal(a.in_domain, b.in_domain)
