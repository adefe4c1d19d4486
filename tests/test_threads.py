"""How many threads: the argument, the environment, the cores, the control group, threadpoolctl; and one after a
fork.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import dtdfast as dtd
from dtdfast import threads


@pytest.fixture
def network() -> tuple[list[dtd.Layer], np.ndarray]:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((32, 8, 3, 3)).astype(np.float32)
    return [
        dtd.Conv(weight, padding=1),
        dtd.ReLU(),
        dtd.Flatten(),
        dtd.Linear(rng.standard_normal((4, 32 * 24 * 24))),
    ], rng.random((2, 8, 24, 24), np.float32)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({}, math.inf),
    ],
)
def test_quota_of_the_control_group(tmp_path: Path, files: dict[str, str], cores: float) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert threads.cgroup_cores(tmp_path) == cores


def test_default_is_the_environments_or_the_cores_within_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert threads.default_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.setattr(threads, "cgroup_cores", lambda: 0.5)
    assert threads.default_threads() == 1


def test_argument_wins_and_the_limit_binds_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert threads.threads_for_run(7, 2, openmp=False) == 7
    assert threads.threads_for_run(None, 2, openmp=False) == 2


def test_threadpoolctl_sees_and_limits_openmp() -> None:
    from dtdfast._kernels import lib

    if not lib.dtd_openmp_version():
        assert lib.dtd_max_threads() == threads.MOST
        return
    assert any(pool["user_api"] == "openmp" for pool in threadpool_info())
    with threadpool_limits(1, user_api="openmp"):
        assert lib.dtd_max_threads() == 1


def test_checksum_is_the_same_for_any_number_of_threads_and_sees_every_place() -> None:
    from dtdfast._kernels import ffi, lib

    words = np.arange(2 * 300_001, dtype=np.uint64)  # ranges for several threads, and a pair that fills no cache line

    def checksum(n_threads: int) -> int:
        return int(lib.dtd_checksum(ffi.from_buffer(words), len(words) // 2, n_threads))

    sums = {checksum(n) for n in (1, 2, 5)}
    assert len(sums) == 1
    for i, j in ((0, 1), (0, 2), (1, 3), (600_000, 600_001), (5, 600_000)):
        words[[i, j]] = words[[j, i]]
        sums.add(checksum(2))
        words[[i, j]] = words[[j, i]]
    assert len(sums) == 6
    assert checksum(3) in sums


def test_forked_child_runs_on_one_thread_says_so_and_gets_the_same_bits(
    network: tuple[list[dtd.Layer], np.ndarray],
) -> None:
    """Threads of kernels without OpenMP are started anew in the child, and nothing is said."""
    from dtdfast._kernels import lib

    layers, x = network
    explainer = dtd.Explainer(layers, domain="nonnegative", backend="cpu", n_threads=2)
    expected = explainer.explain(x).tobytes()
    readable, writable = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads around is what is tested
        child = os.fork()
    if child == 0:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            same = explainer.explain(x).tobytes() == expected and explainer.explain(x).tobytes() == expected
        told = sum("forked" in str(w.message) for w in caught)
        os.write(writable, bytes([same, told]))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(readable, 2) == bytes([True, bool(lib.dtd_openmp_version())])


LIMITED = """
import os, resource, sys, warnings, numpy as np, dtdfast as dtd
linear = dtd.Linear(np.ones((4, 32 * 24 * 24)))
layers = [dtd.Conv(np.ones((32, 8, 3, 3)), padding=1), dtd.ReLU(), dtd.Flatten(), linear]
x = np.random.default_rng(0).random((4, 8, 24, 24), np.float32)
expected = dtd.explain(layers, x, backend="cpu", n_threads=1).tobytes()
if os.getuid() == 0:  # whom no limit binds
    os.setgid(65534); os.setuid(65534)
limit = len(os.listdir("/proc/self/task")) + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
explainer = dtd.Explainer(layers, backend="cpu", n_threads=8)
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    same = all(explainer.explain(x[:n]).tobytes() == expected[: n * len(expected) // 4] for n in (4, 1, 3, 4))
print(same, *(w.message for w in told))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="this system does not list threads")
@pytest.mark.parametrize("free", [0, 3])
def test_where_no_thread_can_be_started_fewer_do_the_work(free: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(dtd.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(free)], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True only ")
    assert done.stdout.count("can be started") == 1
