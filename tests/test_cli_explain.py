"""`dtdfast explain`, `inspect`, `plan` on small models: pictures, summaries, how photographs are fed, and errors of one
line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from matplotlib.figure import Figure
from PIL import Image

import dtdfast as dtd
from cli_support import BODY, PHOTO, RNG, entries, here, run
from dtdfast import cli, plot
from dtdfast.cli import drawing
from dtdfast.images import IMAGENET, Preparation
from onnx_models import model

__all__ = ["here"]  # a fixture


def test_summary_is_what_the_library_says(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("net.onnx", "photo.png", "--labels", "labels.txt") == 0
    (entry,) = entries()
    fed = Preparation(size=(16, 24))
    x = fed.normalised(fed.picture(Path("photo.png")))[None]
    layers = dtd.from_onnx("net.onnx")
    explainer = dtd.Explainer(layers, domain=fed.domain)
    relevance, outputs = explainer.explain(x, return_outputs=True)
    target = int(outputs.argmax())
    assert entry["target"] == target
    assert entry["label"] == ("ash", "beech", "cedar", "deal", "elm")[target]
    assert entry["output"] == outputs[0, target]
    assert entry["probability"] == pytest.approx(dtd.predict(layers, x)[0, target], rel=1e-6)
    assert entry["relevance"] == pytest.approx(relevance.sum(), rel=1e-6)
    assert entry["account_closes"]
    assert entry["relevance"] == pytest.approx(entry["output"] - sum(entry["absorbed"].values()), rel=1e-5)
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(f"photo.png  {target} {entry['label']}")
    for kind in ("heatmap", "overlay"):
        with Image.open(Path("out") / entry[kind]) as picture:
            assert picture.size == (24 * 28, 16 * 28 + drawing.STRIP)
            assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 20


def test_a_saved_list_gives_the_same(here: Path) -> None:
    assert run("net.onnx", "photo.png") == 0
    (expected,) = entries()
    assert run("net.safetensors", "photo.png", "--size", "16x24") == 0
    assert entries() == [expected]


def test_target_rules_and_domain(here: Path) -> None:
    assert (
        run("net.onnx", "photo.png", "--target", "3", "--rules", "lrp-0", "--domain", "real", "--backend", "oracle")
        == 0
    )
    (entry,) = entries()
    fed = Preparation(size=(16, 24))
    x = fed.normalised(fed.picture(Path("photo.png")))[None]
    expected = dtd.explain(dtd.from_onnx("net.onnx"), x, 3, rules="lrp-0", backend="oracle").sum()
    assert (entry["target"], entry["label"]) == (3, None)
    assert entry["relevance"] == pytest.approx(expected, rel=1e-9)


def test_images_of_one_name_do_not_overwrite_each_other(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("other").mkdir()
    Image.fromarray(255 - PHOTO).save("other/photo.png")
    assert run("net.onnx", "photo.png", "other/photo.png") == 0
    assert [e["heatmap"] for e in entries()] == ["photo-1-heatmap.png", "photo-2-heatmap.png"]
    assert entries()[0]["relevance"] != entries()[1]["relevance"]
    assert "2/2" in capsys.readouterr().err


def test_channels_last_and_grey_models(here: Path) -> None:
    """The same network with its channels last; and one that takes grey pictures."""
    weight = RNG.standard_normal((5, 3, 3, 3)).astype(np.float32)
    tail = [dtd.Conv(weight), dtd.ReLU(), dtd.GlobalAvgPool(), dtd.Flatten()]
    dtd.save(tail, "first.safetensors")
    dtd.save([dtd.Permute((0, 3, 1, 2)), *tail], "last.safetensors")
    assert run("first.safetensors", "photo.png", "--size", "16") == 0
    first = entries()
    assert run("last.safetensors", "photo.png", "--size", "16", "--layout", "nhwc") == 0
    for key in ("target", "output", "heatmap"):
        assert entries()[0][key] == first[0][key]
    assert entries()[0]["relevance"] == pytest.approx(first[0]["relevance"], rel=1e-5)
    onnx.save(model(BODY, given="float[5,1,3,3] w", x="float[N,1,H,W] x"), "grey.onnx")
    assert run("grey.onnx", "photo.png", "--size", "16") == 0
    assert entries()[0]["account_closes"]


# ---------------------------------------------------------------------------------------------------------- photographs


def test_pixels_are_normalised_per_channel() -> None:
    fed = Preparation(size=(40, 60), crop=1.0)
    x = fed.normalised(PHOTO)
    mean, std = (np.array(v)[:, None, None] for v in IMAGENET)
    np.testing.assert_allclose(x, (PHOTO.transpose(2, 0, 1) / 255 - mean) / std, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(replace(fed, channels="bgr").normalised(PHOTO), x[::-1])
    np.testing.assert_array_equal(replace(fed, layout="nhwc").normalised(PHOTO), x.transpose(1, 2, 0))
    raw = replace(fed, scale=255.0, mean=(104.0, 117.0, 123.0), channels="bgr")
    np.testing.assert_array_equal(raw.normalised(PHOTO)[0], PHOTO[..., 2].astype(np.float32) - 104)


@pytest.mark.parametrize("scale", [None, -2.0])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("channels", ["rgb", "bgr", "gray"])
def test_black_and_white_are_the_ends_of_the_domain(channels: str, layout: str, scale: float | None) -> None:
    fed = Preparation(size=(2, 3), channels=channels, layout=layout, scale=scale)
    low, high = fed.domain if scale is None else fed.domain[::-1]  # under a negative scale white is the lower end
    pixels = (2, 3) if channels == "gray" else (2, 3, 3)
    assert low.shape == fed.shape
    np.testing.assert_array_equal(fed.normalised(np.zeros(pixels, np.uint8)), low.astype(np.float32))
    np.testing.assert_array_equal(fed.normalised(np.full(pixels, 255, np.uint8)), high.astype(np.float32))


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "I;16"])
def test_an_open_image_is_coloured_as_its_file_is(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "photo.png"
    inner = Image.fromarray(PHOTO) if mode != "I;16" else Image.fromarray(PHOTO[..., 0].astype(np.uint16) * 257)
    (inner if mode == "I;16" else inner.convert(mode)).save(path)
    for channels in ("rgb", "gray"):
        fed = Preparation(size=(8, 8), channels=channels)
        with Image.open(path) as image:
            assert image.mode in (mode, mode.partition(";")[0])  # earlier Pillows say "I" of 16 bits
            np.testing.assert_array_equal(fed.resized(image), fed.picture(path))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Preparation(size=64), r"size is 64, expected \(height, width\)"),  # type: ignore[arg-type]
        (lambda: Preparation(size=(8, 8), channels="RGB"), "channels is 'RGB', expected rgb or bgr or gray"),
        (lambda: Preparation(size=(8, 8), layout="NHWC"), "layout is 'NHWC', expected nchw or nhwc"),
        (lambda: Preparation(size=(8, 8)).resized(PHOTO), "image is a ndarray, expected one of Pillow's"),
        (
            lambda: Preparation(size=(8, 8)).normalised(np.zeros((3, 8, 8), np.uint8)),
            r"uint8 of shape \(3, 8, 8\), exp",
        ),
        (lambda: Preparation(size=(8, 8)).normalised(np.zeros((8, 8, 3))), "picture holds float64"),
        (lambda: Preparation((8, 8), channels="gray").normalised(np.zeros((8, 8, 3), np.uint8)), r"\(8, 8, 1\)"),
    ],
)
def test_pictures_that_are_none(call: Callable[[], object], message: str) -> None:
    with pytest.raises(dtd.InputError, match=message):
        call()


def test_one_number_for_all_channels() -> None:
    one = Preparation(size=(40, 60), crop=1.0, mean=0.5, std=np.array([0.25]))  # type: ignore[arg-type]
    np.testing.assert_array_equal(one.normalised(PHOTO), replace(one, mean=(0.5,) * 3).normalised(PHOTO))
    assert str(one).endswith("x = (1·p − 0.5) / 0.25 with p from 0 to 1")


def test_the_centre_is_kept_and_its_shape() -> None:
    inner = np.zeros((40, 60), np.uint8)
    inner[10:30, 20:40] = 255  # the central square of half the height
    kept = Preparation(size=(8, 8), crop=0.5, channels="gray").resized(Image.fromarray(inner))
    assert kept.min() > 127
    wide = Preparation(size=(8, 12), crop=1.0, channels="gray").resized(Image.fromarray(inner))
    np.testing.assert_array_equal(wide > 127, np.pad(np.full((4, 4), True), ((2, 2), (4, 4))))


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    upright = np.zeros((20, 20, 3), np.uint8)
    upright[:10] = 255
    image = Image.fromarray(np.rot90(upright))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    picture = Preparation(size=(20, 20), crop=1.0).picture(tmp_path / "turned.png")
    np.testing.assert_array_equal(picture, upright)


def test_a_saved_list_does_not_say_its_size(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = [dtd.Conv(np.ones((1, 3, 3, 3)), padding=1), dtd.Flatten(), dtd.Linear(np.ones((2, 16)))]
    dtd.save(layers, "small.safetensors")
    assert run("small.safetensors", "photo.png") == 2
    assert "does not say the size of its pictures, and 224 × 224 was taken: give --size" in capsys.readouterr().err
    assert run("small.safetensors", "photo.png", "--size", "4", "--domain", "real") == 0


def test_overlay_is_checked() -> None:
    with pytest.raises(dtd.ShapeError, match=r"picture has shape \(4, 4\)"):
        plot.overlay(np.ones((3, 5, 5)), np.ones((4, 4)))
    for wrong in (np.full((5, 5), 200.0), np.full((5, 5), 200), -np.ones((5, 5)), np.full((5, 5), np.nan)):
        with pytest.raises(dtd.InputError, match="expected bytes"):
            plot.overlay(np.ones((3, 5, 5)), wrong)
    for options in ({"vmin": 0}, {"alpha": 0.5}):
        with pytest.raises(dtd.InputError, match="is none of an overlay's options"):
            plot.overlay(np.ones((5, 5)), np.ones((5, 5)), Figure().subplots(), **options)
    with pytest.raises(dtd.InputError, match="vmin= would move the colours"):
        plot.heatmap(np.ones((5, 5)), Figure().subplots(), vmin=0)


# --------------------------------------------------------------------------------------------------- inspect and plan


def test_inspect(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "net.onnx"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split(None, 4) == ["0", "Conv", "a", "input", "(n, 5, 14, 22)  135"]
    assert lines[-1] == "input (n, 3, 16, 24), 5 layers, 135 parameters"
    assert cli.main(["inspect", "net.safetensors"]) == 0
    printed = capsys.readouterr().out
    assert "?" in printed
    assert printed.endswith("say them as --shape C,H,W\n")
    assert cli.main(["inspect", "net.safetensors", "--shape", "3,9,9"]) == 0
    assert "(n, 5, 7, 7)" in capsys.readouterr().out


def test_inspect_says_what_would_be_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(model("a = Relu(x) b = Hardmax(a) y = Hardmax(b)"), "odd.onnx")
    assert cli.main(["inspect", "odd.onnx"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "refused: node 1 (Hardmax): this operator has no record",
        "refused: node 2 (Hardmax): this operator has no record",
    ]
    onnx.save(model("a = Relu(x) y = Mul(a, x)"), "gate.onnx")
    assert cli.main(["inspect", "gate.onnx"]) == 0
    assert "predicted, but not explained: layer 1 (Mul 'y')" in capsys.readouterr().out


def test_inspect_as_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "net.onnx", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    first = {"position": 0, "record": "Conv", "name": "a", "reads": [-1], "output": [5, 14, 22], "parameters": 135}
    assert found["layers"][0] == first
    assert (found["sample"], len(found["layers"]), found["refused"]) == ([3, 16, 24], 5, [])
    onnx.save(model("a = Relu(x) y = Mul(a, x)"), "gate.onnx")
    assert cli.main(["inspect", "gate.onnx", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["not explained"].startswith("layer 1 (Mul 'y')")
    onnx.save(model("y = Hardmax(x)"), "odd.onnx")
    assert cli.main(["inspect", "odd.onnx", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["refused"] == ["node 0 (Hardmax): this operator has no record"]


def test_plan(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "net.onnx", "--batch", "3"]) == 0
    layers = dtd.from_onnx("net.onnx")
    fed = Preparation(size=(16, 24))
    assert capsys.readouterr().out == f"{dtd.Explainer(layers, domain=fed.domain).plan_for((3, 3, 16, 24))}\n"
    assert cli.main(["plan", "net.onnx", "--domain", "real"]) == 0
    assert capsys.readouterr().out == f"{dtd.Explainer(layers).plan_for((1, 3, 16, 24))}\n"
    assert cli.main(["plan", "net.safetensors", "--shape", "3,9,9", "--rules", "lrp-epsilon"]) == 0
    planned = dtd.Explainer(layers, rules="lrp-epsilon").plan_for((1, 3, 9, 9))
    assert capsys.readouterr().out == f"{planned}\n"
    assert cli.main(["plan", "net.safetensors", "--shape", "3,9,9", "--rules", "lrp-epsilon", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [s["step"] for s in found["steps"]] == list(range(len(planned.forward) + len(planned.relevance)))
    assert sum(s["multiply-adds"] for s in found["steps"]) == found["multiply-adds"] == planned.macs
    assert any(s["rule"] for s in found["steps"])


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("explain", "net.onnx", "no.png"), "no.png"),
        (("explain", "net.onnx", "photo.png", "-o", "map.png"), "--output is map.png, expected a folder"),
        (("explain", "net.onnx", "net.onnx"), "net.onnx cannot be read as an image"),
        (("explain", "no.onnx", "photo.png"), "no.onnx"),
        (("explain", "photo.png", "photo.png"), "expected a file that ends in .onnx"),
        (
            ("explain", "net.onnx", "photo.png", "--channels", "gray"),
            "is declared as (n, 3, 16, 24); say --layout nchw --channels rgb, or neither",
        ),
        (("explain", "net.onnx", "photo.png", "--mean", "1,2"), "expected one number or 3 (rgb)"),
        (("explain", "net.onnx", "photo.png", "--std", "0"), "expected positive numbers"),
        (("explain", "net.onnx", "photo.png", "--crop", "2"), "crop is 2.0"),
        (("explain", "net.onnx", "photo.png", "--size", "2"), "kernel spans 3"),
        (("explain", "net.onnx", "photo.png", "--domain=0,1"), "leaves the box"),
        (("explain", "net.onnx", "photo.png", "--target", "9"), "9"),
        (("explain", "net.onnx", "photo.png", "--labels", "two.txt", "--target", "4"), "the labels file has 2 lines"),
        (("explain", "net.onnx", "photo.png", "--backend", "abacus"), "abacus"),
        (("explain", "words.onnx", "photo.png"), "its input is not an image"),
        (("explain", "cut.onnx", "photo.png"), "cut.onnx"),
        (("plan", "net.safetensors"), "--shape"),
        (("plan", "odd.onnx"), "node 0 (Erf)"),
        (("inspect", "net.safetensors", "--shape", "2,9,9"), "layer 0 (Conv 'a')"),
    ],
)
def test_errors_are_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    onnx.save(model("y = Gather(w, x)", given="float[5,3] w", x="int64[N,6] x"), "words.onnx")
    onnx.save(model("y = Erf(x)"), "odd.onnx")
    Path("two.txt").write_text("ash\nbeech\n")
    Path("cut.onnx").write_bytes(Path("net.onnx").read_bytes()[:200])
    more = ("-o", "out") if arguments[0] == "explain" and "-o" not in arguments else ()
    assert cli.main([*arguments, *more]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("dtdfast: ")
    assert captured.err.count("\n") == 1


def test_a_picture_that_would_fill_the_memory_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert run("net.onnx", "photo.png") == 2
    assert "decompression bomb" in capsys.readouterr().err


def test_outputs_by_label_and_against_each_other(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("labels.txt").write_text("\n".join(("ash, tree", "beech, tree", "cedar", "deal", "elm")))
    assert run("net.onnx", "photo.png", "--labels", "labels.txt", "--target", "CEDAR", "--against", "ash") == 0
    (entry,) = entries()
    assert (entry["target"], entry["against"]["target"], entry["against"]["label"]) == (2, 0, "ash, tree")
    fed = Preparation(size=(16, 24))
    x = fed.normalised(fed.picture(Path("photo.png")))[None]
    layers = dtd.from_onnx("net.onnx")
    relevance = dtd.explain(layers, x, 2, against=0, domain=fed.domain)
    assert entry["relevance"] == pytest.approx(float(relevance.sum(dtype=np.float64)), rel=1e-6)
    assert entry["account_closes"]
    assert run("net.onnx", "photo.png", "--target", "2", "--against", "rest") == 0
    assert entries()[0]["against"] == "rest"
    capsys.readouterr()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--target", "cedar"), "--labels FILE, which is not given"),
        (("--target", "oak", "--labels", "labels.txt"), "no output is called 'oak'"),
        (("--target", "eec", "--labels", "labels.txt"), "it is part of 'beech'"),
        (("--target=--5,cedar", "--labels", "labels.txt"), "no output is called '--5'"),
        (("--target", "cedars", "--labels", "labels.txt"), "no output is called 'cedars'; near are 'cedar'"),
        (("--target", "2", "--against", "7"), "--against is 7, but the network has 5 outputs"),
        (("--target", "2", "--against", "2"), "is set against itself"),
    ],
)
def test_outputs_that_are_none(
    here: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert run("net.onnx", "photo.png", *options) == 2
    assert message in capsys.readouterr().err


def test_a_label_of_several_outputs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("labels.txt").write_text("\n".join(("ash, tree", "beech, tree", "cedar", "deal", "elm")))
    assert run("net.onnx", "photo.png", "--labels", "labels.txt", "--target", "tree") == 2
    assert "2 outputs are called 'tree': 0 (ash, tree), 1 (beech, tree)" in capsys.readouterr().err
