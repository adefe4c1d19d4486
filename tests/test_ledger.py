"""The ledger beside the map: the same bits in one pass, and the oracle's sums cause by cause."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast.errors import InputError, RuleError, TargetError
from dtdfast.plan.units import neuron_account
from nets import SMALL
from support import classifier, normal

RULES = ("dtd", "lrp-epsilon", dtd.Gamma(0.25), "epsilon-alpha2-beta1", "attnlrp", "excitation-backprop")
LONG = bool(os.environ.get("DTDFAST_LONG"))
# those whose products of gates, phases, copies, joined affines, shares and hand-overs differ
FEW = {"cnn": "epsilon-alpha2-beta1", "squeezenet": "dtd", "resnext": "lrp-epsilon", "mobilenet_v2": "dtd",
       "unet": dtd.Gamma(0.25), "vit": "lrp-epsilon", "bert": "attnlrp"}  # fmt: skip
NETWORKS = list(FEW.items()) if not LONG else [(name, rules) for name in SMALL for rules in RULES]


def same(a: Any, b: Any) -> bool:
    return bool(a.tobytes() == b.tobytes())


def rows_of(ledger: Any, samples: slice = slice(None)) -> list[Any]:
    return [(r.entries, *(v[samples].tobytes() for v in (r.came, r.went, r.bound, r.residual))) for r in ledger.rows]


@pytest.mark.parametrize(("name", "rules"), NETWORKS, ids=str)
def test_it_changes_no_bit_of_the_map(name: str, rules: Any) -> None:
    """Nor of itself, for any number of threads, and for a sample alone."""
    net = SMALL[name]()
    x, target = net.sample(3), net.target
    explainer = dtd.Explainer(net.layers, rules=rules, n_threads=2)
    relevance, outputs = explainer.explain(x, target, return_outputs=True)
    beside = explainer.explain(x, target, return_outputs=True, return_ledger=True)
    assert same(beside[0], relevance)
    assert same(beside[1], outputs)
    assert beside[2].closed, str(beside[2])
    one = dtd.Explainer(net.layers, rules=rules, n_threads=1, batch_size=1).ledger(x, target)
    assert rows_of(one) == rows_of(beside[2])


def test_its_sums_are_those_of_the_oracle(rng: Any) -> None:
    """Row by row and cause by cause: within the bounds of both, as each is the true sum within its bound."""
    for name, rules in (("cnn", "epsilon-plus"), ("digits_mlp", dtd.AlphaBeta(bias="by_sign", stabilizer=0.1)),
                        ("bert", "attnlrp"), ("shufflenet", "dtd"), ("unet", dtd.Gamma(0.25))):  # fmt: skip
        net = SMALL[name]()
        x = net.sample(2)
        ours, exact = (
            dtd.Explainer(net.layers, rules=rules, backend=b).ledger(x, net.target) for b in ("cpu", "oracle")
        )
        for ledger in (ours, exact):  # constants stand where their steps would
            ledger.rows.sort(key=lambda r: (-max(r.entries), r.rule))
        assert [(r.entries, r.rule) for r in ours.rows] == [(r.entries, r.rule) for r in exact.rows]
        spread = np.zeros(len(x))  # what rounding may have moved, down to this row
        for a, b in zip(ours.rows, exact.rows, strict=True):
            spread += a.bound + 2.0**-24 * abs(b.came)
            causes = a.absorbed.keys() | b.absorbed.keys()
            for cause in causes:
                nothing = np.zeros(len(x))
                apart = abs(a.absorbed.get(cause, nothing) - b.absorbed.get(cause, nothing))
                assert (apart <= 4 * spread).all(), (name, a.title, cause, apart, spread)


@pytest.mark.parametrize("name", ["cnn", "resnext", "densenet121", "unet", "vit"])
def test_lengths_bound_products(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths of blocks in the place of Σ |x w|: no smaller bounds, nor much larger (√16 where one x is not 0)."""
    net = SMALL[name]()
    wide, narrow = [], []
    for found, few in ((wide, neuron_account.FEW), (narrow, 10**9)):
        monkeypatch.setattr(neuron_account, "FEW", few)
        ledger = dtd.Explainer(net.layers, rules="lrp-epsilon", backend="cpu").ledger(net.sample(2), net.target)
        assert ledger.closed
        found += [row.bound for row in ledger.rows]
    ratios = np.array(wide) / np.array(narrow)
    assert ratios.min() >= 1.0 - 2.0**-16  # both are rounded
    assert 1.2 < ratios.max() < 5.0
    assert np.sum(wide) < 3.0 * np.sum(narrow)


