"""What NVIDIA's assembler says of a kernel, and what its disassembler finds in the machine code; needs no GPU."""

from __future__ import annotations

import gc
import os
import re
import struct
import subprocess
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dtdfast.cuda.compile.kernel import Kernel
from dtdfast.cuda.kernels.warp_product import WGMMA
from quicker import quicker
from support import LONG

SHARED = {"sm_80": 163 * 1024, "sm_90": 227 * 1024}  # bytes that one block may have, by target
LINE = re.compile(
    r"^(?P<label>\.L_x_\d+):|^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?(?P<name>[A-Z][\w.]*)\s*(?P<operands>[^;]*?)\s*;",
    re.MULTILINE,
)
STEP = re.compile(r"^(\.L_x_\d+:)|^\s*/\*[0-9a-f]{4,}\*/\s+([^;]*?)\s*;", re.MULTILINE)
HARMLESS = re.compile(r"(LDC|ULDC|S2R|S2UR|CS2R|MOV|UMOV)\b|(IADD3|VIADD) R1, R1, ")
LOAD_OF_CONSTANTS = re.compile(r"(@\S+ )?LDG\S*\.CONSTANT")
Listing = list[tuple[str, str]]  # instructions and their operands; "" and a label
_HELD = ExitStack()


@cache
def workers() -> ProcessPoolExecutor:
    """Processes that compile for all tests, as the first kernel of each takes seconds more.

    They are not forked: what this process compiled for the host has set numba to another level of optimisation, and
    numba works with the little that the heap of a forked process has left, which it takes from the system and gives
    back a hundred thousand times per kernel.
    """
    return ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _begin)


def _begin() -> None:
    """numba makes millions of objects and little garbage, for which the collector need not look as often."""
    from numba.cuda import types
    from numba.cuda.core import analysis

    gc.set_threshold(100_000, 50, 100)
    _HELD.enter_context(quicker(types.Function, analysis))


@cache
def tool(name: str) -> Path:
    import nvidia

    return next(p for root in nvidia.__path__ for p in Path(root).rglob(f"bin/{name}"))


def resources(kernel: Kernel, loaded: bool = False, waits: bool = False) -> dict[str, Any]:
    """By target the registers and the bytes of local memory; whether there is float64.

    With `loaded`, what is said of the last target is said of the machine code that is loaded there, and its
    instructions are listed and counted; the first target follows in the long form only, since making PTX takes most of
    the time. Else the last target's PTX is made from that of the first. With `waits`, what `early` finds.
    """
    from dtdfast.cuda.compile.compiler import improved, linked, ptx_of
    from dtdfast.cuda.compile.dependent import waiting

    row: dict[str, Any] = {"targets": {}}
    alone = kernel.constants[0] in WGMMA  # of sm_90a
    if (LONG or not loaded) and not alone:
        text = ptx_of(kernel, (8, 0))
        row["targets"]["sm_80"] = _assembled(text, "sm_80")
    since = ptx_of(kernel, (9, 0)) if loaded else improved(text).replace(".target sm_80", ".target sm_90")
    if waits:
        row["early"] = early(kernel, waiting(since))
    if not loaded:
        row["targets"]["sm_90"] = _assembled(since, "sm_90")
        return row | _said(text)
    text = since
    binary = linked(text, kernel, (9, 0))
    assert binary.entry == kernel.name
    row |= _said(text)
    row["targets"]["sm_90"] = _described(binary.image, kernel.name)
    code = _disassembled(binary.image)
    row["listing"] = [(m["name"] or "", m["operands"] or m["label"]) for m in LINE.finditer(code)]
    row["code"] = Counter(name for name, _ in row["listing"] if name)
    return row


def _disassembled(image: bytes) -> str:
    with TemporaryDirectory() as folder:
        path = Path(folder, "cubin")
        path.write_bytes(image)
        return subprocess.run([tool("nvdisasm"), "-c", "-ndf", path], capture_output=True, text=True, check=True).stdout


def early(kernel: Kernel, text: str) -> list[str]:
    """Of PTX for programmatic dependent launch, as machine code: what a thread may do before it has waited for the
    launch before, but for finding its number, parameters and stack; a wait under a condition, or behind a label, is
    none. And loads that need not see what that launch wrote.
    """
    from dtdfast.cuda.compile.compiler import linked

    code = _disassembled(linked(text, kernel, (9, 0)).image)
    entry = code.index(f"\n{kernel.name}:\n.text.{kernel.name}:\n")  # behind functions that it may call
    steps = [m[1] or m[2] for m in STEP.finditer(code, entry)]
    before = steps[: steps.index("ACQBULK")] if "ACQBULK" in steps else ["no wait"]
    return [step for step in before if not HARMLESS.match(step)] + [s for s in steps if LOAD_OF_CONSTANTS.match(s)]


