"""One sample on a page: its input, its maps, contrast and rules side by side, by the kind of its input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..colours import limit_of
from ..png import address, encoded, heatmap, overlay, shrunk
from ..text import words
from .elements import Markup, joined, named, short, table, tag
from .gather import Gathered
from .inputs import PICTURES, TEXT, Array

SMALL = 64  # pixels; below that they are shown as squares
BYTES = 4_000_000  # of all pictures of a page, as an estimate from above
BARS = 15  # features that have a bar
ACROSS, DOWN = ("left", "middle", "right"), ("upper", "middle", "lower")


class Figures:
    """What is drawn of each sample."""

    def __init__(self, found: Gathered) -> None:
        self.found, self.inputs, self.factor = found, found.inputs, 1
        if self.inputs.kind == PICTURES:
            # bytes per pixel before base64: picture and overlay in colours, and a byte of each other map
            each = 2 * 3 + 1 + len(found.maps) + (0 if found.contrast is None else 3)
            h, w = next(iter(found.maps.values())).shape[1:]
            total = 4 / 3 * each * h * w * len(found.data["samples"])
            self.factor = max(1, math.ceil(math.sqrt(total / BYTES)))
            self.kind = "maps small" if max(h, w) < SMALL else "maps"

    def of(self, n: int) -> Markup:
        """The figures of one sample, with their headings."""
        sample = self.found.data["samples"][n]
        draw = {PICTURES: self._pictures, TEXT: self._text}.get(self.inputs.kind, self._bars)
        return draw(n, sample)

    # ---------------------------------------------------------------------------------------------------- photographs

    def _pictures(self, n: int, sample: dict[str, Any]) -> Markup:
        assert self.inputs.pictures is not None
        picture = shrunk(self.inputs.pictures[n], self.factor)
        maps = {rule: shrunk(values[n], self.factor) for rule, values in self.found.maps.items()}
        rule, values = next(iter(maps.items()))
        told = f"{class_name(sample)}, {rule}: relevance adds up to {sample['rules'][rule]['sum']:z.4g}"
        limit = limit_of(values)
        parts = [
            tag("h3", "Input, map and overlay"),
            tag(
                "div",
                self._figure(encoded(picture), f"The input {short(sample['name'])}", short(sample["name"])),
                self._map(values, told, limit),
                self._figure(
                    overlay(values, limit, picture),
                    f"The same map over the input in grey. {where(values)}",
                    "overlay: the more relevant, the more opaque",
                ),
                class_=self.kind,
            ),
        ]
        if self.found.contrast is not None:
            pair = [shrunk(m, self.factor) for m in self.found.contrast[n]]
            common = limit_of(np.stack(pair))
            names = class_name(sample), class_name(sample["against"])
            difference = pair[0] - pair[1]
            told = f"their difference: red speaks for {names[0]}, blue for {names[1]}"
            parts += [
                tag("h3", "Contrast: ", named(names[0]), " against ", named(names[1])),
                tag("p", f"{margin(sample)} The first two maps have one scale.", class_="faint"),
                tag(
                    "div",
                    *(self._map(m, f"for {name}", common) for m, name in zip(pair, names, strict=True)),
                    self._map(difference, told, limit_of(difference)),
                    class_=self.kind,
                ),
            ]
        drawn = [
            self._map(m, f"{name}: adds up to {sample['rules'][name]['sum']:z.4g}", limit_of(m))
            for name, m in maps.items()
        ]
        return joined((*parts, *self._side_by_side(sample, tag("div", *drawn, class_=self.kind))))

    def _map(self, values: Array, told: str, limit: float) -> Markup:
        scale = joined((told, tag("span", class_="scale"), f"−{limit:.3g} to {limit:.3g}"))
        return self._figure(heatmap(values, limit), f"Relevance map, {told}. {where(values)}", scale)

    def _figure(self, png: bytes, alt: str, caption: Any) -> Markup:
        return tag("figure", tag("img", src=address(png), alt=alt), tag("figcaption", caption))

    # -------------------------------------------------------------------------------------------------- words, tables

    def _text(self, n: int, sample: dict[str, Any]) -> Markup:
        tokens = [short(word) for word in self.inputs.tokens[n]]
        rows = {rule: values[n] for rule, values in self.found.maps.items()}
        rule, values = next(iter(rows.items()))
        parts = [
            tag("h3", "Words"),
            self._words(tokens, values, f"{class_name(sample)}, {rule}: orange speaks for it, blue against it"),
        ]
        if self.found.contrast is not None:
            names = class_name(sample), class_name(sample["against"])
            difference = self.found.contrast[n, 0] - self.found.contrast[n, 1]
            parts += [
                tag("h3", "Contrast: ", named(names[0]), " against ", named(names[1])),
                tag("p", margin(sample), class_="faint"),
                self._words(
                    tokens, difference, f"difference of the two maps: orange for {names[0]}, blue for {names[1]}"
                ),
            ]
        header = ("word", *(named(r) for r in rows))
        cells = [(named(w), *(f"{r[k]:+z.4g}" for r in rows.values())) for k, w in enumerate(tokens)]
        return joined((*parts, *self._side_by_side(sample, table("Relevance of every word", header, cells))))

    def _words(self, tokens: list[str], values: Array, told: str) -> Markup:
        return tag("figure", Markup(words(tokens, values).html()), tag("figcaption", told), class_="words",
                   style="width:auto")  # fmt: skip

    def _bars(self, n: int, sample: dict[str, Any]) -> Markup:
        rows = {rule: values[n] for rule, values in self.found.maps.items()}
        rule, values = next(iter(rows.items()))
        order = np.argsort(-np.abs(values), kind="stable")[:BARS]
        rest = float(values.sum() - values[order].sum())
        columns = self.inputs.columns
        most = float(np.abs(values).max()) or 1.0
        told = f"{class_name(sample)}, {rule}: the {len(order)} of {len(values)} features with most relevance"
        cells: list[tuple[str, ...]] = [
            (named(columns[k]), f"{self.inputs.x[n, k]:.5g}", f"{values[k]:+z.4g}", _bar(values[k] / most))
            for k in order
        ]
        if len(order) < len(values):
            cells.append((f"all others ({len(values) - len(order)})", "", f"{rest:+z.4g}", _bar(rest / most)))
        parts = [tag("h3", "Features"), table(told, ("feature", "value", "relevance", "against / for"), cells)]
        if self.found.contrast is not None:
            names = class_name(sample), class_name(sample["against"])
            pair = self.found.contrast[n]
            difference = pair[0] - pair[1]
            top = np.argsort(-np.abs(difference), kind="stable")[:BARS]
            limit = float(np.abs(difference).max()) or 1.0
            parts += [
                tag("h3", "Contrast: ", named(names[0]), " against ", named(names[1])),
                table(
                    margin(sample),
                    ("feature", named(names[0]), named(names[1]), "difference", "against / for"),
                    [
                        (
                            named(columns[k]),
                            *(f"{v:+z.4g}" for v in (pair[0, k], pair[1, k], difference[k])),
                            _bar(difference[k] / limit),
                        )
                        for k in top
                    ],
                ),
            ]
        header = ("feature", *(named(r) for r in rows))
        cells = [(named(columns[k]), *(f"{r[k]:+z.4g}" for r in rows.values())) for k in order]
        return joined((*parts, *self._side_by_side(sample, table("Relevance under each rule", header, cells))))

    def _side_by_side(self, sample: dict[str, Any], drawn: Markup) -> Sequence[Markup]:
        failed = [
            tag("p", named(rule), f": not possible here: {of['error']}", class_="faint")
            for rule, of in sample["rules"].items()
            if "error" in of
        ]
        return tag("h3", "Rules side by side"), drawn, *failed


def class_name(entry: dict[str, Any]) -> str:
    """An output as people call it."""
    return f"output {entry['target']}" if entry["label"] is None else short(entry["label"])


def margin(sample: dict[str, Any]) -> str:
    """What a contrast adds up to."""
    outputs = sample["output"], sample["against"]["output"]
    return (
        f"The maps start from the outputs {outputs[0]:.4g} and {outputs[1]:.4g}, their difference from "
        f"{outputs[0] - outputs[1]:.4g}."
    )


def where(values: Array) -> str:
    """In words, where a map's relevance lies: the ninth of the picture that holds the most, and its signs."""
    size = np.abs(values)
    total = float(size.sum())
    if not total:
        return "There is no relevance."
    thirds = [np.array_split(band, 3, axis=1) for band in np.array_split(size, 3, axis=0)]
    shares = np.array([[part.sum() for part in band] for band in thirds]) / total
    i, j = np.unravel_index(int(shares.argmax()), (3, 3))
    place = "middle" if i == j == 1 else f"{DOWN[i]} {ACROSS[j]}"
    negative = float(size[values < 0].sum()) / total
    return (
        f"Most lies in the {place} ninth, {100 * shares[i, j]:.0f} % of all; {100 * negative:.0f} % of it is negative."
    )


def _bar(share: float) -> Markup:
    """A bar from the middle to the right for, to the left against."""
    width = 50 * min(abs(share), 1)
    if share >= 0:
        return tag("span", tag("i", class_="for", style=f"width:{width:.1f}%"), class_="bar", aria_hidden="true")
    style = f"width:{width:.1f}%;margin-left:{50 - width:.1f}%"
    return tag("span", tag("i", class_="against", style=style), class_="bar", aria_hidden="true")
