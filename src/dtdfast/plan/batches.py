"""How much of a data set goes through the network at once: samples per pass, and targets per relevance pass."""

from __future__ import annotations

from typing import Any

from ..locks import cached_property
from .lower import lower, spread
from .parts import Sum
from .plan import Plan
from .program import Program
from .steps import SIZES

NEAR = 3 * 2**19
"""Bytes of weights that stay in a core's own cache beside what it computes."""

MACS_PER_BYTE = 64
"""Multiply-adds for each byte of weights that let a core read them at 2 GB/s, which memory gives to many cores at
once."""

CACHED = 2**27
"""Bytes of weights that the cores' common cache holds; more come from memory for every piece, and take eight times the
work beside them."""

BALANCED = 0.85
"""The least share of the threads' time that pieces must fill."""


class Batches:
    """Sizes of the passes of one program, by the arenas of its plans.

    Parameters
    ----------
    batch_size : samples per pass as the caller wants them, None for as many as the budget allows
    budget : bytes of arena that a pass may use where there is no batch_size (one sample may need more)
    enough : bytes of arena beyond which more samples spare nothing but reading the weights again; None where they
        always pay
    reals, local, pairs : as in lower
    """

    def __init__(
        self,
        program: Program,
        batch_size: int | None,
        budget: int,
        enough: int | None = None,
        reals: tuple[str, str] | None = None,
        *,
        local: bool = True,
        pairs: bool = False,
    ) -> None:
        self.batch_size, self.budget, self.enough = batch_size, budget, enough
        self._program, self._reals, self._local, self._pairs = program, reals, local, pairs
        self._one: Plan | None = self._lower(1)
        self.per_sample, self.macs = max(1, self._one.arena), self._one.macs

    def _lower(self, t: int, n: int = 1, most: int | None = None, threads: int = 0) -> Plan:
        options: dict[str, Any] = {"reals": self._reals, "local": self._local, "pairs": self._pairs}
        return lower(self._program, n, t, most=most, threads=threads, **options)

    def first(self, n: int, most: int, threads: int) -> Plan:
        """The plan for n samples with one target: once that by which the sizes were found. For `most` and `threads`,
        see lower.
        """
        found, self._one = self._one, None
        if found is not None and spread(found, n).arena + threads * found.local <= most:
            return found
        return self._lower(1, n, most, threads)

    @cached_property
    def weights(self) -> int:
        """Bytes of weights."""
        parts = [part for unit in self._program.network.units if isinstance(unit, Sum) for part in unit.parts]
        return SIZES[self._program.real] * sum(part.weight.size for part in parts if part.weight is not None)

    @cached_property
    def per_target(self) -> int:
        """Bytes of arena for one more target."""
        if not self._program.relevant:
            return 1
        return max(1, self._lower(2).arena - self.per_sample)

    def targets(self, n_targets: int) -> int:
        """Targets per relevance pass, so that one sample stays within the budget."""
        if n_targets == 1:
            return 1
        room = max(0, self.budget - self.per_sample) // self.per_target
        return max(1, min(n_targets, 1 + room))

    def samples(self, n: int, n_targets: int) -> int:
        """Samples per pass; the passes are of about one size."""
        if n == 1:
            return 1
        if self.batch_size is not None:
            return min(n, self.batch_size)
        # values leave the caches as samples are added, weights are read again as they are taken away: about as much of
        # either
        room = self.budget if self.enough is None else min(self.budget, max(self.enough, self.weights))
        more = self.targets(n_targets) - 1
        most = max(1, room // (self.per_sample + (more * self.per_target if more else 0)))
        return -(-n // -(-n // most))

    def piece(self, n: int, n_threads: int) -> int:
        """Samples of each piece of a pass that threads take one by one, all steps at a time, or n where they rather
        share every step.

        Pieces spare the threads waiting for one another, and what a step leaves is in the cache that its next step
        looks into. But every piece reads the weights: from its core's own cache, or so seldom that memory does not
        mind.
        """
        if n_threads == 1:
            return n
        # the more of them, the less one thread that lost its core holds up the others
        for pieces in (2 * n_threads, n_threads):
            piece = -(-n // pieces)
            rounds = -(-n // (piece * n_threads))
            seldom = (
                self.macs * piece >= (MACS_PER_BYTE if self.weights <= CACHED else 8 * MACS_PER_BYTE) * self.weights
            )
            near = pieces == n_threads and self.weights <= NEAR
            if n >= BALANCED * piece * rounds * n_threads and (seldom or near):
                return piece
        return n
