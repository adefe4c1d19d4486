"""iNNvestigate's analyzers on Keras 3 models: `dtdfast.compat.innvestigate.create_analyzer("deep_taylor",
model).analyze(x)`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import layers as L
from ..arrays.foreign import take
from ..errors import InputError, ModelError, RuleError, TargetError
from ..explainer import Explainer
from ..extras import require
from ..importers.keras.importer import from_keras
from ..locks import renewed
from ..plan.fold import LINEAR
from ..plan.units import shares
from ..plan.wiring import sources
from ..rules import AlphaBeta, Convention, Epsilon, Flat, Pass, Rule, Share, Slope, Term, WSquare, ZBox, Zero, ZPlus
from ..vocabulary import W_POS, X_ONE, W, X

MOVES = (L.Permute, L.Reshape, L.Flatten)  # between the input and the first layer
SLOPES = ("ReLU", "LeakyReLU", "PReLU", "ELU", "Rescaling", "Normalization")  # layers with no rule: the gradient
MODES = ("max_activation", "index", "all")

Kinds = tuple[Rule, Rule]  # of dense layers, of convolutions


class Fast(Rule):
    """z⁺ with the sign of x: n_ij = x_i w_ij⁺."""

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        return (Share((Term(X, W_POS),)),)


class Mixing(Rule):
    """The gradient of a mixture, whose weights sum to 1: n_ij = w_ij."""

    def shares(self, convention: Convention) -> tuple[Share, ...]:
        return (Share((Term(X_ONE, W),)),)


def _epsilon(epsilon: float = 1e-7, bias: bool = True) -> Kinds:
    return (Epsilon(epsilon, bias="signed" if bias else "none"),) * 2


def _epsilon_without_bias(epsilon: float = 1e-7) -> Kinds:
    return _epsilon(epsilon, bias=False)


def _sequential(alpha: float) -> Callable[..., Kinds]:
    return lambda epsilon=0.1: (Epsilon(epsilon), AlphaBeta(alpha, alpha - 1.0))


def _alpha_beta(alpha: float | None = None, beta: float | None = None, bias: bool = True) -> Kinds:
    if alpha is None and beta is None:
        raise RuleError("lrp.alpha_beta: give alpha or beta")
    a = float(alpha) if alpha is not None else 1.0 + float(beta or 0.0)
    return (AlphaBeta(a, a - 1.0 if beta is None else float(beta), bias="full" if bias else "none"),) * 2


def _fixed(rule: Rule) -> Callable[..., Kinds]:
    return lambda: (rule, rule)


ANALYZERS: dict[str, Callable[..., Kinds]] = {
    "lrp.z": _fixed(Zero()),
    "lrp.z_IB": _fixed(Zero(bias="none")),
    "lrp.epsilon": _epsilon,
    "lrp.epsilon_IB": _epsilon_without_bias,
    "lrp.w_square": _fixed(WSquare()),
    "lrp.flat": _fixed(Flat()),
    "lrp.alpha_beta": _alpha_beta,
    "lrp.alpha_2_beta_1": _fixed(AlphaBeta(2.0, 1.0)),
    "lrp.alpha_2_beta_1_IB": _fixed(AlphaBeta(2.0, 1.0, bias="none")),
    "lrp.alpha_1_beta_0": _fixed(AlphaBeta(1.0, 0.0)),
    "lrp.alpha_1_beta_0_IB": _fixed(AlphaBeta(1.0, 0.0, bias="none")),
    "lrp.z_plus": _fixed(ZPlus()),
    "lrp.z_plus_fast": _fixed(Fast()),
    "lrp.sequential_preset_a": _sequential(1.0),
    "lrp.sequential_preset_b": _sequential(2.0),
    "lrp.sequential_preset_a_flat": _sequential(1.0),
    "lrp.sequential_preset_b_flat": _sequential(2.0),
}
FIRST: dict[str, Rule] = {"Flat": Flat(), "WSquare": WSquare(), "Z": Zero(), "Epsilon": Epsilon(), "ZPlus": ZPlus()}
DEEP_TAYLOR = {name: _fixed(ZPlus()) for name in ("deep_taylor", "deep_taylor.bounded")}


def create_analyzer(name: str, model: Any, **options: Any) -> Analyzer:
    """Make an analyzer of a Keras model, as iNNvestigate does.

    Parameters
    ----------
    name : str
        "deep_taylor", "deep_taylor.bounded" (with low and high), or a key of `ANALYZERS`.
    model : keras.Model
        A model that `dtdfast.from_keras` takes. A final softmax is left out, which iNNvestigate asks its users to do
        (`model_wo_softmax`).
    **options
        The options of `Analyzer`.

    Returns
    -------
    Analyzer
        Its method `analyze` explains inputs.

    Raises
    ------
    RuleError
        The analyzer or an option is unknown.

    Notes
    -----
    The maps are iNNvestigate's (convention="innvestigate"): no bias in z⁺, w² and flat, the whole bias in both parts of
    αβ, and 0/0 = 0. deep_taylor has no bias, and starts at the output clipped at 0. These things
    differ: BatchNorms are merged into the layers before them, where iNNvestigate gives them rules of their own; a
    separable convolution is two layers; a product passes relevance to the signal only.
    """
    return Analyzer(name, model, **options)


def model_wo_softmax(model: Any) -> Any:
    """Make a Keras model without the softmax at the end of this one.

    Analyzers here leave out a final softmax by themselves. This function is for code that calls it.

    Parameters
    ----------
    model : keras.Model
        The model; its weights are copied.

    Returns
    -------
    keras.Model
        The model without the softmax.

    Raises
    ------
    ModelError
        The model does not end in a softmax, or has several outputs.
    """
    keras = require("keras", "keras")
    last, (output, *others) = model.layers[-1], model.outputs
    alone = isinstance(last, keras.layers.Softmax)
    if (
        others
        or last.output is not output
        or not (alone or getattr(last, "activation", None) is keras.activations.softmax)
    ):
        raise ModelError(
            f"the model ends in {type(last).__name__} {last.name!r}, which is no softmax of its only output"
        )
    source = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    if alone or isinstance(last, keras.layers.Activation):
        return keras.Model(source, last.input)
    plain = type(last).from_config({**last.get_config(), "activation": "linear"})
    result = keras.Model(source, plain(last.input))
    plain.set_weights(last.get_weights())
    return result


def _settings(model: Any) -> str | None:
    """What decides a model's layers besides its weights, as far as it tells."""
    try:
        return str(model.get_config())
    except NotImplementedError:
        return None


