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
    "training_dropout": (dict(body="y = Dropout(x, , t)", given="bool t = {1}"), "training mode"),
    "transposed_a": (dict(body="y = Gemm<transA=1>(x, w)", given="float[7,5] w", x="float[7,7] x"), "mix the samples"),
    "lstm": (
        dict(body="y = LSTM<hidden_size=2>(x, w, w)", given="float[1,8,2] w", x="float[3,4,5] x"),
        "recurrence has no record",
    ),
    "erf": (dict(body="a = Erf(x) y = Mul(a, x)"), r"node 0 \(Erf\): this operator has no record"),
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
    "a mask that fills in ones": (
        dict(body="y = Where(z, x, one)", given="float one = {1}", x="float[N,4] x, bool[N,4] z"),
        "fills in other numbers than 0, −∞ or at most",
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
