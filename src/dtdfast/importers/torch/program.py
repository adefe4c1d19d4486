"""From a module or a program of PyTorch to its graph: called once as it is, exported in silence, and the names of what
it returns.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import locks
from ...errors import InputError, ModelError
from ..outputs import chosen, leaves
from ..refused import QUANTISED
from .functional import Exported
from .refused import BRANCH, WEIGHTS, quantised


@dataclass(eq=False)
class Opened:
    """A module or program that has been exported.

    Attributes
    ----------
    run : what answers
    exported : its graph
    x : the samples that it was exported for
    doubled : whether x holds a single sample twice
    answer : what it returned for x before, if it was called
    """

    run: Any
    exported: Exported
    x: Any
    doubled: bool = False
    answer: Any = None


def two(x: Any) -> Any:
    """At least two samples: the batch axis must be told from axes of size 1."""
    import torch

    return torch.cat([x, x]) if len(x) == 1 else x


def check_readable(module: Any) -> None:
    """ModelError where a module's code cannot be read, or its weights are not there."""
    import torch

    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise ModelError(
            "the module was scripted or traced, so that its code cannot be read; pass the one it is made of"
        )
    for name, weight in (*module.named_parameters(), *module.named_buffers()):
        if torch.nn.parameter.is_lazy(weight) or weight.is_meta:
            raise ModelError(f"{name} has no values yet; load them, or call a lazy module once")


def from_module(module: Any, x: Any, given: dict[str, Any] | None = None) -> Opened:
    if (part := quantised(module)) is not None:
        raise ModelError(f"part {part!r}: {QUANTISED}")
    check_readable(module)
    for name, inner in module.named_modules():
        if inner.training and not _of_program(module):
            where = f"its part {name!r}" if name else "the module"
            raise ModelError(f"{where} is in training mode; call module.eval() first")
    twice = two(x)
    result = _called(module, twice, x, given or {})
    return Opened(module, export(_plain(module, result), twice, given), twice, len(x) == 1, result)


def _of_program(module: Any) -> bool:
    """Whether this is what an exported program makes of itself: it has no mode, and says that it trains."""
    return any(cls.__name__ == "_StatefulGraphModule" for cls in type(module).__mro__)


def from_program(program: Any, x: Any) -> Opened:
    """Sizes that the program leaves open become those of the samples."""
    names = program.graph_signature.user_inputs
    if len(names) != 1:
        raise ModelError(
            f"the program takes {len(names)} inputs, expected one; export a module that takes a single tensor"
        )
    sizes = next(n.meta["val"].shape for n in program.graph.find_nodes(op="placeholder") if n.name == names[0])
    run = program.module()
    if not all(isinstance(s, int) for s in sizes):
        twice = x if isinstance(sizes[0], int) else two(x)
        result = _called(run, twice, x, {})  # which says what is wrong with sizes that are not open
        return Opened(run, export(run, twice), twice, len(twice) > len(x), result)
    if tuple(sizes) != tuple(x.shape):
        raise InputError(f"example has shape {tuple(x.shape)}, but the program was exported for {tuple(sizes)}")
    return Opened(run, Exported(program, decomposed), x)


def load(path: Any) -> Any:
    import torch

    if not Path(path).is_file():
        raise ModelError(f"{path}: there is no such file")
    try:
        with _silence():
            return torch.export.load(path)
    except Exception as error:  # whatever PyTorch's reader stumbles over
        raise ModelError(
            f"{path}: not a program written by torch.export.save ({type(error).__name__}: {error!s:.100})"
        ) from None


def kept_example(program: Any) -> Any:
    kept: Any = program.example_inputs
    if not kept or len(kept[0]) != 1 or kept[1]:
        raise InputError("the program keeps no example of a single tensor; pass example=")
    return kept[0][0]


# ------------------------------------------------------------------------------------------------------------ calling


def _weights(module: Any) -> dict[str, tuple[int, int]]:
    """What stands for every parameter: the tensor and its memory."""
    import torch

    held = module.named_parameters(remove_duplicate=False)
    return {n: (id(p), p.data_ptr() if p.layout == torch.strided else 0) for n, p in held}


def _called(module: Any, x: Any, example: Any, given: dict[str, Any]) -> Any:
    """What the module returns for x; says what is wrong with the example that x was made of where it cannot take it."""
    before = _weights(module)
    try:
        with operators():
            result = module(x.clone(), **given)
    except Exception as error:  # whatever the module's own code raises
        reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]:.200}"
        raise InputError(
            f"the module cannot take an example of shape {tuple(example.shape)}{_hint(module, example)} ({reason})"
        ) from error
    after = _weights(module)
    assigned = next((name for name, value in before.items() if after.get(name) != value), None)
    if assigned is not None:
        raise ModelError(f"the module assigns its weight {assigned!r} in forward; {WEIGHTS}")
    return result


def _hint(module: Any, x: Any) -> str:
    """What to pass instead, where the module takes that."""
    trials = [(x[None], "it has no batch axis: pass example[None]")]
    if x.ndim > 2:
        trials.append((x.movedim(-1, 1), "its channels are last, and PyTorch's are first: pass example.movedim(-1, 1)"))
    if x.ndim == 3:
        trials.append(
            (
                x.movedim(-1, 0)[None],
                "it has no batch axis, and its channels are last: pass example.movedim(-1, 0)[None]",
            )
        )
    for other, advice in trials:
        try:
            module(other)
        except Exception:  # not this either
            continue
        return f"; {advice}"
    return ""


