"""What notebooks show: tables of ledgers, results and lists of layers, in which every name is text."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast import diagnostics
from support import classifier, normal

X = np.random.default_rng(0).random((2, 3, 6, 6), np.float32)
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e"


class Tags(HTMLParser):
    """The names of a page's tags, and its cells' texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def layers() -> list[dtd.layers.Layer]:
    found = classifier(np.random.default_rng(1))
    found[0] = dtd.Conv(found[0].weight, found[0].bias, padding=1, name=HOSTILE)
    return found


def test_tables_hold_what_is_printed() -> None:
    explainer = dtd.Explainer(layers(), domain=(0.0, 1.0))
    for shown in (explainer.ledger(X), diagnostics.conservation(layers(), X, domain=(0.0, 1.0)), dtd.summary(layers())):
        page = Tags(shown._repr_html_())
        assert set(page.tags) == {"table", "thead", "tbody", "tr", "th", "td", "p"}
        printed = " ".join(str(shown).split())
        for cell in page.cells[:-1]:
            if HOSTILE[:8] not in cell:
                assert " ".join(cell.split()) in printed
        assert not any(c in cell for cell in page.cells for c in "\x1b\u202e")


def test_a_summary_counts() -> None:
    found = dtd.summary(layers(), (3, 6, 6))
    count = 6 * 3 * 9 + 6 + 5 * 54 + 5
    assert found.reading == f"input (n, 3, 6, 6), 5 layers, {count} parameters"
    assert [row[4] for row in found.rows] == ["(n, 6, 6, 6)"] * 2 + ["(n, 6, 3, 3)", "(n, 54)", "(n, 5)"]
    assert [row[4] for row in dtd.summary(layers()).rows] == ["?"] * 5
    with pytest.raises(dtd.ShapeError, match=r"layer 0 \(Conv"):
        dtd.summary(layers(), (2, 6, 6))
    with pytest.raises(dtd.LayerError, match="expected a list of records"):
        dtd.summary(np.ones(3))  # type: ignore[arg-type]
    for wrong in ("image", 3, (1.5,), (-1, 6, 6)):
        with pytest.raises(dtd.InputError, match="shape is "):
            dtd.summary(layers(), wrong)  # type: ignore[arg-type]
    branches = [dtd.Linear(normal(np.random.default_rng(0), 4, 4)), dtd.Add(inputs=(0, dtd.INPUT))]
    assert [row[3] for row in dtd.summary(branches, (4,)).rows] == ["input", "0 input"]
