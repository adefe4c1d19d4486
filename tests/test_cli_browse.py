"""`dtdfast browse`: which samples a contact sheet shows, what it says of them, and that no name becomes markup."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

import dtdfast as dtd
from dtdfast import cli
from dtdfast.data import digits
from dtdfast.reports.elements import VOID
from dtdfast.runs.overview import Overview

RNG = np.random.default_rng(0)
HOSTILE = ("<img src=x onerror=alert(1)>.png", "\u202egnp.png", "line\nbreak.png", "n" * 240 + ".png")


class Tags(HTMLParser):
    """Every element with its attributes, and whether all are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pictures(here: Path) -> list[dtd.Layer]:
    """A run over photographs with names that would do harm, one of them damaged."""
    layers = [dtd.Conv(RNG.standard_normal((5, 3, 3, 3))), dtd.ReLU(), dtd.GlobalAvgPool(), dtd.Flatten()]
    dtd.save(layers, "net.safetensors")
    Path("photos").mkdir()
    for name in HOSTILE:
        Image.fromarray(RNG.integers(0, 256, (20, 24, 3), np.uint8)).save(Path("photos", name))
    Path("photos/<b>bad.png").write_bytes(b"no image")
    assert cli.main(["explain", "net.safetensors", "photos", "-o", "maps.zarr", "--size", "8", "--ledger"]) == 1
    Path("labels.txt").write_text("<script>alert(1)</script>\n\u202eash\n" + "b" * 300 + "\n$x$\nred\n")
    return layers


def test_photographs(pictures: list[dtd.Layer], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.main(["browse", "maps.zarr", "--data", "photos", "--labels", "labels.txt", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    group = zarr.open_group("maps.zarr", mode="r")
    assert (data["samples"], data["finished"], data["bad"], data["accounts_open"]) == (5, 5, 1, 0)
    for key in ("most_absorbed", "highest_scores"):
        assert len(data[key]) == 4
        for sample in data[key]:
            number = sample["sample"]
            assert sample["name"] == group["name"][number]
            assert sample["target"] == group["target"][number]
            assert sample["score"] == group["outputs"][number].max()
            assert sample["arrived"] == pytest.approx(group["relevance"][number].sum(dtype=np.float64), rel=1e-6)
    assert [e["name"] for e in data["errors"]] == ["<b>bad.png"]
    text = Path("maps.html").read_text(encoding="utf-8")
    tags = Tags(text)
    assert tags.open == []
    images = [of for name, of in tags.seen if name == "img"]
    assert len(images) == 2 * 2 * 4  # map and overlay, in both sections
    assert all(of["src"].startswith("data:image/png") and of["alt"] for of in images)
    assert not {"script", "b", "iframe", "link"} & {name for name, _ in tags.seen}
    assert "\u202e" not in text
    assert cli.main(["browse", "maps.zarr"]) == 0  # its own page may be replaced
    assert capsys.readouterr().out.startswith("5 of 5 sample(s), 1 bad; accounts: all close; largest share absorbed")


def test_what_was_absorbed_is_a_share_whatever_the_sign_of_the_output() -> None:
    ledger = np.array([[2.0, 1.0], [-2.0, -1.0], [-2.0, -3.0], [0.0, 1.0]])
    of: Any = Overview(None, np.arange(4), None, None, ledger, ["start", "end"], [])  # type: ignore[arg-type]
    np.testing.assert_array_equal(of.absorbed, [0.5, 0.5, -0.5, np.nan])


def test_an_account_is_open_whatever_the_sign_of_its_residual() -> None:
    nothing = np.zeros(3)
    ledger = np.array([[1.0, 1.0, 2e-6, 1e-6], [1.0, 1.0, -2e-6, 1e-6], [1.0, 1.0, -1e-6, 1e-6]])
    columns = ["start", "end", "residual", "bound"]
    of: Any = Overview(None, np.arange(3), nothing.astype(int)[:, None], nothing, ledger, columns, [])  # type: ignore[arg-type]
    np.testing.assert_array_equal(of.open, [0, 1])


def test_worst_and_highest(here: Path) -> None:
    layers, images, _ = digits()
    dtd.run(layers, images[:60], "maps.zarr", rules="lrp-epsilon", chunk=7)
    assert cli.main(["browse", "maps.zarr", "-o", "sheet.html", "--shown", "5", "--colormap", "PiYG"]) == 0
    outputs, ledger = (zarr.open_group("maps.zarr", mode="r")[name][:] for name in ("outputs", "ledger"))
    share = np.abs(ledger[:, 0] - ledger[:, 1]) / np.abs(ledger[:, 0])
    text = Path("sheet.html").read_text(encoding="utf-8")
    worst, highest = text.split('id="highest"')
    for part, values in ((worst, share), (highest, outputs.max(axis=1))):
        for number in np.argsort(-values, kind="stable")[:5]:
            assert f">sample {number}<" in part
    assert "not followed: the run was made without --ledger" in text


def test_rows_of_a_table_and_an_unfinished_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = [dtd.Linear(RNG.standard_normal((3, 6)), RNG.standard_normal(3))]
    dtd.run(layers, RNG.random((10, 6)), "maps.zarr", chunk=4)
    Path("maps.zarr/finished/c.1").unlink()  # as where the run was killed
    assert cli.main(["browse", "maps.zarr"]) == 0
    assert capsys.readouterr().out.startswith("6 of 10 sample(s), 0 bad; accounts: not followed")
    assert "sample 4<" not in Path("maps.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.zarr",), "none.zarr: nothing is there"),
        (("net.safetensors",), "is not the output of a dtdfast run"),
        (("maps.zarr", "--labels", "net.txt"), "the labels file has 1 lines"),
        (("maps.zarr", "--data", "other"), "--data other is not what the run explained"),
        (("maps.zarr", "--colormap", "none"), "--colormap is 'none'"),
        (("maps.zarr", "--shown", "0"), "--shown: '0' is not an integer"),
        (("maps.zarr", "-o", "net.txt"), "was not made by dtdfast"),
        (("maps.zarr", "-o", "none/a.html"), "there is no folder"),
    ],
)
def test_what_is_refused(
    pictures: list[dtd.Layer], capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    Path("net.txt").write_text("ash")
    Path("other").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("other/a.png")
    capsys.readouterr()
    assert cli.main(["browse", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not list(Path().glob("*.html"))


def test_a_page_that_is_too_large(
    pictures: list[dtd.Layer], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number that it advises is one of samples that there are, and suffices."""
    assert cli.main(["browse", "maps.zarr", "--shown", "5", "-o", "all.html"]) == 0
    size = Path("all.html").stat().st_size
    monkeypatch.setattr("dtdfast.cli.browse.LARGEST", size - 1)
    capsys.readouterr()
    assert cli.main(["browse", "maps.zarr", "--shown", "1000"]) == 2
    error = capsys.readouterr().err
    assert error.endswith("show fewer samples: --shown 3\n")
    assert cli.main(["browse", "maps.zarr", "--shown", "3"]) == 0
