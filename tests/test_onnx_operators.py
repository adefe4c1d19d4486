"""What ONNX operators become beyond layers and activations, against onnxruntime: products, extremes, moves, resampling,
outputs.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import dtdfast as dtd
from dtdfast import DtdError, ModelError, from_onnx
from dtdfast.importers.onnx.importer import OnnxModel
from dtdfast.importers.onnx.walk import OPERATORS
from onnx_models import feed, model, run
from support import chosen, kinds

ROWS = "float[N,5,7] x"
HEADS = "float[N,2,6,4] x"
RESIZE, WHERE_AT = 'y = Resize<mode="linear", ', "coordinate_transformation_mode"
ASPECT = dict(given="int64[2] s = {7,5}", opset=18)
CROP = dict(given="float[8] r = {0,0,0.1,-0.2,1,1,0.93,1.25}, int64[4] s = {1,4,5,6}", x="float[1,4,9,10] x", opset=19)
ONE = CROP | dict(given="float[8] r = {0,0,0.5,0.2,1,1,0.7,0.97}, int64[4] s = {1,4,1,6}")

CASES: dict[str, dict[str, Any]] = {
    "matrix from the left": dict(body="y = MatMul(w, x)", given="float[6,5] w", x=ROWS),
    "stack from the left": dict(body="y = MatMul(w, x)", given="float[4,3,9] w"),
    "stack of one channel": dict(body="s = ReduceSum(x, a) y = MatMul(s, w)", given="float[3,10,6] w, int64[1] a = "
    "{1}"),
    "vector from the right": dict(body="y = MatMul(x, w)", given="float[10] w"),
    "vector from the left": dict(body="y = MatMul(w, x)", given="float[9] w"),
    "graph": dict(body="a = MatMul(m, x) b = MatMul(a, w) y = Relu(b)", given="float[5,5] m, float[7,3] w", x=ROWS),
    "einsum": dict(body='y = Einsum<equation="bnc,mn->bmc">(x, w)', given="float[6,5] w", x=ROWS),
    "einsum of heads": dict(body='y = Einsum<equation="bnc,chd->bhnd">(x, w)', given="float[7,2,3] w", x=ROWS),
    "einsum with dots": dict(body='y = Einsum<equation="...c,cd->...d">(x, w)', given="float[10,3] w"),
    "einsum of shared axes": dict(body='y = Einsum<equation="ncd,bnc->bdn">(w, x)', given="float[5,7,2] w", x=ROWS),
    "einsum of two constants": dict(body='y = Einsum<equation="mn,bnc,cd->bmd">(w, x, v)', given="float[6,5] w, "
    "float[7,3] v", x=ROWS),
    "einsum of a table": dict(body='y = Einsum<equation="bnc,nc->bnc">(x, w)', given="float[5,1] w", x=ROWS),
    "einsum of a sum": dict(body='y = Einsum<equation="bnc,d->bd">(x, w)', given="float[3] w", x=ROWS),
    "einsum of one": dict(body='y = Einsum<equation="bnc->bcn">(x)', x=ROWS),
    "einsum that sums": dict(body='y = Einsum<equation="bnc->bc">(x)', x=ROWS),
    "broadcast addition": dict(body="a = ReduceMax<axes=[2], keepdims=1>(x) b = Relu(x) y = Add(a, b)", opset=13),
    "dueling": dict(
        body="a = MatMul(x, u) v = MatMul(x, w) m = ReduceMean<axes=[1], keepdims=1>(a) d = Sub(a, m) y = Add(v, d)",
        given="float[7,4] u, float[7,1] w", x="float[N,7] x", opset=13,
    ),
    "a table that is larger": dict(body="a = ReduceMean<axes=[2,3]>(x) y = Add(a, c)", given="float[4,3,2] c",
    opset=13),
    "maximum of two": dict(body="a = Sigmoid(x) y = Max(x, a)"),
    "minimum of three": dict(body="a = Sigmoid(x) y = Min(x, a, c)", given="float[4,1,1] c"),
    "maximum with a table": dict(body="y = Max(c, x)", given="float[9,10] c"),
    "least": dict(body="y = ReduceMin<axes=[1], keepdims=0>(x)", opset=13),
    "absolute sum": dict(body="y = ReduceL1<axes=[-1]>(x)", opset=13),
    "mean of three": dict(body="a = Relu(x) y = Mean(x, a, c)", given="float[10] c"),
    "where": dict(body="a = Relu(x) y = Where(m, x, a)", given="bool[10] m = {1,0,0,1,1,0,1,0,1,0}"),
    "where with a constant": dict(body="y = Where(m, c, x)", given="bool[10] m = {1,0,0,1,1,0,1,0,1,0}, float c = "
    "{2.5}"),
    "activations of the transposed": dict(
        body="a = Transpose<perm=[1,2,0]>(x) b = Relu(a) c = Neg(b) d = Add(c, a) y = Transpose<perm=[2,1,0]>(d)",
        x=ROWS
    ),
    "negative": dict(body="y = Neg(x)"),
    "tile": dict(body="y = Tile(x, r)", given="int64[4] r = {1,2,1,3}"),
    "expand": dict(body="a = ReduceMax<axes=[2], keepdims=1>(x) y = Expand(a, s)", given="int64[3] s = {4,6,10}",
    opset=13),
    "depth to space": dict(body='y = DepthToSpace<blocksize=2, mode="CRD">(x)', x="float[N,8,3,5] x"),
    "depth to space, columns first": dict(body="y = DepthToSpace<blocksize=2>(x)", x="float[N,8,3,5] x"),
    "space to depth": dict(body="y = SpaceToDepth<blocksize=2>(x)", x="float[N,3,4,6] x"),
    "constant beside a value": dict(
        body="s = Shape(x) b = Slice(s, o, e) t = Concat<axis=0>(b, r) c = Expand(k, t) y = Concat<axis=1>(c, x)",
        given="float[1,1,7] k, int64[1] o = {0}, int64[1] e = {1}, int64[2] r = {1,7}", x=ROWS,
    ),
    "shape of a constant": dict(body="s = Shape(k) y = Reshape(x, s)", given="float[2,35] k", x="float[2,5,7] x"),
    "gather of a table of places": dict(body="y = Gather<axis=2>(x, i)", given="int64[2,3] i = {0,5,-1,8,8,2}"),
    "compress": dict(body="y = Compress<axis=1>(x, c)", given="bool[4] c = {1,0,0,1}"),
    "triangle": dict(body="y = Trilu<upper=0>(x, k)", given="int64 k = {1}"),
    "running sum": dict(body="y = CumSum<exclusive=1, reverse=1>(x, a)", given="int64 a = {-2}"),
    "pad with the border": dict(body='y = Pad<mode="edge">(x, p)', given="int64[8] p = {0,0,2,1,0,1,0,3}"),
    "crop and pad": dict(body="y = Pad(x, p, c)", given="int64[8] p = {0,-1,2,-1,0,1,-2,0}, float c = {0.5}"),
    "pad features": dict(body="y = Pad(x, p)", given="int64[4] p = {0,2,0,1}", x="float[N,7] x"),
    "average with gaps": dict(
        body="y = AveragePool<kernel_shape=[2,3], dilations=[2,2], strides=[2,1], pads=[1,1,0,2], "
        "count_include_pad=1>(x)", opset=19
    ),
    "average with gaps, windows cut": dict(
        body="y = AveragePool<kernel_shape=[3,2], dilations=[1,3], strides=[2,3], pads=[1,0,1,1], ceil_mode=1>(x)",
        opset=19
    ),
    "pad some axes": dict(body='y = Pad(x, p, "", a)', given="int64[4] p={1,2,0,1}, int64[2] a={3,-3}", opset=18),
    "crop to the centre": dict(body="y = CenterCropPad<axes=[1,2,-1]>(x, s)", given="int64[3] s={7,9,5}", opset=18),
    "sizes at most": dict(**ASPECT, body=RESIZE + 'axes=[2,3], keep_aspect_ratio_policy="not_larger">(x, , , s)'),
    "sizes at least": dict(**ASPECT, body=RESIZE + 'axes=[2,3], keep_aspect_ratio_policy="not_smaller">(x, , , s)'),
    "every axis resized": dict(body='y = Resize<mode="linear">(x, , s)', given="float[3] s={1,2,3}", x=ROWS),
    "features resized": dict(body='y = Resize<mode="linear">(x, , s)', given="float[2] s={1,2}", x="float[N,7] x"),
    "one element": dict(**ONE, body=RESIZE + WHERE_AT + '="pytorch_half_pixel">(x, , , s)'),
    "crop and resize": dict(**CROP, body=RESIZE + WHERE_AT + '="tf_crop_and_resize">(x, r, , s)'),
    "crop and resize to one": dict(**ONE, body=RESIZE + WHERE_AT + '="tf_crop_and_resize">(x, r, , s)'),
    "crop, nearest": dict(**CROP, body=f'y = Resize<{WHERE_AT}="tf_crop_and_resize">(x, r, , s)'),
    "crop, nearest above": dict(
        **CROP, body=f'y = Resize<nearest_mode="ceil", {WHERE_AT}="tf_crop_and_resize">(x, r, , s)'
    ),
    "constants written out": dict(body="s = Constant<value_ints=[0,-1]>() y = Reshape(x, s)"),
    "constants computed": dict(
        body='c = Einsum<equation="ij,jk->ik">(u, v) d = GatherElements<axis=1>(c, i) n = Size(i) f = Cast<to=1>(n) '
        "e = Mul(d, f) y = MatMul(x, e)",
        given="float[10,3] u, float[3,6] v, int64[10,1] i={0,1,5,0,1,5,0,1,2,4}",
    ),
    "number of samples by itself": dict(
        body="s = Shape(x) n = Gather(s, o) m = Div(n, n) f = Cast<to=1>(m) c = Clip(f, , w) y = Mul(x, c)",
        given="int64 o={0}, float w={3}",
    ),
    "a sum of ones": dict(
        body="s = Shape(x) n = Slice(s, o, i) r = ConstantOfShape<value=int64[1]{1}>(n) t = ReduceSum(r) "
        "u = Concat<axis=0>(t, q) y = Reshape(x, u)",
        given="int64[1] o={0}, int64[1] i={1}, int64[1] q={-1}",
    ),
    "slopes with a batch axis": dict(body="y = PRelu(x, s)", given="float[1,4,1,1] s"),
    "factors with a batch axis": dict(body="y = LayerNormalization(x, g)", given="float[1,1,7] g", x=ROWS),
    "no padding": dict(body='y = ConvTranspose<auto_pad="VALID", strides=[2,2]>(x, w)', given="float[4,2,3,3] w"),
    "no axes": dict(
        body="a = ReduceMax<noop_with_empty_axes=1>(x) y = ReduceSumSquare<noop_with_empty_axes=1>(a)", opset=18
    ),
    "sum of squares": dict(body="y = ReduceSumSquare<axes=[1]>(x)", opset=13),
    "einsum without an arrow": dict(body='y = Einsum<equation="...c,ca">(x, w)', given="float[7,2] w", x=ROWS),
    "einsum of a batch axis": dict(body='y = Einsum<equation="bnc,bcd->bnd">(x, w)', given="float[1,7,2] w", x=ROWS),
    "einsum of a row sum": dict(body='a = Relu(x) y = Einsum<equation="bnc,bnd->bc">(x, a)', x=ROWS),
    "window of keys": dict(body="y = Attention<left_window_size=2, right_window_size=1>(x, x, x)", x=HEADS, opset=25),
    "weights in integers": dict(
        body="w = DequantizeLinear(q, s, z) y = MatMul(x, w)", x="float[N,2] x",
        given="uint8[2,3] q={1,2,3,250,5,128}, float[3] s={0.1,2,3}, uint8[3] z={128,0,9}",
    ),
    "activation behind a view": dict(
        body="a = Add(x, x) b = Unsqueeze(a, o) g = Sigmoid(b) c = Mul(b, g) y = Add(c, k)",
        given="int64[1] o={1}, float[7] k", x="float[N,7] x",
    ),
    "gate along another axis": dict(
        body="a = Unsqueeze(x, o) b = Unsqueeze(x, t) c = Expand(a, e) d = Expand(b, e) g = Sigmoid(d) y = Mul(c, g)",
        given="int64[1] o={1}, int64[1] t={2}, int64[3] e={1,7,7}", x="float[N,7] x",
    ),
    "without the mean of another row": dict(
        body="m = ReduceMean<axes=[2], keepdims=0>(x) n = Unsqueeze(m, o) d = Sub(x, n) q = Mul(d, d) "
        "v = ReduceMean<axes=[2]>(q) w = Add(v, e) s = Sqrt(w) y = Div(d, s)",
        given="int64[1] o={1}, float e={0.1}", x="float[N,5,5] x", opset=13,
    ),
    "log-softmax": dict(body="y = LogSoftmax(x)"),
    "log-softmax of classes": dict(body="a = Relu(x) y = LogSoftmax<axis=1>(a)", x="float[N,7] x"),
    "log-softmax before opset 13": dict(body="y = LogSoftmax<axis=2>(x)", opset=11),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operator_matches_onnxruntime(name: str) -> None:
    opset = CASES[name].get("opset", 0)
    if opset > onnx.defs.onnx_opset_version():
        pytest.skip(f"onnx {onnx.__version__} does not know opset {opset}")
    proto = model(**CASES[name])
    x = feed(proto, n=proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 2)
    outputs = run(proto, x)
    made = dtd.predict(from_onnx(proto), x)
    assert made.shape == outputs.shape
    np.testing.assert_allclose(made, outputs, rtol=1e-5, atol=1e-5)


RELU_NETS = {
    "graph": "a = MatMul(m, x) b = MatMul(a, w) c = Relu(b) d = MatMul(n, c) e = Flatten(d) y = MatMul(e, v)",
    "heads": (
        'a = Einsum<equation="bnc,chd->bhnd">(x, h) b = Relu(a) c = Einsum<equation="bhnd,hdn->bhd">(b, k) '
        "y = Flatten(c)"
    ),
    "maxout": "a = MatMul(x, w) b = MatMul(x, u) c = Max(a, b) d = Flatten(c) y = MatMul(d, v)",
    "moves": "a = Gather<axis=1>(x, i) b = Relu(a) c = ReduceMin<axes=[1], keepdims=0>(b) d = Abs(c) y = MatMul(d, w)",
}


@pytest.mark.parametrize("name", RELU_NETS)
def test_lrp_0_is_gradient_times_input(name: str) -> None:
    """No biases: f is homogeneous, so that its gradient at x is the slope along any small step that crosses no kink."""
    given = (
        "double[5,5] m, double[7,3] w, double[7,3] u, double[2,5] n, double[7,2,3] h, double[2,3,5] k, int64[4] i = "
        "{3,0,0,4}"
    )
    size = {"graph": 6, "maxout": 15}.get(name, 1)
    proto = model(RELU_NETS[name], f"{given}, double[{size},3] v", x="double[N,5,7] x", y="double[] y", opset=13)
    layers, x = from_onnx(proto), feed(proto, n=1)
    relevance = dtd.explain(layers, x, 1, rules="lrp-0", backend="oracle")
    step = 1e-6
    moved = x + step * np.eye(35).reshape(35, 5, 7)
    slopes = (
        dtd.predict(layers, moved, backend="oracle")[:, 1] - dtd.predict(layers, x, backend="oracle")[0, 1]
    ) / step
    # the difference of two outputs, each right to 2⁻⁵³ of its size, is divided by the step
    np.testing.assert_allclose(relevance.ravel(), slopes * x.ravel(), rtol=0, atol=1e-7 * max(1, np.abs(slopes).max()))


# --------------------------------------------------------------------------------------------------------- resampling

WHERE = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")
GOALS = (
    "float[4] s = {1,1,2,2}",
    "float[4] s = {1,1,1.5,0.7}",
    "float[4] s = {1,1,0.6,3.0}",
    "int64[4] s = {1,4,5,13}",
)
MODES = ("nearest", "nearest floor", "linear", "linear antialias", "cubic", "cubic antialias", "cubic outside")


@pytest.mark.parametrize(("mode", "where"), chosen(MODES, WHERE))
def test_resize_is_right_or_refused(mode: str, where: str) -> None:
    kind, _, option = mode.partition(" ")
    extra = {"floor": ', nearest_mode="floor"', "antialias": ", antialias=1", "outside": ", exclude_outside=1"}.get(
        option, ""
    )
    n_right = 0
    for goal in GOALS:
        operands = "x, , s" if goal.startswith("float") else "x, , , s"
        body = f'y = Resize<mode="{kind}", coordinate_transformation_mode="{where}"{extra}>({operands})'
        proto = model(body, goal, x="float[1,4,9,10] x", opset=19)
        x = feed(proto, n=1)
        refusals = OnnxModel(proto).read().refusals
        assert all("no one meaning" in r or "depend on rounding" in r for r in refusals), refusals
        if not refusals:
            np.testing.assert_allclose(dtd.predict(from_onnx(proto), x), run(proto, x), rtol=1e-5, atol=2e-5)
            n_right += 1
    assert n_right


# ------------------------------------------------------------------------------------------------------------ outputs

TWO = dict(body="a = Relu(x) y = Sigmoid(a) z = Neg(a)", y="float[] y, float[] z")


def test_an_output_is_chosen_by_name_or_number() -> None:
    proto = model(**TWO)
    assert kinds(from_onnx(proto, output="y")) == kinds(from_onnx(proto, output=0)) == "ReLU sigmoid"
    assert kinds(from_onnx(proto, output="z")) == kinds(from_onnx(proto, output=1)) == "ReLU Scale"


@pytest.mark.parametrize("output", [None, "w", 2, -1, True, 0.0])
def test_an_output_that_is_not_there(output: Any) -> None:
    with pytest.raises(DtdError, match="y"):
        from_onnx(model(**TWO), output=output)


@pytest.mark.parametrize(
    ("body", "given"),
    [
        ("a = MatMul(x, w) y = Squeeze(a, m)", "float[7,1] w, int64[1] m = {-1}"),
        ("a = MatMul(x, w) y = Reshape(a, m)", "float[7,1] w, int64[1] m = {-1}"),
        ("a = MatMul(x, w) b = Relu(a) y = Gather<axis=1>(b, m)", "float[7,3] w, int64 m = {0}"),
        (
            "a = ReduceSum<keepdims=0>(x, m) b = Neg(a) c = Sigmoid(b) y = Mul(c, two)",
            "int64[1] m = {1}, float two = {2}",
        ),
        ("a = MatMul(x, w) y = Relu(a)", "float[7] w"),
        ('y = Einsum<equation="bi,i->b">(x, w)', "float[7] w"),
        ('y = Einsum<equation="bi->b">(x)', ""),
    ],
)
def test_one_number_per_sample_is_a_vector_of_one(body: str, given: str) -> None:
    proto = model(body, given, x="float[N,7] x", y="float[N] y")
    x = feed(proto, n=3)
    layers = from_onnx(proto)
    np.testing.assert_allclose(dtd.predict(layers, x)[:, 0], run(proto, x), rtol=1e-5, atol=1e-5)
    assert dtd.explain(layers, x).shape == x.shape


def test_explanations_start_before_a_final_log_softmax() -> None:
    given = "float[6,7] w"
    plain, final = (
        model(f"a = Gemm<transB=1>(x, w) {end}", given, x="float[N,7] x")
        for end in ("y = Identity(a)", "y = LogSoftmax(a)")
    )
    x = feed(plain)
    np.testing.assert_array_equal(dtd.explain(from_onnx(plain), x, 2), dtd.explain(from_onnx(final), x, 2))


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, [None, 7]), "a sequence, expected a tensor"),
        (helper.make_tensor_value_info("y", TensorProto.STRING, [None, 7]), "element type string"),
    ],
)
def test_outputs_that_are_no_numbers_are_named(info: Any, message: str) -> None:
    proto = model("y = Relu(x)", x="float[N,7] x")
    proto.graph.output[0].CopyFrom(info)
    with pytest.raises(ModelError, match=message):
        from_onnx(proto)


# ------------------------------------------------------------------------------------------------------------- no-ops

NOTHING = {
    "slices": ("a = Slice(x, o, e, c) y = Relu(a)", ("int64[3] o = {0,0,0}, int64[3] e = {9223372036854775807,4,9}, "
    "int64[3] c = {0,1,2}")),
    "expand": ("a = Expand(x, o) y = Relu(a)", "int64[4] o = {1,4,9,10}"),
    "tile": ("a = Tile(x, o) y = Relu(a)", "int64[4] o = {1,1,1,1}"),
    "resize": ("a = Resize<mode=\"cubic\">(x, , o) y = Relu(a)", "float[4] o = {1,1,1,1}"),
    "pad": ("a = Pad(x, o) y = Relu(a)", "int64[8] o = {0,0,0,0,0,0,0,0}"),
    "transposes": ("a = Transpose<perm=[3,0,1,2]>(x) b = Transpose<perm=[1,2,3,0]>(a) y = Relu(b)", ""),
    "times one": ("a = Mul(x, o) b = Add(a, z) c = Div(b, o) y = Relu(c)", ("float o = {1}, float[10] z = "
    "{0,0,0,0,0,0,0,0,0,0}")),
    "all of them": ("a = Gather<axis=1>(x, i) b = CastLike(a, x) c = Concat<axis=2>(b) d = Sum(c) y = Relu(d)",
    "int64[4] i = {0,1,2,3}"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTHING)
def test_what_does_nothing_leaves_nothing(name: str) -> None:
    assert kinds(from_onnx(model(*NOTHING[name]))) == "ReLU"


# --------------------------------------------------------------------------------------------------- what is compared


@pytest.mark.parametrize("opset", [6, 9, 13, 17])
def test_a_wrong_record_is_noticed(opset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By onnxruntime, which sees what the output needs and nothing else of the file."""
    proto = model("a = Neg(x) y = Relu(a) z = NoSuchOperator(x)", y="float[] y, float[] z", opset=opset)
    assert kinds(from_onnx(proto, output="y")) == "Scale ReLU"
    monkeypatch.setitem(OPERATORS, "Relu", OPERATORS["Identity"])
    with pytest.raises(ModelError, match=r"the output differs from onnxruntime \d.*'s by .* is accepted$"):
        from_onnx(proto, output="y")


