"""Targets, Slices and Gathers that read one token: planned for it alone, with the bits of the whole network's maps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast import executors
from nets import Net
from nets.masked import GIVEN, IDS, TOKENS, encoder
from nets.transformers import BOX, Blocks
from support import LONG, chosen

N_TOKENS, WORDS = 7, 23
WORDS_OF = np.random.default_rng(5).integers(0, WORDS, (3, N_TOKENS))


@cache
def decoder(norm: str = "layer", *, rotary: bool = False, groups: int = 4, gated: bool = False) -> Net:
    """Words to the next word's logits, at every token."""
    net = Blocks((N_TOKENS,), 1, "random", BOX)
    x = net.embedding(WORDS, 24)
    if not rotary:
        x = net.add(x, net.constant(N_TOKENS, 24))
    normed = net.layer_norm if norm == "layer" else net.rms_norm
    for _ in range(2):
        x = net.add(x, net.attention(normed(x), 4, n_groups=groups, causal=True, rotary=rotary))
        x = net.add(x, net.gated_mlp(normed(x), 32) if gated else net.mlp(normed(x), 2))
    net.dense(WORDS, normed(x))
    return net.net("decoder", WORDS)


def llama() -> Net:
    return decoder("rms", rotary=True, groups=2, gated=True)


def start_at(outputs: np.ndarray, token: int) -> np.ndarray:
    start = np.zeros_like(outputs)
    start[:, token] = np.random.default_rng(2).standard_normal(start[:, token].shape)
    return start


def planned(explainer: dtd.Explainer, shape: tuple[int, ...], token: int | None) -> Any:
    return explainer._executor(shape, "explain", token=token).plan(2, 1)


def explainers(net: Net, **options: Any) -> list[dtd.Explainer]:
    made = []
    for rules in (*(dtd.PRESETS if LONG else ("dtd", "cp-lrp")), dtd.Gamma(0.5)):
        for attention in ("held", "taylor"):
            try:
                explainer = dtd.Explainer(
                    net.layers, rules=rules, attention=attention, backend="cpu", domain=BOX, **options
                )
                explainer.plan_for((1, *net.input_shape))
            except dtd.RuleError:
                continue
            made.append(explainer)
    return made


@pytest.mark.parametrize("make", [decoder, llama])
def test_bits_are_those_of_the_whole_network(make):
    net = make()
    outputs = dtd.predict(net.layers, WORDS_OF, backend="cpu")
    for explainer in explainers(net):
        for token in (0, 3, N_TOKENS - 1) if LONG else (3,):
            start = start_at(outputs, token)
            whole, _ = explainer.explain(WORDS_OF, start, return_outputs=True)
            np.testing.assert_array_equal(explainer.explain(WORDS_OF, start), whole, err_msg=str(explainer))
            assert whole.any()


@pytest.mark.parametrize("kind", ["added", "causal"])
def test_bits_beside_masks(kind):
    net = encoder(kind, "tokens")
    outputs = dtd.predict(net.layers, IDS, backend="cpu", **GIVEN)
    for explainer in explainers(net):
        start = start_at(outputs, 0)
        whole, _ = explainer.explain(IDS, start, return_outputs=True, **GIVEN)
        np.testing.assert_array_equal(explainer.explain(IDS, start, **GIVEN), whole, err_msg=str(explainer))


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_every_way_to_name_a_token(precision):
    net = decoder()
    explainer = dtd.Explainer(net.layers, rules="cp-lrp", backend="cpu", precision=precision)
    outputs = explainer.predict(WORDS_OF)
    largest = outputs[:, -1].argmax(axis=-1)
    for target, classes in ((-1, 4), 4), ("last", largest), (("last", 2), 2), ((-1, None), largest):
        start = np.zeros_like(outputs)
        place = np.arange(3), -1, classes
        start[place] = outputs[place]
        whole, _ = explainer.explain(WORDS_OF, start, return_outputs=True)
        np.testing.assert_array_equal(explainer.explain(WORDS_OF, target), whole)
        np.testing.assert_array_equal(explainer.explain(WORDS_OF, target, return_outputs=True)[0], whole)
    several = np.stack([start, -start], axis=1)
    np.testing.assert_array_equal(explainer.explain(WORDS_OF, several), np.stack([whole, -whole], axis=1))


