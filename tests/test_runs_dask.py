"""Dask: lazy arrays chunk by chunk, and runs on workers, one of which dies.

DTDFAST_LONG=1: a worker dies at every phase of a chunk; and more than two workers may hold.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import dask.array as da
import distributed
import numpy as np
import pytest
import zarr

import dtdfast as dtd
from dtdfast import cli, concepts
from dtdfast.data import digits
from dtdfast.runs import cluster as runs_on_cluster
from run_support import LONG, PATIENCE, contents, finished, run, start, wait_for
from support import classifier, segmenter

LAYERS, IMAGES, _ = digits()
BOX = (0.0, 1.0)
MEMORY = 400 * 2**20  # bytes that a worker may use


# -------------------------------------------------------------------------------------------------------- lazy arrays


@pytest.mark.parametrize(
    "target",
    [None, 3, [[1, 2]], np.arange(50) % 10, np.arange(100).reshape(50, 2) % 10, np.eye(10)[np.arange(50) % 10]],
    ids=["largest", "one", "two", "each", "two each", "start"],
)
def test_a_lazy_array_gives_the_bits_of_its_values(target: Any) -> None:
    x = da.from_array(IMAGES[:50], chunks=(16, 1, 4, 8))
    relevance, outputs = dtd.explain(LAYERS, IMAGES[:50], target, domain=BOX, return_outputs=True)
    lazy = dtd.explain(LAYERS, x, target, domain=BOX, return_outputs=True)
    assert all(isinstance(a, da.Array) for a in lazy)
    assert lazy[0].chunks[0] == x.chunks[0]
    for given, expected in zip(dask.compute(*lazy), (relevance, outputs), strict=True):
        np.testing.assert_array_equal(given, expected)
    alone = dtd.explain(LAYERS, x, target, domain=BOX)
    assert (alone.shape, alone.dtype) == (relevance.shape, relevance.dtype)
    np.testing.assert_array_equal(alone.compute(), relevance)


def test_predictions_inner_neurons_and_lazy_targets(rng: np.random.Generator) -> None:
    x = rng.standard_normal((10, 3, 6, 6)).astype(np.float32)
    lazy = da.from_array(x, chunks=(4, -1, -1, -1))
    layers = classifier(rng)
    np.testing.assert_array_equal(dtd.predict(layers, lazy).compute(), dtd.predict(layers, x))
    np.testing.assert_array_equal(dtd.explain(layers, lazy, stop=2).compute(), dtd.explain(layers, x, stop=2))
    target = rng.integers(0, 5, 10)
    np.testing.assert_array_equal(
        dtd.explain(layers, lazy, da.from_array(target, chunks=3)).compute(), dtd.explain(layers, x, target)
    )
    maps = segmenter(rng)
    np.testing.assert_array_equal(dtd.explain(maps, lazy, (1, 2, 3)).compute(), dtd.explain(maps, x, (1, 2, 3)))


def test_an_unknown_number_of_samples() -> None:
    some = da.from_array(np.arange(50) < 20)  # leaves the last chunks empty
    x = da.from_array(IMAGES[:50], chunks=(16, 1, 8, 8))[some]
    np.testing.assert_array_equal(dtd.explain(LAYERS, x).compute(), dtd.explain(LAYERS, IMAGES[:20]))
    np.testing.assert_array_equal(dtd.predict(LAYERS, x).compute(), dtd.predict(LAYERS, IMAGES[:20]))
    with pytest.raises(dtd.TargetError, match="compute_chunk_sizes"):
        dtd.explain(LAYERS, x, np.zeros(20, int))
    with pytest.raises(dtd.InputError, match="only the number of samples may be unknown"):
        dtd.explain(LAYERS, x.T)


def test_wrong_calls_show_before_anything_is_computed() -> None:
    def never(block: Any) -> Any:
        raise AssertionError

    x = da.from_array(IMAGES[:50], chunks=(16, 1, 8, 8)).map_blocks(
        never, dtype=np.float32, meta=np.empty((0,) * 4, np.float32)
    )
    masked = np.ma.masked_array(np.zeros(50, int), np.arange(50) < 9)
    for target in (10, np.full(50, 10), np.zeros(3, int), np.zeros((50, 3)), masked):
        with pytest.raises(dtd.TargetError):
            dtd.explain(LAYERS, x, target)
    with pytest.raises(dtd.ShapeError):
        dtd.explain(LAYERS, x[..., :4])
    with pytest.raises(dtd.InputError, match="integers are for an Embedding"):
        dtd.explain(LAYERS, x.astype(np.uint8))
    with pytest.raises(dtd.InputError, match="out, progress and return_ledger are not for a Dask array"):
        dtd.explain(LAYERS, x, progress=True)


def test_the_network_is_one_node_of_the_graph() -> None:
    explainer = dtd.Explainer(LAYERS)
    for n_chunks in (2, 10):
        graph = dict(explainer.explain(da.from_array(IMAGES[:50], chunks=(50 // n_chunks, 1, 8, 8))).__dask_graph__())
        (node,) = (key for key in graph if str(key).startswith("dtdfast-explainer"))
        assert sum(node in getattr(task, "dependencies", ()) for task in graph.values()) == n_chunks


# ------------------------------------------------------------------------------------------------------------ workers


@pytest.fixture(scope="module")
def cluster() -> Iterator[distributed.LocalCluster]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, memory_limit=MEMORY, dashboard_address=":0"
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    folder = tmp_path_factory.mktemp("digits")
    dtd.save(LAYERS, folder / "digits.safetensors")
    np.save(folder / "digits.npy", IMAGES)
    return ("explain", folder / "digits.safetensors", folder / "digits.npy", "--domain", "0,1", "--chunk", 12)


@pytest.fixture(scope="module")
def alone(command: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process writes."""
    out = tmp_path_factory.mktemp("alone") / "out.zarr"
    run(*command, "-o", out)
    return contents(out)


