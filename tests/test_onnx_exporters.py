"""What exporters write out: patterns that become one record, and networks with channels last as tf2onnx leaves them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

import dtdfast as dtd
from onnx_models import feed, model, run
from support import kinds

HALF = "float s = {1.4142135}, float r = {0.70710677}, float o = {1}, float h = {0.5}"
SIXTH = "float t = {3}, float z = {0}, float s = {6}, float q = {0.16666667}"

PATTERNS: dict[str, tuple[dict[str, Any], str]] = {
    "ReLU6 of TensorFlow": (dict(body="a = Relu(x) y = Min(a, c)", given="float c = {6}"), "ReLU clip"),
    "a maximum with 0": (dict(body="y = Max(c, x)", given="float c = {0}"), "ReLU"),
    "hard sigmoid": (dict(body="a = Add(x, t) b = Clip(a, z, s) y = Div(b, s)", given=SIXTH), "hard_sigmoid"),
    "hard swish": (
        dict(body="a = Add(t, x) b = Clip(a, z, s) c = Mul(q, b) y = Mul(x, c)", given=SIXTH),
        "hard_swish",
    ),
    "nearly a hard sigmoid": (
        dict(body="a = Add(x, s) b = Clip(a, z, s) y = Div(b, s)", given=SIXTH),
        "Scale clip Scale",
    ),
    "GELU of PyTorch": (
        dict(body="a = Div(x, s) e = Erf(a) b = Add(e, o) c = Mul(x, b) y = Mul(c, h)", given=HALF),
        "gelu",
    ),
    "GELU of Keras": (
        dict(body="a = Mul(r, x) e = Erf(a) b = Add(o, e) c = Mul(h, x) y = Mul(b, c)", given=HALF),
        "gelu",
    ),
    "GELU with nodes for constants": (
        dict(
            body="s = Constant<value_float=1.4142135>() o = Constant<value_float=1.0>() h = "
            "Constant<value_float=0.5>() "
            "a = Div(x, s) e = Erf(a) b = Add(e, o) c = Mul(b, h) y = Mul(c, x)"
        ),
        "gelu",
    ),
    "SiLU": (dict(body="a = Sigmoid(x) y = Mul(x, a)"), "silu"),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns(name: str) -> None:
    case, expected = PATTERNS[name]
    proto = model(**case)
    layers, x = dtd.from_onnx(proto), feed(proto)
    assert kinds(layers) == expected
    outputs = run(proto, x)
    # a handful of float32 operations on each side
    np.testing.assert_allclose(dtd.predict(layers, x), outputs, rtol=0, atol=16 * 2.0**-24 * np.abs(outputs).max())


@pytest.mark.parametrize(
    ("body", "given"),
    [
        ("a = Div(x, s) e = Erf(a) b = Add(e, o) c = Mul(x, b) y = Mul(c, s)", HALF),  # not a half
        ("a = Div(x, h) e = Erf(a) b = Add(e, o) c = Mul(x, b) y = Mul(c, h)", HALF),  # not √2
        ("a = Div(x, s) e = Erf(a) b = Add(e, s) c = Mul(x, b) y = Mul(c, h)", HALF),  # not 1
        ("d = Tanh(x) a = Div(x, s) e = Erf(a) b = Add(e, o) c = Mul(d, b) y = Mul(c, h)", HALF),  # not of x
    ],
)
def test_what_is_no_gelu_stays_refused(body: str, given: str) -> None:
    with pytest.raises(dtd.ModelError, match=r"\(Erf\): this operator has no record"):
        dtd.from_onnx(model(body, given))


# tf2onnx computes convolutions and pools channels first between transposes, and the rest as TensorFlow does, channels
# last
BLOCK = """
    a0 = Transpose<perm=[0,3,1,2]>(x)
    a1 = Conv<pads=[1,1,1,1]>(a0, w1, b1)
    a2 = Relu(a1)
    a3 = Min(a2, six)
    a4 = Transpose<perm=[0,2,3,1]>(a3)
    n1 = Mul(a4, g)
    n2 = Add(n1, h)
    p1 = Pad(n2, pads)
    p2 = Transpose<perm=[0,3,1,2]>(p1)
    c1 = Conv<group=6, strides=[2,2]>(p2, w2)
    c2 = BatchNormalization(c1, g, h, m, v)
    c3 = Sigmoid(c2)
    c4 = Mul(c2, c3)
    c5 = Transpose<perm=[0,2,3,1]>(c4)
    s1 = ReduceMean<axes=[1,2], keepdims=1>(c5)
    s2 = Transpose<perm=[0,3,1,2]>(s1)
    s3 = Conv(s2, w3, b3)
    s4 = Sigmoid(s3)
    s5 = Transpose<perm=[0,2,3,1]>(s4)
    s6 = Mul(c5, s5)
    m1 = Transpose<perm=[0,3,1,2]>(s6)
    m2 = MaxPool<kernel_shape=[2,2], strides=[2,2]>(m1)
    m3 = Transpose<perm=[0,2,3,1]>(m2)
