"""`dtdfast explain MODEL DATA -o NAME.zarr`: a run over a data set on the command line."""

from __future__ import annotations

import argparse
from itertools import islice

from .cli_model import is_onnx, of_pixels, prepared
from .errors import InputError
from .importers.onnx import OnnxModel
from .layers import Layer
from .runs import Run, run
from .runs.sources import Source, open_source
from .storage import load

TOLD = 5  # bad samples that are named in the end; the output holds all of them
OF_PICTURES = ("size", "mean", "std", "scale", "channels")


def explain(arguments: argparse.Namespace) -> str:
    """Run over the data set; returns what was done, and the first bad samples."""
    if arguments.labels:
        raise InputError("--labels is for summary.json, which a run into NAME.zarr does not write; leave it out")
    source = open_source(arguments.data)
    layers, preparation = prepared(arguments) if source.pictures else (_fed_as_it_is(arguments, source), None)
    domain = arguments.domain or ("real" if preparation is None else "pixels")
    if preparation is not None:
        domain = of_pixels(domain, preparation)
    elif isinstance(domain, str) and domain == "pixels":
        raise InputError("--domain pixels is for images; of an array of floats say real, nonnegative or LOW,HIGH")
    done = run(
        layers, source, arguments.output, arguments.target, preparation=preparation, resume=arguments.resume, strict=arguments.strict,
        dtype=arguments.dtype, sum_channels=arguments.sum_channels, ledger=arguments.ledger, chunk=arguments.chunk,
        workers=arguments.workers, scheduler=arguments.scheduler, progress=True, rules=arguments.rules, domain=domain,
        backend=arguments.backend, n_threads=arguments.threads,
    )  # fmt: skip
    return _told(done)


def _fed_as_it_is(arguments: argparse.Namespace, source: Source) -> list[Layer]:
    """The network for samples of an array."""
    if given := [key for key in OF_PICTURES if getattr(arguments, key) is not None]:
        raise InputError(f"--{given[0]} is for images; the samples of this array are fed to the network as they are")
    shape, _ = source.sample(None)
    return OnnxModel(arguments.model).layers(shape) if is_onnx(arguments.model) else load(arguments.model)


def _told(done: Run) -> str:
    bad = list(done.errors())
    rate = f", {done.explained / done.seconds:.1f} per second" if done.explained else ""
    before = f", {done.samples - done.explained} of them before" if done.explained < done.samples else ""
    lines = [f"{name or f'sample {number}'}: {text}" for number, name, text in islice(bad, TOLD)]
    if len(bad) > TOLD:
        lines.append(f"... and {len(bad) - TOLD} more, under `error` in the output")
    return "\n".join([*lines, f"{done.samples} sample(s){before}{rate}, {len(bad)} bad: {done.path}"])
