"""Which benchmarks became slower or faster: two builds, timed by turns.

    pytest bench/test_explain.py --benchmark-json old1.json   # with the old build, then
    pytest bench/test_explain.py --benchmark-json new1.json   # with the new one, and so on, by turns
    python bench/compare.py old1.json new1.json old2.json new2.json

It prints the least time of each build and their ratio.  "slower" or "faster" stands beside benchmarks whose turns do
not overlap: every turn of one build took longer than every turn of the other.  One pair of files gives ratios only,
since one turn says nothing about noise.  The exit status is 1 if a benchmark is slower.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

Turns = dict[str, list[float]]  # benchmark: its least seconds, turn by turn


@dataclass(frozen=True)
class Comparison:
    """One benchmark: the least seconds of each turn of the old and of the new build."""

    name: str
    old: list[float]
    new: list[float]

    @property
    def ratio(self) -> float:
        return min(self.new) / min(self.old)

    @property
    def verdict(self) -> str:
        if len(self.old) < 2 or len(self.new) < 2:
            return ""
        if min(self.new) > max(self.old):
            return "slower"
        return "faster" if max(self.new) < min(self.old) else ""


def turns(files: list[Path]) -> Turns:
    """The least seconds of each benchmark, file by file."""
    found: Turns = {}
    for file in files:
        for benchmark in json.loads(file.read_text(encoding="utf-8"))["benchmarks"]:
            found.setdefault(benchmark["fullname"], []).append(benchmark["stats"]["min"])
    return found


def compared(files: list[Path]) -> list[Comparison]:
    """Files of the old and the new build, in turn."""
    old, new = turns(files[::2]), turns(files[1::2])
    return [Comparison(name, old[name], new[name]) for name in old if name in new]


def report(rows: list[Comparison], left_out: int = 0) -> str:
    width = max([len(row.name) for row in rows], default=0)
    lines = [f"{'':{width}} {'old ms':>10} {'new ms':>10} {'new / old':>10}"]
    for row in rows:
        times = f"{min(row.old) * 1e3:10.3f} {min(row.new) * 1e3:10.3f} {row.ratio:10.3f}"
        lines.append(f"{row.name:{width}} {times}  {row.verdict}".rstrip())
    if left_out:
        lines.append(f"{left_out} benchmark(s) ran with one build only")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="OLD.json NEW.json", help="pytest-benchmark's")
    files = parser.parse_args().files
    if len(files) % 2:
        parser.error(f"expected files of the old and the new build by turns, an even number; got {len(files)}")
    rows = compared(files)
    print(report(rows, len(turns(files)) - len(rows)))
    return int(any(row.verdict == "slower" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