"""
BLOCK_GIVEN = (
    "float[6,3,3,3] w1, float[6] b1, float six = {6}, float[6] g, float[6] h, int64[8] pads = {0,0,0,0,0,1,1,0}, "
    "float[6,1,3,3] w2, float[6] m, float[6] v, float[6,6,1,1] w3, float[6] b3"
)
ENDS = {
    "flattened": (
        "f = Reshape(m3, shape) o = MatMul(f, w) y = Add(o, b)",
        "int64[2] shape = {-1, 24}, float[24,4] w, float[4] b",
    ),
    "averaged": (
        "f = ReduceMean<axes=[1,2], keepdims=0>(m3) o = MatMul(f, w) y = Add(o, b)",
        "float[6,4] w, float[4] b",
    ),
    "a layer per pixel": (
        "q = MatMul(m3, u) r = Add(q, t) f = ReduceMean<axes=[1,2], keepdims=0>(r) o = MatMul(f, w) y = Add(o, b)",
        "float[6,5] u, float[5] t, float[5,4] w, float[4] b",
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_channels_last(name: str) -> None:
    body, given = ENDS[name]
    proto = model(BLOCK + body, f"{BLOCK_GIVEN}, {given}", x="float[N,10,9,3] x")
    layers, x = dtd.from_onnx(proto), feed(proto)
    outputs = run(proto, x)
    np.testing.assert_allclose(dtd.predict(layers, x), outputs, rtol=0, atol=1e-5 * np.abs(outputs).max())
    assert all(layer.bias is not None for layer in layers if isinstance(layer, dtd.Linear))
    explainer = dtd.Explainer(layers)
    start = np.eye(4, dtype=np.float32)[[1, 1]]
    ledger = explainer.ledger(x, start)
    assert ledger.closed, str(ledger)
    relevance = explainer.explain(x, start)
    assert relevance.shape == x.shape
    assert relevance.min() >= 0
    assert relevance.sum() > 0


def test_channels_last_is_the_same_network_by_hand() -> None:
    """Transposes away, the constants in their layers: the same maps as of the list that says what is meant."""
    body, given = ENDS["averaged"]
    proto = model(BLOCK + body, f"{BLOCK_GIVEN}, {given}", x="float[N,10,9,3] x")
    w = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    by_hand = [
        dtd.Permute((0, 3, 1, 2)),
        dtd.Conv(w["w1"], w["b1"], padding=1),
        dtd.Activation("clip", 0, 6),
        dtd.Scale(w["g"], w["h"]),
        dtd.Pad(((0, 1), (0, 1))),
        dtd.Conv(w["w2"], groups=6, stride=2),
        dtd.BatchNorm(w["m"], w["v"], w["g"], w["h"]),
        dtd.Activation("silu"),
        dtd.GlobalAvgPool(),
        dtd.Conv(w["w3"], w["b3"]),
        dtd.Activation("sigmoid"),
        dtd.Mul(inputs=(7, 10)),
        dtd.MaxPool(2),
        dtd.GlobalAvgPool(),
        dtd.Flatten(),
        dtd.Linear(w["w"].T, w["b"]),
    ]
    x, start = feed(proto), np.eye(4, dtype=np.float32)[[1, 1]]
    ours, expected = (dtd.explain(layers, x, start, backend="oracle") for layers in (dtd.from_onnx(proto), by_hand))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12 * expected.max())
