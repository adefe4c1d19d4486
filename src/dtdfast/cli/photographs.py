"""`dtdfast explain MODEL PHOTOGRAPHS -o FOLDER`: heatmaps, overlays and a summary."""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..contrast import Contrast
from ..errors import DomainError, InputError, NumericsError, RunError, TargetError
from ..explainer import Explainer
from ..extras import require
from ..files import SOFTWARE, readable, replaceable, written
from ..layers import Softmax
from ..ledger.ledger import Ledger
from ..plot import heatmap, overlay
from ..runs.lock import locked
from ..runs.sources import array_kind
from ..version import __version__
from .feeding import Fed, fed_pictures
from .outputs import WORDS, numbered
from .text import aligned, lines_in, ranked

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[Any]

PIXELS = 448  # of a written picture's shorter side, at least
RUN_OPTIONS = ("resume", "strict", "sum_channels", "ledger", "external", "chunk", "workers", "scheduler")
KINDS = ("heatmap", "overlay")  # pictures of each photograph
OF_ONE = (InputError, DomainError, NumericsError, TargetError, OSError)  # what is wrong with one photograph alone


def explain(arguments: argparse.Namespace) -> tuple[str, int]:
    """Write heatmaps and overlays of photographs, and summary.json; returns a few lines, and whether some were bad."""
    _refuse_run_options(arguments)
    images = _images(arguments)
    labels = None if arguments.labels is None else lines_in(arguments.labels)
    arguments.target = numbered("--target", arguments.target, arguments.labels)
    arguments.against = numbered("--against", arguments.against, arguments.labels, WORDS)
    fed = fed_pictures(arguments)
    explainer = fed.explainer(arguments)
    _check_outputs(arguments, explainer, fed, labels)
    entries: list[dict[str, Any]] = []
    first: Exception | None = None
    with Folder(arguments.output) as folder:
        names = _names(images)
        folder.claim(["summary.json", *(f"{name}-{kind}.png" for name in names for kind in KINDS)], images)
        try:
            for path, name in _progress(list(zip(images, names, strict=True))):
                try:
                    entry, draw = _explained(explainer, fed, path, name, arguments, labels)
                except OF_ONE as error:
                    first = first or error
                    entries.append({"file": readable(str(path)), "error": " ".join(str(error).split())})
                    continue
                draw(folder)
                entries.append(entry)
        except KeyboardInterrupt:
            folder.summarise(arguments, fed, entries)
            raise KeyboardInterrupt(f"{len(entries)} of {len(images)} image(s) done: {arguments.output}") from None
        bad = [entry for entry in entries if "error" in entry]
        if first is not None and len(bad) == len(entries):
            raise (
                first
                if len(bad) == 1
                else RunError(f"none of the {len(bad)} images can be explained; the first: {first}")
            )
        folder.summarise(arguments, fed, entries)
    lines = [*aligned([_line(e) for e in entries if "error" not in e]), *(f"{e['file']}: {e['error']}" for e in bad)]
    told = f"{len(entries)} image(s), {len(bad)} bad: {arguments.output}"
    return "\n".join(
        [*lines, f"fed as {fed.photographs}; rules {arguments.rules}, domain {fed.domain_text}", told]
    ), 1 if bad else 0


class Folder:
    """Where pictures and summary go: made with the first of them, and written by one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = ExitStack()
        self._open = False
        self._made: list[Path] = []

    def __enter__(self) -> Folder:
        if self.path.exists():
            self._enter()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        for path in self._made:
            with suppress(OSError):
                path.rmdir()  # if nothing came of it

    def claim(self, names: list[str], images: list[Path]) -> None:
        """Refuse to replace what was not made by dtdfast, or what is read."""
        if not self.path.exists():
            return
        read = {os.path.realpath(path) for path in images}
        for name in names:
            replaceable(self.path / name)
            if os.path.realpath(self.path / name) in read:
                raise InputError(f"{self.path / name} is to be explained and would be replaced; choose another output")

    def file(self, name: str) -> Any:
        """A new file of this name, as `written` gives it."""
        self._enter()
        replaceable(self.path / name)
        return written(self.path / name)

    def summarise(self, arguments: argparse.Namespace, fed: Fed, entries: list[dict[str, Any]]) -> None:
        """Write summary.json, whose first key marks it as ours."""
        if not self._open:
            return
        settings = {"model": readable(str(arguments.model)), "rules": arguments.rules, "domain": fed.domain}
        summary = {"dtdfast": __version__, **settings, "preparation": asdict(fed.photographs), "images": entries}
        with self.file("summary.json") as part:
            part.write_text(
                json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace"
            )

    def _enter(self) -> None:
        if self._open:
            return
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file, expected a folder for the pictures (or NAME.zarr)")
        self._made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        self._stack.enter_context(locked(self.path / ".dtdfast.lock", self.path))
        self._open = True


# ---------------------------------------------------------------------------------------------------- before any work


def _refuse_run_options(arguments: argparse.Namespace) -> None:
    for key in RUN_OPTIONS:
        if getattr(arguments, key) not in (None, False):
            raise InputError(
                f"--{key.replace('_', '-')} is for a run over a data set: write it to NAME.zarr, not to "
                f"{arguments.output}"
            )
    if arguments.dtype != "float32":
        raise InputError(f"--dtype is for a run over a data set: write it to NAME.zarr, not to {arguments.output}")


def _images(arguments: argparse.Namespace) -> list[Path]:
    """The files; arrays and folders are for runs."""
    for path in arguments.data:
        kind = array_kind(path) or ("a folder" if Path(path).is_dir() else None)
        if kind is not None:
            raise InputError(
                f"{readable(path)} is {kind}: that is for a run over a data set, so write to NAME.zarr, not to "
                f"{arguments.output}"
            )
    return [Path(path) for path in arguments.data]


def _check_outputs(arguments: argparse.Namespace, explainer: Explainer, fed: Fed, labels: list[str] | None) -> None:
    """Compare what names outputs, and labels, with the outputs of one black picture."""
    named = {"--target": arguments.target, "--against": arguments.against}
    numbers = {option: number for option, number in named.items() if isinstance(number, int)}
    if not numbers and labels is None:
        return
    x = fed.photographs.normalised(np.zeros((*fed.photographs.size, fed.photographs.n_channels), np.uint8))
    n = explainer.predict(x[None]).shape[1]
    if labels is not None and len(labels) != n:
        raise InputError(
            f"the labels file has {len(labels)} lines, but the network has {n} outputs; give one line for each"
        )
    for option, number in numbers.items():
        if not 0 <= number < n:
            raise InputError(f"{option} is {number}, but the network has {n} outputs: 0 to {n - 1}")


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for the pictures of each image, different even where capitals are not told apart; those that several share
    are numbered.
    """
    stems = [readable(p.stem).replace("\\", "_").encode()[:150].decode(errors="ignore") for p in paths]
    counts = Counter(stem.casefold() for stem in stems)
    taken = {stem for stem, count in counts.items() if count == 1}
    names = []
    for number, stem in enumerate(stems, 1):
        name = stem
        while counts[stem.casefold()] > 1 and (name := f"{stem}-{number}").casefold() in taken:
            number += len(stems)
        taken.add(name.casefold())
        names.append(name)
    return names