@pytest.mark.parametrize("name", FEW)
def test_its_bound_would_show_a_fault(name: str) -> None:
    """Where nothing cancels, as under "dtd", it is some hundred units of 2⁻²⁴: the roundings of sums, and no more."""
    net = SMALL[name]()
    for row in dtd.Explainer(net.layers, backend="cpu").ledger(net.sample(2), net.target).rows:
        assert (row.bound <= 2.0**-12 * abs(row.came)).all(), row.title


def test_it_says_the_same_alone(rng: Any) -> None:
    layers, x = classifier(rng), normal(rng, 3, 3, 6, 6)
    explainer = dtd.Explainer(layers)
    relevance, ledger = dtd.explain(layers, x, 1, return_ledger=True)
    alone = explainer.ledger(x, 1)
    assert str(ledger) == str(alone)
    assert rows_of(ledger) == rows_of(alone)
    np.testing.assert_array_equal(ledger.end, [r.sum(dtype=np.float64) for r in relevance.reshape(3, -1)])


def test_it_shares_the_memory_of_the_plan(rng: Any) -> None:
    """Buffers are reused; what sums read beside that is of a few layers at a time."""
    from dtdfast.plan.lower import lower

    net = SMALL["vgg16"]()
    program = dtd.Explainer(net.layers, backend="oracle")._executor(net.sample(1).shape[1:], "explain").program
    plain, followed = (lower(program, 4, 1, ledger=ledger) for ledger in (False, True))
    assert followed.arena <= 2.5 * plain.arena
    operations = [step.op for step in followed.forward]
    assert operations == [step.op for step in plain.forward]


def test_what_has_no_ledger_is_refused(rng: Any) -> None:
    layers, x = classifier(rng), normal(rng, 2, 3, 6, 6)
    with pytest.raises(TargetError, match="one target per sample"):
        dtd.explain(layers, x, [[0, 1]], return_ledger=True)
    with pytest.raises(RuleError, match="no ledger"):
        dtd.Explainer(layers, kind="gradient").explain(x, 0, return_ledger=True)
    array = pytest.importorskip("dask.array")
    with pytest.raises(InputError, match="return_ledger"):
        dtd.explain(layers, array.from_array(x), return_ledger=True)


def test_a_ledger_computes_dask_arrays(rng: Any) -> None:
    array = pytest.importorskip("dask.array")
    explainer, x, target = dtd.Explainer(classifier(rng), backend="cpu"), normal(rng, 3, 3, 6, 6), np.array([2, 0, 1])
    for given in (target, array.from_array(target, 2)):
        assert rows_of(explainer.ledger(array.from_array(x, 2), given)) == rows_of(explainer.ledger(x, target))


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", ["lenet5", "squeeze_excite", "unet", "vit", "talking_heads"])
def test_it_closes_whatever_the_size_of_inputs(name: str, precision: str) -> None:
    """Large scores leave a softmax little but one 1, small inputs little but biases; some relevance underflows."""
    net = SMALL[name]()
    explainer = dtd.Explainer(net.layers, rules="attnlrp", backend="cpu", precision=precision)
    for scale in (1e-3, 30.0):
        ledger = explainer.ledger((scale * net.sample(2)).astype(np.float32), net.target)
        assert ledger.closed, str(ledger)


