"""The operands of a neuron, and what remains of a rule's terms for each once signs are known."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from ..locks import cached_property
from ..rules import Row, Share, Term
from ..rules.rows import Terms
from ..show import OneLine
from ..vocabulary import INPUT_MAPS, W_POS, WEIGHT_MAPS, W, X
from .taps import Taps, phases
from .tensors import Box, Floats, Node, Tensor

BLOCK, AT_ONCE = 16, 2**16
"""Channels of which one length is taken, at most; weights that are squared at once."""


@dataclass(eq=False)
class Part(OneLine):
    """One operand of a neuron: source ∗ weight by taps; weight (c_out, c_in/groups, *kernel), None for ones."""

    position: int
    source: Tensor
    taps: Taps
    weight: Floats | None = None
    window: NDArray[np.float64] | None = None  # average pool: 1 / divisor per output position (d, h, w)
    box: Box | None = None
    rounded: Box | None = None  # the box as float32 steps compute it, so that x on a bound equals it
    linear: bool = False
    nonnegative: bool = False  # no weight is negative
    support: Part | None = None  # with a weight of 1 where this one's is not 0: all that are taps
    variant: tuple[int, int] = (0, 0)  # how many affine maps were folded in, before and after: tells its weights apart
    terms: Terms = ()  # per share of the row, reduced by the signs known here

    held: ClassVar[bool] = False  # whether its weights are numbers of the sample, held constant (held.py)

    @property
    def positive(self) -> bool:
        """Whether all its weights are known to be ≥ 0."""
        return self.weight is None or self.nonnegative

    @property
    def framed(self) -> bool:
        """Whether a sum over its taps reads beyond its source."""
        if self.held or self.linear:
            return False
        return any(phase.framed for phase in phases(self.taps, scatter=False))

    @cached_property
    def lengths(self) -> Part:
        """The operand whose inputs are blocks of this one's channels, and whose weights are their lengths √Σ w².

        Σ |x w| over a block is at most √Σ x² · √Σ w² (Cauchy–Schwarz).
        """
        weight, taps = self.weight, self.taps
        assert weight is not None
        inner = taps.c_in // taps.groups
        blocks = 1 if taps.groups > 1 else -(-inner // BLOCK)
        starts = np.arange(blocks) * -(-inner // blocks)
        lengths = np.empty((len(weight), blocks, *weight.shape[2:]), weight.dtype)
        rows = max(1, AT_ONCE // (inner * taps.n_taps))
        with np.errstate(over="ignore", under="ignore"):
            for first in range(0, len(weight), rows):
                squares = np.square(weight[first : first + rows], dtype=np.float64)
                lengths[first : first + rows] = np.sqrt(np.add.reduceat(squares, starts, axis=1))
        taps = taps._replace(c_in=taps.groups * blocks)
        variant = (self.variant[0], -1 - self.variant[1])  # no affine maps have this number
        return replace(self, weight=lengths, taps=taps, nonnegative=True, support=None, variant=variant)


@dataclass(eq=False)
class Sum(Node):
    """y = Σ_parts + bias, out = activation(y); relevance by a row. Neurons are sums."""

    parts: list[Part] = field(default_factory=list)
    bias: Floats | None = None
    activation: L.ReLU | L.Activation | None = None
    row: Row | None = None
    sloped: bool = False  # relevance takes the slope of its ReLU
    fuses: ClassVar[bool] = True  # whether an activation behind it may become its own
    half: bool = False  # its value is the sum of what it shares by, without bias and activation

    @property
    def column(self) -> tuple[int, ...]:
        """The shape in which its bias meets a sample."""
        if self.bias is not None and self.bias.ndim > 1:
            return self.bias.shape
        return (-1, *(1,) * (len(self.out.shape) - 1))

    @property
    def tables(self) -> tuple[Taps, ...]:
        return tuple([part.taps for part in self.parts])


def is_identity(part: Part) -> bool:
    """An operand that enters with weight 1 and no taps."""
    if part.weight is not None or part.window is not None or part.held:
        return False
    return part.taps.n_taps == 1 and part.taps.stride == (1, 1, 1)


def is_whole(part: Part) -> bool:
    """One window that is the whole of its operand, as in a global pool: going back, every element gets the same."""
    taps = part.taps
    return (
        not part.held
        and part.weight is None
        and not taps.transposed
        and taps.kernel == taps.x_size
        and taps.out_size == (1, 1, 1)
        and not any(taps.before)
    )


def bias_map(bias: Floats, share: Share, gamma: float) -> NDArray[np.float64]:
    """The bias as it stands in a share's denominator: wm(b)."""
    assert share.bias is not None
    mapped: NDArray[np.float64] = WEIGHT_MAPS[share.bias].of(np.asarray(bias, np.float64), gamma)
    return mapped


def window_scale(window: NDArray[np.float64] | None, weight_map: str) -> NDArray[np.float64] | None:
    """What a pool's 1/divisor makes of a rule's weight map: wm(s·w) = s^power·wm(w)."""
    power = WEIGHT_MAPS[weight_map].power
    return None if window is None or power == 0 else window**power


def sign_of_term(part: Part, term: Term) -> int | None:
    """The sign of all of a term's products in(x_i)·wm(w_ij), if it is known: 1 (≥ 0) or -1 (≤ 0)."""
    x = INPUT_MAPS[term.x].sign or (1 if part.source.nonnegative else None)
    w = WEIGHT_MAPS[term.w].sign or (1 if part.positive else None)
    return x * w if x and w else None


def has_slopes(unit: Sum) -> bool:
    """Whether its activation is a prelu, which no epilogue knows."""
    return isinstance(unit.activation, L.Activation) and unit.activation.slopes is not None


FEW_OUTPUTS = 4
"""Outputs whose terms kernels may sum in another order apart than beside y: both orders stay where they were."""


def fusable(unit: Sum) -> bool:
    """One share, one denominator that y's own pass over x and w can sum: Σ x w⁺ (z⁺ on x ≥ 0) or Σ x w."""
    row = unit.row
    assert row is not None
    parts = unit.parts
    first = len(parts) > 1 and is_identity(parts[0]) and len(parts[0].terms[0]) == 1  # which starts the sums
    many = row.by_sign or unit.out.shape[0] > FEW_OUTPUTS
    plain, positive = True, True  # all maps are w; they are w+, or w where weights are 1
    for part in parts[1:] if first and many and is_dual(unit) else parts:
        if len(terms := part.terms[0]) != 1 or terms[0].x != X:
            return False
    if row.by_sign:
        return is_dual(unit)
    share, *more = row.shares
    if more or share.select != "all":
        return False
    for part in parts:
        w = part.terms[0][0].w
        plain = plain and w == W
        positive = positive and (w == W_POS or (w == W and part.weight is None))
    return positive if not plain else share.terms[0].w == W or positive


def is_dual(unit: Sum) -> bool:
    return any((terms := part.terms[0]) and terms[0].w == W_POS for part in unit.parts)
