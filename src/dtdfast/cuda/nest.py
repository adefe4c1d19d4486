"""Strided views as one thread per element: the skeleton of every kernel that is no contraction.

    thread i  →  p[0], p[1], … (i's index along each axis)  →  address of each view: at[k] + Σ_a p[a]·stride[k][a]

A view is a base address and byte strides over the axes (n, c, d, h, w, extra); stride 0 repeats it. An absent view has
address 0 everywhere. A coordinate is a view too: base 0, stride 1 along its axis. The kernel's *body* is made for the
types of its views; it gets their addresses, then the numbers of its step, and does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import Any

from ..errors import BackendError
from .language import item, quotient_by, times, translate
from .launch import Kernel, Launch

THREADS = 256
MOST_ITEMS = 2**31 - THREADS  # per launch: items are 32-bit numbers, and so are the strides of all axes but the first
AXES = 6
N, C, D, H, W, EXTRA = range(AXES)

Body = Callable[..., None]


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


def reciprocal(d: int) -> tuple[int, int]:
    """(magic, shift) such that (n · magic) >> shift = n // d for 0 ≤ n < 2³¹.

    With 2^(l−1) < d ≤ 2^l and magic = ⌊2^(31+l) / d⌋ + 1 the product exceeds n/d by at most n·d / (d·2^(31+l)) < 1/d.
    """
    length = (d - 1).bit_length()
    return 2 ** (31 + length) // d + 1, 31 + length


# ---------------------------------------------------------------------------------------------------------------- the
# kernel

_SOURCE = """
def kernel(a, f):
    i = item()
    if i < a[0]:
{indices}
        body({arguments})
"""


def skeleton(
    ptx: Any,
    make_body: Callable[..., Body],
    types: tuple[str, ...],
    constants: tuple[Any, ...],
    n_axes: int,
    n_longs: int,
    n_floats: int,
) -> Any:
    """The kernel of a body over views of these types.

    Its integers: items; magic, shift and size of each axis but the first; per view its address and strides; longs.
    """
    lines = []
    for axis in range(n_axes - 1, 0, -1):
        magic = 1 + 3 * (axis - 1)
        lines += [
            f"q{axis} = quotient_by(i, a[{magic}], a[{magic + 1}])",
            f"p{axis} = i - times(q{axis}, a[{magic + 2}])",
            f"i = q{axis}",
        ]
    lines.append("p0 = i")
    first = 1 + 3 * (n_axes - 1)
    views = [first + k * (1 + n_axes) for k in range(len(types))]
    addresses = [
        " + ".join([f"a[{v}] + p0 * a[{v + 1}]", *(f"times(p{x}, a[{v + 1 + x}])" for x in range(1, n_axes))])
        for v in views
    ]
    longs = first + len(types) * (1 + n_axes)
    arguments = [*addresses, *(f"a[{longs + k}]" for k in range(n_longs)), *(f"f[{k}]" for k in range(n_floats))]
    source = _SOURCE.format(indices="\n".join(" " * 8 + line for line in lines), arguments=", ".join(arguments))
    space: dict[str, Any] = {
        "item": item,
        "quotient_by": quotient_by,
        "times": times,
        "body": make_body(types, *constants),
        "__name__": __name__,
    }
    exec(compile(source, f"<{make_body.__name__} of {len(types)} views over {n_axes} axes>", "exec"), space)
    return translate(space["kernel"], ptx)


@cache
def kernel(
    make_body: Callable[..., Body],
    types: tuple[str, ...],
    constants: tuple[Any, ...],
    n_axes: int,
    n_longs: int,
    n_floats: int,
) -> Kernel:
    """One kernel object for each specialisation."""
    n_integers = 1 + 3 * (n_axes - 1) + len(types) * (1 + n_axes) + n_longs
    factory_constants = (make_body, types, constants, n_axes, n_longs, n_floats)
    return Kernel(make_body.__name__, skeleton, factory_constants, n_integers, max(1, n_floats), THREADS)


# ------------------------------------------------------------------------------------------------------------------ the
# host


def launches(
    body: tuple[Any, ...],
    shape: Sequence[int],
    views: Sequence[Strided],
    longs: Sequence[int] = (),
    floats: Sequence[float] = (),
    repeat: int = 1,
) -> list[Launch]:
    """Launches that run a body once per index of `shape` (n, c, d, h, w, extra).

    Parameters
    ----------
    body : (make_body, *constants)
    views : the result first; its strides decide which index runs fastest over the threads
    repeat : targets per sample, for views that are kept
    """
    sizes, strides = _simplified(*_split(shape, views, repeat))
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
        made = kernel(body[0], tuple(v.dtype for v in views), tuple(body[1:]), len(here), len(longs), len(floats))
        grid = (-(-prod(here) // THREADS), 1, 1)
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