@pytest.mark.parametrize("backend", ["cpu", "oracle"])
@pytest.mark.parametrize("above", [[], [dtd.ReLU()], [dtd.Flatten(), dtd.Linear(np.ones((2, 9), np.float32))]], ids=str)
@pytest.mark.parametrize("stop", [None, 0])
def test_a_product_that_is_0(backend: Any, above: list[dtd.Layer], stop: int | None) -> None:
    """Of queries and keys of a token that is 0 in every element: its outputs cannot hand on what comes to them."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    x[:, 1] = 0
    queries, keys = (dtd.Linear(rng.standard_normal((4, 4)).astype(np.float32), inputs=(dtd.INPUT,)) for _ in range(2))
    layers = [queries, keys, dtd.MatMul(inputs=(0, 1), transpose_b=True), *above]
    start = rng.standard_normal(dtd.predict(layers, x).shape).astype(np.float32)
    asked = {} if stop is None else {"stop": stop}
    _, ledger = dtd.explain(layers, x, start, rules="attnlrp", backend=backend, return_ledger=True, **asked)
    assert ledger.closed
    if not above:
        lost = start[:, 1].sum(axis=1) + start[:, [0, 2], 1].sum(axis=1)
        np.testing.assert_allclose(ledger.absorbed["zero denominator"], lost, rtol=1e-6)


def test_float64_as_far_as_captum_needs_it(rng: Any) -> None:
    """Terms of a layer behind that are float32 already: read as float64 they were numbers of somebody else."""
    weights = [rng.standard_normal(shape).astype(np.float32) for shape in ((1, 1), (1, 1), (21, 5, 1))]
    gate, signal, last = weights
    layers = [
        dtd.ReLU(), dtd.Linear(signal), dtd.Linear(gate, inputs=(0,)), dtd.Activation("gelu"), dtd.Mul(inputs=(1, 3)),
        dtd.ReLU(), dtd.Conv(last, rng.standard_normal(21).astype(np.float32)),
    ]  # fmt: skip
    x = np.abs(rng.standard_normal((3, 5, 1))).astype(np.float32)
    start = rng.standard_normal(dtd.predict(layers, x).shape).astype(np.float32)
    asked: dict[str, Any] = dict(rules="epsilon-alpha2-beta1-flat", convention="captum")
    ledgers = [dtd.explain(layers, x, start, backend=b, return_ledger=True, **asked)[1] for b in ("cpu", "oracle")]
    assert all(ledger.closed for ledger in ledgers)
    found, expected = (ledger.absorbed["surplus"] for ledger in ledgers)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("backend", ["cpu", "oracle"])
def test_more_than_came_is_lost_and_given_back(backend: Any, rng: Any) -> None:
    """α R and β R of neurons without terms: their sums round, too, and by more than R does."""
    layers = [dtd.ReLU(), dtd.Linear(rng.standard_normal((300, 5)))]
    x, rule = np.zeros((40, 5)), dtd.AlphaBeta(1000.0, 999.0, fallback=False)
    _, ledger = dtd.explain(
        layers, x, rng.standard_normal((40, 300)), rules=rule, backend=backend, precision="float64", return_ledger=True
    )
    assert ledger.closed
    assert (np.abs(ledger.absorbed["zero denominator"]) > 100).all()


def test_steps_are_the_rows_that_share_or_absorb(rng: np.random.Generator) -> None:
    layers, x = [dtd.Linear(rng.standard_normal((3, 4))), dtd.Flatten(), dtd.ReLU()], rng.random((2, 2, 4))
    ledger = dtd.Explainer(layers, rules="lrp-epsilon", backend="oracle").ledger(x, (0,))
    assert "pass" in {row.rule for row in ledger.rows}
    assert [row.rule for row in ledger.steps()] == ["Epsilon"]
