"""A PyTorch model as the drop-ins see it: its layers, kept while its weights stay what they were."""

from __future__ import annotations

import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from .. import layers as L
from ..cache import key_of
from ..errors import InputError, ModelError
from ..explainer import Explainer
from ..extras import require
from ..importers.check import TOLERANCE
from ..importers.outputs import leaves
from ..importers.torch.graph import Graph, Origin
from ..importers.torch.program import as_written, check_readable, operators
from ..locks import renewed
from ..plan.fold import fold
from ..plan.shapes import Shape
from ..plan.units import shares
from ..plan.wiring import sources, wire
from ..presets import Rules
from .fingerprint import fingerprint

POOLS = (L.AvgPool, L.SumPool, L.GlobalAvgPool)
NORMS = (L.BatchNorm, L.Scale)

GRAPHS, EXPLAINERS = 4, 4  # kept per model: sample shapes, and sets of rules per shape


@dataclass(eq=False)
class Imported:
    """One model's layers for one shape of samples.

    Attributes
    ----------
    origins : of every entry
    shape : of one sample
    dtype : of the model's outputs, and so of relevance
    numbers : whether the model returns one number for each sample, without an axis
    """

    layers: list[L.Layer]
    origins: list[Origin]
    shape: Shape
    dtype: Any
    numbers: bool = False
    explainers: OrderedDict[Any, Explainer] = field(default_factory=OrderedDict)
    variants: dict[Any, Imported] = field(default_factory=dict)

    def parts(self, model: Any, *, hooks: bool = False) -> list[Any]:
        """Of every entry the part of the model that it stands for, or None; with `hooks` also of what the part's
        forward hooks compute.

        Not kept, or the model would live as long as its layers.
        """
        found = dict(model.named_modules(remove_duplicate=False))
        return [None if o.path is None or (o.hooked and not hooks) else found.get(o.path) for o in self.origins]

    def answer(self, outputs: Any) -> Any:
        """Outputs as the model returns them."""
        return (outputs[:, 0] if self.numbers else outputs).to(self.dtype)

    def explainer(self, rules: Rules, **options: Any) -> Explainer:
        """One for these rules, made once."""
        key = (key_of(rules), tuple(sorted((k, key_of(v)) for k, v in options.items())))
        with _lock:
            if key not in self.explainers:
                self.explainers[key] = Explainer(self.layers, rules=rules, **options)
            self.explainers.move_to_end(key)
            while len(self.explainers) > EXPLAINERS:
                self.explainers.popitem(last=False)
            return self.explainers[key]

    def variant(self, name: Any, make: Callable[[Imported], Imported]) -> Imported:
        """What a tool makes of these layers, made once."""
        with _lock:
            if name not in self.variants:
                self.variants[name] = make(self)
            return self.variants[name]

    def takers(self, stop: int | None, kept: Collection[int]) -> list[int]:
        """The entries that take a rule when relevance runs down to `stop`: those that share by weights and are not
        folded away.
        """
        folded = self.folded(stop, kept)
        return [
            p
            for p, record in enumerate(self.layers)
            if p not in folded and (shares(record) or isinstance(record, NORMS))
        ]

    def folded(self, stop: int | None = None, kept: Collection[int] = ()) -> dict[int, tuple[int, ...]]:
        """The entries that the plan folds away, each with the entries that take it; affine maps that are `kept`
        stay.
        """
        last = len(self.layers) - 1
        entries = wire(self.layers, self.shape, tokens=self.tokens, last=last)
        return fold(entries, (last,) if stop is None else (last, stop), kept).taken

    def idle(self) -> set[int]:
        """The pools that give back what they take."""
        shapes, reads = self.shapes(), sources(self.layers)
        return {
            p for p, record in enumerate(self.layers) if isinstance(record, POOLS) and shapes[p] == shapes[reads[p][0]]
        }

    @property
    def tokens(self) -> bool:
        reads = sources(self.layers)
        return any(isinstance(r, L.Embedding) and L.INPUT in reads[p] for p, r in enumerate(self.layers))

    def shapes(self) -> dict[int, Shape]:
        """Of one sample at the network's input and at every entry's output."""
        entries = wire(self.layers, self.shape, tokens=self.tokens, last=len(self.layers) - 1)
        return {L.INPUT: self.shape, **{position: entry.shape for position, entry in entries.items()}}


@dataclass(eq=False)
class _Known:
    """A graph, and what was read from it last."""

    graph: Graph
    values: Any
    imported: Imported


