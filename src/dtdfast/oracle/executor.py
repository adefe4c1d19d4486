"""The oracle: every unit in NumPy float64, message by message. It defines the truth and is written to be obvious, not
fast.

It reads the units of a plan (what is computed) and nothing of the steps (how), keeps R itself on every tensor whatever
form the plan chose, and has its own tap loops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..plan import units as U
from ..plan.held import Held, Weighted
from ..plan.network import Network
from ..plan.tensors import take
from ..rules import Row, Share, Term
from ..session import Beside
from . import held
from .account import Account, ShareAccount, handed_on
from .maths import INPUT_MAPS, WEIGHT_MAPS, activate, canvas, derivative, gather, interior, scatter, tap_slices
from .weights import Weights

Array = NDArray[Any]

# ----------------------------------------------------------------------------------------------------------- executor


class Oracle:
    """One network, run on batches."""

    def __init__(self, network: Network, leaves: U.Tensor, gradient: bool, beside: Beside | None = None) -> None:
        self.network, self.leaves, self.gradient, self.beside = network, leaves, gradient, beside or {}
        self.values: dict[int, Array] = {}
        self.pre: dict[int, Array] = {}  # unit's output → pre-activations
        self.winners: dict[int, Array] = {}
        self.scales: dict[int, Array] = {}  # id of a norm's operand → ρ

    def forward(self, x: Array) -> Array:
        """Values of every tensor; returns the output (n, *out)."""
        self.values = {0: x if x.dtype.kind == "i" else x.astype(np.float64)}
        for unit in self.network.units:
            if unit.twin and (unit.out.valueless or not unit.in_relevance):
                continue
            self.values[unit.out.index] = FORWARD[type(unit)](self, unit)
        return self.values[self.network.output.index]

    def relevance(self, start: Array, accounts: list[Account] | None = None, weights: Weights | None = None) -> Array:
        """Start (n, t, *out) → (n, t, *leaves)."""
        n, t = start.shape[:2]
        self.repeat = t
        self.r: dict[int, Array] = {
            self.network.output.index: start.reshape(n * t, *start.shape[2:]).astype(np.float64)
        }
        for unit in reversed(self.network.units):
            if unit.out is self.leaves or not unit.out.wanted or unit.out.index not in self.r:
                continue
            messages = RELEVANCE[type(unit)](self, unit, self.r[unit.out.index])
            handed = []
            for source, message in zip(unit.sources, messages, strict=True):
                if source.wanted and message is not None:
                    self.r[source.index] = self.r[source.index] + message if source.index in self.r else message
                    handed.append(message)
            if accounts is not None:
                accounts.append(self.account(unit, handed))
            if weights is not None and isinstance(unit, U.Neuron):
                weights.add(self, unit, self.r[unit.out.index])
        result = self.r[self.leaves.index]
        return result.reshape(n, t, *result.shape[1:])

    def x(self, tensor: U.Tensor) -> Array:
        """Values repeated for every target: (n·t, *shape)."""
        return np.repeat(self.values[tensor.index], self.repeat, axis=0)

    def spatial(self, tensor: U.Tensor) -> Array:
        return self.x(tensor).reshape(-1, tensor.channels, *tensor.space)

    # -------------------------------------------------------------------------------------------------------- neurons

    def _neuron_forward(self, unit: U.Neuron) -> Any:
        self.repeat = 1
        y = np.zeros((len(self.values[0]), unit.out.channels, *unit.out.space))
        for part in unit.parts:
            for term in part.terms[0] if unit.half else [Term("x", "w")]:
                y += self._sum(part, term, 0.0)
        if unit.bias is not None and not unit.half:
            y += np.asarray(unit.bias, np.float64).reshape(-1, 1, 1, 1)
        y = y.reshape(len(y), *unit.out.shape)
        self.pre[unit.out.index] = y
        return activate(unit.activation, y)

    def _weight(self, part: U.Part, term: Term, gamma: float) -> tuple[Array, Array]:
        """The mapped weights, and a factor per output position (an average pool's)."""
        one = np.ones((1, 1, 1))
        if part.weight is None:
            ones = np.ones((part.taps.c_out, 1, *part.taps.kernel))
            return ones, WEIGHT_MAPS[term.w](one if part.window is None else part.window, gamma)
        weight = np.asarray(part.weight, np.float64)
        if part.support is not None and term.w == "1":
            return 1.0 * (weight != 0), one
        return WEIGHT_MAPS[term.w](weight, gamma), one

    def _mapped(self, part: U.Part, term: Term) -> Array:
        mapped = INPUT_MAPS[term.x](self.x(part.source), part.box)
        return mapped.reshape(-1, part.source.channels, *part.source.space)

    def _sum(self, part: U.Part, term: Term, gamma: float) -> Any:
        """Σ_i in(x_i) wm(w_ij) of one operand."""
        return self._applied(part, term, gamma, self._mapped(part, term))

    def _applied(self, part: U.Part, term: Term, gamma: float, u: Array) -> Any:
        """Σ_i u_i wm(w_ij)."""
        if isinstance(part, Held):
            return held.applied(self, part, u, weight_map(part, term.w, gamma))
        w, per_output = self._weight(part, term, gamma)
        return gather(u, w, part.taps) * per_output

    def _size(self, part: U.Part, term: Term, gamma: float) -> Any:
        """Σ_i |in(x_i)| |wm(w_ij)|."""
        size = np.abs(self._mapped(part, term))
        if isinstance(part, Held):
            wm = weight_map(part, term.w, gamma)
            return held.applied(self, part, size, lambda w: np.abs(wm(w)))
        w, per_output = self._weight(part, term, gamma)
        return gather(size, np.abs(w), part.taps) * np.abs(per_output)

    def _back(self, part: U.Part, term: Term, gamma: float, s: Array) -> Any:
        """Σ_j wm(w_ij) s_j."""
        if isinstance(part, Held):
            return held.back(self, part, s, weight_map(part, term.w, gamma))
        w, per_output = self._weight(part, term, gamma)
        return scatter(s * per_output, w, part.taps)

    def _denominators(self, unit: U.Neuron, row: Row) -> list[tuple[Array, Array]]:
        """Per share: (Σ terms, d)."""
        result = []
        for number, share in enumerate(row.shares):
            terms = np.zeros((1, unit.out.channels, *unit.out.space))
            for part in unit.parts:
                for term in part.terms[number]:
                    terms = terms + self._sum(part, term, row.gamma)
            d = terms + self._bias(unit, share, row)
            d = d + row.stabilizer * np.where(d < 0, -1.0, 1.0)
            result.append((terms, d))
        return result

    @staticmethod
    def _bias(unit: U.Neuron, share: Share, row: Row) -> Array:
        if unit.bias is None or share.bias is None:
            return np.zeros((unit.out.channels, 1, 1, 1))
        bias = WEIGHT_MAPS[share.bias](np.asarray(unit.bias, np.float64), row.gamma).reshape(unit.column)
        return bias.reshape(bias.shape[0], *(1,) * (4 - bias.ndim), *bias.shape[1:])

    def _selected(self, unit: U.Neuron, share: Share) -> Array:
        y = np.repeat(self.pre[unit.out.index], self.repeat, axis=0).reshape(-1, unit.out.channels, *unit.out.space)
        return {"all": np.ones_like(y), "y>0": (y > 0) * 1.0, "y>=0": (y >= 0) * 1.0, "y<0": (y < 0) * 1.0}[
            share.select
        ]

    def neuron_relevance(self, unit: U.Neuron, r: Array) -> list[Array]:
        """R_i = Σ_shares coefficient · Σ_terms in(x_i) Σ_j wm(w_ij) R_j / d_j."""
        row = unit.row
        assert row is not None
        r = r.reshape(-1, unit.out.channels, *unit.out.space)
        if self.gradient:
            factor = derivative(unit.activation, self.pre[unit.out.index])
            factor = factor.reshape(-1, unit.out.channels, *unit.out.space)
            s = np.repeat(factor, self.repeat, axis=0) * r
            messages = []
            for part in unit.parts:
                w, per_output = self._weight(part, Term("x", "w"), 0.0)
                messages.append(scatter(s * per_output, w, part.taps).reshape(-1, *part.source.shape))
            return messages
        messages = [np.zeros((len(r), *part.source.shape)) for part in unit.parts]
        for number, s in enumerate(self.shared(unit, row, r)):
            for part, message in zip(unit.parts, messages, strict=True):
                for term in part.terms[number]:
                    back = self._back(part, term, row.gamma, s)
                    message += (self._mapped(part, term) * back).reshape(message.shape)
        return messages

    def shared(self, unit: U.Neuron, row: Row, r: Array) -> list[Array]:
        """Per share: s_j = coefficient · R_j / d_j."""
        r = r.reshape(-1, unit.out.channels, *unit.out.space)
        if unit.sloped:
            r = r * (np.repeat(self.pre[unit.out.index], self.repeat, axis=0) > 0).reshape(r.shape)
        denominators, result = self._denominators(unit, row), []
        for number, (share, (_, d)) in enumerate(zip(row.shares, denominators, strict=True)):
            coefficient = np.full((1, 1, 1, 1, 1), share.coefficient)
            if row.falls_back and number == 0:  # no negative term: Σ of terms of one sign is 0 where all are
                coefficient = np.where(denominators[1][0] == 0, 1.0, share.coefficient)
            usable = d != 0
            result.append(self._selected(unit, share) * coefficient * r * usable / np.where(usable, d, 1))
        return result

    # ---------------------------------------------------------------------------------------------------- other units

    def _winner_forward(self, unit: U.Winner) -> Array:
        self.repeat = 1
        x, taps = self.spatial(unit.sources[0]), unit.taps
        size = canvas(x.shape[2:], taps, taps.out_size)
        padded = np.full((*x.shape[:2], *size), -np.inf)
        padded[interior(taps, x.shape[2:])] = x
        best = np.full((*x.shape[:2], *taps.out_size), -np.inf)
        winner = np.zeros(best.shape, np.intp)
        for k, (_, places) in enumerate(tap_slices(taps, taps.out_size)):
            v = padded[places]
            wins = (v > best) | (np.isnan(v) & ~np.isnan(best))
            best, winner = np.where(wins, v, best), np.where(wins, k, winner)
        self.winners[unit.out.index] = winner
        return best.reshape(len(best), *unit.out.shape)

    def _winner_relevance(self, unit: U.Winner, r: Array) -> list[Array]:
        taps, (source,) = unit.taps, unit.sources
        winner = np.repeat(self.winners[unit.decided], self.repeat, axis=0)
        r = r.reshape(winner.shape)
        padded = np.zeros((*r.shape[:2], *canvas(taps.x_size, taps, taps.out_size)))
        for k, (_, places) in enumerate(tap_slices(taps, taps.out_size)):
            padded[places] += np.where(winner == k, r, 0)
        inner = interior(taps, taps.x_size)
        return [padded[inner].reshape(-1, *source.shape)]

    def _elementwise_forward(self, unit: U.Elementwise) -> Any:
        return activate(unit.activation, self.values[unit.sources[0].index])

    def _elementwise_relevance(self, unit: U.Elementwise, r: Array) -> list[Array]:
        return [r * derivative(unit.activation, self.x(unit.sources[0])) if self.gradient or unit.sloped else r]

    def _affine_forward(self, unit: U.Affine) -> Array:
        column = (-1, *(1,) * (len(unit.out.shape) - 1))
        shift = 0.0 if unit.shift is None else unit.shift.reshape(column)
        return self.values[unit.sources[0].index] * unit.scale.reshape(column) + shift

    def _affine_relevance(self, unit: U.Affine, r: Array) -> list[Array]:
        column = (-1, *(1,) * (len(unit.out.shape) - 1))
        if unit.shares is None or self.gradient:
            return [r * unit.scale.reshape(column) if self.gradient else r]
        messages = [r * share.reshape(column) for share in unit.shares]
        if unit.tapped is not None:
            messages[unit.open_to] = messages[unit.open_to] + r * (
                unit.tapped.reshape(column) * self.x(unit.sources[0]) > 0
            )
        return messages

    def _normalise_forward(self, unit: U.Normalise) -> Array:
        x, record = self.values[unit.sources[0].index], unit.record
        squares = np.zeros_like(x)
        for c in range(x.shape[1]):
            squares[:, c] = (x[:, max(0, c - (record.size - 1) // 2) : c + record.size // 2 + 1] ** 2).sum(axis=1)
        return x / (record.k + record.alpha / record.size * squares) ** record.beta

    def _total_forward(self, unit: U.Total) -> Array:
        return sum((self.values[s.index] for s in unit.sources), np.zeros((1,)))

    def _gating_forward(self, unit: U.Gating) -> Array:
        return self.values[unit.sources[0].index] * self.values[unit.sources[1].index]

    def _gating_relevance(self, unit: U.Gating, r: Array) -> list[Array | None]:
        if not self.gradient:
            if unit.masks:
                r = np.where(self.x(unit.sources[1]) != 0, r, 0.0)
            return [r * share if share else None for share in unit.shares]
        return [_unbroadcast(r * self.x(unit.sources[1 - k]), unit.sources[k].shape) for k in (0, 1)]

    def _move_forward(self, unit: U.Move) -> Array:
        first = self.values[unit.sources[0].index]
        out = np.full((len(first), *unit.out.shape), unit.fill or 0.0)
        for to, number, of in unit.pairs:
            take(out, to, 1)[...] = take(self.values[unit.sources[number].index], of, 1)
        return out

    def _move_relevance(self, unit: U.Move, r: Array) -> list[Array]:
        messages = [np.zeros((len(r), *s.shape)) for s in unit.sources]
        for to, number, of in unit.pairs:
            take(messages[number], of, 1)[...] += take(r, to, 1)
        return messages

    def _copy_relevance(self, unit: U.Copy, r: Array) -> list[Array]:
        part = unit.part
        weight = (
            np.ones((part.taps.c_out, 1, *part.taps.kernel))
            if part.weight is None
            else np.asarray(part.weight, np.float64)
        )
        spatial = r.reshape(-1, unit.out.channels, *unit.out.space)
        return [scatter(spatial, weight, part.taps).reshape(-1, *part.source.shape)]

    def _fixed_forward(self, unit: U.Fixed) -> Any:
        return np.broadcast_to(np.asarray(unit.value, np.float64), (len(self.values[0]), *unit.out.shape))

    def _supplied_forward(self, unit: U.Supplied) -> Any:
        values = self.beside[unit.name]
        return values if unit.integer else values.astype(np.float64)

    def _reshape_forward(self, unit: U.Reshaping) -> Array:
        x = self.values[unit.sources[0].index]
        return x.reshape(len(x), *unit.out.shape)

    def _words_forward(self, unit: U.Words) -> Array:
        return np.asarray(unit.weight, np.float64)[self.values[unit.sources[0].index]]

    # --------------------------------------------------------------------------------------------------------- ledger

    def account(self, unit: U.Unit, handed: list[Array]) -> Account:
        r_out = self.r[unit.out.index]
        nothing = np.zeros(len(r_out))
        sums = [h.reshape(len(h), -1).sum(axis=1) for h in handed]
        sizes = [np.abs(h).reshape(len(h), -1).sum(axis=1) for h in handed]
        account = Account(unit, r_out, sum(sums, nothing), sum(sizes, nothing))
        account.passed = handed_on(unit, self.x)
        if isinstance(unit, U.Neuron):
            row = unit.row
            assert row is not None
            account.y = self.pre[unit.out.index]
            for number, (share, (terms, _)) in enumerate(zip(row.shares, self._denominators(unit, row), strict=True)):
                size, around = np.zeros(terms.shape), np.zeros(terms.shape)
                for part in unit.parts:
                    for term in part.terms[number]:
                        size = size + self._size(part, term, row.gamma)
                        if not part.source.wanted:
                            around = around + self._sum(part, term, row.gamma)
                shape = (-1, *unit.out.shape)
                bias = np.broadcast_to(self._bias(unit, share, row), terms.shape[1:])
                account.shares.append(
                    ShareAccount(terms.reshape(shape), around.reshape(shape), bias.reshape(shape), size.reshape(shape))
                )
        return account


def weight_map(part: Held, name: str, gamma: float) -> Callable[[Array], Array]:
    """wm(w); of a matrix "1" stands for what is there, as a mask's zeros are not."""
    if name == "1" and isinstance(part, Weighted):
        return lambda w: 1.0 * (w != 0)
    return lambda w: WEIGHT_MAPS[name](w, gamma)


def _unbroadcast(r: Array, shape: tuple[int, ...]) -> Any:
    axes = tuple(a + 1 for a, (s, big) in enumerate(zip(shape, r.shape[1:], strict=True)) if s == 1 and big != 1)
    return r.sum(axis=axes, keepdims=True)


FORWARD: dict[type[U.Unit], Callable[..., Any]] = {
    U.Neuron: Oracle._neuron_forward,
    U.Norm: held.norm_forward,
    U.Attention: held.attention_forward,
    U.Product: held.product_forward,
    U.Winner: Oracle._winner_forward,
    U.Elementwise: Oracle._elementwise_forward,
    U.Affine: Oracle._affine_forward,
    U.Normalise: Oracle._normalise_forward,
    U.Probabilities: held.probabilities_forward,
    U.Total: Oracle._total_forward,
    U.Gating: Oracle._gating_forward,
    U.Move: Oracle._move_forward,
    U.Copy: lambda oracle, unit: unit.apply(oracle.values[unit.sources[0].index], 1),
    U.Fixed: Oracle._fixed_forward,
    U.Supplied: Oracle._supplied_forward,
    U.Reshaping: Oracle._reshape_forward,
    U.Words: Oracle._words_forward,
}

RELEVANCE: dict[type[U.Unit], Callable[..., Any]] = {
    U.Neuron: Oracle.neuron_relevance,
    U.Norm: held.norm_relevance,
    U.Attention: held.attention_relevance,
    U.Product: held.product_relevance,
    U.Probabilities: held.probabilities_relevance,
    U.Winner: Oracle._winner_relevance,
    U.Elementwise: Oracle._elementwise_relevance,
    U.Affine: Oracle._affine_relevance,
    U.Normalise: lambda oracle, unit, r: [r],
    U.Total: lambda oracle, unit, r: [r for _ in unit.sources],
    U.Gating: Oracle._gating_relevance,
    U.Move: Oracle._move_relevance,
    U.Copy: Oracle._copy_relevance,
    U.Fixed: lambda oracle, unit, r: [],
    U.Supplied: lambda oracle, unit, r: [],
    U.Reshaping: lambda oracle, unit, r: [r.reshape(-1, *unit.sources[0].shape)],
    U.Words: lambda oracle, unit, r: [r.sum(axis=-1)],
}
