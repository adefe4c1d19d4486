"""How things name themselves: `repr` is one short line, whatever they hold; `str` may be a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

WIDTH = 60
"""Characters of one value in a line."""


def shown(value: Any, width: int = WIDTH) -> str:
    """A value in a few characters: an array as its type and shape, all else as its repr, cut."""
    if hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, np.generic):
        return f"<{value.dtype} {tuple(value.shape)}>"
    if isinstance(value, (list, tuple, dict, set, frozenset)) and len(value) > 12:
        return f"<{type(value).__name__} of {len(value)}>"
    if isinstance(value, (list, tuple)):
        return _cut(
            ("({})" if isinstance(value, tuple) else "[{}]").format(", ".join(shown(v, width) for v in value)), width
        )
    return _cut(" ".join(repr(value).split()), width)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def one_line(thing: Any) -> str:
    """The repr of a dataclass: the fields that are not at their defaults."""
    parts = []
    for field in fields(thing):
        value = getattr(thing, field.name, None)
        default = None if field.default is MISSING else field.default
        if field.repr and value is not default and not (isinstance(value, (int, float, str)) and value == default):
            parts.append(f"{field.name}={shown(value)}")
    return f"{type(thing).__name__}({', '.join(parts)})"


class OneLine:
    """Base of dataclasses whose repr is `one_line`, their subclasses' too."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__repr__" not in vars(cls):  # which the decorator would set anew
            cls.__repr__ = cls.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        return one_line(self)


def printable(text: str) -> str:
    """The text in one line, without what a terminal or a page would obey: escape sequences, marks of direction, and
    characters that nobody sees.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines whose cells stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def tabulated(header: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> str:
    """A table and a note for a notebook; whatever they hold is text."""
    import html  # here, since few need it

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(printable(cell))}</{tag}>" for cell in cells) + "</tr>"

    lines = "\n".join(line(row, "td") for row in rows)
    head = f"<thead>{line(header, 'th')}</thead>"
    return f"<table>{head}<tbody>\n{lines}\n</tbody></table>\n<p>{html.escape(printable(note))}</p>"


def preformatted(text: str) -> str:
    """Text for a notebook, as it is."""
    import html  # here, since few need it

    return f"<pre>{html.escape(text)}</pre>"


def as_json(value: Any) -> str:
    """Text that any reader of JSON takes, and any stream: numbers that are none become null, text ASCII."""
    import json  # here, since few need it

    return json.dumps(_plain(value), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_plain(str(k)): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
