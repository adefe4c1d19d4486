"""ONNX import: every operator against onnxruntime, shape arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

import dtdfast as dtd
from dtdfast import from_onnx
from dtdfast.activations import ACTIVATIONS
from onnx_models import K9, NORM, feed, model, run
from support import kinds

LACKS = {
    "log_sigmoid": "no operator makes it; written out, a logarithm of a sigmoid, it is known",
    "tanh_shrink": "no operator makes it; written out it is a difference",
    "silu": "before opset 24 no operator makes it; written out, a product with its sigmoid, it is known",
}
"""What of the vocabulary no operator makes, and why."""
SHUFFLE = "a = Reshape(x, s) b = Transpose<perm=[0,2,1,3,4]>(a) y = Reshape(b, t)"
DYNAMIC = """
    s = Shape(x) n = Gather(s, zero) h = Gather(s, two) w = Gather(s, three) hw = Mul(h, w)
    a = Unsqueeze(n, first) b = Unsqueeze(hw, first) t = Concat<axis=0>(a, minus, b) y = Reshape(x, t)
"""  # x.view(x.shape[0], -1, x.shape[2] * x.shape[3]), as it is exported
DYNAMIC_GIVEN = "int64 zero = {0}, int64 two = {2}, int64 three = {3}, int64[1] first = {0}, int64[1] minus = {-1}"
RESIZE_AS_TORCH = """
    s = Shape(x) space = Slice(s, two, four) wide = Cast<to=1>(space) larger = Mul(wide, factors)
    back = Cast<to=7>(larger) head = Slice(s, zero, two) sizes = Concat<axis=0>(head, back)
    y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, , , sizes)
