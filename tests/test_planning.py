"""What planning costs, and how what it makes is shown: in proportion to the layers, and in one line."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
import nets
from dtdfast.cpu.arenas import ARENAS
from dtdfast.explainer import EXPLAIN
from dtdfast.layers import RECORDS as LAYERS
from dtdfast.plan import memory
from dtdfast.plan.lower import lower
from dtdfast.plan.steps import Buffer

W = (0.4 * np.eye(4)).astype(np.float32)
X = np.ones((1, 4), np.float32)


def chain(n: int) -> list[dtd.Layer]:
    return [record for _ in range(n // 2) for record in (dtd.Linear(W), dtd.ReLU())]


def residual(n: int) -> list[dtd.Layer]:
    layers: list[dtd.Layer] = [dtd.Linear(W), dtd.ReLU()]
    while len(layers) < n:
        p = len(layers) - 1
        layers += [dtd.Linear(W), dtd.ReLU(), dtd.Linear(W), dtd.Add(inputs=(p, p + 3)), dtd.ReLU()]
    return layers


def fan(n: int) -> list[dtd.Layer]:
    """One tensor that many layers read, and one sum of all of them."""
    count = n // 2
    branches = [record for _ in range(count) for record in (dtd.Linear(W, inputs=1), dtd.ReLU())]
    return [dtd.Linear(W), dtd.ReLU(), *branches, dtd.Add(inputs=tuple(3 + 2 * k for k in range(count)))]


def concatenated(n: int) -> list[dtd.Layer]:
    """Branches of a dropped-out tensor, each normalised, one behind the other."""
    count = n // 3
    branches = [
        r for _ in range(count) for r in (dtd.Dropout(inputs=1), dtd.Linear(W), dtd.BatchNorm(np.zeros(4), np.ones(4)))
    ]
    return [dtd.Linear(W), dtd.ReLU(), *branches, dtd.Concat(inputs=tuple(4 + 3 * k for k in range(count)))]


def reshaped(n: int) -> list[dtd.Layer]:
    return [dtd.Linear(W), *(dtd.Flatten() for _ in range(n)), dtd.Linear(W)]


def normalised(n: int) -> list[dtd.Layer]:
    """One affine map folded into all its readers, whose sum is one neuron."""
    return [dtd.Scale(np.ones(4)), *(dtd.Linear(W, inputs=0) for _ in range(n)), dtd.Add(inputs=tuple(range(1, n + 1)))]


def calls(layers: list[dtd.Layer]) -> int:
    """Functions called while a plan is made, builtins and generators included."""
    count = 0

    def seen(*_: object) -> None:
        nonlocal count
        count += 1

    explainer = dtd.Explainer(layers, domain="nonnegative")
    sys.setprofile(seen)
    try:
        explainer.plan_for(X.shape)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("make", [chain, residual, fan, concatenated, reshaped, normalised])
def test_twice_the_layers_take_twice_the_work(make: Callable[[int], list[dtd.Layer]]) -> None:
    calls(make(20))  # what is imported or compiled once
    assert calls(make(400)) <= 2.2 * calls(make(200))


@pytest.mark.parametrize("make", [chain, residual, fan])
def test_a_step_takes_so_many_calls(make: Callable[[int], list[dtd.Layer]]) -> None:
    """Calls and returns, as `calls` counts them: every pass over the steps visits each of them once."""
    calls(make(20))
    plan = dtd.Explainer(make(200), domain="nonnegative").plan_for(X.shape)
    assert calls(make(200)) <= 480 * (len(plan.forward) + len(plan.relevance))


@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
@pytest.mark.parametrize("rules", ["cp-lrp", "attnlrp", dtd.Gamma(0.25)], ids=str)
def test_sixteen_targets_share_the_way_up(name: str, rules: Any) -> None:
    """In multiply-adds at most 1.1 times (F + 16 B) of a way up, F, and ways back, B."""
    net = nets.SMALL[name]()
    explainer = dtd.Explainer(net.layers, backend="cpu", rules=rules)
    program = explainer._executor(net.sample(1).shape[1:], EXPLAIN).program
    one, several = lower(program, 1, 1), lower(program, 1, 16)
    up = sum(step.macs for step in one.forward)
    assert several.macs <= 1.1 * (up + 16 * (one.macs - up))


def test_every_buffer_lies_at_the_lowest_free_place(rng: np.random.Generator) -> None:
    """The largest first, where none that lives at the same time is in the way."""
    buffers = [Buffer(str(k), (16 * int(rng.integers(1, 6)),), "n", "f4") for k in range(80)]
    for buffer in buffers:
        buffer.first = int(rng.integers(0, 60))
        buffer.last = buffer.first + int(rng.integers(0, 30))
    arena = memory.place(buffers, 1, 1, reuse=True)
    placed: list[Buffer] = []
    for buffer in sorted(buffers, key=lambda b: (-b.nbytes(1, 1), b.first)):
        rivals = [r for r in placed if r.first <= buffer.last and r.last >= buffer.first]
        taken = [range(r.offset, r.offset + r.nbytes(1, 1)) for r in rivals]
        ends = [0, *(r.stop for r in taken)]
        free = [e for e in ends if all(e >= r.stop or e + buffer.nbytes(1, 1) <= r.start for r in taken)]
        assert buffer.offset == min(free)
        placed.append(buffer)
    assert arena == max(b.offset + b.nbytes(1, 1) for b in buffers)


def test_a_step_knows_its_fields() -> None:
    plan = dtd.Explainer(chain(4), domain="nonnegative").plan_for(X.shape)
    step = plan.forward[0]
    other = step.but(coefficient=2.0)
    assert (other.op, other.out, other.coefficient, step.coefficient) == (step.op, step.out, 2.0, 1.0)
    with pytest.raises(TypeError, match="a step has no coeficient"):
        step.but(coeficient=2.0)


@pytest.mark.parametrize("count", [50, memory.MANY + 50])
def test_buffers_that_live_together_lie_apart(count: int, rng: np.random.Generator) -> None:
    """By both ways of placing them; and what lives one after the other shares memory."""
    buffers = [Buffer(str(k), (int(rng.integers(1, 90)),), "n", "f4") for k in range(count)]
    for buffer in buffers:
        buffer.first = int(rng.integers(0, 2 * count))
        buffer.last = buffer.first + int(rng.integers(0, 20))
    arena = memory.place(buffers, 1, 1, reuse=True)
    spans = [(b.first, b.last, b.offset, b.offset + b.nbytes(1, 1)) for b in buffers]
    spans.sort()
    for number, (first, last, start, end) in enumerate(spans):
        assert first <= last
        assert end <= arena
        for other in spans[number + 1 : number + 60]:
            assert other[0] > last or other[2] >= end or other[3] <= start
    assert arena < sum(b.nbytes(1, 1) for b in buffers) / 2


def test_reprs_are_one_line() -> None:
    layers = residual(60)
    explainer = dtd.Explainer(layers)
    plan, ledger = explainer.plan_for(X.shape), explainer.ledger(X)
    network = plan.program.network
    things = [plan, ledger, plan.program, network, network.units[-1], network.tensors[-1], plan.forward[0],
        plan.buffers[0], explainer,
              layers[0], ledger.rows[0]]  # fmt: skip
    for thing in things:
        text = repr(thing)
        assert "\n" not in text
        assert len(text) < 500, type(thing).__name__
    assert str(plan).count("\n") > 60
    assert plan._repr_html_() == f"<pre>{_escaped(str(plan))}</pre>"


def _escaped(text: str) -> str:
    for raw, code in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#x27;")):
        text = text.replace(raw, code)
    return text


def test_idle_memory_is_shared_and_can_be_let_go() -> None:
    dtd.clear_cache()
    explainer = dtd.Explainer([dtd.Conv(np.ones((4, 1, 3, 3), np.float32)), dtd.ReLU()], backend="cpu")
    for size in range(20, 60, 2):
        explainer.explain(np.ones((1, 1, size, size), np.float32), (0, 0, 0))
    assert 0 < ARENAS.nbytes <= ARENAS.kept
    dtd.clear_cache()
    assert ARENAS.nbytes == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_of_a_busy_process_explains() -> None:
    """Forked while another thread explains, again and again."""
    code = """
