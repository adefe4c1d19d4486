"""Relevance as pictures, on the caller's matplotlib axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..colours import PERCENTILE, grey_of, limit_of, numbers_of, of_pixels, opacity
from ..errors import InputError, ShapeError
from ..extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

SCALES = ("each", "method", "input", "all")


def heatmap(
    relevance: ArrayLike,
    ax: Axes | None = None,
    *,
    percentile: float = PERCENTILE,
    smooth: float = 0.0,
    limit: float | None = None,
    cmap: str = "RdBu_r",
    **imshow: Any,
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
    smooth : float, default 0.0
        The standard deviation, in pixels, of a Gaussian over what is shown; the relevance itself stays as it is.
    limit : float, optional
        Where the colours end, in place of the percentile: so that several maps have one scale.
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
        The relevance holds NaN or infinity, or `smooth` is negative.
    BackendError
        matplotlib is missing (extra `plot`).

    Examples
    --------
    >>> relevance = dtdfast.explain(layers, x)
    >>> dtdfast.plot.heatmap(relevance[0], smooth=1.0)
    """
    values = of_pixels(relevance, smooth)
    if ax is None:
        ax = require("matplotlib.pyplot", "plot").gca()
    limit = limit_of(values, percentile) if limit is None else limit
    image = ax.imshow(values, cmap=cmap, vmin=-limit, vmax=limit, **imshow)
    ax.set_axis_off()
    return image


def overlay(
    relevance: ArrayLike,
    picture: ArrayLike,
    ax: Axes | None = None,
    *,
    percentile: float = PERCENTILE,
    smooth: float = 0.0,
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
    smooth : float, default 0.0
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
        The relevance holds NaN or infinity, or `smooth` is negative.
    BackendError
        matplotlib is missing (extra `plot`).
    """
    values, grey = of_pixels(relevance, smooth), grey_of(picture)
    if grey.shape != values.shape:
        raise ShapeError(f"picture has shape {np.shape(picture)}, but the relevance is that of {values.shape} pixels")
    if ax is None:
        ax = require("matplotlib.pyplot", "plot").gca()
    ax.imshow(grey, cmap="gray", vmin=0, vmax=1, **imshow)
    limit = limit_of(values, percentile)
    return heatmap(values, ax, limit=limit, cmap=cmap, alpha=opacity(values, limit), **imshow)


def grid(
    maps: Mapping[str, ArrayLike],
    axes: Any = None,
    *,
    pictures: Sequence[ArrayLike] | None = None,
    labels: Sequence[str] | None = None,
    probabilities: Sequence[float] | None = None,
    scale: str = "each",
    percentile: float = PERCENTILE,
    smooth: float = 0.0,
    cmap: str = "RdBu_r",
) -> list[list[AxesImage]]:
    """Draw a table of maps: a row per method, a column per input, the pictures on top.

    Parameters
    ----------
    maps : dict of str to array_like of shape (n, h, w) or (n, c, h, w)
        Per method, such as the name of a rule, the maps of all inputs.
    axes : array of matplotlib.axes.Axes, optional
        The axes, of shape (rows, n): a row per method, and one more for pictures. By default those of a new figure.
    pictures : sequence of array_like, optional
        The n pictures, as in `overlay`.
    labels : sequence of str, optional
        What is explained of each input, above its column.
    probabilities : sequence of float, optional
        The probability of each label, behind it.
    scale : {"each", "method", "input", "all"}, default "each"
        Which maps have one colour scale: none, those of a row, those of a column, or all.
    percentile : float, default 99.5
        As in `heatmap`, of all maps of one scale.
    smooth : float, default 0.0
        As in `heatmap`.
    cmap : str, default "RdBu_r"
        As in `heatmap`.

    Returns
    -------
    list of list of matplotlib.image.AxesImage
        The maps' images, by method and input.

    Raises
    ------
    ShapeError
        There are not as many maps, pictures, labels or probabilities as inputs, or the axes have another shape.
    InputError
        There is no map, the scale is unknown, or the relevance holds NaN or infinity.
    BackendError
        matplotlib is missing (extra `plot`).
    """
    if scale not in SCALES:
        raise InputError(f"scale is {scale!r}, expected {', '.join(SCALES)}")
    if not isinstance(maps, Mapping):
        raise InputError(f"maps is a {type(maps).__name__}, expected {{method: maps (n, h, w) or (n, c, h, w)}}")
    rows = {name: [of_pixels(one, smooth) for one in numbers_of(values)] for name, values in maps.items()}
    if not rows or not len(next(iter(rows.values()))):
        raise InputError("maps is empty, expected {method: maps (n, h, w) or (n, c, h, w)}")
    n = len(next(iter(rows.values())))
    given = {"pictures": pictures, "labels": labels, "probabilities": probabilities, **rows}
    for name, of in given.items():
        if of is not None and len(of) != n:
            raise ShapeError(f"{name} holds {len(of)}, but there are {n} inputs")
    shape = (len(rows) + (pictures is not None), n)
    if axes is None:
        axes = require("matplotlib.pyplot", "plot").subplots(*shape, squeeze=False, layout="constrained")[1]
    places = np.asarray(axes, object)
    if places.size != shape[0] * shape[1]:
        raise ShapeError(f"axes has shape {places.shape}, expected {shape}")
    places = places.reshape(shape)
    for j, picture in enumerate(() if pictures is None else pictures):
        places[0, j].imshow(picture, cmap="gray")
    titles = [str(label) for label in labels] if labels is not None else [""] * n
    for j, title in enumerate(titles):
        share = "" if probabilities is None else f"{100 * float(probabilities[j]):.1f} %"
        places[0, j].set_title(", ".join(filter(None, (title, share))), parse_math=False)
    drawn: list[list[Any]] = []
    for i, (name, values) in enumerate(rows.items()):
        line = places[i + (pictures is not None)]
        drawn.append([])
        for j, (ax, one) in enumerate(zip(line, values, strict=True)):
            shared = {"each": [one], "method": values, "input": [r[j] for r in rows.values()]}
            together = shared.get(scale) or [v for r in rows.values() for v in r]
            limit = limit_of(np.concatenate([v.ravel() for v in together]), percentile)
            drawn[-1].append(heatmap(one, ax, limit=limit, cmap=cmap))
        places[i + (pictures is not None), 0].set_ylabel(name, parse_math=False)
    for ax in places.ravel():  # axes that are on show the methods' names
        ax.set_axis_on()
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return drawn
