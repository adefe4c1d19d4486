"""The relevance of weights: against the explicit matrix and the ledger; the same bits for any batches and threads."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given

import dtdfast as dtd
import explicit
from cases import CASES
from cases.networks import BOXED, small
from dtdfast import parameters
from dtdfast.parameters.found import POSITIONS
from graphs import graphs
from support import LONG, normal, run_page

U = 2.0**-24
STEP = 23  # shares no factor with the number of rules
MATRICES = {dtd.Linear: explicit.linear, dtd.Conv: explicit.conv, dtd.ConvTranspose: explicit.conv_transpose}
GEOMETRY = ("axis", "stride", "padding", "output_padding", "dilation", "groups")

WEIGHTED = [case for case in CASES if len(case.layers) == 1 and type(case.layers[0]) in MATRICES]
CHEAP = [case for case in WEIGHTED if case.taps.matrix.size * case.layers[0].weight.size < 2**24]
SOME = WEIGHTED if LONG else CHEAP[::STEP]


def numbered(case: Any) -> Any:
    """Which weight stands where in the explicit matrix, counted from 1; 0 where none does."""
    (record,) = case.layers
    numbers = np.arange(1.0, record.weight.size + 1).reshape(record.weight.shape)
    options = {key: getattr(record, key) for key in GEOMETRY if hasattr(record, key)}
    return MATRICES[type(record)](case.geometry.x_shape[1:], numbers, None, **options).matrix.astype(int)


def expected(case: Any, tolerance: float) -> tuple[Any, Any]:
    """R_w = Σ_positions n_ij s_j, and the bound on its error: a weight is met once at most by each output."""
    shape, numbers = case.layers[0].weight.shape, numbered(case)
    j, i = np.nonzero(numbers)
    found, bound = np.zeros(shape), np.zeros(shape)
    for sample, r in zip(case.x, case.r_out, strict=True):
        terms = []
        for term in case.terms(sample):
            by_weight = np.zeros((len(numbers), found.size))
            by_weight[j, numbers[j, i] - 1] = term.n[j, i]
            terms.append(term._replace(n=by_weight))
        stabilizer = case.row.rule.stabilizer or 0.0
        more, off = explicit.propagate(terms, r.astype(np.float64).ravel(), stabilizer, tolerance)
        found, bound = found + more.reshape(shape), bound + off.reshape(shape)
    return found, bound


@pytest.mark.parametrize("case", SOME, ids=lambda case: case.id)
def test_explicit(case: Any) -> None:
    """Every rule on every record with weights. A map's tolerance, POSITIONS additions, and 8 roundings of products."""
    for backend, u, more in (("oracle", 2.0**-52, 2 * case.r_out[0].size), ("cpu", U, POSITIONS + 8)):
        exact, bound = expected(case, case.tolerance(u) + more * u)
        explainer = dtd.Explainer(case.layers, **case.options(backend))
        found = parameters.relevance(explainer, case.x, case.r_out)
        assert found[0].shape == case.layers[0].weight.shape
        assert (abs(found[0] - exact) <= bound).all(), backend
        assert np.isfinite(bound).mean() > 0.8
        ledger = explainer.ledger(case.x, case.r_out)
        balance = found.against(ledger)
        assert balance.closed, str(balance)
        if not isinstance(case.row.rule, dtd.AlphaBeta):  # whose shares without terms count as surplus
            biases = sum(bias.sum() for bias in found.biases.values())
            assert abs(biases - ledger.absorbed["bias"].sum()) <= sum(line[-1] for line in balance.lines)


NETWORKS = [
    ("resnet50", "dtd"), ("densenet121", "dtd"), ("mobilenet_v2", "lrp-epsilon"), ("cnn", "epsilon-gamma-box"),
    ("unet", "epsilon-plus-flat"), ("gpt2", "cp-lrp"), ("llama", "attnlrp"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "rules"), NETWORKS)
def test_networks(name: str, rules: str) -> None:
    """What the weights of each layer have together is what the ledger says that it handed on."""
    net = small(name)
    x, options = net.sample(2), {"rules": rules, "domain": net.box if rules in BOXED else "real"}
    explainer = dtd.Explainer(net.layers, backend="cpu", **options)
    found = parameters.relevance(explainer, x, net.target)
    balance = found.against(explainer.ledger(x, net.target))
    assert found
    assert balance.closed, str(balance)


