"""Strided views and launches over them: a body of `kernels/` runs once per element of the result, or a thread computes
several neighbours.

A view is a base address and byte strides over the axes (n, c, d, h, w, extra); stride 0 repeats it. An absent view has
address 0 everywhere. A coordinate is a view too: base 0, stride 1 along its axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ...errors import BackendError
from ..compile.kernel import Kernel
from ..kernels.strided import ABSENT as NOWHERE
from ..kernels.strided import ALONG, LANES, STILL, THREADS, WIDE, kernel, kernel_of_elements, reciprocal
from ..kernels.sums import kernel as summing
from .launch import Launch

MOST_ITEMS = 2**31 - THREADS  # per launch: items are 32-bit numbers, and so are the strides of all axes but the first
AXES = 6
N, C, D, H, W, EXTRA = range(AXES)
SPACE = (D, H, W)


@dataclass(frozen=True)
class Strided:
    """A view in device memory: the address of its first element, and strides in bytes.

    kept : batch of n samples beside a result of n·t, indexed by sample / t (what the forward pass kept)
    dtype : of the numbers, in the words of plan.steps.SIZES
    """

    at: int = 0
    strides: tuple[int, ...] = (0,) * AXES
    kept: bool = False
    dtype: str = "f4"


ABSENT = Strided()


def coordinate(axis: int, step: int = 1) -> Strided:
    """The index along an axis, times step, in the place of an address."""
    return Strided(0, tuple(step if a == axis else 0 for a in range(AXES)))


def without(view: Strided, *axes: int) -> Strided:
    """The view at index 0 along these axes."""
    return replace(view, strides=tuple(0 if a in axes else s for a, s in enumerate(view.strides)))


def launches(
    body: tuple[Any, ...],
    shape: Sequence[int],
    views: Sequence[Strided],
    longs: Sequence[int] = (),
    floats: Sequence[float] = (),
    repeat: int = 1,
    *,
    per_line: bool = False,
) -> list[Launch]:
    """Launches that run a body once per index of `shape` (n, c, d, h, w, extra).

    Parameters
    ----------
    body : (make_body, *constants)
    views : the result first; its strides decide which index runs fastest over the threads
    repeat : targets per sample, for views that are kept
    per_line : a warp for each index instead of a thread
    """
    types = tuple(v.dtype for v in views)
    specialised = (body[0], types, tuple(body[1:]))

    def made(n_axes: int) -> Kernel:
        return kernel(*specialised, n_axes, len(longs), len(floats), per_line)

    sizes, strides = _simplified(*_split(shape, views, repeat))
    return _launches(made, sizes, strides, views, longs, floats, LANES if per_line else 1)


def elements(
    function: tuple[Any, ...],
    shape: Sequence[int],
    views: Sequence[Strided],
    accumulate: bool,
    longs: Sequence[int] = (),
    floats: Sequence[float] = (),
    repeat: int = 1,
) -> list[Launch]:
    """Launches of out (+)= function(…) for each element of `shape`, several to a thread where all views allow it.

    Parameters
    ----------
    function : (make_value, *constants)
    views : the result, then the operands
    """
    types = tuple(v.dtype for v in views)
    sizes, strides = _simplified(*_split(shape, views, repeat))
    together = neighbours(shape, views)
    forms = tuple(
        NOWHERE if v == ABSENT else STILL if together > 1 and s[-1] == 0 else ALONG
        for v, s in zip(views[1:], strides[1:], strict=True)
    )
    sizes[-1] //= together
    for stride in strides:
        stride[-1] *= together

    def made(n_axes: int) -> Kernel:
        return kernel_of_elements(
            function[0], types, tuple(function[1:]), n_axes, len(longs), len(floats), forms, together
        )

    return _launches(made, sizes, strides, views, (int(accumulate), *longs), floats)


def neighbours(shape: Sequence[int], views: Sequence[Strided]) -> int:
    """How many elements a thread takes: 8 where a view has two bytes, else 4, where every view has them side by side or
    one number for them, and 16 bytes begin at multiples of 16; else 1. It is the same for every batch.
    """
    sizes, strides = _simplified(list(shape[1:]), [list(view.strides[1:]) for view in views])
    moving = [(view, stride) for view, stride in zip(views, strides, strict=True) if stride[-1] != 0]
    if any(view.dtype not in WIDE for view, _ in moving):
        return 1
    together = max((WIDE[view.dtype][0] for view, _ in moving), default=1)
    for view, stride in moving:
        apart = 16 // WIDE[view.dtype][0]
        if stride[-1] != apart or any(number % 16 for number in (view.at, view.strides[N], *stride[:-1])):
            return 1
    return together if strides[0][-1] != 0 and sizes[-1] % together == 0 else 1


def _launches(
    made: Callable[[int], Kernel],
    sizes: list[int],
    strides: list[list[int]],
    views: Sequence[Strided],
    longs: Sequence[int],
    floats: Sequence[float],
    threads: int = 1,
) -> list[Launch]:
    """Launches of the kernel that is made for so many axes, with so many threads for each item."""
    if prod(sizes) == 0:
        return []
    result = []
    for start, count in _pieces(sizes):
        here = (count, *sizes[1:])
        integers = [prod(here)]
        for size in here[1:]:
            integers += [*reciprocal(size), size]
        for view, stride in zip(views, strides, strict=True):
            integers += [view.at + start * stride[0], *stride]
        if any(abs(s) >= 2**31 for stride in strides for s in stride[1:]):
            raise BackendError("a tensor of more than 2 GiB per sample cannot be explained on a GPU")
        grid = (-(-prod(here) * threads // THREADS), 1, 1)
        result.append(Launch(made(len(here)), grid, 0, (*integers, *longs), tuple(floats) or (0.0,)))
    return result


def block_sums(
    body: tuple[Any, ...],
    shape: Sequence[int],
    out: Strided,
    blocks: int,
    views: Sequence[Strided],
    longs: Sequence[int],
    floats: Sequence[float],
) -> list[Launch]:
    """Launches that sum what a body of kernels/sums.py gives for the elements of each sample, block by block.

    Parameters
    ----------
    shape : of the first view, (n, c, d, h, w, extra)
    out : the sums: blocks along w, sums along c
    """
    sizes, strides = _simplified(list(shape[1:]), [list(view.strides[1:]) for view in views])
    if prod(shape) == 0:
        return []
    samples, elements = shape[N], prod(sizes)
    if elements > MOST_ITEMS or any(abs(s) >= 2**31 for stride in strides for s in stride):
        raise BackendError("a tensor of more than 2 GiB per sample cannot be explained on a GPU")
    result = []
    for start, count in _pieces([samples, blocks * LANES]):
        integers = [count * blocks, *reciprocal(blocks), blocks, -(-elements // blocks), elements]
        integers += [out.at + start * out.strides[N], out.strides[N], out.strides[C], out.strides[W]]
        for size in sizes[1:]:
            integers += [*reciprocal(size), size]
        for view, stride in zip(views, strides, strict=True):
            integers += [view.at + start * view.strides[N], view.strides[N], *stride]
        types = tuple(v.dtype for v in views)
        made = summing(body[0], types, tuple(body[1:]), len(sizes), len(longs), len(floats))
        grid = (-(-count * blocks * LANES // THREADS), 1, 1)
        result.append(Launch(made, grid, 0, (*integers, *longs), tuple(floats) or (0.0,)))
    return result


def _split(shape: Sequence[int], views: Sequence[Strided], repeat: int) -> tuple[list[int], list[list[int]]]:
    """The batch axis as (sample, target): a kept view does not move along the second."""
    sizes = [shape[N] // repeat, repeat, *shape[1:]]
    strides = []
    for view in views:
        n = view.strides[N]
        strides.append([n if view.kept else n * repeat, 0 if view.kept else n, *view.strides[1:]])
    return sizes, strides


def _simplified(sizes: list[int], strides: list[list[int]]) -> tuple[list[int], list[list[int]]]:
    """Axes of size 1 dropped, the rest ordered by the result's strides, slow to fast, and merged where all views allow
    it.
    """
    kept = sorted((a for a, size in enumerate(sizes) if size != 1), key=lambda a: -abs(strides[0][a])) or [0]
    sizes, strides = [sizes[a] for a in kept], [[s[a] for a in kept] for s in strides]
    for a in range(len(sizes) - 2, -1, -1):
        if all(s[a] == s[a + 1] * sizes[a + 1] for s in strides):
            sizes[a] *= sizes.pop(a + 1)
            for s in strides:
                s[a] = s.pop(a + 1)
    return sizes, strides


def _pieces(sizes: list[int]) -> list[tuple[int, int]]:
    """Ranges of the first axis small enough for one launch."""
    at_once = max(1, min(sizes[0], MOST_ITEMS // prod(sizes[1:])))
    return [(start, min(at_once, sizes[0] - start)) for start in range(0, sizes[0], at_once)]
