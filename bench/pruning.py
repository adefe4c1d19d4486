"""How long a network keeps its answers as weights or channels are set to 0: by relevance, by magnitude, at random.

python bench/pruning.py                                   # the digits that ship with the package
python bench/pruning.py squeezenet1_1.onnx                # and SqueezeNet, on crops of scikit-image's photographs

A seed draws the samples by which relevance is computed, the others are held out; and the random scores. Of SqueezeNet,
which comes without labelled photographs, the answer is that of the whole network. The last layer stays. Magnitudes of a
layer are divided by their Euclidean norm, so that layers compare; relevance needs no such thing, since every layer has
about as much of it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import dtdfast as dtd
from dtdfast import parameters
from dtdfast.data import digits
from dtdfast.images import Preparation

sys.path.append(str(Path(__file__).parents[1] / "tests" / "lib"))
from photographs import photographs

FRACTIONS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
RULES = {"relevance, z⁺": "dtd", "relevance, ε": "lrp-epsilon", "relevance, α2β1": "epsilon-alpha2-beta1"}
FED = Preparation(size=(227, 227), channels="bgr", mean=(104.0, 117.0, 123.0), scale=255.0)
CROPS = 48


@dataclass
class Task:
    """A network, its samples, the answers that it should keep, and how many samples relevance is computed by."""

    name: str
    layers: list[Any]
    x: Any
    answers: Any
    calibration: int
    domain: tuple[Any, Any]
    seeds: int


def digits_task() -> Task:
    layers, images, labels = digits()
    return Task("digits", layers, images, labels, 200, (0.0, 1.0), 5)


def squeezenet_task(path: Path) -> Task:
    layers = dtd.from_onnx(path)
    with tempfile.TemporaryDirectory() as folder:
        photographs(Path(folder), CROPS, "png")
        x = np.stack([FED.normalised(FED.picture(p)) for p in sorted(Path(folder).iterdir())])
    answers = dtd.predict(layers, x, backend="cpu").reshape(len(x), -1).argmax(axis=1)
    return Task("SqueezeNet", layers, x, answers, CROPS // 3, FED.domain, 3)


def magnitudes(layers: list[Any], positions: list[int], per: str) -> dict[int, Any]:
    """|w|, or its mean over a channel's weights, divided by the layer's Euclidean norm."""
    scores = {}
    for position in positions:
        size = np.abs(layers[position].weight)
        size = size if per == "weight" else size.reshape(len(size), -1).mean(axis=1)
        scores[position] = size / np.linalg.norm(size)
    return scores


def scores_of(task: Task, method: str, per: str, positions: list[int], rng: Any, some: Any) -> dict[int, Any]:
    if method in RULES:
        explainer = dtd.Explainer(task.layers, rules=RULES[method], domain=task.domain, backend="cpu")
        found = parameters.relevance(explainer, task.x[some], task.answers[some], positions=positions, per=per)
        return {position: np.abs(found[position]) for position in positions}
    scores = magnitudes(task.layers, positions, per)
    return scores if method == "magnitude" else {p: rng.random(a.shape) for p, a in scores.items()}


def kept(task: Task, layers: list[Any], held: Any) -> float:
    """The share of held-out samples with the right answer."""
    found = dtd.predict(layers, task.x[held], backend="cpu").reshape(len(held), -1).argmax(axis=1)
    return float((found == task.answers[held]).mean())


def curves(task: Task, per: str) -> dict[str, Any]:
    """{method: (mean, standard deviation) over seeds of what is kept, by fraction}."""
    positions = [p for p, record in enumerate(task.layers) if isinstance(record, (dtd.Linear, dtd.Conv))]
    del positions[-1]  # whose weights are of single classes: few samples say nothing of most
    result = {}
    for method in (*RULES, "magnitude", "random"):
        rows = []
        for seed in range(task.seeds):
            rng = np.random.default_rng(seed)
            order = rng.permutation(len(task.x))
            some, held = order[: task.calibration], order[task.calibration :]
            scores = scores_of(task, method, per, positions, rng, some)
            rows.append([kept(task, parameters.prune(task.layers, scores, q), held) for q in FRACTIONS])
        result[method] = np.mean(rows, axis=0), np.std(rows, axis=0)
    return result


def report(task: Task) -> None:
    for per in ("channel", "weight"):
        print(f"\n{task.name}: answers kept of {len(task.x) - task.calibration} held-out samples, by the share of each")
        print(f"{per} set to 0; mean ± standard deviation of {task.seeds} seeds\n")
        print("| | " + " | ".join(f"{q:.0%}" for q in FRACTIONS) + " |")
        print("|---" * (1 + len(FRACTIONS)) + "|")
        for method, (mean, spread) in curves(task, per).items():
            cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, spread, strict=True)]
            print(f"| {method} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, help="SqueezeNet v1.1 as ONNX")
    model = parser.parse_args().model
    tasks: list[Callable[[], Task]] = [digits_task]
    if model is not None and model.exists():
        tasks.append(partial(squeezenet_task, model))
    for task in tasks:
        report(task())
    if len(tasks) == 1:
        print(f"\nSqueezeNet is left out: {'no file was named' if model is None else f'{model} does not exist'}")


if __name__ == "__main__":
    main()
