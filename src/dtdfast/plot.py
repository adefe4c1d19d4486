"""Relevance as a picture, on the caller's matplotlib axes, and as coloured text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError, ShapeError
from .extras import require
from .text import Words, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

__all__ = ["Words", "heatmap", "overlay", "words"]

LUMA = np.array((0.299, 0.587, 0.114))  # how bright red, green and blue look
FADE = 0.6  # of the picture under an overlay: its darkest grey is this far from white


def heatmap(
    relevance: ArrayLike, ax: Axes | None = None, *, percentile: float = 99.5, cmap: str = "RdBu_r", **imshow: Any
) -> AxesImage:
    """Draw the relevance of one image in colours symmetric about zero.

    Parameters
    ----------
    relevance : array_like of shape (h, w) or (c, h, w)
        The map; channels are summed.
    ax : matplotlib.axes.Axes, optional
        The axes to draw on; by default the current ones.
    percentile : float, default 99.5
        The colours end at this percentile of ``|relevance|``, so that a few large values do not hide the rest.
    cmap : str, default "RdBu_r"
        A diverging colour map.
    **imshow
        More options of `Axes.imshow`.

    Returns
    -------
    matplotlib.image.AxesImage
        The image, for a colour bar for example.

    Raises
    ------
    ShapeError
        The relevance is not that of one image.
    InputError
        The relevance holds NaN or infinity.
    BackendError
        matplotlib is missing (extra `plot`).
    """
    values = _summed(relevance)
    if ax is None:
        ax = require("matplotlib.pyplot", "plot").gca()
    limit = _limit(values, percentile)
    image = ax.imshow(values, cmap=cmap, vmin=-limit, vmax=limit, **imshow)
    ax.set_axis_off()
    return image


def overlay(
    relevance: ArrayLike,
    picture: ArrayLike,
    ax: Axes | None = None,
    *,
    percentile: float = 99.5,
    cmap: str = "RdBu_r",
    **imshow: Any,
) -> AxesImage:
    """Draw the relevance of one image over its picture in grey: the more relevant a pixel, the more opaque its colour.

    Parameters
    ----------
    relevance : array_like of shape (h, w) or (c, h, w)
        The map; channels are summed.
    picture : array_like of shape (h, w) or (h, w, 3)
        Bytes, or floats from 0 to 1.
    ax : matplotlib.axes.Axes, optional
        The axes to draw on; by default the current ones.
    percentile : float, default 99.5
        As in `heatmap`.
    cmap : str, default "RdBu_r"
        As in `heatmap`.
    **imshow
        More options of `Axes.imshow`.

    Returns
    -------
    matplotlib.image.AxesImage
        The image of the relevance.

    Raises
    ------
    ShapeError
        The relevance is not that of one image, or the picture has another size.
    InputError
        The relevance holds NaN or infinity.
    BackendError
        matplotlib is missing (extra `plot`).
    """
    values = _summed(relevance)
    grey = np.asarray(picture, np.float64) / (255 if np.asarray(picture).dtype == np.uint8 else 1)
    if grey.ndim == 3:
        grey = grey @ LUMA
    if grey.shape != values.shape:
        raise ShapeError(f"picture has shape {np.shape(picture)}, but the relevance is that of {values.shape} pixels")
    if ax is None:
        ax = require("matplotlib.pyplot", "plot").gca()
    ax.imshow(1 - FADE * (1 - grey), cmap="gray", vmin=0, vmax=1, **imshow)
    opacity = np.clip(np.abs(values) / _limit(values, percentile), 0, 1)
    return heatmap(values, ax, percentile=percentile, cmap=cmap, alpha=opacity, **imshow)


def _summed(relevance: ArrayLike) -> NDArray[np.float64]:
    """The relevance of every pixel (h, w)."""
    values = np.asarray(relevance, np.float64)
    if values.ndim not in (2, 3):
        raise ShapeError(f"relevance has shape {values.shape}, expected one image: (h, w) or (c, h, w)")
    if not np.isfinite(values).all():
        raise InputError("relevance holds NaN or infinity")
    return values.sum(axis=0) if values.ndim == 3 else values


def _limit(values: NDArray[np.float64], percentile: float) -> float:
    """Where the colours end."""
    return float(np.percentile(np.abs(values), percentile)) or float(np.abs(values).max()) or 1.0
