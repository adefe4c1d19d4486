"""A run at a glance: totals of every sample that is finished, and which of them to look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, RunError
from ..files import readable
from .stored import Stored
from .work import TOTALS

Array = NDArray[Any]
ABSORBED = "absorbed: "  # how the ledger's columns of causes begin


def most_often(target: Array, most: int) -> list[tuple[Any, int]]:
    """The outputs that were explained most often, and how often; bad samples have −1."""
    found, counts = np.unique(target.reshape(len(target), -1), axis=0, return_counts=True)
    ranked = sorted((-int(c), *t.tolist()) for c, t in zip(counts, found, strict=True) if t.min() >= 0)[:most]
    return [(t[0] if len(t) == 1 else tuple(t), -c) for c, *t in ranked]


@dataclass(frozen=True)
class Overview:
    """What is known of a run's finished samples.

    Parameters
    ----------
    stored : the run's output
    number : of every finished sample, in order
    target : (n, axes of the outputs), -1 where there was an error
    score : the explained output, NaN there
    ledger : (n, columns)
    columns : of the ledger
    errors : number, name and text of every bad sample
    """

    stored: Stored
    number: NDArray[np.int64]
    target: NDArray[np.int64]
    score: NDArray[np.float64]
    ledger: NDArray[np.float64]
    columns: list[str]
    errors: list[tuple[int, str, str]]

    @classmethod
    def of(cls, path: Path) -> Overview:
        """Read all but the maps.

        Raises
        ------
        RunError, InputError : no run is there, or none of its chunks is finished
        """
        if not path.exists():
            raise InputError(
                f"{readable(str(path))}: nothing is there; expected what `dtdfast explain -o NAME.zarr` writes"
            )
        stored = Stored(path)
        if not stored.finished:
            raise RunError(f"{path}: no chunk is finished yet; look at it later, or continue it with --resume")
        columns = stored.attribute("ledger", "columns")
        whole = isinstance(columns, list) and all(isinstance(name, str) for name in columns)
        if not whole or columns[:2] != list(TOTALS) or stored.array("ledger").shape[1:] != (len(columns),):
            raise RunError(f"{path}: its array 'ledger' was changed after the run was begun")
        target, score, ledger = (
            np.concatenate(part) for part in zip(*(cls._chunk(stored, of) for of in stored.finished), strict=True)
        )
        number = np.concatenate([np.arange(of.start, of.stop) for of in stored.finished])
        return cls(stored, number, target, score, ledger, columns, list(stored.errors()))

    @staticmethod
    def _chunk(stored: Stored, of: range) -> tuple[Array, Array, Array]:
        outputs, target, ledger = (stored.rows(name, of.start, of.stop) for name in ("outputs", "target", "ledger"))
        target = target.reshape(len(of), -1)
        good = target.min(axis=1) >= 0
        if target.shape[1] != outputs.ndim - 1 or not (target < outputs.shape[1:]).all():
            raise stored.damaged("its array 'target'", "it names outputs that are not there")
        score = np.full(len(of), np.nan)
        score[good] = outputs[(np.flatnonzero(good), *target[good].T)]
        return target, score, ledger

    @property
    def absorbed(self) -> NDArray[np.float64]:
        """Of every sample the share of the relevance that entered which did not arrive, less than 0 where more arrived;
        NaN where none entered.
        """
        entered, arrived = self.ledger[:, 0], self.ledger[:, 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(entered != 0, (entered - arrived) / entered, np.nan)

    @property
    def open(self) -> NDArray[np.int64] | None:
        """Places of the samples whose account stays open; None without the ledger's columns for it."""
        if "residual" not in self.columns:
            return None
        residual, bound = (self.ledger[:, self.columns.index(name)] for name in ("residual", "bound"))
        return np.flatnonzero(np.abs(residual) > bound)

    def causes(self, place: int) -> dict[str, float]:
        """What absorbed relevance of one sample, where the run followed it."""
        found = {
            name.removeprefix(ABSORBED): float(value)
            for name, value in zip(self.columns, self.ledger[place], strict=True)
            if name.startswith(ABSORBED)
        }
        return {cause: value for cause, value in found.items() if value}

    def largest(self, values: Array, most: int) -> list[int]:
        """Places of the largest values, of equal ones the first; NaN is none of them."""
        order = np.argsort(-np.where(np.isnan(values), -np.inf, values), kind="stable")[:most]
        return [int(i) for i in order if not np.isnan(values[i])]

    def named(self, place: int) -> str:
        """A sample's name, or its number."""
        number = int(self.number[place])
        return self.stored.name(number) or f"sample {number}"

    def maps(self, places: list[int]) -> Iterator[tuple[int, Array]]:
        """Place and map (h, w) of some samples: channels summed, and what has one axis as one row; a chunk that has
        several of them is read once.
        """
        stored, chunk = self.stored, self.stored.chunk
        kept, options = (stored.manifest.get(key) for key in ("stored", "options"))
        fed = stored.manifest.get("preparation") or kept
        last = isinstance(fed, dict) and fed.get("layout") == "nhwc"
        last = last and (not isinstance(options, dict) or options.get("stop") is None)
        last = last and stored.attribute("relevance", "summed over axis") is None
        read: dict[int, Array] = {}
        for place in sorted(places):
            k, within = divmod(int(self.number[place]), chunk)
            if k not in read:
                read = {k: stored.rows("relevance", k * chunk, (k + 1) * chunk)}
            values = read[k][within].astype(np.float64)
            if last and values.ndim == 3:
                values = values.sum(axis=-1)
            yield place, values.reshape(-1, *values.shape[-2:]).sum(axis=0) if values.ndim > 1 else values[None]
