"""ONNX models with several inputs: masks, numbers of positions and types, and floats become Givens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast.cli.commands import main
from onnx_models import model, run

WORDS, MASK = "int64[N,5] ids", "int64[N,5] mask"
IDS = np.arange(15).reshape(3, 5) % 9
REAL = np.array([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
EMBEDDED = "x = Gather(w, ids) "
SCORES = EMBEDDED + "t = Transpose<perm=[0,2,1]>(x) s = MatMul(x, t) "
NUMBERS = (
    "float one = {1}, float low = {-1e9}, float zero = {0}, float inf = {-inf}, int64[1] a1 = {1}, int64[1] a2 = {2}"
)
WEIGHTS = "float[9,4] w, " + NUMBERS + ", int64[1] a1 = {1}, int64[1] a2 = {2}, int64 none = {0}, int64 whole = {1}"
CAUSAL = ", bool[1,5,5] causal = {" + ", ".join(str(int(j <= i)) for i in range(5) for j in range(5)) + "}"
AT_LEAST = WEIGHTS + ", float few = {1e-9}"
COLUMN = "f = Cast<to=1>(mask) c = Unsqueeze(f, a2) p = Mul(x, c) "

MARK = "b = Cast<to=9>(mask) "

MODELS: dict[str, tuple[str, str]] = {  # what makes scores into masked ones, or the mean of words; constants
    "added": ("m = Cast<to=1>(mask) u = Unsqueeze(m, a1) i = Sub(one, u) b = Mul(i, low) q = Add(s, b)", WEIGHTS),
    "added integers": ("i = Sub(whole, mask) m = Cast<to=1>(i) u = Unsqueeze(m, a1) b = Mul(u, low) q = Add(s, b)",
                       WEIGHTS),
    "chosen": ("b = Cast<to=9>(mask) u = Unsqueeze(b, a1) q = Where(u, s, inf)", WEIGHTS),
    "filled": ("b = Equal(mask, none) u = Unsqueeze(b, a1) q = Where(u, low, s)", WEIGHTS),
    "turned round": ("b = Cast<to=9>(mask) n = Not(b) u = Unsqueeze(n, a1) q = Where(u, inf, s)", WEIGHTS),
    "compared": ("g = Greater(mask, none) u = Unsqueeze(g, a1) q = Where(u, s, inf)", WEIGHTS),
    "numbers that hide": ("b = Cast<to=9>(mask) u = Unsqueeze(b, a1) h = Where(u, zero, inf) q = Add(s, h)", WEIGHTS),
    "beside a causal one": (
        "b = Cast<to=9>(mask) u = Unsqueeze(b, a1) j = And(u, causal) q = Where(j, s, inf)",
        WEIGHTS + CAUSAL,
    ),
    "two that hide": (
        "b = Cast<to=9>(mask) u = Unsqueeze(b, a1) h = Where(u, zero, inf) k = Add(h, causal) q = Add(s, k)",
        WEIGHTS
        + ", float[1,5,5] causal = {" + ", ".join("0" if j <= i else "-inf" for i in range(5) for j in range(5)) + "}",
    ),
    "two of the sample": (
        "b = Cast<to=9>(mask) u = Unsqueeze(b, a1) n = Not(u) m = Not(n) j = And(u, m) q = Where(j, s, inf)", WEIGHTS
    ),
    "one that hides, twice": (
        "b = Cast<to=9>(mask) u = Unsqueeze(b, a1) h = Where(u, zero, inf) k = Add(h, h) q = Add(s, k)", WEIGHTS
    ),
}  # fmt: skip
MEANS: dict[str, tuple[str, str]] = {
    "by a clip": ("t = ReduceSum(p, a1) n = ReduceSum(c, a1) d = Clip(n, few) y = Div(t, d)", AT_LEAST),
    "by a maximum": ("t = ReduceSum(p, a1) n = ReduceSum(c, a1) d = Max(n, few) y = Div(t, d)", AT_LEAST),
    "expanded": (
        "h = Shape(x) e = Expand(c, h) r = Mul(x, e) t = ReduceSum(r, a1) n = ReduceSum(e, a1) y = Div(t, n)", WEIGHTS
    ),
    "of integers": (
        "t = ReduceSum(p, a1) k = ReduceSum(mask, a1) n = Cast<to=1>(k) r = Unsqueeze(n, a2) y = Div(t, r)", WEIGHTS
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_masks(name: str) -> None:
    """Imported, the list answers as onnxruntime does for any mask, and padding takes nothing."""
    body, given = MODELS[name]
    proto = model(SCORES + body + " p = Softmax(q) y = MatMul(p, x)", given, f"{WORDS}, {MASK}")
    layers = dtd.from_onnx(proto)
    (softmax,) = (r for r in layers if isinstance(r, dtd.Softmax))
    assert (softmax.mask is not None) == ("causal" in given)
    for mask in (REAL, np.ones_like(REAL)):
        outputs = dtd.predict(layers, IDS, backend="oracle", mask=mask)
        np.testing.assert_allclose(outputs, run(proto, IDS, mask=mask), rtol=0, atol=1e-5)
        start = outputs * mask[..., None]
        r = dtd.explain(layers, IDS, start, rules="cp-lrp", backend="oracle", mask=mask)
        assert not r[mask == 0].any()
        assert r[mask == 1].all()


REVERSED = (
    "int64[1] r = {-1}, int64[3,5] i = {" + ", ".join(map(str, np.arange(15).reshape(3, 5)[:, ::-1].ravel())) + "}"
)
OTHERS = {
    "another word": (MARK + "c = Unsqueeze(b, a2) y = Where(c, x, word)", WEIGHTS + ", float[4] word = {1, -2, 3, 0}"),
    "pairs of words": (
        SCORES.removeprefix(EMBEDDED) + "c = Unsqueeze(mask, a1) d = Unsqueeze(mask, a2) j = Mul(c, d) "
        "k = Equal(j, none) q = Where(k, low, s) p = Softmax(q) r = MatMul(p, x) f = Cast<to=1>(d) y = Mul(r, f)",
        WEIGHTS,
    ),
    "the words before": (
        MARK + "c = Unsqueeze(b, a1) j = And(c, causal) f = Cast<to=1>(j) "
        "t = MatMul(f, x) n = ReduceSum(f, a2) y = Div(t, n)",
        WEIGHTS + CAUSAL,
    ),
    "in another order": (
        SCORES.removeprefix(EMBEDDED) + "b = Cast<to=9>(mask) e = Reshape(b, r) g = Gather(e, i) u = Unsqueeze(g, a1) "
        "q = Where(u, s, inf) p = Softmax(q) y = MatMul(p, x)",
        WEIGHTS + ", " + REVERSED,
    ),
    "repeated in a product with what is not": (
        (
            "f = Cast<to=1>(mask) c = Unsqueeze(f, a2) e = Expand(c, r) v = ReduceMax<keepdims=1>(x, a2) "
            "m = ReduceMax<keepdims=1>(v, a1) y = Mul(m, e)"
        ),
        WEIGHTS + ", int64[3] r = {1,1,4}",
    ),
    "beside a window": (
        MARK
        + "d = Unsqueeze(b, a3) c = Expand(d, e) y = Attention<q_num_heads=1, kv_num_heads=1, is_causal=1>(x, x, x, c)",
        WEIGHTS + ", int64[2] a3 = {1,2}, int64[4] e = {1,1,5,1}",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_masks(name: str) -> None:
    body, given = OTHERS[name]
    samples = 3 if "Reshape" in body else "N"
    proto = model(EMBEDDED + body, given, f"int64[{samples},5] ids, int64[{samples},5] mask", opset=23)
    layers = dtd.from_onnx(proto)
    for mask in (REAL, np.ones_like(REAL)):
        outputs = dtd.predict(layers, IDS, backend="oracle", mask=mask)
        np.testing.assert_allclose(outputs, run(proto, IDS, mask=mask), rtol=0, atol=1e-5)


REFUSED = {
    "other numbers": (
        "g = Greater(mask, nine) u = Unsqueeze(g, a1) q = Where(u, s, inf)",
        "compares a mask of 0 and 1",
    ),
    "two computed": ("b = Cast<to=9>(mask) u = Unsqueeze(b, a1) k = Neg(s) q = Where(u, s, k)", "both it chooses from"),
    "numbers and −∞": (
        "b = Cast<to=9>(mask) u = Unsqueeze(b, a1) h = Where(u, one, inf) q = Add(s, h)",
        "fills in infinity or NaN",
    ),
    "a batch behind": ("b = Cast<to=9>(mask) c = Transpose(b) q = And(b, c)", "batch axes in different places"),
    "two batches behind": ("b = Cast<to=9>(mask) c = Transpose(b) q = And(c, c)", "batch axes in different places"),
    "scores behind": (
        "b = Cast<to=9>(mask) h = Where(b, zero, inf) c = Transpose(ids) k = Gather(w, c) q = Add(h, k)",
        "batch axes in different places",
    ),
    "another axis": ("b = Cast<to=9>(mask) q = Gather<axis=1>(b, a1)", "than a table of places"),
    "of other samples": ("b = Cast<to=9>(mask) e = Reshape(b, r) q = Gather(e, i)", "than a table of places"),
    "repeated and counted": (
        "f = Cast<to=1>(mask) c = Unsqueeze(f, a2) h = Shape(x) e = Expand(c, h) n = ReduceSum(e, a3) q = Div(s, n)",
        "division by what is computed has no record",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_masks_that_are_refused(name: str) -> None:
    body, message = REFUSED[name]
    given = WEIGHTS + ", int64 nine = {9}, int64[2] a3 = {1,2}, int64[1] r = {-1}, int64[3,1] i = {0,0,10}"
    proto = model(SCORES + body + " y = Relu(q)", given, "int64[3,5] ids, int64[3,5] mask")
    with pytest.raises(dtd.ModelError, match=message):
        dtd.from_onnx(proto)


@pytest.mark.parametrize("name", MEANS)
def test_means_over_real_words(name: str) -> None:
    body, given = MEANS[name]
    proto = model(EMBEDDED + COLUMN + body, given, f"{WORDS}, {MASK}")
    layers = dtd.from_onnx(proto)
    for mask in (REAL, REAL[:, ::-1], np.ones_like(REAL)):
        outputs = dtd.predict(layers, IDS, backend="oracle", mask=mask)
        np.testing.assert_allclose(outputs, run(proto, IDS, mask=np.ascontiguousarray(mask)), rtol=0, atol=1e-5)
        ledger = dtd.Explainer(layers, rules="cp-lrp", backend="oracle").ledger(IDS, outputs, mask=mask)
        assert ledger.closed
        np.testing.assert_allclose(ledger.end, outputs.sum(axis=(1, 2)), rtol=1e-5)  # nothing is absorbed


def test_types_positions_and_floats() -> None:
    body = EMBEDDED + "k = Gather(v, kinds) a = Add(x, k) y = Mul(a, factor)"
    given = "float[9,4] w, float[3,4] v"
    proto = model(body, given, f"{WORDS}, int32[N,5] kinds, float[N,5,4] factor")
    layers = dtd.from_onnx(proto)
    assert {r.name: r.integer for r in layers if isinstance(r, dtd.Given)} == {"kinds": True, "factor": False}
    kinds, factor = IDS.astype(np.int32) % 3, np.random.default_rng(0).standard_normal((3, 5, 4)).astype(np.float32)
    outputs = dtd.predict(layers, IDS, backend="oracle", kinds=kinds, factor=factor)
    np.testing.assert_allclose(outputs, run(proto, IDS, kinds=kinds, factor=factor), rtol=0, atol=1e-6)


def test_open_sizes_are_those_of_the_first_input() -> None:
    proto = model(EMBEDDED + COLUMN + "y = Identity(p)", WEIGHTS, "int64[N,L] ids, int64[N,L] mask")
    with pytest.raises(dtd.ModelError, match="sample_shape"):
        dtd.from_onnx(proto)
    layers = dtd.from_onnx(proto, sample_shape=(5,))
    np.testing.assert_allclose(
        dtd.predict(layers, IDS, backend="oracle", mask=REAL), run(proto, IDS, mask=REAL), rtol=0, atol=1e-6
    )


def test_an_input_that_the_output_does_not_need() -> None:
    proto = model(EMBEDDED + "z = Cast<to=1>(mask) y = Identity(x)", WEIGHTS, f"{WORDS}, {MASK}")
    assert not any(isinstance(r, dtd.Given) for r in dtd.from_onnx(proto))


def test_a_name_that_is_no_keyword() -> None:
    proto = model(EMBEDDED + COLUMN + "y = Identity(p)", WEIGHTS, f"{WORDS}, {MASK}")
    proto.graph.input[1].name = "mask.1"
    with pytest.raises(dtd.ModelError, match=r"'mask.1' becomes a keyword of explain, which its name cannot be"):
        dtd.from_onnx(proto)


def test_the_command_line_says_what_it_cannot_give(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    proto = model(EMBEDDED + COLUMN + "y = Flatten(p)", WEIGHTS, f"{WORDS}, {MASK}")
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    np.save(tmp_path / "ids.npy", IDS)
    network, words, target = (str(tmp_path / name) for name in ("net.onnx", "ids.npy", "out.zarr"))
    assert main(["explain", network, words, "-o", target]) != 0
    assert "it takes mask beside its input; explain it from Python" in capsys.readouterr().err
    assert main(["inspect", network]) == 0


def test_an_input_beside_that_is_too_large() -> None:
    with pytest.raises(dtd.ModelError, match=r"its input 'm' cannot be read: .* elements, at most"):
        dtd.from_onnx(model("y = Add(x, m)", "", "float[N,3] x, float[N,9223372036854775807] m"))
