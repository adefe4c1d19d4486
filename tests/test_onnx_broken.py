"""Nodes that onnxruntime refuses, and that had a meaning here all the same."""

from __future__ import annotations

from typing import Any

import pytest

import dtdfast as dtd
from onnx_models import feed, model, run

PLANE = "float[N,4,6,6] x"
BROKEN: dict[str, tuple[str, str, str, dict[str, Any]]] = {  # graph, constants, message, more of the model
    "indices of another rank": (
        "y = GatherElements<axis=1>(x, i)", "int64 i = {1}", "indices have 0 axes, its input has 3", {}
    ),
    "Gemm of three axes": ("y = Gemm(x, w)", "float[7,3] w", "first input has 3 axes, expected two", {}),
    "pads beside VALID": (
        'y = ConvTranspose<auto_pad="VALID", pads=[0,1,1,0]>(x, w)', "float[4,3,3,3] w", "beside auto_pad 'VALID'",
        dict(x=PLANE),
    ),
    "pads beside SAME": (
        'y = Conv<auto_pad="SAME_UPPER", pads=[0,1,1,0]>(x, w)', "float[3,4,3,3] w", "beside auto_pad 'SAME_UPPER'",
        dict(x=PLANE),
    ),
    "axes of two axes": ("y = ReduceSum(x, a)", "int64[1,1] a = {1}", r"axes is int64 of shape \(1, 1\)", {}),
    "a shape of two axes": ("y = Reshape(x, s)", "int64[1,2] s = {0,-1}", r"shape is int64 of shape \(1, 2\)", {}),
    "an axis twice": (
        "y = Slice(x, a, b, c)", "int64[2] a = {0,1}, int64[2] b = {4,5}, int64[2] c = {1,-2}", "name one axis twice",
        {},
    ),
    "an axis twice, cropped": (
        "y = CenterCropPad<axes=[1,-2]>(x, s)", "int64[2] s = {3,4}", r"its shape is \(3, 4\)", dict(opset=18)
    ),
    "more sizes than axes": (
        'y = Resize<mode="linear">(x, , , s)', "int64[4] s = {1,5,14,3}", "it scales 3 axes", {}
    ),
    "a negative size": ("y = Expand(x, s)", "int64[3] s = {1,5,-7}", "it repeats", {}),
    "inputs of a later opset": ("y = Clip(x, a)", "float a = {0}", "it has 2 inputs; in opset 8 it has 1 to 1",
                                dict(opset=8)),
    "too few inputs": ("y = LayerNormalization(x)", "", "it has 1 inputs; in opset 17 it has 2 to 3", {}),
    "no axis": ("a = Relu(x) y = Concat(x, a)", "", "attribute axis is missing, which it needs in opset 17", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_nodes_that_onnxruntime_refuses(name: str) -> None:
    body, given, message, more = BROKEN[name]
    proto = model(body, given, **{"x": "float[N,5,7] x", **more})
    with pytest.raises(Exception, match=r"ONNXRuntimeError|Node|Non-zero"):
        run(proto, feed(proto))
    with pytest.raises(dtd.ModelError, match=message):
        dtd.from_onnx(proto)
