"""The command line: what it takes; what it does stands in demo.py, doctor.py, cli_model.py and cli_run.py."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .errors import DtdError
from .presets import PRESETS
from .version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0, 2 after an error told in one line, or 130 after Ctrl-C."""
    arguments = _parser().parse_args(argv)
    try:
        print(arguments.run(arguments))
    except (DtdError, OSError) as error:
        print(f"dtdfast: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dtdfast: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dtdfast", description="Deep Taylor Decomposition: which inputs made a network decide so.")
    parser.add_argument("--version", action="version", version=f"dtdfast {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    _demo(commands.add_parser("demo", help="explain handwritten digits with a small trained network; writes a picture"))
    _explain(commands.add_parser("explain", help="explain photographs, or a whole data set", description=EXPLAIN))
    _inspect(commands.add_parser("inspect", help="a model's layers, and what of it would be refused"))
    _plan(commands.add_parser("plan", help="every step of one explanation, with rules, sizes and memory"))
    commands.add_parser("doctor", help="what is usable on this machine, and why not").set_defaults(run=lambda _: _of("doctor", "doctor")())
    return parser


EXPLAIN = """With -o DIR: heatmaps and overlays of photographs, and summary.json. With -o NAME.zarr: a run over a data set, which
may be interrupted and continued, into a Zarr group. Every photograph is cropped to its centre, resized, and fed as
x = (scale·p − mean)/std with pixels p from 0 to 1. Without any of --mean, --std and --scale, ImageNet's mean and standard deviation
are taken for colours; with one of them, 0, 1 and 1 for the others."""


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("dtdfast-demo.png"), metavar="PATH", help="where the picture goes (%(default)s)"
    )
    parser.set_defaults(run=lambda arguments: _of("demo", "demo")(arguments.output))


def _explain(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _model(parser)
    add("data", nargs="+", metavar="DATA", help="images; with -o NAME.zarr also a folder or glob of them, a .npy, Zarr or HDF5 array")
    add("-o", "--output", type=Path, required=True, metavar="OUT", help="a folder for pictures and summary.json, or NAME.zarr")
    add("--size", type=_size, metavar="N|HxW", help="of the network's input (as the file declares, else 224)")
    add("--crop", type=float, default=0.875, metavar="SHARE", help="share of the centre that is kept (%(default)s)")
    add("--mean", type=_numbers, metavar="M,...", help="one, or one per channel in the network's order")
    add("--std", type=_numbers, metavar="S,...", help="one, or one per channel in the network's order")
    add("--scale", type=float, metavar="A", help="what a white pixel is before the mean is subtracted, for example 255")
    add("--channels", choices=("rgb", "bgr", "gray"), help="the network's order (rgb; gray if it takes one channel)")
    add("--layout", choices=("nchw", "nhwc"), default="nchw", help="of the network's input (%(default)s)")
    add("--labels", type=Path, metavar="FILE", help="names of the outputs, one per line")
    add("--target", type=int, metavar="I", help="the output to explain (the largest)")
    add("--domain", type=_domain, metavar="D", help="pixels, real, nonnegative or LOW,HIGH (pixels; real for arrays of floats)")
    _rules(parser)
    add("--backend", default="auto", metavar="B", help="auto, cpu, cuda or oracle (%(default)s)")
    add("--threads", type=int, metavar="N", help="threads (all cores)")
    _data_set(parser.add_argument_group("with -o NAME.zarr"))
    parser.set_defaults(run=lambda arguments: _of("cli_run" if _is_run(arguments) else "cli_model", "explain")(arguments))


def _is_run(arguments: argparse.Namespace) -> bool:
    return bool(arguments.output.suffix == ".zarr")


def _data_set(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--resume", action="store_true", help="continue an interrupted run, or begin")
    add("--strict", action="store_true", help="stop at a bad sample (it becomes NaN, with its error)")
    add("--dtype", choices=("float32", "float16"), default="float32", help="of the stored relevance (%(default)s)")
    add("--sum-channels", action="store_true", help="store the sum over channels")
    add("--ledger", action="store_true", help="follow every cause of absorption, which costs many times the explanation")
    add("--chunk", type=int, metavar="N", help="samples stored and finished at once (16 MiB of them)")
    add("--workers", type=int, metavar="N", help="processes of a Dask cluster on this machine")
    add("--scheduler", metavar="ADDRESS", help="of a running Dask scheduler, such as tcp://host:8786")


def _inspect(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    _shape(parser)
    parser.set_defaults(run=lambda arguments: _of("cli_model", "inspect")(arguments))


def _plan(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    _shape(parser)
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="samples (%(default)s)")
    _rules(parser)
    parser.set_defaults(run=lambda arguments: _of("cli_model", "plan")(arguments))


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="an .onnx file, or a .safetensors file written by dtdfast.save")


def _shape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shape", type=_integers, metavar="C,H,W", help="of one sample (as the file declares)")


def _rules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rules", choices=tuple(PRESETS), default="dtd", metavar="PRESET", help=f"{', '.join(PRESETS)} (%(default)s)")


def _of(module: str, function: str) -> Callable[..., str]:
    """A command's function, imported when the command is run."""
    found: Callable[..., str] = getattr(importlib.import_module(f"{__package__}.{module}"), function)
    return found


# --------------------------------------------------------------------------------------------------------- types of options


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


def _integers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width or height)


def _domain(text: str) -> Any:
    if text in ("pixels", "real", "nonnegative"):
        return text
    low, high = map(float, text.split(","))
    return low, high
