"""Charts of a page as inline SVG, which follow its light or dark colours: the flow of relevance, and curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..layers import INPUT, Layer
from ..plan.wiring import sources
from .elements import Markup, joined, short, tag

Point = tuple[float, float]
WIDTH, ROW, BAR = 720, 64, 14  # of a flow: its width, the height of a level, that of a bar
ABREAST = 4  # boxes side by side
CHART = (640, 260, 52, 34)  # of curves: width, height, margins on the left and below
DASHES = ("none", "7 3", "2 3", "9 3 2 3", "1 4", "12 4")
TICKS = 5


def flow(sample: Mapping[str, Any], layers: Sequence[Layer], what: str) -> Markup:
    """Every step that shares relevance as a bar: what came, what it handed on, what it absorbed and why."""
    rows = [r for r in sample["rows"] if r["rule"] != "pass" or r["absorbed"]]
    levels = _levels(rows, sources(layers))
    causes = list(sample["absorbed"])
    most = max([abs(sample["start"]), *(max(abs(r["came"]), abs(r["went"])) for r in rows)]) or 1.0
    place: dict[int, Point] = {}
    y, parts = float(ROW), []
    for level in levels:
        for first in range(0, len(level), ABREAST):
            line = level[first : first + ABREAST]
            cell = WIDTH / len(line)
            for k, node in enumerate(line):
                place[node] = (cell * (k + 0.5), y)
                parts.append(_box(rows[node], place[node], cell - 16, most, causes))
            y += ROW
    ends = {-1: (WIDTH / 2, 8.0), len(rows): (WIDTH / 2, y)}
    place.update(ends)
    lines = [_edge(place[a], place[b]) for a, b in _edges(rows, sources(layers))]
    parts.append(_text(WIDTH / 2, 12, f"output: {sample['start']:.5g} entered", "middle", "strong"))
    parts.append(_text(WIDTH / 2, y + 14, f"input: {sample['end']:.5g} arrived", "middle", "strong"))
    return _svg(WIDTH, int(y + 26), what, [*lines, *parts])


def _box(row: Mapping[str, Any], at: Point, width: float, most: float, causes: Sequence[str]) -> Markup:
    middle, y = at
    size = max(abs(row["came"]), abs(row["went"])) / most * width
    left, parts = middle - size / 2, []
    kept = min(abs(row["came"]), abs(row["went"])) / most * width
    parts.append(_rect(left, y, kept, "went"))
    x = left + kept
    for cause, value in row["absorbed"].items():
        share = min(abs(value) / most * width, max(left + size - x, 0.0))
        parts.append(
            _rect(x, y, share, f"cause c{causes.index(cause) % 6}{' added' if value * row['came'] < 0 else ''}")
        )
        x += share
    booked = ", ".join(f"{cause} {value:+z.3g}" for cause, value in row["absorbed"].items())
    fits = max(int(width / 6.6), 8)
    name = short(f"{row['title']} ({row['rule']})", fits)
    told = f"{row['came']:.4g} came" + (f"; absorbed: {booked}" if booked else "")
    whole = tag("title", f"{short(row['title'])} ({row['rule']}): {told}; {row['went']:.5g} handed on")
    below = (
        _text(middle, y + BAR + 13, name, "middle", "strong"),
        _text(middle, y + BAR + 27, short(told, fits), "middle"),
    )
    return tag("g", whole, *parts, *below)


def _edges(rows: Sequence[Mapping[str, Any]], reads: Sequence[tuple[int, ...]]) -> list[tuple[int, int]]:
    """(from, to) by the rows' numbers, from the output down; −1 is the output, len(rows) the input."""
    of_entry: dict[int, list[int]] = {}
    for k, row in enumerate(rows):
        for entry in row["entries"]:
            of_entry.setdefault(entry, []).append(k)
    found: dict[tuple[int, int], None] = {}

    def below(k: int, entry: int, seen: set[int]) -> None:
        for source in reads[entry]:
            if source in seen:
                continue
            seen.add(source)
            lower = [j for j in of_entry.get(source, ()) if j > k]
            if source == INPUT:
                found[k, len(rows)] = None
            elif lower:
                found[k, lower[0]] = None
            else:
                below(k, source, seen)

    for k, row in enumerate(rows):
        for entry in row["entries"]:
            later = [j for j in of_entry[entry] if j > k]
            if later:
                found[k, later[0]] = None
            else:
                below(k, entry, set(row["entries"]))
    reached = {b for _, b in found}
    found.update(dict.fromkeys((-1, k) for k in range(len(rows)) if k not in reached))
    return list(found)


