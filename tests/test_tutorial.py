"""docs/trust.md runs, and prints what it says; of its photographs the first lines alone, their classes, without
DTDFAST_LONG=1.
"""

from __future__ import annotations

from typing import Any

import pytest

from run_support import LONG
from tutorial import MODEL, PAGE, WORDS, blocks, differences, names, run


def check(photographs: bool) -> None:
    space: dict[str, Any] = names() if photographs else {}
    text = PAGE.read_text(encoding="utf-8")
    compared = 0
    for network, code, expected, _ in blocks(text):
        squeezenet = network == "squeezenet"
        prepares = expected is None or "def contrastive" in code  # what the photographs need of the digits' code
        if not (squeezenet == photographs or (photographs and prepares)):
            continue
        if photographs and compared and not LONG:
            break
        if squeezenet and not LONG:
            code = code.partition("for rules in")[0]
        printed = run(code, space)
        if expected is not None and squeezenet == photographs:
            lines = expected.splitlines(keepends=True)
            shown = len(printed.splitlines()) if squeezenet and not LONG else len(lines)
            assert shown >= 2
            assert differences("".join(lines[:shown]), printed) == []
            compared += 1
    assert compared == (9 if not photographs else 2 if LONG else 1)


def test_the_digits() -> None:
    check(photographs=False)


@pytest.mark.skipif(not MODEL.exists(), reason="SqueezeNet's weights are not in ../shared/data")
def test_the_photographs() -> None:
    check(photographs=True)


def test_the_words() -> None:
    space: dict[str, Any] = {}
    compared = 0
    for network, code, expected, _ in blocks(WORDS.read_text(encoding="utf-8")):
        if network:
            continue
        printed = run(code, space)
        if expected is not None:
            assert differences(expected, printed) == []
            compared += 1
    assert compared == 6


def test_a_changed_number_or_word_is_noticed() -> None:
    assert differences("a 0.50 b\n", "a   0.51 b\n") == []
    assert differences("a 0.50 b\n", "a 0.60 b\n")
    assert differences("a 0.50 b\n", "a 0.50 c\n")
    assert differences("a\n", "a\nb\n")
