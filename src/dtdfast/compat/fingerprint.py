"""What decides a PyTorch model's answer, as something that compares: its parts, their settings, code and hooks, and its
weights.
"""

from __future__ import annotations

import functools
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator, Sized
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from .._kernels import ffi, lib
from ..extras import require
from ..threads import kernel_threads

DEPTH, MOST = 5, 10_000
"""How far settings are followed into each other, and how many of them; beyond, an object is known by its identity
alone."""

RULES = ("PropagationRule", "Rule")
"""Bases of captum's rules and of dtdfast's, which lie on parts as `rule` and are asked for at every call."""

RECORDS = ("activations", "activation")
"""Attributes of parts in which captum and hooks put tensors that they saw; what else they hold is read."""

UNREAD = ("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__", "__firstlineno__")
PLAIN = (bool, int, complex, str, bytes, type(None))
PARTS: dict[type, tuple[str, ...]] = {
    types.MethodType: ("__func__", "__self__"),
    property: ("fget",),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
}
"""What else is code, and what it is made of."""
LIBRARIES = {"torch", "numpy", *sys.stdlib_module_names}
"""Whose classes and variables nobody changes."""

AT_ONCE = 1 << 24
"""Words of a storage on another device that are summed together."""


@dataclass(frozen=True)
class Fingerprint:
    """A model at one moment.

    Attributes
    ----------
    structure : what decides its graph; hashable
    weights : what its parameters and buffers hold
    """

    structure: Any
    weights: Any


def fingerprint(model: Any) -> Fingerprint:
    """Look at every part of a model, and read all of its weights once.

    Not seen is what its code reads from elsewhere: attributes of other modules, files, and tensors in lists and
    dictionaries that are no attributes of the model, where hooks put what they record.
    """
    walk = _Walk(require("torch", "peers"))
    return Fingerprint(walk.model(model), tuple(walk.weights))


