"""What every importer builds on: a layer list that grows record by record, each checked as it is added."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..budget import require
from ..errors import DtdError, MemoryBudgetError, ModelError
from ..layers import (
    INPUT,
    Activation,
    Constant,
    Expand,
    Flatten,
    Gather,
    GroupNorm,
    Layer,
    MatMul,
    Mul,
    Permute,
    Reshape,
    Scale,
    Slice,
    Softmax,
)
from ..layers import Add as Sum
from ..plan.shapes import Shape, join
from ..plan.units import output_shape
from ..plan.wiring import check_shape
from ..record import Memory, immutable
from ..sizes import Number, Sized
from .activations import written_out
from .refused import FILLS
from .rewrites import (
    finished,
    group_norm,
    hard_sigmoid,
    permuted,
    scaled_product,
    selected,
    shared,
    turned_round,
    uniform,
    varying,
    with_affine,
)
from .rewrites import positions as field_inputs

MOVED = (Reshape, Flatten, Permute, Expand, Slice, Gather)
NUMBERS: dict[type[Layer], tuple[str, ...]] = {Scale: ("scale", "shift"), MatMul: ("scale",), Constant: ("value",)}
SHARED = 1 << 16
"""Bytes from which an array is worth being looked up."""

ELEMENT = 32
"""Bytes for every element of one number broadcast: what it is recognised by is a few arrays of its shape."""


class Refused(Exception):
    """Why something cannot become records."""


@dataclass(frozen=True)
class Value:
    """What depends on the network's input: the output of an entry of the list, the batch axis first."""

    position: int
    shape: Shape  # of one sample; () for one number, of which records make an axis of size 1
    integer: bool = False
    # what a softmax keeps of it, the rest being −∞; broadcasts to one sample
    kept: NDArray[np.bool_] | None = field(default=None, compare=False)

    truth: bool = field(default=False, compare=False)  # a mask that the model is called with: 0 and 1, no floats
    hides: bool = field(default=False, compare=False)  # such a mask written as numbers to add: 0 for 1, −∞ for 0
    given: Value | None = field(default=None, compare=False)  # such a mask: where it is 0 a softmax leaves x out

    def under(self, shape: Shape) -> Value:
        """The same elements under another shape."""
        if shape == self.shape:
            return self
        if self.given is not None:
            raise Refused(FILLS)
        kept = None if self.kept is None else np.broadcast_to(self.kept, self.shape).reshape(shape)
        return Value(self.position, shape, self.integer, kept, self.truth, self.hides)


@dataclass(frozen=True)
class Turned:
    """A computed value with its axes, the batch counted, in an order in which the batch is not the first."""

    value: Value
    order: tuple[int, ...]


