"""torchvision made importable on a build without its compiled operators; a table of what the tests measured, at the
end.
"""

from __future__ import annotations

import gc
import importlib.metadata
import re
import sys
from collections.abc import Callable, Iterator

import pytest
import torch

Row = tuple[str, ...]
ROWS = pytest.StashKey[dict[str, list[Row]]]()


def _declare_operators() -> None:
    """Declare the operators for which torchvision registers shape functions; without its compiled library nobody else
    does.
    """
    source = importlib.metadata.distribution("torchvision").locate_file("torchvision/_meta_registrations.py")
    for name in sorted(set(re.findall(r'register_fake\("torchvision::(\w+)"', source.read_text()))):  # type: ignore[attr-defined]
        torch.library.define(f"torchvision::{name}", "(Tensor a) -> Tensor")


try:
    import torchvision  # noqa: F401
except (ImportError, RuntimeError):
    _declare_operators()


@pytest.fixture(autouse=True, scope="module")
def _nothing_kept(request: pytest.FixtureRequest) -> Iterator[None]:
    """Networks that a file's tests share, gigabytes of them, are gone before the next file's come."""
    yield
    for name in {request.module.__name__, "parity"} & set(sys.modules):
        for value in vars(sys.modules[name]).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()
    gc.collect()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str, Row], None]:
    """Add a row to the table with this header (a Markdown row)."""
    tables = request.config.stash.setdefault(ROWS, {})
    return lambda header, row: tables.setdefault(header, []).append(row)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for header, rows in config.stash.get(ROWS, {}).items():
        terminalreporter.write_line(f"\n{header}\n" + "|---" * (header.count("|") - 1) + "|")
        for row in rows:
            terminalreporter.write_line(f"| {' | '.join(row)} |")
