"""Dense products of a plan as launches, whole or in segments, and their weights as the kernels read them.  No maths."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...packing import pack
from ...plan.plan import Plan
from ...plan.steps import SIZES, Step, View, Weights
from ..compile.kernel import Kernel
from ..kernels import segments
from ..kernels.dense import Tile
from ..kernels.epilogue import FIRST_VIEW, N_FLOATS, PER_VIEW, Finish
from ..kernels.warp_product import ROW_BYTES, WGMMA
from . import matmul, tiles
from .launch import AddressOf, Launch
from .product import Other, Product, Sums, Views, channels_of, row_length

OPERATIONS = frozenset(("NEURON_DENSE", "TAPS_DENSE", "NEURON_LINEAR", "TAPS_LINEAR", "SCATTER_LINEAR", "MATMUL"))
"""Operations that `launches` takes."""

PIECE = 2**15  # numbers that are rounded at once


def packing_key(weights: Weights) -> tuple[Any, ...]:
    """What one upload serves: dense weights go up once for both directions and all phases."""
    if weights.layout == "dense":
        return weights.part.position, weights.part.variant, "dense", weights.real
    return weights.key


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


def _segments(step: Step) -> int:
    """Into how many a product takes its sums apart, where it is even."""
    assert step.x is not None
    assert step.phase is not None
    _, inner, channels = channels_of(step)
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


def _in_segments(
    product: Product, parts: int, scratch: tuple[int, int], address_of: AddressOf, device: tuple[int, int]
) -> list[Launch]:
    """The sums in `parts` segments: walked through by one launch, or side by side and added by a second one, as takes
    less time and memory. `scratch` is an address and the bytes that are needed there.
    """
    shape, inner = product.shape, product.inner // parts
    group = inner * (product.row if product.transposed else 1)  # elements of the weights to the next segment
    apart = replace(shape, groups=parts, depth=shape.depth // parts, views=2)
    chosen, walking = tiles.choose(apart, *device), tiles.NAMED["square"]
    here, elsewhere = (c.microseconds(s, device[0]) for c, s in ((chosen, apart), (walking, shape)))
    if scratch[1] <= tiles.SCRATCH and elsewhere > here + tiles.adding(shape, parts):
        sums = Sums(address_of(product.table), product.n_taps, inner, parts, group)
        return _added(product, sums, chosen.tile, *scratch)
    further, n = np.array([inner, group], np.int32), product.n_taps
    walked = np.concatenate([product.table[:n] + part * further for part in range(parts)] + [product.table[n:]])
    sums = Sums(address_of(walked), parts * n, inner, 1, 0, parts)
    return [product.launch(walking.tile, sums, product.ending, product.views, product.vectors)]


def _added(product: Product, sums: Sums, tile: Tile, scratch: int, size: int) -> list[Launch]:
    """Segments side by side, [product][pixel][segment][channel] in scratch memory, and their sums."""
    parts, channels, (d, h, w) = sums.groups, product.channels, product.pixels_of_out
    pitch, width = parts * channels, 4 if channels % 4 == 0 else 1
    strides = (d * h * w * pitch, h * w * pitch, w * pitch, pitch)
    views: Views = {"out": Other("f4", scratch, strides), "m": Other("f4")}
    ending = Finish(False, "identity", "times", False, ("out", "m"), ("f4", "f4"), width)
    if product.ending.dual:
        views = {"out": views["out"], "terms": Other("f4", scratch + size // 2, strides)}
        ending = Finish(True, "identity", "none", True, ("out", "terms"), ("f4", "f4"), width)
    threads = channels // product.ending.vector  # of a pixel
    numbers = (
        *(scratch, *strides, 0, 0, 0, 0, *product.places, threads, channels, size // 8, channels, *product.vectors),
        *(number for v in product.views.values() for number in v.numbers()),
    )
    kernel = Kernel(
        "dtd_add_segments", segments.add_segments, (parts, product.ending.constants),
        FIRST_VIEW + PER_VIEW * len(product.views), N_FLOATS, segments.THREADS,
    )  # fmt: skip
    grid = (-(-product.pixels * threads // segments.THREADS), 1, 1)
    return [
        product.launch(tile, sums, ending, views, (0, 0, 0)),
        Launch(kernel, grid, segments.shared_bytes(product.ending), numbers, product.floats),
    ]


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
    product, device = Product(step, plan, address_of, precision), (multiprocessors, shared_bytes)
    parts = _segments(step) if product.form == tiles.EVEN and product.unit not in WGMMA else 1
    if parts > 1:
        return _in_segments(product, parts, (scratch, _scratch(step, plan, parts)), address_of, device)
    sums = Sums(address_of(product.table), product.n_taps, product.inner, step.groups, product.group)
    tile = tiles.choose(product.shape, *device).tile
    return [product.launch(tile, sums, product.ending, product.views, product.vectors)]


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
