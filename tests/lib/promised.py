"""The tests that docs/promises.md names, and what of them the long forms ran: promised.tsv keeps it."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ROWS = re.findall("^[|] .+", (ROOT / "docs/promises.md").read_text(encoding="utf-8"), re.MULTILINE)  # of its tables
NAMED = sorted(set(re.findall(r"`((?:tests|\.ci)/[^`]+)`", "\n".join(ROWS))))
TESTS = [name for name in NAMED if name.startswith("tests/")]
RECORD = ROOT / "tests/promised.tsv"
HEADER = ["test", "passed", "date"]


def recorded() -> dict[str, list[str]]:
    """Name → how many of its cases passed, and when."""
    lines = RECORD.read_text(encoding="utf-8").splitlines()[1:] if RECORD.exists() else []
    return {name: rest for name, *rest in (line.split("\t") for line in lines)}


class Recorder:
    """A plugin of pytest: a name of which some cases passed, and none failed, has its line written anew; one of which
    some failed, or that never ran, has none passed.
    """

    def __init__(self) -> None:
        self.outcomes: dict[str, Counter[str]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome == "failed":
            path, _, rest = report.nodeid.partition("::")
            for name in (path, f"{path}::{rest.partition('[')[0]}"):
                self.outcomes.setdefault(name, Counter())[report.outcome] += 1

    def pytest_sessionfinish(self) -> None:
        now = datetime.now(UTC).date().isoformat()
        known, lines = recorded(), [HEADER]
        for name in TESTS:
            outcomes = self.outcomes.get(name, Counter())
            if outcomes["failed"]:
                lines.append([name, "0", now])
            elif outcomes["passed"]:
                lines.append([name, str(outcomes["passed"]), now])
            else:
                lines.append([name, *known.get(name, ["0", "never"])])
        RECORD.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
