"""Sums in segments: right, with the same bits whether several blocks take them or one walks through them, and whether
a sample is alone or not.

Tolerances are those of test_dense.py: with S segments a sum of n terms errs by (n/S + S)·u, which is less than its n·u.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import repeat
from typing import Any

import numpy as np
import pytest

import dtdfast as dtd
import emulation
import kernel_reference as ref
import on_gpu
from assembler import count, resources, workers
from contraction_kernels import REGISTERS, kernel_of, local_bytes, spilled
from dtdfast.cuda.compile.kernel import Kernel
from dtdfast.cuda.kernels import dense
from dtdfast.cuda.kernels.epilogue import FIRST_VIEW, N_FLOATS, PER_VIEW, Finish
from dtdfast.cuda.kernels.segments import THREADS, add_segments
from dtdfast.cuda.run import driver, tiles, usable
from dtdfast.explainer import Explainer
from dtdfast.oracle.maths import gather, scatter
from dtdfast.plan.steps import View
from layers import World, geometry
from support import LONG
from test_dense import UNITS, U, bound, kept, n_terms, near, neuron, with_rounding
from test_plans_emulated import EmulatingDevice

Way = Callable[[pytest.MonkeyPatch], None]


def apart(patch: pytest.MonkeyPatch) -> None:
    """Each segment to blocks of its own."""
    patch.setattr(tiles, "adding", lambda *_: -1e9)


def walked(patch: pytest.MonkeyPatch) -> None:
    """One block for all."""
    patch.setattr(tiles, "SCRATCH", 0)


def whole(patch: pytest.MonkeyPatch) -> None:
    """As if the sums were short."""
    patch.setattr(tiles, "SEGMENTS", ())


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four tiles make a long sum, since the emulation takes seconds for more."""
    monkeypatch.setattr(tiles, "FEW_TILES", 4)


def run(world: World, precision: str, way: Way, parts: int) -> None:
    """All steps, their launches as they should be."""
    with pytest.MonkeyPatch.context() as patch:
        way(patch)
        first, *more = world.run(precision, 132)
    assert bool(more) == (way is apart)
    assert first.grid[1] == (parts if way is apart else 1)
    assert first.kernel.constants[8:] == ((parts,) if way is walked else ())
    assert [launch.kernel.constants[0] for launch in more] == [parts] * (way is apart)


# inputs, results, pixels and kernel, segments; of two bytes twice as many inputs
CASES = {
    "linear": (4 * 32, 36, (1, 1, 1), (1, 1, 1), 4),
    "three": (3 * 32, 40, (1, 1, 3), (1, 1, 2), 3),
    "two": (2 * 32, 33, (1, 2, 2), (1, 2, 1), 2),
}
RUNS = [("linear", "tf32x3"), ("three", "tf32"), ("two", "bf16")]
RUNS = [(case, unit) for case in CASES for unit in ("tf32x3", "tf32", "bf16")] if LONG else RUNS
# back, rows of 33 results are even in two bytes alone, which are filled up
SCATTERS = [(case, unit) for case, unit in RUNS if case != "two" or unit == "bf16"]


def layer(case: str, unit: str, transposed: bool, rng: np.random.Generator) -> Any:
    inner, across, size, kernel, _ = CASES[case]
    inner *= 2 if unit == "bf16" else 1
    return geometry(rng, *((across, inner) if transposed else (inner, across)), size, kernel, before=1, after=1)


@pytest.mark.parametrize(("case", "unit"), RUNS)
def test_neuron(case: str, unit: str, rng: np.random.Generator) -> None:
    """The dual product: out = relu(y), factor = relu(y) / z⁺."""
    part, (precision, real) = layer(case, unit, False, rng), UNITS[unit]
    x = kept(np.abs(rng.standard_normal((2, *part.source.shape), dtype=np.float32)), real)
    bias = rng.standard_normal(part.taps.c_out, dtype=np.float32)
    found = []
    for way, n in ((apart, 2), (walked, 2), (apart, 1)):
        world = World(n, real=real)
        fields = dict(dual=True, factor_kind="gate", bias=bias, activation=("relu", 0.0, 0.0))
        results = neuron(part, world, x[2 - n :], **fields)
        run(world, precision, way, CASES[case][-1])
        found.append([world.view_of(results[name])[-1].copy() for name in ("out", "factor")])
        assert all(world.untouched(buffer) for buffer in results.values())
    for other in found[1:]:
        assert all(np.array_equal(a.view(np.uint32), b.view(np.uint32)) for a, b in zip(found[0], other, strict=True))
    weight, x64 = part.weight.astype(np.float64), x[1:].astype(np.float64)
    y, size = gather(x64, weight, part.taps) + bias[:, None, None, None], gather(x64, np.abs(weight), part.taps)
    z, out = gather(x64, np.maximum(weight, 0), part.taps), np.maximum(y, 0)
    e = bound(unit, n_terms(part, False))
    error = (e + 2 * U) * (size + np.abs(bias)[:, None, None, None])
    near(found[0][0][None], out, with_rounding(error, out, real))
    gate = ref.quotient(out, z)
    error = 1.01 * ref.quotient(error + gate * e * z, z) + 4 * U * gate
    near(found[0][1][None], gate, with_rounding(error, gate, real))


