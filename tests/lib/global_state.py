"""What a process has once and all its code shares: nothing of it may be other after a call."""

from __future__ import annotations

import decimal
import gc
import locale
import logging
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

FILES = Path("/proc/self/fd")


def state() -> dict[str, Any]:
    """All that is looked at, by name."""
    found: dict[str, Any] = {
        "environment": {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"},
        "folder": Path.cwd(),
        "temporary files": [*Path(tempfile.gettempdir()).iterdir()],
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.displayhook, sys.getprofile()),
        "imports": (list(sys.path), list(sys.meta_path), sys.getrecursionlimit()),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "collector": (gc.isenabled(), gc.get_threshold()),
        "locale": (locale.setlocale(locale.LC_ALL), repr(decimal.getcontext())),
        "logging": (logging.root.level, logging.root.handlers[:], logging.root.filters[:], logging.root.disabled),
        "processes": (multiprocessing.get_start_method(allow_none=True), multiprocessing.active_children()),
        "threads": [thread for thread in threading.enumerate() if not thread.name.startswith("asyncio")],  # Zarr's
        "files": len([*FILES.iterdir()]) if FILES.is_dir() else None,
        "NumPy": (np.geterr(), np.geterrcall(), repr(np.get_printoptions())),
        "random numbers": (random.getstate(), repr(np.random.get_state())),  # noqa: NPY002
    }
    if torch := sys.modules.get("torch"):
        found["PyTorch"] = (
            torch.get_rng_state().tolist(), torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
            torch.get_default_dtype(), torch.get_default_device(), torch.are_deterministic_algorithms_enabled(),
            torch.is_autocast_enabled("cpu"), torch.backends.mha.get_fastpath_enabled(), torch.get_num_threads(),
            torch.get_float32_matmul_precision(), torch.nn.Module.__call__, torch.nn.Linear.forward,
            [len(v) for k, v in sorted(vars(torch.nn.modules.module).items()) if k.startswith("_global_") and v],
        )  # fmt: skip
    if matplotlib := sys.modules.get("matplotlib"):
        found["matplotlib"] = {key: repr(value) for key, value in dict.items(matplotlib.rcParams)}
    if zarr := sys.modules.get("zarr"):
        found["Zarr"] = repr(zarr.config.config)
    return found


@contextmanager
def unchanged(*but: str) -> Iterator[None]:
    """The block leaves the process as it was, however it ends, except for the names of `state` in `but`."""
    with tempfile.TemporaryDirectory() as own, mock.patch("tempfile.tempdir", own):
        gc.collect()  # what earlier tests left, such as files of a pool, is not to go meanwhile
        gc.freeze()  # thousands of tests left much: the next call need not go through it again
        before = state()
        try:
            yield
        finally:
            after = state()
        other = [name for name in before if name not in but and before[name] != after[name]]
        assert not other, "; ".join(f"{name}: {before[name]!s:.300} → {after[name]!s:.300}" for name in other)
