"""What a process has once for all its code: no call changes it, and no result depends on it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import zarr
from sklearn.linear_model import LogisticRegression

import dtdfast as dtd
import support
from cli_support import here
from dtdfast import cli
from dtdfast.plan import program
from dtdfast.runs.blosc import open_array
from global_state import unchanged
from processes import in_a_child

__all__ = ["here"]

RNG = np.random.default_rng(0)
LAYERS = support.classifier(RNG)
X = support.normal(RNG, 4, 3, 6, 6)


def nothing_wrong(call: Callable[[], Any]) -> None:
    with unchanged(), suppress(dtd.DtdError):
        call()


def test_calls_leave_the_process_as_it_was(here: Path) -> None:
    bad, tables = np.where(X > 2, np.nan, X), RNG.random((20, 4))
    fitted = LogisticRegression().fit(tables, np.arange(20) % 2)
    dtd.run(LAYERS, X, here / "first.zarr")  # Zarr starts threads
    dtd.report(LAYERS, X)  # and matplotlib caches fonts
    for call in (
        lambda: dtd.explain(LAYERS, X, return_ledger=True),
        lambda: dtd.explain(LAYERS, bad),
        lambda: dtd.Explainer(LAYERS, backend="oracle").profile(X),
        lambda: dtd.predict("net.onnx", RNG.random((2, 3, 16, 24), np.float32)),
        lambda: dtd.from_onnx(onnx.load("net.onnx")),
        lambda: dtd.from_onnx("labels.txt"),
        lambda: dtd.from_sklearn(fitted),
        lambda: dtd.load("net.safetensors"),
        lambda: dtd.load("labels.txt"),
        lambda: dtd.run(LAYERS, X, "out.zarr", chunk=1, ledger=True),
        lambda: dtd.run(LAYERS, bad, "bad.zarr", chunk=1),
        lambda: dtd.run(LAYERS, bad, "strict.zarr", chunk=1, strict=True),
        lambda: dtd.run(LAYERS, X, "out.zarr", rules="lrp-0", resume=True),
        lambda: dtd.report(LAYERS, X),
        lambda: dtd.report(LAYERS, bad),
        *(
            lambda words=words: cli.main(words.split())
            for words in (
                "doctor", "inspect net.onnx", "plan net.onnx", "explain net.onnx photo.png -o out", "browse out.zarr",
                "explain net.onnx labels.txt -o out", "explain nothing photo.png -o n", "report net.onnx photo.png",
            )
        ),
    ):  # fmt: skip
        nothing_wrong(call)


def test_threads_that_open_zarr_arrays_leave_its_settings(tmp_path: Path) -> None:
    """Each puts its own codec in for a while: one took it away from another, or left it in place."""
    zarr.save(str(tmp_path / "x.zarr"), X)
    open_array(str(tmp_path / "x.zarr"))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with unchanged("threads", "imports"), ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: open_array(str(tmp_path / "x.zarr")), range(100)))
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("rules", dtd.PRESETS)
def test_numpy_may_raise_errors(rules: str) -> None:
    """After numpy.seterr(all="raise"), samples of zeros and starts of tiny numbers ended in errors of NumPy's."""
    domain: Any = (-9, 9) if rules in ("epsilon-gamma-box", "deep_taylor.bounded") else "real"
    x = np.concatenate([X, np.zeros_like(X[:1])])
    start = np.full((5, 5), 1e-42)
    for target in (1, start):
        expected = dtd.explain(LAYERS, x, target, rules=rules, domain=domain)
        with np.errstate(all="raise"):
            found = dtd.explain(LAYERS, x, target, rules=rules, domain=domain)
        np.testing.assert_array_equal(found, expected)


def test_numpy_may_raise_errors_while_networks_are_planned() -> None:
    tiny = [
        dtd.Linear(np.full((4, 3), 1e-45)),
        dtd.Scale(np.full(4, 1e-200)),
        dtd.Scale(np.full(4, 1e-200)),
        dtd.ReLU(),
    ]
    x = RNG.random((2, 3))
    with np.errstate(all="raise"):
        dtd.explain(tiny, np.zeros_like(x), domain=(np.full(3, -1e-50), 1e-50))
        with pytest.raises(dtd.NumericsError, match="underflowed"):
            dtd.explain([dtd.Linear(np.full((4, 3), 1e-50)), dtd.ReLU()], x)


def test_a_progress_bar_of_a_terminal_that_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    closed = (tmp_path / "closed").open("w", encoding="utf-8")
    closed.close()
    for stream in (closed, None):
        monkeypatch.setattr(sys, "stderr", stream)
        assert len(dtd.explain(LAYERS, X, progress=True, batch_size=2)) == len(X)


def test_threads_that_plan_leave_the_collector_on() -> None:
    """Whoever stops it starts it again, also when the plan of another ends in between."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def plan() -> None:
        for _ in range(2000):
            with program.planning():
                pass

    try:
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(plan) for _ in range(4)]:
                done.result()
    finally:
        sys.setswitchinterval(interval)
    assert gc.isenabled()


def test_a_child_of_a_process_that_plans_collects_garbage() -> None:
    """Another thread's plan had stopped the collector when it was made."""
    with program.planning():
        assert in_a_child(gc.isenabled)[0]
        with program.planning():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with program.planning():
            assert not in_a_child(gc.isenabled)[0]
    finally:
        gc.enable()
