"""Products of two computed matrices against the float64 reference: every layout, shared operands, and bits that depend
on the operands alone.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

import kernel_reference as ref
from kernel_checks import agree, each, each_kernels, same_bits
from kernel_steps import Kernels, Step, lib, place
from support import over

LAYOUTS = {
    "rows": (0, 1, 2, 5, 3, 4),
    "transposed": (0, 1, 2, 5, 4, 3),
    "heads between": (0, 3, 5, 2, 1, 4),
    "heads fastest": (0, 3, 4, 5, 2, 1),
}
SIZES = [  # rows, terms, columns
    (1, 1, 1),
    (1, 64, 197),
    (3, 5, 16),
    (7, 33, 32),
    (13, 16, 17),
    (15, 64, 48),
    (29, 197, 64),
    (57, 7, 99),
    (60, 531, 35),
    (2, 1100, 40),
    (31, 1, 70),
]


def batch_of(values: Any, repeat: int, shared: bool) -> Any:
    return np.repeat(values, repeat, 0) if shared else values


@each("size", SIZES, 3)
@over("seed", range(4))
def test_matmul(kernels: Kernels, size: tuple[int, int, int], seed: int) -> None:
    """out (+)= coefficient·multiplier(m)·x·other, with every operand that a step may have."""
    rng = np.random.default_rng([seed, *size])
    rows, terms, columns = size
    n, repeat, heads = 2, int(rng.integers(1, 4)), (int(rng.integers(1, 3)), int(rng.integers(1, 4)))
    shared = {name: repeat > 1 and bool(rng.integers(2)) for name in ("x", "other", "m")}

    def some(name: str, height: int, width: int) -> Any:
        batch = n if shared.get(name) else n * repeat
        return kernels.normal(rng, batch, *heads, height, width, 1)

    def laid_out(values: Any) -> Any:
        return place(values, order=LAYOUTS[str(rng.choice(list(LAYOUTS)))], gap=int(rng.integers(3)))

    values = {"x": some("x", rows, terms), "other": some("other", terms, columns), "m": some("m", rows, columns)}
    values["m"].reshape(-1)[::3] = 0
    multiplier = str(rng.choice(list(ref.MULTIPLIERS)))
    accumulate, coefficient = int(rng.integers(2)), float(rng.choice([1, 0.125, -1.5]))
    out = laid_out(some("out", rows, columns))
    start = accumulate * out.astype(kernels.wide)
    arrays = {name: laid_out(array) for name, array in values.items()}
    if multiplier == "M_NONE":
        arrays["m"] = None
    numbers = {
        "multiplier": getattr(lib, f"DTD_{multiplier}"), "repeat": repeat, "accumulate": accumulate,
        "coefficient": coefficient,
    }  # fmt: skip
    Step("MATMUL", {**arrays, "out": out}, numbers).run(kernels, 1 + seed % 2)

    x, other, m = (batch_of(array.astype(kernels.wide), repeat, shared[name]) for name, array in values.items())
    by = coefficient * ref.MULTIPLIERS[multiplier](m)
    total = by * np.einsum("ncdike,ncdkje->ncdije", x, other)
    terms_size = np.abs(by) * np.einsum("ncdike,ncdkje->ncdije", np.abs(x), np.abs(other))
    agree(out, start + total, (terms + 4) * kernels.u * (np.abs(start) + terms_size))


@each_kernels
def test_an_operand_of_stride_0_is_repeated(kernels: Kernels) -> None:
    """Heads of a group share keys and values, and all samples what is constant."""
    rng = np.random.default_rng(2)
    x, other = kernels.normal(rng, 2, 2, 3, 17, 9, 1), kernels.normal(rng, 1, 2, 1, 9, 21, 1)
    alike, whole = np.broadcast_to(place(other), (2, 2, 3, 9, 21, 1)), np.repeat(np.repeat(other, 2, 0), 3, 2)
    results = [place(kernels.zeros(2, 2, 3, 17, 21, 1)) for _ in range(2)]
    for right, out in zip((alike, place(whole)), results, strict=True):
        Step("MATMUL", {"x": place(x), "other": right, "out": out}).run(kernels, 2)
    assert same_bits(*results)


@each("size", [(197, 64, 97), (50, 530, 40), (97, 33, 5)], 2)
def test_bits_depend_on_the_operands_alone(kernels: Kernels, size: tuple[int, int, int]) -> None:
    """Not on threads, on the batch, on the rows and columns beside them, or on how the operands lie in memory."""
    rng = np.random.default_rng(3)
    rows, terms, columns = size
    x, other = kernels.normal(rng, 2, 3, 1, rows, terms, 1), kernels.normal(rng, 2, 3, 1, terms, columns, 1)

    def run(x: Any, other: Any, n_threads: int = 1, layouts: tuple[str, str, str] = ("rows", "rows", "rows")) -> Any:
        shape = (*x.shape[:4], other.shape[4], 1)
        left, right, out = (
            place(a, order=LAYOUTS[layout])
            for a, layout in zip((x, other, np.zeros(shape, kernels.dtype)), layouts, strict=True)
        )
        Step("MATMUL", {"x": left, "other": right, "out": out}).run(kernels, n_threads)
        return out

    first = run(x, other)
    for n_threads in (2, 3, 7):
        assert same_bits(run(x, other, n_threads), first)
    for layouts in product(LAYOUTS, LAYOUTS, ("rows", "transposed")):
        assert same_bits(run(x, other, 1, layouts), first)
    assert same_bits(run(x[1:, 2:], other[1:, 2:], 2), first[1:, 2:])
    for some in (slice(5, 6), slice(10, 29), slice(30, 33)):
        for layout in LAYOUTS:
            assert same_bits(run(x[:, :, :, some], other, 1, ("rows", layout, "rows")), first[:, :, :, some])
        assert same_bits(run(x, other[..., some, :]), first[..., some, :])


@each_kernels
def test_nan_stays_in_its_row_and_column(kernels: Kernels) -> None:
    rng = np.random.default_rng(4)
    x, other = kernels.normal(rng, 1, 2, 1, 20, 18, 1), kernels.normal(rng, 1, 2, 1, 18, 35, 1)
    x[0, 1, 0, 7, 3] = other[0, 0, 0, 4, 33] = np.nan
    out = place(kernels.zeros(1, 2, 1, 20, 35, 1))
    Step("MATMUL", {"x": place(x), "other": place(other), "out": out}).run(kernels)
    expected = np.zeros(out.shape, bool)
    expected[0, 1, 0, 7] = expected[0, 0, 0, :, 33] = True
    assert np.array_equal(np.isnan(out), expected)
