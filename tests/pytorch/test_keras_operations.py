"""from_keras, operation by operation: linear and piecewise linear ones, whose LRP-0 is gradient × input, and outputs of
every form.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops

import dtdfast as dtd
from test_keras import randomised

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

KT = Any  # a symbolic tensor
Build = Callable[[KT], KT]


def constant(*shape: int) -> np.ndarray[Any, Any]:
    """The same numbers for the same shape."""
    return np.random.default_rng(shape).standard_normal(shape).astype("float32")


def dueling(x: KT) -> KT:
    advantage = kl.Dense(3)(kl.Flatten()(x))
    return kl.Dense(1)(kl.Flatten()(x)) + advantage - ops.mean(advantage, axis=1, keepdims=True)


def excitation(x: KT) -> KT:
    return kl.Add()([x, kl.Dense(4)(kl.GlobalAveragePooling2D()(x))])


def unstacked(x: KT) -> KT:
    first, *_, last = ops.unstack(x, num=4, axis=-1)
    return first - last


IMAGES: dict[str, Build] = {  # (n, 8, 6, 4)
    "augmentation": lambda x: kl.RandomFlip()(kl.RandomRotation(0.1)(kl.RandomContrast(0.1)(kl.ReLU()(x)))),
    "crop": kl.CenterCrop(5, 4),
    "crop to the same": kl.CenterCrop(8, 6),
    "resizing to the same": kl.Resizing(8, 6),
    "resizing, nearest": kl.Resizing(11, 5, interpolation="nearest"),
    "resizing, bilinear": kl.Resizing(11, 5),
    "resizing, bicubic": kl.Resizing(11, 5, interpolation="bicubic"),
    "resizing, channels first": kl.Resizing(5, 3, interpolation="bicubic", data_format="channels_first"),
    "upsampling, bilinear": kl.UpSampling2D((2, 3), interpolation="bilinear"),
    "image resize": lambda x: ops.image.resize(x, (5, 4)),
    "adaptive mean": kl.AdaptiveAveragePooling2D((3, 4)),
    "adaptive maximum": kl.AdaptiveMaxPooling2D((3, 4)),
    "max_pool": lambda x: ops.max_pool(x, 2),
    "average_pool": lambda x: ops.average_pool(x, (3, 2), strides=2),
    "slices": lambda x: x[:, 1:5, ..., ::2],
    "new axis": lambda x: x[..., None, :],
    "flip": lambda x: ops.flip(x, axis=-1),
    "roll": lambda x: ops.roll(x, 2, axis=1),
    "take": lambda x: ops.take(x, [3, 0, -1], axis=-1),
    "take one": lambda x: ops.take(x, 2, axis=1),
    "take along an axis": lambda x: ops.take_along_axis(x, np.argsort(constant(1, 8, 6, 4), axis=1), axis=1),
    "repeat": lambda x: ops.repeat(x, 2, axis=1),
    "tile": lambda x: ops.tile(x, (1, 2, 1, 3)),
    "rot90": lambda x: ops.rot90(x, axes=(1, 2)),
    "diagonal": lambda x: ops.diagonal(x, axis1=1, axis2=2),
    "triangle": lambda x: ops.tril(x, 1),
    "pad": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1), (1, 0)), constant_values=0.5),
    "pad, reflected": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), mode="reflect"),
    "split": lambda x: ops.concatenate(ops.split(x, [1, 3], axis=-1)[::-1], axis=-1),
    "unstack": unstacked,
    "stack": lambda x: ops.stack([x, -x, 2 * x], axis=2),
    "moveaxis": lambda x: ops.moveaxis(ops.swapaxes(x, 1, 3), -1, 1),
    "transposes that cancel": lambda x: ops.transpose(ops.transpose(x, (3, 0, 1, 2)), (1, 2, 3, 0)),
    "computed with the batch axis away": lambda x: ops.transpose(
        ops.relu(2 * ops.swapaxes(x, 0, 1) - 0.5), (1, 0, 2, 3)
    ),
    "space to depth": lambda x: ops.reshape(
        ops.transpose(ops.reshape(x, (-1, 4, 2, 3, 2, 4)), (0, 1, 3, 2, 4, 5)), (-1, 4, 3, 16)
    ),
    "running sum": lambda x: ops.cumsum(x, axis=1),
    "differences of neighbours": lambda x: ops.diff(x, n=2, axis=2),
    "no-ops": lambda x: ops.cast(ops.tile(x[..., :], (1, 1, 1, 1)), "float32"),
    "Dense by einsum": kl.EinsumDense("abcd,de->abce", (8, 6, 5), bias_axes="e", activation="relu"),
    "rows by einsum": kl.EinsumDense("abcd,be->aecd", (5, 6, 4), bias_axes="e"),
    "einsum over two axes": kl.EinsumDense("abcd,cdef->abef", (8, 3, 2), bias_axes="ef"),
    "einsum of a matrix per column": kl.EinsumDense("abcd,cde->abce", (8, 6, 2)),
    "einsum": lambda x: ops.einsum("kw,nhwc->nhkc", constant(5, 6), x),
    "einsum of two constants": lambda x: ops.einsum("kw,nhwc,cd->nhkd", constant(5, 6), x, constant(4, 2)),
    "matmul": lambda x: x @ constant(4, 5),
    "matmul of a vector": lambda x: ops.matmul(x, constant(4)),
    "matmul from the left": lambda x: ops.matmul(constant(5, 6), x),
    "matmul of a stack": lambda x: ops.matmul(constant(8, 5, 6), x),
    "dot": lambda x: ops.dot(x, constant(4, 5)),
    "tensordot": lambda x: ops.tensordot(x, constant(6, 4, 5), axes=2),
    "where": lambda x: ops.where(constant(6, 1) > 0, x, 2 * x),
    "where with a constant": lambda x: ops.where(constant(8, 6, 4) > 0, x, 0.5),
    "clip from below": lambda x: ops.clip(x, 0.2, np.inf),
    "clip from above": lambda x: ops.clip(x, -np.inf, 0.5),
    "maximum": lambda x: ops.maximum(x, 2 * x - 1),
    "maximum and a constant": lambda x: ops.maximum(constant(4), x),
    "minimum and a number": lambda x: ops.minimum(x, 0.3),
    "Maximum": lambda x: kl.Maximum()([x, -x, ops.mean(x, axis=1, keepdims=True)]),
    "Minimum": lambda x: kl.Minimum()([x, 2 * x]),
    "absolute": lambda x: ops.abs(x - 0.5),
    "a constant per element": lambda x: (x + constant(8, 6, 4)) * constant(8, 1, 1),
    "a constant with a batch axis": lambda x: x + constant(1, 8, 6, 4),
    "division": lambda x: x / (np.abs(constant(6, 4)) + 1),
    "difference from the mean": lambda x: x - ops.mean(x, axis=(1, 2), keepdims=True),
    "difference": lambda x: kl.Subtract()([x, kl.ReLU()(x)]),
    "a vector per image": excitation,
    "sum": lambda x: ops.sum(x, axis=(1, 3), keepdims=True),
    "largest": lambda x: ops.max(x, axis=1),
    "least": lambda x: ops.min(x, axis=(1, 2)),
    "normalised rows": kl.BatchNormalization(axis=2),
    "spectral norm": lambda x: kl.SpectralNormalization(kl.Conv2D(3, 3))(x),
    "repeated": lambda x: kl.RepeatVector(3)(kl.Flatten()(x)),
    "dueling": dueling,
}
TOKENS: dict[str, Build] = {  # (n, 5, 6)
    "graph": lambda h: kl.Dense(3)(ops.relu(ops.matmul(constant(5, 5), h))),
    "positions": lambda h: h + constant(5, 6),
    "heads": lambda h: kl.EinsumDense("abcd,cde->abe", (5, 4), bias_axes="e")(
        kl.EinsumDense("abc,cde->abde", (5, 2, 3))(h)
    ),
    "over time and channels": kl.EinsumDense("abc,bcd->ad", (3,), bias_axes="d"),
    "adaptive mean": kl.AdaptiveAveragePooling1D(3),
    "last token": lambda h: h[:, -1],
    "power of 1": lambda h: ops.relu(h) ** 1,
    "dot": lambda h: ops.dot(ops.dot(h, constant(6, 3)), 2.0),
    "tensordot from the left": lambda h: ops.tensordot(constant(5), h, axes=((0,), (1,))),
}
CASES = [("image", n, f) for n, f in IMAGES.items()] + [("tokens", n, f) for n, f in TOKENS.items()]


def compared(model: keras.Model, layers: list[dtd.Layer], x: np.ndarray[Any, Any], k: int) -> None:
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    made = dtd.predict(layers, x, backend="oracle").reshape(expected.shape)
    assert np.abs(made - expected).max() <= 1e-5 * np.abs(expected).max()
    relevance = dtd.explain(layers, x, k, rules="lrp-0", precision="float64")
    wanted = dtd.baselines.input_x_gradient(layers, x, k, backend="oracle")
    assert np.abs(relevance - wanted).sum() <= 1e-9 * np.abs(wanted).sum()


@pytest.mark.parametrize(("kind", "name", "build"), CASES, ids=[f"{k}: {n}" for k, n, _ in CASES])
def test_lrp_0_is_gradient_times_input(kind: str, name: str, build: Build) -> None:
    source = keras.Input((8, 6, 3) if kind == "image" else (5, 4))
    first = kl.Conv2D(4, 3, padding="same")(source) if kind == "image" else kl.Dense(6, activation="relu")(source)
    model = randomised(keras.Model(source, kl.Dense(2)(kl.Flatten()(build(first)))))
    x = np.random.default_rng(0).standard_normal((3, *source.shape[1:]), dtype=np.float32)
    compared(model, dtd.from_keras(model), x, 1)


NUMBERS: dict[str, Build] = {  # (n, 5) to (n,)
    "sum": lambda x: ops.sum(x, axis=1),
    "mean": lambda x: ops.mean(x, axis=-1),
    "least": lambda x: ops.min(x, axis=1),
    "product": lambda x: ops.matmul(x, constant(5)),
    "einsum": lambda x: ops.einsum("ni,i->n", x, constant(5)),
    "squeeze": lambda x: ops.squeeze(kl.Dense(1)(x), -1),
    "item": lambda x: kl.Dense(1)(x)[:, 0],
    "reshape": lambda x: ops.reshape(kl.Dense(1)(x), (-1,)),
    "Reshape": lambda x: kl.Reshape(())(kl.Dense(1)(x)),
    "computed with": lambda x: ops.relu(2 * ops.sum(x, axis=1) - ops.max(x, axis=1) + 1),
    "stacked": lambda x: ops.stack([ops.sum(x, axis=1), ops.max(x, axis=1)], axis=1)[:, 1],
}


@pytest.mark.parametrize("name", NUMBERS)
def test_one_number_per_sample(name: str) -> None:
    source = keras.Input((7,))
    model = randomised(keras.Model(source, NUMBERS[name](kl.Dense(5, activation="relu")(source))))
    layers, x = dtd.from_keras(model), np.random.default_rng(0).standard_normal((3, 7), dtype=np.float32)
    assert dtd.predict(layers, x).shape == (3, 1)
    compared(model, layers, x, 0)


@pytest.mark.parametrize("final", [ops.log_softmax, kl.Activation("log_softmax")])
def test_explanations_start_before_a_final_log_softmax(final: Build) -> None:
    source = keras.Input((4,))
    scores = kl.Dense(3)(source)
    plain, model = randomised(keras.Model(source, scores)), keras.Model(source, final(scores))
    x = constant(2, 4)
    np.testing.assert_array_equal(dtd.explain(dtd.from_keras(model), x, 1), dtd.explain(dtd.from_keras(plain), x, 1))


def test_steps_back_that_the_backend_lacks() -> None:
    """x[..., ::-1] of preprocess_input; PyTorch has no negative steps."""
    source = keras.Input((8, 6, 3))
    inner = keras.Sequential([keras.Input((8, 6, 3)), kl.Flatten(), kl.Dense(2)])
    layers = dtd.from_keras(randomised(keras.Model(source, inner(source[..., ::-1]))))
    x = constant(2, 8, 6, 3)
    np.testing.assert_allclose(
        dtd.predict(layers, x), keras.ops.convert_to_numpy(inner(x[..., ::-1].copy())), rtol=1e-5, atol=1e-5
    )


REFUSALS: dict[str, tuple[Build, str]] = {  # of (n, 8, 6, 4)
    "another power": (lambda x: ops.power(x, 3), r"\(Power\): the power has no record; 1 and 2 have"),
    "a computed power": (lambda x: ops.power(2.0, x), r"\(Power\): the power has no record; 1 and 2 have"),
    "samples padded": (lambda x: ops.pad(x, ((1, 0), (0, 0), (0, 0), (0, 0))), "it pads the batch axis"),
    "a larger crop": (kl.CenterCrop(9, 6), r"it enlarges \(8, 6\) to \(9, 6\); use Resizing"),
    "an aspect ratio": (kl.Resizing(5, 4, crop_to_aspect_ratio=True), "keeps no aspect ratio"),
    "a random crop": (kl.RandomCrop(5, 4), r"at inference it cuts \(5, 4\) out of \(8, 6\)"),
    "a sample": (lambda x: x[0], r"\(GetItem\): it takes the batch apart"),
    "samples exchanged": (lambda x: ops.flip(x, axis=0), "it moves elements from one sample to another"),
    "places": (lambda x: ops.where(x)[0], r"\(Where\): it makes a choice by the data"),
    "constants first": (lambda x: ops.dot(constant(3, 6), x), "use matmul for a constant matrix from the left"),
    "pairs": (lambda x: ops.tensordot(x, x, axes=((3,), (3,))), "of two tensors it has no record; use matmul"),
    "over samples": (lambda x: ops.cumsum(x, axis=0), "it works along the batch axis"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_by_name(name: str) -> None:
    build, message = REFUSALS[name]
    source = keras.Input((8, 6, 4))
    with pytest.raises(dtd.ModelError, match=message):
        dtd.from_keras(keras.Model(source, build(source)))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy: str) -> None:
    """The answer is in float32, as is recommended; the check allows for the rounding before it."""
    x = keras.Input((9, 9, 3))
    y = kl.Conv2D(8, 3, activation="relu", dtype=policy)(x)
    y = kl.GlobalAveragePooling2D(dtype=policy)(y)
    layers = dtd.from_keras(keras.Model(x, kl.Dense(4, dtype="float32")(y)))
    assert len(layers) > 3
