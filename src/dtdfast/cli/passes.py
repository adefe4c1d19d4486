"""Photographs through the network in batches, several side by side, while others are decoded and drawn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contrast import Contrast
from ..errors import DomainError, InputError, NumericsError, TargetError
from ..explainer import Explainer
from ..images import Preparation
from ..ledger.ledger import Ledger
from ..runs.local import streams
from ..threads import default_threads
from .text import ranked

Array = NDArray[Any]

BATCH = 8  # photographs of one pass: more are hardly faster, and take memory
AHEAD = 2  # batches that wait for each pass, so that none waits for drawing
OF_ONE = (InputError, DomainError, NumericsError, TargetError, OSError)  # what is wrong with one photograph alone


@dataclass(frozen=True)
class Question:
    """What is explained of every photograph.

    Parameters
    ----------
    targets : outputs; none: the `top` largest
    against : what they are set against, or None
    ledger : whether every cause of absorption is followed
    """

    targets: tuple[int, ...]
    top: int
    against: int | str | None
    ledger: bool

    @property
    def count(self) -> int:
        """Maps under each rule."""
        return len(self.targets) or self.top

    def start(self, numbers: Any) -> Any:
        """The target of `Explainer.explain`."""
        return numbers if self.against is None else Contrast(numbers, self.against)


@dataclass(frozen=True)
class Found:
    """What one photograph gave.

    Parameters
    ----------
    picture : bytes, as the network saw it
    outputs : (classes,)
    numbers : of the outputs that were explained
    maps : per rule (targets, h, w), summed over channels
    accounts : per rule and target, the ledger in a few numbers; empty without one
    """

    picture: Array
    outputs: Array
    numbers: list[int]
    maps: dict[str, Array]
    accounts: dict[str, list[dict[str, Any]]]


Answer = Found | Exception


def side_by_side(n: int, threads: int | None, backend: str) -> int:
    """Passes that run at once, of which each has its share of the threads."""
    if backend != "cpu":
        return 1
    return min(streams(threads or default_threads()), max(1, n // 2))


def explained(
    explainers: Mapping[str, Explainer],
    preparation: Preparation,
    question: Question,
    paths: Sequence[Path],
    passes: int,
    threads: int | None,
    draw: Callable[[int, Found], Any],
) -> Iterator[tuple[int, Any]]:
    """For every photograph, in order: its number, and what `draw` made of it or the exception that it raised.

    After an interruption, what was finished comes, and then KeyboardInterrupt.
    """
    size = max(1, min(BATCH, -(-len(paths) // passes)))
    batches = iter([range(i, min(i + size, len(paths))) for i in range(0, len(paths), size)])
    running = ThreadPoolExecutor(passes, "dtdfast-explain")
    drawing = ThreadPoolExecutor(threads or default_threads(), "dtdfast-draw")
    flowing: deque[tuple[range, Future[list[Any]]]] = deque()

    def one_pass(batch: range) -> list[Any]:
        answers = _answered(explainers, preparation, question, [paths[i] for i in batch])
        return [
            answer if isinstance(answer, Exception) else drawing.submit(draw, i, answer)
            for i, answer in zip(batch, answers, strict=True)
        ]

    def begin(most: int) -> None:
        flowing.extend((batch, running.submit(one_pass, batch)) for batch in islice(batches, most))

    try:
        begin(passes * AHEAD)
        while flowing:
            batch, future = flowing[0]
            for i, drawn in zip(batch, future.result(), strict=True):
                yield i, drawn.result() if isinstance(drawn, Future) else drawn
            flowing.popleft()
            begin(1)
    except KeyboardInterrupt:
        running.shutdown(cancel_futures=True)
        drawing.shutdown(cancel_futures=True)
        for batch, future in flowing:
            for i, drawn in zip(batch, [] if future.cancelled() else future.result(), strict=False):
                if not isinstance(drawn, Future) or not drawn.cancelled():
                    yield i, drawn.result() if isinstance(drawn, Future) else drawn
        raise
    finally:
        running.shutdown(cancel_futures=True)
        drawing.shutdown(cancel_futures=True)


def _answered(
    explainers: Mapping[str, Explainer], preparation: Preparation, question: Question, paths: Sequence[Path]
) -> list[Answer]:
    """What a batch of photographs gives."""
    answers: list[Any] = [None] * len(paths)
    x = np.zeros((len(paths), *preparation.shape), np.float32)
    pictures: dict[int, Array] = {}
    for i, path in enumerate(paths):
        try:
            pictures[i] = preparation.picture(path)
            preparation.normalised(pictures[i], x[i])
        except OF_ONE as error:
            answers[i] = error
    axis = 1 if preparation.layout == "nchw" else -1

    def some(which: list[int]) -> None:
        """Explain these; where it cannot be done, halves of them, until it is known which is bad."""
        try:
            found = _maps(explainers, question, x[which], axis)
        except OF_ONE as error:
            if len(which) == 1:
                answers[which[0]] = error
            else:
                some(which[: len(which) // 2])
                some(which[len(which) // 2 :])
            return
        outputs, numbers, maps, accounts = found
        for k, i in enumerate(which):
            answers[i] = Found(
                pictures[i],
                outputs[k],
                numbers[k].tolist(),
                {rule: values[k] for rule, values in maps.items()},
                {rule: [of[k] for of in by_target] for rule, by_target in accounts.items()},
            )

    if pictures:
        some(list(pictures))
    return answers


def _maps(
    explainers: Mapping[str, Explainer], question: Question, x: Array, axis: int
) -> tuple[Array, Array, dict[str, Array], dict[str, list[list[dict[str, Any]]]]]:
    """Outputs, the numbers (n, t) of those explained, and per rule maps (n, t, h, w) and accounts by target."""
    n, count = len(x), question.count
    maps: dict[str, Array] = {}
    accounts: dict[str, list[list[dict[str, Any]]]] = {}
    outputs = None
    numbers: Any = np.broadcast_to(np.array(question.targets), (n, count)) if question.targets else None
    for rule, explainer in explainers.items():
        # the first alone: it tells the outputs, and so which the largest ones are
        first = None if numbers is None else numbers[:, 0]
        relevance, given, *ledgers = explainer.explain(
            x, question.start(first), return_outputs=True, return_ledger=question.ledger
        )
        outputs = given if outputs is None else outputs
        if numbers is None:
            numbers = np.stack([ranked(of, count) for of in outputs])
        parts = [relevance[:, None]]
        if question.ledger:
            for k in range(1, count):
                more, ledger = explainer.explain(x, question.start(numbers[:, k]), return_ledger=True)
                parts.append(more[:, None])
                ledgers.append(ledger)
        elif count > 1:
            parts.append(explainer.explain(x, question.start(numbers[:, 1:])))
        maps[rule] = np.concatenate([part.sum(axis=axis % x.ndim + 1, dtype=np.float64) for part in parts], axis=1)
        accounts[rule] = [_accounts(ledger) for ledger in ledgers]
    assert outputs is not None
    return outputs, numbers, maps, accounts


def _accounts(ledger: Ledger) -> list[dict[str, Any]]:
    """The ledger of every sample in a few numbers."""
    absorbed, residual, bound = ledger.absorbed, ledger.residual, ledger.bound
    closes = np.abs(residual) <= bound
    for row in ledger.rows:
        closes &= np.abs(row.residual) <= row.bound
    return [
        {
            "absorbed": {cause: float(v[k]) for cause, v in absorbed.items()},
            "residual": float(residual[k]),
            "bound": float(bound[k]),
            "account_closes": bool(closes[k]),
        }
        for k in range(len(residual))
    ]
