"""Single samples in float64: where denominators are too small for float32, or where a map is all 0."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays.device import to_host
from .executors import Executors
from .plan.program import PREDICT
from .session import Beside, rows
from .targets import Targets

Array = NDArray[Any]


class Exact:
    """One sample at a time in float64, by the executors of an Explainer.

    Parameters
    ----------
    executors : of the Explainer
    kind : what it explains, see plan/program.py
    clip_start : whether the start is clipped at 0, unless it is a gradient's
    """

    def __init__(self, executors: Executors, kind: str, clip_start: bool) -> None:
        self._executors, self._kind, self._clip_start = executors, kind, clip_start

    def explain(
        self, x: Any, beside: Beside, i: int, targets: Targets, view: Array, outputs: Array | None = None
    ) -> None:
        """Sample i's relevance (1, t, *leaves) into `view`."""
        executor = self._executors(tuple(x.shape[1:]), self._kind, exact=True, token=targets.token)
        gradient, one = executor.program.gradient, slice(i, i + 1)
        entry = targets.entry(one, unit=gradient, clip=self._clip_start and not gradient)
        with executor.session(1, targets.count, rows(beside, one)) as session:
            session.explain(to_host(x[one]), entry, view, outputs)

    def maps(self, x: Any, beside: Beside, i: int, targets: Targets) -> Array:
        """The same, (t, *leaves)."""
        executor = self._executors(tuple(x.shape[1:]), self._kind, exact=True, token=targets.token)
        leaves = executor.program.leaves.shape
        view: Array = np.zeros((1, targets.count, *leaves))
        self.explain(x, beside, i, targets, view)
        return np.asarray(view[0])

    def outputs(self, x: Any, beside: Beside, i: int) -> Array:
        """Sample i's outputs, as one row of its own (1, *out)."""
        executor = self._executors(tuple(x.shape[1:]), PREDICT, exact=True)
        outputs = np.zeros((1, *executor.program.network.output.shape))
        with executor.session(1, 1, rows(beside, slice(i, i + 1))) as session:
            session.predict(to_host(x[i : i + 1]), outputs)
        return np.asarray(outputs)
