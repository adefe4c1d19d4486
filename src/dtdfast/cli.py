"""The command line: `dtdfast demo` and `dtdfast doctor`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import DtdError
from .version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0, or 2 after an error told in one line."""
    arguments = _parser().parse_args(argv)
    try:
        print(arguments.run(arguments))
    except (DtdError, OSError) as error:
        print(f"dtdfast: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dtdfast", description="Deep Taylor Decomposition: which inputs made a network decide so.")
    parser.add_argument("--version", action="version", version=f"dtdfast {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    demo = commands.add_parser("demo", help="explain handwritten digits with a small trained network; writes a picture")
    demo.add_argument(
        "-o", "--output", type=Path, default=Path("dtdfast-demo.png"), metavar="PATH", help="where the picture goes (%(default)s)"
    )
    demo.set_defaults(run=_demo)
    doctor = commands.add_parser("doctor", help="what is usable on this machine, and why not")
    doctor.set_defaults(run=_doctor)
    return parser


def _demo(arguments: argparse.Namespace) -> str:
    from .demo import demo

    return demo(arguments.output)


def _doctor(arguments: argparse.Namespace) -> str:
    from .doctor import doctor

    return doctor()
