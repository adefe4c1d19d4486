"""Relevance as pictures, on the caller's matplotlib axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..colours import PERCENTILE, grey_of, is_number, limit_of, numbers_of, of_pixels, opacity, picture_of
from ..concepts.samples import TopSamples
from ..errors import InputError, ShapeError
from ..extras import require
from ..options import texts, whole_numbers
from ..results import axes_or_current, checked_axes, of_kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

SCALES = ("each", "method", "input", "all")
OWN = ("vmin", "vmax", "norm")
"""Options of `Axes.imshow` that a heatmap sets."""
CHANNELS = 8
"""Channels that are drawn by default."""


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
        The relevance holds NaN or infinity, `smooth` is negative, `limit` is not above 0, or one of vmin, vmax and norm
        is given, which would move the colours off zero.
    BackendError
        matplotlib is missing (extra `plot`).

    Examples
    --------
    >>> relevance = dtdfast.explain(layers, x)
    >>> dtdfast.plot.heatmap(relevance[0], smooth=1.0)
    """
    values = of_pixels(relevance, smooth)
    if taken := [key for key in imshow if key in OWN]:
        raise InputError(f"{taken[0]}= would move the colours off zero; limit= says where they end on both sides")
    ax = axes_or_current(ax)
    limit = limit_of(values, percentile) if limit is None else limit
    if not (is_number(limit) and 0 < limit < np.inf):
        raise InputError(f"limit is {limit!r:.60}, expected a number above 0")
    image = ax.imshow(values, cmap=_colour_map(cmap), vmin=-limit, vmax=limit, **imshow)
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
        The relevance holds NaN or infinity, `smooth` is negative, the picture's numbers are neither bytes nor from 0 to
        1, or one of alpha, vmin, vmax and norm is given.
    BackendError
        matplotlib is missing (extra `plot`).
    """
    values, grey = of_pixels(relevance, smooth), grey_of(picture)
    if grey.shape != values.shape:
        raise ShapeError(f"picture has shape {np.shape(picture)}, but the relevance is that of {values.shape} pixels")
    if taken := [key for key in imshow if key in (*OWN, "alpha")]:
        raise InputError(f"{taken[0]}= is none of an overlay's options: percentile= says where the colours end")
    ax = axes_or_current(ax)
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
    if not isinstance(scale, str) or scale not in SCALES:
        raise InputError(f"scale is {scale!r:.60}, expected {', '.join(SCALES)}")
    if not isinstance(maps, Mapping):
        raise InputError(f"maps is a {type(maps).__name__}, expected {{method: maps (n, h, w) or (n, c, h, w)}}")
    rows = {name: [of_pixels(one, smooth) for one in _each(values)] for name, values in maps.items()}
    if not rows or not len(next(iter(rows.values()))):
        raise InputError("maps is empty, expected {method: maps (n, h, w) or (n, c, h, w)}")
    n = len(next(iter(rows.values())))
    seen = None if pictures is None else [picture_of(one, f"pictures[{k}]") for k, one in enumerate(_listed(pictures))]
    titles = [""] * n if labels is None else texts("labels", labels)
    shares = [""] * n if probabilities is None else [f"{100 * p:.1f} %" for p in numbers_of(probabilities).ravel()]
    for name, of in {"pictures": seen, "labels": titles, "probabilities": shares, **rows}.items():
        if of is not None and len(of) != n:
            raise ShapeError(f"{name} holds {len(of)}, but there are {n} inputs")
    shape = (len(rows) + (pictures is not None), n)
    places = _places(axes, shape)
    for j, picture in enumerate(seen or ()):
        places[0, j].imshow(picture, cmap="gray")
    for j, words in enumerate(zip(titles, shares, strict=True)):
        places[0, j].set_title(", ".join(filter(None, words)), parse_math=False)
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
    _bare(places)
    return drawn


def samples(
    found: TopSamples, pictures: Any, axes: Any = None, *, channels: Sequence[int] | None = None
) -> list[list[AxesImage]]:
    """Draw what channels stand for: a row per channel, in it the samples in which the channel matters most.

    Parameters
    ----------
    found : TopSamples
        What `dtdfast.concepts.top_samples` or `stored_samples` returns.
    pictures : sequence of array_like
        The pictures of all samples, by their numbers: (h, w) or (h, w, 3), bytes or floats from 0 to 1.
    axes : array of matplotlib.axes.Axes, optional
        The axes, of shape (channels, k). By default those of a new figure.
    channels : sequence of int, optional
        The channels that are drawn; by default the first 8.

    Returns
    -------
    list of list of matplotlib.image.AxesImage
        The pictures, by channel and rank.

    Raises
    ------
    InputError
        `found` is no TopSamples, there is no such channel, or fewer pictures than samples.
    ShapeError
        The axes have another shape.
    BackendError
        matplotlib is missing (extra `plot`).
    """
    n_channels, k = of_kind(found, TopSamples, "found").samples.shape
    chosen = list(range(min(n_channels, CHANNELS))) if channels is None else whole_numbers("channels", channels)
    if wrong := [c for c in chosen if not 0 <= c < n_channels]:
        raise InputError(f"channels holds {wrong[0]}, but there are channels 0 to {n_channels - 1}")
    if not chosen or not k:
        raise InputError(f"there is nothing to draw of {len(chosen)} channels with {k} samples each")
    last = int(found.samples[chosen].max())
    if not _many(pictures) or len(pictures) <= last:
        raise InputError(f"pictures is {_said(pictures)}, expected one for each sample up to {last}")
    places = _places(axes, (len(chosen), k))
    drawn: list[list[Any]] = []
    for line, channel in zip(places, chosen, strict=True):
        line[0].set_ylabel(f"channel {channel}")
        drawn.append([])
        for ax, number in zip(line, found.samples[channel].tolist(), strict=True):
            drawn[-1].append(ax.imshow(picture_of(pictures[number]), cmap="gray"))
            ax.set_title(f"sample {number}", fontsize="small")
    _bare(places)
    return drawn


def _colour_map(cmap: Any) -> Any:
    try:
        return require("matplotlib", "plot").colormaps.get_cmap(cmap)
    except (ValueError, TypeError):
        raise InputError(f"cmap is {cmap!r:.60}, expected the name of a colour map, such as RdBu_r") from None


def _each(values: Any) -> Any:
    """The maps of all inputs, one after the other."""
    maps = numbers_of(values)
    if maps.ndim not in (3, 4):
        raise ShapeError(f"maps has shape {maps.shape}, expected (n, h, w) or (n, c, h, w) for each method")
    return maps


def _listed(pictures: Any) -> Sequence[Any]:
    if not _many(pictures):
        raise InputError(f"pictures is {_said(pictures)}, expected one picture for each input")
    return [pictures[k] for k in range(len(pictures))]


def _many(pictures: Any) -> bool:
    """Whether it is a list or an array, which may be a memory map."""
    return isinstance(pictures, Sequence) or bool(getattr(pictures, "shape", ()))


def _said(pictures: Any) -> str:
    return f"{len(pictures)} pictures" if _many(pictures) else f"a {type(pictures).__name__}"


def _places(axes: Any, shape: tuple[int, int]) -> Any:
    """The caller's axes in this shape, or those of a new figure."""
    if axes is None:
        axes = require("matplotlib.pyplot", "plot").subplots(*shape, squeeze=False, layout="constrained")[1]
    places = np.asarray(axes, object)
    if places.size != shape[0] * shape[1]:
        raise ShapeError(f"axes has shape {places.shape}, expected {shape}")
    for ax in places.flat:
        checked_axes(ax)
    return places.reshape(shape)


def _bare(places: Any) -> None:
    """Axes that are on, so that they show the rows' names, without ticks and frames."""
    for ax in places.ravel():
        ax.set_axis_on()
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
