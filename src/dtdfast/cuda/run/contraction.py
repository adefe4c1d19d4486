"""Dense products of a plan as launches: geometry becomes numbers, what a step asks for a specialisation.  No maths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError
from ...packing import pack
from ...plan.plan import Plan
from ...plan.steps import SIZES, Step, View, Weights
from ..compile.kernel import Kernel
from ..kernels import dense, segments
from ..kernels.dense import Tile
from ..kernels.epilogue import FIRST_VIEW, N_FLOATS, PER_VIEW, Finish
from ..kernels.warp_product import ROW_BYTES, WGMMA
from . import matmul, tiles
from .launch import AddressOf, Launch

OPERATIONS = frozenset(("NEURON_DENSE", "TAPS_DENSE", "NEURON_LINEAR", "TAPS_LINEAR", "SCATTER_LINEAR", "MATMUL"))
"""Operations that `launches` takes."""

PIECE = 2**15  # numbers that are rounded at once
MOST = 2**31  # offsets and counts of pixels are 32-bit


def packing_key(weights: Weights) -> tuple[Any, ...]:
    """What one upload serves: dense weights go up once for both directions and all phases."""
    if weights.layout == "dense":
        return weights.part.position, weights.part.variant, "dense", weights.real
    return weights.key


def row_length(inputs: int, real: str) -> int:
    """Elements of a row of weights in memory: bfloat16 is filled up with zeros, so that every row is 16-byte
    aligned.
    """
    return inputs if real == "f4" else -(-inputs // 8) * 8


def packing(weights: Weights) -> NDArray[Any]:
    """Weights as the kernels read them: dense (c_out, c_in/groups, *kernel) → [output][tap][input], rows as they
    are.
    """
    if weights.layout != "dense" and weights.real == "f4":
        return pack(weights)
    weight = weights.part.weight
    assert weight is not None
    packed = np.ascontiguousarray(weight.reshape(*weight.shape[:2], -1).swapaxes(1, 2), np.float32)
    if weights.real == "f4":
        return packed
    more = row_length(packed.shape[-1], weights.real) - packed.shape[-1]
    return bf16(np.pad(packed, [(0, 0), (0, 0), (0, more)]))


def bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Finite numbers as the bits of bfloat16, rounded to nearest, ties to even; piece by piece, so that the caches hold
    what is between.
    """
    bits = np.ascontiguousarray(values).reshape(-1).view(np.uint32)
    rounded = np.empty(bits.size, np.uint16)
    for start in range(0, bits.size, PIECE):
        piece = bits[start : start + PIECE]
        rounded[start : start + PIECE] = (piece + np.uint32(0x7FFF) + (piece >> 16 & 1)) >> 16
    return rounded.reshape(values.shape)


class _Operand:
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
class _Other:
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


def _window(window: NDArray[np.float32], address_of: AddressOf) -> _Other:
    _, h, w = window.shape
    return _Other("f4", address_of(window), (0, h * w, w, 1))


def _channels(step: Step) -> tuple[bool, int, int]:
    """Whether a product is transposed; the channels of a group that it sums over, and those of its results."""
    assert step.weights is not None
    weight = step.weights.part.weight
    assert weight is not None
    c_out, c_in = weight.shape[0] // step.groups, weight.shape[1]
    if step.weights.scatter or step.op == "SCATTER_LINEAR":
        return True, c_out, c_in
    return False, c_in, c_out


