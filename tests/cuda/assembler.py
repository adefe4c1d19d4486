"""What NVIDIA's assembler says of a kernel; needs no GPU."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from dtdfast.cuda.launch import Kernel

SHARED = {"sm_80": 163 * 1024, "sm_90": 227 * 1024}  # bytes that one block may have, by target


def ptxas() -> Path:
    import nvidia

    return next(p for root in nvidia.__path__ for p in Path(root).rglob("bin/ptxas"))


def resources(kernel: Kernel) -> dict[str, Any]:
    """By target the registers, the bytes spilled, and how often some instructions stand in the text."""
    from dtdfast.cuda.compiler import ptx_of

    text = ptx_of(kernel, (8, 0))
    found = {}
    for target in SHARED:
        done = subprocess.run(
            [ptxas(), f"-arch={target}", "-v", "-o", os.devnull, "-"], input=text, capture_output=True, text=True, check=True
        )
        said = done.stdout + done.stderr
        found[target] = {
            "registers": int(re.search(r"Used (\d+) registers", said)[1]),  # type: ignore[index]
            "spilled": sum(int(n) for n in re.findall(r"(\d+) bytes (?:spill|stack)", said)),
            "instructions": {i: len(re.findall(rf"\b{i}", text)) for i in ("mma.sync", "cp.async.cg", "cp.async.ca", r"\.local", r"\.f64")},
        }
    return found
