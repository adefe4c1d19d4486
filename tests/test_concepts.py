"""dtdfast.concepts: relevance through single channels, and the samples in which they matter most."""

from pathlib import Path

import numpy as np
import pytest
from numpy.random import Generator

import dtdfast as dtd
from dtdfast import concepts
from support import classifier, normal, run_page

EXACT = {"backend": "cpu", "precision": "float64"}
RULES = ["dtd", dtd.Gamma(0.25), "lrp-0"]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_all_channels_together_are_the_map(rng: Generator, rules: object, position: int) -> None:
    layers, x, options = classifier(rng), normal(rng, 2, 3, 6, 6), {"rules": rules, **EXACT}
    whole = dtd.explain(layers, x, **options)
    found = concepts.conditional(layers, x, conditions={position: range(6)}, **options)
    assert found.shape == (2, 6, 3, 6, 6)
    np.testing.assert_allclose(found.sum(axis=1), whole, rtol=0, atol=1e-12 * np.abs(found).sum(axis=1).max())
    halves = concepts.conditional(layers, x, conditions={position: [[0, 1, 2], [3, 4, 5]]}, **options)
    np.testing.assert_allclose(halves.sum(axis=1), whole, rtol=0, atol=1e-12 * np.abs(found).sum(axis=1).max())


def test_a_condition_is_a_start_with_the_other_channels_at_0(rng: Generator) -> None:
    layers, x = classifier(rng), normal(rng, 2, 3, 6, 6)
    start = dtd.explain(layers, x, np.array([1, 2]), stop=1, **EXACT)
    start[:, [0, 1, 2, 4, 5]] = 0
    by_hand = dtd.explain(layers, x, start, start=1, **EXACT)
    found = concepts.conditional(layers, x, np.array([1, 2]), conditions={1: [3]}, **EXACT)
    np.testing.assert_array_equal(found[:, 0], by_hand)


def test_conditions_at_two_layers_hold_together(rng: Generator) -> None:
    layers = [
        dtd.Conv(normal(rng, 4, 2, 3, 3), padding=1), dtd.ReLU(),
        dtd.Conv(normal(rng, 3, 4, 3, 3), padding=1), dtd.ReLU(), dtd.GlobalAvgPool(), dtd.Flatten(),
    ]  # fmt: skip
    x = normal(rng, 2, 2, 5, 5)
    both = [concepts.conditional(layers, x, 0, conditions={3: [0] * 4, 1: range(4)}, rules="lrp-0", **EXACT)]
    upper = concepts.conditional(layers, x, 0, conditions={3: [0]}, rules="lrp-0", **EXACT)
    np.testing.assert_allclose(both[0].sum(axis=1), upper[:, 0], rtol=0, atol=1e-12 * np.abs(both[0]).max())


def test_the_nth_conditions_of_two_layers_belong_together(rng: Generator) -> None:
    layers = [*classifier(rng)[:2], dtd.Conv(normal(rng, 4, 6, 1, 1)), dtd.ReLU(), dtd.GlobalAvgPool(), dtd.Flatten()]
    layers, x = [*layers, dtd.Linear(normal(rng, 2, 4))], normal(rng, 1, 3, 6, 6)
    options = {"rules": "lrp-0", **EXACT}
    found = concepts.conditional(layers, x, 0, conditions={3: [[0, 1], [2, 3]], 1: [[1, 2], [4, 5]]}, **options)
    for number, (upper, lower) in enumerate([([0, 1], [1, 2]), ([2, 3], [4, 5])]):
        alone = concepts.conditional(layers, x, 0, conditions={3: [upper], 1: [lower]}, **options)
        np.testing.assert_array_equal(found[:, number], alone[:, 0])
        assert alone.any()


def test_features_of_tokens(rng: Generator) -> None:
    layers = [dtd.Linear(normal(rng, 5, 4)), dtd.ReLU(), dtd.Flatten(), dtd.Linear(normal(rng, 2, 15))]
    x = normal(rng, 2, 3, 4)
    found = concepts.conditional(layers, x, conditions={1: range(5)}, axis=-1, rules="lrp-0", **EXACT)
    whole = dtd.explain(layers, x, rules="lrp-0", **EXACT)
    np.testing.assert_allclose(found.sum(axis=1), whole, rtol=0, atol=1e-12 * np.abs(found).max())
    tokens = concepts.conditional(layers, x, conditions={1: range(3)}, axis=1, rules="lrp-0", **EXACT)
    np.testing.assert_array_equal(tokens[:, 0, 1:], 0)