def _segments(step: Step) -> int:
    """Into how many a product takes its sums apart, where it is even."""
    assert step.x is not None
    assert step.phase is not None
    _, inner, channels = _channels(step)
    depth = inner * SIZES[step.x.buffer.root.dtype]
    if step.groups > 1 or depth % ROW_BYTES:
        return 1
    pixels = prod(step.out.layout()[1][1:4])
    return tiles.segments(pixels, channels, len(step.phase.taps), depth // ROW_BYTES)


def _scratch(step: Step, plan: Plan, parts: int) -> int:
    """Bytes of its sums taken apart."""
    rows = {"n": plan.n, "nt": plan.n * plan.t, "1": 1}[step.out.buffer.batch]
    return 4 * (1 + step.dual) * parts * rows * prod(step.out.layout()[1])


def scratch_bytes(plan: Plan) -> int:
    """What `launches` needs of memory beside arrays and constants, for one step after the other."""
    products = [s for s in (*plan.forward, *plan.relevance) if s.op in OPERATIONS and s.op != "MATMUL"]
    sizes = [_scratch(step, plan, parts) for step in products if (parts := _segments(step)) > 1]
    return max((size for size in sizes if size <= tiles.SCRATCH), default=0)


def launches(
    step: Step,
    plan: Plan,
    address_of: AddressOf,
    precision: str = "float32",
    multiprocessors: int = tiles.MULTIPROCESSORS,
    shared_bytes: int = tiles.SHARED_BYTES,
    scratch: int = 0,
) -> list[Launch]:
    """The launch that computes a product of a plan, or two of them, where it takes its sums in segments.

    Parameters
    ----------
    address_of : device addresses, see launch.py
    precision : a key of tiles.UNITS, of float32 operands; sums are float32
    multiprocessors, shared_bytes : of the device, and what one block may have
    scratch : address of `scratch_bytes` of memory
    """
    if step.op == "MATMUL":
        return matmul.launches(step, plan, address_of)
    assert step.x is not None
    assert step.weights is not None
    assert step.phase is not None
    if any(bias is not None and bias.ndim > 1 for bias in (step.bias, step.bias_d)):
        raise BackendError("its bias varies along several axes, but this kernel asks for one number per channel")
    transposed, inner, channels = _channels(step)
    c_out, c_in = (inner, channels) if transposed else (channels, inner)
    weight = step.weights.part.weight
    assert weight is not None
    n_weight_taps = prod(weight.shape[2:])

    x = _Operand(step.x, address_of, step.phase.x_step)
    row = row_length(c_in, x.dtype)
    table = np.zeros((len(step.phase.taps) + dense.SPARE_TAPS, 2), np.int32)
    for line, (tap, offset) in zip(table, step.phase.taps, strict=False):
        line[:] = sum(o * s for o, s in zip(offset, x.axes, strict=True)), tap * row
    neuron = step.op.startswith("NEURON")
    maps = (("w", "w+") if step.dual else ("w",)) if neuron else (step.weight_map,)

    given = {name: getattr(step, name) for name in ("out", "factor", "terms", "y_prev", "terms_prev", "m")}
    views: dict[str, _Operand | _Other] = {name: _Operand(v, address_of) for name, v in given.items() if v is not None}
    if not neuron:  # one kernel serves with and without a multiplier
        views.setdefault("m", _Other(x.dtype))
    if step.window is not None:
        views["window"] = _window(step.window, address_of)
    mode = step.factor_kind if neuron else step.multiplier if step.m is not None else "times"
    kind, alpha, beta = step.activation
    types = tuple(v.dtype for v in views.values())
    width = 8 if "bf16" in types else 4
    width = width if channels % width == 0 and all(v.aligned() for v in views.values()) else 1
    ending = Finish(neuron, kind, mode, step.dual, tuple(views), types, width)

    whole = 16 // SIZES[x.dtype]  # elements of a copy of 16 bytes
    vector = whole if inner % whole == 0 and x.aligned(*table[:, 0].tolist()) else 1
    vector_w = (whole if x.dtype == "bf16" or channels % whole == 0 else 1) if transposed else vector
    out = _Operand(step.out, address_of)
    d, h, w = out.pixels
    n = {"n": plan.n, "nt": plan.n * plan.t, "1": 1}[step.out.buffer.batch]
    pixels = n * d * h * w
    if max(pixels, *(n * v.strides[0] for v in (x, *views.values()))) >= MOST:
        raise BackendError(
            f"a pass of {n} samples has more than 2**31 elements in one array; choose a smaller batch_size"
        )

    unit = "bf16" if x.dtype == "bf16" else tiles.UNITS[precision][0 if vector == whole else 1]
    # copies of 2 bytes would take too many registers
    thin = transposed and channels <= tiles.THIN_CHANNELS and vector * SIZES[x.dtype] >= 4
    depth = inner * SIZES[x.dtype]  # bytes of a tap
    even = unit in tiles.EVEN_UNITS and vector == whole and (vector_w == whole or thin) and depth % ROW_BYTES == 0
    shallow = len(step.phase.taps) * depth <= ROW_BYTES
    form = tiles.THIN if thin else tiles.EVEN if even else tiles.SHALLOW if shallow else tiles.UNEVEN
    if tiles.USE_WGMMA and tiles.suits_wgmma(unit, form, channels):
        unit = tiles.by_wgmma(unit)
    shape = tiles.Shape(unit, form, len(maps), pixels, channels, step.groups, len(step.phase.taps) * depth, len(views))
    chosen = tiles.choose(shape, multiprocessors, shared_bytes)
    row_w, floats = n_weight_taps * row, (step.gamma, step.coefficient, step.stabilizer, alpha, beta)
    weights, places = address_of(step.weights), (pixels, d * h * w, h * w, w, step.repeat)
    vectors = (*(0 if b is None else address_of(b) for b in (step.bias, step.bias_d)), int(step.accumulate))

    def product(
        chosen: tiles.Row, sums: tuple[Any, int, int, int], groups: int, ending: Finish,
        views: dict[str, Any], vectors: tuple[int, ...], *walked: int,
    ) -> Launch:  # fmt: skip
        """A launch; `sums` are the table, taps, channels summed, and elements of the weights from group to group."""
        tile, (table, taps, inner, group) = chosen.tile, sums
        across = -(-channels // tile.channels)
        numbers = (
            *(x.address, *x.strides, weights, address_of(table), taps, inner),
            *(*places, across, row_w, group, channels, *vectors),
            *(number for v in views.values() for number in v.numbers()),
        )
        constants = (unit, maps, transposed, tile.constants, vector, vector_w, even, ending.constants, *walked)
        kernel = Kernel(
            "dtd_dense", dense.dense, constants, FIRST_VIEW + PER_VIEW * len(views), N_FLOATS, tile.threads,
            tile.min_blocks,
        )  # fmt: skip
        grid = (-(-pixels // tile.pixels) * across, groups, 1)
        return Launch(kernel, grid, tile.shared_bytes(len(maps), len(views)), numbers, floats)

    n_taps = len(step.phase.taps)
    parts = _segments(step) if form == tiles.EVEN and unit not in WGMMA else 1
    if parts == 1:
        return [product(chosen, (table, n_taps, inner, c_out * row_w), step.groups, ending, views, vectors)]

    inner //= parts
    group = inner * (row_w if transposed else 1)
    apart = replace(shape, groups=parts, depth=shape.depth // parts, views=2)
    chosen, walking = tiles.choose(apart, multiprocessors, shared_bytes), tiles.NAMED["square"]
    here, elsewhere = (c.microseconds(s, multiprocessors) for c, s in ((chosen, apart), (walking, shape)))
    size = _scratch(step, plan, parts)
    if size > tiles.SCRATCH or elsewhere <= here + tiles.adding(shape, parts):
        further = np.array([inner, group], np.int32)
        walked = np.concatenate([table[:n_taps] + part * further for part in range(parts)] + [table[n_taps:]])
        return [product(walking, (walked, parts * n_taps, inner, 0), 1, ending, views, vectors, parts)]
    # [product][pixel][segment][channel]
    pitch, width = parts * channels, 4 if channels % 4 == 0 else 1
    strides = (d * h * w * pitch, h * w * pitch, w * pitch, pitch)
    sums = {"out": _Other("f4", scratch, strides), "m": _Other("f4")}
    partial = Finish(False, "identity", "times", False, ("out", "m"), ("f4", "f4"), width)
    if step.dual:
        sums = {"out": sums["out"], "terms": _Other("f4", scratch + size // 2, strides)}
        partial = Finish(True, "identity", "none", True, ("out", "terms"), ("f4", "f4"), width)
    threads = channels // ending.vector
    numbers = (
        *(scratch, *strides, 0, 0, 0, 0, *places, threads, channels, size // 8, channels, *vectors),
        *(number for v in views.values() for number in v.numbers()),
    )
    kernel = Kernel(
        "dtd_add_segments", segments.add_segments, (parts, ending.constants), FIRST_VIEW + PER_VIEW * len(views),
        N_FLOATS, segments.THREADS,
    )  # fmt: skip
    grid = (-(-pixels * threads // segments.THREADS), 1, 1)
    return [
        product(chosen, (table, n_taps, inner, group), parts, partial, sums, (0, 0, 0)),
        Launch(kernel, grid, segments.shared_bytes(ending), numbers, floats),
    ]


def body(kernel: Kernel) -> str:
    """What runs a contraction, as the printed plan says it: its unit and its tile."""
    if kernel.name == matmul.NAME:
        return matmul.BODY
    unit, _, _, tile, *_ = kernel.constants
    made = Tile(*tile, kernel.min_blocks)  # type: ignore[call-arg, misc]
    # one that is only tried has no name
    name = next((row.name for row in tiles.NAMED.values() if row.tile == made), "tile")
    return f"{unit}, {name} {made.pixels}×{made.channels}"


def bodies(
    plan: Plan,
    precision: str = "float32",
    multiprocessors: int = tiles.MULTIPROCESSORS,
    shared_bytes: int = tiles.SHARED_BYTES,
) -> tuple[str, ...]:
    """Of every step the body that runs it, "" where its operation has only one; no device is asked."""

    def of(step: Step) -> str:
        first, *more = launches(step, plan, _aligned_address, precision, multiprocessors, shared_bytes)
        parts = more[0].kernel.constants[0] if more else (first.kernel.constants[8:] or (1,))[0]
        return body(first.kernel) + (f", {parts} segments" if parts != 1 else "")

    return tuple(of(step) if step.op in OPERATIONS else "" for step in (*plan.forward, *plan.relevance))


def _aligned_address(thing: View | Weights | NDArray[Any]) -> int:
    """An address as far as alignment goes: the arena and all else begin where 256 bytes do."""
    if not isinstance(thing, View):
        return 0
    root = thing.buffer.root
    return (0 if root.external else root.offset) + SIZES[root.dtype] * thing.layout()[0]
