"""How long launches should take on an H200, by their shapes alone: a yardstick beside measured times, where no device
is at hand too.

A contraction is bound by its instructions on the tensor cores, by shared memory, by the latency of its loop where few
blocks are under way, or by memory; blocks that share a multiprocessor end while others compute. A product of computed
matrices is bound by its multiply-adds or by what it fetches; everything else by memory, or by instructions where these
find the place of every element. The figures are data sheets' and published measurements', not this package's.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from dtdfast.cuda.kernels.dense import Tile
from dtdfast.cuda.kernels.epilogue import FIRST_VIEW, PER_VIEW, Finish
from dtdfast.cuda.kernels.matmul import TERMS, TILE
from dtdfast.cuda.kernels.strided import elements
from dtdfast.cuda.kernels.tile_copies import CHANNELS, INNER, N_TAPS, PIXELS
from dtdfast.cuda.kernels.warp_product import ROW_BYTES, WGMMA, bytes_of
from dtdfast.cuda.run.launch import Launch
from dtdfast.cuda.run.matmul import MIN_BLOCKS, NAME
from dtdfast.plan.steps import SIZES

MULTIPROCESSORS, CLOCK = 132, 1.75e9
MEMORY, CACHE = 4.18e12, 5.5e12  # bytes a second, of a copy and of the second-level cache
SHARED = 227 * 1024  # bytes of a multiprocessor
LAUNCH = 1.5e-6  # seconds from one node of a graph to the next
INSTRUCTION = 6.5  # cycles of one of a multiprocessor's four tensor cores, for mma.sync: 62 % of what the core can do
# cycles that a block takes for a step, and for each tile of it, however small they are: latencies
STEP, TURN = 250, 150
BEGIN, RESULT = 1500, 15  # cycles until a block has its first tile; instructions to finish one of its sums
# instructions of a kernel of elements: of its place and of a view's address, both without and for each axis beyond the
# first; for an element of a view, by whether it has less than four bytes. The machine code has these within three.
PLACE, ADDRESS, ELEMENT = (4, 7), (13, 2), {False: 1, True: 2}
FRAME = 512  # bytes that a warp clears, about, by longs of its table
WARPS = {False: 16, True: 8}  # of a multiprocessor, by whether a thread has more than 64 sums

# instructions per tile, 16 × 8 block of sums and product
STEPS: dict[str, float] = {"tf32": 4, "tf32x3": 12, "bf16": 4, "bf16_rounded": 2}
STEPS |= dict.fromkeys(WGMMA, 4 * 0.62 / 0.8)  # four fifths of what the cores can do
FMA = 16 * 8 * 32 / 32 * 1.2  # cycles of the same for "fma", on a quarter of the multiprocessor


def shared_cycles(unit: str, tile: Tile) -> float:
    """Of the bytes of one tile, 128 a cycle: copied there, and read by every warp. `wgmma` reads x once for four warps;
    of tf32 it was read and written before, to be rounded.
    """
    warps, reads = tile.threads // 32, tile.warp_pixels + tile.warp_channels
    if unit not in WGMMA:
        return (tile.pixels + tile.channels + warps * reads) * ROW_BYTES / 128
    rounded = 2 * tile.pixels * (unit == "tf32_wgmma")
    of_x = warps // 4 * tile.warp_pixels
    return (tile.pixels + tile.channels + warps * tile.warp_channels + of_x + rounded) * ROW_BYTES / 128


def of_contraction(launch: Launch) -> float:
    unit, maps, _, tile, _, _, _, finish, *_ = launch.kernel.constants
    made, end = Tile(*tile), Finish(*finish)  # type: ignore[misc]
    a, blocks = launch.integers, prod(launch.grid)
    tiles = -(-a[N_TAPS] * a[INNER] * bytes_of(unit) // ROW_BYTES)  # type: ignore[arg-type]
    squares = len(maps) * made.pixels // 16 * (made.channels // 8)  # type: ignore[arg-type]
    cycles = squares * (FMA if unit == "fma" else STEPS[unit] * INSTRUCTION) / 4  # type: ignore[index]
    cycles = max(cycles, shared_cycles(unit, made))  # type: ignore[arg-type]
    warps = WARPS[len(maps) * made.warp_pixels * made.warp_channels > 64 * 32]  # type: ignore[arg-type]
    together = max(1, min(SHARED // launch.shared_bytes, warps * 32 // made.threads, -(-blocks // MULTIPROCESSORS)))
    waves = -(-blocks // (MULTIPROCESSORS * together))
    ending = together * len(maps) * made.pixels * made.channels * RESULT / 128  # type: ignore[arg-type]
    loop, around = tiles * max(together * cycles, TURN + STEP / made.together), BEGIN + ending
    compute = (loop + around + (waves - 1) * (max(loop, around) if together > 1 else loop + around)) / CLOCK
    fetched = blocks * tiles * (made.pixels + made.channels) * ROW_BYTES / CACHE
    size = SIZES[end.types[0]]
    groups = launch.grid[1]
    there = sum(a[FIRST_VIEW + PER_VIEW * v] != 0 for v in range(len(end.views))) + a[FIRST_VIEW - 1]
    moved = a[PIXELS] * groups * (a[INNER] * bytes_of(unit) + a[CHANNELS] * there * size)  # type: ignore[arg-type]
    moved += a[CHANNELS] * a[INNER] * a[N_TAPS] * groups * bytes_of(unit)  # type: ignore[arg-type]
    return float(max(compute, fetched, moved / MEMORY))


def of_segments(launch: Launch) -> float:
    """Sums are read, results written, once each; a thread waits for its loads, then for those of its views."""
    segments, ending = launch.kernel.constants
    end, a = Finish(*ending), launch.integers  # type: ignore[misc]
    there = sum(a[FIRST_VIEW + PER_VIEW * v] != 0 for v in range(len(end.views)))
    moved = 4 * segments * (1 + end.dual) + SIZES[end.types[0]] * there  # type: ignore[operator]
    return BEGIN / CLOCK + a[PIXELS] * a[CHANNELS] * moved / MEMORY


def of_product(launch: Launch) -> float:
    """Blocks that share a multiprocessor take turns; two loads of shared memory to eleven multiply-adds."""
    blocks, terms = prod(launch.grid), launch.integers[TERMS]
    cycles = TILE * TILE / 128 * terms * 1.3
    waves = -(-blocks // (MULTIPROCESSORS * MIN_BLOCKS))
    together = min(MIN_BLOCKS, -(-blocks // MULTIPROCESSORS))
    return max(waves * together * cycles / CLOCK, blocks * 2 * TILE * terms * 4 / CACHE)


def of_elements(launch: Launch) -> float:
    """Every view that is there and moves along is read or written once; of a line, each of its elements. Threads find
    their place and addresses, and take an instruction or two for an element.
    """
    _, types, constants, n_axes, _, _, *_, last = launch.kernel.constants
    a, together, lanes = launch.integers, 1, 1
    first = 1 + 3 * (n_axes - 1)  # type: ignore[operator]
    if launch.kernel.factory is elements:
        together = last  # type: ignore[assignment]
    elif launch.kernel.name.startswith("max_"):
        together = constants[-1]  # type: ignore[index]
    elif last:  # a warp for each line, or piece of a frame
        lanes, frame = 32, launch.kernel.name == "clear_border"
        together = FRAME // 8 if frame else a[first + len(types) * (1 + n_axes)]  # type: ignore[arg-type, operator]
    moved, places, numbers = 0, PLACE[0] + PLACE[1] * (n_axes - 1), 0  # type: ignore[operator]
    for k, dtype in enumerate(types):  # type: ignore[arg-type, var-annotated]
        address, *strides = a[first + k * (1 + n_axes) : first + (k + 1) * (1 + n_axes)]  # type: ignore[operator]
        if address > 2**32:
            places += ADDRESS[0] + ADDRESS[1] * (n_axes - 1)  # type: ignore[operator]
            numbers += ELEMENT[SIZES[dtype] < 4] * together
            moved += SIZES[dtype] * a[0] * together if strides[-1] else 0
    return max(moved / MEMORY, a[0] * (lanes * places + numbers) / (MULTIPROCESSORS * 128 * CLOCK))


def seconds(launches: Sequence[Launch]) -> float:
    of = {"dtd_dense": of_contraction, "dtd_add_segments": of_segments, NAME: of_product}
    return sum(LAUNCH + of.get(x.kernel.name, of_elements)(x) for x in launches)
