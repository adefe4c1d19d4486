"""The ledger of a data set: block by block, every layer's account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..layers import Layer
from ..progress import blocks
from .account import Account
from .ledger import Ledger, row_of, total

if TYPE_CHECKING:
    from ..session import Beside, Executor
    from ..targets import Targets


def ledger_of(
    layers: list[Layer],
    executor: Executor,
    x: Any,
    beside: Beside,
    targets: Targets,
    u: float,
    real: Any,
    *,
    clip: bool,
) -> Ledger:
    """One target per sample; `u` is the unit roundoff, `real` the type of relevance, `clip` raises a negative start."""
    from ..session import rows

    accounted, starts, ends = [], [], []
    for block in blocks(len(x), executor.batch_size(len(x), 1, ledger=True), False):
        with executor.session(block.stop - block.start, 1, rows(beside, block), ledger=True) as session:
            start = targets.entry(block, clip=clip).relevance(session.forward(x[block]))
            accounts: list[Account] = []
            end = np.empty((len(start), 1, *executor.program.leaves.shape), real)
            session.relevance(start, end, accounts)
            accounted.append([row_of(account, layers, u) for account in accounts])
            starts.append(total(start))
            ends.append(total(end))
    return Ledger.join(accounted, np.concatenate(starts), np.concatenate(ends))