_models: weakref.WeakKeyDictionary[Any, OrderedDict[Any, _Known]] = weakref.WeakKeyDictionary()
_lock = renewed(sys.modules[__name__], "_lock")


@dataclass(frozen=True)
class Named:
    """A call by keywords, of whose answer the first tensor is explained.

    Attributes
    ----------
    keyword : by which `forward` takes x; None: x is its first argument
    arguments : what else `forward` is called with
    """

    keyword: str | None
    arguments: dict[str, Any]


def imported(model: Any, x: Any, arguments: tuple[Any, ...] = (), named: Named | None = None) -> Imported:
    """The layers of a model for samples like x, as it is now.

    Parameters
    ----------
    model : torch.nn.Module
        Taken in evaluation mode, whatever mode it is in.
    x : torch.Tensor (n, ...)
    arguments : what else its `forward` is called with, after x
    named : how it is called instead, where not by x and `arguments` alone

    Raises
    ------
    ModelError
        What `from_torch` refuses; a BatchNorm in training mode.
    """
    torch = require("torch", "peers")
    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"model is a {type(model).__name__}, expected a torch.nn.Module")
    if not isinstance(x, torch.Tensor):
        raise InputError(
            f"the input is a {type(x).__name__}, expected one torch.Tensor: several inputs are not supported"
        )
    if x.layout != torch.strided:
        raise InputError(f"the input is a tensor of layout {x.layout}; pass what its to_dense() gives")
    if x.ndim < 2 or not x.numel():
        raise InputError(f"the input has shape {tuple(x.shape)}, expected (n, ...): the batch axis first")
    check_readable(model)
    _check_mode(model)
    others = (*arguments, *named.arguments.values()) if named else arguments
    kinds = tuple(_kind(torch, a) for a in others)
    if not all(kinds):  # what may change unseen is not kept
        with _lock, evaluation(model):
            return _read(None, model, x, arguments, named)[1]
    kind = x.dtype, x.device, torch.get_default_dtype()  # which tensors have that are made on the way
    sample = tuple(x.shape[1:]), kind, kinds, named and (named.keyword, *named.arguments)
    key, values = _state(model, others, sample)
    with _lock:
        known = _models.setdefault(model, OrderedDict())
        found = known.get(key)
        if found is None or found.values != values:
            with evaluation(model):
                graph, fresh = _read(None if found is None else found.graph, model, x, arguments, named)
            key, _ = _state(model, others, sample)  # of what a `forward` may keep in its module
            found = known[key] = _Known(graph, values, fresh)
        known.move_to_end(key)
        while len(known) > GRAPHS:
            known.popitem(last=False)
        return found.imported


def per_sample(
    model: Any, x: Any, arguments: tuple[Any, ...], entries: list[Any], call: Callable[..., Any] | None = None
) -> Iterator[tuple[Any, tuple[Any, ...], Any]]:
    """The samples together, or one by one where tensors among the arguments of `forward` hold one row for each: every
    sample then has a network of its own.

    Which one it is the model itself tells: with tensors for all samples it gives a single sample another answer, or
    none; or it gives every sample the same answer with its own rows.

    Parameters
    ----------
    entries : what else belongs to each sample, (n,)
    call : how the model is called with x and the arguments, where not by these alone
    """
    torch = require("torch", "peers")
    rows = [isinstance(a, torch.Tensor) and a.ndim > 0 and len(a) == len(x) for a in arguments]
    if len(x) < 2 or not any(rows) or not isinstance(model, torch.nn.Module):
        yield x, arguments, entries
        return
    _check_mode(model)

    run = call or model

    def of(i: int) -> tuple[Any, ...]:
        return tuple(a[i : i + 1] if row else a for a, row in zip(arguments, rows, strict=True))

    def answers(i: int, values: tuple[Any, ...]) -> bool:
        """Whether the model gives sample i the same answer with these arguments."""
        try:
            alone = _first(torch, run(x[i : i + 1].clone(), *values))
        except (RuntimeError, ValueError, IndexError):
            return False
        same = expected[i : i + 1]
        return alone.shape == same.shape and bool((alone - same).abs().max() <= TOLERANCE * same.abs().max())

    with _lock, evaluation(model), as_written(x), operators():
        expected = _first(torch, run(x.clone(), *arguments))
        differ = any(row and bool((a != a[:1]).any()) for a, row in zip(arguments, rows, strict=True))
        # a model may take the rows of many samples for one, and read the first
        if answers(0, arguments) and not (differ and all(answers(i, of(i)) for i in range(len(x)))):
            yield x, arguments, entries
            return
    for i, entry in enumerate(entries):
        yield x[i : i + 1], of(i), [entry]


