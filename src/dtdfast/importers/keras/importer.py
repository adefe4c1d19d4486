"""Keras 3 models as layer lists, read from the graph that a Sequential or functional model holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import InputError, ModelError
from ...extras import require
from ...layers import INPUT, Layer
from ...plan.shapes import Shape
from ..check import TOLERANCE, Array, check_outputs, random_input
from ..outputs import chosen, leaves
from ..records import Layers, Refused, Turned, Value
from ..refused import QUANTISED
from .arithmetic import HANDLERS as ARITHMETIC
from .attention import HANDLERS as ATTENTION
from .axes import HANDLERS as AXES
from .call import SAMPLES, Call, Handler, Records, Tensor
from .layers import HANDLERS as LAYERS
from .moves import HANDLERS as MOVES
from .refused import REFUSED
from .turned import ORDERS, as_turned, straight, transposed

HANDLERS: dict[str, Handler] = LAYERS | ARITHMETIC | ATTENTION | MOVES | AXES
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
        The number or name of the output that is explained, where the model has several: the key of a dict, else the
        layer's name.

    Returns
    -------
    list of Layer
        The network, named after the model's layers. A final softmax is kept: `predict` includes it, and `explain`
        starts before it.
        At a sample of another shape it is explained as it is, or refused where a layer may be another one there;
        ``list(layers)`` is a copy that does not know the shape it was imported at.

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
    >>> relevance = dtdfast.explain(layers, x)  # x prepared as for training
    """
    keras = require("keras", "keras")
    if not isinstance(model, keras.Model):
        raise ModelError(f"model is a {type(model).__name__}, expected a keras.Model")
    given = None if example is None else np.asarray(keras.ops.convert_to_numpy(example))
    if given is not None and isinstance(model, keras.Sequential) and not model.built:
        model(given[:1])  # decides its sizes
    source, outputs = _ends(model)
    names = _names(model, outputs)
    number = names.index(chosen(names, output, f"the model {model.name!r}"))
    reader = _Reader(keras, source, _sample(source, given))
    layers = reader.read(outputs[number])
    x = random_input(layers, (SAMPLES, *reader.sample)) if given is None else given
    expected = keras.ops.convert_to_numpy(_run(keras, model, x)[number])
    kinds = (expected.dtype.name, *(getattr(layer, "compute_dtype", "") for layer in model._flatten_layers()))
    tolerance = max(TOLERANCE, *(16 * EPS.get(kind, 0.0) for kind in kinds))
    check_outputs(layers, x, np.asarray(expected, np.float64), tolerance)
    return layers


def _names(model: Any, outputs: list[Any]) -> list[str]:
    """Of the outputs: keys and positions where the model returns a dict, else the names of the layers."""
    structure = getattr(model, "_outputs_struct", None)
    if isinstance(structure, dict):
        paths = {id(tensor): path for path, tensor in leaves(structure)}
        return [paths[id(t)] for t in outputs]
    return list(getattr(model, "output_names", None) or [t._keras_history.operation.name for t in outputs])


def _run(keras: Any, model: Any, x: Array) -> list[Any]:
    """The model's outputs; where its backend has no negative steps, NumPy takes the items."""

    def item(operation: Any) -> Any:
        if type(operation).__name__ == "GetItem":
            return lambda x, key: keras.ops.convert_to_tensor(keras.ops.convert_to_numpy(x)[key].copy())
        if isinstance(operation, keras.Model):
            return lambda x, **_: through(operation, x)
        return operation

    def through(inner: Any, x: Any) -> Any:
        return getattr(inner, "_functional", inner)._run_through_graph(x, operation_fn=item)

    try:
        return list(keras.tree.flatten(model(x, training=False)))
    except Exception as error:  # whatever an operation raises that its backend lacks
        if "step must be greater than zero" in str(error):
            return list(keras.tree.flatten(through(model, keras.ops.convert_to_tensor(x))))
        raise ModelError(
            f"the model {model.name!r} cannot be run on the example: {' '.join(str(error).split()):.200}"
        ) from None


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


