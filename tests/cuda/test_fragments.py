"""Which lane and register hold which element of a matrix: the manual's formulas, against which the emulation is checked
by itself.

The kernels are run in that emulation (test_dense.py), so a kernel that takes its fragments apart otherwise computes
something else there. Two readings of each layout, from different sources, must agree:

    PTX ISA, "Matrix Fragments for mma.m16n8k8" (.tf32), "… for mma.m16n8k16 with floating point type" (.bf16),
    "ldmatrix": with g = lane / 4 and t = lane % 4, row and column of element i that a lane holds CUTLASS 3, MMA_Traits
    of SM80_16x8x8_F32TF32TF32F32_TN and SM80_16x8x16_F32BF16BF16F32_TN: (lane, element) as mixed radices with strides
    into m + 16·k (A), n + 8·k (B), m + 16·n (C)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import pytest

import emulation
from dtdfast.cuda.run.contraction import bf16
from dtdfast.plan.steps import View
from layers import World, geometry

LANES = range(32)
Place = Callable[[int, int, int], tuple[int, int]]


@dataclass(frozen=True)
class Fragment:
    """One matrix over the lanes of a warp.

    place : (g, t, i) → (row, column), as PTX says it
    strides : of t, of g, and of the binary digits of i, low to high, as CUTLASS says it
    """

    rows: int
    columns: int
    place: Place
    strides: tuple[int, ...]
    by_column: bool = True  # the strides count down the columns (A and C), else along the rows (B as n + 8·k)

    @property
    def elements(self) -> int:
        return self.rows * self.columns // 32

    def at(self, lane: int, i: int) -> tuple[int, int]:
        return self.place(lane // 4, lane % 4, i)

    def second(self, lane: int, i: int) -> tuple[int, int]:
        digits = (lane % 4, lane // 4, *(i >> b & 1 for b in range(len(self.strides) - 2)))
        number = sum(d * s for d, s in zip(digits, self.strides, strict=True))
        if self.by_column:
            return number % self.rows, number // self.rows
        return number // self.columns, number % self.columns


ACCUMULATOR = Fragment(16, 8, lambda g, t, i: (g if i < 2 else g + 8, 2 * t + (i & 1)), (32, 1, 16, 8))
SHAPES = {
    "tf32": (
        Fragment(16, 8, lambda g, t, i: (g if i in (0, 2) else g + 8, t if i < 2 else t + 4), (16, 1, 8, 64)),
        Fragment(8, 8, lambda g, t, i: (t if i == 0 else t + 4, g), (8, 1, 32), by_column=False),
    ),
    "bf16": (
        Fragment(
            16,
            16,
            lambda g, t, i: (g if i in (0, 1, 4, 5) else g + 8, 2 * t + (i & 1) + (8 if i >= 4 else 0)),
            (32, 1, 16, 8, 128),
        ),
        Fragment(16, 8, lambda g, t, i: (2 * t + (i & 1) + (8 if i >= 2 else 0), g), (16, 1, 8, 64), by_column=False),
    ),
}  # of A and B


@pytest.mark.parametrize("fragment", [*SHAPES["tf32"], *SHAPES["bf16"], ACCUMULATOR])
def test_two_readings(fragment: Fragment) -> None:
    """They agree, and every element is held once."""
    places = [fragment.at(lane, i) for lane in LANES for i in range(fragment.elements)]
    assert places == [fragment.second(lane, i) for lane in LANES for i in range(fragment.elements)]
    assert sorted(places) == list(np.ndindex(fragment.rows, fragment.columns))


def held(kind: str, fragment: Fragment, matrix: Any, lane: int) -> list[int]:
    """A lane's words of a matrix; two elements of bfloat16 to a word, the first one low."""
    values = np.array([matrix[fragment.at(lane, i)] for i in range(fragment.elements)], np.float32)
    return (bf16(values) if kind == "bf16" else values).view(np.uint32).tolist()


