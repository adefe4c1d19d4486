"""Runs and files where the machine fails: a full disk, too little memory, too few file handles, a clock that goes
backwards.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

import dtdfast as dtd
from dtdfast.data import digits
from dtdfast.images import Preparation
from dtdfast.runs.arrays import Rows
from dtdfast.runs.sources import open_source
from photographs import photographs
from run_support import ENVIRONMENT, contents, stored
from support import classifier

LAYERS, IMAGES, _ = digits()
FED = Preparation(size=(6, 6))
STARVED = [
    MemoryError(),
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    OSError(errno.ESTALE, "Stale file handle"),
    BlockingIOError(errno.EAGAIN, "somebody writes it"),
]


# ------------------------------------------------------------------------------------------------ memory, file handles


@pytest.mark.parametrize("error", STARVED, ids=repr)
@pytest.mark.parametrize("kind", ["array", "pictures"])
def test_too_little_memory_is_no_bad_sample(
    kind: str, error: Exception, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run stops, and goes on when there is some again: no sample is stored as one that cannot be read."""
    if kind == "array":
        layers, data, owner, method, options = LAYERS, IMAGES[:8], Rows, "_fill", {}
    else:
        layers, data, owner, method, options = classifier(rng), tmp_path / "photos", Preparation, "resized", {}
        photographs(data, 8)
        options = {"preparation": FED, "domain": FED.domain}
    whole = dtd.run(layers, data, tmp_path / "whole.zarr", chunk=2, **options)
    calls, kept = [], getattr(owner, method)

    def failing(self: Any, *given: Any) -> Any:
        calls.append(self)
        if len(calls) > 2:
            raise error
        return kept(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, failing)
        with pytest.raises(dtd.RunError, match=r"of 4 chunks of .* are finished; continue with resume=True"):
            dtd.run(layers, data, tmp_path / "out.zarr", chunk=2, **options)
    assert "" in stored(tmp_path / "out.zarr", "error")
    assert not any(stored(tmp_path / "out.zarr", "error"))
    dtd.run(layers, data, tmp_path / "out.zarr", resume=True, **options)
    assert contents(tmp_path / "out.zarr") == contents(whole.path)


@pytest.mark.parametrize("data", ["x.npy", "x.zarr", "x.h5", "photos"])
def test_data_that_are_no_longer_seen_are_no_bad_samples(data: str, tmp_path: Path) -> None:
    """A drive that is gone for a while, or one that a worker never had."""
    place = tmp_path / "drive"
    photographs(place / "photos", 2)
    np.save(place / "x.npy", IMAGES[:2])
    zarr.create_array(place / "x.zarr", data=IMAGES[:2])
    with h5py.File(place / "x.h5", "w") as file:
        file["x"] = IMAGES[:2]
    source, fed = open_source(place / data), FED if data == "photos" else None
    shape, dtype = source.sample(fed)
    x = np.zeros((2, *shape), dtype)
    assert source.piece(0, 2, fed).read(x) == ["", ""]
    place.rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        source.piece(0, 2, fed).read(x)


