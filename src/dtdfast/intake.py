"""What a call is given, checked: x, what comes beside it, targets; and where results go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import layers as L
from .arrays.beside import MASK, Givens
from .arrays.checks import Check, check_input
from .arrays.device import on_device
from .arrays.foreign import NUMPY, Home, take
from .errors import InputError
from .plan.domain import Domain
from .plan.program import EXPLAIN, words_of
from .plan.shapes import Shape
from .targets import Targets

if TYPE_CHECKING:
    from .session import Beside, Executor


class Intake:
    """The checks of one Explainer's calls.

    Parameters
    ----------
    layers, reads : the network, and what each of its entries reads
    last : position of the entry that is predicted or explained
    domain, backend : of the Explainer
    real : type of its results

    Attributes
    ----------
    words : position and number of words of an Embedding that reads the input, if there is one
    check : of what comes from a GPU
    taken : type of the numbers that the executor takes
    """

    def __init__(
        self, layers: list[L.Layer], reads: list[tuple[int, ...]], last: int, domain: Domain, backend: str, real: type
    ) -> None:
        self.domain, self.words, self._backend = domain, words_of(layers, reads, last), backend
        self.check, self._givens = Check(self.words, domain), Givens(layers, reads)
        # a Preparation needs all digits of x: it may subtract nearly all of it
        self.taken: type = np.float64 if any(isinstance(r, L.Preparation) for r in layers) else real

    def __call__(
        self, x: Any, given: Mapping[str, Any], kind: str, executors: Callable[[Shape, str], Executor]
    ) -> tuple[Any, Beside, Executor, Home]:
        """X as the executor takes it, checked, and what comes beside it; the executor; where results go (on a GPU they
        are there already).
        """
        host, home = (x, NUMPY) if self._backend == "cuda" and on_device(x) else take(x)
        if self._backend == "cuda":
            array = self.check.admit(host)
            beside = self._givens.check(given, len(array), np.float32)
            return array, beside, executors(tuple(array.shape[1:]), kind), home
        array = check_input(host, self.words, self.taken)
        beside = self._givens.check(given, len(array), self.taken)
        executor = executors(array.shape[1:], kind)
        if kind == EXPLAIN and self.words is None:
            self.domain.check(np.asarray(host))  # in the caller's own precision
        return array, beside, executor, home

    def refuse_lazy(self, given: Mapping[str, Any]) -> None:
        """InputError where a Dask array comes with other inputs."""
        if given or self._givens:
            raise InputError("x is a Dask array, which takes no other input beside it: explain its blocks one by one")


def targets_of(target: Any, n: int, executor: Executor, beside: Beside) -> Targets:
    """The targets of n samples."""
    return Targets.parse(take(target)[0], n, executor.program.network.output.shape, beside.get(MASK))
