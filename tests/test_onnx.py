"""ONNX import: every operator against onnxruntime, refusals with their reasons, weights in every form, shape arithmetic."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import feed, model

import dtdfast as dtd
from dtdfast import BackendError, DtdError, ModelError, from_onnx
from dtdfast.importers import onnx as importer


def expected(proto: onnx.ModelProto | str, x: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    source = proto if isinstance(proto, str) else proto.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def kinds(layers: list[dtd.Layer]) -> list[str]:
    return [type(record).__name__ for record in layers]


SHUFFLE = "a = Reshape(x, s) b = Transpose<perm=[0,2,1,3,4]>(a) y = Reshape(b, t)"
DYNAMIC = """
    s = Shape(x) n = Gather(s, zero) h = Gather(s, two) w = Gather(s, three) hw = Mul(h, w)
    a = Unsqueeze(n, first) b = Unsqueeze(hw, first) t = Concat<axis=0>(a, minus, b) y = Reshape(x, t)
"""  # x.view(x.shape[0], -1, x.shape[2] * x.shape[3]), as it is exported
DYNAMIC_GIVEN = "int64 zero = {0}, int64 two = {2}, int64 three = {3}, int64[1] first = {0}, int64[1] minus = {-1}"
RESIZE_AS_TORCH = """
    s = Shape(x) space = Slice(s, two, four) wide = Cast<to=1>(space) larger = Mul(wide, factors) back = Cast<to=7>(larger)
    head = Slice(s, zero, two) sizes = Concat<axis=0>(head, back)
    y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, , , sizes)
