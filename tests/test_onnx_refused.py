"""ONNX import: what is refused, each with its reason, and what merely needs another argument."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast import BackendError, ModelError, from_onnx
from dtdfast.importers.onnx.importer import OnnxModel
from onnx_models import K9, NORM, feed, model, run
from support import kinds

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "operator": (dict(body="y = Erf(x)"), r"node 0 \(Erf\): this operator has no record"),
    "foreign_domain": (dict(body="y = com.microsoft.FusedConv(x, x)"), "operators of the domain 'com.microsoft'"),
    "control_flow": (dict(body="c = Constant<value_int=1>() y = Loop(c, , x)"), r"node 1 \(Loop\): control flow"),
    "quantised": (
        dict(body="y = DequantizeLinear(x, s)", given="float s = {1}"),
        "quantised operations have no record; import the",
    ),
    "two_operators": (dict(body="a = Round(x) b = Relu(a) y = Hardmax(b)"), r"node 0 \(Round\).*; node 2 \(Hardmax\)"),
    "computed_weight": (dict(body="a = Relu(x) y = Conv(x, a)"), "its weight .* depends on the network's input"),
    "weight_rank": (dict(body="y = Conv(x, w)", given="float[6,4,3] w"), "its input has 2 spatial axes"),
    "kernel_shape": (dict(body="y = Conv<kernel_shape=[5,5]>(x, w)", given="float[6,4,3,3] w"), "kernel_shape differs"),
    "channels": (dict(body="y = Conv(x, w)", given="float[6,5,3,3] w"), "expects 5 channels; its input has 4"),
    "negative_pads": (dict(body="y = Conv<pads=[0,-1,0,0]>(x, w)", given="float[6,4,3,3] w"), "padding"),
    "zero_stride": (dict(body="y = MaxPool<kernel_shape=[2,2], strides=[0,1]>(x)"), "must be positive"),
    "attribute_type": (dict(body="y = LeakyRelu<alpha=[1,2]>(x)"), "attribute alpha is"),
    "unknown_attribute": (dict(body="y = Relu<slope=2>(x)"), "attribute slope of this operator is not known"),
    "auto_pad": (dict(body='y = MaxPool<kernel_shape=[2,2], auto_pad="SOME">(x)'), "auto_pad is 'SOME'"),
    "dilated_same": (
        dict(body='y = MaxPool<kernel_shape=[2,2], dilations=[2,2], auto_pad="SAME_LOWER">(x)'),
        "no one meaning for a pool",
    ),
    "winners": (
        dict(body="y, i = MaxPool<kernel_shape=[2,2]>(x) z = Cast<to=1>(i)", y="float[] z"),
        "positions of the winners",
    ),
    "training_norm": (dict(body="y = BatchNormalization<training_mode=1>(x, g, b, m, v)", given=NORM), "training mode"),
    "trained": (dict(body="y, a, c = BatchNormalization(x, g, b, m, v)", given=NORM, opset=9), "training mode"),
    "training_dropout": (dict(body="y = Dropout(x, , t)", given="bool t = {1}"), "training mode"),
    "transposed_a": (dict(body="y = Gemm<transA=1>(x, w)", given="float[7,5] w", x="float[7,7] x"), "mix the samples"),
    "lstm": (
        dict(body="y = LSTM<hidden_size=2>(x, w, w)", given="float[1,8,2] w", x="float[3,4,5] x"),
        "recurrence has no record",
    ),
    "forbidden_outputs": (
        dict(
            body="l = Log(z) r = Relu(x) y = Where(c, r, l)",
            given="bool[3] c = {1, 0, 1}, float z = {0}",
            x="float[N,3] x",
        ),
        "the model's output: it fills in infinity",
    ),
    "erf": (dict(body="a = Erf(x) y = Mul(a, x)"), r"node 0 \(Erf\): this operator has no record"),
    "root_of_another_row": (
        dict(
            body="q = Mul(x, x) v = ReduceMean<axes=[2], keepdims=0>(q) w = Unsqueeze(v, o) s = Sqrt(w) "
            "t = Expand(s, e) y = Div(x, t)",
            given="int64[1] o={1}, int64[3] e={1,5,5}",
            x="float[N,5,5] x",
            opset=13,
        ),
        "no known activation or norm",
    ),
    "number_per_sample": (
        dict(body="a = ReduceMax<axes=[1], keepdims=0>(x) y = Sub(x, a)", x="float[N,1] x", opset=13),
        "one number per sample meets a value of more axes",
    ),
    "largest_of_numbers_per_sample": (
        dict(body="a = ReduceMax<axes=[1], keepdims=0>(x) y = Max(x, a)", x="float[N,1] x", opset=13),
        "do not meet sample by sample",
    ),
    "choice_of_numbers_per_sample": (
        dict(
            body="a = ReduceMax<axes=[1], keepdims=0>(x) y = Where(m, x, a)",
            given="bool m = {1}",
            x="float[N,1] x",
            opset=13,
        ),
        "do not meet sample by sample",
    ),
    "wider_constant": (
        dict(body="a = Exp(x) b = Add(a, o) y = Div(x, b)", given="float[3,1] o={1,1,1}", x="float[N,1,4] x"),
        "no known activation or norm",
    ),
    "exponent_with_more_axes": (dict(body="y = Pow(x, o)", given="float[1,1,1] o={2}", x="float[N,4] x"), "fewer axes"),
    "quotient": (dict(body="y = Div(c, x)", given="float c = {1}"), "division by what is computed has no record"),
    "divide_by_zero": (dict(body="y = Div(x, c)", given="float c = {0}"), "divides by zero"),
    "shrink": (dict(body="y = Shrink<lambd=0.3, bias=0.1>(x)"), "bias=0.1 have no record"),
    "batch_reshape": (
        dict(body="y = Reshape(x, s)", given="int64[2] s = {-1, 10}"),
        "batch axis at place 0, merged with others",
    ),
    "batch_flatten": (dict(body="y = Flatten<axis=2>(x)"), "batch axis at place 0, merged with others"),
    "batch_transpose": (dict(body="y = Transpose(x)"), "has the batch axis at place 3"),
    "batch_squeeze": (dict(body="y = Squeeze(x)", x="float[1,4,9] x"), "batch axis at place 0, merged with others"),
    "batch_unsqueeze": (
        dict(body="y = Unsqueeze(x, s)", given="int64[1] s = {0}"),
        "batch axis at place 1; bring it back",
    ),
    "batch_slice": (
        dict(body="y = Slice(x, a, b)", given="int64[1] a = {0}, int64[1] b = {1}"),
        "along the batch axis",
    ),
    "batch_concat": (dict(body="y = Concat<axis=0>(x, x)"), "along the batch axis"),
    "batch_mean": (dict(body="y = ReduceMean(x)"), "reduces all axes"),
    "computed_indices": (dict(body="a = Relu(x) y = Gather(w, a)", given="float[5,3] w"), "its indices are computed"),
    "integer_arithmetic": (dict(body="y = Add(x, x)", x="int64[N,6] x"), "only Gather .* can"),
    "huge_resize": (dict(body="y = Resize(x, , s)", given="float[4] s = {1,1,1000000,1000000}"), "elements"),
    "repeat": (dict(body="y = Expand(x, s)", given="int64[5] s = {3,1,1,1,1}"), "only axes of size 1 behind the batch"),
    "unknown_name": (dict(body="y = Add(x, nowhere)"), "'nowhere', which no node before it"),
    "cycle": (dict(body="a = Add(x, b) b = Relu(a) y = Relu(b)"), "'b', which no node before it"),
    "twice": (dict(body="a = Relu(x) a = Tanh(x) y = Relu(a)"), "'a' a second time"),
    "nan": (dict(body="y = Mul(x, c)", given="float c = {nan}"), "NaN or infinity"),
    "wrong_output": (
        dict(body="y = Flatten(x)", y="float[N,12] y"),
        r"declared as \(\?, 12\), but its nodes make \(\?, 360\)",
    ),
    "constant_output": (dict(body="y = Identity(c)", given="float[4] c"), "does not depend on its input"),
    "an input of one axis": (
        dict(body="y = Add(x, z)", x="float[N,4] x, float[4] z"),
        r"input 'z' is declared as \(4\), expected \(n, ...\)",
    ),
    "an input without a size": (
        dict(body="y = Add(x, z)", x="float[N,4] x, float[N,M] z"),
        r"input 'z' is declared as \(\?, \?\)",
    ),
    "inputs of two batches": (
        dict(body="y = Add(x, z)", x="float[2,4] x, float[3,4] z"),
        "'z' has 3 samples, the first input has 2",
    ),
    "an input of another type": (
        dict(body="z2 = CastLike(z, x) y = Add(x, z2)", x="float[N,4] x, uint8[N,4] z"),
        "'z' has element type uint8",
    ),
    "a mask as an index": (
        dict(body="i = Cast<to=7>(z) y = Gather<axis=1>(x, i)", x="float[N,4] x, bool[N,4] z"),
        r"its table \(input 0\) depends",
    ),
    "a mask compared with a mask": (
        dict(body="e = Equal(z, z) y = Where(e, x, low)", given="float low = {-1e9}", x="float[N,4] x, int64[N,4] z"),
        "compares a mask with something else than a number",
    ),
    "numbers added to a hiding mask": (
        dict(
            body="h = Where(z, zero, low) a = Add(h, one) b = Add(x, a) y = Softmax(b)",
            given="float zero = {0}, float low = {-inf}, float one = {1}",
            x="float[N,4] x, bool[N,4] z",
        ),
        "adds numbers to a mask",
    ),
    "two_outputs": (
        dict(body="y = Relu(x) z = Tanh(x)", y="float[] y, float[] z"),
        r"returns 2 tensors: 0 \('y'\), 1 \('z'\); choose one",
    ),
    "byte_input": (dict(body="y = Cast<to=1>(x)", x="uint8[N,4] x"), "expected floats"),
    "open_space": (
        dict(body="y = Relu(x)", x="float[N,4,H,W] x"),
        r"declared as \(\?, 4, \?, \?\); say the rest: sample_shape=",
    ),
    "no_shape": (dict(body="y = Relu(x)", x="float[] x"), "unknown shape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_its_reason(name: str) -> None:
    case, message = REFUSED[name]
    with pytest.raises(ModelError, match=message):
        from_onnx(model(**case))


ROWS, WORDS, HEADS = "float[N,5,7] x", "int64[N,5] x", "float[N,2,6,4] x"
ONE = "float[1,4,9,10] x"
CROP = 'y = Resize<mode="linear", coordinate_transformation_mode="tf_crop_and_resize">'
TURNED = "a = Transpose<perm=[1,0,2]>(x) "

MISFITS: dict[str, tuple[str, str, str, dict[str, Any]]] = {  # operator and what is wrong: graph, constants, message
    "Transpose perm": ("y = Transpose<perm=[0,1]>(x)", "", r"perm is \(0, 1\), but its input has 4 axes", {}),
    "Transpose integers": (
        "a = Transpose<perm=[0,2,1]>(x) y = Gather(w, a)", "float[9,4] w", "integer input, which only Gather",
        dict(x="int64[N,5,3] x"),
    ),
    "Softmax of constants": (
        "a = Softmax<axis=0>(w) y = Add(x, a)", "float[9,10] w", "among the operators that are computed", dict(opset=11)
    ),
    "Sub of constants": (
        "a = Sub<broadcast=1, axis=0>(w, v) y = Add<broadcast=1>(x, a)", "float[3,3] w, float[3] v",
        "among the operators that are computed", dict(opset=6, x="float[N,3,3] x"),
    ),
    "CastLike of nothing": ('a = Relu(x) y = CastLike("", a)', "", r"node 1 \(CastLike\): its input is missing", {}),
    "CastLike of nothing turned": (
        TURNED + 'y = CastLike(x, "")', "", "its second input is missing", dict(x=ROWS),
    ),
    "Dropout mask": ("a, m = Dropout(x) b = Cast<to=1>(m) y = Add(a, b)", "", "its mask is read", {}),
    "Concat rank": ("y = Concat<axis=1>(x, c)", "float[5,7] c", r"\(5, 7\) lies beside \('n', 5, 7\)$", dict(x=ROWS)),
    "Concat batch": ("y = Concat<axis=1>(x, c)", "float[1,5,7] c", "not repeated along the batch", dict(x=ROWS)),
    "Reshape without": ('y = Reshape(x, "")', "", "its shape is missing", {}),
    "Reshape of a constant": ("y = Reshape(w, x)", "float[2,3] w", "its input is a constant", dict(x="int64[N,2] x")),
    "Reshape two open": ("y = Reshape(x, s)", "int64[2] s = {-1,-1}", r"its shape is \(-1, -1\)", {}),
    "Reshape other size": ("y = Reshape(x, s)", "int64[2] s = {0,7}", r"shape \(0, 7\) does not fit its input", {}),
    "Squeeze size": ("y = Squeeze(x, s)", "int64[1] s = {1}", "are not all of size 1", {}),
    "Squeeze axis": ("y = Squeeze(x, s)", "int64[1] s = {6}", "axis is 6, but its", dict(x="float[N,4,1] x")),
    "Unsqueeze without": ('y = Unsqueeze(x, "")', "", "its axes are missing", {}),
    "Unsqueeze axis": ("y = Unsqueeze(x, s)", "int64[1] s = {7}", r"axes are \(7,\), but its result has 5 axes", {}),
    "Unsqueeze twice": ("y = Unsqueeze(x, s)", "int64[2] s = {1,-5}", "but its result has 6 axes", {}),
    "Flatten axis": ("y = Flatten<axis=9>(x)", "", "axis is 9, but its input has 4", {}),
    "Expand without": ('y = Expand(x, "")', "", "its shape is missing", {}),
    "Expand computed": ("a = Exp(x) y = Expand(x, a)", "", r"node 0 \(Exp\): this operator has no record", {}),
    "Tile batch": ("y = Tile(x, r)", "int64[4] r = {2,1,1,1}", "only axes behind the batch can be repeated", {}),
    "DepthToSpace block": ("y = DepthToSpace<blocksize=3>(x)", "", "blocksize 3, mode 'DCR' and 4 channels", {}),
    "DepthToSpace rank": ("y = DepthToSpace<blocksize=1>(x)", "", r"expected \(n, channels, height", dict(x=ROWS)),
    "SpaceToDepth block": ("y = SpaceToDepth<blocksize=4>(x)", "", "an image of 9 x 10 do not fit", {}),
    "Slice without": ('y = Slice(x, a, "")', "int64[1] a = {1}", "its starts or ends are missing", {}),
    "Slice lengths": ("y = Slice(x, a, b)", "int64[1] a = {1}, int64[2] b = {2,3}", "differ in length", {}),
    "Slice step": ("y = Slice(x, a, a, a, z)", "int64[1] a = {1}, int64[1] z = {0}", "its step along axis 1 is 0", {}),
    "Slice axis": ("y = Slice(x, a, a, b)", "int64[1] a = {1}, int64[1] b = {-9}", "axis is -9, but", {}),
    "Split count": ("y, z = Split<axis=1, num_outputs=3>(x)", "", "num_outputs is 3, but it has 2", dict(opset=18)),
    "Gather axis": ("y = Gather<axis=1>(w, x)", "float[9,4] w", "an embedding has rows along axis 0", dict(x=WORDS)),
    "Gather beyond": ("y = Gather<axis=1>(x, i)", "int64[2] i = {0,4}", "integers within axis 1 of size 4", {}),
    "Gather many": (
        "i = ConstantOfShape<value=int64[1]{0}>(s) y = Gather<axis=1>(x, i)", "int64[1] s = {1048577}",
        "it picks 1048577 elements", {},
    ),
    "GatherElements floats": ("y = GatherElements<axis=1>(x, i)", "float[1,1,1,1] i", r"expected at most \d+ integers",
                              dict(x=ONE)),
    "GatherElements beyond": ("y = GatherElements<axis=1>(x, i)", "int64[1,1,1,1] i = {7}", "within axis 1 of size 4",
                              dict(x=ONE)),
    "Compress without": ("y = Compress(x, i)", "bool[2] i = {0,1}", "without an axis it flattens the batch", {}),
    "Compress beyond": ("y = Compress<axis=1>(x, i)", "bool[5] i = {0,1,0,0,1}", "names element 4 of axis 1", {}),
    "Trilu rank": ("y = Trilu(x)", "", "the batch may not be an axis of the triangle", dict(x="float[N,7] x")),
    "Pad count": ("y = Pad(x, p)", "int64[4] p = {0,0,0,0}", r"expected two per axis \(4\)", {}),
    "Pad mode": ('y = Pad<mode="twice">(x, p)', "int64[8] p = {0,0,1,0,0,0,0,0}", "mode 'twice' has no record", {}),
    "Pad batch": ("y = Pad(x, p)", "int64[8] p = {1,0,1,0,0,0,0,0}", "it pads the batch", {}),
    "Pad axis": ('y = Pad(x, p, "", a)', "int64[2] p = {1,2}, int64[1] a = {9}", "axis is 9", dict(opset=18)),
    "CenterCropPad sizes": ("y = CenterCropPad(x, s)", "int64[3] s = {1,2,3}", r"shape is \(1, 2, 3\) for axes",
                            dict(opset=18)),
    "CenterCropPad axis": ("y = CenterCropPad<axes=[9]>(x, s)", "int64[1] s = {12}", "axis is 9", dict(opset=18)),
    "CenterCropPad batch": ("y = CenterCropPad<axes=[0]>(x, s)", "int64[1] s = {12}", "along the batch axis",
                            dict(opset=18)),
    "Resize crop scales": (CROP + "(x, r, s)", "float[8] r = {0,0,0,0,1,1,1,1}, float[4] s = {1,1,0.7,0.7}",
                           "from 9 to 6.3 elements has no one meaning", dict(x=ONE)),
    "Resize crop batch": (CROP + '(x, r, "", s)', "float[8] r = {0.1,0,0,0,1,1,1,1}, int64[4] s = {1,4,5,6}",
                          "it scales the batch axis", dict(x=ONE)),
    "Resize crop nowhere": (CROP + '(x, "", "", s)', "int64[4] s = {1,4,5,6}", "needs a roi with a start", dict(x=ONE)),
    "Resize crop border": (CROP + '(x, r, "", s)', "float[8] r = {0,0,0,0.2,1,1,1,1.2}, int64[4] s = {1,4,9,6}",
                           "its roi makes what is nearest, or outside, depend on rounding", dict(x=ONE)),
    "Resize to one": (
        'y = Resize<mode="cubic", coordinate_transformation_mode="pytorch_half_pixel">(x, "", "", s)',
        "int64[4] s = {1,4,1,6}", "to one element has no one meaning", dict(x=ONE),
    ),
    "Resize antialias": ("y = Resize<antialias=1>(x, , s)", "float[4] s = {1,1,1,2}", "no meaning for mode 'nearest'",
                         dict(opset=19)),
    "Resize outside": ('y = Resize<mode="linear", exclude_outside=1>(x, , s)', "float[4] s = {1,1,1,2}",
                       "a meaning for mode 'cubic' alone", dict(opset=19)),
    "Resize axes": ("y = Resize<axes=[2,-2]>(x, , s)", "float[2] s = {2,2}", "attribute axes is", dict(opset=18)),
    "Resize negative": ("y = Resize(x, , s)", "float[4] s = {1,1,-2,1}", "expected positive numbers below", {}),
    "Resize policy": (
        'y = Resize<axes=[2,3], keep_aspect_ratio_policy="twice">(x, , , s)', "int64[2] s = {7,5}",
        "keep_aspect_ratio_policy is not known", dict(opset=18),
    ),
    "Resize without": ("y = Resize(x)", "", "it has neither scales nor sizes", {}),
    "Resize count": ("y = Resize(x, , s)", "float[2] s = {2,3}", r"it scales 4 axes by \[2.0, 3.0\]", {}),
    "Resize mode": ('y = Resize<mode="lanczos">(x, , s)', "float[4] s = {1,1,2,1}", "mode 'lanczos', .* not known", {}),
    "Upsample count": ("y = Resize(x, s)", "float[2] s = {1,2}", r"expected a positive number per axis \(4\)",
                       dict(opset=10)),
    "Upsample shrinks": ("y = Resize(x, s)", "float[4] s = {1,1,1,0.5}", "not defined where an axis shrinks",
                         dict(opset=10)),
    "Upsample batch": ("y = Resize(x, s)", "float[4] s = {2,1,1,1}", "it scales the batch axis", dict(opset=10)),
    "Upsample scales": ("y = Upsample<scales=2.0>(x)", "", "scales is 2.0, expected a few numbers", dict(opset=7)),
    "Constant text": ('s = Constant<value_string="a">() y = Reshape(x, s)', "", "given as value_string is not", {}),
    "Constant empty": ("s = Constant() y = Reshape(x, s)", "", "a constant has one attribute", {}),
    "ConstantOfShape without": ('c = ConstantOfShape("") y = Add(x, c)', "", "it takes a shape and nothing else", {}),
    "ConstantOfShape value": ("c = ConstantOfShape<value=float[2]{0,1}>(s) y = Add(x, c)", "int64[1] s = {10}",
                              "its value is not one number", {}),
    "Cast attribute": ("c = Cast<to=1, more=float[1]{0}>(s) y = Add(x, c)", "int64[1] s = {10}",
                       "no number, string or list of them", {}),
    "Einsum of constants": ('c = Einsum<equation="...j,jk->...k">(u, u) y = Add(x, c)', "float[3,3] u",
                            "its operands do not fit each other", {}),
    "Squeeze of what grows": (
        "s = Shape(x) n = Slice(s, o, i) r = ConstantOfShape(n) k = Slice(r, i, t) f = Squeeze(k) y = Add(x, f)",
        "int64[1] o = {0}, int64[1] i = {1}, int64[1] t = {99}", "other axes for other batches", {},
    ),
    "Add nothing": ("y = Add(x, c)", "float[0] c", "leaves nothing of", {}),
    "Add size": ("y = Add(x, c)", "float[3] c", r"of shape \(3,\) does not fit \(n, 4, 9, 10\)", {}),
    "Add inside": ("a = ReduceMax<axes=[1], keepdims=0>(x) y = Add<broadcast=1, axis=1>(x, a)", "",
                   "places one computed value inside another", dict(opset=6)),
    "Mul inside": ("a = ReduceMax<axes=[1], keepdims=0>(x) y = Mul<broadcast=1, axis=1>(x, a)", "",
                   "places one computed value inside another", dict(opset=6)),
    "Div input": ("a = Relu(x) y = Div(a, x)", "", "division by what is computed has no record", {}),
    "Where computed": ("a = Relu(x) y = Where(a, x, a)", "", "its condition is computed", {}),
    "Max shapes": ("a = MaxPool<kernel_shape=[2,2]>(x) y = Max(x, a)", "", "which do not fit each other", {}),
    "functions' shapes": ("a = Exp(x) b = MaxPool<kernel_shape=[2,2]>(x) c = Exp(b) y = Add(a, c)", "",
                          r"shapes \('n', 4, 9, 10\) and .* do not fit each other", {}),
    "PRelu slopes": ("y = PRelu(x, s)", "float[3,1,1] s", r"its slopes have shape \(3, 1, 1\)", {}),
    "PRelu without": ('y = PRelu(x, "")', "", r"its slopes \(input 1\) is missing", {}),
    "Selu alpha": ("y = Selu<alpha=1.0>(x)", "", "alpha=1.0 and gamma=1.050701 have no record", {}),
    "Gelu": ('y = Gelu<approximate="fast">(x)', "", "approximate is 'fast'", dict(opset=20)),
    "Softmax axes": ("y = Softmax<axis=[1,2]>(x)", "", "expected one integer", {}),
    "Softmax axis": ("y = Softmax<axis=7>(x)", "", "axis is 7, but its input has 4 axes", {}),
    "ReduceMax floats": ("y = ReduceMax(x, e)", "float[1] e = {1}", "expected a few integers", dict(opset=18)),
    "ReduceL2": ("y = ReduceL2(x)", "", "it reduces all axes, the batch too", {}),
    "LayerNormalization": ("y = LayerNormalization(x, g)", "float[6] g", "one number per normalised", dict(x=ROWS)),
    "MaxPool pads": ("y = MaxPool<kernel_shape=[2,2], pads=[1,1]>(x)", "", "expected 4 integers", {}),
    "MaxPool strides": ("y = MaxPool<kernel_shape=[2,2], strides=[1]>(x)", "", r"2 integers \(one per spatial", {}),
    "MaxPool kernel": ("y = MaxPool<kernel_shape=2>(x)", "", "kernel_shape is 2, expected a few integers", {}),
    "AveragePool window": ("y = AveragePool<kernel_shape=[5,2], dilations=[3,2]>(x)", "", "window spans 13 elements",
                           dict(opset=19)),
    "AveragePool padding": ("y = AveragePool<kernel_shape=[2,2], dilations=[1,2], pads=[3,0,0,0]>(x)", "",
                            "one of its windows lies in the padding alone", dict(opset=19)),
    "ConvTranspose sizes": ("y = ConvTranspose<output_shape=[9]>(x, w)", "float[4,2,3,3] w", "expected 2 integers", {}),
    "ConvTranspose auto": ('y = ConvTranspose<auto_pad="SOME">(x, w)', "float[4,2,3,3] w", "auto_pad is 'SOME'", {}),
    "ConvTranspose reach": ('y = ConvTranspose<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)', "float[4,2,1,1] w",
                            r"its output of \(18, 20\) elements is larger than its windows reach", {}),
    "Gemm weight": ("y = Gemm(x, w)", "float[7,2,1] w", "expected two axes", dict(x="float[N,7] x")),
    "Gemm bias": ("y = Gemm(x, w, c)", "float[7,2] w, float[3] c", r"one number per output \(2\)",
                  dict(x="float[N,7] x")),
    "BatchNormalization": ("y = BatchNormalization<spatial=0>(x, b, b, b, b)", "float[4] b", "spatial is 0",
                           dict(opset=8)),
    "MatMul size": ("y = MatMul(x, w)", "float[6,3] w", r"\(6, 3\) does not fit its other factor", dict(x=ROWS)),
    "MatMul stack of one": ("y = MatMul(x, w)", "float[1,1,7,3] w", "along the batch axis, nor move it", dict(x=ROWS)),
    "Einsum operands": ('y = Einsum<equation="bnc->bn">(x, w)', "float[7,2] w", "has 1 operands, but there are 2",
                        dict(x=ROWS)),
    "Einsum letters": ('y = Einsum<equation="bn1->bn">(x)', "", "equation is 'bn1->bn'", dict(x=ROWS)),
    "Einsum axes": ('y = Einsum<equation="bn,nd->bd">(x, w)', "float[7,2] w", "operand 0 has 3 axes", dict(x=ROWS)),
    "Einsum size": ('y = Einsum<equation="bnc,cd->bnd">(x, w)', "float[6,2] w", "does not fit its other factor",
                    dict(x=ROWS)),
    "Einsum result": ('y = Einsum<equation="bnc,cd->bdd">(x, w)', "float[7,7] w", "no operand has, or one twice",
                      dict(x=ROWS)),
    "Einsum batch": ('a = Relu(x) y = Einsum<equation="bnc,nbc->bn">(x, a)', "", "keep the batch axis first",
                     dict(x="float[5,5,7] x")),
    "Einsum twice": ('a = Relu(x) y = Einsum<equation="bnn,bnc->bc">(x, a)', "", "stands twice in one operand",
                     dict(x="float[N,7,7] x")),
    "Einsum repeats": ('a = ReduceMax<axes=[1]>(x) y = Einsum<equation="bnc,bnd->bcd">(x, a)', "",
                       "it repeats an axis of size 1", dict(x=ROWS, opset=13)),
    "Einsum sums": ('a = Relu(x) y = Einsum<equation="bnc,bde->bnc">(x, a)', "", "before it multiplies", dict(x=ROWS)),
    "Einsum without batch": (TURNED + 'y = Einsum<equation="nbc->nc">(a)', "", "does not keep the batch axis",
                             dict(x=ROWS)),
    "Einsum merged": (
        'a = Reshape(x, s) y = Einsum<equation="bc,bd->bcd">(a, w)', "float[10,2] w, int64[2] s = {10,7}",
        "merged with the batch's", dict(x="float[2,5,7] x"),
    ),
    "Attention heads": ("y = Attention<q_num_heads=3>(x, x, x)", "", "has 2 heads, the attribute says 3",
                        dict(x=HEADS, opset=23)),
    "Attention groups": ("k = Slice(x, a, b, a) y = Attention(x, k, k)", "int64[1] a = {1}, int64[1] b = {4}",
                         "4 heads of queries do not divide into 3 of keys", dict(x="float[N,4,6,4] x", opset=23)),
    "Attention mask": ("y = Attention(x, x, x, m)", "int64[6,6] m", "mask has type int64 and 2 axes",
                       dict(x=HEADS, opset=23)),
    "RotaryEmbedding tables": ("y = RotaryEmbedding(x, c, c, p)", "float[9,6,2] c, int64[1,6] p = {0,1,2,3,4,5}",
                               "expected a table and integers", dict(x=HEADS, opset=23)),
    "RotaryEmbedding places": ("y = RotaryEmbedding(x, c, c, p)", "float[5,2] c, int64[1,6] p = {0,1,2,3,4,5}",
                               "go from 0 to 5, cos_cache has 5 rows", dict(x=HEADS, opset=23)),
    "RotaryEmbedding shape": ("y = RotaryEmbedding(x, c, c)", "float[1,6,3] c", r"for one sample, expected \(6, 2\)",
                              dict(x=HEADS, opset=23)),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_operands_and_attributes_that_do_not_fit(name: str) -> None:
    body, given, message, more = MISFITS[name]
    with pytest.raises(ModelError, match=message):
        from_onnx(model(body, given, **more))


def test_open_axes_are_said_by_the_caller() -> None:
    proto = model("a = Conv(x, w, b) y = Flatten(a)", given=K9, x="float[N,4,H,W] x")
    x = feed(proto)
    layers = from_onnx(proto, sample_shape=(4, 7, 7))
    np.testing.assert_allclose(dtd.predict(layers, x), run(proto, x), rtol=1e-5, atol=1e-5)
    with pytest.raises(ModelError, match="expects 4 channels; its input has 3"):
        from_onnx(proto, sample_shape=(3, 7, 7))
    with pytest.raises(ModelError, match=r"sample_shape is \(4, 7\), but .* declared as \(\?, 4, \?, \?\)"):
        from_onnx(proto, sample_shape=(4, 7))


def test_another_shape_than_the_declared_one() -> None:
    """The geometry that follows from the size, here SAME padding, follows the size that is said."""
    proto = model('y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w, b)', given=K9, y="float[N,6,5,5] y")
    (declared,), (other,) = from_onnx(proto), from_onnx(proto, sample_shape=(4, 8, 8))
    assert (declared.padding, other.padding) == (((1, 1), (0, 1)), ((0, 1), (0, 1)))


def test_what_the_output_does_not_need_may_be_anything() -> None:
    layers = from_onnx(model("a = Erf(x) y = Relu(x)"))
    assert kinds(layers) == "ReLU"


def test_refusals_are_all_listed() -> None:
    imported = OnnxModel(model("a = Conv(x, w, b) b1 = Round(a) c = Relu(b1) y = Hardmax(c)", given=K9)).read()
    assert kinds(imported.layers) == "Conv"
    assert [r.split(":")[0] for r in imported.refusals] == ["node 1 (Round)", "node 3 (Hardmax)"]


def test_without_onnx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendError, match=r"pip install 'dtdfast\[onnx\]'"):
        from_onnx("net.onnx")