def test_an_onnxruntime_that_may_be_wrong_itself_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = model("k = Relu(x) y = Attention(x, k, k)", x="float[N,2,6,4] x", y="float[] y", opset=23)
    monkeypatch.setitem(OPERATORS, "Relu", OPERATORS["Identity"])
    monkeypatch.setattr("onnxruntime.__version__", "1.27.1")
    with pytest.raises(ModelError, match=r"differs from onnxruntime 1.27.1's .* before 1.28 .* upgrade or uninstall"):
        from_onnx(proto)


def test_without_onnxruntime_nothing_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(OPERATORS, "Relu", OPERATORS["Identity"])
    assert kinds(from_onnx(model("a = Neg(x) y = Relu(a)"))) == "Scale"


@pytest.mark.parametrize(("opset", "message"), [(5, "expected 6 or later"), (999, "install a newer onnx")])
def test_opsets_that_are_not_known(opset: int, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        from_onnx(model("y = Relu(x)", opset=opset))


# ------------------------------------------------------------------------------------------------- never one of these

REFUSED = {
    "batch of the matrix": (dict(body="y = MatMul(w, x)", given="float[3,2] w", x="float[N,7] x"), ("may not be an "
    "axis of the matrices")),
    "a matrix per sample": (dict(body="y = MatMul(x, w)", given="float[2,7,3] w", x="float[2,5,7] x"),
    "may not vary along the batch"),
    "a constant per sample": (dict(body="y = Add(x, c)", given="float[2,7] c", x="float[2,7] x"), ("may not vary along "
    "the batch axis")),
    "a constant of more axes": (dict(body="y = Add(x, c)", given="float[1,2,7] c", x="float[N,7] x"),
    "the batch axis would move"),
    "einsum over the batch": (dict(body='y = Einsum<equation="bi,bj->ij">(x, c)', given="float[2,3] c",
    x="float[2,7] x"), "the batch"),
    "a diagonal": (dict(body='y = Einsum<equation="bii->bi">(x)', x="float[N,7,7] x"), "stands twice in one operand"),
    "a computed mask": (dict(body="a = Relu(x) b = Cast<to=9>(a) y = Where(b, x, a)"), "Cast"),
    "a batch that moved": (dict(body="a = Transpose<perm=[1,0]>(x) y = Softmax(a)", x="float[N,7] x"),
    "batch axis at place 1"),
    "a batch that stays moved": (dict(body="y = Transpose<perm=[1,0]>(x)", x="float[N,7] x"), "batch axis at place 1"),
    "a difference of ranks": (dict(body="a = Relu(x) b = ReduceMax<axes=[1], keepdims=0>(x) y = Add(a, b)", opset=13),
    "as many axes"),
    "nothing left": (dict(body="y = Slice(x, a, b, c)", given="int64[1] a = {5}, int64[1] b = {5}, int64[1] c = {2}"),
    "takes nothing"),
    "a mirror longer than the row": (
        dict(body='y = Pad<mode="reflect">(x, p)', given="int64[4] p = {0,9,0,0}", x="float[N,7] x"), "in mode reflect",
    ),
    "the sign": (dict(body="y = Sign(x)", x=ROWS), "a ReLU of x and one of −x"),
    "a choice": (dict(body="a = Greater(x, c) y = Cast<to=1>(a)", given="float c = {0}", x=ROWS), ("makes a choice by "
    "the data")),
    "an order": (dict(body="v, y = TopK(x, k)", given="int64[1] k = {2}", x=ROWS, y="float[] v"), ("orders elements by "
    "their size")),
    "three factors computed": (dict(body='a = Relu(x) y = Einsum<equation="bnc,bmc,bmd->bnd">(x, a, x)', x=ROWS),
    "more than two operands"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    case, message = REFUSED[name]
    with pytest.raises(ModelError, match=message):
        from_onnx(model(**case))
