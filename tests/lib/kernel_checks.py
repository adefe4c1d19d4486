"""What the kernel tests share: random operands and the comparisons.

Tolerance: a sum of n rounded products errs by at most (n + k)·u·Σ|terms|, u = 2⁻²⁴ (float32) or 2⁻⁵³ (float64), where k
counts the roundings before and after it (weight map, scale, multiplier, bias, accumulation); a few ulp more where a
libm function or a division follows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from kernel_steps import USABLE_ISAS, Kernels, isa_name, lib, place
from support import LONG

LAYOUTS = {"channels last": (0, 2, 3, 4, 5, 1), "channels first": (0, 1, 2, 3, 4, 5)}


# where long double is no longer than double, the reference of doubles rounds as often as the kernels do
_LONG = 1 if np.finfo(np.longdouble).nmant > 52 else 2
# the others share what they do not compute in bfloat16 components with avx512: all doubles, and without matrix units
# all float32 too
WITHOUT_UNITS = ("avx512bf16", "avx512f32")
FLOATS = [
    Kernels(isa, lib.DTD_F4, np.float32, np.float64, 2.0**-24)
    for isa in USABLE_ISAS
    if isa_name(isa) not in WITHOUT_UNITS
]
DOUBLES = [
    Kernels(isa, lib.DTD_F8, np.float64, np.longdouble, _LONG * 2.0**-53)
    for isa in USABLE_ISAS
    if not lib.dtd_isa_bfloat16(isa)
]
NARROW = [
    Kernels(isa, lib.DTD_F4, np.float32, np.float64, 2.0**-24) for isa in USABLE_ISAS if lib.dtd_isa_bfloat16(isa)
]

each_kernels = pytest.mark.parametrize("kernels", FLOATS + DOUBLES, ids=str)


def _by_turns(kernels: list[Kernels], number: int) -> list[Kernels]:
    """The last, and every second one of the others, by turns that no list of sizes keeps; all with DTDFAST_LONG=1."""
    turn = number + number // 2
    return [k for i, k in enumerate(kernels) if LONG or k is kernels[-1] or (i + turn) % 2 == 0]


def each(names: str, cases: Iterable[Any], every: int) -> pytest.MarkDecorator:
    """All cases by the kernels for float of the fastest instruction set, half of them by those of each other one, and
    every so many by those for double, likewise: all are compiled from the same text. One case after the other, so that
    instruction sets share its reference (ref.remembered).
    """
    known = [case if "," in names else (case,) for case in cases]
    rows = []
    for n, case in enumerate(known):
        doubles = _by_turns(DOUBLES, n // every) if n % every == 0 else []
        rows += [(k, *case) for k in [*_by_turns(FLOATS, n), *doubles]]
    return pytest.mark.parametrize(
        f"kernels,{names}", rows, ids=lambda v: "x".join(map(str, v)) if isinstance(v, tuple) else str(v)
    )


def agree(result: Any, expected: Any, bound: Any) -> None:
    """|result − expected| ≤ bound, NaN exactly where expected."""
    assert result.shape == expected.shape
    assert np.array_equal(np.isnan(result), np.isnan(expected))
    excess = np.nan_to_num(np.abs(result - np.asarray(expected)) - bound, nan=0.0)
    worst = np.unravel_index(excess.argmax(), excess.shape)
    assert excess[worst] <= 0, (
        f"at {worst}: {result[worst]!r}, expected {expected[worst]!r} within "
        f"{np.broadcast_to(bound, result.shape)[worst]:.2e}"
    )


def same_bits(a: Any, b: Any) -> bool:
    return bool(np.array_equal(np.ascontiguousarray(a).view(np.uint8), np.ascontiguousarray(b).view(np.uint8)))


def operand(kernels: Kernels, rng: np.random.Generator, shape: tuple[int, int, int, int], zeros: bool = False) -> Any:
    """A random array in one of the two layouts."""
    values = kernels.normal(rng, shape[0], shape[1], 1, shape[2], shape[3], 1)
    if zeros:
        values.reshape(-1)[::5] = 0
    return place(
        values, order=LAYOUTS[str(rng.choice(list(LAYOUTS)))], gap=int(rng.integers(3)), frame=(0, 0, 0, 1, 1, 0)
    )