def product(kind: str, rng: np.random.Generator, order: tuple[int, ...] = (0, 1, 2, 3, 4, 5)) -> tuple[Any, Any]:
    """C + A·B by the emulated instruction, from and to the manual's places, and as NumPy has it; `order` of the six
    words of A and B.
    """
    of_a, of_b = SHAPES[kind]
    a = rng.integers(-8, 9, (16, of_a.columns)).astype(np.float32)
    b = rng.integers(-8, 9, (of_b.rows, 8)).astype(np.float32)
    c = rng.integers(-8, 9, (16, 8)).astype(np.float32)
    operands = []
    for lane in LANES:
        words = [*held(kind, of_a, a, lane), *held(kind, of_b, b, lane)]
        operands.append([*(words[k] for k in order), *(c[ACCUMULATOR.at(lane, i)] for i in range(4))])
    found = np.full((16, 8), np.nan)
    for lane, results in zip(LANES, emulation._COLLECTIVES[kind](operands), strict=True):
        for i, value in enumerate(results):
            found[ACCUMULATOR.at(lane, i)] = value
    return found, c + a @ b


@pytest.mark.parametrize("kind", SHAPES)
def test_mma(kind: str, rng: np.random.Generator) -> None:
    """Small integers, so every sum is exact; any other order of the registers shows, unless both operands' columns
    change places.
    """
    found, expected = product(kind, rng)
    assert np.array_equal(found, expected)
    columns_swapped = (2, 3, 0, 1, 5, 4)  # the two halves of k in A, and in B
    for order in permutations(range(4)):
        for last in ((4, 5), (5, 4)):
            found, expected = product(kind, rng, (*order, *last))
            assert np.array_equal(found, expected) == ((*order, *last) in ((0, 1, 2, 3, 4, 5), columns_swapped))


@pytest.mark.parametrize(
    ("kind", "turned"), [("ldmatrix", False), ("ldmatrix words", False), ("ldmatrix turned", True)]
)
def test_ldmatrix(kind: str, turned: bool, rng: np.random.Generator) -> None:
    """Lanes 8q … 8q + 7 give the rows of matrix q; register q holds elements (g, 2t) and (g, 2t + 1) of it, or of its
    transpose.
    """
    emulation._S.shared = shared = rng.integers(0, 256, 2048, np.uint8)
    # a matrix's in banks of their own
    rows = np.concatenate([8 * rng.integers(0, 16, 8) + rng.permutation(8) for _ in range(4)])
    results = emulation._COLLECTIVES[kind]([emulation.SHARED + 16 * int(r) for r in rows])
    for lane in LANES:
        g, t = lane // 4, lane % 4
        for q in range(4):
            matrix = np.stack([shared[16 * r : 16 * r + 16].view(np.uint16) for r in rows[8 * q : 8 * q + 8]])
            low, high = (matrix[2 * t + e, g] if turned else matrix[g, 2 * t + e] for e in range(2))
            word = results[lane][q]
            assert (int(word) if isinstance(word, int) else int(np.float32(word).view(np.uint32))) == int(low) | int(
                high
            ) << 16


def other_layout(kind: str, order: tuple[int, ...]) -> Callable[[list[Any]], list[Any]]:
    """The instruction, on a machine whose registers were numbered otherwise."""
    right = emulation._COLLECTIVES[kind]
    return lambda operands: right([[*(o[k] for k in order), *o[6:]] for o in operands])


@pytest.mark.parametrize("order", [(0, 2, 1, 3, 4, 5), (0, 1, 2, 3, 5, 4), (1, 0, 3, 2, 4, 5)])
@pytest.mark.parametrize(
    ("kind", "precision", "real"), [("tf32", "tf32", "f4"), ("bf16", "bfloat16", "f4"), ("bf16", "bfloat16", "bf16")]
)
@pytest.mark.parametrize("scattered", [False, True])
def test_kernels_need_this_layout(
    kind: str,
    precision: str,
    real: str,
    scattered: bool,
    order: tuple[int, ...],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On any other machine the kernels would compute something else."""
    part = geometry(rng, 16, 16, (1, 4, 4), (1, 1, 1))
    x = rng.integers(1, 9, (1, 16, 1, 4, 4)).astype(np.float32)
    part.weight[...] = rng.integers(1, 9, part.weight.shape)
    expected = np.einsum("nidhw,io->nodhw" if scattered else "nidhw,oi->nodhw", x, part.weight[..., 0, 0, 0])

    def found() -> Any:
        world = World(1, real=real)
        out = world.lowering.buffer("out", x.shape[1:], dtype="f4")
        world.lowering.taps("TAPS", part, View(world.buffer(x.shape[1:], x)), dict(out=View(out)), scatter=scattered)
        world.run(precision)
        return world.view_of(out)

    assert np.array_equal(found(), expected)
    monkeypatch.setitem(emulation._COLLECTIVES, kind, other_layout(kind, order))
    assert not np.array_equal(found(), expected)
