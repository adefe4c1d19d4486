"""`import dtdfast` loads what networks are written with, and the rest when it is first named."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import dtdfast as dtd

EXPENSIVE = (
    "asyncio", "concurrent.futures", "email", "hashlib", "http", "importlib.metadata", "importlib.resources",
    "logging", "socket", "uuid",
    "PIL", "cffi", "cuda", "dask", "h5py", "keras", "matplotlib", "numba", "onnx", "safetensors", "sklearn", "torch",
    "tqdm", "zarr",
)  # fmt: skip
CORE = {
    "dtdfast",
    *(
        f"dtdfast.{name}"
        for name in (
            "activations",
            "backends",
            "errors",
            "layers",
            "layers_axes",
            "presets",
            "record",
            "rules",
            "show",
            "vocabulary",
        )
    ),
}


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


def test_the_import_loads_no_more_than_the_records() -> None:
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


def imports(path: Path, name: str, modules: set[str]) -> set[str]:
    """The package's modules that a module imports, wherever in its text."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join([*package.split(".")[: package.count(".") + 2 - node.level], *filter(None, [node.module])])
            found |= {f"{base}.{a.name}" if f"{base}.{a.name}" in modules else base for a in node.names}
    return (found & modules) - {name}


def test_the_plan_s_modules_import_each_other_in_one_order() -> None:
    root = Path(dtd.__file__).parent
    paths = {
        ".".join(p.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): p for p in root.rglob("*.py")
    }
    paths = {f"dtdfast.{name}": path for name, path in paths.items() if name.split(".")[0] == "plan"}
    order = TopologicalSorter({name: imports(path, name, {*paths}) for name, path in paths.items()})
    assert len([*order.static_order()]) == len(paths) > 40  # a circle is a CycleError that names it