@pytest.mark.parametrize(("rules", "share"), [("cp-lrp", 0.65), ("attnlrp", 0.75)])
def test_what_it_spares(rules, share):
    """The last block's MLP and logits are computed once; its queries and attention too where weights are held."""
    net = decoder()
    explainer = dtd.Explainer(net.layers, rules=rules, backend="cpu")
    whole, one = (planned(explainer, (N_TOKENS,), token) for token in (None, 3))
    assert one.macs < share * whole.macs
    assert one.arena < whole.arena
    assert one.program.network.output.shape == (1, WORDS)


def test_places_that_differ_and_many_places_have_the_whole_plan():
    net = encoder("added", "tokens")
    explainer = dtd.Explainer(net.layers, rules="cp-lrp", backend="cpu")
    explainer.explain(IDS, "last", **GIVEN)  # samples of several lengths
    assert [key[3] for key in explainer._executor.made] == [None]
    for token in range(TOKENS):
        explainer.explain(IDS, (token, None), **GIVEN)
    assert {key[3] for key in explainer._executor.made} == {None, 0, 1, 2, 3}


def test_the_oracle_and_predictions_are_whole():
    net = decoder()
    fast, exact = (
        dtd.Explainer(net.layers, backend=backend, rules="cp-lrp", precision="float64") for backend in ("cpu", "oracle")
    )
    maps, expected = (explainer.explain(WORDS_OF, (-1, 3)) for explainer in (fast, exact))
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-12 * abs(expected).max())
    assert [[key[3] for key in explainer._executor.made] for explainer in (fast, exact)] == [[6], [None]]
    assert fast.predict(WORDS_OF).shape == (3, N_TOKENS, WORDS)


def test_inner_entries_gradients_ledgers_and_profiles():
    net = decoder()
    for options in ({"stop": 1}, {"stop": len(net.layers) - 3}, {"start": len(net.layers) - 2}):
        explainer = dtd.Explainer(net.layers, backend="cpu", rules="lrp-epsilon", **options)
        outputs = dtd.predict(net.layers[: options.get("start", len(net.layers) - 1) + 1], WORDS_OF, backend="cpu")
        start = start_at(outputs, 2)
        whole, _ = explainer.explain(WORDS_OF, start, return_outputs=True)
        np.testing.assert_array_equal(explainer.explain(WORDS_OF, start), whole)
    explainer = dtd.Explainer(net.layers, backend="cpu", kind="gradient", stop=0)
    start = start_at(dtd.predict(net.layers, WORDS_OF, backend="cpu"), 5)
    whole, _ = explainer.explain(WORDS_OF, start, return_outputs=True)
    np.testing.assert_array_equal(explainer.explain(WORDS_OF, start), whole)
    explainer = dtd.Explainer(net.layers, backend="cpu", rules="cp-lrp")
    ledger = explainer.ledger(WORDS_OF, (-1, 2))
    assert ledger.closed
    np.testing.assert_allclose(explainer.explain(WORDS_OF, (-1, 2)).sum(axis=1), ledger.end, rtol=1e-4)
    assert explainer.profile(WORDS_OF, (-1, 2)).seconds > 0


