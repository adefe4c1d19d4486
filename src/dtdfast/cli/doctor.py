"""`dtdfast doctor`: what is usable on this machine, and why not."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from typing import Any

from ..backends import backends
from ..config import build_config
from ..show import aligned, as_json

TOOLS = ("bench", "cuda-test", "lint", "peers", "test")  # extras for working on dtdfast itself


def doctor(arguments: argparse.Namespace) -> str:
    """One row for each thing that may or may not be there, or the same as JSON."""
    build, known, extras = build_config(), list(backends().values()), None
    with contextlib.suppress(metadata.PackageNotFoundError):
        extras = list(_extras(metadata.requires("dtdfast") or []))
    if arguments.json:
        return as_json({"build": build, "backends": [asdict(b) for b in known], "extras": extras})
    rows = [(key, str(value)) for key, value in build.items()]
    rows += [(f"backend {b.name}", ("usable: " if b.usable else "not usable: ") + b.reason) for b in known]
    if extras is None:
        rows.append(("extras", "unknown: dtdfast runs from its source tree and is not installed"))
    for e in extras or ():
        told = e["version"] or f"is missing: pip install 'dtdfast[{e['extra']}]'"
        rows.append((f"extra {e['extra']}", f"{e['package']} {told}"))
    return "\n".join(aligned(rows))


def _extras(requirements: list[str]) -> Iterator[dict[str, Any]]:
    """Each package that an extra brings, from the installed metadata, so that this list is never out of date."""
    for requirement in requirements:
        found = re.match(r"""([\w.-]+).*;.*extra\s*==\s*["']([\w-]+)["']""", requirement)
        if found is None or found[1] == "dtdfast" or found[2] in TOOLS:
            continue
        try:
            version = metadata.version(found[1])
        except metadata.PackageNotFoundError:
            version = None
        yield {"extra": found[2], "package": found[1], "version": version}
