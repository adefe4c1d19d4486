"""bench/gpu.py without a GPU: its jobs on a device that is the host or paper, and processes that fail."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import islice
from types import ModuleType

import numpy as np
import pytest

import expect
import gpu
import gpu_call
import gpu_jobs
import gpu_references
import tiles
from dtdfast.cuda.run import driver
from dtdfast.cuda.run import tiles as run_tiles
from host import HostDevice
from paper import on_paper

COMMON = {"batch": 1, "precision": "tf32", "tool": "dtdfast", "what": "something"}  # of rows that are printed


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


@pytest.fixture(scope="module")
def first_check(tmp_path_factory):
    """A file with what the first small network is checked against."""
    file, check = tmp_path_factory.mktemp("references") / "references.npz", gpu_jobs.checks()[0]
    gpu_jobs.write_references(file, {check.what: gpu_references.of_check(check)})
    return str(file)


@pytest.fixture(scope="module")
def lenet():
    return gpu_jobs.SMALL["lenet5"]()


@pytest.fixture(scope="module")
def of_lenet(lenet):
    return gpu_references.of_network(lenet, compiled=False)


def test_small_networks_are_checked(on_host, report, first_check):
    """On a host that computes what a GPU should, all is right, and written row by row."""
    on_host(HostDevice())
    rows = list(islice(gpu_jobs.small({"first": 1, "references": first_check}), 2))
    for row in rows:
        report.add(row)
        assert json.loads(report.file.read_text())["rows"][-1]["what"] == row["what"]
    assert [row["number"] for row in rows] == [1, 2]
    assert all(row["right"] for row in rows)


@pytest.mark.parametrize("precision", gpu_jobs.PRECISIONS)
def test_what_fails_a_bound(precision, of_lenet):
    """Nothing at all, and one tile left out of seven, are found in every precision; a relevance never is exact."""
    exact = of_lenet.exact
    assert of_lenet.usual[precision].min() > 0
    assert of_lenet.row(exact, precision)["right"]
    without_a_tile, with_nan = exact.copy(), exact.copy()
    without_a_tile.reshape(-1)[gpu_jobs.PIECE : 2 * gpu_jobs.PIECE] = 0
    with_nan.flat[-1] = np.nan
    for wrong in (np.zeros_like(exact), without_a_tile, with_nan):
        assert not of_lenet.row(wrong, precision)["right"]


def test_other_weights_have_no_reference(lenet, of_lenet, tmp_path):
    x = lenet.sample(1, gpu_jobs.SEED, box=(0.0, 1.0))
    file = tmp_path / "references.npz"
    gpu_jobs.write_references(file, {"LeNet-5": of_lenet})
    assert gpu_jobs.read_reference(str(file), "LeNet-5", lenet, x).row(of_lenet.exact, "tf32")["right"]
    with pytest.raises(ValueError, match="LeNet-5 has other weights"):
        gpu_jobs.read_reference(str(file), "LeNet-5", lenet.perturbed(1e-3, 0), x)
    with pytest.raises(ValueError, match="has no VGG-16"):
        gpu_jobs.read_reference(str(file), "VGG-16", lenet, x)


def test_a_kernel_that_fails(on_host, report, first_check):
    """The row says so, and the process ends, since nothing can be trusted after it."""

    class Broken(HostDevice):
        def launch(self, launches, stream):
            raise RuntimeError("an illegal memory access")

    on_host(Broken())
    (row,) = gpu_jobs.small({"first": 0, "references": first_check})
    report.add(row)
    assert not row["right"]
    assert "illegal memory access" in row["why"]


@pytest.mark.filterwarnings("ignore:invalid value")  # numbers that memory happened to hold
@pytest.mark.parametrize(
    ("asked", "precisions", "batches"),
    [
        ({"precision": "tf32"}, ["tf32"], gpu_jobs.BATCHES),
        ({"precisions": ["float32", "bfloat16"], "batches": [1, 2]}, ["float32", "bfloat16"], (1, 2)),
    ],
)
def test_a_whole_network(monkeypatch, tmp_path, report, of_lenet, asked, precisions, batches):
    """On paper nothing is computed, but all is asked for: maps of every batch, and every step's time beside what is
    expected.
    """
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))  # which measures, and nothing is
    monkeypatch.setitem(gpu_jobs.NETS, "small", gpu_jobs.SMALL["lenet5"])
    monkeypatch.setattr(
        gpu_jobs,
        "timings",
        lambda tool, net, case, batches: [
            {"kind": "time", "tool": tool, **case, "batch": n, "why": "no GPU"} for n in batches
        ],
    )
    file = tmp_path / "references.npz"
    gpu_jobs.write_references(file, {"small": of_lenet})
    with on_paper():
        rows = list(gpu_jobs.whole({"network": "small", "references": str(file), **asked}))
    for row in rows:
        report.add(json.loads(json.dumps(row, default=str)))
    n = len(batches)
    kinds = ["check"] * (1 + n) + ["time"] * n + ["profile"] * 2
    assert [(row["kind"], row["precision"]) for row in rows] == [(k, p) for p in precisions for k in kinds]
    for part in ("time", "profile"):
        found = [row["batch"] for row in rows if row["kind"] == part]
        assert found == [*(batches if part == "time" else (min(batches), max(batches)))] * len(precisions)
    assert all(
        step["ms"] == step["expected ms"] > 0 for row in rows if row["kind"] == "profile" for step in row["steps"]
    )
    gpu.judge(report)


@pytest.mark.parametrize("races", [False, True])
def test_dependent_launches_are_right_before_they_are_timed(races, on_host, monkeypatch, of_lenet, tmp_path):
    """Every call has the bits of launches that follow each other; else there are no times."""

    class Racing(HostDevice):
        def download(self, array, address, stream):
            super().download(array, address, stream)
            if races and driver.DEPENDENT and array.size > 100 and self.log.count("replay") == 3:
                array.flat[0] = np.nextafter(array.flat[0], np.float32(1))

        def lock(self, nbytes):
            return 0

    monkeypatch.setitem(gpu_jobs.NETS, "small", gpu_jobs.SMALL["lenet5"])
    monkeypatch.setattr(gpu_jobs, "CALLS", 3)
    monkeypatch.setattr(driver, "DEPENDENT", False)
    monkeypatch.setattr(gpu_jobs, "timings", lambda tool, net, case, batches: [{**case, "on": driver.DEPENDENT}])
    on_host(Racing(compiled=True))
    file = tmp_path / "references.npz"
    gpu_jobs.write_references(file, {"small": of_lenet})
    job = {"network": "small", "precisions": ["float32"], "references": str(file)}
    check, *times = gpu_jobs.dependent(job)
    assert (check["right"], check["same"]) == (not races, 3 - races)
    assert [row["on"] for row in times] == ([] if races else [False, True])


def test_a_kernel_that_cannot_be_compiled(monkeypatch):
    """It is counted, and the others are compiled."""
    device = gpu.PaperDevice()
    device.kernels = dict.fromkeys(map(Named, ("good", "bad", "better")), 1)
    monkeypatch.setattr(gpu.kept, "stored", lambda kernel, cc: None)
    monkeypatch.setattr(gpu.kept, "compiled", compiled_unless_bad)
    done, missing, problems = gpu.compile_everything(device, gpu.Clock(60), 1)
    assert (done, missing) == (2, 3)
    assert problems == ["ValueError: bad"]


@pytest.mark.parametrize(("channels", "groups"), [(128, True), (32, False)])
def test_tiles_that_are_tried(channels, groups):
    """Those in use, others, and wgmma where there are channels for it; afterwards none of it is in use."""
    shape = run_tiles.Shape("bf16", run_tiles.EVEN, 1, 4096, channels, 1, 1152, 3)
    rows = {row.name: row for row in tiles.rows_for(shape, 227 * 1024)}
    assert {"broad", "huge"} <= rows.keys()
    assert ({"groups", "groups, two"} <= rows.keys()) == groups == any("group" in name for name in rows)
    for name, row in rows.items():
        with tiles.chosen(row):
            assert (run_tiles.USE_WGMMA, run_tiles.choose(shape, 132, 0)) == ("group" in name, row)
    assert not run_tiles.USE_WGMMA
    assert not any("group" in row.name for row in run_tiles.suiting(shape, 227 * 1024))


@pytest.mark.parametrize(
    ("unit", "name", "cycles"),
    [
        ("bf16_wgmma", "groups", 1024), ("tf32_wgmma", "groups", 1536), ("bf16_wgmma", "group", 384),
        ("tf32_wgmma", "group", 640), ("tf32", "square", 64 + 64 + 4 * 64), ("bf16", "broad", 256 + 8 * 96),
    ],
)  # fmt: skip
def test_what_shared_memory_takes_for_a_tile(unit, name, cycles):
    """As the README of the CUDA backend counts it."""
    assert expect.shared_cycles(unit, run_tiles.NAMED[name].tile) == cycles


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


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"kind": "smoke", "right": True}, 0),
        ({"kind": "smoke", "right": False}, 1),
        ({"kind": "time", "why": "RuntimeError: no memory"}, 1),
        ({"kind": "failed", "what": "limits", "exit": 1, "said": ""}, 1),
    ],
)
def test_what_a_call_returns(row, code, monkeypatch, tmp_path):
    """Whoever pays for the GPU sees a failure without reading rows."""
    monkeypatch.setattr(gpu_call, "rows", lambda stage, *_: [{"kind": "limits"}, {"network": "N", **COMMON, **row}])
    monkeypatch.setattr(sys, "argv", ["gpu_call.py", str(tmp_path), str(tmp_path), "--stages", "limits"])
    monkeypatch.setenv("DTDFAST_CACHE", "")  # which the call sets, and this puts back
    assert gpu_call.main() == code
