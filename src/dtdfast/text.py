"""Relevance of words as coloured text, for terminals and notebooks."""

from __future__ import annotations

import html
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays.checks import host_array
from .errors import InputError, ShapeError
from .show import printable

FOR, AGAINST = (255, 135, 0), (0, 135, 255)  # orange and blue, which colour-blind readers tell apart; mirror images
STEPS = ((5, 4, 3), (5, 3, 1), (5, 2, 0))  # of orange in a terminal's cube of 6×6×6 colours; blue is the mirror image
CONTINUES = "##"  # at the front of a piece that continues a word (WordPiece)
BEGINS = ("Ġ", "▁")  # at the front of a piece that begins one (byte-level BPE, SentencePiece)
SPECIAL = re.compile(r"<.*>|\[[A-Z]+\]")  # tokens that are no part of a word, such as <s> and [CLS]


class Words:
    """Words and their relevance: `print` shows them in a terminal, a notebook shows them as HTML.

    Colours are symmetric about zero, orange for relevance above it and blue below, and end at the largest ``|R|`` of
    all samples. Where the output is no terminal, or the variable NO_COLOR is set, the values stand behind the words.

    Attributes
    ----------
    tokens : list of list of str
        The words of every sample.
    relevance : list of ndarray
        Their relevance.
    """

    def __init__(self, tokens: list[list[str]], relevance: list[NDArray[np.float64]]) -> None:
        self.tokens, self.relevance = tokens, relevance
        self._limit = max((float(np.abs(r).max()) for r in relevance if r.size), default=0.0) or 1.0

    def text(self, colours: bool) -> str:
        """The words, one line per sample.

        Parameters
        ----------
        colours : bool
            Whether to use a terminal's colours; without them the values stand behind the words.

        Returns
        -------
        str
            The text.
        """
        write = self._coloured if colours else self._signed
        return "\n".join(" ".join(map(write, *sample)) for sample in self._samples())

    def html(self) -> str:
        """The words as HTML, one paragraph per sample; a word's value appears under the pointer.

        Returns
        -------
        str
            The HTML; whatever the tokens hold is escaped.
        """
        return "\n".join(f"<p>{' '.join(map(self._marked, *sample))}</p>" for sample in self._samples())

    def __str__(self) -> str:
        there = sys.stdout is not None and sys.stdout.isatty()
        return self.text(there and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")

    def __repr__(self) -> str:
        return f"<Words: {len(self.tokens)} samples, {sum(map(len, self.tokens))} words>"

    def _repr_html_(self) -> str:
        return self.html()

    def _samples(self) -> Any:
        return zip(self.tokens, self.relevance, strict=True)

    def _coloured(self, word: str, value: float) -> str:
        step = round(abs(value) / self._limit * len(STEPS))
        if step == 0:
            return printable(word)
        red, green, blue = STEPS[step - 1][:: 1 if value > 0 else -1]
        return f"\x1b[38;5;16;48;5;{16 + 36 * red + 6 * green + blue}m{printable(word)}\x1b[0m"

    def _signed(self, word: str, value: float) -> str:
        return f"{printable(word)}({value:+.2g})" if value else f"{printable(word)}(0)"

    def _marked(self, word: str, value: float) -> str:
        colour = FOR if value > 0 else AGAINST
        share = abs(value) / self._limit
        rgb = ",".join(str(round(255 - share * (255 - c))) for c in colour)
        style = f"color:#000;background:rgb({rgb})"
        return f'<span style="{style}" title="{value:+.3g}">{html.escape(printable(word))}</span>'


def words(tokens: Sequence[Any], relevance: ArrayLike | Sequence[ArrayLike], *, join: bool = False) -> Words:
    """Show the words of a text in colours of their relevance.

    Parameters
    ----------
    tokens : sequence of str, or sequence of such sequences
        The words, or a tokenizer's pieces, of one sample or of several.
    relevance : array_like of shape (tokens,), or sequence of them
        A number per token: that of a map ``(tokens, features)`` is its sum over features.
    join : bool, default False
        Whether to join pieces of words, whose relevance adds up: "##ing" continues a word; where some tokens begin with
        "Ġ" or "▁", those begin one.

    Returns
    -------
    Words
        The words; `print` it, or let a notebook show it.

    Raises
    ------
    ShapeError
        There is not one number per token.
    InputError
        The tokens are no strings, or the relevance holds NaN or infinity.

    Examples
    --------
    >>> print(words(["un", "##forget", "##table", "film"], [1.0, 1.0, 0.5, -0.25], join=True))
    unforgettable(+2.5) film(-0.25)
    """
    if not isinstance(tokens, Iterable) or isinstance(tokens, (str, bytes)):
        raise InputError(f"tokens is {tokens!r:.40}, expected a list of words, such as text.split()")
    texts: list[Any] = list(tokens)
    single = not any(isinstance(text, (list, tuple)) for text in texts)
    if single:
        texts, maps = [texts], [relevance]
    else:
        maps = list(relevance) if isinstance(relevance, Iterable) else [relevance]
    if len(texts) != len(maps):
        raise ShapeError(f"tokens holds {len(texts)} samples, but relevance {len(maps)}")
    checked = [
        _checked(text, values, "" if single else f"sample {k}: ")
        for k, (text, values) in enumerate(zip(texts, maps, strict=True))
    ]
    if join:
        checked = [_joined(*sample) for sample in checked]
    return Words([text for text, _ in checked], [values for _, values in checked])


def _checked(tokens: Any, relevance: Any, where: str) -> tuple[list[str], NDArray[np.float64]]:
    if not isinstance(tokens, (list, tuple)) or not all(isinstance(token, str) for token in tokens):
        raise InputError(f"{where}tokens is {tokens!r:.80}, expected a list of strings")
    try:
        values = np.asarray(host_array(relevance, f"{where}relevance", ShapeError), np.float64)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"{where}relevance is no array of numbers, one per token: {error}") from None
    if values.ndim != 1:
        raise ShapeError(
            f"{where}relevance has shape {values.shape}, expected one number per token; sum a map over its features, "
            "and give several samples as lists of tokens"
        )
    if len(values) != len(tokens):
        raise ShapeError(f"{where}relevance holds {len(values)} numbers, but there are {len(tokens)} tokens")
    if not np.isfinite(values).all():
        raise InputError(f"{where}relevance holds NaN or infinity")
    return list(tokens), values


def _joined(tokens: list[str], relevance: NDArray[np.float64]) -> tuple[list[str], NDArray[np.float64]]:
    """Whole words, and the sums of their pieces."""
    marked = any(token.startswith(BEGINS) for token in tokens)
    found: list[str] = []
    sums: list[float] = []
    closed = True  # whether the word so far cannot be continued
    for token, value in zip(tokens, relevance.tolist(), strict=True):
        special = SPECIAL.fullmatch(token) is not None
        continues = token.startswith(CONTINUES) or (marked and not token.startswith(BEGINS))
        piece = token if special else token.removeprefix(CONTINUES).lstrip("".join(BEGINS))
        if continues and not special and not closed:
            found[-1] += piece
            sums[-1] += value
        else:
            found.append(piece)
            sums.append(value)
        closed = special
    return found, np.array(sums, np.float64)
