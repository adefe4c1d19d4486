"""Values that are made again on the way back: the bits of a plan that keeps them, in the memory that there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject, settings

import dtdfast as dtd
import nets
from dtdfast.cpu import executor
from dtdfast.explainer import EXPLAIN
from dtdfast.plan import again
from dtdfast.plan.lower import lower
from dtdfast.plan.plan import Plan
from dtdfast.plan.program import Program
from dtdfast.plan.steps import Buffer, Step, View
from graphs import Graph, graphs
from support import LONG

Array = np.ndarray[Any, Any]
SEGMENTS = ((2,), (3,), (7,))


@contextmanager
def little_memory(segments: tuple[int, ...]) -> Iterator[None]:
    """All but the last of so many segments are made again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor, "budget", lambda: 0)
        patch.setattr(again, "SEGMENTS", segments)
        yield


def results(layers: list[dtd.Layer], x: Array, start: Array, options: dict[str, Any]) -> tuple[list[Array], str, Plan]:
    explainer = dtd.Explainer(layers, backend="cpu", batch_size=len(x), **options)
    several = np.stack([start, -0.5 * start, np.zeros_like(start)], axis=1)
    plan = explainer._executor(x.shape[1:], EXPLAIN).plan(len(x), 1)
    found = [explainer.explain(x, start), explainer.explain(x, several), explainer.explain(x[:1], start[:1])]
    return found, str(explainer.ledger(x, start)), plan


@given(graphs())
@settings(max_examples=2000 if LONG else 8)
def test_random_networks(graph: Graph) -> None:
    layers, options = graph.layers, graph.options
    try:
        maps, ledger, plan = results(layers, graph.x, graph.start, options)
    except dtd.NumericsError:  # it leaves float32, with any plan
        reject()
    assert not plan.again
    for segments in SEGMENTS:
        with little_memory(segments):
            others, account, less = results(layers, graph.x, graph.start, options)
        for found, expected in zip(others, maps, strict=True):
            np.testing.assert_array_equal(found, expected, err_msg=less.again)
        assert account == ledger
        assert len(less.forward) == len(plan.forward)
        assert less.macs >= plan.macs


@cache
def network(name: str) -> nets.Net:
    made = {
        "gpt2": lambda: nets.gpt2(9, 12, 3, n_words=20),
        "llama": lambda: nets.llama(9, 12, 3, n_words=20),
    }
    return made[name]()


