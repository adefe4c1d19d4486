"""The conservation ledger: where the relevance of every layer went, and whether the kernels kept their word.

Every rule is R_i = Σ_j n_ij R_j / d_j, so with κ_j = Σ_i n_ij / d_j a layer absorbs A = Σ_j (1 − κ_j) R_j exactly. A is
computed from the κ_j, cause by cause, never as a difference of sums; what then remains between the sums is rounding,

    |residual| ≤ u (n_in + n_out + c) Σ_ij |n_ij s_j|,     u = 2⁻²⁴ (float32), 2⁻⁵³ (float64), or that of NARROW,

and that of the ledger's own sums, which are in float64.  A wrong kernel shows as a residual beyond that bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layers import Layer
from ..show import OneLine, aligned, tabulated

CAUSES = ("bias", "stabilizer", "zero denominator", "surplus", "softmax", "constant", "around stop")
"""What absorbs relevance: the bias in a denominator; ε; d = 0; coefficients, or an Add, that hand on less than came
(negative: more); padding and Constants; operands from which nothing comes to the entry that `stop` names."""

HEADER = ("entries", "unit", "rule", "came", "went", "absorbed", "by", "residual", "bound")

NARROW = {"tf32": 2.0**-11, "bfloat16": 2.0**-8, "mixed": 2.0**-8}
"""Unit roundoff of the precisions with narrow operands."""

Vector = NDArray[np.float64]  # one number per sample


def underflow(u: float, elements: int) -> float:
    """Bound on what so many numbers of unit roundoff u lose by underflow: the smallest normal number each."""
    return elements * float(np.finfo(np.float64 if u < 2.0**-30 else np.float32).tiny)


def total(values: NDArray[Any]) -> Vector:
    """Sums over every sample in float64, one sample after the other, so that none depends on how many there are."""
    return np.array([sample.sum(dtype=np.float64) for sample in values.reshape(len(values), -1)], np.float64)


@dataclass
class Row(OneLine):
    """The account of one step of the plan: a layer of neurons, a pool, or another thing that relevance passes.

    Attributes
    ----------
    entries : tuple of int
        The positions of its entries in the list.
    title : str
        Their names.
    rule : str
        The rule.
    came : ndarray of shape (n,)
        The relevance on its outputs.
    went : ndarray of shape (n,)
        The relevance that it handed to its inputs.
    absorbed : dict of str to ndarray of shape (n,)
        What it absorbed, by cause; negative where it handed on more than came.
    bound : ndarray of shape (n,)
        The bound on rounding errors.
    """

    entries: tuple[int, ...]
    title: str
    rule: str
    came: Vector
    went: Vector
    absorbed: dict[str, Vector]
    bound: Vector

    @property
    def residual(self) -> Vector:
        """went − (came − absorbed): rounding only, if every kernel is right."""
        return self.went - (self.came - sum(self.absorbed.values(), np.zeros_like(self.came)))

    @property
    def closed(self) -> bool:
        """Whether the account closes: the residual lies within its bound."""
        return bool((np.abs(self.residual) <= self.bound).all())


@dataclass
class Ledger:
    """The account of the relevance in every layer, from the output down; prints as a table.

    Attributes
    ----------
    rows : list of Row
        One per layer of neurons and per other step that relevance passes.
    start : ndarray of shape (n,)
        The relevance that entered.
    end : ndarray of shape (n,)
        The relevance that arrived at the input, or at the entry `stop`.

    Notes
    -----
    Every rule is R_i = Σ_j n_ij R_j / d_j. With κ_j = Σ_i n_ij / d_j a layer absorbs Σ_j (1 − κ_j) R_j exactly. This is
    computed from the κ_j, cause by cause, and not as a difference of sums. The causes are the bias in a denominator,
    the stabiliser, a zero denominator, surplus (coefficients that do not sum to 1, or an Add that gives all relevance
    to every operand), and constants.
    """

    rows: list[Row]
    start: Vector
    end: Vector

    @classmethod
    def join(cls, blocks: list[list[Row]], start: Vector, end: Vector) -> Ledger:
        """One ledger from those of consecutive blocks of samples.

        Parameters
        ----------
        blocks : list of list of Row
            The rows of each block.
        start, end : ndarray of shape (n,)
            The totals of all samples.

        Returns
        -------
        Ledger
            That of all samples.
        """
        rows = []
        for parts in zip(*blocks, strict=True):
            first = parts[0]
            causes = [c for c in CAUSES if any(c in p.absorbed for p in parts)]
            absorbed = {c: np.concatenate([p.absorbed.get(c, np.zeros_like(p.came)) for p in parts]) for c in causes}
            came, went, bound = (np.concatenate([getattr(p, key) for p in parts]) for key in ("came", "went", "bound"))
            rows.append(Row(first.entries, first.title, first.rule, came, went, absorbed, bound))
        return cls(rows, start, end)

    def steps(self) -> list[Row]:
        """The rows that share relevance or absorb some, without those that only pass it on.

        Returns
        -------
        list of Row
            From the output down.
        """
        return [r for r in self.rows if r.rule != "pass" or any(v.any() for v in r.absorbed.values())]

    @property
    def absorbed(self) -> dict[str, Vector]:
        """What all layers absorbed, by cause, as arrays of shape (n,)."""
        zero = np.zeros_like(self.start)
        return {cause: sum((r.absorbed[cause] for r in self.rows if cause in r.absorbed), zero) for cause in CAUSES}

    @property
    def residual(self) -> Vector:
        """end − (start − absorbed), of shape (n,)."""
        return self.end - (self.start - sum(self.absorbed.values(), np.zeros_like(self.start)))

    @property
    def bound(self) -> Vector:
        """The sum of the bounds of all rows, of shape (n,)."""
        return sum((r.bound for r in self.rows), np.zeros_like(self.start))

    @property
    def closed(self) -> bool:
        """Whether the account closes: the residual of every row, and that of the whole, lies within its bound."""
        return all(r.closed for r in self.rows) and bool((np.abs(self.residual) <= self.bound).all())

    def __repr__(self) -> str:
        return f"Ledger({len(self.rows)} rows, {len(self.start)} samples, closed={self.closed})"

    def _repr_html_(self) -> str:
        return tabulated(HEADER, self._cells(), self._reading())

    def __str__(self) -> str:
        return "\n".join([*aligned([HEADER, *self._cells()]), self._reading()])

    def _cells(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        for r in self.rows:
            causes = {c: float(v.sum()) for c, v in r.absorbed.items() if v.any()}
            rows.append(
                (
                    _span(r.entries),
                    r.title,
                    r.rule,
                    f"{r.came.sum():.6g}",
                    f"{r.went.sum():.6g}",
                    f"{sum(causes.values()):.3g}",
                    ", ".join(f"{c} {v:.3g}" for c, v in causes.items()) or "-",
                    f"{np.abs(r.residual).max():.1e}",
                    f"{r.bound[np.abs(r.residual).argmax()]:.1e}" + ("" if r.closed else "  <- open"),
                )
            )
        return rows

    def _reading(self) -> str:
        state = "account closes" if self.closed else "ACCOUNT STAYS OPEN: some residual exceeds its rounding bound"
        return (
            f"{len(self.start)} sample(s): {self.start.sum():.6g} entered, {self.end.sum():.6g} arrived, "
            f"{np.sum(list(self.absorbed.values())):.3g} absorbed, largest residual "
            f"{np.abs(self.residual).max():.1e}; {state}"
        )


def _span(entries: tuple[int, ...]) -> str:
    return "+".join(map(str, entries))


def title_of(layers: list[Layer], entries: tuple[int, ...]) -> str:
    """The names of a unit's entries."""
    return " + ".join(layers[e].name or type(layers[e]).__name__ for e in entries)
