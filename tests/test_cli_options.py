"""Options of `dtdfast explain` for photographs: several outputs and rules, pictures, the ledger, folders, JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dtdfast as dtd
from cli_support import PHOTO, entries, here, run
from dtdfast import cli
from dtdfast.images import Preparation
from dtdfast.runs.sources import open_source
from support import DOCS

__all__ = ["here"]  # a fixture


def test_several_outputs_and_rules(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--labels", "labels.txt", "--target", "cedar,1", "--rules", "dtd,lrp-0", "--domain", "real")
    assert run("net.onnx", "photo.png", *options) == 0
    (entry,) = entries()
    assert [(m["rule"], m["target"]) for m in entry["maps"]] == [("dtd", 2), ("dtd", 1), ("lrp-0", 2), ("lrp-0", 1)]
    fed = Preparation(size=(16, 24))
    x = fed.normalised(fed.picture(Path("photo.png")))[None]
    for told in entry["maps"]:
        expected = dtd.explain(dtd.from_onnx("net.onnx"), x, told["target"], rules=told["rule"])
        assert told["relevance"] == pytest.approx(float(expected.sum(dtype=np.float64)), rel=1e-6, abs=1e-6)
        assert told["account_closes"]
    pictures = {m[kind] for m in entry["maps"] for kind in ("heatmap", "overlay")} | {entry["grid"], "summary.json"}
    assert pictures == {path.name for path in Path("out").iterdir()}
    assert entry["maps"][3]["overlay"] == "photo-lrp-0-1-overlay.png"
    assert len(capsys.readouterr().out.splitlines()) == 4 + 2


def test_the_largest_outputs(here: Path) -> None:
    assert run("net.onnx", "photo.png", "--top", 3, "--no-ledger") == 0
    (entry,) = entries()
    outputs = [e["output"] for e in entry["top"]]
    assert outputs == sorted(outputs, reverse=True)
    assert [m["target"] for m in entry["maps"]] == [e["target"] for e in entry["top"]]
    assert {m["account_closes"] for m in entry["maps"]} == {None}
    assert run("net.onnx", "photo.png", "--top", 3) == 0
    assert [m["relevance"] for m in entries()[0]["maps"]] == [m["relevance"] for m in entry["maps"]]
    assert entries()[0]["account_closes"]


def test_display_changes_pictures_alone(here: Path) -> None:
    assert run("net.onnx", "photo.png") == 0
    (before,), drawn = entries(), Path("out/photo-heatmap.png").read_bytes()
    for options in (("--smooth", "1.5"), ("--percentile", "50"), ("--colormap", "PiYG")):
        assert run("net.onnx", "photo.png", *options) == 0
        assert entries() == [before]
        assert Path("out/photo-heatmap.png").read_bytes() != drawn
    assert json.loads(Path("out/summary.json").read_text())["display"]["colormap"] == "PiYG"
    assert run("net.onnx", "photo.png", "--smooth", "0", "--colormap", "RdBu_r", "--top", 1, "--threads", 1) == 0
    assert Path("out/photo-heatmap.png").read_bytes() == drawn


def test_a_folder_without_what_was_drawn(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/below").mkdir(parents=True)
    for name in ("b.png", "below/a.png"):
        Image.fromarray(PHOTO).save(Path("photos", name))
    Path("photos/bad.png").write_bytes(b"no image")
    Path("photos/notes.txt").write_text("no image")
    for _ in range(2):  # its own pictures are not taken for photographs
        assert cli.main(["explain", "net.onnx", "photos", "-o", "photos/maps"]) == 1
        found = entries("photos/maps")
        assert [e["file"] for e in found] == ["photos/b.png", "photos/bad.png", "photos/below/a.png"]
        assert ["error" in e for e in found] == [False, True, False]
        assert list(open_source("photos").names or ()) == ["b.png", "bad.png", "below/a.png"]  # of runs and reports
        assert [Path(n).name for n in open_source("photos/**/*.png").names or ()] == ["b.png", "bad.png", "a.png"]
    assert run("net.onnx", "photos/maps") == 2
    assert "photos/maps: no images there but those that dtdfast has drawn" in capsys.readouterr().err
    Path("empty").mkdir()
    assert run("net.onnx", "empty") == 2
    assert "empty: no images there" in capsys.readouterr().err


def test_the_summary_as_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("net.onnx", "photo.png", "--json", "--labels", "labels.txt") == 0
    printed = capsys.readouterr().out
    assert json.loads(printed) == json.loads(Path("out/summary.json").read_text())
    assert list(json.loads(printed)) == ["dtdfast", "model", "rules", "domain", "preparation", "display", "images"]


def test_more_photographs_than_a_batch(here: Path) -> None:
    """Each gets its own map, in order, whatever batch it is in, and a bad one is told alone."""
    shades = [(PHOTO * share).astype(np.uint8) for share in np.linspace(0.2, 1, 19)]
    for k, shade in enumerate(shades):
        Image.fromarray(shade).save(f"{k:02}.png")
    Path("07.png").write_bytes(b"no image")
    assert cli.main(["explain", "net.onnx", *(f"{k:02}.png" for k in range(19)), "-o", "out", "--threads", "2"]) == 1
    fed = Preparation(size=(16, 24))
    explainer = dtd.Explainer(dtd.from_onnx("net.onnx"), domain=fed.domain)
    for k, entry in enumerate(entries()):
        assert entry["file"] == f"{k:02}.png"
        if k == 7:
            assert "cannot be read as an image" in entry["error"]
            continue
        outputs = explainer.explain(fed.normalised(fed.picture(Path(f"{k:02}.png")))[None], return_outputs=True)[1]
        assert entry["output"] == outputs.max()


def test_pictures_of_a_thin_input_stay_small(here: Path) -> None:
    """They were enlarged by their shorter side, to 10 GB for one of 1 × 16384. Nor has a label to be there."""
    Path("blank.txt").write_text("\n \n\n\n.\n")
    assert run("net.safetensors", "photo.png", "--size", "600x3", "--labels", "blank.txt") == 0
    assert Image.open("out/photo-heatmap.png").size == (27 * 3, 26 + 27 * 600)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--top", "2", "--target", "1"), "--top is for the largest outputs, and --target names others"),
        (("--top", "6"), "--top is 6, but the network has 5 outputs"),
        (("--top", "0"), "--top: '0' is not an integer of at least 1"),
        (("",), "a path of DATA is empty"),
        (("--labels", ""), "--labels: the path is empty"),
        (("--top", "2", "--against", "1"), "--top 2 may meet output 1"),
        (("--target", "1,1"), "--target names output 1 twice"),
        (("--target=+-1", "--labels", "names.txt"), "--target: no output is called '+-1'"),
        (("--target", "1,7"), "--target is 7, but the network has 5 outputs"),
        (("--rules", "dtd,none"), "--rules: 'none' is none of dtd"),
        (("--rules", "dtd,dtd"), "--rules: 'dtd' is named twice"),
        (("--rules", "dtd,epsilon-gamma-box", "--domain", "real"), "layer 0 (Conv 'a')"),
        (("--smooth", "-1"), "--smooth: '-1' is not a number of pixels from 0 to 100"),
        (("--percentile", "0"), "--percentile: '0' is not a number above 0 and up to 100"),
        (("--colormap", "RdBu_q"), "--colormap is 'RdBu_q', which matplotlib does not know; near are"),
    ],
)
def test_wrong_values_are_refused_by_name(
    here: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    Path("names.txt").write_text("ash\nbeech\n")
    assert run("net.onnx", "photo.png", *options) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("name", "way"),
    [("net.pth", "from_torch"), ("net.pt2", "from_torch"), ("net.keras", "from_keras"), ("net.joblib", "from_sklearn")],
)
def test_the_way_from_other_models(here: Path, capsys: pytest.CaptureFixture[str], name: str, way: str) -> None:
    for command in (["explain", name, "photo.png", "-o", "out"], ["report", name, "photo.png"], ["inspect", name]):
        assert cli.main(command) == 2
        assert f"save it once from Python: dtdfast.save(dtdfast.{way}(" in capsys.readouterr().err


def test_names_that_would_do_harm(here: Path) -> None:
    names = ("<b>x.png", "\u202eright to left.png", "line\nbreak.png", "n" * 240 + ".png")
    for name in names:
        Image.fromarray(PHOTO).save(name)
    Path("labels.txt").write_text("\n".join(("<script>", "\u202eash", "b" * 300, "$x$", "\x1b[31mred")))
    assert run("net.onnx", *names, "--labels", "labels.txt", "--rules", "dtd,lrp-0", "--domain", "real") == 0
    assert [e["file"] for e in entries()][1] == r"\u202eright to left.png"
    assert all(path.name.isprintable() for path in Path("out").iterdir())


# ------------------------------------------------------------------------------------------------------ documentation


PAGES = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("command-line.md", "scale.md", "report.md"))


@pytest.mark.parametrize("command", ["explain", "browse", "report"])
def test_every_option_is_documented_and_in_a_group(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    options = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert len(options) > 5
    assert [option for option in sorted(options) if option not in PAGES] == []


def test_every_key_of_the_summary_is_documented(here: Path) -> None:
    assert (
        run("net.onnx", "photo.png", "--rules", "dtd,lrp-0", "--domain", "real", "--target", "1", "--against", "2") == 0
    )
    summary = json.loads(Path("out/summary.json").read_text())
    (entry,) = summary["images"]
    keys = {*summary, *summary["display"], *entry, *entry["maps"][0], *entry["top"][0]}
    assert [key for key in sorted(keys) if f"`{key}`" not in PAGES] == []
