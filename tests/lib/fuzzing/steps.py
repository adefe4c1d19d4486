"""Tables of steps as the C kernels read them: those of real plans, with fields changed that the kernels check.

A field that says what is computed has any value here, and any view or vector may be absent. A size has only values that
no step may have, as the kernels cannot know how much memory is behind a pointer. A table is refused, or it runs.
"""

from __future__ import annotations

import functools
import struct
from random import Random
from typing import Any
from unittest import mock

import numpy as np

import dtdfast as dtd
from cases import CASES, HELD_CASES
from dtdfast._kernels import ffi, lib

from .target import Target

CHANGE = struct.Struct("<HBb")  # step, field, value
POOL = (*CASES[:: len(CASES) // 40], *HELD_CASES[:: len(HELD_CASES) // 12])
FREE = ("weight_map", "input_map", "multiplier", "factor_kind", "select", "activation", "precision", "derivative")
FREE += ("dual", "accumulate", "centred")
NUMBERS = ("coefficient", "stabilizer", "gamma", "epsilon", "act_alpha", "act_beta", "lrn_k", "lrn_alpha", "lrn_beta")
SIZES = ("op", "groups", "repeat", "axis", "winner_bytes", "n_taps", "lrn_size", "n_steps", "block")
UNBOUNDED = ("repeat", "n_taps", "lrn_size", "block")  # only negative ones are impossible
IMPOSSIBLE = (-1, -(1 << 31), 1 << 30, -7)
VIEWS = ("out", "factor", "terms", "x", "y_prev", "terms_prev", "m", "scale", "other", "shift")
REFS = ("weight", "bias", "bias_d", "taps", "local")
FIELDS = (*FREE, *NUMBERS, *SIZES, *VIEWS, *REFS)
VALUES = (0.0, 1.0, -1.0, 1e30, -1e30, 1e-45, float("inf"), float("nan"))


@functools.cache
def explainer(number: int) -> tuple[dtd.Explainer, Any, Any]:
    case = POOL[number]
    return dtd.Explainer(case.layers, n_threads=1, **case.options("cpu")), case.x, case.r_out


def seeds() -> list[bytes]:
    """A network, and no change."""
    return [bytes([number]) for number in range(len(POOL))]


def changed(data: bytes, rng: Random) -> bytes:
    """Up to three changes of one network's steps."""
    changes = [
        CHANGE.pack(rng.randrange(1 << 16), rng.randrange(len(FIELDS)), rng.randint(-2, 40))
        for _ in range(rng.choice((1, 1, 1, 2, 3)))
    ]
    return data[:1] + b"".join(changes)


class Altered:
    """The library, which runs a changed copy of every table."""

    def __init__(self, changes: list[tuple[int, int, int]]) -> None:
        self.changes = changes

    def __getattr__(self, name: str) -> Any:
        return getattr(lib, name)

    def dtd_run(
        self, isa: int, real: int, steps: Any, first: int, last: int, bases: Any, n_threads: int, pieces: Any
    ) -> Any:
        copy = ffi.new("dtd_step[]", last)
        ffi.memmove(copy, steps, last * ffi.sizeof("dtd_step"))
        for number, field, value in self.changes:
            alter(copy[first + number % (last - first)], FIELDS[field % len(FIELDS)], value)
        tables = len(bases)
        behind = ffi.new("void *[]", tables + 1)  # before it NULL: what lies behind a view that is absent
        ffi.memmove(behind + 1, bases, tables * ffi.sizeof("void *"))
        return lib.dtd_run(isa, real, copy, first, last, behind + 1, n_threads, pieces)


def alter(step: Any, field: str, value: int) -> None:
    if field in FREE:
        setattr(step, field, value)
    elif field in NUMBERS:
        setattr(step, field, VALUES[value % len(VALUES)])
    elif field in SIZES:
        impossible = IMPOSSIBLE[value % len(IMPOSSIBLE)]
        setattr(step, field, -1 if impossible > 0 and field in UNBOUNDED else impossible)
    else:
        getattr(step, field).base = -1


def read(data: bytes) -> None:
    """Explained with the changed steps; whatever the numbers then are, they have the shape of x."""
    if not data:
        return
    found, x, start = explainer(data[0] % len(POOL))
    end = 1 + (len(data) - 1) // CHANGE.size * CHANGE.size
    altered = Altered(list(CHANGE.iter_unpack(data[1:end])))
    with mock.patch("dtdfast.cpu.executor.lib", altered), np.errstate(all="ignore"):
        assert found.explain(x, start).shape == x.shape


TARGETS = {"steps": Target(seeds, read, changed, ("cpu/executor.py", "cpu/encode.py", "cpu/rows.py"))}
