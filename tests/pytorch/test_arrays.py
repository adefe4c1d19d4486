"""Arrays of PyTorch, and of CuPy as far as that goes without a GPU, in and out."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from scipy.sparse import csr_matrix

import dtdfast as dtd
from dtdfast.arrays.foreign import take

LAYERS = [dtd.Conv(np.ones((2, 3, 2, 2)), [0.0, -1.0]), dtd.ReLU(), dtd.Flatten(), dtd.Linear(np.ones((2, 18)), None)]
X = torch.arange(96.0).reshape(2, 3, 4, 4) / 96


def test_tensors_are_read_in_place() -> None:
    for x in (X, X.to(memory_format=torch.channels_last), X[..., ::2], X.double(), torch.nn.Parameter(X)):
        host, home = take(x)
        assert host.__array_interface__["data"][0] == x.data_ptr()
        assert host.strides == tuple(s * x.element_size() for s in x.stride())
        assert home.here


def test_results_are_tensors() -> None:
    relevance, outputs = dtd.explain(LAYERS, X, torch.tensor([0, 1]), return_outputs=True)
    plain, plain_outputs = dtd.explain(LAYERS, X.numpy(), np.array([0, 1]), return_outputs=True)
    for tensor, array in ((relevance, plain), (outputs, plain_outputs), (dtd.predict(LAYERS, X), plain_outputs)):
        assert isinstance(tensor, torch.Tensor)
        assert tensor.device == X.device
        np.testing.assert_array_equal(tensor.numpy(), array)
    assert torch.equal(
        dtd.explain(LAYERS, X.clone().requires_grad_().to(memory_format=torch.channels_last), [0, 1]), relevance
    )
    start = torch.eye(2) * 3
    np.testing.assert_array_equal(
        dtd.explain(LAYERS, X, start).numpy(), dtd.explain(LAYERS, X.detach().numpy(), start.numpy())
    )


def test_out_is_written_in_place() -> None:
    out = torch.empty_like(X)
    assert dtd.explain(LAYERS, X, 0, out=out) is out
    assert torch.equal(out, dtd.explain(LAYERS, X, 0))
    with pytest.raises(dtd.ShapeError, match="float64"):
        dtd.explain(LAYERS, X, 0, out=out.double())


def test_narrow_tensors() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(dtd.explain(LAYERS, X.to(dtype), 0), dtd.explain(LAYERS, X.to(dtype).float(), 0))


def test_baselines_and_ledgers() -> None:
    np.testing.assert_allclose(
        dtd.baselines.input_x_gradient(LAYERS, X, 0).numpy(), dtd.baselines.input_x_gradient(LAYERS, X.numpy(), 0)
    )
    root = torch.zeros_like(X)
    assert isinstance(dtd.baselines.simple_taylor(LAYERS, X, root, 0), torch.Tensor)
    assert str(dtd.Explainer(LAYERS).ledger(X)) == str(dtd.Explainer(LAYERS).ledger(X.numpy()))


def test_records_and_rules_hold_tensors() -> None:
    weight = torch.arange(12.0).reshape(3, 4)
    for given in (weight, torch.nn.Parameter(weight), weight.bfloat16(), weight.half()):
        record = dtd.Linear(given, torch.zeros(3, requires_grad=True))
        assert record.weight.dtype == record.bias.dtype == np.float32
        np.testing.assert_array_equal(record.weight, weight.numpy())
    weight[:] = 0
    assert record.weight.any()
    assert isinstance(dtd.ZBox(torch.zeros(3, requires_grad=True), 1).low, np.ndarray)
    assert type(dtd.Epsilon(torch.tensor(0.5)).stabilizer) is float
    for wrong in (weight.to_sparse(), weight.to("meta"), weight.to(torch.complex64), weight.int(), None):
        with pytest.raises(dtd.LayerError, match="Linear: weight is "):
            dtd.Linear(wrong)


def test_sparse_arrays_are_refused() -> None:
    with pytest.raises(dtd.InputError, match=r"x is a tensor of .* to_dense"):
        dtd.predict(LAYERS, X.to_sparse())
    with pytest.raises(dtd.TargetError, match=r"target is a tensor of .* to_dense"):
        dtd.explain(LAYERS, X, torch.eye(2).to_sparse())
    with pytest.raises(dtd.InputError, match="x is a sparse csr_matrix; pass what its toarray"):
        dtd.predict(LAYERS, csr_matrix(np.eye(3)))


class DeviceArray:
    """What CuPy's ndarray offers to `foreign`, with the values in main memory."""

    def __init__(self, values: Any, device: int) -> None:
        self.values, self.device = values, type("Device", (), {"id": device})()

    def get(self) -> Any:
        return self.values.copy()


class CurrentDevice:
    """CuPy's device as a context manager."""

    now = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __enter__(self) -> None:
        CurrentDevice.now, self.before = self.number, CurrentDevice.now

    def __exit__(self, *_: object) -> None:
        CurrentDevice.now = self.before


def test_cupy_arrays_go_back_to_their_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = ModuleType("cupy")
    cupy.ndarray, cupy.cuda = DeviceArray, ModuleType("cupy.cuda")  # type: ignore[attr-defined]
    cupy.cuda.Device = CurrentDevice  # type: ignore[attr-defined]
    cupy.asarray = lambda values: DeviceArray(values, CurrentDevice.now)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    result = dtd.explain(LAYERS, DeviceArray(X.numpy(), 3), DeviceArray(np.array([0, 1]), 3))
    assert isinstance(result, DeviceArray)
    assert result.device.id == 3
    np.testing.assert_array_equal(result.values, dtd.explain(LAYERS, X.numpy(), [0, 1]))
    with pytest.raises(dtd.InputError, match="device 3"):
        dtd.explain(LAYERS, X.numpy(), out=DeviceArray(X.numpy(), 3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_tensors_on_a_gpu() -> None:
    relevance = dtd.explain(LAYERS, X.cuda(), 0, backend="cpu")
    assert relevance.device.type == "cuda"
    assert torch.equal(relevance.cpu(), dtd.explain(LAYERS, X, 0, backend="cpu"))


def test_a_run_over_a_tensor(tmp_path: Path) -> None:
    dtd.run(LAYERS, torch.nn.Parameter(X), tmp_path / "maps.zarr", torch.tensor([0, 1]))
    found = zarr.open_group(tmp_path / "maps.zarr")["relevance"][:]
    np.testing.assert_array_equal(found, dtd.explain(LAYERS, X.detach().numpy(), [0, 1]))
