"""Matrices of resizing along one axis, in float64: interpolation as PyTorch, ONNX and Keras have it, and means over adaptive windows.

Output p lies at the position x(p) of the input's axis; its weights are those of the input's elements around it.  `Resample` takes one
matrix (size after, size before) per spatial axis.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

TRANSFORMS = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric")
ROUNDINGS = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")


def positions(n_in: int, n_out: int, transform: str = "half_pixel", scale: float | None = None) -> NDArray[np.float64]:
    """Where every output lies on the input's axis.

    Parameters
    ----------
    n_in, n_out : sizes before and after
    transform : of TRANSFORMS, by ONNX's names
    scale : n_out / n_in as the model states it; None: from the sizes

    Returns
    -------
    (n_out,) positions in elements of the input
    """
    p = np.arange(n_out, dtype=np.float64)
    ratio = n_out / n_in if scale is None else float(scale)
    if transform == "align_corners":
        return p * (n_in - 1) / (n_out - 1) if n_out > 1 else np.zeros(n_out)
    if transform == "asymmetric":
        return p / ratio
    if transform == "pytorch_half_pixel" and n_out == 1:
        return np.zeros(1)
    if transform in ("half_pixel", "pytorch_half_pixel"):
        return (p + 0.5) / ratio - 0.5
    if transform == "half_pixel_symmetric":
        adjusted = n_out / (ratio * n_in)
        return n_in / 2 * (1 - adjusted) + (p + 0.5) / ratio - 0.5
    raise ValueError(f"transform is {transform!r}, expected one of {', '.join(TRANSFORMS)}")


def interpolation(
    n_in: int,
    n_out: int,
    mode: str,
    *,
    align_corners: bool = False,
    scale: float | None = None,
    transform: str | None = None,
    antialias: bool = False,
    cubic: float = -0.75,
    exclude_outside: bool | None = None,
    rounding: str = "floor",
) -> Matrix:
    """The matrix of a resizing along one axis.

    Parameters
    ----------
    n_in, n_out : sizes before and after
    mode : {"nearest", "linear", "cubic"}
        PyTorch's "bilinear", "trilinear" and "bicubic" are these along every axis.
    align_corners : first and last elements keep their places (PyTorch); a short form of transform="align_corners"
    scale : n_out / n_in as the model states it (PyTorch's scale_factor, ONNX's scales); None: from the sizes
    transform : of TRANSFORMS; None: "half_pixel", for "nearest" "asymmetric" as PyTorch's "nearest" has it
    antialias : widen the kernel by n_in / n_out where that exceeds 1, as PyTorch and Pillow do
    cubic : coefficient a of the cubic kernel: −0.75 (PyTorch, ONNX's default), −0.5 (with antialias, Keras)
    exclude_outside : elements beyond the ends count nothing, and the others' weights add up to 1; else the end is repeated.
        None: as PyTorch has it, which is `antialias`; ONNX states it
    rounding : of ROUNDINGS, for "nearest"

    Returns
    -------
    (n_out, n_in) float64; rows add up to 1
    """
    if align_corners:
        transform = "align_corners"
    at = positions(n_in, n_out, transform or ("asymmetric" if mode == "nearest" else "half_pixel"), scale)
    if mode == "nearest":
        return _picks(_rounded(at, rounding), n_in)
    if mode not in ("linear", "cubic"):
        raise ValueError(f"mode is {mode!r}, expected nearest, linear or cubic")
    ratio = n_out / n_in if scale is None else float(scale)
    width = max(1.0, 1 / ratio) if antialias else 1.0
    reach = int(np.ceil((1 if mode == "linear" else 2) * width))
    exclude_outside = antialias if exclude_outside is None else exclude_outside
    matrix = np.zeros((n_out, n_in))
    for k in range(-reach, reach + 1):
        place = np.floor(at).astype(int) + k
        distance = np.abs(place - at) / width
        weight = np.maximum(0, 1 - distance) if mode == "linear" else _cubic(distance, cubic)
        inside = (place >= 0) & (place < n_in)
        np.add.at(matrix, (np.arange(n_out), place.clip(0, n_in - 1)), weight * inside if exclude_outside else weight)
    if exclude_outside or antialias:
        matrix /= matrix.sum(axis=1, keepdims=True)
    return matrix


def adaptive_mean(n_in: int, n_out: int) -> Matrix:
    """Means of the windows of an adaptive pool.

    Returns
    -------
    (n_out, n_in) float64, 1/size inside each window
    """
    matrix = np.zeros((n_out, n_in))
    for p, (start, end) in enumerate(adaptive_windows(n_in, n_out)):
        matrix[p, start:end] = 1 / (end - start)
    return matrix


def adaptive_windows(n_in: int, n_out: int) -> list[tuple[int, int]]:
    """Window p of an adaptive pool: from floor(p·n_in/n_out) up to ceil((p+1)·n_in/n_out)."""
    return [(p * n_in // n_out, -(-(p + 1) * n_in // n_out)) for p in range(n_out)]


def _picks(places: NDArray[np.int64], n_in: int) -> Matrix:
    matrix = np.zeros((len(places), n_in))
    matrix[np.arange(len(places)), places.clip(0, n_in - 1)] = 1
    return matrix


def _rounded(at: NDArray[np.float64], rounding: str) -> NDArray[np.int64]:
    if rounding == "floor":
        return np.floor(at).astype(np.int64)
    if rounding == "ceil":
        return np.ceil(at).astype(np.int64)
    if rounding == "round_prefer_floor":
        return np.ceil(at - 0.5).astype(np.int64)
    if rounding == "round_prefer_ceil":
        return np.floor(at + 0.5).astype(np.int64)
    raise ValueError(f"rounding is {rounding!r}, expected one of {', '.join(ROUNDINGS)}")


def _cubic(distance: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    """Keys' kernel, doi:10.1109/TASSP.1981.1163711, eq. 4 (with the factor a in the place of −1/2)."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
