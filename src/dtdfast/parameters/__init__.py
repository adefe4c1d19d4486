"""The relevance of weights: which of a network's parameters its decisions rest on, and pruning by it.

| file | holds |
|---|---|
| `accumulate` | samples on their way through the network, and what they add up |
| `found` | what comes of it: arrays by entry, and their account beside the ledger's |
| `records` | from operands of the plan to the records' own shapes |
| `prune` | weights and channels of least score set to 0 |
"""

from .accumulate import Accumulator, relevance
from .found import Balance, WeightRelevance
from .prune import prune

__all__ = ["Accumulator", "Balance", "WeightRelevance", "prune", "relevance"]
