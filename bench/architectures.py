"""Published architectures through from_torch and both ONNX exporters, as the table in docs/architectures.md.

    python bench/architectures.py            # imports, checks, writes the table (minutes; times stay)
    python bench/architectures.py --times    # measures the times too: leave the machine alone meanwhile

Weights, biases and BatchNorm statistics are random and none is zero. *predict*: the largest difference from PyTorch
over the three ways in, relative to the largest output. *maps*: Σ|difference| / Σ|R| between the ONNX imports and
from_torch. Times are of one image at the published size, preset "dtd", against zennit's ZPlus without bias on every
linear layer with its BatchNorms merged.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("tests/pytorch", "tests/pytorch/lib", "tests/lib", "bench")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

import conftest as torchvision_made_importable  # noqa: E402, F401
import dtdfast as dtd  # noqa: E402
from machine import threads  # noqa: E402
from modules import CASES, Case  # noqa: E402

PAGE = ROOT / "docs" / "architectures.md"
HEADER = "| network | `from_torch` | `from_onnx` | predict | maps | ledger | least R | dtdfast, ms | zennit |"
SECONDS = 3.0  # per tool, for at least 3 rounds


def imported(case: Case, folder: Path) -> list[str]:
    """The cells of a network that imports."""
    module, x = case.module(), case.sample()
    expected = module(x).numpy()
    start = np.zeros(expected.shape, np.float32)
    for one in start:
        one[case.at] = 1
    lists = [dtd.from_torch(module, x[:1])]
    for dynamo in (True, False):
        torch.onnx.export(module, (x,), folder / "model.onnx", dynamo=dynamo, verbose=False)
        lists.append(dtd.from_onnx(folder / "model.onnx"))
    given = x.numpy()
    off = max(float(np.abs(dtd.predict(layers, given) - expected).max()) for layers in lists) / float(
        np.abs(expected).max()
    )
    explainers = [dtd.Explainer(layers) for layers in lists]
    maps = [explainer.explain(given, start) for explainer in explainers]
    apart = max(float(np.abs(other - maps[0]).sum() / np.abs(maps[0]).sum()) for other in maps[1:])
    closes = all(explainer.ledger(given, start).closed for explainer in explainers)
    least = min(float(m.min()) for m in maps)
    sizes = f"{len(lists[1])} / {len(lists[2])} entries"
    sign = "≥ 0" if least >= 0 else f"{least:.0e}"
    return [
        f"{len(lists[0])} entries",
        sizes,
        f"{off:.0e}",
        f"{apart:.0e}",
        "account closes" if closes else "STAYS OPEN",
        sign,
    ]


def fastest(run: Callable[[], object]) -> float:
    """Seconds, the minimum of several."""
    rounds: list[float] = []
    while len(rounds) < 3 or sum(rounds) < SECONDS:
        begin = time.perf_counter()
        run()
        rounds.append(time.perf_counter() - begin)
    return min(rounds[1:])


def times(case: Case) -> list[str]:
    """The cells of time: ours in milliseconds, zennit's as a multiple of it."""
    torch.set_num_threads(threads())
    module, x = case.module(), case.sample(full=True)
    explainer = dtd.Explainer(dtd.from_torch(module, x), n_threads=threads(), backend="cpu")
    start = np.zeros(tuple(module(x).shape), np.float32)
    for one in start:
        one[case.at] = 1
    ours = fastest(lambda: explainer.explain(x.numpy(), start))
    if case.n_words:
        return [f"{1e3 * ours:.1f}", "–"]  # zennit does not go through an Embedding
    try:
        theirs = fastest(zennit(module, x, torch.from_numpy(start)))
    except RuntimeError:  # its canonizer merges a BatchNorm after a concatenation into a convolution of another width
        return [f"{ours * 1e3:.1f}", "fails"]
    return [f"{1e3 * ours:.1f}", f"{theirs / ours:.1f}× slower"]


def zennit(module: nn.Module, x: torch.Tensor, start: torch.Tensor) -> Callable[[], object]:
    from zennit.core import Composite
    from zennit.rules import Norm, Pass, ZPlus
    from zennit.torchvision import SequentialMergeBatchNorm
    from zennit.types import Activation, AvgPool, Linear

    rules = ((Activation, Pass()), (AvgPool, Norm()), (Linear, ZPlus(zero_params="bias")))

    def choose(ctx: object, name: str, part: nn.Module) -> object:
        return next((rule for kinds, rule in rules if isinstance(part, kinds)), None)

    Composite(module_map=choose, canonizers=[SequentialMergeBatchNorm()]).register(module)

    def run() -> object:
        given = x.clone().requires_grad_()
        return torch.autograd.grad(module(given), given, start)[0]

    return run


def kept(text: str) -> dict[str, list[str]]:
    """The times that the page has, by network."""
    lines = text.partition("<!-- end -->")[0].splitlines()
    cells = ([c.strip() for c in line.strip("| ").split("|")] for line in lines if line.startswith("|"))
    return {row[0]: row[-2:] for row in cells if len(row) == HEADER.count("|") - 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", action="store_true", help="measure the times too")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_grad_enabled(False)
    page = PAGE.read_text(encoding="utf-8")
    before = kept(page)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, case in CASES.items():
            cells = imported(case, Path(folder))
            with torch.enable_grad():
                cells += times(case) if arguments.times else before.get(name, ["", ""])
            rows.append([name, *cells])
            print("|", " | ".join(rows[-1]), "|", flush=True)
    lines = [
        HEADER,
        "|---" * (HEADER.count("|") - 1) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    table = "\n".join(lines)
    made = re.sub(
        r"(<!-- made by: python bench/architectures.py .*?-->\n).*?(<!-- end -->)",
        lambda m: f"{m[1]}\n{table}\n\n{m[2]}",
        page,
        flags=re.DOTALL,
    )
    PAGE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
