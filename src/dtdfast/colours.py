"""Relevance as colours, without any plotting library: symmetric about zero, and told apart by colour-blind readers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays.checks import host_array
from .errors import InputError, ShapeError
from .smoothing import smoothed

# ColorBrewer's RdBu turned round: what matplotlib calls "RdBu_r"
ANCHORS = ("053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7", "fddbc7", "f4a582", "d6604d", "b2182b", "67001f")
FOR, AGAINST, NEUTRAL = "#b2182b", "#2166ac", "#8a8a8a"
# of lines and causes: Okabe and Ito's, without its yellow, which is too light on white
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
LUMA = np.array((0.299, 0.587, 0.114))  # how bright red, green and blue look
FADE = 0.6  # of the picture under an overlay: its darkest grey is this far from white
PERCENTILE = 99.5
SMOOTHEST = 1000


def palette() -> NDArray[np.uint8]:
    """256 colours (256, 3) from blue over white to red."""
    anchors = np.array([[int(a[i : i + 2], 16) for i in (0, 2, 4)] for a in ANCHORS], np.float64)
    places = np.linspace(0, len(anchors) - 1, 256)
    channels: list[NDArray[np.float64]] = [np.interp(places, np.arange(len(anchors)), column) for column in anchors.T]
    return np.asarray(np.rint(np.stack(channels, axis=1)), np.uint8)


def numbers_of(relevance: Any) -> NDArray[np.float64]:
    """Relevance of any kind of array; InputError where it is none, or has masked values."""
    values = host_array(relevance, "relevance")
    if values.dtype.kind not in "fiub":
        raise InputError(f"relevance has dtype {values.dtype}, expected numbers")
    return values.astype(np.float64)


def is_number(value: Any) -> bool:
    """Whether it is one real number."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def of_pixels(relevance: ArrayLike, smooth: float) -> NDArray[np.float64]:
    """The relevance of every pixel (h, w) of one image: channels summed; under a Gaussian if that is asked for.

    Raises
    ------
    ShapeError, InputError
    """
    values = numbers_of(relevance)
    if values.ndim not in (2, 3):
        raise ShapeError(f"relevance has shape {values.shape}, expected one image: (h, w) or (c, h, w)")
    if not np.isfinite(values).all():
        raise InputError("relevance holds NaN or infinity")
    if not (is_number(smooth) and 0 <= smooth <= SMOOTHEST):
        raise InputError(
            f"smooth is {smooth!r:.60}, expected the standard deviation of a Gaussian in pixels, from 0 to {SMOOTHEST}"
        )
    values = values.sum(axis=0) if values.ndim == 3 else values
    return smoothed(values, smooth) if smooth else values


def limit_of(values: NDArray[Any], percentile: float = PERCENTILE) -> float:
    """Where the colours end."""
    if not (is_number(percentile) and 0 <= percentile <= 100):
        raise InputError(f"percentile is {percentile!r:.60}, expected a number from 0 to 100")
    if not values.size:
        raise ShapeError(f"relevance has shape {values.shape}: there is nothing to draw")
    return float(np.percentile(np.abs(values), percentile)) or float(np.abs(values).max()) or 1.0


def levels(values: NDArray[Any], limit: float) -> NDArray[np.uint8]:
    """Positions in the palette, from −limit to limit; 0 in its middle."""
    share = np.clip(values / limit, -1, 1)
    return np.minimum((share + 1) * 128, 255).astype(np.uint8)


def picture_of(picture: Any, name: str = "picture") -> NDArray[Any]:
    """A picture (h, w), (h, w, 1) or (h, w, 3), of numbers.

    Raises
    ------
    ShapeError, InputError
    """
    values = host_array(picture, name)
    if values.ndim not in (2, 3) or values.shape[2:] not in ((), (1,), (3,)) or not values.size:
        raise ShapeError(f"{name} has shape {values.shape}, expected (height, width) or (height, width, 3)")
    if values.dtype.kind not in "fiub":
        raise InputError(f"{name} has dtype {values.dtype}, expected bytes, or floats from 0 to 1")
    return values[..., 0] if values.shape[2:] == (1,) else values


def grey_of(picture: ArrayLike) -> NDArray[np.float64]:
    """A picture (h, w) or (h, w, 3) of bytes, or of floats from 0 to 1, as faded grey from 1 − FADE to 1.

    Raises
    ------
    ShapeError, InputError
    """
    values = picture_of(picture)
    if values.dtype != np.uint8 and not (values.min() >= 0 and values.max() <= 1):
        raise InputError(
            f"picture holds {values.dtype} from {values.min():.4g} to {values.max():.4g}, expected bytes (uint8), or "
            "floats from 0 to 1"
        )
    grey = values.astype(np.float64) / (255 if values.dtype == np.uint8 else 1)
    if grey.ndim == 3:
        grey = grey @ LUMA
    return np.asarray(1 - FADE * (1 - grey))


def opacity(values: NDArray[Any], limit: float) -> NDArray[np.float64]:
    """How much of an overlay covers the picture."""
    return np.asarray(np.clip(np.abs(values) / limit, 0, 1), np.float64)


@dataclass(frozen=True)
class Style:
    """How relevance is shown, which changes no number of it.

    Parameters
    ----------
    smooth : standard deviation of a Gaussian, in pixels
    percentile : of |relevance|, where the colours end
    colours : (256, 3), from what speaks against to what speaks for
    """

    smooth: float
    percentile: float
    colours: NDArray[np.uint8]

    def shown(self, values: NDArray[Any]) -> tuple[NDArray[Any], float]:
        """What is drawn of a map (h, w), and where its colours end."""
        drawn = smoothed(values, self.smooth) if self.smooth else values
        return drawn, limit_of(drawn, self.percentile)