class _Walk:
    """One walk over a model, cycles cut and shared storages read once."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.internal = set(vars(torch.nn.Module()))
        self.modules: set[int] = set()
        self.classes: dict[int, tuple[int, Any]] = {}  # what they hold, and how deep they were met
        self.open: set[int] = set()
        self.count = 0
        self.outside = 0  # in how many functions and hooks the walk is
        self.weights: list[Any] = []
        self.sums: dict[int, Any] = {}

    def model(self, model: Any) -> Any:
        parts = list(model.named_modules(remove_duplicate=False))
        self.modules.update(id(part) for _, part in parts)
        everywhere = self.torch.nn.modules.module
        hooks = self.hooks(everywhere._global_forward_hooks), self.hooks(everywhere._global_forward_pre_hooks)
        names = tuple((name, id(part)) for name, part in parts)
        settings = tuple(self.part(part, self.weight) for part in {id(part): part for _, part in parts}.values())
        return hooks, names, settings, tuple(found for _, found in self.classes.values())

    def part(self, part: Any, value: Callable[[Any], Any]) -> Any:
        """One part without the parts of it; `value` says what of its parameters and buffers is kept."""
        held = [
            (name, None if t is None else value(t)) for name, t in (*part._parameters.items(), *part._buffers.items())
        ]
        settings = [(name, self.setting(name, v)) for name, v in vars(part).items() if name not in self.internal]
        self.kind(type(part), 1)
        return (
            id(type(part)),
            tuple(held),
            tuple(settings),
            self.hooks(part._forward_hooks),
            self.hooks(part._forward_pre_hooks),
        )

    def setting(self, name: str, value: Any) -> Any:
        if name == "rule" and (value is None or any(cls.__name__ in RULES for cls in type(value).__mro__)):
            return None
        seen = name in RECORDS
        self.outside += seen
        found = None if self.recorded(value) else self.of(value, 1)
        self.outside -= seen
        return found

    def hooks(self, hooks: Any) -> Any:
        self.outside += 1
        found = tuple((key, self.of(hook, 2)) for key, hook in hooks.items())
        self.outside -= 1
        return found

    def kind(self, cls: type, depth: int) -> None:
        """The code of a class and what else it holds; of PyTorch's own layers `forward` alone, of other classes of
        libraries nothing.
        """
        if depth > DEPTH or self.classes.get(id(cls), (DEPTH + 1,))[0] <= depth:
            return
        self.classes[id(cls)] = depth, None
        found = []
        for base in cls.__mro__:
            if base is self.torch.nn.Module:
                break
            own = base.__module__.startswith("torch.nn.")
            if not own and _of_library(base.__module__):
                continue
            for name, value in vars(base).items():
                if name == "forward" or not (own or name in UNREAD):
                    found.append((name, self.of(value, depth + 1)))
        self.classes[id(cls)] = depth, (id(cls), tuple(found))

    # -------------------------------------------------------------------------------------------------------- tensors

    def weight(self, tensor: Any) -> Any:
        """What of a parameter or buffer decides the graph; its values are kept apart."""
        if self.torch.nn.parameter.is_lazy(tensor):
            return None
        self.weights.append(self.tensor(tensor))
        return tuple(tensor.shape), str(tensor.dtype), str(tensor.device)

    def tensor(self, tensor: Any) -> Any:
        kind = str(tensor.dtype), str(tensor.device), tuple(tensor.shape)
        if tensor.layout is self.torch.sparse_coo:
            return *kind, self.tensor(tensor._indices()), self.tensor(tensor._values())
        try:
            storage = tensor.untyped_storage()
            address = storage.data_ptr()
            if address not in self.sums:
                self.sums[address] = checksum(self.torch, tensor.device, storage)
        except (RuntimeError, NotImplementedError):  # of tensors that hold nothing in the open
            return *kind, id(tensor)
        return *kind, tensor.storage_offset(), tensor.stride(), self.sums[address]

    # ------------------------------------------------------------------------------------------------------- settings

    def of(self, value: Any, depth: int) -> Any:
        """A setting as something that compares by content."""
        kind = type(value)
        if kind in PLAIN:
            return kind.__name__, value
        if kind is float:
            return repr(value)  # NaN too is equal to itself
        self.count += 1
        if depth > DEPTH or self.count > MOST or id(value) in self.open:
            return kind.__name__, id(value)
        self.open.add(id(value))
        try:
            return self.compound(kind, value, depth + 1)
        finally:
            self.open.discard(id(value))

    def compound(self, kind: type, value: Any, depth: int) -> Any:
        if isinstance(value, self.torch.Tensor):
            return self.tensor(value)
        if isinstance(value, self.torch.nn.Module):
            return self.module(value)
        if isinstance(value, np.ndarray):
            return value.shape, value.dtype.str, hash(value.tobytes())
        if isinstance(value, Sized) and len(value) > MOST:  # a vocabulary
            return kind.__name__, id(value), len(value)
        if isinstance(value, (list, tuple, deque)):
            return kind.__name__, tuple(self.of(v, depth) for v in value if not self.recorded(v))
        if isinstance(value, (set, frozenset)):
            return kind.__name__, frozenset(self.of(v, depth) for v in value)
        if isinstance(value, (dict, types.MappingProxyType)):
            return kind.__name__, self.items(value, depth)
        if isinstance(value, types.FunctionType):
            return self.function(value, depth)
        for cls, names in PARTS.items():
            if isinstance(value, cls):
                return kind.__name__, tuple(self.of(getattr(value, name), depth) for name in names)
        if isinstance(value, functools.partial):
            values = (value.func, *value.args, *value.keywords.values())
            return kind.__name__, tuple(value.keywords), tuple(self.of(v, depth) for v in values)
        if isinstance(value, type):
            self.kind(value, depth)
        if isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType)):
            return kind.__name__, id(value)
        if isinstance(value, (Enum, slice, range, np.generic, self.torch.dtype, self.torch.device)):
            return kind.__name__, repr(value)
        self.kind(kind, depth)
        inside = dict(getattr(value, "__dict__", ()))
        inside |= {name: getattr(value, name, None) for name in getattr(kind, "__slots__", ()) if isinstance(name, str)}
        return id(kind), self.items(inside, depth) if inside else id(value)

    def items(self, given: Any, depth: int) -> Any:
        return tuple((self.of(k, depth), self.of(v, depth)) for k, v in given.items() if not self.recorded(v))

    def recorded(self, value: Any) -> bool:
        """Whether this may be what a hook recorded: a tensor inside of something that is no attribute of the model."""
        return self.outside > 0 and isinstance(value, (self.torch.Tensor, np.ndarray))

    def module(self, module: Any) -> Any:
        """A part by its identity; a module that only a plain attribute holds by all that it holds."""
        if id(module) in self.modules:
            return id(module)
        parts = list(module.modules())
        self.modules.update(map(id, parts))
        return tuple((id(part), self.part(part, self.tensor)) for part in parts)

    def function(self, function: types.FunctionType, depth: int) -> Any:
        """Its code, and the values that it reads: defaults, closure, and what it names among its module's variables."""
        code = function.__code__
        values = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # not filled yet
                values.append(cell.cell_contents)
        if not _of_library(function.__globals__.get("__name__")):
            names = [name for name in dict.fromkeys(_names(code)) if name in function.__globals__]
            values += [v for v in map(function.__globals__.__getitem__, names) if not isinstance(v, types.ModuleType)]
        self.outside += 1
        found = tuple(self.of(v, depth) for v in values)
        self.outside -= 1
        return code, found


def _of_library(module: Any) -> bool:
    return isinstance(module, str) and module.partition(".")[0] in LIBRARIES


def _names(code: types.CodeType) -> Iterator[str]:
    """What code reads by name, the functions and generators included that it makes."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _names(inner)


def checksum(torch: Any, device: Any, storage: Any) -> Any:
    """What a storage holds as a few numbers: words that change, or change places, change them."""
    octets = torch.empty(0, dtype=torch.uint8, device=device).set_(storage)
    n_pairs = len(octets) // 16
    rest = tuple(octets[16 * n_pairs :].tolist())
    if device.type != "cpu":
        return _sum_elsewhere(torch, octets[: 16 * n_pairs].view(torch.int64)), rest
    return lib.dtd_checksum(ffi.cast("void *", octets.data_ptr()), n_pairs, kernel_threads(None)), rest


def _sum_elsewhere(torch: Any, words: Any) -> tuple[int, ...]:
    """The same purpose in PyTorch's operations, on the words' own device."""
    sums = []
    for first in range(0, len(words), AT_ONCE):
        part = words[first : first + AT_ONCE]
        mixed = (part ^ (part >> 32)) + torch.arange(1, len(part) + 1, device=part.device) * -7046029254386353131
        mixed = mixed * -4658895280553007687
        sums.append(((mixed ^ (mixed >> 29)) * -7723592293110705685).sum())
    return tuple(torch.stack(sums).tolist()) if sums else ()