"""
K9 = "float[6,4,3,3] w, float[6] b"
NORM = "float[4] g, float[4] b, float[4] m, float[4] v"

CASES: dict[str, dict[str, Any]] = {  # one graph each; `kinds` where the records themselves matter
    "conv": dict(body="y = Conv(x, w, b)", given=K9),
    "conv_geometry": dict(
        body="y = Conv<strides=[2,1], dilations=[1,2], pads=[0,1,2,3], group=2, kernel_shape=[3,3]>(x, w)", given="float[6,2,3,3] w"
    ),
    "conv_same_upper": dict(body='y = Conv<auto_pad="SAME_UPPER", strides=[2,3]>(x, w, b)', given="float[6,4,3,4] w, float[6] b"),
    "conv_same_lower": dict(body='y = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, w, b)', given="float[6,4,4,2] w, float[6] b"),
    "conv_valid": dict(body='y = Conv<auto_pad="VALID">(x, w, b)', given=K9),
    "conv_1d": dict(body="y = Conv<pads=[1,2]>(x, w)", given="float[6,4,3] w", x="float[N,4,9] x"),
    "conv_3d": dict(body="y = Conv<strides=[1,2,1]>(x, w)", given="float[6,2,3,2,1] w", x="float[N,2,4,5,3] x"),
    "conv_then_shift": dict(body="a = Conv(x, w) y = Add(a, b)", given="float[6,4,3,3] w, float[6,1,1] b", kinds=["Conv"]),
    "transposed": dict(
        body="y = ConvTranspose<strides=[2,3], pads=[1,0,0,2], output_padding=[1,2], group=2>(x, w, b)", given="float[4,3,3,4] w, float[6] b"
    ),
    "transposed_to_shape": dict(body="y = ConvTranspose<strides=[2,2], output_shape=[18,21]>(x, w)", given="float[4,3,3,4] w"),
    "transposed_same": dict(body='y = ConvTranspose<strides=[2,2], auto_pad="SAME_UPPER">(x, w)', given="float[4,3,3,3] w"),
    "transposed_same_lower": dict(body='y = ConvTranspose<strides=[2,2], auto_pad="SAME_LOWER">(x, w)', given="float[4,3,3,3] w"),
    "gemm": dict(
        body="y = Gemm<alpha=0.5, beta=2.0, transB=1>(x, w, c)", given="float[5,7] w, float[5] c", x="float[N,7] x", kinds=["Linear"]
    ),
    "gemm_one_c": dict(body="y = Gemm(x, w, c)", given="float[7,5] w, float[1,1] c", x="float[N,7] x", kinds=["Linear"]),
    "matmul_add": dict(body="a = MatMul(x, w) y = Add(b, a)", given="float[7,5] w, float[5] b", x="float[N,7] x", kinds=["Linear"]),
    "matmul_read_twice": dict(
        body="a = MatMul(x, w) c = Add(b, a) y = Add(a, c)", given="float[7,5] w, float[5] b", x="float[N,7] x", kinds=["Linear", "Scale", "Add"]
    ),
    "batch_norm": dict(body="y = BatchNormalization<epsilon=0.01, momentum=0.8>(x, g, b, m, v)", given=NORM),
    "batch_norm_folds": dict(
        body="a = Conv<pads=[1,1,1,1]>(x, w) y = BatchNormalization(a, g, b, m, v)", given=NORM + ", float[4,4,3,3] w", kinds=["Conv", "BatchNorm"]
    ),
    "lrn": dict(body="y = LRN<size=3, alpha=0.2, beta=0.6, bias=1.5>(x)"),
    "max_pool": dict(body="y = MaxPool<kernel_shape=[3,2], strides=[2,1], pads=[1,0,1,1], dilations=[1,2]>(x)"),
    "max_pool_stride_one": dict(body="y = MaxPool<kernel_shape=[2,2]>(x)"),
    "max_pool_ceil": dict(body="y = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x)"),
    "max_pool_ceil_dropped": dict(body="y = MaxPool<kernel_shape=[1,1], strides=[4,4], ceil_mode=1, pads=[0,0,0,0]>(x)"),
    "max_pool_same": dict(body='y = MaxPool<kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_LOWER">(x)'),
    "average_pool": dict(body="y = AveragePool<kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,1]>(x)"),
    "average_pool_padded": dict(body="y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], count_include_pad=1>(x)"),
    "average_pool_same": dict(body='y = AveragePool<kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER">(x)'),
    "average_pool_ceil": dict(body="y = AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(x)"),
    "global_average_pool": dict(body="y = GlobalAveragePool(x)"),
    "global_max_pool": dict(body="y = GlobalMaxPool(x)"),
    "reduce_mean": dict(body="y = ReduceMean<axes=[2,3], keepdims=0>(x)", kinds=["GlobalAvgPool", "Flatten"]),
    "reduce_mean_kept": dict(body="y = ReduceMean<axes=[-1,-2]>(x)", opset=13, kinds=["GlobalAvgPool"]),
    "reduce_mean_18": dict(body="y = ReduceMean<keepdims=0>(x, a)", given="int64[2] a = {2,3}", opset=18, kinds=["GlobalAvgPool", "Flatten"]),
    "reduce_mean_rows": dict(body="y = ReduceMean<axes=[3], keepdims=0>(x)", kinds=["AvgPool", "Reshape"]),
    "reduce_max": dict(body="y = ReduceMax<axes=[2], keepdims=0>(x)", x="float[N,4,9] x", kinds=["MaxPool", "Flatten"]),
    "reduce_sum": dict(body="y = ReduceSum<keepdims=1>(x, a)", given="int64[2] a = {2,3}"),
    "relu": dict(body="y = Relu(x)"),
    "leaky_relu": dict(body="y = LeakyRelu<alpha=0.2>(x)"),
    "elu": dict(body="y = Elu<alpha=0.5>(x)"),
    "sigmoid": dict(body="y = Sigmoid(x)"),
    "hard_sigmoid": dict(body="y = HardSigmoid<alpha=0.3>(x)"),
    "hard_swish": dict(body="y = HardSwish(x)"),
    "tanh": dict(body="y = Tanh(x)"),
    "softplus": dict(body="y = Softplus(x)"),
    "gelu": dict(body="y = Gelu(x)", opset=20),
    "gelu_tanh": dict(body='y = Gelu<approximate="tanh">(x)', opset=20),
    "silu": dict(body="a = Sigmoid(x) y = Mul(x, a)"),
    "clip": dict(body="y = Clip(x, a, b)", given="float a = {0.0}, float b = {0.5}", kinds=["Activation"]),
    "clip_as_relu": dict(body="y = Clip(x, a)", given="float a = {0.0}", kinds=["ReLU"]),
    "clip_nothing": dict(body="a = Clip(x) y = Relu(a)", kinds=["ReLU"]),
    "softmax": dict(body="y = Softmax<axis=1>(x)", x="float[N,7] x"),
    "softmax_default_axis": dict(body="y = Softmax(x)"),
    "softmax_11": dict(body="y = Softmax(x)", x="float[N,7] x", opset=11),
    "add": dict(body="a = Relu(x) y = Add(a, x)"),
    "add_itself": dict(body="a = Relu(x) y = Add(a, a)"),
    "sum": dict(body="a = Relu(x) b = Tanh(x) y = Sum(a, b, x)"),
    "mul": dict(body="p = GlobalAveragePool(x) g = Sigmoid(p) y = Mul(g, x)"),
    "scale": dict(body="y = Mul(x, c)", given="float[4,1,1] c"),
    "scale_scalar": dict(body="y = Mul(c, x)", given="float c = {0.25}"),
    "scale_features": dict(body="y = Mul(x, c)", given="float[7] c", x="float[N,7] x"),
    "shift": dict(body="y = Add(c, x)", given="float[1,4,1,1] c"),
    "subtract": dict(body="y = Sub(x, c)", given="float[1,4,1,1] c"),
    "subtract_from": dict(body="y = Sub(c, x)", given="float[1,4,1,1] c"),
    "divide": dict(body="y = Div(x, v)", given="float[4,1,1] v"),
    "concat": dict(body="a = Relu(x) b = Tanh(x) y = Concat<axis=-3>(a, x, b)"),
    "concat_space": dict(body="a = Relu(x) y = Concat<axis=3>(a, x)"),
    "identity": dict(body="a = Identity(x) b = Dropout(a) c = Cast<to=1>(b) d = Relu(c) y = Identity(d)", kinds=["ReLU"]),
    "flatten": dict(body="y = Flatten(x)", kinds=["Flatten"]),
    "flatten_negative": dict(body="y = Flatten<axis=-3>(x)", kinds=["Flatten"]),
    "reshape_copy": dict(body="y = Reshape(x, s)", given="int64[2] s = {0,-1}", kinds=["Flatten"]),
    "reshape_free_batch": dict(body="y = Reshape(x, s)", given="int64[2] s = {-1,360}", kinds=["Flatten"]),
    "reshape_split": dict(body="y = Reshape(x, s)", given="int64[3] s = {0,0,90}", kinds=["Reshape"]),
    "reshape_fixed_batch": dict(body="y = Reshape(x, s)", given="int64[2] s = {2,360}", x="float[2,4,9,10] x", kinds=["Flatten"]),
    "shuffle": dict(body=SHUFFLE, given="int64[5] s = {0,2,2,9,10}, int64[4] t = {0,-1,9,10}", kinds=["Reshape", "Permute", "Reshape"]),
    "dynamic": dict(body=DYNAMIC, given=DYNAMIC_GIVEN, kinds=["Reshape"]),
    "shape_part": dict(
        body="s = Shape<end=1>(x) t = Concat<axis=0>(s, m) y = Reshape(x, t)", given="int64[1] m = {-1}", kinds=["Flatten"]
    ),
    "squeeze": dict(body="a = GlobalAveragePool(x) y = Squeeze(a, s)", given="int64[2] s = {2,3}", kinds=["GlobalAvgPool", "Flatten"]),
    "squeeze_11": dict(body="a = GlobalAveragePool(x) y = Squeeze<axes=[2,-1]>(a)", opset=11),
    "squeeze_all": dict(body="a = GlobalAveragePool(x) y = Squeeze(a)"),
    "unsqueeze": dict(body="y = Unsqueeze(x, s)", given="int64[2] s = {2,-1}", kinds=["Reshape"]),
    "unsqueeze_11": dict(body="y = Unsqueeze<axes=[1]>(x)", opset=11),
    "transpose": dict(body="y = Transpose<perm=[0,2,3,1]>(x)"),
    "slice": dict(
        body="y = Slice(x, a, b, c, d)", given="int64[3] a = {1,-5,0}, int64[3] b = {9223372036854775807,-1,9}, int64[3] c = {1,3,2}, int64[3] d = {1,2,3}"
    ),
    "slice_default_axes": dict(body="y = Slice(x, a, b)", given="int64[2] a = {0,1}, int64[2] b = {9223372036854775807,3}", kinds=["Slice"]),
    "split": dict(body="a, b = Split<axis=1>(x, s) y = Concat<axis=1>(b, a)", given="int64[2] s = {1,3}"),
    "split_11": dict(body="a, b = Split<axis=2, split=[4,5]>(x) y = Relu(b)", opset=11, kinds=["Slice", "ReLU"]),
    "split_uneven_18": dict(body="a, b = Split<axis=2, num_outputs=2>(x) y = Identity(b)", opset=18),
    "split_first": dict(body="y, b = Split<axis=1>(x)", opset=13, kinds=["Slice"]),
    "output_before_the_last": dict(
        body="a, b = Split<axis=1>(x) c = Relu(b) y = Identity(b) d = Add(a, c)", opset=13, kinds=["Slice"]
    ),
    "gather_range": dict(body="y = Gather<axis=1>(x, i)", given="int64[2] i = {1,3}", kinds=["Slice"]),
    "gather_one": dict(body="y = Gather<axis=2>(x, i)", given="int64 i = {-2}", kinds=["Slice", "Reshape"]),
    "embedding": dict(
        body="a = Gather(w, x) b = Transpose<perm=[0,2,1]>(a) y = Relu(b)", given="float[5,3] w", x="int64[N,6] x", kinds=["Embedding", "Permute", "ReLU"]
    ),
    "embedding_cast": dict(body="c = Cast<to=7>(x) y = Gather(w, c)", given="float[5,3] w", x="int32[N,6] x", kinds=["Embedding"]),
    "pad": dict(body="y = Pad(x, p, c)", given="int64[8] p = {0,0,1,2,0,0,3,0}, float c = {0.5}", kinds=["Pad"]),
    "pad_18": dict(body="y = Pad(x, p, , a)", given="int64[2] p = {1,2}, int64[1] a = {-1}", opset=18, kinds=["Pad"]),
    "resize": dict(body='y = Resize<mode="nearest">(x, , s)', given="float[4] s = {1,1,2,3}", kinds=["Upsample"]),
    "resize_asymmetric": dict(
        body='y = Resize<coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, , s)', given="float[4] s = {1,1,3,1}"
    ),
    "resize_sizes": dict(body='y = Resize<mode="nearest">(x, , , s)', given="int64[4] s = {1,4,27,20}", x="float[1,4,9,10] x"),
    "resize_torch": dict(
        body=RESIZE_AS_TORCH, given="int64[1] zero = {0}, int64[1] two = {2}, int64[1] four = {4}, float[2] factors = {2,2}", kinds=["Upsample"]
    ),
    "expand_nothing": dict(body="s = Shape(x) a = Expand(x, s) y = Relu(a)", kinds=["ReLU"]),
    "constants": dict(
        body="a = Constant<value_floats=[0.5]>() b = Constant<value_float=2.0>() c = Mul(a, b) d = Sqrt(c) y = Mul(x, d)", kinds=["Scale"]
    ),
    "transposed_weight": dict(body="t = Transpose(w) y = Gemm(x, t)", given="float[5,7] w", x="float[N,7] x", kinds=["Linear"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operator_matches_onnxruntime(name: str) -> None:
    case = dict(CASES[name])
    kinds_expected = case.pop("kinds", None)
    proto = model(**case)
    layers = from_onnx(proto)
    x = feed(proto, n=1 if name == "resize_sizes" else 2)
    outputs = expected(proto, x)
    np.testing.assert_allclose(dtd.predict(layers, x), outputs, rtol=1e-5, atol=1e-5)
    if kinds_expected is not None:
        assert kinds(layers) == kinds_expected
