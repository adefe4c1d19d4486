"""Every reader of files, fed with mutations of valid ones (lib/fuzzing/): it ends in a right answer or in a DtdError,
whatever the bytes.

tests/fuzz.py does the same for hours, guided by coverage; what it found lies in seeds/ and is read here again.
DTDFAST_LONG=1 makes 10,000 mutations of each kind of file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from random import Random

import pytest

import dtdfast as dtd
from fuzzing import TARGETS, target
from fuzzing.watch import Watch

COUNT = 10_000 if os.environ.get("DTDFAST_LONG") else 100
SHARE = {"images": 6, "manifest": 0.3, "onnx": 0.3}  # of that
SEEDS = Path(__file__).parent / "seeds"
WATCH = Watch()


def ends_well(name: str, data: bytes) -> bool:
    """Whether it was read; False where it was refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of decoders
        try:
            target(name).read(data)
        except dtd.DtdError:
            return False
    return True


@pytest.mark.parametrize("name", TARGETS)
def test_mutations(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTDFAST_MEMORY", "256M")
    monkeypatch.chdir(tmp_path)
    rng, found = Random(name), target(name)
    seeds = found.seeds()
    count = int(COUNT * SHARE.get(name, 1))
    refused = 0
    for number in range(count):
        case = tmp_path / str(number)
        case.mkdir()
        monkeypatch.chdir(case)
        refused += not ends_well(name, found.mutated(seeds[number % len(seeds)], rng))
    assert refused > count // 20  # the mutations do something


@pytest.mark.parametrize("seed", sorted(SEEDS.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_findings(seed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTDFAST_MEMORY", "256M")
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    WATCH.during(lambda: ends_well(seed.parent.name, seed.read_bytes()), tmp_path)


def test_the_command(tmp_path: Path) -> None:
    """In a process of its own, whose memory is limited: a crash, a hang or gigabytes would end it."""
    command = [sys.executable, str(SEEDS.parent / "fuzz.py"), "onnx", "--blind", "--found", str(tmp_path)]
    done = subprocess.run([*command, "--cases", "200"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "onnx: 2" in done.stdout
