"""Outputs that the command line names by number or label."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..contrast import REST, SOFTMAX
from ..errors import InputError
from ..files import readable
from .text import lines_in
from .types import is_integer

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
    return _one(option, given, _lines(option, given, labels))


def numbered_all(option: str, given: tuple[int, ...] | str | None, labels: Path | None) -> list[int]:
    """The numbers of all outputs that an option names, each once.

    A text is one label if there is such a label; else commas divide it into several, or numbers.

    Raises
    ------
    InputError
        As in `numbered`; or an output is named twice.
    """
    if given is None:
        return []
    if isinstance(given, str):
        lines = _lines(option, given, labels)
        parts = [given] if _found(given, lines) else [part.strip() for part in given.split(",")]
        numbers = [int(p) if is_integer(p) else _one(option, p, lines) for p in parts]
    else:
        numbers = list(given)
    if twice := [n for place, n in enumerate(numbers) if n in numbers[:place]]:
        raise InputError(f"{option} names output {twice[0]} twice")
    return numbers


def _lines(option: str, given: str, labels: Path | None) -> list[str]:
    if labels is None:
        raise InputError(
            f"{option} is {readable(given)!r}: names of outputs are looked up in --labels FILE, which is not given"
        )
    return lines_in(labels)


def _found(given: str, lines: list[str]) -> list[int]:
    """Lines that have this label."""
    wanted = given.strip().casefold()
    found = [i for i, line in enumerate(lines) if line.strip().casefold() == wanted]
    return found or [i for i, line in enumerate(lines) if wanted in (n.strip().casefold() for n in line.split(","))]


def _one(option: str, given: str, lines: list[str]) -> int:
    found = _found(given, lines)
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"{i} ({readable(lines[i])})" for i in found[:SHOWN])
        raise InputError(f"{option}: {len(found)} outputs are called {readable(given)!r}: {several}; give the number")
    wanted = given.strip().casefold()
    within = [line for line in lines if wanted in line.casefold()][:SHOWN] if wanted else []
    names = {name.strip().casefold(): name.strip() for line in lines for name in (line, *line.split(","))}
    near = within or [names[name] for name in get_close_matches(wanted, names)]
    told = ", ".join(repr(readable(name)) for name in near)
    hint = f"; it is part of {told}" if within else f"; near are {told}" if near else ""
    raise InputError(f"{option}: no output is called {readable(given)!r}{hint}")


def check_outputs(named: dict[str, Any], labels: list[str] | None, n: int) -> None:
    """Compare numbers that options name, and the labels, with the n outputs of a network.

    Raises
    ------
    InputError
    """
    if labels is not None and len(labels) != n:
        raise InputError(
            f"the labels file has {len(labels)} lines, but the network has {n} outputs; give one line for each"
        )
    for option, number in named.items():
        if isinstance(number, int) and not 0 <= number < n:
            raise InputError(f"{option} is {number}, but the network has {n} outputs: 0 to {n - 1}")


def output_told(of: dict[str, Any]) -> str:
    """An output's number and label, in one line."""
    return f"{of['target']} {readable(of['label'] or '')}".rstrip()
