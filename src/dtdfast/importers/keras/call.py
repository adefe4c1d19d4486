"""One call of a Keras layer as its handler sees it, and the order of axes.  Nothing here imports keras.

Records put channels on axis 1, Keras (by default) on the last. A `Tensor` therefore says in which order its record
holds the elements, and a Permute is added only where a layer needs the other: between the input and the first
convolution, and before a Flatten.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import layers as L
from ...plan.shapes import Shape
from ..algebra import reshaped, vector
from ..records import Layers, Refused, Value

Array = NDArray[Any]
SAMPLES = 2  # of what is tried where no example is given


@dataclass(frozen=True)
class Tensor:
    """A Keras tensor: `moved` where the record's axis 1 is its last axis."""

    value: Value
    moved: bool = False

    @property
    def shape(self) -> Shape:
        """Of one sample, in Keras's order; () for one number."""
        shape = self.value.shape
        return (*shape[1:], shape[0]) if self.moved else shape


class Call:
    """One call of a layer: its tensors, its other arguments, and the list that it adds to.

    Attributes
    ----------
    probe : what the layer makes of numbers (a batch of them) in the place of its tensors
    """

    def __init__(
        self,
        layer: Any,
        name: str,
        tensors: list[Tensor],
        node: Any,
        records: Records,
        probe: Callable[[Array], list[Array]],
    ) -> None:
        self.layer, self.name, self.tensors, self.node = layer, name, tensors, node
        self.records, self.probe = records, probe

    def __getattr__(self, key: str) -> Any:
        try:
            return getattr(self.layer, key)
        except AttributeError:
            raise Refused(f"it has no {key}: a form of this layer that is not known") from None

    @property
    def x(self) -> Tensor:
        if len(self.tensors) != 1:
            raise Refused(f"it reads {len(self.tensors)} tensors, expected one")
        return self.tensors[0]

    def of(self, tensors: list[Tensor]) -> Call:
        """The same call of other tensors."""
        return Call(self.layer, self.name, tensors, self.node, self.records, self.probe)

    @property
    def positional(self) -> tuple[Any, ...]:
        return tuple(self.node.arguments.args)

    @property
    def named(self) -> dict[str, Any]:
        return dict(self.node.arguments.kwargs)

    @property
    def arguments(self) -> list[Any]:
        return [*self.positional, *self.named.values()]

    @property
    def symbols(self) -> list[Any]:
        """The symbolic tensors that it reads, in the order of `tensors`."""
        return list(self.node.input_tensors)

    @property
    def plain(self) -> Value:
        """The one tensor in Keras's order."""
        return self.records.plain(self.x)

    def constant(self, value: Any) -> Array:
        """An argument that is no tensor of the network's."""
        return np.asarray(self.records.numpy(value), np.float64)

    @property
    def n_batch(self) -> int:
        return self.records.layers.batch

    def weights(self, name: str) -> Array:
        return np.asarray(self.records.numpy(getattr(self, name)))

    def optional(self, name: str) -> Array | None:
        return None if getattr(self, name) is None else self.weights(name)

    def add(self, cls: type[L.Layer], *sources: Value, **fields: Any) -> Value:
        return self.records.add(cls, sources, self.name, **fields)

    def channels(self, tensor: Tensor) -> tuple[Value, bool]:
        """A tensor with its channels on axis 1 by this layer's data_format, and whether that moves them."""
        last = getattr(self, "data_format") == "channels_last"  # noqa: B009
        return (self.records.moved(tensor), True) if last else (self.records.plain(tensor), False)


Handler = Callable[[Call], Tensor | list[Tensor]]
"""What reads one kind of layer: its output, or its outputs."""


class Records:
    """The list under construction, and the same tensors in both orders."""

    def __init__(self, layers: Layers, numpy: Callable[[Any], Any]) -> None:
        self.layers = layers
        self.numpy = numpy
        self._other: dict[Tensor, Value] = {}

    def add(self, cls: type[L.Layer], sources: tuple[Value, ...], name: str | None, **fields: Any) -> Value:
        return self.layers.add(cls, sources, name, **fields)

    def plain(self, tensor: Tensor) -> Value:
        """In Keras's order."""
        n = len(tensor.value.shape)
        return vector(tensor.value) if not tensor.moved or n < 2 else self._permuted(tensor, (0, *range(2, n + 1), 1))

    def moved(self, tensor: Tensor) -> Value:
        """With Keras's last axis as axis 1."""
        n = len(tensor.value.shape)
        return vector(tensor.value) if tensor.moved or n < 2 else self._permuted(tensor, (0, n, *range(1, n)))

    def _permuted(self, tensor: Tensor, order: tuple[int, ...]) -> Value:
        if tensor not in self._other:
            self._other[tensor] = self.add(L.Permute, (tensor.value,), None, order=order)
        return self._other[tensor]

    def reshaped(self, tensor: Tensor, shape: Shape, name: str | None) -> Tensor:
        """To a shape in Keras's order; nothing moves where all but the channels have size 1 before and after."""
        if shape == tensor.shape:
            return tensor
        if math.prod(shape) == 1:
            return Tensor(
                reshaped(
                    lambda cls, *sources, **fields: self.add(cls, sources, name, **fields),
                    self.plain(tensor),
                    shape or (1,),
                )
            )
        flat = max(tensor.shape) == tensor.shape[-1] == shape[-1] and int(np.prod(tensor.shape)) == shape[-1]
        source = tensor.value if flat else self.plain(tensor)
        if len(shape) == 1:
            return Tensor(self.add(L.Flatten, (source,), name))
        target = (shape[-1], *shape[:-1]) if flat else shape
        if target == source.shape:
            return Tensor(source, flat)
        return Tensor(self.add(L.Reshape, (source,), name, shape=target), flat)


def pair(value: Any, n: int) -> tuple[int, ...]:
    return (value,) * n if isinstance(value, int) else tuple(value)
