"""Weights as the kernels read them: packed once per Explainer and type of numbers, never clamped."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import NumericsError
from .locks import renewed
from .plan.steps import Weights

BLOCK = 16  # DTD_BLOCK of csrc/dtdfast.h: output channels per packed block
LINE = 64  # bytes of a cache line, and of the widest vector

SMALL = 2**21  # bytes of weights that are copied to lie well

Packed = NDArray[np.floating[Any]]


def zeros(shape: tuple[int, ...], real: str) -> Packed:
    """Zeros that start at a cache line: a load that straddles two of them costs two loads."""
    n, size = math.prod(shape), np.dtype(real).itemsize
    raw = np.zeros(n + LINE // size, real)
    first = -raw.ctypes.data % LINE // size
    return raw[first : first + n].reshape(shape)


def pack_dense(weight: NDArray[Any], groups: int, taps: tuple[int, ...], real: str, *, scatter: bool) -> Packed:
    """(c_out, c_in/groups, *kernel) → [group][block of 16 outputs][tap][c_in of the group][16]; with `scatter` inputs
    and outputs swap.
    """
    c_out, c_in = weight.shape[:2]
    w = weight.reshape(groups, c_out // groups, c_in, -1)[..., list(taps)]
    if scatter:
        w = w.swapaxes(1, 2)
    _, outputs, inputs, n_taps = w.shape
    blocks = -(-outputs // BLOCK)
    packed = zeros((groups, blocks, n_taps, inputs, BLOCK), real)
    for block in range(blocks):
        piece = w[:, block * BLOCK : (block + 1) * BLOCK]
        packed[:, block, ..., : piece.shape[1]] = piece.transpose(0, 3, 2, 1)
    return packed


@np.errstate(over="ignore")  # what overflows is found here
def pack(weights: Weights) -> Packed:
    """The packed form that a step asks for."""
    weight = weights.part.weight
    assert weight is not None
    if weights.layout == "dense":
        packed = pack_dense(weight, weights.part.taps.groups, weights.taps, weights.real, scatter=weights.scatter)
    elif weights.layout == "channel":  # (c, 1, *kernel) → [tap][c]
        packed = np.ascontiguousarray(weight.reshape(len(weight), -1)[:, list(weights.taps)].T, weights.real)
    # rows (n_out, n_in): the record's own array where it is of this type, unless a copy from a cache line on costs next
    # to nothing
    else:
        packed = np.ascontiguousarray(weight.reshape(weight.shape[:2]), weights.real)
        if packed.nbytes <= SMALL and packed.ctypes.data % LINE:
            packed, unaligned = zeros(packed.shape, weights.real), packed
            packed[...] = unaligned
    if weight.dtype.itemsize > packed.itemsize and not np.isfinite(packed).all():
        raise NumericsError(
            f"layer {weights.part.position}: its weights (after folding) overflow float32; rescale them, or use "
            "precision='float64'"
        )
    return packed


class WeightStore:
    """Packed weights of one Explainer, shared by its plans."""

    def __init__(self) -> None:
        self._packed: dict[tuple[Any, ...], Packed] = {}
        self._lock = renewed(self, "_lock")
        self.nbytes = 0  # of what is no record's own array

    def get(self, weights: Weights) -> Packed:
        with self._lock:
            found = self._packed.get(weights.key)
            if found is None:
                found = self._packed[weights.key] = pack(weights)
                if found.flags.writeable:
                    self.nbytes += found.nbytes
            return found
