"""Every number of a report, as plain data that is stored as JSON beside the page, and the arrays that are drawn."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays.beside import beside_rows
from ..arrays.foreign import take
from ..diagnostics.attribution import chosen
from ..errors import DtdError, InputError, ShapeError
from ..evaluation.perturbation import softmax
from ..explainer import Explainer
from ..files import readable, regular
from ..images import Preparation
from ..layers import Given, Layer, Softmax
from ..ledger.ledger import Ledger
from ..options import split
from ..rules import Rule
from ..runs.manifest import described, digest_of, model_digest
from ..sizes import copied
from ..version import __version__
from .checks import TESTS, Case, checked
from .inputs import PICTURES, TEXT, Array, Inputs

TOP = 5  # classes that are listed
BLOCK = 1 << 20  # bytes of a file that are hashed at once


@dataclass(frozen=True)
class Gathered:
    """What a page is made of.

    Parameters
    ----------
    data : all numbers and names, as JSON takes them
    maps : per rule, the relevance of the samples that are shown, summed over channels
    contrast : maps (shown, 2, …) of the explained class and of the other
    """

    data: dict[str, Any]
    inputs: Inputs
    maps: dict[str, Array]
    contrast: Array | None
    ledger: Ledger
    layers: list[Layer]


def gathered(
    layers: Sequence[Layer],
    inputs: Inputs,
    target: Any,
    against: Any,
    rules: Sequence[Any],
    labels: Sequence[str] | None,
    preparation: Preparation | None,
    shown: int,
    tests: Sequence[str],
    files: Sequence[Any],
    title: str | None,
    seed: int,
    options: dict[str, Any],
) -> Gathered:
    """Compute everything."""
    layers = copied(layers)
    options, given = split(options)
    _check(layers, given, options, tests)
    first, named = beside_rows(given, slice(0, shown)), _named(rules)
    main = next(iter(named))
    explainer = Explainer(layers, **options, rules=named[main])
    predictions = explainer.predict(inputs.x, **given)
    if predictions.ndim != 2:
        raise ShapeError(f"the outputs are {predictions.shape}, expected (n, classes): explain them from Python")
    n_classes = predictions.shape[1]
    if labels is not None and len(labels) != n_classes:
        raise ShapeError(f"labels holds {len(labels)}, but the network has {n_classes} outputs")
    index = _classes("target", target, predictions.argmax(axis=1), n_classes)
    other = None
    if n_classes > 1:
        second = np.where(np.arange(n_classes) == index[:, None], -np.inf, predictions).argmax(axis=1)
        other = _classes("against", against, second, n_classes)
        if (other == index).any():
            raise InputError(f"against is {int(other[other == index][0])}, the class that is explained: name another")
    maps, good, outputs = _maps(layers, inputs, index, named, options, given)
    ledger = explainer.ledger(inputs.x[:shown], index[:shown], **first)
    contrast = None
    if other is not None:
        raw = explainer.explain(inputs.x[:shown], np.stack([index, other], axis=1)[:shown], **first)
        contrast = np.stack([inputs.summed(raw[:, k]) for k in range(2)], axis=1)
    own = isinstance(layers[-1], Softmax) and not layers[-1].log
    chances = predictions if own else softmax(outputs) if n_classes > 1 else None
    answers = _Answers(outputs, chances, labels, index, other)
    samples = [_sample(n, inputs, answers, maps, ledger) for n in range(min(shown, len(inputs.x)))]
    case = Case(layers, inputs, index, other, {k: named[k] for k in good}, options, given, seed)
    about = {
        "dtdfast": __version__,
        "title": title or "Explanations",
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": _model(layers),
        "data": _data(inputs, given, layers),
        "files": [{"name": readable(Path(path).name), "sha256": _of_file(path)} for path in files],
        "preparation": None if preparation is None else {"text": str(preparation), **asdict(preparation)},
        "options": {
            "rules": {name: described(rule, layers) for name, rule in named.items()},
            "seed": seed,
            **described(options, layers),
        },
        "environment": _environment(explainer.backend),
        "rule": main,
        "probability": None if chances is None else "the network's" if own else "softmax of the outputs",
        "samples": samples,
        "tests": [asdict(check) for check in checked(case, good, tests)],
    }
    used = {name: inputs.summed(values[:shown]) for name, values in good.items()}
    return Gathered(about, inputs, used, contrast, ledger, layers)


def _check(layers: list[Layer], given: dict[str, Any], options: dict[str, Any], tests: Sequence[str]) -> None:
    """Refuse names of options, Givens and tests that mean nothing here."""
    taken = {record.name for record in layers if isinstance(record, Given)}
    if (wrong := next((name for name in given if name not in taken), None)) or "stop" in options:
        raise InputError(f"{wrong or 'stop'}= is no option of a report, nor what a Given of the network is called")
    if unknown := [name for name in tests if name not in TESTS]:
        raise InputError(f"tests holds {unknown[0]!r}, expected some of {', '.join(TESTS)}")


@dataclass(frozen=True)
class _Answers:
    """What the network says of every sample.

    Parameters
    ----------
    outputs, chances : (n, classes); probabilities, or None for a network of one output
    index, other : of the class that is explained, and of that set against it, if there is one
    """

    outputs: Array
    chances: Array | None
    labels: Sequence[str] | None
    index: Array
    other: Array | None

    def entry(self, n: int, k: int) -> dict[str, Any]:
        """Of one class of a sample."""
        return {
            "target": k,
            "label": None if self.labels is None else str(self.labels[k]),
            "output": float(self.outputs[n, k]),
            "probability": None if self.chances is None else float(self.chances[n, k]),
        }


def _sample(n: int, inputs: Inputs, answers: _Answers, maps: dict[str, Any], ledger: Ledger) -> dict[str, Any]:
    order = np.argsort(-answers.outputs[n], kind="stable")[:TOP]
    sample = {
        "name": inputs.names[n],
        "sha256": digest_of(inputs.x[n]),
        **answers.entry(n, int(answers.index[n])),
        "against": None if answers.other is None else answers.entry(n, int(answers.other[n])),
        "top": [answers.entry(n, int(k)) for k in order],
        "rules": {k: {"error": v} if isinstance(v, str) else {"sum": _sum(v[n])} for k, v in maps.items()},
        "ledger": _account(ledger, n),
    }
    return sample if inputs.kind == PICTURES else sample | {"inputs": _each(inputs, maps, n)}


def _model(layers: list[Layer]) -> dict[str, Any]:
    parameters = sum(v.size for r in layers for v in vars(r).values() if isinstance(v, np.ndarray))
    return {"layers": len(layers), "parameters": parameters, "sha256": model_digest(layers)}


def _data(inputs: Inputs, given: dict[str, Any], layers: list[Layer]) -> dict[str, Any]:
    return {
        "kind": inputs.kind,
        "samples": len(inputs.x),
        "shape": list(inputs.x.shape),
        "dtype": inputs.x.dtype.str,
        "sha256": digest_of(inputs.x),
        "beside": {name: described(np.asarray(take(v)[0]), layers) for name, v in given.items()},
    }


def _environment(backend: str) -> dict[str, Any]:
    return {
        "dtdfast": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "backend": backend,
    }


def _named(rules: Sequence[Any]) -> dict[str, Any]:
    """Name → rules."""
    found: dict[str, Any] = {}
    for rule in rules:
        name = rule if isinstance(rule, str) else str(rule) if isinstance(rule, Rule) else f"rules {len(found) + 1}"
        if name in found:
            raise InputError(f"rules holds {name!r} twice")
        found[name] = rule
    if not found:
        raise InputError("rules is empty, expected presets or rules; the first is what the report is about")
    return found


def _classes(key: str, given: Any, default: Array, n_classes: int) -> Array:
    index = default if given is None else chosen(given, len(default), key)
    if not (index.min() >= 0 and index.max() < n_classes):
        raise InputError(f"{key} is {given!r:.60}, expected outputs from 0 to {n_classes - 1}, one or one per sample")
    return index.astype(np.intp)


def _maps(
    layers: list[Layer],
    inputs: Inputs,
    index: Array,
    named: Mapping[str, Any],
    options: dict[str, Any],
    given: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Array], Array]:
    """Per rule, its maps or why there are none; the maps alone; the outputs.  The first rule must succeed."""
    maps: dict[str, Any] = {}
    outputs = None
    for name, rules in named.items():
        try:
            explainer = Explainer(layers, **options, rules=rules)
            maps[name], found = explainer.explain(inputs.x, index, return_outputs=True, **given)
        except DtdError as error:
            if outputs is None:
                raise
            maps[name] = str(error)
            continue
        outputs = found if outputs is None else outputs
    assert outputs is not None
    return maps, {k: v for k, v in maps.items() if not isinstance(v, str)}, outputs


def _each(inputs: Inputs, maps: dict[str, Any], n: int) -> list[dict[str, Any]]:
    """Per feature or word: its name, its value, and its relevance under every rule."""
    names = inputs.tokens[n] if inputs.kind == TEXT else inputs.columns
    drawn = {name: values[n].tolist() for name, values in maps.items() if not isinstance(values, str)}
    return [
        {"name": name, "value": inputs.x[n, k].item(), "relevance": {rule: r[k] for rule, r in drawn.items()}}
        for k, name in enumerate(names)
    ]


def _account(ledger: Ledger, n: int) -> dict[str, Any]:
    """The ledger of one sample."""
    rows: list[dict[str, Any]] = [
        {
            "entries": list(row.entries),
            "title": row.title,
            "rule": row.rule,
            "came": float(row.came[n]),
            "went": float(row.went[n]),
            "absorbed": {cause: float(v[n]) for cause, v in row.absorbed.items() if v[n]},
            "residual": float(row.residual[n]),
            "bound": float(row.bound[n]),
        }
        for row in ledger.rows
    ]
    absorbed = {cause: float(v[n]) for cause, v in ledger.absorbed.items() if v[n]}
    closed = bool(abs(ledger.residual[n]) <= ledger.bound[n]) and all(abs(r["residual"]) <= r["bound"] for r in rows)
    return {
        "start": float(ledger.start[n]),
        "end": float(ledger.end[n]),
        "absorbed": absorbed,
        "residual": float(ledger.residual[n]),
        "bound": float(ledger.bound[n]),
        "closed": closed,
        "rows": rows,
    }


def _sum(values: Array) -> float:
    return float(values.sum(dtype=np.float64))


def _of_file(path: Any) -> str:
    digest = hashlib.sha256()
    with regular(Path(path)).open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