import os, threading, numpy as np, dtdfast as dtd
layers = [dtd.Linear(np.ones((64, 64), np.float32)), dtd.ReLU(), dtd.Linear(np.ones((3, 64), np.float32))]
x, stop = np.ones((64, 64), np.float32), threading.Event()
explainer = dtd.Explainer(layers, backend="cpu", n_threads=1)
def busy():
    while not stop.is_set():
        dtd.Explainer(layers, backend="cpu", n_threads=1).explain(x)
        explainer.explain(x[: 1 + int.from_bytes(os.urandom(1), "big") % 64])
thread = threading.Thread(target=busy); thread.start()
for _ in range(20):
    child = os.fork()
    if not child:
        explainer.explain(x); dtd.explain(layers, x, backend="cpu", n_threads=1); os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set(); thread.join()
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(dtd.__file__).parents[1]), "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environment)


SIZES: dict[str, Callable[[], list[dtd.Layer]]] = {
    "pad": lambda: [dtd.Pad(2**33)],
    "window": lambda: [dtd.AvgPool(10**9)],
    "stride": lambda: [dtd.MaxPool(1, stride=2**31)],
    "strided convolution": lambda: [dtd.Conv(np.ones((1, 1, 1, 1), np.float32), stride=2**40)],
    "one side": lambda: [dtd.Pad(((0, 2**40), (0, 0)))],
    "dilation": lambda: [dtd.Conv(np.ones((1, 1, 2, 2), np.float32), dilation=2**33)],
    "repeated": lambda: [dtd.Upsample(2**20)],
    "table of taps": lambda: [dtd.AvgPool(10**9, padding=10**9 - 1, stride=10**9)],
    "window in padding": lambda: [dtd.SumPool(10**5, padding=10**5 - 1, stride=10**5)],
    "phases": lambda: [dtd.ConvTranspose(np.ones((1, 1, 1, 1), np.float32), stride=4000)],
    "copies": lambda: [dtd.Upsample(2000)],
    "neighbours": lambda: [dtd.LRN(10**12)],
    "reshape": lambda: [dtd.Reshape((2**62, -1))],
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("backend", ["cpu", "oracle"])
def test_sizes_beyond_all_bounds(name: str, backend: str) -> None:
    """A right answer, or a DtdError."""
    x = np.ones((1, 1, 4, 4), np.float32)
    for call in (dtd.predict, lambda *a, **k: dtd.explain(*a, (0, 0, 0), **k)):
        try:
            found = call(SIZES[name](), x, backend=backend)
        except dtd.DtdError:
            continue
        assert np.isfinite(found).all()


@pytest.mark.parametrize("n_threads", [0, -1, True, 3000, 10**9, 1.5])
def test_numbers_of_threads(n_threads: object) -> None:
    with pytest.raises(dtd.LayerError, match="n_threads"):
        dtd.Explainer([dtd.Linear(W)], n_threads=n_threads)  # type: ignore[arg-type]


def test_an_input_that_is_larger_than_memory() -> None:
    x = np.broadcast_to(np.float32(1), (2**40, 3))
    with pytest.raises(dtd.DtdError, match="DTDFAST_MEMORY"):
        dtd.explain([dtd.Linear(np.ones((2, 3), np.float32))], x)


def test_threads_may_share_the_cache() -> None:
    layers, found = chain(6), []
    threads = [
        threading.Thread(target=lambda: found.append(dtd.explain(layers, X, domain="nonnegative"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({r.tobytes() for r in found}) == 1


def test_deep_networks_are_explained() -> None:
    """Longer than Python's stack is deep."""
    for make in (reshaped, chain):
        assert dtd.Explainer(make(3000), backend="cpu").predict(X).shape == (1, 4)
    np.testing.assert_allclose(
        dtd.explain(reshaped(3000), X, backend="cpu"), dtd.explain(reshaped(0), X, backend="cpu")
    )


def test_moves_nested_beyond_the_stack_are_refused() -> None:
    moves = [dtd.Flatten() for _ in range(2000)]
    with pytest.raises(dtd.LayerError, match="nests more moves"):
        dtd.explain([dtd.Linear(W), *moves, dtd.BatchNorm(np.ones(4), np.ones(4)), dtd.ReLU(), dtd.Linear(W)], X)


@pytest.mark.parametrize("name", ["dtd", "lrp-0", "epsilon-plus-flat"])
@pytest.mark.parametrize("convention", ["dtd", "zennit", "captum", "innvestigate"])
def test_networks_without_units(name: str, convention: str) -> None:
    """What moves or passes alone hands relevance on as it is."""
    x = np.arange(1, 9, dtype=np.float32).reshape(1, 2, 2, 2)
    start = np.ones((1, 8), np.float32)
    for layers in (
        [dtd.Flatten()],
        [dtd.Dropout(), dtd.Flatten(), dtd.Dropout()],
        [dtd.Permute((0, 1, 2, 3)), dtd.Flatten()],
    ):
        for backend in ("cpu", "oracle"):
            found = dtd.explain(layers, x, start, rules=name, convention=convention, backend=backend)
            np.testing.assert_array_equal(found, np.ones_like(x))
    np.testing.assert_array_equal(
        dtd.explain([dtd.Dropout()], start, start, rules=name, convention=convention, backend="cpu"), start
    )


EXTREME = [
    0,
    -1,
    7,
    2**16,
    2**31,
    2**63,
    10**30,
    True,
    None,
    1.5,
    float("nan"),
    1e300,
    "a",
    (),
    (1, 2, 3),
    ((1, 1), (1, 1)),
    [],
    {},
]
RECORDS: dict[type[dtd.Layer], dict[str, object]] = {
    dtd.Linear: dict(weight=np.ones((3, 6))), dtd.Conv: dict(weight=np.ones((2, 2, 3, 3))),
    dtd.ConvTranspose: dict(weight=np.ones((2, 1, 2, 2))), dtd.MaxPool: dict(kernel=2), dtd.AvgPool: dict(kernel=2),
    dtd.SumPool: dict(kernel=2),
    dtd.LRN: dict(size=3), dtd.Pad: dict(padding=1),
    dtd.Upsample: dict(factor=2), dtd.Slice: dict(axis=2), dtd.Reshape: dict(shape=(2, 36)),
    dtd.Permute: dict(order=(0, 2, 1, 3)),
    dtd.Softmax: {}, dtd.BatchNorm: dict(mean=np.ones(2), variance=np.ones(2)), dtd.Scale: dict(scale=np.ones(2)),
    dtd.Activation: dict(kind="elu"), dtd.Add: dict(inputs=(-1, -1)), dtd.Concat: dict(inputs=(-1, -1)),
    dtd.Mul: dict(inputs=(-1, -1)), dtd.MatMul: dict(inputs=(-1, -1), transpose_b=True), dtd.LayerNorm: {},
    dtd.RMSNorm: {}, dtd.GroupNorm: dict(groups=2), dtd.InstanceNorm: {}, dtd.Reduce: dict(kind="mean", axes=2),
    dtd.Gather: dict(indices=(0, 1), axis=1), dtd.Expand: dict(shape=(2, 6, 6)),
    dtd.Embedding: dict(weight=np.ones((3, 2))),
    dtd.Constant: dict(value=np.ones((2, 6, 6))), dtd.Given: dict(name="mask", shape=(2, 6, 6)),
    dtd.Preparation: dict(scale=np.ones(2)), dtd.GlobalAvgPool: {}, dtd.Flatten: {}, dtd.ReLU: {}, dtd.Dropout: {},
    dtd.Resample: dict(weights=(np.ones((3, 6)), None)),
}  # fmt: skip


def test_every_record_is_met() -> None:
    assert RECORDS.keys() == {*LAYERS.values()}


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_extreme_values_in_any_field_end_in_errors_of_ours(kind: type[dtd.Layer]) -> None:
    """Or in answers on which the kernels and the oracle agree."""
    x = np.random.default_rng(0).random((1, 2, 6, 6), np.float32)
    for field in dataclasses.fields(kind):
        for value in EXTREME:
            try:
                layers = [kind(**{**RECORDS[kind], field.name: value})]
                start = np.ones_like(dtd.predict(layers, x, backend="cpu"))
                found, expected = (
                    dtd.explain(layers, x, start, rules="lrp-epsilon", backend=b) for b in ("cpu", "oracle")
                )
            except dtd.DtdError:
                continue
            # at most 2·72 terms of one product, each rounded twice, on either side
            np.testing.assert_allclose(found, expected, rtol=0, atol=600 * 2.0**-24 * max(1.0, np.abs(expected).max()))