def test_two_workers_give_the_same_bits(command: tuple[object, ...], alone: dict[str, bytes], tmp_path: Path) -> None:
    printed, progress = run(*command, "-o", tmp_path / "out.zarr", "--workers", 2)
    assert printed.endswith(f"0 bad: {tmp_path / 'out.zarr'}\n")
    assert "540/540" in progress
    assert contents(tmp_path / "out.zarr") == alone


def test_a_worker_that_is_killed_in_the_middle(
    cluster: distributed.LocalCluster, command: tuple[object, ...], alone: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    with distributed.Client(cluster, set_as_default=False) as client:
        victim = next(iter(client.run(os.getpid).values()))
        process = start(*command, "-o", out, "--scheduler", cluster.scheduler_address)
        wait_for(lambda: finished(out) >= 5, process)
        os.kill(victim, signal.SIGKILL)
        reached = finished(out)
        printed, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
        client.wait_for_workers(2, timeout=PATIENCE)
        assert victim not in client.run(os.getpid).values()
    assert 5 <= reached < 45
    assert "0 bad" in printed
    assert contents(out) == alone


DYING = """
import os
from dtdfast.runs import arrays, cluster, store, work
owner, calls, kept = {owner}, [], {owner}.{method}
def dying(*given, **named):
    calls.append(given)
    if len(calls) == {call}:
        if {after}:
            kept(*given, **named)
        os._exit(9)
    return kept(*given, **named)
owner.{method} = dying
"""
PHASES = {  # what one worker dies in, at which call of it, and whether it has done that
    "written": ("store", "_to_disk", 4, False),
    "equipped": ("cluster.Equipment", "setup", 1, False),
    "read": ("arrays.Rows", "read", 2, False),
    "explained": ("work.Work", "explain", 2, True),
    "begun to write": ("store", "_to_disk", 1, True),
    "put in its place": ("store", "_name_to_disk", 1, False),
    "marked": ("store", "_name_to_disk", 5, False),
    "finished": ("store.Store", "commit", 1, True),
}


@pytest.mark.parametrize("phase", PHASES if LONG else ["written"])
def test_a_worker_that_dies_at_every_phase(phase: str, cluster: distributed.LocalCluster, tmp_path: Path) -> None:
    owner, method, call, after = PHASES[phase]
    whole = dtd.run(LAYERS, IMAGES[:60], tmp_path / "whole.zarr", domain=BOX, chunk=4)
    with distributed.Client(cluster, set_as_default=False) as client:
        victim, pid = next(iter(client.run(os.getpid).items()))
        client.run(exec, DYING.format(owner=owner, method=method, call=call, after=after), {}, workers=[victim])
        out, options = tmp_path / "out.zarr", {"domain": BOX, "chunk": 4, "scheduler": cluster.scheduler_address}
        if phase == "equipped":  # before any work: the run says so
            with pytest.raises(dtd.RunError, match=r"0 of 15 chunks of .* are finished; continue with resume=True"):
                dtd.run(LAYERS, IMAGES[:60], out, **options)
        done = dtd.run(LAYERS, IMAGES[:60], out, resume=True, **options)
        limit, there = time.monotonic() + PATIENCE, {pid}
        while pid in there or len(there) < 2:  # until another has taken its place
            assert time.monotonic() < limit
            time.sleep(0.05)
            there = set(client.run(os.getpid, on_error="ignore").values())
    assert done.explained == 60
    assert contents(done.path) == contents(whole.path)


def test_a_driver_that_is_killed_and_resumed(
    cluster: distributed.LocalCluster, command: tuple[object, ...], alone: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    process = start(*command, "-o", out, "--scheduler", cluster.scheduler_address)
    wait_for(lambda: finished(out) >= 5, process)
    process.kill()
    process.communicate(timeout=PATIENCE)
    run(*command, "-o", out, "--resume")  # in this process, while the workers may still be at it
    assert contents(out) == alone


def test_workers_that_would_compute_other_bits_are_refused(cluster: distributed.LocalCluster, tmp_path: Path) -> None:
    with distributed.Client(cluster, set_as_default=False) as client:
        here = dtd.build_config()["instruction set"]
        client.run(exec, f"import os; os.environ['DTDFAST_ISA'] = {'baseline' if here != 'baseline' else 'avx2'!r}")
        try:
            with pytest.raises(dtd.RunError, match=r"worker .* would not compute the same bits: instruction set was"):
                dtd.run(LAYERS, IMAGES, tmp_path / "out.zarr", scheduler=cluster.scheduler_address)
        finally:
            client.run(exec, "import os; del os.environ['DTDFAST_ISA']")


def test_a_task_that_outlives_its_run_writes_into_no_other(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker goes on when its run was interrupted, and the output may be another run's when it is done."""
    kept: dict[str, Any] = {}

    def on_no_cluster(work: Any, store: Any, tasks: Any, done: Any, begun: Any, *where: Any) -> None:
        kept.update(task=next(tasks), equipment=runs_on_cluster.Equipment(work, store, begun))

    worker = SimpleNamespace(address="tcp://here", plugins={})
    monkeypatch.setattr(runs_on_cluster, "run_on_cluster", on_no_cluster)
    monkeypatch.setattr(runs_on_cluster.distributed, "get_worker", lambda: worker)
    dtd.run(LAYERS, IMAGES[:4], out, domain=BOX, workers=1, chunk=2)
    kept["equipment"].setup(worker)
    worker.plugins["run"] = kept["equipment"]
    runs_on_cluster.explain_chunk("run", kept["task"])
    shutil.rmtree(out)
    dtd.run(LAYERS, IMAGES[:4], out, domain=BOX, rules="lrp-0", chunk=2)
    before = contents(out)
    with pytest.raises(dtd.errors.RunError, match="was begun anew, as another run"):
        runs_on_cluster.explain_chunk("run", kept["task"])
    assert contents(out) == before


def test_errors_of_workers_arrive(cluster: distributed.LocalCluster, tmp_path: Path) -> None:
    x = IMAGES[:60].copy()
    x[33] = np.nan
    address = cluster.scheduler_address
    with pytest.raises(dtd.InputError, match="sample 33: x holds NaN"):
        dtd.run(LAYERS, x, tmp_path / "strict.zarr", scheduler=address, chunk=10, strict=True)
    done = dtd.run(LAYERS, x, tmp_path / "strict.zarr", scheduler=address, resume=True)
    assert [number for number, _, _ in done.errors()] == [33]


def test_workers_store_the_same_channels(cluster: distributed.LocalCluster, tmp_path: Path) -> None:
    for name, where in (("alone", {}), ("workers", {"scheduler": cluster.scheduler_address})):
        dtd.run(LAYERS, IMAGES[:60], tmp_path / name, domain=BOX, chunk=10, channels=concepts.Channels(3), **where)
    assert contents(tmp_path / "alone") == contents(tmp_path / "workers")


def test_what_nannies_set_in_the_environment_ends_with_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread for each worker, and its seed of hashes, which the process that starts them got too, for good."""
    nannies = {**dask.config.get("distributed.nanny.pre-spawn-environ"), "PYTHONHASHSEED": 1, "__DASK_PARENT_PID": 1}
    assert "OMP_NUM_THREADS" in nannies
    for given in ("3", None):
        for name in nannies:
            monkeypatch.delenv(name, raising=False)
            if given:
                monkeypatch.setenv(name, given)

        def started(**_: Any) -> ExitStack:
            os.environ.update({each: str(value) for each, value in nannies.items()})
            return ExitStack()

        monkeypatch.setattr(distributed, "LocalCluster", started)
        monkeypatch.setattr(distributed, "Client", lambda *_, **__: ExitStack())
        with ExitStack() as stack:
            runs_on_cluster._client(stack, 2, None)
            assert os.environ["OMP_NUM_THREADS"] == "1"
        assert [os.environ.get(name) for name in nannies] == [given] * len(nannies)


def test_workers_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    """In a script that is not protected, and in a process that may have none: Dask says that a nanny failed."""

    def failing(**_: Any) -> None:
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr(distributed, "LocalCluster", failing)
    with pytest.raises(dtd.RunError, match=r"workers=2 cannot be started \(Nanny failed to start.\): .*__main__"):
        dtd.run(LAYERS, IMAGES[:9], out, domain=BOX, workers=2)
    assert dtd.run(LAYERS, IMAGES[:9], out, domain=BOX, resume=True).explained == 9


def test_no_scheduler_there(command: tuple[object, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for address in ("tcp://127.0.0.1:9", "nowhere", "tcp://"):
        assert cli.main([*map(str, command), "-o", str(tmp_path / "out.zarr"), "--scheduler", address]) == 2
        errors = capsys.readouterr().err
        assert errors.startswith(f"dtdfast: no Dask scheduler answers at {address} (")
        assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_more_than_the_workers_may_hold_goes_to_zarr(
    cluster: distributed.LocalCluster, tmp_path: Path, rng: np.random.Generator
) -> None:
    """In the short form merely through the same workers."""
    layers = [
        dtd.Conv(rng.standard_normal((4, 3, 3, 3)).astype(np.float32), stride=2),
        dtd.ReLU(),
        dtd.GlobalAvgPool(),
        dtd.Flatten(),
    ]
    sample = (3, 64, 64)
    n = 3 * MEMORY // (4 * 3 * 64 * 64) if LONG else 300
    x = da.random.default_rng(0).random((n, *sample), dtype=np.float32, chunks=(100, *sample))
    with distributed.Client(cluster) as client:
        workers = set(client.run(os.getpid).values())
        dtd.explain(layers, x).to_zarr(str(tmp_path / "out.zarr"))
        assert set(client.run(os.getpid).values()) == workers  # none was lost to its memory limit
        last = x[-100:].compute()
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "out.zarr")[-100:], dtd.explain(layers, last))
