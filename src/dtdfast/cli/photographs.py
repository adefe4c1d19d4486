"""`dtdfast explain MODEL PHOTOGRAPHS -o FOLDER`: heatmaps, overlays and a summary."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import choose
from ..colours import Style
from ..errors import InputError, RunError
from ..files import readable
from ..images import SUFFIXES
from ..layers import Softmax
from ..progress import bar
from ..reports.elements import short
from ..runs.sources import array_kind, images_at
from ..show import aligned, as_json
from ..version import __version__
from . import drawing
from .feeding import Fed, fed_pictures
from .folder import Folder, names_of
from .outputs import WORDS, check_outputs, numbered, numbered_all, output_told
from .passes import Found, Question, explained, side_by_side
from .text import TOP, lines_in, ranked

RUN_OPTIONS = ("resume", "strict", "sum_channels", "external", "chunk", "workers", "scheduler")
KINDS = ("heatmap", "overlay")  # pictures of each map
GRID = "grid"  # the picture of all maps of a photograph, where there are several
SUMMARY = "summary.json"


def explain(arguments: argparse.Namespace) -> tuple[str, int]:
    """Write heatmaps and overlays of photographs, and summary.json; returns a few lines, or the summary as JSON, and
    whether some were bad.
    """
    _refuse_run_options(arguments)
    style = drawing.style_of(arguments)
    images = _images(arguments)
    labels = None if arguments.labels is None else lines_in(arguments.labels)
    question = _question(arguments)
    fed = fed_pictures(arguments)
    passes = side_by_side(len(images), arguments.threads, choose(arguments.backend, "float32", None))
    explainers = {rule: fed.explainer(arguments, rule, passes) for rule in arguments.rules}
    _check(explainers, fed, question, labels)
    album = Album(arguments, fed, style, labels, question, names_of(images), images)
    done: dict[int, dict[str, Any]] = {}
    first: Exception | None = None
    with Folder(arguments.output) as folder:
        folder.claim([SUMMARY, *album.files()], images)

        def draw(number: int, found: Found) -> dict[str, Any]:
            entry, pictures = album.made(number, found)
            for name, data in pictures:
                folder.write(name, data)
            return entry

        try:
            answers = explained(explainers, fed.photographs, question, images, passes, arguments.threads, draw)
            for number, answer in _progress(answers, len(images)):
                if isinstance(answer, Exception):
                    first = first or answer
                    answer = {"file": readable(str(images[number])), "error": " ".join(str(answer).split())}
                done[number] = answer
        except KeyboardInterrupt:
            album.summarise(folder, done)
            raise KeyboardInterrupt(f"{len(done)} of {len(images)} image(s) done: {arguments.output}") from None
        bad = [entry for entry in done.values() if "error" in entry]
        if first is not None and len(bad) == len(images):
            raise (
                first
                if len(bad) == 1
                else RunError(f"none of the {len(bad)} images can be explained; the first: {first}")
            )
        summary = album.summarise(folder, done)
    if arguments.json:
        return as_json(summary), 1 if bad else 0
    good = [line for entry in done.values() if "error" not in entry for line in _lines(entry)]
    told = f"{len(done)} image(s), {len(bad)} bad: {arguments.output}"
    rules = ", ".join(arguments.rules)
    return "\n".join([
        *aligned(good),
        *(f"{e['file']}: {e['error']}" for e in bad),
        f"fed as {fed.photographs}; rules {rules}, domain {fed.domain_text}",
        told,
    ]), 1 if bad else 0  # fmt: skip


# ---------------------------------------------------------------------------------------------------- before any work


def _refuse_run_options(arguments: argparse.Namespace) -> None:
    if arguments.output.suffix.lower() in SUFFIXES:
        raise InputError(f"--output is {arguments.output}, expected a folder for the pictures (or NAME.zarr)")
    for key in RUN_OPTIONS:
        if getattr(arguments, key) not in (None, False):
            raise InputError(
                f"--{key.replace('_', '-')} is for a run over a data set: write it to NAME.zarr, not to "
                f"{arguments.output}"
            )
    if arguments.dtype != "float32":
        raise InputError(f"--dtype is for a run over a data set: write it to NAME.zarr, not to {arguments.output}")


def _images(arguments: argparse.Namespace) -> list[Path]:
    """The files, folders among them as the images below them; arrays are for runs."""
    found: list[Path] = []
    for path in arguments.data:
        if kind := array_kind(path):
            raise InputError(
                f"{readable(path)} is {kind}: that is for a run over a data set, so write to NAME.zarr, not to "
                f"{arguments.output}"
            )
        found += images_at(path)
    return found


def _question(arguments: argparse.Namespace) -> Question:
    targets = numbered_all("--target", arguments.target, arguments.labels)
    against = numbered("--against", arguments.against, arguments.labels, WORDS)
    top = arguments.top or 1
    if targets and arguments.top is not None:
        raise InputError("--top is for the largest outputs, and --target names others; give one of them")
    if isinstance(against, int) and top > 1:
        raise InputError(
            f"--top {top} may meet output {against}, which --against names; name the others by --target, or set them "
            "against rest"
        )
    if against in targets:
        raise InputError(f"--target: output {against} is set against itself; name another one as --against")
    return Question(tuple(targets), top, against, arguments.ledger is not False)


def _check(explainers: dict[str, Any], fed: Fed, question: Question, labels: list[str] | None) -> None:
    """Plan every rule; compare what names outputs, and labels, with the network's outputs."""
    for explainer in explainers.values():
        n = explainer.plan_for((1, *fed.photographs.shape)).program.network.output.shape[0]
    check_outputs({"--against": question.against}, labels, n)
    for target in question.targets:
        check_outputs({"--target": target}, None, n)
    if question.top > n:
        raise InputError(f"--top is {question.top}, but the network has {n} outputs")


