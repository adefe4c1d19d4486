"""Products of two operands: shares, gates, constant operands, operands that are read elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast.activations import ACTIVATIONS

# ------------------------------------------------------------------------------------------------ element-wise products


def _halves(n):
    """Two halves of the features as operands."""
    return [dtd.Slice(1, 0, n, inputs=dtd.INPUT), dtd.Slice(1, n, inputs=dtd.INPUT)]


@pytest.mark.parametrize("attention", ["held", "taylor"])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0, None])
def test_shares_of_a_product(share, attention, rng):
    x, r = rng.standard_normal((2, 3, 10))
    r = r[:, :5]
    layers = [*_halves(5), dtd.Mul(share=share, inputs=(0, 1))]
    options = {"rules": "lrp-0", "attention": attention, "backend": "oracle"}
    if share is None and attention == "held":
        with pytest.raises(dtd.LayerError, match="share="):
            dtd.explain(layers, x, r, **options)
        return
    part = 0.5 if share is None else share
    np.testing.assert_allclose(
        dtd.explain(layers, x, r, **options), np.concatenate([part * r, (1 - part) * r], axis=1), rtol=1e-15
    )


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize(("first", "second"), [((3, 4), (3, 1)), ((1, 4), (3, 4)), ((3, 1), (1, 4))], ids=str)
def test_shares_of_operands_that_repeat(first, second, share, rng):
    """What was repeated sums what its copies take."""
    middle = int(np.prod(first))
    layers = [*_halves(middle), dtd.Reshape(first, inputs=0), dtd.Reshape(second, inputs=1)]
    layers.append(dtd.Mul(share=share, inputs=(2, 3)))
    x = rng.standard_normal((2, middle + int(np.prod(second))))
    r = rng.standard_normal((2, *np.broadcast_shapes(first, second)))
    got = dtd.explain(layers, x, r, rules="lrp-0", backend="oracle")
    parts = []
    for shape, part in ((first, share), (second, 1 - share)):
        axes = tuple(a + 1 for a, n in enumerate(shape) if n == 1 and r.shape[a + 1] > 1)
        parts.append(part * r.sum(axis=axes, keepdims=True).reshape(2, -1))
    np.testing.assert_allclose(got, np.concatenate(parts, axis=1), rtol=0, atol=1e-13 * abs(r).sum())


def _activation(kind):
    return dtd.Activation(kind, slopes=np.full(5, 0.5) if kind == "prelu" else None)


GATES = {kind: [_activation(kind)] for kind in ACTIVATIONS} | {
    "softmax": [dtd.Softmax()],
    "1 + sigmoid": [dtd.Activation("sigmoid"), dtd.Scale(np.ones(5), np.ones(5))],
    "moved tanh": [dtd.Activation("tanh"), dtd.Gather((4, 3, 2, 1, 0), 1), dtd.Dropout()],
    "0.5 tanh": [dtd.Activation("tanh"), dtd.Scale(np.full(5, 0.5))],
}


@pytest.mark.parametrize("first", [False, True], ids=["signal first", "gate first"])
@pytest.mark.parametrize("name", GATES)
def test_the_gate_takes_nothing(name, first, rng):
    """Under "held"; half under "taylor"."""
    halves, made = _halves(5), GATES[name]
    layers = [*halves, *made]
    gate = len(layers) - 1
    layers.append(dtd.Mul(inputs=(gate, 0) if first else (0, gate)))
    x, r = rng.standard_normal((2, 2, 10))
    r = r[:, :5]
    nothing = np.zeros((2, 5))
    got = dtd.explain(layers, x, r, rules="cp-lrp", backend="oracle")
    np.testing.assert_allclose(got, np.concatenate([r, nothing], axis=1), rtol=1e-14)
    got = dtd.explain(layers, x, r, rules="attnlrp", backend="oracle")
    np.testing.assert_allclose(got[:, :5], r / 2, rtol=1e-14)
    if name in ACTIVATIONS:
        np.testing.assert_allclose(got[:, 5:], r / 2, rtol=1e-14)


UNCLEAR = {  # what is made of either half, such that none of them is the gate for certain
    "two linear": ([], []),
    "two sigmoids": ([dtd.Activation("sigmoid")], [dtd.Activation("sigmoid")]),
    "two activations": ([dtd.Activation("silu")], [dtd.Activation("gelu")]),
    "silu and a clipped gate": ([dtd.Activation("silu")], [dtd.Activation("clip"), dtd.Scale(np.full(5, 1 / 6))]),
    "silu and relu": ([dtd.Activation("silu")], [dtd.ReLU()]),
    "relu and linear": ([dtd.ReLU()], []),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_a_gate_that_cannot_be_told_is_refused(name, rng):
    layers, ends = [], []
    for number, records in enumerate(UNCLEAR[name]):
        layers.append(dtd.Slice(1, 5 * number, 5 * number + 5, inputs=dtd.INPUT))
        layers.extend(records)
        ends.append(len(layers) - 1)
    layers.append(dtd.Mul(inputs=tuple(ends), name="gating"))
    x = rng.standard_normal((2, 10))
    for backend in ("oracle", "cpu"):
        with pytest.raises(dtd.LayerError, match=r"'gating'.*share="):
            dtd.explain(layers, x.astype(np.float32), 0, rules="cp-lrp", backend=backend)
    assert dtd.explain(layers, x, 0, rules="attnlrp", backend="oracle").shape == x.shape


# -------------------------------------------------------------------------------------------------- constant operands


@pytest.mark.parametrize("attention", ["held", "taylor"])
@pytest.mark.parametrize("left", [False, True], ids=["x C", "C x"])
def test_a_product_with_a_constant_is_linear(left, attention, rng):
    """Under every rule, as a Linear along an axis; the constant is no computed operand."""
    constant, x = rng.standard_normal((3, 3)), rng.standard_normal((2, 2, 3, 3))
    r = rng.standard_normal(x.shape)
    layers = [dtd.Constant(constant[None]), dtd.MatMul(inputs=(0, dtd.INPUT) if left else (dtd.INPUT, 0), scale=0.5)]
    weight = 0.5 * (constant if left else constant.T)
    linear = [dtd.Linear(weight, axis=-2 if left else -1)]
    for rule in (dtd.Zero(), dtd.Epsilon(stabilizer=0.125), dtd.Gamma(0.25), dtd.ZPlus(), dtd.ZPlusBySign()):
        refused = attention == "taylor" and isinstance(rule, (dtd.ZPlus, dtd.ZPlusBySign))
        options = {"backend": "oracle", "attention": "held" if refused else attention}
        got = dtd.explain(layers, x, r, rules={1: rule}, **options)
        expected = dtd.explain(linear, x, r, rules={0: rule}, **options)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11 * abs(expected).max())


@pytest.mark.parametrize("beside", [1, 2], ids=["plain", "turned"])
def test_an_operand_of_a_product_that_is_read_elsewhere(beside, rng):
    """What the product hands it is c, and what the Concat does R: both executors add them up alike."""
    layers = [
        dtd.Linear(rng.standard_normal((3, 3)), inputs=dtd.INPUT),
        dtd.Linear(rng.standard_normal((3, 3)), inputs=dtd.INPUT),
        dtd.Permute((0, 1, 3, 2), inputs=0),
        dtd.MatMul(inputs=(2, 1)),
        dtd.Concat(3, inputs=(3, beside)),
    ]
    x, r = rng.standard_normal((2, 2, 3, 3)), rng.standard_normal((2, 2, 3, 6))
    expected = dtd.explain(layers, x, r, rules="attnlrp", backend="oracle")
    got = dtd.explain(layers, x, r, rules="attnlrp", backend="cpu", precision="float64")
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10 * abs(expected).max())
