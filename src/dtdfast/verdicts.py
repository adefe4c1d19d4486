"""What counts as a good or bad result of a test: every threshold once. docs/trust.md has the same table, with the
measurements behind it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .show import OneLine

GOOD, MIXED, BAD, OPEN = "good", "mixed", "bad", "open"
"""How a test ended; open: it was not made, or shows nothing."""


@dataclass(frozen=True)
class Threshold(OneLine):
    """One test's number, and what it means: of k bounds, in rising order, k + 1 bands.

    Parameters
    ----------
    measure : what the number is
    bounds : a number lies in the band of as many bounds as it exceeds
    bands : (how it ended, what to say), the lowest first; "{}" stands for the number
    """

    measure: str
    bounds: tuple[float, ...]
    bands: tuple[tuple[str, str], ...]

    def band(self, value: float) -> int:
        """The number of bounds that are exceeded."""
        return sum(value > bound for bound in self.bounds)

    def verdict(self, value: float) -> tuple[str, str]:
        """How it ended, and the sentence."""
        if math.isnan(value):
            return OPEN, "the number is undefined here"
        state, text = self.bands[self.band(value)]
        return state, text.format(f"{value:.3g}")


ACCOUNT = Threshold(
    "largest |relevance that arrived − output| / |output| (of small outputs, / their mean size)",
    (1e-3,),
    (
        (GOOD, "the map adds up to the explained output: off by {}"),
        (MIXED, "the map does not add up to the explained output: off by {} of it"),
    ),
)
CLASS = Threshold(
    "median |cosine| of the maps of two classes",
    (0.7, 0.95),
    (
        (GOOD, "this map depends on the class: cosine {}"),
        (MIXED, "this map depends little on the class: cosine {}"),
        (BAD, "this map hardly depends on the class: cosine {}"),
    ),
)
WEIGHTS = Threshold(
    "median |cosine| to the map of the network with random weights",
    (0.5, 0.9),
    (
        (GOOD, "this map depends on what was learnt: cosine {} once all weights are random"),
        (MIXED, "this map depends in part on what was learnt: cosine {} once all weights are random"),
        (BAD, "this map hardly depends on what was learnt: cosine {} once all weights are random"),
    ),
)
ROOTS = Threshold(
    "share of relevance on valid root points",
    (0.9,),
    (
        (BAD, "this map is no Taylor decomposition of this network: share of relevance with valid roots {}"),
        (GOOD, "this map is a Taylor decomposition of this network: share of relevance with valid roots {}"),
    ),
)
PERTURBATION = Threshold(
    "gain over the random order, in half-widths of its 95 % interval",
    (-1.0, 1.0),
    (
        (BAD, "what this map marks matters less than what is drawn at random: {} half-widths"),
        (OPEN, "it is not shown that this map marks what matters: {} half-widths"),
        (GOOD, "this map marks what matters: {} half-widths better than the random order"),
    ),
)
TABLE = {
    "account": ACCOUNT,
    "class": CLASS,
    "weights": WEIGHTS,
    "roots": ROOTS,
    "perturbation": PERTURBATION,
}
"""By the name of the test in a report."""
