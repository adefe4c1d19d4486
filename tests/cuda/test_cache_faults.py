"""Kept kernels where something went wrong: files of others, cut or unreadable ones, processes that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dtdfast import threads
from dtdfast.cuda.compile import cache, parallel
from dtdfast.cuda.compile.kernel import Binary, Kernel
from dtdfast.cuda.kernels import elementwise
from dtdfast.cuda.run import strided

CC = (9, 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DTDFAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kernel(mode: str = "times", n_axes: int = 2) -> Kernel:
    return strided.kernel_of_elements(elementwise.multiply, ("f4",) * 3, (mode,), n_axes, 0, 1, ("along",) * 2, 1)


def compiler(image: bytes = b"machine code") -> Callable[[Kernel, tuple[int, int]], Binary]:
    return lambda kernel, cc: Binary(image, kernel.name)


def test_no_part_of_a_file_is_taken_for_the_whole(folder: Path) -> None:
    made = cache.compiled(kernel(), CC, compiler())
    path = cache.path_of(kernel(), CC)
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert cache.stored(kernel(), CC) is None
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert cache.stored(kernel(), CC) is None
    path.write_bytes(whole + b"\0")
    assert cache.stored(kernel(), CC) is None
    assert cache.compiled(kernel(), CC, compiler()) == made  # which replaces it
    assert cache.stored(kernel(), CC) == made


@pytest.mark.parametrize("what", ["a folder", "a link to nothing", "a link to itself", "text of others", "sparse"])
def test_what_lies_at_the_place_of_a_kernel(what: str, folder: Path) -> None:
    path = cache.path_of(kernel(), CC)
    path.parent.mkdir()
    if what == "a folder":
        path.mkdir()
    elif what.startswith("a link"):
        path.symlink_to("nothing" if what == "a link to nothing" else path.name)
    elif what == "sparse":
        with path.open("wb") as file:
            file.truncate(1 << 20)
    else:
        path.write_text("not ours\n" * 100)
    assert cache.stored(kernel(), CC) is None
    assert cache.compiled(kernel(), CC, compiler()).image == b"machine code"


def test_times_of_files_mean_nothing(folder: Path) -> None:
    made = cache.compiled(kernel(), CC, compiler())
    for when in (0, time.time() + 1e8):
        os.utime(cache.path_of(kernel(), CC), (when, when))
        assert cache.stored(kernel(), CC) == made


KEEPING = """
import sys
from dtdfast.cuda.compile import cache
from dtdfast.cuda.compile.kernel import Binary
from dtdfast.cuda.kernels import elementwise
from dtdfast.cuda.run import strided
kernel = strided.kernel_of_elements(elementwise.multiply, ("f4",) * 3, ("times",), 2, 0, 1, ("along",) * 2, 1)
print("ready", flush=True)
for number in range(10**6):
    cache.compiled(kernel, (9, 0), lambda kernel, cc: Binary(bytes([number % 256]) * (1 << 22), kernel.name))
"""


def test_killed_while_kernels_are_kept(folder: Path, rng: np.random.Generator) -> None:
    """At whatever instant: what is found afterwards is one of those that were written, and whole."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", KEEPING], env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        found = cache.stored(kernel(), CC)
        assert found is None or (len(found.image) == 1 << 22 and len(set(found.image)) == 1)
    assert cache.compiled(kernel(), CC, compiler()) == cache.stored(kernel(), CC)


def test_a_helper_that_is_killed_while_it_compiles(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its share is compiled here."""
    monkeypatch.setattr(threads, "GIVEN", "2")
    kernels = [kernel(mode, n_axes) for mode in ("times", "positive") for n_axes in (1, 2)]
    here, start = [], parallel._start

    def started(share: list[Kernel], cc: tuple[int, int]) -> tuple[list[Kernel], subprocess.Popen[bytes]] | None:
        found = start(share, cc)
        assert found is not None
        found[1].send_signal(signal.SIGKILL)
        return found

    def compiled(kernel: Kernel, cc: tuple[int, int]) -> Binary:
        here.append(kernel)
        return Binary(b"machine code", kernel.name)

    monkeypatch.setattr(parallel, "_start", started)
    monkeypatch.setattr(cache, "compiled", compiled)
    assert set(parallel.compile_all(kernels, CC)) == set(kernels)
    assert sorted(map(repr, here)) == sorted(map(repr, kernels))
