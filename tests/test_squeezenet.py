"""A trained network from its own file: SqueezeNet v1.1 on photographs, from the pixels to the summary of `dtdfast
explain`.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

import dtdfast as dtd
from dtdfast import cli
from dtdfast.cpu.executor import precisions
from dtdfast.images import Preparation
from run_support import LONG

ROOT = Path(__file__).parents[1]
FOLDER = ROOT.parent / "shared" / "data"
MODEL, LABELS = FOLDER / "squeezenet1_1.onnx", FOLDER / "imagenet_labels.txt"
pytestmark = pytest.mark.skipif(not MODEL.exists(), reason="SqueezeNet's weights are not in ../shared/data")

# as the file's doc_string says
FED = Preparation(size=(227, 227), channels="bgr", mean=(104.0, 117.0, 123.0), scale=255.0)
CLASSES = {"chelsea": "Egyptian cat", "coffee": "espresso"}
# in the photograph, by eye: rows and columns of the cat's face from eyes to nose, and of the cup with its handle
BOXES = {
    "chelsea": (slice(80, 270), slice(125, 350)),
    "coffee": (slice(15, 310), slice(165, 410)),
}


@lru_cache
def layers() -> list[dtd.Layer]:
    return dtd.from_onnx(MODEL)


@lru_cache
def photographs(folder: Path) -> dict[str, Path]:
    paths = {name: folder / f"{name}.png" for name in CLASSES}
    for name, path in paths.items():
        Image.fromarray(getattr(data, name)()).save(path)
    return paths


@pytest.fixture(scope="module")
def x(tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.float32]:
    paths = photographs(tmp_path_factory.mktemp("photographs"))
    return np.stack([FED.normalised(FED.picture(path)) for path in paths.values()])


def test_predicts_as_onnxruntime_does(x: NDArray[np.float32]) -> None:
    session = onnxruntime.InferenceSession(str(MODEL), providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: x})[0]
    labels = LABELS.read_text().splitlines()
    for backend in (b.name for b in dtd.backends().values() if b.usable):
        outputs = dtd.predict(layers(), x, backend=backend)
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4 * expected.max())
        assert [labels[i] for i in outputs.argmax(axis=1)] == list(CLASSES.values())


def test_conserves_the_logit_and_is_never_negative(x: NDArray[np.float32]) -> None:
    explainer = dtd.Explainer(layers(), domain=FED.domain)
    relevance, logits = explainer.explain(x, return_outputs=True)
    np.testing.assert_allclose(relevance.sum(axis=(1, 2, 3), dtype=np.float64), logits.max(axis=1), rtol=1e-4)
    assert relevance.min() >= 0
    ledger = explainer.ledger(x)
    assert ledger.closed, ledger


@pytest.fixture(scope="module")
def exact(x: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The oracle's maps and outputs."""
    return dtd.explain(layers(), x, domain=FED.domain, backend="oracle", return_outputs=True)


@pytest.mark.skipif("mixed" not in precisions(), reason="this CPU has no bfloat16")
@pytest.mark.parametrize("precision", ["bfloat16", "mixed"])
def test_narrow_maps_are_within_a_hundredth(precision: str, x: NDArray[np.float32], exact: Any) -> None:
    narrow = dtd.Explainer(layers(), domain=FED.domain, backend="cpu", precision=precision)
    relevance, logits = narrow.explain(x, return_outputs=True)
    maps, outputs = exact
    assert (logits.argmax(axis=1) == outputs.argmax(axis=1)).all()
    assert (abs(relevance - maps).sum(axis=(1, 2, 3)) <= 0.01 * abs(maps).sum(axis=(1, 2, 3))).all()


def permuted(seed: int) -> list[dtd.Layer]:
    """The same weights in another order within every layer."""
    rng = np.random.default_rng(seed)
    return [
        replace(record, weight=rng.permutation(record.weight.ravel()).reshape(record.weight.shape))
        if isinstance(record, dtd.Conv)
        else record
        for record in layers()
    ]


def inside_to_outside(relevance: NDArray[Any], name: str) -> float:
    """Mean relevance within the box over the mean of the rest."""
    inside = np.zeros(getattr(data, name)().shape[:2], np.uint8)
    inside[BOXES[name]] = 255
    mask = FED.resized(Image.fromarray(inside))[..., 0] > 127
    return float(relevance[mask].mean() / relevance[~mask].mean())


def test_relevance_lies_on_the_object_since_the_weights_are_trained(x: NDArray[np.float32]) -> None:
    """Untrained weights look at whatever has contrast, each permutation elsewhere; on average they hardly prefer the
    object.
    """
    target = dtd.predict(layers(), x).argmax(axis=1)
    trained = dtd.explain(layers(), x, target, domain=FED.domain).sum(axis=1)
    average = np.zeros_like(trained)
    for seed in range(32 if LONG else 8):
        maps = dtd.explain(permuted(seed), x, target, domain=FED.domain).sum(axis=1)
        total = maps.sum(axis=(1, 2), keepdims=True)
        average += maps / np.where(total > 0, total, 1)  # a class that a permutation never reaches has no relevance
    for i, name in enumerate(CLASSES):
        assert inside_to_outside(trained[i], name) >= 1.5
        assert inside_to_outside(average[i], name) <= 1.2


def readme_command(kind: str) -> list[str]:
    """The arguments of the README's `dtdfast <kind> squeezenet1_1.onnx ...`."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = re.findall(rf"^dtdfast ({kind} squeezenet1_1\.onnx.*)$", text, re.MULTILINE)
    return shlex.split(command)


def test_the_readme_explains_photographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four of them; five crops of each with DTDFAST_LONG=1."""
    crops = ((0, 0), (0, -1), (-1, 0), (-1, -1), (0.1, 0.1))[: None if LONG else 1]
    count = 4 * len(crops)
    monkeypatch.chdir(tmp_path)
    Path("squeezenet1_1.onnx").symlink_to(MODEL)
    Path("imagenet_labels.txt").symlink_to(LABELS)
    Path("photos").mkdir()
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        whole = getattr(data, name)()
        side = min(whole.shape[:2]) * 4 // 5
        for number, (top, left) in enumerate(crops):
            crop = np.roll(whole, (-int(side * top), -int(side * left)), axis=(0, 1))[:side, :side]
            Image.fromarray(crop).save(f"photos/{name}{number}.png")
    arguments = [str(p) for a in readme_command("explain") for p in (sorted(Path().glob(a)) if "*" in a else [a])]
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out.count("account closes") == count
    assert f"{count}/{count}" in captured.err  # the progress bar
    folder = Path(arguments[arguments.index("-o") + 1])
    entries = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["images"]
    assert len(entries) == count
    labels = LABELS.read_text().splitlines()
    for entry in entries:
        assert entry["label"] == labels[entry["target"]]
        assert entry["account_closes"]
        assert 0 < entry["probability"] <= 1
        np.testing.assert_allclose(entry["relevance"], entry["output"], rtol=1e-4)
        assert sum(entry["absorbed"].values()) == pytest.approx(0, abs=1e-4 * entry["output"])
        for kind in ("heatmap", "overlay"):
            with Image.open(folder / entry[kind]) as picture:
                assert picture.size == (454, 480)  # the map, and its title above it


def test_the_readme_inspects_and_plans(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(FOLDER)
    assert cli.main(readme_command("inspect")) == 0
    assert "66 layers, 1,235,496 parameters" in capsys.readouterr().out
    assert cli.main(readme_command("plan")) == 0
    assert "plan to explain for 1 sample(s) of (3, 227, 227)" in capsys.readouterr().out
