"""Max-pooling.  The winner of a window is the number of its first largest tap; a NaN wins.

A thread computes `together` channels: CHANNELS where every view has them side by side, and winners are bytes, else 1.
It finds its place and its taps once for all of them, and loads and stores them by one instruction.
"""

from __future__ import annotations

from typing import Any

from ..compile.language import LOADS, LOADS4, STORES, STORES4, load_long, times
from .elementwise import Types, putter
from .formulas import INFINITY, ZERO, Scalar

Body = Any
CHANNELS = 4  # of a thread


def max_pool(types: Types, n_taps: int, together: int) -> Body:
    """out[p,c] = max_k x[p·x_step + tap_k, c] over the taps within x, m[p,c] = the first k that attains it.

    d, h, w are p·x_step; x is the address of (n, c) at the pixel 0, x_d, x_h, x_w are its strides; taps are rows
    (d, h, w) of longs.
    """
    store, store_winner, get = STORES[types[0]], STORES[types[1]], LOADS[types[2]]
    store4, store4_winners, get4 = STORES4[types[0]], STORES4.get(types[1], store_winner), LOADS4[types[2]]

    def better(v: Scalar, best: Scalar, winner: int) -> bool:
        return winner < 0 or v > best or (v != v and best == best)

    def body(
        out: int, m: int, x: int, d: int, h: int, w: int,
        taps: int, depth: int, height: int, width: int, x_d: int, x_h: int, x_w: int,
    ) -> None:  # fmt: skip
        best_0, best_1, best_2, best_3 = -INFINITY, -INFINITY, -INFINITY, -INFINITY
        winner_0, winner_1, winner_2, winner_3 = -1, -1, -1, -1
        for k in range(n_taps):
            q_d, q_h, q_w = (
                d + load_long(taps + 24 * k),
                h + load_long(taps + 24 * k + 8),
                w + load_long(taps + 24 * k + 16),
            )
            if 0 <= q_d < depth and 0 <= q_h < height and 0 <= q_w < width:
                at = x + times(q_d, x_d) + times(q_h, x_h) + times(q_w, x_w)
                if together > 1:
                    v_0, v_1, v_2, v_3 = get4(at)
                    if better(v_1, best_1, winner_1):
                        best_1, winner_1 = v_1, k
                    if better(v_2, best_2, winner_2):
                        best_2, winner_2 = v_2, k
                    if better(v_3, best_3, winner_3):
                        best_3, winner_3 = v_3, k
                else:
                    v_0 = get(at)
                if better(v_0, best_0, winner_0):
                    best_0, winner_0 = v_0, k
        if together > 1:
            store4(out, best_0, best_1, best_2, best_3)
            store4_winners(m, winner_0, winner_1, winner_2, winner_3)
        else:
            store(out, best_0)
            store_winner(m, winner_0)

    return body


def max_unpool(types: Types, scaled: bool, n_taps: int, together: int) -> Body:
    """out[p,c] (+)= factor[p,c] · Σ x[q,c] over the windows q = p + (d, h, w)_k within x whose winner is tap_k.

    Without `scaled` there is no factor. x and m are addresses of (n, c) at the window 0; taps are rows (tap, d, h, w)
    of longs.
    """
    put, get_factor, get, load_winner = putter(types[0]), LOADS[types[1]], LOADS[types[2]], LOADS[types[3]]
    there4, store4 = LOADS4[types[0]], STORES4[types[0]]
    get4_factor, get4, load4_winners = (LOADS4.get(types[k], get) for k in (1, 2, 3))

    def body(
        out: int, factor: int, x: int, m: int, d: int, h: int, w: int,
        taps: int, depth: int, height: int, width: int,
        x_d: int, x_h: int, x_w: int, m_d: int, m_h: int, m_w: int, accumulate: int,
    ) -> None:  # fmt: skip
        total_0, total_1, total_2, total_3 = ZERO, ZERO, ZERO, ZERO
        for k in range(n_taps):
            row = taps + 32 * k
            q_d, q_h, q_w = d + load_long(row + 8), h + load_long(row + 16), w + load_long(row + 24)
            if 0 <= q_d < depth and 0 <= q_h < height and 0 <= q_w < width:
                tap = load_long(row)
                won = m + times(q_d, m_d) + times(q_h, m_h) + times(q_w, m_w)
                at = x + times(q_d, x_d) + times(q_h, x_h) + times(q_w, x_w)
                if together > 1:
                    winner_0, winner_1, winner_2, winner_3 = load4_winners(won)
                    v_0, v_1, v_2, v_3 = get4(at)
                    total_1 += v_1 if winner_1 == tap else ZERO
                    total_2 += v_2 if winner_2 == tap else ZERO
                    total_3 += v_3 if winner_3 == tap else ZERO
                else:
                    winner_0, v_0 = load_winner(won), get(at)
                total_0 += v_0 if winner_0 == tap else ZERO
        if together > 1:
            if scaled:
                f_0, f_1, f_2, f_3 = get4_factor(factor)
                total_0, total_1, total_2, total_3 = total_0 * f_0, total_1 * f_1, total_2 * f_2, total_3 * f_3
            if accumulate != 0:
                v_0, v_1, v_2, v_3 = there4(out)
                total_0, total_1, total_2, total_3 = v_0 + total_0, v_1 + total_1, v_2 + total_2, v_3 + total_3
            store4(out, total_0, total_1, total_2, total_3)
        else:
            put(out, total_0 * get_factor(factor) if scaled else total_0, accumulate)

    return body
