"""How much of a data set goes through the network at once: samples per pass, and targets per relevance pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lower import lower
from .steps import SIZES
from .units import Neuron

if TYPE_CHECKING:
    from ..program import Program


class Batches:
    """Sizes of the passes of one program, by the arenas of its plans.

    Parameters
    ----------
    batch_size : samples per pass as the caller wants them, None for as many as the budget allows
    budget : bytes of arena that a pass may use where there is no batch_size (one sample may need more)
    reals : as in lower
    enough : bytes of arena beyond which more samples spare nothing but reading the weights again; None where they always pay
    """

    def __init__(
        self, program: Program, batch_size: int | None, budget: int, enough: int | None = None, reals: tuple[str, str] | None = None
    ) -> None:
        self.batch_size, self.budget, self.enough = batch_size, budget, enough
        one = lower(program, 1, 1, reals=reals).arena
        self.per_sample = max(1, one)
        parts = [part for unit in program.network.units if isinstance(unit, Neuron) for part in unit.parts]
        self.weights = sum(SIZES[program.real] * part.weight.size for part in parts if part.weight is not None)
        self.per_target = max(1, lower(program, 1, 2, reals=reals).arena - one) if program.relevant else 1

    def targets(self, n_targets: int) -> int:
        """Targets per relevance pass, so that one sample stays within the budget."""
        room = max(0, self.budget - self.per_sample) // self.per_target
        return max(1, min(n_targets, 1 + room))

    def samples(self, n: int, n_targets: int) -> int:
        """Samples per pass; the passes are of about one size."""
        if self.batch_size is not None:
            return min(n, self.batch_size)
        # values leave the caches as samples are added, weights are read again as they are taken away: about as much of either
        room = self.budget if self.enough is None else min(self.budget, max(self.enough, self.weights))
        most = max(1, room // (self.per_sample + (self.targets(n_targets) - 1) * self.per_target))
        return -(-n // -(-n // most))
