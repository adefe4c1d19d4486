"""The code on the pages of docs runs as it stands (PyTorch, Keras: pytorch/test_pages.py); docstrings are numpydoc."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import onnx
import pytest

import dtdfast as dtd
import numpydocs
import onnx_models
from support import run_page


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_sklearn_page() -> None:
    assert run_page("sklearn.md")["features"].shape == (5, 64)


def test_onnx_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    body = "h = Conv<strides=[8,8]>(x, w) r = Relu(h) f = Flatten(r) y = Gemm<transB=1>(f, v)"
    onnx.save(
        onnx_models.model(body, "float[4,3,8,8] w, float[10,64] v", "float[N,3,32,32] x"), tmp_path / "model.onnx"
    )
    assert run_page("onnx.md")["relevance"].shape == (2, 3, 32, 32)
    assert "node 0 (Exp): this operator has no record" in capsys.readouterr().out


def test_transformers_page() -> None:
    names = run_page("transformers.md")
    held, taylor, by_sign = names["shares"].values()
    assert set(held) == set(by_sign) == {"constant"}
    assert set(taylor) == {"constant", "softmax"}


RULES = {
    "–": None, "LRP-0": dtd.Zero(), "ε": dtd.Epsilon(), "z⁺": dtd.ZPlus(), "z⁺ by the sign of y": dtd.ZPlusBySign(),
    "α2β1": dtd.AlphaBeta(2.0, 1.0), "γ = 0.25": dtd.Gamma(0.25), "flat": dtd.Flat(), "zB": dtd.ZBox(),
}  # fmt: skip


def test_the_presets_are_those_of_the_readme() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r'^\| (`".+) \| (.+) \| (.+) \| (.+) \|$', text, re.MULTILINE)
    named = [(name, *row) for row in rows for name in re.findall(r'`"([\w.-]+)"`', row[0])]
    assert {name for name, *_ in named} == set(dtd.PRESETS)
    for name, names, linear, conv, first in named:
        preset, place = dtd.PRESETS[name], names.split(", ").index(f'`"{name}"`')
        assert (preset.linear, preset.conv) == (RULES[linear.partition(";")[0]], RULES[conv])
        firsts = first.partition(";")[0].split(", ")
        assert name == "dtd" or preset.first == RULES[firsts[min(place, len(firsts) - 1)]]
        assert preset.clip_start == ("clipped" in first)


# ----------------------------------------------------------------------------------------------------------- docstrings


PUBLIC = dict(numpydocs.public())


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring(name: str) -> None:
    """Every parameter of the signature with a type and a text, what is returned, what is raised: as tools read it."""
    of = PUBLIC[name]
    summary, *found = numpydocs.sections(numpydocs.documentation(of))
    names = [section.name for section in found]
    assert summary.lines
    assert summary.lines[0].endswith((".", "…")), summary.lines[0]
    assert len(summary.lines) == 1 or summary.lines[1] == "", "a blank line follows the summary"
    assert names == [s for s in numpydocs.SECTIONS if s in names], "sections are numpydoc's, in its order, each once"
    if isinstance(of, property):
        return
    by_name = {section.name: section for section in found}
    described = by_name.get("Parameters") or by_name.get("Attributes")
    items = described.items if described else {}
    assert list(items) == list(numpydocs.arguments(of))
    assert all(items.values()), f"without a text: {[k for k, v in items.items() if not v]}"
    for key in ("Returns", "Raises"):
        assert key not in by_name or all(by_name[key].items.values()), f"{key} has an item without a text"
    if inspect.isfunction(of):
        assert ("Returns" in by_name) == numpydocs.returns(of)
    assert "Raises" in by_name or not numpydocs.raises(of), "it raises, and does not say what"


def test_what_is_raised_exists() -> None:
    for name, of in PUBLIC.items():
        raised = [s for s in numpydocs.sections(numpydocs.documentation(of)) if s.name == "Raises"]
        for error in (e for section in raised for e in section.items):
            assert hasattr(dtd, error) or error in ("TypeError", "NotImplementedError"), f"{name} raises {error}"


def test_options_say_the_same_wherever_they_stand() -> None:
    """`explain` documents all that `Explainer` and `Explainer.explain` do, in the same words."""

    def parameters(of: Any) -> dict[str, str]:
        return next(s.items for s in numpydocs.sections(numpydocs.documentation(of)) if s.name == "Parameters")

    whole = parameters(dtd.explain)
    for key, text in (parameters(dtd.Explainer) | parameters(dtd.Explainer.explain)).items():
        assert key in ("kind", "layers") or whole[key] == text  # an Explainer takes no model: it does not know x yet


def test_references_are_used() -> None:
    for name, of in PUBLIC.items():
        text = numpydocs.documentation(of)
        assert set(re.findall(r"\[(\d)\]_", text)) == set(re.findall(r"^\.\. \[(\d)\]", text, re.MULTILINE)), name


def test_nothing_is_markup_by_chance() -> None:
    """reStructuredText reads *x and |x| as markup, unless they are ``literals``."""
    for name, of in PUBLIC.items():
        lines = [
            line for line in numpydocs.documentation(of).splitlines() if not re.match(r"\s*(>>>|\.\.\.|\*\*\w+$)", line)
        ]
        text = re.sub(r"``.*?``|\".*?\"", "", " ".join(lines))
        assert not re.findall(r"(?<!\S)\*\w+|(?<!\w)\|\w+\|", text), name


def test_a_gap_is_noticed() -> None:
    def made(given: int, other: Any = None) -> int:
        """Do something.

        Parameters
        ----------
        given : int
            A number.
        """
        raise ValueError

    (_, parameters) = numpydocs.sections(inspect.getdoc(made) or "")
    assert list(parameters.items) != list(numpydocs.arguments(made))
    assert numpydocs.returns(made)
    assert numpydocs.raises(made)


# ------------------------------------------------------------------------------------------------------------- linters


def test_pre_commit_runs_the_linters_of_the_extra_lint() -> None:
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (root / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    found = re.findall(r"(ruff|clang-format)(?:-pre-commit)?\n +rev: v([\d.]+)", text)
    found += re.findall(r"(mypy)==([\d.]+)", text)
    pinned = [package.split("==") for package in project["optional-dependencies"]["lint"] if "==" in package]
    assert dict(found) == dict(pinned)
