"""Calls on a device: what is uploaded, recorded and waited for; what is refused; memory that runs out."""

from __future__ import annotations

import gc
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast.cuda.kernels.strided import reciprocal
from dtdfast.cuda.run import contraction, strided
from host import HostDevice
from paper import on_paper
from support import normal, segmenter

CALL = ["upload", "replay", "download", "download", "synchronize"]  # x; one graph; result and flags


def test_one_graph_and_one_wait(explainer, device, network, rng):
    """The first call uploads weights and records a graph; the second only copies, replays and waits once."""
    made = explainer(network, device)
    first = made.explain(normal(rng, 2, 3, 6, 6))
    assert first.dtype == np.float32
    uploads, graphs = device.log.count("upload"), device.log.count("record")
    assert uploads > 3
    assert graphs == 1
    device.log.clear()
    made.explain(normal(rng, 2, 3, 6, 6))
    assert device.log == CALL
    device.log.clear()
    made.explain(normal(rng, 2, 3, 6, 6), [1, 2])  # its targets go up too, another graph for another way in
    assert device.log == ["upload", "upload", "record", "replay", "download", "download", "synchronize"]
    made.explain(normal(rng, 1, 3, 6, 6))  # another plan in the same arena
    device.log.clear()
    made.explain(normal(rng, 2, 3, 6, 6))
    assert device.log == CALL


def test_weights_go_up_once(explainer, device, network, rng):
    made = explainer(network, device)
    made.explain(normal(rng, 2, 3, 6, 6))
    made.predict(normal(rng, 2, 3, 6, 6))
    before = len(device.blocks)
    made.explain(normal(rng, 1, 3, 6, 6))
    made.ledger(normal(rng, 1, 3, 6, 6))
    head = network[-1].weight.nbytes
    assert sum(b.nbytes - 2 * 4096 - 256 == head for b in device.blocks.values()) == 1
    assert len(device.blocks) <= before + 8  # of another plan's geometry, not its weights


def targets_of(n):
    return [None, 3, np.arange(n) % 5, np.array([[4, 0, 1]]), np.arange(2 * n).reshape(n, 2) % 5]


@pytest.mark.parametrize("rules", ["dtd", "deep_taylor"])
def test_targets(explainer, network, rng, rules):
    made = explainer(network, rules=rules)
    x = normal(rng, 3, 3, 6, 6)
    for target in [*targets_of(3), normal(rng, 3, 5), normal(rng, 3, 2, 5)]:
        expected, outputs = dtd.explain(network, x, target, rules=rules, backend="oracle", return_outputs=True)
        found, values = made.explain(x, target, return_outputs=True)
        assert found.shape == expected.shape
        assert abs(found - expected).max() <= 2e-5 * abs(expected).max()
        assert abs(values - outputs).max() <= 2e-5 * abs(outputs).max()


def test_the_first_of_equal_outputs_is_explained(explainer, rng):
    """As NumPy's argmax; over more outputs than threads look, and NaN-free ties in every lane."""
    weight = np.tile(normal(rng, 50, 3), (4, 1))
    layers = [dtd.Linear(weight)]
    x = normal(rng, 5, 3)
    _, outputs = dtd.explain(layers, x, backend="oracle", return_outputs=True)
    made = explainer(layers)
    np.testing.assert_array_equal(made.explain(x), made.explain(x, outputs.argmax(1)))
    assert (outputs.argmax(1) < 50).all()


def test_chunks_of_targets(explainer, device, network, rng):
    """Several passes of relevance on one forward pass, the last one filled up: the bits of all at once."""
    x = normal(rng, 2, 3, 6, 6)
    for target in (np.arange(5)[None], normal(rng, 2, 5, 5)):
        expected = explainer(network, device).explain(x, target)
        made = explainer(network, device)
        executor = made._executor((3, 6, 6), "explain")
        executor._most[False] = (2, 2)
        device.log.clear()
        np.testing.assert_array_equal(made.explain(x, target), expected)
        assert device.log.count("replay") == 1 + 3


def test_strided_out(explainer, network, rng):
    x = normal(rng, 2, 3, 6, 6)
    made = explainer(network)
    out = np.empty((2, 6, 6, 3), np.float32).transpose(0, 3, 1, 2)
    assert made.explain(x, 1, out=out) is out
    np.testing.assert_array_equal(out, made.explain(x, 1))


