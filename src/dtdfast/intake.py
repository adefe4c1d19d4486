"""What a call is given, checked: x, what comes beside it, targets; and where results go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays.beside import MASK, Givens
from .arrays.checks import Check, check_input
from .arrays.device import on_device
from .arrays.foreign import NUMPY, Home, take
from .errors import InputError
from .executors import Executors
from .plan.domain import Domain
from .plan.program import EXPLAIN
from .targets import Targets

if TYPE_CHECKING:
    from .session import Beside, Executor


class Intake:
    """The checks of one Explainer's calls.

    Parameters
    ----------
    backend : of the Explainer
    words : position and number of words of an Embedding that reads the input, if there is one
    domain, givens, check : of the Explainer
    taken : type of the numbers that the executor takes
    executors : that make the executor for a shape of samples
    """

    def __init__(
        self,
        backend: str,
        words: tuple[int, int] | None,
        domain: Domain,
        givens: Givens,
        check: Check,
        taken: type,
        executors: Executors,
    ) -> None:
        self._backend, self._words, self._domain = backend, words, domain
        self._givens, self._check, self._taken, self._executors = givens, check, taken, executors

    def __call__(self, x: Any, given: Mapping[str, Any], kind: str) -> tuple[Any, Beside, Executor, Home]:
        """X as the executor takes it, checked, and what comes beside it; the executor; where results go (on a GPU they
        are there already).
        """
        host, home = (x, NUMPY) if self._backend == "cuda" and on_device(x) else take(x)
        if self._backend == "cuda":
            array = self._check.admit(host)
            beside = self._givens.check(given, len(array), np.float32)
            return array, beside, self._executors(tuple(array.shape[1:]), kind), home
        array = check_input(host, self._words, self._taken)
        beside = self._givens.check(given, len(array), self._taken)
        executor = self._executors(array.shape[1:], kind)
        if kind == EXPLAIN and self._words is None:
            self._domain.check(np.asarray(host))  # in the caller's own precision
        return array, beside, executor, home

    def refuse_lazy(self, given: Mapping[str, Any]) -> None:
        """InputError where a Dask array comes with other inputs."""
        if given or self._givens:
            raise InputError("x is a Dask array, which takes no other input beside it: explain its blocks one by one")


def targets_of(target: Any, n: int, executor: Executor, beside: Beside) -> Targets:
    """The targets of n samples."""
    return Targets.parse(take(target)[0], n, executor.program.network.output.shape, beside.get(MASK))
