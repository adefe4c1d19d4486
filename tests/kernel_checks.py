"""What the kernel tests share: random operands and the comparisons.

Tolerance: a sum of n rounded products errs by at most (n + k)·u·Σ|terms|, u = 2⁻²⁴, where k counts the roundings before and after it
(weight map, scale, multiplier, bias, accumulation); a few ulp more where a libm function or a division follows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernel_steps import USABLE_ISAS, isa_name, place

U = 2.0**-24
LAYOUTS = {"channels last": (0, 2, 3, 4, 5, 1), "channels first": (0, 1, 2, 3, 4, 5)}

each_isa = pytest.mark.parametrize("isa", USABLE_ISAS, ids=isa_name)


def normal(rng: np.random.Generator, *shape: int) -> Any:
    return rng.standard_normal(shape, dtype=np.float32)


def agree(result: Any, expected: Any, bound: Any) -> None:
    """|result − expected| ≤ bound, NaN exactly where expected."""
    assert result.shape == expected.shape
    assert np.array_equal(np.isnan(result), np.isnan(expected))
    excess = np.nan_to_num(np.abs(result.astype(np.float64) - expected) - bound, nan=0.0)
    worst = np.unravel_index(excess.argmax(), excess.shape)
    assert excess[worst] <= 0, (
        f"at {worst}: {result[worst]!r}, expected {expected[worst]!r} within {np.broadcast_to(bound, result.shape)[worst]:.2e}"
    )


def same_bits(a: Any, b: Any) -> bool:
    return bool(np.array_equal(np.ascontiguousarray(a).view(np.uint32), np.ascontiguousarray(b).view(np.uint32)))


def operand(rng: np.random.Generator, shape: tuple[int, int, int, int], zeros: bool = False) -> Any:
    """A random array in one of the two layouts."""
    values = normal(rng, shape[0], shape[1], 1, shape[2], shape[3], 1)
    if zeros:
        values.reshape(-1)[::5] = 0
    return place(values, order=LAYOUTS[str(rng.choice(list(LAYOUTS)))], gap=int(rng.integers(3)), frame=(0, 0, 0, 1, 1, 0))
