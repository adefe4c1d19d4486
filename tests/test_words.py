"""Relevance of words: colours, escaping, word pieces, and what is refused."""

import html
import io
import re
import sys

import numpy as np
import pytest

from dtdfast import plot
from dtdfast.errors import InputError, ShapeError
from dtdfast.plot import words

ESCAPE = re.compile(r"\x1b\[([\d;]*)m")
SPAN = re.compile(r'<span style="color:#000;background:rgb\((\d+),(\d+),(\d+)\)" title="([^"]*)">(.*?)</span>')


class Terminal(io.StringIO):
    def isatty(self):
        return True


def backgrounds(shown):
    """Red, green and blue of every word, white where it has no colour; in a terminal's 256 colours."""
    found = []
    for word in shown.text(colours=True).split(" "):
        codes = ESCAPE.findall(word)
        index = int(codes[0].split(";")[-1]) - 16 if codes else 215
        found.append((index // 36, index // 6 % 6, index % 6))
    return found


def test_plain_text_says_sign_and_value():
    shown = words(["a", "good", "film"], [0.0, 0.512, -0.25])
    assert shown.text(colours=False) == "a(0) good(+0.51) film(-0.25)"
    assert repr(shown) == "<Words: 1 samples, 3 words>"


def test_colours_of_a_terminal_are_mirror_images_of_each_other():
    values = np.linspace(0, 1, 13)
    up, down = (backgrounds(words(["w"] * 13, sign * values)) for sign in (1, -1))
    assert up == [colour[::-1] for colour in down]
    assert up[0] == (5, 5, 5)
    assert up[-1] == (5, 2, 0)  # orange
    blue = [b for _, _, b in up]
    assert blue == sorted(blue, reverse=True), "the larger the relevance, the stronger the colour"
    assert len(set(blue)) == 4


def test_colours_of_html_are_symmetric_and_end_at_the_largest():
    spans = SPAN.findall(words(["a", "b", "c", "d", "e"], [2.0, -2.0, 1.0, -1.0, 0.0]).html())
    colours = [tuple(map(int, span[:3])) for span in spans]
    assert colours[0] == (255, 135, 0)
    assert colours[0] == colours[1][::-1]
    assert colours[2] == colours[3][::-1]
    assert colours[4] == (255, 255, 255)
    assert [span[3] for span in spans] == ["+2", "-2", "+1", "-1", "+0"]


def test_samples_share_one_scale():
    shown = words([["a", "b"], ["c"]], [[4.0, 0.0], [2.0]])
    rows = shown.html().splitlines()
    assert len(rows) == 2
    assert SPAN.findall(rows[1])[0][:3] == ("255", "195", "128")  # half way to orange
    assert shown.text(colours=False) == "a(+4) b(0)\nc(+2)"


def test_what_a_token_holds_is_escaped():
    nasty = ["<script>alert('x')</script>", '"&', "\x1b[31mred", "line\nbreak", "\u202eback"]
    shown = words(nasty, np.ones(5))
    page = shown._repr_html_()
    assert "<script" not in page
    assert [html.unescape(span[4]) for span in SPAN.findall(page)][:2] == nasty[:2]
    for colours in (True, False):
        text = ESCAPE.sub("", shown.text(colours))
        assert all(c.isprintable() for c in text)
        assert len(text.splitlines()) == 1
    assert "\x1b[31m" not in shown.text(colours=True)


def test_colours_only_in_a_terminal(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    shown = words(["good"], [1.0])
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    plain = str(shown)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert ESCAPE.search(str(shown))
    monkeypatch.setenv("NO_COLOR", "1")
    assert str(shown) == plain == "good(+1)"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert str(shown) == plain


@pytest.mark.parametrize(
    ("pieces", "joined"),
    [
        (["[CLS]", "un", "##like", "##ly", "film", "[SEP]"], ["[CLS]", "unlikely", "film", "[SEP]"]),
        (["<s>", "The", "Ġun", "like", "ly", ",", "Ġfilm", "</s>"], ["<s>", "The", "unlikely,", "film", "</s>"]),
        (["▁A", "▁", "1", "st", "▁film", "</s>"], ["A", "1st", "film", "</s>"]),
        (["a", "plain", "text"], ["a", "plain", "text"]),
        (["##ly", "alone"], ["ly", "alone"]),
        (["[CLS]", "##ly"], ["[CLS]", "ly"]),
    ],
)
def test_word_pieces_are_joined_on_demand(pieces, joined):
    values = 2.0 ** np.arange(len(pieces))
    assert words(pieces, values).tokens == [pieces]
    shown = words(pieces, values, join=True)
    assert shown.tokens == [joined]
    assert shown.relevance[0].sum() == values.sum()
    assert len(shown.relevance[0]) == len(joined)


def test_sums_of_joined_pieces():
    shown = words(["un", "##like", "##ly", "film"], [1.0, 2.0, 4.0, 8.0], join=True)
    np.testing.assert_array_equal(shown.relevance[0], [7.0, 8.0])


def test_nothing_and_zeros():
    for empty in (words([], []), words([[]], [[]], join=True)):
        assert empty.text(colours=True) == empty.text(colours=False) == ""
    assert words(["a", "b"], np.zeros(2)).text(colours=True) == "a b"
    assert "nan" not in words(["a", "b"], np.zeros(2)).html()


@pytest.mark.parametrize(
    ("tokens", "relevance", "error", "said"),
    [
        (["a", "b"], [1.0], ShapeError, "1 numbers, but there are 2 tokens"),
        (["a", "b"], np.ones((2, 3)), ShapeError, r"shape \(2, 3\).*sum a map over its features"),
        ([["a"], ["b", "c"]], [[1.0], [1.0]], ShapeError, "sample 1: relevance holds 1 numbers, but there are 2"),
        ([["a"], ["b"]], [[1.0]], ShapeError, "2 samples, but relevance 1"),
        ([["a"], ["b"]], 1.0, ShapeError, "relevance"),
        (["a"], [np.nan], InputError, "NaN"),
        (["a"], [-np.inf], InputError, "infinity"),
        (["a"], ["much"], ShapeError, "no array of numbers"),
        (["a"], np.ma.masked_array([1.0], [True]), ShapeError, "masked array"),
        ("a b", [1.0, 1.0], InputError, "'a b', expected a list of words"),
        (["a", 3], [1.0, 1.0], InputError, "strings"),
        ([1, 2], [1.0, 1.0], InputError, "strings"),
        (["a", ["b"]], [[1.0], [1.0]], InputError, "sample 0: tokens is 'a'"),
        ([["a"], 3], [[1.0], [1.0]], InputError, "sample 1: tokens is 3"),
        (3, [1.0], InputError, "tokens is 3"),
    ],
)
def test_refused(tokens, relevance, error, said):
    with pytest.raises(error, match=said):
        words(tokens, relevance)


def test_it_stands_beside_the_pictures():
    assert plot.words is words
    assert isinstance(words([], []), plot.Words)