@given(graphs())
def test_random_networks(graph: Any) -> None:
    """The same of every record, rule and geometry."""
    explainer = dtd.Explainer(graph.layers, backend="cpu", **graph.options)
    assume(parameters.records.positions_with_weights(graph.layers))
    balance = parameters.relevance(explainer, graph.x, graph.start).against(explainer.ledger(graph.x, graph.start))
    assert balance.closed, str(balance)


def network(rng: Any) -> list[Any]:
    return [
        dtd.Conv(normal(rng, 20, 3, 3, 3), normal(rng, 20), padding=1, stride=2),
        dtd.ReLU(),
        dtd.Conv(normal(rng, 20, 1, 3, 3), groups=20, padding=2, dilation=2),
        dtd.ReLU(),
        dtd.ConvTranspose(normal(rng, 20, 3, 3, 3), normal(rng, 6), groups=2, stride=2),
        dtd.ReLU(),
        dtd.Flatten(),
        dtd.Linear(normal(rng, 4, 6 * 21 * 17) / 50, normal(rng, 4)),
    ]


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_bits(precision: str, rng: np.random.Generator) -> None:
    """The same for any number of threads, and however samples are divided into batches."""
    layers, x = network(rng), normal(rng, 7, 3, 19, 15)
    seen = []
    for n_threads, sizes in ((1, (7,)), (2, (7,)), (3, (3, 3, 1)), (2, (1,) * 7)):
        explainer = dtd.Explainer(layers, rules="lrp-epsilon", backend="cpu", precision=precision, n_threads=n_threads)
        sums = parameters.Accumulator(explainer)
        for first, size in zip(np.cumsum((0, *sizes)), sizes, strict=False):
            sums.add(x[first : first + size], 1)
        seen.append(sums.result())
    first, *others = seen
    assert first.samples == 7
    for found in others:
        assert found.keys() == first.keys() == {0, 2, 4, 7}
        for position in first:
            np.testing.assert_array_equal(found[position], first[position])
            assert position == 2 or np.array_equal(found.biases[position], first.biases[position])


def test_biases(rng: np.random.Generator) -> None:
    """Of one layer under ε: R_b = b·s, and with the weights all that arrives but what ε absorbs."""
    layer, x = dtd.Linear(normal(rng, 4, 6), normal(rng, 4)), normal(rng, 5, 6)
    start = normal(rng, 5, 4)
    y = x.astype(float) @ layer.weight.T.astype(float) + layer.bias
    s = start / (y + 0.1 * np.where(y < 0, -1, 1))
    for backend in ("oracle", "cpu"):
        explainer = dtd.Explainer([layer], rules=dtd.Epsilon(stabilizer=0.1), backend=backend)
        found = parameters.relevance(explainer, x, start)
        np.testing.assert_allclose(found.biases[0], layer.bias * s.sum(axis=0), rtol=1e-4)
        np.testing.assert_allclose(found[0], layer.weight * (s.T @ x), rtol=1e-4, atol=1e-4)
    assert not parameters.relevance(dtd.Explainer([layer], rules=dtd.Epsilon(bias="none")), x, start).biases


def test_affines_that_are_neurons(rng: np.random.Generator) -> None:
    """Relevance of each scale, added up along the axes that it is repeated along."""
    x = rng.uniform(1, 2, (3, 4, 5)).astype(np.float32)
    linear = [dtd.ReLU(), dtd.Flatten(), dtd.Linear(np.abs(normal(rng, 1, 20)))]
    norm = dtd.BatchNorm(*(rng.uniform(1, 2, 4).astype(np.float32) for _ in range(4)))
    scales = [dtd.Scale(np.array([1.0, 2.0, 3.0, 4.0])), dtd.Scale(np.full((4, 1), 2.0)), dtd.Scale(np.ones((1, 5)))]
    for record in (norm, *scales):
        explainer = dtd.Explainer([record, *linear], rules=dtd.Epsilon(), backend="cpu")
        found = parameters.relevance(explainer, x, 0)
        assert found.against(explainer.ledger(x, 0)).closed
        by_element = explainer.explain(x, 0).sum(axis=0, dtype=float)  # each element has one weight
        shape = (4,) if record is norm else record.scale.shape
        expected = by_element.sum(axis=0 if shape[0] == 1 else 1).reshape(shape)
        np.testing.assert_allclose(found[0], expected, rtol=1e-5)


