"""A Gaussian filter: of pictures that are perturbed, and of maps that are shown."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def smoothed(values: NDArray[Any], sigma: float, first: int = 0) -> NDArray[np.float64]:
    """Values under a Gaussian along the axes from `first` on, cut at 4 sigma, mirrored at the borders."""
    radius = math.ceil(4 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    result = values.astype(np.float64)
    for axis in range(first, values.ndim):
        padded = np.pad(
            result, [(radius, radius) if a == axis else (0, 0) for a in range(values.ndim)], mode="symmetric"
        )
        result = np.apply_along_axis(np.convolve, axis, padded, kernel, "valid")
    return result
