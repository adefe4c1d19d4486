"""`dtdfast.report`: explanations, and the tests that say what they are worth, as one page of HTML."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, StorageError
from ..files import named, replaceable, written
from ..images import Preparation
from ..models import layers_of
from ..options import at_least_one, seeded, texts
from ..rules import Gamma, Rule
from ..show import as_json
from .checks import TESTS
from .gather import gathered
from .inputs import PICTURES, TABLE, TEXT, inputs_of
from .page import page

LARGEST = 5_000_000  # bytes of a page
SHOWN = 4
RULES: dict[str, tuple[Any, ...]] = {
    PICTURES: ("dtd", "epsilon-plus", "lrp-epsilon"),
    TABLE: ("dtd", Gamma(0.25), "excitation-backprop"),
    TEXT: ("cp-lrp", "attnlrp", "dtd"),
}
"""What is compared where nothing is said; the first is what the tests are about."""


class Page:
    """A report: `save` writes it, and a notebook shows it.

    Attributes
    ----------
    html : str
        The page: one file that needs no other.
    data : dict
        All of its numbers and names, as JSON can hold them.
    """

    def __init__(self, html: str, data: dict[str, Any]) -> None:
        self.html, self.data = html, data

    @property
    def json(self) -> str:
        """The data as text; what is undefined is null."""
        return as_json(self.data) + "\n"

    def save(self, path: str | os.PathLike[str], json: str | os.PathLike[str] | None = None) -> None:
        """Write the page.

        Parameters
        ----------
        path : str or path
            Where the HTML goes. A file that dtdfast has not made is not replaced.
        json : str or path, optional
            Where the data go as JSON.

        Raises
        ------
        StorageError
            Something else is there, both paths are one, or there is no such folder.
        """
        path, json = named(path), None if json is None else named(json)
        if json is not None and os.path.realpath(json) == os.path.realpath(path):
            raise StorageError(f"{json} is the page; give another name to the JSON")
        texts = {path: self.html} if json is None else {path: self.html, json: self.json}
        for place in texts:
            if not Path(place).parent.is_dir():
                raise StorageError(f"{place}: there is no folder {Path(place).parent}; make it first")
            replaceable(Path(place))
        for place, text in texts.items():
            with written(place) as part:
                part.write_text(text, encoding="utf-8", errors="backslashreplace")

    def __repr__(self) -> str:
        return f"<Page: {self.data['title']!r:.60}, {len(self.html.encode(errors='replace')) / 1e6:.1f} MB>"

    def _repr_html_(self) -> str:
        from html import escape

        style = "width:100%;height:40rem;border:0"
        return f'<iframe sandbox title="report" style="{style}" srcdoc="{escape(self.html)}"></iframe>'


def report(
    layers: Any,
    x: Any,
    target: Any = None,
    *,
    against: Any = None,
    rules: Sequence[Any] | None = None,
    labels: Sequence[str] | None = None,
    names: Sequence[Any] | None = None,
    features: Sequence[Any] | None = None,
    tokens: Sequence[Sequence[str]] | None = None,
    pictures: Any = None,
    preparation: Preparation | None = None,
    shown: int = SHOWN,
    tests: Sequence[str] = TESTS,
    files: Sequence[str | os.PathLike[str]] = (),
    title: str | None = None,
    seed: int = 0,
    **options: Any,
) -> Page:
    """Explain samples, test the explanations, and put all of it on one page for people and auditors.

    Each sample shows its input, map, most probable classes, the contrast with the runner-up, several rules side by
    side, and where its relevance went, layer by layer. The tests of `dtdfast.diagnostics` and `dtdfast.evaluation`
    follow, each with two sentences and a verdict; then hashes, versions and options.

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        The network, as `explain` takes it; its outputs have shape (n, classes).
    x : array_like or DataFrame
        Pictures (n, channels, height, width); the rows of a table (n, features), where a DataFrame brings names; or
        texts as integers (n, words).
    target : int or array_like of int, optional
        The class that is explained, one for all samples or an array of shape (n,); by default the largest output.
    against : int or array_like of int, optional
        The class that it is set against; by default the largest of the others.
    rules : sequence of str, Rule, dict or callable, optional
        What is compared, as `explain` takes it; the tests are about the first. By default "dtd" and two others, and
        "cp-lrp" first for texts.
    labels : sequence of str, optional
        A name for each output.
    names : sequence of str, optional
        A name for each sample; by default the index of the DataFrame, else numbers.
    features : sequence of str, optional
        A name for each feature of a table; by default the columns of the DataFrame, else numbers.
    tokens : sequence of sequences of str, optional
        The words of each text.
    pictures : array_like of uint8, shape (n, h, w) or (n, h, w, 3), optional
        The pictures as people see them; by default x, its black and white at the ends of `domain`.
    preparation : dtdfast.images.Preparation, optional
        How the pictures became x; the page says it.
    shown : int, default 4
        The number of samples that are shown, the first ones. The tests take all; of large samples, the slower ones
        take those first that make up a million numbers.
    tests : sequence of str, default all
        Some of "account", "class", "weights", "roots" and "perturbation". "weights" and "roots" take long for large
        networks.
    files : sequence of paths, optional
        Files whose SHA-256 the page holds; the model's is there if `layers` is its path.
    title : str, optional
        The page's title, by default "Explanations".
    seed : int, default 0
        The seed of what the tests draw at random.
    **options
        Options of `Explainer` other than rules: domain, convention, backend and others; and what the network's Givens
        are called, such as attention_mask: their values for all samples. "roots" and "perturbation" cannot be tested
        then, and the page says so.

    Returns
    -------
    Page
        The page, with `save(path, json=None)`; it is one file below 5 MB that asks nothing of a network.

    Raises
    ------
    ShapeError
        x, the outputs, or a list of names have another shape than the parameters say.
    InputError
        A class, a test or a rule is unknown or given twice, or the page would become too large.
    DtdError
        What `explain` raises for the network, its options and x under the first rule. A rule or test that is not
        possible otherwise says so on the page.

    See Also
    --------
    dtdfast.evaluation.compare : Rules compared on a data set, in one table.

    Examples
    --------
    >>> dtdfast.report(layers, x, labels=names, domain=(0.0, 1.0)).save("report.html", json="report.json")
    """
    shown, seed = at_least_one("shown", shown), seeded(seed)
    labels = None if labels is None else texts("labels", labels)
    tests = texts("tests", tests)
    network = layers_of(layers, x)  # whose columns an estimator may know
    inputs = inputs_of(
        x,
        names=names,
        features=features,
        tokens=tokens,
        pictures=pictures,
        preparation=preparation,
        domain=options.get("domain"),
        layers=network,
    )
    chosen = RULES[inputs.kind] if rules is None else [rules] if isinstance(rules, (str, Rule)) else rules
    if not isinstance(chosen, Iterable):
        raise InputError(f"rules is {rules!r:.60}, expected a list of presets or rules")
    paths = isinstance(files, Iterable) and not isinstance(files, str)
    if not paths or not all(isinstance(file, (str, os.PathLike)) for file in files):
        raise InputError(f"files is {files!r:.60}, expected a list of paths")
    if title is not None and not isinstance(title, str):
        raise InputError(f"title is {title!r:.60}, expected text")
    held = [layers, *files] if isinstance(layers, (str, os.PathLike)) else files
    found = gathered(
        network,
        inputs,
        target,
        against,
        chosen,
        labels,
        preparation,
        shown,
        tests,
        held,
        title,
        seed,
        options,
    )
    html = page(found)
    if (size := len(html.encode("utf-8", "backslashreplace"))) > LARGEST:
        raise InputError(f"the page would hold {size / 1e6:.1f} MB; show fewer samples: shown={max(1, shown // 2)}")
    return Page(html, found.data)
