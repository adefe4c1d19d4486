"""Work in other processes, which tests must be able to import from there."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import dtdfast as dtd


def in_a_child(work: Callable[[], bool]) -> tuple[bool, int]:
    """Whether `work` holds in a forked child, which is killed if it hangs; and how many warnings it gave."""
    readable, writable = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads around is what is tested
        child = os.fork()
    if child == 0:
        signal.alarm(60)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            holds = work()
        os.write(writable, bytes([holds, len(told)]))
        os._exit(0)
    os.close(writable)
    os.waitpid(child, 0)
    holds, n_told = os.read(readable, 2) or (0, 0)  # nothing of a child that hung
    os.close(readable)
    return bool(holds), n_told


def explained(explainer: dtd.Explainer, x: np.ndarray, target: Any = None) -> bytes:
    """The bits of a map."""
    return explainer.explain(x, target).tobytes()


class Maps:
    """A data set, as PyTorch's DataLoader takes it, whose samples are maps."""

    def __init__(self, explainer: dtd.Explainer, x: np.ndarray) -> None:
        self.explainer, self.x = explainer, x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> np.ndarray:
        relevance: np.ndarray = self.explainer.explain(self.x[i : i + 1])[0]
        return relevance
