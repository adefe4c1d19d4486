"""bench/gpu_pack.py, and in the long form a rehearsal: the first stages of bench/gpu_call.py with nothing but what is
carried to a GPU, in an environment of their own, on the fake driver.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dtdfast as dtd
import gpu_pack
from dtdfast.cuda.compile import cache
from dtdfast.cuda.compile.kernel import Binary
from gpu import Clock
from nets import SMALL
from paper import PaperDevice, on_paper
from support import LONG

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CC = PaperDevice.capability
THERE = ("numpy", "pytest", "numba-cuda>=0.30", "cuda-bindings>=13,<14")  # on a rented machine; no compiler


def asked() -> gpu_pack.Shared:
    net = SMALL["digits_mlp"]()
    with on_paper() as device:
        dtd.explain(net.layers, net.sample(3), 0, backend="cuda")
    return device.shared


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> gpu_pack.Shared:
    """A cache that an earlier process filled."""
    monkeypatch.setenv("DTDFAST_CACHE", str(tmp_path / "cache"))
    shared = asked()
    for kernel in shared:
        cache.compiled(kernel, CC, lambda kernel, cc: Binary(kernel.name.encode(), kernel.name))
    return shared


def test_kernels_and_their_manifest(filled: gpu_pack.Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is packed serves as a cache, and the manifest names all of it."""
    gpu_pack.pack_kernels(filled, tmp_path / "pack", Clock(60))
    entries = json.loads((tmp_path / "pack" / "manifest.json").read_text())
    folder = tmp_path / "pack" / "kernels"
    assert {entry["file"] for entry in entries} == {path.name for path in folder.iterdir()}
    assert len(entries) == len(filled)
    assert all((entry["shared bytes"] > 0) >= (entry["name"] == "dtd_dense") for entry in entries)
    monkeypatch.setenv("DTDFAST_CACHE", str(folder))
    assert all(cache.stored(kernel, CC) for kernel in filled)


def test_a_kernel_that_cannot_be_had(filled: gpu_pack.Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.path_of(next(iter(filled)), CC).unlink()
    monkeypatch.setattr(gpu_pack, "compile_everything", lambda device, clock: (0, 1, ["CompileError: no NVVM"]))
    with pytest.raises(gpu_pack.PackError, match=f"1 of {len(filled)} kernels .* {next(iter(filled)).name} .*no NVVM"):
        gpu_pack.pack_kernels(filled, tmp_path / "pack", Clock(60))


def test_what_tests_ask_for() -> None:
    """Found without computing anything: launches go nowhere, and what compares results passes."""
    found = gpu_pack.of_tests(["tests/cuda/test_attention_kernels.py::test_norm"])
    assert {kernel.name for kernel in found} == {"norm"}


# --------------------------------------------------------------------------------------------------------- rehearsal


def interpreter() -> str:
    """Python of the version that a pack is for, else this one."""
    found = shutil.which(f"python{gpu_pack.PYTHON}")
    works = found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0
    return found if found and works else sys.executable


def environment(python: str, folder: Path) -> Path:
    """A new one, as a rented machine has; its interpreter."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    there = folder / "bin" / "python"
    subprocess.run([there, "-m", "pip", "install", "--quiet", *THERE], check=True)
    return there


def rehearse(pack: Path, scratch: Path, there: Path) -> list[Any]:
    """Rows of gpu_call.py's first stages, by an interpreter that finds a copy of bench/ and tests/."""
    tree, site, hook = scratch / "tree", scratch / "site", scratch / "hook"
    for name in ("bench", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    wheels = sorted((pack / "wheels").glob("*.whl"))
    install = [there, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--ignore-requires-python"]
    subprocess.run([*install, "--target", site, *wheels], check=True)

    hook.mkdir()
    (hook / "sitecustomize.py").write_text("import rehearsal\nrehearsal.install()\n")
    compiler = os.environ.get("CC") or shutil.which("cc") or "gcc"
    library = [compiler, "-D_GNU_SOURCE", "-shared", "-fPIC", "-O1", "-o", scratch / "libcuda.so.1"]
    subprocess.run([*library, tree / "tests" / "cuda" / "lib" / "libcuda.c", "-ldl"], check=True)
    helpers = [tree / "tests" / "cuda" / "lib", tree / "tests" / "cuda", tree / "tests" / "lib", tree / "bench"]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DTDFAST_", "VIRTUAL"))},
        "PYTHONPATH": os.pathsep.join(map(str, [hook, site, *helpers])),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [str(scratch), os.environ.get("LD_LIBRARY_PATH")])),
        "PATH": os.defpath,
    }
    (scratch / "out").mkdir()
    command = [there, tree / "bench" / "gpu_call.py", pack, scratch / "out", "--stages", "versions", "kernels", "smoke"]
    done = subprocess.run(command, env=environment, cwd=scratch, capture_output=True, text=True, timeout=600)
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stderr[-4000:]
    rows: list[Any] = json.loads((scratch / "out" / "rows.json").read_text())["rows"]
    return rows


def check_rehearsed(rows: list[Any], n_kernels: int) -> None:
    assert [row["kind"] for row in rows] == ["versions", "kernels", "smoke", "smoke", "smoke"], rows
    assert all(row["right"] for row in rows[1:]), rows
    assert rows[1]["loaded"] == n_kernels


def a_rehearsal(tmp_path: Path) -> None:
    """Every kernel is found and loaded, and what runs is right, where nothing can be compiled."""
    pack, python = tmp_path / "pack", interpreter()
    said = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = subprocess.run([python, "-c", said], capture_output=True, text=True, check=True).stdout.strip()
    shared = gpu_pack.of_smoke()
    gpu_pack.pack_kernels(shared, pack, Clock(600))
    gpu_pack.pack_wheels(None, pack / "wheels", version)
    print(f"packed: {gpu_pack.size(pack):,} bytes")
    check_rehearsed(rehearse(pack, tmp_path, environment(python, tmp_path / "there")), len(shared))


if LONG:  # minutes, and an index of packages
    test_a_rehearsal = a_rehearsal
