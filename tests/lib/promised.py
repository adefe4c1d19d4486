"""The tests that docs/promises.md names, and what of them the long forms ran: promised.tsv keeps it."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ROWS = re.findall("^[|] .+", (ROOT / "docs/promises.md").read_text(encoding="utf-8"), re.MULTILINE)  # of its tables
NAMED = sorted(set(re.findall(r"`((?:tests|\.ci)/[^`]+)`", "\n".join(ROWS))))
RECORD = ROOT / "tests/promised.tsv"
HEADER = ["test", "passed", "date", "commit"]


def recorded() -> dict[str, list[str]]:
    """Name → how many of its cases passed, when, and of which commit."""
    lines = RECORD.read_text(encoding="utf-8").splitlines()[1:] if RECORD.exists() else []
    return {name: rest for name, *rest in (line.split("\t") for line in lines)}


class Recorder:
    """A plugin of pytest: a name of which some cases passed, and none failed, has its line written anew."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Counter[str]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome == "failed":
            path, _, rest = report.nodeid.partition("::")
            for name in (path, f"{path}::{rest.partition('[')[0]}"):
                self.outcomes.setdefault(name, Counter())[report.outcome] += 1

    def pytest_sessionfinish(self) -> None:
        now = datetime.now(UTC).date().isoformat()
        git = ["git", "-C", str(ROOT), "rev-parse", "--short=10", "HEAD"]
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
        kept = {name: rest for name, rest in recorded().items() if name in NAMED}
        for name, outcomes in self.outcomes.items():
            if name in NAMED and outcomes["failed"]:
                kept.pop(name, None)
            elif name in NAMED and outcomes["passed"]:
                kept[name] = [str(outcomes["passed"]), now, commit]
        lines = [HEADER, *([name, *rest] for name, rest in sorted(kept.items()))]
        RECORD.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
