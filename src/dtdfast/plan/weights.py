"""What a plan for the relevance of weights sums beside maps; parameters/sums.py makes relevance of these sums.

A weight w_ij of a neuron's operand takes R_w[ij] = Σ_terms wm(w_ij) Σ_positions in(x_i) s_j. So each operand and input
map is one product of the kind of a weight's gradient, whatever the weight maps. Products are one step for each phase of
taps. They read the relevance of the plan without them, and change nothing of it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..budget import require
from ..show import OneLine
from ..vocabulary import WEIGHT_MAPS
from .parts import Part, Sum
from .steps import WEIGHT_GRADIENT, Buffer, Step, View
from .taps import Taps, phases, pointwise
from .tensors import Region

if TYPE_CHECKING:
    from .lowering import Lowering


@dataclass(eq=False)
class Product(OneLine):
    """Σ_positions in(x_i) s_j, for the taps of one phase: numbers first … of the array "weights", (taps, inputs of a
    group, outputs).

    Attributes
    ----------
    part : the operand; None: the bias, whose x is 1
    maps : the weight maps of its terms
    """

    unit: Sum
    part: Part | None
    maps: list[str]
    taps: tuple[int, ...]
    first: int
    shape: tuple[int, int, int]


@dataclass(eq=False)
class Weighing:
    """The products of a plan: emits their steps, and says where each of them lies in the array "weights".

    Attributes
    ----------
    positions : of the entries whose weights are asked for
    size : numbers of that array
    """

    positions: Collection[int]
    products: list[Product] = field(default_factory=list)
    size: int = 0
    _ones: dict[tuple[str, int], Buffer] = field(default_factory=dict)  # by type and number of axes

    def __post_init__(self) -> None:
        self.buffer = Buffer("weights", (0,), "1", "f8", external="weights")

    def wants(self, unit: Sum) -> bool:
        """Whether some of its weights are asked for."""
        return any(part.weight is not None and part.position in self.positions for part in unit.parts)

    def product(self, lowering: Lowering, unit: Sum, part: Part, x: Buffer, s: Buffer, maps: list[str]) -> None:
        """That of an operand whose x, mapped, is in a buffer."""
        self._emit(lowering, Product(unit, part, maps, (), 0, (0, 0, 0)), part.taps, View(x), s)

    def bias(self, lowering: Lowering, unit: Sum, s: Buffer, maps: list[str]) -> None:
        """That of the bias."""
        key = lowering.real, len(unit.out.shape)
        if key not in self._ones:
            self._ones[key] = one = lowering.buffer("one", (1,) * key[1], "1", plain=True)
            lowering.emit(Step("MOVE", unit, View(one), bound=lowering.constant([1.0])))
        taps = pointwise(1, unit.out.channels, unit.out.space)
        x = View(self._ones[key], expand=(1, *unit.out.shape[1:]))
        self._emit(lowering, Product(unit, None, maps, (), 0, (0, 0, 0)), taps, x, s)

    def _emit(self, lowering: Lowering, made: Product, taps: Taps, x: View, s: Buffer) -> None:
        for phase in phases(taps):
            if not phase.taps:
                continue
            shape = len(phase.taps), taps.c_in // taps.groups, taps.c_out
            size, numbers = shape[0] * shape[1] * shape[2], tuple(k for k, _ in phase.taps)
            self.products.append(Product(made.unit, made.part, made.maps, numbers, self.size, shape))
            out = View(self.buffer, Region(((self.size, 1, size),)))
            self.size += size
            self.buffer.shape = (self.size,)
            if x.expand is None:
                x.buffer.root.widen(*phase.border)
            m = View(s).phase(phase.start, phase.step, phase.count)
            macs = size * phase.count[0] * phase.count[1] * phase.count[2]
            step = Step(WEIGHT_GRADIENT, made.unit, out, x, m=m, phase=phase, groups=taps.groups, macs=macs)
            lowering.emit(step)


class OfWeights(NamedTuple):
    """The relevance of an operand's weights, (outputs, inputs of a group, taps); part None: of the bias, (outputs, 1,
    1).
    """

    unit: Sum
    part: Part | None
    relevance: NDArray[np.float64]


class ProductSums:
    """The array "weights" of plans that differ in their samples alone, and relevance of it.

    Parameters
    ----------
    positions : of the entries whose weights are asked for
    """

    def __init__(self, positions: frozenset[int]) -> None:
        self.positions = positions
        self._products: list[Product] = []
        self._sums: NDArray[np.float64] | None = None

    def of(self, weighing: Weighing) -> NDArray[np.float64]:
        """The sums so far, to which a plan's steps add."""
        if self._sums is None:
            require(8 * weighing.size, "the relevance of all weights")
            self._products, self._sums = weighing.products, np.zeros(weighing.size)
        return self._sums

    def found(self) -> list[OfWeights]:
        """R_w[ij] = Σ_terms wm(w_ij) Σ_positions in(x_i) s_j, operand by operand."""
        result: dict[tuple[int, int], OfWeights] = {}
        for product in self._products:
            assert self._sums is not None
            unit, part, (n_taps, inputs, outputs) = product.unit, product.part, product.shape
            sums = self._sums[product.first :][: n_taps * inputs * outputs].reshape(product.shape).transpose(2, 1, 0)
            key = unit.out.index, -1 if part is None else unit.parts.index(part)
            messages, whole = sums * factors(product), 1 if part is None else part.taps.n_taps
            if key not in result and n_taps == whole:  # many numbers, of which there need be no second copy
                result[key] = OfWeights(unit, part, messages)
                continue
            if key not in result:
                result[key] = OfWeights(unit, part, np.zeros((outputs, inputs, whole)))
            result[key].relevance[:, :, product.taps] += messages
        return list(result.values())


def factors(product: Product) -> NDArray[np.float64]:
    """Σ_terms wm(w) of the weights that a product is of."""
    unit, part = product.unit, product.part
    assert unit.row is not None
    weight: NDArray[np.float64] = np.ones((1, 1, 1))
    if part is None:
        assert unit.bias is not None
        weight = np.asarray(unit.bias, np.float64).reshape(-1, 1, 1)
    elif part.weight is not None:
        weight = part.weight.reshape(*part.weight.shape[:2], -1)[:, :, product.taps].astype(np.float64)
    return sum((WEIGHT_MAPS[name].of(weight, unit.row.gamma) for name in product.maps), np.zeros((1, 1, 1)))
