"""Photographs by the hundred: crops and jitters of scikit-image's."""

from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

SUBJECTS = ("astronaut", "chelsea", "coffee", "rocket")


def photographs(folder: Path, count: int, suffix: str = "jpg", side: int = 256) -> None:
    """Write `count` different ones of `side` × `side` pixels, the same for every call."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    whole = [getattr(data, name)() for name in SUBJECTS]
    for number in range(count):
        image = whole[number % len(whole)]
        top, left = (int(rng.integers(0, size - side + 1)) for size in image.shape[:2])
        jitter = rng.uniform(0.8, 1.2, 3) * image[top : top + side, left : left + side] + rng.normal(
            0, 4, (side, side, 3)
        )
        Image.fromarray(jitter.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05}.{suffix}")
