"""from_torch given more than one module in evaluation mode: exported programs, whole parts that are refused, state,
quantisation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dtdfast as dtd
from support import kinds

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(4, 3),
    )


LAYERS = "Conv BatchNorm ReLU GlobalAvgPool Flatten Linear"


def images(n: int = 2) -> Tensor:
    return torch.randn((n, 3, 8, 6), generator=torch.Generator().manual_seed(0))


# ----------------------------------------------------------------------------------------------------------- programs


@pytest.mark.parametrize("n_batch", [1, 2])
def test_a_program_from_a_file(n_batch: int, tmp_path: Path) -> None:
    module = classifier().eval()
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(module, (images(n_batch),)), path)
    layers = dtd.from_torch(path)
    assert kinds(layers) == LAYERS
    assert [layer.name for layer in layers if layer.name] == ["0", "1", "2", "3", "6"]
    x = images(3)
    with torch.no_grad():
        np.testing.assert_allclose(dtd.predict(layers, x.numpy()), module(x).numpy(), rtol=0, atol=1e-5)
    with pytest.raises(dtd.InputError, match=r"example has shape \(3, 3, 8, 6\), but the program was exported for"):
        dtd.from_torch(str(path), x)


def test_a_program_with_open_sizes_takes_the_examples() -> None:
    batch, height = torch.export.Dim("batch"), torch.export.Dim("height", min=4)
    program = torch.export.export(classifier().eval(), (images(),), dynamic_shapes=({0: batch, 2: height},))
    assert kinds(dtd.from_torch(program)) == LAYERS
    layers = dtd.from_torch(program, torch.randn(1, 3, 5, 6))
    assert kinds(layers) == LAYERS
    assert dtd.predict(layers, np.ones((1, 3, 5, 6), np.float32)).shape == (1, 3)


class LastToken(nn.Module):
    """What depends on the number of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x[:, -1].relu() * x.shape[1] ** 0.5)


@pytest.mark.parametrize("n_batch", [1, 2])
def test_a_program_explained_at_another_length_than_its_examples(n_batch: int, tmp_path: Path) -> None:
    module, path = LastToken().eval(), tmp_path / "net.pt2"
    tokens = ({1: torch.export.Dim("tokens", min=2, max=9)},)
    program = torch.export.export(module, (torch.randn(n_batch, 5, 4),), dynamic_shapes=tokens)
    torch.export.save(program, path)
    for length in (5, 8, 3):
        x = torch.randn(3, length, 4)
        for model in (program, path):
            found = dtd.predict(model, x.numpy())
            np.testing.assert_allclose(found, module(x).detach().numpy(), rtol=0, atol=1e-5)
            assert np.flatnonzero(np.abs(dtd.explain(model, x.numpy(), 0)).sum((0, 2))).tolist() == [length - 1]
    with pytest.raises(dtd.InputError, match=r"cannot take an example of shape \(\d, 10, 4\)"):
        dtd.predict(program, np.ones((3, 10, 4)))
    fixed = torch.export.export(module, (torch.randn(n_batch, 5, 4),))
    with pytest.raises(dtd.InputError, match="but the program was exported for"):
        dtd.predict(fixed, np.ones((3, 8, 4)))


def test_programs_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(dtd.ModelError, match=r"net\.pt2: there is no such file"):
        dtd.from_torch(tmp_path / "net.pt2")
    (tmp_path / "net.pt2").write_bytes(b"PK\x03\x04 not a program")
    with pytest.raises(dtd.ModelError, match=r"net\.pt2: not a program written by torch\.export\.save"):
        dtd.from_torch(tmp_path / "net.pt2")
    training = torch.export.export(classifier(), (images(),))
    with pytest.raises(
        dtd.ModelError, match=r"'1\.running_mean' up to date: .* export the module after module\.eval\(\)"
    ):
        dtd.from_torch(training)

    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    program = torch.export.export(Two(), (images(), images()))
    with pytest.raises(dtd.InputError, match="keeps no example of a single tensor; pass example="):
        dtd.from_torch(program)
    with pytest.raises(dtd.ModelError, match="takes 2 inputs, expected one"):
        dtd.from_torch(program, images())


# ----------------------------------------------------------------------------------------------------------- refusals


class Last(nn.Module):
    """A sequence model and a linear layer on its last step."""

    def __init__(self, part: nn.Module, n: int) -> None:
        super().__init__()
        self.part, self.head = part, nn.Linear(n, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.part(x)[0][:, -1])


