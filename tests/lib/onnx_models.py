"""Small ONNX models from their textual syntax, weights drawn at random."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper, parser

IMAGE = "float[N,4,9,10] x"
K9 = "float[6,4,3,3] w, float[6] b"  # of a convolution
NORM = "float[4] g, float[4] b, float[4] m, float[4] v"  # of a BatchNormalization


def model(
    body: str, given: str = "", x: str = IMAGE, opset: int = 17, y: str = "float[] y", seed: int = 0
) -> onnx.ModelProto:
    """A model from the statements of its graph, which reads `x` and makes `y`.

    Parameters
    ----------
    given : constants: "float[4] b" is drawn at random (positive if its name starts with v), "int64[2] s = {1, 2}" has
    its values
    """
    text = f'<ir_version: 8, opset_import: ["": {opset}]> net ({x}) => ({y}) <{given}> {{ {body} }}'
    proto = parser.parse_model(text)
    rng = np.random.default_rng(seed)
    for info in proto.graph.value_info:
        shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
        values = rng.standard_normal(shape) * (2 / max(1, np.prod(shape[1:]))) ** 0.5
        values = np.abs(values) + 0.5 if info.name.startswith("v") else values
        dtype = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(values, dtype), info.name))
    del proto.graph.value_info[:]
    return proto


def feed(proto: onnx.ModelProto, n: int = 2) -> np.ndarray[Any, Any]:
    """A random batch for its input; an open axis has 7 elements."""
    kind = proto.graph.input[0].type.tensor_type
    shape = [n, *(d.dim_value or 7 for d in list(kind.shape.dim)[1:])]
    rng = np.random.default_rng(1)
    if kind.elem_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32):
        return rng.integers(5, size=shape, dtype=onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return rng.standard_normal(shape).astype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))


def run(proto: onnx.ModelProto, x: np.ndarray[Any, Any], **beside: np.ndarray[Any, Any]) -> Any:
    """Its output, by onnxruntime; `beside`: its other inputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # which multiplies integers at low accuracy
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x, **beside})[0]
