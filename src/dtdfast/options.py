"""The options of an Explainer, once: names, defaults, checks, and what each group of them decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from .arrays.checks import host_array
from .errors import DtdError, InputError, LayerError, RuleError
from .layers import Given, Layer
from .plan.program import EXPLAIN, GRADIENT
from .presets import Rules
from .threads import MOST

OF_RULES = ("rules", "convention", "attention", "kind")
"""Options that change no gradient."""

PLACE = ("backend", "batch_size", "n_threads", "device")
"""Options that say where and how results are computed. No bit depends on them, but on the backend that is chosen."""

PREDICTING = (*PLACE, "precision")
"""Options that predictions take."""


@dataclass(frozen=True, eq=False)
class Options:
    """Everything that an `Explainer` is made with beside its layers; `Explainer` documents them."""

    rules: Rules = "dtd"
    domain: Any = "real"
    convention: str = "dtd"
    attention: str | None = None
    backend: str = "auto"
    precision: str = "float32"
    batch_size: int | None = None
    n_threads: int | None = None
    device: Any = None
    start: int | None = None
    stop: int | None = None
    kind: str = EXPLAIN

    def checked(self, n_entries: int) -> Options:
        """The same with plain integers, of a network of so many entries; the other options are checked where they are
        read.

        Raises
        ------
        LayerError
            Sizes below 1, positions that no entry has.
        RuleError
            Rules of positions that no entry has, or an unknown kind.
        """
        sized = replace(
            self, batch_size=_size("batch_size", self.batch_size), n_threads=_size("n_threads", self.n_threads, MOST)
        )
        for key, value in (("start", self.start), ("stop", self.stop)):
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < n_entries
            ):
                raise LayerError(f"{key} is {value!r}, expected a position from 0 to {n_entries - 1}")
        if self.start is not None and self.stop is not None and self.stop > self.start:
            raise LayerError(f"stop={self.stop} comes after start={self.start}: relevance runs from start down to stop")
        if not isinstance(self.kind, str) or self.kind not in (EXPLAIN, GRADIENT):
            raise RuleError(f"kind is {self.kind!r:.60}, expected {EXPLAIN!r} or {GRADIENT!r}")
        if isinstance(self.rules, dict):
            for position in self.rules:
                if not 0 <= position < n_entries:
                    raise RuleError(f"rules names entry {position}, but the network has entries 0 to {n_entries - 1}")
        return sized


def predicting(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options of an explanation that its predictions take."""
    return {key: value for key, value in options.items() if key in PREDICTING}


def differentiating(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that its gradients take, which no narrow type computes."""
    return {k: v for k, v in options.items() if k in PLACE or (k, v) == ("precision", "float64")}


def by_oracle(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same for the oracle, whatever computes the explanation."""
    return {**{key: value for key, value in options.items() if key not in ("device", "precision")}, "backend": "oracle"}


def at_least_one(key: str, value: Any) -> int:
    """A number of things that a caller asks for."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{key} is {value!r:.80}, expected an integer of at least 1")
    return int(value)


def whole_numbers(key: str, values: Any) -> list[int]:
    """Some integers that a caller lists."""
    array = host_array(list(values) if isinstance(values, range) else values, key)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError(f"{key} is {values!r:.60}, expected a list of integers")
    return [int(v) for v in array]


def texts(key: str, values: Any) -> list[str]:
    """Some names that a caller lists, whatever yields them."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable) or getattr(values, "shape", None) == ():
        raise InputError(f"{key} is {values!r:.60}, expected a list of names")
    return [str(value) for value in values]


def check_flags(error: type[DtdError] = InputError, **flags: Any) -> None:
    """The error where one of them is neither True nor False."""
    for key, flag in flags.items():
        if not isinstance(flag, (bool, np.bool_)):
            raise error(f"{key} is {flag!r:.60}, expected True or False")


def seeded(seed: Any) -> int:
    """A seed, as NumPy's generators take it."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InputError(f"seed is {seed!r:.60}, expected an integer of at least 0")
    return int(seed)


def split(keywords: Mapping[str, Any], *without: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those that are options of an Explainer, and the others, which a network's Givens may be called; `without` names
    more that are refused.
    """
    known = {f.name for f in fields(Options)}
    for key in ("out", "return_outputs", "return_ledger", *without):
        if key in keywords:
            raise InputError(f"{key}= is for `explain` alone; leave it out here")
    options = {key: value for key, value in keywords.items() if key in known}
    return options, {key: value for key, value in keywords.items() if key not in known}


def alone(layers: Sequence[Layer], what: str) -> None:
    """InputError where a network takes arrays beside its input, which `what` does not vary or hold."""
    names = [record.name for record in layers if isinstance(record, Given)]
    if names:
        raise InputError(
            f"the network takes {', '.join(f'{name}=' for name in names)} beside its input, and {what} takes the input "
            "alone; put what is the same for all samples into the network as a Constant"
        )


def _size(key: str, value: int | None, most: int | None = None) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1):
        raise LayerError(f"{key} is {value!r:.80}, expected an integer of at least 1")
    if value is not None and most is not None and value > most:
        raise LayerError(f"{key} is {value}, expected at most {most}")
    return None if value is None else int(value)
