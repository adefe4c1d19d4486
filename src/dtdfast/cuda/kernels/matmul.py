"""Products of two computed matrices, one pair per (n, c, d), in float32 whatever the precision.

    out[i,j] (+)= coefficient · multiplier(m[i,j]) · Σ_k x[i,k] other[k,j]

A block owns a tile of out, 64 rows × 64 columns, a thread 8 × 4 of it. Tiles of both operands, 16 terms deep, come to
shared memory as [k][row] and [k][column], whatever the strides of the operands; the next ones are on their way in
registers while these are multiplied. Each sum is one chain over k, in every tile: its bits depend on x and `other`
alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..compile.specialise import unroll
from .formulas import MULTIPLIERS, ZERO

TILE, DEPTH = 64, 16  # rows and columns of a tile, terms
ROWS, COLUMNS = 8, 4  # of a thread
THREADS = TILE // ROWS * (TILE // COLUMNS)
TURNS = TILE * DEPTH // THREADS  # numbers of a tile that one thread brings
PITCH = TILE + 4  # floats from one term to the next: rows 16 bytes aligned, in other banks
OPERAND = 4 * DEPTH * PITCH  # bytes
SHARED_BYTES = 2 * OPERAND

VIEWS = ("out", "x", "other", "m")
(BATCHES_C, BATCHES_D, MATRIX_ROWS, MATRIX_COLUMNS, TERMS, REPEAT, TILES_DOWN, TILES_ACROSS, ACCUMULATE) = range(9)
"""Numbers of the kernel: c and d of a sample, sizes of the matrices, targets per sample, tiles of one matrix, whether
to add to out."""
FIRST_VIEW, PER_VIEW = ACCUMULATE + 1, 6
"""Then of every view the address of its first element and its strides along n, c, d, h, w in bytes."""
N_INTEGERS = FIRST_VIEW + PER_VIEW * len(VIEWS)


def matmul(
    ptx: Any, types: tuple[str, ...], multiplier: str, shared: tuple[bool, ...], along: tuple[bool, bool]
) -> Callable[..., None]:
    """Make the kernel.

    Parameters
    ----------
    types : of the views, "f4" or "bf16"
    multiplier : "none", where m is absent, or what m multiplies by
    shared : of the views, whether the targets of a sample share them
    along : whether terms lie closer together in x than rows, and in `other` than columns
    """
    HALF = tuple(t == "bf16" for t in types)
    MULTIPLIED = multiplier != "none"
    OUT, X, OTHER, M = (FIRST_VIEW + PER_VIEW * v for v in range(len(VIEWS)))
    multiplied = MULTIPLIERS[multiplier]

    def get(at: Any, view: int) -> Any:
        return ptx.load_bf16(at) if HALF[view] else ptx.load(at)

    def start(a: Any, view: int, n: int, c: int, d: int) -> Any:
        """The address of a matrix."""
        first = FIRST_VIEW + PER_VIEW * view
        sample = ptx.quotient(n, a[REPEAT]) if shared[view] else n
        return a[first] + sample * a[first + 1] + c * a[first + 2] + d * a[first + 3]

    def fetch(
        to: Any, view: int, at: Any, line: int, line_step: Any, lines: int, k: int, term_step: Any, terms: int
    ) -> None:
        """Numbers of a tile, from the thread's first one on; zeros beyond the matrix."""
        for u in unroll(TURNS):
            by_line = u * (THREADS // DEPTH) if along[view - 1] else 0
            by_term = 0 if along[view - 1] else u * (THREADS // TILE)
            to[u] = ZERO
            if line + by_line < lines and k + by_term < terms:
                to[u] = get(at + by_line * line_step + by_term * term_step, view)

    def put(of: Any, view: int, to: int) -> None:
        for u in unroll(TURNS):
            ptx.shared_store(to + 4 * u * (THREADS // DEPTH if along[view - 1] else THREADS // TILE * PITCH), of[u])

    def kernel(a: Any, f: Any) -> None:
        thread = ptx.thread()
        block = ptx.quotient(ptx.block_x(), a[TILES_ACROSS])
        first_column = (ptx.block_x() - block * a[TILES_ACROSS]) * TILE
        batch = ptx.quotient(block, a[TILES_DOWN])
        first_row = (block - batch * a[TILES_DOWN]) * TILE
        d = batch
        n = ptx.quotient(batch, a[BATCHES_C] * a[BATCHES_D])
        d -= n * a[BATCHES_C] * a[BATCHES_D]
        c = ptx.quotient(d, a[BATCHES_D])
        d -= c * a[BATCHES_D]

        # this thread's first number of each tile: its row or column and its term
        x_line = thread >> 4 if along[0] else thread & 63
        x_term = thread & 15 if along[0] else thread >> 6
        other_line = thread >> 4 if along[1] else thread & 63
        other_term = thread & 15 if along[1] else thread >> 6
        to_x = ptx.shared() + 4 * (x_term * PITCH + x_line)
        to_other = ptx.shared() + OPERAND + 4 * (other_term * PITCH + other_line)
        x_line += first_row
        other_line += first_column
        x = start(a, 1, n, c, d) + x_line * a[X + 4] + x_term * a[X + 5]
        other = start(a, 2, n, c, d) + other_line * a[OTHER + 5] + other_term * a[OTHER + 4]

        row, column = (thread >> 4) * ROWS, (thread & 15) * COLUMNS
        of_x, of_other = ptx.registers(TURNS), ptx.registers(TURNS)
        sums, v, w = ptx.registers(ROWS * COLUMNS), ptx.registers(ROWS), ptx.registers(COLUMNS)
        for i in range(ROWS * COLUMNS):
            sums[i] = ZERO
        fetch(of_x, 1, x, x_line, a[X + 4], a[MATRIX_ROWS], x_term, a[X + 5], a[TERMS])
        fetch(of_other, 2, other, other_line, a[OTHER + 5], a[MATRIX_COLUMNS], other_term, a[OTHER + 4], a[TERMS])
        for _ in range(0, a[TERMS], DEPTH):
            ptx.barrier()
            put(of_x, 1, to_x)
            put(of_other, 2, to_other)
            ptx.barrier()
            x += DEPTH * a[X + 5]
            other += DEPTH * a[OTHER + 4]
            x_term += DEPTH
            other_term += DEPTH
            fetch(of_x, 1, x, x_line, a[X + 4], a[MATRIX_ROWS], x_term, a[X + 5], a[TERMS])
            fetch(of_other, 2, other, other_line, a[OTHER + 5], a[MATRIX_COLUMNS], other_term, a[OTHER + 4], a[TERMS])
            if first_row + row < a[MATRIX_ROWS] and first_column + column < a[MATRIX_COLUMNS]:
                at_x, at_other = ptx.shared() + 4 * row, ptx.shared() + OPERAND + 4 * column
                for k in range(DEPTH):
                    v[0], v[1], v[2], v[3] = ptx.shared_load4(at_x + 4 * PITCH * k)
                    v[4], v[5], v[6], v[7] = ptx.shared_load4(at_x + 4 * PITCH * k + 16)
                    w[0], w[1], w[2], w[3] = ptx.shared_load4(at_other + 4 * PITCH * k)
                    for i in range(ROWS):
                        for j in range(COLUMNS):
                            sums[COLUMNS * i + j] = ptx.fma(v[i], w[j], sums[COLUMNS * i + j])

        out, m = start(a, 0, n, c, d), start(a, 3, n, c, d)
        for i in unroll(ROWS):
            for j in unroll(COLUMNS):
                at_row, at_column = first_row + row + i, first_column + column + j
                if at_row < a[MATRIX_ROWS] and at_column < a[MATRIX_COLUMNS]:
                    r = f[0] * sums[COLUMNS * i + j]
                    if MULTIPLIED:
                        r = multiplied(get(m + at_row * a[M + 4] + at_column * a[M + 5], 3), r)
                    at = out + at_row * a[OUT + 4] + at_column * a[OUT + 5]
                    if a[ACCUMULATE] != 0:
                        r = get(at, 0) + r
                    if HALF[0]:
                        ptx.store_bf16(at, r)
                    else:
                        ptx.store(at, r)

    return kernel
