"""Randomised weights: which layers a step reaches, and what is said of the maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
import nets
from dtdfast import diagnostics
from dtdfast.data import digits
from dtdfast.diagnostics import randomization

BOX: dict[str, Any] = {"domain": (0.0, 1.0)}


def test_cascade_ends_at_an_untrained_network(rng: np.random.Generator) -> None:
    layers, x, _ = digits()
    x = x[:40]
    zplus = diagnostics.parameter_randomization(layers, x, **BOX)
    assert zplus.positions == [8, 6, 2, 0]
    assert np.median(zplus.similarity["cosine"][0]) > 0.95
    gradient = diagnostics.parameter_randomization(layers, x, attribution=dtd.baselines.input_x_gradient)
    assert abs(np.median(gradient.similarity["cosine"][0])) < 0.5
    assert "the map changes as soon as" in gradient.reading
    alone = diagnostics.parameter_randomization(layers, x, order="independent", **BOX)
    np.testing.assert_array_equal(alone.similarity["cosine"][0], zplus.similarity["cosine"][0])  # the same first step
    with pytest.raises(dtd.LayerError, match="cascading"):
        diagnostics.parameter_randomization(layers, x, order="upwards")
    with pytest.raises(dtd.ShapeError, match=r"have shape \(1, .*, expected \(40, \.\.\.\)"):
        diagnostics.parameter_randomization(layers, x, attribution=lambda *given, **_: dtd.explain(*given)[:1])
    with pytest.raises(dtd.LayerError, match="no layer with weights"):
        diagnostics.parameter_randomization([dtd.ReLU()], rng.random((2, 4)))


@pytest.mark.parametrize(
    ("record", "fan_in"),
    [
        (dtd.Linear(np.zeros((300, 80))), 80),
        (dtd.Conv(np.zeros((64, 8, 3, 3)), groups=2), 8 * 9),
        (dtd.ConvTranspose(np.zeros((64, 8, 3, 3)), groups=4), 64 // 4 * 9),
    ],
    ids=lambda of: type(of).__name__,
)
def test_weights_are_drawn_as_he_et_al_do(record: Any, fan_in: int, rng: np.random.Generator) -> None:
    """With the variance 2/fan_in, within four standard errors of a variance."""
    weight = randomization.randomized(record, rng).weight  # type: ignore[attr-defined]
    assert abs(weight.var() * fan_in / 2 - 1) < 4 * np.sqrt(2 / weight.size)


def test_what_is_random_in_every_step() -> None:
    """Alone, or with all that was before it."""
    layers, steps = list(digits()[0]), [(8,), (6,), (2, 3), (0,)]
    for order, expected in (("independent", steps), ("cascading", [(8,), (6, 8), (2, 3, 6, 8), (0, 2, 3, 6, 8)])):
        layers[3] = dtd.Scale(np.ones(16))
        made = randomization._networks(layers, steps, order, np.random.default_rng(0))
        changed = [tuple(p for p, record in enumerate(network) if record is not layers[p]) for network in made]
        assert changed == expected


def test_norms_are_randomised_with_their_layer() -> None:
    net = nets.SMALL["video_cnn"]()
    assert sum(isinstance(layer, dtd.BatchNorm) for layer in net.layers) == 2
    result = diagnostics.parameter_randomization(net.layers, net.sample(1), domain=net.box)
    assert [type(net.layers[p]) for p in result.positions] == [dtd.Linear, dtd.Conv, dtd.Conv, dtd.Conv]


def test_randomization_goes_through_norms_and_around_constants() -> None:
    net = nets.SMALL["vit"]()
    result = diagnostics.parameter_randomization(net.layers, net.sample(2), rules="cp-lrp")
    kinds = [type(net.layers[p]) for p in result.positions]
    assert set(kinds) == {dtd.Linear, dtd.Conv, dtd.LayerNorm}
    assert len(kinds) == sum(isinstance(r, (dtd.Linear, dtd.Conv, dtd.LayerNorm)) for r in net.layers)
    norm = next(r for r in net.layers if isinstance(r, dtd.LayerNorm))
    untrained = randomization.randomized(norm, np.random.default_rng(0))
    assert untrained.weight is None
    assert untrained.bias is None
    assert untrained.eps == norm.eps


def test_randomization_reaches_embeddings_and_norms_behind_anything(rng: np.random.Generator) -> None:
    layers = [
        dtd.Embedding(rng.normal(size=(7, 2))),
        dtd.Flatten(),
        dtd.Linear(rng.normal(size=(4, 4))),
        dtd.ReLU(),
        dtd.BatchNorm(np.zeros(4), np.full(4, 2.0), np.full(4, 3.0)),
        dtd.Add(inputs=(2, 4)),
        dtd.BatchNorm(np.ones(4), np.ones(4)),
        dtd.Scale(np.full(4, 0.5)),
        dtd.Linear(rng.normal(size=(3, 4))),
    ]
    result = diagnostics.parameter_randomization(layers, rng.integers(7, size=(3, 2)), rules="lrp-0")
    assert result.positions == [8, 6, 4, 2, 0]
    untrained = randomization.randomized(layers[0], np.random.default_rng(0))
    assert untrained.weight.shape == (7, 2)
    assert 0.5 < untrained.weight.std() < 1.5


def test_random_weights_that_leave_no_map() -> None:
    one = diagnostics.Randomization("dtd", "cascading", [1, 0], ["b", "a"], {"cosine": np.array([[0.99], [np.nan]])})
    assert one.reading == "dtd: no map is left to compare once a is randomised: a map that is 0 is like no other."


@pytest.mark.parametrize("diagnose", [diagnostics.class_sensitivity, diagnostics.parameter_randomization])
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a Given"])
def test_classes_are_those_of_the_entry_where_relevance_starts(diagnose: Any, beside: bool) -> None:
    """As of the network that ends there: logits before a sigmoid, for example."""
    rng = np.random.default_rng(0)
    layers = [dtd.Linear(rng.standard_normal((6, 5))), dtd.ReLU(), dtd.Linear(rng.standard_normal((4, 6)))]
    above = [dtd.Given("weights", (4,)), dtd.Mul(inputs=(2, 3))] if beside else [dtd.Activation("sigmoid")]
    x, given = rng.random((6, 5)), {"weights": rng.random((6, 4))} if beside else {}
    found = diagnose([*layers, *above, dtd.Linear(np.ones((1, 4)))], x, start=2, backend="cpu", **given)
    assert str(found) == str(diagnose(layers, x, backend="cpu"))
