"""The C kernels: against the oracle within a derived bound, conserving on their own, and repeatable to the bit."""

import pickle
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import dtdfast as dtd
from cases import CASES, HELD_CASES, by_oracle
from dtdfast.cpu import rows
from dtdfast.cpu.encode import Encoded
from dtdfast.packing import WeightStore
from dtdfast.plan.steps import STEP_FIELDS, VIEWS, Buffer, View, Weights
from dtdfast.plan.taps import Phase
from dtdfast.plan.tensors import Region
from support import LONG

UNITS = {"float32": 2.0**-24, "float64": 2.0**-53}
UNIT = UNITS["float32"]
# every rule on half of the geometries of either domain, and every geometry under half of the rules
EVERY = [case for case in CASES if LONG or case.number % 4 < 2] + HELD_CASES[:: 1 if LONG else 2]
CONSERVING = [case for case in EVERY if case.row.conserves]
SOME = EVERY[:: len(EVERY) // 60]  # for what does not depend on the arithmetic of each rule


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.id)
def test_oracle(case):
    x, r_out = case.x, case.r_out
    _, bound = case.expected(x, r_out, case.tolerance(UNIT))
    r_in = dtd.explain(case.layers, x, r_out, **case.options("cpu"))
    assert r_in.dtype == np.float32
    assert r_in.shape == x.shape
    assert np.isfinite(r_in).all()
    assert (abs(r_in - by_oracle(case)) <= bound).all()
    assert np.isfinite(bound).mean() > 0.9


@pytest.mark.parametrize("case", SOME, ids=lambda case: case.id)
def test_oracle_in_float64(case):
    """float64 in and out; 2⁻⁵³ instead of 2⁻²⁴ in the bound, twice, since the oracle rounds as well."""
    x, r_out = case.x.astype(np.float64), case.r_out.astype(np.float64)
    _, bound = case.expected(x, r_out, case.tolerance(2 * UNITS["float64"]))
    r_in = dtd.explain(case.layers, x, r_out, precision="float64", **case.options("cpu"))
    assert r_in.dtype == np.float64
    assert (abs(r_in - by_oracle(case)) <= bound).all()


@pytest.mark.parametrize("case", CONSERVING[:: 1 if LONG else 2], ids=lambda case: case.id)
def test_conservation(case):
    """Sum in = sum out, over the neurons that have a denominator; needs no oracle."""
    x, r_out = case.x, case.r_out
    for n, sample in enumerate(x):
        alive = np.all([term.t != 0 for term in case.terms(sample)], axis=0)
        r_out[n] = np.where(alive.reshape(r_out[n].shape), r_out[n], 0)
    _, bound = case.expected(x, r_out, case.tolerance(UNIT))
    r_in = dtd.explain(case.layers, x, r_out, **case.options("cpu"))
    for r, r_given, limit in zip(r_in, r_out, bound, strict=True):
        assert abs(r.sum(dtype=float) - r_given.sum(dtype=float)) <= limit.sum()


@pytest.mark.parametrize("precision", UNITS)
@pytest.mark.parametrize("case", SOME, ids=lambda case: case.id)
def test_bits(case, precision):
    """The same bits for any thread count, from call to call, and for a sample alone."""
    x, r_out, options = case.x, case.r_out, {**case.options("cpu"), "precision": precision}
    explainer = dtd.Explainer(case.layers, **options)
    r_in = explainer.explain(x, r_out)
    np.testing.assert_array_equal(explainer.explain(x, r_out), r_in)
    for n_threads in (1, 2, 3):
        np.testing.assert_array_equal(dtd.explain(case.layers, x, r_out, n_threads=n_threads, **options), r_in)
    for n in range(len(x)):
        np.testing.assert_array_equal(explainer.explain(x[n : n + 1], r_out[n : n + 1]), r_in[n : n + 1])


def _normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


