"""The kernels that published networks ask for, as machine code for sm_80 and sm_90: registers within the launch
bounds, nothing spilled but contraction_kernels.SPILLED.

What a contraction takes of registers follows from its unit, products, direction, feeding and tile.  Tiles are what
test_compiled.py's table is about; of every third kind that the table lacks one kernel is assembled, the one with the
most views.  DTDFAST_LONG=1: every kernel (ten minutes on two cores).
"""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Iterable
from typing import Any

import pytest

import gpu_jobs
from assembler import SHARED, resources, workers
from contraction_kernels import REGISTERS, kernel_of, local_bytes, specialisations, spilled
from dtdfast.cuda.compile.kernel import Kernel
from dtdfast.cuda.kernels import formulas
from dtdfast.cuda.kernels.dense import Tile, dense
from dtdfast.cuda.kernels.epilogue import FIRST_VIEW, N_FLOATS, PER_VIEW, Finish
from dtdfast.cuda.kernels.formulas import ACTIVATIONS, MULTIPLIERS, WEIGHT_MAPS
from dtdfast.cuda.run.tiles import NAMED, TILES
from paper import on_paper

SMALL = NAMED["small"].tile
LONG = bool(os.environ.get("DTDFAST_LONG"))


def wrong(kernels: Iterable[Kernel]) -> list[Any]:
    """Those that do not fit, with what the assembler says; a line for each."""
    kernels, bad = list(kernels), []
    for kernel, row in zip(kernels, workers().map(resources, kernels), strict=True):
        found = [row["targets"][target] for target in SHARED]
        print(
            kernel.name,
            [f["registers"] for f in found],
            kernel.constants[:-1] if kernel.name == "dtd_dense" else kernel.constants[1:3],
        )
        fits = all(f["registers"] * kernel.threads * kernel.min_blocks <= REGISTERS for f in found)
        most = [local_bytes(spilled(kernel, t)) if kernel.name == "dtd_dense" else 0 for t in SHARED]
        if not fits or row["float64"] or any(f["local"] > m for f, m in zip(found, most, strict=True)):
            bad.append((kernel, row))
    return bad


def kind_of(kernel: Kernel) -> tuple[Any, ...]:
    """What a contraction's registers follow from, but for its tile, which test_compiled.py's table is about."""
    unit, maps, across, _, vector, vector_w, even, _, *walked = kernel.constants
    assert isinstance(maps, tuple)
    return unit, len(maps), across, vector, vector_w, even, *walked


@pytest.fixture(scope="module")
def asked_for() -> list[Kernel]:
    """Kernels of all networks, batches and precisions of bench/gpu.py, and of "mixed"."""
    found: dict[Kernel, None] = {}
    for build in gpu_jobs.NETS.values():
        net = build(seed=None)
        batches = [net.sample(n, box=(0.0, 1.0)) for n in gpu_jobs.BATCHES]
        for precision in (*gpu_jobs.PRECISIONS, "mixed"):
            with on_paper() as device:
                explainer = gpu_jobs.explainer(net, precision)
                for x in batches:
                    explainer.explain(x, 0)
            found.update(dict.fromkeys(device.kernels))
    return list(found)


def test_published_networks(asked_for: list[Kernel]) -> None:
    assert len(asked_for) > 250
    kinds = {kind_of(kernel_of(*case)): None for case in specialisations()}
    lacking: dict[tuple[Any, ...], Kernel] = {}
    for kernel in sorted((k for k in asked_for if k.name == "dtd_dense"), key=lambda k: k.n_integers):
        if kind_of(kernel) not in kinds:
            lacking[kind_of(kernel)] = kernel
    assert not wrong(asked_for if LONG else list(lacking.values())[::3])


def test_every_tile_is_asked_for(asked_for: list[Kernel]) -> None:
    """By one of these networks at least: a row that none takes would be a kernel to keep right for nothing."""
    taken = {
        Tile(*kernel.constants[3], kernel.min_blocks)  # type: ignore[misc]
        for kernel in asked_for
        if kernel.name == "dtd_dense"
    }
    assert [row.name for row in TILES if row.tile not in taken] == []


def with_ending(unit: str, maps: tuple[str, ...], ending: Finish) -> Kernel:
    vector = 8 if unit == "bf16" else 4
    constants = (unit, maps, False, SMALL.constants, vector, vector, False, ending.constants)
    return Kernel(
        "dtd_dense",
        dense,
        constants,
        FIRST_VIEW + PER_VIEW * len(ending.views),
        N_FLOATS,
        SMALL.threads,
        SMALL.min_blocks,
    )


def test_formulas() -> None:
    """Every activation, factor, weight map and multiplier within a contraction; without DTDFAST_LONG one in ten."""
    modes = ("gate", "derivative", "denominator")
    kernels = [
        with_ending(
            "tf32", ("w",), Finish(True, kind, modes[number % 3], False, ("out", "factor", "window"), ("f4",) * 3, 4)
        )
        for number, kind in enumerate(ACTIVATIONS)
    ]
    for number, weight_map in enumerate(WEIGHT_MAPS):
        for unit, real, vector in (("tf32x3", "f4", 4), ("bf16", "bf16", 8)):
            multiplier = list(MULTIPLIERS)[(number + (unit == "bf16")) % len(MULTIPLIERS)]
            ending = Finish(False, "identity", multiplier, False, ("out", "m"), (real, real), vector)
            kernels.append(with_ending(unit, (weight_map,), ending))
    assert not wrong(kernels if LONG else kernels[::10])


def test_formulas_return_once() -> None:
    """Of others, numba makes what it cannot put into a kernel."""
    tree = ast.parse(inspect.getsource(formulas))
    found = {
        f.name: sum(isinstance(n, ast.Return) for n in ast.walk(f)) for f in tree.body if isinstance(f, ast.FunctionDef)
    }
    assert len(found) > 40
    assert set(found.values()) == {1}