class _Reader:
    """Walks the graph from the output back to the input.

    Attributes
    ----------
    open : whether the number of samples is open
    known : symbolic tensor (by identity) → what stands for it
    """

    def __init__(self, keras: Any, source: Any, sample: Shape) -> None:
        self.keras = keras
        self.sample = sample
        self.layers = Layers(SAMPLES, sample=sample)
        self.open = source.shape[0] is None
        self.records = Records(self.layers, keras.ops.convert_to_numpy)
        self.known: dict[int, Tensor | Turned] = {id(source): Tensor(Value(INPUT, sample))}

    def read(self, output: Any) -> list[Layer]:
        made = self.tensor(output, "")
        if isinstance(made, Turned):
            raise ModelError(
                f"the model's output has its batch axis at place {made.order.index(0)}; transpose it to the first"
            )
        value = self.records.plain(made)
        if value.position == INPUT and value.kept is None:
            raise ModelError("the model returns its input: there is nothing to explain")
        return self.layers.finished(value)[0]

    def tensor(self, output: Any, prefix: str) -> Tensor | Turned:
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
            symbols = node.output_tensors
            self.known.update(zip(map(id, symbols), self.call(symbols, node, prefix), strict=False))
            if id(symbol) not in self.known:
                raise ModelError(f"layer {node.operation.name!r} returns several tensors; only the first can be used")
        return self.known[id(output)]

    def call(self, symbols: list[Any], node: Any, prefix: str) -> list[Tensor | Turned]:
        """One call's results, checked for their shapes."""
        layer = node.operation
        name = f"{prefix}{layer.name}"
        try:
            result = (
                self.nested(layer, node, name)
                if isinstance(layer, self.keras.Model)
                else self.record(layer, node, name)
            )
            results = result if isinstance(result, list) else [result]
            return [self.as_declared(r, s) for r, s in zip(results, symbols, strict=False)]
        except Refused as reason:
            raise ModelError(f"layer {name!r} ({type(layer).__name__}): {reason}") from None

    def as_declared(self, result: Tensor | Turned, symbol: Any) -> Tensor | Turned:
        """With the axes that Keras gives it: one number per sample has none, or one of size 1."""
        sizes = tuple(symbol.shape)
        if isinstance(result, Turned):
            if not as_turned(result, sizes):
                raise Refused(f"its record has the batch axis at place {result.order.index(0)}, Keras gives {sizes}")
            return result
        expected = sizes[1:]
        if self.open and sizes[0] is not None:
            raise Refused(f"it fixes the number of samples: Keras gives {sizes}")
        if len(expected) < 2 and result.value.shape in ((), (1,)):
            result = Tensor(Value(result.value.position, (1,) if expected else (), result.value.integer))
        if len(expected) != len(result.shape) or any(
            e not in (None, s) for e, s in zip(expected, result.shape, strict=True)
        ):
            raise Refused(f"its record gives {result.shape}, Keras gives {expected}")
        return result

    def nested(self, model: Any, node: Any, name: str) -> Tensor | Turned:
        """A model used as a layer: its own graph, read where it is called."""
        source, outputs = _ends(model)
        if len(outputs) != 1:
            raise Refused(f"it returns {len(outputs)} tensors, expected one")
        outer = self.known
        self.known = {id(source): outer[id(node.input_tensors[0])]}
        result = self.tensor(outputs[0], f"{name}/")
        self.known = outer
        return result

    def record(self, layer: Any, node: Any, name: str) -> Tensor | Turned | list[Tensor]:
        if not type(layer).__module__.startswith("keras."):
            raise Refused("a layer that is not Keras's own has no record; build it from Keras's layers")
        if type(layer).__name__ == "SpectralNormalization":  # its layer, whose kernel it has divided already
            return self.record(layer.layer, node, name)
        kind = type(layer).__name__ if isinstance(layer, self.keras.Layer) else f"ops.{type(layer).__name__}"
        if kind in REFUSED:
            raise Refused(REFUSED[kind])
        if kind not in HANDLERS and kind not in ORDERS:
            raise Refused("this layer has no record")
        if getattr(layer, "quantization_mode", None):
            raise Refused(f"{layer.quantization_mode}: {QUANTISED}")
        found = [self.known[id(s)] for s in node.input_tensors]
        tensors = [t for t in found if isinstance(t, Tensor)]
        call = Call(layer, name, tensors, node, self.records, lambda x: self.probed(layer, node, x))
        if kind in ORDERS:
            return transposed(kind, call, found[0])
        return HANDLERS[kind](call) if len(tensors) == len(found) else straight(kind, call, found, HANDLERS[kind])

    def probed(self, layer: Any, node: Any, numbers: Array) -> list[Array]:
        """What a call makes of other numbers in the place of its tensors."""
        for kind in ("int32", "float32") if numbers.dtype.kind == "i" else ("float32",):
            stand_in = self.keras.ops.convert_to_tensor(numbers.astype(kind))
            args, kwargs = node.arguments.fill_in({id(s): stand_in for s in node.input_tensors})
            try:
                made = self.keras.tree.flatten(layer(*args, **kwargs))
                return [np.asarray(self.keras.ops.convert_to_numpy(m)) for m in made]
            except Exception as error:  # whatever an operation raises on integers, or on this backend
                reason = " ".join(str(error).split())
        raise Refused(f"it cannot be followed: {reason:.200}")


def _node(symbol: Any) -> Any:
    """The call that made a symbolic tensor."""
    layer, index, _ = symbol._keras_history
    node = layer._inbound_nodes[index]
    if node.is_input:
        raise ModelError(f"the model reads {layer.name!r}, which is not its input")
    return node
