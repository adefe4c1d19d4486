"""What this machine can do, measured: the multiply-add peak, that of its matrix units, and the copy bandwidth."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

SOURCE = Path(__file__).with_name("machine.c")


@dataclass(frozen=True)
class Machine:
    """Peaks over `threads` threads: multiply-adds count as two operations, copied bytes as read and written.

    cached : (bytes of each thread, GB/s), for copies within caches
    """

    threads: int
    lanes: int
    gflops: float  # float32
    tile_gflops: float  # bfloat16 on matrix units; 0 without
    copy_gb_per_s: float
    cached: tuple[tuple[int, float], ...] = ()

    def best(self, other: Machine) -> Machine:
        """The higher of two measurements: a busy moment hides a peak."""
        peaks = ("gflops", "tile_gflops", "copy_gb_per_s")
        cached = tuple(max(a, b) for a, b in zip(self.cached, other.cached, strict=True))
        return replace(self, cached=cached, **{peak: max(getattr(self, peak), getattr(other, peak)) for peak in peaks})

    def copies(self, nbytes: float) -> float:
        """GB/s of copies where a step's bytes lie: in the smallest cache that they fit into, or in memory."""
        return next((rate for size, rate in self.cached if nbytes <= size * self.threads), self.copy_gb_per_s)


def threads() -> int:
    """Usable cores: what every tool is given."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def measure(n_threads: int | None = None) -> Machine:
    """Compile machine.c for this very CPU and run it, on all threads if it is not said on how many."""
    compiler = os.environ.get("CC") or shutil.which("cc") or "gcc"
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "machine")
        subprocess.run([compiler, "-O3", "-march=native", "-fopenmp", str(SOURCE), "-o", program], check=True)
        done = subprocess.run([program, str(n_threads or threads())], check=True, capture_output=True, text=True)
    return Machine(**json.loads(done.stdout))


if __name__ == "__main__":
    print(measure())
