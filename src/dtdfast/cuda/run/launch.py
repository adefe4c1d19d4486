"""A launch: a kernel, not yet compiled, and what it is launched with.

Conventions of every launch (those of kernels stand in compile/kernel.py):

- Addresses come from `address_of(thing)`, which the executor provides. It takes a `View` (address of the view's first
  element, its offset included), `Weights` (the address of what `packing(weights)` returned, uploaded once per Explainer
  under `packing_key(weights)`) or an array (a constant of the plan, uploaded once and kept: biases, tables of tap
  offsets). Uploads are aligned to 256 bytes, and so is the arena.
- Strides come from `view.layout()`; a sample's stride from `buffer.strides()`, and is 0 where the buffer's batch is
  "1".
- Blocks are one-dimensional. Shared memory is dynamic; `shared_bytes` above 48 KiB need the opt-in
  (`cuFuncSetAttribute`, MAX_DYNAMIC_SHARED_SIZE_BYTES) once per loaded kernel.
- Launches of one step are in order on one stream; a kernel reads nothing that it writes, but for `accumulate`.
"""

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
