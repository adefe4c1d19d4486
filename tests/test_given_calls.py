"""Masks, position numbers and type numbers beside the input: ways to call, targets at tokens, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast import concepts
from nets.masked import GIVEN, IDS, REAL, TOKENS, encoder

BOTH = pytest.mark.parametrize("backend", ["oracle", "cpu"])


def test_blocks_targets_threads_and_copies_of_an_explainer(tmp_path):
    net = encoder("added")
    explainer = dtd.Explainer(net.layers, backend="cpu")
    maps = explainer.explain(IDS, [[0, 1, 2]], **GIVEN)
    for k in range(3):
        np.testing.assert_array_equal(explainer.explain(IDS, k, **GIVEN), maps[:, k])
    for options in ({"batch_size": 1}, {"batch_size": 3, "n_threads": 2}, {"n_threads": 4}):
        np.testing.assert_array_equal(
            dtd.explain(net.layers, IDS, [[0, 1, 2]], backend="cpu", **options, **GIVEN), maps
        )
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(explainer)).explain(IDS, [[0, 1, 2]], **GIVEN), maps)
    for i in range(4):
        alone = {name: values[[i]] for name, values in GIVEN.items()}
        np.testing.assert_array_equal(explainer.explain(IDS[[i]], [[0, 1, 2]], **alone), maps[[i]])
    assert explainer.profile(IDS, **GIVEN).seconds > 0
    dtd.save(net.layers, tmp_path / "net")
    loaded = dtd.load(tmp_path / "net")
    np.testing.assert_array_equal(dtd.explain(loaded, IDS, [[0, 1, 2]], backend="cpu", **GIVEN), maps)


def test_pieces_of_a_batch():
    """Pieces of a batch that threads take side by side have their own rows."""
    net = encoder("added")
    many = {name: np.tile(values, (16, 1)) for name, values in GIVEN.items()}
    ids = np.tile(IDS, (16, 1))
    maps = dtd.explain(net.layers, ids, 0, backend="cpu", n_threads=4, **many)
    plan = dtd.Explainer(net.layers, backend="cpu", n_threads=4).plan_for(ids.shape)
    assert plan.pieces > 1
    np.testing.assert_array_equal(maps, np.tile(dtd.explain(net.layers, IDS, 0, backend="cpu", **GIVEN), (16, 1)))


def test_kinds_of_arrays():
    net = encoder("added")
    expected = dtd.explain(net.layers, IDS, 0, backend="cpu", **GIVEN)
    for mask in (REAL.astype(bool), REAL.astype(np.uint8), REAL.astype(np.float64), REAL.tolist(), REAL.T.copy().T):
        given = GIVEN | {"attention_mask": mask}
        np.testing.assert_array_equal(dtd.explain(net.layers, IDS, 0, backend="cpu", **given), expected)


def test_baselines():
    """The derivative of word vectors, by differences of the outputs."""
    net = encoder("boolean")
    got = dtd.baselines.gradient(net.layers, IDS, 1, backend="oracle", stop=1, **GIVEN)
    assert got.shape == (4, TOKENS, 8)
    assert not got[REAL == 0].any()
    r = dtd.baselines.input_x_gradient(net.layers, IDS, 1, backend="oracle", **GIVEN)
    np.testing.assert_allclose(r, (net.layers[1].weight[IDS] * got).sum(axis=-1), rtol=1e-12)
    h = 1e-6
    outputs = []
    for sign in (1, -1):
        weight = np.asarray(net.layers[1].weight, np.float64).copy()
        weight[:, 0] += sign * h
        layers = [*net.layers[:1], dtd.Embedding(weight, inputs=dtd.INPUT), *net.layers[2:]]
        outputs.append(dtd.predict(layers, IDS, backend="oracle", **GIVEN)[:, 1])
    np.testing.assert_allclose(got[..., 0].sum(axis=1), (outputs[0] - outputs[1]) / (2 * h), rtol=0, atol=1e-7)


# ------------------------------------------------------------------------------------------------------------- refusals


def explained(**changes: Any) -> Callable[[], Any]:
    given = {name: value for name, value in (GIVEN | changes).items() if value is not None}
    return lambda: dtd.explain(encoder("added").layers, IDS, 0, backend="cpu", **given)


def wired(*layers: dtd.Layer, **given: Any) -> Callable[[], Any]:
    return lambda: dtd.explain(list(layers), np.ones((2, 3), np.float32), 0, backend="cpu", **given)


MASK = dtd.Given("mask", (3,))
REFUSED = {
    "missing": (explained(attention_mask=None), dtd.InputError, ["attention_mask=", "missing", "(n, 6)"]),
    "unknown": (explained(mask=REAL), dtd.InputError, ["mask=", "attention_mask=, position_ids="]),
    "unknown, and none there": (wired(dtd.ReLU(), rule="dtd"), dtd.InputError, ["rule=", "x alone"]),
    "shape": (explained(attention_mask=REAL[:, 1:]), dtd.ShapeError, ["attention_mask", "(4, 5)", "(4, 6)"]),
    "samples": (explained(attention_mask=REAL[:1]), dtd.ShapeError, ["attention_mask", "(1, 6)", "4 samples"]),
    "text": (explained(attention_mask=REAL.astype(str)), dtd.InputError, ["attention_mask", "<U21"]),
    "NaN": (explained(attention_mask=REAL * np.nan), dtd.InputError, ["attention_mask", "NaN"]),
    "beyond float32": (explained(attention_mask=REAL * 1e39), dtd.InputError, ["attention_mask", "float32"]),
    "masked array": (explained(attention_mask=np.ma.array(REAL)), dtd.InputError, ["attention_mask is a masked array"]),
    "fractions": (explained(position_ids=REAL * 1.0), dtd.InputError, ["position_ids", "float64", "integers"]),
    "beyond the table": (explained(position_ids=REAL * 6), dtd.InputError, ["position_ids", "0 to 6", "0 to 5"]),
    "negative": (explained(token_type_ids=-REAL), dtd.InputError, ["token_type_ids", "-1 to 0"]),
    "integers into an Add": (
        wired(dtd.Given("mask", (3,), integer=True), dtd.Add(inputs=(dtd.INPUT, 0)), mask=np.ones((2, 3), int)),
        dtd.LayerError, ["layer 1 (Add)", "layer 0 (Given 'mask')", "Embedding only"],
    ),
    "an Embedding of numbers": (
        wired(MASK, dtd.Embedding(np.ones((2, 3))), mask=np.ones((2, 3))), dtd.LayerError,
        ["layer 1 (Embedding)", "Given of integers"],
    ),
    "a mask of the input": (
        wired(dtd.ReLU(), dtd.Softmax(1, inputs=(dtd.INPUT, 0)), dtd.Linear(np.ones((1, 3)))), dtd.LayerError,
        ["layer 1 (Softmax)", "computed from the network's input"],
    ),
    "a mask of other numbers, compared": (
        wired(dtd.Given("mask", (3,), mask=True), dtd.Mul(inputs=(dtd.INPUT, 0)), mask=np.full((2, 3), 2)),
        dtd.InputError, ["mask holds 2", "layer 0 (Given 'mask')", "expected 1"],
    ),
    "a mask of another size": (
        wired(dtd.Given("mask", (2,)), dtd.Softmax(1, inputs=(dtd.INPUT, 0)), dtd.Linear(np.ones((1, 3))),
              mask=np.ones((2, 2))),
        dtd.ShapeError, ["layer 1 (Softmax)", "mask has shape (2,)", "(n, 3)"],
    ),
    "a logarithm": (lambda: dtd.Softmax(1, log=True, inputs=(0, 1)), dtd.LayerError, ["Softmax", "logarithm"]),
    "three operands": (lambda: dtd.Softmax(1, inputs=(0, 1, 2)), dtd.WiringError, ["3 entries", "1 or 2"]),
    "two of one name": (wired(MASK, MASK, dtd.ReLU(inputs=dtd.INPUT)), dtd.LayerError, ["layer 1", "same name"]),
    "the name of an option": (
        wired(dtd.Given("rules", (3,)), dtd.ReLU(inputs=dtd.INPUT)), dtd.LayerError, ["'rules'", "option"],
    ),
    "no keyword": (lambda: dtd.Given("attention mask", (3,)), dtd.LayerError, ["'attention mask'", "keyword"]),
    "reads": (lambda: dtd.Given("mask", (3,), inputs=0), dtd.WiringError, ["Given", "reads nothing"]),
    "no size": (lambda: dtd.Given("mask", (0, 3)), dtd.LayerError, ["Given", "(0, 3)"]),
    "nothing else": (wired(MASK, dtd.Linear(np.ones((1, 3))), mask=np.ones((2, 3))), dtd.LayerError, ["no relevance"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, error, words = REFUSED[name]
    with pytest.raises(error) as raised:
        call()
    for word in words:
        assert word in str(raised.value)


def test_dask_arrays_are_refused():
    dask = pytest.importorskip("dask.array")
    with pytest.raises(dtd.InputError, match="Dask"):
        dtd.explain(encoder("added").layers, dask.from_array(IDS), 0, backend="cpu", **GIVEN)


# ------------------------------------------------------------------------------------------------- targets at tokens

LAST = [3, 5, 0, 4]  # of the real tokens of each sample


def elements(outputs: np.ndarray, tokens: Any, classes: Any) -> np.ndarray:
    """The start relevance of one output of each sample."""
    start = np.zeros_like(outputs)
    place = np.arange(len(outputs)), tokens, classes
    start[place] = outputs[place]
    return start


@BOTH
def test_targets_at_tokens(backend):
    net = encoder("added", "tokens")
    explainer = dtd.Explainer(net.layers, rules="cp-lrp", backend=backend)
    outputs = explainer.predict(IDS, **GIVEN)
    largest = outputs.argmax(axis=-1)
    wanted = {
        (-1, 2): (5, 2), (-6, 0): (0, 0), (4, None): (4, largest[:, 4]), (-2, None): (4, largest[:, 4]),
        "last": (LAST, largest[range(4), LAST]), ("last", None): (LAST, largest[range(4), LAST]),
        ("last", 1): (LAST, 1), (2, 1): (2, 1),
    }  # fmt: skip
    for target, (tokens, classes) in wanted.items():
        start = elements(outputs, tokens, classes)
        expected = explainer.explain(IDS, start, **GIVEN)
        np.testing.assert_array_equal(explainer.explain(IDS, target, **GIVEN), expected, err_msg=str(target))
        np.testing.assert_array_equal(
            dtd.explain(net.layers, IDS, target, rules="cp-lrp", backend=backend, batch_size=3, **GIVEN), expected
        )
        np.testing.assert_array_equal(explainer.ledger(IDS, target, **GIVEN).start, start.sum(axis=(1, 2), dtype=float))
    assert explainer.profile(IDS, "last", **GIVEN).seconds > 0 if backend == "cpu" else True


def test_the_last_token_without_a_mask():
    layers = [dtd.Linear(np.eye(2, 3, dtype=np.float32), axis=-1)]
    x = np.arange(12.0, dtype=np.float32).reshape(1, 4, 3)
    for backend in ("oracle", "cpu"):
        options = {"rules": "lrp-0", "backend": backend}
        r = dtd.explain(layers, x, "last", **options)
        np.testing.assert_array_equal(r[0], [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 10, 0]])
        np.testing.assert_array_equal(dtd.explain(layers, x, (-1, None), **options), r)
        np.testing.assert_array_equal(dtd.explain(layers, x, (-4, 1), **options)[0, 0], [0, 1, 0])


WRONG = {
    "first": ["'first'", '"last"'],
    ("first", 1): ["'first'", '"last"'],
    (-7, 0): ["-7", "-6 to 5"],
    (6, None): ["6 tokens", "-6 to 5"],
    ("last", 3): ["3", "axis 2", "0 to 2"],
    ("last", -1): ["-1", "axis 2"],
    (1, True): ["(1, True)"],
    (None, 1): ["(None, 1)"],
}


@pytest.mark.parametrize("target", WRONG, ids=str)
def test_wrong_targets_at_tokens(target):
    with pytest.raises(dtd.TargetError) as raised:
        dtd.explain(encoder("added", "tokens").layers, IDS, target, backend="cpu", **GIVEN)
    for word in WRONG[target]:
        assert word in str(raised.value)


def test_tokens_that_are_not_there():
    with pytest.raises(dtd.TargetError, match=r"is outside the . tokens"):
        dtd.explain(encoder("added", "tokens").layers, IDS, (-(2**70), 1), backend="cpu", **GIVEN)
    with pytest.raises(dtd.TargetError, match=r"names a token.*\(n, 3\)"):
        dtd.explain(encoder("added").layers, IDS, "last", backend="cpu", **GIVEN)
    given = GIVEN | {"attention_mask": REAL * np.array([[1], [0], [1], [1]])}
    with pytest.raises(dtd.TargetError, match="sample 1 leaves no token"):
        dtd.explain(encoder("added", "tokens").layers, IDS, "last", backend="cpu", **given)
    short = [dtd.Given("attention_mask", (2,)), dtd.Linear(np.ones((2, 3)), axis=-1, inputs=dtd.INPUT)]
    with pytest.raises(dtd.TargetError, match=r"shape \(1, 2\), but there are 4 tokens"):
        dtd.explain(short, np.ones((1, 4, 3)), "last", backend="cpu", attention_mask=[[1, 1]])


# ------------------------------------------------------------------------------- diagnostics, evaluation, baselines

TAKEN: dict[str, Callable[..., Any]] = {
    "randomisation": dtd.diagnostics.parameter_randomization,
    "randomisation of gradients": partial(
        dtd.diagnostics.parameter_randomization, attribution=dtd.baselines.input_x_gradient
    ),
    "conservation": dtd.diagnostics.conservation,
    "gradients": dtd.diagnostics.gradient_equivalence,
    "class sensitivity": dtd.diagnostics.class_sensitivity,
}


@pytest.mark.parametrize("name", TAKEN)
def test_diagnostics_take_what_is_given(name):
    net = encoder("boolean")
    assert str(TAKEN[name](net.layers, IDS, **GIVEN))
    with pytest.raises(dtd.InputError, match="attention_mask= is missing"):
        TAKEN[name](net.layers, IDS)


OF_ONE_INPUT: dict[str, Callable[..., Any]] = {
    "regions": lambda layers, x: dtd.diagnostics.same_region(layers, x, x),
    "reach": lambda layers, x: dtd.diagnostics.region_reach(layers, x, x),
    "roots": lambda layers, x: dtd.diagnostics.root_points(layers, x, [0]),
    "audit": dtd.diagnostics.root_audit,
    "mixing": dtd.diagnostics.mixing_bound,
    "convergence": dtd.diagnostics.cosine_convergence,
    "perturbation": lambda layers, x: dtd.evaluation.region_perturbation(layers, x, x),
    "flipping": lambda layers, x: dtd.evaluation.pixel_flipping(layers, x, x),
}


@pytest.mark.parametrize("name", OF_ONE_INPUT)
def test_diagnostics_of_the_input_alone(name):
    layers = [dtd.Given("gate", (3,)), dtd.Mul(inputs=(dtd.INPUT, 0)), dtd.Linear(np.ones((2, 3)))]
    with pytest.raises(dtd.InputError, match="takes gate= beside its input"):
        OF_ONE_INPUT[name](layers, np.ones((2, 3), np.float32))


@pytest.mark.parametrize("by", ["relevance", "activation"])
def test_samples_of_a_channel(by):
    """Blocks of 64 samples take their own rows of what is given."""
    layers = encoder("added").layers
    ids, given = np.tile(IDS, (20, 1)), {name: np.tile(v, (20, *[1] * (np.ndim(v) - 1))) for name, v in GIVEN.items()}
    options = {"position": len(layers) - 2, "axis": -1, "by": by, "backend": "cpu"}
    found = concepts.top_samples(layers, ids, 1, k=len(ids), **options, **given)
    few = concepts.top_samples(layers, IDS, 1, k=len(IDS), **options, **GIVEN)
    np.testing.assert_array_equal(found.scores[:, ::20], few.scores)
