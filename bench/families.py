"""The breadth of from_torch: one small network of every family of timm, torchvision's classifiers, and transformers.

    python bench/families.py timm torchvision transformers --results families.jsonl  # runs what the file lacks
    python bench/families.py --results families.jsonl --write                        # tables of docs/architectures.md

Weights are random, statistics and factors of norms neither 0 nor 1, images as small as the network takes. Each network
has a process of its own, and a time limit. It is imported, predicts two images that it was not exported with, and
explains its second output under "dtd" and under "attnlrp" ("cp-lrp" where that is refused).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("tests/pytorch", "tests/pytorch/lib")]

import conftest as torchvision_made_importable  # noqa: E402, F401

# isort: split
import numpy as np  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
import torchvision.models as tv  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import dtdfast as dtd  # noqa: E402
from attention_models import CASES  # noqa: E402

PAGE = ROOT / "docs" / "architectures.md"
HEADER = "| family | network | input | graph nodes | entries | predict | dtd | attnlrp | |"
SIZES = (96, 112, 128, 160, 192, 224, 240, 256, 384)
LARGEST = 60_000_000
PREDICTED = 1e-4  # of float32, relative to the largest output

Row = dict[str, Any]
Make = Callable[[], tuple[nn.Module, Tensor]]

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = json.loads((Path(__file__).with_suffix(".json")).read_text())
"""A member of each family of timm; with fewer blocks where even the smallest has more than 60 M weights."""


def randomised(module: nn.Module) -> nn.Module:
    """Ready to explain, and nothing in it is 0 or 1 as the constructor left it."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            assert part.running_var is not None
            part.running_mean.copy_(0.1 * torch.randn(part.running_mean.shape, generator=generator))
            part.running_var.copy_(0.5 + torch.rand(part.running_var.shape, generator=generator))
    for value in module.parameters():
        size = 0.1 if value.ndim <= 1 else 0.3 * (value[0].numel() or 1) ** -0.5
        value.add_(size * torch.randn(value.shape, generator=generator))
    return module.eval().requires_grad_(False)


def smallest(make: Callable[..., nn.Module], sizes: tuple[int, ...] = SIZES) -> tuple[nn.Module, Tensor]:
    """The network for the smallest images that it takes, and two of them."""
    failure: Exception | None = None
    for size in sizes:
        x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
        try:
            try:
                module = make(img_size=size)
            except TypeError:
                module = make()
            module.eval()(x[:1])
        except Exception as error:  # whatever a network raises on a size that it does not take
            failure = error
            continue
        return randomised(module), x
    raise RuntimeError(f"no size fits: {failure}")


def of_timm(name: str, options: dict[str, Any]) -> tuple[nn.Module, Tensor]:
    options = dict(options)
    sizes = (options.pop("size"),) if "size" in options else SIZES
    return smallest(partial(timm.create_model, name, pretrained=False, **options), sizes)


def of_torchvision(name: str) -> tuple[nn.Module, Tensor]:
    def make() -> nn.Module:
        if name in ("googlenet", "inception_v3"):
            return tv.get_model(name, weights=None, init_weights=False)
        return tv.get_model(name, weights=None)

    if name.startswith("vit_"):
        return randomised(make()), torch.randn(2, 3, 224, 224)
    return smallest(make)


def of_transformers(name: str) -> tuple[nn.Module, Tensor]:
    module, x = CASES[name].module().float(), CASES[name].sample()
    return module, x.float() if x.is_floating_point() else x


def checked(make: Make) -> Row:
    """What the network does here."""
    torch.manual_seed(0)
    begin = time.perf_counter()
    module, x = make()
    row: Row = {"weights": sum(p.numel() for p in module.parameters()), "shape": list(x.shape[1:])}
    export, nodes = torch.export.export, 0

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal nodes
        program = export(*args, **options)
        nodes = sum(node.op == "call_function" for node in program.graph.nodes)
        return program

    torch.export.export = counted
    try:
        layers = dtd.from_torch(module, x[:1])
    except dtd.DtdError as error:
        return row | {"refused": str(error)}
    finally:
        torch.export.export = export
    row |= {"entries": len(layers), "nodes": nodes, "import_s": round(time.perf_counter() - begin, 1)}
    expected = module(x).numpy()
    found = dtd.predict(layers, x.numpy(), backend="cpu")
    row["predict"] = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not row["predict"] <= PREDICTED:  # a network may amplify rounding: then PyTorch's own float32 is as far away
        exact = module.double()(x.double() if x.is_floating_point() else x).numpy()
        row["torch_off"] = float(np.abs(expected - exact).max() / np.abs(exact).max())
        row["ours_off"] = float(np.abs(found - exact).max() / np.abs(exact).max())
    start = np.zeros((1, *expected.shape[1:]), np.float32)
    start.reshape(-1)[1] = 1
    one = x[:1].numpy()
    for kind, presets in (("dtd", ("dtd",)), ("attnlrp", ("attnlrp", "cp-lrp"))):
        for preset in presets:
            try:
                explainer = dtd.Explainer(layers, rules=preset, backend="cpu")
                relevance, ledger = explainer.explain(one, start, return_ledger=True)
            except dtd.DtdError as error:
                row[f"{preset}_refused"] = str(error)
                continue
            row[kind] = {
                "preset": preset, "closed": ledger.closed, "least": float(relevance.min()),
                "sum": float(relevance.sum()), "finite": bool(np.isfinite(relevance).all()),
            }  # fmt: skip
            break
    return row | {"seconds": round(time.perf_counter() - begin, 1)}


