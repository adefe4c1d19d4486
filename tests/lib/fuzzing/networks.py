"""Damages small models and imports each: onnx_mutations.py [COUNT [SEED]] prints how many were read and how many
refused.

A program of its own, since its address space is limited; whatever is not a DtdError ends it.
"""

from __future__ import annotations

import random
import resource
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from dtdfast import DtdError, from_onnx
from onnx_models import model

HOSTILE = (0, 1, -1, 2, 7, 1 << 20, 1 << 31, -(1 << 31), (1 << 63) - 1, -(1 << 63))

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


def damaged_bytes(rng: random.Random, whole: bytes) -> bytes:
    """Flipped bits (mostly), or bytes cut out, repeated or cut off."""
    data = bytearray(whole)
    kind = rng.randrange(10)
    at = rng.randrange(len(data))
    if kind < 7:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 7:
        del data[at : at + rng.randint(1, 16)]
    elif kind == 8:
        data[at:at] = data[at : at + rng.randint(1, 64)]
    else:
        del data[at:]
    return bytes(data)


def damage_structure(rng: random.Random, proto: onnx.ModelProto) -> None:
    """Hostile numbers in dims, attributes and tensors; names exchanged; nodes moved, repeated or removed."""
    graph = proto.graph
    for _ in range(rng.randint(1, 3)):
        node, tensor = rng.choice(graph.node), rng.choice(graph.initializer)
        names = ["x", "y", "", *(t.name for t in graph.initializer), *(o for n in graph.node for o in n.output)]
        kind = rng.randrange(9)
        if kind == 0 and tensor.dims:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(HOSTILE)
        elif kind == 1 and len(tensor.dims) < 2 and tensor.data_type == onnx.TensorProto.INT64:
            values = [
                rng.choice(HOSTILE) for _ in range(tensor.dims[0] if tensor.dims and 0 < tensor.dims[0] < 9 else 1)
            ]
            tensor.ClearField("raw_data")
            tensor.int64_data[:] = values
        elif kind == 2 and node.attribute:
            attribute = rng.choice(node.attribute)
            attribute.i = rng.choice(HOSTILE)
            for i in range(len(attribute.ints)):
                attribute.ints[i] = rng.choice(HOSTILE)
        elif kind == 3 and node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice(names)
        elif kind == 4:
            node.op_type = rng.choice(graph.node).op_type
        elif kind == 5:
            graph.node.remove(node)
        elif kind == 6:
            graph.node.insert(rng.randrange(len(graph.node)), node)
        elif kind == 7:
            tensor.data_type = rng.randrange(20)
        else:
            dims = graph.input[0].type.tensor_type.shape.dim
            rng.choice(dims).dim_value = rng.choice(HOSTILE)


def main(count: int = 1000, seed: int = 0) -> None:
    # most of it is what the interpreter and its libraries map
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    rng = random.Random(seed)
    read = refused = 0
    with TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        for proto in MODELS:
            from_onnx(proto)  # they are sound before they are damaged
        for _ in range(count):
            proto = rng.choice(MODELS)
            if rng.random() < 0.5:
                content = damaged_bytes(rng, proto.SerializeToString())
            else:
                copy = onnx.ModelProto()
                copy.CopyFrom(proto)
                damage_structure(rng, copy)
                content = copy.SerializeToString()
            path.write_bytes(content)
            try:
                from_onnx(path)
                read += 1
            except DtdError:
                refused += 1
    print(read, refused)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
