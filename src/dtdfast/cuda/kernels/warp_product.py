"""How a warp multiplies a tile of x with a tile of weights: seven arithmetic units behind one interface.

A tile is 128 bytes deep: 32 numbers, or 64 of two bytes. In shared memory 16-byte chunk q of row r lies at chunk q ^ (r
mod 8), so that no two threads of a warp meet in a bank:

    x        [pixel][128 bytes]
    weights  [channel][128 bytes]                             or, of a transposed product,
             [32 or 64][channel], chunk q of row k at q ^ (what `turning` says)

Whatever the unit, a thread holds the sums of rows g, g + 8 and columns 2t, 2t + 1 of every 16 × 8 block (lane = 4g +
t), which is the layout of `mma`:

    acc[product][i][j][·] += Σ_k x[16 i + …, k] wm(w[8 j + …, k])

Units: "fma" is float32 throughout; "tf32" and "bf16_rounded" round both operands (to nearest) and sum in float32;
"bf16" is the same of operands that lie in memory as bfloat16, which nothing converts on their way; "tf32x3" splits each
operand v into h = tf32(v) and l = tf32(v − h) and adds l·h' + h·l' + h·h', the eight terms of one instruction at a
time, to the sum outside of the tensor core, whose own additions truncate (Ootomo and Yokota, "Recovering single
precision accuracy from Tensor Cores", 2022).

"bf16_wgmma" and "tf32_wgmma" are "bf16" and "tf32" by an instruction of 128 threads (README.md). Its sums lie the
other way round: a warp has 16 channels and all pixels, a thread channels g, g + 8 and pixels 2t, 2t + 1 of every eight.
They are there after `wgmma_wait`; meanwhile a thread may do what touches neither them nor the tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..compile.specialise import unroll
from .formulas import WEIGHT_MAPS, ZERO

WGMMA = ("bf16_wgmma", "tf32_wgmma")
UNITS = ("fma", "tf32x3", "tf32", "bf16_rounded", "bf16", *WGMMA)
ROW_BYTES = 128  # of a tile
# what a descriptor of x's tile holds beside its address / 16, low and high: leading offset 1, which the swizzle makes
# meaningless; from eight rows to the next, / 16; the swizzle of 128 bytes, whose pattern begins at a multiple of 1024
LEADING, SWIZZLED = 1 << 16, 8 * ROW_BYTES >> 4 | 1 << 30


def bytes_of(unit: str) -> int:
    """Of an element of x and of the weights in shared memory."""
    return 2 if unit in ("bf16", "bf16_wgmma") else 4


def turning(n_channels: int, size: int) -> tuple[int, int, int]:
    """(from, mask, by): chunk q of row k of a transposed product's weights lies at q ^ (((k >> from) & mask) << by).

    Of four bytes, a warp reads rows 4 apart at once, eight channels of each; of two, eight rows and eight channels.
    Rows of less than 128 bytes lie several to a line of banks, and what is one chunk wide needs no turning.
    """
    if size == 4:
        return (0, 3, 1) if n_channels >= 32 else (1, 1, 1) if n_channels == 16 else (0, 0, 0)
    chunks = min(8, n_channels // 8)
    return (8 // chunks).bit_length() - 1, chunks - 1, 0


def tile_product(
    ptx: Any, unit: str, maps: tuple[str, ...], transposed: bool, blocks: tuple[int, int], n_channels: int
) -> Callable[[Any, int, int, int, int, int, Any], None]:
    """A function (acc, x, weights, row, column, lane, gamma): the warp at (row, column) adds one tile's products to its
    sums.

    Parameters
    ----------
    maps : weight maps, one product for each
    transposed : the weights' tile is [32][channel]
    blocks : 16 × 8 blocks of a warp, down and side by side
    n_channels : of the whole tile
    """
    I, J = blocks  # noqa: E741
    PRODUCTS = len(maps)
    SIZE = bytes_of(unit)
    TURN_FROM, TURN_MASK, TURN_BY = turning(n_channels, SIZE)
    PITCH = SIZE * n_channels
    PAIRS = (J + 1) // 2
    STEPS = {"fma": 8, "bf16_rounded": 2}.get(unit, 4)
    # written out, loads of one step overlap products of another; where that takes too many registers, the compiler sees
    # a loop
    WRITTEN_OUT = (
        unit == "tf32" or (unit == "bf16" and {*maps} <= {"w", "w+"}) or (unit == "tf32x3" and PRODUCTS * I * J <= 4)
    )
    first, second = (WEIGHT_MAPS[m] for m in (maps[0], maps[-1]))

    def mapped(product: int, w: Any, gamma: Any) -> Any:
        if maps[product] == "w+":
            return ptx.positive(w)
        if product == 0:
            return first(w, gamma)
        return second(w, gamma)

    def mapped_tf32(product: int, w: Any, gamma: Any) -> Any:
        if maps[product] == "w+":
            return ptx.round_positive_tf32(w)
        return ptx.round_tf32(mapped(product, w, gamma))

    def mapped_pair(product: int, word: Any, gamma: Any) -> Any:
        """The weight map of two weights of two bytes."""
        if maps[product] == "w":
            return word
        if maps[product] == "w+":
            return ptx.positive_bf16(word)
        return ptx.pack_bf16(mapped(product, ptx.low_bf16(word), gamma), mapped(product, ptx.high_bf16(word), gamma))

    operand, mma = (mapped_tf32, ptx.mma_tf32) if unit.startswith("tf32") else (mapped_pair, ptx.mma_bf16)

    def products(acc: Any, a: Any, of_w: Any, gamma: Any) -> None:
        for p in unroll(PRODUCTS):
            for j in range(J):
                b0 = operand(p, of_w[2 * j], gamma)
                b1 = operand(p, of_w[2 * j + 1], gamma)
                for i in range(I):
                    mma(acc, ((p * I + i) * J + j) * 4, a, 4 * i, b0, b1)

    # ------------------------------------------------------------------------------------------------------ fragments

    def turned(row: int) -> int:
        return ((row >> TURN_FROM) & TURN_MASK) << TURN_BY

    def fragments(
        k: int, of_x: Any, of_w: Any, into: int, x: int, weights: int, row: int, column: int, lane: int
    ) -> None:
        """Columns 8k … 8k+7 of both tiles, as `mma` with tf32 wants them."""
        matrix, line = lane >> 3, lane & 7
        g, t = lane >> 2, lane & 3
        for i in range(I):
            at = x + (row + 16 * i + 8 * (matrix & 1) + line) * 128 + (((2 * k + (matrix >> 1)) ^ line) << 4)
            ptx.ldmatrix(of_x, into * 4 * I + 4 * i, at)
        if transposed:
            for j in range(J):
                at = weights + (8 * k + t) * PITCH + ((((column + 8 * j + g) >> 2) ^ turned(t)) << 4) + (g & 3) * 4
                of_w[into * 2 * J + 2 * j] = ptx.shared_load(at)
                of_w[into * 2 * J + 2 * j + 1] = ptx.shared_load(at + 4 * PITCH)
        else:
            for j in range(J // 2):
                at = (
                    weights
                    + (column + 16 * j + 8 * (matrix >> 1) + line) * 128
                    + (((2 * k + (matrix & 1)) ^ line) << 4)
                )
                ptx.ldmatrix(of_w, into * 2 * J + 4 * j, at)

    # ---------------------------------------------------------------------------------------------------------- units

    def tf32(k: int, acc: Any, x: int, weights: int, row: int, column: int, lane: int, gamma: Any) -> None:
        of_x, of_w, a = ptx.registers(4 * I), ptx.registers(2 * J), ptx.words(4 * I)
        fragments(k, of_x, of_w, 0, x, weights, row, column, lane)
        for i in range(4 * I):
            a[i] = ptx.round_tf32(of_x[i])
        products(acc, a, of_w, gamma)

    def tf32x3(k: int, acc: Any, x: int, weights: int, row: int, column: int, lane: int, gamma: Any) -> None:
        of_x, of_w = ptx.registers(4 * I), ptx.registers(2 * J)
        high, low, s = ptx.words(4 * I), ptx.words(4 * I), ptx.registers(4)
        fragments(k, of_x, of_w, 0, x, weights, row, column, lane)
        for i in range(4 * I):
            h0 = ptx.high_tf32(of_x[i])
            high[i] = ptx.word(h0)
            low[i] = ptx.round_tf32(of_x[i] - h0)
        for p in unroll(PRODUCTS):
            for j in range(J):
                w0 = mapped(p, of_w[2 * j], gamma)
                w1 = mapped(p, of_w[2 * j + 1], gamma)
                h0 = ptx.high_tf32(w0)
                h1 = ptx.high_tf32(w1)
                l0 = ptx.round_tf32(w0 - h0)
                l1 = ptx.round_tf32(w1 - h1)
                for i in range(I):
                    o = ((p * I + i) * J + j) * 4
                    for c in range(4):
                        s[c] = ZERO
                    ptx.mma_tf32(s, 0, low, 4 * i, h0, h1)
                    ptx.mma_tf32(s, 0, high, 4 * i, l0, l1)
                    ptx.mma_tf32(s, 0, high, 4 * i, h0, h1)
                    for c in range(4):
                        acc[o + c] = acc[o + c] + s[c]

    def bf16_rounded(k: int, acc: Any, x: int, weights: int, row: int, column: int, lane: int, gamma: Any) -> None:
        """Sixteen columns at a time; which of them counts as which is free, as long as x and w agree."""
        of_x, of_w, a = ptx.registers(8 * I), ptx.registers(4 * J), ptx.words(4 * I)
        for half in unroll(2):
            fragments(2 * k + half, of_x, of_w, half, x, weights, row, column, lane)
        for i in range(I):
            for half in unroll(2):
                for r in unroll(2):
                    a[4 * i + 2 * half + r] = ptx.pack_bf16(
                        of_x[half * 4 * I + 4 * i + r], of_x[half * 4 * I + 4 * i + r + 2]
                    )
        for p in unroll(PRODUCTS):
            for j in range(J):
                b0 = ptx.pack_bf16(mapped(p, of_w[2 * j], gamma), mapped(p, of_w[2 * j + 1], gamma))
                b1 = ptx.pack_bf16(mapped(p, of_w[2 * J + 2 * j], gamma), mapped(p, of_w[2 * J + 2 * j + 1], gamma))
                for i in range(I):
                    ptx.mma_bf16(acc, ((p * I + i) * J + j) * 4, a, 4 * i, b0, b1)

    def bf16(k: int, acc: Any, x: int, weights: int, row: int, column: int, lane: int, gamma: Any) -> None:
        """Sixteen columns at a time, as they lie in memory."""
        of_x, of_w = ptx.words(4 * I), ptx.words(4 * PAIRS)
        matrix, line = lane >> 3, lane & 7
        for i in range(I):
            at = x + (row + 16 * i + 8 * (matrix & 1) + line) * ROW_BYTES + (((2 * k + (matrix >> 1)) ^ line) << 4)
            ptx.ldmatrix_words(of_x, 4 * i, at)
        for j in range(PAIRS):
            if transposed:
                depth = 16 * k + 8 * (matrix & 1) + line
                beside = (matrix >> 1) if J > 1 else 0  # a single block of 8 channels is read twice
                at = weights + depth * PITCH + ((((column >> 3) + 2 * j + beside) ^ turned(depth)) << 4)
                ptx.ldmatrix_turned(of_w, 4 * j, at)
            else:
                at = (
                    weights
                    + (column + 16 * j + 8 * (matrix >> 1) + line) * ROW_BYTES
                    + (((2 * k + (matrix & 1)) ^ line) << 4)
                )
                ptx.ldmatrix_words(of_w, 4 * j, at)
        products(acc, of_x, of_w, gamma)

    def fma(k: int, acc: Any, x: int, weights: int, row: int, column: int, lane: int, gamma: Any) -> None:
        """Four columns at a time."""
        g, t = lane >> 2, lane & 3
        v, w = ptx.registers(8 * I), ptx.registers(4)
        for i in range(2 * I):
            v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3] = ptx.shared_load4(
                x + (row + 8 * i + g) * 128 + ((k ^ g) << 4)
            )
        for j in range(J):
            for e in range(2):
                n = column + 8 * j + 2 * t + e
                if transposed:
                    for c in range(4):
                        w[c] = ptx.shared_load(
                            weights + (4 * k + c) * PITCH + (((n >> 2) ^ turned(c)) << 4) + (n & 3) * 4
                        )
                else:
                    w[0], w[1], w[2], w[3] = ptx.shared_load4(weights + n * 128 + ((k ^ (n & 7)) << 4))
                for p in unroll(PRODUCTS):
                    for c in range(4):
                        b = mapped(p, w[c], gamma)
                        for i in range(2 * I):
                            o = ((p * I + i // 2) * J + j) * 4 + 2 * (i % 2) + e
                            acc[o] = ptx.fma(v[4 * i + c], b, acc[o])

    def by_warpgroup(acc: Any, x: int, weights: int, row: int, column: int, lane: int, gamma: Any) -> None:
        """All of a tile, 32 bytes at a time; then it waits for nothing."""
        of_w, a = ptx.words(16) if SIZE == 2 else ptx.registers(16), ptx.words(16 * PRODUCTS)
        matrix, line = lane >> 3, lane & 7
        g, t = lane >> 2, lane & 3
        for k in range(4):
            if transposed and SIZE == 4:
                for c in range(4):  # channels g and g + 8 of row t, then of row t + 4
                    at = (((column + 8 * (c & 1) + g) >> 2) ^ turned(t)) << 4
                    of_w[4 * k + c] = ptx.shared_load(weights + (8 * k + 4 * (c >> 1) + t) * PITCH + at + (g & 3) * 4)
            elif transposed:
                depth = 16 * k + 8 * (matrix >> 1) + line
                at = weights + depth * PITCH + ((((column >> 3) + (matrix & 1)) ^ turned(depth)) << 4)
                ptx.ldmatrix_turned(of_w, 4 * k, at)
            else:
                at = weights + (column + 8 * (matrix & 1) + line) * ROW_BYTES + (((2 * k + (matrix >> 1)) ^ line) << 4)
                load(of_w, 4 * k, at)
        for p in unroll(PRODUCTS):
            for k in range(16):
                a[16 * p + k] = operand(p, of_w[k], gamma)
        fence(a, 0)
        low = ((x + row * ROW_BYTES) >> 4) + LEADING
        for k in range(4):
            for p in unroll(PRODUCTS):
                multiply(acc, 8 * I * p, a, 16 * p + 4 * k, low + 2 * k, SWIZZLED)
        ptx.wgmma_commit()

    if unit in WGMMA:
        fence, multiply = ptx.wgmma_fence(16 * PRODUCTS), ptx.wgmma(unit[:4], 16 * I)
        load = ptx.ldmatrix_words if SIZE == 2 else ptx.ldmatrix
        return by_warpgroup
    step = {"fma": fma, "tf32": tf32, "tf32x3": tf32x3, "bf16_rounded": bf16_rounded, "bf16": bf16}[unit]

    def product(acc: Any, x: int, weights: int, row: int, column: int, lane: int, gamma: Any) -> None:
        if WRITTEN_OUT:
            for k in unroll(STEPS):
                step(k, acc, x, weights, row, column, lane, gamma)
        else:
            for k in range(STEPS):
                step(k, acc, x, weights, row, column, lane, gamma)

    return product