def _child(make: Make, pipe: Any) -> None:
    warnings.simplefilter("ignore")
    torch.set_grad_enabled(False)
    try:
        pipe.send(checked(make))
    except Exception as error:
        pipe.send({"failed": f"{type(error).__name__}: {error}"})


def alone(make: Make, seconds: float) -> Row:
    """`checked` in a process of its own, which starts with what is imported here."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(make, there))
    process.start()
    there.close()
    try:
        row: Row = here.recv() if here.poll(seconds) else {"failed": f"no answer within {seconds:.0f} s"}
    except EOFError:
        row = {"failed": "the process ended without an answer"}
    process.kill()
    process.join()
    return row


def networks(source: str) -> Iterator[tuple[str, str, Make]]:
    if source == "timm":
        for family in timm.list_modules():
            name, options = FAMILIES[family]
            yield family, name, partial(of_timm, name, options)
    elif source == "torchvision":
        for name in tv.list_models(module=tv):
            if tv.get_model_weights(name).DEFAULT.meta["num_params"] <= LARGEST:
                yield name, name, partial(of_torchvision, name)
    else:
        for name in CASES:
            yield name, name, partial(of_transformers, name)


def right(row: Row) -> bool:
    """As far from the exact output as PyTorch at most, where that is further than rounding."""
    return bool(row["predict"] <= PREDICTED or row["ours_off"] <= 4 * row["torch_off"])


def whole(row: Row) -> bool:
    return (
        "predict" in row and right(row) and all(row.get(k, {}).get("closed") for k in ("dtd", "attnlrp"))
        and row["dtd"]["least"] >= 0
    )  # fmt: skip


def line(row: Row) -> str:
    """One row of the table."""
    cells = [row["family"], row["name"] if row["name"] != row["family"] else ""]
    cells.append(" × ".join(map(str, row.get("shape", []))))
    if "predict" not in row:
        return f"| {' | '.join([*cells, '', '', '', '', ''])} | {row.get('refused') or row['failed']} |"
    cells += [f"{row['nodes']}", f"{row['entries']}", f"{row['predict']:.0e}"]
    notes = []
    if row["predict"] > PREDICTED:
        notes.append(f"from float64: ours {row['ours_off']:.0e}, PyTorch's {row['torch_off']:.0e}")
    for kind in ("dtd", "attnlrp"):
        found = row.get(kind)
        if not found:
            cells.append("refused")
            continue
        sign = "" if kind == "attnlrp" else ", R ≥ 0" if found["least"] >= 0 else f", least R {found['least']:.0e}"
        other = f" ({found['preset']})" if found["preset"] != kind else ""
        cells.append(("closes" if found["closed"] else "STAYS OPEN") + sign + other)
    notes += [f"{key[:-8]}: {text}" for key, text in row.items() if key.endswith("_refused")]
    return f"| {' | '.join(cells)} | {'; '.join(notes)} |"


def summary(rows: list[Row]) -> str:
    count = Counter(
        kind
        for row in rows
        for kind, is_so in (
            ("import", "predict" in row),
            ("predict right", "predict" in row and right(row)),
            ("close both ledgers with R ≥ 0 under dtd", whole(row)),
            ("are refused", "refused" in row),
            ("gave no answer", "failed" in row),
        )
        if is_so
    )
    return f"{len(rows)} networks: " + ", ".join(f"{n} {kind}" for kind, n in count.items()) + "."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", help="timm, torchvision, transformers; or source:family")
    parser.add_argument("--results", type=Path, required=True, help="a line is added for each network")
    parser.add_argument("--seconds", type=float, default=60, help="per network")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/architectures.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[tuple[str, str], Row] = {}
    if arguments.results.exists():
        before = map(json.loads, arguments.results.read_text().splitlines())
        results = {(row["source"], row["family"]): row for row in before}
    for source, _, wanted in (given.partition(":") for given in arguments.sources):
        for family, name, make in networks(source):
            if wanted != family if wanted else (source, family) in results:
                continue
            row = {"source": source, "family": family, "name": name} | alone(make, arguments.seconds)
            results[source, family] = row
            with arguments.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(line(row), flush=True)
    tables = []
    for source in ("timm", "torchvision", "transformers"):
        rows = [row for (of, _), row in sorted(results.items()) if of == source]
        tables.append(f"**{source}**: {summary(rows)}")
        print(tables[-1])
        tables.append("\n".join([HEADER, "|---" * (HEADER.count("|") - 1) + "|", *map(line, rows)]))
    if arguments.write:
        page = PAGE.read_text(encoding="utf-8")
        table = "\n\n".join(tables)
        pattern = r"(<!-- made by: python bench/families.py .*?-->\n).*?(<!-- end -->)"
        made = re.sub(pattern, lambda m: f"{m[1]}\n{table}\n\n{m[2]}", page, flags=re.DOTALL)
        PAGE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
