"""`dtdfast explain MODEL DATA -o NAME.zarr`: a run over a data set on the command line."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from itertools import islice
from typing import Any

from ..errors import InputError, RunError
from ..files import readable
from ..plan.shapes import Shape
from ..runs import Run, run
from ..runs.sources import open_source
from ..show import as_json
from ..version import __version__
from .feeding import Fed, fed_as_it_is, fed_pictures
from .outputs import check_outputs, numbered_all, output_told
from .text import lines_in

TOLD = 5  # bad samples that are named in the end; the output holds all of them
OFTEN = 3  # outputs that are named
DISPLAY = ("smooth", "percentile", "colormap")


def explain(arguments: argparse.Namespace) -> tuple[str, int]:
    """Run over the data set; returns what was done with the first bad samples, or all of it as JSON, and whether there
    are bad ones, as for photographs.
    """
    target, labels = _asked(arguments)
    source = open_source(sorted(arguments.data), external=arguments.external)
    pictures, shape = source.pictures, (() if source.pictures else source.sample(None)[0])
    fed = fed_pictures(arguments) if pictures else fed_as_it_is(arguments, shape)
    (rules,) = arguments.rules
    if target is not None or labels is not None:
        _check(arguments, fed, fed.photographs.shape if pictures else shape, rules, target, labels)
    done = run(
        fed.layers, source, arguments.output, target, preparation=fed.preparation, resume=arguments.resume,
        strict=arguments.strict, dtype=arguments.dtype, sum_channels=arguments.sum_channels,
        ledger=bool(arguments.ledger), chunk=arguments.chunk, workers=arguments.workers,
        scheduler=arguments.scheduler, progress=True, rules=rules, domain=fed.bounds, backend=arguments.backend,
        n_threads=arguments.threads,
    )  # fmt: skip
    bad = list(done.errors())
    if len(bad) == done.samples:
        raise RunError(
            f"none of the {len(bad)} samples can be explained; the first: {_told(*bad[0])} (all under `error` in "
            f"{done.path})"
        )
    summary = _summary(arguments, done, fed, bad, labels)
    return as_json(summary) if arguments.json else _text(summary, done, fed, bad), 1 if bad else 0


def _asked(arguments: argparse.Namespace) -> tuple[int | None, list[str] | None]:
    """The output that is explained, and the outputs' names; options for photographs are refused."""
    where = "a run into NAME.zarr"
    if arguments.against is not None:
        raise InputError(f"--against is for pictures of photographs; {where} explains one output each")
    if len(arguments.rules) > 1:
        raise InputError(
            f"--rules {','.join(arguments.rules)}: {where} stores the maps of one rule; start one for each"
        )
    if arguments.top is not None:
        raise InputError(f"--top is for pictures of photographs; {where} explains one output each")
    if given := [key for key in DISPLAY if getattr(arguments, key) is not None]:
        raise InputError(f"--{given[0]} is for pictures; {where} stores numbers, and `dtdfast browse` shows them")
    targets = numbered_all("--target", arguments.target, arguments.labels)
    if len(targets) > 1:
        raise InputError(f"--target names {len(targets)} outputs; {where} explains one output each: start one for each")
    labels = None if arguments.labels is None else lines_in(arguments.labels)
    return (targets[0] if targets else None), labels


def _check(
    arguments: argparse.Namespace, fed: Fed, shape: Shape, rules: str, target: int | None, labels: list[str] | None
) -> None:
    """Compare them with the outputs that the network has."""
    out = fed.explainer(arguments, rules).plan_for((1, *shape)).program.network.output.shape
    check_outputs({"--target": target} if len(out) == 1 else {}, labels, out[0])


def _summary(
    arguments: argparse.Namespace, done: Run, fed: Fed, bad: list[tuple[int, str, str]], labels: list[str] | None
) -> dict[str, Any]:
    def called(target: Any) -> str | None:
        return labels[target] if labels is not None and isinstance(target, int) else None

    return {
        "dtdfast": __version__,
        "model": readable(str(arguments.model)),
        "rules": ",".join(arguments.rules),
        "domain": fed.domain,
        "preparation": None if fed.preparation is None else asdict(fed.preparation),
        "output": readable(str(done.path)),
        "samples": done.samples,
        "explained": done.explained,
        "seconds": done.seconds,
        "often": [{"target": t, "label": called(t), "count": count} for t, count in done.often(OFTEN)],
        "bad": [{"sample": number, "name": name or None, "error": text} for number, name, text in bad],
    }


def _told(number: int, name: str, text: str) -> str:
    return f"{name or f'sample {number}'}: {text}"


def _text(summary: dict[str, Any], done: Run, fed: Fed, bad: list[tuple[int, str, str]]) -> str:
    lines = [_told(*of) for of in islice(bad, TOLD)]
    if len(bad) > TOLD:
        lines.append(f"... and {len(bad) - TOLD} more, under `error` in the output")
    rate = f", {done.explained / done.seconds:.1f} per second" if done.explained else ""
    before = f", {done.samples - done.explained} of them before" if done.explained < done.samples else ""
    often = ", ".join(f"{output_told(of)} ({of['count']})" for of in summary["often"])
    lines.append(
        f"fed as {fed.preparation or 'they are'}; rules {summary['rules']}, domain {fed.domain_text}; explained most "
        f"often: output {often}"
    )
    return "\n".join([*lines, f"{done.samples} sample(s){before}{rate}, {len(bad)} bad: {done.path}"])
