"""The sources that a kernel's machine code follows from, as far as a compiler reads them."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
ROOMS = {"compile": HERE, "kernels": HERE.parent / "kernels"}
COMPILERS = tuple(HERE / f"{name}.py" for name in ("compiler", "kernel", "language", "ptx", "specialise"))
"""What makes every kernel."""


def needed(modules: Iterable[str]) -> list[Path]:
    """The files of these modules of kernels/, those that they import, and those that make every kernel."""
    found, waiting = set(COMPILERS), [ROOMS["kernels"] / f"{name.rpartition('.')[2]}.py" for name in modules]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += imported(path)
    return sorted(found)


@cache
def imported(path: Path) -> tuple[Path, ...]:
    """The files of kernels/ that one of them imports."""
    tree = ast.parse(path.read_bytes())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1]
    return tuple(path.with_name(f"{name}.py") for node in imports for name in _modules(node))


def _modules(node: ast.ImportFrom) -> list[str]:
    """from .a import b, or from . import a."""
    return [node.module] if node.module else [alias.name for alias in node.names]


@cache
def code_of(path: Path) -> bytes:
    """A file without comments, docstrings and empty lines: what is left changes with the code, in every version of
    Python alike.
    """
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            assert node.end_lineno is not None
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        row, column = token.start
        if token.type == tokenize.COMMENT:
            lines[row - 1] = lines[row - 1][:column]
    return "\n".join(line.rstrip() for line in lines if line.strip()).encode()
