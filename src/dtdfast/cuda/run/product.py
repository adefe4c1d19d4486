"""A dense product as numbers: its operand and epilogue in memory, how both are copied, what its tile is chosen by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError
from ...plan.plan import Plan
from ...plan.steps import SIZES, Step, View
from ..compile.kernel import Kernel
from ..kernels import dense
from ..kernels.dense import Tile
from ..kernels.epilogue import FIRST_VIEW, N_FLOATS, PER_VIEW, Finish
from ..kernels.warp_product import ROW_BYTES
from . import tiles
from .launch import AddressOf, Launch

MOST = 2**31  # offsets and counts of pixels are 32-bit


def row_length(inputs: int, real: str) -> int:
    """Elements of a row of weights in memory: bfloat16 is filled up with zeros, so that every row is 16-byte
    aligned.
    """
    return inputs if real == "f4" else -(-inputs // 8) * 8


class Operand:
    """A view as address and strides along n, d, h, w; channels lie next to each other."""

    def __init__(self, view: View, address_of: AddressOf, x_step: Sequence[int] = (1, 1, 1)) -> None:
        _, shape, strides = view.layout()
        if shape[0] > 1 and strides[0] != 1:
            raise BackendError(
                f"the channels of {view.buffer.name} do not lie next to each other, which this kernel asks for"
            )
        sample = 0 if view.buffer.batch == "1" else view.buffer.strides()[2]
        self.address, self.dtype = address_of(view), view.buffer.root.dtype
        self.pixels: tuple[int, int, int] = (shape[1], shape[2], shape[3])
        self.axes = strides[1:4]
        self.strides = (sample, *(s * step for s, step in zip(self.axes, x_step, strict=True)))

    def numbers(self) -> tuple[int, ...]:
        return (self.address, *self.strides)

    def aligned(self, *more: int) -> bool:
        """Whether 16 bytes of channels can be moved at once; `more` offsets count in."""
        return self.address % 16 == 0 and all(s * SIZES[self.dtype] % 16 == 0 for s in (*self.strides, *more))


@dataclass(frozen=True)
class Other:
    """In the place of an operand: one that is not there, of the type that it would have, or a number per pixel, read
    one by one.
    """

    dtype: str
    address: int = 0
    strides: tuple[int, ...] = (0, 0, 0, 0)

    def numbers(self) -> tuple[int, ...]:
        return (self.address, *self.strides)

    def aligned(self) -> bool:
        return True


def _window(window: NDArray[np.float32], address_of: AddressOf) -> Other:
    _, h, w = window.shape
    return Other("f4", address_of(window), (0, h * w, w, 1))


def channels_of(step: Step) -> tuple[bool, int, int]:
    """Whether a product is transposed; the channels of a group that it sums over, and those of its results."""
    assert step.weights is not None
    weight = step.weights.part.weight
    assert weight is not None
    c_out, c_in = weight.shape[0] // step.groups, weight.shape[1]
    if step.weights.scatter or step.op == "SCATTER_LINEAR":
        return True, c_out, c_in
    return False, c_in, c_out


def _taps(step: Step, x: Operand, row: int) -> NDArray[np.int32]:
    """Per tap its offset in x and in the weights; spare lines last."""
    assert step.phase is not None
    table = np.zeros((len(step.phase.taps) + dense.SPARE_TAPS, 2), np.int32)
    for line, (tap, offset) in zip(table, step.phase.taps, strict=False):
        line[:] = sum(o * s for o, s in zip(offset, x.axes, strict=True)), tap * row
    return table


Views = dict[str, Operand | Other]
"""What the epilogue reads and writes."""


def _views(step: Step, dtype: str, address_of: AddressOf) -> Views:
    given = {name: getattr(step, name) for name in ("out", "factor", "terms", "y_prev", "terms_prev", "m")}
    views: Views = {name: Operand(v, address_of) for name, v in given.items() if v is not None}
    if not step.op.startswith("NEURON"):  # one kernel serves with and without a multiplier
        views.setdefault("m", Other(dtype))
    if step.window is not None:
        views["window"] = _window(step.window, address_of)
    return views


def _ending(step: Step, views: Views, channels: int) -> Finish:
    """The epilogue that the step asks for; it takes neighbouring channels at once where all views have them so."""
    neuron = step.op.startswith("NEURON")
    mode = step.factor_kind if neuron else step.multiplier if step.m is not None else "times"
    types = tuple(v.dtype for v in views.values())
    width = 8 if "bf16" in types else 4
    width = width if channels % width == 0 and all(v.aligned() for v in views.values()) else 1
    return Finish(neuron, step.activation[0], mode, step.dual, tuple(views), types, width)


class Sums(NamedTuple):
    """What one launch of a product sums over.

    Attributes
    ----------
    table, taps, inner : address of the taps, how many they are, channels of each
    groups, group : sums side by side, and elements of the weights from one to the next
    walked : segments that the table lists one after the other
    """

    table: int
    taps: int
    inner: int
    groups: int
    group: int
    walked: int = 1


class Product:
    """A dense product as numbers, whatever its launches are.

    Attributes
    ----------
    x, views, ending : its operand; what its epilogue reads and writes, and what it does
    transposed, inner, channels : as `channels_of` says
    table, row : of `_taps`; elements of the weights of one output
    vector, vector_w, even : of copies of x and of the weights; whether channels fill tiles
    unit, form, shape : what its tile is chosen by
    groups, group : how many, and elements of the weights of one
    places, vectors, floats : numbers of its pixels, its biases, its formulas
    """

    def __init__(self, step: Step, plan: Plan, address_of: AddressOf, precision: str) -> None:
        assert step.x is not None
        assert step.weights is not None
        assert step.phase is not None
        weight = step.weights.part.weight
        assert weight is not None
        if any(bias is not None and bias.ndim > 1 for bias in (step.bias, step.bias_d)):
            raise BackendError("its bias varies along several axes, but this kernel asks for one number per channel")
        self.transposed, self.inner, self.channels = channels_of(step)
        c_out, c_in = (self.inner, self.channels) if self.transposed else (self.channels, self.inner)
        self.n_taps, self.groups = len(step.phase.taps), step.groups
        neuron = step.op.startswith("NEURON")
        self.maps = (("w", "w+") if step.dual else ("w",)) if neuron else (step.weight_map,)

        self.x = x = Operand(step.x, address_of, step.phase.x_step)
        row = row_length(c_in, x.dtype)
        self.table, self.row = _taps(step, x, row), prod(weight.shape[2:]) * row
        self.group = c_out * self.row
        self.views = _views(step, x.dtype, address_of)
        self.ending = _ending(step, self.views, self.channels)
        self.weights = address_of(step.weights)
        biases = (0 if b is None else address_of(b) for b in (step.bias, step.bias_d))
        self.vectors = (*biases, int(step.accumulate))
        self.floats = (step.gamma, step.coefficient, step.stabilizer, *step.activation[1:])

        self.pixels_of_out = d, h, w = Operand(step.out, address_of).pixels
        n = {"n": plan.n, "nt": plan.n * plan.t, "1": 1}[step.out.buffer.batch]
        self.pixels = n * d * h * w
        if max(self.pixels, *(n * v.strides[0] for v in (x, *self.views.values()))) >= MOST:
            raise BackendError(
                f"a pass of {n} samples has more than 2**31 elements in one array; choose a smaller batch_size"
            )
        self.places = (self.pixels, d * h * w, h * w, w, step.repeat)
        self._classify(precision)

    def _classify(self, precision: str) -> None:
        """How x and the weights are copied, and by that the unit and the form."""
        x, size, depth = self.x, SIZES[self.x.dtype], self.inner * SIZES[self.x.dtype]  # depth: bytes of a tap
        whole = 16 // size  # elements of a copy of 16 bytes
        self.vector = whole if self.inner % whole == 0 and x.aligned(*self.table[:, 0].tolist()) else 1
        self.vector_w = self.vector
        if self.transposed:
            self.vector_w = whole if x.dtype == "bf16" or self.channels % whole == 0 else 1
        unit = "bf16" if x.dtype == "bf16" else tiles.UNITS[precision][0 if self.vector == whole else 1]
        # copies of 2 bytes would take too many registers
        thin = self.transposed and self.channels <= tiles.THIN_CHANNELS and self.vector * size >= 4
        filled = self.vector == whole and (self.vector_w == whole or thin) and depth % ROW_BYTES == 0
        self.even = unit in tiles.EVEN_UNITS and filled
        shallow = self.n_taps * depth <= ROW_BYTES
        form = tiles.THIN if thin else tiles.EVEN if self.even else tiles.SHALLOW if shallow else tiles.UNEVEN
        if tiles.USE_WGMMA and tiles.suits_wgmma(unit, form, self.channels):
            unit = tiles.by_wgmma(unit)
        self.unit, self.form = unit, form
        self.shape = tiles.Shape(
            unit, form, len(self.maps), self.pixels, self.channels, self.groups, self.n_taps * depth, len(self.views)
        )

    def launch(self, tile: Tile, sums: Sums, ending: Finish, views: Views, vectors: tuple[int, ...]) -> Launch:
        """A launch of the contraction kernel."""
        across = -(-self.channels // tile.channels)
        numbers = (
            *(self.x.address, *self.x.strides, self.weights, sums.table, sums.taps, sums.inner),
            *(*self.places, across, self.row, sums.group, self.channels, *vectors),
            *(number for v in views.values() for number in v.numbers()),
        )
        constants = (
            self.unit, self.maps, self.transposed, tile.constants, self.vector, self.vector_w, self.even,
            ending.constants, *((sums.walked,) if sums.walked > 1 else ()),
        )  # fmt: skip
        kernel = Kernel(
            "dtd_dense", dense.dense, constants, FIRST_VIEW + PER_VIEW * len(views), N_FLOATS, tile.threads,
            tile.min_blocks,
        )  # fmt: skip
        grid = (-(-self.pixels // tile.pixels) * across, sums.groups, 1)
        return Launch(kernel, grid, tile.shared_bytes(len(self.maps), len(views)), numbers, self.floats)
