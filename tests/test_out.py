"""`out` that shares memory with what is read, or with itself; and results that are all 0 because float32 ends there."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import dtdfast as dtd
from dtdfast.arrays.checks import overlaps_itself

DOMAINS = ["real", "nonnegative", (-1, 1)]


@pytest.fixture(scope="module")
def network() -> list[dtd.Layer]:
    rng = np.random.default_rng(0)
    return [dtd.Linear(rng.standard_normal((6, 5))), dtd.ReLU(), dtd.Linear(rng.standard_normal((5, 6)))]


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).random((4, 5), np.float32)


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
@pytest.mark.parametrize("batch_size", [None, 1])
def test_out_may_share_memory_with_x(
    network: list[dtd.Layer], x: np.ndarray, domain: object, batch_size: int | None
) -> None:
    explainer = dtd.Explainer(network, domain=domain, backend="cpu", batch_size=batch_size)
    expected = explainer.explain(x)
    same = x.copy()
    assert explainer.explain(same, out=same) is same
    np.testing.assert_array_equal(same, expected)
    shifted = np.concatenate([x, x[:1]])
    explainer.explain(shifted[:4], out=shifted[1:])
    np.testing.assert_array_equal(shifted[1:], expected)
    flipped = x.copy()
    explainer.explain(flipped[::-1], out=flipped)
    np.testing.assert_array_equal(flipped, expected[::-1])
    wide = np.zeros((4, 10), np.float32)
    wide[:, ::2] = x
    explainer.explain(wide[:, ::2], out=wide[:, ::2])
    np.testing.assert_array_equal(wide[:, ::2], expected)


def test_out_may_share_memory_with_what_comes_beside_x(network: list[dtd.Layer], x: np.ndarray) -> None:
    rows = np.random.default_rng(3).standard_normal((4, 5)).astype(np.float32)
    layers = [dtd.Given(name="rows", shape=(5,)), dtd.Add(inputs=(dtd.INPUT, 0)), dtd.ReLU(), *network]
    expected = dtd.explain(layers, x, batch_size=1, rows=rows)
    shared = np.concatenate([rows, rows[:1]])
    dtd.explain(layers, x, batch_size=1, rows=shared[:4], out=shared[1:])
    np.testing.assert_array_equal(shared[1:], expected)


def test_out_may_share_memory_with_the_start_and_the_domain(network: list[dtd.Layer], x: np.ndarray) -> None:
    start = np.random.default_rng(2).random((4, 5), np.float32)
    expected = dtd.explain(network, x, start, batch_size=1)
    shared = np.concatenate([start, start[:1]])
    dtd.explain(network, x, shared[:4], batch_size=1, out=shared[1:])
    np.testing.assert_array_equal(shared[1:], expected)
    low = -np.ones(5)
    explainer = dtd.Explainer(network, domain=(low, np.ones(5)), precision="float64", backend="cpu")
    expected = explainer.explain(x)
    low[:] = -9
    np.testing.assert_array_equal(explainer.explain(x), expected)
    np.testing.assert_array_equal(explainer.explain(x[:2]), expected[:2])


@pytest.mark.parametrize(
    "out",
    [
        np.broadcast_to(np.zeros(5, np.float32), (4, 5)),
        as_strided(np.zeros(5, np.float32), (4, 5), (0, 4)),
        as_strided(np.zeros(20, np.float32), (4, 5), (4, 4)),
        as_strided(np.zeros(20, np.float32), (4, 5), (12, 4)),
        np.ma.zeros((4, 5), np.float32),
        np.zeros((4, 5), ">f4"),
        np.zeros((4, 5), np.float16),
        np.zeros((4, 5)),
        np.zeros((5, 4), np.float32),
        [[0.0] * 5] * 4,
    ],
    ids=[
        "read-only",
        "stride 0",
        "overlapping",
        "partly overlapping",
        "masked",
        "byte-swapped",
        "float16",
        "float64",
        "shape",
        "list",
    ],
)
def test_an_out_that_cannot_take_the_result_is_refused(network: list[dtd.Layer], x: np.ndarray, out: object) -> None:
    with pytest.raises(dtd.ShapeError, match="out "):
        dtd.explain(network, x, out=out)


def test_views_with_memory_for_each_element_are_taken(network: list[dtd.Layer], x: np.ndarray) -> None:
    expected = dtd.explain(network, x)
    for out in (
        np.zeros((5, 4), np.float32).T,
        np.zeros((8, 7), np.float32)[::-2, 1:6],
        np.zeros((4, 5, 2), np.float32)[..., 1],
    ):
        assert not overlaps_itself(out)
        assert dtd.explain(network, x, out=out) is out
        np.testing.assert_array_equal(out, expected)
    out = np.zeros(5, np.float32)[None]  # whose first step is 0
    assert dtd.explain(network, x[:1], out=out) is out
    np.testing.assert_array_equal(out, expected[:1])


# ----------------------------------------------------------------------------------------------------------- underflow


def weighted(*factors: float) -> list[dtd.Layer]:
    return [dtd.Linear(np.full((1, 2 if i == 0 else 1), factor)) for i, factor in enumerate(factors)]


@pytest.mark.parametrize("rules", ["dtd", "lrp-0", "epsilon-plus"])
def test_underflow_to_nothing_is_told(rules: str) -> None:
    x = np.array([[0.5, 1], [0, 0]], np.float32)
    with pytest.raises(dtd.NumericsError, match=r"relevance of sample 0 underflowed float32.*float64"):
        dtd.explain(weighted(1e-30, 1e-30), x, rules=rules, backend="cpu")
    with pytest.raises(dtd.NumericsError, match=r"output of sample 0 underflowed float32"):
        dtd.predict(weighted(1e-30, 1e-30), x, backend="cpu")
    assert dtd.explain(weighted(1e-30, 1e-30), x, rules=rules, backend="cpu", precision="float64")[0].any()


def test_what_float32_can_hold_is_computed_where_its_steps_cannot() -> None:
    x = np.array([[0.5, 1], [2, 1]], np.float32)  # w² is 1e-50
    relevance, outputs = dtd.explain(weighted(1e-25, 1e25), x, np.array([[0, 0]]), backend="cpu", return_outputs=True)
    expected = dtd.explain(weighted(1e-25, 1e25), x, np.array([[0, 0]]), backend="oracle")
    # outputs are float32's, relevance float64's rounded: of two roundings of 24 bits each
    np.testing.assert_allclose(relevance, expected, rtol=2**-22)
    np.testing.assert_allclose(relevance[:, 0].sum(axis=1), outputs[:, 0], rtol=2**-22)


def test_what_is_nothing_in_truth_stays_nothing(x: np.ndarray) -> None:
    dead = [dtd.Linear(-np.ones((3, 5))), dtd.ReLU(), dtd.Linear(np.ones((2, 3)))]
    assert not dtd.explain(dead, x, backend="cpu").any()
    assert not dtd.predict(dead, x, backend="cpu").any()
    assert not dtd.explain(dead, np.zeros_like(x), np.zeros((4, 2, 2), np.float32), backend="cpu").any()


def test_an_output_that_is_0_beside_others_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.array([[0.5, 1], [2, 1]], np.float32)
    explainer = dtd.Explainer([dtd.Linear(np.array([[-1.0, -1], [1, 2]])), dtd.ReLU()], backend="cpu")
    monkeypatch.setattr(explainer._exact, "explain", lambda *a: pytest.fail("computed again"))
    relevance = explainer.explain(x, np.array([[0, 1]]))
    assert not relevance[:, 0].any()
    assert relevance[:, 1].all()
