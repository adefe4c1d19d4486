"""What one map per output leaves out: relevance of pairs of inputs, and Taylor terms of second order.

| file | question |
|---|---|
| `bilrp` | which pairs of inputs make two samples similar? |
| `corelevance` | which inputs share the neurons of a layer? |
| `second_order` | how much does a first-order expansion of a smooth network leave out, and where? |
| `pairs` | what the first two return |
| `regions` | inputs that count as one: pixels, patches |
"""

from .bilrp import bilrp, top_pairs
from .corelevance import co_relevance
from .pairs import Pairs
from .regions import patches
from .second_order import TaylorTerms, taylor_terms

__all__ = ["Pairs", "TaylorTerms", "bilrp", "co_relevance", "patches", "taylor_terms", "top_pairs"]
