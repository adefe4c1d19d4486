"""The product behind the relevance of weights, against NumPy; its bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernel_checks import LAYOUTS, agree, each_kernels, same_bits
from kernel_layers import Taps, some_layer
from kernel_steps import Kernels, Step, place
from support import over

POSITIONS = 128


def result(before: Any) -> Any:
    """A packed block of doubles, [tap][input of a group][output]."""
    return place(before.reshape(1, -1, 1, 1, 1, 1), order=(0, 1, 2, 3, 4, 5))


def shape_of(layer: Taps) -> tuple[int, int, int]:
    return len(layer.taps), layer.c_in // layer.groups, layer.c_out


def add(layer: Taps, m: Any, out: Any, samples: slice, n_threads: int) -> None:
    arrays = {"x": layer.x[samples], "m": m[samples], "taps": layer.table, "out": out}
    numbers = {"groups": layer.groups, "n_taps": len(layer.taps)}
    Step("WEIGHT_GRADIENT", arrays, numbers).run(layer.kernels, n_threads)


def reference(layer: Taps, m: Any) -> tuple[Any, Any]:
    """Σ_n Σ_p x[n, p·step + tap, i] m[n, p, j] in each group, and the same of absolute values."""
    wide, (n_taps, inputs, outputs) = layer.kernels.wide, shape_of(layer)
    reach = [max((abs(t[a]) for t in layer.taps), default=0) for a in range(3)]
    x = np.pad(layer.values.astype(wide), [(0, 0), (0, 0), *((r, r) for r in reach), (0, 0)])
    sums, sizes = np.zeros((n_taps, inputs, outputs), wide), np.zeros((n_taps, inputs, outputs), wide)
    for k, tap in enumerate(layer.taps):
        there = [
            slice(r + t, r + t + (c - 1) * s + 1, s)
            for r, t, c, s in zip(reach, tap, layer.count, layer.step, strict=True)
        ]
        at = x[:, :, *there].reshape(len(x), layer.groups, inputs, -1)
        of = m.astype(wide).reshape(len(m), layer.groups, outputs // layer.groups, -1)
        for into, (a, b) in ((sums, (at, of)), (sizes, (abs(at), abs(of)))):
            into[k] = np.einsum("ngip,ngjp->igj", a, b).reshape(inputs, outputs)
    return sums, sizes


def made(kernels: Kernels, seed: int) -> tuple[Taps, Any]:
    layer = some_layer(kernels, ("DENSE", "CHANNEL", "LINEAR")[seed % 3], seed)
    if not layer.taps:  # a phase without taps has no weights
        return made(kernels, seed + 3)
    if layer.kind == "CHANNEL":
        layer.groups = layer.c_in
    m = layer.place(kernels.normal(layer.rng, *layer.shape), LAYOUTS[str(layer.rng.choice(list(LAYOUTS)))])
    return layer, m


@each_kernels
@over("seed", range(12))
def test_sums(kernels: Kernels, seed: int) -> None:
    check(*made(kernels, seed))


@each_kernels
@pytest.mark.parametrize(("c_in", "places"), [(2, (0, 2)), (2, (0, 3, 6)), (2, (1, 0, 3)), (4, (0, 2, 1, 3))])
def test_rows_apart(kernels: Kernels, c_in: int, places: tuple[int, ...]) -> None:
    """Channels of taps that are not side by side, of which the last of a tile of 6 or 14 rows is 5 or 13 behind the
    first.
    """
    taps = tuple((0, 0, place) for place in places)
    layer = Taps("DENSE", kernels, np.random.default_rng(0), 2, c_in, 3, count=(1, 1, 5), taps=taps)
    check(layer, layer.place(kernels.normal(layer.rng, *layer.shape)))


def check(layer: Taps, m: Any) -> None:
    """A product and POSITIONS additions in the run's type, then one addition in double for each block and sample."""
    kernels = layer.kernels
    before = layer.rng.standard_normal(shape_of(layer))
    out = result(before)
    add(layer, m, out, slice(None), 2)
    sums, sizes = reference(layer, m)
    expected, size = before + sums, abs(before) + sizes
    blocks = layer.n * -(-int(np.prod(layer.count)) // POSITIONS)
    bound = (POSITIONS + 1) * kernels.u * sizes + (blocks + 2) * 2.0**-53 * size
    agree(out.reshape(shape_of(layer)), expected, bound.astype(np.float64))


@each_kernels
@over("seed", range(6))
def test_bits(kernels: Kernels, seed: int) -> None:
    """The same for any number of threads, and for samples one by one."""
    layer, m = made(kernels, seed)
    zeros = np.zeros(shape_of(layer))
    seen = []
    for n_threads in (1, 3):
        seen.append(result(zeros))
        add(layer, m, seen[-1], slice(None), n_threads)
    seen.append(result(zeros))
    for n in range(layer.n):
        add(layer, m, seen[-1], slice(n, n + 1), 2)
    assert same_bits(seen[0], seen[1])
    assert same_bits(seen[0], seen[2])
