"""The tools of bench/ that judge: bench/compare.py, the sections of results.md, and bench/soak.py."""

import json
from pathlib import Path

import pytest

import compare
import nets
import sections
import soak


def files(folder: Path, *turns: tuple[float, float]) -> list[str]:
    """pytest-benchmark's files of one benchmark, old and new by turns."""
    names = []
    for number, seconds in enumerate(s for turn in turns for s in turn):
        file = folder / f"{number}.json"
        benchmarks = [
            {"fullname": "explain", "stats": {"min": seconds}},
            {"fullname": f"only {number}", "stats": {"min": 1}},
        ]
        file.write_text(json.dumps({"benchmarks": benchmarks}))
        names.append(str(file))
    return names


@pytest.mark.parametrize(
    ("turns", "verdict"),
    [
        ([(1.0, 1.2), (1.1, 1.3)], "slower"),
        ([(1.2, 1.0), (1.3, 1.1)], "faster"),
        ([(1.0, 1.2), (1.3, 1.1)], ""),  # turns overlap
        ([(1.0, 2.0)], ""),  # one turn says nothing about noise
    ],
)
def test_compare(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    turns: list[tuple[float, float]],
    verdict: str,
) -> None:
    monkeypatch.setattr("sys.argv", ["compare.py", *files(tmp_path, *turns)])
    assert compare.main() == (verdict == "slower")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("explain")]
    ratio = min(new for _, new in turns) / min(old for old, _ in turns)
    assert line.split()[3:] == [f"{ratio:.3f}", *verdict.split()]


def test_a_section_takes_the_place_of_its_own_kind_of_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "results.md"
    file.write_text("# Results\n\n## Old\n\nkept\n")
    for kind, row in (("One", "first"), ("Two", "second"), ("One", "third")):
        monkeypatch.setattr(sections, "cpu", lambda kind=kind: kind)
        sections.write("pytest bench", [row], file)
    text = file.read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## Two", "## One", "## Old"]
    assert "first" not in text
    assert all(row in text for row in ("second", "third", "kept"))


def test_a_soak_finds_a_result_with_other_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = soak.Soak({"digits_mlp": nets.SMALL["digits_mlp"]()}, seed=0)
    calls.kinds = calls.kinds[:2]
    for _ in range(60):
        calls.call()
    assert calls.repeated > 20
    assert calls.differing == []
    kept = soak.result_of
    monkeypatch.setattr(soak, "result_of", lambda way, case: kept(way, case) + "!")
    for _ in range(20):
        calls.call()
    assert calls.differing
