"""A kernel before it is compiled, and its machine code (README.md: conventions)."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any


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


@dataclass(frozen=True)
class Binary:
    """A compiled kernel: what cuModuleLoadData takes, and the name to ask it for."""

    image: bytes
    entry: str
