"""Weights as the kernels read them: packed once per Explainer and type of numbers, never clamped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._kernels import ffi, lib
from .errors import NumericsError
from .locks import renewed
from .plan.steps import SIZES, Weights
from .threads import kernel_threads

BLOCK = lib.DTD_BLOCK  # output channels per packed block
REALS = {"f": lib.DTD_F4, "d": lib.DTD_F8}
LINE = 64  # bytes of a cache line, and of the widest vector

SMALL = 2**21  # bytes of weights that are copied to lie well
LARGE = 2**16  # numbers that threads share

Packed = NDArray[np.floating[Any]]
_ADDRESS = ffi.typeof("intptr_t")


def address(array: NDArray[Any]) -> int:
    """Of its first number, as array.ctypes.data, which is slow to start."""
    return int(ffi.cast(_ADDRESS, ffi.from_buffer(array)))


def aligned(shape: tuple[int, ...], real: str) -> Packed:
    """Memory that starts at a cache line: a load that straddles two of them costs two loads."""
    n, size = math.prod(shape), SIZES[real]
    raw = np.empty(n + LINE // size, real)
    first = -address(raw) % LINE // size
    return raw[first : first + n].reshape(shape)


def blocks(
    weight: NDArray[Any],
    groups: int,
    taps: Sequence[int],
    real: str,
    n_threads: int,
    *,
    lanes: int = BLOCK,
    scatter: bool = False,
) -> tuple[Packed, bool]:
    """(c_out, c_in/groups, *kernel) → [group][block of `lanes` outputs][tap][input of the group][lane], and whether all
    of its numbers are finite; with `scatter` inputs and outputs swap.
    """
    weight = np.ascontiguousarray(weight)
    outputs, inputs, n_taps = len(weight) // groups, weight.shape[1], math.prod(weight.shape[2:])
    steps = (inputs * n_taps, n_taps)
    group_step = outputs * steps[0]
    if scatter:
        outputs, inputs, steps = inputs, outputs, steps[::-1]
    result = aligned((groups, -(-outputs // lanes), len(taps), inputs, lanes), real)
    places = np.array(taps, np.int64)
    job = ffi.new("dtd_packing *")
    job.weight, job.weight_real = ffi.from_buffer(weight), REALS[weight.dtype.char]
    job.packed, job.packed_real = ffi.from_buffer(result), REALS[result.dtype.char]
    job.taps = ffi.from_buffer("int64_t[]", places)
    job.groups, job.outputs, job.inputs, job.n_taps, job.lanes = groups, outputs, inputs, len(taps), lanes
    job.group_step, (job.output_step, job.input_step) = group_step, steps
    return result, bool(lib.dtd_pack(job, n_threads))


def pack(weights: Weights, n_threads: int | None = None) -> Packed:
    """The packed form that a step asks for."""
    part, real, finite = weights.part, weights.real, True
    weight = part.weight
    assert weight is not None
    threads = kernel_threads(n_threads) if weight.size > LARGE else 1
    if weights.layout == "dense":
        packed, finite = blocks(weight, part.taps.groups, weights.taps, real, threads, scatter=weights.scatter)
    elif weights.layout == "channel":  # (c, 1, *kernel) → [tap][c]: one group of as many outputs as taps
        packed, finite = blocks(weight.reshape(1, len(weight), -1), 1, weights.taps, real, threads, lanes=1)
        packed = packed.reshape(len(weights.taps), len(weight))
    elif weight.itemsize != SIZES[real]:  # rows (n_out, n_in)
        packed, finite = blocks(weight, 1, (0,), real, threads, lanes=1)
        packed = packed.reshape(weight.shape[:2])
    else:  # the record's own array, unless a copy from a cache line on costs next to nothing
        packed = np.ascontiguousarray(weight).reshape(weight.shape[:2])
        if packed.nbytes <= SMALL:
            own, packed = packed, aligned(packed.shape, real)
            packed[...] = own
    if weight.dtype.itemsize > packed.itemsize and not finite:
        raise NumericsError(
            f"layer {weights.part.position}: its weights (after folding) overflow float32; rescale them, or use "
            "precision='float64'"
        )
    return packed


class WeightStore:
    """Packed weights of one Explainer, shared by its plans.

    Parameters
    ----------
    n_threads : of the Explainer
    """

    def __init__(self, n_threads: int | None = None) -> None:
        self._n_threads = n_threads
        self._packed: dict[tuple[Any, ...], Packed] = {}
        self._lock = renewed(self, "_lock")
        self.nbytes = 0  # of what is no record's own array

    def get(self, weights: Weights) -> Packed:
        key = weights.key
        if (known := self._packed.get(key)) is not None:
            return known
        with self._lock:
            found = self._packed.get(key)
            if found is None:
                found = self._packed[key] = pack(weights, self._n_threads)
                if found.flags.writeable:
                    self.nbytes += found.nbytes
            return found
