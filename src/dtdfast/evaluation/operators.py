"""What is put in the place of a region: one function per operator, all (x, values) → what a whole perturbed image would
hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import host_array
from ..errors import InputError
from ..smoothing import smoothed

Array = NDArray[Any]
Operator = Callable[[Array, np.random.Generator], Array]
"""(x (c, *space), rng) → the values that regions take, of x's shape; drawn once per repetition."""

SIGMA = 3.0  # pixels, of the blur


def uniform(low: Array, high: Array) -> Operator:
    """Every value anew from [low, high)."""
    return lambda x, rng: low + (high - low) * rng.random(x.shape)


def constant(value: Any) -> Operator:
    """One value, or one per channel."""
    column = np.asarray(value, np.float64)

    def fill(x: Array, rng: np.random.Generator) -> Array:
        shaped = column.reshape(-1, *(1,) * (x.ndim - 1)) if column.ndim == 1 else column
        return np.broadcast_to(shaped, x.shape)

    return fill


def blur(x: Array, rng: np.random.Generator) -> Array:
    """The image under a Gaussian of 3 pixels' standard deviation, mirrored at its borders."""
    return smoothed(x, SIGMA, first=1)


def dirichlet(x: Array, rng: np.random.Generator) -> Array:
    """Each pixel a random mixture of three pixels of the same image, with weights from the flat Dirichlet distribution.

    So its colours stay within those of the image. Samek et al. name a Dirichlet distribution without its parameters;
    this is one reading.
    """
    pixels = x.reshape(len(x), -1)
    n = pixels.shape[1]
    weights = rng.dirichlet(np.ones(3), n)
    mixed: Array = np.einsum("cnk,nk->cn", pixels[:, rng.integers(0, n, (n, 3))], weights)
    return mixed.reshape(x.shape)


def flip(low: Array, high: Array) -> Operator:
    """x → low + high − x, the pixel's opposite (Bach et al. 2015)."""
    return lambda x, rng: low + high - x


def resample(images: Array) -> Operator:
    """Every value from the same place of one of these samples, drawn for each place anew."""

    def fill(x: Array, rng: np.random.Generator) -> Array:
        drawn = rng.integers(0, len(images), x.shape[1:])
        return np.asarray(np.take_along_axis(images, drawn[None, None], axis=0)[0])

    return fill


RANDOM = ("uniform", "dirichlet", "resample")
NAMES = (*RANDOM, "blur", "flip")


def operator_of(operator: Any, low: Array, high: Array, images: Array) -> Operator:
    """By name, or a number or numbers per channel for a constant; `images` are all samples, (n, c, *space)."""
    if isinstance(operator, str):
        if operator not in NAMES:
            raise InputError(
                f"operator is {operator!r}, expected {', '.join(NAMES)}, a number or one number per channel"
            )
        named: dict[str, Operator] = {
            "uniform": uniform(low, high),
            "dirichlet": dirichlet,
            "blur": blur,
            "flip": flip(low, high),
            "resample": resample(images),
        }
        return named[operator]
    values = host_array(operator, "operator")
    if (
        values.dtype.kind not in "fiu"
        or values.shape not in ((), (1,), images.shape[1:2])
        or not np.isfinite(values).all()
    ):
        raise InputError(
            f"operator is {operator!r:.60}, expected {', '.join(NAMES)}, a number or one number for each of "
            f"{images.shape[1]} channels"
        )
    return constant(values)
