"""bench/gpu.py without a GPU: its jobs on a device that is the host or paper, and processes that fail."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice

import pytest

import gpu
import gpu_jobs
from host import HostDevice
from paper import on_paper


@dataclass(frozen=True)
class Named:
    """In the place of a kernel."""

    name: str


def compiled_unless_bad(kernel, cc):
    if kernel.name == "bad":
        raise ValueError(kernel.name)


@pytest.fixture
def report(tmp_path):
    return gpu.Report(tmp_path / "gpu.json")


def test_small_networks_are_checked(on_host, report):
    """On a host that computes what a GPU should, all is right, and written row by row."""
    on_host(HostDevice(compiled=True))
    rows = list(islice(gpu_jobs.small({"first": 1, "seed": 3}), 2))
    for row in rows:
        report.add(row)
        assert json.loads(report.file.read_text())["rows"][-1]["what"] == row["what"]
    assert [row["number"] for row in rows] == [1, 2]
    assert all(row["right"] for row in rows)


def test_a_kernel_that_fails(on_host, report):
    """The row says so, and the process ends, since nothing can be trusted after it."""

    class Broken(HostDevice):
        def launch(self, launches, stream):
            raise RuntimeError("an illegal memory access")

    on_host(Broken())
    (row,) = gpu_jobs.small({"first": 0, "seed": 3})
    report.add(row)
    assert not row["right"]
    assert "illegal memory access" in row["why"]


@pytest.mark.filterwarnings("ignore:invalid value")  # numbers that memory happened to hold
def test_a_whole_network(monkeypatch, tmp_path, report):
    """On paper nothing is computed, but all is asked for: maps of every batch, and every step's time beside what is
    expected.
    """
    monkeypatch.setitem(gpu_jobs.NETS, "small", gpu_jobs.SMALL["lenet5"])
    monkeypatch.setattr(
        gpu_jobs,
        "timings",
        lambda tool, net, case: [{"kind": "time", "tool": tool, **case, "batch": 1, "why": "no GPU"}],
    )
    with on_paper():
        rows = list(gpu_jobs.whole({"network": "small", "precision": "tf32", "seed": 1, "scratch": str(tmp_path)}))
    for row in rows:
        report.add(json.loads(json.dumps(row, default=str)))
    assert [row["kind"] for row in rows] == ["check"] * 4 + ["time"] + ["profile"] * 2
    for row in rows[-2:]:
        assert all(step["ms"] == step["expected ms"] > 0 for step in row["steps"])
    gpu.judge(report)


def test_a_kernel_that_cannot_be_compiled(monkeypatch):
    """It is counted, and the others are compiled."""
    device = gpu.PaperDevice()
    device.kernels = dict.fromkeys(map(Named, ("good", "bad", "better")), 1)
    monkeypatch.setattr(gpu.kept, "stored", lambda kernel, cc: None)
    monkeypatch.setattr(gpu.kept, "compiled", compiled_unless_bad)
    done, missing, problems = gpu.compile_everything(device, gpu.Clock(60), 1)
    assert (done, missing) == (2, 3)
    assert problems == ["ValueError: bad"]


def test_a_process_that_dies(report):
    """Its row has what it said last."""
    (row,) = gpu.rows_of({"kind": "nothing of the kind"}, 60)
    assert row["kind"] == "failed"
    assert "KeyError" in row["said"]
    report.add(row)


def test_a_process_that_hangs(report):
    """It is stopped."""
    (row,) = gpu.rows_of({"kind": "limits"}, 0)
    assert row["exit"] < 0
