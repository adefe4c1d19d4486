"""How often from_torch asks PyTorch for a graph: once, where one pass over its nodes makes what a second export would.

The reference is PyTorch's own `run_decompositions({})`: the same nodes, names, operands, shapes and parts of the
module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dtdfast as dtd
from dtdfast.importers.torch import functional as passes
from dtdfast.importers.torch.program import decomposed, export

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


class Between(nn.Module):
    """A function of a convolution's outputs (n, 4, 6, 6), and a linear layer."""

    def __init__(self, function: Callable[[Tensor], Tensor], n: int = 144) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(n, 5)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.norm(self.first(x))).flatten(1))


def residual(x: Tensor) -> Tensor:
    y = F.relu(x, inplace=True)
    y = F.hardtanh(F.relu6(y * 2), 0.1, 5.0, inplace=True)
    y += x
    return F.max_pool2d(F.hardswish(y, inplace=True), 1)


def written_after_a_view(x: Tensor) -> Tensor:
    y = x + 1
    rows = y.flatten(1)
    y.relu_()
    return rows


def other_type(x: Tensor) -> Tensor:
    return (x + 1).add_(torch.ones(4, 1, 1, dtype=torch.float64))


PASSED: dict[str, Callable[[Tensor], Tensor]] = {
    "in place": residual,
    "reshapes that copy": lambda x: x.transpose(1, 3).reshape(len(x), -1).relu(),
    "reshapes that do not": lambda x: x.contiguous().reshape(len(x), -1).relu().view_as(x),
    "copies and none": lambda x: x.contiguous() + x.transpose(2, 3).contiguous(),
    "parts": lambda x: torch.cat([x[:, 3:], *(a.sigmoid() for a in x[:, :3].chunk(2, 1))], 1),
    "types and places": lambda x: x.to(torch.float32).to("cpu").float().type_as(x).relu(),
    "turned": lambda x: x.permute(0, 2, 3, 1).unflatten(1, (2, 3)).flatten(1, 2).movedim(-1, 1).mT,
    "attention": lambda x: F.scaled_dot_product_attention(*(x.flatten(2).mT,) * 3).mT,
    "a mean and a softmax": lambda x: x.softmax(1) * x.mean((2, 3), keepdim=True),
    "numbers and masks": lambda x: torch.where((x > 0) & (x < 1), x * torch.tensor(2.0), x.detach()),
    "resized": lambda x: F.interpolate(F.max_pool2d(F.dropout(x, 0.5, False), 2), scale_factor=2),
}
LEFT: dict[str, Callable[[Tensor], Tensor]] = {
    "always taken apart": lambda x: F.softshrink(x, 0.1),
    "a view of what was written to": lambda x: (x + 1).relu_(),
    "in place by another operation": lambda x: F.relu6(x * 2, inplace=True),
    "written to after a view of it": written_after_a_view,
    "written to with another type": other_type,
}


def images(n: int = 1) -> Tensor:
    return torch.randn((n, 3, 8, 8), generator=torch.Generator().manual_seed(0))


def text(program: Any) -> list[Any]:
    """What readers see of a graph; of parts of the module the names."""
    nodes = [n for n in program.graph_module.graph.nodes if "_assert_tensor_metadata" not in n.name]  # which none reads
    seen: list[Any] = []
    for node in nodes:
        values = node.meta.get("val")
        values = values if isinstance(values, (tuple, list)) else [values]
        first = [(v.shape, v.dtype) for v in values[:1] if isinstance(v, Tensor)]
        stack = list((node.meta.get("nn_module_stack") or {}).items()) if node.op == "call_function" else None
        seen.append((node.name, node.op, str(node.target), str(node.args), str(node.kwargs), first, stack))
    inputs = sorted((row for row in seen if row[1] == "placeholder"), key=str)  # in any order
    others = [row for row in seen if row[1] != "placeholder"]
    signature = program.graph_signature
    return [inputs, others, sorted(map(str, signature.input_specs)), str(signature.output_specs)]


def exported(module: nn.Module) -> Any:
    with torch.no_grad():
        return export(module.eval(), images(2)).program


@pytest.mark.parametrize("name", PASSED)
def test_one_pass_makes_what_a_second_export_would(name: str) -> None:
    program = exported(Between(PASSED[name]))
    found = passes.functional(program)
    assert found is not None
    assert text(found) == text(decomposed(program))
    ops = [n.target for n in found.graph_module.graph.nodes if n.op == "call_function" and hasattr(n.target, "_schema")]
    assert not any(a.alias_info is not None and a.alias_info.is_write for op in ops for a in op._schema.arguments)


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_to_pytorch(name: str) -> None:
    assert passes.functional(exported(Between(LEFT[name]))) is None


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Calls of PyTorch that make a graph."""
    calls: Counter[str] = Counter()

    def counting(holder: Any, name: str) -> None:
        made = getattr(holder, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return made(*args, **kwargs)

        monkeypatch.setattr(holder, name, call)

    counting(torch.export, "export")
    counting(torch.export.ExportedProgram, "run_decompositions")
    return calls


@pytest.mark.parametrize(("function", "again"), [(residual, 0), (LEFT["always taken apart"], 1)])
def test_a_module_is_exported_once(function: Callable[[Tensor], Tensor], again: int, counted: Counter[str]) -> None:
    dtd.from_torch(Between(function).eval(), images())
    assert (counted["export"], counted["run_decompositions"]) == (1, again)


def test_pytorchs_own_graph_decides_what_is_refused(counted: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = Between(lambda x: x.logcumsumexp(1).relu_()).eval()
    with pytest.raises(dtd.ModelError) as refused:
        dtd.from_torch(module, images())
    assert counted["run_decompositions"] == 1
    monkeypatch.setattr(passes, "functional", lambda program: None)
    with pytest.raises(dtd.ModelError) as by_pytorch:
        dtd.from_torch(module, images())
    assert str(refused.value) == str(by_pytorch.value)


# ---------------------------------------------------------------------------------------------------------- the check


class Counting(nn.Module):
    """Calls by the number of samples."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = nn.Linear(4, 3), Counter[int]()

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            self.calls[len(x)] += 1
        return self.inner(x)


@pytest.mark.parametrize(("n", "expected"), [(1, {2: 1, 1: 1}), (3, {3: 1, 2: 1})])
def test_a_module_is_called_twice_for_the_check(n: int, expected: dict[int, int]) -> None:
    module = Counting().eval()
    dtd.from_torch(module, torch.ones(n, 4))
    assert module.calls == expected


class OfPairs(nn.Module):
    """Takes no single sample."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.reshape(2, 4))


def test_a_module_that_takes_no_single_sample_is_called_with_two() -> None:
    assert dtd.predict(dtd.from_torch(OfPairs().eval(), torch.ones(1, 4)), torch.ones(1, 4).numpy()).shape == (1, 3)


class Alternating(nn.Module):
    """Every second call answers otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.state = nn.Linear(4, 3), [0]

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return self.inner(x)
        self.state[0] += 1
        return self.inner(x) * (1 + self.state[0] % 2)


def test_a_module_that_changes_its_answer_is_refused() -> None:
    with pytest.raises(dtd.ModelError, match="gives another answer when it is called again"):
        dtd.from_torch(Alternating().eval(), torch.ones(1, 4))
