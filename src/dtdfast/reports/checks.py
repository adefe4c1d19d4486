"""The tests of a report: each asks one question, says what was done and found in two sentences, and gives a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..arrays.beside import beside_rows
from ..calls import explain
from ..diagnostics import class_sensitivity, conservation, parameter_randomization, root_audit
from ..diagnostics.attribution import Attribution
from ..diagnostics.similarity import median
from ..errors import DtdError, InputError
from ..evaluation import region_perturbation
from ..layers import Layer
from ..layout import channel_axis
from ..options import PREDICTING
from ..verdicts import OPEN, TABLE
from .inputs import PICTURES, Array, Inputs

ELEMENTS = 1_000_000  # of the samples that the slower tests take
N_ROOTS = 100
REGIONS = 25  # along a picture's longer side
STEPS, REPEATS = 30, 2


@dataclass(frozen=True)
class Check:
    """One test and how it ended.

    Parameters
    ----------
    state : of dtdfast.verdicts
    numbers : what is drawn and stored
    """

    name: str
    question: str
    done: str
    found: str
    state: str
    verdict: str
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """What the tests are made of."""

    layers: Sequence[Layer]
    inputs: Inputs
    target: Array
    against: Array | None  # None: the network has one output
    rules: dict[str, Any]  # name → rules; the first is tested
    options: dict[str, Any]
    given: dict[str, Any]  # values of the network's Givens for all samples
    seed: int

    @property
    def first(self) -> dict[str, Any]:
        """Options of the rule that is tested."""
        return {**self.options, "rules": next(iter(self.rules.values()))}

    def beside(self, which: slice) -> dict[str, Any]:
        """Options of the rule that is tested, and what these samples bring along."""
        return {**self.first, **beside_rows(self.given, which)}

    @property
    def turned(self) -> bool:
        """Whether a picture's channels come last, and the network does not tell."""
        return self.inputs.channels_last and channel_axis(self.layers, 4) > 0

    @property
    def attribution(self) -> Attribution:
        """Maps as they are compared: with channels, which are summed there, where the network has them."""
        if not self.turned:
            return explain

        def turned(layers: Sequence[Layer], x: Any, start: Any, **options: Any) -> Array:
            return np.moveaxis(explain(layers, x, start, **options), -1, -3)

        turned.__name__ = next(iter(self.rules))
        return turned

    @property
    def some(self) -> slice:
        """Samples of the slower tests."""
        return slice(0, max(1, ELEMENTS // self.inputs.x[0].size))


Found = tuple[float, str, dict[str, Any]]  # the number that is judged, a sentence, and all numbers


def _account(case: Case) -> Found:
    result = conservation(case.layers, case.inputs.x[case.some], case.target[case.some], **case.beside(case.some))
    off = float(np.nanmax(result.off)) if np.isfinite(result.off).any() else float("nan")
    shares = {cause: float(np.nanmean(v)) for cause, v in result.shares.items() if np.isfinite(v).any()}
    return off, result.reading, {"closed": result.ledger.closed, "shares": shares}


def _class(case: Case) -> Found:
    if case.against is None:
        raise InputError("the network has one output: there is no other class to compare with")
    result = class_sensitivity(
        case.layers,
        case.inputs.x,
        case.target,
        case.against,
        attribution=case.attribution,
        **case.first,
        **case.given,
    )
    cosines = result.similarity["|cosine|"]
    return median(cosines), result.reading, {k: v.tolist() for k, v in result.similarity.items()}


def _weights(case: Case) -> Found:
    result = parameter_randomization(
        case.layers, case.inputs.x[case.some], case.target[case.some], attribution=case.attribution, seed=case.seed,
        **case.beside(case.some),
    )  # fmt: skip
    cosines = [median(np.abs(v)) for v in result.similarity["cosine"]]
    return cosines[-1], result.reading, {"layers": result.names, "cosine": cosines}


def _roots(case: Case) -> Found:
    size = case.inputs.x[0].size
    n_roots = int(np.clip(3 * ELEMENTS // (10 * size), 3, N_ROOTS))
    few = slice(0, 4 if n_roots == N_ROOTS else 1)
    result = root_audit(
        case.layers, case.inputs.x[few], case.target[few], n_roots=n_roots, seed=case.seed, **case.first
    )
    numbers = {"layer": result.title, "roots": len(result.reach), "share of roots": result.share_of_roots}
    return result.share_of_relevance, result.reading, {**numbers, "share of relevance": result.share_of_relevance}


def _perturbation(case: Case, maps: dict[str, Array]) -> Found:
    x, n = case.inputs.x[case.some], len(case.inputs.x[case.some])
    pictures = case.inputs.kind == PICTURES
    if case.turned:
        raise InputError("the pictures have their channels last, and regions are cut where channels come first")
    if not pictures and n < 2:
        raise InputError("there is one sample: what others hold at its places cannot replace its values")
    given = {k: v for k, v in case.options.items() if k in (*PREDICTING, "domain")}
    taken = {name: values[case.some] for name, values in maps.items()}
    size = max(1, round(max(case.inputs.summed(x[:1]).shape[1:]) / REGIONS)) if pictures else 1
    result = region_perturbation(
        case.layers, x, taken, case.target[case.some], size=size, steps=STEPS, repeats=REPEATS,
        operator="uniform" if pictures else "resample", seed=case.seed, **given,
    )  # fmt: skip
    name = next(iter(maps))
    lines = {m: result.band(m)[0].tolist() for m in result.outputs}
    table = [dict(zip(result.header, row, strict=True)) for row in result.rows()]
    numbers = {"what": result.what, "outputs": lines, "table": table}
    return result.over_random(name).in_half_widths, result.reading, numbers


QUESTIONS = {
    "account": "Does it add up?",
    "class": "Does it depend on the class?",
    "weights": "Does it depend on what was learnt?",
    "roots": "Is it a Taylor decomposition of this network?",
    "perturbation": "Does the output fall where it points?",
}
DONE = {
    "account": "The relevance that arrives at the inputs is compared with the output; the ledger books the rest.",
    "class": "The map of the explained class is compared with that of the class it is set against.",
    "weights": "Weights become random, from the output down, and each time the map is compared with the original.",
    "roots": "Each neuron is expanded at a root point; on the way there, the network must stay the same function.",
    "perturbation": "Inputs are replaced in the order of their relevance, and the explained output is followed.",
}
TESTS = tuple(QUESTIONS)


def checked(case: Case, maps: dict[str, Array], tests: Sequence[str]) -> list[Check]:
    """Every test that is asked for; one that cannot be made says why."""
    made: dict[str, Callable[[], Found]] = {
        "account": lambda: _account(case),
        "class": lambda: _class(case),
        "weights": lambda: _weights(case),
        "roots": lambda: _roots(case),
        "perturbation": lambda: _perturbation(case, maps),
    }
    return [_checked(name, made[name]) for name in TESTS if name in tests]


def _checked(name: str, make: Callable[[], Found]) -> Check:
    question, done = QUESTIONS[name], DONE[name]
    try:
        value, found, numbers = make()
    except DtdError as error:
        return Check(name, question, done, f"It cannot be made here: {error}", OPEN, "not tested")
    state, verdict = TABLE[name].verdict(value)
    if name == "account" and not numbers["closed"]:
        state, verdict = "bad", "AN ACCOUNT DOES NOT CLOSE: a kernel is wrong, so do not use this map"
    return Check(name, question, done, found, state, verdict, {"value": value, **numbers})
