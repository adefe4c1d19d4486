"""Plans: their texts are stored and compared, and their memory is checked step by step.

Run this file as a script to write the stored texts anew after a deliberate change; the difference is then there to be
read.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast.cpu import executor
from dtdfast.cpu.executor import CpuSession
from dtdfast.explainer import EXPLAIN
from dtdfast.plan import frames
from dtdfast.plan.batches import Batches
from dtdfast.plan.lower import lower
from dtdfast.plan.plan import Plan
from dtdfast.plan.steps import Buffer

STORED = Path(__file__).parent / "plans"


def _weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def _norm(c: int) -> dtd.BatchNorm:
    return dtd.BatchNorm(_weights(c), np.abs(_weights(c)) + 1, _weights(c), _weights(c))


def _residual() -> list[dtd.Layer]:
    return [
        dtd.Conv(_weights(8, 3, 3, 3), padding=1, stride=2),
        _norm(8),
        dtd.ReLU(),
        dtd.Conv(_weights(8, 8, 3, 3), padding=1),
        _norm(8),
        dtd.Add(inputs=(4, 2)),
        dtd.ReLU(),
        dtd.Conv(_weights(4, 8, 1, 1), inputs=2, name="dead branch"),
        dtd.GlobalAvgPool(inputs=6),
        dtd.Flatten(),
        dtd.Linear(_weights(5, 8)),
        dtd.Softmax(),
    ]


def _dense_block() -> list[dtd.Layer]:
    return [
        dtd.Conv(_weights(4, 3, 3, 3), padding=1),
        dtd.ReLU(),
        dtd.Conv(_weights(4, 4, 3, 3), padding=1),
        dtd.Concat(inputs=(1, 2)),
        _norm(8),
        dtd.ReLU(),
        dtd.Conv(_weights(4, 8, 1, 1)),
        dtd.ReLU(),
        dtd.AvgPool(2),
        dtd.Flatten(),
        dtd.Linear(_weights(3, 16)),
    ]


def _hourglass() -> list[dtd.Layer]:
    return [
        dtd.Pad(((1, 1), (1, 1))),
        dtd.Conv(_weights(4, 1, 3, 3)),
        dtd.ReLU(),
        dtd.MaxPool(2),
        dtd.ConvTranspose(_weights(4, 4, 2, 2), stride=2),
        dtd.ReLU(),
        dtd.Upsample(2, inputs=3),
        dtd.Concat(inputs=(2, 5, 6)),
        dtd.Conv(_weights(2, 12, 1, 1)),
    ]


def _text() -> list[dtd.Layer]:
    return [
        dtd.Embedding(_weights(20, 6)),
        dtd.Permute((0, 2, 1)),
        dtd.Conv(_weights(8, 6, 3)),
        dtd.ReLU(),
        dtd.MaxPool(5),
        dtd.Flatten(),
        dtd.Linear(_weights(3, 8)),
    ]


def _attention() -> list[dtd.Layer]:
    """Two heads on four tokens, causal; a gated MLP behind it."""

    def heads(of: int) -> list[dtd.Layer]:
        return [dtd.Linear(_weights(6, 6), _weights(6), inputs=of), dtd.Reshape((4, 2, 3)), dtd.Permute((0, 2, 1, 3))]

    return [
        dtd.LayerNorm(-1, _weights(6), _weights(6)),
        *heads(0),
        *heads(0),
        *heads(0),
        dtd.MatMul(transpose_b=True, scale=3**-0.5, inputs=(3, 6)),
        dtd.Softmax(-1, mask=np.tri(4, dtype=bool)),
        dtd.MatMul(inputs=(11, 9)),
        dtd.Permute((0, 2, 1, 3)),
        dtd.Reshape((4, 6)),
        dtd.Linear(_weights(6, 6)),
        dtd.Add(inputs=(dtd.INPUT, 15)),
        dtd.RMSNorm(-1, _weights(6)),
        dtd.Linear(_weights(5, 6)),
        dtd.Activation("silu"),
        dtd.Linear(_weights(5, 6), inputs=17),
        dtd.Mul(inputs=(19, 20)),
        dtd.Linear(_weights(6, 5)),
        dtd.Add(inputs=(16, 22)),
        dtd.Gather((0,), 1),
        dtd.Flatten(),
        dtd.Linear(_weights(3, 6)),
    ]


CASES = {
    "residual": (_residual, (2, 3, 8, 8), dict(domain="nonnegative")),
    "residual-box": (_residual, (1, 3, 8, 8), dict(domain=(-1.0, 2.0))),
    "residual-alpha-beta": (_residual, (1, 3, 8, 8), dict(rules="epsilon-alpha2-beta1")),
    "dense-block": (_dense_block, (1, 3, 4, 4), {}),
    "hourglass": (_hourglass, (1, 1, 8, 8), dict(domain="nonnegative")),
    "text": (_text, (2, 7), {}),
    "attention": (_attention, (2, 4, 6), {}),
    "attention-held": (_attention, (2, 4, 6), dict(rules="cp-lrp")),
    "attention-taylor": (_attention, (2, 4, 6), dict(rules="attnlrp")),
}


def _explainer(name: str) -> tuple[dtd.Explainer, tuple[int, ...]]:
    build, shape, options = CASES[name]
    return dtd.Explainer(build(), backend="oracle", **options), shape


@pytest.mark.parametrize("name", CASES)
def test_text_is_the_stored_one(name: str) -> None:
    explainer, shape = _explainer(name)
    assert f"{explainer.plan_for(shape)}\n" == (STORED / f"{name}.txt").read_text()


def _plan(name: str, n: int, t: int, **options: bool) -> Plan:
    explainer, shape = _explainer(name)
    return lower(explainer._executor(shape[1:], EXPLAIN).program, n, t, **options)


def _uses(plan: Plan) -> dict[int, tuple[Buffer, list[int]]]:
    uses: dict[int, tuple[Buffer, list[int]]] = {}
    for number, step in enumerate((*plan.forward, *plan.relevance)):
        for view in step.views():
            root = view.buffer.root
            if not root.external:
                uses.setdefault(id(root), (root, []))[1].append(number)
    return uses


@pytest.mark.parametrize("name", CASES)
def test_a_plan_for_one_sample_becomes_that_for_several(name: str) -> None:
    explainer, shape = _explainer(name)
    program = explainer._executor(shape[1:], EXPLAIN).program
    for n in (1, 2, 5):
        found, expected = Batches(program, None, 2**28).first(n, 2**30, 2), lower(program, n, 1)
        assert str(found) == str(expected)
        assert [b.offset for b in found.buffers] == [b.offset for b in expected.buffers]


@pytest.mark.parametrize("options", [{}, {"ledger": True}, {"early": True}, {"early": True, "chunked": True}])
@pytest.mark.parametrize("name", CASES)
def test_buffers_that_live_together_do_not_overlap(name: str, options: dict[str, bool]) -> None:
    plan = _plan(name, 3, 2, **options)
    _check_lives(plan)


def _check_lives(plan: Plan) -> None:
    spans = [
        (min(steps), max(steps), b.offset, b.offset + b.nbytes(plan.n, plan.t)) for b, steps in _uses(plan).values()
    ]
    assert spans
    assert max(end for *_, end in spans) <= plan.arena
    for i, (first, last, begin, end) in enumerate(spans):
        for other_first, other_last, other_begin, other_end in spans[:i]:
            together = first <= other_last and other_first <= last
            assert not (together and begin < other_end and other_begin < end)


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_what_a_second_chunk_of_targets_reads_survives_the_first(name: str, early: bool) -> None:
    plan = _plan(name, 2, 2, chunked=True, early=early)
    n_forward = len(plan.forward)
    for buffer, steps in _uses(plan).values():
        if steps[0] < n_forward <= steps[-1]:
            for other, others in _uses(plan).values():
                late = others[0] >= n_forward
                apart = (
                    buffer.offset + buffer.nbytes(2, 2) <= other.offset
                    or other.offset + other.nbytes(2, 2) <= buffer.offset
                )
                assert not late or apart, (buffer.name, other.name)


@pytest.mark.parametrize("name", ["dense-block", "text"])
def test_what_depends_on_no_x_is_never_overwritten(name: str) -> None:
    plan = _plan(name, 2, 2)
    assert plan.n_constant
    uses = list(_uses(plan).values())
    kept = [buffer for buffer, steps in uses if steps[0] < plan.n_constant <= steps[-1]]
    assert kept
    for buffer in kept:
        for other, steps in uses:
            apart = (
                buffer.offset + buffer.nbytes(2, 2) <= other.offset
                or other.offset + other.nbytes(2, 2) <= buffer.offset
            )
            assert apart or other is buffer or steps[-1] < plan.n_constant, (buffer.name, other.name)


@pytest.mark.parametrize("rules", ["dtd", "epsilon-plus-flat"])
def test_what_depends_on_no_x_is_computed_once_per_arena(monkeypatch: pytest.MonkeyPatch, rules: str) -> None:
    ran: list[tuple[int, int]] = []
    run = CpuSession.run
    monkeypatch.setattr(
        CpuSession, "run", lambda self, first, last: (ran.append((first, last)), run(self, first, last))
    )
    explainer = dtd.Explainer(_residual(), backend="cpu", rules=rules)
    n_constant = explainer.plan_for((2, 3, 8, 8)).n_constant
    x = _weights(3, 3, 8, 8)
    # another batch is another plan, with arenas of its own
    for n, first in ((2, True), (2, False), (1, True), (1, False), (2, False)):
        ran.clear()
        relevance = explainer.explain(x[:n])
        assert ((0, n_constant) in ran) == first
        np.testing.assert_array_equal(relevance, dtd.Explainer(_residual(), backend="cpu", rules=rules).explain(x[:n]))


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_frames_are_cleared_before_anything_is_written(name: str, early: bool) -> None:
    plan = _plan(name, 1, 1, early=early)
    steps = [*plan.forward, *plan.relevance]
    for buffer, uses in _uses(plan).values():
        if buffer.framed:
            assert steps[uses[0]].op == "CLEAR_BORDER"
            assert steps[uses[0]].out.buffer is buffer
            assert (buffer.first, buffer.last) == (uses[0], uses[-1])


def _clears(plan: Plan) -> tuple[int, int]:
    """How many borders are cleared, and in how many runs of steps."""
    found = [step.op == "CLEAR_BORDER" for step in (*plan.forward, *plan.relevance)]
    return sum(found), sum(now and not before for before, now in zip([False, *found], found, strict=False))


def test_borders_cleared_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once on each way where memory is no matter, else as often as an arena that is hardly larger asks."""
    name = "residual-alpha-beta"
    late, early = _plan(name, 3, 2), _plan(name, 3, 2, early=True)
    (borders, runs), found = _clears(late), _clears(early)
    assert found == (borders, 2)
    assert runs > 4
    monkeypatch.setattr(frames, "LITTLE", 0)
    between = _plan(name, 3, 2, early=True)
    assert late.arena <= between.arena <= late.arena * (1 + 1 / frames.MORE) < early.arena
    assert 2 < _clears(between)[1] < runs
    assert _clears(between)[0] == borders
    _check_lives(between)
    with monkeypatch.context() as patch:  # moved without the memory for it
        patch.setattr(frames, "place", lambda *_, reuse: 0)
        with pytest.raises(AssertionError):
            _check_lives(_plan(name, 3, 2, early=True))


