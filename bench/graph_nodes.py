"""Graph nodes that the importers read, of all, per architecture: the first table of docs/architectures.md.

    python bench/graph_nodes.py                    # every network, through the three ways in; writes it (minutes)
    python bench/graph_nodes.py BERT resnet18      # renews some rows of it

The networks are those of bench/architectures.py, and transformers of few features with all the operations of the
published ones. Each is read by from_torch, and by from_onnx from the files of PyTorch's two exporters.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("tests/pytorch", "tests/pytorch/lib", "tests/lib")]

import conftest as torchvision_made_importable  # noqa: E402, F401

# isort: split
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import dtdfast as dtd  # noqa: E402
from architecture_models import CASES as TRANSFORMERS  # noqa: E402
from covered import Covered, of_onnx, of_torch  # noqa: E402
from modules import CASES  # noqa: E402

PAGE = ROOT / "docs" / "architectures.md"
HEADER = "| network | `from_torch` | `from_onnx`, torch.export | `from_onnx`, traced | predict | maps | |"
MARKS = r"(<!-- made by: python bench/graph_nodes.py -->\n)(.*?)(<!-- end -->)"


def files(module: nn.Module, x: Tensor, folder: Path) -> tuple[Covered | str, Covered | str]:
    """What from_onnx makes of both exporters' files; what an exporter says that makes none."""
    found: list[Covered | str] = []
    for dynamo in (True, False):
        path = folder / "model.onnx"
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                torch.onnx.export(module, (x,), path, dynamo=dynamo, verbose=False)
        except Exception as error:  # whatever PyTorch raises on operators that ONNX does not have
            found.append((str(error).splitlines() or [""])[0].partition(". ")[0])
            continue
        found.append(of_onnx(path))
    return found[0], found[1]


def row(name: str, module: nn.Module, x: Tensor, folder: Path) -> str:
    """One row of the table."""
    direct, notes = of_torch(module, x), []
    ways: dict[str, Covered | str] = {"`from_torch`": direct}
    ways |= zip(("torch.export", "traced"), files(module, x, folder), strict=True)
    cells, given = [], x.numpy()
    expected = module(x).numpy()
    start = np.zeros(expected.shape, np.float32)
    answers = expected.reshape(len(x), -1)
    chosen = 1 if answers[:, 1].all() else int(answers[0].argmax())  # the map of a ReLU's 0 is 0
    start.reshape(len(x), -1)[:, chosen] = 1
    off, maps = [], []
    for way, covered in ways.items():
        cells.append("no file" if isinstance(covered, str) else str(covered))
        if isinstance(covered, str) or covered.layers is None:
            why = covered if isinstance(covered, str) else covered.refused
            notes.append(f"{way}: {why.replace('|', chr(92) + '|')}")
            continue
        off.append(float(np.abs(dtd.predict(covered.layers, given) - expected).max() / np.abs(expected).max()))
        with contextlib.suppress(dtd.RuleError, dtd.LayerError):
            maps.append(dtd.explain(covered.layers, given, start, rules="cp-lrp"))
    apart = [float(np.abs(m - maps[0]).sum() / np.abs(maps[0]).sum()) for m in maps[1:]]
    cells += [f"{max(off):.0e}" if off else "", f"{max(apart):.0e}" if apart else ""]
    return f"| {' | '.join([name, *cells, '; '.join(notes)])} |"


def networks() -> dict[str, Callable[[], tuple[nn.Module, Tensor]]]:
    def made(case: Any, **options: bool) -> Callable[[], tuple[nn.Module, Tensor]]:
        return lambda: (case.module(**options), case.sample())

    convolutions = {name: made(case, narrow=True) for name, case in CASES.items()}
    return convolutions | {name: made(case) for name, case in TRANSFORMERS.items()}


def write(rows: dict[str, str]) -> None:
    """Put rows into the page's table, in the place of older ones of the same networks."""
    page = PAGE.read_text(encoding="utf-8")
    (table,) = re.findall(MARKS, page, flags=re.DOTALL)
    old = {line.split("|")[1].strip(): line for line in table[1].splitlines() if line.startswith("| ")}
    lines = [HEADER, "|---" * (HEADER.count("|") - 1) + "|", *(r for n in networks() if (r := (old | rows).get(n)))]
    made = "\n".join(lines)
    PAGE.write_text(re.sub(MARKS, lambda m: f"{m[1]}\n{made}\n\n{m[3]}", page, flags=re.DOTALL), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="networks; all where none is named")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_grad_enabled(False)
    torch.backends.mha.set_fastpath_enabled(False)  # its fused kernel has no operator of ONNX
    with tempfile.TemporaryDirectory() as folder:
        for name, make in networks().items():
            if not arguments.names or name in arguments.names:
                made = row(name, *make(), Path(folder))
                write({name: made})
                print(made, flush=True)


if __name__ == "__main__":
    main()