def test_what_is_folded_is_named(rng: np.random.Generator) -> None:
    layers = [
        dtd.Conv(normal(rng, 5, 3, 3, 3)),
        dtd.BatchNorm(*(rng.uniform(0.5, 1.5, 5).astype(np.float32) for _ in range(4))),
        dtd.ReLU(),
        dtd.GlobalAvgPool(),
        dtd.Flatten(),
        dtd.Linear(normal(rng, 2, 5)),
    ]
    explainer = dtd.Explainer(layers, backend="cpu")
    found = parameters.relevance(explainer, normal(rng, 2, 3, 6, 6), 0, positions=[0, 1])
    assert list(found) == [0]
    assert found.left_out[1] == "folded into 0"
    assert "BatchNorm" not in str(found)


def test_a_folded_layer_has_the_relevance_of_its_folded_weights(rng: np.random.Generator) -> None:
    conv, x = dtd.Conv(normal(rng, 5, 3, 3, 3), normal(rng, 5)), normal(rng, 2, 3, 6, 6)
    mean, variance, weight, bias = (rng.uniform(0.5, 1.5, 5) for _ in range(4))
    scale = weight / np.sqrt(variance + 1e-5)
    folded = dtd.Conv(conv.weight * scale.reshape(-1, 1, 1, 1), (conv.bias - mean) * scale + bias)
    start = normal(rng, 2, 5, 4, 4)
    for rules in ("lrp-epsilon", "dtd", dtd.Gamma()):
        options: dict[str, Any] = {"rules": rules, "backend": "oracle"}
        by_hand = parameters.relevance(dtd.Explainer([folded], **options), x, start)
        norm = dtd.BatchNorm(mean, variance, weight, bias)
        found = parameters.relevance(dtd.Explainer([conv, norm], **options), x, start)
        np.testing.assert_allclose(found[0], by_hand[0], rtol=1e-4, atol=1e-5)


def test_between_two_entries(rng: np.random.Generator) -> None:
    """Layers above `start` or below `stop` play no part, and an operand that leads around `stop` counts."""
    layers = [
        dtd.Linear(normal(rng, 6, 6)),
        dtd.ReLU(),
        dtd.Linear(normal(rng, 6, 6)),
        dtd.Linear(normal(rng, 6, 6), inputs=(0,)),
        dtd.Add(inputs=(2, 3)),
        dtd.Linear(normal(rng, 3, 6)),
    ]
    x = normal(rng, 4, 6)
    explainer = dtd.Explainer(layers, backend="cpu", start=4, stop=1)
    found = parameters.relevance(explainer, x, 2)
    assert list(found) == [2, 3]
    assert found.left_out == {0: "plays no part in what is explained", 5: "plays no part in what is explained"}
    balance = found.against(explainer.ledger(x, 2))
    assert balance.closed, str(balance)


@pytest.mark.parametrize("convention", ["zennit", "captum", "innvestigate"])
def test_conventions(convention: str, rng: np.random.Generator) -> None:
    layers, x = network(rng), normal(rng, 3, 3, 19, 15)
    explainer = dtd.Explainer(layers, convention=convention, rules=dtd.Epsilon(), backend="cpu")
    exact = dtd.Explainer(layers, convention=convention, rules=dtd.Epsilon(), backend="oracle")
    found, expected = (parameters.relevance(e, x, 1) for e in (explainer, exact))
    for position in found:
        assert abs(found[position] - expected[position]).max() <= 1e-4 * abs(expected[position]).max()


def test_channels_and_heads(rng: np.random.Generator) -> None:
    layers, x = [dtd.Linear(normal(rng, 12, 6)), dtd.ReLU(), dtd.Linear(normal(rng, 3, 12))], normal(rng, 4, 6)
    explainer = dtd.Explainer(layers, backend="cpu")
    weights = parameters.relevance(explainer, x)
    channels = parameters.relevance(explainer, x, per="channel")
    heads = parameters.relevance(explainer, x, per="head", heads={0: 4})
    np.testing.assert_allclose(channels[0], weights[0].sum(axis=1))
    np.testing.assert_allclose(heads[0], channels[0].reshape(4, 3).sum(axis=1))
    assert list(heads) == [0]


def test_prune(rng: np.random.Generator) -> None:
    layers = [
        dtd.Linear(normal(rng, 4, 6), normal(rng, 4)),
        dtd.ReLU(),
        dtd.ConvTranspose(normal(rng, 4, 3, 1), groups=2),
    ]
    scores = {0: np.arange(24.0).reshape(4, 6), 2: 100 + np.arange(12.0).reshape(4, 3, 1)}
    pruned = parameters.prune(layers, scores, 0.5)
    assert np.count_nonzero(pruned[0].weight) == 6
    np.testing.assert_array_equal(pruned[2].weight, layers[2].weight)
    assert pruned[1] is layers[1]
    channels = parameters.prune(layers, {0: [3, 1, 2, 4], 2: [5, 6, 7, 8, 0, 9]}, 0.2)
    np.testing.assert_array_equal(np.flatnonzero(channels[0].bias == 0), [1])
    np.testing.assert_array_equal(np.argwhere(channels[2].weight == 0)[:, :2], [[2, 1], [3, 1]])


