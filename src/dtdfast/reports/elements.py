"""HTML by function calls: whatever is no `Markup` is escaped, so that no name can become markup."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from ..show import printable

VOID = frozenset(("img", "meta", "br", "hr", "rect", "line", "path", "polyline", "polygon", "circle"))
LONGEST = 80  # characters of a name that are shown; the JSON has all


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(value: Any) -> Markup:
    return value if isinstance(value, Markup) else Markup(html.escape(printable(str(value)), quote=True))


def tag(name: str, /, *content: Any, **attributes: Any) -> Markup:
    """An element. Attributes that are None or False are left out; class_ is class, aria_label is aria-label."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped("" if value is True else value)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Markup(f"<{name}{given}/>")
    return Markup(f"<{name}{given}>{''.join(map(escaped, content))}</{name}>")


def joined(parts: Iterable[Any], between: str = "") -> Markup:
    return Markup(between.join(map(escaped, parts)))


def short(name: Any, longest: int = LONGEST) -> str:
    """A name that fits: what nobody sees written out, and cut."""
    text = printable(str(name))
    return text if len(text) <= longest else text[: longest - 1] + "…"


def named(name: Any) -> Markup:
    """A name whose direction does not turn what stands around it."""
    return tag("bdi", short(name))


def table(caption: str, header: Sequence[Any], rows: Iterable[Sequence[Any]], **attributes: Any) -> Markup:
    """The first cell of each row is its heading."""
    head = tag("tr", *(tag("th", cell, scope="col") for cell in header))
    body = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    whole = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body), **attributes)
    return scrolled(caption, whole)


def scrolled(what: str, content: Markup) -> Markup:
    """What may be wider than the page: it scrolls by itself, with the keyboard too."""
    return tag("div", content, class_="wide", tabindex="0", role="region", aria_label=what)


def details(summary: Any, *content: Any, opened: bool = False) -> Markup:
    return tag("details", tag("summary", summary), *content, open=opened)
