"""How alike two maps are: four measures that ignore their scale. All take (n, ...) and (n, ...) and return (n,); NaN:
undefined.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[Any]
Vector = NDArray[np.float64]
WINDOW = 7  # of the structural similarity


def per_pixel(relevance: Array, axis: int = 1) -> Array:
    """Channels summed, which lie along this axis: (n, c, h, w) → (n, h, w); (n, features) stays."""
    return relevance.sum(axis=axis, dtype=np.float64) if relevance.ndim > 2 else relevance.astype(np.float64)


def _divide(a: Array, b: Array) -> Any:
    return np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=b != 0)


def cosine(a: Array, b: Array) -> Vector:
    """Σ ab / √(Σa² Σb²); NaN where a map is zero."""
    u, v = (m.reshape(len(m), -1).astype(np.float64) for m in (a, b))
    result: Vector = _divide((u * v).sum(axis=1), np.sqrt((u * u).sum(axis=1) * (v * v).sum(axis=1)))
    return result


def ranks(values: Vector) -> Vector:
    """Ranks from 1, equal values share their mean rank."""
    _, back, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[back], np.float64)


def spearman(a: Array, b: Array) -> Vector:
    """Spearman's rank correlation over all elements; NaN where a map is constant."""
    result = []
    for u, v in zip(a.reshape(len(a), -1), b.reshape(len(b), -1), strict=True):
        p, q = ranks(u), ranks(v)
        p, q = p - p.mean(), q - q.mean()
        result.append(float(_divide(np.array(p @ q), np.sqrt((p @ p) * (q @ q)))))
    return np.array(result)


def total_variation(a: Array, b: Array) -> Vector:
    """½ Σ |p − q| of the shares p = |a| / Σ|a| and q likewise: 0 the same, 1 disjoint."""
    p, q = (np.abs(m.reshape(len(m), -1).astype(np.float64)) for m in (a, b))
    p, q = (_divide(m, m.sum(axis=1, keepdims=True)) for m in (p, q))
    return np.asarray(0.5 * np.abs(p - q).sum(axis=1), np.float64)


def _window_means(a: Array) -> Any:
    """Means over all 7 × 7 windows that fit, (n, h, w) → (n, h − 6, w − 6)."""
    rows = sliding_window_view(a, WINDOW, axis=1).mean(axis=-1)
    return sliding_window_view(rows, WINDOW, axis=2).mean(axis=-1)


def _structural(a: Array, b: Array, data_range: float) -> Any:
    """Wang et al. 2004 (doi:10.1109/TIP.2003.819861), eq. 13, with uniform windows and sample covariances."""
    n = WINDOW * WINDOW
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    ma, mb = _window_means(a), _window_means(b)
    vaa, vbb, vab = (
        n / (n - 1) * (_window_means(p * q) - mp * mq)
        for p, q, mp, mq in ((a, a, ma, ma), (b, b, mb, mb), (a, b, ma, mb))
    )
    index = (2 * ma * mb + c1) * (2 * vab + c2) / ((ma * ma + mb * mb + c1) * (vaa + vbb + c2))
    return index.mean(axis=(1, 2))


def ssim(a: Array, b: Array) -> Vector:
    """Structural similarity of images (n, h, w) scaled to max |·| = 1, the larger of SSIM(a, b) and SSIM(a, −b).

    Maps differ in scale and, where the explained output changes its sign, in sign; so Sixt et al. (arXiv:1912.09818)
    compare. NaN for maps that are no images of at least 7 × 7, or zero.
    """
    if a.ndim != 3 or min(a.shape[1:]) < WINDOW:
        return np.full(len(a), np.nan)
    u, v = (_divide(m.astype(np.float64), np.abs(m).max(axis=(1, 2), keepdims=True).astype(np.float64)) for m in (a, b))
    return np.asarray(np.maximum(_structural(u, v, 2.0), _structural(u, -v, 2.0)), np.float64)


MEASURES = {"cosine": cosine, "Spearman": spearman, "SSIM": ssim, "total variation": total_variation}


def compare(a: Array, b: Array, axis: int = 1) -> dict[str, Vector]:
    """All measures of two batches of maps, channels summed first, as in `per_pixel`."""
    u, v = per_pixel(np.asarray(a), axis), per_pixel(np.asarray(b), axis)
    return {name: measure(u, v) for name, measure in MEASURES.items()}


def median(values: Array) -> float:
    """Over what is defined; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def largest(values: Array) -> float:
    """Of what is defined; NaN where nothing is."""
    return float(np.max(values, initial=-np.inf, where=np.isfinite(values))) if np.isfinite(values).any() else np.nan
