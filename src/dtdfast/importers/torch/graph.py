"""A module's graph, exported once and read as often as its weights change, with the part of the module that every entry
stands for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ...errors import ModelError
from ...layers import Layer
from ..records import Refused
from .call import paths
from .importer import check
from .program import as_written, from_module, output_node
from .reader import Reader


@dataclass(frozen=True)
class Origin:
    """Where an entry comes from.

    Attributes
    ----------
    path : of the part of the module that it stands for, a part without parts of its own ("" where that is the whole
    module); None for
        what a larger part computes itself, such as an addition in its `forward`
    calls : which call of every part, from the outermost in
    hooked : whether a forward hook of the part computes it
    within : the path of the innermost part whose `forward` computes it
    """

    path: str | None
    calls: tuple[str, ...]
    hooked: bool
    within: str


class Graph:
    """A graph without the weights.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode.
    example : torch.Tensor (n, ...)

    Raises
    ------
    DtdError
        As `from_torch`, here and in `read`.
    """

    def __init__(self, module: Any, example: Any) -> None:
        with as_written(example):
            # without the module, which may be gone before its graph
            self._opened = replace(from_module(module, example.detach().clone()), run=None)

    @property
    def output(self) -> Any:
        """Of the module: a tensor without data."""
        return output_node(self._opened.exported.program, None).meta["val"]

    def read(self, module: Any) -> tuple[list[Layer], list[Origin]]:
        """The layers with the present weights of the module that was exported, checked against it.

        Returns
        -------
        layers : list of Layer
        origins : list of Origin, of every entry
        """
        with as_written(self._opened.x):
            opened, self._opened = self._opened, replace(self._opened, answer=None)
            try:
                reader, layers = opened.exported.read(lambda graph: _Present(graph, opened.x, module))
            except Refused as reason:  # of the output itself, such as one number per sample without an axis
                raise ModelError(f"the module's output: {reason}") from None
            check(layers, reader, replace(opened, run=module))
        return layers, [reader.origin(node) for node in reader.made]


class _Present(Reader):
    """Reads the graph with what a module holds now in the place of what it held when it was exported."""

    def __init__(self, exported: Any, x: Any, module: Any) -> None:
        super().__init__(exported, x)
        present = {
            **dict(module.named_parameters(remove_duplicate=False)),
            **dict(module.named_buffers(remove_duplicate=False)),
        }
        held = {**exported.state_dict, **exported.constants}
        self._held = {name: present.get(name, value) for name, value in held.items()}
        self._forwards = {
            name: code for name, part in module.named_modules() if (code := _hooked_forward(part)) is not None
        }

    def feeds(self) -> Iterator[Any]:
        for spec in self.exported.graph_signature.input_specs:
            yield self.x if spec.kind.name == "USER_INPUT" else self._held[spec.target]

    def origin(self, node: Any) -> Origin:
        path = (paths(node) or [""])[-1]
        calls = tuple(node.meta.get("nn_module_stack") or ())
        return Origin(None if path in self.containers else path, calls, self.hooked(node), path)

    def hooked(self, node: Any) -> bool:
        """Whether a hook of its part computes this node: no line of its part's `forward` had called it."""
        code, trace = self._forwards.get((paths(node) or [""])[-1]), node.meta.get("stack_trace")
        if code is None or trace is None:
            return False
        lines = {line for _, _, line in code.co_lines() if line is not None}
        return not any(file == code.co_filename and int(line) in lines for file, line in FRAME.findall(trace))


FRAME = re.compile(r'File "(.*)", line (\d+)')


def _hooked_forward(part: Any) -> Any:
    """The code of a part's `forward` where hooks are called before or after it, else None."""
    import torch

    everywhere = torch.nn.modules.module
    hooks = (
        part._forward_hooks,
        part._forward_pre_hooks,
        everywhere._global_forward_hooks,
        everywhere._global_forward_pre_hooks,
    )
    return getattr(part.forward, "__code__", None) if any(hooks) else None
