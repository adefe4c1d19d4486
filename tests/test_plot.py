"""Charts on the caller's axes: what is drawn, in which colours, and what is refused."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import dtdfast as dtd
from dtdfast import diagnostics, evaluation, plot
from dtdfast.colours import AGAINST, FOR, grey_of
from dtdfast.concepts import TopSamples
from dtdfast.data import sentiment

mpl.use("agg")


def drawn(figure: Figure) -> None:
    figure.savefig("/dev/null", format="png", dpi=20)


def test_bars_are_ranked_and_signed() -> None:
    axes = Figure().subplots()
    found = plot.bars([0.5, -3.0, 1.0, 0.25], ["a", "$b_", "c\u202e", "d"], axes, top=2)
    assert [bar.get_width() for bar in found] == [-3.0, 1.0, 0.75]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["$b_", "c\\u202e", "all others (2)"]
    assert [to_hex(bar.get_facecolor()) for bar in found] == [AGAINST, FOR, FOR]
    drawn(axes.figure)  # a lone dollar sign is no formula


def test_bars_take_the_names_of_a_series() -> None:
    class Series(list[float]):
        index = ("x", "y")

        def to_numpy(self) -> Any:
            return np.array(self)

    axes = Figure().subplots()
    plot.bars(Series([1.0, 2.0]), ax=axes)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["y", "x"]


@pytest.mark.parametrize(
    ("relevance", "options", "message"),
    [
        ([[1.0]], {}, r"relevance has shape \(1, 1\)"),
        ([1.0, np.nan], {}, "NaN"),
        ([1.0], {"names": ["a", "b"]}, "names holds 2"),
        ([1.0], {"top": 0}, "top is 0"),
        ([1.0], {"top": 1.5}, r"top is 1\.5"),
        (["a"], {}, "relevance is text"),
        (np.ma.array([1.0, 2.0], mask=[True, False]), {}, "relevance is a masked array"),
    ],
)
def test_bars_refuse(relevance: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(dtd.DtdError, match=message):
        plot.bars(relevance, ax=Figure().subplots(), **options)


@pytest.mark.parametrize(
    ("scale", "limits"),
    [
        ("each", [[1, 2], [3, 40]]),
        ("method", [[2, 2], [40, 40]]),
        ("input", [[3, 40], [3, 40]]),
        ("all", [[40] * 2] * 2),
    ],
)
def test_grid_shares_scales(scale: str, limits: list[list[float]]) -> None:
    one = np.ones((2, 3, 3))
    maps = {"a": one * np.array([1, -2]).reshape(2, 1, 1), "b": one * np.array([3, 40]).reshape(2, 1, 1)}
    axes = Figure().subplots(3, 2)
    images = plot.grid(
        maps, axes, pictures=np.zeros((2, 3, 3)), labels=["cat", "$dog"], probabilities=[0.5, 0.25], scale=scale,
        percentile=100,
    )  # fmt: skip
    assert [[image.get_clim()[1] for image in row] for row in images] == limits
    assert [ax.get_title() for ax in axes[0]] == ["cat, 50.0 %", "$dog, 25.0 %"]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["", "a", "b"]
    drawn(axes[0, 0].figure)


def test_grid_smooths_what_is_shown_alone() -> None:
    relevance = np.zeros((1, 21, 21))
    relevance[0, 10, 10] = 1
    (image,) = plot.grid({"a": relevance}, Figure().subplots(squeeze=False), smooth=1.5)[0]
    shown = image.get_array()
    assert shown is not None
    assert shown.sum() == pytest.approx(1, rel=1e-12)
    assert 0 < shown[10, 13] < shown[10, 10] < 0.2
    assert relevance.sum() == relevance[0, 10, 10]


@pytest.mark.parametrize(
    ("maps", "options", "message"),
    [
        ({}, {}, "maps is empty"),
        ({"a": np.zeros((1, 2, 2))}, {"scale": "some"}, "scale is 'some'"),
        ({"a": np.zeros((1, 2, 2))}, {"labels": ["a", "b"]}, "labels holds 2"),
        ({"a": np.zeros((1, 2, 2))}, {"smooth": -1.0}, "smooth is -1"),
        ({"a": np.zeros((1, 2, 2))}, {"smooth": "1"}, "smooth is '1'"),
        ({"a": np.zeros((1, 2, 2))}, {"smooth": True}, "smooth is True"),
        ({"a": np.zeros((3, 2, 2))}, {}, "axes has shape"),
        ([np.zeros((1, 2, 2))], {}, "maps is a list"),
        ({"a": np.ma.masked_all((1, 2, 2))}, {}, "relevance is a masked array"),
        ({"a": np.zeros((1, 2, 2))}, {"percentile": 101}, "percentile is 101"),
    ],
)
def test_grid_refuses(maps: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(dtd.DtdError, match=message):
        plot.grid(maps, Figure().subplots(squeeze=False), **options)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3)])
def test_pictures_of_bytes_and_of_floats_are_the_same(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    picture = rng.integers(256, size=shape, dtype=np.uint8)
    np.testing.assert_array_equal(grey_of(picture), grey_of(picture / 255))
    assert grey_of(np.full(shape, 255, np.uint8)) == pytest.approx(1, rel=1e-15)


def test_flow_shows_the_ledger() -> None:
    layers, _, ids, _ = sentiment()
    ledger = dtd.Explainer(layers, rules="attnlrp").ledger(ids[:3])
    axes = Figure().subplots()
    went, *causes = plot.flow(ledger, axes)
    steps = ledger.steps()
    assert [bar.get_width() for bar in went] == [row.went.sum() for row in steps]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"{r.title} ({r.rule})" for r in steps]
    totals = {c.get_label(): sum(bar.get_width() for bar in c) for c in causes}
    assert totals == pytest.approx({c: v.sum() for c, v in ledger.absorbed.items() if v.any()})


def test_curves_draw_means_and_intervals(rng: np.random.Generator) -> None:
    layers, x = [dtd.Flatten(), dtd.Linear(rng.standard_normal((2, 16)))], rng.random((4, 1, 4, 4))
    found = evaluation.region_perturbation(layers, x, x, 1, size=1, steps=5, repeats=2, domain=(0.0, 1.0))
    axes = Figure().subplots()
    lines = plot.curves(found, axes)
    assert [line.get_label() for line in lines] == ["relevance", "sensitivity", "random order"]
    np.testing.assert_allclose(lines[0].get_ydata(), found.outputs["relevance"].mean(axis=0))
    (solid,) = plot.curves(found, Figure().subplots(), methods=["relevance"])
    assert solid.get_label() == "relevance"
    with pytest.raises(dtd.InputError, match="no method 'luck'"):
        plot.curves(found, axes, methods=["luck"])
    assert found.plot(axes) is axes


def test_samples_stand_for_channels() -> None:
    found = TopSamples(np.array([[2, 0], [1, 1], [0, 2]]), np.ones((3, 2)), "relevance")
    pictures = np.arange(3)[:, None, None, None] * np.ones((3, 4, 4, 1))
    axes = Figure().subplots(2, 2)
    images = plot.samples(found, pictures, axes, channels=[2, 0])
    assert [[int(image.get_array()[0, 0]) for image in row] for row in images] == [[0, 2], [2, 0]]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["channel 2", "channel 0"]
    assert [ax.get_title() for ax in axes[0]] == ["sample 0", "sample 2"]
    drawn(axes[0, 0].figure)
    for given, channels, message in (
        (pictures[:2], None, "pictures is 2 pictures, expected one for each sample up to 2"),
        (pictures, [3], "channels holds 3, but there are channels 0 to 2"),
        (pictures, [], "nothing to draw"),
    ):
        with pytest.raises(dtd.InputError, match=message):
            plot.samples(found, given, channels=channels)


@pytest.mark.parametrize("pictures", [np.zeros((2, 3)), np.zeros((2, 3, 3, 2)), [np.zeros((3, 3)), None], 3, "ab"])
def test_grid_refuses_odd_pictures(pictures: Any) -> None:
    with pytest.raises(dtd.DtdError, match="pictures"):
        plot.grid({"a": np.zeros((2, 3, 3))}, Figure().subplots(2, 2), pictures=pictures)


def test_names_are_no_formulas(rng: np.random.Generator) -> None:
    """Names of layers and methods that matplotlib could not read as formulas, or would leave out of a legend."""
    name = r"_$\frac$"
    layers = [dtd.Linear(rng.random((6, 4)), name=name), dtd.ReLU(name=name), dtd.Linear(rng.random((3, 6)), name=name)]
    x = rng.random((3, 4))

    def mine(*args: Any, **options: Any) -> Any:
        return dtd.explain(*args, **options)

    mine.__name__ = name
    compared = evaluation.compare(layers, x, methods={name: "dtd"}, size=1, steps=2, repeats=2)
    for found in (
        compared,
        compared.curves,
        diagnostics.class_sensitivity(layers, x, attribution=mine),
        diagnostics.parameter_randomization(layers, x, attribution=mine),
        diagnostics.top_neurons(layers, x, position=1),
        diagnostics.relevance_flow(layers, x),
    ):
        figure = Figure()
        ax = found.plot(figure.subplots())
        drawn(figure)
        if found in (compared, compared.curves):
            assert name in ax.get_legend().get_texts()[0].get_text().replace(r"\$", "$")


def test_what_is_relevant_covers_the_picture() -> None:
    values = np.array([[0.0, -1.0], [2.0, 4.0]])
    image = plot.overlay(values, np.ones((2, 2)), Figure().subplots(), percentile=100)
    np.testing.assert_array_equal(image.get_alpha(), np.abs(values) / 4)
