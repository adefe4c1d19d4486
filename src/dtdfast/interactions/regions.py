"""Regions: inputs whose relevance is added before pairs are made of it, since all pairs of pixels are too many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import host_array
from ..errors import ShapeError

Labels = NDArray[np.int64]


def patches(shape: Sequence[int], size: int) -> Labels:
    """Label the pixels of an image by the square patch that they lie in.

    Parameters
    ----------
    shape : sequence of int
        The shape of one sample: (c, h, w) or (h, w). All channels of a pixel get one label.
    size : int
        The side of a patch in pixels. Patches at the lower and right edge are smaller where it does not divide the side
        of the image.

    Returns
    -------
    ndarray of int
        Labels of shape ``shape``, counted row by row; 1 for `size` makes every pixel a region.

    Raises
    ------
    ShapeError
        The shape is no image's, or the size is not at least 1.
    """
    if not isinstance(shape, Sequence) or isinstance(shape, (str, bytes)):
        raise ShapeError(f"shape is {shape!r:.60}, expected that of one image, (c, h, w) or (h, w)")
    whole = [isinstance(s, (int, np.integer)) and not isinstance(s, bool) and s > 0 for s in (*shape, size)]
    if len(shape) not in (2, 3) or not all(whole[:-1]):
        raise ShapeError(f"patches of the shape {tuple(shape)}: expected that of one image, (c, h, w) or (h, w)")
    if not whole[-1]:
        raise ShapeError(f"size is {size!r:.60}, expected an integer of at least 1")
    size = min(size, max(shape))
    height, width = shape[-2:]
    rows, columns = np.arange(height) // size, np.arange(width) // size
    labels = rows[:, None] * (-(-width // size)) + columns
    return np.broadcast_to(labels, tuple(shape)).astype(np.int64)


def labels_of(regions: Any, shape: tuple[int, ...]) -> Labels:
    """The region of every input of one sample, flattened; each its own where `regions` is None.

    Raises
    ------
    ShapeError
        They do not fit the sample, or are no integers from 0.
    """
    if regions is None:
        return np.arange(int(np.prod(shape)))
    labels = host_array(regions, "regions", ShapeError)
    if labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
        raise ShapeError("regions holds labels: integers from 0")
    if labels.shape != shape:
        raise ShapeError(f"regions has shape {labels.shape}, but the relevance of one sample has shape {shape}")
    if labels.size and labels.max() >= labels.size:
        raise ShapeError(
            f"regions holds the label {labels.max()}, but there are {labels.size} inputs; number the regions from 0 "
            "without gaps: numpy.unique(regions, return_inverse=True)[1]"
        )
    return labels.astype(np.int64).reshape(-1)


def summed(maps: NDArray[Any], labels: Labels, count: int) -> NDArray[np.float64]:
    """Maps (m, inputs) as sums over regions (m, count), in float64."""
    if count == maps.shape[1] and (labels == np.arange(count)).all():
        return maps.astype(np.float64)
    return np.stack([np.bincount(labels, weights=one, minlength=count) for one in maps])
