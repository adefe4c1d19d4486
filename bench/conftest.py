"""Shared by the benchmarks: the networks of the tests, the machine's peaks, and a table of ratios at the end."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "lib"))

import machine
import sections


@dataclass(frozen=True)
class Row:
    """One tool on one network and batch: seconds per call, the operations that the result needs, how far it is from the
    oracle's.
    """

    case: str
    tool: str
    minimum: float
    median: float
    flops: float
    error: float | None = None  # of its map, against the oracle


ROWS = pytest.StashKey[list[Row]]()
MACHINE = pytest.StashKey[machine.Machine]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", action="store_true", help="write the table into results.md, as this CPU's section")


@pytest.fixture(scope="session")
def peak(request: pytest.FixtureRequest) -> machine.Machine:
    config = request.config
    if MACHINE not in config.stash:
        config.stash[MACHINE] = machine.measure()
    return config.stash[MACHINE]


@pytest.fixture(scope="session")
def rows(request: pytest.FixtureRequest, peak: machine.Machine) -> list[Row]:
    return request.config.stash.setdefault(ROWS, [])


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash.get(ROWS, []):
        lines = list(table(config.stash[ROWS], config.stash[MACHINE].best(machine.measure())))
        for line in lines:
            terminalreporter.write_line(line)
        if config.getoption("--results"):
            sections.write(shlex.join(["pytest", *config.invocation_params.args]), lines)


def table(rows: list[Row], peak: machine.Machine) -> Iterator[str]:
    yield ""
    yield (
        f"{peak.threads} threads, {peak.lanes} float32 lanes: multiply-add peak {peak.gflops:.0f} GFLOP/s, "
        f"copies at {peak.copy_gb_per_s:.0f} GB/s (read and written)"
    )
    columns = f"{'min ms':>9} {'median ms':>10} {'x dtdfast: min':>15} {'median':>7} {'of peak':>8} {'error':>8}"
    yield f"{'':24} {'':22} {columns}"
    ours: dict[str, Row] = {}  # the first of dtdfast's rows
    for row in rows:
        if row.tool.startswith("dtdfast"):
            ours.setdefault(row.case, row)
    cases = list(dict.fromkeys(row.case for row in rows))
    for row in sorted(rows, key=lambda row: cases.index(row.case)):
        base = ours.get(row.case)
        ratios = f"{row.minimum / base.minimum:15.2f} {row.median / base.median:7.2f}" if base else f"{'':23}"
        share = row.flops / row.minimum / (peak.gflops * 1e9)
        far = "" if row.error is None else f"{row.error:8.1e}"
        times = f"{row.minimum * 1e3:9.1f} {row.median * 1e3:10.1f}"
        yield f"{row.case:24} {row.tool:22} {times} {ratios} {share:8.0%} {far}".rstrip()
