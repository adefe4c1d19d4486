"""Steps of the C kernels written by hand from NumPy arrays, and memory that shows what a kernel touched.

Arrays here have the six axes of a dtd_view, (n, c, d, h, w, extra), and lie in blocks of memory filled with a sentinel:
a signalling pattern that no kernel computes, so that a write beside a view shows bit for bit.
"""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtdfast._kernels import ffi, lib

Array = NDArray[Any]

SENTINEL = 0xA5
GUARD = 40  # elements before and after every array

RUNNER = shlex.split(os.environ.get("DTDFAST_RUNNER", ""))
"""A command that runs single steps on kernels of another machine, in place of this one's (.ci/neon)."""

USABLE_ISAS = [isa for isa in range(lib.dtd_isa_count()) if lib.dtd_isa_usable(isa)]
VIEWS = ("out", "factor", "terms", "x", "y_prev", "terms_prev", "m", "scale", "other", "shift")
REFS = ("weight", "bias", "bias_d", "taps", "local")
_ENUMERATIONS = {
    name: ffi.typeof(f"dtd_{kind}")
    for name, kind in (
        ("activation", "activation"), ("precision", "precision"), ("weight_map", "weight_map"),
        ("input_map", "input_map"), ("multiplier", "multiplier"), ("factor_kind", "factor"), ("select", "sign"),
    )
}  # fmt: skip


def isa_name(isa: int) -> str:
    return str(ffi.string(lib.dtd_isa_name(isa)).decode())


@dataclass(frozen=True)
class Kernels:
    """The kernels of one instruction set for one type of numbers.

    Attributes
    ----------
    dtype, wide : that type, and the one that the reference computes in
    u : half the relative distance of two numbers of that type
    """

    isa: int
    real: int
    dtype: Any
    wide: Any
    u: float

    def normal(self, rng: np.random.Generator, *shape: int) -> Any:
        return rng.standard_normal(shape, dtype=self.dtype)

    def uniform(self, rng: np.random.Generator, *shape: int) -> Any:
        return rng.random(shape, dtype=self.dtype)

    def zeros(self, *shape: int) -> Any:
        return np.zeros(shape, self.dtype)

    def __str__(self) -> str:
        return f"{isa_name(self.isa)}-{np.dtype(self.dtype)}"


def place(
    values: Array,
    order: tuple[int, ...] = (0, 2, 3, 4, 5, 1),
    frame: tuple[int, ...] = (0,) * 6,
    gap: int = 0,
    phase: int = 1,
) -> Array:
    """Copy a six-axis array into guarded memory: axes ordered `order` from slow to fast, `frame` zeros around d, h, w,
    the fastest axis `gap` elements longer than needed, and `phase` elements between two along d, h, w (a phase of a
    strided product).
    """
    extent = np.ones(6, int)
    for axis in range(6):
        spatial = axis in (2, 3, 4)
        steps = phase if spatial else 1
        extent[axis] = (values.shape[axis] - 1) * steps + 1 + (2 * frame[axis] if spatial else 0)
    lengths = [int(extent[a]) for a in order]
    lengths[-1] += gap
    block = np.empty(int(np.prod(lengths)) + 2 * GUARD, values.dtype)
    block.view(np.uint8)[:] = SENTINEL
    inner = block[GUARD:-GUARD].reshape(lengths)[..., : int(extent[order[-1]])]
    whole = inner.transpose(np.argsort(order))
    if any(frame):
        whole[...] = 0
    spatial_index = tuple(slice(frame[a], frame[a] + (values.shape[a] - 1) * phase + 1, phase) for a in (2, 3, 4))
    view = whole[(slice(None), slice(None), *spatial_index, slice(None))]
    view[...] = values
    return view


def block_of(view: Array) -> Array:
    """The memory a view lies in."""
    while isinstance(view.base, np.ndarray):
        view = view.base
    return view


