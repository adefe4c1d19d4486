"""How an executor of plans reports to the ledger: units of relevance steps run one by one, with what they read and
wrote.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ..plan import units as U
from ..plan.join import handed_on
from ..plan.parts import bias_map
from ..plan.plan import Plan
from ..plan.steps import Buffer
from .account import Account, ShareAccount

Array = NDArray[Any]


class Accounts(ABC):
    """A session on a plan whose buffers keep what they hold (lowered for a ledger)."""

    plan: Plan

    @abstractmethod
    def run(self, first: int, last: int) -> None:
        """Steps first … last−1, forward and relevance counted through."""

    @abstractmethod
    def read_root(self, root: Buffer) -> Array:
        """The numbers of a buffer that is no alias, its frame included."""

    def run_accounts(self, accounts: list[Account]) -> None:
        """All relevance steps, with an account of each unit."""
        self._started: set[int] = set()  # tensors on which some relevance has arrived
        self._above = set(self.plan.above)  # tensors whose relevance is still with float32 units
        first, done = len(self.plan.forward), 0
        program = self.plan.program
        wide = set(map(id, program.network.units[: program.wide]))
        for unit, begin, end in self.plan.unit_ranges():
            self.run(first + done, first + begin)
            if id(unit) in wide:
                self._above.clear()
            accounts.append(self._account(unit, partial(self.run, first + begin, first + end)))
            done = end
        self.run(first + done, first + len(self.plan.relevance))
        for unit in program.network.units:  # constants take no steps
            if unit.absorbs and unit.out.index in self.plan.relevances:
                accounts.append(
                    Account(unit, self._relevance_of(unit.out), np.zeros(self.plan.n), np.zeros(self.plan.n))
                )

    def read(self, buffer: Buffer) -> Array:
        """A buffer's values as (batch, *shape)."""
        flat = self.read_root(buffer.root)
        offset, strides, per_sample = buffer.strides()
        count = {"n": self.plan.n, "nt": self.plan.n * self.plan.t, "1": 1}[buffer.root.batch]
        steps = tuple(flat.itemsize * s for s in (per_sample, *strides))
        return as_strided(flat[offset:], (count, *buffer.shape), steps, writeable=False)

    def _relevance_of(self, tensor: U.Tensor) -> NDArray[np.float64]:
        """R on a tensor, (n, *shape): what is stored, times x where that is c."""
        buffers = self.plan.above if tensor.index in self._above else self.plan.relevances
        stored = self.read(buffers[tensor.index]).astype(np.float64)
        return stored if tensor.form == "R" else stored * self.read(self.plan.values[tensor.index])

    def _account(self, unit: U.Unit, run: Callable[[], None]) -> Account:
        """Run a unit's relevance steps and report what came, what went, and its sums."""
        carriers = {s.index: s for s in unit.carriers if s.wanted}.values()
        before = sum(
            (_sums(self._relevance_of(s)) for s in carriers if s.index in self._started), np.zeros(self.plan.n)
        )
        run()
        self._started.update(s.index for s in carriers)
        after = [self._relevance_of(s) for s in carriers]
        handed = sum((_sums(np.abs(r)) for r in after), np.zeros(self.plan.n))
        account = Account(unit, self._relevance_of(unit.out), sum(map(_sums, after), -before), handed)
        if isinstance(unit, U.Neuron):
            self._account_terms(unit, account)
        elif isinstance(unit, U.Affine) and unit.shares is not None:
            account.passed = handed_on(unit, self.read(self.plan.values[unit.sources[0].index]))
        elif isinstance(unit, U.Probabilities):
            x, s = (self.read(self.plan.values[t.index]).astype(np.float64) for t in (unit.sources[0], unit.out))
            account.passed = unit.handed(x, s)
        elif isinstance(unit, U.Gating) and unit.masks:
            account.passed = unit.handed(self.read(self.plan.values[unit.sources[1].index]))
        return account

    def _account_terms(self, unit: U.Neuron, account: Account) -> None:
        row, kept = unit.row, self.plan.kept[unit.out.index]
        assert row is not None
        column = unit.column
        real = "f8" if kept.terms[0].root.dtype == "f8" else self.plan.program.real  # what the unit computed with
        bias = np.zeros(1, real) if unit.bias is None else np.asarray(unit.bias, real)
        if kept.y is not None:
            account.y = self.read(kept.y) + bias.reshape(column)
        for share, terms, magnitude, apart in zip(row.shares, kept.terms, kept.magnitude, kept.around, strict=True):
            in_share = np.zeros((1,) * len(unit.out.shape))
            if unit.bias is not None and share.bias is not None:
                in_share = bias_map(unit.bias, share, row.gamma).astype(real).reshape(unit.column)
            size = np.abs(self.read(magnitude)) * (1.0 if magnitude is terms else 1.0 + row.gamma)
            around = np.zeros(1) if apart is None else self.read(apart)
            account.shares.append(ShareAccount(self.read(terms), around, in_share, size))


def _sums(r: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = r.reshape(len(r), -1).sum(axis=1)
    return result
