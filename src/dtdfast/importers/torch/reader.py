"""One walk over the graph that torch.export made of a module."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import ModelError
from ...layers import INPUT, Flatten, Given, Layer, Reshape, Softmax
from ...plan.shapes import Shape
from ..check import Array
from ..functions import Function
from ..records import Layers, Refused, Value
from ..refused import CONTROL_FLOW
from .arithmetic import HANDLERS as ARITHMETIC
from .attention import HANDLERS as ATTENTION
from .call import Call, Handler, Pieces, Records, operation, paths, title
from .functions import ELEMENTWISE, followed
from .layers import HANDLERS as LAYERS
from .masks import MOVED, OF_MASKS, carried, is_mask, moved_mask, truth
from .moves import HANDLERS as MOVES
from .norms import HANDLERS as NORMS
from .patterns import Written, written_out
from .pools import HANDLERS as POOLS
from .products import HANDLERS as PRODUCTS
from .program import output_node, output_tensor
from .refused import STATE, TRAINING, UNKNOWN, advice
from .turned import PERMUTES, VIEWS, Turned, permuted, repeated, stacked_first, turned, viewed

HANDLERS: dict[str, Handler] = LAYERS | ARITHMETIC | PRODUCTS | NORMS | ATTENTION | POOLS | MOVES
OPERATORS = {*HANDLERS, *PERMUTES, *VIEWS, *ELEMENTWISE}
COMPUTED = (Value, Turned, Function)
FILLED = ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "fill", "zero", "copy")


class Reader:
    """Walks a graph once, from the input to the output.

    Attributes
    ----------
    values : node → what stands for its result: a Value, Pieces of one, or a constant
    reached : nodes that are computed from x, or from numbers beside it, and not from masks and constants alone
    """

    def __init__(
        self, exported: Any, x: Any, output: int | str | None = None, given: dict[str, Any] | None = None
    ) -> None:
        self.graph = exported.graph_module.graph
        self.exported = exported
        self.n_batch = len(x)
        self.x, self.given = x, given or {}
        self.output = output
        self.layers = Layers(len(x), sample=tuple(x.shape[1:]))
        self.values: dict[Any, Any] = {}
        self.views: dict[tuple[int, Shape], Value] = {}
        self.viewing: dict[tuple[int, Shape], Any] = {}  # the node that an entry first had a shape by
        self.reached: set[Any] = set()
        self.made: list[Any] = []  # per entry, the node that it was made for
        self.node: Any = None
        self.containers = {path for node in self.graph.nodes for path in paths(node)[:-1]}
        self.norms: dict[Any, Written] = {}

    def read(self) -> list[Layer]:
        signature = self.exported.graph_signature
        wanted = output_node(self.exported, self.output)
        if signature.buffers_to_mutate:
            changed = next(iter(signature.buffers_to_mutate.values()))
            if changed.endswith(("running_mean", "running_var", "num_batches_tracked")):
                raise ModelError(f"the program keeps {changed!r} up to date: {TRAINING}")
            raise ModelError(f"the module changes its buffer {changed!r} when called; {STATE}")
        self.values.update(self.placeholders())
        computed = {node for node, value in self.values.items() if isinstance(value, Value)}
        for node in self.graph.nodes:
            if computed.intersection(node.all_input_nodes):
                computed.add(node)
        found = ((node, written_out(node)) for node in computed)
        self.norms = {node: written for node, written in found if written and written["self"] in computed}
        needed = self.ancestors(wanted)
        self.check_names(needed)
        for node in self.graph.nodes:
            if node.op == "call_function" and node in needed:
                self.node = node
                try:
                    self.values[node] = value = self.call(node)
                    if isinstance(value, Value):
                        self.viewing.setdefault((value.position, value.shape), node)
                except Refused as reason:
                    raise ModelError(f"{title(node)}: {advice(node, str(reason))}") from None
        value = self.values[wanted]
        if isinstance(value, Turned):
            merged = ", merged with others" if value.outer or value.inner else ""
            raise ModelError(
                f"the module's output has its batch axis at place {value.place}{merged}; return it with the batch axis "
                "first"
            )
        if isinstance(value, Function):
            raise ModelError(f"the module's output: {value.refused()}")
        if not isinstance(value, Value):
            raise ModelError("the module's output does not depend on its input")
        value = self.entry(value)
        if value.position == INPUT:
            raise ModelError("the module returns its input: there is nothing to explain")
        layers, kept = self.layers.finished(value)
        self.made = [self.made[position] for position in kept]
        return layers

    def chosen(self, result: Any) -> Any:
        """The tensor that is explained, of what the module returned."""
        return output_tensor(result, self.output)

    def batch_first(self, node: Any, tensor: Any) -> Array | None:
        """A node's result as its record has it; None where they are not the same numbers."""
        value = self.values[node]
        if isinstance(value, Turned):
            tensor, value = value.straight(tensor, self.n_batch), value.value
        if not isinstance(value, Value) or value.hides or value.given is not None or value.kept is not None:
            return None
        return self.array(tensor, "value")

    def check_names(self, needed: set[Any]) -> None:
        """Refuse what has a name before anything smaller inside it is stumbled over."""
        self.reached = reached = {n for n, value in self.values.items() if isinstance(value, Value) and not value.truth}
        for node in self.graph.nodes:
            if node.op != "call_function" or node not in needed or not reached.intersection(self.operands(node)):
                continue
            if operation(node) in FILLED and reached.intersection(node.all_input_nodes) == {node.args[0]}:
                continue
            reached.add(node)
            control = node.target is not operator.getitem and operation(node) is None
            reason = CONTROL_FLOW if control else advice(node, "")
            if reason:
                raise ModelError(f"{title(node)}: {reason}")

    def placeholders(self) -> Iterator[tuple[Any, Any]]:
        """The graph's inputs: the network's own, and what it holds."""
        for node, value in zip(self.graph.find_nodes(op="placeholder"), self.feeds(), strict=True):
            if value is self.x:
                yield node, Value(INPUT, tuple(self.x.shape[1:]), not self.x.is_floating_point())
            elif name := next((name for name, tensor in self.given.items() if tensor is value), ""):
                self.node = node
                yield node, self.beside(name, value, words="embedding" in map(operation, node.users))
            else:
                yield node, value

    def beside(self, name: str, tensor: Any, *, words: bool) -> Value:
        """A tensor that the module is called with beside x: numbers of words, or a mask."""
        whole = not tensor.is_floating_point()
        if whole and not words and bool(((tensor != 0) & (tensor != 1)).any()):
            raise ModelError(f"{name} holds other integers than 0 and 1, and no embedding reads it")
        mask = whole and not words
        value = self.put(Given, (), name, shape=tuple(tensor.shape[1:]), integer=whole and words, mask=mask)
        if mask:
            self.layers.masks.add(value.position)
        return replace(value, integer=whole and words, truth=mask)

    def feeds(self) -> Iterator[Any]:
        """What runs the graph: x, parameters, buffers and constants, in the graph's order."""
        held = {**self.exported.state_dict, **self.exported.constants}
        for spec in self.exported.graph_signature.input_specs:
            own = spec.kind.name == "USER_INPUT"
            yield self.given.get(spec.arg.name, self.x) if own else held[spec.target]

    def operands(self, node: Any) -> list[Any]:
        if node in self.norms:
            return [a for a in self.norms[node].values() if hasattr(a, "op")]
        return list(node.all_input_nodes)

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
            arguments = {
                key: self.argument(a) for key, a in (self.norms[node] if node in self.norms else _bind(node)).items()
            }
            flat = list(_flat(arguments.values()))
            if any(isinstance(v, Pieces) for v in flat):
                raise Refused("it takes all results of an operator together; only the first can be used")
            if not any(isinstance(v, COMPUTED) for v in flat):
                return self.constant(node)
            if name in FILLED and [v for v in flat if isinstance(v, COMPUTED)] == [arguments["self"]]:
                return self.filled(node)
            if name is None or name not in (*OPERATORS, *(OF_MASKS if any(map(is_mask, flat)) else ())):
                function = next((v for v in flat if isinstance(v, Function)), None)
                raise Refused(UNKNOWN) if function is None else function.refused()
            users = {operation(u) for u in node.users}
            call = Call(name, arguments, _shape(node)[1:], users, node.target, _dtype(node))
            moved = name in MOVED and carried(call.get("self"))
            result = moved_mask(self, call, self.made_by) if moved else self.made_by(name, call)
        return self.checked(node, name, result)

    def checked(self, node: Any, name: str | None, result: Any) -> Any:
        if isinstance(result, Turned):
            if name != "expand" and result.full(self.n_batch) != _shape(node):
                raise Refused(f"its record gives {result.full(self.n_batch)}, PyTorch gives {_shape(node)}")
        elif isinstance(result, Value):
            if result.shape == (1,) and _shape(node) == (self.n_batch,):
                result = Value(result.position, ())
            if result.truth or result.hides:
                self.layers.masks.add(result.position)
            self.check_shape(name, result, _shape(node))
        return result

    def made_by(self, name: str, call: Call) -> Any:
        if name in PERMUTES:
            return permuted(self, call)
        if name in VIEWS:
            return viewed(self, call.self, _shape(self.node))
        if name == "repeat_interleave" and call.get("dim") == 0 and isinstance(call.repeats, int):
            return repeated(self, call)
        if name == "einsum" or any(isinstance(v, Turned) for v in _flat(call.arguments.values())):
            return turned(self, call, _shape(self.node), _straight)
        if name == "stack" and call.dim % len(_shape(self.node)) == 0:
            return stacked_first(self, call)
        return _straight(self, call)

    def piece(self, pieces: Any, index: int) -> Any:
        """One of several results: of records, or of a constant node."""
        if not isinstance(pieces, Pieces):
            return pieces[index]
        if index >= len(pieces):
            raise Refused("only the first result of this operator can be used")
        return pieces[index]()

    def check_shape(self, name: str | None, value: Value, expected: Shape) -> None:
        of_input = self.node in self.reached
        if of_input and not _dtype(self.node).is_floating_point and not (value.integer or value.truth):
            raise Refused("its result is not of a floating type, and only such can be explained")
        if expected[0] != self.n_batch:
            raise Refused(
                f"its result has shape {expected}: the batch axis of {self.n_batch} samples does not stay first"
            )
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

        bound = _bind(node)
        quiet = bound.get("dropout_p") == 0 or bound.get("training") is False  # in evaluation mode
        if torch.Tag.nondeterministic_seeded in node.target.tags and not quiet:
            raise Refused("it draws random numbers")
        return node.target(*self.argument(node.args), **{k: self.argument(v) for k, v in node.kwargs.items()})

    def filled(self, node: Any) -> Any:
        """A constant of which the network's input only decides the shape."""
        import torch

        like = node.args[0].meta["val"]
        stand_in = torch.zeros(tuple(like.shape), dtype=like.dtype)
        return node.target(
            stand_in, *self.argument(node.args[1:]), **{k: self.argument(v) for k, v in node.kwargs.items()}
        )

    # ------------------------------------------------------------------------------------------ what the handlers use

    def add(self, cls: type[Layer], *sources: Value, **fields: Any) -> Value:
        return self.put(cls, tuple(self.whole(s) for s in sources), self.name(), **fields)

    def whole(self, value: Value) -> Value:
        """A value and its mask whose shapes are those of their entries."""
        value = self.entry(value)
        return value if value.given is None else replace(value, given=self.entry(value.given))

    def put(self, cls: type[Layer], sources: tuple[Value, ...], name: str | None, **fields: Any) -> Value:
        value = self.layers.add(cls, sources, name, **fields)
        self.made.extend([self.node] * (len(self.layers.records) - len(self.made)))
        return value

    def name(self) -> str:
        """The part of the module that a record comes from, and the operation where the part holds more than one."""
        path = (paths(self.node) or [""])[-1]
        if path and path not in self.containers:
            return path
        return f"{path}.{self.node.name}".lstrip(".")

    def entry(self, value: Value) -> Value:
        """A value whose shape is its entry's own: a view becomes a record once something reads its elements.

        One number per sample is a vector of one element, and a view of a softmax the softmax of a view where that is
        the same.
        """
        shape = value.shape or (1,)
        if self.layers.shape(value.position) == shape:
            return value.under(shape)
        key = (value.position, shape)
        if key not in self.views:
            held = self.layers.shape(value.position)
            assert held is not None
            source, reading = Value(value.position, held), self.node
            self.node = self.viewing.get((value.position, value.shape), reading)  # it makes the view, not its reader
            self.views[key] = self.softmax(source, shape) or self.reshaped(source, shape)
            self.node = reading
        return replace(self.views[key], hides=value.hides, kept=value.kept, given=value.given)

    def reshaped(self, source: Value, shape: Shape) -> Value:
        return (
            self.put(Flatten, (source,), None) if len(shape) == 1 else self.put(Reshape, (source,), None, shape=shape)
        )

    def softmax(self, source: Value, shape: Shape) -> Value | None:
        """A Softmax under a shape that differs in axes of size 1 only, so that it stays the last entry."""
        record = self.layers.records[source.position] if source.position != INPUT else None
        if not isinstance(record, Softmax) or [s for s in source.shape if s > 1] != [s for s in shape if s > 1]:
            return None
        if record.mask is not None or len(record.positions or ()) > 1:
            return None
        axis = record.axis % (len(source.shape) + 1) - 1
        if source.shape[axis] == 1:
            return None
        number = sum(s > 1 for s in source.shape[:axis])  # among the axes that have elements
        axes = [a for a, s in enumerate(shape) if s > 1]
        read = source.position - 1 if record.positions is None else record.positions[0]
        before = self.entry(Value(read, shape))
        return self.put(Softmax, (before,), record.name, axis=axes[number] + 1, log=record.log)

    def array(self, value: Any, what: str) -> Array:
        import torch

        if isinstance(value, Value):
            raise Refused(f"its {what} is computed from the network's input")
        if not isinstance(value, torch.Tensor):
            return np.asarray(value, np.float64)
        value = value.detach().cpu()
        value = value if value.layout == torch.strided else value.to_dense()
        if value.dtype in (torch.float32, torch.float64):
            result: Array = value.numpy()
            return result
        if value.is_complex() or value.is_quantized:
            raise Refused(f"its {what} has type {value.dtype}")
        return np.asarray(value.float().numpy())


def _straight(records: Records, call: Call) -> Any:
    """A call whose operands have the batch axis first."""
    if any(map(is_mask, call.values())) and (made := truth(records, call)) is not None:
        return made
    result = followed(records, call)
    if result is not None:
        return result
    if call.name not in HANDLERS:
        raise Refused(UNKNOWN)
    return HANDLERS[call.name](records, call)


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
    try:
        return tuple(map(int, (value[0] if isinstance(value, (tuple, list)) else value).shape))
    except RuntimeError:  # of a symbol without a value
        raise Refused("the size of its result is known only when it runs; write its sizes as numbers") from None


def _dtype(node: Any) -> Any:
    value = node.meta["val"]
    return (value[0] if isinstance(value, (tuple, list)) else value).dtype


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list) and not isinstance(value, Pieces):
            yield from _flat(value)
        else:
            yield value
