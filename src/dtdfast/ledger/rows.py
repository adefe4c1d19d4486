"""Rows of a ledger from what the steps of a plan have summed (plan/account.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layers import Layer
from ..plan import units as U
from ..plan.account import Book, Line
from ..rules import conserves
from .ledger import CAUSES, Row, Vector, title_of, underflow

Sums = NDArray[np.float64]  # (n, COLUMNS, number of a sum)

R, SIZE = 0, 1
"""Columns of SUMS: Σ R, Σ |R|."""

EMPTY, BIAS, STABILIZER, BIAS_SIZE, S, TERMS = range(2, 8)
"""Columns of ACCOUNT behind these (csrc/rows/sums.c)."""


def rows_of_units(book: Book, blocks: NDArray[np.float64], layers: list[Layer], u: float) -> list[Row]:
    """One row per unit that stands for an entry; `blocks` (n, COLUMNS, blocks) holds the sums of blocks, u is the unit
    roundoff.
    """
    sums = np.add.reduceat(blocks, book.starts, axis=2) if book.starts else blocks
    for number, parts in reversed(book.parts.items()):  # parts may have parts, which were found later
        sums[:, :, number] = sums[:, :, parts].sum(axis=2)
    listed = (line for line in book.lines if not (isinstance(line.unit, U.Move) and line.unit.unlisted))
    return [_row(line, book, sums, layers, u) for line in listed]


def _row(line: Line, book: Book, sums: Sums, layers: list[Layer], u: float) -> Row:
    unit, balance = line.unit, line.unit.balance()

    def added(numbers: list[int], column: int = R) -> Any:
        return sum((sums[:, column, k] for k in numbers), np.zeros(len(sums)))

    came, passed, handed = sums[:, R, line.came], sums[:, SIZE, line.came], added(line.after, SIZE)
    absorbed: dict[str, Vector] = {}
    rounding, size = balance.rounding * passed, passed
    for cause, factor, numbers in line.lost:
        absorbed[cause] = absorbed.get(cause, 0.0) + factor * added(numbers)
        weighed = added([k for k in numbers if k != line.came], SIZE)  # which two roundings made, or all of the unit's
        rounding, size = rounding + (4.0 if factor else balance.rounding) * weighed, size + weighed
    if isinstance(unit, U.Neuron):
        absorbed, shared = _neuron(unit, line, sums)
        absorbed["around stop"] = added(line.around)
        rounding, size = 4.0 * passed + balance.rounding * shared, size + shared + added(line.around, SIZE)
        absorbed = {cause: absorbed[cause] for cause in CAUSES if absorbed.get(cause, came * 0).any()}
    own = 2.0**-53 * max(map(book.depth, (line.came, *line.after))) * (size + handed)
    went = added(line.after) - added(line.before)
    elements = sum(book.sizes[k] for k in (line.came, *line.after))
    bound = u * (rounding + 4.0 * handed) + own + underflow(u, elements)
    return Row(unit.entries, title_of(layers, unit.entries), balance.rule, came.copy(), went, absorbed, bound)


def _neuron(unit: U.Neuron, line: Line, sums: Sums) -> tuple[dict[str, Vector], Vector]:
    """Absorption by cause; and Σ_ij |n_ij s_j|, with what denominators have beside the terms."""
    row, came, passed = unit.row, sums[:, R, line.came], sums[:, SIZE, line.came]
    assert row is not None
    absorbed = {cause: np.zeros(len(sums)) for cause in CAUSES}
    shares = [sums[:, :, k] for k in line.shares]

    def added(column: int) -> Vector:
        result: Vector = np.sum([a[:, column] for a in shares], axis=0)
        return result

    bias, size, lowest = added(BIAS_SIZE), added(TERMS), row.stabilizer * added(S)
    absorbed["stabilizer"] += row.stabilizer * added(STABILIZER)
    if len(shares) < len(row.shares):  # one factor by the sign of y
        absorbed["zero denominator"] += shares[0][:, EMPTY]
        if row.by_sign:  # Σ |terms| ≤ 2|d| + |bias|, where the bias is no part of d
            return absorbed, 2.0 * (passed + lowest) + bias
        ratio, factor = row.paired or (0.0, 1.0)
        absorbed["stabilizer"] /= factor
        absorbed["bias"] += shares[0][:, BIAS]
        return absorbed, (1.0 + ratio) * size + bias + lowest / factor
    absorbed["bias"] += added(BIAS)
    rest, given = came, 0.0  # what no share selects by a sign; the coefficients of all others
    signs: dict[str, tuple[Vector, float]] = {}
    for share, a in zip(row.shares, shares, strict=True):
        if share.coefficient > 0:
            absorbed["zero denominator"] += a[:, EMPTY]
        elif not row.falls_back:  # of αβ: where there is no negative term, β is not taken from anywhere
            absorbed["surplus"] += a[:, EMPTY]
        if share.select == "all":
            given += share.coefficient
        else:
            selected, before = signs.get(share.select, (a[:, R], 0.0))
            rest = rest if share.select in signs else rest - selected
            signs[share.select] = selected, before + share.coefficient
    if all(share.select != "all" for share in row.shares):
        absorbed["zero denominator"] += rest
    else:
        signs["rest"] = rest, 0.0
    if not conserves(row.shares):  # a rule that hands on more or less than came
        for selected, more in signs.values():
            if abs(given + more - 1.0) > 1e-12:
                absorbed["surplus"] += (1.0 - given - more) * selected
    taken = [abs(share.coefficient) for share in row.shares]
    more = sum(taken) - 1.0 if max(taken) > 1 else 0.0  # absorbed whole, where a share has no terms
    return absorbed, (1.0 + row.gamma) * size + bias + lowest + more * passed
