"""Kernels for programmatic dependent launch (README.md): whatever they are, they wait for the launch before."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from . import compiler
from .kernel import Binary, Kernel

FILE = Path(__file__)


@dataclass(frozen=True)
class Dependent(Kernel):
    """A kernel that waits, and lets the next one come: another one than that which does not."""


def waiting(text: str) -> str:
    """A kernel's PTX, which first waits. From then on others write: no load may be of what it takes for constant."""
    begin = r"\1\n\tgriddepcontrol.wait;\n\tgriddepcontrol.launch_dependents;"
    text, entries = re.subn(r"(\.entry[^{]*\{)", begin, text)
    assert entries == 1
    return text.replace("ld.global.nc", "ld.global")


def compile_kernel(kernel: Kernel, cc: tuple[int, int]) -> Binary:
    """The kernel's machine code; raises as `linked`."""
    if not isinstance(kernel, Dependent):
        return compiler.compile_kernel(kernel, cc)
    return compiler.linked(waiting(compiler.ptx_of(kernel, cc)), kernel, cc)
