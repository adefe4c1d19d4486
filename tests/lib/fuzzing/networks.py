"""ONNX models to be fuzzed: small ones of many operators, and those that onnx ships for single operators."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import onnx

import dtdfast as dtd
from dtdfast.importers.check import random_input
from dtdfast.importers.onnx.constants import FOLDABLE
from dtdfast.importers.onnx.importer import OnnxModel
from dtdfast.importers.onnx.walk import OPERATORS
from onnx_models import model
from onnx_node_tests import generated, with_data

from . import mutations
from .target import Target, held

OUTSIDE = 1 / 3 + 1e-4  # of a tensor in a file outside, which no import may show
FAR = 0.01  # of an output; less may be the rounding of weights that a mutation made large
OF_ONE_OPERATOR = 3  # models of onnx's own
LARGEST = 1 << 14  # bytes
NAMES = tuple(sorted({*OPERATORS, *FOLDABLE, "Shape", "Constant"}))

MODELS = [
    model(
        "a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w) n = BatchNormalization(a, g, b, m, v) r = Relu(n) "
        "p = MaxPool<kernel_shape=[2,2]>(r) s = Shape(p) h = Gather(s, zero) k = Unsqueeze(h, first) t = "
        "Concat<axis=0>(k, minus) "
        "f = Reshape(p, t) z = Gemm<transB=1>(f, u) "
        "y = Softmax(z)",
        "float[4,3,3,3] w, float[4] g, float[4] b, float[4] m, float[4] v, float[5,24] u, "
        "int64 zero = {0}, int64[1] first = {0}, int64[1] minus = {-1}",
        "float[N,3,6,8] x",
        y="float[N,5] y",
    ),
    model(
        "a, b = Split<axis=1>(x, parts) c = ConvTranspose<strides=[2,2], output_shape=[8,8]>(a, w) d = Resize(b, , "
        "scales) "
        "e = Concat<axis=1>(c, d) p = Pad(e, pads, fill) q = Slice(p, starts, ends, axes) r = Clip(q, low, high) "
        "m = ReduceMean<axes=[2,3], keepdims=0>(r) "
        "range = Range(low3, high3, step3) i = Gather<axis=1>(m, range) o = ConstantOfShape<value_int=1>(parts) y = "
        "Mul(i, half)",
        "float[2,3,2,2] w, int64[2] parts = {2,2}, float[4] scales = {1,1,2,2}, int64[8] pads = {0,0,1,1,0,0,1,1}, "
        "float fill = {0}, "
        "int64[1] starts = {1}, int64[1] ends = {9}, int64[1] axes = {2}, float low = {0}, float high = {6}, int64 "
        "low3 = {0}, "
        "int64 high3 = {4}, int64 step3 = {1}, float half = {0.5}",
        "float[N,4,4,4] x",
    ),
    model(
        'a = MatMul(m, x) b = Einsum<equation="bnc,chd->bhnd">(a, h) c = Transpose<perm=[3,1,2,0]>(b) d = Relu(c) '
        'e = Transpose<perm=[3,1,2,0]>(d) f = Max(e, t) g = Where(k, f, t) r = Resize<mode="cubic">(g, , scales) '
        'p = Pad<mode="reflect">(r, pads) q = Gather<axis=3>(p, i) u = CumSum(q, axis) v = Tile(u, times) s = Shape(v) '
        "o = ConstantOfShape(s) w = Sub(v, o) l = LogSoftmax(w) n = ReduceMin<axes=[1,2], keepdims=0>(l) y = Trilu(n)",
        "float[5,5] m, float[4,2,3] h, float[3] t, bool[3] k = {1,0,1}, float[4] scales = {1,1,2,1.5}, int64[8] pads "
        "= {0,0,1,0,0,0,2,1}, "
        "int64[2,2] i = {0,2,-1,1}, int64 axis = {2}, int64[5] times = {1,1,2,1,1}",
        "float[N,5,4] x",
        opset=17,
    ),
    model(
        "a = Mul<broadcast=1, axis=1>(x, c) b = PRelu(a, c) d = Pad<pads=[0,0,1,1,0,0,1,1], value=0.5>(b) e = "
        "Clip<min=-1.0, max=2.0>(d) "
        "f = AveragePool<kernel_shape=[2,2], strides=[2,2]>(e) g = Slice<axes=[2], starts=[0], ends=[2]>(f) h = "
        "Flatten(g) "
        "y = Gemm<broadcast=1, transB=1>(h, w, v)",
        "float[3] c, float[5,18] w, float[5] v",
        "float[N,3,4,4] x",
        opset=6,
    ),
    model(
        "n = LayerNormalization<axis=2>(x, g, b) q = MatMul(n, u) k = MatMul(n, v) z = MatMul(n, u) "
        "a = Attention<q_num_heads=4, kv_num_heads=2, is_causal=1>(q, k, k, m) "
        "r = RotaryEmbedding<num_heads=2>(z, c, c) s = Add(a, r) p = Pow(s, two) "
        "e = ReduceMean(p, last) f = Add(e, eps) i = Sqrt(f) o = Div(s, i) w = Mul(o, g) y = RMSNormalization(w, b)",
        "float[8] g, float[8] b, float[8,8] u, float[8,4] v, bool[1,1,5,5] m = {" + "1, " * 24 + "1}, float[1,5,2] c, "
        "float two = {2}, int64[1] last = {2}, float eps = {0.001}",
        "float[1,5,8] x",
        opset=23,
    ),
    model(
        "t = Transpose<perm=[1,0,2]>(x) h = Reshape(t, s) q = Transpose<perm=[1,0,2]>(h) "
        "k = Transpose<perm=[1,2,0]>(h) p = MatMul(q, k) l = Where(m, p, low) f = Softmax(l) "
        "v = MatMul(f, q) b = Transpose<perm=[1,0,2]>(v) "
        "r = Reshape(b, back) d = Gemm(r, w) e = Reshape(d, again) "
        "g = Transpose<perm=[1,0,2]>(e) z = Neg(g) j = Exp(z) o = Add(j, one) y = Div(g, o)",
        "int64[3] s = {5, -1, 4}, bool[1,5] m = {1, 1, 0, 1, 1}, float low = {-3e38}, int64[2] back = {-1, 8}, "
        "float[8,8] w, int64[3] again = {5, -1, 8}, float one = {1}",
        "float[N,5,8] x",
    ),
    model(
        "s = Shape(x) o = ConstantOfShape<value=int64[1]{1}>(s) c = CumSum(o, one) p = Sub(c, one) e = Gather(w, p) "
        "f = Gather(w, x) a = Add(e, f) i = InstanceNormalization(a, g, g) u = Unsqueeze(o, two) m = Cast<to=1>(u) "
        "n = Mul(m, low) y = Add(i, n)",
        "float[9,4] w, int64 one = {1}, float[5] g, int64[1] two = {2}, float low = {-1}",
        "int64[N,5] x",
    ),
]


def models() -> list[bytes]:
    """Those above, and one with weights in another file."""
    beside = model("y = Gemm(x, w)", "float[3,2] w", "float[N,3] x")
    onnx.external_data_helper.set_external_data(beside.graph.initializer[0], "weights.bin")
    beside.graph.initializer[0].ClearField("raw_data")
    return [one.SerializeToString() for one in (*MODELS, beside)]


def of_operators() -> list[bytes]:
    """Some of onnx's own models of each operator."""
    found, often = [], Counter[str]()
    for case in generated():
        graph = case.model.graph
        operator = "+".join(sorted({node.op_type for node in graph.node}))
        if graph.input and often[operator] < OF_ONE_OPERATOR:
            found.append(with_data(case, graph.input[0].name)[0].SerializeToString())
            often[operator] += 1
    return [one for one in found if len(one) < LARGEST]


