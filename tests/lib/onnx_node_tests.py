"""ONNX's own tests of its operators, through `from_onnx` and `predict`: onnx_node_tests.py [NAME...] prints how they
end.

onnx ships a model and its stored answers for every operator. Such a model reads all its operands as graph inputs, so
one of them is taken for the data and the others become initializers with the stored values; the batch is the data's
axis 0. Every float input is the data once (an integer input where there is no float one), and every output is asked for
by its name. A test is

- right, where with one of the inputs as the data all outputs are right,
- refused, where that is not so, and all that was not right was refused with a DtdError,
- wrong, where any answer differs from the stored one or anything but a DtdError was raised.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import dtdfast as dtd

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
TOKENS = (TensorProto.INT32, TensorProto.INT64)
STORED = Path(onnx.__file__).parent / "backend" / "test" / "data"


@dataclass(frozen=True)
class Case:
    """A model with stored inputs and outputs, in the order of the graph's."""

    name: str
    model: Any
    inputs: list[Any]
    outputs: list[Any]


@dataclass(frozen=True)
class End:
    """How a case ended: right, refused or wrong, and why."""

    case: Case
    kind: str
    reason: str = ""

    @property
    def operators(self) -> str:
        return "+".join(sorted({node.op_type for node in self.case.model.graph.node}))


def generated(every: int = 1) -> Iterator[Case]:
    """The tests of single operators, and of their bodies where an operator is a function of others; those of every so
    many of onnx's modules alone, which make them when they are imported.
    """
    from onnx.backend.test.case import node

    def imported(package: Any) -> None:
        for module in [*pkgutil.iter_modules(package.__path__)][::every]:
            importlib.import_module(f"{package.__name__}.{module.name}")

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # of the generators: overflow in casts
        if every > 1:
            patch.setattr(node, "import_recursive", imported)
        cases = node.collect_testcases(None)
    for case in cases:
        for inputs, outputs in case.data_sets:
            yield Case(case.name, case.model, *(list(map(_array, values)) for values in (inputs, outputs)))


def _array(value: Any) -> Any:
    """A tensor as an array; sequences and the like as they are."""
    if isinstance(value, np.generic):
        return np.asarray(value)
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def stored(every: int = 1) -> Iterator[Case]:
    """The models that onnx has as files, of opset 6 to 12: what PyTorch once exported, and simple ones; every so many
    of them.
    """
    for path in sorted(STORED.glob("*/*/model.onnx"))[::every]:
        for folder in sorted(path.parent.glob("test_data_set_*")):
            try:
                inputs, outputs = (
                    [_read(folder / f"{k}_{i}.pb") for i in range(len(list(folder.glob(f"{k}_*"))))]
                    for k in ("input", "output")
                )
            except Exception:  # sequences and strings, which are no tensors of numbers
                continue
            yield Case(path.parent.name, onnx.load(path), inputs, outputs)


def _read(path: Path) -> np.ndarray[Any, Any]:
    return numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))


def end(case: Case) -> End:
    """Run one case."""
    infos, names = {info.name: info for info in case.model.graph.input}, _inputs(case)
    kinds = {name: infos[name].type.tensor_type.elem_type for name in names}
    choices = [n for n in names if kinds[n] in FLOATS] or [n for n in names if kinds[n] in TOKENS] or names[:1]
    if not choices:
        return End(case, "refused", "it has no input")
    ends = [_with(case, data) for data in choices]
    for kind in ("wrong", "right"):
        for found in ends:
            if found.kind == kind:
                return found
    return ends[0]


def with_data(case: Case, data: str) -> tuple[Any, Any]:
    """The model that reads one of the inputs, the others stored in it; and that input's value."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    stored = {t.name for t in graph.initializer}
    x = None
    for name, value in zip(_inputs(case), case.inputs, strict=False):
        if name == data:
            x = value
        elif isinstance(value, np.ndarray) and value.dtype.kind in "biufV" and name not in stored:
            info = next(i for i in graph.input if i.name == name)
            graph.initializer.append(numpy_helper.from_array(value, name))
            graph.input.remove(info)
    return model, x


def _inputs(case: Case) -> list[str]:
    """Names of the inputs that have values."""
    graph = case.model.graph
    stored = {t.name for t in graph.initializer}
    names = [info.name for info in graph.input if info.name not in stored]
    # files of IR version 3: stored values of initializers, too
    return names if len(names) >= len(case.inputs) else [info.name for info in graph.input]


def _with(case: Case, data: str) -> End:
    """With one of the inputs as the data."""
    model, x = with_data(case, data)
    graph = model.graph
    reason, kind = "", "right"
    for info, expected in zip(graph.output, case.outputs, strict=False):
        try:
            layers = dtd.from_onnx(model, output=info.name)
            if not isinstance(x, np.ndarray) or not isinstance(expected, np.ndarray):
                return End(case, "wrong", "imported, though its values are no tensors")
            x = x if x.dtype.kind in "iu" or x.dtype == np.float64 else x.astype(np.float32)
            made = dtd.predict(layers, x)
        except dtd.DtdError as error:
            reason, kind = reason or str(error), "refused"
            continue
        except Exception as error:
            return End(case, "wrong", f"{type(error).__name__}: {error}")
        expected = np.asarray(expected, np.float64)
        if made.shape == (*expected.shape, 1) and expected.ndim == 1:  # a number per sample
            expected = expected[:, None]
        # the tolerance of onnx's own runner, and float32's rounding of sums that cancel
        far = 1e-3 * np.abs(expected) + 1e-5 * np.abs(expected).max(initial=0) + 1e-7
        if made.shape != expected.shape or not bool((np.abs(made - expected) <= far).all()):
            return End(
                case,
                "wrong",
                f"with {data} as data, {info.name} is {made.shape} {made.ravel()[:4]}, not {expected.shape} "
                f"{expected.ravel()[:4]}",
            )
    return End(case, kind, reason)


def table(ends: list[End]) -> str:
    """How many ended how, and the refusals by operator."""
    counts = Counter(e.kind for e in ends)
    lines = [f"{len(ends)} tests: {counts['right']} right, {counts['refused']} refused, {counts['wrong']} wrong", ""]
    lines += [f"WRONG {e.case.name}: {e.reason}" for e in ends if e.kind == "wrong"]
    refused: dict[str, list[End]] = {}
    for e in ends:
        if e.kind == "refused":
            refused.setdefault(e.operators if len(e.operators) < 40 else "(functions of many operators)", []).append(e)
    right = Counter(e.operators for e in ends if e.kind == "right")
    for operators, which in sorted(refused.items(), key=lambda item: -len(item[1])):
        reasons = Counter(
            e.reason.partition("cannot be imported: ")[2] or e.reason.removeprefix("the ONNX model: ") for e in which
        )
        shown = reasons.most_common(1)[0][0]
        lines.append(f"{len(which):4} refused, {right[operators]:3} right  {operators}: {shown[:150]}")
    return "\n".join(lines)


if __name__ == "__main__":
    wanted = sys.argv[1:]
    for title, source in (("generated", generated), ("stored", stored)):
        ends = [end(c) for c in source() if not wanted or any(w in c.name for w in wanted)]
        print(title, table(ends), sep="\n")
        if wanted:
            print(*(f"{e.kind} {e.case.name}: {e.reason}" for e in ends), sep="\n")
