"""Relevance as charts on the caller's axes: bars of columns, the flow through layers, perturbation curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..colours import AGAINST, FOR, LINES, NEUTRAL, numbers_of
from ..errors import InputError, ShapeError
from ..ledger.ledger import Ledger
from ..options import at_least_one, texts
from ..results import axes_or_current, in_legend, of_kind
from ..show import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.lines import Line2D

    from ..evaluation.curves import Curves


REST = "all others"


def bars(
    relevance: ArrayLike, names: Sequence[str] | None = None, ax: Axes | None = None, *, top: int = 10
) -> BarContainer:
    """Draw the relevance of a table's row as bars: the largest ``|R|`` on top, the rest as one bar.

    Parameters
    ----------
    relevance : array_like of shape (features,)
        A number per feature. A pandas Series brings its own names.
    names : sequence of str, optional
        The features' names, such as the columns of a DataFrame; by default those of the Series, else numbers.
    ax : matplotlib.axes.Axes, optional
        The axes to draw on; by default the current ones.
    top : int, default 10
        The number of features that have a bar of their own.

    Returns
    -------
    matplotlib.container.BarContainer
        The bars, from the top.

    Raises
    ------
    ShapeError
        The relevance is not that of one row, or there is not one name per feature.
    InputError
        The relevance holds NaN or infinity, or `top` is below 1.
    BackendError
        matplotlib is missing (extra `plot`).
    """
    shown = ranked_bars(relevance, names, top)
    ax = axes_or_current(ax)
    values = [value for _, value in shown]
    drawn: BarContainer = ax.barh(range(len(shown)), values, color=[FOR if v > 0 else AGAINST for v in values])
    ax.set_yticks(range(len(shown)), [name for name, _ in shown], parse_math=False)
    ax.invert_yaxis()
    ax.axvline(0, color="0.3", linewidth=0.8)
    ax.set_xlabel("relevance")
    return drawn


def ranked_bars(relevance: Any, names: Sequence[str] | None, top: int) -> list[tuple[str, float]]:
    """(name, value) of the largest |R|, and of the rest together where there is a rest."""
    if names is None and hasattr(relevance, "to_numpy"):
        names = [str(name) for name in relevance.index]
    values = numbers_of(relevance)
    if values.ndim != 1:
        raise ShapeError(f"relevance has shape {values.shape}, expected one number per feature, (features,)")
    if not np.isfinite(values).all():
        raise InputError("relevance holds NaN or infinity")
    top = at_least_one("top", top)
    called = [f"feature {k}" for k in range(len(values))] if names is None else texts("names", names)
    called = list(map(printable, called))
    if len(called) != len(values):
        raise ShapeError(f"names holds {len(called)}, but there are {len(values)} features")
    order = np.argsort(-np.abs(values), kind="stable")
    rest = order[top:]
    shown = [(called[k], float(values[k])) for k in order[:top]]
    return [*shown, (f"{REST} ({len(rest)})", float(values[rest].sum()))] if len(rest) else shown


def flow(ledger: Ledger, ax: Axes | None = None) -> list[BarContainer]:
    """Draw relevance on its way through the layers: what each handed on, and what it absorbed, by cause.

    Steps that only pass relevance on are left out. What was added, since a rule handed on more than came, stands left
    of zero.

    Parameters
    ----------
    ledger : Ledger
        The account, from `Explainer.ledger`; samples are summed.
    ax : matplotlib.axes.Axes, optional
        The axes to draw on; by default the current ones.

    Returns
    -------
    list of matplotlib.container.BarContainer
        The bars of what went on, and of each cause.

    Raises
    ------
    InputError
        It is no Ledger.
    BackendError
        matplotlib is missing (extra `plot`).
    """
    rows = of_kind(ledger, Ledger, "ledger").steps()
    ax = axes_or_current(ax)
    places = np.arange(len(rows))
    went = np.array([row.went.sum() for row in rows])
    drawn = [ax.barh(places, went, color=NEUTRAL, label="handed on")]
    right, left = np.where(went > 0, went, 0.0), np.where(went < 0, went, 0.0)
    for k, cause in enumerate(c for c, total in ledger.absorbed.items() if np.any(total)):
        part = np.array([row.absorbed[cause].sum() if cause in row.absorbed else 0.0 for row in rows])
        drawn.append(ax.barh(places, part, left=np.where(part > 0, right, left), color=LINES[k], label=cause))
        right, left = right + np.where(part > 0, part, 0), left + np.where(part < 0, part, 0)
    ax.set_yticks(places, [f"{row.title} ({row.rule})" for row in rows], parse_math=False)
    ax.invert_yaxis()
    ax.axvline(0, color="0.3", linewidth=0.8)
    ax.set_xlabel("relevance, from the output (top) to the input")
    ax.legend()
    return drawn


def curves(found: Curves, ax: Axes | None = None, *, methods: Sequence[str] | None = None) -> list[Line2D]:
    """Draw perturbation curves: solid with the most relevant regions first, with 95 % intervals; dashed with the least.

    Parameters
    ----------
    found : Curves
        What `dtdfast.evaluation.region_perturbation` returns.
    ax : matplotlib.axes.Axes, optional
        The axes to draw on; by default the current ones.
    methods : sequence of str, optional
        The methods that are drawn; by default all.

    Returns
    -------
    list of matplotlib.lines.Line2D
        The solid lines, in the order of the methods.

    Raises
    ------
    InputError
        `found` is no Curves, or there is no method of that name.
    BackendError
        matplotlib is missing (extra `plot`).
    """
    if not hasattr(found, "band"):  # Curves draw themselves here, so their class is not known here
        raise InputError(f"found is {found!r:.60}, expected Curves")
    outputs = found.outputs
    chosen = list(outputs) if methods is None else texts("methods", methods)
    if unknown := [m for m in chosen if m not in outputs]:
        raise InputError(f"there is no method {unknown[0]!r}; the methods are {', '.join(outputs)}")
    ax = axes_or_current(ax)
    drawn: list[Line2D] = []
    for k, method in enumerate(chosen):
        color = NEUTRAL if method == found.random else LINES[k % len(LINES)]
        mean, half = found.band(method)
        drawn += ax.plot(mean, color=color, label=in_legend(method))
        if np.isfinite(half).all():
            ax.fill_between(np.arange(len(mean)), mean - half, mean + half, color=color, alpha=0.15, linewidth=0)
        if method != found.random:
            ax.plot(found.outputs_least[method].mean(axis=0), color=color, linestyle="dashed")
    ax.set(xlabel="regions replaced", ylabel="explained output", title=found.what)
    ax.legend()
    return drawn
