"""MATMUL as a launch: views become addresses and strides, the closer axis of out its columns.  No maths."""

from __future__ import annotations

from dataclasses import replace

from ...errors import BackendError
from ...plan.plan import Plan
from ...plan.steps import Step
from ..compile.kernel import Kernel
from ..kernels.matmul import N_INTEGERS, SHARED_BYTES, THREADS, TILE, matmul
from .launch import AddressOf, Launch
from .site import Site
from .strided import C, D, H, N, Strided, W

NAME = "dtd_matmul"
BODY = f"fma, {TILE}×{TILE}"  # as the printed plan says it
MOST = 2**31  # blocks of a launch
MIN_BLOCKS = 4


def launches(step: Step, plan: Plan, address_of: AddressOf) -> list[Launch]:
    """The launch that multiplies two computed matrices."""
    assert step.x is not None
    site = Site(step, plan, address_of)
    n, c, d, rows, columns, _ = site.shape(step.out)
    out, x, other, m = (site.view(step.out), *(site.operand(v) for v in (step.x, step.other, step.m)))
    if _closer_rows(out):
        rows, columns = columns, rows
        out, x, other, m = (_turned(view) for view in (out, other, x, m))
    tiles = (-(-rows // TILE), -(-columns // TILE))
    blocks = n * c * d * tiles[0] * tiles[1]
    if blocks >= MOST:
        raise BackendError(f"a pass of {n} samples has too many products of matrices; choose a smaller batch_size")
    views = (out, x, other, m)
    numbers = (
        *(c, d, rows, columns, site.shape(step.x)[W], step.repeat, *tiles, int(step.accumulate)),
        *(number for view in views for number in (view.at, *(view.strides[a] for a in (N, C, D, H, W)))),
    )
    types, shared = tuple(v.dtype for v in views), tuple(v.kept and step.repeat > 1 for v in views)
    along = (not _closer_rows(x), _closer_rows(other))
    multiplier = "none" if step.m is None else step.multiplier
    kernel = Kernel(NAME, matmul, (types, multiplier, shared, along), N_INTEGERS, 1, THREADS, MIN_BLOCKS)
    return [Launch(kernel, (blocks, 1, 1), SHARED_BYTES, numbers, (step.coefficient,))]


def _closer_rows(view: Strided) -> bool:
    """Whether its rows lie closer together than its columns."""
    return abs(view.strides[H]) < abs(view.strides[W])


def _turned(view: Strided) -> Strided:
    strides = list(view.strides)
    strides[H], strides[W] = strides[W], strides[H]
    return replace(view, strides=tuple(strides))
