"""Attention in one step: the bits of its steps one by one, whatever the blocks; what a plan keeps of its weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
import nets
from dtdfast.explainer import EXPLAIN
from dtdfast.plan import attention, lower
from dtdfast.plan.attention import Fused
from dtdfast.plan.plan import Plan
from graphs import Graph, options, tokens
from graphs.builder import Builder
from support import LONG, chosen

Array = np.ndarray[Any, Any]
RULES = ("cp-lrp", "dtd", "attnlrp", dtd.Gamma(0.25))
NONE, SOME = -np.inf, 1
"""The part of their bytes beyond which weights are made again where that is spared: none are kept, all are."""


@contextmanager
def blocks(spared: float, nbytes: int, least: int = 4, head: int = 0) -> Any:
    """Slices of so many bytes; weights kept, or made again, by blocks or where `head` says so by head."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("SPARED", spared), ("SLICE", nbytes), ("LEAST", least), ("HEAD", head)):
            patch.setattr(attention, name, value)
        yield


@contextmanager
def apart() -> Any:
    """Without fusing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lower, "fuse_attention", lambda forward, relevance, t, *, local: Fused(forward, relevance, []))
        yield


WAYS = {
    "kept": lambda: blocks(SOME, 2**10),
    "again": lambda: blocks(NONE, 2**10),
    "again, small blocks": lambda: blocks(NONE, 1, 1),
    "again, by head": lambda: blocks(NONE, 2**20, 32, 2**30),
}


def _masked(kind: str, tokens: int) -> list[dtd.Layer]:
    """One block of attention with two heads; keys masked by what comes with a sample (many by a causal mask too), rows
    left out wholly, a causal mask and positions that are added, a window and a mask of numbers, or factors of heads.
    """
    rng = np.random.default_rng(3)

    def linear(n_out: int, of: int) -> dtd.Linear:
        return dtd.Linear(rng.standard_normal((n_out, 6)) / 2, rng.standard_normal(n_out), axis=-1, inputs=of)

    def heads(of: int) -> list[dtd.Layer]:
        return [linear(6, of), dtd.Reshape((tokens, 2, 3)), dtd.Permute((0, 2, 1, 3))]

    mask = rng.random((tokens, tokens)) < 0.6
    mask[0] = kind != "rows"
    if kind in ("added", "window"):
        mask = np.tri(tokens, dtype=bool)
        mask &= kind == "added" or ~np.tri(tokens, k=-20, dtype=bool)
    softmax = dtd.Softmax(-1, mask=mask, inputs=10)
    if kind == "given":
        softmax = dtd.Softmax(-1, mask=np.tri(tokens, dtype=bool) if tokens > 9 else None, inputs=(10, 11))
    table = rng.standard_normal((2, tokens, tokens)) if kind == "added" else np.zeros((1, 1, tokens))
    if kind == "window":
        table[..., ::3] = -1e4
    between = [dtd.Reshape((1, 1, tokens), inputs=0), softmax]
    if kind in ("added", "window"):
        between = [dtd.Add(inputs=(0, 10)), dtd.Softmax(-1, mask=mask, inputs=11)]
    if kind == "scaled":
        between = [dtd.Scale(np.array([0.5, 1.5]).reshape(2, 1, 1), inputs=10), dtd.Softmax(-1, inputs=11)]
    return [
        dtd.Given("keys", (1, 1, tokens)) if kind == "given" else dtd.Constant(table),
        *(layer for _ in range(3) for layer in heads(dtd.INPUT)),
        dtd.MatMul(transpose_b=True, scale=3**-0.5, inputs=(3, 6)),
        *between,
        dtd.MatMul(inputs=(12, 9)),
        dtd.Permute((0, 2, 1, 3)),
        dtd.Reshape((tokens * 6,)),
        dtd.Linear(rng.standard_normal((4, tokens * 6))),
    ]


@lru_cache
def network(name: str) -> tuple[list[dtd.Layer], Array, dict[str, Array]]:
    rng = np.random.default_rng(4)
    if name in ("gpt2", "llama"):
        net = {"gpt2": lambda: nets.gpt2(37, 12, 2, n_words=20), "llama": lambda: nets.llama(19, 12, 1, n_words=20)}[
            name
        ]()
        return net.layers, net.sample(3), {}
    kind, tokens = name.split()
    x = rng.standard_normal((3, int(tokens), 6)).astype(np.float32)
    keys = rng.random((3, 1, 1, int(tokens))) < 0.7
    return _masked(kind, int(tokens)), x, {"keys": keys.astype(np.float32)} if kind == "given" else {}


NETWORKS = ("gpt2", "llama", "given 9", "rows 17", "given 1", "given 70", "added 70", "scaled 9")


def results(name: str, rules: Any, way: Callable[[], AbstractContextManager[None]], n_threads: int = 1) -> list[Any]:
    layers, x, beside = network(name)
    with way():
        explainer = dtd.Explainer(layers, backend="cpu", rules=rules, n_threads=n_threads)
        one = explainer.explain(x, 0, **beside)
        many = explainer.explain(x, np.array([[1, 0, 1]] * 3), **beside)
        alone = explainer.explain(x[1:2], 0, **{key: value[1:2] for key, value in beside.items()})
        ledger = explainer.ledger(x, 0, **beside)
        return [one, many, alone, explainer.predict(x, **beside), str(ledger)]


def same(found: list[Any], expected: list[Any]) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found[:-1], expected[:-1], strict=True)) and (
        found[-1] == expected[-1]
    )


@pytest.mark.parametrize(("name", "rules"), chosen(NETWORKS, RULES), ids=str)
def test_fused_attention_has_the_bits_of_its_steps(name: str, rules: Any) -> None:
    expected = results(name, rules, apart)
    assert np.isfinite(expected[0]).all()
    assert np.array_equal(expected[2][0], expected[0][1])
    for number, way in enumerate(WAYS.values()):
        assert same(results(name, rules, way, 1 + number % 3), expected)


@pytest.mark.parametrize("rules", ["cp-lrp", "attnlrp"])
def test_blocks_have_the_bits_of_whole_lines_where_a_mask_leaves_a_window(rules: str) -> None:
    """Ranges that begin and end within a line, which is longer than the sums over it take at once."""
    layers, x, _ = network("window 530")
    found = []
    for way in (apart, WAYS["again"], lambda: blocks(NONE, 2**16, 32)):
        dtd.clear_cache()
        with way():
            found.append(dtd.explain(layers, x[:1], 0, rules=rules, backend="cpu"))
            text = str(dtd.Explainer(layers, backend="cpu", rules=rules).plan_for(x.shape))
            assert text.count("as the mask leaves them") == (0 if way is apart else 2 if rules == "cp-lrp" else 3)
    dtd.clear_cache()
    assert all(np.array_equal(one, found[0]) for one in found)


@pytest.mark.parametrize("name", ["gpt2", "given 9"])
def test_gradients_too(name: str) -> None:
    layers, x, beside = network(name)

    def gradient() -> Array:
        return dtd.baselines.gradient(layers, x, 0, backend="cpu", **beside)

    with apart():
        expected = gradient()
    for way in WAYS.values():
        dtd.clear_cache()
        with way():
            np.testing.assert_array_equal(gradient(), expected)
    dtd.clear_cache()


def _joined(kind: str) -> list[dtd.Layer]:
    """Attention of two heads whose steps have memory in common, or of which only the queries take relevance."""
    rng = np.random.default_rng(5)

    def linear() -> dtd.Layer:
        return dtd.Linear(rng.standard_normal((3, 3)), axis=-1, inputs=dtd.INPUT)

    weights = [dtd.MatMul(transpose_b=True, inputs=(0, 1)), dtd.Softmax(-1)]
    last = [dtd.Reshape((2 * 9 * 3,)), dtd.Linear(rng.standard_normal((4, 2 * 9 * 3)))]
    if kind == "once":  # queries, keys and values in one
        weights[0] = dtd.MatMul(transpose_b=True, inputs=(dtd.INPUT, dtd.INPUT))
        return [*weights, dtd.MatMul(inputs=(1, dtd.INPUT)), *last]
    if kind == "twice":  # a product with the weights of a product with the weights
        return [linear(), linear(), *weights, dtd.MatMul(inputs=(3, dtd.INPUT)), dtd.MatMul(inputs=(3, 4)), *last]
    if kind == "many":  # values, more than one fused step takes
        weights[0] = dtd.MatMul(transpose_b=True, inputs=(0, 1))
        sums = [dtd.MatMul(inputs=(12, k)) for k in range(2, 11)]
        return [*(linear() for _ in range(11)), *weights, *sums, dtd.Add(inputs=tuple(range(13, 22))), *last]
    memory = [
        dtd.Constant(rng.standard_normal((1, 9, 3))),
        linear() if kind == "values" else dtd.Constant(np.eye(9, 3)[None]),
    ]
    return [linear(), memory[0], *weights, memory[1], dtd.MatMul(inputs=(3, 4)), *last]


@pytest.mark.parametrize(
    ("kind", "rules"),
    [
        ("once", "attnlrp"),
        ("twice", "cp-lrp"),
        ("twice", "attnlrp"),
        ("many", "cp-lrp"),
        ("many", "attnlrp"),
        ("values", "attnlrp"),
        ("queries", "attnlrp"),
    ],
)
def test_slices_meet_nothing_that_another_slice_writes(kind: str, rules: str) -> None:
    layers, x = _joined(kind), np.random.default_rng(6).standard_normal((2, 2, 9, 3))
    expected = dtd.explain(layers, x, 0, rules=rules, backend="oracle")
    for way in (apart, *WAYS.values()):
        dtd.clear_cache()
        with way():
            found = dtd.explain(layers, x, 0, rules=rules, backend="cpu", precision="float64", n_threads=2)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * abs(expected).max())
    dtd.clear_cache()


def plan(name: str, rules: Any, **options: Any) -> Plan:
    layers, x, _ = network(name)
    explainer = dtd.Explainer(layers, backend="cpu", rules=rules)
    return lower.lower(explainer._executor(x.shape[1:], EXPLAIN).program, 2, 1, **options)


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_nothing_of_the_size_of_weights_is_kept(rules: Any) -> None:
    with blocks(NONE, 2**10):
        fused = plan("gpt2", rules)
    assert not [buffer for buffer in fused.buffers if buffer.shape[-2:] == (37, 37)]
    assert "attention weights of 14, 36: made again where they are read" in str(fused)
    assert fused.local <= 2 * 2**10
    with blocks(SOME, 2**10):
        kept = plan("gpt2", rules)
    assert len([buffer for buffer in kept.buffers if buffer.shape[-2:] == (37, 37)]) == 1 + 2 * (rules == "attnlrp")


@pytest.mark.parametrize("rules", ["cp-lrp", "attnlrp"])
def test_long_texts_take_little_memory(rules: str) -> None:
    """320 tokens, as by default: without n·h·t² numbers of each of 4 layers, but with queries, keys and values."""
    layers = nets.gpt2(320, 12, 4, n_words=20).layers
    program = dtd.Explainer(layers, backend="cpu", rules=rules)._executor((320,), EXPLAIN).program
    fused = lower.lower(program, 1, 1)
    with apart():
        single = lower.lower(program, 1, 1)
    weights, operands = 4 * 320 * 320, 4 * 3 * 320 * 64
    assert fused.arena <= single.arena - 4 * (weights - operands)
    assert fused.local <= attention.HEAD
    assert lower.lower(program, 1, 64).local <= attention.HEAD  # of 64 targets, blocks are the shorter


def test_without_memory_of_threads_a_plan_has_the_weights_of_one_layer() -> None:
    """What CUDA runs: all slices of a fused step at once."""
    with blocks(NONE, 2**10):
        one, both = (plan("gpt2", "attnlrp", local=local) for local in (False, True))
    assert one.local == 0
    assert [step.op for step in one.forward] == [step.op for step in both.forward]
    tall = [buffer for buffer in one.buffers if buffer.shape[-2:] == (37, 37)]
    assert all(buffer.first == buffer.last for buffer in tall)


def test_the_plan_says_what_becomes_of_weights() -> None:
    """Short rows are kept; so are weights that a ledger reads, and those of scores that are more than sums."""
    held = "attention weights of 14, 36: kept: made again, they would spare no more than 50% of their bytes"
    assert held in str(plan("gpt2", "dtd"))
    ledger = plan("gpt2", "attnlrp", ledger=True)
    assert "kept: a ledger reads its scores" in str(ledger)
    with blocks(NONE, 2**10):
        assert str(plan("given 70", "attnlrp")).count("as the mask leaves them") == 3
    layers, x, _ = network("added 70")
    for between, what in (
        (dtd.Add(inputs=(0, 10)), "made again where they are read"),
        (dtd.Scale(np.full((2, 1, 1), 0.5), inputs=10), "made again where they are read"),
        (dtd.Activation("tanh", inputs=10), "made again where they are read"),
        (dtd.Linear(np.eye(2), axis=1, inputs=10), "NEURON_DENSE stands between its product and its softmax"),
        (dtd.Permute((0, 1, 3, 2), inputs=10), "its scores lie in another order"),
    ):
        changed = [*layers[:11], between, *layers[12:]]
        with blocks(NONE, 2**10):
            text = str(dtd.Explainer(changed, backend="cpu", rules="cp-lrp").plan_for(x.shape))
        assert f"attention weights of 12: {what}" in text.replace("kept: ", "")
    mixed = [*layers[:13], dtd.Linear(np.eye(2), axis=1), *layers[13:]]
    mixed[14:] = [dtd.MatMul(inputs=(13, 9)), *layers[14:]]
    text = str(dtd.Explainer(mixed, backend="cpu", rules="cp-lrp").plan_for(x.shape))
    assert "attention weights of 12: kept: NEURON_DENSE reads its weights, and is no product with values" in text
    assert "sliced" not in text


@pytest.mark.parametrize("seed", range(2000 if LONG else 24))
def test_random_attention(seed: int) -> None:
    """Masks of every shape, operands that lie the other way round, heads that are mixed, rules of all kinds."""
    rng = np.random.default_rng(seed)
    shape = [(5,), (7, 6), (2, 9, 3), (2, 3, 5, 4)][seed % 4]
    b = Builder(rng, shape)
    while not b.attends:
        tokens.attention(b, dtd.INPUT)
    x = rng.standard_normal((2, *shape)).astype(np.float32)
    start = rng.standard_normal((2, *b.shape(len(b.layers) - 1))).astype(np.float32)
    graph = Graph(b.layers, b.shapes, x, start, options(rng, b, "real"))
    found = []
    for way in (apart, WAYS["kept"], WAYS["again, small blocks"]):
        dtd.clear_cache()
        with way():
            found.append(graph.explain("cpu"))
    dtd.clear_cache()
    assert all(np.array_equal(one, found[0], equal_nan=True) for one in found)
