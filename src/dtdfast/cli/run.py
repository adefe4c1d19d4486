"""`dtdfast explain MODEL DATA -o NAME.zarr`: a run over a data set on the command line."""

from __future__ import annotations

import argparse
from itertools import islice

from ..errors import InputError, RunError
from ..runs import Run, run
from ..runs.sources import open_source
from .feeding import Fed, fed_as_it_is, fed_pictures
from .outputs import numbered

TOLD = 5  # bad samples that are named in the end; the output holds all of them


def explain(arguments: argparse.Namespace) -> tuple[str, int]:
    """Run over the data set; returns what was done with the first bad samples, and whether there are bad ones, as for
    photographs.
    """
    if arguments.labels:
        raise InputError("--labels is for summary.json, which a run into NAME.zarr does not write; leave it out")
    if arguments.against is not None:
        raise InputError("--against is for pictures of photographs; a run into NAME.zarr explains one output each")
    arguments.target = numbered("--target", arguments.target, None)
    source = open_source(arguments.data, external=arguments.external)
    fed = fed_pictures(arguments) if source.pictures else fed_as_it_is(arguments, source.sample(None)[0])
    done = run(
        fed.layers, source, arguments.output, arguments.target, preparation=fed.preparation, resume=arguments.resume,
        strict=arguments.strict, dtype=arguments.dtype, sum_channels=arguments.sum_channels, ledger=arguments.ledger,
        chunk=arguments.chunk,
        workers=arguments.workers, scheduler=arguments.scheduler, progress=True, rules=arguments.rules,
        domain=fed.bounds,
        backend=arguments.backend, n_threads=arguments.threads,
    )  # fmt: skip
    return _told(done, fed, arguments.rules)


def _told(done: Run, fed: Fed, rules: str) -> tuple[str, int]:
    bad = list(done.errors())
    lines = [f"{name or f'sample {number}'}: {text}" for number, name, text in islice(bad, TOLD)]
    if len(bad) == done.samples:
        raise RunError(
            f"none of the {len(bad)} samples can be explained; the first: {lines[0]} (all under `error` in {done.path})"
        )
    if len(bad) > TOLD:
        lines.append(f"... and {len(bad) - TOLD} more, under `error` in the output")
    rate = f", {done.explained / done.seconds:.1f} per second" if done.explained else ""
    before = f", {done.samples - done.explained} of them before" if done.explained < done.samples else ""
    often = ", ".join(f"{target} ({count})" for target, count in done.often(3))
    lines.append(
        f"fed as {fed.preparation or 'they are'}; rules {rules}, domain {fed.domain_text}; explained most often: "
        f"output {often}"
    )
    return "\n".join([*lines, f"{done.samples} sample(s){before}{rate}, {len(bad)} bad: {done.path}"]), 1 if bad else 0
