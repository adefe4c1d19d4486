"""The graph of torch.export without in-place operations, made in one pass over its nodes: node by node what PyTorch's
`run_decompositions({})` makes by exporting a second time.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, cast

from ...errors import ModelError
from ...layers import Layer
from ...locks import cached_property
from ..records import Refused
from .call import operation


class Reads(Protocol):
    """What reads a graph."""

    def read(self) -> list[Layer]: ...


R = TypeVar("R", bound=Reads)


class Exported:
    """An exported program without in-place operations, in the operators that its module was written with.

    Parameters
    ----------
    program : torch.export.ExportedProgram
    decompose : what makes the same of it by PyTorch
    """

    def __init__(self, program: Any, decompose: Callable[[Any], Any]) -> None:
        self.program, self._decompose = program, decompose

    @cached_property
    def quick(self) -> Functional | None:
        return functional(self.program)

    @cached_property
    def whole(self) -> Any:
        return self._decompose(self.program)

    def read(self, make: Callable[[Any], R]) -> tuple[R, list[Layer]]:
        """The reader that `make` makes for a graph, and the layers that it reads.

        Where one pass over the nodes does not do, or what it gives cannot be read, the graph is PyTorch's own: it
        decides what is refused, and in which words.
        """
        if self.quick is not None:
            try:
                reader = make(self.quick)
                return reader, reader.read()
            except (ModelError, Refused):
                self.__dict__["quick"] = None
        reader = make(self.whole)
        return reader, reader.read()


@dataclass(eq=False)
class Functional:
    """What readers look at of a program."""

    graph_module: Any
    graph_signature: Any
    state_dict: Any
    constants: Any
    call_spec: Any


def functional(program: Any) -> Functional | None:
    """The graph with the nodes, the names and the order that `run_decompositions({})` gives it; None where it holds an
    operation that only PyTorch can take apart, or one that writes to what others read.
    """
    import torch

    signature = program.graph_signature
    if signature.buffers_to_mutate or signature.user_inputs_to_mutate or signature.backward_signature is not None:
        return None
    walk = _Walk(torch)
    try:
        for node in program.graph_module.graph.nodes:
            walk.take(node)
    except Unknown:
        return None
    walk.graph.eliminate_dead_code()
    names = {node.name: new.name for node, new in walk.values.items() if isinstance(new, torch.fx.Node)}
    outputs = [
        replace(spec, arg=replace(spec.arg, name=names[name]))
        if (name := getattr(spec.arg, "name", "")) in names
        else spec
        for spec in signature.output_specs  # constants, such as None, have no name
    ]
    return Functional(
        torch.fx.GraphModule(program.graph_module, walk.graph),
        replace(signature, output_specs=outputs),
        program.state_dict,
        program.constants,
        program.call_spec,
    )


class Unknown(Exception):
    """An operation that is left to PyTorch."""


class _Walk:
    """One walk over a graph, which writes another.

    Attributes
    ----------
    values : node → the new node with its result, or a tuple of them
    fresh : new nodes whose memory no other value shares, each with the nodes that it stands for
    rewritten : those that stand for what an operation has written to
    """

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.graph = torch.fx.Graph()
        self.values: dict[Any, Any] = {}
        self.fresh: dict[Any, list[Any]] = {}
        self.rewritten: set[Any] = set()
        self.node: Any = None
        self.left = torch._subclasses.functional_tensor.FunctionalTensor.metadata_fns

    def take(self, node: Any) -> None:
        self.node = node
        if node.op == "call_function":
            new = self.values[node] = self.called(node)
            if not isinstance(new, tuple) and new in self.fresh:
                self.fresh[new].append(node)
        elif node.op in ("placeholder", "output"):
            new = self.values[node] = self.graph.node_copy(node, self.values.__getitem__)
            new.name = node.name  # which a graph would change where it is a word of Python, such as `input`
        else:
            raise Unknown

    def called(self, node: Any) -> Any:
        name, target = operation(node), node.target
        if target is operator.getitem:
            return self.values[node.args[0]][node.args[1]]
        if name is None or target.namespace != "aten":
            raise Unknown
        args, kwargs = self.torch.fx.map_arg((node.args, node.kwargs), self.values.__getitem__)
        if name in ROWS:
            return ROWS[name](self, *args, **kwargs)
        keys, tags = self.torch._C.DispatchKey, self.torch.Tag
        composite = target.has_kernel_for_dispatch_key(keys.CompositeImplicitAutograd)
        own = keys.Autograd in target.py_kernels and not composite  # of PyTorch: a decomposition that is always run
        if own or tags.maybe_aliasing_or_mutating in target.tags or target in self.left:
            raise Unknown
        shared = [a for a in target._schema.arguments if a.alias_info is not None]
        if any(a.alias_info.is_write for a in shared):
            if composite:
                raise Unknown
            return self.written(args, kwargs, [a.name for a in shared])
        if not shared:
            return self.made(self.emit(target, args, kwargs, node.meta["val"]))
        for source in map(self.values.__getitem__, node.all_input_nodes):
            if source in self.rewritten:  # PyTorch makes its views again where they are read
                raise Unknown
            self.fresh.pop(source, None)
        return self.parts() if composite else self.emit(target, args, kwargs, node.meta["val"])

    def emit(self, target: Any, args: Any, kwargs: Any, value: Any) -> Any:
        """A node, or those of the several results that it has."""
        name = target.overloadpacket.__name__
        name = name[2:-2] if name.startswith("__") and name.endswith("__") else name
        new = self.graph.create_node("call_function", target, args, kwargs, name)
        new.meta = {**self.node.meta, "val": value}
        if not isinstance(value, (tuple, list)):
            return new
        pieces = [self.graph.create_node("call_function", operator.getitem, (new, i)) for i in range(len(value))]
        for piece, result in zip(pieces, value, strict=True):
            piece.meta = {**self.node.meta, "val": result}
        return tuple(pieces)

    def made(self, new: Any) -> Any:
        """What an operation has made, in memory of its own."""
        self.fresh |= {node: [] for node in (new if isinstance(new, tuple) else (new,))}
        return new

    def written(self, args: Any, kwargs: Any, names: list[str]) -> Any:
        """An operation in place as the one that makes a new tensor, which stands for the old one from here on."""
        node = self.node
        old, name = node.args[0], operation(node) or ""
        packet = getattr(self.torch.ops.aten, name.removesuffix("_"), None)
        overload = getattr(packet, node.target._overloadname, None)
        read = [source.meta["val"] for source in node.all_input_nodes]
        plain = all(v.dtype == read[0].dtype and v.is_floating_point() for v in read) and read[0].is_contiguous()
        if names != ["self"] or overload is None or args[0] not in self.fresh or not plain:
            raise Unknown
        stood_for = self.fresh.pop(self.values[old])
        new = self.made(self.emit(overload, args, kwargs, node.meta["val"]))
        self.values |= dict.fromkeys(stood_for, new)
        self.rewritten.add(new)
        self.fresh[new] += stood_for
        return new

    def parts(self) -> Any:
        """A view or a copy, whichever its operands' strides allow, by the operations that it calls on tensors without
        data.
        """
        import torch
        from torch.utils._python_dispatch import TorchDispatchMode
        from torch.utils._pytree import tree_map_only

        walk, mode = self, cast("Any", TorchDispatchMode)
        known = {id(source.meta["val"]): self.values[source] for source in self.node.all_input_nodes}
        alive = []  # or another tensor would have its id

        class Recorder(mode):  # type: ignore[misc, valid-type]
            def __torch_dispatch__(self, target: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                result = target(*args, **(kwargs or {}))
                args, kwargs = tree_map_only(torch.Tensor, lambda t: known[id(t)], (args, kwargs or {}))
                new = walk.emit(target, args, kwargs, result)
                alive.append(result)
                several = isinstance(new, tuple)
                known.update(zip(map(id, result if several else [result]), new if several else [new], strict=True))
                return result

        args, kwargs = torch.fx.map_arg((self.node.args, self.node.kwargs), lambda source: source.meta["val"])
        with Recorder():
            result = self.node.target(*args, **kwargs)
        try:
            return tuple(known[id(r)] for r in result) if isinstance(result, (tuple, list)) else known[id(result)]
        except KeyError:  # a tensor that no operation made
            raise Unknown from None


def _batch_norm(
    walk: _Walk, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, momentum: float, eps: float,
    _: bool,
) -> Any:  # fmt: skip
    if training:
        raise Unknown
    target, value = walk.torch.ops.aten._native_batch_norm_legit_no_training.default, walk.node.meta["val"]
    return walk.made(walk.emit(target, (x, weight, bias, mean, variance, momentum, eps), {}, (value,) * 3))[0]


def _dropout(walk: _Walk, x: Any, _: float, training: bool) -> Any:
    if training:
        raise Unknown
    return walk.made(walk.emit(walk.torch.ops.aten.clone.default, (x,), {}, walk.node.meta["val"]))


def _lifted(walk: _Walk, x: Any) -> Any:
    """A tensor that the module makes of numbers."""
    return walk.made(walk.emit(walk.torch.ops.aten.clone.default, (x,), {}, walk.node.meta["val"]))


ROWS: dict[str, Callable[..., Any]] = {
    "batch_norm": _batch_norm,
    "dropout": _dropout,
    "lift_fresh_copy": _lifted,
    "detach_": lambda walk, x: x,
    "_assert_tensor_metadata": lambda walk, *args, **kwargs: None,  # which nothing reads
}
"""Operators that PyTorch writes in others, though they say that they write to nothing."""
