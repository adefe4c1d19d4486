"""A launch: a kernel, not yet compiled, and what it is launched with (README.md: conventions)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ...plan.steps import View, Weights
from ..compile.kernel import Kernel

AddressOf = Callable[[View | Weights | NDArray[Any]], int]


@dataclass(frozen=True)
class Launch:
    """One launch: `integers` and `floats` are the kernel's two tuples."""

    kernel: Kernel
    grid: tuple[int, int, int]
    shared_bytes: int
    integers: tuple[int, ...]
    floats: tuple[float, ...]

    @property
    def block(self) -> tuple[int, int, int]:
        return self.kernel.threads, 1, 1
