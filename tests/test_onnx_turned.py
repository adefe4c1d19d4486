"""ONNX import of graphs whose batch axis is not the first for a while, shares its axis with heads, windows or tokens,
or is an axis of constants.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast import ModelError, from_onnx
from onnx_models import feed, model, run
from support import kinds

TOKENS, IMAGE = "float[N,6,8] x", "float[N,6,5,4] x"
TURN, BACK = "a = Transpose<perm=[1,0,2]>(x) ", " y = Transpose<perm=[1,0,2]>(b)"

CASES: dict[str, tuple[dict[str, Any], str | None]] = {
    "tokens before samples": (
        dict(
            body="a = Transpose(x) g = Gather(w, a) y = Transpose<perm=[1,0,2]>(g)", given="float[9,4] w",
            x="int64[N,5] x"
        ),
        "Embedding",
    ),
    "samples second": (
        dict(
            body="a = Transpose<perm=[1,0,2]>(x) q = MatMul(a, u) r = Add(q, b) s = Softmax(r) m = "
            "LayerNormalization(s, b) y = Transpose<perm=[1,0,2]>(m)",
            given="float[8,8] u, float[8] b",
            x=TOKENS,
        ),
        "Linear Softmax LayerNorm",
    ),
    "samples second, one token": (
        dict(
            body="a = Transpose<perm=[1,0,2]>(x) m = LayerNormalization(a, b) g = Gather(m, o) y = Relu(g)",
            given="float[8] b, int64 o = {0}",
            x=TOKENS,
        ),
        "LayerNorm Slice Flatten ReLU",
    ),
    "samples last": (
        dict(
            body="a = Transpose<perm=[2,1,0]>(x) s = Slice(a, i, j, i) r = ReduceMean<axes=[0], keepdims=0>(s) "
            "y = Transpose<perm=[1,0]>(r)",
            given="int64[1] i = {1}, int64[1] j = {4}",
            x=TOKENS,
        ),
        "Permute Slice Reduce",
    ),
    "tokens and samples in rows": (
        dict(
            body="a = Transpose<perm=[1,0,2]>(x) f = Reshape(a, m) q = Gemm(f, u, b) r = Reshape(q, s) "
            "y = Transpose<perm=[1,0,2]>(r)",
            given="float[8,8] u, float[8] b, int64[2] m = {-1, 8}, int64[3] s = {6, -1, 8}",
            x=TOKENS,
        ),
        "Linear",
    ),
    "samples and heads in one axis": (
        dict(
            body="a = Transpose<perm=[1,0,2]>(x) r = Reshape(a, s) q = Transpose<perm=[1,0,2]>(r) "
            "k = Transpose<perm=[1,2,0]>(r) p = MatMul(q, k) c = Add(p, m) f = Softmax(c) v = MatMul(f, q) "
            "h = Transpose<perm=[1,0,2]>(v) j = Reshape(h, back) y = Transpose<perm=[1,0,2]>(j)",
            given="int64[3] s = {6, -1, 4}, int64[3] back = {6, -1, 8}, float[1,6,6] m",
            x=TOKENS,
        ),
        "Reshape Permute Permute MatMul Constant Add Softmax MatMul Permute Reshape",
    ),
    "samples and windows in one axis": (
        dict(
            body="a = Reshape(x, s) b = Transpose<perm=[0,1,3,2,4,5]>(a) c = Reshape(b, u) q = MatMul(c, w) "
            "k = Transpose<perm=[0,2,1]>(q) p = MatMul(q, k) f = Softmax(p) v = MatMul(f, c) d = Reshape(v, s) "
            "e = Transpose<perm=[0,1,3,2,4,5]>(d) y = Reshape(e, t)",
            given="float[3,3] w, int64[6] s = {-1, 2, 2, 2, 2, 3}, int64[3] u = {-1, 4, 3}, int64[4] t = {-1, 4, 4, 3}",
            x="float[N,4,4,3] x",
        ),
        "Reshape Permute Reshape Linear MatMul Softmax MatMul Reshape Permute Reshape",
    ),
    "constants repeated beside windows": (
        dict(
            body="s = Shape(x) u = Gather(s, o) t = Concat<axis=0>(u, i, i) k = Tile(m, t) "
            "a = Reshape(x, r) c = Add(a, k) p = MatMul(k, c) q = Einsum<equation='bij,jk->bik'>(p, w) "
            "y = Reshape(q, back)".replace("'", '"'),
            given="int64[1] o = {0}, int64[1] i = {1}, float[4,3,3] m, float[3,3] w, int64[3] r = {-1, 3, 3}, "
            "int64[4] back = {-1, 4, 3, 3}",
            x="float[N,4,3,3] x",
        ),
        "Constant Add Reshape Conv Reshape Linear",
    ),
    "elements chosen beside heads": (
        dict(
            body="s = Shape(x) u = Gather(s, o) t = Concat<axis=0>(u, i, i) k = Tile(m, t) "
            "a = Reshape(x, r) c = GatherElements<axis=2>(a, k) y = Reshape(c, back)",
            given="int64[1] o = {0}, int64[1] i = {1}, int64[2,2,3] m = {0,2,1,1,0,1,2,2,0,0,1,0}, "
            "int64[3] r = {-1, 2, 3}, int64[4] back = {-1, 2, 2, 3}",
            x="float[N,2,2,3] x",
        ),
        "Flatten Gather Reshape",
    ),
    "samples second, of an einsum": (
        dict(
            body='a = Transpose<perm=[1,0,2]>(x) h = Einsum<equation="ibh,hnd->ibnd">(a, w) '
            'p = Einsum<equation="ibnd,jbnd->bnij">(h, h) f = Softmax(p) q = Einsum<equation="bnij,jbnd->ibnd">(f, h) '
            'e = Einsum<equation="ibnd,hnd->ibh">(q, w) y = Transpose<perm=[1,0,2]>(e)',
            given="float[8,2,4] w",
            x=TOKENS,
        ),
        None,
    ),
    "samples and tokens normalised together": (
        dict(
            body="a = Reshape(x, r) c = Gemm(a, w, b) d = BatchNormalization(c, g, h, m, v) y = Reshape(d, back)",
            given="float[8,4] w, float[4] b, float[4] g, float[4] h, float[4] m, float[4] v, int64[2] r = {-1, 8}, "
            "int64[3] back = {-1, 6, 4}",
            x=TOKENS,
        ),
        "Linear Scale",
    ),
    "positions of tokens": (
        dict(
            body="s = Shape(x) n = Gather(s, i) r = Range(o, n, i) u = Unsqueeze(r, a) ones = "
            "ConstantOfShape<value=int64[1]{1}>(s) p = Mul(ones, u) e = Gather(w, p) f = Gather(w, x) y = Add(e, f)",
            given="float[9,4] w, int64 i = {1}, int64 o = {0}, int64[1] a = {0}",
            x="int64[N,5] x",
        ),
        "Embedding Constant Add",
    ),
    "positions counted along a mask of ones": (
        dict(
            body="s = Shape(x) ones = ConstantOfShape<value=int64[1]{1}>(s) c = CumSum(ones, i) p = Sub(c, i) "
            "e = Gather(w, p) f = Gather(w, x) y = Add(e, f)",
            given="float[9,4] w, int64 i = {1}",
            x="int64[N,5] x",
        ),
        "Embedding Constant Add",
    ),
    "positions asked for sample by sample": (
        dict(
            body="s = Shape(x) n = Gather(s, o) r = Range(o, n, i) u = Unsqueeze(r, a) ones = "
            "ConstantOfShape<value=int64[1]{1}>(s) c = CumSum(ones, i) p = Sub(c, i) q = GatherND(p, u) "
            "e = Gather(w, q) f = Gather(w, x) y = Add(e, f)",
            given="float[9,4] w, int64 i = {1}, int64 o = {0}, int64[1] a = {1}",
            x="int64[N,5] x",
        ),
        "Embedding Constant Add",
    ),
    "repeated": (
        dict(
            body=TURN + "r = ReduceMax<axes=[2]>(a) b = Expand(r, s)" + BACK,
            given="int64[1] s = {4}",
            x=TOKENS,
            opset=13,
        ),
        "Reduce Expand",
    ),
    "repeated beside samples": (
        dict(
            body="a = Reshape(x, m) r = ReduceMax<axes=[1]>(a) e = Expand(r, s) y = Reshape(e, t)", x=TOKENS, opset=13,
            given="int64[2] m = {-1,8}, int64[2] s = {1,3}, int64[3] t = {-1,6,3}"
        ),
        "Reduce Expand",
    ),
    "softmax of opset 11": (dict(body=TURN + "b = Softmax<axis=2>(a)" + BACK, x=TOKENS, opset=11), "Softmax"),
    "slice of opset 9": (
        dict(body=TURN + "b = Slice<axes=[0,2], starts=[1,2], ends=[4,7]>(a)" + BACK, x=TOKENS, opset=9),
        "Slice Slice",
    ),
    "what is never so": (
        dict(body=TURN + "n = IsNaN(a) b = Where(n, c, a)" + BACK, x=TOKENS, given="float c = {0}"),
        "Dropout",
    ),
    "a constant beside": (
        dict(
            body=TURN + "s = Shape(a) n = Slice(s, i, j) t = Concat<axis=0>(i, n, k) e = Expand(c, t) "
            "b = Concat<axis=0>(e, a)" + BACK,
            given="int64[1] i = {1}, int64[1] j = {2}, int64[1] k = {8}, float[1,1,8] c",
            x=TOKENS,
        ),
        "Constant Concat",
    ),
    "a mask of ones": (
        dict(
            body="s = Shape(x) ones = ConstantOfShape<value=float[1]{1}>(s) u = Unsqueeze(ones, a) n = Sub(one, u) "
            "m = Mul(n, low) e = Gather(w, x) t = Transpose<perm=[0,2,1]>(e) q = MatMul(e, t) z = Add(q, m) "
            "f = Softmax(z) y = MatMul(f, e)",
            given="float[9,4] w, int64[1] a = {1}, float one = {1}, float low = {-3e38}",
            x="int64[N,5] x",
        ),
        "Embedding MatMul Softmax MatMul",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batch", ["N", "2"])
def test_equals_onnxruntime(name: str, batch: str) -> None:
    """With an open batch axis, and with a declared one, whose size other axes have too."""
    case, expected = CASES[name]
    proto = model(**case | {"x": case["x"].replace("N", batch)})
    layers, x = from_onnx(proto), feed(proto)
    outputs = run(proto, x)
    assert expected is None or kinds(layers) == expected
    # both sides compute in float32: sums of at most 48 terms, a few one after the other
    np.testing.assert_allclose(dtd.predict(layers, x), outputs, rtol=0, atol=128 * 2.0**-24 * np.abs(outputs).max())


@pytest.mark.parametrize(("first", "named"), [(0, True), (1, False)])
def test_elements_numbered_through_all_samples(first: int, named: bool) -> None:
    """As PyTorch writes as_strided: every sample takes its own, or some of another one's."""
    places = np.arange(24).reshape(2, 4, 3)[:, ::2].ravel() + first * (np.arange(12) > 5)
    listed = ",".join(map(str, places))
    proto = model("f = Reshape(x, r) y = Gather(f, i)", f"int64[1] r = {{-1}}, int64[2,2,3] i = {{{listed}}}",
                  x="float[2,4,3] x", y="float[2,2,3] y")  # fmt: skip
    if named:
        layers, x = from_onnx(proto), feed(proto)
        np.testing.assert_array_equal(dtd.predict(layers, x), x[:, ::2])
    else:
        with pytest.raises(ModelError, match="from one sample to another"):
            from_onnx(proto)


