"""A module's graph, exported once and read as often as its weights change, with the part of the module that every entry stands for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import InputError, ModelError
from ..layers import Layer
from .records import Refused
from .torch import _check
from .torch_call import paths
from .torch_program import from_module
from .torch_reader import Reader


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
        import torch

        if example.ndim < 2 or not example.numel():
            raise InputError(f"the input has shape {tuple(example.shape)}, expected (n, ...): the batch axis first")
        with torch.no_grad():
            _, self._exported, self._x = from_module(module, example.detach().clone())

    def read(self, module: Any) -> tuple[list[Layer], list[str | None]]:
        """The layers with the present weights of the module that was exported, checked against it.

        Returns
        -------
        layers : list of Layer
        origins : of every entry the path of the part of the module that it stands for, a part without parts of its own ("" where that
            is the whole module); None marks what a larger part computes itself, such as an addition in its `forward`
        """
        import torch

        with torch.no_grad():
            reader = _Present(self._exported, self._x, module)
            try:
                layers = reader.read()
            except Refused as reason:  # of the output itself, such as one number per sample without an axis
                raise ModelError(f"the module's output: {reason}") from None
            _check(layers, reader, self._x, module)
        return layers, [reader.origin(node) for node in reader.made]


class _Present(Reader):
    """Reads the graph with what a module holds now in the place of what it held when it was exported."""

    def __init__(self, exported: Any, x: Any, module: Any) -> None:
        super().__init__(exported, x)
        present = {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers(remove_duplicate=False))}
        held = {**exported.state_dict, **exported.constants}
        self._held = {name: present.get(name, value) for name, value in held.items()}

    def feeds(self) -> Iterator[Any]:
        for spec in self.exported.graph_signature.input_specs:
            yield self.x if spec.kind.name == "USER_INPUT" else self._held[spec.target]

    def origin(self, node: Any) -> str | None:
        path = (paths(node) or [""])[-1]
        return None if path in self.containers else path
