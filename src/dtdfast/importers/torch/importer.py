"""PyTorch modules as layer lists, read from the graph that torch.export makes of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError, InputError, ModelError, at
from ...explainer import Explainer
from ...layers import Given, Layer
from ..check import TOLERANCE, check_finite, difference
from .call import title
from .program import Opened, as_written, from_module, from_program, kept_example, load, operators, two
from .reader import Reader
from .refused import STATE


def from_torch(module: Any, example: Any = None, *, output: int | str | None = None, **given: Any) -> list[Layer]:
    """Import a PyTorch module, and check the result against the module on an example.

    Parameters
    ----------
    module : torch.nn.Module, torch.export.ExportedProgram or path-like
        A module in evaluation mode, an exported program, or the path of one (.pt2, as torch.export.save writes it).
        PyTorch opens the file: load none that you do not trust. The module takes one tensor, and returns a tensor, or
        tuples, lists, dicts or dataclasses of them. Weights are copied: later changes of the module do not reach the
        list.
    example : torch.Tensor of shape (n, ...), optional
        The input of the check, which decides the sizes: a real one, or random numbers of the usual range. A program
        that keeps its own example needs none.
    output : str or int, optional
        The tensor that is explained, where the module returns several: its key, field or position (of nested ones
        joined by dots, such as "heads.0"), or its number in their order.
    **given : torch.Tensor of shape (n, ...)
        Other tensors that the module takes, by the names of its parameters: masks of integers 0 and 1 or of booleans,
        such as ``attention_mask=`` or what the module passes on as a ``key_padding_mask``; numbers for embeddings such
        as ``position_ids=``; or floats. Each becomes a `Given` of this name, so that `explain` takes it too.

    Returns
    -------
    list of Layer
        The network, named after the module's parts. An output of shape (n,) becomes one of shape (n, 1), so that target
        0 explains it.
        At a sample of another shape it is explained as it is, or refused where a layer may be another one there;
        ``list(layers)`` is a copy that does not know the shape it was imported at.

    Raises
    ------
    ModelError
        The module is in training mode, its answer changes from call to call, it returns several tensors without
        `output`, or an operation has no record. Also if `predict` differs from the module by more than 1e-4 of the
        largest output: the message names the first entry that differs.
    InputError
        The example is missing or does not fit, or `output` names none of the outputs.
    BackendError
        torch is not installed.

    Examples
    --------
    >>> layers = dtdfast.from_torch(torchvision.models.resnet18(weights="DEFAULT").eval(), torch.rand(1, 3, 224, 224))
    >>> relevance = dtdfast.explain(layers, x)  # x prepared as for training
    """
    try:
        import torch
    except ImportError as error:
        raise BackendError(f"from_torch needs torch: pip install torch ({error})") from None
    if isinstance(module, (str, os.PathLike)):
        module = load(module)
    program = isinstance(module, torch.export.ExportedProgram)
    if not program and not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"module is a {type(module).__name__}, expected a torch.nn.Module, an ExportedProgram or the path of one"
        )
    if example is None and program:
        example = kept_example(module)
    if not isinstance(example, torch.Tensor):
        raise InputError(_no_tensor(example, given))
    if example.ndim < 2 or not example.numel():
        raise InputError(f"example has shape {tuple(example.shape)}, expected (n, ...): the batch axis first")
    if example.layout != torch.strided:
        raise InputError(f"example is a tensor of layout {example.layout}; pass what its to_dense() gives")
    for name, tensor in given.items():
        if not isinstance(tensor, torch.Tensor) or tensor.ndim < 2 or len(tensor) != len(example):
            kind = (
                f"has shape {tuple(tensor.shape)}"
                if isinstance(tensor, torch.Tensor)
                else f"is a {type(tensor).__name__}"
            )
            raise InputError(
                f"{name} {kind}, expected a torch.Tensor of shape ({len(example)}, ...): a row for each sample of the "
                "example; constants belong into the module"
            )
    if program and given:
        raise ModelError(f"the module is a program, which takes no {', '.join(given)} here; import the module itself")
    x = example.detach().clone()
    given = {name: two(tensor.detach().clone()) for name, tensor in given.items()}
    with as_written(x):
        try:
            opened = from_program(module, x) if program else from_module(module, x, given)
            reader, layers = opened.exported.read(lambda graph: Reader(graph, opened.x, output, given))
        except (InputError, ModelError) as error:
            if not (hint := _doubtful(x, given)):
                raise
            raise type(error)(f"{error}; {hint}") from error
        used = {record.name for record in layers if isinstance(record, Given)}
        if unused := [name for name in given if name not in used]:
            raise InputError(
                f"{unused[0]}= changes nothing that is explained: the module ignores it (is its name right?), or the "
                "output does not need it; leave it out"
            )
        check(layers, reader, opened)
    return layers


def _no_tensor(example: Any, given: dict[str, Any]) -> str:
    """What to pass instead of an example that is no tensor."""
    if isinstance(example, Mapping):
        first, *others = map(str, example or ["input_ids"])
        named = "".join(f", {name}=example[{name!r}]" for name in others)
        return f"example is a {type(example).__name__}; pass its tensors apart: example[{first!r}]{named}"
    if example is None and given:
        first = next(iter(given))
        return f"example is missing: give what is explained first, and by its place, {first} rather than {first}="
    hint = "pass torch.as_tensor(example)"
    if isinstance(example, tuple):
        hint = (
            "pass what is explained first, and other tensors by the names of forward's parameters, or put the network "
            "into a module that takes one and calls it with masks and positions that are constants"
        )
    elif isinstance(example, str) or not hasattr(example, "__len__"):
        hint = "for text, the numbers that the model's tokenizer gives"
    return f"example is a {type(example).__name__}, expected one torch.Tensor; {hint}"


def _doubtful(x: Any, given: dict[str, Any]) -> str:
    """A hint at what may be wrong: a mask or positions for other tokens than the words have, or for floats."""
    for name, tensor in given.items():
        if not x.is_floating_point() and tensor.ndim == x.ndim and tensor.shape[1:] != x.shape[1:]:
            return f"{name} has samples of shape {tuple(tensor.shape[1:])}, the example of {tuple(x.shape[1:])}"
        if tensor.is_floating_point() and bool(((tensor == 0) | (tensor == 1)).all()):
            return f"if {name} is a mask, give it as integers or booleans"
    return ""


def check(layers: list[Layer], reader: Reader, opened: Opened) -> None:
    """Compare `predict` with the module, called twice; where they differ, say from which entry on."""
    import torch

    x = opened.x

    def called(n: int = len(x)) -> Any:
        with operators():
            return reader.chosen(opened.run(x[:n].clone(), **{name: given[:n] for name, given in reader.given.items()}))

    expected = called() if opened.answer is None else reader.chosen(opened.answer)
    if not expected.is_floating_point():
        raise ModelError(f"the module's output has type {expected.dtype}; explain the scores that it is made from")
    tolerance = max(TOLERANCE, 16 * torch.finfo(expected.dtype).eps)
    outputs = reader.array(expected, "output")
    check_finite(outputs, "the module")
    if (off := _of_fewer(called, reader, outputs)) is None or not off <= tolerance:
        outputs = reader.array(called(), "output")
        if not difference(reader.array(called(), "output"), outputs) <= tolerance:
            raise ModelError(f"the module gives another answer when it is called again with the same input; {STATE}")
        if off is not None:
            raise ModelError(
                f"the module's answer for a sample differs by {off:.1e} of its largest value when it is called with a "
                "sample fewer; explain one that does not mix or count samples"
            )
    given = reader.array(x, "example") if x.is_floating_point() else x.cpu().numpy()

    def predicted(some: list[Layer], n: int = len(x)) -> Any:
        beside = {r.name: reader.given[r.name][:n].cpu() for r in some if isinstance(r, Given)}
        return Explainer(some).predict(given[:n], **beside)

    # the bits of a sample do not depend on its batch, so that one of two that are equal stands for both
    found = np.repeat(predicted(layers, 1), 2, axis=0) if opened.doubled else predicted(layers)
    error = difference(found, outputs)
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
        if (value := reader.batch_first(node, seen[node])) is None:
            continue
        off = difference(predicted(layers[: position + 1]), value)
        if not off <= tolerance:
            raise ModelError(
                f"{at(position, layers[position])} is the first entry that differs from the module ({title(node)}): "
                f"by {off:.1e} of its largest value, the output by {error:.1e}; at most {tolerance:.0e} is accepted"
            )
    raise ModelError(
        f"the output differs from the module's by {error:.1e} of its largest value; at most {tolerance:.0e} is accepted"
    )


def _of_fewer(called: Callable[[int], Any], reader: Reader, outputs: NDArray[Any]) -> float | None:
    """How far the module's second answer, for one sample fewer, is from its first; None where it is no answer."""
    n = max(len(outputs) - 1, 1)
    try:
        again = reader.array(called(n), "output")
    except Exception:  # of a module that takes no single sample
        return None
    return difference(again, outputs[:n]) if again.shape == (n, *outputs.shape[1:]) else None