@pytest.fixture
def network(rng):
    """A small residual network with everything that shares buffers: pools, BatchNorm, concat, two readers."""

    def positive(n):
        return rng.uniform(0.5, 1.5, n).astype(np.float32)

    return [
        dtd.Conv(_normal(rng, 8, 3, 3, 3), _normal(rng, 8), padding=1),
        dtd.ReLU(),
        dtd.MaxPool(3, stride=2, padding=1),
        dtd.Conv(_normal(rng, 8, 8, 3, 3), padding=1),
        dtd.BatchNorm(_normal(rng, 8), positive(8), positive(8), _normal(rng, 8)),
        dtd.Add(inputs=(4, 2)),
        dtd.ReLU(),
        dtd.Conv(_normal(rng, 5, 8, 1, 1), _normal(rng, 5)),
        dtd.ReLU(),
        dtd.Concat(inputs=(8, 6)),
        dtd.AvgPool(2),
        dtd.Flatten(),
        dtd.Linear(_normal(rng, 10, 13 * 4), _normal(rng, 10)),
    ]


PRESETS = ["dtd", "lrp-epsilon", "epsilon-gamma-box", "epsilon-alpha2-beta1-flat"]


def _explainer(network, preset, **options):
    return dtd.Explainer(network, rules=preset, domain=(-8.0, 8.0), backend="cpu", **options)


@pytest.mark.parametrize("precision", UNITS)
@pytest.mark.parametrize("preset", PRESETS)
def test_bits_of_a_network(network, preset, precision, rng):
    x = np.clip(_normal(rng, 5, 3, 8, 8), -8, 8)
    explainer = _explainer(network, preset, precision=precision)
    r_in = explainer.explain(x)
    for n_threads in (1, 2, 3):
        np.testing.assert_array_equal(
            _explainer(network, preset, precision=precision, n_threads=n_threads).explain(x), r_in
        )
    for batch_size in (1, 2, 3):
        np.testing.assert_array_equal(
            _explainer(network, preset, precision=precision, batch_size=batch_size).explain(x), r_in
        )
    for n in range(5):
        np.testing.assert_array_equal(explainer.explain(x[n : n + 1]), r_in[n : n + 1])
    np.testing.assert_array_equal(explainer.explain(x[[3, 0, 3]]), r_in[[3, 0, 3]])


@pytest.mark.parametrize("precision", UNITS)
@pytest.mark.parametrize("preset", PRESETS)
def test_ten_targets_at_once(network, preset, precision, rng):
    """Several targets share the forward pass and equal as many separate calls, bit for bit."""
    x = np.clip(_normal(rng, 3, 3, 8, 8), -8, 8)
    explainer = _explainer(network, preset, precision=precision)
    together = explainer.explain(x, np.arange(10)[None])
    assert together.shape == (3, 10, 3, 8, 8)
    for t in range(10):
        np.testing.assert_array_equal(together[:, t], explainer.explain(x, t))
    own = rng.integers(0, 10, (3, 4))
    np.testing.assert_array_equal(explainer.explain(x, own), np.stack([together[n, own[n]] for n in range(3)]))


def test_threads_share_one_explainer(network, rng):
    """Eight threads, inputs of different batch sizes, one Explainer: the bits of one thread."""
    explainer = _explainer(network, "dtd")
    inputs = [np.clip(_normal(rng, 1 + k % 3, 3, 8, 8), -8, 8) for k in range(32)]
    expected = [_explainer(network, "dtd").explain(x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        for r_in, right in zip(pool.map(explainer.explain, inputs), expected, strict=True):
            np.testing.assert_array_equal(r_in, right)


@pytest.mark.parametrize("precision", UNITS)
@pytest.mark.parametrize("preset", PRESETS)
def test_pickle(network, preset, precision, rng):
    x = np.clip(_normal(rng, 2, 3, 8, 8), -8, 8)
    explainer = _explainer(network, preset, precision=precision)
    fresh = pickle.dumps(explainer)
    r_in = explainer.explain(x)
    for stored in (fresh, pickle.dumps(explainer)):
        np.testing.assert_array_equal(pickle.loads(stored).explain(x), r_in)


def test_results_do_not_alias_the_arena(network, rng):
    x = np.clip(_normal(rng, 2, 3, 8, 8), -8, 8)
    explainer = _explainer(network, "dtd")
    first = explainer.explain(x)
    kept = first.copy()
    explainer.explain(-x)
    np.testing.assert_array_equal(first, kept)
    first[:] = np.nan
    np.testing.assert_array_equal(explainer.explain(x), kept)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("activation", ("bogus", 0.0, 0.0)),
        ("weight_map", "bogus"),
        ("factor_kind", "bogus"),
        ("multiplier", "bogus"),
        ("select", "bogus"),
    ],
)
def test_what_the_kernels_do_not_know_is_refused_by_name(network, field, value, rng):
    plan = _explainer(network, "dtd").plan_for((1, 3, 8, 8))
    step = next(s for s in plan.forward if s.op == "NEURON_DENSE")
    setattr(step, field, value)
    with pytest.raises(dtd.BackendError, match=r"NEURON_DENSE.*bogus"):
        Encoded(plan, WeightStore(), "float32")


