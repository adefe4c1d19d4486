"""The documentation site, built in strict mode: it asks nothing of any network, and holds every name and notebook."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import numpydocs

ROOT = Path(__file__).parents[2]
LOADS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "object": "data"}


class Page(HTMLParser):
    """What a page loads, and the names of its places."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.ids.add(given.get("id") or "")
        if (target := given.get(LOADS.get(tag, ""))) and given.get("rel") not in ("next", "prev", "canonical"):
            self.loads.append(target)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {p.relative_to(site).as_posix(): Page(p.read_text(encoding="utf-8")) for p in site.rglob("*.html")}


def test_it_asks_nothing_of_any_network(site: Path, pages: dict[str, Page]) -> None:
    loads = {target for page in pages.values() for target in page.loads}
    assert len(loads) > 5
    assert not [target for target in loads if re.match(r"(\w+:)?//", target)]
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text(encoding="utf-8")), style.name


def test_code_is_code(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert "```" not in path.read_text(encoding="utf-8"), path.name


def inherited(name: str, of: Any) -> bool:
    """Whether a method is that of a base, whose place has it."""
    function = of.fget if isinstance(of, property) else of
    return inspect.isfunction(function) and function.__qualname__.partition(".")[0] not in name.split(".")


def test_every_public_name_has_a_place(pages: dict[str, Page]) -> None:
    there = set().union(*(page.ids for name, page in pages.items() if name.startswith("reference/")))
    names = {name for name, of in numpydocs.public() if of.__doc__ and not inherited(name, of)}
    own = {name for name in names if f"{name}.{name.rpartition('.')[2]}" in there}  # as its module is called
    assert len(names) > 70
    assert sorted(names - there - own) == []


def test_a_notebook_that_cannot_run_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    hooks = importlib.import_module("mkdocs_hooks")
    monkeypatch.setattr(hooks, "DATA", tmp_path)
    text, pictures = hooks.page_of(ROOT / "docs" / "notebooks" / "photograph.ipynb")
    assert "was not run when this site was built, since it needs squeezenet1_1.onnx and imagenet_labels.txt." in text
    assert "dtd.from_onnx" in text
    assert not pictures


def test_notebooks_ran(site: Path) -> None:
    for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        text = (site / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert "It was not run when this site was built" in text or len(re.findall("<img", text)) >= 1, path.name
        assert (site / "notebooks" / path.name).is_file()
