"""The site's pages: their code and commands run, none takes ten minutes to read, and the navigation holds them all."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import dtdfast as dtd
import onnx_models
from dtdfast import cli
from support import DOCS, run_page

ROOT = DOCS.parent
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
HOOKS = (ROOT / "tools" / "mkdocs_hooks.py").read_text(encoding="utf-8")
OUTSIDE = ["README.md", *re.findall(r'"([\w/]+\.md)"', HOOKS.split("PAGES = (", 1)[1].split(")", 1)[0])]
CODE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
WORDS = 2200  # ten minutes of reading, at 220 a minute


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(line: str) -> None:
    """Run one line of a page's shell block; packages are installed already."""
    words = shlex.split(line)
    assert words[0] in ("pip", "dtdfast"), line
    if words[0] == "dtdfast":
        assert cli.main(words[1:]) == 0, line


def test_image(here: Path) -> None:
    body = "h = Conv<strides=[4,4]>(x, w) r = Relu(h) f = Flatten(r) y = Gemm<transB=1>(f, v)"
    onnx.save(onnx_models.model(body, "float[4,3,8,8] w, float[10,900] v", "float[N,3,64,64] x"), here / "model.onnx")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 64, 3), np.uint8)).save("photo.png")
    Path("labels.txt").write_text("\n".join(f"label {k}" for k in range(10)), encoding="utf-8")
    names = run_page("start/image.md", command)
    assert names["why"].shape == names["looked"].shape == (1, 3, 64, 64)
    assert (names["why"] < 0).any()
    assert {path.name for path in here.iterdir()} >= {"maps", "maps.png", "report.html"}


def test_text(here: Path) -> None:
    names = run_page("start/text.md")
    (shown,) = re.findall(r"^```text\n(.*?)\n```", (DOCS / "start/text.md").read_text(), re.MULTILINE | re.DOTALL)
    assert shown == str(dtd.plot.words(names["sentence"], names["relevance"][0]))
    values = re.findall(r'title="([-+.\d]+)"[^>]*>(\w+)<', (DOCS / "index.md").read_text())
    assert " ".join(f"{word}({value})" for value, word in values) == shown


def test_table(here: Path) -> None:
    assert run_page("start/table.md", command)["relevance"].shape == (5, 30)


def test_data_set(here: Path) -> None:
    names = run_page("start/data-set.md", command)
    assert names["relevance"].shape == names["images"].shape
    assert (here / "again.zarr").is_dir()


def test_rules() -> None:
    run_page("theory/rules.md")


def test_critics() -> None:
    names = run_page("theory/critics.md")
    assert names["audit"] is not None


def test_speed() -> None:
    run_page("speed.md")


def test_cuda() -> None:
    given = {"dtdfast": dtd, "layers": [dtd.Linear(np.eye(3))], "x": np.ones((2, 3), np.float32)}
    with contextlib.suppress(dtd.BackendError):  # where there are no two GPUs, as the page's second call wants
        run_page("cuda.md", **given)


def test_extend() -> None:
    names = run_page("extend.md")
    assert names["by_position"].shape == names["relevance"].shape


# ----------------------------------------------------------------------------------------------------- all of the pages


def test_all_code_runs() -> None:
    """Every page with Python on it is run by a test here or in tests/pytorch, by the name of the page."""
    tests = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")]
    named = set(re.findall(r"run_page\(\s*\"([\w/-]+\.md)\"", "\n".join(tests))) | {
        "trust.md",
        "words.md",
    }  # test_tutorial
    coded = {p for p in PAGES if "python" in {kind for kind, _ in CODE.findall((DOCS / p).read_text(encoding="utf-8"))}}
    assert coded <= named, f"no test runs {coded - named}"
    assert named <= coded


@pytest.mark.parametrize("page", [*PAGES, *(f"../{page}" for page in OUTSIDE)])
def test_ten_minutes(page: str) -> None:
    """Words of prose; code, what it prints and tables are looked up and not read."""
    prose = re.sub(r"^\|.*$", "", CODE.sub("", (DOCS / page).read_text(encoding="utf-8")), flags=re.MULTILINE)
    assert len(prose.split()) <= WORDS


def test_navigation_holds_every_page() -> None:
    """mkdocs.yml lists what docs holds; of notebooks, the pages that they become."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("nav:", 1)[1].split("\nplugins:", 1)[0]
    named = re.findall(r"([\w/.-]+\.md)$", navigation, re.MULTILINE)
    made = [f"notebooks/{path.stem}.md" for path in (DOCS / "notebooks").glob("*.ipynb")]
    inside = [name for name in named if not name.startswith("repository/")]
    assert sorted(inside) == sorted([*PAGES, *made]), "add the page to `nav` of mkdocs.yml"
    outside = [name.removeprefix("repository/") for name in named if name.startswith("repository/")]
    assert all((ROOT / name).is_file() for name in outside)


def test_pictures_are_small_and_said_in_words() -> None:
    for path in (DOCS / "images").glob("*.png"):
        assert path.stat().st_size < 150_000, path.name
    for page in (*PAGES, "../README.md"):
        for words, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", (DOCS / page).read_text(encoding="utf-8")):
            assert len(words) > 20, f"{page}: {target} has no words for those who do not see it"
            assert (DOCS / page).parent.joinpath(target).is_file(), f"{page}: there is no {target}"