def _first(torch: Any, output: Any) -> Any:
    """The first tensor of what a model returns."""
    tensors = (leaf for _, leaf in leaves(output) if isinstance(leaf, torch.Tensor))
    if (found := next(tensors, None)) is None:
        raise ModelError(f"the model returns no tensor, but a {type(output).__name__}")
    return found


def _kind(torch: Any, argument: Any) -> Any:
    """What of an argument decides the graph; None where nothing tells how it may change."""
    if isinstance(argument, torch.Tensor) and argument.layout is torch.strided:
        return "tensor", tuple(argument.shape), argument.dtype, argument.device
    return (type(argument), argument) if argument is None or isinstance(argument, (bool, int, float, str)) else None


def _values(argument: Any) -> Any:
    import torch

    return (
        argument.detach().cpu().flatten().view(torch.uint8).numpy().tobytes()
        if isinstance(argument, torch.Tensor)
        else None
    )


def _state(model: Any, arguments: tuple[Any, ...], sample: Any) -> tuple[Any, Any]:
    """What decides a model's graph, and what decides its layers then."""
    now = fingerprint(model)
    return (now.structure, sample), (now.weights, [_values(a) for a in arguments])


def _read(
    graph: Graph | None, model: Any, x: Any, arguments: tuple[Any, ...], named: Named | None
) -> tuple[Graph, Imported]:
    """The layers by a graph that is known already, or one made now."""
    callee = _with_arguments(model, arguments, named) if arguments or named else model
    try:
        graph = graph or Graph(callee, x[:1])
        layers, origins = graph.read(callee)
    except ModelError as error:
        names = [
            name or "the model"
            for name, part in model.named_modules()
            if part._forward_hooks or part._forward_pre_hooks
        ]
        if not names:
            raise
        raise ModelError(
            f"{error}; forward hooks are part of what is explained, here those of {', '.join(names)}"
        ) from error
    if callee is not model:  # paths lead through the wrapper
        origins = [
            replace(o, path=o.path and o.path.partition(".")[2], within=o.within.partition(".")[2]) for o in origins
        ]
    return graph, Imported(layers, origins, tuple(x.shape[1:]), graph.output.dtype, graph.output.ndim == 1)


def _row_for(x: Any, argument: Any) -> Any:
    """A sample's own row beside it where the sample stands several times in x."""
    if not hasattr(argument, "expand") or argument.ndim < 2 or len(argument) != 1 or argument.shape[1] != x.shape[1]:
        return argument
    return argument.expand(len(x), *argument.shape[1:])


def _with_arguments(model: Any, arguments: tuple[Any, ...], named: Named | None) -> Any:
    """The model as a module of x alone; tensors are buffers of it, so that its graph serves for others of their
    shapes.
    """
    import torch

    given: dict[Any, Any] = dict(named.arguments) if named else dict(enumerate(arguments))

    class Call(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            for key, argument in given.items():
                if isinstance(argument, torch.Tensor):
                    self.register_buffer(f"argument_{key}", argument.detach().clone())

        def forward(self, x: Any) -> Any:
            held = {key: _row_for(x, getattr(self, f"argument_{key}", argument)) for key, argument in given.items()}
            if named is None:
                return self.model(x, *held.values())
            for key, value in held.items():  # one row stands for all samples
                if isinstance(value, torch.Tensor) and value.ndim > 1 and len(value) == 1:
                    held[key] = value.expand(len(x), *value.shape[1:])
            first = {named.keyword: x} if named.keyword else {}
            return _first(torch, self.model(*(() if named.keyword else (x,)), **first, **held))

    call = Call()
    call.training = False  # eval() would ask the model, which may be a program's module and have no mode
    return call


def _check_mode(model: Any) -> None:
    for part in model.modules():
        if part.training and getattr(part, "track_running_stats", False):
            raise ModelError(
                f"a {type(part).__name__} is in training mode, where it depends on the whole batch; call model.eval() "
                "first"
            )


@contextmanager
def evaluation(model: Any) -> Iterator[None]:
    """The model in evaluation mode for a while."""
    training = [part for part in model.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True


def executor_for(network: Imported, backend: str | None, precision: str | None = None) -> dict[str, str]:
    """Options of the executor: float64 models are computed in float64, unless CUDA is named, which has none, or a
    precision.
    """
    if precision is not None:
        return dict(backend=backend or "auto", precision=precision)
    double = str(network.dtype) == "torch.float64" and backend != "cuda"
    return dict(backend=backend or "auto", precision="float64" if double else "float32")
