"""What is said where CUDA cannot be used, and how devices and precisions are asked for."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
from argparse import Namespace
from importlib import metadata

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast.cli.doctor import doctor
from dtdfast.cuda.compile import cache, parallel
from dtdfast.cuda.compile.kernel import Binary
from dtdfast.cuda.kernels import elementwise, strided
from dtdfast.cuda.run import usable
from dtdfast.cuda.run.driver import device_number
from host import HostDevice
from support import classifier, normal


class FakeDriver:
    """libcuda as far as a survey asks it."""

    def __init__(self, status=0, devices=((b"NVIDIA H200", (9, 0)),), version=13010):
        self.status, self.devices, self.version = status, devices, version

    def cuInit(self, flags):
        return self.status

    def cuGetErrorString(self, status, text):
        text._obj.value = b"system not yet initialized" if status == 802 else None
        return 0

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.devices)

    def cuDriverGetVersion(self, version):
        version._obj.value = self.version

    def cuDeviceGet(self, device, number):
        device._obj.value = number

    def cuDeviceGetName(self, text, length, device):
        text.value = self.devices[device.value][0]

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = self.devices[device.value][1][attribute - 75]


@pytest.fixture
def driver(monkeypatch):
    """Put a driver in the place of libcuda; None: there is none."""

    def use(made):
        def load(name):
            if made is None:
                raise OSError(f"{name}: cannot open shared object file")
            return made

        monkeypatch.setattr(ctypes, "CDLL", load)
        usable.survey.cache_clear()

    yield use
    usable.survey.cache_clear()


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (None, "there is no NVIDIA driver here (libcuda.so.1: cannot open shared object file)"),
        (FakeDriver(802), "the NVIDIA driver does not start (system not yet initialized)"),
        (FakeDriver(3), "the NVIDIA driver does not start (error 3)"),
        (FakeDriver(devices=()), "the NVIDIA driver sees no GPU (CUDA_VISIBLE_DEVICES may hide it)"),
        (
            FakeDriver(devices=((b"Tesla V100", (7, 0)),)),
            "Tesla V100 has compute capability 7.0; at least 8.0 is needed",
        ),
    ],
)
def test_reasons(driver, monkeypatch, made, reason, rng):
    driver(made)
    found = dtd.backends()["cuda"]
    assert not found.usable
    assert found.reason == reason
    monkeypatch.setattr("dtdfast.cli.doctor.metadata.requires", lambda name: [])
    assert reason in doctor(Namespace(json=False))
    assert dtd.build_config()["cuda"] == reason
    layers, x = classifier(rng), normal(rng, 1, 3, 6, 6)
    with pytest.raises(dtd.BackendError) as error:
        dtd.explain(layers, x, backend="cuda")
    assert str(error.value) == f"backend 'cuda' is not usable: {reason}"
    assert dtd.Explainer(layers, backend="auto")._backend == "cpu"


@pytest.mark.parametrize(("version", "extra"), [(12080, "cuda12"), (13010, "cuda13")])
@pytest.mark.parametrize("missing", ["numba", "numba_cuda"])
def test_missing_packages_name_their_extra(driver, monkeypatch, version, extra, missing):
    driver(FakeDriver(version=version))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    assert (
        dtd.backends()["cuda"].reason == f"{missing.replace('_', '-')} is not installed: pip install 'dtdfast[{extra}]'"
    )


def test_what_is_there(driver):
    driver(FakeDriver(devices=((b"NVIDIA H200", (9, 0)), (b"Tesla V100", (7, 0)))))
    found = dtd.backends()["cuda"]
    assert found.usable
    assert (
        found.reason
        == "NVIDIA H200 (compute capability 9.0), Tesla V100 (compute capability 7.0); driver for CUDA 13.1"
    )
    assert found.precisions == ("float32", "tf32", "bfloat16", "mixed")
    assert next(iter(b.name for b in dtd.backends().values() if b.usable)) == "cuda"  # what "auto" takes


def with_numpy(version, monkeypatch):
    monkeypatch.setattr(np, "__version__", version)
    monkeypatch.setattr(metadata, "version", lambda name: {"numba-cuda": "0.30.4", "cuda-bindings": "13.1"}[name])


def test_numpy_that_numba_cannot_compile_with(driver, monkeypatch):
    """The survey says so; what is kept on disk runs all the same."""
    driver(FakeDriver())
    with_numpy("2.5.1", monkeypatch)
    found = dtd.backends()["cuda"]
    assert found.usable
    assert found.reason == (
        "NVIDIA H200 (compute capability 9.0); driver for CUDA 13.1; numba-cuda 0.30.4 cannot compile kernels with "
        "NumPy 2.5.1: pip install 'numpy<2.5'; until then only kernels that are kept on disk run"
    )
    with_numpy("2.4.9", monkeypatch)
    usable.survey.cache_clear()
    assert dtd.backends()["cuda"].reason == "NVIDIA H200 (compute capability 9.0); driver for CUDA 13.1"


def test_a_kernel_that_must_be_compiled(monkeypatch, tmp_path):
    """It is refused before anything else is compiled; kept ones are loaded."""
    monkeypatch.setenv("DTDFAST_CACHE", str(tmp_path))
    made = strided.kernel_of_elements(elementwise.multiply, ("f4",) * 3, ("times",), 1, 0, 1, ("along",) * 2, 1)
    cache.compiled(made, (9, 0), lambda kernel, cc: Binary(b"code", kernel.name))
    with_numpy("2.5.0rc1", monkeypatch)
    monkeypatch.setattr(cache, "compiled", lambda *ignored: pytest.fail("compiled"))
    assert cache.stored(made, (9, 0)) == Binary(b"code", "multiply")
    reason = "numba-cuda 0.30.4 cannot compile kernels with NumPy 2.5.0rc1: pip install 'numpy<2.5'"
    with pytest.raises(dtd.BackendError) as error:
        parallel.compile_all([made], (9, 0))
    assert str(error.value) == f"1 kernel(s) are not kept in {tmp_path}, and {reason}"


# NumPy's version changes when all is imported: numba-cuda's own dependencies ask for it, too
FIRST_KERNEL = """
import numpy as np
from numba import cuda
from numba.cuda import types
np.__version__ = "2.5.0"
np.__dict__.pop("row_stack", None)
try:
    cuda.compile_ptx(lambda a: None, (types.int64,), cc=(9, 0))