# ------------------------------------------------------------------------------------------------- what is made of them


@dataclass(frozen=True)
class Album:
    """The pictures and the summary of some photographs.

    Parameters
    ----------
    names : how the names of each photograph's pictures begin
    """

    arguments: argparse.Namespace
    fed: Fed
    style: Style
    labels: list[str] | None
    question: Question
    names: Sequence[str]
    images: Sequence[Path]

    @property
    def several(self) -> bool:
        """Whether there are several maps of each photograph."""
        return len(self.arguments.rules) * self.question.count > 1

    def files(self) -> Iterator[str]:
        """Names of the pictures; those of the largest outputs are known by their rank alone."""
        for name in self.names:
            for rule in self.arguments.rules:
                for rank in range(self.question.count):
                    yield from self._of_map(name, rule, rank).values()
            if self.several:
                yield f"{name}-{GRID}.png"

    def _of_map(self, name: str, rule: str, rank: int) -> dict[str, str]:
        parts = [name]
        if len(self.arguments.rules) > 1:
            parts.append(rule)
        if self.question.count > 1:
            parts.append(str(self.question.targets[rank]) if self.question.targets else f"top{rank + 1}")
        return {kind: f"{'-'.join([*parts, kind])}.png" for kind in KINDS}

    def made(self, number: int, found: Found) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
        """What the summary says of a photograph, and its pictures."""
        name, file = self.names[number], readable(str(self.images[number]))
        probabilities = self._probabilities(found)
        tiles: list[list[Any]] = []
        pictures: list[tuple[str, bytes]] = []
        maps: list[dict[str, Any]] = []

        def of(index: int) -> dict[str, Any]:
            return {
                "target": index,
                "label": None if self.labels is None else self.labels[index],
                "output": float(found.outputs[index]),
                "probability": None if probabilities is None else float(probabilities[index]),
            }

        against = self.question.against
        other = {} if against is None else {"against": of(against) if isinstance(against, int) else against}
        for rule, values in found.maps.items():
            tiles.append([])
            for rank, index in enumerate(found.numbers):
                told = of(index)
                files = self._of_map(name, rule, rank)
                title, detail = _title(told, other.get("against")), f"{_chance(told)} · {rule}"
                drawn = drawing.heatmap(values[rank], self.style, title, detail)
                over = drawing.overlay(values[rank], found.picture, self.style, title, detail)
                pictures += zip(files.values(), map(drawing.as_png, (drawn, over)), strict=True)
                tiles[-1].append(drawn)
                account = found.accounts[rule][rank] if found.accounts[rule] else NO_ACCOUNT
                total = float(values[rank].sum(dtype=np.float64))
                maps.append({"rule": rule, **told, **other, "relevance": total, **account, **files})
        if self.several:
            seen = drawing.photograph(found.picture, Path(file).name)
            pictures.append((f"{name}-{GRID}.png", drawing.as_png(drawing.table(seen, tiles))))
        entry = {
            "file": file,
            **{key: value for key, value in maps[0].items() if key != "rule"},
            "top": [of(index) for index in ranked(found.outputs, max(TOP, self.question.top))],
            **({GRID: f"{name}-{GRID}.png"} if self.several else {}),
            "maps": maps,
        }
        return entry, pictures

    def _probabilities(self, found: Found) -> Any:
        """The network's own, where it ends with a Softmax over its classes."""
        last = self.fed.layers[-1]
        if not isinstance(last, Softmax) or last.log or last.mask is not None or found.outputs.ndim != 1:
            return None
        e = np.exp(found.outputs - found.outputs.max())
        return e / e.sum()

    def summarise(self, folder: Folder, done: dict[int, dict[str, Any]]) -> dict[str, Any]:
        """Write the summary, whose first key marks it as ours, of the photographs in their order."""
        arguments = self.arguments
        display = {key: getattr(arguments, key) for key in ("smooth", "percentile", "colormap")}
        summary = {
            "dtdfast": __version__,
            "model": readable(str(arguments.model)),
            "rules": ",".join(arguments.rules),
            "domain": self.fed.domain,
            "preparation": asdict(self.fed.photographs),
            "display": display,
            "images": [done[number] for number in sorted(done)],
        }
        if folder.begun:
            folder.write(SUMMARY, f"{as_json(summary)}\n".encode())
        return summary


