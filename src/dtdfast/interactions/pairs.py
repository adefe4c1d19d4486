"""Relevance of pairs of inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..options import at_least_one
from ..results import Report, number

Floats = NDArray[np.float64]


class Pair(NamedTuple):
    """A pair of inputs, or of regions, with its relevance."""

    first: int
    second: int
    relevance: float


@dataclass
class Pairs(Report):
    """The relevance of every pair of inputs, or of regions.

    Attributes
    ----------
    relevance : ndarray of shape (n, p, q)
        Of pair (i, i'): i counts the inputs or regions of the first sample, i' those of the second one.
    explained : ndarray of shape (n,)
        What was shared out: a similarity, or the relevance at a layer.
    what : str
        How the table calls that.
    """

    relevance: Floats
    explained: Floats
    what: str

    header = ("sample", "explained", "in pairs", "absorbed", "strongest pair")

    @property
    def absorbed(self) -> Floats:
        """What does not arrive at pairs, since layers absorbed it, of shape (n,)."""
        arrived: Floats = self.relevance.sum(axis=(1, 2))
        return self.explained - arrived

    def top(self, k: int = 10) -> list[list[Pair]]:
        """List the strongest pairs.

        Parameters
        ----------
        k : int, default 10
            How many.

        Returns
        -------
        list of list of Pair
            Of each sample those with the largest ``|relevance|``, the largest first.
        """
        k = at_least_one("k", k)
        return [strongest(one, k) for one in self.relevance]

    def rows(self) -> list[tuple[str, ...]]:
        result = []
        for i, best in enumerate(self.top(1)):
            cells = (number(self.explained[i]), number(self.relevance[i].sum()), number(self.absorbed[i]))
            result.append((str(i), *cells, *(f"{p.first}, {p.second}: {number(p.relevance)}" for p in best)))
        return result

    @property
    def reading(self) -> str:
        total = np.abs(self.relevance).sum(axis=(1, 2))
        with np.errstate(invalid="ignore"):
            few = np.array([sum(abs(p.relevance) for p in best) for best in self.top(10)]) / total
        share = f"{np.nanmedian(few):.0%}" if np.isfinite(few).any() else "nothing"
        return f"{self.what}: the ten strongest pairs hold {share} of |relevance| (median of {len(total)} sample(s))."


def strongest(relevance: Floats, k: int) -> list[Pair]:
    """The k pairs of a matrix with the largest |relevance|."""
    flat = relevance.reshape(-1)
    k = min(k, flat.size)
    best = np.argpartition(-np.abs(flat), k - 1)[:k] if k else np.zeros(0, np.intp)
    best = best[np.argsort(-np.abs(flat[best]), kind="stable")]
    return [Pair(int(i) // relevance.shape[1], int(i) % relevance.shape[1], float(flat[i])) for i in best]