def test_sharing_memory_pays() -> None:
    assert _plan("residual", 1, 1).arena < 0.8 * _plan("residual", 1, 1, ledger=True).arena


def test_segments_cover_every_step_once() -> None:
    plan = _plan("residual", 1, 1)
    for step in plan.forward:
        step.macs = 15_000_000_000
    segments = plan.segments(plan.forward, 7)
    assert segments[0][0] == 7
    assert segments[-1][1] == 7 + len(plan.forward)
    assert all(a[1] == b[0] for a, b in pairwise(segments))
    assert len(segments) == len(plan.forward)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_arena_is_what_is_allocated(n_threads: int) -> None:
    explainer = dtd.Explainer(_residual(), backend="cpu", domain="nonnegative", n_threads=n_threads)
    x = np.abs(_weights(4, 3, 8, 8))
    explainer.explain(x)
    (executor,) = explainer._executor.made.values()
    plan = explainer.plan_for(x.shape)
    assert plan.pieces == n_threads
    assert [a.nbytes for layout in executor._layouts.values() for a in layout.shelf.idle] == [plan.memory]


def test_chunks_of_targets_have_the_bits_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, targets = np.abs(_weights(2, 3, 8, 8)), np.arange(5)[None]
    expected = dtd.explain(_residual(), x, targets, backend="cpu", domain="nonnegative")
    for at_once in (1, 2):  # five targets by twos leave one over
        explainer = dtd.Explainer(_residual(), backend="cpu", domain="nonnegative")
        executor = explainer._executor(x.shape[1:], EXPLAIN)
        monkeypatch.setattr(
            executor.batches, "budget", executor.batches.per_sample + (at_once - 1) * executor.batches.per_target
        )
        assert executor.batches.targets(5) == at_once
        assert executor.batch_size(2, 5) == 1
        np.testing.assert_array_equal(explainer.explain(x, targets), expected)