# ---------------------------------------------------------------------------------------------------------- one image


def _explained(
    explainer: Explainer, fed: Fed, path: Path, name: str, arguments: argparse.Namespace, labels: list[str] | None
) -> tuple[dict[str, Any], Callable[[Folder], None]]:
    """What the summary says of an image, and what writes its pictures."""
    picture = fed.photographs.picture(path)
    x = fed.photographs.normalised(picture)[None]
    target, against = arguments.target, arguments.against
    start = target if against is None else Contrast(target, against)
    relevance, outputs, ledger = explainer.explain(x, start, return_outputs=True, return_ledger=True)
    chosen = int(outputs[0].argmax()) if target is None else target
    probabilities = explainer.predict(x)[0] if isinstance(fed.layers[-1], Softmax) and not fed.layers[-1].log else None
    values = relevance[0].sum(axis=0 if fed.photographs.layout == "nchw" else -1)

    def draw(folder: Folder) -> None:
        _write(folder, f"{name}-heatmap.png", values, lambda ax: heatmap(values, ax))
        _write(folder, f"{name}-overlay.png", values, lambda ax: overlay(values, picture, ax))

    def named(index: int) -> dict[str, Any]:
        return {
            "target": index,
            "label": None if labels is None else labels[index],
            "output": float(outputs[0, index]),
            "probability": None if probabilities is None else float(probabilities[index]),
        }

    entry = {
        "file": readable(str(path)),
        **named(chosen),
        **({} if against is None else {"against": named(against) if isinstance(against, int) else against}),
        "top": [named(index) for index in ranked(outputs[0])],
        "relevance": float(values.sum(dtype=np.float64)),
        **_totals(ledger),
        **{kind: f"{name}-{kind}.png" for kind in KINDS},
    }
    return entry, draw


def _totals(ledger: Ledger) -> dict[str, Any]:
    """The ledger of one sample in a few numbers."""
    absorbed = {cause: float(v[0]) for cause, v in ledger.absorbed.items()}
    return {
        "absorbed": absorbed,
        "residual": float(ledger.residual[0]),
        "bound": float(ledger.bound[0]),
        "account_closes": ledger.closed,
    }


def _write(folder: Folder, name: str, values: Array, draw: Callable[[Axes], object]) -> None:
    """A PNG with a whole number of its pixels for each of the network's."""
    figure = require("matplotlib.figure", "plot").Figure
    height, width = values.shape
    dpi = 100 * max(1, -(-PIXELS // min(values.shape)))
    canvas = figure(figsize=(width / 100, height / 100), dpi=dpi)
    draw(canvas.add_axes((0, 0, 1, 1)))
    with folder.file(name) as part:
        canvas.savefig(part, dpi=dpi, format="png", metadata={"Software": SOFTWARE})


# ---------------------------------------------------------------------------------------------------- what is printed


def _line(entry: dict[str, Any]) -> tuple[str, ...]:
    probability = "" if entry["probability"] is None else f"p = {entry['probability']:.3f}"
    top = ", ".join(
        f"{_output(e)} {e['output' if e['probability'] is None else 'probability']:.3g}" for e in entry["top"]
    )
    return (
        entry["file"],
        _output(entry),
        f"f = {entry['output']:.5g}",
        probability,
        f"ΣR = {entry['relevance']:.5g}",
        f"absorbed {sum(entry['absorbed'].values()):.2g}",
        "account closes" if entry["account_closes"] else "ACCOUNT STAYS OPEN",
        f"top: {top}",
    )


def _output(entry: dict[str, Any]) -> str:
    return f"{entry['target']} {readable(entry['label'] or '')}".rstrip()


def _progress(items: list[Any]) -> Iterator[Any]:
    if len(items) < 2:
        return iter(items)
    return iter(require("tqdm", "progress").tqdm(items, unit="image"))
