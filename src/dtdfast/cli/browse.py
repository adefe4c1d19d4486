"""`dtdfast browse NAME.zarr`: a contact sheet of a run."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import readable, replaceable
from ..images import Preparation
from ..reports.report import LARGEST, Page
from ..reports.sheet import Picture, gathered, percent, sheet
from ..runs.arrays import Samples
from ..runs.overview import Overview
from ..runs.pictures import Files
from ..runs.sources import open_source
from ..show import as_json
from .drawing import style_of
from .outputs import check_outputs
from .text import lines_in


def browse(arguments: argparse.Namespace) -> str:
    """Write the page; returns what it says in brief, or all of it as JSON."""
    style = style_of(arguments)
    run, out = arguments.run_path, arguments.output
    if out is None:
        out = run.with_suffix(".html") if run.suffix.lower() == ".zarr" else run.with_name(f"{run.name}.html")
    replaceable(out)  # before any work
    if not out.absolute().parent.is_dir():
        raise InputError(f"{readable(str(out))}: there is no folder {readable(str(out.absolute().parent))}")
    labels = None if arguments.labels is None else lines_in(arguments.labels)
    overview = Overview.of(run)
    check_outputs({}, labels, overview.stored.array("outputs").shape[1])
    picture = None if arguments.data is None else _pictures(arguments.data, overview)
    data = gathered(overview, labels, arguments.shown)
    html = sheet(data, overview, style, picture)
    if (size := len(html.encode("utf-8", "backslashreplace"))) > LARGEST:
        fewer = int(0.8 * LARGEST / size * min(arguments.shown, data["finished"]))
        raise InputError(f"the page would hold {size / 1e6:.1f} MB; show fewer samples: --shown {max(fewer, 1)}")
    Page(html, data).save(out)
    if arguments.json:
        return as_json(data)
    accounts = {None: "not followed", 0: "all close"}.get(data["accounts_open"], f"{data['accounts_open']} STAY OPEN")
    return (
        f"{data['finished']} of {data['samples']} sample(s), {data['bad']} bad; accounts: {accounts}; largest share "
        f"absorbed {percent(data['absorbed']['largest'])}: {out}"
    )


def _pictures(given: list[str], overview: Overview) -> Picture:
    """The images of the run, by the numbers of its samples.

    Raises
    ------
    InputError : they are not those that were explained
    """
    manifest = overview.stored.manifest
    fed: dict[str, Any] | None = manifest.get("preparation")
    if fed is None:
        raise InputError("--data is for runs over images; this one was over an array of numbers, which has no pictures")
    settings: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in fed.items()}
    try:
        preparation = Preparation(**settings)
    except TypeError as error:  # not as a run was begun
        raise overview.stored.damaged("its manifest", str(error)) from None
    source = open_source(sorted(given))
    identity, begun = source.identity(), manifest.get("data")
    if not isinstance(begun, dict) or any(identity.get(key) != value for key, value in begun.items()):
        raise InputError(f"--data {readable(given[0])} is not what the run explained; give DATA as it was given there")
    if isinstance(source, Files):
        folder, names = source.folder, source.names or ()
        return lambda number: preparation.picture(folder / names[number])
    assert isinstance(source, Samples)
    location, shape = source.location, source.shape[1:] if source.shape[-1] == 3 else source.shape[1:3]

    def at(number: int) -> Any:
        with location.open() as array:
            return np.asarray(array[number]).reshape(shape)

    return at