class Analyzer:
    """An analyzer of a Keras model; `create_analyzer` makes it.

    Parameters
    ----------
    name : str
        "deep_taylor", "deep_taylor.bounded", or a key of `ANALYZERS`.
    model : keras.Model
        A model that `dtdfast.from_keras` takes.
    neuron_selection_mode : {"max_activation", "index", "all"}, default "max_activation"
        Which outputs are explained: the largest of each sample, those that `analyze` is given, or all at their own
        values.
    input_layer_rule : str or (low, high), optional
        Of the "lrp" analyzers: the rule of the layers that read the input, by name, or zB in this box.
    low, high : float or array_like, optional
        Of "deep_taylor.bounded", which needs them: the bounds of the input.
    backend : str, default "auto"
        As in `dtdfast.explain`.
    disable_model_checks : bool, default False
        Ignored: what cannot be explained is refused in any case.
    **options
        epsilon of "lrp.epsilon" (by default 1e-7) and of the sequential presets (0.1); alpha and beta of
        "lrp.alpha_beta"; bias of "lrp.epsilon" and "lrp.alpha_beta", a bool: whether biases are in the denominators.

    Raises
    ------
    RuleError
        The analyzer or an option is unknown.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        *,
        neuron_selection_mode: str = "max_activation",
        input_layer_rule: Any = None,
        low: Any = None,
        high: Any = None,
        backend: str = "auto",
        disable_model_checks: bool = False,
        **options: Any,
    ) -> None:
        if name not in ANALYZERS and name not in DEEP_TAYLOR:
            raise RuleError(f"analyzer {name!r} is not one of {', '.join((*DEEP_TAYLOR, *ANALYZERS))}")
        if neuron_selection_mode not in MODES:
            raise RuleError(f"neuron_selection_mode is {neuron_selection_mode!r}, expected one of {', '.join(MODES)}")
        if (low is None) != (high is None) or (low is not None) != (name == "deep_taylor.bounded"):
            raise RuleError(f"analyzer {name!r}: low and high belong to 'deep_taylor.bounded', which needs both")
        if name.endswith("_flat"):
            input_layer_rule = "Flat"
        self._name, self._model, self._mode, self._backend = name, model, neuron_selection_mode, backend
        self._deep = name in DEEP_TAYLOR
        if self._deep and (options or input_layer_rule is not None):
            raise RuleError(f"analyzer {name!r} takes no {', '.join(options) or 'input_layer_rule'}")
        self._box = input_layer_rule if low is None and isinstance(input_layer_rule, tuple) else (low, high)
        self._first = ZBox() if low is not None else _first_rule(input_layer_rule)
        try:
            self._kinds = {**ANALYZERS, **DEEP_TAYLOR}[name](**options)
        except TypeError:
            raise RuleError(f"analyzer {name!r} does not take {', '.join(options)}") from None
        self._explainer: tuple[Any, Explainer] | None = None
        self._lock = renewed(self, "_lock")

    def analyze(self, X: Any, neuron_selection: Any = None) -> Any:
        """Compute the relevance of inputs.

        Parameters
        ----------
        X : array_like of shape (n, ...)
            The inputs, laid out as the model reads them.
        neuron_selection : int or array_like of int, optional
            With neuron_selection_mode="index", which needs it: the output that is explained, one for all samples or one
            for each.

        Returns
        -------
        array
            The relevance, of the shape and kind of X.

        Raises
        ------
        TargetError
            `neuron_selection` is given where the mode does not ask for it, or missing where it does.
        InputError
            X has no batch axis, or is empty.
        """
        if (neuron_selection is None) == (self._mode == "index"):
            raise TargetError(f"neuron_selection is {neuron_selection!r} with neuron_selection_mode {self._mode!r}")
        x, home = take(X)
        x = np.asarray(x)
        if x.ndim < 2 or not x.size:
            raise InputError(f"X has shape {x.shape}, expected (n, ...) with the batch axis first")
        explainer = self._ready(x)
        if self._mode == "all":  # as they are explained: before a final softmax
            neuron_selection = explainer.explain(x, return_outputs=True)[1]
            if self._deep:
                neuron_selection = np.maximum(neuron_selection, 0)
        relevance, outputs = explainer.explain(x, neuron_selection, return_outputs=True)
        if self._deep and self._mode != "all":
            chosen = outputs.max(1) if self._mode != "index" else outputs[np.arange(len(x)), neuron_selection]
            relevance[chosen < 0] = 0
        return home.give(relevance)

    def _ready(self, x: Any) -> Explainer:
        """The explainer of the model's present weights."""
        weights = [np.asarray(w) for w in self._model.get_weights()]
        state = x.shape[1:], _settings(self._model), [(w.shape, zlib.crc32(w.tobytes())) for w in weights]
        with self._lock:
            if self._explainer is None or self._explainer[0] != state:
                layers = from_keras(self._model, x[:1])
                box: Any = "real"
                if isinstance(self._first, ZBox):
                    box = tuple(np.array(bound, ndmin=x.ndim - 1) for bound in self._box)  # along the last axes
                options = dict(rules=self._rules(layers), domain=box, convention="innvestigate", **self._executor())
                self._explainer = state, Explainer(layers, **options)
            return self._explainer[1]

    def _executor(self) -> dict[str, Any]:
        """float64 models are computed in float64, unless CUDA is named, which has none."""
        double = (
            all(y.dtype == "float64" for y in getattr(self._model, "outputs", None) or [None])
            and self._backend != "cuda"
        )
        return dict(backend=self._backend, precision="float64" if double else "float32")

    def _rules(self, layers: list[L.Layer]) -> dict[int, Rule]:
        reads = sources(layers)
        alone = {name for name, kind in _named(self._model) if kind in SLOPES or (self._deep and kind == "Activation")}
        rules: dict[int, Rule] = {}
        moved = {L.INPUT}  # the input, and what only moves it
        for position, record in enumerate(layers):
            if isinstance(record, MOVES) and reads[position][0] in moved:
                moved.add(position)
            if isinstance(record, LINEAR):
                kind = self._kinds[0 if isinstance(record, L.Linear) else 1]
                rules[position] = self._first if self._first is not None and reads[position][0] in moved else kind
            elif isinstance(record, (L.ReLU, L.Activation, L.Scale)):
                if record.name in alone:
                    rules[position] = Slope()
            elif isinstance(record, L.Resample):
                rules[position] = Mixing()
            elif isinstance(record, L.Add) and self._deep:
                rules[position] = Pass()
            elif shares(record):
                rules[position] = Flat() if self._deep else Zero()
        return rules


def _named(model: Any, within: str = "") -> Iterator[tuple[str, str]]:
    """(name, kind) of every layer, also of models within."""
    for layer in model.layers:
        yield f"{within}{layer.name}", type(layer).__name__
        if hasattr(layer, "layers"):
            yield from _named(layer, f"{within}{layer.name}/")


def _first_rule(given: Any) -> Rule | None:
    if given is None:
        return None
    if isinstance(given, tuple) and len(given) == 2:
        return ZBox()
    if given not in FIRST:
        raise RuleError(f"input_layer_rule is {given!r}, expected (low, high) or one of {', '.join(FIRST)}")
    return FIRST[given]
