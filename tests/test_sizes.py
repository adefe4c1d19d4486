"""Lists that know the shape of sample they were imported at: what of them is refused at another, through ONNX; how they
are copied, kept and cut.
"""

from __future__ import annotations

import copy
import operator
import pickle

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast.layers import RECORDS
from dtdfast.sizes import DEPENDS, Sized
from onnx_models import model, run

ROWS, IMAGES = "float[N,T,6] x", "float[N,3,H,W] x"
LENGTH = "s = Shape(x) t = Gather(s, one) f = Cast<to=1>(t) "
GIVEN = "int64 one = {1}, float[6,5] w, float[4,3,3,3] k"
EVERY_OTHER = (
    "z = Slice(x, a, b, c, d) y = Conv(z, k)",
    GIVEN + (", int64[2] a = {0,0}, int64[2] b = {100,100}, int64[2] c = {2,3}, int64[2] d = {2,2}"),
)
POOL = "z = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(v) "
SHAPES = {ROWS: [(8, 6), (10, 6), (5, 6)], IMAGES: [(3, 8, 8), (3, 12, 12), (3, 9, 9), (3, 7, 10)]}

# name: (body, given, input, how many of the other shapes are refused)
CASES = {
    "last": ("i = Gather<axis=1>(x, m) y = MatMul(i, w)", GIVEN + ", int64 m = {-1}", ROWS, 2),
    "first": ("i = Gather<axis=1>(x, m) y = MatMul(i, w)", GIVEN + ", int64 m = {0}", ROWS, 0),
    "mean by its length": (LENGTH + "u = ReduceSum(x, i) q = Div(u, f) y = MatMul(q, w)",
                           GIVEN + ", int64[1] i = {1}", ROWS, 2),
    "root of its length": (LENGTH + "r = Sqrt(f) v = ReduceMean<axes=[1]>(x) u = MatMul(v, w) y = Mul(u, r)",
                           GIVEN, ROWS, 2),
    "a number": ("u = MatMul(x, w) v = ReduceMean<axes=[1]>(u) y = Mul(v, n)", GIVEN + ", float n = {0.3}", ROWS, 0),
    "reversed": ("z = Slice(x, a, b, c, d) u = MatMul(z, w) y = Relu(u)",
                 GIVEN + ", int64[1] a = {-1}, int64[1] b = {-1000}, int64[1] c = {1}, int64[1] d = {-1}", ROWS, 2),
    "split": ("p, q = Split<axis=1, num_outputs=2>(x) u = MatMul(p, w) y = ReduceMax(u, i)",
              GIVEN + ", int64[1] i = {1}", ROWS, 2),
    "convolution": ("u = Conv(x, k) v = Relu(u) " + POOL + "y = GlobalAveragePool(z)", GIVEN, IMAGES, 0),
    "same": ('y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, k)', GIVEN, IMAGES, 2),
    "same, lower": ('y = MaxPool<auto_pad="SAME_LOWER", kernel_shape=[3,3], strides=[2,2]>(x)', GIVEN, IMAGES, 2),
    "a size": ("z = Resize<axes=[2,3]>(x, , , s) y = GlobalAveragePool(z)", "int64[2] s = {16,16}", IMAGES, 3),
    "scales": ("z = Resize(x, , s) y = Conv(z, k)", GIVEN + ", float[4] s = {1,1,2,2}", IMAGES, 0),
    "every other": (*EVERY_OTHER, IMAGES, 3),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_another_shape_is_answered_as_onnxruntime_does_or_refused(name: str) -> None:
    body, given, x, expected = CASES[name]
    shapes, refused = SHAPES[x], 0
    proto = model(body, given, x, opset=18 if name in ("split", "a size") else 17)
    layers = dtd.from_onnx(proto, sample_shape=shapes[0])
    for shape in shapes:
        array = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
        try:
            answer = dtd.predict(layers, array)
        except dtd.ShapeError:
            refused += 1
            continue
        np.testing.assert_allclose(answer, run(proto, array), rtol=1e-4, atol=1e-4, err_msg=str(shape))
    assert refused == expected


def last_of_eight() -> list[dtd.Layer]:
    return dtd.from_onnx(model(*CASES["last"][:3]), sample_shape=(8, 6))


def test_every_record_says_whether_it_may_hold_sizes() -> None:
    assert set(DEPENDS) == set(RECORDS.values())


def through_a_file(layers, tmp_path):
    dtd.save(layers, tmp_path / "net.safetensors")
    return dtd.load(tmp_path / "net.safetensors")


@pytest.mark.parametrize(
    "made",
    [
        lambda layers, _: layers[:],
        lambda layers, _: layers[:1],
        lambda layers, _: operator.add(layers, [dtd.ReLU()]),
        lambda layers, _: copy.copy(layers),
        lambda layers, _: copy.deepcopy(layers),
        lambda layers, _: pickle.loads(pickle.dumps(layers)),
        through_a_file,
    ],
    ids=["all", "cut", "longer", "copy", "deep", "pickle", "file"],
)
def test_a_copy_knows_the_shape_and_a_plain_list_does_not(made, tmp_path) -> None:
    x = np.ones((1, 10, 6), np.float32)
    layers = made(last_of_eight(), tmp_path)
    with pytest.raises(dtd.ShapeError, match=r"imported for samples of shape \(8, 6\)"):
        dtd.predict(layers, x)
    assert isinstance(layers, Sized)
    assert vars(layers) == vars(last_of_eight())
    assert len(dtd.predict(list(layers), x)) == 1  # also after the refusal, from the same records


def test_every_call_refuses_and_so_does_a_pickled_explainer() -> None:
    x, layers = np.ones((2, 10, 6), np.float32), last_of_eight()
    explainer = pickle.loads(pickle.dumps(dtd.Explainer(layers)))
    for call in (
        lambda: explainer.explain(x),
        lambda: explainer.predict(x),
        lambda: explainer.ledger(x),
        lambda: explainer.plan_for(x.shape),
        lambda: dtd.explain(layers, x, backend="oracle"),
        lambda: dtd.explain(layers, x, start=0),
        lambda: dtd.diagnostics.class_sensitivity(layers, x),
        lambda: dtd.interactions.bilrp(layers, x, x),
    ):
        with pytest.raises(dtd.ShapeError, match="imported for samples"):
            call()
