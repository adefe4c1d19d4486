"""The same elements under another shape: Flatten, Reshape."""

from __future__ import annotations

import math

from ... import layers as L
from ...errors import ShapeError
from ..lowering import Lowering
from ..order import row_major_memory
from ..shapes import Shape, join
from ..steps import Buffer, Step, View
from ..tensors import Box
from .base import Balance, Recipe, Unit, made, passes


class Reshaping(Unit):
    """The same elements in row-major order under another shape."""

    transparent = True

    def sign(self) -> bool:
        return self.sources[0].nonnegative

    def box(self, given: list[Box]) -> Box | None:
        low, high = given[0]
        return low.reshape(self.out.shape), high.reshape(self.out.shape)

    @property
    def form(self) -> str:
        return self.out.form

    def refusal(self, *, gradient: bool) -> str:
        return ""

    @property
    def reshapes(self) -> bool:
        return True

    def forward(self, lowering: Lowering) -> None:
        x, stem = lowering.value(self.sources[0]), f"x{lowering.label(self.out)}"
        lowering.values[self.out.index] = lowering.reshaped(x, self.out.shape, stem)

    def relevance(self, lowering: Lowering, r: Buffer) -> None:
        (source,), name = self.sources, f"t{lowering.label(self.out)}"
        if lowering.hands_over(self, source, r) and (r.plain or row_major_memory(r)):
            lowering.relevances[source.index] = lowering.reshaped(r, source.shape, name)
            return

        def write(out: Buffer, accumulate: bool) -> None:
            back = lowering.reshaped(r, source.shape, name)
            lowering.emit(Step("MOVE", self, View(out), View(back), accumulate=accumulate))

        lowering.deliver(self, source, write)

    def balance(self) -> Balance:
        return passes()


def flatten_shape(record: L.Flatten, shape: Shape) -> Shape:
    return (math.prod(shape),)


def reshape_shape(record: L.Reshape, shape: Shape) -> Shape:
    total, new = math.prod(shape), tuple(record.shape)
    known = math.prod(s for s in new if s != -1)
    if -1 in new and total % known == 0:
        new = tuple(total // known if s == -1 else s for s in new)
    if math.prod(new) != total or -1 in new:
        raise ShapeError(
            f"shape (n, {join(tuple(record.shape))}) does not fit its input (n, {join(shape)}) of {total} elements"
        )
    return new


RECORDS: dict[type[L.Layer], Recipe] = {
    L.Flatten: Recipe(flatten_shape, made(Reshaping)),
    L.Reshape: Recipe(reshape_shape, made(Reshaping)),
}
