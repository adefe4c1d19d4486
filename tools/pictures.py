"""The pictures of README and docs, written to docs/images: python tools/pictures.py SQUEEZENET.ONNX LABELS.TXT.

The photograph is scikit-image's *chelsea* (CC0, by Stefan van der Walt), the network SqueezeNet v1.1 with its
published weights.
Needs the extra `test`, and for docs/side-by-side.md torch, captum and shap too. Each picture stays below 150 kB.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from skimage import data
from sklearn.datasets import load_breast_cancer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import dtdfast as dtd
from dtdfast import evaluation
from dtdfast.cli.demo import demo
from dtdfast.data import digits, sentiment
from dtdfast.images import Preparation

FOLDER = Path(__file__).parents[1] / "docs" / "images"
LIMIT = 150_000
FED = Preparation(size=(227, 227), channels="bgr", mean=(104.0, 117.0, 123.0), scale=255.0)


def saved(
    picture: Image.Image, name: str, colours: int = 256, method: Image.Quantize = Image.Quantize.MAXCOVERAGE
) -> None:
    """A PNG of so few colours that it is small."""
    path = FOLDER / f"{name}.png"
    picture.convert("RGB").quantize(colours, method).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.relative_to(FOLDER.parents[1])}: {picture.width} x {picture.height}, {size:,} bytes")
    if size > LIMIT:
        sys.exit(f"{path} has {size:,} bytes, more than {LIMIT:,}")


def drawn(figure: Figure, name: str, colours: int = 256) -> None:
    file = io.BytesIO()
    figure.savefig(file, dpi=100, format="png")
    saved(Image.open(file), name, colours)


def canvas(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def photograph(model: str, labels: Path) -> None:
    names = labels.read_text(encoding="utf-8").splitlines()
    layers = dtd.from_onnx(model)
    picture = FED.resized(Image.fromarray(data.chelsea()))
    x = FED.normalised(picture)[None]
    probabilities = dtd.predict(layers, x)[0]
    a, b = (int(k) for k in np.argsort(-probabilities)[:2])
    looked = f"what it looked at:\n{names[a]} ({100 * probabilities[a]:.0f} %)"
    against = f"red: why {names[a]},\nblue: why {names[b]} ({100 * probabilities[b]:.0f} %)"
    maps = {
        looked: dtd.explain(layers, x, a, domain=FED.domain),
        against: dtd.explain(layers, x, a, against=b, domain=FED.domain),
    }
    figure = canvas(8, 3.2)
    axes = figure.subplots(1, 3)
    axes[0].imshow(picture)
    axes[0].set_axis_off()
    axes[0].set_title("what the network\nis given", fontsize=9)
    for ax, (title, relevance) in zip(axes[1:], maps.items(), strict=True):
        dtd.plot.overlay(relevance[0], np.asarray(picture), ax, smooth=1.5)
        ax.set_title(title, fontsize=9)
    drawn(figure, "photograph")


def table() -> None:
    found = load_breast_cancer()
    model = make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=400, tol=1e-2, random_state=0))
    model.fit(found.data[100:], found.target[100:])
    relevance = dtd.explain(dtd.from_sklearn(model), found.data[:1])[0]
    figure = canvas(6, 3.6)
    ax = figure.subplots()
    dtd.plot.bars(relevance, found.feature_names, ax, top=8)
    ax.set_title("What makes this tumour malignant (blue) or benign (red)?", fontsize=10)
    drawn(figure, "table", 32)


def account() -> None:
    layers, _, ids, _ = sentiment()
    start = dtd.predict(layers, ids[:1]) * [-1.0, 1.0]
    figure = canvas(7, 4.2)
    dtd.plot.flow(dtd.Explainer(layers, rules="attnlrp").ledger(ids[:1], start), figure.subplots())
    drawn(figure, "ledger", 32)
    layers, images, _ = digits()
    maps = {name: dtd.explain(layers, images[:40], rules=name, domain=(0.0, 1.0)) for name in ("dtd", "lrp-epsilon")}
    found = evaluation.region_perturbation(layers, images[:40], maps, size=1, steps=20, operator=0.0, probability=True)
    figure = canvas(6, 3.6)
    dtd.plot.curves(found, figure.subplots())
    drawn(figure, "curves", 256)


def side_by_side(model: str) -> None:
    """What the code of docs/side-by-side.md draws, and the seconds that it takes."""
    page = (FOLDER.parent / "side-by-side.md").read_text(encoding="utf-8")
    space: dict[str, Any] = {"model": str(Path(model).absolute())}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for code in re.findall(r"```python \w+\n(.*?)```", page, re.DOTALL):
            exec(compile(code, "side-by-side.md", "exec"), space)
        for path in sorted(Path().glob("*.png")):
            saved(Image.open(path), path.stem, 128)
    print(space["took"])


def main(model: str, labels: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "demo.png"
        demo(path)
        whole = Image.open(path)
        small = whole.resize((1200, round(1200 * whole.height / whole.width)), Image.Resampling.LANCZOS)
        saved(small, "demo", method=Image.Quantize.MEDIANCUT)
    photograph(model, Path(labels))
    table()
    account()
    if all(importlib.util.find_spec(name) for name in ("torch", "captum", "shap")):
        side_by_side(model)
    else:
        print("the pictures of side-by-side.md need torch, captum and shap")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
