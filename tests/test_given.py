"""Masks, position numbers and type numbers beside the input: what they do to maps and ledgers."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest

import dtdfast as dtd
import forward_mode
from nets import Net
from nets.masked import GIVEN, IDS, OTHERS, REAL, encoder
from nets.transformers import BOX
from support import LONG


def fixed(net: Net, sample: int) -> list[dtd.Layer]:
    """The network with what one sample brings along as Constants: position and type vectors, a mask of booleans."""
    layers: list[dtd.Layer] = []
    real = REAL[sample].astype(bool)
    for record in net.layers:
        made = record
        if isinstance(record, dtd.Given):
            made = dtd.Constant(np.zeros(1) if record.integer else real.astype(float))
        elif isinstance(record, dtd.Embedding) and record.inputs is None:
            source = net.layers[len(layers) - 1]
            made = dtd.Constant(record.weight[GIVEN[source.name][sample]])
        elif isinstance(record, dtd.Softmax) and record.inputs is not None and len(record.inputs) == 2:
            kept = real if record.mask is None else real & record.mask
            made = replace(record, mask=kept, inputs=record.inputs[:1])
        layers.append(made)
    return layers


MASKS, ENDS = ["added", "boolean", "causal"], ["mean", "tokens"]
KINDS = pytest.mark.parametrize("kind", MASKS)
BOTH = pytest.mark.parametrize("backend", ["oracle", "cpu"])
HEADS_OF = pytest.mark.parametrize("head", ENDS)
OPTIONS = list(product(dtd.PRESETS, ("held", "taylor")))


@cache
def explainers(kind: str, head: str, backend: str, precision: str = "float32") -> list[dtd.Explainer]:
    """Of every preset, attention held and by its Taylor rule where that is taken: each with every head, and with
    another mask for another head, unless DTDFAST_LONG=1.
    """
    made = []
    for rules, attention in OPTIONS if LONG else OPTIONS[(MASKS.index(kind) + ENDS.index(head)) % 3 :: 3]:
        explainer = dtd.Explainer(
            encoder(kind, head).layers, rules=rules, attention=attention, domain=BOX, backend=backend,
            precision=precision,
        )  # fmt: skip
        try:
            explainer.plan_for(IDS.shape)
        except dtd.RuleError:
            assert attention == "taylor"
            continue
        made.append(explainer)
    assert {explainer.options["attention"] for explainer in made} == {"held", "taylor"}
    return made


def start_of(net: Net, token: int | None = None) -> np.ndarray:
    start = np.random.default_rng(4).standard_normal((4, *net.output_shape)).astype(np.float32)
    if token is not None:
        start[:, np.arange(len(start[0])) != token] = 0
    return start


# ------------------------------------------------------------------------------------------------------ right answers


@KINDS
@HEADS_OF
def test_every_sample_as_with_constants(kind, head):
    net = encoder(kind, head)
    start = start_of(net, None if head == "mean" else 0)
    for number, explainer in enumerate(explainers(kind, head, "oracle")):
        maps = explainer.explain(IDS, start, **GIVEN)
        for i in range(4) if LONG else [number % 4]:
            alone = dtd.Explainer(fixed(net, i), **explainer.options).explain(IDS[[i]], start[[i]])
            np.testing.assert_allclose(maps[[i]], alone, rtol=0, atol=1e-12 * abs(alone).max())


@KINDS
@pytest.mark.parametrize(("rules", "mode"), [("cp-lrp", "held"), ("attnlrp", "taylor")])
def test_relevance_is_input_times_what_is_held(kind, rules, mode):
    net = encoder(kind)
    start = start_of(net)
    maps = dtd.explain(net.layers, IDS, start, rules=rules, backend="oracle", **GIVEN)
    for i in range(4):
        expected = forward_mode.relevance(fixed(net, i), IDS[[i]], start[[i]], mode)
        np.testing.assert_allclose(maps[[i]], expected, rtol=0, atol=1e-9 * abs(expected).max())


@BOTH
@KINDS
def test_predictions(kind, backend):
    net = encoder(kind)
    outputs = dtd.predict(net.layers, IDS, backend=backend, **GIVEN)
    expected = np.concatenate([forward_mode.predict(fixed(net, i), IDS[[i]]) for i in range(4)])
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-12 if backend == "oracle" else 2e-6)


def test_mean_over_real_tokens():
    net = encoder("boolean")
    whole = dtd.predict(net.layers, IDS, backend="oracle", **GIVEN)
    *before, dense = net.layers
    pooled = next(p for p, record in enumerate(net.layers) if isinstance(record, dtd.Mul))
    tokens = dtd.predict(before[: net.layers[pooled].inputs[0] + 1], IDS, backend="oracle", **GIVEN)
    mean = (tokens * REAL[..., None]).sum(axis=1) / REAL.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(whole, mean @ dense.weight.T + dense.bias, rtol=0, atol=1e-12)


@KINDS
@HEADS_OF
def test_the_cpu_and_the_oracle(kind, head):
    net = encoder(kind, head)
    start = start_of(net, None if head == "mean" else 0)
    for exact, fast in zip(explainers(kind, head, "oracle"), explainers(kind, head, "cpu", "float64"), strict=True):
        expected = exact.explain(IDS, start, **GIVEN)
        np.testing.assert_allclose(
            fast.explain(IDS, start, **GIVEN), expected, rtol=0, atol=1e-11 * abs(expected).max()
        )


# ------------------------------------------------------------------------------------------------------------- padding


@BOTH
@KINDS
@HEADS_OF
def test_padding_takes_nothing_and_changes_no_bit(kind, head, backend):
    """Under every preset, with the start at a real token, whatever the padding holds."""
    net = encoder(kind, head)
    start = start_of(net, None if head == "mean" else 0)
    for explainer in explainers(kind, head, backend):
        maps = explainer.explain(IDS, start, **GIVEN)
        assert np.isfinite(maps).all()
        assert not maps[REAL == 0].any(), explainer
        assert maps[REAL == 1].any()
        np.testing.assert_array_equal(maps, explainer.explain(OTHERS, start, **GIVEN))


@BOTH
@KINDS
@HEADS_OF
def test_ledgers_close_and_say_what_givens_take(kind, head, backend):
    net = encoder(kind, head)
    start = start_of(net, None if head == "mean" else 0)
    for explainer in explainers(kind, head, backend):
        ledger = explainer.ledger(IDS, start, **GIVEN)
        assert ledger.closed, str(ledger)
        (row,) = [r for r in ledger.rows if r.entries == (3,)]  # the vectors of positions
        np.testing.assert_array_equal(row.absorbed["constant"], row.came)
        assert row.came.any()


def test_what_comes_to_a_masked_place_is_absorbed_there():
    """Rules that share by weights alone bring relevance to values of 0; a factor of 0 lets nothing pass."""
    layers = [dtd.Given("gate", (3,)), dtd.Mul(inputs=(dtd.INPUT, 0)), dtd.Linear([[1.0, 1.0, 1.0]])]
    x, gate = np.ones((2, 3), np.float32), [[1.0, 0.0, -2.0], [0.0, 0.0, 0.0]]
    for backend in ("oracle", "cpu"):
        explainer = dtd.Explainer(layers, rules={2: dtd.WSquare()}, backend=backend)
        np.testing.assert_allclose(
            explainer.explain(x, np.ones((2, 1)), gate=gate), [[1 / 3, 0, 1 / 3], [0, 0, 0]], rtol=1e-6
        )
        ledger = explainer.ledger(x, np.ones((2, 1)), gate=gate)
        np.testing.assert_allclose(ledger.absorbed["constant"], [1 / 3, 1], rtol=1e-6)
        assert ledger.closed


@BOTH
def test_a_row_without_tokens(backend):
    """Of a boolean mask it is 0: neither NaN nor a mean over padding."""
    net = encoder("boolean")
    given = GIVEN | {"attention_mask": REAL * np.array([[1], [0], [1], [1]])}
    maps, outputs = dtd.explain(net.layers, IDS, 0, backend=backend, return_outputs=True, **given)
    np.testing.assert_array_equal(maps[1], 0)
    np.testing.assert_allclose(outputs[1], net.layers[-1].bias, rtol=1e-6)
    whole = dtd.explain(net.layers, IDS, 0, backend=backend, **GIVEN)
    np.testing.assert_array_equal(maps[[0, 2, 3]], whole[[0, 2, 3]])


@BOTH
def test_matrices_and_gates_that_are_given(backend):
    """A product with what is given is a linear layer of the other operand, under any option."""
    rng = np.random.default_rng(0)
    x, matrix = rng.standard_normal((3, 4, 5)), rng.standard_normal((3, 2, 4))
    layers = [dtd.Given("pooling", (2, 4)), dtd.MatMul(inputs=(0, dtd.INPUT))]
    for attention in ("held", "taylor"):
        r = dtd.explain(
            layers, x, matrix @ x, rules=dtd.Zero(), attention=attention, backend=backend,
            precision="float64", pooling=matrix,
        )  # fmt: skip
        np.testing.assert_allclose(r, x * matrix.sum(axis=1)[..., None], rtol=1e-9)
    layers = [dtd.Given("gate", (4, 5)), dtd.Mul(inputs=(0, dtd.INPUT))]
    r = dtd.explain(layers, x, 2 * x, rules=dtd.Zero(), backend=backend, precision="float64", gate=1 + abs(x))
    np.testing.assert_allclose(r, 2 * x, rtol=1e-12)
