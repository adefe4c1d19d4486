"""Arrays of PyTorch and CuPy that lie on a GPU: read there, on their library's stream, results beside them."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import dtdfast as dtd

STREAM = 77  # on which the library works on every GPU; on the current device, which is another, on none


class FakeArray:
    """A library's array as far as it is used here, whose GPU is the host."""

    def __init__(self, values, number=0):
        self.values, self.number, self.shape = values, number, values.shape

    @property
    def __cuda_array_interface__(self):
        return {
            **self.values.__array_interface__,
            "strides": None if self.values.flags.c_contiguous else self.values.strides,
        }

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return type(self)(self.values[index], self.number)


class FakeCupy(FakeArray):
    @property
    def dtype(self):
        return self.values.dtype

    @property
    def nbytes(self):
        return self.values.nbytes

    @property
    def device(self):
        return _Current(self.number)

    def get(self):
        return self.values.copy()


class _Current:
    """A device that is CuPy's current one for a while."""

    now = None

    def __init__(self, number):
        self.id = number

    def __enter__(self):
        _Current.now = self.id

    def __exit__(self, *what):
        _Current.now = None


class FakeTensor(FakeArray):
    is_cuda = True

    @property
    def dtype(self):
        return _Dtype(self.values.dtype.name)

    @property
    def device(self):
        return SimpleNamespace(index=self.number)

    def detach(self):
        return self

    def to(self, dtype):
        return FakeTensor(self.values.astype(dtype.name, copy=False), self.number)

    def contiguous(self):
        return FakeTensor(np.ascontiguousarray(self.values), self.number)

    def numel(self):
        return self.values.size

    def element_size(self):
        return self.values.itemsize

    def new_empty(self, shape, dtype):
        return FakeTensor(np.full(shape, np.nan, dtype.name), self.number)

    def float(self):
        return self.to(_Dtype("float32"))

    def cpu(self):
        return SimpleNamespace(numpy=self.values.copy)


class _Dtype:
    def __init__(self, name):
        self.name = name

    def __str__(self):
        return f"torch.{self.name}"


def cupy_module():
    cupy = ModuleType("cupy")
    cupy.cuda = SimpleNamespace(
        get_current_stream=lambda: SimpleNamespace(ptr=0 if _Current.now is None else STREAM + _Current.now)
    )
    cupy.ascontiguousarray = lambda x, dtype: FakeCupy(np.ascontiguousarray(x.values, dtype), x.number)
    cupy.empty = lambda shape, dtype: FakeCupy(np.full(shape, np.nan, dtype), _Current.now)
    return cupy


def torch_module():
    torch = ModuleType("torch")
    torch.float32, torch.int64 = _Dtype("float32"), _Dtype("int64")
    torch.cuda = SimpleNamespace(current_stream=lambda device: SimpleNamespace(cuda_stream=STREAM + device.index))
    return torch


LIBRARIES = {"cupy": (FakeCupy, "cupy._core.core", cupy_module), "torch": (FakeTensor, "torch", torch_module)}


@pytest.fixture(params=LIBRARIES)
def on_gpu(request, monkeypatch):
    """Turns NumPy arrays into arrays "on a GPU"."""
    kind, module, make = LIBRARIES[request.param]
    monkeypatch.setattr(kind, "__module__", module)
    monkeypatch.setitem(sys.modules, request.param, make())
    return kind


@pytest.fixture
def x(rng):
    return rng.standard_normal((3, 3, 6, 6), dtype=np.float32)


@pytest.fixture
def streams(device, monkeypatch):
    """The streams that the device was given."""
    seen = []
    for name in ("upload", "download", "copy", "replay", "synchronize"):
        method = getattr(device, name)
        monkeypatch.setattr(device, name, lambda *a, method=method: (seen.append(a[-1]), method(*a))[1])
    return seen


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("target", [None, 2, np.array([[0, 3]])])
def test_arrays_on_the_gpu_stay_there(explainer, device, network, on_gpu, x, streams, target, number):
    device.number = number
    made = explainer(network, device)
    expected = made.explain(x, target)
    streams.clear()
    device.log.clear()
    found, outputs = made.explain(on_gpu(x, number), target, return_outputs=True)
    for result in (found, outputs):
        assert isinstance(result, on_gpu)
        assert result.number == number
    np.testing.assert_array_equal(found.values, expected)
    np.testing.assert_array_equal(outputs.values, made.predict(on_gpu(x, number)).values)
    assert set(streams) == {STREAM + number}  # the caller's, throughout
    assert device.log.count("copy") == 4 + 1  # x, result, outputs; x and outputs of predict
    out = on_gpu(np.zeros_like(expected), number)
    assert made.explain(on_gpu(x.astype(np.float64), number), target, out=out) is out
    np.testing.assert_array_equal(out.values, expected)
    np.testing.assert_array_equal(
        made.explain(on_gpu(x.transpose(0, 1, 3, 2), number)[:2]).values, made.explain(x.transpose(0, 1, 3, 2)[:2])
    )


def test_chunks_of_targets_on_the_gpu(explainer, device, network, on_gpu, x):
    made = explainer(network, device)
    expected = made.explain(x, np.arange(5)[None])
    made._executor((3, 6, 6), "explain")._most[False] = (2, 2)
    np.testing.assert_array_equal(made.explain(on_gpu(x), np.arange(5)[None]).values, expected)


def test_word_numbers_on_the_gpu(explainer, rng, on_gpu):
    layers = [dtd.Embedding(rng.standard_normal((7, 4))), dtd.Flatten(), dtd.Linear(rng.standard_normal((3, 20)))]
    words, made = rng.integers(0, 7, (2, 5)), explainer(layers)
    np.testing.assert_array_equal(made.explain(on_gpu(words)).values, made.explain(words))
    with pytest.raises(dtd.InputError, match="word numbers 0 to 7"):
        made.explain(on_gpu(np.array([[0, 1, 2, 3, 7]])))


def test_refusals(explainer, device, network, on_gpu, x):
    made = explainer(network, device)
    with pytest.raises(
        dtd.InputError, match=r"x lies on GPU 3, but this Explainer computes on GPU 0: make it with device=3"
    ):
        made.explain(on_gpu(x, 3))
    for out in (
        np.empty_like(x),
        on_gpu(x, 1),
        on_gpu(np.empty((3, 6, 6, 3), np.float32).transpose(0, 3, 1, 2)),
        on_gpu(x.astype(float)),
    ):
        with pytest.raises(dtd.ShapeError, match="beside x on its GPU"):
            made.explain(on_gpu(x), out=out)
    with pytest.raises(dtd.InputError, match="integers are for an Embedding only"):
        made.explain(on_gpu(np.zeros((2, 3, 6, 6), int)))
    bad = x.copy()
    bad[0, 1, 2, 3] = np.nan
    with pytest.raises(dtd.InputError, match=r"first at \(0, 1, 2, 3\)"):
        made.explain(on_gpu(bad))
