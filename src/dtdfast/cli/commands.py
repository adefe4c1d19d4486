"""The command line: what it takes; each command has a file of its own."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from ..errors import DtdError, InputError
from ..images import Preparation
from ..presets import PRESETS
from ..verdicts import TABLE as TESTS
from ..version import __version__
from . import types

NEGATIVE = re.compile(r"-(\d|\.\d|inf|nan)")  # how a negative number begins


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    int
        0; 1 if some photographs could not be explained; 2 after an error, told in one line; 130 after Ctrl-C; 141 if
        nobody reads the output. 1 as well after a defect of dtdfast itself, whose traceback PYTHONDEVMODE=1 shows.
    """
    _occupy()
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")  # of other packages; what matters is an error, or in the output
            text, code = _run(_joined(sys.argv[1:] if argv is None else list(argv)))
        _say(text, sys.stdout)
    except BrokenPipeError:
        _give_up(sys.stdout)
        return 141
    except KeyboardInterrupt as stopped:
        return _failed("; ".join(["interrupted", *map(str, stopped.args)]), 130)
    except (DtdError, OSError) as error:
        return _failed(str(error), 2)
    except MemoryError:
        return _failed("the memory did not suffice; DTDFAST_MEMORY=4G, for example, sets what may be used", 2)
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        return _failed(f"a defect of dtdfast, please report it ({type(error).__name__}: {error})", 1)
    return code


def _occupy() -> None:
    """Let standard streams that the caller closed lead nowhere: the next file would have their number, and what others
    print would go into it.
    """
    with contextlib.suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) < 3:
            pass
        os.close(number)


def _run(argv: list[str]) -> tuple[str, int]:
    arguments = _parser().parse_args(argv)
    done = arguments.run(arguments)
    return done if isinstance(done, tuple) else (done, 0)


def _joined(argv: list[str]) -> list[str]:
    """With "--mean -1,-1,-1" as "--mean=-1,-1,-1", since argparse takes a word that begins with a minus sign for an
    option.
    """
    joined: list[str] = []
    for number, word in enumerate(argv):
        if word == "--":
            return [*joined, *argv[number:]]
        option = joined[-1] if joined else ""
        if NEGATIVE.match(word) and option.startswith("--") and "=" not in option:
            joined[-1] = f"{option}={word}"
        else:
            joined.append(word)
    return joined


def _failed(text: str, code: int) -> int:
    try:
        _say(f"dtdfast: {' '.join(text.split())}", sys.stderr)
    except OSError:
        _give_up(sys.stderr)
    if code != 2 or sys.stdout is None:
        return code
    try:
        sys.stdout.flush()
    except OSError:
        _give_up(sys.stdout)
    return code


def _say(text: str, stream: TextIO | None) -> None:
    """Print, whatever characters the stream knows; at once, so that a full disk is noticed."""
    if stream is None:
        return
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()


def _give_up(stream: TextIO) -> None:
    """Let the interpreter write what is left into nothing, so that it does not complain at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Parser(argparse.ArgumentParser):
    """Tells a wrong value like every other error, in one line; what is missing or unknown, with the usage; in
    characters that the stream knows.
    """

    def error(self, message: str) -> NoReturn:
        if message.startswith("argument -"):
            raise InputError(message.removeprefix("argument "))
        super().error(message)

    def _print_message(self, message: str, file: Any = None) -> None:
        _say(message.removesuffix("\n"), file)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="dtdfast", description="Deep Taylor Decomposition: which inputs made a network decide so.")
    parser.add_argument("--version", action="version", version=f"dtdfast {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    for name, options, told, more in (
        ("demo", _demo, "explain small trained networks that ship with dtdfast; writes two pictures", ""),
        ("explain", _explain, "explain photographs, or a whole data set", EXPLAIN),
        ("browse", _browse, "a contact sheet of a run over a data set, as HTML", BROWSE),
        ("report", _report, "explanations and their tests as one page of HTML", REPORT),
        ("inspect", _inspect, "a model's layers, and what of it would be refused", ""),
        ("plan", _plan, "every step of one explanation, with rules, sizes and memory", ""),
        ("doctor", _doctor, "what is usable on this machine, and why not", ""),
    ):
        options(commands.add_parser(name, help=told, description=more or f"{told[0].upper()}{told[1:]}."))
    return parser


EXPLAIN = """With -o DIR: heatmaps and overlays of photographs, and summary.json. With -o NAME.zarr: a run over a data
set, which may be interrupted and continued, into a Zarr group; `dtdfast browse` shows it. A photograph or sample that
cannot be explained is told and does not stop the others: the exit status is 1 if there are such, 2 if all are, or if
nothing was done."""


BROWSE = """One page of HTML that needs no other file and no network: of a run into NAME.zarr, the samples of which most
was absorbed, those with the highest scores, and those that could not be explained. The run may still be going on."""


REPORT = """One page of HTML that needs no other file and no network: of each sample its input, map, largest outputs,
contrast with the runner-up, several rules side by side, and where its relevance went; then what the tests of
docs/trust.md say of these maps, with hashes, versions and options. DATA are photographs, fed as `explain` feeds them,
or an array of a table's rows or of word numbers."""