@pytest.mark.parametrize(("name", "rules"), [("gpt2", "attnlrp"), ("llama", "cp-lrp"), ("llama", "dtd")])
def test_transformers(name: str, rules: str) -> None:
    net = network(name)
    x = net.sample(3)
    outputs = dtd.predict(net.layers, x, backend="cpu")
    start = np.random.default_rng(1).standard_normal(outputs.shape).astype(np.float32)
    maps, ledger, _ = results(net.layers, x, start, {"rules": rules, "n_threads": 1})
    with little_memory((4,)):
        others, account, less = results(net.layers, x, start, {"rules": rules, "n_threads": 2})
    assert "made again on the way back" in str(less)
    for found, expected in zip(others, maps, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert account == ledger


def program(layers: list[dtd.Layer], shape: tuple[int, ...], rules: str) -> Program:
    return dtd.Explainer(layers, backend="cpu", rules=rules)._executor(shape, EXPLAIN).program


def deep(depth: int) -> list[dtd.Layer]:
    rng = np.random.default_rng(0)
    return [
        layer
        for _ in range(depth)
        for layer in (dtd.Linear(rng.standard_normal((64, 64)) / 8, rng.standard_normal(64)), dtd.ReLU())
    ]


def test_memory_grows_with_the_root_of_the_depth() -> None:
    """Each value once more at most: of 64 layers, an eighth of the memory for less than half of the work more."""
    made = program(deep(64), (64,), "lrp-epsilon")
    whole = lower(made, 8, 1)
    most = whole.arena // 3
    least = lower(made, 8, 1, most=0)
    assert least.arena < most
    fits = lower(made, 8, 1, most=most)
    assert fits.arena <= most
    assert whole.macs < fits.macs <= least.macs <= 1.5 * whole.macs + 1
    assert fits.again in str(fits)


def test_no_more_than_the_budget_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made = program(network("llama").layers, (9,), "attnlrp")
    whole = lower(made, 2, 1)
    assert not lower(made, 2, 1, most=whole.arena).again
    work = [lower(made, 2, 1, most=int(part * whole.arena)).macs for part in (0.95, 0.8, 0.6)]
    assert whole.macs < work[0] <= work[1] <= work[2]
    for number in again.SEGMENTS[2:7]:  # however fine the segments, no more of them than it takes
        monkeypatch.setattr(again, "SEGMENTS", (number,))
        assert lower(made, 2, 1, most=int(0.95 * whole.arena)).macs < lower(made, 2, 1, most=0).macs
    monkeypatch.undo()
    threads = lower(made, 2, 1, most=whole.arena + 2 * whole.local, threads=2)
    assert not threads.again
    assert lower(made, 2, 1, most=whole.arena + whole.local, threads=2).again


@pytest.mark.parametrize("later", ["NORM", "MOVE"])
def test_what_was_made_of_numbers_that_change_is_kept(later: str) -> None:
    """A step cannot run again where something was added to what it reads."""
    x, a, y, z = (Buffer(name, (4,), "n", external="x" * (name == "x")) for name in "xayz")
    makes = Step("MOVE", None, View(a), View(x))
    reads, last = Step("NORM", None, View(y), View(a)), Step("NORM", None, View(z), View(y))
    changes = Step("MOVE", None, View(a if later == "MOVE" else z), View(x), accumulate=True)
    values = again.Values([makes, reads, changes, last], [Step("MOVE", None, View(x), View(y))], (1, 1), ())
    assert values._made[id(y)].kept == (later == "MOVE")


def test_nothing_runs_twice_on_the_way_back_and_targets_share_it() -> None:
    made = program(network("gpt2").layers, (9,), "attnlrp")
    for t in (1, 4):
        plan = lower(made, 2, t, most=0)
        names = [view.buffer.root.name for step in plan.relevance for view in (step.out,) if step.unit is not None]
        remade = [name for name in names if re.fullmatch(r"x.*'", name)]
        assert remade
        assert len(remade) == len(set(remade))
        copies = [buffer for buffer in plan.buffers if buffer.name.endswith("'")]
        assert all(buffer.batch == "n" for buffer in copies)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_a_budget_that_was_too_small(n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was refused is explained, in pieces too; what even so takes too much is refused, with the least that it
    takes.
    """
    layers, x = deep(64), np.random.default_rng(2).standard_normal((512, 64)).astype(np.float32)
    expected = dtd.explain(layers, x, 0, backend="cpu", rules="lrp-epsilon", batch_size=512, n_threads=n_threads)
    whole = lower(program(layers, (64,), "lrp-epsilon"), 512, 1)
    dtd.clear_cache()
    monkeypatch.setenv("DTDFAST_MEMORY", str(whole.arena // 2))
    explainer = dtd.Explainer(layers, backend="cpu", rules="lrp-epsilon", batch_size=512, n_threads=n_threads)
    np.testing.assert_array_equal(explainer.explain(x, 0), expected)
    assert "more multiply-adds" in str(explainer.plan_for(x.shape))
    monkeypatch.setenv("DTDFAST_MEMORY", str(whole.arena // 50))
    with pytest.raises(dtd.MemoryBudgetError, match="working memory of 512 sample"):
        dtd.Explainer(layers, backend="cpu", rules="lrp-epsilon", batch_size=512, n_threads=n_threads).explain(x, 0)


def test_a_ledger_within_the_budget_of_its_explanation(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes more memory, and so fewer samples in a pass; its numbers stay, whatever goes through at once."""
    layers, x = deep(64), np.random.default_rng(2).standard_normal((512, 64)).astype(np.float32)
    relevance, expected = dtd.explain(layers, x, 0, backend="cpu", rules="lrp-epsilon", return_ledger=True)
    whole = lower(program(layers, (64,), "lrp-epsilon"), 512, 1)
    monkeypatch.setenv("DTDFAST_MEMORY", str(whole.arena * 5 // 4))
    for n_threads in (1, 2):
        explainer = dtd.Explainer(layers, backend="cpu", rules="lrp-epsilon", n_threads=n_threads)
        found, ledger = explainer.explain(x, 0, return_ledger=True)
        np.testing.assert_array_equal(found, relevance)
        assert ledger.closed
        np.testing.assert_array_equal(ledger.end, expected.end)
