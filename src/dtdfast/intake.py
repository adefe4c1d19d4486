"""What a call is given, checked: x, what comes beside it, targets; and where results go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from . import layers as L
from .arrays.beside import MASK, Givens
from .arrays.checks import Check, check_input
from .arrays.device import on_device
from .arrays.foreign import NUMPY, Home, take
from .errors import DtdError, InputError, ShapeError
from .plan.domain import Domain
from .plan.program import EXPLAIN, words_of
from .targets import Targets

if TYPE_CHECKING:
    from .executors import Executors
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
        self.reads, self.domain, self.words, self._backend = reads, domain, words_of(layers, reads, last), backend
        self.check, self._givens = Check(self.words, domain), Givens(layers, reads)
        # a Preparation needs all digits of x: it may subtract nearly all of it
        self.taken: type = np.float64 if any(isinstance(r, L.Preparation) for r in layers) else real

    def __call__(
        self, x: Any, given: Mapping[str, Any], kind: str, executors: Executors
    ) -> tuple[Any, Beside, Executor, Home]:
        """X as the executor takes it, checked, and what comes beside it; the executor; where results go (on a GPU they
        are there already).
        """
        array, host, beside, home = self._taken(x, given)
        with advised(tuple(array.shape), kind, executors):
            executor = executors(tuple(array.shape[1:]), kind)
        self._inside(host, kind)
        return array, beside, executor, home

    def explained(
        self, x: Any, target: Any, given: Mapping[str, Any], kind: str, executors: Executors, *, whole: bool
    ) -> tuple[Any, Beside, Executor, Home, Targets]:
        """The same with its targets, and the executor for them: for one token alone where they read no other, unless
        `whole`.
        """
        array, host, beside, home = self._taken(x, given)
        sample = tuple(array.shape[1:])
        if whole or not may_narrow(target):
            with advised(tuple(array.shape), kind, executors):
                executor = executors(sample, kind)
            self._inside(host, kind)
            return array, beside, executor, home, targets_of(target, len(array), executor, beside)
        with advised(tuple(array.shape), kind, executors):
            out = executors.outputs(sample, kind).shape
        targets = Targets.parse(target, len(array), out, beside.get(MASK))
        token = targets.one_token(out)
        if token is not None and executors.apart(sample, kind, token):
            targets = targets.narrowed(out, token)
        executor = executors(sample, kind, token=targets.token)
        self._inside(host, kind)
        return array, beside, executor, home, targets

    def _taken(self, x: Any, given: Mapping[str, Any]) -> tuple[Any, Any, Beside, Home]:
        """X as the executor takes it and as it was, what comes beside it, and where results go."""
        host, home = (x, NUMPY) if self._backend == "cuda" and on_device(x) else take(x)
        array = self.check.admit(host) if self._backend == "cuda" else check_input(host, self.words, self.taken)
        real = np.float32 if self._backend == "cuda" else self.taken
        return array, host, self._givens.check(given, len(array), real), home

    def _inside(self, host: Any, kind: str) -> None:
        """DomainError where x, in the caller's own precision, lies outside its domain; a GPU finds it out itself."""
        if self._backend != "cuda" and kind == EXPLAIN and self.words is None:
            self.domain.check(np.asarray(host))

    def refuse_lazy(self, given: Mapping[str, Any]) -> None:
        """InputError where a Dask array comes with other inputs."""
        if given or self._givens:
            raise InputError("x is a Dask array, which takes no other input beside it: explain its blocks one by one")


@contextmanager
def advised(shape: tuple[int, ...], kind: str, executors: Executors) -> Iterator[None]:
    """Errors about an x of this shape say what to pass instead, where the network takes that."""
    try:
        yield
    except ShapeError as error:
        sample = shape[1:]
        trials = [(shape, "x has no batch axis: pass x[None]")]
        if len(sample) > 1:
            trials.append(((sample[-1], *sample[:-1]), "the channels of x are last: pass np.moveaxis(x, -1, 1)"))
            trials.append(((*sample[1:], sample[0]), "the channels of x are not last: pass np.moveaxis(x, 1, -1)"))
        for other, advice in trials:
            try:
                executors.outputs(other, kind)
            except DtdError:
                continue
            raise ShapeError(f"{error}; {advice}") from None
        raise


def may_narrow(target: Any) -> bool:
    """Whether a target may read one token alone: it names it, or is a start of (n, tokens, classes)."""
    return isinstance(target, (str, tuple)) or getattr(target, "ndim", 0) >= 3


def targets_of(target: Any, n: int, executor: Executor, beside: Beside) -> Targets:
    """The targets of n samples."""
    return Targets.parse(target, n, executor.program.network.output.shape, beside.get(MASK))