SEQUENCES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "LSTM": (lambda: Last(nn.LSTM(4, 5, batch_first=True), 5),
    r"in 'part'\): it is part of LSTM: recurrence .* convolutions"),
    "GRU": (lambda: Last(nn.GRU(4, 5, batch_first=True), 5), "it is part of GRU: recurrence has no record"),
}  # fmt: skip


@pytest.mark.parametrize("name", SEQUENCES)
def test_parts_are_refused_by_name(name: str) -> None:
    make, message = SEQUENCES[name]
    with pytest.raises(dtd.ModelError, match=message):
        dtd.from_torch(make().eval(), torch.randn(2, 6, 4))


class Counting(nn.Module):
    """Multiplies by the number of its calls, kept as a buffer or as a plain number."""

    def __init__(self, buffer: bool) -> None:
        super().__init__()
        self.buffer = buffer
        self.number = 0
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.buffer:
            self.calls += 1
            return x.relu()
        self.number += 1
        return x * self.number


class Twice(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return self.part(self.part(x))


@pytest.mark.parametrize(
    ("buffer", "message"),
    [
        (True, r"changes its buffer 'part\.calls' when called; explain a module without changing state"),
        (False, "another answer when it is called again"),
    ],
)
def test_a_shared_part_whose_state_changes_is_refused(buffer: bool, message: str) -> None:
    with pytest.raises(dtd.ModelError, match=message):
        dtd.from_torch(Twice(Counting(buffer)).eval(), images())


def test_quantised_modules_are_refused() -> None:
    module = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(144, 3)).eval(), {nn.Linear})
    with pytest.raises(dtd.ModelError, match="part '1': quantised operations have no record; import the float model"):
        dtd.from_torch(module, images())


def test_what_has_no_values_yet() -> None:
    lazy = nn.Sequential(nn.LazyLinear(3)).eval()
    for module in (lazy, nn.Linear(4, 3, device="meta").eval()):
        with pytest.raises(dtd.ModelError, match=r"weight has no values yet; .* call a lazy module once"):
            dtd.from_torch(module, torch.ones(1, 4))
    with pytest.raises(dtd.InputError, match=r"layout torch.sparse_coo; pass what its to_dense\(\) gives"):
        dtd.from_torch(classifier().eval(), images().to_sparse())


def test_a_missing_example_is_named() -> None:
    with pytest.raises(dtd.InputError, match=r"example is a NoneType, expected one torch\.Tensor"):
        dtd.from_torch(classifier().eval())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.LazyLinear(2).eval(), "weight has no values yet"),
        (nn.Linear(3, 2, device="meta").eval(), "weight has no values yet"),
        (torch.jit.script(nn.Linear(3, 2).eval()), "scripted or traced"),
        (torch.jit.freeze(torch.jit.script(nn.Linear(3, 2).eval())), "scripted or traced"),
    ],
)
def test_what_cannot_be_read_is_named(module: nn.Module, message: str) -> None:
    with pytest.raises(dtd.ModelError, match=message):
        dtd.from_torch(module, torch.ones(1, 3))


# ------------------------------------------------------------------------------------------------------------ outputs


class Beside(nn.Module):
    """Returns its tensor beside other things."""

    def __init__(self, packed: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.fc, self.packed = nn.Linear(3, 2), packed

    def forward(self, x: Tensor) -> object:
        return self.packed(self.fc(x))


@pytest.mark.parametrize(
    "packed", [lambda y: (y, None), lambda y: {"a": None, "b": [3, y, "c"]}, lambda y: (y.shape[1], y)]
)
def test_what_is_no_tensor_is_left_out_of_the_outputs(packed: Callable[[Tensor], object]) -> None:
    assert kinds(dtd.from_torch(Beside(packed).eval(), torch.randn(2, 3))) == "Linear"


def test_attention_without_its_weights_is_a_network() -> None:
    class Alone(nn.MultiheadAttention):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
            return super().forward(x, x, x, need_weights=False)

    x = torch.randn(2, 5, 4)
    module = Alone(4, 2, batch_first=True).eval()
    np.testing.assert_allclose(
        dtd.predict(dtd.from_torch(module, x), x.numpy()), module(x)[0].detach(), rtol=1e-5, atol=1e-6
    )


def test_the_module_of_a_program_has_no_mode() -> None:
    program = torch.export.export(classifier().eval(), (images(),))
    assert kinds(dtd.from_torch(program.module(), images())) == LAYERS
