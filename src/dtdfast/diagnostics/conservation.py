"""The ledger over a data set: how much of the explained outputs arrives, and by which cause the rest was absorbed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..explainer import Explainer
from ..layers import Layer
from ..ledger.ledger import CAUSES, Ledger
from ..models import opened
from ..options import split
from ..results import Chart, percent
from ..verdicts import ACCOUNT


@dataclass
class Conservation(Chart):
    """Where the relevance of many inputs went.

    Attributes
    ----------
    ledger : Ledger
        The account of all samples, row by row.
    """

    ledger: Ledger

    header = ("share of |start|", "mean", "least", "most")

    @property
    def shares(self) -> dict[str, NDArray[np.float64]]:
        """What arrived, and what each cause absorbed, relative to the relevance that entered.

        Arrays of shape (n,); negative where a cause added relevance.
        """
        start = self.ledger.start
        size = np.where(start == 0, 1, start)
        parts = {"arrived": self.ledger.end, **self.ledger.absorbed, "residual": self.ledger.residual}
        return {k: np.where(start == 0, np.nan, v / size) for k, v in parts.items()}

    @property
    def off(self) -> NDArray[np.float64]:
        """How far what arrived is from what entered, relative to it; or to its mean size, if that is larger.

        Of shape (n,). So an output near 0 among larger ones does not count as far off for what is little.
        """
        start = np.abs(self.ledger.start)
        size = np.maximum(start, start.mean())
        gap = np.abs(self.ledger.end - self.ledger.start)
        return np.asarray(np.divide(gap, size, out=np.full_like(size, np.nan), where=size > 0), np.float64)

    def rows(self) -> list[tuple[str, ...]]:
        kept = {k: v for k, v in self.shares.items() if k in ("arrived", "residual") or np.nan_to_num(v).any()}
        known = {k: v[np.isfinite(v)] for k, v in kept.items()}
        return [
            (k, *((f"{v.mean():.3g}", f"{v.min():.3g}", f"{v.max():.3g}") if v.size else ["undefined"] * 3))
            for k, v in known.items()
        ]

    @property
    def reading(self) -> str:
        shares = self.shares
        arrived, n = shares["arrived"], len(self.ledger.start)
        state = (
            "every layer's account closes" if self.ledger.closed else "SOME ACCOUNTS DO NOT CLOSE: a kernel is wrong"
        )
        if not np.isfinite(self.off).any():
            return f"All outputs of {n} inputs that are explained are 0: there is nothing to share out; {state}."
        if not ACCOUNT.band(float(np.nanmax(self.off))):
            return f"What the maps of {n} inputs hold adds up to the explained output; {state}."
        share = percent(float(np.nanmean(arrived)))
        cause = max(CAUSES, key=lambda c: float(np.nanmean(np.abs(shares[c]))))
        return (
            f"On average {share} of the explained output arrives at {n} inputs; most of the difference is due to: "
            f"{cause}; {state}."
        )

    def _draw(self, ax: Any) -> None:
        arrived = self.shares["arrived"]
        ax.hist(arrived[np.isfinite(arrived)], bins=30)
        ax.axvline(1, color="0.6", linewidth=0.8)
        ax.set(xlabel="relevance that arrived / explained output", ylabel="samples")


def conservation(layers: Sequence[Layer], x: Any, target: Any = None, **options: Any) -> Conservation:
    """Account for the relevance of a data set.

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        The network, as `explain` takes it.
    x : array_like
        The inputs, as `explain` takes them.
    target : int, tuple, array_like or None, default None
        As in `dtdfast.explain`, with one target per sample.
    **options
        Options of `dtdfast.Explainer`: rules, domain, convention, backend and others.

    Returns
    -------
    Conservation
        What arrived, and what each cause absorbed.

    Raises
    ------
    TargetError
        There are several targets per sample.
    """
    known, given = split(options)
    layers, x = opened(layers, x, given)
    return Conservation(Explainer(layers, **known).ledger(x, target, **given))
