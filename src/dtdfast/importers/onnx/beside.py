"""What an ONNX model reads beside its first input: masks of 0 and 1, numbers of positions or types, and floats."""

from __future__ import annotations

import keyword
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ModelError
from ...extras import require
from ...layers import Given, Layer
from ...plan.shapes import Shape
from ..check import random_input
from .graph import Array
from .tensors import BOOL, FLOATS, TOKENS, Proto, element_type

PASSED = ("Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Slice", "Expand")
"""Operators between an input and the table that it indexes."""


@dataclass(frozen=True)
class Beside:
    """An input that becomes a Given.

    Attributes
    ----------
    shape : of one sample
    words : an embedding reads it; other integers and booleans are a mask of 0 and 1
    mask : it is such a mask
    """

    info: Proto
    shape: Shape
    words: bool
    mask: bool

    @property
    def name(self) -> str:
        return str(self.info.name)

    def example(self, layers: list[Layer], n: int) -> Array:
        """Numbers for a check, of the type of the file's input."""
        shape = (n, *self.shape)
        kind: Any = require("onnx.helper", "onnx").tensor_dtype_to_np_dtype(self.info.type.tensor_type.elem_type)
        if not self.mask:
            found = [p for p, r in enumerate(layers) if isinstance(r, Given) and r.name == self.name]
            return random_input(layers, shape, found[0] if found else len(layers)).astype(kind)
        values = np.random.default_rng(1).integers(0, 2, shape)
        values[..., 0] = 1  # of every row something is left
        return values.astype(kind)


def beside(graph: Proto, info: Proto, sizes: dict[str, int], batch: int) -> Beside:
    """An input that is not the first, checked.

    Parameters
    ----------
    sizes : what the names of open axes stand for, as the first input says it
    """
    name, kind = info.name, info.type.tensor_type
    where = f"its input {name!r:.80}"
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ModelError(f"{where} becomes a keyword of explain, which its name cannot be: rename it to letters and _")
    if kind.elem_type not in (*FLOATS, *TOKENS, BOOL):
        raise ModelError(
            f"{where} has element type {element_type(kind.elem_type)}, expected floats, integers or booleans"
        )
    dims = list(kind.shape.dim)
    shape = tuple(int(d.dim_value) or sizes.get(d.dim_param, 0) for d in dims)
    if len(shape) < 2 or min(shape[1:]) < 1:
        text = ", ".join(str(s) if s > 0 else "?" for s in shape)
        raise ModelError(
            f"{where} is declared as ({text}), expected (n, ...) with sizes that are given, or named as the first "
            "input's are"
        )
    if shape[0] > 0 and shape[0] != batch:
        raise ModelError(f"{where} has {shape[0]} samples, the first input has {batch}")
    whole = kind.elem_type not in FLOATS
    words = kind.elem_type in TOKENS and _indexes(graph, name)
    return Beside(info, shape[1:], words, whole and not words)


def _indexes(graph: Proto, name: str) -> bool:
    """Whether a table is indexed by an input, perhaps moved or cut before."""
    names = {name}
    for node in graph.node:  # in topological order
        if node.op_type == "Gather" and len(node.input) > 1 and node.input[1] in names:
            return True
        if node.op_type in PASSED and node.input and node.input[0] in names:
            names.update(node.output)
    return False
