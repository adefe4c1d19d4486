"""The contraction kernel: implicit GEMM over the taps of a layer, specialised for every dense product that a plan asks
for.

    sum[p, j] = Σ_k Σ_i x[p·step + tap_k, i] wm(w[k, i, j])    p: pixels of all samples, one group of channels at a time

A block owns a tile of pixels × channels and walks the taps' channels, (k, i) flattened, 128 bytes at a time. Tiles of x
and of the weights come to `stages` buffers of shared memory by asynchronous copies (tile_copies.py). The warps multiply
them (warp_product.py), and the sums go through shared memory to `epilogue.py`. x is never gathered in memory, and its
frame of zeros stands for padding, so nothing tests bounds. The weights lie in memory once, as
[group][output][tap][input], and serve both directions:

    plain:       j is the output, the sum runs within a row of weights:   w[k, i, j] = weight[j][tap_k][i]
    transposed:  j is the input, the sum runs over the rows of weights:   w[k, i, j] = weight[i][tap_k][j]

Every sum runs over k in the same order whatever the tile, so that results do not depend on the size of the batch;
README.md says how long sums of few results are taken in segments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..compile.specialise import unroll
from .epilogue import Finish, finish, places
from .formulas import ZERO
from .tile_copies import (
    CHANNELS,
    INNER,
    N_TAPS,
    PIXELS,
    TILES_ACROSS,
    tile_copies,
)
from .warp_product import ROW_BYTES, WGMMA, bytes_of, tile_product

# rows of zeros behind the table: the columns of a step beyond the end still look their tap up
SPARE_TAPS = 4 * ROW_BYTES // 2 + 1


@dataclass(frozen=True)
class Tile:
    """What a block computes at once: pixels × channels, and the part of one warp; copies run `stages` − 1 steps ahead
    of products.

    together : tiles of a step. Where a multiprocessor has few warps, more of them give each warp more to do while it
    waits.
    """

    pixels: int
    channels: int
    warp_pixels: int
    warp_channels: int
    stages: int
    together: int = 1
    min_blocks: int = 1

    @property
    def threads(self) -> int:
        return self.pixels // self.warp_pixels * (self.channels // self.warp_channels) * 32

    @property
    def constants(self) -> tuple[int, ...]:
        return self.pixels, self.channels, self.warp_pixels, self.warp_channels, self.stages, self.together

    def shared_bytes(self, n_products: int, n_views: int) -> int:
        pipeline = self.stages * self.together * (self.pixels + self.channels) * ROW_BYTES
        sums = n_products * self.pixels * pitch(self.channels) * 4
        return max(pipeline, sums) + 4 * self.pixels * (1 + n_views)


def pitch(channels: int, more: int = 8) -> int:
    """Floats from one row of sums to the next: eight more than a row, so that a warp's stores of two channels meet in
    no bank; four, where it stores one channel at a time.
    """
    return channels + more


def dense(
    ptx: Any, unit: str, maps: tuple[str, ...], transposed: bool, tile: tuple[int, ...], vector: int, vector_w: int,
    even: bool,
    ending: tuple[Any, ...],
    segments: int = 1,
) -> Callable[..., None]:  # fmt: skip
    """Make the kernel.

    Parameters
    ----------
    unit : arithmetic, units.UNITS
    maps : weight maps; two of them are the dual product, y and z⁺ from one load of x and w
    transposed : the sum runs over the weights' rows
    tile : Tile.constants
    vector, vector_w : elements of x and of the weights that one copy moves: 16 bytes of them (aligned rows) or 1
    even : how tiles are copied, see tile_copies.py
    ending : Finish.constants
    segments : of a sum, walked through by one block; equally many whole steps each
    """
    PIXELS_T, CHANNELS_T, PIXELS_W, CHANNELS_W, STAGES, TOGETHER = tile
    I, J = PIXELS_W // 16, CHANNELS_W // 8  # noqa: E741
    WARPS_ACROSS = CHANNELS_T // CHANNELS_W
    WARP_BITS = WARPS_ACROSS.bit_length() - 1
    THREADS = PIXELS_T // PIXELS_W * WARPS_ACROSS * 32
    PRODUCTS = len(maps)
    SUMS, SEGMENTS = PRODUCTS * I * J * 4, segments
    DEPTH = ROW_BYTES // bytes_of(unit)  # columns of a tile
    DEPTH_BITS, TOGETHER_BITS = DEPTH.bit_length() - 1, TOGETHER.bit_length() - 1
    X_BYTES = PIXELS_T * ROW_BYTES
    TILE = X_BYTES + CHANNELS_T * ROW_BYTES
    STAGE = TOGETHER * TILE
    ACROSS = unit in WGMMA  # sums are channels × pixels
    PITCH = pitch(CHANNELS_T, 4 if ACROSS else 8)
    END = Finish(*ending)
    OFFSETS = max(STAGES * STAGE, PRODUCTS * PIXELS_T * PITCH * 4)  # where the pixels' offsets lie
    WIDTH = END.vector
    CHUNKS = CHANNELS_T // WIDTH
    CHUNK_BITS = CHUNKS.bit_length() - 1
    product = tile_product(ptx, unit, maps, transposed, (I, J), CHANNELS_T)
    finish_at = finish(ptx, END, 4 * PIXELS_T * PITCH, 4 * PIXELS_T)
    place_at = places(ptx, END.views, 4 * PIXELS_T)
    wait = ptx.COPY_WAIT[STAGES - 2]
    wait_for_sums = ptx.wgmma_wait(SUMS) if ACROSS else wait
    begin, copy_tile, round_tile, PLACES, X_TURNS = tile_copies(
        ptx, unit, transposed, PIXELS_T, CHANNELS_T, THREADS, vector, vector_w, even, TOGETHER > 1
    )

    def kernel(a: Any, f: Any) -> None:
        thread = ptx.thread()
        lane, warp = thread & 31, thread >> 5
        column_w, row_w = (warp & (WARPS_ACROSS - 1)) * CHANNELS_W, (warp >> WARP_BITS) * PIXELS_W
        tile_down = ptx.quotient(ptx.block_x(), a[TILES_ACROSS])
        first_pixel = tile_down * PIXELS_T
        first_channel = (ptx.block_x() - tile_down * a[TILES_ACROSS]) * CHANNELS_T
        group = ptx.block_y()
        base = ptx.shared_1024() if ACROSS else ptx.shared()
        offsets = base + OFFSETS

        # where the block's pixels lie in every view
        if thread < PIXELS_T:
            p = first_pixel + thread
            if p >= a[PIXELS]:
                p = a[PIXELS] - 1
            place_at(a, p, offsets + 4 * thread)
        ptx.barrier()

        place, x_row = ptx.integers(PLACES), ptx.integers(X_TURNS)
        begin(a, place, x_row, offsets, thread, group)
        sums = ptx.registers(SUMS)
        for i in range(SUMS):
            sums[i] = ZERO
        n_tiles = (a[N_TAPS] * a[INNER] + DEPTH - 1) >> DEPTH_BITS
        n_steps = (n_tiles + TOGETHER - 1) >> TOGETHER_BITS
        if SEGMENTS > 1:
            totals = ptx.registers(SUMS)
            for i in range(SUMS):
                totals[i] = ZERO
            of_segment = ptx.quotient(n_steps, SEGMENTS)
            left = of_segment
        read_at, write_at = base, base
        for number in range(1 - STAGES, n_steps):
            if number >= 0:
                wait()
                if unit == "tf32_wgmma":
                    for k in unroll(TOGETHER):
                        round_tile(read_at + k * TILE, thread)
                if ACROSS:
                    ptx.proxy_fence()
                ptx.barrier()
                if ACROSS:  # while they are multiplied, the next tiles' copies begin
                    for k in unroll(TOGETHER):
                        product(sums, read_at + k * TILE, read_at + k * TILE + X_BYTES, row_w, column_w, lane, f[0])
            if number + STAGES - 1 < n_steps:
                for k in unroll(TOGETHER):  # zeros beyond the last tile
                    copy_tile(a, place, x_row, write_at + k * TILE, thread, first_pixel, first_channel, group)
            ptx.copy_commit()
            ptx.warp_barrier()
            write_at += STAGE
            if write_at == base + STAGES * STAGE:
                write_at = base
            if ACROSS:
                wait_for_sums(sums, 0)
            if number >= 0:
                if not ACROSS:
                    for k in unroll(TOGETHER):
                        product(sums, read_at + k * TILE, read_at + k * TILE + X_BYTES, row_w, column_w, lane, f[0])
                read_at += STAGE
                if read_at == base + STAGES * STAGE:
                    read_at = base
                if SEGMENTS > 1:
                    left -= 1
                    if left == 0:
                        left = of_segment
                        for i in range(SUMS):
                            totals[i] = totals[i] + sums[i]
                            sums[i] = ZERO
        if SEGMENTS > 1:
            for i in range(SUMS):
                sums[i] = totals[i]

        # sums to shared memory, where a thread finds neighbouring channels
        ptx.barrier()
        if ACROSS:
            at = base + 4 * ((row_w + 2 * (lane & 3)) * PITCH + column_w + (lane >> 2))
            for q in range(PRODUCTS):
                for i in range(2 * I):
                    for half in range(2):
                        for e in range(2):
                            to = at + 4 * ((q * PIXELS_T + 8 * i + e) * PITCH + 8 * half)
                            ptx.shared_store(to, sums[(q * 2 * I + i) * 4 + 2 * half + e])
        else:
            at = base + 4 * ((row_w + (lane >> 2)) * PITCH + column_w + 2 * (lane & 3))
            for q in range(PRODUCTS):
                for i in range(I):
                    for j in range(J):
                        for half in range(2):
                            o = ((q * I + i) * J + j) * 4 + 2 * half
                            ptx.shared_store2(
                                at + 4 * ((q * PIXELS_T + 16 * i + 8 * half) * PITCH + 8 * j), sums[o], sums[o + 1]
                            )
        ptx.barrier()
        for number in range(thread, PIXELS_T * CHUNKS, THREADS):
            row, column = number >> CHUNK_BITS, (number & (CHUNKS - 1)) * WIDTH
            if first_pixel + row < a[PIXELS] and first_channel + column < a[CHANNELS]:
                finish_at(
                    a,
                    f,
                    base + 4 * (row * PITCH + column),
                    offsets + 4 * row,
                    group * a[CHANNELS] + first_channel + column,
                )

    return kernel
