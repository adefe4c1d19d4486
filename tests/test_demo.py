"""The shipped network and digits, the demo's picture, heatmaps, and the README's code."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

import dtdfast as dtd
import onnx_models
from dtdfast import plot
from dtdfast.cli import drawing
from dtdfast.cli.demo import demo
from dtdfast.data import digits, photograph, sentiment
from dtdfast.errors import BackendError, DtdError

matplotlib = pytest.importorskip("matplotlib")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def shipped():
    return digits()


def test_the_network_reads_digits_it_never_saw(shipped):
    layers, images, labels = shipped
    outputs = dtd.predict(layers, images)
    assert images.shape == (540, 1, 8, 8)
    assert (images.min(), images.max()) == (0, 1)
    assert set(labels) == set(range(10))
    assert (outputs.argmax(axis=1) == labels).mean() > 0.98


def test_biases_are_such_that_relevance_is_conserved(shipped):
    layers, images, _ = shipped
    assert all(record.bias.max() <= 0 for record in layers if hasattr(record, "bias"))
    logits = dtd.predict(layers, images, backend="oracle").max(axis=1)
    relevance = dtd.explain(layers, images.astype(np.float64), domain=(0.0, 1.0), backend="oracle")
    # float64: the products of 5 layers of at most 256 terms, all of one sign, each with a relative error of at most
    # 256·2⁻⁵³
    np.testing.assert_allclose(relevance.sum(axis=(1, 2, 3)), logits, rtol=5 * 256 * 2**-53)
    assert relevance.min() >= 0


def test_the_transformer_reads_sentences_it_never_saw():
    layers, words, ids, labels = sentiment()
    assert ids.shape == (500, 8)
    assert ids.max() < len(words)
    assert set(labels) == {0, 1}
    assert (dtd.predict(layers, ids).argmax(axis=1) == labels).mean() > 0.98
    for rules in ("cp-lrp", "attnlrp", "dtd"):
        assert dtd.Explainer(layers, rules=rules).ledger(ids, labels).closed


def test_shipped_files_are_small():
    files = [
        file
        for kind in ("digits", "sentiment", "photographs")
        for file in (Path(dtd.__file__).parent / "data").glob(f"{kind}*")
    ]
    assert len(files) == 6
    assert sum(file.stat().st_size for file in files) < 450_000


def test_demo_writes_a_picture_and_says_what_it_measured(tmp_path):
    text = demo(tmp_path / "demo.png")
    lines = [re.split(r"  +", line, maxsplit=1) for line in text.splitlines()]
    assert [key for key, _ in lines[5:]] == ["photograph", "picture", "conclusion", "your own"]
    rows = dict(lines[:5])
    assert list(rows) == ["network", "accuracy", "conservation", "time", "picture"]
    assert float(re.search(r"= (\S+),", rows["conservation"])[1]) < 1e-5
    assert float(re.match(r"[\d.]+", rows["time"])[0]) > 0
    assert rows["picture"] == str((tmp_path / "demo.png").resolve())
    pixels = matplotlib.image.imread(tmp_path / "demo.png")[..., :3]
    assert pixels.shape[1] > pixels.shape[0] > 1000
    red, blue = pixels[..., 0] - pixels[..., 2] > 0.5, pixels[..., 2] - pixels[..., 0] > 0.3
    assert red.mean() > 0.02  # heatmaps are there, in both colours
    assert blue.mean() > 0.002


def test_demo_explains_a_photograph(tmp_path):
    text = demo(tmp_path / "demo.png")
    second = tmp_path / "demo-photograph.png"
    assert f"picture       {second.resolve()}" in text
    pixels = matplotlib.image.imread(second)
    assert pixels.shape == (448 + drawing.STRIP, 4 * 448 + 3 * drawing.GAP, 3)
    found = re.search(r"photograph +cat, p = ([\d.]+).*ΣR = ([\d.]+), f = ([\d.]+)", text)
    assert float(found[1]) > 0.9
    assert float(found[2]) == pytest.approx(float(found[3]), abs=0.002)
    layers, picture, kinds = photograph()
    assert picture.shape == (224, 224, 3)
    assert dtd.predict(layers, picture.transpose(2, 0, 1)[None] / 255).shape == (1, len(kinds))


def test_heatmap_is_symmetric_sums_channels_and_clips():
    relevance = np.zeros((2, 20, 20))
    relevance[:, 0, 0] = 50
    relevance[0] += 1
    relevance[1] -= 3
    axes = matplotlib.figure.Figure().subplots()
    image = plot.heatmap(relevance, axes, percentile=99)
    np.testing.assert_array_equal(image.get_array(), relevance.sum(axis=0))
    assert image.get_clim() == (-2, 2)
    assert plot.heatmap(relevance[0], axes, percentile=100).get_clim() == (-51, 51)


def test_heatmap_of_zeros_and_of_one_pixel():
    axes = matplotlib.figure.Figure().subplots()
    assert plot.heatmap(np.zeros((3, 3)), axes).get_clim() == (-1, 1)
    assert plot.heatmap(np.eye(1, 4000).reshape(40, 100) * 7, axes).get_clim() == (-7, 7)


@pytest.mark.parametrize("relevance", [np.zeros(4), np.zeros((1, 3, 4, 4)), np.full((2, 2), np.nan)])
def test_heatmap_refuses_what_is_not_an_image(relevance):
    with pytest.raises(DtdError, match="relevance"):
        plot.heatmap(relevance, matplotlib.figure.Figure().subplots())


def test_heatmap_without_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    with pytest.raises(BackendError, match=r"dtdfast\[plot\]"):
        plot.heatmap(np.zeros((2, 2)))


README = re.sub(
    r"^## Data sets.*?(?=^## )", "", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL
)  # test_cli_run.py walks it
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_the_readme_has_code():
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize("block", BLOCKS, ids=["a network", "a model file", "a text", "the demo's network"])
def test_readme_code_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classifier = "h = Conv <strides = [32, 32]> (x, w) r = Relu(h) f = Flatten(r) y = Gemm <transB = 1> (f, v)"
    network = onnx_models.model(classifier, "float[4,3,32,32] w, float[10,196] v", x="float[N,3,224,224] x")
    onnx.save(network, tmp_path / "model.onnx")
    names = {}
    exec(block, names)  # assertions in the block are the test
    assert "relevance" in names
