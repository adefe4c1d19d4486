"""Sums that several blocks took in segments are added, one segment after the other, and finished as in dense.py.

    sum[p, j] = (…((0 + s[p, 0, j]) + s[p, 1, j]) + …) + s[p, S − 1, j]

A thread has neighbouring channels of one pixel. The numbers of the kernel are those of a contraction: x are the sums,
ROW and GROUP the elements from one segment to the next and from the sums of y to those of the terms, TILES_ACROSS the
threads of a pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..compile.specialise import unroll
from .epilogue import Finish, finish, places
from .formulas import ZERO
from .tile_copies import GROUP, PIXELS, ROW, TILES_ACROSS, X

THREADS = 128


def shared_bytes(ending: Finish) -> int:
    """Of a block: each thread's sums, and its offsets."""
    return 4 * THREADS * ((1 + ending.dual) * ending.vector + 1 + len(ending.views))


def add_segments(ptx: Any, segments: int, ending: tuple[Any, ...]) -> Callable[..., None]:
    """Make the kernel.

    Parameters
    ----------
    ending : Finish.constants
    """
    END = Finish(*ending)
    WIDTH, PRODUCTS = END.vector, 1 + END.dual
    SECOND = 4 * THREADS * WIDTH
    finish_at = finish(ptx, END, SECOND, 4 * THREADS)
    place_at = places(ptx, END.views, 4 * THREADS)

    def kernel(a: Any, f: Any) -> None:
        thread = ptx.thread()
        number = ptx.block_x() * THREADS + thread
        pixel = ptx.quotient(number, a[TILES_ACROSS])
        channel = (number - pixel * a[TILES_ACROSS]) * WIDTH
        if pixel < a[PIXELS]:
            to = ptx.shared() + 4 * WIDTH * thread
            offsets = ptx.shared() + PRODUCTS * SECOND + 4 * thread
            place_at(a, pixel, offsets)
            at = a[X] + 4 * (ptx.shared_load_int(offsets) + channel)
            total = ptx.registers(WIDTH)
            for q in unroll(PRODUCTS):
                for e in range(WIDTH):
                    total[e] = ZERO
                for s in unroll(segments):
                    given = at + 4 * (q * a[GROUP] + s * a[ROW])
                    if WIDTH == 1:
                        total[0] = total[0] + ptx.read(given)
                    else:
                        for k in unroll(WIDTH // 4):
                            s_0, s_1, s_2, s_3 = ptx.read4(given + 16 * k)
                            total[4 * k], total[4 * k + 1] = total[4 * k] + s_0, total[4 * k + 1] + s_1
                            total[4 * k + 2], total[4 * k + 3] = total[4 * k + 2] + s_2, total[4 * k + 3] + s_3
                for e in range(WIDTH):
                    ptx.shared_store(to + q * SECOND + 4 * e, total[e])
            finish_at(a, f, to, offsets, channel)

    return kernel
