"""ONNX files as they come: weights of every type, in the file and beside it, and files that are damaged or hostile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

import dtdfast as dtd
from dtdfast import DtdError, MemoryBudgetError, ModelError, from_onnx
from onnx_models import feed, model, run
from support import LONG

# -------------------------------------------------------------------------------------------------------------- weights

NET = dict(body="a = Conv(x, w, b) c = Relu(a) f = Flatten(c) y = Gemm<transB=1>(f, u, d)")
NET_GIVEN = "{0}[6,4,3,3] w, {0}[6] b, {0}[5,336] u, {0}[5] d"


def net(kind: str = "float") -> onnx.ModelProto:
    return model(**NET, given=NET_GIVEN.format(kind), x=f"{kind}[N,4,9,10] x", y=f"{kind}[N,5] y")


def test_double_weights_stay_double() -> None:
    proto = net("double")
    layers = from_onnx(proto)
    assert {record.weight.dtype for record in layers if hasattr(record, "weight")} == {np.dtype(np.float64)}
    x = feed(proto)
    (outputs,) = ReferenceEvaluator(proto).run(None, {"x": x})
    np.testing.assert_allclose(dtd.predict(layers, x, backend="oracle"), outputs, rtol=1e-12, atol=1e-12)


def test_float16_weights() -> None:
    """The same numbers in float32, so that the two may differ by the rounding of float16 alone."""
    proto = net("float16")
    layers = from_onnx(proto)
    assert {record.weight.dtype for record in layers if hasattr(record, "weight")} == {np.dtype(np.float32)}
    x = feed(proto)
    np.testing.assert_allclose(dtd.predict(layers, x.astype(np.float32)), run(proto, x), rtol=0, atol=20 * 2.0**-11)


@pytest.mark.parametrize("raw", [True, False])
def test_bfloat16_weights(raw: bool) -> None:
    """bfloat16 is the upper half of a float32."""
    values = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    exact = (halves.astype(np.uint32) << 16).view(np.float32)
    proto = model("c = Cast<to=1>(w) y = Gemm<transB=1>(x, c)", x="float[N,7] x")
    tensor = TensorProto(name="w", dims=(5, 7), data_type=TensorProto.BFLOAT16)
    if raw:
        tensor.raw_data = halves.tobytes()
    else:
        tensor.int32_data.extend(int(v) for v in halves.ravel())
    proto.graph.initializer.append(tensor)
    (layer,) = from_onnx(proto)
    np.testing.assert_array_equal(layer.weight, exact)


def save_external(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "net.onnx"
    onnx.save(
        proto, path, save_as_external_data=True, all_tensors_to_one_file=True, location="net.bin", size_threshold=0
    )
    return path


def test_external_data(tmp_path: Path) -> None:
    proto = net()
    x, outputs = feed(proto), run(proto, feed(proto))
    path = save_external(proto, tmp_path)
    assert path.stat().st_size < 2000 < (tmp_path / "net.bin").stat().st_size
    np.testing.assert_allclose(dtd.predict(from_onnx(str(path)), x), outputs, rtol=1e-5, atol=1e-5)
    with pytest.raises(ModelError, match=r"'net\.bin'; pass the model's path"):
        from_onnx(onnx.load(path, load_external_data=False))


@pytest.mark.parametrize(
    "location",
    ["../secret.bin", "sub/../../secret.bin", "{outside}", "link.bin", "", ".", "no.bin", "a\0b", "x" * 5000],
)
def test_external_data_stays_inside_the_folder(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = save_external(net(), folder)
    (tmp_path / "secret.bin").write_bytes((folder / "net.bin").read_bytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    stored = onnx.load(path, load_external_data=False)
    for tensor in stored.graph.initializer:
        tensor.external_data[0].value = location.format(outside=tmp_path / "secret.bin")
    path.write_bytes(stored.SerializeToString())
    with pytest.raises(ModelError, match=r"not a file inside the model's folder|its external data"):
        from_onnx(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("length", "8", "864 bytes"),
        ("length", "many", "not a number"),
        ("offset", "-4", "864 bytes"),
        ("offset", "999999999999", "expected at least"),
    ],
)
def test_external_data_of_another_size(tmp_path: Path, key: str, value: str, message: str) -> None:
    path = save_external(net(), tmp_path)
    stored = onnx.load(path, load_external_data=False)
    next(e for e in stored.graph.initializer[0].external_data if e.key == key).value = value
    path.write_bytes(stored.SerializeToString())
    with pytest.raises(ModelError, match=message):
        from_onnx(path)


@pytest.mark.parametrize("operator", ["Gemm<transB=1>(a{0}, w{0})", "MatMul(a{0}, w{0})", "Gemm(a{0}, w{0})"])
def test_layers_share_the_one_stretch_that_their_tensors_are(tmp_path: Path, operator: str) -> None:
    """A hundred tensors that are one stretch of one file take its memory once, also where all layers hold the
    transposed matrix.
    """
    body = " ".join(f"a{i + 1} = {operator.format(i)}" for i in range(100))
    proto = model(f"a0 = Identity(x) {body} y = Identity(a100)", x="float[N,256] x")
    for i in range(100):
        tensor = TensorProto(
            name=f"w{i}", dims=(256, 256), data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL
        )
        tensor.external_data.add(key="location", value="net.bin")
        proto.graph.initializer.append(tensor)
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    np.random.default_rng(0).standard_normal((256, 256), np.float32).tofile(tmp_path / "net.bin")
    layers = from_onnx(tmp_path / "net.onnx")
    assert len(layers) == 100
    assert all(np.shares_memory(layers[0].weight, layer.weight) for layer in layers)


def test_weights_keep_to_the_memory_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_external(net(), tmp_path)
    monkeypatch.setenv("DTDFAST_MEMORY", "4K")
    with pytest.raises(MemoryBudgetError, match=r"tensor 'u'.* DTDFAST_MEMORY"):
        from_onnx(path)


LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.mark.parametrize("name", ["light_squeezenet", "light_shufflenet", *["light_resnet50"] * LONG])
def test_models_whose_weights_are_filled_on_import(name: str) -> None:
    """onnx's own light models, of opset 9: every weight is a ConstantOfShape, many times larger together than the
    file.
    """
    if not (LIGHT / f"{name}.onnx").exists():
        pytest.skip("this version of onnx has no light models")
    proto = onnx.load(LIGHT / f"{name}.onnx")
    stored = {t.name for t in proto.graph.initializer}
    (info,) = (i for i in proto.graph.input if i.name not in stored)
    x = np.random.default_rng(0).standard_normal([d.dim_value for d in info.type.tensor_type.shape.dim], np.float32)
    np.testing.assert_allclose(dtd.predict(from_onnx(proto), x), run_named(proto, info.name, x), rtol=1e-5, atol=1e-6)


def run_named(proto: onnx.ModelProto, name: str, x: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {name: x})[0]


# -------------------------------------------------------------------------------------------- damaged and hostile files


def tensor_of(**fields: Any) -> TensorProto:
    return TensorProto(name="w", data_type=fields.pop("data_type", TensorProto.FLOAT), **fields)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (tensor_of(dims=(5, 7), raw_data=bytes(8)), "140 bytes, but the file has 8"),
        (tensor_of(dims=(1 << 40, 1 << 20), raw_data=bytes(8)), "but the file has 8"),
        (tensor_of(dims=(1 << 62, 1 << 62), float_data=[1.0]), "but the file has 1"),
        (tensor_of(dims=(-1, 7), raw_data=bytes(140)), r"shape \(-1, 7\)"),
        (tensor_of(dims=(5, 7), float_data=[1.0]), "35 numbers, but the file has 1"),
        (tensor_of(dims=(1,) * 40, float_data=[1.0]), "shape"),
        (tensor_of(dims=(1,), data_type=TensorProto.STRING, string_data=[b"a"]), "element type string"),
        (tensor_of(dims=(1,), data_type=999, raw_data=bytes(4)), "element type 999"),
        (tensor_of(dims=(5, 7), raw_data=bytes(140), segment=TensorProto.Segment(begin=0, end=4)), "segments"),
        (tensor_of(dims=(0, 7)), "empty"),
    ],
)
def test_damaged_tensors(tensor: TensorProto, message: str) -> None:
    proto = model("y = Gemm<transB=1>(x, w)", x="float[N,7] x")
    proto.graph.initializer.append(tensor)
    with pytest.raises(ModelError, match=message):
        from_onnx(proto)


@pytest.mark.parametrize(
    "values",
    [(1 << 62, 0), (1 << 62, 4), (1 << 62, 1 << 62), (-1, 4), (1 << 40, 4), ((1 << 63) - 1,)],
)
@pytest.mark.parametrize(
    "then", ["y = Add(x, c)", "y = Gemm(x, c)", "d = Transpose(c) y = MatMul(x, d)", "d = Neg(c) y = Add(x, d)"]
)
def test_constants_of_impossible_shapes(values: tuple[int, ...], then: str) -> None:
    shape = ", ".join(map(str, values))
    with pytest.raises(DtdError):
        from_onnx(
            model(f"c = ConstantOfShape(s) {then}", given=f"int64[{len(values)}] s = {{{shape}}}", x="float[N,7] x")
        )


def test_constants_that_double_are_stopped() -> None:
    doubling = " ".join(f"a{i + 1} = Concat<axis=0>(a{i}, a{i})" for i in range(60))
    with pytest.raises(ModelError, match="too large to be computed on import"):
        from_onnx(model(f"{doubling} y = Reshape(x, a60)", given="int64[2] a0 = {1,1}"))


@pytest.mark.parametrize("content", [b"", b"\x08", b"not a model", bytes(1000), b"\xff" * 1000])
def test_no_onnx_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"net\.onnx"):
        from_onnx(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    "proto",
    [
        model(
            "r = Resize(x, , s) q = Resize(r, , s) y = GlobalAveragePool(q)",
            "float[4] s = {1,1,40,40}",
            "float[N,3,4,4] x",
        ),
        model(
            "c = ConstantOfShape(s) k = Shape(c) f = Cast<to=1>(k) g = Slice(f, zero, one, zero) y = Add(x, g)",
            "int64[2] s = {100000,100000}, int64[1] zero = {0}, int64[1] one = {1}",
            "float[N,3] x",
        ),
    ],
    ids=["computed", "constant"],
)
def test_no_check_makes_what_a_small_file_asks_for(proto: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime knows no budget: it would take gigabytes."""
    monkeypatch.setenv("DTDFAST_MEMORY", "256M")
    monkeypatch.setattr("dtdfast.importers.onnx.check._run", lambda *_: pytest.fail("it was run"))
    from_onnx(proto)
