"""ONNX import of what transformers are made of: norms, attention, masks, and what exporters write out for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

import dtdfast as dtd
from dtdfast import ModelError, from_onnx
from onnx_models import feed, model, run
from support import kinds

TOKENS, IMAGE, HEADS = "float[N,6,8] x", "float[N,6,5,4] x", "float[N,2,6,4] x"
QKV = "q = MatMul(x, u) k = MatMul(x, v) z = MatMul(x, w) "
PROJECTIONS = "float[8,8] u, float[8,8] v, float[8,8] w"
GROUPED = "float[8,8] u, float[8,4] v, float[8,4] w"
ATTENDED = "MatMul Softmax MatMul Permute Reshape"
PARTS = "Linear Linear Linear Reshape Permute Reshape Permute Reshape Permute "
SCORES = "t = Transpose<perm=[0,2,1]>(x) s = MatMul(x, t) "
CENTRED = "m = ReduceMean<axes=[-1]>(x) d = Sub(x, m) p = Pow(d, two) v = ReduceMean<axes=[-1]>(p) e = Add(v, eps) "
NUMBERS = "float two = {2}, float eps = {0.001}, float one = {1}, float half = {0.5}, float three = {3}"
AFFINE = ", float[8] w, float[8] b"

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "layer norm": (dict(body="y = LayerNormalization(x, w, b)", given="float[8] w, float[8] b", x=TOKENS), "LayerNorm"),
    "layer norm of two axes": (
        dict(body="y = LayerNormalization<axis=1, epsilon=0.01>(x, w)", given="float[6,8] w", x=TOKENS),
        "LayerNorm",
    ),
    "RMS norm": (dict(body="y = RMSNormalization(x, w)", given="float[8] w", x=TOKENS, opset=23), "RMSNorm"),
    "group norm, one factor per group": (
        dict(body="y = GroupNormalization<num_groups=2>(x, w, b)", given="float[2] w, float[2] b", x=IMAGE, opset=18),
        "GroupNorm",
    ),
    "group norm": (
        dict(body="y = GroupNormalization<num_groups=2>(x, w, b)", given="float[6] w, float[6] b", x=IMAGE, opset=21),
        "GroupNorm",
    ),
    "instance norm": (
        dict(body="y = InstanceNormalization<epsilon=0.1>(x, w, b)", given="float[6] w, float[6] b", x=IMAGE),
        "InstanceNorm",
    ),
    "norm of mean and variance": (dict(body="y = MeanVarianceNormalization<axes=[2,3]>(x)", x=IMAGE), "LayerNorm"),
    "unit length": (dict(body="y = LpNormalization<axis=1>(x)", x=IMAGE), "RMSNorm"),
    # ------------------------------------------------------------------------------------------------- written out
    "layer norm written out": (
        dict(body=CENTRED + "r = Sqrt(e) q = Div(d, r) f = Mul(q, w) y = Add(f, b)", given=NUMBERS + AFFINE, x=TOKENS),
        "LayerNorm",
    ),
    "layer norm by a reciprocal": (
        dict(
            body=CENTRED.replace("Pow(d, two)", "Mul(d, d)") + "r = Sqrt(e) i = Reciprocal(r) q = Mul(i, d) "
            "f = Mul(w, q) y = Add(b, f)",
            given=NUMBERS + AFFINE,
            x=TOKENS,
        ),
        "LayerNorm",
    ),
    "layer norm of channels": (
        dict(
            body=CENTRED.replace("[-1]", "[1]") + "r = Pow(e, half) q = Div(d, r) f = Mul(w, q) y = Add(f, b)",
            given=NUMBERS + ", float[6,1,1] w, float[6,1,1] b",
            x=IMAGE,
        ),
        "LayerNorm",
    ),
    "RMS norm written out": (
        dict(
            body="p = Pow(x, two) v = ReduceMean<axes=[-1]>(p) e = Add(v, eps) r = Sqrt(e) i = Reciprocal(r) "
            "q = Mul(x, i) y = Mul(w, q)",
            given=NUMBERS + AFFINE,
            x=TOKENS,
        ),
        "RMSNorm",
    ),
    "unit length written out": (
        dict(
            body="p = ReduceL2<axes=[-1]>(x) c = Clip(p, eps) s = Shape(x) e = Expand(c, s) y = Div(x, e)",
            given="float eps = {1e-12}",
            x=TOKENS,
        ),
        "RMSNorm",
    ),
    "group norm as an instance norm": (
        dict(
            body="r = Reshape(x, s) i = InstanceNormalization(r, o, z) t = Shape(x) q = Reshape(i, t) f = Mul(q, w) "
            "y = Add(f, b)",
            given="int64[3] s = {0, 2, -1}, float[2] o = {1, 1}, float[2] z = {0, 0}, float[6,1,1] w, float[6,1,1] b",
            x=IMAGE,
        ),
        "GroupNorm",
    ),
    "GELU by a tanh": (
        dict(
            body="c = Pow(x, three) d = Mul(c, k) a = Add(x, d) f = Mul(a, s) t = Tanh(f) o = Add(t, one) "
            "g = Mul(x, half) y = Mul(g, o)",
            given=NUMBERS + ", float k = {0.044715}, float s = {0.7978845608}",
            x=TOKENS,
        ),
        "gelu_tanh",
    ),
    "GELU by a tanh, halved last": (
        dict(
            body="n = Mul(x, x) c = Mul(x, n) d = Mul(c, k) a = Add(x, d) f = Mul(a, s) t = Tanh(f) o = Add(t, one) "
            "g = Mul(x, o) y = Mul(half, g)",
            given=NUMBERS + ", float k = {0.044715}, float s = {0.7978845608}",
            x=TOKENS,
        ),
        "gelu_tanh",
    ),
    "GELU by a cube of products": (
        dict(
            body="n = Mul(x, x) c = Mul(n, x) d = Mul(c, k) a = Add(x, d) f = Mul(a, s) t = Tanh(f) o = Add(t, one) "
            "g = Mul(o, half) y = Mul(g, x)",
            given=NUMBERS + ", float k = {0.044715}, float s = {0.7978845608}",
            x=TOKENS,
        ),
        "gelu_tanh",
    ),
    "SiLU by an exponential": (
        dict(body="n = Neg(x) e = Exp(n) o = Add(e, one) y = Div(x, o)", given=NUMBERS, x=TOKENS),
        "silu",
    ),
    "SiLU of steeper slope": (
        dict(body="a = Mul(x, k) s = Sigmoid(a) y = Mul(s, x)", given="float k = {1.702}", x=TOKENS),
        "silu",
    ),
    "a gate and a signal": (
        dict(body="g = MatMul(x, u) s = Sigmoid(g) a = Mul(g, s) z = MatMul(x, v) y = Mul(a, z)", given=PROJECTIONS,
             x=TOKENS),
        "Linear silu Linear Mul",
    ),
    # --------------------------------------------------------------------------------------------------- attention
    "attention": (
        dict(body=QKV + "y = Attention<q_num_heads=2, kv_num_heads=2>(q, k, z)", given=PROJECTIONS, x=TOKENS, opset=23),
        PARTS + ATTENDED,
    ),
    "attention of heads apart": (
        dict(body="k = Relu(x) y = Attention(x, k, k)", x=HEADS, opset=23),
        "ReLU MatMul Softmax MatMul",
    ),
    "causal attention of shared heads": (
        dict(
            body=QKV + "y = Attention<q_num_heads=4, kv_num_heads=2, is_causal=1, scale=0.3>(q, k, z)",
            given=GROUPED,
            x=TOKENS,
            opset=24,
        ),
        PARTS + "Reshape Reshape Reshape MatMul Softmax MatMul Reshape Permute Reshape",
    ),
    "attention with added scores": (
        dict(
            body=QKV + "y = Attention<q_num_heads=2, kv_num_heads=2>(q, k, z, m)",
            given=PROJECTIONS + ", float[1,2,6,6] m",
            x=TOKENS,
            opset=23,
        ),
        PARTS + "MatMul Constant Add Softmax MatMul Permute Reshape",
    ),
    "attention with a mask": (
        dict(
            body=QKV + "y = Attention<q_num_heads=2, kv_num_heads=2>(q, k, z, m)",
            given=PROJECTIONS + ", bool[6,6] m = {" + "1, 1, 0, 1, 0, 1, " * 5 + "0, 1, 0, 0, 0, 0}",
            x=TOKENS,
            opset=23,
        ),
        PARTS + ATTENDED,
    ),
    "attention of capped scores": (
        dict(body="k = Relu(x) y = Attention<softcap=2.0, is_causal=1>(x, k, k)", x=HEADS, opset=23),
        "ReLU MatMul tanh Scale Softmax MatMul",
    ),
    "rotary positions": (
        dict(
            body="y = RotaryEmbedding(x, c, s, p)",
            given="float[9,2] c, float[9,2] s, int64[1,6] p = {0, 1, 2, 3, 5, 4}",
            x="float[1,2,6,4] x",
            opset=23,
        ),
        "Gather Scale Scale Add",
    ),
    "rotary positions of neighbours, in part": (
        dict(
            body="y = RotaryEmbedding<num_heads=2, interleaved=1, rotary_embedding_dim=2>(x, c, s)",
            given="float[1,6,1] c, float[1,6,1] s",
            x="float[1,6,8] x",
            opset=23,
        ),
        "Reshape Permute Gather Scale Scale Add Permute Reshape",
    ),
    "scores scaled on both sides": (
        dict(
            body="a = Mul(x, r) t = Transpose<perm=[0,2,1]>(x) b = Mul(t, r) s = MatMul(a, b) f = Softmax(s) "
            "y = MatMul(f, x)",
            given="float r = {0.6}",
            x=TOKENS,
        ),
        "MatMul Softmax MatMul",
    ),
    "a low fill": (
        dict(
            body=SCORES + "f = Where(m, s, low) a = Softmax(f) y = MatMul(a, x)",
            given="bool[1,6] m = {1, 0, 1, 1, 0, 1}, float low = {-3e38}",
            x=TOKENS,
        ),
        "MatMul Softmax MatMul",
    ),
    "low numbers added": (
        dict(
            body=SCORES + "f = Add(s, m) a = Softmax(f) y = MatMul(a, x)",
            given="float[6] m = {0, -3e38, 0, 0, 0, -3e38}",
            x=TOKENS,
        ),
        "MatMul Softmax MatMul",
    ),
    "low numbers everywhere": (
        dict(
            body=SCORES + "f = Where(m, low, s) a = Softmax(f) y = MatMul(a, x)",
            given="bool[6,1] m = {1, 0, 1, 1, 0, 1}, float low = {-3e38}",
            x=TOKENS,
        ),
        "MatMul Scale Softmax MatMul",
    ),
    "a guard against NaN": (
        dict(
            body=SCORES + "a = Softmax(s) n = IsNaN(a) g = Where(n, zero, a) y = MatMul(g, x)",
            given="float zero = {0}",
            x=TOKENS,
        ),
        "MatMul Softmax MatMul",
    ),
    "einsum of two": (
        dict(
            body='r = Reshape(x, h) k = Relu(r) a = Einsum<equation="bihd,bjhd->bhij">(r, k) f = Softmax(a) '
            'y = Einsum<equation="bhij,bjhd->bihd">(f, k)',
            given="int64[4] h = {0, 0, 2, -1}",
            x=TOKENS,
        ),
        "Reshape ReLU Permute Permute MatMul Softmax Permute MatMul Permute",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_equals_onnxruntime(name: str) -> None:
    case, expected = CASES[name]
    proto = model(**case)
    layers = from_onnx(proto)
    n = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 2
    x = feed(proto, n=n)
    outputs = run(proto, x)
    assert kinds(layers) == expected
    # both sides compute in float32: sums of at most 120 terms, a few one after the other
    np.testing.assert_allclose(dtd.predict(layers, x), outputs, rtol=0, atol=256 * 2.0**-24 * np.abs(outputs).max())


def test_a_row_of_which_an_infinite_mask_leaves_nothing_is_0() -> None:
    """As the specification has it since onnx 1.23; where a written-out Softmax would give NaN."""
    proto = model(
        "k = Relu(x) y = Attention(x, k, k, m)", "bool[6,6] m = {" + "1, 1, 0, 1, 1, 1, " + "0, " * 29 + "1}", HEADS, 23
    )
    x = feed(proto)
    made = dtd.predict(from_onnx(proto), x)
    assert not made[:, :, 1:5].any()
    np.testing.assert_allclose(made, run(proto, x), rtol=1e-5, atol=1e-6)


def test_a_mask_takes_the_place_of_low_numbers() -> None:
    body = SCORES + "f = Add(s, m) a = Softmax(f) y = MatMul(a, x)"
    low, infinite = (
        from_onnx(model(body, f"float[6] m = {{0, {number}, 0, 0, 0, {number}}}", TOKENS))
        for number in ("-3e38", "-inf")
    )
    for layers in (low, infinite):
        (softmax,) = (record for record in layers if isinstance(record, dtd.Softmax))
        np.testing.assert_array_equal(np.ravel(softmax.mask), [True, False, True, True, True, False])
    x = feed(model("y = Relu(x)", x=TOKENS))
    np.testing.assert_array_equal(dtd.explain(low, x, (0, 0)), dtd.explain(infinite, x, (0, 0)))


@pytest.mark.parametrize("rules", ["dtd", "cp-lrp", "attnlrp"])
def test_one_operator_is_explained_as_its_parts(rules: str) -> None:
    """Attention and LayerNormalization, and the same written out as exporters do."""
    given = "float[8,8] u, float[8,8] v, float[8,8] w, float[8] g, float[8] b, float two = {2}, float eps = {0.001}, "
    given += "float c = {0.5}, int64[4] s = {0, 0, 2, 4}, int64[3] back = {0, 0, 8}"
    whole = model(
        "n = LayerNormalization<epsilon=0.001>(x, g, b) q = MatMul(n, u) k = MatMul(n, v) z = MatMul(n, w) "
        "a = Attention<q_num_heads=2, kv_num_heads=2, is_causal=1>(q, k, z) y = Add(x, a)",
        given,
        TOKENS,
        23,
    )
    mask = numpy_helper.from_array(np.where(np.tri(6, dtype=bool), 0, -np.inf).astype(np.float32), "mask")
    parts = model(
        CENTRED.replace("[-1]", "[2]").replace("v = ", "var = ").replace("Add(v,", "Add(var,")
        + "r = Sqrt(e) i = Div(d, r) f = Mul(i, g) n = Add(f, b) q = MatMul(n, u) k = MatMul(n, v) z = MatMul(n, w) "
        "q1 = Reshape(q, s) k1 = Reshape(k, s) z1 = Reshape(z, s) q2 = Transpose<perm=[0,2,1,3]>(q1) "
        "k2 = Transpose<perm=[0,2,3,1]>(k1) z2 = Transpose<perm=[0,2,1,3]>(z1) h = MatMul(q2, k2) j = Mul(h, c) "
        "l = Add(j, mask) t = Softmax(l) o = MatMul(t, z2) p1 = Transpose<perm=[0,2,1,3]>(o) a = Reshape(p1, back) "
        "y = Add(x, a)",
        given,
        TOKENS,
        17,
    )
    parts.graph.initializer.append(mask)
    x = feed(whole)
    start = np.random.default_rng(3).standard_normal(x.shape)
    maps = [dtd.explain(from_onnx(p), x, start, rules=rules, backend="oracle") for p in (whole, parts)]
    # eps and scale are float32 in one file
    np.testing.assert_allclose(*maps, rtol=0, atol=1e-6 * np.abs(maps[0]).max())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a cache of keys": (
        dict(body="k = Relu(x) y = Attention(x, k, k, , p, p)", given="float[1,2,3,4] p", x=HEADS, opset=23),
        "past_key: a cache of earlier tokens has no record",
    ),
    "present keys": (
        dict(body="k = Relu(x) a, y = Attention(x, k, k)", x=HEADS, opset=23),
        "its output present_key is read",
    ),
    "scores": (
        dict(body="k = Relu(x) a, b, c, y = Attention(x, k, k)", x=HEADS, opset=23),
        "its output qk_matmul_output is read",
    ),
    "lengths of samples": (
        dict(body="k = Relu(x) y = Attention(x, k, k, , , , p)", given="int64[1] p = {3}", x=HEADS, opset=24),
        "nonpad_kv_seqlen",
    ),
    "constant keys": (
        dict(body="y = Attention(x, k, x)", given="float[1,2,6,4] k", x=HEADS, opset=23),
        "its key is a constant",
    ),
    "heads that do not divide": (
        dict(body="y = Attention<q_num_heads=3, kv_num_heads=3>(x, x, x)", x=TOKENS, opset=23),
        "with 3 heads",
    ),
    "a mask per sample": (
        dict(body="k = Relu(x) y = Attention(x, k, k, m)", given="float[2,1,6,6] m", x="float[2,2,6,4] x", opset=23),
        "may not vary along the batch axis",
    ),
    "half a pair": (
        dict(body="y = RotaryEmbedding<rotary_embedding_dim=3>(x, c, c)", given="float[1,6,1] c", x=HEADS, opset=23),
        "rotary_embedding_dim is 3",
    ),
    "statistics that are read": (
        dict(body="a, y = LayerNormalization(x, w)", given="float[8] w", x=TOKENS),
        "its mean or its deviation is read",
    ),
    "a sum of sizes": (dict(body="y = LpNormalization<p=1>(x)", x=TOKENS), "p is 1"),
    "groups that do not divide": (
        dict(body="y = GroupNormalization<num_groups=4>(x, w, w)", given="float[6] w", x=IMAGE, opset=21),
        "6 channels do not divide into 4 groups",
    ),
    "a norm with eps outside the root": (
        dict(body=CENTRED.replace("e = Add(v, eps)", "r = Sqrt(v) e = Add(r, half)") + "y = Div(d, e)", given=NUMBERS,
             x=TOKENS),
        r"node 4 \(Sqrt\): this operator has no record, and no known activation or norm",
    ),
    "a norm of something else": (
        dict(body=CENTRED + "r = Sqrt(e) z = Relu(x) y = Div(z, r)", given=NUMBERS, x=TOKENS),
        r"node 5 \(Sqrt\): this operator has no record",
    ),
    "an exponential": (dict(body="e = Exp(x) y = Relu(e)", x=TOKENS), r"node 0 \(Exp\): this operator has no record"),
    "a quotient of two": (
        dict(body="s = MatMul(x, u) y = Div(x, s)", given="float[8,8] u", x=TOKENS),
        r"node 1 \(Div\): division by what is computed has no record",
    ),
    "a mask in front of a maximum": (
        dict(body="a = Add(x, m) y = ReduceMax<axes=[1]>(a)", given="float[6,1] m = {0, -inf, 0, 0, 0, 0}", x=TOKENS),
        "something else than a softmax reads that",
    ),
    "products of samples": (dict(body="y = MatMul(x, x)", x="float[4,4] x"), "are not multiplied sample by sample"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    case, message = REFUSED[name]
    with pytest.raises(ModelError, match=message):
        from_onnx(model(**case))
