"""What tests of data-set runs share: the command as a process, outputs byte for byte, and killing it at random
moments.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

LONG = bool(os.environ.get("DTDFAST_LONG"))
PATIENCE = 3600 if LONG else 600  # seconds for one command, on a machine that does other things as well
# also where a shell's job ignores it
INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
COMMAND = "import sys; from dtdfast.cli import main; sys.exit(main())"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def start(*arguments: object, before: str = "") -> subprocess.Popen[str]:
    """`dtdfast ARGUMENTS` as a process; `before` is Python that runs first."""
    return subprocess.Popen(
        [sys.executable, "-c", f"{INTERRUPTIBLE}\n{before}\n{COMMAND}", *map(str, arguments)],
        env=ENVIRONMENT, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def run(*arguments: object, code: int = 0, before: str = "") -> tuple[str, str]:
    """The same, to its end: what it printed, and its progress and errors."""
    process = start(*arguments, before=before)
    printed, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, errors
    return printed, errors


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stored(path: Path, name: str) -> NDArray[Any]:
    """An array of a run's output."""
    return zarr.open_group(path, mode="r")[name][:]


def finished(out: Path) -> int:
    """Chunks that are complete, seen from outside."""
    try:
        with os.scandir(out / "finished") as entries:  # asked for again and again, while the run writes there
            return sum(
                e.name.startswith("c.") and e.name[2:3].isdigit() and not e.name.endswith(".partial") for e in entries
            )
    except FileNotFoundError:
        return 0


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until then, or until the process ends."""
    limit = time.monotonic() + PATIENCE
    while not condition() and process.poll() is None:
        assert time.monotonic() < limit
        time.sleep(0.003)


def killed_again_and_again(command: tuple[object, ...], out: Path, n_chunks: int, kills: int, seed: int) -> int:
    """Start `command --resume` and kill it `kills` times, some chunks later each time, then let it end; returns torn
    chunks.

    A torn chunk is one of which something had been written, but which was not finished when the process died.
    """
    rng = np.random.default_rng(seed)
    torn = 0
    for number in range(kills):
        before = finished(out)
        enough = before + int(rng.integers(0, max(1, (n_chunks - before) // (2 * (kills - number))), endpoint=True))
        process = start(*command, "-o", out, "--resume")
        if rng.random() < 0.2:
            time.sleep(rng.uniform(0, 1))  # also while it starts, creates its output or reads what is finished
        else:
            wait_for(lambda enough=enough: finished(out) >= enough and (out / "finished").exists(), process)
            time.sleep(rng.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGKILL, "it ended before it was killed: more or smaller chunks are needed"
        torn += len(list((out / "relevance").glob("c.*[0-9]"))) - finished(out) if out.exists() else 0
    printed, _ = run(*command, "-o", out, "--resume")
    assert "0 bad" in printed
    return torn
