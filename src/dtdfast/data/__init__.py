"""Real data that ships with the package: a trained network and images it never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..layers import Layer
from ..storage import load

HERE = Path(__file__).parent


def digits() -> tuple[list[Layer], NDArray[np.float32], NDArray[np.int64]]:
    """A small convolutional network and the handwritten digits held out from its training.

    Returns
    -------
    layers : list of records
        Every bias is ≤ 0, so z⁺ relevance is conserved.
    images : ndarray (540, 1, 8, 8)
        Between 0 (paper) and 1 (ink).
    labels : ndarray (540,)
    """
    with np.load(HERE / "digits_test.npz", allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    return load(HERE / "digits.safetensors"), images[:, None].astype(np.float32) / 16, labels.astype(np.int64)
