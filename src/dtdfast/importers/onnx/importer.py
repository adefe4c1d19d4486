"""ONNX models as layer lists.

Files are data from anywhere: nothing in one may crash, hang or allocate more than a small multiple of its size.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import ModelError
from ...extras import require
from ...files import regular
from ...layers import Layer
from ...plan.shapes import MAX_AXES, MAX_ELEMENTS, Shape
from .. import outputs
from ..records import Refused
from .beside import Beside, beside
from .check import Ends, check
from .graph import BATCH
from .opsets import check_opset
from .tensors import BOOL, FLOATS, TOKENS, Proto, Tensors, element_type
from .walk import Imported, Walk

MAX_BYTES = 1 << 31  # of a protobuf message
HELD = {
    "sequence_type": "a sequence",
    "map_type": "a map",
    "optional_type": "optional",
    "sparse_tensor_type": "a sparse tensor",
    "opaque_type": "opaque",
}


def from_onnx(model: Any, *, sample_shape: Sequence[int] | None = None, output: str | int | None = None) -> list[Layer]:
    """Import an ONNX model.

    Parameters
    ----------
    model : path-like or onnx.ModelProto
        A model of opset 6 to 26. Its first input is the network's; each other one becomes a `Given` of its name, which
        `explain` takes as a keyword, such as ``attention_mask=``: integers that an embedding reads, masks of 0 and 1
        (all other integers and booleans), or floats. Tensors that are kept in other files are read from the model's
        folder only.
    sample_shape : sequence of int, optional
        The shape of one sample of the input, such as (channels, height, width). It is needed where the file leaves
        sizes open, and allowed where another shape than the declared one is explained. The batch axis may always be
        open.
    output : str or int, optional
        The name or number of the output that is explained, where the model has several. What it does not need is not
        read.

    Returns
    -------
    list of Layer
        The network, named after the nodes. A final Softmax is kept: `predict` includes it, and `explain` starts before
        it. Weights narrower than float32 become float32.
        At a sample of another shape it is explained as it is, or refused where a layer may be another one there;
        ``list(layers)`` is a copy that does not know the shape it was imported at.

    Raises
    ------
    ModelError
        The file is corrupt, `sample_shape` does not fit it, or nodes have no record: all of them are named, each with
        the reason. Or onnxruntime is installed, and `predict` differs from it by more than 1e-4 of the largest output.
    InputError
        `output` names none of the model's outputs.
    BackendError
        onnx is not installed.

    Examples
    --------
    >>> layers = dtdfast.from_onnx("squeezenet1_1.onnx")
    >>> relevance = dtdfast.explain(layers, x)  # x prepared as for training
    """
    return OnnxModel(model, output).layers(sample_shape)


class OnnxModel:
    """An opened model with the one output that is asked for, its weights not yet decoded.

    Attributes
    ----------
    declared : the input's sizes, batch first, 0 where the file leaves one open; None where it says nothing
    integer : the input holds integers
    beside : names of its other inputs
    files : names of the other files, in the model's folder, that hold tensors
    """

    def __init__(self, model: Any, output: str | int | None = None) -> None:
        self._title = _title(model)
        with _titled(self._title):
            proto, self._folder = _open(model)
            self._graph = proto.graph
            self._opset = _opset(proto)
            if any(isinstance(name, bytes) for name in _names(self._graph)):
                raise ModelError("is corrupt: a name in it is not UTF-8")
            (self._input, *self._others), self._output = self._entrances(), self._exit(output)
        self.beside = [str(info.name) for info in self._others]
        self.files = {e.value for t in _tensors(self._graph) for e in t.external_data if e.key == "location"}
        self.declared = _declared(self._input)
        self.integer = self._input.type.tensor_type.elem_type in TOKENS

    def read(self, sample_shape: Sequence[int] | None = None) -> Imported:
        """The layers, and the nodes that have none."""
        with _titled(self._title):
            batch, sample = self._sample(sample_shape)
            others = self._beside(batch, sample)
            walk = Walk(
                self._graph,
                self._opset,
                Tensors(self._folder),
                self._input.name,
                batch,
                sample,
                self.integer,
                others,
            )
            imported = walk.imported(self._output.name)
            as_declared = self.declared is not None and fits(self.declared, sample)
            declared, made = _declared(self._output), walk.shape(self._output.name)
            if as_declared and declared is not None and made is not None and not fits(declared, made):
                promised = f"its output {self._output.name!r:.80} is declared as {_text(declared)}"
                raise ModelError(f"{promised}, but its nodes make {_text((0, *made))}")
            return imported

    def layers(self, sample_shape: Sequence[int] | None = None) -> list[Layer]:
        """The layers; ModelError names the nodes that have none."""
        imported = self.read(sample_shape)
        if imported.refusals:
            shown = "; ".join(imported.refusals[:5])
            more = f"; and {len(imported.refusals) - 5} more" if len(imported.refusals) > 5 else ""
            raise ModelError(f"{self._title} cannot be imported: {shown}{more}")
        with _titled(self._title):
            batch, sample = self._sample(sample_shape)
            ends = Ends(self._input, self._beside(batch, sample), self._output)
            check(imported.layers, self._graph, self._opset, self._folder, ends, batch, sample, imported.elements)
        return imported.layers

    def _entrances(self) -> list[Proto]:
        """The graph's inputs, the network's own first; initializers may be listed among them."""
        stored = {t.name for t in self._graph.initializer}
        infos = [v for v in self._graph.input if v.name not in stored]
        if not infos:
            raise ModelError("has no input")
        first = _tensor(infos[0], "input", (*FLOATS, *TOKENS))
        return [first, *(_tensor(info, "input", (*FLOATS, *TOKENS, BOOL)) for info in infos[1:])]

    def _beside(self, batch: int, sample: Shape) -> list[Beside]:
        """The other inputs; what the first one calls an axis has the same size in them."""
        dims = self._input.type.tensor_type.shape.dim
        named = zip(dims, (0, *sample), strict=False)
        sizes = {d.dim_param: size for d, size in named if d.dim_param}
        return [beside(self._graph, info, sizes, batch) for info in self._others]

    def _exit(self, chosen: str | int | None) -> Proto:
        """The graph's one output, or the chosen one."""
        infos = list(self._graph.output)
        if not infos:
            raise ModelError("has no output")
        name = outputs.chosen([v.name for v in infos], chosen, "the model")
        return _tensor(next(v for v in infos if v.name == name), "output", FLOATS)

    def _sample(self, given: Sequence[int] | None) -> tuple[int, Shape]:
        """(batch, shape of one sample) of the input."""
        sizes = self.declared
        where = f"its input {self._input.name!r} is declared as {_text(sizes)}"
        if given is not None:
            sample = tuple(int(s) for s in given)
            if min(sample, default=0) < 1 or (sizes is not None and len(sizes) != len(sample) + 1):
                raise ModelError(f"sample_shape is {sample}, but {where}; leave out the batch axis, and no other")
        elif sizes is None or len(sizes) < 2 or not all(sizes[1:]):
            raise ModelError(f"{where}; say the rest: sample_shape=(channels, height, width)")
        else:
            sample = sizes[1:]
        batch = sizes[0] if sizes and sizes[0] else BATCH
        if len(sample) > MAX_AXES or math.prod(sample) > MAX_ELEMENTS or batch > BATCH:
            raise ModelError(
                f"its input {self._input.name!r} has shape {_text((batch, *sample)):.80}, which is too large"
            )
        return batch, sample