def test_refused(rng: np.random.Generator) -> None:
    layers, x = [dtd.Linear(normal(rng, 4, 6)), dtd.ReLU()], normal(rng, 2, 6)
    explainer = dtd.Explainer(layers, backend="cpu")
    relevance = parameters.relevance
    for error, message, call in (
        (dtd.LayerError, r"layer 1 \(ReLU\) has no relevance", lambda: relevance(explainer, x, positions=[1])),
        (dtd.LayerError, "positions names entry 7, but", lambda: relevance(explainer, x, positions=[7])),
        (dtd.LayerError, "positions is empty", lambda: relevance(explainer, x, positions=[])),
        (dtd.TargetError, "one target per sample", lambda: relevance(explainer, x, [[0, 1], [1, 0]])),
        (dtd.InputError, "per is 'layer'", lambda: relevance(explainer, x, per="layer")),
        (dtd.LayerError, "per='head' needs heads", lambda: relevance(explainer, x, per="head")),
        (dtd.LayerError, "divisor of its 4", lambda: relevance(explainer, x, per="head", heads={0: 3})),
        (dtd.LayerError, "heads is for per='head'", lambda: relevance(explainer, x, heads={0: 2})),
        (dtd.InputError, "no samples", lambda: parameters.Accumulator(explainer).result()),
        (dtd.RuleError, "gradient", lambda: relevance(dtd.Explainer(layers, kind="gradient"), x)),
        (dtd.LayerError, "has no Linear", lambda: relevance(dtd.Explainer([dtd.ReLU()]), x)),
        (dtd.InputError, "of 1 samples", lambda: relevance(explainer, x).against(explainer.ledger(x[:1]))),
        (dtd.LayerError, "fraction is 2", lambda: parameters.prune(layers, {0: np.ones((4, 6))}, 2)),
        (dtd.LayerError, r"layer 1 \(ReLU\) has no weights", lambda: parameters.prune(layers, {1: [1]}, 0.5)),
        (dtd.ShapeError, r"expected \(4, 6\), or \(4,\)", lambda: parameters.prune(layers, {0: [1, 2]}, 0.5)),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            call()


def test_results_can_be_pickled_and_what_makes_them_says_that_it_cannot() -> None:
    whole = parameters.Accumulator(dtd.Explainer([dtd.Linear(np.ones((2, 3)))]))
    whole.add(np.ones((1, 3)))
    assert pickle.loads(pickle.dumps(whole.result()))[0].tolist() == whole.result()[0].tolist()
    with pytest.raises(dtd.InputError, match="an Accumulator stays in its process"):
        pickle.dumps(whole)


def test_page() -> None:
    names = run_page("parameters.md")
    assert set(names["shares"]) == {"relevance", "magnitude", "random"}


def test_float64_has_the_bits_of_any_batches(rng: np.random.Generator) -> None:
    """Products of float64 are rounded with their sum or before it, and all of a sum alike."""
    for outputs in (1, 2, 5, 9):
        layers = [dtd.Linear(rng.standard_normal((outputs, 1)))]
        explainer = dtd.Explainer(layers, backend="cpu", precision="float64", rules="lrp-epsilon")
        x, start = rng.standard_normal((11, 1)), rng.standard_normal((11, outputs))
        whole, parts = parameters.relevance(explainer, x, start), parameters.Accumulator(explainer)
        for piece in (slice(3), slice(3, 4), slice(4, 11)):
            parts.add(x[piece], start[piece])
        np.testing.assert_array_equal(parts.result()[0], whole[0])


def test_entries_that_no_relevance_reaches_are_not_the_sharpest() -> None:
    """Weights of 0 relevance have no half of it."""
    layers = [dtd.Linear(np.zeros((2, 3)), np.ones(2)), dtd.ReLU(), dtd.Linear([[1.0, 2.0]])]
    found = parameters.relevance(dtd.Explainer(layers, rules="lrp-0"), np.ones((1, 3)))
    assert "of the weights of entry 2 have half" in found.reading
    nothing = parameters.relevance(dtd.Explainer(layers[:1], rules="lrp-0"), np.zeros((2, 3)))
    assert nothing.reading == "No relevance of 2 samples meets these weights."
    assert {row[4] for row in nothing.rows()} == {"-"}