def _in_c(plan, *steps):
    """The bytes of these steps in C, constants named by what they hold."""
    made = rows.Rows(plan, WeightStore(), {}, rows.PLACES)
    c_steps = made.written(list(steps))
    for c in c_steps:
        for key in (*VIEWS, "weight", "bias", "bias_d", "taps"):
            ref = getattr(c, key)
            if ref.base >= len(rows.PLACES):
                ref.base = 1000 + zlib.crc32(made.constants[ref.base - len(rows.PLACES)].tobytes())
    size = rows.ffi.sizeof("dtd_step")
    return [rows.ffi.buffer(c_steps + number, size)[:] for number, _ in enumerate(steps)]


def test_no_field_of_a_step_is_left_out_where_rows_are_copied(network):
    """A step behind one that differs from it in a single field, or in one of a view's buffer, has the row that it has
    alone: with a field that copying does not look at, it would have the other one's.
    """
    plan = _explainer(network, "dtd").plan_for((1, 3, 8, 8))
    step = next(s for s in plan.forward if s.op == "NEURON_DENSE")
    step = step.but(**{field: getattr(step, field) for field in STEP_FIELDS})  # so that all have the same fields
    step = step.but(x=View(Buffer("x", (4, 3), "n")), bias=np.ones(4, "f4"), input_map="x+")
    buffers = [Buffer("x", (4, 3), "n", plain=False), Buffer("x", (4, 5), "n"), Buffer("x", (4, 3), "1")]
    buffers += [Buffer("x", (4, 3), "n", "f8", offset=64), Buffer("x", (4, 3), "n", external="x")]
    buffers += [Buffer("x", (4, 3), "n", plain=False, border=((0, 0), (0, 0), (1, 2)))]
    region = Region(((0, 1, 2), (0, 1, 3)))
    seen = [View(b) for b in buffers] + [View(step.x.buffer, region), View(step.x.buffer, trailing=True)]
    other, one = View(Buffer("other", (6,), "n")), (1, 1, 1)
    values = {key: [other] for key in VIEWS} | {"x": seen}
    values |= {"weights": [Weights(step.weights.part, "dense", taps=(0,))]}
    values |= {key: [np.full(5, 2, "f4"), np.full((4, 1), 3, "f4")] for key in ("bias", "bias_d", "vector")}
    values |= {key: [np.full((4, 1), 3, "f4")] for key in ("norm_weight", "norm_bias", "selector", "bound")}
    values |= {"window": [np.ones((1, 2, 3), "f4")], "table": [np.ones((2, 3), np.int64)], "op": ["MATMUL"]}
    values |= {
        key: [[n for n in numbers if numbers[n] and n != getattr(step, key)][-1]] for key, numbers in rows.NAMES.items()
    }
    values |= {"activation": [("clip", 0.5, 2.0)], "sign": ["positive"], "size": [3], "lrn": [(1.0, 2.0, 3.0)]}
    values |= {"phase": [Phase((0, 0, 0), one, one, one, ((0, (0, 0, 1)),), ((0, 0, 0), (0, 0, 1)))]}
    for field in STEP_FIELDS - {"unit", "macs", "within"}:
        for value in values.get(field, [7]):
            changed = step.but(**{field: value})
            (alone,) = _in_c(plan, changed)
            assert _in_c(plan, step, changed)[1] == alone != _in_c(plan, step)[0], field
