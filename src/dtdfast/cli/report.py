"""`dtdfast report MODEL DATA -o PAGE.html`: explanations and their tests as one page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import readable, replaceable
from ..reports.report import SHOWN, Page
from ..reports.report import report as made
from ..runs.pictures import Files
from ..runs.sources import Source, open_source
from ..show import aligned
from .feeding import Fed, fed_as_it_is, fed_pictures
from .outputs import numbered
from .text import lines_in

PHOTOGRAPHS = 12  # on a page where nothing is said


def report(arguments: argparse.Namespace) -> tuple[str, int]:
    """Write the page; returns the verdicts, and whether some photographs were bad."""
    json = arguments.json
    if json is not None and not json.name:
        json = arguments.output.with_suffix(".json")
    if json == arguments.output:
        raise InputError(f"{json} is the page; give another name to --json")
    for path in (arguments.output, *([] if json is None else [json])):
        replaceable(path)  # before any work
        if not path.absolute().parent.is_dir():
            raise InputError(f"{readable(str(path))}: there is no folder {readable(str(path.absolute().parent))}")
    source = open_source(sorted(arguments.data))
    fed = fed_pictures(arguments) if source.pictures else fed_as_it_is(arguments, source.sample(None)[0])
    if arguments.names is not None and source.pictures:
        raise InputError("--names is for the columns of a table or the words of a text, and DATA are photographs")
    given, bad = _given(arguments, source, fed)
    page = _page(arguments, fed, given)
    page.save(arguments.output, json)
    rows = [(test["question"], test["state"], test["verdict"]) for test in page.data["tests"]]
    told = f"{len(given['x'])} sample(s), {len(bad)} bad: {arguments.output}{'' if json is None else f', {json}'}"
    return "\n".join([*(aligned(rows) if rows else []), *bad, told]), 1 if bad else 0


def _page(arguments: argparse.Namespace, fed: Fed, given: dict[str, Any]) -> Page:
    usual = min(PHOTOGRAPHS, len(given["x"])) if fed.preparation is not None else SHOWN
    target, against = (numbered(f"--{k}", getattr(arguments, k), arguments.labels) for k in ("target", "against"))
    return made(
        fed.layers, target=target, against=against, rules=arguments.rules,
        labels=None if arguments.labels is None else lines_in(arguments.labels), preparation=fed.preparation,
        shown=arguments.shown or usual, title=arguments.title or f"{arguments.model.name} explained",
        domain=fed.bounds, backend=arguments.backend, n_threads=arguments.threads, **given,
        **({} if arguments.tests is None else {"tests": arguments.tests}),
    )  # fmt: skip


def _given(arguments: argparse.Namespace, source: Source, fed: Fed) -> tuple[dict[str, Any], list[str]]:
    """The samples with their names, as `dtdfast.report` takes them, and one line for each that is bad."""
    n = min(len(source), arguments.samples)
    shape, dtype = source.sample(fed.preparation)
    x = np.zeros((n, *shape), dtype)
    errors = source.piece(0, n, fed.preparation).read(x)
    names = (
        [f"sample {k}" for k in range(n)] if source.names is None else [readable(str(name)) for name in source.names]
    )
    good = [k for k, error in enumerate(errors) if not error]
    bad = [f"{names[k]}: {error}" for k, error in enumerate(errors) if error]
    if not good:
        raise InputError(f"none of the {n} samples can be read; the first: {bad[0]}")
    found: dict[str, Any] = {"x": x[good], "names": [names[k] for k in good], "files": [arguments.model]}
    if isinstance(source, Files):
        paths = [source.folder / name for name in source.names or ()]
        found["files"] += [paths[k] for k in good]
        found["pictures"] = np.stack([fed.photographs.picture(paths[k]) for k in good])
    elif Path(arguments.data[0]).is_file():
        found["files"] += [Path(arguments.data[0])]
    if arguments.names is not None:
        found |= _named(lines_in(arguments.names), found["x"])
    return found, bad


def _named(lines: list[str], x: Any) -> dict[str, Any]:
    """The names of a table's columns, or the words that a text's numbers stand for."""
    if x.dtype.kind not in "iu":
        return {"features": lines}
    if not 0 <= x.min() <= x.max() < len(lines):
        raise InputError(f"--names has {len(lines)} lines, but the words' numbers go from {x.min()} to {x.max()}")
    return {"tokens": [[lines[i] for i in text] for text in x]}
