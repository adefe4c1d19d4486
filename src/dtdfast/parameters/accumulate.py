"""Samples on their way through the network, and what they add up for the relevance of weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from typing import Any, NoReturn

import numpy as np

from ..arrays.checks import is_dask
from ..arrays.foreign import take
from ..errors import InputError, LayerError, NumericsError, RuleError, TargetError, at, translated
from ..explainer import Explainer
from ..locks import renewed
from ..options import whole_numbers
from ..progress import blocks
from ..results import of_kind
from ..session import Executor, WeightSums, rows
from .found import PER, Entry, WeightRelevance, entries_of
from .records import OTHERS, WEIGHTED, left_out, positions_with_weights


class Accumulator:
    """The relevance of weights over a data set, added up batch by batch.

    Parameters
    ----------
    explainer : Explainer
        The network, with its rules.
    positions : collection of int, optional
        The entries whose weights are asked for; by default all that have some.

    Raises
    ------
    InputError
        `explainer` is none.
    LayerError
        An entry of `positions` does not exist, or has no weights that a rule shares by.
    RuleError
        The Explainer propagates gradients.

    See Also
    --------
    relevance : The same for one batch, with the formulas.

    Notes
    -----
    Sums are in float64. They have the same bits however samples are divided into batches, for any number of threads.
    """

    def __init__(self, explainer: Explainer, positions: Collection[int] | None = None) -> None:
        if of_kind(explainer, Explainer, "explainer").options["kind"] != "explain":
            raise RuleError("the relevance of weights is that of rules; make the Explainer without kind='gradient'")
        self._explainer, self._layers = explainer, explainer._layers
        self._positions = _checked(self._layers, positions)
        self._sums: dict[int, tuple[Executor, WeightSums]] = {}  # by the executor's id: one for each shape of sample
        self.samples = 0
        self._lock = renewed(self, "_lock")  # threads may share one: kernels add to the sums one call at a time

    def __reduce__(self) -> NoReturn:
        raise InputError("an Accumulator stays in its process, as its executors do; send what its `result` returns")

    @translated
    def add(self, x: Any, target: Any = None, **given: Any) -> None:
        """Add a batch of samples.

        Parameters
        ----------
        x : array_like
            The inputs, as `Explainer.explain` takes them, but no Dask array.
        target : int, tuple, str, array_like or None, default None
            What is explained, one for each sample, as `Explainer.explain` has it.
        **given : array_like
            What the network's Givens are called: the values of these samples.

        Raises
        ------
        InputError
            x is a Dask array, has a wrong type, or holds NaN or infinity.
        ShapeError
            x does not fit the network.
        TargetError
            `target` selects no outputs of the network, or several per sample.
        MemoryBudgetError
            The sums, 8 bytes for each weight and map of its input, do not fit the budget.
        """
        if is_dask(x):
            raise InputError("x is a Dask array; add its blocks one by one, each as a NumPy array")
        explainer = self._explainer
        x, beside, executor, _, targets = explainer._asked(take(x)[0], target, given, whole=True)
        if targets.several:
            raise TargetError("the relevance of weights adds up one target per sample; call it once per target")
        if executor.program.checked is not None:  # whose float32 may be worth nothing, sample by sample
            executor = explainer._executor(tuple(x.shape[1:]), "explain", exact=True, token=targets.token)
        leaves, clip = executor.program.leaves.shape, explainer._book.preset.clip_start
        dtype = np.float64 if executor.program.real == "f8" or explainer.backend == "oracle" else np.float32
        with self._lock:
            _, sums = self._sums.setdefault(id(executor), (executor, executor.weight_sums(self._positions)))
            for block in blocks(len(x), executor.batch_size(len(x), 1), progress=False):
                n = block.stop - block.start
                with executor.session(n, 1, rows(beside, block), weights=sums) as session:
                    session.explain(x[block], targets.entry(block, clip=clip), np.empty((n, 1, *leaves), dtype))
            self.samples += len(x)

    def result(self, *, per: str = "weight", heads: Mapping[int, int] | None = None) -> WeightRelevance:
        """Find the relevance of what was added so far.

        Parameters
        ----------
        per : {"weight", "channel", "head"}, default "weight"
            What relevance is given of, as in `relevance`.
        heads : dict of int to int, optional
            {position: number of heads}, for per="head".

        Returns
        -------
        WeightRelevance
            Arrays by entry.

        Raises
        ------
        InputError
            No sample was added, or `per` is unknown.
        LayerError
            `heads` is missing, or does not fit the entries.
        NumericsError
            Relevance overflowed the number type of a run.
        """
        if not self.samples:
            raise InputError("no samples were added")
        if not isinstance(per, str) or per not in PER:
            raise InputError(f"per is {per!r:.40}, expected one of {', '.join(PER)}")
        found: dict[int, Entry] = {}
        rest: list[Any] = []
        for executor, sums in self._sums.values():
            entries_of(executor.program, sums.found(), self._positions, found, rest)
        for position, entry in found.items():
            if not np.isfinite(entry.relevance).all():
                raise NumericsError(f"{at(position, self._layers[position])}: the relevance of its weights overflowed")
        program = next(iter(self._sums.values()))[0].program
        missing = left_out(self._layers, program, set(found))
        return WeightRelevance(self._layers, found, rest, missing, self.samples, per, heads)


def relevance(
    explainer: Explainer,
    x: Any,
    target: Any = None,
    *,
    positions: Collection[int] | None = None,
    per: str = "weight",
    heads: Mapping[int, int] | None = None,
    **given: Any,
) -> WeightRelevance:
    """Share the explained outputs out over the network's weights, added up over all samples.

    A rule hands R_i = Σ_j n_ij s_j to inputs, with n_ij = Σ_terms in(x_i)·wm(w_ij) and s_j = R_j/d_j. The same messages
    belong to weights:

        R_w[ij] = Σ_samples Σ_positions n_ij s_j

    This is w ⊙ s xᵀ for LRP-0 and ε, x⁺w⁺s + x⁻w⁻s for z⁺, and the sum of the rule's terms for all others. Every layer
    shares out the relevance that reaches it, so the weights of each layer have together what that layer handed on.

    Parameters
    ----------
    explainer : Explainer
        The network, with its rules.
    x : array_like
        The inputs, as `Explainer.explain` takes them, but no Dask array. For a data set see `Accumulator`.
    target : int, tuple, str, array_like or None, default None
        What is explained, one for each sample, as `Explainer.explain` has it.
    positions : collection of int, optional
        The entries whose weights are asked for; by default all that have some.
    per : {"weight", "channel", "head"}, default "weight"
        What relevance is given of.

        - "weight": each weight, in the shape of the record's weights.
        - "channel": each output channel, its weights added up.
        - "head": equal blocks of output channels, as many as `heads` says of an entry, such as the one that makes the
          values of an attention layer.
    heads : dict of int to int, optional
        {position: number of heads}, for per="head".
    **given : array_like
        What the network's Givens are called: the values of these samples.

    Returns
    -------
    WeightRelevance
        Arrays by entry, in float64; biases apart.

    Raises
    ------
    InputError
        `explainer`, x or `per` is not what is expected.
    ShapeError
        x does not fit the network.
    TargetError
        `target` selects no outputs of the network, or several per sample.
    LayerError
        An entry of `positions` or `heads` does not exist, or has no weights that a rule shares by.
    RuleError
        The Explainer propagates gradients.
    NumericsError
        Relevance overflowed the number type of a run.
    MemoryBudgetError
        The sums, 8 bytes for each weight and map of its input, do not fit the budget.

    See Also
    --------
    Accumulator : The same for a data set that comes in batches.
    prune : Sets the weights of least score to 0.

    Notes
    -----
    A bias that stands in a denominator takes relevance as a weight of an input that is always 1 does; rules that leave
    it out give it none. A BatchNorm or Scale that is folded into a layer is part of that layer's weights: relevance is
    listed for the layer alone, in the shape of its weights, and `WeightRelevance.left_out` names where it went. One
    that is a neuron of its own has relevance per channel. Embeddings, norms of the sample, and whatever relevance
    passes have none, and are listed there too.

    Costs one pass back, and for each layer and map of its input one product more. Relevance by magnitude of
    contributions serves as a criterion of pruning [1]_.

    References
    ----------
    .. [1] Yeom et al., "Pruning by explaining: a novel criterion for deep neural network pruning", Pattern Recognition
       115 (2021), doi:10.1016/j.patcog.2021.107899.
    """
    sums = Accumulator(explainer, positions)
    sums.add(x, target, **given)
    return sums.result(per=per, heads=heads)


def _checked(layers: list[Any], positions: Collection[int] | None) -> frozenset[int]:
    """The entries that are asked for."""
    if positions is None:
        found = positions_with_weights(layers)
        if not found:
            raise LayerError("the network has no Linear, Conv, ConvTranspose, BatchNorm or Scale")
        return found
    positions = whole_numbers("positions", list(positions) if isinstance(positions, Set) else positions)
    for position in positions:
        if not 0 <= position < len(layers):
            raise LayerError(f"positions names entry {position}, but the network has {len(layers)} entries")
        if not isinstance(layers[position], WEIGHTED):
            why = OTHERS.get(type(layers[position]), "it has no weights")
            raise LayerError(f"{at(position, layers[position])} has no relevance of weights: {why}")
    if not positions:
        raise LayerError("positions is empty; name at least one entry, or leave it out for all")
    return frozenset(positions)
