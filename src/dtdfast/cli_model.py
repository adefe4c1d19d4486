"""`dtdfast explain`, `inspect` and `plan`: a model's own file on the command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import DtdError, InputError, ModelError, ShapeError, at
from .explainer import Explainer
from .extras import require
from .images import Preparation
from .importers.onnx import OnnxModel
from .layers import INPUT, Layer, Softmax
from .ledger import Ledger
from .plan.shapes import Shape, output_shape
from .plan.wiring import sources
from .plot import heatmap, overlay
from .storage import load

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[Any]

SIDE = 224  # where neither the file nor the caller says a size
PIXELS = 448  # of a written picture's shorter side, at least
RUN_OPTIONS = ("resume", "strict", "sum_channels", "ledger", "chunk", "workers", "scheduler")
TRAINED = ("weight", "bias", "scale", "shift")


@dataclass(frozen=True)
class Model:
    """A model's file, read.

    Attributes
    ----------
    sample : shape of one sample of its input; None where neither the file nor the caller says it
    """

    layers: list[Layer]
    sample: Shape | None
    refusals: list[str]


# ---------------------------------------------------------------------------------------------------------------- explain


def explain(arguments: argparse.Namespace) -> str:
    """Write heatmaps and overlays of photographs, and summary.json; returns one line per image."""
    _refuse_run_options(arguments)
    layers, preparation = prepared(arguments)
    domain = arguments.domain or "pixels"
    explainer = Explainer(
        layers, rules=arguments.rules, domain=of_pixels(domain, preparation), backend=arguments.backend, n_threads=arguments.threads
    )
    labels = arguments.labels.read_text(encoding="utf-8", errors="replace").splitlines() if arguments.labels else None
    arguments.output.mkdir(parents=True, exist_ok=True)
    entries = []
    images = [Path(path) for path in arguments.data]
    for path, stem in _progress(list(zip(images, _stems(images), strict=True))):
        entries.append(_explain_one(explainer, layers, preparation, path, arguments.output / stem, arguments.target, labels))
    settings = {"model": str(arguments.model), "rules": arguments.rules, "domain": domain, "preparation": asdict(preparation)}
    summary = {**settings, "images": entries}
    (arguments.output / "summary.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return "\n".join([*_table([_line(e) for e in entries]), f"{len(entries)} image(s): {arguments.output}"])


def _refuse_run_options(arguments: argparse.Namespace) -> None:
    for key in RUN_OPTIONS:
        if getattr(arguments, key):
            raise InputError(f"--{key.replace('_', '-')} is for a run over a data set: write it to NAME.zarr, not to {arguments.output}")


def _explain_one(
    explainer: Explainer,
    layers: list[Layer],
    preparation: Preparation,
    path: Path,
    stem: Path,
    target: int | None,
    labels: list[str] | None,
) -> dict[str, Any]:
    picture = preparation.picture(path)
    x = preparation.normalised(picture)[None]
    relevance, outputs = explainer.explain(x, target, return_outputs=True)
    ledger = explainer.ledger(x, target)
    chosen = int(outputs[0].argmax()) if target is None else target
    probability = float(explainer.predict(x)[0, chosen]) if isinstance(layers[-1], Softmax) and not layers[-1].log else None
    values = relevance[0].sum(axis=0 if preparation.layout == "nchw" else -1)
    _write(stem.with_name(f"{stem.name}-heatmap.png"), values, lambda ax: heatmap(values, ax))
    _write(stem.with_name(f"{stem.name}-overlay.png"), values, lambda ax: overlay(values, picture, ax))
    return {
        "file": str(path),
        "target": chosen,
        "label": _label(chosen, labels),
        "output": float(outputs[0, chosen]),
        "probability": probability,
        "relevance": float(values.sum(dtype=np.float64)),
        **_totals(ledger),
        "heatmap": f"{stem.name}-heatmap.png",
        "overlay": f"{stem.name}-overlay.png",
    }


def _totals(ledger: Ledger) -> dict[str, Any]:
    """The ledger of one sample in a few numbers."""
    absorbed = {cause: float(v[0]) for cause, v in ledger.absorbed.items()}
    return {"absorbed": absorbed, "residual": float(ledger.residual[0]), "bound": float(ledger.bound[0]), "closed": ledger.closed}


def _write(path: Path, values: Array, draw: Callable[[Axes], object]) -> None:
    """A PNG with a whole number of its pixels for each of the network's."""
    figure = require("matplotlib.figure", "plot").Figure
    height, width = values.shape
    dpi = 100 * max(1, -(-PIXELS // min(values.shape)))
    canvas = figure(figsize=(width / 100, height / 100), dpi=dpi)
    draw(canvas.add_axes((0, 0, 1, 1)))
    canvas.savefig(path, dpi=dpi)


def _label(index: int, labels: list[str] | None) -> str | None:
    if labels is None:
        return None
    if index >= len(labels):
        raise InputError(f"the labels file has {len(labels)} lines, but output {index} is explained")
    return labels[index]


def _line(entry: dict[str, Any]) -> tuple[str, ...]:
    probability = "" if entry["probability"] is None else f"p = {entry['probability']:.3f}"
    absorbed = sum(entry["absorbed"].values())
    state = "closed" if entry["closed"] else "OPEN"
    name = f"{entry['target']} {entry['label'] or ''}".rstrip()
    return (
        entry["file"],
        name,
        f"f = {entry['output']:.5g}",
        probability,
        f"ΣR = {entry['relevance']:.5g}",
        f"absorbed {absorbed:.2g}",
        state,
    )


def _stems(paths: Sequence[Path]) -> list[str]:
    """A name for each image's pictures; those that several share are numbered."""
    stems = [p.stem for p in paths]
    return [f"{s}-{number}" if stems.count(s) > 1 else s for number, s in enumerate(stems, 1)]


def _progress(items: list[Any]) -> Iterator[Any]:
    if len(items) < 2:
        return iter(items)
    return iter(require("tqdm", "progress").tqdm(items, unit="image"))


# ---------------------------------------------------------------------------------------------------------- inspect, plan


def inspect(arguments: argparse.Namespace) -> str:
    """Every layer with its shape and parameters, and what would be refused."""
    model = _read(arguments.model, arguments.shape)
    rows = [("position", "record", "name", "reads", "output", "parameters")]
    shapes = _shapes(model)
    total = 0
    for position, (record, reads) in enumerate(zip(model.layers, sources(model.layers) if model.layers else (), strict=True)):
        count = sum(np.size(a) for key in TRAINED if (a := getattr(record, key, None)) is not None)
        total += count
        names = " ".join("input" if s == INPUT else str(s) for s in reads)
        rows.append(
            (str(position), type(record).__name__, record.name or "", names, _shape(shapes[position]), f"{count:,}" if count else "")
        )
    lines = [*_table(rows), f"input {_shape(model.sample)}, {len(model.layers)} layers, {total:,} parameters"]
    lines += [f"refused: {reason}" for reason in model.refusals]
    if not model.refusals and model.sample is not None:
        try:
            Explainer(model.layers).plan_for((1, *model.sample))
        except DtdError as error:
            lines.append(f"predicted, but not explained: {error}")
    return "\n".join(lines)


def _shapes(model: Model) -> dict[int, Shape | None]:
    """Of one sample of every entry's output."""
    shapes: dict[int, Shape | None] = {INPUT: model.sample}
    for position, reads in enumerate(sources(model.layers) if model.layers else ()):
        operands = [s for s in (shapes[r] for r in reads) if s is not None]
        try:
            shapes[position] = output_shape(model.layers[position], *operands) if len(operands) == len(reads) else None
        except ShapeError as error:
            raise ShapeError(f"{at(position, model.layers[position])}: {error}") from None
    return shapes


def plan(arguments: argparse.Namespace) -> str:
    """The plan as text: every step of one explanation."""
    model = _read(arguments.model, arguments.shape)
    if model.refusals:
        raise ModelError(f"{arguments.model} cannot be imported: {'; '.join(model.refusals)}")
    if model.sample is None:
        raise InputError(f"{arguments.model} does not say the shape of its input; give it: --shape 3,224,224")
    return str(Explainer(model.layers, rules=arguments.rules).plan_for((arguments.batch, *model.sample)))


def _shape(shape: Shape | None) -> str:
    return "?" if shape is None else "(n, " + ", ".join(map(str, shape)) + ")"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


# ------------------------------------------------------------------------------------------------------------ model files


def prepared(arguments: argparse.Namespace) -> tuple[list[Layer], Preparation]:
    """The network for images of the size that the options or its file say, and how they are fed to it."""
    model = OnnxModel(arguments.model) if is_onnx(arguments.model) else None
    preparation = _preparation(arguments, _declared(arguments.model, model))
    return load(arguments.model) if model is None else model.layers(preparation.shape), preparation


def is_onnx(path: Path) -> bool:
    if path.suffix not in (".onnx", ".safetensors"):
        raise ModelError(f"{path}: expected a file that ends in .onnx, or in .safetensors (written by dtdfast.save)")
    return path.suffix == ".onnx"


def _read(path: Path, shape: Shape | None) -> Model:
    if not is_onnx(path):
        return Model(load(path), shape, [])
    imported = OnnxModel(path).read(shape)
    return Model(imported.layers, imported.sample, imported.refusals)


def _declared(path: Path, model: OnnxModel | None) -> tuple[int, ...]:
    """The sizes that a file declares of an image, batch first, 0 where open."""
    if model is None or model.declared is None:
        return (0, 0, 0, 0)
    if model.integer or len(model.declared) != 4:
        raise ModelError(f"{path}: its input is not an image (n, channels, height, width); explain it from Python")
    return model.declared


def _preparation(arguments: argparse.Namespace, declared: tuple[int, ...]) -> Preparation:
    """From the options; sizes and channels that they leave open, from the file."""
    _, *sizes = declared
    n_channels, height, width = sizes if arguments.layout == "nchw" else (sizes[2], *sizes[:2])
    channels = arguments.channels or ("gray" if n_channels == 1 else "rgb")
    return Preparation(
        size=arguments.size or (height or SIDE, width or SIDE), crop=arguments.crop, channels=channels, mean=arguments.mean,
        std=arguments.std, scale=arguments.scale, layout=arguments.layout,
    )  # fmt: skip


def of_pixels(given: Any, preparation: Preparation) -> Any:
    return preparation.domain if given == "pixels" else given
