"""from_keras, layer by layer: the records that it makes (it checks their values itself), what it refuses, and published
models.
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

import dtdfast as dtd
from dtdfast.activations import ACTIVATIONS
from dtdfast.importers.keras.layers import ACTIVATIONS as NAMES
from support import kinds

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

KT = Any  # a symbolic tensor
Build = Callable[[KT], KT]


def randomised(model: keras.Model) -> keras.Model:
    """Every weight random, none zero: variances positive, kernels He-initialised."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        shape, name = tuple(weight.shape), weight.path.rsplit("/", 1)[-1]
        if "variance" in name or name == "gamma":
            value = rng.uniform(0.7, 1.3, shape)
        elif "kernel" in name or name == "embeddings":
            fan_in = np.prod(shape[:-2]) if "depthwise" in weight.path else np.prod(shape[:-1])
            value = rng.standard_normal(shape) * (2 / fan_in) ** 0.5
        else:
            value = 0.1 * rng.standard_normal(shape)
        weight.assign(value.astype("float32"))
    return model


def network(build: Build, *shape: int | None) -> keras.Model:
    source = keras.Input(shape or (9, 8, 4))
    return randomised(keras.Model(source, build(source)))


def excitation(x: KT) -> KT:
    gate = kl.Reshape((1, 1, 4))(kl.GlobalAveragePooling2D()(x))
    return kl.Multiply()([x, kl.Conv2D(4, 1, activation="hard_sigmoid")(gate)])


def nested(x: KT) -> KT:
    inner = keras.Sequential(
        [keras.Input((9, 8, 4)), kl.Conv2D(4, 3, padding="same", name="conv"), kl.ReLU()], name="block"
    )
    return inner(inner(x))