def test_start_and_stop(explainer, network, rng):
    x = normal(rng, 2, 3, 6, 6)
    for options in ({"stop": 2}, {"start": 2, "domain": "nonnegative", "rules": dtd.ZPlus()}):
        target = None if "stop" in options else (0, 1, 1)
        expected = dtd.explain(network, abs(x), target, backend="oracle", **options)
        found = explainer(network, **options).explain(abs(x), target)
        assert abs(found - expected).max() <= 2e-5 * abs(expected).max()


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_x_that_is_not_finite(explainer, network, rng, wrong):
    x = normal(rng, 2, 3, 6, 6)
    made = explainer(network)
    bad = x.copy()
    bad[1, 2, 3, 4] = wrong
    for call in (made.explain, made.predict, made.ledger):
        with pytest.raises(dtd.InputError, match=r"first at \(1, 2, 3, 4\)"):
            call(bad)
    assert np.isfinite(made.explain(x)).all()  # nothing is left of it
    with pytest.raises(dtd.InputError, match="beyond the range of float32"):
        made.explain(x.astype(np.float64) * 1e300)


@pytest.mark.parametrize(
    ("domain", "x", "message"),
    [
        ("nonnegative", -1e-3, "goes down to -0.001"),
        ((-1.0, 2.0), 2.5, "spans .* to 2.5"),
        ((-1.0, 2.0), -1.5, "spans -1.5"),
        (([-1.0, -1, -1], [2.0, 2, 2]), -1.5, "leaves the box"),
    ],
)
def test_x_outside_the_domain(explainer, network, rng, domain, x, message):
    inside = np.clip(abs(normal(rng, 2, 3, 6, 6)), 0, 1)
    made = explainer(network, domain=domain)
    expected = dtd.explain(network, inside, 0, domain=domain, backend="oracle")
    assert abs(made.explain(inside, 0) - expected).max() <= 2e-5 * abs(expected).max()
    outside = inside.copy()
    outside[1, 0, 2, 2] = x
    with pytest.raises(dtd.DomainError, match=message):
        made.explain(outside, 0)
    made.predict(outside)  # which has no domain


def test_overflow(explainer, rng):
    layers = [dtd.Linear(np.full((3, 4), 1e30, np.float32)), dtd.Linear(np.full((2, 3), 1e30, np.float32))]
    made = explainer(layers, rules=dtd.ZPlus())
    for call, what in ((made.predict, "output"), (made.explain, "relevance")):
        with pytest.raises(dtd.NumericsError, match=f"the {what} overflowed float32"):
            call(np.ones((2, 4), np.float32))


def weighted(*factors):
    return [dtd.Linear(np.full((1, 2 if i == 0 else 1), factor)) for i, factor in enumerate(factors)]


def test_underflow_to_nothing_is_told(explainer):
    """As on the CPU, by the same look at the result that finds infinity."""
    x, made = np.array([[0.5, 1], [0, 0]], np.float32), explainer(weighted(1e-30, 1e-30), HostDevice())
    with pytest.raises(dtd.NumericsError, match=r"relevance of sample 0 underflowed float32.*float64"):
        made.explain(x)
    with pytest.raises(dtd.NumericsError, match=r"output of sample 0 underflowed float32"):
        made.predict(x)


@pytest.mark.parametrize("most", [None, 2])
def test_what_float32_can_hold_is_computed_where_its_steps_cannot(explainer, most):
    """Of three targets, in one pass or two, the maps of those that pass through w² = 1e-50 are float64's, the other the
    device's.
    """
    x = np.array([[0.5, 1], [2, 1]], np.float32)
    layers = [
        dtd.Linear(np.array([[1e-25, 1e-25], [1, 2]])),
        dtd.ReLU(),
        dtd.Linear(np.array([[1e25, 0], [0, 1], [2e25, 0]])),
    ]
    made, targets = explainer(layers, HostDevice()), np.array([[0, 1, 2]])
    if most:
        made._executor((2,), "explain")._most[False] = (2, most)
    relevance = made.explain(x, targets)
    np.testing.assert_allclose(relevance, dtd.explain(layers, x, targets, backend="oracle"), rtol=2**-20)
    assert relevance.all()


def test_what_is_nothing_in_truth_stays_nothing(explainer, monkeypatch):
    """A dead output beside a live one is not looked at again: no relevance enters."""
    x = np.array([[0.5, 1], [2, 1]], np.float32)
    layers = [dtd.Linear(np.array([[-1.0, -1], [1, 2]])), dtd.ReLU()]
    assert not explainer([*layers, dtd.Linear(np.array([[1.0, 0]]))], HostDevice()).explain(x).any()
    made = explainer(layers, HostDevice())
    monkeypatch.setattr(made._exact, "explain", lambda *a: pytest.fail("computed again"))
    relevance = made.explain(x, np.array([[0, 1]]))
    assert not relevance[:, 0].any()
    assert relevance[:, 1].all()
    assert not made.explain(x, np.zeros((2, 2), np.float32)).any()


