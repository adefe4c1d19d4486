"""The page: what to conclude first, then every sample, the tests, and what an auditor asks for.

It holds no script and asks nothing of any network, which its policy tells the browser to enforce.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import PAGE
from ..verdicts import TABLE
from ..version import __version__
from .charts import curves, flow
from .elements import Markup, details, joined, named, scrolled, short, table, tag
from .figures import Figures, class_name
from .gather import Gathered

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = Path(__file__).with_name("style.css")


def page(found: Gathered) -> str:
    """The whole text of a report."""
    data = found.data
    total, shown = data["data"]["samples"], len(data["samples"])
    cut = "" if shown == total else f", {shown} of which are shown"
    opening = tag(
        "p", f"{found.inputs.spoken(total)} explained{cut}. The tests are about the rule ", named(data["rule"]), "."
    )
    links = [(f"sample-{n}", s["name"]) for n, s in enumerate(data["samples"])]
    links += [("tests", "tests"), ("audit", "for the auditor")]
    parts = [_brief(data), *_samples(found), _tests(data), _audit(found)]
    return document(data["title"], opening, links, parts, data["made"])


def document(title: str, opening: Markup, links: Sequence[tuple[str, str]], parts: Sequence[Markup], made: str) -> str:
    """A page: its opening, links to places on it, and its parts."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=f"dtdfast {__version__}"),
        tag("title", short(title)),
        tag("style", Markup(STYLE.read_text(encoding="utf-8"))),
    )
    contents = tag(
        "nav",
        tag("ul", *(tag("li", tag("a", named(name), href=f"#{place}")) for place, name in links), class_="keys"),
        aria_label="Contents",
    )
    body = tag(
        "body",
        tag("a", "Skip to the samples", href=f"#{links[0][0]}", class_="skip"),
        tag("header", tag("h1", tag("bdi", short(title))), opening, contents),
        tag("main", *parts),
        tag("footer", tag("p", f"Made by dtdfast {__version__}, {made}.", class_="faint")),
    )
    return PAGE.decode() + tag("html", head, body, lang="en") + "\n"


def _brief(data: Mapping[str, Any]) -> Markup:
    rows = [
        (tag("a", t["question"], href=f"#test-{t['name']}"), tag("span", t["state"], class_=f"state {t['state']}"),
         t["verdict"])
        for t in data["tests"]
    ]  # fmt: skip
    if not rows:
        return Markup("")
    return tag("section", tag("h2", "In brief"), table("What the tests say of these maps",
               ("question", "answer", "verdict"), rows))  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ samples


def _samples(found: Gathered) -> Iterator[Markup]:
    figures = Figures(found)
    for n, sample in enumerate(found.data["samples"]):
        yield tag(
            "section",
            tag("h2", named(sample["name"])),
            _top(sample, found.data["probability"]),
            figures.of(n),
            _ledger(n, sample, found),
            id=f"sample-{n}",
        )


def _top(sample: dict[str, Any], probability: str | None) -> Markup:
    header = ["class", "output", *([f"probability ({probability})"] if probability else [])]
    rows = []
    for entry in sample["top"]:
        mark = " (explained)" if entry["target"] == sample["target"] else ""
        cells = [tag("span", named(class_name(entry)), mark), f"{entry['output']:.5g}"]
        rows.append([*cells, *([f"{entry['probability']:.4f}"] if probability else [])])
    if sample["target"] not in [entry["target"] for entry in sample["top"]]:
        cells = [tag("span", named(class_name(sample)), " (explained)"), f"{sample['output']:.5g}"]
        rows.append([*cells, *([f"{sample['probability']:.4f}"] if probability else [])])
    return table("Largest outputs", header, rows)


def _ledger(n: int, sample: Mapping[str, Any], found: Gathered) -> Markup:
    of = sample["ledger"]
    state = "the account closes" if of["closed"] else "THE ACCOUNT STAYS OPEN"
    absorbed = ", ".join(f"{cause} {value:+z.4g}" for cause, value in of["absorbed"].items()) or "nothing"
    told = f"{of['start']:.6g} entered, {of['end']:.6g} arrived; absorbed: {absorbed}; {state}."
    keys = [
        tag("li", tag("svg", tag("rect", width=14, height=14, class_=kind), width=14, height=14, aria_hidden="true"),
            " ", text)
        for kind, text in [
            ("went", "handed on"),
            *((f"cause c{k % 6}", f"absorbed: {cause}") for k, cause in enumerate(of["absorbed"])),
        ]
    ]  # fmt: skip
    rows = [
        (
            f"{'+'.join(map(str, r['entries']))} {short(r['title'])}",
            r["rule"],
            f"{r['came']:.5g}",
            f"{r['went']:.5g}",
            ", ".join(f"{cause} {value:+z.3g}" for cause, value in r["absorbed"].items()) or "–",
            f"{r['residual']:.1e}",
            f"{r['bound']:.1e}",
        )
        for r in of["rows"]
    ]
    header = ("entries", "rule", "came", "handed on", "absorbed", "residual", "bound on rounding")
    what = f"Flow of relevance through the layers: {told}"
    return joined(
        (
            tag("h3", "Where the relevance went"),
            tag("p", told),
            details(
                "Flow chart, from the output to the input",
                tag("ul", *keys, class_="keys"),
                scrolled("Flow chart", flow(of, found.layers, what)),
                opened=n == 0,
            ),
            details("The ledger, row by row", table("Ledger of this sample", header, rows)),
        )
    )


