"""`dtdfast demo`: explain real digits, draw the result, print what was measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..backends import backends, choose
from ..baselines import input_x_gradient, sensitivity
from ..calls import explain
from ..colours import PERCENTILE, Style, palette
from ..data import digits, photograph
from ..errors import InputError
from ..evaluation.perturbation import softmax
from ..explainer import Explainer
from ..extras import require
from ..files import SOFTWARE, readable, replaceable, written
from ..plot import heatmap
from . import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIGNED = "lrp-epsilon"  # a preset whose maps have both signs
DOMAIN = (0.0, 1.0)  # of a pixel: the first layer takes the zB rule
CONCLUSION = (
    "dtd shows where the network looked, and adds up to its output; lrp-epsilon tells for (red) from against (blue); "
    "dtdfast report measures which to trust"
)
NEXT = (
    "squeezenet1.1-7.onnx of huggingface.co/onnxmodelzoo/legacy_models, or torch.onnx.export; then dtdfast explain "
    "MODEL.onnx PHOTOGRAPHS -o maps"
)
INK, FAINT, WRONG = "#1a1a1a", "#767676", "#b2182b"


def demo(path: Path) -> str:
    """Write the picture to `path` and another beside it, PNGs that nobody else has made; the returned text says what
    they show, how it was reached, and what to conclude.
    """
    for module in ("matplotlib", "safetensors"):
        require(module, "demo")
    if path.suffix.lower() != ".png":
        raise InputError(f"{readable(str(path))}: the picture is a PNG, so expected a name that ends in .png")
    second = path.with_stem(f"{path.stem}-photograph")
    for place in (path, second):
        replaceable(place)
    if not path.absolute().parent.is_dir():
        raise InputError(f"{readable(str(path))}: there is no folder {readable(str(path.absolute().parent))}")
    layers, images, labels = digits()
    backend = backends()[choose("auto", "float32", None)]
    explainer = Explainer(layers, domain=DOMAIN, backend=backend.name)
    outputs = explainer.predict(images)
    predicted = outputs.argmax(axis=1)
    relevance = explainer.explain(images, predicted)
    logits = outputs.max(axis=1)
    error = float(np.max(np.abs(_sums(relevance) - logits) / logits))
    ms = 1000 * _seconds(lambda: explainer.explain(images, predicted)) / len(images)

    shown = np.array([np.flatnonzero(labels == digit)[0] for digit in range(10)])
    x, target = images[shown], predicted[shown]
    maps = {
        "Deep Taylor\ndecomposition": relevance[shown],
        "sensitivity\n(gradient²)": sensitivity(layers, x, target),
        "gradient × input": input_x_gradient(layers, x, target),
    }
    with written(path) as part:
        figure(x, maps, labels[shown], target, logits[shown]).savefig(
            part, dpi=160, format="png", metadata={"Software": SOFTWARE}
        )
    n_weights = sum(np.size(getattr(record, key, ())) for record in layers for key in ("weight", "bias"))
    return "\n".join(
        (
            (
                f"network       {' · '.join(type(record).__name__ for record in layers)} ({n_weights:,} parameters, "
                "biases ≤ 0)"
            ),
            f"accuracy      {(predicted == labels).mean():.2%} of {len(labels)} digits that it was not trained on",
            f"conservation  max |ΣR − f| / f = {error:.1e}, R ≥ {relevance.min():.1g}",
            f"time          {ms:.4f} ms per image ({len(images)} in one call; {backend.name}, {backend.reason})",
            f"picture       {path.resolve()}",
            *_photograph(second, backend.name),
            f"conclusion    {CONCLUSION}",
            f"your own      {NEXT}",
        )
    )


def _photograph(path: Path, backend: str) -> tuple[str, str]:
    """Draw what the second network saw in a photograph; what it is, and where the picture is."""
    layers, picture, kinds = photograph()
    x = (picture.transpose(2, 0, 1)[None] / 255).astype(np.float32)
    relevance, outputs = explain(layers, x, domain=DOMAIN, backend=backend, return_outputs=True)
    signed = explain(layers, x, domain=DOMAIN, backend=backend, rules=SIGNED)[0].sum(axis=0)
    first, chances = int(outputs[0].argmax()), softmax(outputs)[0]
    values, style = relevance[0].sum(axis=0), Style(2.0, PERCENTILE, palette())
    told = f"p = {chances[first]:.2f}"
    tiles = [
        drawing.heatmap(values, style, kinds[first], f"{told} · dtd"),
        drawing.overlay(values, picture, style, kinds[first], f"{told} · dtd"),
        drawing.overlay(signed, picture, style, kinds[first], f"{told} · {SIGNED}"),
    ]
    with written(path) as part:
        part.write_bytes(drawing.as_png(drawing.table(drawing.photograph(picture, "224 × 224 pixels"), [tiles])))
    toy = "from a toy that knows four photographs and nothing else"
    sums = f"ΣR = {relevance.sum():.3f}, f = {outputs[0, first]:.3f}"
    return f"photograph    {kinds[first]}, {told}, {toy}; {sums}", f"picture       {path.resolve()}"


def figure(
    x: NDArray[Any], maps: dict[str, NDArray[Any]], labels: NDArray[Any], predicted: NDArray[Any], logits: NDArray[Any]
) -> Figure:
    """A column per image, a row per method; under each map its sum Σ, to be read against the logit f."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(1.15 * len(x) + 1.9, 6.7), facecolor="white")
    left, right = 0.13, 0.985
    canvas.subplots_adjust(left, 0.05, right, 0.81, wspace=0.12, hspace=0.36)
    rows = canvas.subplots(1 + len(maps), len(x))
    for j, axes in enumerate(rows[0]):
        axes.imshow(x[j, 0], cmap="gray_r", vmin=0, vmax=1)
        axes.set_title(f"reads {predicted[j]}", fontsize=12, color=INK if predicted[j] == labels[j] else WRONG)
        _under(axes, f"f = {logits[j]:.2f}", INK)
    for row, relevance in zip(rows[1:], maps.values(), strict=True):
        for axes, one, total, logit in zip(row, relevance, _sums(relevance), logits, strict=True):
            heatmap(one, axes)
            _under(axes, f"Σ = {total:.2f}", INK if abs(total - logit) < 1e-4 * abs(logit) else FAINT)
    for row, name in zip(rows, ("input", *maps), strict=True):
        row[0].text(-0.2, 0.5, name, transform=row[0].transAxes, ha="right", va="center", fontsize=12, color=INK)
        for axes in row:
            axes.set_axis_on()
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(color="#d0d0d0", linewidth=0.6)
    canvas.text(left, 0.94, "Which pixels made the network read this digit?", fontsize=17, color=INK)
    canvas.text(
        left,
        0.897,
        "Deep Taylor relevance is never negative and adds up to the score: Σ = f.",
        fontsize=11.5,
        color=FAINT,
    )
    legend = canvas.add_axes((right - 0.12, 0.947, 0.12, 0.018))
    heatmap(np.linspace(-1, 1, 256)[None], legend, percentile=100, aspect="auto")
    legend.text(0, -0.7, "against", transform=legend.transAxes, ha="left", va="top", fontsize=9.5, color=FAINT)
    legend.text(1, -0.7, "for the digit", transform=legend.transAxes, ha="right", va="top", fontsize=9.5, color=FAINT)
    return canvas


def _under(axes: Any, text: str, color: str) -> None:
    axes.text(0.5, -0.06, text, transform=axes.transAxes, ha="center", va="top", fontsize=9.5, color=color)


def _sums(relevance: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(relevance.reshape(len(relevance), -1).sum(axis=1, dtype=np.float64))


def _seconds(call: Callable[[], object]) -> float:
    """Best of a few calls: what the machine can do, not what else it was doing."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