def changed(data: bytes, rng: Random) -> bytes:
    """Fields of the message changed, seldom bytes."""
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception:
        return mutations.of_bytes(data, rng)
    if rng.random() < 0.1:
        return mutations.of_bytes(data, rng)
    try:
        mutations.of_message(proto, rng, NAMES)
    except (TypeError, UnicodeDecodeError):  # a text that is not UTF-8: protobuf hands it out, or does not
        return mutations.of_bytes(data, rng)
    return bytes(proto.SerializeToString())


def network(data: bytes) -> None:
    """An import that onnxruntime does not contradict, and which can be explained or says why not."""
    weights = np.arange(64, dtype=np.float32)
    weights.tofile(held("weights.bin", b""))
    np.full(64, OUTSIDE).tofile("../outside.bin")
    path = held("net.onnx", data)
    layers = _imported(path)
    for record in layers:
        for value in vars(record).values():
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                assert not np.isclose(value.astype(np.float64), OUTSIDE, rtol=1e-6, atol=0).any(), "read from outside"
    opened = OnnxModel(path)
    if opened.beside or opened.declared is None or not all(opened.declared[1:]) or np.prod(opened.declared[1:]) > 4096:
        return
    x = random_input(layers, (1, *opened.declared[1:]))
    relevance = dtd.explain(layers, x, backend="cpu", n_threads=1)
    assert relevance.shape == x.shape
    assert np.isfinite(relevance).all()


def _imported(path: Path) -> list[dtd.Layer]:
    try:
        return dtd.from_onnx(path)
    except dtd.ModelError as error:
        far = re.search(r"differs from onnxruntime \S+'s by (\S+)", str(error))
        if far is not None and float(far[1]) > FAR:
            raise AssertionError(error) from None
        raise


MODULES = ("importers/onnx", "importers/records.py", "importers/moves.py")
TARGETS = {"onnx": Target(models, network, changed, MODULES, of_operators)}
