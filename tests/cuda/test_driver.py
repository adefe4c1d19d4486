"""driver.py through NVIDIA's own Python bindings, on a libcuda that is the host."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

LIB = Path(__file__).resolve().parent / "lib"


def test_driver(tmp_path):
    compiler = os.environ.get("CC") or shutil.which("cc") or "gcc"
    library = tmp_path / "libcuda.so.1"
    subprocess.run(
        [compiler, "-D_GNU_SOURCE", "-shared", "-fPIC", "-O1", "-o", library, LIB / "libcuda.c", "-ldl"], check=True
    )
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("LD_LIBRARY_PATH")]))
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": path,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run(
        [sys.executable, LIB / "fake_driver.py"], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip().endswith("right")
    assert "compiling" in done.stderr  # the message of a first call