def _expansion() -> list[dtd.Layer]:
    """A linear bottleneck, a pointwise product of its values of both signs, and a residual."""
    return [
        dtd.Conv(_weights(6, 3, 3, 3), _weights(6), padding=1),
        dtd.Conv(_weights(20, 6, 1, 1), _weights(20)),
        dtd.Activation("clip", 0.0, 6.0),
        dtd.Conv(_weights(20, 1, 3, 3), groups=20, padding=1),
        dtd.Activation("clip", 0.0, 6.0),
        dtd.Conv(_weights(6, 20, 1, 1)),
        dtd.Add(inputs=(0, 5)),
        dtd.GlobalAvgPool(),
        dtd.Flatten(),
        dtd.Linear(_weights(4, 6)),
    ]


@pytest.mark.parametrize("rules", [dtd.ZPlus(), "dtd"], ids=["z+", "dtd"])
def test_pairs_of_terms_beside_y_have_the_bits_of_steps_apart(monkeypatch: pytest.MonkeyPatch, rules: object) -> None:
    monkeypatch.setattr(executor, "MATRIX_UNITS", ())
    x = _weights(2, 3, 5, 7)
    fused, words = dtd.Explainer(_expansion(), rules=rules, backend="cpu"), "y, x+ w+ and x- w-"
    assert str(fused.plan_for(x.shape)).count(words) == 1
    monkeypatch.setattr(executor, "MATRIX_UNITS", executor.isa_names())
    whole = dtd.Explainer(_expansion(), rules=rules, backend="cpu")
    assert words not in str(whole.plan_for(x.shape))
    assert fused.explain(x).tobytes() == whole.explain(x).tobytes()
    assert fused.ledger(x).closed


@pytest.mark.parametrize(("inputs", "outputs", "together"), [(6, 5, True), (6, 4, False), (193, 5, False)])
def test_pairs_of_terms_of_many_inputs_or_few_outputs_stay_apart(
    monkeypatch: pytest.MonkeyPatch, inputs: int, outputs: int, together: bool
) -> None:
    """Few outputs are summed in another order where the terms are a step of their own."""
    monkeypatch.setattr(executor, "MATRIX_UNITS", ())
    layers = [dtd.Conv(_weights(inputs, 3, 3, 3)), dtd.Conv(_weights(outputs, inputs, 1, 1)), dtd.ReLU()]
    layers += [dtd.GlobalAvgPool(), dtd.Flatten(), dtd.Linear(_weights(2, outputs))]
    plan = dtd.Explainer(layers, rules=dtd.ZPlus(), backend="cpu").plan_for((1, 3, 5, 7))
    assert ("x- w-" in str(plan)) is together


if __name__ == "__main__":
    STORED.mkdir(exist_ok=True)
    for name in CASES:
        explainer, shape = _explainer(name)
        (STORED / f"{name}.txt").write_text(f"{explainer.plan_for(shape)}\n")
