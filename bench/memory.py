"""Peak memory beyond the weights: what an explanation of VGG-16 with 8 images adds to a process that holds network and
images.

Every tool runs in a process of its own (Linux: the kernel's high-water mark of resident memory is reset before the
call). What a tool prepares for itself, such as packed or clamped weights, counts.
"""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "lib"))

import nets

TOOLS = ("dtdfast", "zennit", "captum")
N_BATCH = 8
TARGET = 0


def peak_beyond_weights(tool: str) -> int:
    """Bytes, measured in a fresh process."""
    done = subprocess.run([sys.executable, __file__, tool], check=True, capture_output=True, text=True)
    return int(done.stdout)


def _measure(tool: str) -> int:
    net = nets.vgg16()
    images = net.sample(N_BATCH, box=(0.0, 1.0))
    if tool == "dtdfast":
        import ours

        before = _settled()
        explain = ours.dtdfast(net)
    else:
        import peers

        explain = peers.PEERS[tool](net)  # a copy of the weights in PyTorch, and hooks
        del net
        before = _settled()
    explain(images, TARGET)
    return _status("VmHWM") - before


def _settled() -> int:
    """Resident bytes after garbage is gone and the high-water mark is reset."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def main() -> None:
    if len(sys.argv) > 1:
        print(_measure(sys.argv[1]))
        return
    print(f"VGG-16, {N_BATCH} images: peak memory beyond the weights")
    peaks = {tool: peak_beyond_weights(tool) for tool in TOOLS}
    for tool, peak in peaks.items():
        print(f"{tool:8} {peak / 2**20:8.0f} MiB  {peak / peaks['dtdfast']:5.2f} x dtdfast")


if __name__ == "__main__":
    main()