"""

CASES: dict[str, dict[str, Any]] = {  # one graph each; `kinds` where the records themselves matter
    "conv": dict(body="y = Conv(x, w, b)", given=K9),
    "conv_geometry": dict(
        body="y = Conv<strides=[2,1], dilations=[1,2], pads=[0,1,2,3], group=2, kernel_shape=[3,3]>(x, w)",
        given="float[6,2,3,3] w",
    ),
    "conv_same_upper": dict(
        body='y = Conv<auto_pad="SAME_UPPER", strides=[2,3]>(x, w, b)', given="float[6,4,3,4] w, float[6] b"
    ),
    "conv_same_lower": dict(
        body='y = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, w, b)', given="float[6,4,4,2] w, float[6] b"
    ),
    "conv_valid": dict(body='y = Conv<auto_pad="VALID">(x, w, b)', given=K9),
    "conv_1d": dict(body="y = Conv<pads=[1,2]>(x, w)", given="float[6,4,3] w", x="float[N,4,9] x"),
    "conv_3d": dict(body="y = Conv<strides=[1,2,1]>(x, w)", given="float[6,2,3,2,1] w", x="float[N,2,4,5,3] x"),
    "conv_then_shift": dict(
        body="a = Conv(x, w) y = Add(a, b)", given="float[6,4,3,3] w, float[6,1,1] b", kinds=["Conv"]
    ),
    "transposed": dict(
        body="y = ConvTranspose<strides=[2,3], pads=[1,0,0,2], output_padding=[1,2], group=2>(x, w, b)",
        given="float[4,3,3,4] w, float[6] b",
    ),
    "transposed_to_shape": dict(
        body="y = ConvTranspose<strides=[2,2], output_shape=[18,21]>(x, w)", given="float[4,3,3,4] w"
    ),
    "transposed_same": dict(
        body='y = ConvTranspose<strides=[2,2], auto_pad="SAME_UPPER">(x, w)', given="float[4,3,3,3] w"
    ),
    "transposed_same_lower": dict(
        body='y = ConvTranspose<strides=[2,2], auto_pad="SAME_LOWER">(x, w)', given="float[4,3,3,3] w"
    ),
    "gemm": dict(
        body="y = Gemm<alpha=0.5, beta=2.0, transB=1>(x, w, c)",
        given="float[5,7] w, float[5] c",
        x="float[N,7] x",
        kinds=["Linear"],
    ),
    "gemm_one_c": dict(
        body="y = Gemm(x, w, c)", given="float[7,5] w, float[1,1] c", x="float[N,7] x", kinds=["Linear"]
    ),
    "matmul_add": dict(
        body="a = MatMul(x, w) y = Add(b, a)", given="float[7,5] w, float[5] b", x="float[N,7] x", kinds=["Linear"]
    ),
    "matmul_read_twice": dict(
        body="a = MatMul(x, w) c = Add(b, a) y = Add(a, c)",
        given="float[7,5] w, float[5] b",
        x="float[N,7] x",
        kinds=["Linear", "Scale", "Add"],
    ),
    "batch_norm": dict(body="y = BatchNormalization<epsilon=0.01, momentum=0.8>(x, g, b, m, v)", given=NORM),
    "batch_norm_folds": dict(
        body="a = Conv<pads=[1,1,1,1]>(x, w) y = BatchNormalization(a, g, b, m, v)",
        given=NORM + ", float[4,4,3,3] w",
        kinds=["Conv", "BatchNorm"],
    ),
    "lrn": dict(body="y = LRN<size=3, alpha=0.2, beta=0.6, bias=1.5>(x)"),
    "max_pool": dict(body="y = MaxPool<kernel_shape=[3,2], strides=[2,1], pads=[1,0,1,1], dilations=[1,2]>(x)"),
    "max_pool_stride_one": dict(body="y = MaxPool<kernel_shape=[2,2]>(x)"),
    "max_pool_ceil": dict(body="y = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x)"),
    "max_pool_ceil_dropped": dict(
        body="y = MaxPool<kernel_shape=[1,1], strides=[4,4], ceil_mode=1, pads=[0,0,0,0]>(x)"
    ),
    "max_pool_same": dict(body='y = MaxPool<kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_LOWER">(x)'),
    "average_pool": dict(body="y = AveragePool<kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,1]>(x)"),
    "average_pool_padded": dict(
        body="y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], count_include_pad=1>(x)"
    ),
    "average_pool_same": dict(body='y = AveragePool<kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER">(x)'),
    "average_pool_ceil": dict(body="y = AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(x)"),
    "global_average_pool": dict(body="y = GlobalAveragePool(x)"),
    "global_max_pool": dict(body="y = GlobalMaxPool(x)"),
    "reduce_mean": dict(body="y = ReduceMean<axes=[2,3], keepdims=0>(x)", kinds=["GlobalAvgPool", "Flatten"]),
    "reduce_mean_kept": dict(body="y = ReduceMean<axes=[-1,-2]>(x)", opset=13, kinds=["GlobalAvgPool"]),
    "reduce_mean_18": dict(
        body="y = ReduceMean<keepdims=0>(x, a)",
        given="int64[2] a = {2,3}",
        opset=18,
        kinds=["GlobalAvgPool", "Flatten"],
    ),
    "reduce_mean_rows": dict(body="y = ReduceMean<axes=[3], keepdims=0>(x)", kinds=["Reduce"]),
    "reduce_max": dict(body="y = ReduceMax<axes=[2], keepdims=0>(x)", x="float[N,4,9] x", kinds=["Reduce"]),
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
    "clip": dict(body="y = Clip(x, a, b)", given="float a = {0.0}, float b = {0.5}", kinds=["clip"]),
    "clip_as_relu": dict(body="y = Clip(x, a)", given="float a = {0.0}", kinds=["ReLU"]),
    "clip_nothing": dict(body="a = Clip(x) y = Relu(a)", kinds=["ReLU"]),
    "clip_from_above": dict(body="y = Clip(x, , b)", given="float b = {0.5}", kinds=["Scale", "ReLU", "Scale"]),
    "clip_from_below": dict(body="y = Clip(x, a)", given="float a = {-0.5}", kinds=["Scale", "ReLU", "Scale"]),
    "prelu": dict(body="y = PRelu(x, s)", given="float[4,1,1] s", kinds=["prelu"]),
    "prelu_of_one": dict(body="y = PRelu(x, s)", given="float[1] s = {0.3}", kinds=["leaky_relu"]),
    "prelu_of_elements": dict(body="y = PRelu(x, s)", given="float[9] s", x="float[N,4,9] x", kinds=["prelu"]),
    "selu": dict(body="y = Selu(x)", kinds=["selu"]),
    "celu": dict(body="y = Celu<alpha=0.5>(x)", opset=12, kinds=["celu"]),
    "mish": dict(body="y = Mish(x)", opset=18, kinds=["mish"]),
    "mish_written_out": dict(body="a = Softplus(x) b = Tanh(a) y = Mul(x, b)", kinds=["mish"]),
    "thresholded_relu": dict(body="y = ThresholdedRelu<alpha=0.2>(x)", kinds=["threshold"]),
    "softsign": dict(body="y = Softsign(x)", kinds=["softsign"]),
    "hard_shrink": dict(body="y = Shrink<lambd=0.3>(x)", kinds=["hard_shrink"]),
    "soft_shrink": dict(body="y = Shrink<lambd=0.3, bias=0.3>(x)", kinds=["soft_shrink"]),
    "hard_swish_written_out": dict(
        body="a = Add(x, t) b = Clip(a, z, s) c = Mul(x, b) y = Div(c, s)",
        given="float t = {3}, float z = {0}, float s = {6}",
        kinds=["hard_swish"],
    ),
    "gate_of_1_and_sigmoid": dict(
        body="a = Sigmoid(x) g = Add(a, o) b = Tanh(x) y = Mul(b, g)",
        given="float o = {1}",
        kinds=["sigmoid", "Scale", "tanh", "Mul"],
    ),
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
    "identity": dict(
        body="a = Identity(x) b = Dropout(a) c = Cast<to=1>(b) d = Relu(c) y = Identity(d)", kinds=["ReLU"]
    ),
    "flatten": dict(body="y = Flatten(x)", kinds=["Flatten"]),
    "flatten_negative": dict(body="y = Flatten<axis=-3>(x)", kinds=["Flatten"]),
    "reshape_copy": dict(body="y = Reshape(x, s)", given="int64[2] s = {0,-1}", kinds=["Flatten"]),
    "reshape_free_batch": dict(body="y = Reshape(x, s)", given="int64[2] s = {-1,360}", kinds=["Flatten"]),
    "reshape_split": dict(body="y = Reshape(x, s)", given="int64[3] s = {0,0,90}", kinds=["Reshape"]),
    "reshape_fixed_batch": dict(
        body="y = Reshape(x, s)", given="int64[2] s = {2,360}", x="float[2,4,9,10] x", kinds=["Flatten"]
    ),
    "shuffle": dict(
        body=SHUFFLE,
        given="int64[5] s = {0,2,2,9,10}, int64[4] t = {0,-1,9,10}",
        kinds=["Reshape", "Permute", "Reshape"],
    ),
    "dynamic": dict(body=DYNAMIC, given=DYNAMIC_GIVEN, kinds=["Reshape"]),
    "shape_part": dict(
        body="s = Shape<end=1>(x) t = Concat<axis=0>(s, m) y = Reshape(x, t)",
        given="int64[1] m = {-1}",
        kinds=["Flatten"],
    ),
    "squeeze": dict(
        body="a = GlobalAveragePool(x) y = Squeeze(a, s)",
        given="int64[2] s = {2,3}",
        kinds=["GlobalAvgPool", "Flatten"],
    ),
    "squeeze_11": dict(body="a = GlobalAveragePool(x) y = Squeeze<axes=[2,-1]>(a)", opset=11),
    "squeeze_all": dict(body="a = GlobalAveragePool(x) y = Squeeze(a)"),
    "unsqueeze": dict(body="y = Unsqueeze(x, s)", given="int64[2] s = {2,-1}", kinds=["Reshape"]),
    "unsqueeze_11": dict(body="y = Unsqueeze<axes=[1]>(x)", opset=11),
    "transpose": dict(body="y = Transpose<perm=[0,2,3,1]>(x)"),
    "slice": dict(
        body="y = Slice(x, a, b, c, d)",
        given="int64[3] a = {1,-5,0}, int64[3] b = {9999999999,-1,9}, int64[3] c = {1,3,2}, int64[3] d = {1,2,3}",
    ),
    "bias_of_a_layer_read_elsewhere": dict(
        body="a = Conv(x, w) b = Identity(a) c = Add(b, k) d = Relu(a) y = Add(c, d)",
        given="float[6,4,3,3] w, float[6,1,1] k",
        kinds=["Conv", "Scale", "ReLU", "Add"],
    ),
    "matmul_along_the_last_axis": dict(
        body="a = MatMul(x, w) b = Add(a, k) y = Relu(b)",
        given="float[10,5] w, float[5] k",
        kinds=["Linear", "ReLU"],
    ),
    "constant_along_the_last_axis": dict(body="y = Mul(x, c)", given="float[10] c", kinds=["Scale"]),
    "constant_along_a_middle_axis": dict(body="y = Sub(c, x)", given="float[9,1] c", kinds=["Scale"]),
    "mean_of_rows_channels_last": dict(body="y = ReduceMean<axes=[1,2], keepdims=0>(x)", kinds=["Reduce"]),
    "mean_of_channels": dict(body="y = ReduceMean<axes=[1]>(x)", kinds=["Reduce"]),
    "pad_channels_last": dict(
        body="y = Pad(x, p)", given="int64[8] p = {0,1,2,0,0,3,0,0}", kinds=["Permute", "Pad", "Permute"]
    ),
    "permutes_that_cancel": dict(
        body="a = Transpose<perm=[0,2,3,1]>(x) b = Transpose<perm=[0,3,1,2]>(a) y = Relu(b)", kinds=["ReLU"]
    ),
    "permutes_that_join": dict(
        body="a = Transpose<perm=[0,2,3,1]>(x) b = Transpose<perm=[0,2,3,1]>(a) y = Relu(b)", kinds=["Permute", "ReLU"]
    ),
    "slice_default_axes": dict(
        body="y = Slice(x, a, b)", given="int64[2] a = {0,1}, int64[2] b = {9223372036854775807,3}", kinds=["Slice"]
    ),
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
        body="a = Gather(w, x) b = Transpose<perm=[0,2,1]>(a) y = Relu(b)",
        given="float[5,3] w",
        x="int64[N,6] x",
        kinds=["Embedding", "Permute", "ReLU"],
    ),
    "embedding_cast": dict(
        body="c = Cast<to=7>(x) y = Gather(w, c)", given="float[5,3] w", x="int32[N,6] x", kinds=["Embedding"]
    ),
    "pad": dict(body="y = Pad(x, p, c)", given="int64[8] p = {0,0,1,2,0,0,3,0}, float c = {0.5}", kinds=["Pad"]),
    "pad_18": dict(body="y = Pad(x, p, , a)", given="int64[2] p = {1,2}, int64[1] a = {-1}", opset=18, kinds=["Pad"]),
    "resize": dict(body='y = Resize<mode="nearest">(x, , s)', given="float[4] s = {1,1,2,3}", kinds=["Upsample"]),
    "resize_asymmetric": dict(
        body='y = Resize<coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, , s)',
        given="float[4] s = {1,1,3,1}",
    ),
    "resize_sizes": dict(
        body='y = Resize<mode="nearest">(x, , , s)', given="int64[4] s = {1,4,27,20}", x="float[1,4,9,10] x"
    ),
    "resize_torch": dict(
        body=RESIZE_AS_TORCH,
        given="int64[1] zero = {0}, int64[1] two = {2}, int64[1] four = {4}, float[2] factors = {2,2}",
        kinds=["Upsample"],
    ),
    "expand_nothing": dict(body="s = Shape(x) a = Expand(x, s) y = Relu(a)", kinds=["ReLU"]),
    "constants": dict(
        body="a = Constant<value_floats=[0.5]>() b = Constant<value_float=4.0>() c = Mul(a, b) d = Sqrt(c) y = Mul(x, "
        "d)",
        kinds=["Scale"],
    ),
    "transposed_weight": dict(
        body="t = Transpose(w) y = Gemm(x, t)", given="float[5,7] w", x="float[N,7] x", kinds=["Linear"]
    ),
    "tensor_matmul": dict(body="y = MatMul(x, w)", given="float[4,10,5] w"),
    "whole_mean": dict(body="y = ReduceMean<axes=[1,2,3]>(x)"),
    "whole_pad": dict(body="y = Pad(x, p)", given="int64[8] p = {0,1,0,0,0,0,0,1}"),
    "minimum": dict(body="y = Min(x, c)", given="float c = {6}"),
    "maximum": dict(body="y = Max(x, c)", given="float c = {1}"),
    "positions": dict(body="y = Add(x, c)", given="float[9,10] c"),
    "difference": dict(body="a = Relu(x) y = Sub(a, x)"),
    "abs": dict(body="y = Abs(x)"),
    "softmax_11_joined": dict(body="y = Softmax<axis=1>(x)", opset=11),
    "backwards": dict(body="y = Slice(x, a, b, c, a)", given="int64[1] a = {-1}, int64[1] b = {-9}, int64[1] c = {1}"),
    "uneven_indices": dict(body="y = Gather<axis=1>(x, i)", given="int64[3] i = {0,1,3}"),
    "reflect": dict(body='y = Pad<mode="reflect">(x, p)', given="int64[8] p = {0,0,1,1,0,0,1,1}"),
    "linear_resize": dict(body='y = Resize<mode="linear">(x, , s)', given="float[4] s = {1,1,2,2}"),
    "fractional_resize": dict(body="y = Resize(x, , s)", given="float[4] s = {1,1,1.5,2}"),
    "shifted_resize": dict(
        body='y = Resize<coordinate_transformation_mode="align_corners">(x, , s)', given="float[4] s = {1,1,2,2}"
    ),
    "old_opset": dict(body="y = Relu(x)", opset=10),
    "a constant of the batch": dict(body="s = Shape(x) c = ConstantOfShape<value=float[1] {2.0}>(s) y = Add(x, c)"),
    "nothing": dict(body="y = Identity(x)"),
    "slice_9": dict(body="y = Slice<axes=[2,3], starts=[1,-5], ends=[100,-1]>(x)", opset=9),
    "pad_9": dict(body="y = Pad<pads=[0,0,1,2,0,0,0,1], value=0.5>(x)", opset=9),
    "clip_9": dict(body="y = Clip<min=-0.5, max=0.25>(x)", opset=9),
    "squeeze_9": dict(body="a = Unsqueeze<axes=[2]>(x) b = Relu(a) y = Squeeze<axes=[2]>(b)", opset=9),
    "upsample_9": dict(body="y = Upsample(x, s)", given="float[4] s = {1,1,2,3}", opset=9),
    "upsample_7": dict(body='y = Upsample<mode="nearest", scales=[1.0,1.0,2.0,2.0]>(x)', opset=7),
    "upsample_linear_9": dict(body='y = Upsample<mode="linear">(x, s)', given="float[4] s = {1,1,2,2}", opset=9),
    "reduce_sum_11": dict(body="y = ReduceSum<axes=[1,3], keepdims=0>(x)", opset=11),
    "batch_norm_7": dict(body="y = BatchNormalization<epsilon=0.01>(x, g, b, m, v)", given=NORM, opset=7),
    "dropout_7": dict(body="a = Relu(x) y = Dropout<ratio=0.5>(a)", opset=7),
    "max_pool_8": dict(body="y = MaxPool<kernel_shape=[2,3], strides=[2,1], pads=[0,1,1,1]>(x)", opset=8),
    "average_pool_7": dict(body="y = AveragePool<kernel_shape=[2,3], pads=[1,1,0,1], count_include_pad=1>(x)", opset=7),
    "gemm_7": dict(
        body="f = Flatten(x) y = Gemm<alpha=0.5, transB=1>(f, w, b)", given="float[5,360] w, float[5] b", opset=7
    ),
    "resize_10": dict(body="y = Resize(x, s)", given="float[4] s = {1,1,2,2}", opset=10),
    "prelu_7": dict(body="y = PRelu(x, s)", given="float[4,1,1] s", opset=7),
    "softmax_7": dict(body="f = Flatten(x) y = Softmax(f)", opset=7),
}


def test_the_vocabulary_of_activations() -> None:
    """Each is made by some operator, or is said to be lacking."""
    made = {key for key, case in CASES.items() if "kinds" not in case} | {
        kind for case in CASES.values() for kind in case.get("kinds", ())
    }
    assert ACTIVATIONS.keys() - made - {"silu"} == LACKS.keys() - {"silu"}


@pytest.mark.parametrize("name", CASES)
def test_operator_matches_onnxruntime(name: str) -> None:
    case = dict(CASES[name])
    kinds_expected = case.pop("kinds", None)
    proto = model(**case)
    layers = from_onnx(proto)
    x = feed(proto, n=1 if name == "resize_sizes" else 2)
    outputs = run(proto, x)
    np.testing.assert_allclose(dtd.predict(layers, x), outputs, rtol=1e-5, atol=1e-5)
    if kinds_expected is not None:
        assert kinds(layers).split() == kinds_expected


def test_lrn_of_even_size_matches_the_reference() -> None:
    """An even window reaches further after than before; onnxruntime takes odd ones only."""
    proto = model("y = LRN<size=4, alpha=0.2>(x)")
    x = feed(proto, n=4)  # as many as channels, since the reference takes the one for the other
    (outputs,) = ReferenceEvaluator(proto).run(None, {"x": x})
    np.testing.assert_allclose(dtd.predict(from_onnx(proto), x), outputs, rtol=1e-5, atol=1e-6)


def test_names_are_those_of_the_nodes() -> None:
    proto = model("a = Relu(x) y = Tanh(a)")
    proto.graph.node[0].name = "first"
    assert [record.name for record in from_onnx(proto)] == ["first", "y"]


def test_explains_like_the_same_list_by_hand() -> None:
    proto = model("a = Conv(x, w, b) c = Relu(a) p = GlobalAveragePool(c) f = Flatten(p) y = Softmax(f)", given=K9)
    stored = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    by_hand = [dtd.Conv(stored["w"], stored["b"]), dtd.ReLU(), dtd.GlobalAvgPool(), dtd.Flatten()]
    x = feed(proto)
    np.testing.assert_array_equal(dtd.explain(from_onnx(proto), x), dtd.explain(by_hand, x))
    ledger = dtd.Explainer(from_onnx(proto)).ledger(x)
    assert ledger.closed, ledger