def scattered(case: str, unit: str, ways: tuple[tuple[Way, int], ...], rng: np.random.Generator) -> None:
    """r_in += x · Σ_j w⁺ s_j for two targets."""
    part, (precision, real), t = layer(case, unit, True, rng), UNITS[unit], 2
    x = kept(rng.standard_normal((2, *part.source.shape), dtype=np.float32), real)
    s = kept(rng.standard_normal((2 * t, part.taps.c_out, *part.taps.out_size), dtype=np.float32), real)
    before = kept(rng.standard_normal((2 * t, *part.source.shape), dtype=np.float32), real)
    found = []
    for way, n in ways:
        world = World(n, t, real=real)
        given, m = world.buffer(s.shape[1:], s[t * (2 - n) :], "nt"), world.buffer(x.shape[1:], x[2 - n :])
        out = world.buffer(x.shape[1:], before[t * (2 - n) :], "nt")
        fields = dict(out=View(out), m=View(m), multiplier="times", weight_map="w+", repeat=t, accumulate=True)
        world.lowering.taps("TAPS", part, View(given), fields, scatter=True)
        run(world, precision, way, CASES[case][-1])
        found.append(world.view_of(out)[-t:].copy())
        assert world.untouched(out)
    positive, factor = np.maximum(part.weight, 0).astype(np.float64), np.repeat(x[1:], t, axis=0)
    expected = before[t:] + factor * scatter(s[t:].astype(np.float64), positive, part.taps)
    size = np.abs(before[t:]) + np.abs(factor) * scatter(np.abs(s[t:]).astype(np.float64), positive, part.taps)
    near(found[0], expected, with_rounding((bound(unit, n_terms(part, True)) + 3 * U) * size, expected, real))
    for other in found[1:]:
        assert np.array_equal(found[0].view(np.uint32), other.view(np.uint32)), "other bits"


BOTH = ((apart, 2), (walked, 2), (apart, 1))


@pytest.mark.parametrize(("case", "unit"), SCATTERS)
def test_scatter(case: str, unit: str, rng: np.random.Generator) -> None:
    scattered(case, unit, BOTH, rng)


@pytest.fixture
def anew() -> Any:
    """Kernels keep the instructions that they were made with."""
    emulation.function_of.cache_clear()
    yield
    emulation.function_of.cache_clear()


@pytest.mark.skipif(on_gpu.WANTED, reason="faults are planted in the emulation")
@pytest.mark.parametrize("fault", ["a segment is lost", "a segment comes twice", "another order", "wrong steps"])
def test_planted(fault: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, anew: Any) -> None:
    """A segment that is lost, or there twice, shows in the numbers; where segments end, and their order, in the
    bits.
    """
    read4, calls = emulation.read4, [0]

    def wrong(at: int) -> Any:
        segment, calls[0] = calls[0] % 4, calls[0] + 1  # one thread adds all of its own without a break
        lost = {"a segment is lost": 2, "another order": 3}.get(fault)
        if segment == lost and fault == "a segment is lost":
            return (np.float32(0),) * 4
        turned = {"a segment comes twice": (0, 1, 1, 3), "another order": (3, 1, 2, 0)}.get(fault, range(4))
        return read4(at + 4 * 36 * (turned[segment] - segment))

    if fault == "wrong steps":
        right = dense.dense
        monkeypatch.setattr(dense, "dense", lambda *given: right(*given[:9], *(2 for _ in given[9:])))
    else:
        monkeypatch.setattr(emulation, "read4", wrong)
    with pytest.raises(AssertionError, match="off by" if fault.startswith("a segment") else "other bits"):
        scattered("linear", "tf32", ((apart, 2), (walked, 2)), rng)


