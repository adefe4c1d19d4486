"""ONNX import of opset 6, whose operands meet by attributes; onnxruntime does not read it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import dtdfast as dtd
from dtdfast import ModelError, from_onnx
from onnx_models import feed, model, run

OPSET_6 = {
    "per channel by its axis": ("y = Add<broadcast=1, axis=1>(x, c)", "float[4] c", lambda x, c: x + c[:, None, None]),
    "at the end": ("y = Mul<broadcast=1>(x, c)", "float[9,10] c", lambda x, c: x * c),
    "in the middle": ("y = Sub<broadcast=1, axis=2>(x, c)", "float[9] c", lambda x, c: x - c[:, None]),
    "slopes per channel": ("y = PRelu(x, c)", "float[4] c", lambda x, c: np.where(x < 0, x * c[:, None, None], x)),
    "as many pixels as channels": (
        "y = PRelu(x, c)",
        "float[4] c",
        lambda x, c: np.where(x < 0, x * c[:, None, None], x),
    ),
}


@pytest.mark.parametrize("name", OPSET_6)
def test_operands_of_opset_6(name: str) -> None:
    body, given, right = OPSET_6[name]
    shape = "float[N,4,4,4] x" if name.startswith("as many") else "float[N,4,9,10] x"
    proto = model(body, given, x=shape, opset=6)
    x = feed(proto)
    constant = onnx.numpy_helper.to_array(proto.graph.initializer[0])
    np.testing.assert_allclose(dtd.predict(from_onnx(proto), x), right(x, constant), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("operator", ["Add", "Mul"])
def test_values_of_opset_6(operator: str) -> None:
    """As opset 7 has them, which onnxruntime reads."""
    body = f"a = ReduceMax<axes=[2,3]>(x) b = {operator}{{}}(x, a) c = Add(b, one) y = {operator}(c, x)"
    old = model(body.format("<broadcast=1, axis=0>"), "float[1] one = {1}", opset=6)
    new = model(body.format(""), "float[1] one = {1}", opset=7)
    x = feed(old)
    np.testing.assert_allclose(dtd.predict(from_onnx(old), x), run(new, x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "given", "message"),
    [
        ("y = Add(x, c)", "float[10] c", "needs the attribute broadcast"),
        ("y = Dropout<ratio=0.5>(x)", "", "training mode"),
        ("y = BatchNormalization<epsilon=0.1>(x, c, c, c, c)", "float[4] c", "training mode"),
    ],
)
def test_refused_in_opset_6(body: str, given: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        from_onnx(model(body, given, opset=6))
