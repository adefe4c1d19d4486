"""Keras 3 models as layer lists, read from the graph that a Sequential or functional model holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import InputError, ModelError
from ...extras import require
from ...layers import INPUT, Embedding, Layer
from ...plan.shapes import Shape
from ..check import TOLERANCE, Array, check_outputs
from ..outputs import chosen
from ..records import Layers, Refused, Value
from ..refused import QUANTISED
from .axes import HANDLERS as AXES
from .call import Call, Handler, Records, Tensor
from .layers import HANDLERS as LAYERS
from .moves import HANDLERS as MOVES
from .refused import REFUSED

HANDLERS: dict[str, Handler] = LAYERS | MOVES | AXES
SAMPLES = 2  # of the example that is made where none is given
EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}


def from_keras(model: Any, example: Any = None, *, output: int | str | None = None) -> list[Layer]:
    """Import a Keras 3 model, and check the result against the model on an example.

    Parameters
    ----------
    model : keras.Model
        A Sequential or functional model with one input, on any backend of Keras. Weights are copied.
    example : array_like of shape (n, ...), optional
        The input of the check; it decides the sizes that the model leaves open. By default random numbers, or random
        words for an Embedding.
    output : int or str, optional
        The number or name of the output that is explained, where the model has several.

    Returns
    -------
    list of Layer
        The network, named after the model's layers. A final softmax is kept: `predict` includes it, and `explain`
        starts before it.

    Raises
    ------
    ModelError
        The model is subclassed, a layer has no record (it is named, with the reason), or `predict` differs from the
        model by more than 1e-4 of the largest output.
    InputError
        The model leaves sizes open and there is no example, or the example does not fit the model.
    BackendError
        keras is not installed.

    Notes
    -----
    The list reads what the model reads: images with channels last, (n, height, width, channels), and relevance has that
    shape too. Inside, channels are on axis 1, and kernels are transposed to match.

    Examples
    --------
    >>> layers = dtdfast.from_keras(keras.applications.MobileNetV2())
    """
    keras = require("keras", "keras")
    if not isinstance(model, keras.Model):
        raise ModelError(f"model is a {type(model).__name__}, expected a keras.Model")
    given = None if example is None else np.asarray(keras.ops.convert_to_numpy(example))
    if given is not None and isinstance(model, keras.Sequential) and not model.built:
        model(given[:1])  # decides its sizes
    source, outputs = _ends(model)
    names = list(getattr(model, "output_names", None) or [t._keras_history.operation.name for t in outputs])
    number = names.index(chosen(names, output, f"the model {model.name!r}"))
    reader = _Reader(keras, source, _sample(source, given))
    layers = reader.read(outputs[number])
    x = _random(layers, reader.sample) if given is None else given
    try:
        found = keras.tree.flatten(model(x, training=False))[number]
    except Exception as error:  # whatever an operation raises that its backend lacks
        raise ModelError(
            f"the model {model.name!r} cannot be run on the example: {' '.join(str(error).split()):.200}"
        ) from None
    expected = keras.ops.convert_to_numpy(found)
    check_outputs(layers, x, np.asarray(expected, np.float64), max(TOLERANCE, 16 * EPS.get(expected.dtype.name, 0.0)))
    return layers


def _ends(model: Any) -> tuple[Any, list[Any]]:
    """The one symbolic tensor that goes in, and those that come out."""
    title = f"the model {model.name!r}"
    try:
        inputs, outputs = model.inputs, model.outputs
    except AttributeError:
        if hasattr(model, "layers") and type(model).__module__.startswith("keras."):
            raise ModelError(f"{title} is not built; give it a keras.Input first, or pass example=") from None
        raise ModelError(
            f"{title} is a subclassed keras.Model, which holds no graph of its layers; "
            "build it as keras.Sequential or with the functional API, or export it to ONNX and use from_onnx"
        ) from None
    if len(inputs) != 1:
        raise ModelError(f"{title} has {len(inputs)} inputs, expected one; wrap the part to explain")
    return inputs[0], list(outputs)


def _sample(source: Any, example: Array | None) -> Shape:
    """Shape of one sample of the input."""
    declared = tuple(source.shape[1:])
    if example is None:
        if None in declared:
            raise InputError(f"the model's input is {source.shape}; pass an example= that decides the open sizes")
        return declared
    fits = example.ndim == len(declared) + 1 and all(
        d in (None, s) for d, s in zip(declared, example.shape[1:], strict=True)
    )
    if not fits or not example.size:
        raise InputError(f"example has shape {example.shape}, but the model's input is {tuple(source.shape)}")
    return example.shape[1:]


def _random(layers: list[Layer], sample: Shape) -> Array:
    """Numbers, or words where an Embedding reads the input."""
    rng = np.random.default_rng(0)
    first = layers[0]
    if isinstance(first, Embedding) and first.inputs in (None, (INPUT,)):
        return rng.integers(len(first.weight), size=(SAMPLES, *sample))
    return rng.standard_normal((SAMPLES, *sample), dtype=np.float32)


class _Reader:
    """Walks the graph from the output back to the input.

    Attributes
    ----------
    known : symbolic tensor (by identity) → the Tensor that stands for it
    """

    def __init__(self, keras: Any, source: Any, sample: Shape) -> None:
        self.keras = keras
        self.sample = sample
        self.layers = Layers(SAMPLES)
        self.records = Records(self.layers, keras.ops.convert_to_numpy)
        self.known: dict[int, Tensor] = {id(source): Tensor(Value(INPUT, sample))}

    def read(self, output: Any) -> list[Layer]:
        self.records.plain(self.tensor(output, ""))
        if not self.layers.records:
            raise ModelError("the model returns its input: there is nothing to explain")
        return self.layers.finished()[0]

    def tensor(self, output: Any, prefix: str) -> Tensor:
        """What stands for a symbolic tensor; the graph is walked with a stack, since networks are deeper than
        Python's.
        """
        stack = [output]
        while stack:
            symbol = stack[-1]
            if id(symbol) in self.known:
                stack.pop()
                continue
            node = _node(symbol)
            missing = [s for s in node.input_tensors if id(s) not in self.known]
            if missing:
                stack.extend(reversed(missing))
                continue
            self.known[id(symbol)] = self.call(symbol, node, prefix)
        return self.known[id(output)]

    def call(self, symbol: Any, node: Any, prefix: str) -> Tensor:
        layer = symbol._keras_history.operation
        name = f"{prefix}{layer.name}"
        try:
            result = (
                self.nested(layer, node, name)
                if isinstance(layer, self.keras.Model)
                else self.record(layer, node, name)
            )
        except Refused as reason:
            raise ModelError(f"layer {name!r} ({type(layer).__name__}): {reason}") from None
        expected = tuple(symbol.shape[1:]) or (1,)  # a number per sample is a vector of one
        if len(expected) != len(result.shape) or any(
            e not in (None, s) for e, s in zip(expected, result.shape, strict=True)
        ):
            raise ModelError(
                f"layer {name!r} ({type(layer).__name__}): its record gives {result.shape}, Keras gives {expected}"
            )
        return result

    def nested(self, model: Any, node: Any, name: str) -> Tensor:
        """A model used as a layer: its own graph, read where it is called."""
        source, outputs = _ends(model)
        if len(outputs) != 1:
            raise Refused(f"it returns {len(outputs)} tensors, expected one")
        outer = self.known
        self.known = {id(source): outer[id(node.input_tensors[0])]}
        result = self.tensor(outputs[0], f"{name}/")
        self.known = outer
        return result

    def record(self, layer: Any, node: Any, name: str) -> Tensor:
        if not type(layer).__module__.startswith("keras."):
            raise Refused("a layer that is not Keras's own has no record; build it from Keras's layers")
        kind = type(layer).__name__ if isinstance(layer, self.keras.Layer) else f"ops.{type(layer).__name__}"
        if kind in REFUSED:
            raise Refused(REFUSED[kind])
        if kind not in HANDLERS:
            raise Refused("this layer has no record")
        if getattr(layer, "quantization_mode", None):
            raise Refused(f"{layer.quantization_mode}: {QUANTISED}")
        arguments = [*node.arguments.args, *node.arguments.kwargs.values()]
        tensors = [self.known[id(s)] for s in node.input_tensors]
        return HANDLERS[kind](Call(layer, name, tensors, arguments, self.records))


def _node(symbol: Any) -> Any:
    """The call that made a symbolic tensor."""
    layer, index, number = symbol._keras_history
    if number:
        raise ModelError(f"layer {layer.name!r} returns several tensors; only the first can be used")
    node = layer._inbound_nodes[index]
    if node.is_input:
        raise ModelError(f"the model reads {layer.name!r}, which is not its input")
    return node
