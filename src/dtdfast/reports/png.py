"""Pictures within a page: PNG by zlib alone."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..colours import grey_of, levels, opacity, palette
from ..files import PNG

GREY, RGB, INDEXED = 0, 2, 3  # PNG's colour types
PLAIN, LEFT = 0, 1  # PNG's filters: bytes as they are, or less the pixel on the left


def encoded(pixels: NDArray[np.uint8], colours: NDArray[np.uint8] | None = None) -> bytes:
    """A PNG of grey levels (h, w), of colours (h, w, 3), or of positions (h, w) in a palette (256, 3)."""
    height, width = pixels.shape[:2]
    kind = RGB if pixels.ndim == 3 else GREY if colours is None else INDEXED
    rows = pixels
    if kind == RGB:  # photographs: differences are smaller numbers
        rows = np.concatenate([pixels[:, :1], pixels[:, 1:] - pixels[:, :-1]], axis=1)  # modulo 256
    lines = np.empty((height, 1 + rows[0].size), np.uint8)
    lines[:, 0] = LEFT if kind == RGB else PLAIN
    lines[:, 1:] = rows.reshape(height, -1)
    header = struct.pack(">2I5B", width, height, 8, kind, 0, 0, 0)
    parts = [_chunk(b"IHDR", header)]
    if colours is not None:
        parts.append(_chunk(b"PLTE", colours.tobytes()))
    return b"".join((PNG, *parts, _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)), _chunk(b"IEND", b"")))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def address(png: bytes) -> str:
    """As a source within the page."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def heatmap(values: NDArray[Any], limit: float) -> bytes:
    """A map (h, w), its colours from −limit to limit."""
    return encoded(levels(values, limit), palette())


def overlay(values: NDArray[Any], limit: float, picture: NDArray[Any]) -> bytes:
    """A map over its picture in faded grey: the more relevant, the more opaque."""
    grey, cover = grey_of(picture)[..., None] * 255, opacity(values, limit)[..., None]
    mixed = grey + cover * (palette()[levels(values, limit)] - grey)
    return encoded(np.rint(mixed).astype(np.uint8))


def shrunk(values: NDArray[Any], factor: int) -> NDArray[Any]:
    """Means of factor × factor pixels of (h, w[, 3]); what does not fill a block at the far sides is left out."""
    if factor == 1:
        return values
    h, w = (s // factor for s in values.shape[:2])
    cut = values[: h * factor, : w * factor]
    means = cut.reshape(h, factor, w, factor, *values.shape[2:]).mean(axis=(1, 3))
    return np.asarray(np.rint(means), np.uint8) if values.dtype == np.uint8 else np.asarray(means)
