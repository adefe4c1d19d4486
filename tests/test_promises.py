"""Every test that docs/promises.md names exists; the version is the same wherever it stands."""

from __future__ import annotations

import ast
import tomllib

import pytest

from promised import NAMED, ROOT, ROWS, TESTS, recorded


def test_every_promise_names_its_tests() -> None:
    promises = [row for row in ROWS if not row.startswith("| promise |")]
    assert len(promises) >= 15
    assert [row for row in promises if not any(f"`{name}`" in row for name in NAMED)] == []


def test_the_record_of_long_forms_has_every_test() -> None:
    """DTDFAST_LONG=1 writes it: a line for each, and no case of the last long form that ran it failed."""
    found = recorded()
    assert sorted(found) == TESTS
    assert [name for name, (passed, date) in found.items() if (passed == "0") != (date == "never")] == []


@pytest.mark.parametrize("name", NAMED)
def test_the_test_exists(name: str) -> None:
    path, _, function = name.partition("::")
    assert (ROOT / path).is_file()
    if function:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_version_and_what_is_needed_are_the_same_wherever_they_stand() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    version, needed = told["project"]["version"], told["project"]["dependencies"] + told["build-system"]["requires"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    recipe = (ROOT / "conda/recipe.yaml").read_text(encoding="utf-8")
    assert f"\n  version: {version}\n" in recipe
    assert f'\n  python_min: "{told["project"]["requires-python"].removeprefix(">=")}"\n' in recipe
    everywhere = [r.replace(">=", " >=") for r in needed if ";" not in r]  # conda skips Windows
    assert [r for r in everywhere if f"\n    - {r}\n" not in recipe] == []


def test_all_data_that_is_shipped_is_listed_with_its_licence() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    data = [path.name for path in (ROOT / "src/dtdfast/data").iterdir() if path.is_file() and path.suffix != ".py"]
    assert len(data) >= 6
    assert [name for name in data if f"src/dtdfast/data/{name} " not in notice] == []
