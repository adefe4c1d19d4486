"""Perturbation curves and what is read off them: AOPC, ABPC, and how sure they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..results import Chart
from ..show import OneLine
from ..verdicts import PERTURBATION

Array = NDArray[Any]


def student(degrees: int) -> float:
    """The 97.5 % quantile of Student's t (Abramowitz & Stegun 26.7.5 from 3 degrees of freedom on, within 0.3 %)."""
    if degrees < 3:
        return {1: 12.706205, 2: 4.302653}.get(degrees, math.nan)
    z = 1.959964
    g = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(c / float(degrees) ** (k + 1) for k, c in enumerate(g))


@dataclass(frozen=True)
class Estimate(OneLine):
    """A mean with its 95 % confidence interval.

    Attributes
    ----------
    mean : float
        The mean over the samples.
    half_width : float
        Half the width of the interval, by Student's t over the samples; NaN for one sample.
    """

    mean: float
    half_width: float

    @classmethod
    def of(cls, values: Array) -> Estimate:
        """The mean of numbers, with its interval.

        Parameters
        ----------
        values : ndarray of shape (n,)
            One number per sample.

        Returns
        -------
        Estimate
            Their mean.
        """
        n = len(values)
        spread = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
        return cls(float(np.mean(values)), student(n - 1) * spread)

    @property
    def in_half_widths(self) -> float:
        """The mean in units of the half-width: beyond ±1 the interval does not hold 0."""
        if self.half_width:
            return self.mean / self.half_width
        return math.copysign(math.inf, self.mean) if self.mean else 0.0

    def __str__(self) -> str:
        return f"{self.mean:.4f}" + ("" if math.isnan(self.half_width) else f" ± {self.half_width:.4f}")


@dataclass
class Curves(Chart):
    """How the explained output falls while regions are replaced, by method.

    `plot` draws the output along the perturbation: solid with the most relevant regions first, dashed with the least.

    Attributes
    ----------
    outputs : dict of str to ndarray of shape (n, L + 1)
        f(x⁽ᵏ⁾), the most relevant regions first: the mean over repetitions.
    outputs_least : dict of str to ndarray of shape (n, L + 1)
        The same, the least relevant regions first.
    repeats : int
        The number of repetitions of random draws.
    what : str
        What was done, such as "9×9 regions, uniform".
    random : str
        The name of the random order among the methods.
    """

    outputs: dict[str, NDArray[np.float64]]
    outputs_least: dict[str, NDArray[np.float64]]
    repeats: int
    what: str
    random: str = "random order"

    header = ("method", "AOPC, most first", "AOPC, least first", "ABPC", "better than random")

    def _units(self, curves: Array) -> Array:
        """AOPC of every sample: 1/(L+1) Σ_k f(x⁽⁰⁾) − f(x⁽ᵏ⁾). Samek et al. (arXiv:1509.06321), eq. 12, and Σ over one
        sample.
        """
        return np.asarray((curves[:, :1] - curves).mean(axis=1), np.float64)

    def aopc(self, method: str) -> Estimate:
        """The area over the curve, most relevant regions first: large where what the map marks matters.

        Parameters
        ----------
        method : str
            The map's name.

        Returns
        -------
        Estimate
            1/(L + 1) Σ_k f(x⁽⁰⁾) − f(x⁽ᵏ⁾), the mean over samples.
        """
        return Estimate.of(self._units(self.outputs[method]))

    def aopc_least(self, method: str) -> Estimate:
        """The area over the curve, least relevant regions first: small where what the map leaves out does not matter.

        Parameters
        ----------
        method : str
            The map's name.

        Returns
        -------
        Estimate
            1/(L + 1) Σ_k f(x⁽⁰⁾) − f(x⁽ᵏ⁾), the mean over samples.
        """
        return Estimate.of(self._units(self.outputs_least[method]))

    def abpc(self, method: str) -> Estimate:
        """The area between the two curves: `aopc` − `aopc_least`.

        Parameters
        ----------
        method : str
            The map's name.

        Returns
        -------
        Estimate
            The mean over samples.
        """
        return Estimate.of(self._units(self.outputs[method]) - self._units(self.outputs_least[method]))

    def over_random(self, method: str) -> Estimate:
        """By how much `aopc` exceeds that of the random order.

        Parameters
        ----------
        method : str
            The map's name.

        Returns
        -------
        Estimate
            The mean over samples of the differences.
        """
        return Estimate.of(self._units(self.outputs[method]) - self._units(self.outputs[self.random]))

    def band(self, method: str) -> tuple[Array, Array]:
        """The mean curve of a method, and half the width of its 95 % interval.

        Parameters
        ----------
        method : str
            The map's name.

        Returns
        -------
        mean : ndarray of shape (L + 1,)
            The mean over samples.
        half_width : ndarray of shape (L + 1,)
            As in `Estimate`; NaN for one sample.
        """
        points = [Estimate.of(column) for column in self.outputs[method].T]
        return np.array([p.mean for p in points]), np.array([p.half_width for p in points])

    def verdict(self, method: str) -> str:
        """Say whether the map beats the random order by more than its confidence interval.

        Parameters
        ----------
        method : str
            The map's name.

        Returns
        -------
        str
            "yes", "no", "not shown", or "unknown (one sample)".
        """
        gain = self.over_random(method)
        if math.isnan(gain.half_width):
            return "unknown (one sample)"
        return ("no", "not shown", "yes")[PERTURBATION.band(gain.in_half_widths)]

    def rows(self) -> list[tuple[str, ...]]:
        ordered = sorted(self.outputs, key=lambda m: -self.aopc(m).mean)
        verdicts = {m: "" if m == self.random else self.verdict(m) for m in ordered}
        return [(m, str(self.aopc(m)), str(self.aopc_least(m)), str(self.abpc(m)), verdicts[m]) for m in ordered]

    @property
    def reading(self) -> str:
        n = len(next(iter(self.outputs.values())))
        maps = [m for m in self.outputs if m != self.random]
        best = max(maps, key=lambda m: self.aopc(m).mean)
        if n == 1:
            ahead = [m for m in maps if self.over_random(m).mean > 0]
            which = (
                f"{', '.join(ahead)} {'find' if len(ahead) > 1 else 'finds'} more than"
                if ahead
                else "no map finds more than"
            )
            return (
                f"{self.what}, 1 input: {which} regions drawn at random, {best} the most; what one input shows need "
                "not hold for others."
            )
        beaten = [m for m in maps if self.verdict(m) == "yes"]
        which = (
            "every map marks"
            if len(beaten) == len(maps) > 1
            else f"{', '.join(beaten)} mark{'s' if len(beaten) == 1 else ''}"
            if beaten
            else "no map is shown to mark"
        )
        return (
            f"{self.what}, {n} input{'s' if n > 1 else ''}: {which} regions that matter more to the output than "
            "regions drawn at random; "
            f"{best} finds the most. A perturbed input is none that the network was trained on, so small differences "
            "mean little."
        )

    def _draw(self, ax: Any) -> None:
        from ..plot.charts import curves  # which needs matplotlib

        curves(self, ax)
