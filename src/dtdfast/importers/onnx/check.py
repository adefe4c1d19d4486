"""Whether the layers of an ONNX model compute what onnxruntime makes of it, where that is installed and can run it.

onnxruntime sees the nodes that were read, their constants and nothing else of the file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...budget import require as require_memory
from ...errors import BackendError, MemoryBudgetError
from ...extras import require
from ...layers import Given, Layer
from ...plan.shapes import Shape
from ..check import TOLERANCE, check_outputs, random_input
from .beside import Beside
from .graph import batch_of_check
from .tensors import EXTERNAL, Proto, Tensors

MOST_WEIGHTS, MOST_INPUTS = 1 << 28, 1 << 21
"""Elements beyond which the check would take too long."""
EPS = {10: 2.0**-10}  # of TensorProto.DataType float16
IR_VERSION = 8
RIGHT = (1, 28)
OLDER = f"; onnxruntime before {RIGHT[0]}.{RIGHT[1]} computes some masked Attention wrongly: upgrade or uninstall it"


@dataclass(frozen=True)
class Ends:
    """The graph's own input, those beside it, and the output that was read."""

    source: Proto
    beside: list[Beside]
    output: Proto


def check(
    layers: list[Layer],
    graph: Proto,
    opset: int,
    folder: Path | None,
    ends: Ends,
    batch: int,
    sample: Shape,
    made: int,
) -> None:
    """Raise ModelError where `predict` differs from onnxruntime by more than 1e-4 of the largest output.

    Parameters
    ----------
    batch, sample : of the input
    made : elements of all that the nodes make; a file of a few bytes may ask for gigabytes of them
    """
    try:
        onnxruntime = require("onnxruntime", "onnx")
    except BackendError:
        return
    n = batch_of_check(batch)
    nodes, constants = _needed(graph, ends.output.name)
    elements = sum(math.prod(t.dims) for t in constants)
    inputs = sum(math.prod(s) for s in (sample, *(one.shape for one in ends.beside)))
    if elements > MOST_WEIGHTS or n * inputs > MOST_INPUTS:
        return
    try:
        # the bytes, as onnxruntime holds them, and packed twice; and what it makes of them
        require_memory(16 * elements + 4 * made, "the check of an import")
        x = random_input(layers, (n, *sample))
        read = {name for node in nodes for name in node.input}
        given = {one.name: one.example(layers, n) for one in ends.beside if one.name in read}
        feeds = {ends.source.name: x.astype(_type(ends.source)), **given}
        expected = _run(onnxruntime, _model(nodes, constants, opset, folder, ends, feeds), feeds)
        if expected is not None and np.isfinite(expected).all():
            kinds = [info.type.tensor_type.elem_type for info in (ends.source, ends.output)]
            tolerance = max(TOLERANCE, *(16 * EPS.get(kind, 0.0) for kind in kinds))
            kept = {record.name for record in layers if isinstance(record, Given)}
            given = {name: array for name, array in given.items() if name in kept}
            by = f"onnxruntime {onnxruntime.__version__}"
            hint = OLDER if _is_older(onnxruntime) and any(node.op_type == "Attention" for node in nodes) else ""
            check_outputs(layers, x, np.asarray(expected, np.float64), tolerance, given=given, by=by, hint=hint)
    except MemoryBudgetError:
        return


def _needed(graph: Proto, output: str) -> tuple[list[Proto], list[Proto]]:
    """The nodes that the output depends on, and the stored tensors that they read."""
    wanted, nodes = {output}, []
    for node in reversed(graph.node):
        if wanted.intersection(o for o in node.output if o):
            wanted.update(i for i in node.input if i)
            nodes.append(node)
    return nodes[::-1], [t for t in graph.initializer if t.name in wanted]


def _model(
    nodes: list[Proto],
    constants: list[Proto],
    opset: int,
    folder: Path | None,
    ends: Ends,
    feeds: dict[str, Any],
) -> bytes:
    helper, numpy_helper = require("onnx.helper", "onnx"), require("onnx.numpy_helper", "onnx")
    tensors = Tensors(folder)
    held = [numpy_helper.from_array(tensors.array(t), t.name) if t.data_location == EXTERNAL else t for t in constants]
    infos = [
        helper.make_tensor_value_info(info.name, info.type.tensor_type.elem_type, feeds[info.name].shape)
        for info in (ends.source, *(one.info for one in ends.beside))
        if info.name in feeds
    ]
    result = helper.make_tensor_value_info(ends.output.name, ends.output.type.tensor_type.elem_type, None)
    graph = helper.make_graph(nodes, "checked", infos, [result], held)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)
    return bytes(made.SerializeToString())


def _type(info: Proto) -> Any:
    return require("onnx.helper", "onnx").tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)


def _is_older(onnxruntime: Any) -> bool:
    return tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) < RIGHT


def _run(onnxruntime: Any, model: bytes, feeds: dict[str, Any]) -> Any | None:
    """What onnxruntime makes of the inputs; None where it cannot run the model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads, options.inter_op_num_threads = 4, 1, 1
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # weights kept in integers are exact, too
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        (result,) = session.run(None, feeds)
        return np.asarray(result)
    except Exception:  # whatever it raises on operators, versions or types that it does not have
        return None
