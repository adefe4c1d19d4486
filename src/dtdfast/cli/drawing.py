"""Pictures of photographs' relevance: how they are drawn, with a title above each."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..colours import PERCENTILE, Style, levels, palette
from ..errors import InputError
from ..extras import require
from ..files import SOFTWARE, readable
from ..png import QUICK, covered, encoded

Array = NDArray[Any]
Pixels = NDArray[np.uint8]

SIDE = 448  # pixels of a written picture's shorter side, at least, unless the longer one had more than LONGEST
LONGEST = 1 << 14
COLORMAP = "RdBu_r"
STRIP, LEFT, LETTERS = 26, 6, 15  # pixels of a title: its height, its margin, the size of its letters
INK, PAPER, GAP = 26, 255, 8
FONT = "mpl-data/fonts/ttf/DejaVuSans.ttf"


def style_of(arguments: argparse.Namespace) -> Style:
    """Raises InputError where matplotlib has no such colours."""
    percentile = PERCENTILE if arguments.percentile is None else arguments.percentile
    return Style(arguments.smooth or 0.0, percentile, _colours(arguments.colormap or COLORMAP))


def _colours(name: str) -> Pixels:
    if name == COLORMAP:
        return palette()
    known = require("matplotlib", "plot").colormaps
    if name not in known:
        near = get_close_matches(name, list(known), n=3, cutoff=0.5)
        hint = f"; near are {', '.join(near)}" if near else ""
        raise InputError(f"--colormap is {readable(name)!r:.60}, which matplotlib does not know{hint}")
    return np.asarray(known[name](np.arange(256) / 255, bytes=True)[:, :3])


def heatmap(values: Array, style: Style, title: str, detail: str) -> Pixels:
    """A map (h, w) under its title."""
    drawn, limit = style.shown(values)
    return _titled(enlarged(style.colours[levels(drawn, limit)]), title, f"{detail} · ±{limit:.3g}")


def overlay(values: Array, picture: Pixels, style: Style, title: str, detail: str) -> Pixels:
    """A map (h, w) over its picture in grey, under its title."""
    drawn, limit = style.shown(values)
    return _titled(enlarged(covered(drawn, limit, picture, style.colours)), title, detail)


def photograph(picture: Pixels, title: str) -> Pixels:
    """What the network saw, under its name."""
    colours = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    return _titled(enlarged(colours), title, "")


def table(first: Pixels, rows: Sequence[Sequence[Pixels]]) -> Pixels:
    """Pictures of one size in rows and columns, or all in one row where each row has one; `first` on their left."""
    lines = [[tile for row in rows for tile in row]] if len(rows[0]) == 1 else rows
    height, width = first.shape[:2]
    down, right = height + GAP, width + GAP
    whole = np.full((len(lines) * down - GAP, (1 + len(lines[0])) * right - GAP, 3), PAPER, np.uint8)
    whole[:height, :width] = first
    for i, line in enumerate(lines):
        for j, tile in enumerate(line, 1):
            whole[i * down : i * down + height, j * right : j * right + width] = tile
    return whole


def as_png(pixels: Pixels) -> bytes:
    """With the mark by which dtdfast knows its own files."""
    return encoded(pixels, effort=QUICK, software=SOFTWARE)


def enlarged(pixels: Pixels) -> Pixels:
    """A whole number of pixels for each of the network's."""
    times = max(1, min(-(-SIDE // min(pixels.shape[:2])), LONGEST // max(pixels.shape[:2])))
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def _titled(pixels: Pixels, title: str, detail: str) -> Pixels:
    """Pixels under a line of text, of which the title is cut where it is too long; so is a name of many lines or with
    marks of direction, which are written out.
    """
    image, draw = require("PIL.Image", "images"), require("PIL.ImageDraw", "images")
    width = pixels.shape[1]
    strip = image.new("L", (width, STRIP), PAPER)
    pen, font = draw.Draw(strip), _font()
    rest = f" · {detail}" if title and detail else detail
    shown = _fitting(readable(title), width - 2 * LEFT - font.getlength(rest), font)
    pen.text((LEFT, 4), shown, font=font, fill=INK)  # apart from the rest, which a title in Arabic would turn round
    pen.text((LEFT + font.getlength(shown), 4), rest, font=font, fill=INK)
    lines = np.repeat(np.asarray(strip)[..., None], 3, axis=2)
    return np.concatenate([lines, pixels])


def _fitting(text: str, room: float, font: Any) -> str:
    text = text[:200]  # more fits nowhere
    if not text or font.getlength(text) <= room:
        return text
    text = text[: max(0, int(len(text) * room / font.getlength(text)) + 2)]
    while text and font.getlength(text + "…") > room:
        text = text[:-1]
    return text + "…"


@lru_cache(maxsize=1)
def _font() -> Any:
    """matplotlib's, which has more letters than Pillow's own; nothing of matplotlib is imported for it."""
    fonts = require("PIL.ImageFont", "images")
    found = importlib.util.find_spec("matplotlib")
    for folder in () if found is None else found.submodule_search_locations or ():
        if (path := Path(folder) / FONT).is_file():
            return fonts.truetype(str(path), LETTERS)
    return fonts.load_default()
