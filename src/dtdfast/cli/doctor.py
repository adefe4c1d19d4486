"""`dtdfast doctor`: what is usable on this machine, and why not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata

from ..backends import backends
from ..config import build_config

TOOLS = ("bench", "cuda-test", "lint", "peers", "test")  # extras for working on dtdfast itself


def doctor() -> str:
    """One row for each thing that may or may not be there."""
    rows = [
        *((key, str(value)) for key, value in build_config().items()),
        *((f"backend {b.name}", ("usable: " if b.usable else "not usable: ") + b.reason) for b in backends().values()),
        *_extras(),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {text}" for name, text in rows)


def _extras() -> Iterator[tuple[str, str]]:
    """Each package that an extra brings, from the installed metadata, so that this list is never out of date."""
    try:
        requirements = metadata.requires("dtdfast") or ()
    except metadata.PackageNotFoundError:
        yield "extras", "unknown: dtdfast runs from its source tree and is not installed"
        return
    for requirement in requirements:
        found = re.match(r"""([\w.-]+).*;.*extra\s*==\s*["']([\w-]+)["']""", requirement)
        if found is None or found[1] == "dtdfast" or found[2] in TOOLS:
            continue
        package, extra = found.groups()
        try:
            yield f"extra {extra}", f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            yield f"extra {extra}", f"{package} is missing: pip install 'dtdfast[{extra}]'"
