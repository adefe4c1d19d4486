"""Max-pools as launches, as operations.py has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ...plan.steps import SIZES
from ..compile.language import LOADS4
from ..kernels import pool
from .launch import Launch
from .site import Site
from .strided import ABSENT, SPACE, C, D, Strided, W, coordinate, launches, without


def _space(view: Strided) -> tuple[int, ...]:
    return tuple(view.strides[a] for a in SPACE)


def _channels_at_once(
    site: Site, body: tuple[Any, ...], views: list[Strided], longs: tuple[int, ...], whole: list[Strided]
) -> list[Launch]:
    """A body whose threads compute several channels each, where these lie side by side in every view, else one.

    whole : the views of numbers, with the strides that the body itself walks
    """
    n, channels, *space = site.shape(site.step.out)
    together = pool.CHANNELS if channels % pool.CHANNELS == 0 and all(map(_in_fours, whole)) else 1
    views = [replace(v, strides=tuple(s * together if a == C else s for a, s in enumerate(v.strides))) for v in views]
    return launches((*body, together), (n, channels // together, *space), views, longs, (), site.step.repeat)


def _in_fours(view: Strided) -> bool:
    """Whether channels lie side by side, and four of them begin at a multiple of their bytes."""
    if view == ABSENT or view.dtype not in LOADS4:
        return view == ABSENT
    size = SIZES[view.dtype]
    others = (view.at, *(s for a, s in enumerate(view.strides) if a != C))
    return view.strides[C] == size and all(number % (4 * size) == 0 for number in others)


def max_pool(site: Site) -> list[Launch]:
    step = site.step
    assert step.x is not None
    assert step.phase is not None
    assert step.table is not None
    x = site.view(step.x)
    coordinates = [coordinate(a, by) for a, by in zip(SPACE, step.phase.x_step, strict=True)]
    views = [site.view(step.out), site.view(step.m), without(x, *SPACE), *coordinates]
    size = site.shape(step.x)[D : W + 1]
    longs = (site.address_of(step.table), *size, *_space(x))
    return _channels_at_once(site, (pool.max_pool, len(step.table)), views, longs, [*views[:2], x])


def max_unpool(site: Site) -> list[Launch]:
    step = site.step
    assert step.x is not None
    assert step.table is not None
    x, m = site.view(step.x), site.view(step.m, kept=True)
    factor = site.view(step.factor, kept=True)
    views = [site.view(step.out), factor, without(x, *SPACE), without(m, *SPACE), *(coordinate(a) for a in SPACE)]
    size = site.shape(step.x)[D : W + 1]
    taps = site.address_of(step.table) if len(step.table) else 0
    longs = (taps, *size, *_space(x), *_space(m), int(step.accumulate))
    body = (pool.max_unpool, step.factor is not None, len(step.table))
    return _channels_at_once(site, body, views, longs, [*views[:2], x, m])


def max_scatter(site: Site) -> list[Launch]:
    """As MAX_UNPOOL, tap by tap."""
    step = site.step
    assert step.x is not None
    assert step.table is not None
    assert step.phase is not None
    windows, result = step.phase, []
    for k, start in enumerate(step.table.tolist()):
        place = ((start[0], start[1], start[2]), windows.x_step, windows.count)
        factor = None if step.factor is None else step.factor.phase(*place)
        tap = step.but(out=step.out.phase(*place), factor=factor, table=np.array([(k, 0, 0, 0)], np.int64))
        result += max_unpool(Site(tap, site.plan, site.address_of))
    return result
