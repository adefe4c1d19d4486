"""From the caller's list to checked entries: who reads whom, and every tensor's shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .. import layers as L
from ..budget import budget, require
from ..errors import LayerError, ShapeError, WiringError, at
from .entries import Entry
from .shapes import MAX_AXES, MAX_ELEMENTS, Shape, join
from .units import RECIPES, aligned

MAX_LAYERS = 100_000

BROADCAST = (L.Add, L.Mul)
Reads = tuple[int, ...]  # positions
KINDS = frozenset(L.RECORDS.values())


def sources(layers: Sequence[L.Layer]) -> list[Reads]:
    """The positions that each entry reads; L.INPUT is the network's input."""
    if not isinstance(layers, (list, tuple)):
        raise LayerError(
            f"layers is a {type(layers).__name__}, expected a list of records, which from_torch, from_onnx, "
            "from_keras or from_sklearn makes of a model"
        )
    if not layers:
        raise LayerError("layers is empty; a network needs at least one record")
    if len(layers) > MAX_LAYERS:
        raise LayerError(f"layers has {len(layers)} entries, at most {MAX_LAYERS} are supported")
    result: list[Reads] = []
    for position, record in enumerate(layers):
        if type(record) not in KINDS:
            raise LayerError(
                f"layer {position} is {record!r:.80}, expected a record such as dtdfast.Linear(weight, bias)"
            )
        if record.inputs is None:
            arity = record.arity
            if arity not in (0, 1):
                raise WiringError(
                    f"{at(position, record)}: inputs is None; name its operands, for example inputs=({position - 1}, 0)"
                )
            result.append((position - 1 if position else L.INPUT,) if arity else ())
            continue
        reads = record.positions or ()
        for source in reads:
            if source != L.INPUT and not 0 <= source < position:
                raise WiringError(
                    f"{at(position, record)}: inputs names entry {source}, which does not come before it; "
                    f"expected 0 to {position - 1} or dtdfast.INPUT (the list is in topological order, so no cycle "
                    "can be written)"
                )
        result.append(reads)
    return result


def is_constant(layers: Sequence[L.Layer], position: int) -> bool:
    return position != L.INPUT and isinstance(layers[position], L.Constant)


def check_shape(shape: Shape, where: str) -> None:
    """Refuse what no machine could hold, before anything is allocated."""
    if len(shape) > MAX_AXES:
        raise ShapeError(
            f"{where}: output (n, {join(shape)}) has {len(shape) + 1} axes, at most {MAX_AXES + 1} are supported"
        )
    if math.prod(shape) > MAX_ELEMENTS:
        raise ShapeError(
            f"{where}: output (n, {join(shape)}) would hold {math.prod(shape):,} elements, at most {MAX_ELEMENTS:,}"
        )


def refuse_integers(layers: Sequence[L.Layer], position: int, integers: list[int]) -> None:
    """LayerError where an Embedding reads no integers, or another record does."""
    where = at(position, layers[position])
    if not integers:
        raise LayerError(
            f"{where}: an Embedding reads the network's input, and that must be integers (word numbers); or a "
            "Given of integers"
        )
    what = "the network's input" if integers[0] == L.INPUT else at(integers[0], layers[integers[0]])
    raise LayerError(f"{where}: reads {what}, which holds integers; integers go into an Embedding only")


def wire(
    layers: Sequence[L.Layer], input_shape: Shape, *, tokens: bool, last: int, reads: Sequence[Reads] | None = None
) -> dict[int, Entry]:
    """Entries that `last` needs, in topological order, each with its shape.

    Parameters
    ----------
    input_shape : shape of one sample of the network's input
    tokens : the input holds integers, so that an Embedding must read it
    last : position of the entry that is wanted
    reads : the `sources` of these layers, where they are known
    """
    reads = sources(layers) if reads is None else reads
    needed = {last}
    for position in range(last, -1, -1):  # what an entry reads comes before it
        if position in needed:
            needed.update(reads[position])
    integers = {L.INPUT} if tokens else set()
    large = min(budget() // 4, MAX_ELEMENTS)
    shapes: dict[int, Shape] = {L.INPUT: input_shape}
    entries = {}
    for position in sorted(needed - {L.INPUT}):
        record, read = layers[position], reads[position]
        kind = type(record)  # one of KINDS
        if (kind is L.Embedding) == (not integers or integers.isdisjoint(read)):
            refuse_integers(layers, position, [s for s in read if s in integers])
        try:
            operands = [shapes[source] for source in read]
            if kind in BROADCAST and operands.count(operands[0]) < len(operands):
                operands = aligned(operands, [is_constant(layers, s) for s in read])
            shape = RECIPES[kind].shape(record, *operands)
        except ShapeError as error:
            raise ShapeError(f"{at(position, record)}: {error}") from None
        if len(shape) > MAX_AXES or math.prod(shape) > large:
            where = at(position, record)
            check_shape(shape, where)
            require(4 * math.prod(shape), f"{where}: its output (n, {join(shape)}) for one sample")
        if isinstance(record, L.Given) and record.integer:
            integers.add(position)
        shapes[position] = shape
        entries[position] = Entry(position, record, read, shape)
    return entries
