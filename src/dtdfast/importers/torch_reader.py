"""One walk over the graph that torch.export made of a module."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import ModelError
from ..layers import INPUT, Flatten, Layer, Reshape
from ..plan.shapes import Shape
from .check import Array
from .records import Layers, Refused, Value
from .refused import CONTROL_FLOW
from .torch_call import Call, Handler, operation, paths, title
from .torch_layers import HANDLERS as LAYERS
from .torch_moves import HANDLERS as MOVES
from .torch_patterns import written_out
from .torch_refused import STATE, TRAINING, advice

HANDLERS: dict[str, Handler] = LAYERS | MOVES


class Reader:
    """Walks a graph once, from the input to the output.

    Attributes
    ----------
    values : node → what stands for its result: a Value, Pieces of one, or a constant
    """

    def __init__(self, exported: Any, x: Any) -> None:
        self.graph = exported.graph_module.graph
        self.exported = exported
        self.n_batch = len(x)
        self.x = x
        self.layers = Layers(len(x))
        self.values: dict[Any, Any] = {}
        self.views: dict[tuple[int, Shape], Value] = {}
        self.shapes: dict[int, Shape] = {INPUT: tuple(x.shape[1:])}
        self.made: list[Any] = []  # per entry, the node that it was made for
        self.node: Any = None
        self.containers = {path for node in self.graph.nodes for path in paths(node)[:-1]}
        self.norms = {n: found for n in self.graph.nodes if (found := written_out(n)) is not None}

    def read(self) -> list[Layer]:
        signature = self.exported.graph_signature
        outputs = [n for n in self.graph.output_node().args[0] if getattr(n, "name", None) in signature.user_outputs]
        if len(outputs) != 1 or len(signature.user_outputs) != 1:
            raise ModelError(f"the module returns {len(signature.user_outputs)} values; wrap it in one that returns a single tensor")
        if signature.buffers_to_mutate:
            changed = next(iter(signature.buffers_to_mutate.values()))
            if changed.endswith(("running_mean", "running_var", "num_batches_tracked")):
                raise ModelError(f"the program keeps {changed!r} up to date: {TRAINING}")
            raise ModelError(f"the module changes its buffer {changed!r} when called; {STATE}")
        self.values.update(self.placeholders())
        needed = self.ancestors(outputs[0])
        self.check_names(needed)
        for node in self.graph.nodes:
            if node.op == "call_function" and node in needed:
                self.node = node
                try:
                    self.values[node] = self.call(node)
                except Refused as reason:
                    raise ModelError(f"{title(node)}: {advice(node, str(reason))}") from None
        value = self.values[outputs[0]]
        if not isinstance(value, Value):
            raise ModelError("the module's output does not depend on its input")
        self.entry(value)
        if not self.layers.records:
            raise ModelError("the module returns its input: there is nothing to explain")
        layers, kept = self.layers.finished()
        self.made = [self.made[position] for position in kept]
        return layers

    def check_names(self, needed: set[Any]) -> None:
        """Refuse what has a name before anything smaller inside it is stumbled over."""
        reached = {node for node, value in self.values.items() if isinstance(value, Value)}
        for node in self.graph.nodes:
            if node.op != "call_function" or node not in needed or not reached.intersection(node.all_input_nodes):
                continue
            reached.add(node)
            control = node.target is not operator.getitem and operation(node) is None
            reason = CONTROL_FLOW if control else advice(node, "")
            if reason:
                raise ModelError(f"{title(node)}: {reason}")

    def placeholders(self) -> Iterator[tuple[Any, Any]]:
        """The graph's inputs: the network's own, and what it holds."""
        for node, value in zip(self.graph.find_nodes(op="placeholder"), self.feeds(), strict=True):
            yield node, Value(INPUT, self.shapes[INPUT]) if value is self.x else value

    def feeds(self) -> Iterator[Any]:
        """What runs the graph: x, parameters, buffers and constants, in the graph's order."""
        held = {**self.exported.state_dict, **self.exported.constants}
        for spec in self.exported.graph_signature.input_specs:
            yield self.x if spec.kind.name == "USER_INPUT" else held[spec.target]

    def operands(self, node: Any) -> list[Any]:
        return [self.norms[node]["self"]] if node in self.norms else list(node.all_input_nodes)

    def ancestors(self, output: Any) -> set[Any]:
        """The nodes that a node needs, itself included."""
        found, stack = set(), [output]
        while stack:
            node = stack.pop()
            if node not in found:
                found.add(node)
                stack.extend(self.operands(node))
        return found

    def call(self, node: Any) -> Any:
        """One node's result, checked for its shape."""
        name = self.norms[node].name if node in self.norms else operation(node)
        if node.target is operator.getitem:
            result = self.piece(*(self.argument(a) for a in node.args))
        else:
            arguments = {key: self.argument(a) for key, a in (self.norms[node] if node in self.norms else _bind(node)).items()}
            if not any(isinstance(v, Value) for v in _flat(arguments.values())):
                return self.constant(node)
            if name is None or name not in HANDLERS:
                raise Refused("this operator has no record")
            users = {operation(u) for u in node.users}
            result = HANDLERS[name](self, Call(name, arguments, _shape(node)[1:], users))
        if isinstance(result, Value):
            self.check_shape(name, result, _shape(node))
        return result

    def piece(self, pieces: Any, index: int) -> Any:
        """One of several results: of records, or of a constant node."""
        if not isinstance(pieces, list) or not callable(pieces[0]):
            return pieces[index]
        if index >= len(pieces):
            raise Refused("only the first result of this operator can be used")
        return pieces[index]()

    def check_shape(self, name: str | None, value: Value, expected: Shape) -> None:
        if expected[0] != self.n_batch:
            raise Refused(f"its result has shape {expected}: the batch axis of {self.n_batch} samples does not stay first")
        if name != "expand" and value.shape != expected[1:]:
            raise Refused(f"its record gives samples of shape {value.shape}, PyTorch gives {expected[1:]}")

    def argument(self, value: Any) -> Any:
        """A node's argument with nodes replaced by what they stand for."""
        if isinstance(value, (list, tuple)):
            return [self.argument(v) for v in value]
        return self.values[value] if hasattr(value, "op") else value

    def constant(self, node: Any) -> Any:
        """What no input reaches is computed here and now."""
        import torch

        if torch.Tag.nondeterministic_seeded in node.target.tags:
            raise Refused("it draws random numbers")
        return node.target(*self.argument(node.args), **{k: self.argument(v) for k, v in node.kwargs.items()})

    # ------------------------------------------------------------------------------------------------ what the handlers use

    def add(self, cls: type[Layer], *sources: Value, **fields: Any) -> Value:
        return self.put(cls, tuple(self.entry(s) for s in sources), self.name(), **fields)

    def put(self, cls: type[Layer], sources: tuple[Value, ...], name: str | None, **fields: Any) -> Value:
        value = self.layers.add(cls, sources, name, **fields)
        self.shapes[value.position] = value.shape
        self.made.append(self.node)
        return value

    def name(self) -> str:
        """The part of the module that a record comes from, and the operation where the part holds more than one."""
        path = (paths(self.node) or [""])[-1]
        if path and path not in self.containers:
            return path
        return f"{path}.{self.node.name}".lstrip(".")

    def entry(self, value: Value) -> Value:
        """A value whose shape is its entry's own: a view becomes a record once something reads its elements."""
        if self.shapes[value.position] == value.shape:
            return value
        key = (value.position, value.shape)
        if key not in self.views:
            source = Value(value.position, self.shapes[value.position])
            fields: dict[str, Any] = {} if len(value.shape) == 1 else {"shape": value.shape}
            self.views[key] = self.put(Reshape if fields else Flatten, (source,), None, **fields)
        return self.views[key]

    def array(self, value: Any, what: str) -> Array:
        import torch

        if isinstance(value, Value):
            raise Refused(f"its {what} is computed from the network's input")
        if not isinstance(value, torch.Tensor):
            return np.asarray(value, np.float64)
        value = value.detach().cpu()
        if value.dtype in (torch.float32, torch.float64):
            result: Array = value.numpy()
            return result
        if value.is_complex() or value.is_quantized:
            raise Refused(f"its {what} has type {value.dtype}")
        return np.asarray(value.float().numpy())


def _bind(node: Any) -> dict[str, Any]:
    """A call's arguments by the names of the operator's schema, defaults filled in."""
    named = {}
    for index, argument in enumerate(node.target._schema.arguments):
        given = node.args[index] if index < len(node.args) else node.kwargs.get(argument.name, argument.default_value)
        named[argument.name] = given
    return named


def _shape(node: Any) -> Shape:
    """Of its result, or of the first of several; the batch axis counted."""
    value = node.meta["val"]
    return tuple((value[0] if isinstance(value, (tuple, list)) else value).shape)


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _flat(value)
        else:
            yield value
