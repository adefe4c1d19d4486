"""Operands whose weights are numbers of the sample, held constant: a norm's scales, the matrix of a product."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..vocabulary import W
from .parts import Part
from .steps import Buffer, Step, View
from .tensors import Floats, Region, Tensor, whole

if TYPE_CHECKING:
    from .lowering import Lowering


@dataclass(eq=False)
class Held(Part):
    """An operand Σ_i x_i w_ij with the w_ij of the sample."""

    @property
    def positive(self) -> bool:
        return self.nonnegative

    held = True

    @property
    @abstractmethod
    def fan_in(self) -> int:
        """The terms of a sum over inputs."""

    @property
    @abstractmethod
    def fan_out(self) -> int:
        """The terms of a sum over outputs."""

    @abstractmethod
    def product(self, lowering: Lowering, x: View, fields: dict[str, Any], *, scatter: bool) -> None:
        """Emit out (+)= Σ_i x_i wm(w_ij), or with `scatter` out (+)= multiplier · Σ_j wm(w_ij) x_j."""


@dataclass(eq=False)
class Normed(Held):
    """A norm along the first axis: w_ij = (δ_ij − κ)·ρ·weight_j, κ = 1/size if it is centred and else 0."""

    centred: bool = field(default=True, kw_only=True)
    epsilon: float = field(default=0.0, kw_only=True)
    weights: Floats | None = field(default=None, kw_only=True)  # of as many axes as a sample; None: ones

    @property
    def fan_in(self) -> int:
        return self.source.channels if self.centred else 1

    @property
    def fan_out(self) -> int:
        return self.fan_in

    def constants(self, lowering: Lowering) -> dict[str, Any]:
        """The fields of its steps that say what norm it is."""
        weight = None if self.weights is None else lowering.constant(self.weights)
        return dict(norm_weight=weight, centred=self.centred)

    def product(self, lowering: Lowering, x: View, fields: dict[str, Any], *, scatter: bool) -> None:
        op = "NORM_SCATTER" if scatter else "NORM_TAPS"
        scale = View(lowering.held[id(self)])
        lowering.emit(Step(op, lowering.unit, x=x, scale=scale, **self.constants(lowering), **fields))


@dataclass(eq=False)
class Weighted(Held):
    """A product with a matrix: y = A x, or y = x A, over the last two axes; any of x and A transposed."""

    matrix: Tensor = field(kw_only=True)
    left: bool = field(default=True, kw_only=True)  # y = A x
    transposed: tuple[bool, bool] = field(default=(False, False), kw_only=True)  # x, A

    @property
    def positive(self) -> bool:
        return self.matrix.nonnegative

    @property
    def rank(self) -> int:
        """The axes of its operands, the batch counted."""
        return 1 + len(self.source.shape)

    @property
    def fan_in(self) -> int:
        rows, columns = self.matrix.shape[-2:]
        return columns if self.left != self.transposed[1] else rows

    @property
    def fan_out(self) -> int:
        rows, columns = self.matrix.shape[-2:]
        return rows if self.left != self.transposed[1] else columns

    def product(self, lowering: Lowering, x: View, fields: dict[str, Any], *, scatter: bool) -> None:
        fields = dict(fields)
        matrix = self._mapped(lowering, fields.pop("weight_map", W), fields.pop("gamma", 0.0))
        a = exchanged(View(matrix), self.transposed[1] != scatter)
        if scatter:
            fields["out"] = exchanged(fields["out"], self.transposed[0])
            if fields.get("m") is not None:
                fields["m"] = exchanged(fields["m"], self.transposed[0])
        else:
            x = exchanged(x, self.transposed[0])
        emit_product(lowering, (a, x) if self.left else (x, a), fields)

    def _mapped(self, lowering: Lowering, weight_map: str, gamma: float) -> Buffer:
        """wm(A), in a buffer of its own where it is not A itself."""
        matrix = lowering.value(self.matrix)
        if weight_map == W:
            return matrix
        mapped = lowering.buffer(f"w{lowering.label(self.matrix)}", self.matrix.shape, plain=True)
        step = Step("MAP_WEIGHT", lowering.unit, View(mapped), View(matrix), weight_map=weight_map, gamma=gamma)
        lowering.emit(step)
        return mapped


def exchanged(view: View, exchange: bool) -> View:
    """A view with its last two axes exchanged."""
    if not exchange:
        return view
    ranges = whole(view.buffer.shape).ranges if view.region is None else view.region.ranges
    before = tuple(range(len(ranges))) if view.region is None or view.region.order is None else view.region.order
    return replace(view, region=Region(ranges, (*before[:-2], before[-1], before[-2])))


def emit_product(lowering: Lowering, operands: tuple[View, View], fields: dict[str, Any]) -> None:
    """out (+)= multiplier · Σ_k first[.., i, k] second[.., k, j]."""
    first, second = operands
    shape = first.layout()[1]
    step = Step("MATMUL", lowering.unit, x=first, other=second, **fields)
    rows, columns = step.out.layout()[1][2:4]
    step.macs = shape[0] * shape[1] * rows * columns * shape[3]
    lowering.emit(step)
