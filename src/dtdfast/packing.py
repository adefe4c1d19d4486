"""Weights as the kernels read them: float32, packed once per Explainer, never clamped."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import NumericsError
from .plan.steps import Weights

BLOCK = 16  # DTD_BLOCK of csrc/dtdfast.h: output channels per packed block
LINE = 64  # bytes of a cache line, and of the widest vector

SMALL = 2**21  # bytes of weights that are copied to lie well

Packed = NDArray[np.float32]


def zeros(shape: tuple[int, ...]) -> Packed:
    """Zeros that start at a cache line: a load that straddles two of them costs two loads."""
    n = math.prod(shape)
    raw = np.zeros(n + LINE // 4, np.float32)
    first = -raw.ctypes.data % LINE // 4
    return raw[first : first + n].reshape(shape)


def pack_dense(weight: NDArray[Any], groups: int, taps: tuple[int, ...], *, scatter: bool) -> Packed:
    """(c_out, c_in/groups, *kernel) → [group][block of 16 outputs][tap][c_in of the group][16]; with `scatter` inputs and outputs swap."""
    c_out, c_in = weight.shape[:2]
    w = weight.reshape(groups, c_out // groups, c_in, -1)[..., list(taps)]
    if scatter:
        w = w.swapaxes(1, 2)
    _, outputs, inputs, n_taps = w.shape
    blocks = -(-outputs // BLOCK)
    packed = zeros((groups, blocks, n_taps, inputs, BLOCK))
    for block in range(blocks):
        piece = w[:, block * BLOCK : (block + 1) * BLOCK]
        packed[:, block, ..., : piece.shape[1]] = piece.transpose(0, 3, 2, 1)
    return packed


def pack(weights: Weights) -> Packed:
    """The packed form that a step asks for."""
    weight = weights.part.weight
    assert weight is not None
    if weights.layout == "dense":
        packed = pack_dense(weight, weights.part.taps.groups, weights.taps, scatter=weights.scatter)
    elif weights.layout == "channel":  # (c, 1, *kernel) → [tap][c]
        packed = np.ascontiguousarray(weight.reshape(len(weight), -1)[:, list(weights.taps)].T, np.float32)
    else:  # rows (n_out, n_in): the record's own array where it is float32, unless a copy from a cache line on costs next to nothing
        packed = np.ascontiguousarray(weight.reshape(weight.shape[:2]), np.float32)
        if packed.nbytes <= SMALL and packed.ctypes.data % LINE:
            packed, unaligned = zeros(packed.shape), packed
            packed[...] = unaligned
    if weight.dtype != np.float32 and not np.isfinite(packed).all():
        raise NumericsError(
            f"layer {weights.part.position}: its weights (after folding) overflow float32; rescale them, or use backend='oracle'"
        )
    return packed


class WeightStore:
    """Packed weights of one Explainer, shared by its plans."""

    def __init__(self) -> None:
        self._packed: dict[tuple[Any, ...], Packed] = {}
        self._lock = threading.Lock()

    def get(self, weights: Weights) -> Packed:
        with self._lock:
            found = self._packed.get(weights.key)
            if found is None:
                found = self._packed[weights.key] = pack(weights)
            return found
