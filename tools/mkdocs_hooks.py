"""What mkdocs.yml cannot say: pages of the repository that lie outside docs, links to them, and notebooks, executed.

A notebook of docs/notebooks runs when the site is built, in an empty folder, and becomes a page. Its metadata name the
files that it needs; where one of them is not in ../shared/data, the notebook is shown as it is, and the page says so.
"""

from __future__ import annotations

import os
import posixpath
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

import dtdfast

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
NOTEBOOKS = "notebooks"
ELSEWHERE = "repository"  # where the pages from outside docs lie in the site
PAGES = (
    "CONTRIBUTING.md", "bench/README.md", "bench/results.md", "claims/README.md", "csrc/README.md",
    "src/dtdfast/cuda/README.md", "src/dtdfast/cuda/compile/README.md", "tests/README.md",
)  # fmt: skip
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
SECONDS = 120  # of a notebook, at most: a hang, and not a slow machine


def on_files(files: Files, config: Any) -> Files:
    for path in PAGES:
        files.append(File.generated(config, f"{ELSEWHERE}/{path}", content=(ROOT / path).read_text(encoding="utf-8")))
    notebooks = sorted((ROOT / "docs" / NOTEBOOKS).glob("*.ipynb"))
    with ThreadPoolExecutor(2) as pool:
        for path, (text, pictures) in zip(notebooks, pool.map(page_of, notebooks), strict=True):
            files.append(File.generated(config, f"{NOTEBOOKS}/{path.stem}.md", content=text))
            for name, content in pictures.items():
                files.append(File.generated(config, f"{NOTEBOOKS}/{name}", content=content))
    return files


def page_of(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, with what it printed, and its pictures."""
    book = nbformat.read(path, 4)
    missing = [name for name in book.metadata.get("needs", ()) if not (DATA / name).exists()]
    if not missing:
        executed(book)
    text, resources = MarkdownExporter().from_notebook_node(book, {"unique_key": path.stem, "output_files_dir": "."})
    text = text.replace("![png](", "![What the code above draws.](")
    above = f"[The notebook]({path.name}) of this page."
    if missing:
        above = f"{above} It was not run when this site was built, since it needs {' and '.join(missing)}."
    title, _, rest = text.strip().partition("\n")
    pictures = {posixpath.basename(name): content for name, content in resources["outputs"].items()}
    return f"{title}\n\n*{above}*\n{rest}\n", pictures


def executed(book: Any) -> None:
    """Run a notebook in place, in a folder that holds what it needs alone."""
    with tempfile.TemporaryDirectory() as folder:
        for name in book.metadata.get("needs", ()):
            (Path(folder) / name).symlink_to(DATA / name)
        client = NotebookClient(book, timeout=SECONDS, resources={"metadata": {"path": folder}})
        client.execute(env={**os.environ, "PYTHONPATH": str(Path(dtdfast.__file__).parents[1])})


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links as they are in the repository become those of the site; to a file that the site has not, its name."""
    here = page.file.src_uri
    folder = posixpath.dirname(
        here.removeprefix(f"{ELSEWHERE}/") if here.startswith(f"{ELSEWHERE}/") else f"docs/{here}"
    )

    def linked(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        path = posixpath.normpath(posixpath.join(folder, target))
        there = path.removeprefix("docs/") if path.startswith("docs/") else f"{ELSEWHERE}/{path}"
        if path == "README.md":
            there = "index.md"
        if files.get_file_from_path(there):
            return f"[{text}]({posixpath.relpath(there, posixpath.dirname(here) or '.')}{anchor})"
        inside = posixpath.normpath(posixpath.join(path, "README.md"))
        if files.get_file_from_path(f"{ELSEWHERE}/{inside}"):
            return f"[{text}]({posixpath.relpath(f'{ELSEWHERE}/{inside}', posixpath.dirname(here) or '.')}{anchor})"
        if (ROOT / path).exists():
            return f"{text} (`{path}` in the repository)"
        return found[0]  # mkdocs warns of it

    if here.startswith(ELSEWHERE):
        markdown = markdown.replace("][", "]\\[")  # sizes of arrays, and no links
    markdown = re.sub(r"^```python \w+$", "```python", markdown, flags=re.MULTILINE)  # the word is for the tests
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else LINK.sub(linked, part) for part in parts)