# ---------------------------------------------------------------------------------------------------------- exporting


@contextlib.contextmanager
def as_written(x: Any) -> Iterator[None]:
    """Without gradients, and in the numbers that modules for x are written in, whatever torch.autocast says here."""
    import torch

    kind = x.device.type
    plain = torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else contextlib.nullcontext()
    with torch.no_grad(), plain:
        yield


@contextlib.contextmanager
def operators() -> Iterator[None]:
    """nn.TransformerEncoder and nn.MultiheadAttention in single operators, not in their one fused kernel, which makes
    padded tokens 0.
    """
    import torch

    with locks.SHARED:
        before = torch.backends.mha.get_fastpath_enabled()
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(before)


class _Muted:
    """The standard error without what this thread writes, until `thread` is None: who took it meanwhile keeps it."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        if self.stream is not None and self.thread != threading.get_ident():
            self.stream.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """PyTorch's own messages about what it exports stay out of the terminal; what was asked for with TORCH_LOGS has
    other handlers.
    """
    muted: Any = _Muted(sys.stderr)
    loggers = [logging.getLogger("torch"), *map(logging.getLogger, _torch_loggers())]
    handlers = [handler for logger in loggers for handler in logger.handlers]

    def nothing(record: logging.LogRecord) -> bool:
        return False

    for handler in handlers:
        handler.addFilter(nothing)
    try:
        with locks.SHARED, warnings.catch_warnings(), contextlib.redirect_stderr(muted):
            warnings.simplefilter("ignore")
            yield
    finally:
        muted.thread = None
        for handler in handlers:
            handler.removeFilter(nothing)


def _torch_loggers() -> list[str]:
    """Names of those of its loggers that may have handlers of their own."""
    return [name for name in list(logging.root.manager.loggerDict) if name.startswith("torch.")]


def export(module: Any, x: Any, given: dict[str, Any] | None = None) -> Exported:
    """The module's graph without in-place operations, in the operators that it was written with."""
    import torch

    with _readable(), _silence(), operators():
        return Exported(torch.export.export(module, (x,), given or None), decomposed)


def decomposed(program: Any) -> Any:
    """A program without in-place operations, by PyTorch, which exports it a second time."""
    with _readable(), _silence(), operators():
        return program.run_decompositions({})


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """What PyTorch stumbles over in a module, as a ModelError."""
    try:
        yield
    except Exception as error:  # whatever the module's own code raises while it is traced
        name, lines = type(error).__name__, str(error).strip().splitlines() or [""]
        if "fake tensor in the exported program" in lines[0]:
            raise ModelError(
                f"torch.export cannot read this module: its forward assigns, or reads, the .data of a weight; {WEIGHTS}"
            ) from error
        if "DataDependent" in name or "ynamic control flow" in lines[0] or "data-dependent" in lines[0]:
            raise ModelError(f"torch.export cannot read this module: {BRANCH} ({name}: {lines[0]})") from error
        raise ModelError(
            f"torch.export cannot read this module: {name}: {lines[0]}; write its forward in PyTorch operations on x"
        ) from error


# ------------------------------------------------------------------------------------------------------------ outputs


def output_tensor(result: Any, output: int | str | None) -> Any:
    """The one tensor that is explained, of what a module returned."""
    import torch

    found = {name: leaf for name, leaf in leaves(result) if isinstance(leaf, torch.Tensor)}
    if not found:
        raise ModelError(
            f"the module returns no tensor, but a {type(result).__name__}; wrap it in one that returns its scores"
        )
    return found[chosen(list(found), output, "the module")]


def output_node(exported: Any, output: int | str | None) -> Any:
    """The graph's node of the output that is explained."""
    from torch.export.graph_signature import OutputKind, TensorArgument
    from torch.utils import _pytree

    specs = [s for s in exported.graph_signature.output_specs if s.kind == OutputKind.USER_OUTPUT]
    spec = exported.call_spec.out_spec
    named = list(leaves(_pytree.tree_unflatten(list(range(len(specs))), spec)))
    nodes = {n.name: n for n in exported.graph_module.graph.nodes}
    found = {name: nodes[specs[i].arg.name] for name, i in named if isinstance(specs[i].arg, TensorArgument)}
    if not found:
        raise ModelError("the module returns no tensor")
    return found[chosen(list(found), output, "the module")]


def _plain(module: Any, result: Any) -> Any:
    """The module, or one with the same parts that returns a dict of its tensors where it returns what torch.export does
    not know, such as dataclasses or caches.
    """
    import torch
    from torch.utils import _pytree

    if all(isinstance(leaf, (torch.Tensor, int, float, str, type(None))) for leaf in _pytree.tree_leaves(result)):
        return module

    class Plain(torch.nn.Module):
        def forward(self, x: Any, **given: Any) -> Any:
            made = leaves(type(module).forward(self, x, **given))
            return {name: leaf for name, leaf in made if isinstance(leaf, torch.Tensor)}

    twin: Any = Plain.__new__(type(type(module).__name__, (Plain, type(module)), {}))
    twin.__dict__.update(vars(module))
    return twin
