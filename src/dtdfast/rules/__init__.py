"""Rules as rows: how one layer shares the relevance of its outputs among its inputs.

Every rule is a row of shares, every share a list of terms in(x_i)·wm(w_ij):

    n_ij = Σ_terms in(x_i) wm(w_ij)    d_j = Σ_i n_ij + bias + stabilizer·sgn    R_i←j = coefficient · n_ij / d_j · R_j

(0/0 := 0; sgn 0 := +1). The same terms stand above and below the fraction, so conservation holds by construction. A
share may be selected by the sign of the pre-activation y_j. Each rule names the source of its formula.
"""

from __future__ import annotations

from .base import Convention as Convention
from .base import Rule
from .conventions import CONVENTIONS as CONVENTIONS
from .conventions import convention_of as convention_of
from .conventions import own_row as own_row
from .lrp import AlphaBeta, Epsilon, Flat, Gamma, Pass, Zero
from .lrp import Slope as Slope
from .rows import GRADIENT as GRADIENT
from .rows import SELECTS as SELECTS
from .rows import Row as Row
from .rows import Share, Term
from .rows import conserves as conserves
from .taylor import WSquare, ZBox, ZPlus, ZPlusBySign

__all__ = [
    "AlphaBeta", "Epsilon", "Flat", "Gamma", "Pass", "Rule", "Share", "Term", "WSquare", "ZBox", "ZPlus",
    "ZPlusBySign", "Zero",
]  # fmt: skip
