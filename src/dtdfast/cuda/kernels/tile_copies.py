"""How tiles come to shared memory: every thread of a block copies the same column of several rows of x, and of several
rows of weights.

A tile's columns are (tap, channel), flattened.  Two ways:

    even     every tile lies in one tap, and rows come 16 bytes at a time: all threads walk on together, and only
             whole tiles are filled up with zeros. What lies beyond the last pixel or channel repeats one that is
             there; its sums are dropped at the end.
    uneven   whatever the channels and their alignment: each thread follows its own columns, and copies zeros beyond
             the end.

`tile_copies` makes three functions:

    begin(a, place, x_row, offsets, thread, group)
        where this thread's pixels lie, and its place before the first tile
    copy_tile(a, place, x_row, to, thread, first_pixel, first_channel, group)
        the next tile to shared memory, and a tile on
    round_tile(to, thread)
        what this thread copied there of x to tf32: the whole tile, if all do so
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .warp_product import ROW_BYTES, bytes_of, turning

X, X_N, X_D, X_H, X_W, WEIGHT, TAPS, N_TAPS, INNER, PIXELS, DHW, HW, W, REPEAT, TILES_ACROSS, ROW, GROUP, CHANNELS = (
    range(18)
)
"""Numbers of the kernel: x and its strides; weights and table of (x offset, weight offset) per tap; taps; channels
summed per tap; pixels of all samples, of one sample, of one plane and row; samples of x per kept one; tiles side by
side; strides of the weights; result channels per group."""

TAP, CHANNEL, X_OFFSET, W_OFFSET = range(4)  # of a place
Copies = tuple[Callable[..., None], Callable[..., None], Callable[..., None], int, int]


def tile_copies(
    ptx: Any, unit: str, transposed: bool, pixels: int, channels: int, threads: int, vector: int, vector_w: int,
    even: bool, beyond: bool
) -> Copies:  # fmt: skip
    """Make (begin, copy_tile, round_tile, length of a place, rows of x per thread).

    Parameters
    ----------
    pixels, channels, threads : of a tile
    vector, vector_w : elements of x and of the weights that one copy moves
    beyond : tiles beyond the last are asked for, which are zeros
    """
    SIZE = bytes_of(unit)
    DEPTH = ROW_BYTES // SIZE  # columns of a tile
    X_BYTES = pixels * ROW_BYTES
    COLUMNS = DEPTH // vector  # threads side by side on a row of x
    COLUMN_BITS = COLUMNS.bit_length() - 1
    ROWS = threads // COLUMNS
    X_TURNS, W_TURNS = pixels // ROWS, channels // ROWS
    COLUMNS_W = channels // vector_w  # the same for a row of weights, transposed
    COLUMN_BITS_W = COLUMNS_W.bit_length() - 1
    ROWS_W = threads // COLUMNS_W
    TURNS_TRANSPOSED = max(1, DEPTH // ROWS_W)
    PITCH_W = SIZE * channels
    TURN_FROM, TURN_MASK, TURN_BY = turning(channels, SIZE)
    BYTES, BYTES_W = SIZE * vector, SIZE * vector_w
    copies = {16: ptx.copy16, 4: ptx.copy4, 2: ptx.copy2}
    copy, copy_w = copies[BYTES], copies[BYTES_W]
    # evenly, all rows of one thread have the same place in the pattern of their chunks
    assert not even or ROWS % 8 == (ROWS_W % 8 if transposed else 0) == 0

    def place_of(row: int, column: int) -> int:
        """Byte of a tile of 128-byte rows, where element `column` of `row` lies."""
        return row * ROW_BYTES + (((SIZE * column >> 4) ^ (row & 7)) << 4) + (SIZE * column & 15)

    def place_transposed(row: int, column: int) -> int:
        """The same in a tile of a transposed product's weights."""
        byte = SIZE * column
        return row * PITCH_W + (((byte >> 4) ^ (((row >> TURN_FROM) & TURN_MASK) << TURN_BY)) << 4) + (byte & 15)

    def find(place: Any, k: int, tap: int, a: Any) -> None:
        """Place k is at this tap."""
        place[4 * k + TAP] = tap
        place[4 * k + X_OFFSET] = ptx.read_int(a[TAPS] + 8 * tap)
        place[4 * k + W_OFFSET] = ptx.read_int(a[TAPS] + 8 * tap + 4)

    def rows_of_x(a: Any, x_row: Any, offsets: int, thread: int, group: int) -> None:
        for u in range(X_TURNS):
            x_row[u] = ptx.shared_load_int(offsets + 4 * ((thread >> COLUMN_BITS) + u * ROWS)) + group * a[INNER]

    def round_tile(to: int, thread: int) -> None:
        v = ptx.registers(4 * X_TURNS)
        at = to + place_of(thread >> COLUMN_BITS, (thread & (COLUMNS - 1)) * vector)
        for u in range(X_TURNS):
            v[4 * u], v[4 * u + 1], v[4 * u + 2], v[4 * u + 3] = ptx.shared_load4(at + u * ROWS * ROW_BYTES)
        for u in range(X_TURNS):
            r_0, r_1 = ptx.round_tf32(v[4 * u]), ptx.round_tf32(v[4 * u + 1])
            r_2, r_3 = ptx.round_tf32(v[4 * u + 2]), ptx.round_tf32(v[4 * u + 3])
            ptx.shared_store4_words(at + u * ROWS * ROW_BYTES, r_0, r_1, r_2, r_3)

    # ----------------------------------------------------------------------------------------------------------- even

    def begin_evenly(a: Any, place: Any, x_row: Any, offsets: int, thread: int, group: int) -> None:
        rows_of_x(a, x_row, offsets, thread, group)
        place[CHANNEL] = 0
        find(place, 0, 0, a)

    def copy_evenly(
        a: Any, place: Any, x_row: Any, to: int, thread: int, first_pixel: int, first_channel: int, group: int
    ) -> None:
        column, first_row = (thread & (COLUMNS - 1)) * vector, thread >> COLUMN_BITS
        inside = 1
        if beyond:
            inside = 1 if place[TAP] < a[N_TAPS] else 0
        x = a[X] + SIZE * (place[X_OFFSET] + place[CHANNEL] + column)
        to_x = to + place_of(first_row, column)
        for u in range(X_TURNS):
            copy(to_x + u * ROWS * ROW_BYTES, x + ptx.times(x_row[u], SIZE), BYTES * inside)
        weights = a[WEIGHT] + SIZE * (group * a[GROUP] + place[W_OFFSET])
        if transposed:
            k_row, column_w = thread >> COLUMN_BITS_W, (thread & (COLUMNS_W - 1)) * vector_w
            channel = first_channel + column_w
            weights += SIZE * ((place[CHANNEL] + k_row) * a[ROW] + (channel if channel < a[CHANNELS] else 0))
            to_w = to + X_BYTES + place_transposed(k_row, column_w)
            if k_row < DEPTH:
                for u in range(TURNS_TRANSPOSED):
                    copy_w(to_w + u * ROWS_W * PITCH_W, weights + u * ROWS_W * SIZE * a[ROW], BYTES_W * inside)
        else:
            weights += SIZE * (place[CHANNEL] + column)
            for u in range(W_TURNS):
                channel = first_channel + first_row + u * ROWS
                row = channel if channel < a[CHANNELS] else first_channel
                copy_w(to_x + X_BYTES + u * ROWS * ROW_BYTES, weights + SIZE * row * a[ROW], BYTES_W * inside)
        place[CHANNEL] += DEPTH
        if place[CHANNEL] == a[INNER]:
            place[CHANNEL] = 0
            find(place, 0, place[TAP] + 1, a)

    # --------------------------------------------------------------------------------------------------------- uneven

    def step_on(place: Any, k: int, a: Any) -> None:
        """A tile's columns further; beyond the last tap the table has spare ones."""
        channel = place[4 * k + CHANNEL] + DEPTH
        if channel >= a[INNER]:
            tap = place[4 * k + TAP]
            while channel >= a[INNER]:
                channel -= a[INNER]
                tap += 1
            find(place, k, tap, a)
        place[4 * k + CHANNEL] = channel

    def begin(a: Any, place: Any, x_row: Any, offsets: int, thread: int, group: int) -> None:
        rows_of_x(a, x_row, offsets, thread, group)
        find(place, 0, 0, a)
        place[CHANNEL] = (thread & (COLUMNS - 1)) * vector - DEPTH
        step_on(place, 0, a)
        if transposed:
            for u in range(TURNS_TRANSPOSED):
                find(place, u + 1, 0, a)
                place[4 * (u + 1) + CHANNEL] = (thread >> COLUMN_BITS_W) + u * ROWS_W - DEPTH
                step_on(place, u + 1, a)

    def copy_tile(
        a: Any, place: Any, x_row: Any, to: int, thread: int, first_pixel: int, first_channel: int, group: int
    ) -> None:
        column, first_row = (thread & (COLUMNS - 1)) * vector, thread >> COLUMN_BITS
        weights = a[WEIGHT] + SIZE * group * a[GROUP]
        inside = 1 if place[TAP] < a[N_TAPS] else 0
        for u in range(X_TURNS):
            row = first_row + u * ROWS
            filled = inside if first_pixel + row < a[PIXELS] else 0
            at = x_row[u] + (place[X_OFFSET] + place[CHANNEL]) * filled
            copy(to + place_of(row, column), a[X] + SIZE * at, BYTES * filled)
        if transposed:
            k_row, column_w = thread >> COLUMN_BITS_W, (thread & (COLUMNS_W - 1)) * vector_w
            channel = first_channel + column_w
            for u in range(TURNS_TRANSPOSED):
                row = k_row + u * ROWS_W
                filled = 1 if channel < a[CHANNELS] and place[4 * (u + 1) + TAP] < a[N_TAPS] else 0
                at = place[4 * (u + 1) + CHANNEL] * a[ROW] + place[4 * (u + 1) + W_OFFSET] + channel
                if row < DEPTH:
                    copy_w(
                        to + X_BYTES + place_transposed(row, column_w), weights + SIZE * at * filled, BYTES_W * filled
                    )
                step_on(place, u + 1, a)
        else:
            for u in range(W_TURNS):
                row = first_row + u * ROWS
                filled = inside if first_channel + row < a[CHANNELS] else 0
                at = (first_channel + row) * a[ROW] + place[W_OFFSET] + place[CHANNEL]
                copy_w(to + X_BYTES + place_of(row, column), weights + SIZE * at * filled, BYTES_W * filled)
        step_on(place, 0, a)

    if even:
        return begin_evenly, copy_evenly, round_tile, 4, X_TURNS
    return begin, copy_tile, round_tile, 4 + 4 * TURNS_TRANSPOSED, X_TURNS
