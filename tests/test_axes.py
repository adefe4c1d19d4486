"""Records that work along any axes: their values against NumPy, their relevance against gradients, explicit matrices
and each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
import explicit
from cases.axes import CASES, INPUT, RNG, weight
from dtdfast.plan import units as U
from support import by_matrix, close, normal

BACKENDS = [b.name for b in dtd.backends().values() if b.usable]


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str) -> None:
    shape, layers, function = CASES[name]
    x = RNG.standard_normal((3, *shape))
    y = dtd.predict(layers, x, backend="oracle")
    expected = function(x)
    assert y.shape == expected.shape
    close(y, expected, "oracle")
    close(dtd.predict(layers, x, backend="cpu"), y, "cpu")
    start = RNG.standard_normal(y.shape)
    gradient = dtd.baselines.gradient(layers, x, start, backend="oracle")
    close(dtd.baselines.gradient(layers, x, start, backend="cpu"), gradient, "cpu")
    step = 1e-6 * RNG.standard_normal(x.shape)
    slope = (
        (dtd.predict(layers, x + step, backend="oracle") - dtd.predict(layers, x - step, backend="oracle")) * start
    ).sum() / 2
    assert abs((gradient * step).sum() - slope) <= 1e-5 * (
        abs(gradient * step).sum() + abs(slope)
    )  # second order in steps of 1e-6
    if "gate" not in name:
        r_in = dtd.explain(layers, x, start * y, rules="lrp-0", backend="oracle")
        assert abs(r_in - gradient * x).max() <= 1e-9 * abs(gradient * x).max()


@pytest.mark.parametrize("name", list(CASES)[::3])
@pytest.mark.parametrize("rules", ["dtd", "epsilon-plus"])
def test_accounts_close_and_batches_do_not_matter(name: str, rules: str) -> None:
    shape, layers, _ = CASES[name]
    x = RNG.uniform(0, 1, (3, *shape)).astype(np.float32)
    start = RNG.uniform(0, 1, (3, *dtd.predict(layers, x[:1]).shape[1:])).astype(np.float32)
    options = {"rules": rules, "domain": (0.0, 1.0)}
    for backend in ("oracle", "cpu"):
        ledger = dtd.Explainer(layers, backend=backend, **options).ledger(x, start)
        assert ledger.closed, str(ledger)
    together = dtd.explain(layers, x, start, backend="cpu", n_threads=2, **options)
    for n in range(3):
        one = dtd.explain(layers, x[n : n + 1], start[n : n + 1], backend="cpu", n_threads=1, **options)
        np.testing.assert_array_equal(one[0], together[n])


# ---------------------------------------------------------------------------------------------- the same in another way


PRESETS = ["dtd", "lrp-epsilon", "epsilon-plus-flat", "epsilon-alpha2-beta1", "deep_taylor"]
CONVENTIONS = ["dtd", "zennit", "captum", "innvestigate"]


@pytest.mark.parametrize("rules", PRESETS)
def test_a_residual_layer_along_the_last_axis_is_that_of_the_transposed_input(rules: str) -> None:
    """A Linear along any axis, its activation and the Add behind it are the neurons that a Linear along axis 1 makes
    with them.
    """
    x, w, out = normal(RNG, 2, 3, 5, 4), weight(4, 4), weight(2, 4)

    def network(axis: int) -> list[Any]:
        return [
            dtd.Linear(w, w[0], axis),
            dtd.ReLU(),
            dtd.Linear(w, axis=axis),
            dtd.Add(inputs=(1, 2)),
            dtd.ReLU(),
            dtd.Linear(out, axis=axis),
        ]

    start = normal(RNG, 2, 3, 5, 2)
    r_in = dtd.explain(network(-1), x, start, rules=rules, backend="oracle")
    turned = dtd.explain(network(1), np.moveaxis(x, -1, 1), np.moveaxis(start, -1, 1), rules=rules, backend="oracle")
    close(r_in, np.moveaxis(turned, 1, -1), "oracle")
    plan = dtd.Explainer(network(-1), backend="oracle").plan_for(x.shape)
    neurons = [u.entries for u in plan.program.network.units if isinstance(u, U.Neuron)]
    assert neurons == [(0, 1), (2, 3, 4), (5,)]


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("rules", PRESETS)
def test_means_and_sums_share_as_pools_do(rules: str, convention: str) -> None:
    w, x = normal(RNG, 3, 2, 1, 1), abs(normal(RNG, 2, 2, 3, 4))
    tail = [dtd.Flatten(), dtd.Linear(normal(RNG, 2, 3))]
    pools = {"mean": dtd.GlobalAvgPool(), "sum": dtd.SumPool((3, 4))}
    for kind, pool in pools.items():
        options = {"rules": rules, "convention": convention, "backend": "oracle"}
        expected = dtd.explain([dtd.Conv(w), dtd.ReLU(), pool, *tail], x, 1, **options)
        found = dtd.explain([dtd.Conv(w), dtd.ReLU(), dtd.Reduce(kind, (2, 3)), tail[1]], x, 1, **options)
        close(found, expected, "oracle")
        mean = np.full((1, 3), 1 / 3 if kind == "mean" else 1.0), np.full((1, 4), 1 / 4 if kind == "mean" else 1.0)
        resample = dtd.explain([dtd.Conv(w), dtd.ReLU(), dtd.Resample(mean), *tail], x, 1, **options)
        close(resample, expected, "oracle")


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
@pytest.mark.parametrize("x_sign", [1, 0])
def test_a_large_resampling_is_one_neuron_per_output(backend: str, x_sign: int) -> None:
    """It is done in tiles, whose weights are those of the whole; with x ≥ 0 and weights ≥ 0 two layers in a row say the
    same.
    """
    up = np.maximum(0, 1 - abs((np.arange(90)[:, None] + 0.5) / 2 - 0.5 - np.arange(45)))
    x = normal(RNG, 1, 2, 45, 45)
    x = abs(x) if x_sign else x
    start = normal(RNG, 1, 2, 90, 90)
    both, options = [dtd.ReLU(), dtd.Resample((up, up))], {"backend": backend, "rules": "excitation-backprop"}
    layers = both if x_sign else both[1:]
    plan = dtd.Explainer(layers, **options).plan_for(x.shape)
    assert sum(isinstance(u, U.Neuron) for u in plan.program.network.units) > 1
    terms = np.einsum("pi,qj,cij->cpqij", up, up, x[0].astype(float), optimize=True)
    expected, r = np.zeros((2, 45, 45)), start[0].astype(float)
    for p in range(90):
        positive = np.maximum(terms[:, p], 0)
        d = positive.sum((2, 3))
        expected += (positive * (r[:, p] * (d != 0) / np.where(d == 0, 1, d))[..., None, None]).sum(1)
    close(dtd.explain(layers, x, start, **options)[0], expected, backend)
    if x_sign:
        chain = [dtd.ReLU(), dtd.Resample((up, None)), dtd.Resample((None, up))]
        close(dtd.explain(chain, x, start, **options)[0], expected, backend)


def test_a_product_with_a_constant_is_a_scale() -> None:
    c, w, x = weight(3, 1, 5), weight(3, 3, 1, 1), normal(RNG, 2, 3, 4, 5)
    for rules in PRESETS:
        scaled = [dtd.Conv(w), dtd.Scale(c), dtd.ReLU()]
        product = [dtd.Conv(w), dtd.Constant(c), dtd.Mul(inputs=(0, 1)), dtd.ReLU()]
        start = normal(RNG, 2, 3, 4, 5)
        close(*(dtd.explain(layers, x, start, rules=rules, backend="oracle") for layers in (product, scaled)), "oracle")


def test_what_is_repeated_belongs_to_the_neuron_of_a_negative_scale() -> None:
    """A linear layer, its outputs repeated, and a scale < 0: as the layer with −w."""
    w, x = weight(3, 6), normal(RNG, 2, 6)
    start = normal(RNG, 2, 3, 4)
    layers = [dtd.Linear(w), dtd.Reshape((3, 1)), dtd.Expand((3, 4)), dtd.Scale([-1.0, 2.0, -0.5])]
    scale = np.repeat([-1.0, 2.0, -0.5], 4)[:, None]
    taps = explicit.linear((6,), scale * np.repeat(w, 4, axis=0))
    expected = by_matrix([explicit.zplus(taps, v) for v in x.astype(float)], start)
    close(dtd.explain(layers, x, start, rules="excitation-backprop", backend="oracle"), expected, "oracle")


# ------------------------------------------------------------------------------------------------------------ constants


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
def test_a_constant_absorbs_its_share(backend: str) -> None:
    layers = [dtd.ReLU(), dtd.Constant([1.0, 0.0, 3.0]), dtd.Add(inputs=(0, 1))]
    x = np.array([[1.0, 2.0, 1.0]])
    explainer = dtd.Explainer(layers, rules="excitation-backprop", backend=backend)
    np.testing.assert_allclose(explainer.explain(x, np.array([[2.0, 5.0, 4.0]])), [[1, 5, 1]])
    ledger = explainer.ledger(x, np.array([[2.0, 5.0, 4.0]]))
    assert ledger.closed
    np.testing.assert_allclose(ledger.absorbed["constant"], 4)
    assert "Constant" in str(ledger)
    arrived = dtd.Explainer(layers, rules="excitation-backprop", backend=backend, stop=1).ledger(x, [[2.0, 5.0, 4.0]])
    assert arrived.closed, str(arrived)  # what arrives there is not absorbed
    np.testing.assert_allclose(arrived.end, 4)
    np.testing.assert_allclose(arrived.absorbed["constant"], 0)


def test_what_a_constant_absorbs_costs_no_steps() -> None:
    layers = [dtd.Conv(weight(2, 2, 1, 1)), dtd.Constant(weight(2, 4, 4)), dtd.Add(inputs=(0, 1)), dtd.ReLU()]
    plan = dtd.Explainer(layers, backend="cpu").plan_for((1, 2, 4, 4))
    assert not any(step.out.buffer.name.startswith(("r1", "c1")) for step in plan.relevance)


def test_outputs_that_depend_on_no_input_are_refused() -> None:
    with pytest.raises(dtd.LayerError, match="no relevance reaches"):
        dtd.explain([dtd.Constant([1.0]), dtd.Linear([[2.0]])], np.ones((1, 3)), 0, backend="cpu")
    np.testing.assert_array_equal(
        dtd.predict([dtd.Constant([1.0]), dtd.Linear([[2.0]])], np.ones((2, 3)), backend="cpu"), [[2], [2]]
    )


def test_relevance_enters_and_leaves_at_any_entry() -> None:
    layers = [
        dtd.Linear(weight(4, 3), axis=2),
        dtd.Reduce("mean", 1),
        dtd.Gather((3, 1, 0), 1),
        dtd.ReLU(),
        dtd.Linear(weight(2, 3)),
    ]
    x = normal(RNG, 2, 5, 3)
    whole = dtd.explain(layers, x, 1, rules="lrp-0", backend="oracle")
    for entry in (1, 2, 3):
        inner = dtd.explain(layers, x, 1, rules="lrp-0", backend="oracle", stop=entry)
        assert inner.shape == dtd.predict(layers[: entry + 1], x, backend="oracle").shape
        close(dtd.explain(layers, x, inner, rules="lrp-0", backend="oracle", start=entry), whole, "oracle")


# --------------------------------------------------------------------------------------------------------- moves, boxes


@pytest.mark.parametrize(
    ("shape", "axis", "picks", "most"),
    [
        ((3, 2, 224), 3, range(223, -1, -1), 2),  # a flip
        ((3, 2, 224), 3, np.roll(np.arange(224), 5), 6),
        ((512, 2, 2), 1, RNG.permutation(512), 2),
        ((2, 512, 2), 2, RNG.permutation(512), 12),
    ],
    ids=["flip", "roll", "channels", "rows"],
)
def test_long_picks_take_few_steps(shape: tuple[int, ...], axis: int, picks: Any, most: int) -> None:
    layers = [dtd.ReLU(), dtd.Gather(tuple(int(i) for i in picks), axis)]
    plan = dtd.Explainer(layers, backend="cpu").plan_for((1, *shape))
    steps = [
        s
        for s in (*plan.forward, *plan.relevance)
        if s.unit is not None and s.unit.entries == (1,) and s.op != "CLEAR_BORDER"
    ]
    assert len(steps) <= 2 * most
    x = normal(RNG, 2, *shape)
    start = normal(RNG, 2, *shape)
    r_in = np.zeros(start.shape, np.float32)
    np.moveaxis(r_in, axis, 0)[np.asarray(picks)] = np.moveaxis(start, axis, 0)
    np.testing.assert_array_equal(dtd.explain(layers, x, start, backend="cpu"), r_in)
    np.testing.assert_array_equal(
        dtd.predict(layers, x, backend="cpu"), np.take(np.maximum(x, 0), np.asarray(picks), axis)
    )


def test_the_first_largest_takes_all() -> None:
    x = np.array([[[1.0, 2.0], [2.0, 2.0]]])
    for backend in ("oracle", "cpu"):
        np.testing.assert_array_equal(
            dtd.explain([dtd.Reduce("max", (1, 2), True)], x, (np.uint64(0), 0), backend=backend), [[[0, 2], [0, 0]]]
        )


MOVED = {
    "gather": (
        [dtd.Gather((2, 0, 1), 1), dtd.Permute((0, 2, 1))],
        lambda v: np.take(v, (2, 0, 1), -2).swapaxes(-1, -2),
    ),
    "expand": (
        [dtd.Reshape((3, 1, 2)), dtd.Expand((3, 4, 2)), dtd.Reshape((12, 2))],
        lambda v: np.repeat(v, 4, axis=-2),
    ),
    "scale": (
        [dtd.Scale(np.array([[1.0, -2.0], [0.5, 1.0], [-1.0, 3.0]]))],
        lambda v: v * np.array([[1.0, -2.0], [0.5, 1.0], [-1.0, 3.0]]),
    ),
}


@pytest.mark.parametrize("name", MOVED)
@pytest.mark.parametrize("backend", ["oracle", "cpu"])
def test_the_box_of_the_input_is_carried(name: str, backend: str) -> None:
    moves, function = MOVED[name]
    low, high = -RNG.uniform(0.5, 2, (3, 2)), RNG.uniform(0.5, 2, (3, 2))
    x = np.clip(normal(RNG, 2, 3, 2), low.astype(np.float32), high.astype(np.float32))
    moved, ends = function(x.astype(float)), np.stack([function(low), function(high)])
    w = weight(5, moved[0].size)
    start = normal(RNG, 2, 5)
    taps = explicit.linear((moved[0].size,), w)
    n = [explicit.zbox(taps, v.ravel(), ends.min(0).ravel(), ends.max(0).ravel()) for v in moved]
    r_moved = by_matrix(n, start).reshape(moved.shape)
    index = function(np.arange(1.0, 7).reshape(3, 2)) if name != "scale" else np.arange(1.0, 7).reshape(3, 2)
    expected = np.stack([r_moved[:, index == k].sum(1) for k in range(1, 7)], 1).reshape(x.shape)
    close(
        dtd.explain([*moves, dtd.Flatten(), dtd.Linear(w)], x, start, domain=(low, high), backend=backend),
        expected,
        backend,
    )


@pytest.mark.parametrize(
    ("record", "along"),
    [(dtd.Linear(weight(3, 4), axis=2), (4, 1)), (dtd.Resample((weight(3, 4), weight(2, 2))), (2, 1, 1))],
    ids=["Linear", "Resample"],
)
def test_bounds_of_a_rule_are_those_of_what_the_entry_reads(record: Any, along: tuple[int, ...]) -> None:
    """One for each number that a Linear reads, else one for each channel."""
    low, high = -RNG.uniform(0.5, 2, along[0]), RNG.uniform(0.5, 2, along[0])
    x = np.clip(normal(RNG, 2, 2, 4, 2), low.reshape(along), high.reshape(along))
    y = dtd.predict([record], x, backend="oracle")
    start = normal(RNG, *y.shape)
    taps = (
        explicit.linear((2, 4, 2), record.weight, axis=2)
        if isinstance(record, dtd.Linear)
        else explicit.resample((2, 4, 2), record.weights)
    )
    ends = [np.broadcast_to(b.reshape(along), (2, 4, 2)).ravel() for b in (low, high)]
    expected = by_matrix([explicit.zbox(taps, v.ravel(), *ends) for v in x.astype(float)], start).reshape(x.shape)
    close(dtd.explain([record], x, start, rules={0: dtd.ZBox(low, high)}, backend="oracle"), expected, "oracle")


def test_plans_and_accounts_name_the_entries() -> None:
    layers = [
        dtd.Linear(weight(4, 3), axis=2, name="tokens"),
        dtd.ReLU(),
        dtd.Reduce("mean", 1),
        dtd.Resample((weight(2, 2),), inputs=INPUT),
        dtd.Reduce("sum", (1, 2), True),
        dtd.Reshape((1,)),
        dtd.Concat(inputs=(2, 5)),
    ]
    x = normal(RNG, 1, 5, 2)
    with pytest.raises(dtd.ShapeError, match="tokens"):
        dtd.Explainer(layers, backend="cpu").plan_for(x.shape)
    layers[0] = dtd.Linear(weight(4, 2), axis=2, name="tokens")
    assert "neuron" in str(dtd.Explainer(layers, backend="cpu").plan_for(x.shape))
    assert "tokens" in str(dtd.Explainer(layers, backend="cpu").ledger(x, normal(RNG, 1, 5)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rules", ["dtd", "lrp-0", "lrp-epsilon", "epsilon-gamma-box", dtd.WSquare(), dtd.AlphaBeta()])
def test_patches_are_windows(rules: Any, backend: str) -> None:
    """A convolution of patches is seen as one tap; with a row and a column of zeros more it is not, and the same."""
    rng = np.random.default_rng(0)
    weight, bias, x = rng.normal(size=(7, 3, 4, 5)), rng.normal(size=7), rng.uniform(-1, 1, size=(2, 3, 8, 15))
    behind = [dtd.Activation("gelu"), dtd.Flatten(), dtd.Linear(rng.normal(size=(2, 7 * 2 * 3)))]
    wider = np.pad(weight, ((0, 0), (0, 0), (0, 1), (0, 1)))
    patches = [dtd.Conv(weight, bias, stride=(4, 5)), *behind]
    windows = [dtd.Conv(wider, bias, stride=(4, 5), padding=((0, 1), (0, 1))), *behind]
    found, expected = (
        dtd.explain(layers, x, 1, rules=rules, domain=(-1.0, 1.0), backend=backend) for layers in (patches, windows)
    )
    # sums of 60 terms, whose condition is below 2**6, in another order
    np.testing.assert_allclose(found, expected, rtol=0, atol=2.0**12 * np.finfo(found.dtype).eps * abs(expected).max())


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_seen_keeps_its_layout(backend: str) -> None:
    """A piece of a Concat lies in it; not where a product has seen that piece with its axes exchanged."""
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(3, 8)), rng.normal(size=(2, 2, 8))
    layers = [
        dtd.Slice(1, 0, 1, inputs=dtd.INPUT), dtd.Slice(1, 1, 2, inputs=dtd.INPUT), dtd.Concat(1, inputs=(0, 1)),
        dtd.Slice(1, 0, 1, inputs=2), dtd.Linear(weight),
    ]  # fmt: skip
    found = dtd.predict(layers, x, backend=backend)
    # sums of 8 terms whose sizes sum to less than 20
    np.testing.assert_allclose(found, x[:, :1] @ weight.T, rtol=0, atol=20 * 8 * np.finfo(found.dtype).eps)
