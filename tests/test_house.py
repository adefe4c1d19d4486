"""How src/dtdfast hangs together: no module imports itself by way of others, every file says what it holds, options are
spelled once.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import dtdfast as dtd
from dtdfast import calls, explainer
from dtdfast.options import Options

PACKAGE = Path(dtd.__file__).parent


def name_of(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _name(node: ast.AST) -> str:
    """Of a name or an attribute, its last part."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those that only a type checker reads."""
    if isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING":
        for other in node.orelse:
            yield from statements(other)
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from statements(child)


def imported(path: Path, root: Path, modules: set[str]) -> set[str]:
    """The modules that this one imports at any time, within functions and by importlib too."""
    name, found = name_of(path, root), set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            inside = {f"{module}.{alias.name}" for alias in node.names}
            found |= (inside & modules) or {module}
        elif isinstance(node, ast.Call) and _name(node.func) == "import_module" and node.args:
            first = node.args[0]
            found |= {first.value} if isinstance(first, ast.Constant) else set()
    return (found & modules) - {name}


def circles(package: Path) -> list[list[str]]:
    """Sets of modules of which each imports each other one, if only by way of others."""
    root = package.parent
    paths = {name_of(path, root): path for path in package.rglob("*.py")}
    direct = {name: imported(path, root, set(paths)) for name, path in paths.items()}

    def reached(name: str) -> set[str]:
        found, waiting = set(), [name]
        while waiting:
            for other in direct[waiting.pop()] - found:
                found.add(other)
                waiting.append(other)
        return found

    reach = {name: reached(name) for name in direct}
    sets = {frozenset(m for m in reach if name in reach[m] and m in reach[name]) for name in reach}
    return sorted(sorted(s) for s in sets if s)


def test_no_circles_of_imports() -> None:
    assert circles(PACKAGE) == []


def test_a_circle_is_found(tmp_path: Path) -> None:
    package = tmp_path / "p"
    (package / "room").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "room/__init__.py").write_text("")
    (package / "a.py").write_text("def f():\n    from .room import b\n")
    (package / "room/b.py").write_text("from ..c import x\n")
    (package / "c.py").write_text("import importlib\nimportlib.import_module('p.a')\n")
    (package / "d.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import f\nimport p.a\n"
    )
    (package / "a.py").write_text(
        (package / "a.py").read_text() + "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .d import g\n"
    )
    assert circles(package) == [["p.a", "p.c", "p.room.b"]]


def test_the_first_line_says_what_a_file_holds() -> None:
    texts = {path.relative_to(PACKAGE): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    assert [str(path) for path, text in texts.items() if text and not text.startswith('"""')] == []


# ------------------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize("function", [dtd.explain, dtd.Explainer])
def test_signatures_have_the_options_and_their_defaults(function: Any) -> None:
    """help() shows every option, as `Options` has it."""
    shown = {p.name: p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    expected = {field.name: field for field in fields(Options)}
    if function is dtd.explain:
        del expected["kind"]
    assert [name for name in shown if name in expected] == list(expected)
    assert set(shown) - set(expected) <= {"against", "return_outputs", "return_ledger", "out", "progress"}
    for name, field in expected.items():
        assert shown[name].default is field.default or shown[name].default == field.default
        assert shown[name].annotation == field.type


@pytest.mark.parametrize("function", [dtd.explain, dtd.Explainer])
def test_every_option_arrives_at_its_place(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Arrived(Exception):
        pass

    def stop(*given: Any, **named: Any) -> None:
        raise Arrived(vars(Options(*given, **named)))

    monkeypatch.setattr(calls, "Options", stop)
    monkeypatch.setattr(explainer, "Options", stop)
    names = [field.name for field in fields(Options) if field.name in inspect.signature(function).parameters]
    given = {name: f"the {name}" for name in names}
    with pytest.raises(Arrived) as caught:
        function([], *([None] if function is dtd.explain else []), **given)
    assert {name: caught.value.args[0][name] for name in names} == given


def test_predict_and_explain_share_an_explainer() -> None:
    dtd.clear_cache()
    layers = [dtd.Linear([[1.0, 2.0]])]
    dtd.explain(layers, [[1.0, 1.0]], backend="cpu")
    dtd.predict(layers, [[1.0, 1.0]], backend="cpu")
    assert len(calls.CACHE._kept) == 1
