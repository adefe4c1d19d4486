"""Dense layers of awkward sizes as steps of a plan, run by the emulation, and what they should give in float64.

The steps come from the package's own lowering, so that phases, borders and views are those of real plans; the values
from the oracle's tap loops.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

import emulation
from dtdfast.cuda.run import contraction, tiles
from dtdfast.cuda.run.operations import OPERATIONS, step_launches
from dtdfast.plan.lowering import Lowering
from dtdfast.plan.steps import SIZES, Buffer, Step, View, Weights
from dtdfast.plan.taps import Taps
from dtdfast.plan.units import Part, Tensor

Array = NDArray[Any]


def geometry(
    rng: np.random.Generator, c_in: int, c_out: int, x_size: tuple[int, ...], kernel: tuple[int, ...], *,
    stride: int = 1,
    dilation: int = 1, before: int = 0, after: int = 0, groups: int = 1, transposed: bool = False,
) -> Part:  # fmt: skip
    """An operand with random weights; sizes and kernel along (d, h, w), one stride, dilation and padding for all axes
    longer than 1.
    """
    wide = tuple(s > 1 for s in x_size)
    strides, dilations = (tuple(v if w else 1 for w in wide) for v in (stride, dilation))
    befores, afters = (tuple(v if w else 0 for w in wide) for v in (before, after))
    reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    if transposed:
        out = [
            (x - 1) * s + r + 1 - b - a for x, s, r, b, a in zip(x_size, strides, reach, befores, afters, strict=True)
        ]
    else:
        out = [
            (x + b + a - r - 1) // s + 1 for x, s, r, b, a in zip(x_size, strides, reach, befores, afters, strict=True)
        ]
    taps = Taps(transposed, c_in, c_out, groups, x_size, tuple(out), kernel, strides, dilations, befores)  # type: ignore[arg-type]
    weight = rng.standard_normal((c_out, c_in // groups, *kernel), dtype=np.float32)
    return Part(1, Tensor(0, (c_in, *x_size), 0), taps, weight)


class World:
    """Buffers in host memory at known addresses, and the steps that run on them."""

    def __init__(self, n: int, t: int = 1, *, shift: int = 0, real: str = "f4") -> None:
        self.n, self.t, self.shift = n, t, shift  # shift: elements by which every array misses its alignment
        self.lowering = Lowering("f4", (real, real))
        self.memory = emulation.Memory()
        self.arrays: dict[int, Array] = {}
        self.values: dict[int, Array] = {}
        self.constants: dict[int, tuple[Any, int]] = {}

    def buffer(
        self, shape: tuple[int, ...], values: Array | None = None, batch: str = "n", *, order: tuple[int, ...] = ()
    ) -> Buffer:
        """A buffer; `values` (batch, *shape) are put there once its border is known; `order` of its axes in memory."""
        if order:
            buffer = self.lowering.ordered("b", shape, order, batch)
        else:
            buffer = self.lowering.buffer("b", shape, batch, plain=len(shape) == 1)
        if values is not None:
            self.values[id(buffer)] = np.asarray(values, np.float32)
        return buffer

    def view_of(self, buffer: Buffer) -> Array:
        """The buffer's values as (batch, *shape)."""
        stored = self.stored(buffer)
        return (stored.astype(np.uint32) << 16).view(np.float32) if buffer.dtype == "bf16" else stored

    def stored(self, buffer: Buffer) -> Array:
        """What stands for them in memory, a view."""
        if id(buffer) not in self.arrays:
            size = SIZES[buffer.dtype]
            block = np.frombuffer(
                bytearray(b"\xa5" * (buffer.nbytes(self.n, self.t) + 32)), "u2" if size == 2 else "f4"
            )
            start = -block.__array_interface__["data"][0] // size % (16 // size) + self.shift
            self.arrays[id(buffer)] = memory = block[start:]
            if buffer.framed:
                memory[: buffer.elements(self.n, self.t)] = 0
            if id(buffer) in self.values:
                values = self.values[id(buffer)]
                self.stored(buffer)[...] = contraction.bf16(values) if size == 2 else values
        memory = self.arrays[id(buffer)]
        offset, strides, sample = buffer.strides()
        count = {"n": self.n, "nt": self.n * self.t, "1": 1}[buffer.batch]
        return as_strided(memory[offset:], (count, *buffer.shape), [memory.itemsize * s for s in (sample, *strides)])

    def address_of(self, thing: View | Weights | Array) -> int:
        if isinstance(thing, View):
            self.stored(thing.buffer)
            return self.memory.add(self.arrays[id(thing.buffer)]) + SIZES[thing.buffer.dtype] * thing.layout()[0]
        key = hash(contraction.packing_key(thing)) if isinstance(thing, Weights) else id(thing)
        if key not in self.constants:
            array = contraction.packing(thing) if isinstance(thing, Weights) else thing
            block = np.empty(array.nbytes + 16, np.uint8)
            start = -block.__array_interface__["data"][0] % 16
            place = block[start : start + array.nbytes]
            place[:] = np.frombuffer(array.tobytes(), np.uint8)
            self.constants[key] = thing, self.memory.add(place)
        return self.constants[key][1]

    def run(self, precision: str = "float32", multiprocessors: int = 10**9) -> list[Any]:
        """Run the steps emitted; returns their launches.  What is printed, pytest shows of tests that fail."""
        plan: Any = SimpleNamespace(n=self.n, t=self.t, forward=self.lowering.steps, relevance=())
        done, size = [], max(4, contraction.scratch_bytes(plan))
        scratch = self.memory.add(np.full(size // 4, np.nan, np.float32))
        for step in self.lowering.steps:
            has = {name for name, value in vars(step).items() if isinstance(value, (View, Weights, np.ndarray))}
            numbers = f"x {step.multiplier}, -> {step.factor_kind}, {step.weight_map}, {step.activation[0]}"
            print(f"{precision}: {step.op} with {', '.join(sorted(has))}; {numbers}")
            if step.op in OPERATIONS:
                launches = step_launches(step, plan, self.address_of)
            else:
                device = precision, multiprocessors, tiles.SHARED_BYTES, scratch
                launches = contraction.launches(step, plan, self.address_of, *device)
            for launch in launches:
                emulation.run(launch, self.memory)
                done.append(launch)
        return done

    @property
    def steps(self) -> list[Step]:
        return self.lowering.steps

    def untouched(self, buffer: Buffer) -> bool:
        """Whether what lies in a buffer's memory outside of its values is as it was."""
        memory = self.arrays[id(buffer)]
        inside = np.zeros(memory.shape, bool)
        offset, strides, sample = buffer.strides()
        as_strided(inside[offset:], self.stored(buffer).shape, (sample, *strides))[...] = True
        return bool((memory[~inside].view(np.uint8) == 0xA5).all())