@pytest.mark.parametrize(
    "x", [np.zeros((2, 3, 6, 6), int), np.zeros(5, np.float32), np.zeros((0, 3, 6, 6), np.float32), "x"]
)
def test_x_of_a_wrong_kind_has_the_same_message_as_on_the_cpu(explainer, network, x):
    with pytest.raises(dtd.DtdError) as on_cpu:
        dtd.explain(network, x, backend="cpu")
    with pytest.raises(type(on_cpu.value)) as on_device:
        explainer(network).explain(x)
    assert str(on_device.value) == str(on_cpu.value)


def test_word_numbers(explainer, rng):
    layers = [dtd.Embedding(normal(rng, 7, 4)), dtd.Flatten(), dtd.Linear(normal(rng, 3, 20))]
    x = rng.integers(0, 7, (2, 5))
    made = explainer(layers)
    expected = dtd.explain(layers, x, backend="oracle")
    assert abs(made.explain(x) - expected).max() <= 2e-5 * abs(expected).max()
    with pytest.raises(dtd.InputError, match="word numbers 0 to 7"):
        made.explain(np.array([[0, 1, 2, 3, 7]]))


# ------------------------------------------------------------------------------------------------------------- memory


def test_a_batch_that_does_not_fit_is_split(explainer, network, rng):
    x = normal(rng, 8, 3, 6, 6)
    roomy = HostDevice(compiled=True)
    whole = explainer(network, roomy)
    expected = whole.explain(x)
    tight = HostDevice(roomy.used * 2 // 3, compiled=True)
    made = explainer(network, tight, batch_size=8)  # wanted, but more than there is
    np.testing.assert_array_equal(made.explain(x), expected)
    assert made._executor((3, 6, 6), "explain")._most[False][0] in (2, 4)
    tight.log.clear()
    np.testing.assert_array_equal(made.explain(x), expected)
    assert "allocate" not in tight.log


def test_a_ledger_that_does_not_fit_is_split(explainer, network, rng):
    """It keeps more than an explanation does."""
    x, roomy = normal(rng, 8, 3, 6, 6), HostDevice(compiled=True)
    made = explainer(network, roomy)
    relevance = made.explain(x)
    enough = roomy.used
    expected = made.ledger(x)
    tight = HostDevice((enough + roomy.used) // 2, compiled=True)
    made = explainer(network, tight, batch_size=8)
    assert str(made.ledger(x)) == str(expected)
    assert made._executor((3, 6, 6), "explain")._most[True][0] in (2, 4)
    tight.log.clear()
    np.testing.assert_array_equal(made.explain(x), relevance)
    assert tight.log.count("replay") == 1  # explanations go on as they were


def test_targets_that_do_not_fit_are_taken_in_turns(explainer, rng):
    layers = segmenter(rng)
    x, start = normal(rng, 1, 3, 6, 6), normal(rng, 1, 9, 4, 6, 6)
    roomy = HostDevice(compiled=True)
    whole = explainer(layers, roomy)
    expected = whole.explain(x, start)
    tight = HostDevice(compiled=True)
    made = explainer(layers, tight)
    made._executor((3, 6, 6), "explain")  # which plans for all the memory there is now
    tight.total = roomy.used * 3 // 5
    np.testing.assert_array_equal(made.explain(x, start), expected)
    assert made._executor((3, 6, 6), "explain")._most[False][1] < 9


def test_one_sample_that_does_not_fit(explainer, network, rng):
    device = HostDevice(6_000, compiled=True)
    made = explainer(network, device)
    with pytest.raises(dtd.BackendError, match=r"needs [\d,]+ bytes beside the weights, .* [\d,]+ of 6,000 free"):
        made.explain(normal(rng, 2, 3, 6, 6))
    device.total = 2**30  # once others have freed theirs, the same Explainer works
    assert np.isfinite(made.explain(normal(rng, 2, 3, 6, 6))).all()


def test_one_sample_whose_values_are_made_again(explainer, rng):
    """As many as fit where all of them do not, not even with borders cleared one by one."""
    layers = [layer for _ in range(12) for layer in (dtd.Conv(normal(rng, 4, 4, 3, 3), padding=1), dtd.ReLU())]
    x, roomy = normal(rng, 1, 4, 24, 24), HostDevice(compiled=True)
    whole = explainer(layers, roomy)
    expected = whole.explain(x, start := normal(rng, 1, 4, 24, 24))
    tight = HostDevice(roomy.used - whole.plan_for(x.shape).arena * 3 // 5, compiled=True)
    made = explainer(layers, tight)
    np.testing.assert_array_equal(made.explain(x, start), expected)
    assert "made again on the way back" in str(made.plan_for(x.shape))
    assert made.plan_for(x.shape).arena < whole.plan_for(x.shape).arena * 2 // 3


def test_memory_is_freed_with_the_explainer(explainer, network, rng):
    device = HostDevice(compiled=True)
    made = explainer(network, device)
    made.explain(normal(rng, 2, 3, 6, 6))
    made.predict(normal(rng, 1, 3, 6, 6))
    assert device.blocks
    assert device.log.count("record") == 2
    del made
    gc.collect()
    assert not device.blocks
    assert device.log.count("discard") == 2


def test_items_beyond_31_bits_are_several_launches(monkeypatch, explainer, network, rng):
    x = normal(rng, 3, 3, 6, 6)
    expected = explainer(network).explain(x)
    monkeypatch.setattr(strided, "MOST_ITEMS", 50)
    np.testing.assert_array_equal(explainer(network).explain(x), expected)


@pytest.mark.parametrize("d", [1, 2, 3, 5, 7, 64, 100, 641, 2**16 + 1, 2**20 - 1, 2**30 + 1, 2**31 - 1])
def test_reciprocals(d):
    magic, shift = reciprocal(d)
    assert 0 < magic < 2**32
    rng = np.random.default_rng(d)
    numbers = {
        0,
        1,
        d - 1,
        d,
        d + 1,
        2 * d - 1,
        2 * d,
        2**31 - 1,
        *((2**31 - 1) // d * d + k for k in (-1, 0)),
        *rng.integers(0, 2**31, 500),
    }
    for n in map(int, numbers):
        if 0 <= n < 2**31:
            assert (n * magic) >> shift == n // d


# --------------------------------------------------------------------------------------------------- threads, pickles


def test_threads_share_one_explainer(explainer, network, rng):
    made = explainer(network)
    inputs = [normal(rng, 1 + k % 3, 3, 6, 6) for k in range(12)]
    expected = [made.explain(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for found, right in zip(pool.map(made.explain, inputs), expected, strict=True):
            np.testing.assert_array_equal(found, right)


def test_bits_do_not_depend_on_the_batch(explainer, network, rng):
    x = normal(rng, 3, 3, 6, 6)
    made = explainer(network)
    together = made.explain(x)
    for n in range(3):
        np.testing.assert_array_equal(made.explain(x[n : n + 1]), together[n : n + 1])


def test_pickle(explainer, network, rng):
    x = normal(rng, 2, 3, 6, 6)
    made = explainer(network)
    expected = made.explain(x)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(made)).explain(x), expected)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", "mixed"])
def test_the_printed_plan_names_what_runs(network, rng, precision):
    """Tile and unit of every contraction, and what a device runs; without a device the same."""
    x = normal(rng, 2, 3, 6, 6)
    with on_paper() as device:
        made = dtd.Explainer(network, backend="cuda", precision=precision)
        made.explain(x)
        plan = made.plan_for(x.shape)
        profile = made.profile(x)
    ran = {contraction.body(kernel) for kernel in device.kernels if kernel.name == "dtd_dense"}
    assert set(plan.bodies) - {""} == ran != set()
    assert all(
        bool(body) == (step.op in contraction.OPERATIONS)
        for body, step in zip(plan.bodies, [*plan.forward, *plan.relevance], strict=True)
    )
    assert contraction.bodies(plan, precision, shared_bytes=device.shared_bytes) == plan.bodies
    assert tuple(timing.body for timing in profile.timings) == plan.bodies
    for text in (str(plan), str(profile)):
        assert all(body in text for body in ran)


def test_profile(explainer, network, rng):
    made = explainer(network)
    profile = made.profile(normal(rng, 2, 3, 6, 6))
    assert [t.operation for t in profile.timings][-1] == "move"
    plan = made.plan_for((2, 3, 6, 6))
    assert len(profile.timings) == len(plan.forward) + len(plan.relevance)
    assert profile.seconds > 0
