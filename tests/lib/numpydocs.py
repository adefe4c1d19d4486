"""Docstrings as tools read them: numpydoc's sections, and what a callable's signature and code ask of them."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

SECTIONS = (
    "Parameters",
    "Attributes",
    "Returns",
    "Raises",
    "See Also",
    "Notes",
    "References",
    "Examples",
)  # in numpydoc's order
PUBLIC = {  # modules without an __all__ of their own
    "dtdfast.baselines": ("gradient", "input_x_gradient", "sensitivity", "simple_taylor"),
    "dtdfast.compat.captum": ("LRP", "LayerLRP"),
    "dtdfast.compat.zennit": ("Gradient",),
    "dtdfast.compat.quantus": ("explain",),
    "dtdfast.compat.innvestigate": ("Analyzer", "create_analyzer", "model_wo_softmax"),
}


class Section(NamedTuple):
    """A heading and the lines below it."""

    name: str
    lines: list[str]

    @property
    def items(self) -> dict[str, str]:
        """Per name of "name, other : type", what follows on the lines below; a name without text has ""."""
        found: dict[str, str] = {}
        names: list[str] = []
        for line in self.lines:
            if line and not line.startswith(" "):
                names = [n.strip() for n in line.split(" : ")[0].split(",")]
                found.update(dict.fromkeys(names, ""))
            for name in names if line.startswith(" ") else ():
                found[name] += line.strip() + " "
        return found


def sections(text: str) -> list[Section]:
    """A docstring's sections, the one without a heading first (named "")."""
    lines = inspect.cleandoc(text).splitlines()
    found = [Section("", [])]
    skip = False
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if re.fullmatch(r"-{3,}", below) and line and not line.startswith(" "):
            found.append(Section(line, []))
            skip = True
        elif skip:
            skip = False
        else:
            found[-1].lines.append(line)
    return found


def public() -> Iterator[tuple[str, Any]]:
    """Every public function, class and method, by its dotted name."""
    importlib.import_module("dtdfast.compat.captum")
    modules = {
        name: importlib.import_module(name)
        for name in ("dtdfast", "dtdfast.diagnostics", "dtdfast.evaluation", "dtdfast.plot", *PUBLIC)
    }
    for name, module in modules.items():
        for key in PUBLIC.get(name) or module.__all__:
            value = getattr(module, key)
            if inspect.isfunction(value):
                yield f"{name}.{key}", value
            elif inspect.isclass(value) and not issubclass(value, Exception):
                yield f"{name}.{key}", value
                yield from ((f"{name}.{key}.{method}", of) for method, of in _methods(value))


def _methods(cls: type) -> Iterator[tuple[str, Any]]:
    for name, value in inspect.getmembers_static(cls):
        plain = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        if (not name.startswith("_") or name == "__call__") and (
            inspect.isfunction(plain) or isinstance(plain, property)
        ):
            home = next(base for base in cls.__mro__ if name in vars(base))
            if home.__module__.startswith("dtdfast"):
                yield name, plain


def documentation(of: Any) -> str:
    return inspect.getdoc(of) or ""


def arguments(of: Any) -> dict[str, inspect.Parameter]:
    """What a caller may give, named as numpydoc names it."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    given = inspect.signature(of).parameters.values()
    return {stars.get(p.kind, "") + p.name: p for p in given if p.name not in ("self", "cls")}


def raises(of: Any) -> bool:
    """Whether its own code raises something; of a class, what makes an object of it does."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(of)))).body
    making = ("__init__", "__post_init__", "_check")
    parts = (
        [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in making]
        if isinstance(tree, ast.ClassDef)
        else [tree]
    )
    return any(isinstance(node, ast.Raise) for part in parts for node in ast.walk(part))


def returns(of: Callable[..., Any]) -> bool:
    return inspect.signature(of).return_annotation not in (None, "None", "NoReturn")
