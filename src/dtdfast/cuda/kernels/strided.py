"""The skeletons of every kernel that is no contraction: one thread, or one warp, for each element of strided views.

    thread i  →  p[0], p[1], … (i's index along each axis)  →  address of each view: at[k] + Σ_a p[a]·stride[k][a]

In a `skeleton`, the kernel's *body* is made for the types of its views; it gets their addresses, then the numbers of
its step, and does the rest. Of `elements`, a function computes each one of the result; a thread takes several that lie
side by side, and loads and stores 16 bytes at once. `run/strided.py` makes the launches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from inspect import signature
from typing import Any

from ..compile.kernel import Kernel
from ..compile.language import (
    LOADS,
    STORES,
    item,
    line,
    load4,
    load8_bf16,
    quotient_by,
    store4,
    store8_bf16,
    times,
    translate,
)

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
    i = item()
    if i < a[0]:
{lines}
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
    lines, addresses, longs = _places(n_axes, len(types))
    arguments = [*addresses, *(f"a[{longs + k}]" for k in range(n_longs)), *(f"f[{k}]" for k in range(n_floats))]
    lines.append(f"body({', '.join(arguments)})")
    space = {"item": line if per_line else item, "body": make_body(types, *constants)}
    return _made(ptx, lines, space, make_body)


def _places(n_axes: int, n_views: int) -> tuple[list[str], list[str], int]:
    """Lines that find a thread's place, the address of each view there, and which integer is the first one behind."""
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
    views = [first + k * (1 + n_axes) for k in range(n_views)]
    addresses = [
        " + ".join([f"a[{v}] + p0 * a[{v + 1}]", *(f"times(p{x}, a[{v + 1 + x}])" for x in range(1, n_axes))])
        for v in views
    ]
    return lines, addresses, first + n_views * (1 + n_axes)


def _made(ptx: Any, lines: list[str], space: dict[str, Any], make: Callable[..., Any]) -> Any:
    """The kernel of these lines for every item."""
    source = _SOURCE.format(lines="\n".join(" " * 8 + line for line in lines))
    space |= {"quotient_by": quotient_by, "times": times, "__name__": __name__}
    exec(compile(source, f"<{make.__name__}>", "exec"), space)
    return translate(space["kernel"], ptx)


ALONG, STILL, ABSENT = "along", "still", "absent"
"""What a view has for the neighbours of a thread: a number for each, one for all of them, or none."""
WIDE: dict[str, tuple[int, Any, Any]] = {"f4": (4, load4, store4), "bf16": (8, load8_bf16, store8_bf16)}
"""How many numbers are 16 bytes, and what loads and stores them."""


def elements(
    ptx: Any,
    make_value: Callable[..., Callable[..., Any]],
    types: tuple[str, ...],
    constants: tuple[Any, ...],
    n_axes: int,
    n_longs: int,
    n_floats: int,
    forms: tuple[str, ...],
    together: int,
) -> Any:
    """The kernel of out (+)= value(longs, floats, operands), `together` elements for each thread; `forms` are those of
    the operands.

    Its integers are those of `skeleton`; the first of its longs says whether it adds.
    """
    value = make_value(*constants)
    lines, addresses, adds = _places(n_axes, len(types))
    numbers = [f"a[{adds + 1 + k}]" for k in range(n_longs)] + [f"f[{k}]" for k in range(n_floats)]
    defaults = [p.default for p in signature(value).parameters.values()][len(numbers) :]
    space: dict[str, Any] = {"item": item, "value": value}
    for dtype in types:
        space |= {f"get_{dtype}": LOADS[dtype], f"put_{dtype}": STORES[dtype], f"get_one_{dtype}": LOADS[dtype]}
        if together > 1 and dtype in WIDE:
            _, space[f"get_{dtype}"], space[f"put_{dtype}"] = WIDE[dtype]

    def pieces(view: int) -> list[tuple[str, str]]:
        """What one instruction loads or stores of a view: its address, and names of the elements."""
        n = 1 if together == 1 else WIDE[types[view]][0]
        names = [f"v{view}_{k}" for k in range(together)]
        return [(f"at_{view} + {16 * (k // n)}", ", ".join(names[k : k + n])) for k in range(0, together, n)]

    operands: list[list[str]] = [[] for _ in range(together)]
    lines.append(f"at_0 = {addresses[0]}")
    for view, form in enumerate(forms, 1):
        if form == ALONG:
            lines.append(f"at_{view} = {addresses[view]}")
            lines += [f"{names} = get_{types[view]}({at})" for at, names in pieces(view)]
        elif form == STILL:
            lines.append(f"v{view} = get_one_{types[view]}({addresses[view]})")
        else:
            space[f"v{view}"] = defaults[view - 1]
        for k in range(together):
            operands[k].append(f"v{view}_{k}" if form == ALONG else f"v{view}")
    lines += [f"r{k} = value({', '.join([*numbers, *operands[k]])})" for k in range(together)]
    lines.append(f"if a[{adds}] != 0:")
    lines += [f"    {names} = get_{types[0]}({at})" for at, names in pieces(0)]
    lines += [f"    r{k} = v0_{k} + r{k}" for k in range(together)]
    lines += [f"put_{types[0]}({at}, {names.replace('v0_', 'r')})" for at, names in pieces(0)]
    return _made(ptx, lines, space, make_value)


@cache
def _kernel(
    factory: Callable[..., Any],
    make: Callable[..., Any],
    types: tuple[str, ...],
    constants: tuple[Any, ...],
    n_axes: int,
    n_longs: int,
    n_floats: int,
    *more: Any,
) -> Kernel:
    """One kernel object for each specialisation."""
    n_integers = 1 + 3 * (n_axes - 1) + len(types) * (1 + n_axes) + (factory is elements) + n_longs
    specialised = (make, types, constants, n_axes, n_longs, n_floats, *(more or (False,)))
    return Kernel(make.__name__, factory, specialised, n_integers, max(1, n_floats), THREADS)


kernel, kernel_of_elements = partial(_kernel, skeleton), partial(_kernel, elements)
"""What is made by them, of their arguments behind `ptx`; a skeleton's `per_line` is False if not given."""
