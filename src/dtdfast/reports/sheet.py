"""A contact sheet of a run: the samples to look at first, on one page without scripts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..colours import Style
from ..png import address, covered, encoded, heatmap, shrunk
from ..runs.manifest import flat
from ..runs.overview import Overview, most_often
from ..version import __version__
from .elements import Markup, details, joined, named, short, table, tag
from .figures import where
from .page import document

Array = NDArray[Any]

SIDE = 160  # pixels of a map's longer side, at most
BYTES = 3_500_000  # of all pictures, as an estimate from above
LISTED = 200  # bad samples
OFTEN = 10  # outputs
ROUNDING = 1e-4  # shares absorbed below this are float32's rounding, added up over a network
SMALL = 64  # pixels; below that they are shown as squares

Picture = Callable[[int], Array]  # of a sample's number: bytes (h, w) or (h, w, 3)


def gathered(overview: Overview, labels: Sequence[str] | None, shown: int) -> dict[str, Any]:
    """All numbers and names of the page, as JSON takes them."""
    absorbed, stored = overview.absorbed, overview.stored
    worst = overview.largest(np.abs(absorbed), shown)
    highest = overview.largest(overview.score, shown)
    still_open = overview.open
    shares = np.abs(absorbed[~np.isnan(absorbed)])
    scores = overview.score[~np.isnan(overview.score)]

    def sample(place: int) -> dict[str, Any]:
        target = overview.target[place].tolist()
        return {
            "sample": int(overview.number[place]),
            "name": overview.named(place),
            "target": target[0] if len(target) == 1 else target,
            "label": labels[target[0]] if labels is not None and len(target) == 1 else None,
            "score": float(overview.score[place]),
            "entered": float(overview.ledger[place, 0]),
            "arrived": float(overview.ledger[place, 1]),
            "absorbed": float(absorbed[place]),
            "causes": overview.causes(place),
        }

    return {
        "dtdfast": __version__,
        "run": stored.path.name,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "samples": stored.samples,
        "finished": len(overview.number),
        "bad": len(overview.errors),
        "accounts_open": None if still_open is None else len(still_open),
        "absorbed": {"median": _median(shares), "largest": float(shares.max()) if shares.size else math.nan},
        "score": {"median": _median(scores), "largest": float(scores.max()) if scores.size else math.nan},
        "often": [
            {"target": t, "label": labels[t] if labels is not None and isinstance(t, int) else None, "count": count}
            for t, count in most_often(overview.target, OFTEN)
        ],
        "most_absorbed": [sample(place) for place in worst],
        "highest_scores": [sample(place) for place in highest],
        "errors": [{"sample": n, "name": name or None, "error": text} for n, name, text in overview.errors],
        "manifest": stored.manifest,
    }


def _median(values: Array) -> float:
    return float(np.median(values)) if values.size else math.nan


# ----------------------------------------------------------------------------------------------------------- the page


SECTIONS = {
    "most_absorbed": (
        "absorbed",
        "Most absorbed",
        "Of these samples, the largest share of the relevance that entered did not arrive at the input.",
    ),
    "highest_scores": ("highest", "Highest scores", "The explained output is largest here."),
}


def sheet(data: Mapping[str, Any], overview: Overview, style: Style, picture: Picture | None) -> str:
    """The whole text."""
    figures = _Figures(data, overview, style, picture)
    title = f"{data['run']}: contact sheet"
    parts = [tag("section", tag("h2", "In brief"), _brief(data))]
    for key, (place, heading, told) in SECTIONS.items():
        drawn = [figures.of(sample) for sample in data[key]]
        if key == "most_absorbed" and data["absorbed"]["largest"] < ROUNDING:
            told += " Here all shares are rounding."
        parts.append(
            tag(
                "section",
                tag("h2", heading),
                tag("p", told, class_="faint"),
                tag("div", *drawn, class_=f"maps{' small' if figures.small else ''}"),
                id=place,
            )
        )
    parts += [_errors(data), _audit(data)]
    links = [(place, heading) for place, heading, _ in SECTIONS.values()]
    links += [("errors", f"errors ({data['bad']})"), ("audit", "for the auditor")]
    opening = tag("p", f"{data['finished']} of {data['samples']} samples are finished.")
    return document(title, opening, links, parts, data["made"])


def _brief(data: Mapping[str, Any]) -> Markup:
    shares, scores = data["absorbed"], data["score"]
    often = joined(
        (
            joined((named(_called(of)), f" ({of['count']})"))
            for of in data["often"]
        ),
        ", ",
    )  # fmt: skip
    accounts = data["accounts_open"]
    rows = [
        ("finished", f"{data['finished']} of {data['samples']}"),
        ("bad", str(data["bad"])),
        ("explained most often", often),
        ("score", f"median {scores['median']:.4g}, largest {scores['largest']:.4g}"),
        ("share absorbed", f"median {percent(shares['median'])}, largest {percent(shares['largest'])}"),
        (
            "accounts",
            "not followed: the run was made without --ledger"
            if accounts is None
            else "all close"
            if not accounts
            else f"{accounts} STAY OPEN: a defect of dtdfast, please report it",
        ),
    ]
    return table("The run", ("what", "found"), rows)


def percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.3g} %"


def _called(of: Mapping[str, Any]) -> str:
    return f"output {of['target']}" if of["label"] is None else str(of["label"])


class _Figures:
    """What is drawn of each sample, small enough that all fit on the page."""

    def __init__(self, data: Mapping[str, Any], overview: Overview, style: Style, picture: Picture | None) -> None:
        shown = sorted({sample["sample"] for key in SECTIONS for sample in data[key]})
        places = np.searchsorted(overview.number, shown).tolist()
        self.maps = {int(overview.number[place]): values for place, values in overview.maps(places)}
        self.style, self.picture = style, picture
        h, w = next(iter(self.maps.values())).shape if self.maps else (1, 1)
        each = 4 / 3 * h * w * (1 if picture is None else 4)
        count = sum(len(data[key]) for key in SECTIONS)
        self.factor = max(1, math.ceil(max(h, w) / SIDE), math.ceil(math.sqrt(each * count / BYTES)))
        self.factor = min(self.factor, h, w)
        self.small = max(h, w) < SMALL

    def of(self, sample: Mapping[str, Any]) -> Markup:
        values, limit = self.style.shown(self.maps[sample["sample"]])
        values = shrunk(values, self.factor)
        name, called = short(sample["name"]), short(_called(sample))
        told = f"Relevance of {name} for {called}. {where(values)}"
        sources = [heatmap(values, limit, self.style.colours)]
        if self.picture is not None:
            seen = shrunk(self.picture(sample["sample"]), self.factor)
            sources.append(encoded(covered(values, limit, seen, self.style.colours)))
        alts = [told, f"The same map over {name} in grey."]
        causes = ", ".join(f"{cause} {value:+z.3g}" for cause, value in sample["causes"].items())
        caption = tag(
            "figcaption",
            tag("strong", named(name)),
            tag("br"),
            named(called),
            f", score {sample['score']:.4g}, absorbed {percent(sample['absorbed'])}",
            f" ({causes})" if causes else "",
        )
        drawn = [tag("img", src=address(png), alt=alt) for png, alt in zip(sources, alts, strict=False)]
        return tag("figure", *drawn, caption)


def _errors(data: Mapping[str, Any]) -> Markup:
    rows = [(named(e["name"] or f"sample {e['sample']}"), short(e["error"], 300)) for e in data["errors"][:LISTED]]
    more = len(data["errors"]) - len(rows)
    parts: list[Any] = [tag("h2", "Errors")]
    parts.append(
        table("Samples that could not be explained", ("sample", "what is wrong"), rows) if rows else tag("p", "None.")
    )
    if more > 0:
        parts.append(tag("p", f"… and {more} more, under error in the run."))
    return tag("section", *parts, id="errors")


def _audit(data: Mapping[str, Any]) -> Markup:
    """What the run was begun as."""
    rows = [(key, short(value, 400)) for key, value in flat(data["manifest"])]
    listed = tag("dl", *(item for key, value in rows for item in (tag("dt", short(key)), tag("dd", value))))
    return tag("section", tag("h2", "For the auditor"), details("The run's manifest", listed), id="audit")