def _title(model: Any) -> str:
    return str(model) if isinstance(model, (str, os.PathLike)) else "the ONNX model"


@contextmanager
def _titled(title: str) -> Iterator[None]:
    try:
        yield
    except (ModelError, Refused) as error:
        raise ModelError(f"{title}: {error}") from None


def _open(model: Any) -> tuple[Proto, Path | None]:
    kind = require("onnx", "onnx").ModelProto
    if isinstance(model, kind):
        return model, None
    if not isinstance(model, (str, os.PathLike)):
        raise ModelError(f"expected a path or an onnx.ModelProto, got a {type(model).__name__}")
    path = regular(model)
    size = path.stat().st_size
    if size >= MAX_BYTES:
        raise ModelError(
            f"is {size} bytes long; an ONNX file holds less than 2 GiB, and keeps larger weights in files of their own"
        )
    proto = kind()
    try:
        proto.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError, whichever of its implementations is installed
        raise ModelError(f"is corrupt or not an ONNX file ({error})") from None
    return proto, path.parent


def _opset(model: Proto) -> int:
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if not model.HasField("graph") or not versions:
        raise ModelError("is corrupt or not an ONNX file: it has no graph or no opset")
    check_opset(versions[0])
    return int(versions[0])


def _tensor(info: Proto, kind: str, types: tuple[int, ...]) -> Proto:
    """An input or output whose elements are of one of these types."""
    held = info.type.WhichOneof("value")
    if held != "tensor_type":
        raise ModelError(f"its {kind} {info.name!r:.80} is {HELD.get(held, 'of no known type')}, expected a tensor")
    found = info.type.tensor_type.elem_type
    if found not in types:
        raise ModelError(f"its {kind} {info.name!r:.80} has element type {element_type(found)}, expected floats")
    return info


def _names(graph: Proto) -> Iterator[Any]:
    """Every string that the walk uses; protobuf hands out bytes where one is not UTF-8."""
    for info in (*graph.input, *graph.output):
        yield info.name
    for tensor in _tensors(graph):
        yield from (tensor.name, *(text for entry in tensor.external_data for text in (entry.key, entry.value)))
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute))


def _tensors(graph: Proto) -> Iterator[Proto]:
    """Every tensor that the file holds or names."""
    yield from graph.initializer
    yield from (attribute.t for node in graph.node for attribute in node.attribute if attribute.HasField("t"))


def _declared(info: Proto) -> tuple[int, ...] | None:
    """The sizes that a graph's input or output is declared with; zero and negative ones are how exporters write an open
    axis.
    """
    kind = info.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(max(int(d.dim_value), 0) for d in kind.shape.dim)


def fits(sizes: tuple[int, ...], sample: Shape) -> bool:
    """Whether a declaration, batch first, agrees with the shape of one sample."""
    return len(sizes) == len(sample) + 1 and all(d in (0, s) for d, s in zip(sizes[1:], sample, strict=True))


def _text(sizes: tuple[int, ...] | None) -> str:
    return "a tensor of unknown shape" if sizes is None else f"({', '.join(str(s) if s else '?' for s in sizes)})"
