"""Samples on their way through the network, block by block: maps, outputs, and the ledger where it is asked for."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import RuleError, TargetError
from .exact import Exact
from .layers import Layer
from .ledger.ledger import NARROW, Ledger, Row, total
from .plan.program import Program
from .progress import blocks
from .session import Beside, Executor, put, rows
from .targets import Targets
from .underflow import REMEDY, refill

Array = NDArray[Any]


class Account(NamedTuple):
    """What a ledger needs to know.

    Attributes
    ----------
    layers : the caller's
    u : unit roundoff
    real : the type in which relevance arrives
    """

    layers: list[Layer]
    u: float
    real: Any

    @classmethod
    def of(cls, layers: list[Layer], program: Program, targets: Targets, real: str, precision: str) -> Account:
        """That of such targets; `real` is the type that the program's numbers have."""
        if targets.several:
            raise TargetError("the ledger follows one target per sample; call it once per target")
        if program.gradient:
            raise RuleError("a gradient is not conserved, so it has no ledger")
        return cls(layers, max(float(np.finfo(real).epsneg), NARROW.get(precision, 0.0)), np.dtype(real))


def explain_blocks(
    executor: Executor,
    exact: Exact,
    x: Any,
    beside: Beside,
    targets: Targets,
    view: Any,
    outputs: Any,
    *,
    clip: bool,
    progress: bool,
    account: Account | None,
) -> Ledger | None:
    """Relevance (n, t, *leaves) into `view`, outputs (n, *out) into `outputs` unless it is None; with an account, for
    which there must be outputs, the ledger too. `clip` raises a negative start.
    """
    unit, ledger = executor.program.gradient, account is not None
    accounted: list[list[Row]] = []
    starts, ends = [], []
    for block in blocks(len(x), executor.batch_size(len(x), targets.count, ledger=ledger), progress):
        some: Any = view[block]
        there: Any = None if outputs is None else outputs[block]
        with executor.session(block.stop - block.start, targets.count, rows(beside, block), ledger=ledger) as session:
            entry = targets.entry(block, unit=unit, clip=clip)
            if account is None:
                session.explain(x[block], entry, some, there)
            else:  # which adds up what there is before it is rounded to the caller's type
                end, values = (np.empty(array.shape, account.real) for array in (some, there))
                session.explain(x[block], entry, end, values)
                accounted.append(session.rows(account.layers, account.u))
                starts.append(total(entry.relevance(values)))
                ends.append(total(end))
                put(end, some)
                put(values, there)
            again, lost = session.inexact, session.empty
        for i in again:
            one = slice(block.start + i, block.start + i + 1)
            exact.explain(x, beside, one.start, targets, view[one], None if outputs is None else outputs[one])
        if lost:
            empty = [(block.start + i, k) for i, k in lost]
            refill("relevance", view, empty, lambda i: exact.maps(x, beside, i, targets), REMEDY)
    return Ledger.join(accounted, np.concatenate(starts), np.concatenate(ends)) if ledger else None
