"""One pass over an ONNX graph: every node is read by the table of its operator, or computed where it reads constants
alone.

A node that cannot be read is refused with its reason, and the walk goes on, so that all refusals of a model are known
at once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...errors import ModelError
from ...extras import require
from ...layers import INPUT, Dropout, Given, Layer
from ...plan.shapes import Shape
from ..functions import Function
from ..records import Layers, Refused, Value
from ..refused import CHOICE, CONTROL_FLOW, ORDER, QUANTISED, RECURRENCE, SIZE_OR_SIGN, STATISTIC
from .arithmetic import OPERATORS as ARITHMETIC
from .attention import OPERATORS as ATTENTION
from .beside import Beside
from .constants import FOLDABLE, Folder, typed
from .functions import OPERATORS as FUNCTIONS
from .functions import reader as reader_of_functions
from .graph import BATCH, Array, Grown, Node, Operand, Reader, Turned, batch_of_check, full_shape
from .layers import OPERATORS as LAYERS
from .masks import MOVED, OF_MASKS, TAKEN, is_mask, moved, truth
from .moves import OPERATORS as MOVES
from .norms import OPERATORS as NORMS
from .opsets import check_version
from .products import OPERATORS as PRODUCTS
from .sampling import OPERATORS as SAMPLING
from .tensors import Proto, Tensors
from .turned import MEETING, turned
from .turned import OPERATORS as TURNED

OPERATORS: dict[str, Reader] = (
    LAYERS | NORMS | ARITHMETIC | FUNCTIONS | PRODUCTS | ATTENTION | MOVES | SAMPLING | TURNED
)
BRANCHES = ("If", "Loop", "Scan", "SequenceMap")
REFUSED = {
    **dict.fromkeys(BRANCHES, CONTROL_FLOW),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), RECURRENCE),
}

NO_RECORD = "this operator has no record"
OF_COMPUTED = {  # why there is no record of what is computed; of constants alone, some are computed on import
    "Sign": SIZE_OR_SIGN,
    "DequantizeLinear": QUANTISED,
    **dict.fromkeys(
        (
            "Greater",
            "GreaterOrEqual",
            "Less",
            "LessOrEqual",
            "Equal",
            "ArgMax",
            "ArgMin",
            "NonZero",
            "Round",
            "Floor",
            "Ceil",
            "Bernoulli",
        ),
        CHOICE,
    ),
    **dict.fromkeys(("TopK", "Unique"), ORDER),
    **dict.fromkeys(
        ("ReduceLogSumExp", "ReduceLogSum", "ReduceProd", "LpPool", "GlobalLpPool"),
        STATISTIC,
    ),
}


@dataclass(frozen=True)
class Imported:
    """What became of a model.

    Attributes
    ----------
    layers : the records, complete only if nothing was refused
    sample : shape of one sample of the input
    refusals : one line per node that was refused
    n_nodes, n_read : how many nodes the output needs, and how many of them were read
    elements : of all that they make, for the batch of a check
    """

    layers: list[Layer]
    sample: Shape
    refusals: list[str]
    n_nodes: int
    n_read: int
    elements: int


class Walk:
    """Over the nodes in the file's order, which is topological.

    Parameters
    ----------
    batch : as the file declares it, BATCH where it is open
    sample : shape of one sample of the input
    integer : the input holds integers
    beside : its other inputs
    """

    def __init__(
        self,
        graph: Proto,
        opset: int,
        tensors: Tensors,
        name: str,
        batch: int,
        sample: Shape,
        integer: bool,
        beside: Sequence[Beside],
    ) -> None:
        self._graph, self._opset, self._tensors, self._sample = graph, opset, tensors, sample
        self._helper = require("onnx.helper", "onnx")
        self._stored = {t.name: t for t in graph.initializer}
        self._folder = Folder(tensors, batch)
        self._layers = Layers(batch, sample=sample)
        self._known: dict[str, Operand] = {name: Value(INPUT, sample, integer)}
        for one in beside:
            try:
                value = self._layers.add(Given, (), one.name, shape=one.shape, integer=one.words, mask=one.mask)
            except Refused as reason:
                raise ModelError(f"its input {one.name!r:.80} cannot be read: {reason}") from None
            self._known[one.name] = replace(value, integer=one.words, truth=one.mask)
            if one.mask:
                self._layers.masks.add(value.position)
        self._readers: Counter[str] = Counter()
        self._refusals: list[str] = []

    def imported(self, output: str) -> Imported:
        """Read the nodes that the output depends on."""
        nodes = self._needed(output)
        self._readers = Counter([output, *(name for _, node in nodes for name in node.input)])
        for number, node in nodes:
            label = f"node {number}{f' {node.name!r:.120}' if node.name else ''} ({node.op_type:.60})"
            try:
                self._read(node, label)
            except (Refused, ModelError) as reason:
                self._refuse(str(reason), label)
        if isinstance(made := self._known.get(output), Function):
            self._refuse(str(made.refused()), "")
        read = sum(any(name in self._known for name in node.output) for _, node in nodes)
        layers = self._layers.records if self._refusals else self._layers.finished(self._end(output))[0]
        n = batch_of_check(self._layers.batch)
        elements = sum(math.prod(_counted(full_shape(x, n), n)) for x in self._known.values() if x is not None)
        return Imported(layers, self._sample, self._refusals, len(nodes), read, elements)

    def _refuse(self, reason: str, label: str) -> None:
        """Add a line; what is read of a function that came to nothing names the node that began it."""
        line = reason if reason.startswith("node ") else f"{label}: {reason}"
        if line not in self._refusals:
            self._refusals.append(line)

    def shape(self, name: str) -> Shape | None:
        """Shape of one sample of what was computed under a name."""
        value = self._known.get(name)
        return value.shape if isinstance(value, Value) else None

    def _needed(self, output: str) -> list[tuple[int, Proto]]:
        """The nodes that the output depends on, with their numbers."""
        wanted, result = {output}, []
        for number in range(len(self._graph.node) - 1, -1, -1):
            node = self._graph.node[number]
            if wanted.intersection(o for o in node.output if o):
                wanted.update(i for i in node.input if i)
                result.append((number, node))
        return result[::-1]

    def _read(self, node: Proto, label: str) -> None:
        operator = node.op_type
        if node.domain not in ("", "ai.onnx"):
            raise Refused(f"operators of the domain {node.domain!r:.60} are not ONNX's own")
        if operator in REFUSED:
            raise Refused(REFUSED[operator])
        if operator.endswith(("QuantizeLinear", "Integer")) or operator.startswith("QLinear"):
            raise Refused(QUANTISED)
        check_version(node, self._opset)
        if any(name and name not in self._known and name not in self._stored for name in node.input):
            if operator not in OPERATORS and operator not in FOLDABLE and operator != "Shape":
                raise Refused(OF_COMPUTED.get(operator, NO_RECORD))
            if not self._refusals:
                missing = next(n for n in node.input if n and n not in self._known and n not in self._stored)
                raise Refused(f"it reads {missing!r:.80}, which no node before it and no initializer makes")
            return  # behind a node that was refused
        operands = [self._operand(name) for name in node.input]
        for name, result in zip(node.output, self._results(node, operands, label), strict=False):
            if name in self._known or name in self._stored:
                raise Refused(f"it makes {name!r:.80} a second time")
            if name and result is not None:
                self._known[name] = result

    def _operand(self, name: str) -> Operand | None:
        if name and name not in self._known:
            self._known[name] = self._tensors.array(self._stored[name])
        return self._known[name] if name else None

    def _results(self, node: Proto, operands: list[Operand | None], label: str) -> tuple[Operand | None, ...]:
        operator = node.op_type
        if operator in ("Shape", "Size") and len(operands) == 1 and operands[0] is not None:
            return (self._shape(node, operands[0]),)
        constants = [a for a in operands if not isinstance(a, (Value, Turned, Function))]
        if len(constants) == len(operands):
            return self._folder.fold(node, constants, self._opset)
        masks = any(map(is_mask, operands))
        meets = operator in MEETING and any(isinstance(a, Turned) for a in operands)
        if any(isinstance(a, Grown) for a in operands) and not meets and not (masks and operator in TAKEN):
            raise Refused("it reads a constant that grows with the batch, or differs from sample to sample")
        if operator not in OPERATORS and not (masks and operator in OF_MASKS):
            raise Refused(OF_COMPUTED.get(operator, NO_RECORD))
        reading = Node(
            operator=operator,
            name=node.name or node.output[0],
            opset=self._opset,
            operands=operands,
            outputs=[o if self._readers[o] else "" for o in node.output],
            attributes=self._attributes(node),
            layers=self._layers,
            label=label,
        )
        try:
            result = moved(reading, _result) if operator in MOVED and is_mask(operands[0]) else _result(reading)
        # of attributes and constants that make no sense together
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise Refused(
                f"it cannot be read, since its attributes or constants do not fit ({type(error).__name__}: {error})"
            ) from None
        reading.check_all_read()
        if isinstance(result, Value) and result.truth:
            self._layers.masks.add(result.position)
        return result if isinstance(result, tuple) else (result,)

    def _attributes(self, node: Proto) -> dict[str, Any]:
        try:
            return {a.name: self._helper.get_attribute_value(a) for a in node.attribute}
        except Exception as error:  # onnx raises ValueError, TypeError or AttributeError on a damaged attribute
            raise Refused(f"its attributes cannot be read: {error}") from None

    def _shape(self, node: Proto, value: Operand) -> Array:
        """Shape, perhaps of the axes from attribute start to end alone, and Size."""
        full = full_shape(value, self._layers.batch)
        if node.op_type == "Size":
            return np.array(math.prod(full), np.int64)
        bounds = {a.name: int(typed(a, "i")) for a in node.attribute}
        return np.array(full[bounds.get("start") : bounds.get("end")], np.int64)

    def _end(self, output: str) -> Value:
        """What the list ends in; the identity where that is the input."""
        value = self._known.get(output)
        if isinstance(value, Turned):
            merged = ", merged with others" if value.before + value.after else ""
            raise ModelError(
                f"its output {output!r:.80} has the batch axis at place {value.place}{merged}; bring it back to the "
                "front"
            )
        if not isinstance(value, Value):
            reason = "is made by no node" if value is None else "does not depend on its input"
            raise ModelError(f"its output {output!r:.80} {reason}")
        if value.integer:
            raise ModelError(f"its output {output!r:.80} is an input of integers, which take no relevance")
        return value if value.position != INPUT else self._layers.add(Dropout, (value,), output)


def _counted(shape: tuple[int, ...], n: int) -> tuple[int, ...]:
    """A shape with n samples where it has the open batch axis, or that merged with others."""
    return tuple(s // BATCH * n if s % BATCH == 0 else s for s in shape)


def _result(node: Node) -> Operand | tuple[Operand | None, ...]:
    if node.operator == "Gemm" and (first := node.operand(0)) is not None and len(node.full(first)) != 2:
        raise Refused(f"its first input has {len(node.full(first))} axes, expected two")
    if node.operator in OF_MASKS and any(map(is_mask, node.operands)) and (made := truth(node)) is not None:
        return made
    around = node.operator not in TURNED and any(isinstance(a, Turned) for a in node.operands)
    return turned(node, _reader) if around else _reader(node)


def _reader(node: Node) -> Operand | tuple[Operand | None, ...]:
    return (reader_of_functions(node.operator, node.operands) or OPERATORS[node.operator])(node)