NO_ACCOUNT: dict[str, Any] = {"absorbed": None, "residual": None, "bound": None, "account_closes": None}


def _title(told: dict[str, Any], against: Any) -> str:
    """What is explained, as people call it."""
    if against is None:
        return _called(told)
    return f"{_called(told)} against {against if isinstance(against, str) else _called(against)}"


def _called(told: dict[str, Any]) -> str:
    return f"output {told['target']}" if told["label"] is None else str(told["label"])


def _chance(told: dict[str, Any]) -> str:
    return f"f = {told['output']:.4g}" if told["probability"] is None else f"p = {told['probability']:.3f}"


# ---------------------------------------------------------------------------------------------------- what is printed


def _lines(entry: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """One for each map of a photograph."""
    top = ", ".join(
        f"{short(output_told(e))} {e['output' if e['probability'] is None else 'probability']:.3g}"
        for e in entry["top"]
    )
    rules = {m["rule"] for m in entry["maps"]}
    for number, told in enumerate(entry["maps"]):
        closes = {True: "account closes", False: "ACCOUNT STAYS OPEN", None: "no ledger"}[told["account_closes"]]
        yield (
            short(entry["file"]),
            *([told["rule"]] if len(rules) > 1 else []),
            short(output_told(told)),
            f"f = {told['output']:.5g}",
            "" if told["probability"] is None else f"p = {told['probability']:.3f}",
            f"ΣR = {told['relevance']:.5g}",
            "" if told["absorbed"] is None else f"absorbed {sum(told['absorbed'].values()):.2g}",
            closes,
            "" if number else f"top: {top}",
        )


def _progress(items: Iterator[Any], n: int) -> Iterator[Any]:
    return items if n < 2 else iter(bar(items, total=n, unit="image"))