def untouched(view: Array, before: Array) -> bool:
    """Whether all memory of the view's block but the view itself is bit for bit what it was."""
    block = block_of(view)
    mask = np.zeros(block.shape, bool)
    at = (view.__array_interface__["data"][0] - block.__array_interface__["data"][0]) // view.itemsize
    window = np.lib.stride_tricks.as_strided(mask[at:], view.shape, [s // view.itemsize for s in view.strides])
    window[...] = True
    item = f"u{view.itemsize}"
    return bool(np.array_equal(block.view(item)[~mask], before.view(item)[~mask]))


@functools.cache
def runner() -> subprocess.Popen[bytes]:
    return subprocess.Popen(RUNNER, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def run_elsewhere(steps: Any, blocks: list[Array], kernels: Kernels, n_threads: int) -> str:
    """Let kernel_runner.c, built for another machine, run the step on copies of the blocks; why it refuses to, if it
    does.
    """
    process = runner()
    assert process.stdin is not None
    assert process.stdout is not None
    header = np.array(
        [
            ffi.sizeof("dtd_step"),
            kernels.isa,
            kernels.real,
            n_threads,
            len(steps),
            len(blocks),
            *(b.nbytes for b in blocks),
        ],
        np.int64,
    )
    process.stdin.write(header.tobytes() + bytes(ffi.buffer(steps)) + b"".join(b.tobytes() for b in blocks))
    process.stdin.flush()
    message = process.stdout.read(int(np.frombuffer(process.stdout.read(8), np.int64)[0])).decode()
    for block in blocks:
        block.view(np.uint8)[:] = np.frombuffer(process.stdout.read(block.nbytes), np.uint8)
    return message


@dataclass
class Step:
    """One dtd_step: arrays by the names of its views and vectors, numbers by the names of its fields."""

    op: str
    arrays: dict[str, Array | None] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    behind: list[Step] = field(default_factory=list)  # SLICED: the steps that it runs
    cuts: dict[str, int] = field(default_factory=dict)  # of such a step: views → the axis that they are cut along
    spans: dict[str, int] = field(default_factory=dict)  # likewise, of which a block needs a range

    def run(self, kernels: Kernels, n_threads: int = 1) -> None:
        """Run the step and check that nothing but its results changed; what is printed, pytest shows of tests that
        fail.
        """
        print(f"{kernels}, {n_threads} threads: {self}")
        steps, blocks, bases, scratch = self._prepare(kernels, n_threads)
        before = [b.copy() for b in blocks]
        if RUNNER:
            message = run_elsewhere(steps, blocks, kernels, n_threads)
        else:
            answer = lib.dtd_run(kernels.isa, kernels.real, steps, 0, len(steps), bases, n_threads, ffi.NULL)
            message = "" if answer == ffi.NULL else ffi.string(answer).decode()
        assert not message, message
        del scratch
        written = [
            (name, a) for s in (self, *self.behind) for name in s.results if (a := s.arrays.get(name)) is not None
        ]
        results = {id(block_of(array)) for _, array in written}
        for block, old in zip(blocks, before, strict=True):
            if id(block) not in results:
                assert np.array_equal(block.view(np.uint8), old.view(np.uint8)), f"{self.op} wrote to an operand"
        local = self.arrays.get("local")
        for name, array in written:
            if array is local or local is None or block_of(array) is not block_of(local):
                old = next(o for b, o in zip(blocks, before, strict=True) if b is block_of(array))
                assert untouched(array, old), f"{self.op} wrote beside {name}"

    def __str__(self) -> str:
        """The operation, shapes of the operands that it has, which others could be there, and the numbers that are not
        0.
        """
        has = [f"{name} {'×'.join(map(str, array.shape))}" for name, array in self.arrays.items() if array is not None]
        lacks = [name for name, array in self.arrays.items() if array is None]
        numbers = [f"{name} {_spelled(name, number)}" for name, number in self.numbers.items() if number]
        return f"{self.op} with {', '.join(has)}; without {', '.join(lacks) or 'nothing'}; {', '.join(numbers)}"

    def bodies(self, kernels: Kernels) -> tuple[str, list[str], str]:
        """The bodies of dtd_body: by the shape alone, those for an x that is mostly 0, and the one for this x."""
        steps, _, bases, scratch = self._prepare(kernels, 1)

        def name(choice: int) -> str:
            given = lib.dtd_body(kernels.isa, kernels.real, steps, bases, choice)
            return "" if given == ffi.NULL else str(ffi.string(given).decode())

        sparse = [found for choice in range(1, 9) if (found := name(choice))]
        by_shape, by_data = name(lib.DTD_BY_SHAPE), name(lib.DTD_BY_DATA)
        del scratch
        return by_shape, sparse, by_data

    def _prepare(self, kernels: Kernels, n_threads: int) -> tuple[Any, list[Array], Any, Array]:
        """The step in C, its memory, the table of pointers to it, and scratch memory to be kept meanwhile."""
        steps = ffi.new("dtd_step[]", 1 + len(self.behind))
        blocks: list[Array] = []
        for target, step in zip(steps, (self, *self.behind), strict=True):
            step._write(target, blocks)
        scratch = np.empty(64 + n_threads * lib.dtd_isa_scratch(kernels.isa), np.uint8)
        start = scratch.ctypes.data + -scratch.ctypes.data % 64
        bases = ffi.new(
            "void *[]", [ffi.cast("void *", p) for p in (start, *(b.__array_interface__["data"][0] for b in blocks))]
        )
        return steps, blocks, bases, scratch

    @property
    def results(self) -> tuple[str, ...]:
        if self.op == "CLEAR_BORDER":
            return ("whole",)  # the memory that holds out and its frame
        if self.op.startswith("NEURON"):
            return ("out", "factor", "terms")
        if self.op in ("MAX_POOL", "NORM", "SOFTMAX", "SOFTMAX_BACK"):
            return ("out", "m" if self.op == "MAX_POOL" else "factor")
        if self.op == "SLICED":
            return ("local",)  # those of the steps behind it are theirs
        return ("factor",) if self.op == "FACTOR" else ("out",)

    def _write(self, step: Any, blocks: list[Array]) -> None:
        step.op = getattr(lib, f"DTD_{self.op}")
        step.groups = step.repeat = 1
        step.coefficient = 1
        for name, number in self.numbers.items():
            if isinstance(number, tuple):
                for i, item in enumerate(number):
                    getattr(step, name)[i] = item
            else:
                setattr(step, name, number)
        for name in VIEWS + REFS:
            target, array = getattr(step, name), self.arrays.get(name)
            target.base = -1
            if array is None:
                continue
            block = block_of(array)
            known = [i for i, b in enumerate(blocks) if b is block]
            target.base = (known[0] if known else len(blocks)) + 1  # behind the scratch memory
            if not known:
                blocks.append(block)
            target.offset = (
                array.__array_interface__["data"][0] - block.__array_interface__["data"][0]
            ) // array.itemsize
            if name == "local":  # (threads, elements of each)
                target.offset = array.shape[1]
            if name in self.cuts:
                target.cut = self.cuts[name]
            if name in self.spans:
                target.span = self.spans[name]
            for axis in range(6 if name in VIEWS else 0):
                target.shape[axis] = array.shape[axis]
                target.stride[axis] = array.strides[axis] // array.itemsize


def _spelled(name: str, number: Any) -> Any:
    """A number as its field's enumeration names it."""
    return _ENUMERATIONS[name].elements[number].removeprefix("DTD_") if name in _ENUMERATIONS else number


def vector(values: Array) -> Array:
    """A contiguous vector in guarded memory."""
    block = np.empty(values.size + 2 * GUARD, values.dtype)
    block.view(np.uint8)[:] = SENTINEL
    block[GUARD:-GUARD] = values.reshape(-1)
    return block[GUARD:-GUARD]


def pack_dense(weight: Array, groups: int) -> Array:
    """Weights (c_out, c_in/groups, n_taps) as [group][block of 16][tap][c_in/groups][16]."""
    c_out, c_in, n_taps = weight.shape
    per_group = c_out // groups
    blocks = -(-per_group // 16)
    padded = np.zeros((groups, blocks * 16, c_in, n_taps), weight.dtype)
    padded[:, :per_group] = weight.reshape(groups, per_group, c_in, n_taps)
    return vector(padded.reshape(groups, blocks, 16, c_in, n_taps).transpose(0, 1, 4, 3, 2))