def test_constants_that_differ_from_sample_to_sample() -> None:
    body = "a = Reshape(x, r) c = Add(a, m) y = Reshape(c, back)"
    given = "float[8,3,3] m, int64[3] r = {-1, 3, 3}, int64[4] back = {-1, 4, 3, 3}"
    with pytest.raises(ModelError, match="may not vary along the batch axis"):
        from_onnx(model(body, given, x="float[2,4,3,3] x"))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a softmax over samples": (
        dict(body="a = Transpose<perm=[1,2,0]>(x) s = Softmax(a) y = Transpose<perm=[2,0,1]>(s)", x=TOKENS),
        "its input has the batch axis at place 2",
    ),
    "a convolution of windows": (
        dict(body="a = Reshape(x, s) y = Conv(a, w)", given="int64[4] s = {-1, 1, 5, 4}, float[1,1,2,2] w", x=IMAGE),
        "its input has the batch axis at place 0, merged with others",
    ),
    "samples in different places": (
        dict(body="a = Transpose<perm=[1,0,2]>(x) y = Add(a, x)", x="float[N,6,6] x"),
        "the batch axis in different places",
    ),
    "samples that are merged backwards": (
        dict(body="a = Reshape(x, s) y = Relu(a)", given="int64[2] s = {16, -1}", x=TOKENS),
        "mix or remove the batch axis",
    ),
    "other ranks": (
        dict(body=TURN + "b = ReduceMax<axes=[2], keepdims=0>(a) y = Add(a, b)", x="float[N,6,6] x", opset=13),
        "their batch axes do not meet",
    ),
    "a batch that is repeated": (
        dict(body=TURN + "y = Expand(a, s)", x="float[1,6,8] x", given="int64[3] s = {1,9,1}", opset=13),
        "batch axis at place 1; bring it back",
    ),
    "more axes": (
        dict(body=TURN + "y = Expand(a, s)", x=TOKENS, given="int64[4] s = {1,1,1,1}", opset=13),
        "batch axis at place 1; bring it back",
    ),
    "all axes": (dict(body=TURN + "y = ReduceMax(a)", x=TOKENS), "it reduces all axes, the batch too"),
    "joined axes": (dict(body=TURN + "y = Softmax(a)", x=TOKENS, opset=11), "before opset 13 it joins all axes"),
    "a norm over samples": (
        dict(body=TURN + "y = LayerNormalization<axis=1>(a, g)", x=TOKENS, given="float[8] g"),
        "it works along the batch axis",
    ),
    "a matrix of samples": (
        dict(body="a = Transpose<perm=[1,2,0]>(x) y = MatMul(w, a)", x=TOKENS, given="float[3,8] w"),
        "batch axis at place 2",
    ),
    "numbers of samples": (
        dict(body="s = Shape(x) n = Gather(s, o) r = Range(o, n, i) e = Gather(w, r) y = Add(x, e)",
             given="float[9,8] w, int64 o = {0}, int64 i = {1}", x=TOKENS),
        "grows with the batch",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    case, message = REFUSED[name]
    with pytest.raises(ModelError, match=message):
        from_onnx(model(**case))