def test_conditions_share_one_pass_forward(rng: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    from dtdfast.cpu.executor import CpuSession

    forward, back = [], []
    run, share = CpuSession.forward, CpuSession.relevance
    monkeypatch.setattr(CpuSession, "forward", lambda self, x: forward.append(len(x)) or run(self, x))
    monkeypatch.setattr(CpuSession, "relevance", lambda self, s, *r: back.append(s.shape[1]) or share(self, s, *r))
    concepts.conditional(classifier(rng), normal(rng, 1, 3, 6, 6), conditions={1: range(6)}, backend="cpu")
    assert (len(forward), back) == (2, [1, 6])  # to the entry, and from it on


def test_channels_and_their_samples(rng: Generator) -> None:
    layers, x = classifier(rng), normal(rng, 70, 3, 6, 6)  # more than one block
    relevance = dtd.explain(layers, x, stop=1).sum(axis=(2, 3), dtype=np.float64)
    found = concepts.channel_relevance(layers, x, position=1)
    np.testing.assert_allclose(found, relevance, rtol=1e-12)
    (best,) = concepts.top_channels(found[:1], 2)
    assert [c for c, _ in best] == list(np.argsort(-found[0])[:2])
    assert concepts.top_channels(np.array([[0, 3, 5]], np.uint8), 2) == [[(2, 5.0), (1, 3.0)]]
    top = concepts.top_samples(layers, x, position=1, k=3)
    np.testing.assert_array_equal(top.samples, np.argsort(-relevance.T, axis=1, kind="stable")[:, :3])
    np.testing.assert_allclose(top.scores, np.sort(relevance.T, axis=1)[:, ::-1][:, :3], rtol=1e-5)
    values = dtd.predict(layers[:2], x).max(axis=(2, 3))
    active = concepts.top_samples(layers, x, position=1, k=3, by="activation")
    np.testing.assert_array_equal(active.samples, np.argsort(-values.T, axis=1, kind="stable")[:, :3])
    chosen = concepts.top_samples(layers, x, np.arange(70) % 5, position=1, k=1)
    by_hand = dtd.explain(layers, x, np.arange(70) % 5, stop=1).sum(axis=(2, 3), dtype=np.float64)
    np.testing.assert_array_equal(chosen.samples[:, 0], by_hand.argmax(axis=0))


@pytest.mark.parametrize(
    ("conditions", "error", "message"),
    [
        ({}, dtd.LayerError, "conditions is empty"),
        ({1: []}, dtd.TargetError, "at least 1"),
        ({1: [0, 1], 0: [0]}, dtd.TargetError, "equally many"),
        ({1: [6]}, dtd.TargetError, "channel 6 is outside the 6 channels of entry 1"),
        ({1: [-1]}, dtd.TargetError, "outside the 6 channels"),
        ({1: [0.5]}, dtd.TargetError, "expected channels by number"),
        ({9: [0]}, dtd.LayerError, "stop is 9"),
    ],
)
def test_refused(rng: Generator, conditions: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        concepts.conditional(classifier(rng), normal(rng, 1, 3, 6, 6), conditions=conditions)


def test_more_refused(rng: Generator) -> None:
    layers, x = classifier(rng), normal(rng, 1, 3, 6, 6)
    with pytest.raises(dtd.TargetError, match="axis is 4"):
        concepts.conditional(layers, x, conditions={1: [0]}, axis=4)
    with pytest.raises(dtd.TargetError, match="axis is 0"):
        concepts.conditional(layers, x, conditions={1: [0]}, axis=0)
    with pytest.raises(dtd.TargetError, match="one at a time"):
        concepts.conditional(layers, x, np.array([[0, 1]]), conditions={1: [0]})
    with pytest.raises(dtd.TargetError, match="by is 'x'"):
        concepts.top_samples(layers, x, position=1, by="x")
    with pytest.raises(dtd.InputError, match="domian= is no option"):
        concepts.top_samples(layers, x, position=1, by="activation", domian=(0.0, 1.0))


def test_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_page("concepts.md")["maps"].shape == (1, 16, 1, 8, 8)


@pytest.mark.parametrize("target", [np.array([[0, 1]] * 3), [[0]] * 3, np.ones((3, 2, 5))])
def test_several_targets_are_no_channels(rng: Generator, target: object) -> None:
    layers, x = classifier(rng), normal(rng, 3, 3, 6, 6)
    for call in (
        lambda: concepts.channel_relevance(layers, x, target, position=1),
        lambda: concepts.top_samples(layers, x, target, position=1),
        lambda: concepts.conditional(layers, x, target, conditions={1: [0]}),
    ):
        with pytest.raises(dtd.TargetError, match="several outputs for each sample"):
            call()


@pytest.mark.parametrize("axis", [0, 9, -4, 1.5, None, True])
def test_no_axis_of_channels(rng: Generator, axis: object) -> None:
    layers, x = classifier(rng), normal(rng, 3, 3, 6, 6)
    for by in ("relevance", "activation"):
        with pytest.raises(dtd.TargetError, match="the output of entry 1 has 4 axes"):
            concepts.top_samples(layers, x, position=1, axis=axis, by=by)
    with pytest.raises(dtd.TargetError, match="the output of entry 1 has 4 axes"):
        concepts.channel_relevance(layers, x, position=1, axis=axis)


def test_targets_of_many_samples_are_cut_with_them(rng: Generator) -> None:
    layers, x = classifier(rng), normal(rng, 70, 3, 6, 6)
    numbers = np.arange(70) % 2
    for target in (dtd.Contrast(numbers, numbers + 1), np.eye(5)[numbers]):
        found = concepts.top_samples(layers, x, target, position=1, k=70)
        whole = concepts.channel_relevance(layers, x, target, position=1)
        np.testing.assert_allclose(found.scores, -np.sort(-whole.T, axis=1), rtol=1e-6, atol=1e-6 * np.abs(whole).max())


def test_no_such_number_or_samples(rng: Generator) -> None:
    layers, x = classifier(rng), normal(rng, 2, 3, 6, 6)
    for k in (0, -1, 1.5, None):
        with pytest.raises(dtd.InputError, match="k is"):
            concepts.top_channels(np.ones((2, 3)), k)
        with pytest.raises(dtd.InputError, match="k is"):
            concepts.top_samples(layers, x, position=1, k=k)
    for samples in (x[:0], np.ma.array(x, mask=x > 0), None):
        with pytest.raises(dtd.DtdError, match=r"x has shape|x is None, expected|x is a masked array"):
            concepts.top_samples(layers, samples, position=1)
    with pytest.raises(dtd.InputError, match="return_outputs= is for `explain`"):
        concepts.channel_relevance(layers, x, position=1, return_outputs=True)