def _said(text: str) -> dict[str, Any]:
    heads = re.findall(r"\.target \w+|\.extern \.shared \.align \d+", text)
    return {"heads": heads, "float64": ".f64" in text, "fused": {real: fused(text, real) for real in ("f32", "f64")}}


def _assembled(text: str, target: str) -> dict[str, int]:
    command = [tool("ptxas"), f"-arch={target}", "-v", "-o", "/dev/null", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    said = done.stdout + done.stderr
    return {
        "registers": int(re.search(r"Used (\d+) registers", said)[1]),  # type: ignore[index]
        "local": sum(int(n) for n in re.findall(r"(\d+) bytes (?:spill|stack)", said)),
    }


CUDA_MACHINE = 190
REGISTERS, FRAME = 0x2F, 0x11  # attributes of .nv.info: of a kernel, by the number of its symbol


def _described(image: bytes, name: str) -> dict[str, int]:
    """The same, as the ELF file of a kernel says it to the driver."""
    machine, sections_at = struct.unpack_from("<H", image, 18)[0], struct.unpack_from("<Q", image, 40)[0]
    size, number, of_names = struct.unpack_from("<HHH", image, 58)
    assert (image[:4], machine) == (b"\x7fELF", CUDA_MACHINE)
    sections = [struct.unpack_from("<IIQQQQ", image, sections_at + k * size) for k in range(number)]
    names = image[sections[of_names][4] :]
    found = {names[at : names.index(b"\0", at)].decode(): (first, nbytes) for at, _, _, _, first, nbytes in sections}
    assert f".text.{name}" in found
    at, nbytes = found[".nv.info"]
    values, end = {}, at + nbytes
    while at < end:
        kind, attribute, length = struct.unpack_from("<BBH", image, at)
        assert (kind, length) == (4, 8)  # a symbol and a value
        values[attribute] = struct.unpack_from("<II", image, at + 4)[1]
        at += 12
    return {"registers": values[REGISTERS], "local": values[FRAME]}


def fused(text: str, real: str) -> tuple[int, int]:
    """How many sums of PTX a product goes into unrounded, and how many more it may: NVIDIA's assembler joins a `mul`
    and an `add` that do not say `.rn`.
    """
    products = set(re.findall(rf"\bmul\.{real}\s+(%\w+)", text))
    sums = re.findall(rf"\b(?:add|sub)\.{real}\s+%\w+, (%\w+), (%\w+)", text)
    return text.count(f"fma.rn.{real}"), sum(not products.isdisjoint(pair) for pair in sums)


def between(listing: Listing) -> Counter[int]:
    """How many instructions of tensor cores stand between one and that which adds to its sums, and how often, within a
    turn of a loop.
    """
    found, last = Counter[int](), dict[str, int]()
    operands = [text.replace(".reuse", "").split(", ") for name, text in listing if name.startswith("HMMA")]
    for number, (result, _, _, added) in enumerate(operands):
        if added in last:
            found[number - last[added] - 1] += 1
        last[result] = number
    return found


REGISTER = re.compile(r"R(\d+)")


def used_in_flight(listing: Listing) -> list[tuple[str, str]]:
    """Instructions that write registers which wgmma adds to or multiplies, from there to the wait."""
    found, busy = [], set[int]()
    for name, operands in listing:
        opcode, *modifiers = name.split(".")
        numbers = [int(n) for n in REGISTER.findall(operands or "")]
        if opcode == "HGMMA":
            sums, a, *_ = numbers
            busy |= {*range(sums, sums + int(modifiers[0].split("x")[1]) // 2), *range(a, a + 4)}
        elif name.startswith("WARPGROUP.DEPBAR"):
            busy.clear()
        elif REGISTER.match(operands or ""):
            width = 4 if {"128", "4"} & set(modifiers) else 2 if {"64", "WIDE"} & set(modifiers) else 1
            if busy.intersection(range(numbers[0], numbers[0] + width)):
                found.append((name, operands))
    return found


def count(instructions: Counter[str], *parts: str) -> int:
    """How many instructions have the first part as their opcode, and the others among their modifiers."""
    return sum(
        n
        for name, n in instructions.items()
        if name.split(".")[0] == parts[0] and set(parts[1:]) <= set(name.split("."))
    )