@pytest.mark.parametrize(
    ("layer", "segments"),
    [
        ((1, 4096, 1, 784), 4),  # VGG-16's first linear layer; back, it has columns enough
        ((1, 25088, 1, 128), 1),
        ((49, 512, 9, 16), 4),  # ResNet-50's last stage
        ((49, 2048, 1, 16), 1),
        ((196, 512, 9, 16), 1),
        ((49, 160, 9, 7), 1),  # tiles that nothing divides
        ((49, 192, 9, 6), 3),
        ((1, 10, 1, 4), 1),
    ],
)
def test_which(layer: tuple[int, ...], segments: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "FEW_TILES", 32)
    assert tiles.segments(*layer) == segments


def test_network(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample's map has the same bits alone, taken apart, and among others, walked through; the plan says so."""
    device = EmulatingDevice()
    device.contractions = set()
    if not on_gpu.WANTED:
        monkeypatch.setattr(usable, "survey", lambda: (None, "the host"))
        monkeypatch.setattr(driver, "open_device", lambda number: device)
    first, second, third = (rng.standard_normal(s, dtype=np.float32) / 8 for s in ((64, 8), (32, 64), (3, 32)))
    layers = [dtd.Linear(first), dtd.ReLU(), dtd.Linear(second), dtd.ReLU(), dtd.Linear(third)]
    monkeypatch.setattr(tiles, "FEW_TILES", 2)
    x, found = rng.random((3, 8), dtype=np.float32), {}
    for way, n in ((apart, 1), (walked, 3), (whole, 1)):
        with monkeypatch.context() as patch:
            way(patch)
            explainer = Explainer(layers, backend="cuda", domain="nonnegative")
            found[way] = explainer.explain(x[-n:], 1)[-1]
            assert ("2 segments" in str(explainer.plan_for((n, 8)))) == (way is not whole)
    assert np.array_equal(found[apart], found[walked])
    exact = dtd.explain(layers, x[-1:], 1, domain="nonnegative", backend="oracle")[0]
    terms = bound("tf32x3", 64) + 4 * U
    for way in (apart, whole):  # every term of z⁺ is positive: three layers' numerators and denominators
        assert np.abs(found[way] - exact).sum() <= 6 * terms * np.abs(exact).sum()


ENDINGS = (
    Finish(True, "relu", "gate", True, ("out", "factor"), ("bf16", "bf16"), 8),
    Finish(False, "identity", "times", False, ("out", "m"), ("f4", "f4"), 4),
)


def test_compiled() -> None:
    """Walking takes registers that are there; what a block walks through with two products of halves may spill, where
    segments end. The sums of segments are fetched at once, before anything is written, and added without fusing.
    """
    square = tiles.NAMED["square"].tile
    cases = [(unit, 2, False) for unit in (tiles.EVEN_UNITS[:3] if LONG else ("tf32",))]
    cases += [(unit, 1, way) for unit in tiles.EVEN_UNITS[:3] for way in (False, True)] if LONG else []
    kernels = [kernel_of(unit, True, products, way, square) for unit, products, way in cases]
    kernels = [replace(kernel, constants=(*kernel.constants, 4)) for kernel in kernels]
    adding = [
        Kernel("dtd_add_segments", add_segments, (4, e.constants), FIRST_VIEW + 2 * PER_VIEW, N_FLOATS, THREADS)
        for e in ENDINGS
    ]
    rows = list(workers().map(resources, [*kernels, *adding], repeat(True), repeat(True)))
    assert not any(row["early"] for row in rows)
    for kernel, row in zip(kernels, rows, strict=False):
        for target, found in row["targets"].items():
            assert found["registers"] * kernel.threads * kernel.min_blocks <= REGISTERS
            assert found["local"] <= local_bytes(spilled(kernel, target)), (kernel.constants[:4], found)
        assert count(row["code"], "FFMA") == 0
        products = row["listing"]
        last = max(k for k, (name, _) in enumerate(products) if name.startswith("HMMA"))
        inside = [name for name, _ in products[:last] if name.startswith("LDL")]
        assert len(inside) <= 6, kernel.constants[:4]  # as many as without segments
    for ending, row in zip(ENDINGS, rows[len(kernels) :], strict=True):
        assert row["targets"]["sm_90"]["local"] == 0
        assert count(row["code"], "FFMA") == 0
        names = [name for name, _ in row["listing"]]
        sums = 4 * (1 + ending.dual) * ending.vector // 4
        assert count(row["code"], "LDG", "128", "CONSTANT") >= sums
        first = next(k for k, name in enumerate(names) if name.startswith("FADD"))
        assert sum(name.startswith("LDG") for name in names[:first]) >= sums // (1 + ending.dual)
