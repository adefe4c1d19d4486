"""ONNX models as layer lists: a file is decoded, its graph walked in order, and every node read by the table of its operator.

A node that cannot be read is refused with its reason, and the walk goes on, so that all refusals of a model are known at once.
Files are data from anywhere: nothing in one may crash, hang or allocate more than a small multiple of its size.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelError
from ..extras import require
from ..layers import INPUT, Dropout, Layer
from ..plan.shapes import MAX_AXES, MAX_ELEMENTS, Shape
from .onnx_constants import Folder
from .onnx_graph import BATCH, Array, Layers, Node, Operand, Reader, Refused, Value
from .onnx_layers import OPERATORS as LAYERS
from .onnx_moves import OPERATORS as MOVES
from .onnx_tensors import FLOATS, TOKENS, Proto, Tensors

OPERATORS: dict[str, Reader] = LAYERS | MOVES
OPSETS = range(11, 24)
CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")
MAX_BYTES = 1 << 31  # of a protobuf message


@dataclass(frozen=True)
class Imported:
    """What became of a model.

    Attributes
    ----------
    layers : the records, complete only if nothing was refused
    sample : shape of one sample of the input, as the file or the caller has it
    integer : the input holds integers
    refusals : one line per node that was refused
    """

    layers: list[Layer]
    sample: Shape
    integer: bool
    refusals: list[str]


def from_onnx(model: Any, *, sample_shape: Sequence[int] | None = None) -> list[Layer]:
    """Turn an ONNX model into a layer list.

    Parameters
    ----------
    model : path-like or onnx.ModelProto
        Opset 11 to 23, with one input and one output. Tensors kept in other files are read from the model's folder alone.
    sample_shape : sequence of int, optional
        Shape of one sample of the input, (channels, height, width) for example: only needed where the file leaves it open. The
        batch axis may always be open.

    Returns
    -------
    list of records
        Named after the nodes; a final Softmax is kept. Weights narrower than float32 become float32.

    Raises
    ------
    ModelError
        When the file is corrupt, or a node has no record: all such nodes are named, each with the reason.
    """
    imported = read(model, sample_shape=sample_shape)
    if imported.refusals:
        shown = "; ".join(imported.refusals[:5])
        more = f"; and {len(imported.refusals) - 5} more" if len(imported.refusals) > 5 else ""
        raise ModelError(f"{_title(model)} cannot be imported: {shown}{more}")
    return imported.layers


def read(model: Any, *, sample_shape: Sequence[int] | None = None) -> Imported:
    """As `from_onnx`, with the refusals listed instead of raised."""
    require("onnx", "onnx")
    try:
        proto, folder = _open(model)
        return _Walk(proto, folder, sample_shape).imported()
    except ModelError as error:
        raise ModelError(f"{_title(model)}: {error}") from None


def _title(model: Any) -> str:
    return str(model) if isinstance(model, (str, os.PathLike)) else "the ONNX model"


def _open(model: Any) -> tuple[Proto, Path | None]:
    kind = require("onnx", "onnx").ModelProto
    if isinstance(model, kind):
        return model, None
    if not isinstance(model, (str, os.PathLike)):
        raise ModelError(f"expected a path or an onnx.ModelProto, got a {type(model).__name__}")
    path = Path(model)
    size = path.stat().st_size
    if size >= MAX_BYTES:
        raise ModelError(f"is {size} bytes long; an ONNX file holds less than 2 GiB, and keeps larger weights in files of their own")
    proto = kind()
    try:
        proto.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError, whichever of its implementations is installed
        raise ModelError(f"is corrupt or not an ONNX file ({error})") from None
    return proto, path.parent


class _Walk:
    """One pass over the graph's nodes, in the file's order, which is topological."""

    def __init__(self, model: Proto, folder: Path | None, sample_shape: Sequence[int] | None) -> None:
        self.graph = model.graph
        self.opset = _opset(model)
        if any(isinstance(name, bytes) for name in _names(self.graph)):
            raise ModelError("is corrupt: a name in it is not UTF-8")
        self.tensors = Tensors(folder)
        self.helper = require("onnx.helper", "onnx")
        self.stored = {t.name: t for t in self.graph.initializer}
        self.folder = Folder(self.tensors)
        self.refusals: list[str] = []
        self.input, self.output = self._door("input"), self._door("output")
        self.integer = self.input.type.tensor_type.elem_type in TOKENS
        batch, self.sample = self._sample(sample_shape)
        self.layers = Layers(batch)
        self.known: dict[str, Operand] = {self.input.name: Value(INPUT, self.sample, self.integer)}
        self.nodes = self._needed()
        self.readers = Counter(name for _, node in self.nodes for name in node.input) + Counter([self.output.name])

    def _door(self, kind: str) -> Proto:
        """The graph's one input or output."""
        infos = [v for v in getattr(self.graph, kind) if kind == "output" or v.name not in self.stored]
        if len(infos) != 1:
            names = ", ".join(v.name for v in infos[:8]) or "none"
            raise ModelError(f"has {len(infos)} {kind}s ({names}), expected one; export the model with one {kind}")
        (info,) = infos
        if info.type.WhichOneof("value") != "tensor_type":
            raise ModelError(f"its {kind} {info.name!r} is not a tensor")
        kinds = (*FLOATS, *TOKENS) if kind == "input" else tuple(FLOATS)
        if info.type.tensor_type.elem_type not in kinds:
            raise ModelError(f"its {kind} {info.name!r} has element type {info.type.tensor_type.elem_type}, expected floats")
        return info

    def _sample(self, given: Sequence[int] | None) -> tuple[int, Shape]:
        """(batch, shape of one sample) of the input; zero and negative sizes are how some exporters write an open axis."""
        sizes = _declared(self.input)
        open_axes = sizes is None or not all(sizes[1:])
        if given is not None:
            sample = tuple(int(s) for s in given)
            if (sizes is not None and not _fits(sizes, sample)) or min(sample, default=0) < 1:
                raise ModelError(f"sample_shape is {sample}, but its input {self.input.name!r} is declared as {_text(sizes)}")
        elif open_axes or not sizes or len(sizes) < 2:
            declared = f"its input {self.input.name!r} is declared as {_text(sizes)}"
            raise ModelError(f"{declared}; say the rest: sample_shape=(channels, height, width)")
        else:
            sample = sizes[1:]
        batch = sizes[0] if sizes and sizes[0] else BATCH
        if len(sample) > MAX_AXES or math.prod(sample) > MAX_ELEMENTS or batch > BATCH:
            raise ModelError(f"its input {self.input.name!r} has shape {_text((batch, *sample)):.80}, which is too large")
        return batch, sample

    def _needed(self) -> list[tuple[int, Proto]]:
        """The nodes that the output depends on, with their numbers."""
        wanted, result = {self.output.name}, []
        for number in range(len(self.graph.node) - 1, -1, -1):
            node = self.graph.node[number]
            if wanted.intersection(o for o in node.output if o):
                wanted.update(i for i in node.input if i)
                result.append((number, node))
        return result[::-1]

    # ------------------------------------------------------------------------------------------------------------ walk

    def imported(self) -> Imported:
        for number, node in self.nodes:
            try:
                self._read(node)
            except (Refused, ModelError) as reason:
                name = f" {node.name!r:.120}" if node.name else ""
                self.refusals.append(f"node {number}{name} ({node.op_type:.60}): {reason}")
        if not self.refusals:
            self._check_output()
        return Imported(self.layers.records, self.sample, self.integer, self.refusals)

    def _read(self, node: Proto) -> None:
        operator = node.op_type
        if node.domain not in ("", "ai.onnx"):
            raise Refused(f"operators of the domain {node.domain!r:.60} are not ONNX's own")
        if operator in CONTROL_FLOW:
            raise Refused("control flow has no record")
        if "quantize" in operator.lower() or operator.startswith("QLinear") or operator.endswith("Integer"):
            raise Refused("quantised operators have no record; export the float model")
        if any(name and name not in self.known and name not in self.stored for name in node.input):
            if operator not in OPERATORS:
                raise Refused("this operator has no record")
            if not self.refusals:
                missing = next(n for n in node.input if n and n not in self.known and n not in self.stored)
                raise Refused(f"it reads {missing!r:.80}, which no node before it and no initializer makes")
            return  # behind a node that was refused
        operands = [self._operand(name) for name in node.input]
        for name, result in zip(node.output, self._results(node, operands), strict=False):
            if name in self.known or name in self.stored:
                raise Refused(f"it makes {name!r:.80} a second time")
            if name and result is not None:
                self.known[name] = result

    def _operand(self, name: str) -> Operand | None:
        if name and name not in self.known:
            self.known[name] = self.tensors.array(self.stored[name])
        return self.known[name] if name else None

    def _results(self, node: Proto, operands: list[Operand | None]) -> tuple[Operand | None, ...]:
        operator = node.op_type
        if operator in ("Shape", "Size") and isinstance(operands[0] if operands else None, Value):
            return (self._shape(node, operands[0]),)
        constants = [a for a in operands if not isinstance(a, Value)]
        if len(constants) == len(operands):
            return self.folder.fold(node, constants, self.opset)
        if operator not in OPERATORS:
            raise Refused("this operator has no record")
        reading = Node(
            operator=operator,
            name=node.name or node.output[0],
            opset=self.opset,
            operands=operands,
            alone=[self.readers[name] == 1 for name in node.input],
            outputs=[o if self.readers[o] else "" for o in node.output],
            attributes=self._attributes(node),
            layers=self.layers,
        )
        result = OPERATORS[operator](reading)
        reading.check_all_read()
        return result if isinstance(result, tuple) else (result,)

    def _attributes(self, node: Proto) -> dict[str, Any]:
        try:
            return {a.name: self.helper.get_attribute_value(a) for a in node.attribute}
        except Exception as error:  # onnx raises ValueError, TypeError or AttributeError on a damaged attribute
            raise Refused(f"its attributes cannot be read: {error}") from None

    def _shape(self, node: Proto, value: Any) -> Array:
        """Shape, perhaps of the axes from attribute start to end alone, and Size."""
        full = (self.layers.batch, *value.shape)
        if node.op_type == "Size":
            return np.array(math.prod(full), np.int64)
        bounds = {a.name: int(a.i) for a in node.attribute}
        return np.array(full[bounds.get("start") : bounds.get("end")], np.int64)

    def _check_output(self) -> None:
        """What comes out must be computed by the last entry, in the shape that the file declares."""
        value = self.known.get(self.output.name)
        if not isinstance(value, Value):
            reason = "is made by no node" if value is None else "does not depend on its input"
            raise ModelError(f"its output {self.output.name!r:.80} {reason}")
        declared = _declared(self.output)
        if declared is not None and not _fits(declared, value.shape):
            made = _text((0, *value.shape))
            raise ModelError(f"its output {self.output.name!r:.80} is declared as {_text(declared)}, but its nodes make {made}")
        if value.position == INPUT:
            raise ModelError("its output is its input: there is nothing to explain")
        if value.position != len(self.layers.records) - 1:
            self.layers.add(Dropout, (value,), self.output.name)  # the identity, since a list's output is its last entry's


