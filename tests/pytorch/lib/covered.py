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
from dtdfast.importers.records import Refused
from dtdfast.importers.torch.call import title
from dtdfast.importers.torch.program import from_module, two
from dtdfast.importers.torch.reader import Reader


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


def of_torch(module: nn.Module, x: Tensor, **given: Tensor) -> Covered:
    """Of the graph that torch.export makes."""
    with torch.no_grad():
        exported = from_module(module, x, given).exported
        for graph in (exported.quick, exported.whole) if exported.quick is not None else (exported.whole,):
            reader, layers = Counting(graph, two(x), None, given), None
            try:
                layers = reader.read()
            except (dtd.ModelError, Refused) as error:
                reader.refused[None] = reader.refused.get(None) or str(error)
            if layers is not None:
                break
    first = "" if layers is not None else next(iter(reader.refused.values()))
    return Covered(reader.n_read, reader.n_needed, first, layers)


def of_onnx(path: Path) -> Covered:
    """Of an ONNX file's graph."""
    imported = OnnxModel(path).read()
    first = next(iter(imported.refusals), "")
    return Covered(imported.n_read, imported.n_nodes, first, None if first else imported.layers)
