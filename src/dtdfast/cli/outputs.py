"""Outputs that the command line names by number or label."""

from __future__ import annotations

from pathlib import Path

from ..contrast import REST, SOFTMAX
from ..errors import InputError
from ..files import readable
from .text import lines_in

WORDS = (REST, SOFTMAX)
SHOWN = 5
"""Labels that an error lists."""


def numbered(
    option: str, given: int | str | None, labels: Path | None, words: tuple[str, ...] = ()
) -> int | str | None:
    """The number of the output that an option names; numbers, None and `words` are returned unchanged.

    A label is found whatever its capitals, by its whole line or by one of the names on it that commas divide.

    Raises
    ------
    InputError
        No line, or several, have this label; or there is no file of labels.
    """
    if given is None or isinstance(given, int) or given in words:
        return given
    if labels is None:
        raise InputError(
            f"{option} is {readable(given)!r}: names of outputs are looked up in --labels FILE, which is not given"
        )
    wanted, lines = given.strip().casefold(), lines_in(labels)
    found = [i for i, line in enumerate(lines) if line.strip().casefold() == wanted]
    if not found:
        found = [i for i, line in enumerate(lines) if wanted in (name.strip().casefold() for name in line.split(","))]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"{i} ({readable(lines[i])})" for i in found[:SHOWN])
        raise InputError(f"{option}: {len(found)} outputs are called {readable(given)!r}: {several}; give the number")
    near = [line for line in lines if wanted in line.casefold()][:SHOWN]
    hint = f"; it is part of {', '.join(repr(readable(line)) for line in near)}" if near else ""
    raise InputError(f"{option}: no output is called {readable(given)!r}{hint}")
