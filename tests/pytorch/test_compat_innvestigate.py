"""The drop-in for iNNvestigate, which does not install beside Keras 3: its published conventions in closed form, on
Keras models.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import pytest
from keras import layers as kl
from numpy.typing import NDArray

import dtdfast as dtd
from dtdfast.compat import innvestigate
from dtdfast.compat.innvestigate import ANALYZERS, create_analyzer
from innvestigated import KERNELS, analyzed

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

W, B, X = np.array([2.0, -1.0]), -0.5, np.array([1.5, 0.5])
Z = W * X  # 3, −0.5; the output is 2


def neuron(weights: Any = W, bias: float = B, *rest: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((len(weights),)), kl.Dense(1, name="first"), *rest])
    model.get_layer("first").set_weights([np.reshape(weights, (-1, 1)), np.array([bias])])
    return model


def analyze(name: str, model: Any, x: Any = X, **options: Any) -> NDArray[Any]:
    return create_analyzer(name, model, backend="oracle", **options).analyze(np.array([x]))[0]


Y = Z.sum() + B
ONE_NEURON: dict[str, Any] = {  # the shares of the output, by hand
    "lrp.z": Z / Y,
    "lrp.z_IB": Z / Z.sum(),
    "lrp.epsilon": Z / (Y + 1e-7),
    "lrp.epsilon_IB": Z / (Z.sum() + 1e-7),
    "lrp.w_square": W**2 / (W**2).sum(),
    "lrp.flat": [0.5, 0.5],
    "lrp.alpha_2_beta_1": [2 * 3 / (3 + B), 0.5 / (-0.5 + B)],
    "lrp.alpha_2_beta_1_IB": [2.0, -1.0],
    "lrp.alpha_1_beta_0": [3 / (3 + B), 0],
    "lrp.alpha_1_beta_0_IB": [1.0, 0.0],
    "lrp.z_plus": [1.0, 0.0],
    "lrp.z_plus_fast": [1.0, 0.0],
    "lrp.sequential_preset_a": Z / (Y + 0.1),
    "lrp.sequential_preset_b": Z / (Y + 0.1),
    "lrp.sequential_preset_a_flat": [0.5, 0.5],
    "lrp.sequential_preset_b_flat": [0.5, 0.5],
    "deep_taylor": [1.0, 0.0],
}


@pytest.mark.parametrize("name", ONE_NEURON)
def test_one_neuron(name: str) -> None:
    """The output itself, 2, is shared."""
    np.testing.assert_allclose(analyze(name, neuron()), np.multiply(ONE_NEURON[name], Y), rtol=1e-12)


def _conv(**options: Any) -> Any:
    return kl.Conv2D(4, 3, **options)


CHAINS: dict[str, Any] = {
    "strides": lambda: [_conv(padding="same", strides=2, activation="relu"), kl.MaxPooling2D(2, padding="same")],
    "zeros first": lambda: [kl.ZeroPadding2D(((1, 0), (2, 1))), _conv(activation="relu")],
    "zeros within": lambda: [_conv(activation="relu"), kl.ZeroPadding2D(1), _conv(activation="relu")],
    "cropped": lambda: [kl.Cropping2D(1), _conv(activation="relu")],
    "ReLU": lambda: [_conv(), kl.ReLU(), kl.AveragePooling2D(2, padding="same")],
    "LeakyReLU": lambda: [_conv(), kl.LeakyReLU(), _conv(), kl.Activation("relu"), kl.GlobalAveragePooling2D()],
    "tanh": lambda: [_conv(activation="tanh"), kl.UpSampling2D(2), _conv()],
    "bilinear": lambda: [_conv(activation="relu"), kl.UpSampling2D(2, interpolation="bilinear"), _conv()],
    "table": lambda: [kl.Reshape((9, 12)), kl.Flatten()],
}


@pytest.mark.parametrize("chain", CHAINS)
def test_chains(chain: str) -> None:
    """Zeros that a layer of their own adds take shares; what stands before the first layer; layers with no rule of
    their own, through which relevance goes as a gradient does.
    """
    rng = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((6, 6, 3)), *CHAINS[chain](), kl.Flatten(), kl.Dense(3)])
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.get_weights()])
    x = rng.normal(size=(3, 6, 6, 3)).clip(-3, 3).astype(np.float32)
    for name in KERNELS:
        low = -3.0 if chain == "table" else np.array([-3.0, -4, -5])  # of the layer that reads it
        box = dict(low=low, high=3.0) if name == "deep_taylor.bounded" else {}
        expected = analyzed(name, model, x, **box)
        relevance = create_analyzer(name, model, backend="oracle", **box).analyze(x)
        np.testing.assert_allclose(relevance, expected, rtol=0, atol=1e-4 * abs(expected).max(), err_msg=name)


@pytest.mark.parametrize(
    ("name", "of_convolutions"),
    [("lrp.sequential_preset_a", "lrp.alpha_1_beta_0"), ("lrp.sequential_preset_b", "lrp.alpha_2_beta_1")],
)
def test_presets_take_another_rule_for_convolutions(name: str, of_convolutions: str) -> None:
    model = keras.Sequential([keras.Input((2, 1)), kl.Conv1D(1, 2, name="first"), kl.Flatten()])
    model.get_layer("first").set_weights([W.reshape(2, 1, 1), np.array([B])])
    shares = analyze(name, model, X[:, None])[:, 0]
    np.testing.assert_allclose(shares, np.multiply(ONE_NEURON[of_convolutions], Y), rtol=1e-12)


def test_every_analyzer_has_its_case() -> None:
    assert set(ONE_NEURON) == {*ANALYZERS, "deep_taylor"} - {"lrp.alpha_beta"}


def test_options() -> None:
    np.testing.assert_allclose(analyze("lrp.epsilon", neuron(), epsilon=0.5), Z / (Y + 0.5) * Y)
    np.testing.assert_allclose(analyze("lrp.alpha_beta", neuron(), beta=1.0, bias=False), np.multiply([2, -1], Y))
    np.testing.assert_allclose(analyze("lrp.z", neuron(), input_layer_rule="WSquare"), np.multiply([0.8, 0.2], Y))
    np.testing.assert_allclose(analyze("lrp.epsilon", neuron(), bias=False), analyze("lrp.epsilon_IB", neuron()))
    n = np.array([(1.5 - -1.0) * 2.0, (0.5 - 2.0) * -1.0])  # (x − l) w⁺ + (x − h) w⁻
    for options in (
        dict(name="deep_taylor.bounded", low=-1.0, high=2.0),
        dict(name="lrp.z", input_layer_rule=(-1.0, 2.0)),
    ):
        np.testing.assert_allclose(analyze(model=neuron(), **options), n / n.sum() * Y)


def test_deep_taylor_explains_no_negative_output() -> None:
    assert not analyze("deep_taylor", neuron(-W, 0.0)).any()
    assert analyze("lrp.z", neuron(-W, 0.0)).any()
    for mode, selection in (("all", ()), ("index", (0,))):
        analyzer = create_analyzer("deep_taylor", neuron(-W, 0.0), neuron_selection_mode=mode, backend="oracle")
        assert not analyzer.analyze(X[None], *selection).any()


def two_classes() -> keras.Model:
    model = keras.Sequential([keras.Input((2,)), kl.Dense(2, name="logits"), kl.Softmax()])
    model.get_layer("logits").set_weights([np.array([[1.0, 3.0], [2.0, -1.0]]), np.zeros(2)])
    return model


def test_neuron_selection() -> None:
    """A final softmax is left out: at x = (1, 1) the logits are 3 and 2."""
    x = np.ones((1, 2))

    def by(mode: str, *selection: Any) -> NDArray[Any]:
        return create_analyzer("lrp.z", two_classes(), neuron_selection_mode=mode, backend="oracle").analyze(
            x, *selection
        )[0]

    np.testing.assert_allclose(by("max_activation"), [1, 2])
    np.testing.assert_allclose(by("index", 1), [3, -1])
    np.testing.assert_allclose(by("all"), [4, 1])


def test_images_keep_their_channels_last() -> None:
    source = keras.Input((6, 5, 3))
    y = kl.GlobalAveragePooling2D()(kl.Conv2D(4, 3, activation="relu")(source))
    model = keras.Model(source, kl.Dense(2)(y))
    x = np.random.default_rng(0).random((2, 6, 5, 3), dtype=np.float32)
    relevance = create_analyzer("lrp.alpha_1_beta_0_IB", model).analyze(x)
    layers = dtd.from_keras(model, x)
    rules = {
        p: dtd.AlphaBeta(1.0, 0.0, bias="none") for p, r in enumerate(layers) if isinstance(r, (dtd.Conv, dtd.Linear))
    }
    pool = {p: dtd.Zero() for p, r in enumerate(layers) if isinstance(r, dtd.GlobalAvgPool)}
    expected = dtd.explain(layers, x, rules={**rules, **pool}, convention="innvestigate", backend="oracle")
    assert relevance.shape == x.shape
    np.testing.assert_allclose(relevance, expected, rtol=1e-4, atol=1e-6)


def test_new_weights_are_noticed() -> None:
    model = neuron()
    analyzer = create_analyzer("lrp.z_IB", model, backend="oracle")
    first = analyzer.analyze(X[None])
    model.get_layer("first").set_weights([np.array([[1.0], [2.0]]), np.zeros(1)])
    np.testing.assert_allclose(analyzer.analyze(X[None]), [X * [1, 2]])
    assert not np.allclose(first, X * [1, 2])


def test_new_settings_are_noticed() -> None:
    model = neuron(W, B, kl.Dense(1, use_bias=False, kernel_initializer="ones"))
    analyzer = create_analyzer("lrp.z_IB", model, backend="oracle")
    first = analyzer.analyze(-X[None])
    model.get_layer("first").activation = keras.activations.relu
    assert first.any()
    assert not analyzer.analyze(-X[None]).any()  # −3 is cut off


@pytest.mark.parametrize("ending", ["layer", "activation", "of the last layer"])
def test_model_without_softmax(ending: str) -> None:
    softmax = {"layer": [kl.Softmax()], "activation": [kl.Activation("softmax")], "of the last layer": []}[ending]
    last = kl.Dense(2, activation=None if softmax else "softmax")
    model, x = keras.Sequential([keras.Input((3,)), kl.Dense(4, activation="relu"), last, *softmax]), np.eye(3)
    plain = innvestigate.model_wo_softmax(model)
    logits, outputs = (m(x).detach().numpy() for m in (plain, model))
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), outputs, rtol=1e-5)
    np.testing.assert_allclose(*(create_analyzer("lrp.epsilon", m).analyze(x) for m in (plain, model)), rtol=1e-6)
    with pytest.raises(dtd.ModelError, match="no softmax"):
        innvestigate.model_wo_softmax(plain)


REFUSED = [
    (dict(name="gradient"), "'gradient' is not one of"),
    (dict(name="lrp.z", neuron_selection_mode="most"), "neuron_selection_mode"),
    (dict(name="deep_taylor.bounded"), "low and high"),
    (dict(name="deep_taylor", low=0.0, high=1.0), "low and high"),
    (dict(name="deep_taylor", epsilon=0.1), "takes no epsilon"),
    (dict(name="lrp.z", epsilon=0.1), "does not take epsilon"),
    (dict(name="lrp.epsilon_IB", bias=True), "does not take bias"),
    (dict(name="lrp.alpha_beta"), "alpha or beta"),
    (dict(name="lrp.z", input_layer_rule="Round"), "input_layer_rule"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(dtd.RuleError, match=message):
        create_analyzer(model=neuron(), **options)
    with pytest.raises(dtd.TargetError, match="neuron_selection"):
        create_analyzer("lrp.z", neuron()).analyze(X[None], 0)