@pytest.mark.parametrize("most", [0, 1, 4])
def test_too_few_threads(most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = dtd.run(LAYERS, IMAGES[:8], tmp_path / "whole.zarr", chunk=2)
    started, start = [], threading.Thread.start

    def failing(self: threading.Thread) -> None:
        if len(started) == most:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", failing)
        with pytest.raises(dtd.RunError, match=r"can't start new thread; .*continue with resume=True"):
            dtd.run(LAYERS, IMAGES[:8], tmp_path / "out.zarr", chunk=2)
    dtd.run(LAYERS, IMAGES[:8], tmp_path / "out.zarr", resume=True)
    assert contents(tmp_path / "out.zarr") == contents(whole.path)


# ---------------------------------------------------------------------------------------------------------- a full disk

SMALL_DISK = """
import ctypes, os, sys
from pathlib import Path

libc, disk = ctypes.CDLL(None), Path(sys.argv[1], "disk")
NEW_NAMESPACE, NEW_USER, REMOUNT, PRIVATE = 0x20000, 0x10000000, 0x20, 0x44000

def mount(flags, size):
    return libc.mount(b"tmpfs", os.fsencode(disk), b"tmpfs", flags, f"size={size}".encode())

disk.mkdir()
if libc.unshare(NEW_NAMESPACE) and libc.unshare(NEW_NAMESPACE | NEW_USER):  # it ends with this process
    sys.exit(77)
if libc.mount(None, b"/", None, PRIVATE, None) or mount(0, "1m"):
    sys.exit(77)

import numpy as np, dtdfast as dtd
from dtdfast import cli
from run_support import contents

rng = np.random.default_rng(0)
layers = [dtd.Conv(rng.standard_normal((4, 3, 3, 3)), padding=1), dtd.ReLU(), dtd.GlobalAvgPool(), dtd.Flatten()]
x = rng.random((40, 3, 64, 64), np.float32)  # 1.9 MB of relevance
whole = disk.with_name("whole.zarr")
dtd.run(layers, x, whole, chunk=4)
small = dtd.Linear(np.ones((1, 2)))
dtd.save([small], disk / "old.safetensors")

def refused(call):
    there = sorted(disk.rglob("*"))
    try:
        code = call()
    except (dtd.DtdError, OSError) as error:
        print(error)
    else:
        assert code == 2, code  # of the command line
    assert sorted(path for path in disk.rglob("*") if path.is_file() or path in there) == there

for resume in (False, True):
    try:
        dtd.run(layers, x, disk / "out.zarr", chunk=4, resume=resume)
    except dtd.RunError as error:
        print(error)
assert not [path for path in disk.rglob("*") if path.suffix in (".partial", ".part", ".lock")]

with (disk / "rest").open("wb", buffering=0) as rest:
    try:
        while True:
            rest.write(bytes(4096))
    except OSError:
        pass
saved, picture = disk.with_name("net.safetensors"), disk.with_name("x.png")
dtd.save(layers, saved)
from PIL import Image
Image.fromarray(np.uint8(255 * x[0].transpose(1, 2, 0))).save(picture)
refused(lambda: dtd.save(layers, disk / "new.safetensors"))
refused(lambda: dtd.save(layers, disk / "old.safetensors"))
refused(lambda: dtd.run(layers, x, disk / "other.zarr", chunk=4))
refused(lambda: cli.main(["explain", str(saved), str(picture), "--size", "64", "-o", str(disk / "maps")]))
refused(lambda: cli.main(["report", str(saved), str(picture), "--size", "64", "-o", str(disk / "page.html")]))
assert dtd.load(disk / "old.safetensors")[0].weight.tolist() == small.weight.tolist()

(disk / "rest").unlink()
assert not mount(REMOUNT, "16m")
dtd.run(layers, x, disk / "out.zarr", resume=True)
assert contents(disk / "out.zarr") == contents(whole)
"""


def test_a_small_disk_that_is_full(tmp_path: Path) -> None:
    """Runs, networks, maps, pages: an error that says so, nothing half-written, and with more room the run goes on."""
    done = subprocess.run(
        [sys.executable, "-c", SMALL_DISK, tmp_path], capture_output=True, text=True, env=ENVIRONMENT, timeout=600
    )
    if done.returncode == 77:
        pytest.skip("no file system can be mounted here")
    assert done.returncode == 0, done.stderr
    full, again = done.stdout.splitlines()[:2]
    assert "No space left on device; 4 of 10 chunks of" in full
    assert full == again
    assert done.stdout.count("No space left on device") >= 5
    assert "nothing of" in done.stdout


# --------------------------------------------------------------------------------------------------------------- clocks


def test_a_clock_that_goes_backwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also between runs: files of tomorrow are those of an earlier run."""
    whole = dtd.run(LAYERS, IMAGES[:8], tmp_path / "whole.zarr", chunk=2)
    begun = dtd.run(LAYERS, IMAGES[:8], tmp_path / "out.zarr", chunk=2)
    (begun.path / "finished/c.2").unlink()
    for number, path in enumerate(sorted(begun.path.rglob("*"))):
        os.utime(path, (time.time() + 1e5 * (number % 3 - 1),) * 2)
    now = time.time()
    ticks = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: now - 10 * next(ticks))
    done = dtd.run(LAYERS, IMAGES[:8], begun.path, resume=True)
    assert done.explained == 2
    assert done.seconds >= 0
    assert contents(begun.path) == contents(whole.path)


@pytest.mark.parametrize("days", [-1, 0, 1])
def test_a_model_that_is_replaced_by_one_of_another_day(days: int, tmp_path: Path) -> None:
    path, x = tmp_path / "net.safetensors", np.ones((1, 2), np.float32)
    dtd.save([dtd.Linear([[1.0, 2.0]])], path)
    os.utime(path, (time.time() + 1e6,) * 2)
    assert dtd.predict(path, x).item() == 3
    when = path.stat().st_mtime_ns + days * 86_400 * 10**9
    dtd.save([dtd.Linear([[1.0, 3.0]])], path)
    os.utime(path, ns=(when, when))
    assert dtd.predict(path, x).item() == 4
