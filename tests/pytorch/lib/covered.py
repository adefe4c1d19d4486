"""How many nodes of a network's graph the importers read, of all that its output needs."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import dtdfast as dtd
from dtdfast.importers.onnx.importer import OnnxModel
from dtdfast.importers.torch.call import title
from dtdfast.importers.torch.program import from_module
from dtdfast.importers.torch.reader import Reader
from dtdfast.importers.records import Refused


@dataclass(frozen=True)
class Covered:
    """Nodes that are read, of those that the output needs; nodes behind one that is refused are not read.

    Attributes
    ----------
    refused : what the first refusal says; empty where the network is imported
    layers : the list, where it is
    """

    read: int
    nodes: int
    refused: str = ""
    layers: list[dtd.Layer] | None = None

    def __str__(self) -> str:
        return f"{self.read} of {self.nodes}"


LOST = object()
"""The result of a node that is not read."""


class Counting(Reader):
    """Reads on behind what is refused."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.refused: dict[Any, str] = {}
        self.n_read, self.n_needed = 0, 0

    def check_names(self, needed: set[Any]) -> None:
        self.n_needed = sum(node.op == "call_function" for node in needed)
        try:
            super().check_names(needed)
        except dtd.ModelError as error:
            self.refused[None] = str(error)
        for node in self.graph.nodes:
            if node.op == "call_function" and self.reached.intersection(node.all_input_nodes):
                self.reached.add(node)

    def call(self, node: Any) -> Any:
        if any(self.values.get(n) is LOST for n in self.operands(node)):
            return LOST
        if node.target is not operator.getitem and not hasattr(node.target, "_schema"):  # control flow
            return LOST
        try:
            result = super().call(node)
        except Refused as reason:
            self.refused[node] = f"{title(node)}: {reason}"
            return LOST
        self.n_read += 1
        return result


def of_torch(module: nn.Module, x: Tensor, output: str | int | None = None, **given: Tensor) -> Covered:
    """Of the graph that torch.export makes."""
    try:
        layers, refused = dtd.from_torch(module, x, output=output, **given), ""
    except dtd.DtdError as error:
        layers, refused = None, str(error)
    with torch.no_grad():
        opened = from_module(module, x, given)
        exported = opened.exported.quick if opened.exported.quick is not None and layers else opened.exported.whole
        reader = Counting(exported, opened.x, output, given)
        try:
            reader.read()
        except (dtd.ModelError, Refused):
            assert refused
    assert bool(reader.refused) <= bool(refused)
    return Covered(reader.n_read, reader.n_needed, refused, layers)


def of_onnx(path: Path) -> Covered:
    """Of an ONNX file's graph."""
    imported = OnnxModel(path).read()
    try:
        layers, refused = dtd.from_onnx(path), ""
    except dtd.DtdError as error:
        layers, refused = None, str(error)
    return Covered(imported.n_read, imported.n_nodes, refused, layers)
