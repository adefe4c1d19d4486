"""The skeleton of every kernel that is no contraction: one thread, or one warp, for each element of strided views.

    thread i  →  p[0], p[1], … (i's index along each axis)  →  address of each view: at[k] + Σ_a p[a]·stride[k][a]

The kernel's *body* is made for the types of its views; it gets their addresses, then the numbers of its step, and does
the rest. `run/strided.py` makes the launches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ..compile.kernel import Kernel
from ..compile.language import item, line, quotient_by, times, translate

THREADS = 256
LANES = 32  # threads of a line

Body = Callable[..., None]


def reciprocal(d: int) -> tuple[int, int]:
    """(magic, shift) such that (n · magic) >> shift = n // d for 0 ≤ n < 2³¹.

    With 2^(l−1) < d ≤ 2^l and magic = ⌊2^(31+l) / d⌋ + 1 the product exceeds n/d by at most n·d / (d·2^(31+l)) < 1/d.
    """
    length = (d - 1).bit_length()
    return 2 ** (31 + length) // d + 1, 31 + length


_SOURCE = """
def kernel(a, f):
    i = {number}()
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
    per_line: bool,
) -> Any:
    """The kernel of a body over views of these types; `per_line` says that a warp runs it together (language.line).

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
    source = _SOURCE.format(
        number="line" if per_line else "item",
        indices="\n".join(" " * 8 + line for line in lines),
        arguments=", ".join(arguments),
    )
    space: dict[str, Any] = {
        "item": item,
        "line": line,
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
    per_line: bool = False,
) -> Kernel:
    """One kernel object for each specialisation."""
    n_integers = 1 + 3 * (n_axes - 1) + len(types) * (1 + n_axes) + n_longs
    factory_constants = (make_body, types, constants, n_axes, n_longs, n_floats, per_line)
    return Kernel(make_body.__name__, skeleton, factory_constants, n_integers, max(1, n_floats), THREADS)
