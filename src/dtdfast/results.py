"""What diagnostics and evaluations return: numbers that print as a table, one plain sentence that reads them, and a
plot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import InputError
from .extras import require
from .show import OneLine, tabulated

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Report(OneLine):
    """The base of results, which print as a table with one sentence of reading.

    A subclass gives `header`, `rows` and `reading`.
    """

    header: tuple[str, ...] = ()

    def rows(self) -> list[tuple[str, ...]]:
        """The table's cells below the header.

        Returns
        -------
        list of tuple of str
            One tuple per row.
        """
        raise NotImplementedError

    @property
    def reading(self) -> str:
        """What the numbers say, in one sentence."""
        raise NotImplementedError

    def __str__(self) -> str:
        return f"{table(self.header, self.rows())}\n{self.reading}"

    def _repr_html_(self) -> str:
        return tabulated(self.header, self.rows(), self.reading)


class Chart(Report):
    """The base of results that have a plot, too: a subclass gives `_draw`."""

    def plot(self, ax: Any = None) -> Any:
        """Draw the result on matplotlib axes.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            The axes; by default the current ones.

        Returns
        -------
        matplotlib.axes.Axes
            The axes that were drawn on.
        """
        ax = axes_or_current(ax)
        self._draw(ax)
        return ax

    def _draw(self, ax: Any) -> None:
        raise NotImplementedError


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width: the first to the left, the others to the right."""
    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


T = TypeVar("T")


def of_kind(value: Any, kind: type[T], name: str) -> T:
    """What a function got, if it is such a result.

    Raises
    ------
    InputError
    """
    if not isinstance(value, kind):
        raise InputError(f"{name} is {value!r:.60}, expected {kind.__name__}")
    return value


def number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}g}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def axes_or_current(ax: Axes | None) -> Any:
    """The axes that a chart is drawn on.

    Raises
    ------
    InputError : they are none of matplotlib's
    """
    return require("matplotlib.pyplot", "plot").gca() if ax is None else checked_axes(ax)


def in_legend(name: str) -> str:
    """A name as it is shown in a legend: for matplotlib dollars hold a formula, and what begins with _ is left out."""
    return f"{' ' if name.startswith('_') else ''}{name}".replace("$", r"\$")


def checked_axes(ax: Any) -> Any:
    """The same of one that a caller gives."""
    return of_kind(ax, require("matplotlib.axes", "plot").Axes, "ax")