rng = np.random.default_rng(0)
MIX = dtd.Linear(rng.standard_normal((5, 5)), rng.standard_normal(5), axis=1)  # tokens with one another
HEAD = dtd.Linear(rng.standard_normal((4, 6)), rng.standard_normal(4), axis=-1)
ODD: dict[str, list[dtd.Layer]] = {  # of (5, 6): what is one with a layer that needs all tokens
    "a sum": [MIX, dtd.Linear(rng.standard_normal((6, 6)), axis=-1, inputs=-1), dtd.Add(inputs=(0, 1)), HEAD],
    "a ReLU": [MIX, dtd.ReLU(), HEAD],
    "a gate": [MIX, dtd.Activation("sigmoid", inputs=-1), dtd.Mul(inputs=(0, 1)), HEAD],
    "an affine": [MIX, dtd.ReLU(), dtd.Scale(rng.standard_normal((5, 1)), rng.standard_normal((5, 1))), HEAD],
    "an affine between": [MIX, dtd.Scale(rng.standard_normal((1, 6)), rng.standard_normal((1, 6))), HEAD],
    "an affine alone": [dtd.ReLU(), dtd.Scale(rng.standard_normal((1, 6))), dtd.ReLU(), HEAD],
    "an affine behind": [dtd.ReLU(), HEAD, dtd.Scale(rng.standard_normal((1, 4)), rng.standard_normal((1, 4)))],
    "a table": [dtd.Constant(rng.standard_normal((5, 6))), dtd.Add(inputs=(-1, 0)), HEAD],
    "a table of factors": [dtd.Constant(rng.standard_normal((5, 6))), dtd.Mul(inputs=(-1, 0)), HEAD],
    "two readers": [dtd.ReLU(), HEAD, dtd.Linear(rng.standard_normal((4, 6)), inputs=0), dtd.Add(inputs=(1, 2))],
    "a pool": [dtd.Reshape((1, 5, 6)), dtd.MaxPool((3, 1), 1, padding=(1, 0)), dtd.Reshape((5, 6)), HEAD, dtd.ReLU()],
    "a convolution": [dtd.Conv(rng.standard_normal((5, 5, 3)), padding=1), dtd.ReLU(), dtd.Dropout(), HEAD],
    "channels of a softmax": [HEAD, dtd.Softmax(1, inputs=0), dtd.Mul(inputs=(0, 1))],
    "nothing to spare": [dtd.ReLU(), MIX],
}


@pytest.mark.parametrize("name", ODD)
def test_neurons_stay_whole(name):
    x = np.random.default_rng(1).standard_normal((2, 5, 6)).astype(np.float32)
    outputs = dtd.predict(ODD[name], x, backend="cpu")
    for number, rules in enumerate(("dtd", "lrp-0", "lrp-epsilon", "epsilon-alpha2-beta1", dtd.ZPlusBySign())):
        explainer = dtd.Explainer(ODD[name], rules=rules, backend="cpu")
        for token in (0, 4) if LONG else (0, 4)[number % 2 :][:1]:
            start = start_at(outputs, token)
            whole, _ = explainer.explain(x, start, return_outputs=True)
            np.testing.assert_array_equal(explainer.explain(x, start), whole, err_msg=str(rules))


def test_domains_of_inputs_that_are_read_at_one_token():
    x = np.random.default_rng(1).uniform(0, 1, (2, 5, 6)).astype(np.float32)
    start = start_at(dtd.predict([HEAD], x, backend="cpu"), 1)
    for domain in ("real", "nonnegative", (0.0, 1.0), (np.zeros((5, 6)), np.linspace(1, 2, 30).reshape(5, 6))):
        explainer = dtd.Explainer([HEAD], domain=domain, backend="cpu")
        whole, _ = explainer.explain(x, start, return_outputs=True)
        np.testing.assert_array_equal(explainer.explain(x, start), whole)
    with pytest.raises(dtd.DomainError):
        dtd.explain([HEAD], -x, (-1, 2), domain=(0.0, 1.0), backend="cpu")
    for target in ("last", (-1, 2), (-6, 1), (9, None)):
        with pytest.raises(dtd.DtdError):
            dtd.explain([HEAD], x[0, 0], target, backend="cpu")


# ------------------------------------------------------------------------------------------ tokens that a network picks


@contextmanager
def whole_plans() -> Iterator[None]:
    prepare = executors.prepare
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executors, "prepare", lambda *given: prepare(*given[:-2], True, given[-1]))
        yield


PICKS: dict[str, list[dtd.Layer]] = {
    "first": [dtd.Slice(1, 0, 1)],
    "last": [dtd.Gather((-1,), 1)],
    "stepped": [dtd.Slice(1, 3, None, 4)],
    "behind what is left out": [dtd.Dropout(), dtd.Slice(-2, -2, -1)],
}


