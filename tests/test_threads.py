"""How many threads: the argument, the environment, the cores, the control group, threadpoolctl; and one after a
fork.
"""

from __future__ import annotations

import ctypes
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import dtdfast as dtd
from dtdfast import threads
from processes import in_a_child


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
    monkeypatch.setattr(threads, "GIVEN", "3,2")
    assert threads.default_threads() == 3
    monkeypatch.setattr(threads, "GIVEN", "")
    monkeypatch.setattr(threads, "cgroup_cores", lambda: 0.5)
    assert threads.default_threads() == 1


def test_what_is_told_later_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threads.default_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", str(before + 1))
    assert threads.default_threads() == before


def test_argument_wins_and_the_limit_binds_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "GIVEN", "4")
    assert threads.threads_for_run(7, 2) == 7
    assert threads.threads_for_run(None, 2) == 2


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


def tasks() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="this system does not list threads")
def test_forked_child_has_threads_of_its_own_and_the_same_bits(network: tuple[list[dtd.Layer], np.ndarray]) -> None:
    """A grandchild, too, and the parent goes on."""
    layers, x = network
    explainer = dtd.Explainer(layers, domain="nonnegative", backend="cpu", n_threads=3)
    expected = explainer.explain(x).tobytes()

    def same() -> bool:
        before = tasks()
        return explainer.explain(x).tobytes() == expected and tasks() == before + 2

    assert in_a_child(same) == (True, 0)
    assert in_a_child(lambda: same() and in_a_child(same) == (True, 0)) == (True, 0)
    assert explainer.explain(x).tobytes() == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_child_does_not_wait_for_the_openmp_threads_of_another_library(
    network: tuple[list[dtd.Layer], np.ndarray],
) -> None:
    """GNU's OpenMP keeps threads for whoever calls it; what they are called by here are its own functions."""
    pools = [pool["filepath"] for pool in threadpool_info() if pool["user_api"] == "openmp"]
    for openmp in map(ctypes.CDLL, pools):
        if hasattr(openmp, "GOMP_parallel"):
            openmp.GOMP_parallel(ctypes.cast(openmp.omp_get_thread_num, ctypes.c_void_p), None, 3, 0)
    layers, x = network
    expected = dtd.explain(layers, x, backend="cpu", n_threads=1).tobytes()
    explainer = dtd.Explainer(layers, backend="cpu", n_threads=3)
    assert in_a_child(lambda: explainer.explain(x).tobytes() == expected) == (True, 0)


LIMITED = """
import os, resource, sys, threading, warnings, numpy as np, dtdfast as dtd
linear = dtd.Linear(np.ones((4, 32 * 24 * 24)))
layers = [dtd.Conv(np.ones((32, 8, 3, 3)), padding=1), dtd.ReLU(), dtd.Flatten(), linear]
x = np.random.default_rng(0).random((4, 8, 24, 24), np.float32)
expected = dtd.explain(layers, x, backend="cpu", n_threads=1).tobytes()
if os.getuid() == 0:  # whom no limit binds
    os.setgid(65534); os.setuid(65534)
limited = threading.Event()
def explain_with_little_stack():
    limited.wait()
    try:
        dtd.explain(layers, x, backend="cpu", n_threads=1)
    except dtd.BackendError as refusal:
        print(refusal)
threading.stack_size(1 << 17)
thread = threading.Thread(target=explain_with_little_stack)
thread.start()
limit = len(os.listdir("/proc/self/task")) + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
limited.set()
thread.join()
resource.setrlimit(resource.RLIMIT_NPROC, (limit - 1, limit - 1))
explainer = dtd.Explainer(layers, backend="cpu", n_threads=8)
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    same = all(explainer.explain(x[:n]).tobytes() == expected[: n * len(expected) // 4] for n in (4, 1, 3, 4))
print(same, *(w.message for w in told))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="this system does not list threads")
@pytest.mark.parametrize("free", [0, 3])
def test_where_no_thread_can_be_started_fewer_do_the_work(free: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(dtd.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(free)], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    *refused, told = done.stdout.splitlines()
    assert told.startswith("True only ")
    assert told.count("can be started") == 1
    assert ["can't start new thread" in line for line in refused] == [True] * (free == 0)


CRAMPED = """
import sys, threading, numpy as np, dtdfast as dtd
rng = np.random.default_rng(0)
convs = [dtd.Conv(rng.standard_normal((m, n, 3, 3)), padding=1) for n, m in ((8, 32), (32, 4))]
networks = [
    ([convs[0], dtd.ReLU(), convs[1], dtd.Flatten(), dtd.Linear(np.ones((4, 576)))], rng.random((2, 8, 12, 12))),
    ([dtd.Linear(rng.standard_normal((300, 256))), dtd.ReLU(), dtd.Linear(np.ones((10, 300)))], rng.random((64, 256))),
]
def explain(maps):
    for layers, x in networks:
        for precision, n_threads in (("float32", 1), ("float64", 2)):
            explainer = dtd.Explainer(layers, backend="cpu", precision=precision, n_threads=n_threads)
            maps.append(explainer.explain(x).tobytes())
expected = []
explain(expected)
for kilobytes in map(int, sys.argv[1:]):
    maps = []
    threading.stack_size(kilobytes << 10)
    thread = threading.Thread(target=explain, args=[maps])
    thread.start()
    thread.join()
    print(kilobytes, maps == expected)
"""


@pytest.mark.parametrize(
    ("stacks", "openmp"),
    [
        ([64, 128, 600], {}),  # in KiB: 128 is musl's own choice, and above 512 kernels run on the thread that calls
        ([0], {"OMP_STACKSIZE": "64k"}),
    ],
)
def test_threads_with_little_stack_get_the_same_bits(stacks: list[int], openmp: dict[str, str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(dtd.__file__).parents[1]), **openmp}
    done = subprocess.run(
        [sys.executable, "-c", CRAMPED, *map(str, stacks)], capture_output=True, text=True, env=environment, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "".join(f"{n} True\n" for n in stacks)), done.stderr
