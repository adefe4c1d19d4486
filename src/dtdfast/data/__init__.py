"""Data that ships with the package: trained networks, and images and sentences that they never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..extras import require
from ..layers import Layer
from ..storage import load

HERE = Path(__file__).parent
KINDS = ("astronaut", "cat", "coffee", "rocket")


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


def sentiment() -> tuple[list[Layer], list[str], NDArray[np.int64], NDArray[np.int64]]:
    """A small transformer that tells praise from blame, and made-up sentences held out from its training.

    Returns
    -------
    layers : list of records
        One block of attention; the outputs are "negative" and "positive".
    words : list of str
        The vocabulary.
    ids : ndarray (500, 8)
        The sentences, as positions in the vocabulary.
    labels : ndarray (500,)
        1 for praise, 0 for blame.
    """
    with np.load(HERE / "sentiment_test.npz", allow_pickle=False) as file:
        words, ids, labels = file["words"].tolist(), file["ids"], file["labels"]
    return load(HERE / "sentiment.safetensors"), words, ids.astype(np.int64), labels.astype(np.int64)


def photograph() -> tuple[list[Layer], NDArray[np.uint8], tuple[str, ...]]:
    """A small convolutional network that tells crops of four photographs apart and knows nothing else, and one of them.

    Returns
    -------
    layers : list of records
        Its input is (n, 3, 224, 224), red, green and blue from 0 to 1.
    picture : ndarray (224, 224, 3)
        A cat, as bytes.
    kinds : tuple of str
        What the outputs stand for.
    """
    with require("PIL.Image", "images").open(HERE / "photographs_cat.jpg", formats=["JPEG"]) as file:
        picture = np.asarray(file)
    return load(HERE / "photographs.safetensors"), picture, KINDS
