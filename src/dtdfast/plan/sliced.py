"""Fused steps: steps that run one behind another on every slice of what they read and write."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .._kernels import lib
from .memory import ALIGN
from .steps import Buffer, Step, View, row_major

ROWS, COLUMNS = 3, 4
"""Axes of a view."""

MOST: int = lib.DTD_MOST_SLICED
"""Steps that a fused one runs at most."""


@dataclass(eq=False, repr=False, slots=True)
class Local(Buffer):
    """What stands between the steps of a slice, in memory of each thread.

    axis : of a sample, the one cut into blocks; None: none is
    """

    axis: int | None = field(default=None, kw_only=True)
    block: int = field(default=0, kw_only=True)

    def strides(self) -> tuple[int, tuple[int, ...], int]:
        """Those of one slice; all lie in the same place."""
        shape = list(self.shape)
        shape[:-2] = [1] * (len(shape) - 2)
        if self.axis is not None:
            shape[self.axis] = self.block
        steps = row_major(tuple(shape))
        return 0, (*(0 for _ in shape[:-2]), *steps[-2:]), shape[-2] * shape[-1]


Cuts = dict[str, int]  # field of a step → the axis of that view which is cut


class Sliced(Step):
    """Steps that run one behind another on every slice.

    Attributes
    ----------
    inner : the steps; the first one's result has the axes that slices are made of
    cuts : of each step, the views that are cut into blocks, and along which axis
    block : rows or columns of a block; 0 where nothing is cut
    spans, ranges : likewise, the views of which a block needs a range alone, and along which axis; of every block, from
        where to where; None: all
    """

    def __init__(
        self, inner: list[Step], cuts: list[Cuts], block: int, spans: list[Cuts], ranges: list[tuple[int, int]] | None
    ) -> None:
        super().__init__("SLICED", inner[-1].unit, inner[-1].out)
        self.inner, self.cuts, self.block, self.spans, self.ranges = inner, cuts, block, spans, ranges

    def views(self) -> list[View]:
        return [view for step in self.inner for view in step.views() if not isinstance(view.buffer.root, Local)]

    def roots(self) -> list[Buffer]:
        return [view.buffer.root for view in self.views()]

    def written(self) -> list[View]:
        written = [view for step in self.inner for view in step.written()]
        return [view for view in written if not isinstance(view.buffer.root, Local)]

    def moved(self, place: Callable[[Buffer], Buffer]) -> Sliced:
        inner = [step.moved(place) for step in self.inner]
        return Sliced(inner, self.cuts, self.block, self.spans, self.ranges)

    def parts(self) -> list[Step]:
        return self.inner

    @property
    def entries(self) -> tuple[int, ...]:
        return tuple(sorted({entry for step in self.inner for entry in step.entries}))

    @property
    def macs(self) -> int:  # type: ignore[override]
        return sum(step.macs for step in self.inner)

    @property
    def detail(self) -> str:
        names = " ".join(step.op.lower() for step in self.inner)
        rows = "columns" if self.cuts[0].get("out") == COLUMNS else "rows"
        some = ", as the mask leaves them" if self.ranges is not None else ""
        if self.block:
            return f"{names}, by {self.block} {rows}{some}"
        return f"{names}, by head" if self.locals else names

    @property
    def locals(self) -> list[Local]:
        """The buffers that lie in memory of each thread."""
        roots = {id(v.buffer.root): v.buffer.root for step in self.inner for v in step.views()}
        return [root for root in roots.values() if isinstance(root, Local)]


def place_locals(steps: Iterable[Step], t: int) -> int:
    """Offsets within a thread's memory; returns the bytes that it needs for t targets."""
    most = 0
    for step in [step for step in steps if isinstance(step, Sliced)]:
        top = 0
        for buffer in step.locals:
            buffer.offset = top
            top += -(-buffer.nbytes(1, t) // ALIGN) * ALIGN
        most = max(most, top)
    return most