def picking(layers: list[dtd.Layer], pick: list[dtd.Layer], features: int) -> list[dtd.Layer]:
    weight = np.random.default_rng(7).standard_normal((3, features))
    return [*layers, *pick, dtd.Flatten(), dtd.Linear(weight)]


@pytest.mark.parametrize(("pick", "rules"), chosen(PICKS, ("cp-lrp", "attnlrp", "dtd", dtd.Gamma(0.5))), ids=str)
def test_a_picked_token(pick: str, rules: Any) -> None:
    net, exact = decoder(), rules != "attnlrp"
    layers = picking(net.layers[:-1], PICKS[pick], 24)
    explainer = dtd.Explainer(layers, rules=rules, backend="cpu")
    found, outputs = explainer.explain(WORDS_OF, 1, return_outputs=True)
    with whole_plans():
        whole = dtd.Explainer(layers, rules=rules, backend="cpu")
        expected, predictions = whole.explain(WORDS_OF, 1, return_outputs=True)
        ledger = str(whole.ledger(WORDS_OF, 1))
    np.testing.assert_array_equal(outputs, predictions)
    np.testing.assert_array_equal(explainer.predict(WORDS_OF), predictions)
    # rows of weights through which nothing goes back are left out of sums: about their roundings
    np.testing.assert_allclose(found, expected, rtol=0, atol=0 if exact else 2**-20 * abs(expected).max())
    assert explainer.ledger(WORDS_OF, 1).closed, ledger
    plan, large = (planned(made, (N_TOKENS,), None) for made in (explainer, whole))
    assert plan.macs < (0.85 if exact else 0.9) * large.macs
    assert plan.arena < large.arena


def test_two_picked_tokens_and_stops_between() -> None:
    net = decoder()
    n = len(net.layers) - 1
    both = [*net.layers[:-1], *(dtd.Slice(1, k, k + 1, inputs=n - 1) for k in (0, 3))]
    for layers in (
        picking([*both, dtd.Concat(2, inputs=(n, n + 1))], [], 48),
        picking(net.layers[:-1], [dtd.Gather((0, 3), 1)], 48),
        picking(net.layers[:-1], [dtd.Slice(1, 0, 4, 3)], 48),
    ):
        with whole_plans():
            whole = dtd.Explainer(layers, rules="cp-lrp", backend="cpu")
            expected = whole.explain(WORDS_OF, 1)
        explainer = dtd.Explainer(layers, rules="cp-lrp", backend="cpu")
        np.testing.assert_array_equal(explainer.explain(WORDS_OF, 1), expected)
        assert planned(explainer, (N_TOKENS,), None).macs == planned(whole, (N_TOKENS,), None).macs
    layers = picking(net.layers[:-1], PICKS["first"], 24)
    for stop in [position for position, record in enumerate(layers[:n]) if isinstance(record, dtd.Add)]:
        found = dtd.Explainer(layers, rules="lrp-epsilon", backend="cpu", stop=stop).explain(WORDS_OF, 2)
        with whole_plans():
            expected = dtd.Explainer(layers, rules="lrp-epsilon", backend="cpu", stop=stop).explain(WORDS_OF, 2)
        np.testing.assert_array_equal(found, expected, err_msg=str(stop))


@pytest.mark.parametrize("name", ODD)
def test_neurons_stay_whole_before_a_pick(name: str) -> None:
    x = np.random.default_rng(1).standard_normal((2, 5, 6)).astype(np.float32)
    features = dtd.predict(ODD[name], x, backend="cpu").shape[-1]
    for number, rules in enumerate(("dtd", "lrp-0", "epsilon-alpha2-beta1")):
        for place in (0, 4) if LONG else (0, 4)[number % 2 :][:1]:
            layers = picking(ODD[name], [dtd.Gather((place,), 1)], features)
            found = dtd.Explainer(layers, rules=rules, backend="cpu").explain(x, 0)
            with whole_plans():
                expected = dtd.Explainer(layers, rules=rules, backend="cpu").explain(x, 0)
            np.testing.assert_array_equal(found, expected, err_msg=str(rules))
