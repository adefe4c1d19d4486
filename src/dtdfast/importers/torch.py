"""PyTorch modules as layer lists, read from the graph that torch.export makes of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import BackendError, InputError, ModelError, at
from ..explainer import predict
from ..layers import Layer
from .check import TOLERANCE, difference
from .refused import QUANTISED
from .torch_call import title
from .torch_reader import Reader
from .torch_refused import BRANCH, STATE, quantised


def from_torch(module: Any, example: Any = None) -> list[Layer]:
    """A PyTorch module as a list of records, checked against the module on an example.

    Parameters
    ----------
    module : torch.nn.Module, torch.export.ExportedProgram or path-like
        A module in evaluation mode, an exported program, or the path of one (.pt2, as torch.export.save writes it; load no file that
        you do not trust: it is PyTorch that opens it). One tensor in and one out. Weights are copied.
    example : torch.Tensor (n, ...), optional for a program that keeps its own
        Decides the sizes and is the input of the check: a real one, or random numbers of the usual range.

    Returns
    -------
    layers : list of Layer
        Named after the module's parts.

    Raises
    ------
    ModelError
        For a module in training mode, one whose answer changes from call to call, or an operation without a record; where `predict`
        differs from the module by more than 1e-4 of the largest output, the first entry that differs is named.
    InputError
        Where the example is missing or is not what the module or program takes.
    BackendError
        Where torch is not installed.

    Examples
    --------
    >>> layers = dtdfast.from_torch(torchvision.models.resnet18(weights="DEFAULT").eval(), torch.rand(1, 3, 224, 224))
    """
    try:
        import torch
    except ImportError as error:
        raise BackendError(f"from_torch needs torch: pip install torch ({error})") from None
    if isinstance(module, (str, os.PathLike)):
        module = _load(module)
    program = isinstance(module, torch.export.ExportedProgram)
    if not program and not isinstance(module, torch.nn.Module):
        raise ModelError(f"module is a {type(module).__name__}, expected a torch.nn.Module, an ExportedProgram or the path of one")
    if example is None and program:
        example = _kept_example(module)
    if not isinstance(example, torch.Tensor):
        raise InputError(f"example is a {type(example).__name__}, expected one torch.Tensor: several inputs are not supported")
    if example.ndim < 2 or not example.numel():
        raise InputError(f"example has shape {tuple(example.shape)}, expected (n, ...): the batch axis first")
    x = example.detach().clone()
    with torch.no_grad():
        run, exported, x = _program(module, x) if program else _module(module, x)
        reader = Reader(exported, x)
        layers = reader.read()
        _check(layers, reader, x, run)
    return layers


def _two(x: Any) -> Any:
    """At least two samples: the batch axis must be told from axes of size 1."""
    import torch

    return torch.cat([x, x]) if len(x) == 1 else x


def _module(module: Any, x: Any) -> tuple[Any, Any, Any]:
    """(what answers, its graph, the samples)."""
    if (part := quantised(module)) is not None:
        raise ModelError(f"part {part!r}: {QUANTISED}")
    for name, inner in module.named_modules():
        if inner.training:
            where = f"its part {name!r}" if name else "the module"
            raise ModelError(f"{where} is in training mode; call module.eval() first")
    x = _two(x)
    return module, _export(module, x), x


def _program(program: Any, x: Any) -> tuple[Any, Any, Any]:
    """(what answers, its graph, the samples); sizes that the program leaves open become those of the samples."""
    names = program.graph_signature.user_inputs
    if len(names) != 1:
        raise ModelError(f"the program takes {len(names)} inputs, expected one; export a module that takes a single tensor")
    sizes = next(n.meta["val"].shape for n in program.graph.find_nodes(op="placeholder") if n.name == names[0])
    run = program.module()
    if not all(isinstance(s, int) for s in sizes):
        x = _two(x)
        return run, _export(run, x), x
    if tuple(sizes) != tuple(x.shape):
        raise InputError(f"example has shape {tuple(x.shape)}, but the program was exported for {tuple(sizes)}")
    return run, program.run_decompositions({}), x


def _load(path: Any) -> Any:
    import torch

    if not Path(path).is_file():
        raise ModelError(f"{path}: there is no such file")
    try:
        return torch.export.load(path)
    except Exception as error:  # whatever PyTorch's reader stumbles over
        raise ModelError(f"{path}: not a program written by torch.export.save ({type(error).__name__}: {error!s:.100})") from None


def _kept_example(program: Any) -> Any:
    kept: Any = program.example_inputs
    if not kept or len(kept[0]) != 1 or kept[1]:
        raise InputError("the program keeps no example of a single tensor; pass example=")
    return kept[0][0]


def _export(module: Any, x: Any) -> Any:
    """The module's graph without in-place operations, in the operators that it was written with."""
    import torch

    try:
        exported = torch.export.export(module, (x,))
        return exported.run_decompositions({})
    except Exception as error:  # whatever the module's own code raises while it is traced
        name, lines = type(error).__name__, str(error).strip().splitlines() or [""]
        if "DataDependent" in name or "ynamic control flow" in lines[0]:
            raise ModelError(f"torch.export cannot read this module: {BRANCH} ({name}: {lines[0]})") from error
        raise ModelError(f"torch.export cannot read this module: {name}: {lines[0]}") from error


def _check(layers: list[Layer], reader: Reader, x: Any, run: Any) -> None:
    """Compare `predict` with the module, called twice; where they differ, say from which entry on."""
    import torch

    expected = run(x.clone())
    tolerance = max(TOLERANCE, 16 * torch.finfo(expected.dtype).eps)
    outputs = reader.array(expected, "output")
    if difference(reader.array(run(x.clone()), "output"), outputs) > tolerance:
        raise ModelError(f"the module gives another answer when it is called again with the same input; {STATE}")
    given = reader.array(x, "example") if x.is_floating_point() else x.cpu().numpy()
    error = difference(predict(layers, given), outputs)
    if error <= tolerance:
        return
    seen: dict[Any, Any] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, node: Any) -> Any:
            seen[node] = super().run_node(node)
            return seen[node]

    Recorder(reader.exported.graph_module).run(*reader.feeds())
    last = {node: position for position, node in enumerate(reader.made)}  # a node may have made several entries
    for node, position in sorted(last.items(), key=lambda item: item[1]):
        off = difference(predict(layers[: position + 1], given), reader.array(seen[node], "value"))
        if not off <= tolerance:
            raise ModelError(
                f"{at(position, layers[position])} is the first entry that differs from the module ({title(node)}): "
                f"by {off:.1e} of its largest value, the output by {error:.1e}; at most {tolerance:.0e} is accepted"
            )
    raise ModelError(f"the output differs from the module's by {error:.1e} of its largest value; at most {tolerance:.0e} is accepted")