except AttributeError as error:
    print(error)
"""


def test_numba_still_asks_for_what_numpy_took_away():
    """Where it does not any more, `parallel.obstacle` and the bound in pyproject.toml can go."""
    done = subprocess.run([sys.executable, "-c", FIRST_KERNEL], capture_output=True, text=True, check=True)
    assert done.stdout == "module 'numpy' has no attribute 'row_stack'\n"


def test_the_cpu_does_not_start_the_driver(driver, rng):
    called = []

    class Listening:
        def __getattr__(self, name):
            called.append(name)
            raise AttributeError(name)

    driver(Listening())
    dtd.explain(classifier(rng), normal(rng, 1, 3, 6, 6), backend="cpu")
    assert not called


@pytest.mark.parametrize(
    ("device", "number"), [(None, 0), (2, 2), ("1", 1), ("cuda", 0), ("cuda:3", 3), (np.int64(1), 1)]
)
def test_device_numbers(device, number):
    assert device_number(device) == number


@pytest.mark.parametrize("device", ["cpu", -1, 1.5, True, "cuda:x", "gpu"])
def test_device_numbers_that_are_none(device):
    with pytest.raises(dtd.BackendError, match="expected the number of a GPU"):
        device_number(device)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "mixed"])
def test_narrow_precisions_refuse_rules_that_cancel(explainer, rng, precision):
    layers, x = classifier(rng), normal(rng, 1, 3, 6, 6)
    made = explainer(layers, precision=precision)
    assert np.isfinite(made.explain(x)).all()
    made.predict(x)
    for rule in (dtd.Epsilon(), dtd.Zero(), dtd.Gamma()):
        with pytest.raises(dtd.RuleError, match=f"layer 4: the rule .* cancel; with operands in {precision}"):
            explainer(layers, precision=precision, rules={4: rule}).explain(x)
    with pytest.raises(
        dtd.BackendError,
        match="precision 'float64' is not available on backend 'cuda', which computes in float32, tf32",
    ):
        explainer(layers, precision="float64")


def test_precision_reaches_the_contractions(explainer, monkeypatch, rng):
    import reference

    seen = []
    launches = reference.launches
    monkeypatch.setattr(reference, "launches", lambda *a: (seen.append(a[3:6]), launches(*a))[1])
    explainer(classifier(rng), HostDevice(compiled=True), precision="bfloat16").explain(normal(rng, 1, 3, 6, 6))
    assert set(seen) == {("bfloat16", HostDevice.multiprocessors, HostDevice.shared_bytes)}
