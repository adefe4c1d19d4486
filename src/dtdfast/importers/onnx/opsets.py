"""Which versions of the ONNX operators the readers know.

An operator's forms of opset 6 to 23 are read by one function, which asks the opset where an attribute became an input
or changed its meaning. No converter runs before: weights are not copied, and nodes keep the names and numbers that
messages quote. Beyond opset 23, an operator is read where its meaning is that of opset 23, which its schema says: onnx
numbers each version of an operator by the opset that brought it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ...errors import ModelError
from ...extras import require
from ..records import Refused
from .tensors import Proto

FIRST, WRITTEN_FOR = 6, 23
SAME_LATER = {  # versions after WRITTEN_FOR that brought element types, or attributes that the readers ask for
    "Attention": 25, "Cast": 28, "CastLike": 25, "Celu": 28, "Constant": 25, "ConstantOfShape": 25, "DepthToSpace": 28,
    "Einsum": 28, "Flatten": 25, "Identity": 25, "Pad": 25, "Reshape": 25, "Shape": 25, "Size": 25,
    "SpaceToDepth": 28, "Squeeze": 25, "Swish": 24,
    "Transpose": 25,
    "Unsqueeze": 25,
}  # fmt: skip


def check_opset(opset: int) -> None:
    """Refuse a model whose operators the readers, or the installed onnx, do not know."""
    known = int(require("onnx.defs", "onnx").onnx_opset_version())
    if opset < FIRST:
        raise ModelError(f"has opset {opset}, expected {FIRST} or later; convert it with onnx.version_converter")
    if opset > max(known, WRITTEN_FOR):
        raise ModelError(f"has opset {opset}, but the installed onnx knows opsets up to {known}; install a newer onnx")


@cache
def _schema(operator: str, opset: int) -> tuple[int, int, int, list[str]] | None:
    """(version, fewest inputs, most inputs, attributes that it needs)."""
    defs = require("onnx.defs", "onnx")
    if not defs.has(operator, opset):
        return None
    schema: Any = defs.get_schema(operator, opset)
    needed = [name for name, attribute in schema.attributes.items() if attribute.required]
    return int(schema.since_version), schema.min_input, schema.max_input, needed


def check_version(node: Proto, opset: int) -> None:
    """Refuse an operator that changed after opset 23, and a node in the form of another opset."""
    schema = _schema(node.op_type, opset)
    if schema is None:
        return  # its reader, or the lack of one, says more
    version, fewest, most, needed = schema
    if not fewest <= len(node.input) <= most:
        raise Refused(f"it has {len(node.input)} inputs; in opset {opset} it has {fewest} to {most}")
    if missing := set(needed).difference(a.name for a in node.attribute):
        raise Refused(f"attribute {min(missing)} is missing, which it needs in opset {opset}")
    if opset > WRITTEN_FOR and version > SAME_LATER.get(node.op_type, WRITTEN_FOR):
        raise Refused(
            f"the operator changed in opset {version}, which is not known here; export the model with opset "
            f"{WRITTEN_FOR}"
        )
