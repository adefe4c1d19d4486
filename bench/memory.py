"""Peak memory beyond the weights: what an explanation of VGG-16 with 8 images adds to a process that holds network and
images; and of BERT-base with one long text.

Every tool runs in a process of its own (Linux: the kernel's high-water mark of resident memory is reset before the
call). What a tool prepares for itself, such as packed or clamped weights, counts for VGG-16. For BERT-base it does not:
the second call is measured, with nothing kept but weights.
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
LONG = ("dtdfast cp-lrp", "dtdfast attnlrp", "gradient × input")
TOKENS = (128, 512, 1024)
N_BATCH = 8
TARGET = 0


def peak_beyond_weights(tool: str, *tokens: int) -> int:
    """Bytes, measured in a fresh process; with `tokens`, of BERT-base."""
    command = [sys.executable, __file__, tool, *map(str, tokens)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout)


def _measure(tool: str) -> int:
    net = nets.vgg16()
    images = net.sample(N_BATCH, box=(0.0, 1.0))
    if tool == "dtdfast":
        import ours

        before = settled()
        explain = ours.dtdfast(net)
    else:
        import peers

        explain = peers.PEERS[tool](net)  # a copy of the weights in PyTorch, and hooks
        del net
        before = settled()
    explain(images, TARGET)
    return _status("VmHWM") - before


def _measure_long(tool: str, tokens: int) -> int:
    import dtdfast as dtd
    import transformers_torch

    net = nets.bert(tokens, n_words=1000)
    words, explain = net.sample(1), transformers_torch.TOOLS[tool](net)
    explain(words, TARGET)
    dtd.clear_cache()
    before = settled()
    explain(words, TARGET)
    return _status("VmHWM") - before


def settled() -> int:
    """Resident bytes after garbage is gone and the high-water mark is reset."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident()


def resident() -> int:
    """Resident bytes of this process."""
    return _status("VmRSS")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def main() -> None:
    if len(sys.argv) > 1:
        tool, *tokens = sys.argv[1:]
        print(_measure_long(tool, int(tokens[0])) if tokens else _measure(tool))
        return
    print(f"VGG-16, {N_BATCH} images: peak memory beyond the weights")
    _print({tool: peak_beyond_weights(tool) for tool in TOOLS})
    for n in TOKENS:
        print(f"BERT-base, {n} tokens: peak memory beyond the weights and their copies")
        _print({tool: peak_beyond_weights(tool, n) for tool in LONG})


def _print(peaks: dict[str, int]) -> None:
    first = next(iter(peaks))
    for tool, peak in peaks.items():
        print(f"{tool:16} {peak / 2**20:8.0f} MiB  {peak / peaks[first]:5.2f} x {first}")


if __name__ == "__main__":
    main()
