"""What NVIDIA's assembler says of a kernel, and what its disassembler finds in the machine code; needs no GPU."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dtdfast.cuda.compile.kernel import Kernel

SHARED = {"sm_80": 163 * 1024, "sm_90": 227 * 1024}  # bytes that one block may have, by target
OPCODE = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)", re.MULTILINE)


@cache
def tool(name: str) -> Path:
    import nvidia

    return next(p for root in nvidia.__path__ for p in Path(root).rglob(f"bin/{name}"))


def resources(kernel: Kernel, *, disassembled: bool = False) -> dict[str, Any]:
    """By target the registers and the bytes of local memory; whether there is float64; how often each instruction is in
    the machine code.

    PTX is made once for all targets, since that takes most of the time; what takes the rest is the disassembler, run on
    the last target.
    """
    from dtdfast.cuda.compile.compiler import ptx_of
    from dtdfast.cuda.compile.ptx import improved

    text = ptx_of(kernel, (8, 0))
    found: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        for target in SHARED:
            if target == "sm_90":  # what ptx_of does for it
                text = improved(text).replace(".target sm_80", ".target sm_90")
            image = f"{folder}/{target}.cubin"
            done = subprocess.run(
                [tool("ptxas"), f"-arch={target}", "-v", "-o", image, "-"],
                input=text,
                capture_output=True,
                text=True,
                check=True,
            )
            said = done.stdout + done.stderr
            found[target] = {
                "registers": int(re.search(r"Used (\d+) registers", said)[1]),  # type: ignore[index]
                "local": sum(int(n) for n in re.findall(r"(\d+) bytes (?:spill|stack)", said)),
            }
        row = {"targets": found, "float64": ".f64" in text}
        if disassembled:
            code = subprocess.run(
                [tool("nvdisasm"), "-c", "-ndf", image], capture_output=True, text=True, check=True
            ).stdout
            row["code"] = Counter(OPCODE.findall(code))
    return row


def count(instructions: Counter[str], *parts: str) -> int:
    """How many instructions have the first part as their opcode, and the others among their modifiers."""
    return sum(
        n
        for name, n in instructions.items()
        if name.split(".")[0] == parts[0] and set(parts[1:]) <= set(name.split("."))
    )