IMAGES: dict[str, tuple[Build, str]] = {
    "Conv2D": (kl.Conv2D(6, (3, 2), strides=(2, 1), activation="relu"), "Permute Conv ReLU Permute"),
    "Conv2D same": (kl.Conv2D(6, (3, 4), strides=(2, 3), padding="same", groups=2), "Permute Conv Permute"),
    "Conv2D dilated": (kl.Conv2D(6, 3, dilation_rate=2, padding="same", use_bias=False), "Permute Conv Permute"),
    "Conv2D channels first": (kl.Conv2D(6, 3, data_format="channels_first"), "Conv"),
    "DepthwiseConv2D": (
        kl.DepthwiseConv2D(3, depth_multiplier=2, padding="same", activation="relu6"),
        "Permute Conv clip Permute",
    ),
    "SeparableConv2D": (kl.SeparableConv2D(5, 3, depth_multiplier=2, strides=2), "Permute Conv Conv Permute"),
    "Conv2DTranspose": (kl.Conv2DTranspose(3, 3, strides=2), "Permute ConvTranspose Permute"),
    "Conv2DTranspose same": (kl.Conv2DTranspose(3, 4, strides=(2, 3), padding="same"), "Permute ConvTranspose Permute"),
    "Conv2DTranspose, gaps": (kl.Conv2DTranspose(3, 2, strides=3), "Permute ConvTranspose Permute"),
    "Dense": (lambda x: kl.Dense(3)(kl.Flatten()(x)), "Flatten Linear"),
    "Dense along the last axis": (kl.Dense(3, activation="gelu"), "Permute Conv gelu Permute"),
    "Flatten after a convolution": (lambda x: kl.Flatten()(kl.Conv2D(2, 3)(x)), "Permute Conv Permute Flatten"),
    "Flatten channels first": (kl.Flatten(data_format="channels_first"), "Permute Flatten"),
    "BatchNormalization": (kl.BatchNormalization(scale=False), "Permute BatchNorm Permute"),
    "BatchNormalization on axis 1": (kl.BatchNormalization(axis=1, center=False), "BatchNorm"),
    "Rescaling": (kl.Rescaling(1 / 127.5, -1), "Scale"),
    "Rescaling by channel": (kl.Rescaling([1.0, 2.0, 3.0, 4.0]), "Permute Scale Permute"),
    "Normalization on axis 1": (
        kl.Normalization(axis=1, mean=np.arange(9.0), variance=np.arange(1.0, 10.0)),
        "Scale",
    ),
    "Normalization": (
        kl.Normalization(mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2.0, 3.0, 4.0]),
        "Permute Scale Permute",
    ),
    "ReLU": (kl.ReLU(), "ReLU"),
    "ReLU up to 6": (kl.ReLU(6), "clip"),
    "ReLU with a slope": (kl.ReLU(negative_slope=0.1), "leaky_relu"),
    "LeakyReLU": (kl.LeakyReLU(0.2), "leaky_relu"),
    "ELU": (kl.ELU(0.5), "elu"),
    "PReLU": (kl.PReLU(alpha_initializer="random_normal", shared_axes=[1, 2]), "Permute prelu Permute"),
    "PReLU of elements": (kl.PReLU(alpha_initializer="random_normal"), "prelu"),
    "PReLU of columns": (kl.PReLU(alpha_initializer="random_normal", shared_axes=[1]), "prelu"),
    "ReLU above a threshold": (kl.ReLU(threshold=0.3), "threshold"),
    "hard_tanh": (kl.Activation("hard_tanh"), "clip"),
    "hard_silu": (kl.Activation("hard_silu"), "hard_swish"),
    **{
        name: (kl.Activation(name), name)
        for name in (
            "selu",
            "celu",
            "gelu",
            "mish",
            "sigmoid",
            "hard_sigmoid",
            "log_sigmoid",
            "tanh",
            "tanh_shrink",
            "hard_shrink",
            "soft_shrink",
            "softplus",
            "softsign",
        )
    },
    "gelu by a tanh": (lambda x: keras.ops.gelu(x, approximate=True), "gelu_tanh"),
    "operators of activations": (
        lambda x: keras.ops.selu(keras.ops.celu(keras.ops.softsign(keras.ops.hard_tanh(x)), 0.5)),
        "clip softsign celu selu",
    ),
    "operators of shrinks": (
        lambda x: keras.ops.tanh_shrink(keras.ops.soft_shrink(keras.ops.hard_shrink(x, 0.1), 0.1)),
        "hard_shrink soft_shrink tanh_shrink",
    ),
    "operators with a threshold": (
        lambda x: keras.ops.log_sigmoid(keras.ops.threshold(x, 0.2, 0.1)),
        "threshold log_sigmoid",
    ),
    "operator of gates": (lambda x: keras.ops.glu(x, axis=2), "Slice Slice sigmoid Mul"),
    "mish written out": (lambda x: x * keras.ops.tanh(keras.ops.softplus(x)), "mish"),
    "hard swish written out": (lambda x: x * keras.ops.relu6(x + 3.0) / 6.0, "hard_swish"),
    "gate of 1 + sigmoid": (lambda x: keras.ops.tanh(x) * (1.0 + keras.ops.sigmoid(x)), "tanh sigmoid Scale Mul"),
    "Softmax": (kl.Softmax(axis=2), "Softmax"),
    "swish": (kl.Activation("swish"), "silu"),
    "softmax": (lambda x: kl.Dense(3, activation="softmax")(kl.Flatten()(x)), "Flatten Linear Softmax"),
    "MaxPooling2D": (kl.MaxPooling2D((3, 2), strides=2, padding="same"), "Permute MaxPool Permute"),
    "AveragePooling2D": (kl.AveragePooling2D((3, 2), strides=2, padding="same"), "Permute AvgPool Permute"),
    "AveragePooling2D, padding that differs": (
        kl.AveragePooling2D((2, 3), strides=2, padding="same"),
        "Permute Resample Permute" if keras.backend.backend() == "torch" else "Permute AvgPool Permute",
    ),
    "GlobalMaxPooling2D": (kl.GlobalMaxPooling2D(keepdims=True), "Permute MaxPool Permute"),
    "ZeroPadding2D": (kl.ZeroPadding2D(((1, 2), (0, 3))), "Permute Pad Permute"),
    "Cropping2D": (kl.Cropping2D(((1, 2), (0, 3))), "Permute Slice Slice Permute"),
    "UpSampling2D": (kl.UpSampling2D((2, 3)), "Permute Upsample Permute"),
    "Permute": (kl.Permute((3, 1, 2)), "Permute"),
    "Reshape": (kl.Reshape((-1, 8)), "Reshape"),
    "Add": (lambda x: kl.Add()([kl.Conv2D(4, 1)(x), x]), "Permute Conv Add Permute"),
    "Average": (lambda x: kl.Average()([kl.ReLU()(x), x]), "ReLU Add Scale"),
    "Concatenate": (lambda x: kl.Concatenate()([kl.Conv2D(2, 1)(x), x]), "Permute Conv Concat Permute"),
    "Concatenate rows": (lambda x: kl.Concatenate(axis=1)([kl.Conv2D(4, 1)(x), x]), "Permute Conv Concat Permute"),
    "squeeze and excitation": (excitation, "Permute GlobalAvgPool Conv hard_sigmoid Mul Permute"),
    "operators": (lambda x: 2.0 - (-keras.ops.relu(x) * 3.0 + x) / 4.0, "ReLU Scale Scale Add Scale Scale"),
    "operators, channels": (
        lambda x: kl.Conv2D(4, 1)(x) * np.arange(1.0, 5.0, dtype="float32"),
        "Permute Conv Scale Permute",
    ),
    "dropout": (lambda x: kl.Dropout(0.5)(kl.SpatialDropout2D(0.5)(kl.GaussianNoise(1.0)(kl.ReLU()(x)))), "ReLU"),
    "nested, twice": (nested, "Permute Conv ReLU Conv ReLU Permute"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_layers(name: str) -> None:
    build, expected = IMAGES[name]
    assert kinds(dtd.from_keras(network(build))) == expected


def test_the_vocabulary_of_activations() -> None:
    """Each is made by some layer."""
    made = {word for _, words in IMAGES.values() for word in words.split()}
    assert ACTIVATIONS.keys() - made == set()
    assert {name for name, fields in NAMES.items() if fields is not None and fields["kind"] not in ACTIVATIONS} == set()
    named = {fields["kind"] for fields in NAMES.values() if fields}
    # layers and operators that say approximate=True make it
    assert ACTIVATIONS.keys() - named - {"prelu", "threshold"} == {"gelu_tanh"}


SEQUENCES: dict[str, tuple[Build, str]] = {
    "Conv1D": (kl.Conv1D(3, 3, padding="causal", dilation_rate=2), "Permute Conv Permute"),
    "Conv1DTranspose": (kl.Conv1DTranspose(3, 3, strides=2, padding="same"), "Permute ConvTranspose Permute"),
    "SeparableConv1D": (kl.SeparableConv1D(3, 2), "Permute Conv Conv Permute"),
    "MaxPooling1D": (kl.MaxPooling1D(2), "Permute MaxPool Permute"),
    "GlobalAveragePooling1D": (kl.GlobalAveragePooling1D(), "Permute GlobalAvgPool Flatten"),
    "ZeroPadding1D": (kl.ZeroPadding1D((1, 2)), "Permute Pad Permute"),
    "Cropping1D": (kl.Cropping1D((1, 2)), "Permute Slice Permute"),
    "UpSampling1D": (kl.UpSampling1D(3), "Permute Upsample Permute"),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_layers_of_sequences(name: str) -> None:
    build, expected = SEQUENCES[name]
    assert kinds(dtd.from_keras(network(build, 10, 4))) == expected


def test_volumes() -> None:
    def build(x: KT) -> KT:
        x = kl.BatchNormalization()(kl.Conv3D(4, 3, padding="same", activation="relu")(x))
        return kl.Dense(3)(kl.GlobalAveragePooling3D()(kl.AveragePooling3D((1, 2, 2))(x)))

    layers = dtd.from_keras(network(build, 4, 6, 6, 2))
    assert kinds(layers) == "Permute Conv ReLU BatchNorm AvgPool GlobalAvgPool Flatten Linear"


def test_words() -> None:
    words = keras.Input((12,), dtype="int32")
    x = kl.Embedding(30, 8)(words)
    pooled = [kl.GlobalMaxPooling1D()(kl.Conv1D(5, k, padding="same", activation="relu")(x)) for k in (2, 3)]
    model = randomised(keras.Model(words, kl.Dense(2)(kl.Concatenate()(pooled))))
    layers = dtd.from_keras(model)
    assert kinds(layers) == "Embedding Permute Conv ReLU MaxPool Flatten Conv ReLU MaxPool Flatten Concat Linear"
    x = np.random.default_rng(0).integers(30, size=(2, 12))
    assert dtd.explain(layers, x, 1).shape == x.shape


def test_names_and_relevance_are_in_keras_order() -> None:
    model = network(lambda x: kl.Dense(3, name="head")(kl.Flatten()(nested(x))))
    layers = dtd.from_keras(model)
    relu = f"block/{model.get_layer('block').layers[-1].name}"
    flatten = model.layers[-2].name
    assert [layer.name for layer in layers if layer.name] == ["block/conv", relu, "block/conv", relu, flatten, "head"]
    x = np.random.default_rng(0).random((2, 9, 8, 4), dtype=np.float32)
    explainer = dtd.Explainer(layers, domain=(np.zeros((1, 1, 4)), np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 4)))
    ledger = explainer.ledger(x, 0)
    assert ledger.closed, str(ledger)
    assert explainer.explain(x, 0).shape == x.shape


def test_open_sizes_are_decided_by_the_example() -> None:
    model = network(lambda x: kl.GlobalMaxPooling2D()(kl.Conv2D(3, 3)(x)), None, None, 4)
    with pytest.raises(dtd.InputError, match=r"\(None, None, None, 4\); pass an example="):
        dtd.from_keras(model)
    assert dtd.predict(
        dtd.from_keras(model, np.ones((1, 6, 7, 4), np.float32)), np.ones((3, 6, 7, 4), np.float32)
    ).shape == (3, 3)
    with pytest.raises(dtd.InputError, match=r"example has shape \(1, 6, 7, 5\)"):
        dtd.from_keras(model, np.ones((1, 6, 7, 5)))


def test_a_sequential_model_is_built_by_the_example() -> None:
    model = keras.Sequential([kl.Dense(3)])
    with pytest.raises(dtd.ModelError, match=r"is not built; give it a keras\.Input first, or pass example="):
        dtd.from_keras(model)
    assert kinds(dtd.from_keras(model, np.ones((2, 5), np.float32))) == "Linear"


class Doubling(kl.Layer):
    def call(self, x: KT) -> KT:
        return x * 2


class Subclassed(keras.Model):
    def call(self, x: KT) -> KT:
        return x


REFUSALS: dict[str, tuple[Build, str]] = {
    "LSTM": (lambda x: kl.LSTM(3)(kl.Reshape((9, 32))(x)),
    r"layer '\w+' \(LSTM\): recurrence has no record; use convolutions over time"),
    "attention": (lambda x: kl.MultiHeadAttention(2, 3)(x, x),
    r"\(MultiHeadAttention\): it attends over 2 axes together"),
    "additive attention": (lambda x: kl.AdditiveAttention()([x, x]), r"\(AdditiveAttention\): attention"),
    "Lambda": (kl.Lambda(lambda x: x * 2, output_shape=(9, 8, 4)), ("Python code has no record; write it with Keras's "
    "layers")),
    "own layer": (Doubling(), r"\(Doubling\): a layer that is not Keras's own"),
    "unknown": (keras.ops.exp, r"\(Exp\): this layer has no record"),
    "activation": (kl.Activation("exponential"), "its activation 'exponential' has no record; there are linear, relu"),
    "masks": (lambda x: kl.Embedding(9, 3, mask_zero=True)(x), "use mask_zero=False"),
    "bilinear": (kl.UpSampling2D(interpolation="bicubic"), "'bicubic' has no record; 'nearest' and 'bilinear' have"),
    "threshold": (kl.ReLU(threshold=1.0, max_value=2.0), "threshold=1 together have no record"),
    "sign": (keras.ops.sign, r"\(Sign\): what only knows the size or the sign of a number"),
    "statistic": (lambda x: keras.ops.std(x, axis=1), r"\(Std\): a statistic of the very sample"),
    "choice": (lambda x: keras.ops.where(x > 0, x, -x), r"\(Greater\): it makes a choice by the data"),
    "more than two factors": (lambda x: keras.ops.einsum("nhwc,nhwd,nhwd->ncd", x, x, x), "more than two operands"),
    "over samples": (lambda x: keras.ops.sum(x, axis=0), "samples would be mixed"),
    "fixed samples": (lambda x: keras.ops.slice(x, (0, 1, 1, 0), (2, 3, 3, 2)), "fixes the number of samples"),
    "batch axis moved": (lambda x: keras.ops.swapaxes(x, 0, 1), "batch axis at place 1; transpose it to the first"),
    "batch axis away": (lambda x: kl.Conv2D(2, 3)(keras.ops.swapaxes(x, 0, 1)), "transpose it back before"),
    "infinity": (lambda x: keras.ops.where(np.arange(4) > 1, x, -np.inf), "something else than a softmax reads that"),
    "quotient": (lambda x: 1.0 / x, "only a division by constants"),
    "three factors": (lambda x: kl.Multiply()([x, x, x]), "it multiplies 3 tensors"),
    "several axes": (kl.Softmax(axis=(1, 2)), r"over axes .* together"),
    "nothing": (lambda x: kl.Dropout(0.5)(x), "nothing to explain"),
    "output padding": (kl.Conv2DTranspose(3, 3, strides=2, output_padding=1), "crop the result"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str) -> None:
    build, message = REFUSALS[name]
    with pytest.raises(dtd.ModelError, match=message):
        dtd.from_keras(network(build, 6) if name == "masks" else network(build))


def test_models_without_a_graph_are_refused() -> None:
    model = Subclassed(name="own")
    model(np.ones((1, 3), np.float32))
    with pytest.raises(dtd.ModelError, match=r"the model 'own' is a subclassed keras\.Model, .* keras\.Sequential"):
        dtd.from_keras(model)
    with pytest.raises(dtd.ModelError, match=r"is a Dense, expected a keras\.Model"):
        dtd.from_keras(kl.Dense(3))
    source = keras.Input((4,))
    with pytest.raises(dtd.ModelError, match=r"returns 2 tensors: .* choose one"):
        dtd.from_keras(keras.Model(source, [kl.Dense(1)(source), kl.Dense(2)(source)]))


def test_quantised_layers_are_refused() -> None:
    model = keras.Sequential([keras.Input((4,)), kl.Dense(3, name="head")])
    model.layers[0].quantize("int8")
    with pytest.raises(
        dtd.ModelError, match=r"layer 'head' \(Dense\): int8: quantised operations have no record; import the float"
    ):
        dtd.from_keras(model)


def test_a_wrong_record_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from dtdfast.importers.keras import importer

    monkeypatch.setitem(importer.HANDLERS, "ReLU", importer.HANDLERS["Dropout"])
    with pytest.raises(dtd.ModelError, match="the output differs from the model's by"):
        dtd.from_keras(network(lambda x: kl.ReLU()(kl.Rescaling(2.0)(x))))


APPLICATIONS: dict[str, dict[str, Any]] = {
    "MobileNetV2": dict(alpha=0.35),
    "MobileNetV3Small": dict(minimalistic=False, include_preprocessing=True),
    "EfficientNetB0": dict(),
    "ResNet50V2": dict(),
    "Xception": dict(),
}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_published_models(name: str) -> None:
    shape = (96, 96, 3) if name == "Xception" else (64, 64, 3)
    model = getattr(keras.applications, name)(weights=None, classes=10, input_shape=shape, **APPLICATIONS[name])
    layers = dtd.from_keras(randomised(model))
    x = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
    start = np.zeros((2, 10), np.float32)
    start[:, 3] = 1
    explainer = dtd.Explainer(layers)
    ledger = explainer.ledger(x, start)
    assert ledger.closed, str(ledger)
    relevance = explainer.explain(x, start)
    assert relevance.shape == x.shape
    assert relevance.min() >= 0
    assert relevance.sum() > 0


def test_one_of_several_outputs() -> None:
    source = keras.Input((4,))
    model = keras.Model(source, [kl.Dense(1, name="one")(source), kl.Dense(2, name="two")(source)])
    assert [
        dtd.predict(dtd.from_keras(model, output=o), np.ones((1, 4), np.float32)).shape[1] for o in (0, 1, "one", "two")
    ] == [
        1,
        2,
        1,
        2,
    ]
    with pytest.raises(dtd.InputError, match="output is 'three'"):
        dtd.from_keras(model, output="three")


def test_outputs_of_a_dict_have_its_keys() -> None:
    source = keras.Input((4,))
    inner = kl.Dense(3)(source)
    model = keras.Model(source, {"b": kl.Dense(1)(inner), "a": kl.Dense(2)(inner), "more": [kl.Dense(5)(inner), inner]})
    sizes = {
        name: dtd.predict(dtd.from_keras(model, output=name), np.ones((1, 4), np.float32)).shape[1]
        for name in ("a", "b", "more.0", "more.1")
    }
    assert sizes == {"a": 2, "b": 1, "more.0": 5, "more.1": 3}
    with pytest.raises(dtd.ModelError, match="choose one, for example output='a'"):
        dtd.from_keras(model)
    one = keras.Model(source, {"scores": inner})
    assert kinds(dtd.from_keras(one)) == kinds(dtd.from_keras(one, output="scores")) == "Linear"


def test_the_output_may_come_before_other_records() -> None:
    """Resizing and cropping to the same size look at another order of axes first."""
    for same in (kl.Resizing(9, 8), kl.CenterCrop(9, 8)):
        assert kinds(dtd.from_keras(network(lambda x, same=same: same(kl.ReLU()(x))))).startswith("ReLU")
