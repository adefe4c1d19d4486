"""What the executor is handed for a step: kernels, not yet compiled, and what to launch them with.

Conventions of every kernel of this backend:

- A kernel is a Python function `kernel(a, f)` of two tuples: `a` holds int64 numbers (device addresses in bytes,
  strides in elements, sizes), `f` float32 numbers. On the device every entry is a parameter of its own: first all of
  `a`, then all of `f`, 8 and 4 bytes. No arrays, no descriptors in memory.
- A *factory* makes the function: `factory(ptx, *constants)`. `ptx` is the module of named instructions
  (`dtdfast.cuda.ptx` on a device, an emulation in the tests); the constants (integers, strings, booleans, tuples of
  them) specialise it. Kernels import nothing from numba.
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

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ..plan.steps import View, Weights

AddressOf = Callable[[View | Weights | NDArray[Any]], int]


@dataclass(frozen=True)
class Kernel:
    """A specialised kernel: hashable, printable, compiled when first needed.

    Attributes
    ----------
    name : entry point, the same for all specialisations of a factory
    factory : `factory(ptx, *constants)` returns the function
    constants : what it is specialised by
    n_integers, n_floats : lengths of its two tuples (at least one float)
    threads : threads of a block
    min_blocks : blocks that must fit on a multiprocessor together: with `threads` it bounds the registers
    """

    name: str
    factory: Callable[..., Callable[..., None]]
    constants: tuple[Hashable, ...]
    n_integers: int
    n_floats: int
    threads: int
    min_blocks: int = 1

    def function(self, ptx: Any) -> Callable[..., None]:
        """The kernel's Python function over a module of instructions."""
        return self.factory(ptx, *self.constants)

    def compile(self, cc: tuple[int, int]) -> Binary:
        """Machine code for a compute capability (seconds; the executor caches it on disk)."""
        from .compiler import compile_kernel

        return compile_kernel(self, cc)


@dataclass(frozen=True)
class Binary:
    """A compiled kernel: what cuModuleLoadData takes, and the name to ask it for."""

    image: bytes
    entry: str


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
