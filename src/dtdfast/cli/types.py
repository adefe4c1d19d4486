"""Types of options: from what is typed to what a command takes, or why not."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..presets import PRESETS
from ..verdicts import TABLE as TESTS

SMOOTHEST = 100
"""Pixels of a Gaussian's standard deviation, at most."""


def path(text: str) -> Path:
    """A path that is not empty, as where a variable of the shell is: Path("") is the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def number(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a finite number")
    return found


def numbers(text: str) -> tuple[float, ...]:
    return tuple(map(number, text.split(",")))


def smoothness(text: str) -> float:
    """Pixels of a Gaussian."""
    if not 0 <= (found := number(text)) <= SMOOTHEST:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a number of pixels from 0 to {SMOOTHEST}")
    return found


def percentile(text: str) -> float:
    if not 0 < (found := number(text)) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a number above 0 and up to 100")
    return found


def output(text: str) -> int | str:
    """The number of an output, or a label that is looked up."""
    return int(text) if is_integer(text) else text


def outputs(text: str) -> tuple[int, ...] | str:
    """Numbers of outputs, or labels that are looked up."""
    parts = text.split(",")
    return tuple(map(int, parts)) if all(map(is_integer, parts)) else text


def is_integer(text: str) -> bool:
    """Whether it is the number of an output, and no label."""
    return bool(re.fullmatch(r"\s*[+-]?\d{1,18}\s*", text, re.ASCII))


def count(text: str) -> int:
    """A positive integer."""
    if not re.fullmatch(r"\+?\d{1,18}", text, re.ASCII) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not an integer of at least 1")
    return int(text)


def integers(text: str) -> tuple[int, ...]:
    return tuple(map(count, text.split(",")))


def _some(text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Several of what is known, each once."""
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r:.40} is none of {', '.join(known)}")
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise argparse.ArgumentTypeError(f"{twice[0]!r:.40} is named twice")
    return names


def presets(text: str) -> tuple[str, ...]:
    return _some(text, tuple(PRESETS))


def tests(text: str) -> tuple[str, ...]:
    return _some(text, tuple(TESTS))


def size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return count(height), count(width or height)


def domain(text: str) -> Any:
    if text in ("pixels", "real", "nonnegative"):
        return text
    bounds = numbers(text) if "," in text else ()
    if len(bounds) != 2:
        raise argparse.ArgumentTypeError(
            f"{text!r:.40} is neither pixels, real nor nonnegative, nor two numbers LOW,HIGH"
        )
    return bounds
