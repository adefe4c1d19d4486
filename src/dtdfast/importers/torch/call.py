"""One call of an exported graph as its handler sees it, and what handlers share.  Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ... import layers as L
from ...plan.shapes import Shape
from ..functions import Function
from ..records import Layers, Refused, Value

Array = NDArray[Any]


class Pieces(list[Callable[[], Value]]):
    """Results of an operator that has several, each made when it is read."""


@dataclass(frozen=True)
class Bordered(Value):
    """A value with −∞ around it, which only max pools read: they make it their padding."""

    inner: Value = field(kw_only=True)
    border: tuple[tuple[int, int], ...] = field(kw_only=True)  # per axis of a sample


MAX_POOLS = ("max_pool1d", "max_pool2d", "max_pool3d")
MAX_POOLS_WITH_INDICES = tuple(f"{name}_with_indices" for name in MAX_POOLS)


class Records(Protocol):
    """The list under construction."""

    n_batch: int
    layers: Layers

    def add(self, cls: type[L.Layer], *sources: Value, **fields: Any) -> Value: ...

    def array(self, value: object, what: str) -> Array: ...

    def entry(self, value: Value) -> Value:
        """A value whose shape is its entry's own."""


class Call:
    """One call: `arguments` by name; values where the network's input takes part, constants elsewhere."""

    def __init__(
        self, name: str, arguments: dict[str, Any], shape: Shape, users: set[str | None], target: Any, dtype: Any
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.shape = shape  # of one sample of the (first) result
        self.users = users  # operators that read the result
        self.target = target  # the operator itself
        self.dtype = dtype  # of the (first) result

    def __getattr__(self, name: str) -> Any:
        try:
            return self.arguments[name]
        except KeyError:  # an overload with other arguments than its handler expects
            raise Refused("this form of the operator has no record") from None

    def x(self, name: str = "self") -> Value:
        value = getattr(self, name)
        if isinstance(value, Function):
            raise value.refused()
        if not isinstance(value, Value):
            raise Refused(f"its {name} is not computed from the network's input")
        return value

    def get(self, name: str, default: Any = None) -> Any:
        return self.arguments.get(name, default)

    def probed(self, value: Value, stand_in: Array, records: Records) -> Array:
        """What the operator makes of other numbers in the place of a value (all samples), and of 0 for other values."""
        import torch

        def argument(a: Any) -> Any:
            if isinstance(a, (list, tuple)):
                return [argument(v) for v in a]
            if isinstance(a, Value):
                if a == value:
                    return torch.from_numpy(stand_in)
                return torch.zeros((records.n_batch, *a.shape), dtype=torch.float64)
            return a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a

        return np.asarray(self.target(**{key: argument(a) for key, a in self.arguments.items()}).numpy())

    def nothing(self, records: Records, shape: Shape) -> Any:
        """A result without elements."""
        import torch

        return torch.zeros((records.n_batch, *shape), dtype=self.dtype)

    def values(self) -> list[Any]:
        """The operands that are computed from the network's input, lists of them included."""
        flat = [v for a in self.arguments.values() for v in (a if isinstance(a, list) else [a])]
        return [v for v in flat if isinstance(v, (Value, Function))]


Handler = Callable[[Records, Call], Any]


def ints(value: Any) -> Any:
    """A list of one number means it for every axis."""
    if isinstance(value, (list, tuple)):
        return value[0] if len(value) == 1 else tuple(value)
    return value


def spread(value: Sequence[int] | int, n: int) -> tuple[int, ...]:
    value = ints(value)
    return (value,) * n if isinstance(value, int) else tuple(value)


def each(names: str, handler: Handler) -> dict[str, Handler]:
    return dict.fromkeys(names.split(), handler)


def first(handler: Callable[[Records, Call], Value]) -> Handler:
    """The first result of an operator that also returns indices."""

    def handle(records: Records, call: Call) -> Pieces:
        return Pieces([partial(handler, records, call)])

    return handle


def viewed(value: Value, call: Call) -> Value:
    """The same elements under the shape of the call's result."""
    return value.under(call.shape)


def operation(node: Any) -> str | None:
    """The name of the operator that a node calls; None where it calls no operator of a table, such as control flow."""
    packet = getattr(getattr(node, "target", None), "overloadpacket", None)
    return None if packet is None else packet.__name__


def paths(node: Any) -> list[str]:
    """The parts of the module that a node came from, from the outermost in."""
    return [path.split("@")[0] for path, _ in (node.meta.get("nn_module_stack") or {}).values()]  # @1: its second call


def title(node: Any) -> str:
    path = (paths(node) or [""])[-1]
    return f"node {node.name} ({node.target}" + (f", in {path!r})" if path else ")")
