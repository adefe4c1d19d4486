"""Relevance as a picture, on the caller's matplotlib axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .errors import InputError, ShapeError
from .extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage


def heatmap(relevance: ArrayLike, ax: Axes | None = None, *, percentile: float = 99.5, cmap: str = "RdBu_r", **imshow: Any) -> AxesImage:
    """Draw the relevance of one image in colours symmetric about zero.

    Parameters
    ----------
    relevance : array_like (h, w) or (c, h, w)
        Channels are summed.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None means the current axes.
    percentile : float
        The colours end at this percentile of |relevance|, so that a few large values do not hide the rest.
    cmap : str
        A diverging colour map.
    **imshow
        Passed on to `Axes.imshow`.

    Returns
    -------
    matplotlib.image.AxesImage
        For example for a colour bar.
    """
    values = np.asarray(relevance, np.float64)
    if values.ndim not in (2, 3):
        raise ShapeError(f"relevance has shape {values.shape}, expected one image: (h, w) or (c, h, w)")
    if not np.isfinite(values).all():
        raise InputError("relevance holds NaN or infinity")
    if values.ndim == 3:
        values = values.sum(axis=0)
    if ax is None:
        ax = require("matplotlib.pyplot", "plot").gca()
    limit = float(np.percentile(np.abs(values), percentile)) or float(np.abs(values).max()) or 1.0
    image = ax.imshow(values, cmap=cmap, vmin=-limit, vmax=limit, **imshow)
    ax.set_axis_off()
    return image