FED = """A photograph is cropped to its centre, resized, and fed as x = (scale·p − mean)/std with pixels p from 0 to 1.
Without any of --mean, --std and --scale, ImageNet's mean and standard deviation are taken for colours; with one of
them, 0, 1 and 1 for the others."""


DISPLAY = "Display only: they change no number that is stored or printed."

OF_DATA = "%(prog)s MODEL DATA ... -o OUT [options]"


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        type=types.path,
        default=Path("dtdfast-demo.png"),
        metavar="PATH",
        help="the picture of the digits; that of the photograph goes beside it (%(default)s)",
    )
    parser.set_defaults(run=lambda arguments: _of("demo", "demo")(arguments.output))


def _explain(parser: argparse.ArgumentParser) -> None:
    parser.usage = OF_DATA
    add = parser.add_argument
    _model(parser)
    add(
        "data",
        nargs="+",
        metavar="DATA",
        help="images, or a folder or glob of them; with -o NAME.zarr also a .npy, Zarr or HDF5 array",
    )
    add(
        "-o",
        "--output",
        type=types.path,
        required=True,
        metavar="OUT",
        help="a folder for pictures and summary.json, or NAME.zarr",
    )
    add("--json", action="store_true", help="print the summary as JSON")
    add = parser.add_argument_group("what is explained").add_argument
    add(
        "--target",
        type=types.outputs,
        metavar="I|LABEL,...",
        help="outputs, by number or label (the largest)",
    )
    add("--top", type=types.count, metavar="N", help="photographs: the N largest outputs (1)")
    add(
        "--against",
        type=types.output,
        metavar="I|LABEL",
        help="photographs: why the target and not this output; rest: all others, softmax: by their probabilities",
    )
    add("--labels", type=types.path, metavar="FILE", help="names of the outputs, one per line")
    add(
        "--rules",
        type=types.presets,
        default=("dtd",),
        metavar="PRESET,...",
        help=f"{', '.join(PRESETS)} (dtd); photographs: several, side by side",
    )
    _range(add)
    add(
        "--ledger",
        action=argparse.BooleanOptionalAction,
        help="follow every cause of absorption, which takes up to about half of the explanation's time more "
        "(photographs: yes; data sets: no)",
    )
    _photographs(parser)
    _display(parser.add_argument_group("pictures of photographs", DISPLAY))
    _machine(parser)
    _data_set(parser.add_argument_group("with -o NAME.zarr"))
    parser.set_defaults(run=lambda arguments: _of("run" if _is_run(arguments) else "photographs", "explain")(arguments))


