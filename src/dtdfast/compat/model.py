"""A PyTorch model as the drop-ins see it: its layers, kept while its weights stay what they were."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from .. import layers as L
from ..errors import InputError, ModelError
from ..explainer import Explainer
from ..extras import require
from ..importers.torch_graph import Graph
from ..plan.fold import LINEAR, fold
from ..plan.shapes import Shape
from ..plan.wiring import sources, wire
from ..presets import Rules
from ..rules import Rule

POOLS = (L.AvgPool, L.SumPool, L.GlobalAvgPool)
NORMS = (L.BatchNorm, L.Scale)

GRAPHS, EXPLAINERS = 4, 4  # kept per model: sample shapes, and sets of rules per shape


@dataclass(eq=False)
class Imported:
    """One model's layers for one shape of samples.

    Attributes
    ----------
    origins : of every entry the path of the part of the model that it stands for, None for what a larger part's `forward` computes itself
    shape : of one sample
    """

    layers: list[L.Layer]
    origins: list[str | None]
    shape: Shape
    explainers: OrderedDict[Any, Explainer] = field(default_factory=OrderedDict)
    variants: dict[str, Imported] = field(default_factory=dict)

    def parts(self, model: Any) -> list[Any]:
        """Of every entry the part of the model that it stands for, or None; not kept, or the model would live as long as its layers."""
        found = dict(model.named_modules(remove_duplicate=False))
        return [None if origin is None else found[origin] for origin in self.origins]

    def explainer(self, rules: Rules, **options: Any) -> Explainer:
        """One for these rules, made once."""
        key = (_content(rules), tuple(sorted((k, _content(v)) for k, v in options.items())))
        with _lock:
            if key not in self.explainers:
                self.explainers[key] = Explainer(self.layers, rules=rules, **options)
            self.explainers.move_to_end(key)
            while len(self.explainers) > EXPLAINERS:
                self.explainers.popitem(last=False)
            return self.explainers[key]

    def variant(self, name: str, make: Callable[[Imported], Imported]) -> Imported:
        """What a tool makes of these layers, made once."""
        with _lock:
            if name not in self.variants:
                self.variants[name] = make(self)
            return self.variants[name]

    def takers(self, stop: int | None = None) -> list[int]:
        """The entries that take a rule when relevance runs down to `stop`: those that share by weights and are not folded away."""
        folded = self.folded(stop)
        kinds = (*LINEAR, *POOLS, *NORMS, L.Add)
        return [position for position, record in enumerate(self.layers) if position not in folded and isinstance(record, kinds)]

    def folded(self, stop: int | None = None) -> dict[int, tuple[int, ...]]:
        """The entries that the plan folds away, each with the entries that take it."""
        last = len(self.layers) - 1
        entries = wire(self.layers, self.shape, tokens=self.tokens, last=last)
        return fold(entries, (last,) if stop is None else (last, stop)).taken

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
    state: Any
    imported: Imported


_models: weakref.WeakKeyDictionary[Any, OrderedDict[Any, _Known]] = weakref.WeakKeyDictionary()
_lock = threading.RLock()


def imported(model: Any, x: Any, arguments: tuple[Any, ...] = ()) -> Imported:
    """The layers of a model for samples like x, with its present weights.

    Parameters
    ----------
    model : torch.nn.Module
        Taken in evaluation mode, whatever mode it is in.
    x : torch.Tensor (n, ...)
    arguments : what else its `forward` is called with, after x

    Raises
    ------
    ModelError
        What `from_torch` refuses; a BatchNorm in training mode.
    """
    torch = require("torch", "peers")
    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"model is a {type(model).__name__}, expected a torch.nn.Module")
    if not isinstance(x, torch.Tensor):
        raise InputError(f"the input is a {type(x).__name__}, expected one torch.Tensor: several inputs are not supported")
    if not all(a is None or isinstance(a, (bool, int, float, str)) for a in arguments):  # what may change unseen is not kept
        with evaluation(model):
            return _read(None, model, x, arguments)[1]
    state = _state(model)
    key = (_structure(model), tuple(x.shape[1:]), x.dtype, x.device, arguments)
    with _lock:
        known = _models.setdefault(model, OrderedDict())
        found = known.get(key)
        if found is None or found.state != state:
            with evaluation(model):
                graph, fresh = _read(None if found is None else found.graph, model, x, arguments)
            found = known[key] = _Known(graph, state, fresh)
        known.move_to_end(key)
        while len(known) > GRAPHS:
            known.popitem(last=False)
        return found.imported


def _read(graph: Graph | None, model: Any, x: Any, arguments: tuple[Any, ...]) -> tuple[Graph, Imported]:
    """The layers by a graph that is known already, or one made now."""
    callee = _with_arguments(model, arguments) if arguments else model
    graph = graph or Graph(callee, x[:1])
    layers, origins = graph.read(callee)
    if arguments:  # paths lead through the wrapper
        origins = [origin and origin.partition(".")[2] for origin in origins]
    return graph, Imported(layers, origins, tuple(x.shape[1:]))


def _with_arguments(model: Any, arguments: tuple[Any, ...]) -> Any:
    """The model as a module of x alone."""
    import torch

    class Call(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Any) -> Any:
            return self.model(x, *arguments)

    return Call().eval()


@contextmanager
def evaluation(model: Any) -> Iterator[None]:
    """The model in evaluation mode for a while."""
    training = [part for part in model.modules() if part.training]
    for part in training:
        if getattr(part, "track_running_stats", False):
            raise ModelError(f"a {type(part).__name__} is in training mode, where it depends on the whole batch; call model.eval() first")
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True


# ------------------------------------------------------------------------------------------------------- what may change, and did


def _structure(model: Any) -> Any:
    """What decides a model's graph: its parts and their settings."""
    return repr(model), tuple((name, id(part)) for name, part in model.named_modules())


def _state(model: Any) -> Any:
    """What decides a model's weights: where they lie, how often PyTorch saw them written, and the sum of their words.

    The sum notices what is written behind PyTorch's back, through `weight.data`; it reads every weight once.
    """
    torch = require("torch", "peers")
    seen: dict[int, Any] = {}
    state = []
    for tensor in (*model.parameters(), *model.buffers()):
        version = -1 if tensor.is_inference() else tensor._version
        state.append((tensor.data_ptr(), version, tensor.dtype, tuple(tensor.shape)))
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            octets = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)
            whole = len(octets) // 8 * 8
            seen[storage.data_ptr()] = octets[:whole].view(torch.int64).sum().item(), octets[whole:].tolist()
    return state, seen


def _content(value: Any) -> Any:
    """An option or a rule as something that compares by content."""
    if isinstance(value, Rule):
        return type(value), tuple(_content(getattr(value, f.name)) for f in fields(value))
    if isinstance(value, dict):
        return tuple((k, _content(v)) for k, v in value.items())
    if isinstance(value, (tuple, list)):
        return tuple(map(_content, value))
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str, value.tobytes()
    return value


def executor_for(x: Any, backend: str | None) -> dict[str, str]:
    """Options of the executor: float64 tensors are computed in float64, unless CUDA is named, which has none."""
    double = str(x.dtype) == "torch.float64" and backend != "cuda"
    return dict(backend=backend or "auto", precision="float64" if double else "float32")
