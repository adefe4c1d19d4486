"""Weights in memory: copied once where nobody can write, and packed as the kernels read them."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast.packing import BLOCK, blocks
from dtdfast.record import Memory, immutable

SHAPES = [((1, 1, 1), 1), ((17, 5, 3), 1), ((16, 4, 2, 2), 4), ((40, 3, 3, 3), 2), ((6, 1, 5), 6)]
"""Of weights (c_out, c_in/groups, *kernel), and their groups."""


def expected(weight: np.ndarray, groups: int, taps: tuple[int, ...], lanes: int, *, scatter: bool) -> np.ndarray:
    """The same number by number."""
    flat = weight.reshape(*weight.shape[:2], -1)
    per_group, inputs = len(weight) // groups, weight.shape[1]
    if scatter:
        per_group, inputs = inputs, per_group
    packed = np.zeros((groups, -(-per_group // lanes), len(taps), inputs, lanes), weight.dtype)
    for g, o, i, (t, tap) in itertools.product(range(groups), range(per_group), range(inputs), enumerate(taps)):
        row, column = (i, o) if scatter else (o, i)
        packed[g, o // lanes, t, i, o % lanes] = flat[g * (len(weight) // groups) + row, column, tap]
    return packed


@pytest.mark.parametrize("scatter", [False, True])
@pytest.mark.parametrize("lanes", [BLOCK, 1])
@pytest.mark.parametrize(("shape", "groups"), SHAPES)
def test_every_number_has_its_place(
    shape: tuple[int, ...], groups: int, lanes: int, scatter: bool, rng: np.random.Generator
) -> None:
    every = tuple(range(int(np.prod(shape[2:]))))
    for weight_real, real, taps in itertools.product(("f4", "f8"), ("f4", "f8"), (every, every[::-2])):
        weight = rng.standard_normal(shape).astype(weight_real)
        found, finite = blocks(weight, groups, taps, real, 2, lanes=lanes, scatter=scatter)
        assert finite
        assert found.ctypes.data % 64 == 0
        np.testing.assert_array_equal(found, expected(weight, groups, taps, lanes, scatter=scatter).astype(real))


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_threads_share_large_weights(n_threads: int, rng: np.random.Generator) -> None:
    weight = rng.standard_normal((300, 530, 2)).astype(np.float32)
    for scatter, outputs in ((False, weight), (True, weight.swapaxes(0, 1))):
        found, _ = blocks(weight, 1, (0, 1), "f8", n_threads, scatter=scatter)
        unpacked = found[0].transpose(0, 3, 2, 1).reshape(-1, *outputs.shape[1:])
        np.testing.assert_array_equal(unpacked[: len(outputs)], outputs)
        assert not unpacked[len(outputs) :].any()


@pytest.mark.parametrize("lanes", [BLOCK, 1])
def test_what_overflows_is_found(lanes: int, rng: np.random.Generator) -> None:
    weight = rng.standard_normal((20, 9, 1))
    for place in ((0, 0), (15, 8), (19, 3)):
        large = weight.copy()
        large[place] = -1e39
        assert not blocks(large, 1, (0,), "f4", 1, lanes=lanes)[1]
        assert blocks(large, 1, (0,), "f8", 1, lanes=lanes)[1]


def test_memory_that_nobody_can_write_to_is_kept(rng: np.random.Generator) -> None:
    weight = rng.standard_normal((6, 4)).astype(np.float32)
    held = np.asarray(Memory(weight.T))
    np.testing.assert_array_equal(held, weight.T)
    assert held.flags.c_contiguous
    assert immutable(held)
    assert immutable(held[1:])
    for array in (held, held[1:], held.base):
        with pytest.raises((ValueError, AttributeError)):
            array.setflags(write=True)
    weight[:] = 0
    layer = dtd.Linear(held)
    assert layer.weight is held
    for again in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        np.testing.assert_array_equal(again.weight, held)
    assert not immutable(weight)
    assert not np.shares_memory(dtd.Linear(weight).weight, weight)