def _browse(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run_path", type=types.path, metavar="NAME.zarr", help="what `dtdfast explain -o NAME.zarr` writes")
    add("-o", "--output", type=types.path, metavar="OUT", help="the page (NAME.html)")
    add("--data", nargs="+", metavar="DATA", help="the images of the run, to be shown beside the maps")
    add("--labels", type=types.path, metavar="FILE", help="names of the outputs, one per line")
    add("--shown", type=types.count, default=24, metavar="N", help="samples of each kind (%(default)s)")
    add("--json", action="store_true", help="print what is on the page as JSON")
    _display(parser.add_argument_group("pictures", DISPLAY))
    parser.set_defaults(run=lambda arguments: _of("browse", "browse")(arguments))


def _photographs(parser: argparse.ArgumentParser) -> None:
    """How the network is fed with photographs: of `explain`, of `report`, and of `plan`, which shows what `explain`
    would run.
    """
    add = parser.add_argument_group("how photographs are fed", FED).add_argument
    add("--size", type=types.size, metavar="N|HxW", help="of the network's input (as the file declares, else 224)")
    add(
        "--crop",
        type=types.number,
        metavar="SHARE",
        help=f"share of the centre that is kept ({Preparation.crop})",
    )
    add("--mean", type=types.numbers, metavar="M,...", help="one, or one per channel in the network's order")
    add("--std", type=types.numbers, metavar="S,...", help="one, or one per channel in the network's order")
    add(
        "--scale",
        type=types.number,
        metavar="A",
        help="what a white pixel is before the mean is subtracted, for example 255",
    )
    add("--channels", choices=("rgb", "bgr", "gray"), help="the network's order (rgb; gray if it takes one channel)")
    add("--layout", choices=("nchw", "nhwc"), help="of the network's input (as its file tells)")


def _range(add: Any) -> None:
    add(
        "--domain",
        type=types.domain,
        metavar="D",
        help="values of the input: pixels, real, nonnegative or LOW,HIGH (pixels; real for arrays of floats)",
    )


def _display(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--smooth", type=types.smoothness, metavar="S", help="a Gaussian of so many pixels over what is shown (none)")
    add("--percentile", type=types.percentile, metavar="P", help="of |relevance|, where the colours end (99.5)")
    add("--colormap", metavar="NAME", help="one of matplotlib's, best a diverging one (RdBu_r)")


def _machine(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("this machine").add_argument
    add("--backend", default="auto", metavar="B", help="auto, cpu, cuda or oracle (%(default)s)")
    add("--threads", type=types.count, metavar="N", help="threads (all cores)")


def _report(parser: argparse.ArgumentParser) -> None:
    parser.usage = OF_DATA
    add = parser.add_argument
    _model(parser)
    add("data", nargs="+", metavar="DATA", help="images, a folder or glob of them, or a .npy, Zarr or HDF5 array")
    add("-o", "--output", type=types.path, default=Path("report.html"), metavar="OUT", help="the page (%(default)s)")
    add("--json", type=types.path, nargs="?", const=Path(), metavar="FILE", help="all numbers too (beside the page)")
    add("--title", metavar="TEXT", help="of the page")
    add = parser.add_argument_group("what is explained").add_argument
    add("--target", type=types.output, metavar="I|LABEL", help="the output to explain (the largest)")
    add("--against", type=types.output, metavar="I|LABEL", help="the output to set against (the largest of the others)")
    add("--labels", type=types.path, metavar="FILE", help="names of the outputs, one per line")
    add("--names", type=types.path, metavar="FILE", help="names of a table's columns, or a text's words, one per line")
    add("--rules", type=types.presets, metavar="PRESET,...", help="compared; the first is tested (dtd and two others)")
    _range(add)
    add("--samples", type=types.count, default=100, metavar="N", help="read, the first ones (%(default)s)")
    add("--shown", type=types.count, metavar="N", help="on the page (4; photographs: up to 12)")
    add("--tests", type=types.tests, metavar="T,...", help=f"{', '.join(TESTS)} (all)")
    _photographs(parser)
    _machine(parser)
    parser.set_defaults(run=lambda arguments: _of("report", "report")(arguments))


def _is_run(arguments: argparse.Namespace) -> bool:
    return bool(arguments.output.suffix.lower() == ".zarr")


def _data_set(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--resume", action="store_true", help="continue an interrupted run, or begin")
    add("--strict", action="store_true", help="stop at a bad sample (it becomes NaN, with its error)")
    add("--dtype", choices=("float32", "float16"), default="float32", help="of the stored relevance (%(default)s)")
    add("--sum-channels", action="store_true", help="store the sum over channels")
    add("--external", action="store_true", help="read what an HDF5 file keeps in other files")
    add("--chunk", type=types.count, metavar="N", help="samples stored and finished at once (16 MiB of them)")
    add("--workers", type=types.count, metavar="N", help="processes of a Dask cluster on this machine")
    add("--scheduler", metavar="ADDRESS", help="of a running Dask scheduler, such as tcp://host:8786")


def _doctor(parser: argparse.ArgumentParser) -> None:
    _json(parser)
    parser.set_defaults(run=lambda arguments: _of("doctor", "doctor")(arguments))


def _inspect(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    _shape(parser)
    _json(parser)
    parser.set_defaults(run=lambda arguments: _of("model", "inspect")(arguments))


def _plan(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    _shape(parser)
    add = parser.add_argument
    add("--batch", type=types.count, default=1, metavar="N", help="samples (%(default)s)")
    add("--target", type=types.output, metavar="I|LABEL", help="the output to explain (the largest)")
    add("--labels", type=types.path, metavar="FILE", help="names of the outputs, one per line")
    add("--rules", choices=tuple(PRESETS), default="dtd", metavar="PRESET", help=f"{', '.join(PRESETS)} (%(default)s)")
    _range(add)
    _photographs(parser)
    _machine(parser)
    _json(parser)
    parser.set_defaults(run=lambda arguments: _of("model", "plan")(arguments))


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        type=types.path,
        metavar="MODEL",
        help="an .onnx file, or a .safetensors file written by dtdfast.save, which also keeps what from_torch, "
        "from_keras and from_sklearn return",
    )


def _shape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shape", type=types.integers, metavar="C,H,W", help="of one sample (as the file declares)")


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the same as JSON")


def _of(module: str, function: str) -> Callable[..., str | tuple[str, int]]:
    """A command's function, imported when the command is run: it returns what to print, and perhaps an exit status."""
    found: Callable[..., str | tuple[str, int]] = getattr(importlib.import_module(f"{__package__}.{module}"), function)
    return found