@dataclass(eq=False)
class Layers:
    """The layer list while it grows."""

    batch: int  # as the model has it, or a number that stands for any
    records: list[Layer] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)  # of one sample of every record's output
    sample: Shape | None = None  # shape of one sample of the network's input
    # an entry → (the entry that it is an element-wise function of, its values on a grid of that one's): functions.py
    roots: dict[int, tuple[int, NDArray[Any]]] = field(default_factory=dict)
    masks: set[int] = field(default_factory=set)  # entries that hold 0 and 1, made of what the model is called with
    # arrays as they came, and as records hold them
    _held: dict[tuple[Any, ...], tuple[Any, Any]] = field(default_factory=dict)
    _bytes: int = 0
    # what `Sized` is told of the sizes
    numbers: list[Number] = field(default_factory=list)
    fixed: str = ""
    same: bool = False

    def add(self, cls: type[Layer], sources: tuple[Value, ...], name: str | None, **fields: Any) -> Value:
        for key, value in fields.items():
            if isinstance(value, np.ndarray) and 0 in value.strides:
                require(ELEMENT * value.size, f"{cls.__name__} {name!r:.80}: its {key} ({join(value.shape)})")
        self._note(cls, sources, name, fields)
        if cls is Scale and fields.get("shift") is None:
            gate = hard_sigmoid(self.records, sources[0].position, fields["scale"])
            if gate is not None:
                return self.add(Activation, (Value(gate, sources[0].shape),), name, kind="hard_sigmoid")
        written = written_out(self.records, cls, [v.position for v in sources], fields)
        if written is not None:
            return self.add(Activation, (Value(written[0], sources[0].shape),), name, **written[1])
        if cls is Permute and (
            found := permuted(self.records, sources[0].position, sources[0].shape, tuple(fields["order"]))
        ):
            position, sizes, order = found
            sources, fields = (Value(position, sizes),), {"order": order}
            if order == tuple(range(len(order))):
                return sources[0]
        if cls in (Reshape, Flatten) and sources[0].kept is None:
            target = tuple(fields.get("shape", (math.prod(sources[0].shape),)))
            source = self._unshaped(sources[0])
            if source is not sources[0] and source.shape == target:
                return source
            sources = (source,)
            if norm := group_norm(self.records, self.shape, source.position, target):
                position, fields = norm
                return self.add(GroupNorm, (Value(position, target),), name, **fields)
        if cls is Softmax and (masked := selected(self.records, sources[0].position, sources[0].shape, fields)):
            position, fields = masked
            sources = (replace(sources[0], position=position),)
        if cls is MatMul:
            sources, fields = self._straight(sources, fields)
        if cls is Scale and (affine := with_affine(self.records, sources[0].position, sources[0].shape, fields)):
            position, kind, fields = affine
            return self.add(kind, (Value(position, sources[0].shape),), name, **fields)
        if cls is Scale and (record := scaled_product(self.records, sources[0].position, fields)):
            return self._appended(record, sources[0].shape)
        if any(v.kept is not None or v.given is not None or v.hides for v in sources):
            if cls is not Softmax or sources[0].hides:
                raise Refused(FILLS)
            (x,) = sources
            kept = [fields.get("mask"), x.kept]
            if x.given is not None:
                position, fixed = shared(self.records, self.shape, x.given.position, len(x.shape))
                sources = (x, x.given if position == x.given.position else Value(position, self.shapes[position]))
                kept.append(fixed)
            if masks := [m for m in kept if m is not None]:
                fields = fields | {"mask": varying(reduce(np.logical_and, masks))}
        if cls in (Sum, Mul) and len({bool(v.shape) for v in sources}) > 1:
            raise Refused("one number per sample meets a value of more axes, which would mix the samples of a batch")
        positions = tuple(v.position for v in sources)
        last = len(self.records) - 1 if self.records else INPUT
        try:
            arrays = {
                key: self._shared(value, cls, name) for key, value in fields.items() if isinstance(value, np.ndarray)
            }
            record = cls(**fields | arrays, inputs=field_inputs(cls, positions, last), name=name)
            shape = output_shape(record, *(v.shape or (1,) for v in sources))
            check_shape(shape, cls.__name__)
        except MemoryBudgetError:
            raise
        except DtdError as error:
            raise Refused(str(error)) from None
        numbers = bool(sources) and shape == (1,) and not any(v.shape for v in sources)
        return self._appended(record, shape).under(() if numbers else shape)

    def _note(self, cls: type[Layer], sources: tuple[Value, ...], name: str | None, fields: dict[str, Any]) -> None:
        """Keep the numbers that a model may have computed from sizes, before they are merged with others."""
        product = sources[0].position if cls is Scale and sources[0].position != INPUT else None
        width = sources[0].shape[-1] if cls is MatMul else None
        if product is not None and isinstance(self.records[product], MatMul):
            width = (self.shape(self.reads(product)[0]) or (None,))[-1]
        for key in NUMBERS.get(cls, ()):
            values = np.asarray(1.0 if fields.get(key) is None else fields[key])
            number = abs(float(values.flat[0])) if values.size else 0.0
            if number not in (0.0, 1.0) and math.isfinite(number) and bool((values == values.flat[0]).all()):
                self.numbers.append((f"{cls.__name__} {name!r}" if name else cls.__name__, number, width))

    def reads(self, position: int) -> tuple[int, ...]:
        """The positions that an entry reads."""
        record = self.records[position]
        return ((position - 1,) if record.arity else ()) if record.positions is None else record.positions

    def shape(self, position: int) -> Shape | None:
        """Of one sample of an entry's output, or of the network's input."""
        return self.sample if position == INPUT else self.shapes[position]

    def _appended(self, record: Layer, shape: Shape) -> Value:
        self.records.append(record)
        self.shapes.append(shape)
        if isinstance(record, MOVED) and self.masks.issuperset(self.reads(len(self.records) - 1)):
            self.masks.add(len(self.records) - 1)
        return Value(len(self.records) - 1, shape)

    def _straight(self, sources: tuple[Value, ...], fields: dict[str, Any]) -> tuple[tuple[Value, ...], dict[str, Any]]:
        """The operands of a MatMul without numbers that scale them and Permutes that only exchange their last two
        axes.
        """
        straight = []
        for source, key in zip(sources, ("transpose_a", "transpose_b"), strict=True):
            while factor := uniform(self.records, source.position):
                source = Value(self.reads(source.position)[0], source.shape)
                fields = fields | {"scale": fields.get("scale", 1.0) * factor}
            order = turned_round(self.records, source.position)
            if order is not None:
                source = self.add(Permute, (source,), None, order=order)
                fields = fields | {key: not fields.get(key, False)}
            straight.append(source)
        return tuple(straight), fields

    def _unshaped(self, x: Value) -> Value:
        """What the Reshapes before an entry read: its elements in the same order."""
        position = x.position
        while position != INPUT and isinstance(self.records[position], (Flatten, Reshape)):
            (position,) = self.reads(position)
        shape = self.shape(position)
        return x if position == x.position or shape is None else Value(position, shape)

    def _shared(self, value: Any, cls: type[Layer], name: str | None) -> Any:
        """A large array as all records hold it that are made from the same memory, once for all; within the memory
        budget.
        """
        if value.nbytes < SHARED or value.dtype not in (np.float32, np.float64):
            return value
        key = (value.__array_interface__["data"][0], value.shape, value.strides, value.dtype)
        if key not in self._held:
            require(self._bytes + value.nbytes, f"{cls.__name__} {name!r:.80}: the weights up to it")
            self._bytes += value.nbytes
            same = immutable(value) and value.flags.c_contiguous
            copy = value if same else np.asarray(Memory(value))
            self._held[key] = (value, copy)
        return self._held[key][1]

    def finished(self, output: Value) -> tuple[Sized, list[int]]:
        """The list that ends in `output`, without what that does not need, and the positions that its entries' outputs
        had.
        """
        if output.kept is not None or output.given is not None or output.hides:
            raise ModelError(f"the model's output: {FILLS}")
        layers, kept = finished(self.records[: output.position + 1])
        return Sized(layers, self.sample or (), self.numbers, self.fixed, self.same), kept


Add = Callable[..., Value]
"""Adds a record: (class, *sources, **fields)."""


def along(axis: int, add: Add, x: Value, apply: Callable[[Value], Value]) -> Value:
    """A record that works along axis 1, applied along another axis (the batch counted)."""
    if axis == 1:
        return apply(x)
    n = len(x.shape) + 1
    order = (0, axis, *(a for a in range(1, n) if a != axis))
    return add(Permute, apply(add(Permute, x, order=order)), order=tuple(order.index(a) for a in range(n)))