# -------------------------------------------------------------------------------------------------------------- tests


def _tests(data: Mapping[str, Any]) -> Markup:
    parts: list[Any] = [tag("h2", "Tests")]
    for test in data["tests"]:
        parts.append(
            tag(
                "section",
                tag("h3", test["question"]),
                tag("p", f"{test['done']} ", test["found"]),
                tag("p", f"{test['state']}: {test['verdict']}", class_=f"verdict {test['state']}"),
                _drawn(test, data),
                tag("p", _bounds(test["name"]), class_="faint"),
                id=f"test-{test['name']}",
            )
        )
    return tag("section", *parts, id="tests")


def _bounds(name: str) -> str:
    threshold = TABLE[name]
    ends = ", ".join(f"{bound:g}" for bound in threshold.bounds)
    states = " / ".join(state for state, _ in threshold.bands)
    return f"Judged by: {threshold.measure}; bounds {ends} ({states}); docs/trust.md says why."


def _drawn(test: Mapping[str, Any], data: Mapping[str, Any]) -> Markup:
    numbers = test["numbers"]
    if not numbers:
        return Markup("")
    if test["name"] == "class":
        measures = [k for k in numbers if k != "value"]
        rows = [
            (named(s["name"]), *("–" if numbers[m][n] != numbers[m][n] else f"{numbers[m][n]:.4f}" for m in measures))
            for n, s in enumerate(data["samples"])
        ]
        return details("Per sample", table("Likeness of the maps of two classes", ("sample", *measures), rows))
    if test["name"] == "weights":
        steps = [1.0, *numbers["cosine"]]
        chart = curves({data["rule"]: steps}, "layers with random weights", "|cosine| to the original map",
                       test["question"])  # fmt: skip
        rows = [(short(name), f"{v:.3f}") for name, v in zip(numbers["layers"], numbers["cosine"], strict=True)]
        return joined(
            (
                scrolled("Chart", chart),
                details("Layer by layer", table("Random from the output down to", ("layer", "|cosine|"), rows)),
            )
        )
    if test["name"] == "perturbation":
        rows = [(named(row["method"]), *list(row.values())[1:]) for row in numbers["table"]]
        chart = curves(numbers["outputs"], "inputs replaced", "explained output", test["question"])
        return joined((scrolled("Chart", chart), table(numbers["what"], list(numbers["table"][0]), rows)))
    if test["name"] == "account":
        shares = [(cause, f"{value:.4g}") for cause, value in numbers["shares"].items() if value]
        return details("Causes", table("Mean share of the explained output", ("part", "share"), shares))
    return Markup("")


# -------------------------------------------------------------------------------------------------------------- audit


def _audit(found: Gathered) -> Markup:
    data = found.data
    model, fed = data["model"], data["data"]
    preparation = data["preparation"]["text"] if data["preparation"] else "none: the samples are fed as they are"
    pairs = [
        ("preparation", preparation),
        ("model", f"{model['layers']} layers, {model['parameters']:,} parameters"),
        ("model, SHA-256 of all records", tag("code", model["sha256"])),
        ("data", f"{fed['samples']} samples, shape {fed['shape']}, {fed['dtype']}"),
        ("data, SHA-256 as fed", tag("code", fed["sha256"])),
        *((tag("span", "file ", named(f["name"]), ", SHA-256"), tag("code", f["sha256"])) for f in data["files"]),
        *((f"option {key}", _option(value)) for key, value in data["options"].items()),
        *((key, str(value)) for key, value in data["environment"].items()),
        ("made", data["made"]),
    ]
    rows = [item for key, value in pairs for item in (tag("dt", key), tag("dd", value))]
    return tag("section", tag("h2", "For the auditor"), tag("dl", *rows), id="audit")


def _option(value: Any) -> str:
    """An option in words."""
    if isinstance(value, dict) and "sha256" in value:
        return f"array {value['shape']} {value['dtype']}, SHA-256 {value['sha256']}"
    if isinstance(value, dict):
        return short("; ".join(k if k == v else f"{k}: {_option(v)}" for k, v in value.items()), 2000)
    if isinstance(value, list):
        return short(" to ".join(map(_option, value)) if len(value) == 2 else str(value), 2000)
    return short("default" if value is None else value, 400)