def _levels(rows: Sequence[Mapping[str, Any]], reads: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Rows by the longest way to them from the output."""
    depth = [0] * len(rows)
    for a, b in sorted(_edges(rows, reads)):
        if a >= 0 and b < len(rows):
            depth[b] = max(depth[b], depth[a] + 1)
    return [[k for k, d in enumerate(depth) if d == level] for level in sorted(set(depth))]


def _edge(a: Point, b: Point) -> Markup:
    """A line from below the words of one box to the next; one that skips levels goes round what lies between."""
    (x0, y0), (x1, y1) = (a[0], a[1] + (BAR + 30 if a[1] > ROW / 2 else 8)), b
    half, aside = (y1 - y0) / 2, 0.6 * (y1 - y0) if y1 - y0 > ROW else 0.0
    aside = min(aside, WIDTH / 2) * (-1 if x0 > WIDTH / 2 else 1)
    bend = f"C{x0 + aside:.1f} {y0 + half:.1f} {x1 + aside:.1f} {y1 - half:.1f} {x1:.1f} {y1:.1f}"
    return tag("path", d=f"M{x0:.1f} {y0:.1f}{bend}", class_="edge")


def curves(lines: Mapping[str, Sequence[float]], across: str, along: str, what: str) -> Markup:
    """Lines over 0, 1, 2, …, each with a dash of its own and its name at the foot."""
    width, height, left, below = CHART
    values = [v for line in lines.values() for v in line if math.isfinite(v)] or [0.0]
    low, high = min(*values, 0.0), max(*values, 0.0)
    high = high if high > low else low + 1
    steps = max(map(len, lines.values())) - 1 or 1
    foot = height - below

    def at(k: float, v: float) -> Point:
        return left + (width - left - 12) * k / steps, 10 + (foot - 10) * (high - v) / (high - low)

    parts = []
    for k in range(TICKS):
        value = low + (high - low) * k / (TICKS - 1)
        y = at(0, value)[1]
        parts.append(tag("line", x1=left, x2=width - 12, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid"))
        parts.append(_text(left - 6, y + 4, f"{value:.3g}", "end"))
    for k in sorted({0, steps // 2, steps}):
        parts.append(_text(at(k, 0)[0], foot + 16, str(k), "middle"))
    parts.append(_text((left + width) / 2, height - 4, across, "middle"))
    for k, line in enumerate(lines.values()):
        points = [at(i, v) for i, v in enumerate(line) if math.isfinite(v)]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(
            tag("polyline", points=drawn, class_=f"line l{k % 6}", stroke_dasharray=DASHES[k % 6], fill="none")
        )
    keys = [
        tag("li", _svg(34, 10, "", [_stroke(k)], hidden=True), " ", tag("bdi", short(name)))
        for k, name in enumerate(lines)
    ]
    return joined((_svg(width, height, f"{what}: {along} over {across}", parts), tag("ul", *keys, class_="keys")))


def _stroke(k: int) -> Markup:
    return tag("line", x1=0, x2=34, y1=5, y2=5, class_=f"line l{k % 6}", stroke_dasharray=DASHES[k % 6])


def _rect(x: float, y: float, width: float, kind: str) -> Markup:
    if not width > 0:
        return Markup("")
    return tag("rect", x=f"{x:.1f}", y=f"{y:.1f}", width=f"{max(width, 1):.1f}", height=BAR, class_=kind)


def _text(x: float, y: float, text: str, anchor: str, kind: str | None = None) -> Markup:
    return tag("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=kind)


def _svg(width: int, height: int, what: str, parts: Sequence[Any], hidden: bool = False) -> Markup:
    given = {"aria_hidden": "true"} if hidden else {"role": "img", "aria_label": what}
    return tag("svg", *parts, viewBox=f"0 0 {width} {height}", width=width, height=height, **given)