def _opset(model: Proto) -> int:
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if not model.HasField("graph") or not versions:
        raise ModelError("is corrupt or not an ONNX file: it has no graph or no opset")
    if versions[0] not in OPSETS:
        raise ModelError(f"has opset {versions[0]}, expected {OPSETS[0]} to {OPSETS[-1]}; convert it with onnx.version_converter")
    return int(versions[0])


def _names(graph: Proto) -> Iterator[Any]:
    """Every string that the walk uses; protobuf hands out bytes where one is not UTF-8."""
    for info in (*graph.input, *graph.output):
        yield info.name
    for tensor in graph.initializer:
        yield from (tensor.name, *(text for entry in tensor.external_data for text in (entry.key, entry.value)))
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute))


def _declared(info: Proto) -> tuple[int, ...] | None:
    """The sizes that a graph's input or output is declared with, 0 where they are open; None without any."""
    kind = info.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(max(int(d.dim_value), 0) for d in kind.shape.dim)


def _fits(sizes: tuple[int, ...], sample: Shape) -> bool:
    """Whether a declaration, batch first, agrees with the shape of one sample."""
    return len(sizes) == len(sample) + 1 and all(d in (0, s) for d, s in zip(sizes[1:], sample, strict=True))


def _text(sizes: tuple[int, ...] | None) -> str:
    return "a tensor of unknown shape" if sizes is None else f"({', '.join(str(s) if s else '?' for s in sizes)})"
