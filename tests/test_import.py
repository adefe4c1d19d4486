"""`import dtdfast` loads next to nothing, and the rest when it is first named."""

from __future__ import annotations

import subprocess
import sys
import sysconfig

import dtdfast as dtd

EXPENSIVE = (
    "asyncio", "concurrent.futures", "email", "hashlib", "http", "importlib.metadata", "importlib.resources",
    "logging", "socket", "uuid",
    "PIL", "cffi", "cuda", "dask", "h5py", "keras", "matplotlib", "numba", "onnx", "safetensors", "sklearn", "torch",
    "tqdm", "zarr",
)  # fmt: skip
CORE = {f"dtdfast{name}" for name in ("", ".backends", ".errors", ".locks", ".threads")}


def loaded(code: str) -> set[str]:
    """Modules that the code adds to those of numpy, in a fresh process without what site packages put there at its
    start.
    """
    program = (
        f"import sys; sys.path[:] = {sys.path!r}; import numpy; before = set(sys.modules); {code}; "
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", program], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_the_import_loads_no_more_than_errors_backends_and_threads() -> None:
    modules = loaded("import dtdfast")
    assert {name for name in modules if name.partition(".")[0] == "dtdfast"} == CORE
    assert not modules & set(EXPENSIVE)


def test_explaining_on_the_cpu_loads_no_other_way() -> None:
    modules = loaded(
        "import dtdfast as dtd, numpy as np; dtd.explain([dtd.Linear(np.eye(3))], np.ones((1, 3)), backend='cpu')"
    )
    assert "dtdfast.cpu.executor" in modules
    assert (
        not {"dtdfast.importers", "dtdfast.oracle.executor", "dtdfast.plot", "dtdfast.runs", "dtdfast.storage"}
        & modules
    )
    assert not modules & set(EXPENSIVE)


def test_every_name_is_there_and_is_listed() -> None:
    assert set(dtd.__all__) <= set(dir(dtd))
    code = f"import sys; sys.path[:] = {sys.path!r}; from dtdfast import *; print(backends, run, __name__)"
    printed = subprocess.run(
        [sys.executable, "-c", code],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert "<function backends" in printed
    assert "<function run" in printed
    for name in dtd.__all__:
        assert getattr(dtd, name) is getattr(dtd, name), name


def test_a_submodule_of_a_function_s_name_does_not_replace_it() -> None:
    submodules = "import dtdfast.backends, dtdfast.runs, dtdfast.explainer, dtdfast.cpu.executor"
    assert "dtdfast.runs.run" in loaded(
        f"{submodules}; import dtdfast as dtd; dtd.backends(); assert callable(dtd.run)"
    )


def test_a_python_without_its_lock_stays_without() -> None:
    """An extension module that does not say so brings the lock back, with a warning."""
    code = "import sys; import dtdfast.cpu; print(getattr(sys, '_is_gil_enabled', lambda: True)())"
    printed = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == str(not sysconfig.get_config_var("Py_GIL_DISABLED"))
