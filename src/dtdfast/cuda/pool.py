"""Max-pooling.  The winner of a window is the number of its first largest tap; a NaN wins."""

from __future__ import annotations

from typing import Any

from .elementwise import Types, putter
from .formulas import INFINITY, ZERO
from .language import LOADS, STORES, load_long, times

Body = Any


def max_pool(types: Types) -> Body:
    """out[p,c] = max_k x[p·step + tap_k, c] over the taps within x, m[p,c] = the first k that attains it.

    d, h, w are p·step; x is the address of (n, c) at the pixel 0, x_d, x_h, x_w its strides; taps are rows (d, h, w) of longs.
    """
    store, store_winner, get = STORES[types[0]], STORES[types[1]], LOADS[types[2]]

    def body(
        out: int, m: int, x: int, d: int, h: int, w: int,
        taps: int, n_taps: int, depth: int, height: int, width: int, x_d: int, x_h: int, x_w: int,
    ) -> None:  # fmt: skip
        best, winner = -INFINITY, -1
        for k in range(n_taps):
            q_d, q_h, q_w = d + load_long(taps + 24 * k), h + load_long(taps + 24 * k + 8), w + load_long(taps + 24 * k + 16)
            if 0 <= q_d < depth and 0 <= q_h < height and 0 <= q_w < width:
                v = get(x + times(q_d, x_d) + times(q_h, x_h) + times(q_w, x_w))
                if winner < 0 or v > best or (v != v and best == best):
                    best, winner = v, k
        store(out, best)
        store_winner(m, winner)

    return body


def max_unpool(types: Types, scaled: bool) -> Body:
    """out[p,c] (+)= factor[p,c] · Σ_k x[q,c] over q = p + tap_k within x, where m[q,c] = the number of that tap.

    Without `scaled` there is no factor.  x and m are addresses of (n, c) at the window 0; taps are rows (tap, d, h, w) of longs.
    """
    put, get_factor, get, load_winner = putter(types[0]), LOADS[types[1]], LOADS[types[2]], LOADS[types[3]]

    def body(
        out: int, factor: int, x: int, m: int, d: int, h: int, w: int,
        taps: int, n_taps: int, depth: int, height: int, width: int,
        x_d: int, x_h: int, x_w: int, m_d: int, m_h: int, m_w: int, accumulate: int,
    ) -> None:  # fmt: skip
        total = ZERO
        for k in range(n_taps):
            tap = taps + 32 * k
            q_d, q_h, q_w = d + load_long(tap + 8), h + load_long(tap + 16), w + load_long(tap + 24)
            within = 0 <= q_d < depth and 0 <= q_h < height and 0 <= q_w < width
            if within and load_winner(m + times(q_d, m_d) + times(q_h, m_h) + times(q_w, m_w)) == load_long(tap):
                total += get(x + times(q_d, x_d) + times(q_h, x_h) + times(q_w, x_w))
        if scaled:
            total *= get_factor(factor)
        put(out, total, accumulate)

    return body
