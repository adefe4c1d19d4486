"""The ledger of the oracle: what it knows of a unit while relevance passes it, and the row that follows from that."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layers import Layer
from ..ledger.ledger import CAUSES, Row, title_of, underflow
from ..plan import units as U
from ..plan.tensors import Handed, take
from ..rules import Share, conserves
from ..show import OneLine

Float64 = NDArray[np.float64]


@dataclass
class ShareAccount(OneLine):
    """One share of a neuron's row; arrays of shape (n, *out) or broadcastable to it."""

    terms: NDArray[Any]  # Σ_i n_ij
    around: NDArray[Any]  # of these, what belongs to operands from which relevance does not come to `stop`
    bias: NDArray[Any]  # the bias in the denominator
    magnitude: NDArray[Any]  # Σ_i |in(x_i)| |wm(w_ij)|, for the rounding bound


@dataclass
class Account(OneLine):
    """Relevance on a unit's outputs and handed to its sources, with what is needed to say where the difference went."""

    unit: U.Unit
    r_out: Float64  # (n, *out)
    r_in: Float64  # (n,): the sum handed to all sources
    handed: Float64  # (n,): the sum of absolute values now on those sources, for the rounding bound
    passed: Handed | None = None  # of a unit that weighs relevance by its values
    y: NDArray[Any] | None = None  # pre-activations, where a share selects by their sign
    shares: list[ShareAccount] = field(default_factory=list)


def handed_on(unit: U.Unit, x: Callable[[U.Tensor], NDArray[Any]]) -> Handed | None:
    """How much of every output's relevance such a unit hands on; x(tensor) is (n, *shape)."""
    nothing = np.zeros((1,) * (1 + len(unit.out.shape)))
    if isinstance(unit, U.Probabilities):  # of R_j, x_j − Σ_i s_i x_i
        values, s = x(unit.sources[0]), x(unit.out)
        means = [(s * v).sum(axis=unit.axis, keepdims=True) for v in (values, np.abs(values))]
        share = np.where(s == 0, 0.0, values - means[0])
        return Handed(share, nothing, np.where(s == 0, 0.0, np.abs(values) + means[1]))
    if isinstance(unit, U.Product):
        return Handed(np.where(x(unit.out) != 0, 1.0, 0.0), nothing)
    if isinstance(unit, U.Gating) and unit.masks:
        return Handed(np.where(x(unit.sources[1]) != 0, 1.0, 0.0), nothing)
    if not isinstance(unit, U.Affine) or unit.shares is None:
        return None
    column = (-1, *(1,) * (len(unit.out.shape) - 1))
    total, around = nothing, nothing
    for number, (source, share) in enumerate(zip(unit.sources, unit.shares, strict=True)):
        handed = share.reshape(column)[None]  # 0 or 1 but for αβ
        if unit.tapped is not None and number == unit.open_to:
            handed = handed + (unit.tapped.reshape(column) * x(unit.sources[0]) > 0)
        total = total + handed
        around = around if source.wanted else around + handed
    return Handed(total, around)


def row_of(account: Account, layers: list[Layer], u: float) -> Row:
    """One row from what the executor reported."""
    unit, r, balance = account.unit, account.r_out, account.unit.balance()
    n = len(r)
    size = np.abs(r).reshape(n, -1).sum(axis=1)
    absorbed: dict[str, Float64] = {}
    rounding = balance.rounding * size
    for cause, factor, region, handed in balance.lost:
        part = r if region is None else take(r, region, 1)
        part = part * getattr(account.passed, handed) if handed else part
        absorbed[cause] = absorbed.get(cause, 0.0) + factor * part.reshape(n, -1).sum(axis=1)
        if not factor:
            rounding = rounding + balance.rounding * np.abs(part).reshape(n, -1).sum(axis=1)
    if isinstance(unit, U.Neuron):
        rounding = 4.0 * size
        absorbed, size = _neuron(account, unit, r)
        rounding = rounding + balance.rounding * size
    # the ledger's own sums: NumPy adds pairwise, blocks of 128 in eight chains of 16
    own = 2.0**-53 * (18.0 + np.log2(r[0].size)) * (size + account.handed)
    elements = r[0].size + sum(math.prod(s.shape) for s in unit.sources)
    bound = u * (rounding + 4.0 * account.handed) + own + underflow(u, elements)
    came = r.reshape(n, -1).sum(axis=1)
    return Row(unit.entries, title_of(layers, unit.entries), balance.rule, came, account.r_in, absorbed, bound)


def _neuron(account: Account, unit: U.Neuron, r: Float64) -> tuple[dict[str, Float64], Float64]:
    """Absorption by cause, from κ_j; and Σ_ij |n_ij s_j|."""
    row = unit.row
    assert row is not None
    n = len(r)
    absorbed = {cause: np.zeros(r.shape) for cause in CAUSES}
    size = np.zeros(r.shape)
    selected_any = np.zeros(r.shape, bool)
    given = np.zeros(r.shape)  # the coefficients' sum
    d_of = []
    for a in account.shares:
        plain = a.terms.astype(np.float64) + a.bias
        d_of.append((plain, np.where(plain < 0, -row.stabilizer, row.stabilizer)))
    for number, share in enumerate(row.shares):
        a, (plain, stabiliser) = account.shares[number], d_of[number]
        d = plain + stabiliser
        chosen = _selected(share, account.y, r)
        selected_any |= chosen
        given += np.where(chosen, share.coefficient, 0.0)
        coefficient: Any = share.coefficient
        if share.coefficient < 0:  # of αβ: where there is no negative term, β is not taken from anywhere
            empty = np.broadcast_to(a.terms == 0, r.shape)
            if not row.falls_back:
                absorbed["surplus"] += np.where(chosen & empty, coefficient * r, 0)
            coefficient = np.where(empty, 0.0, coefficient)
        elif row.falls_back and number == 0:
            coefficient = np.where(account.shares[1].terms == 0, 1.0, coefficient)
        s = np.where(chosen & (d != 0), coefficient * r / np.where(d == 0, 1, d), 0)
        absorbed["bias"] += s * a.bias
        absorbed["around stop"] += s * a.around
        absorbed["stabilizer"] += s * stabiliser
        absorbed["zero denominator"] += np.where(chosen & (d == 0), coefficient * r, 0)
        size += np.abs(s) * (a.magnitude + np.abs(a.bias) + np.abs(stabiliser))
        size += np.where((d == 0) | (a.terms == 0), np.abs(share.coefficient * r), 0)  # absorbed whole
    absorbed["zero denominator"] += np.where(selected_any, 0, r)
    if not (row.by_sign or conserves(row.shares)):  # a rule that hands on more or less than came
        absorbed["surplus"] += np.where(selected_any & (np.abs(given - 1) > 1e-12), (1 - given) * r, 0)
    return {c: v.reshape(n, -1).sum(axis=1) for c, v in absorbed.items() if v.any()}, size.reshape(n, -1).sum(axis=1)


def _selected(share: Share, y: NDArray[Any] | None, r: Float64) -> NDArray[np.bool_]:
    if share.select == "all" or y is None:
        return np.ones(r.shape, bool)
    return {"y>0": y > 0, "y>=0": y >= 0, "y<0": y < 0}[share.select]
