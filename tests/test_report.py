"""`dtdfast.report`: a page that is sound HTML, asks nothing of a network, escapes every name, and shows the numbers
that the tests return.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dtdfast as dtd
from dtdfast import cli, diagnostics
from dtdfast.data import digits, sentiment
from dtdfast.diagnostics.similarity import median
from dtdfast.images import Preparation
from dtdfast.reports.elements import VOID, tag
from dtdfast.reports.report import LARGEST, Page
from dtdfast.verdicts import TABLE
from nets.masked import GIVEN, IDS, encoder
from support import DOCS, run_page

BOX, QUICK = (0.0, 1.0), ("account", "class")
LABELS = [f"digit {k}" for k in range(10)]
HOSTILE = [
    "<script>alert(1)</script>", "\"' onerror='alert(1)", "right\u202eto\u200bleft", "]]></style><b>", "x" * 500,
    "&lt;b&gt;", "\ud800", "\x00\x1b[31m", "\u0645\u0631\u062d\u0628\u0627", "</title><img src=https://example.org/a>",
]  # fmt: skip


class Reader(HTMLParser):
    """The page's elements, which must close in the order in which they opened."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({k for k, _ in attrs}) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def checked(page: Page) -> Reader:
    """What every page must be."""
    read = Reader(page.html)
    assert page.html.startswith("<!DOCTYPE html>\n")
    assert len(page.html.encode()) < LARGEST
    names = {name for name, _ in read.elements}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert read.all("html")[0]["lang"] == "en"
    (policy,) = (m["content"] for m in read.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:")
    ids = [a["id"] for _, a in read.elements if a.get("id")]
    assert len(set(ids)) == len(ids)
    for _, attributes in read.elements:
        assert not any(key.startswith("on") for key in attributes)
        assert "http" not in (attributes.get("style") or "")
        for key in ("src", "href"):
            if (address := attributes.get(key)) is not None:
                assert address.startswith("data:image/png;base64,") or (address[0] == "#" and address[1:] in ids)
    style = re.search(r"<style>(.*?)</style>", page.html, re.DOTALL)
    assert style is not None
    assert not re.search(r"url\(|@import|http", style[1])
    assert "prefers-color-scheme: dark" in style[1]
    assert all(image["alt"] for image in read.all("img"))
    assert all((svg.get("role") == "img" and svg["aria-label"]) or svg.get("aria-hidden") for svg in read.all("svg"))
    assert {th.get("scope") for th in read.all("th")} <= {"row", "col"}
    assert len(read.all("h1")) == 1
    assert len(read.all("caption")) == len(read.all("table"))
    assert json.loads(page.json)["dtdfast"] == page.data["dtdfast"]
    return read


@lru_cache
def of_digits() -> Page:
    layers, x, _ = digits()
    return dtd.report(layers, x[:12], labels=LABELS, domain=BOX, shown=2)


def test_digits() -> None:
    read = checked(of_digits())
    assert len(read.all("img")) == 2 * (3 + 3 + 3)  # input, map, overlay; contrast; three rules
    assert "digit 1 (explained)" in re.sub(r"\s+", " ", read.text)


def test_numbers_are_what_the_calls_return() -> None:
    layers, x, _ = digits()
    x, page = x[:12], of_digits()
    tests = {test["name"]: test for test in page.data["tests"]}
    assert list(tests) == list(TABLE)
    outputs = dtd.predict(layers, x)
    first, second = np.argsort(-outputs, axis=1)[:, :2].T
    alike = diagnostics.class_sensitivity(layers, x, first, second, domain=BOX)
    assert tests["class"]["numbers"]["|cosine|"] == alike.similarity["|cosine|"].tolist()
    cosine = median(alike.similarity["|cosine|"])
    assert f"this map hardly depends on the class: cosine {cosine:.3g}" in page.html
    assert alike.reading in page.html
    weights = diagnostics.parameter_randomization(layers, x, first, domain=BOX)
    assert tests["weights"]["numbers"]["cosine"] == [median(np.abs(v)) for v in weights.similarity["cosine"]]
    roots = diagnostics.root_audit(layers, x[:4], first[:4], domain=BOX)
    assert tests["roots"]["numbers"]["share of relevance"] == roots.share_of_relevance
    assert tests["account"]["found"] == diagnostics.conservation(layers, x, domain=BOX).reading
    relevance = dtd.explain(layers, x, domain=BOX)
    for n, sample in enumerate(page.data["samples"]):
        assert sample["target"] == first[n]
        assert sample["against"]["target"] == second[n]
        assert sample["rules"]["dtd"]["sum"] == pytest.approx(float(relevance[n].sum(dtype=np.float64)), rel=1e-12)
        assert f"relevance adds up to {relevance[n].sum(dtype=np.float64):.4g}" in page.html
        share = np.exp(outputs[n] - outputs[n].max())
        assert [t["probability"] for t in sample["top"]] == pytest.approx(
            np.sort(share / share.sum())[::-1][:5], rel=1e-5
        )
    ledger = dtd.Explainer(layers, domain=BOX).ledger(x[:2], first[:2])
    assert [row["came"] for row in page.data["samples"][1]["ledger"]["rows"]] == [r.came[1] for r in ledger.rows]


def test_the_thresholds_are_those_of_the_page_on_trust() -> None:
    text = (DOCS / "trust.md").read_text(encoding="utf-8").replace("\\|", "¦")
    rows = {
        cells[0].strip("` "): cells[1:]
        for line in text.splitlines()
        if len(cells := [c.strip() for c in line.strip("| ").split("|")]) == 5
    }
    for name, threshold in TABLE.items():
        measure, bounds, answers, measured = rows[name]
        assert measure.replace("¦", "|") == threshold.measure
        assert bounds == ", ".join(f"{bound:g}" for bound in threshold.bounds)
        assert answers == " / ".join(state for state, _ in threshold.bands)
        assert re.search(r"\d", measured)
    assert "bounds 0.7, 0.95 (good / mixed / bad)" in of_digits().html


def test_a_number_on_a_bound_does_not_exceed_it() -> None:
    for threshold in TABLE.values():
        assert [threshold.band(bound) for bound in threshold.bounds] == list(range(len(threshold.bounds)))


def test_hostile_names(tmp_path: Path) -> None:
    layers, x, _ = digits()
    page = dtd.report(layers, x[:10], labels=HOSTILE, names=HOSTILE, title=HOSTILE[0], shown=6, tests=QUICK, domain=BOX)
    read = checked(page)
    assert "\u202e" not in page.html
    assert "\u200b" not in page.html
    assert HOSTILE[0] in read.text
    assert "right\\u202eto\\u200bleft" in read.text
    assert HOSTILE[-1] in [*read.texts, *(t.removesuffix(" (explained)") for t in read.texts)]
    assert "x" * 100 not in page.html
    page.save(tmp_path / "report.html", json=tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["title"] == HOSTILE[0]
    page.save(tmp_path / "report.html")  # which dtdfast has made
    with pytest.raises(dtd.StorageError, match="is the page"):
        page.save(tmp_path / "report.html", json=f"{tmp_path}/../{tmp_path.name}/report.html")
    (tmp_path / "other.html").write_text("mine")
    with pytest.raises(dtd.StorageError, match="was not made by dtdfast"):
        page.save(tmp_path / "other.html")
    assert tag("p", HOSTILE[1], title=HOSTILE[1]).count("&#x27;") == 4


def test_words() -> None:
    layers, words, ids, _ = sentiment()
    words = ["<i>the</i>" if word == "the" else word for word in words]
    page = dtd.report(
        layers, ids[:6], labels=["blame", "praise"], tokens=[[words[i] for i in s] for s in ids[:6]], shown=2
    )
    read = checked(page)
    assert "<i>the</i>" in read.text
    sample = page.data["samples"][0]
    expected = dtd.explain(layers, ids[:1], rules="cp-lrp")[0]
    assert [word["relevance"]["cp-lrp"] for word in sample["inputs"]] == expected.tolist()
    roots = next(test for test in page.data["tests"] if test["name"] == "roots")
    assert (roots["state"], roots["verdict"]) == ("open", "not tested")
    assert "It cannot be made here" in roots["found"]


class Frame:
    """What is asked of a DataFrame."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.columns = [f"column <{k}>" for k in range(values.shape[1])]
        self.index = [f"row {k}" for k in range(len(values))]

    def to_numpy(self) -> Any:
        return self.values


def test_a_table_of_one_output(rng: np.random.Generator) -> None:
    layers = [dtd.Linear(rng.standard_normal((8, 20))), dtd.ReLU(), dtd.Linear(rng.standard_normal((1, 8)))]
    frame = Frame(rng.standard_normal((9, 20)))
    page = dtd.report(layers, frame, labels=["benign"], shown=2, rules=["lrp-0", dtd.Gamma(0.25), "epsilon-gamma-box"])
    read = checked(page)
    assert [s["name"] for s in page.data["samples"]] == ["row 0", "row 1"]
    assert "column <3>" in read.text
    assert "all others (5)" in read.text
    assert page.data["samples"][0]["against"] is None
    assert "error" in page.data["samples"][0]["rules"]["epsilon-gamma-box"]
    assert "epsilon-gamma-box" in read.text
    values = dtd.explain(layers, frame.values[:1], 0, rules="lrp-0")[0]
    assert f"{values[np.abs(values).argmax()]:+.4g}" in read.text
    (test,) = (t for t in page.data["tests"] if t["name"] == "class")
    assert "one output" in test["found"]


def test_a_zero_has_no_sign() -> None:
    layers, x = [dtd.Linear(np.array([[1.0, -1.0]]))], np.array([[2.0, 0.0]])
    assert np.signbit(dtd.explain(layers, x, rules="lrp-0")[0, 1])
    page = dtd.report(layers, x, rules=["lrp-0", "lrp-epsilon"], tests=())
    assert "<td>+0</td>" in page.html
    assert "<td>-0</td>" not in page.html


def test_channels_last(rng: np.random.Generator) -> None:
    """A picture whose channels are its last axis has the maps and tests of the same network with them first."""
    weight, x = rng.standard_normal((3, 2 * 9 * 7)), rng.random((3, 2, 9, 7))
    first = [dtd.Flatten(), dtd.Linear(weight)]
    last = [dtd.Permute((0, 3, 1, 2)), *first]
    turned = x.transpose(0, 2, 3, 1)
    fed = Preparation((9, 7), channels="gray", layout="nhwc")
    a = dtd.report(first, x, tests=QUICK, rules=["lrp-0"], domain=BOX)
    b = dtd.report(last, turned, tests=QUICK, rules=["lrp-0"], domain=BOX, preparation=fed)
    assert a.data["tests"][1]["numbers"]["value"] == pytest.approx(b.data["tests"][1]["numbers"]["value"], rel=1e-6)
    assert [i["src"] for i in checked(a).all("img")] == [i["src"] for i in checked(b).all("img")]


def test_a_model_by_its_path(tmp_path: Path) -> None:
    layers, x, _ = digits()
    dtd.save(layers, tmp_path / "digits.safetensors")
    page = dtd.report(tmp_path / "digits.safetensors", x[:2], tests=(), domain=BOX)
    assert [file["name"] for file in page.data["files"]] == ["digits.safetensors"]
    assert page.data["model"] == dtd.report(layers, x[:2], tests=(), domain=BOX).data["model"]


def test_large_pictures_shrink(rng: np.random.Generator) -> None:
    layers = [dtd.Conv(rng.standard_normal((1, 3, 10, 10)), stride=10), dtd.Flatten(), dtd.Linear(np.eye(2, 2000))]
    x = rng.random((2, 3, 500, 400), dtype=np.float32)
    page = dtd.report(layers, x, tests=(), rules=["dtd"], domain=BOX)
    assert 5e5 < len(page.html) < LARGEST
    checked(page)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tests": ("luck",)}, "tests holds 'luck'"),
        ({"labels": ["one"]}, "labels holds 1, but the network has 10 outputs"),
        ({"names": ["one"]}, "names holds 1, expected 4"),
        ({"target": 10}, "target is 10, expected outputs from 0 to 9"),
        ({"target": 3, "against": 3}, "against is 3, the class that is explained"),
        ({"rules": ["dtd", "dtd"]}, "rules holds 'dtd' twice"),
        ({"rules": []}, "rules is empty"),
        ({"shown": 0}, "shown is 0"),
        ({"pictures": np.zeros((4, 3, 3), np.uint8)}, r"pictures has shape \(4, 3, 3\)"),
        ({"files": ["missing.onnx"]}, "missing.onnx"),
        ({"files": "model.onnx"}, "expected a list of paths"),
        ({"labels": 3}, "labels is 3, expected a list of names"),
        ({"names": 3}, "names is 3"),
        ({"rules": 3}, "rules is 3, expected a list of presets or rules"),
        ({"tests": "account"}, "tests is 'account', expected a list of names"),
        ({"seed": -1}, "seed is -1"),
        ({"title": 3}, "title is 3, expected text"),
        ({"preparation": 3}, "preparation is 3, expected Preparation"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    layers, x, _ = digits()
    with pytest.raises((dtd.DtdError, OSError), match=message):
        dtd.report(layers, x[:4], **{"tests": (), "domain": BOX, **options})


def test_shapes_that_are_none_of_the_three(rng: np.random.Generator) -> None:
    with pytest.raises(dtd.ShapeError, match=r"x has shape \(2, 3, 4\), expected pictures"):
        dtd.report([dtd.Flatten(), dtd.Linear(rng.standard_normal((2, 12)))], rng.random((2, 3, 4)))


def test_a_page_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, x, _ = digits()
    monkeypatch.setattr("dtdfast.reports.report.LARGEST", 1000)
    with pytest.raises(dtd.InputError, match="show fewer samples: shown=2"):
        dtd.report(layers, x[:4], tests=(), domain=BOX)


def test_it_needs_no_extra(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    for name in ("matplotlib", "PIL", "pandas", "zarr", "safetensors"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    layers = [dtd.Flatten(), dtd.Linear(rng.standard_normal((3, 64)))]
    checked(dtd.report(layers, rng.random((2, 1, 8, 8)), domain=BOX))


# ------------------------------------------------------------------------------------------------- command line, docs


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    layers, x, _ = digits()
    dtd.save(layers, "digits.safetensors")
    for k in range(2):
        Image.fromarray(np.rint(255 * x[k, 0]).astype(np.uint8)).save(f"<b>{k}.png")
    Path("bad.png").write_bytes(b"no picture")
    Path("labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    fed = ["--channels", "gray", "--size", "8", "--crop", "1", "--mean", "0", "--labels", "labels.txt"]
    command = ["report", "digits.safetensors", "<b>0.png", "<b>1.png", "bad.png", "-o", "r.html", "--json", *fed]
    assert cli.main([*command, "--tests", "account,class", "--rules", "dtd,lrp-epsilon"]) == 1
    printed = capsys.readouterr().out
    assert "bad.png: " in printed
    assert printed.endswith("2 sample(s), 1 bad: r.html, r.json\n")
    data = json.loads(Path("r.json").read_text(encoding="utf-8"))
    read = Reader(Path("r.html").read_text(encoding="utf-8"))
    assert [s["name"] for s in data["samples"]] == ["<b>0.png", "<b>1.png"]
    assert "<b>0.png" in read.text
    assert [f["name"] for f in data["files"]] == ["digits.safetensors", "<b>0.png", "<b>1.png"]
    assert data["preparation"]["size"] == [8, 8]
    assert list(data["samples"][0]["rules"]) == ["dtd", "lrp-epsilon"]
    assert data["samples"][0]["label"] == LABELS[data["samples"][0]["target"]]
    assert cli.main([*command, "--rules", "dtd,magic"]) == 2
    assert "'magic' is none of" in capsys.readouterr().err
    assert cli.main([*command, "--names", "labels.txt"]) == 2
    assert "--names is for the columns of a table" in capsys.readouterr().err
    assert cli.main(["report", "digits.safetensors", "<b>0.png", "-o", "labels.txt", *fed]) == 2
    assert "was not made by dtdfast" in capsys.readouterr().err


def test_command_line_of_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    layers, words, ids, _ = sentiment()
    dtd.save(layers, "network.safetensors")
    np.save("ids.npy", ids[:9])
    Path("words.txt").write_text("\n".join(words), encoding="utf-8")
    arguments = ["report", "network.safetensors", "ids.npy", "--names", "words.txt", "--samples", "5", "--shown", "1"]
    assert cli.main([*arguments, "--tests", "account", "--json", "all.json"]) == 0
    data = json.loads(Path("all.json").read_text(encoding="utf-8"))
    assert data["data"]["samples"] == 5
    assert [word["name"] for word in data["samples"][0]["inputs"]] == [words[i] for i in ids[0]]
    assert Path("report.html").exists()


def test_page_of_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checked(run_page("report.md")["page"])


def test_what_is_no_argument(rng: np.random.Generator, tmp_path: Path) -> None:
    layers, x = [dtd.Linear(rng.standard_normal((3, 4)))], rng.standard_normal((2, 4))
    for options, message in (
        ({"x": np.ma.array(x, mask=x > 0)}, "x is a masked array"),
        ({"target": [[0, 1]] * 2}, "target is"),
        ({"target": 0.5}, "target is 0.5"),
        ({"shown": 1.5}, r"shown is 1\.5"),
        ({"stop": 0}, "stop= is no option of a report"),
        ({"mask": x}, "mask= is no option of a report"),
    ):
        with pytest.raises(dtd.DtdError, match=message):
            dtd.report(layers, **{"x": x, "tests": (), **options})
    for places in (("none/a.html",), ("a.html", "none/a.json")):
        with pytest.raises(dtd.StorageError, match="there is no folder"):
            dtd.report(layers, x, tests=()).save(*(tmp_path / place for place in places))
    assert not list(tmp_path.iterdir()), "all or nothing"


def test_masks_beside_the_texts() -> None:
    layers = encoder("added").layers
    page = dtd.report(layers, IDS, 1, tests=(*QUICK, "weights", "perturbation"), shown=2, **GIVEN)
    account, of_class, weights, perturbation = page.data["tests"]
    expected = diagnostics.conservation(layers, IDS, 1, rules="cp-lrp", **GIVEN)
    assert account["numbers"]["value"] == pytest.approx(np.nanmax(expected.off))
    assert all(np.isfinite(test["numbers"]["value"]) for test in (of_class, weights))
    assert perturbation["verdict"] == "not tested"
    assert set(page.data["data"]["beside"]) == set(GIVEN)
    shown = [word["relevance"]["cp-lrp"] for word in page.data["samples"][0]["inputs"]]
    np.testing.assert_allclose(shown, dtd.explain(layers, IDS, 1, rules="cp-lrp", **GIVEN)[0], rtol=1e-6)
