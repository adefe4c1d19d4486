"""Random programs of PyTorch on a batch: moves of axes, the batch's among them, views that merge it with others, and
linear, piecewise linear and joining operations between.

A draw appends one operation where it applies.  Shapes are worked out here; the batch is a factor of some axis, and
comes first again at the end.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

BATCH = 0  # stands for the number of samples among the factors of an axis
SIZES = (1, 2, 3, 4, 6)
MOST_ELEMENTS, MOST_AXES = 2000, 5


class Program(torch.nn.Module):
    """Attributes: sample, the shape of one; steps, (text, function) one after the other."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.sample = [self.rng.choice(SIZES) for _ in range(self.rng.randint(1, 3))]
        self.axes: list[tuple[int, ...]] = [(BATCH,), *((s,) for s in self.sample)]
        self.steps: list[tuple[str, Callable[[Tensor], Tensor]]] = []
        self.put("1.5x", lambda x: 1.5 * x, self.axes)
        for _ in range(self.rng.choice((3, 6, 10))):
            self.rng.choice(DRAWS)(self)
        self.finish()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        for _, function in self.steps:
            x = function(x)
        return x

    def __repr__(self) -> str:
        return f"{self.sample}: {', '.join(text for text, _ in self.steps)}"

    # ------------------------------------------------------------------------------------------- what the draws use

    def put(self, text: str, function: Callable[[Tensor], Tensor], axes: list[tuple[int, ...]]) -> None:
        small = math.prod(s or 1 for axis in axes for s in axis) <= MOST_ELEMENTS
        if small and len(axes) <= MOST_AXES:
            self.steps.append((text, function))
            self.axes = axes

    def replaced(self, i: int, *axes: tuple[int, ...]) -> list[tuple[int, ...]]:
        return [*self.axes[:i], *axes, *self.axes[i + 1 :]]

    def free(self) -> list[int]:
        """Axes without the batch, with something in them."""
        return [i for i, axis in enumerate(self.axes) if BATCH not in axis]

    def size(self, i: int) -> int:
        return math.prod(self.axes[i])

    def either(self, i: int) -> int:
        """An axis counted from the front or the back."""
        return i if self.rng.random() < 0.5 else i - len(self.axes)

    def constant(self, *shape: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.rng.randrange(2**31))
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def finish(self) -> None:
        """The batch first and alone."""
        (i,) = (i for i, axis in enumerate(self.axes) if BATCH in axis)
        at = self.axes[i].index(BATCH)
        sizes = (math.prod(self.axes[i][:at]), -1, math.prod(self.axes[i][at + 1 :]))
        self.steps.append(("batch first", lambda x: x.unflatten(i, sizes).movedim(i + 1, 0).flatten(1)))


# ------------------------------------------------------------------------------------------------------- moves, views


def permute(p: Program) -> None:
    order = p.rng.sample(range(len(p.axes)), len(p.axes))
    given = [p.either(i) for i in order]
    p.put(f"permute{given}", lambda x: x.permute(given), [p.axes[i] for i in order])


def transpose(p: Program) -> None:
    if len(p.axes) > 1:
        i, j = p.rng.sample(range(len(p.axes)), 2)
        axes, given = list(p.axes), (p.either(i), p.either(j))
        axes[i], axes[j] = axes[j], axes[i]
        p.put(f"transpose{given}", lambda x: x.transpose(*given), axes)


def merge(p: Program) -> None:
    if len(p.axes) > 1:
        i = p.rng.randrange(len(p.axes) - 1)
        j = min(len(p.axes) - 1, i + p.rng.choice((1, 1, 2)))
        merged = tuple(s for axis in p.axes[i : j + 1] for s in axis)
        p.put(f"flatten({i}, {j})", lambda x: x.flatten(i, j), [*p.axes[:i], merged, *p.axes[j + 1 :]])


def split(p: Program) -> None:
    """What was merged, or any size that divides."""
    merged = [i for i, axis in enumerate(p.axes) if len(axis) > 1]
    if merged:
        i = p.rng.choice(merged)
        at = p.rng.randrange(1, len(p.axes[i]))
        left, right = p.axes[i][:at], p.axes[i][at:]
    else:
        even = [i for i in p.free() if p.size(i) % 2 == 0]
        if not even:
            return
        i = p.rng.choice(even)
        left, right = (2,), (p.size(i) // 2,)
    sizes = (-1, math.prod(right)) if BATCH in left else (math.prod(left), -1)
    p.put(f"unflatten({i}, {sizes})", lambda x: x.unflatten(i, sizes), p.replaced(i, left, right))


def unsqueeze(p: Program) -> None:
    i = p.rng.randrange(len(p.axes) + 1)
    p.put(f"unsqueeze({i})", lambda x: x.unsqueeze(i), [*p.axes[:i], (1,), *p.axes[i:]])


def squeeze(p: Program) -> None:
    if (single := [i for i in p.free() if p.size(i) == 1]) and len(p.axes) > 2:
        i = p.rng.choice(single)
        given = p.either(i)
        p.put(f"squeeze({given})", lambda x: x.squeeze(given), p.replaced(i))


# ------------------------------------------------------------------------------------------------------------ products


def linear(p: Program) -> None:
    if BATCH not in p.axes[-1]:
        n_out = p.rng.choice(SIZES)
        weight, bias = p.constant(n_out, p.size(-1)), p.constant(n_out)
        forms: dict[str, Callable[[Tensor], Tensor]] = {
            "linear": lambda x: F.linear(x, weight, bias),
            "@": lambda x: x @ weight.t(),
            "einsum": lambda x: torch.einsum("...i,oi->...o", x, weight),
            "tensordot": lambda x: torch.tensordot(x, weight, dims=([-1], [1])),
        }
        form = p.rng.choice(list(forms))
        p.put(f"{form} to {n_out}", forms[form], [*p.axes[:-1], (n_out,)])


def left_product(p: Program) -> None:
    if len(p.axes) > 1 and BATCH not in p.axes[-2]:
        weight = p.constant(p.rng.choice(SIZES), p.size(-2))
        axes = [*p.axes[:-2], (len(weight),), p.axes[-1]]
        p.put(f"{tuple(weight.shape)} @", lambda x: weight @ x, axes)


def convolution(p: Program) -> None:
    if len(p.axes) == 3 and BATCH in p.axes[0]:
        n_out, taps = p.rng.choice((1, 2, 4)), p.rng.choice((1, 2, 3))
        weight = p.constant(n_out, p.size(1), taps)
        length = p.size(2) + 3 - taps
        if length > 0:
            axes = [p.axes[0], (n_out,), (length,)]
            p.put(f"conv1d to {n_out} by {taps}", lambda x: F.conv1d(x, weight, padding=1), axes)


def arithmetic(p: Program) -> None:
    """With a constant that broadcasts."""
    n = p.rng.randint(0, len(p.axes))
    last = p.axes[len(p.axes) - n :]
    c = p.constant(*(1 if BATCH in a or p.rng.random() < 0.3 else math.prod(a) for a in last))
    forms: dict[str, Callable[[Tensor], Tensor]] = {
        "·": lambda x: x * c,
        "+": lambda x: x + c,
        "−": lambda x: c - x,
        "where": lambda x: torch.where(c > 0, x, 2 * x),
    }
    form = p.rng.choice(list(forms))
    p.put(f"{form} {tuple(c.shape)}", forms[form], p.axes)


# ------------------------------------------------------------------------------------------------- along a single axis


def along(p: Program) -> None:
    """What keeps an axis, or makes it another."""
    if not p.free():
        return
    i = p.rng.choice(p.free())
    given, size, at = p.either(i), p.size(i), (slice(None),) * i
    places = [p.rng.randrange(-size, size) for _ in range(p.rng.choice((1, 2, 4)))]
    start = p.rng.randrange(size)
    step = p.rng.choice((1, 1, 2))
    forms: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
        "flip": (lambda x: x.flip(given), size),
        "roll": (lambda x: x.roll(start, given), size),
        "cumsum": (lambda x: x.cumsum(given), size),
        "cat": (lambda x: torch.cat([x, x.relu()], given), 2 * size),
        "repeat": (lambda x: x.repeat(*(2 if a == i else 1 for a in range(x.ndim))), 2 * size),
        "repeat_interleave": (lambda x: x.repeat_interleave(2, i), 2 * size),
        f"[{start}::{step}]": (lambda x: x[(*at, slice(start, None, step))], len(range(start, size, step))),
        f"{places}": (lambda x: x[(*at, torch.tensor(places))], len(places)),
        "chunk": (lambda x: sum(c.relu() for c in x.chunk(2, given)), size // 2),
        "expand": (lambda x: x.expand(*(3 if a == i else -1 for a in range(x.ndim))), 3),
    }  # fmt: skip
    allowed = {"chunk": size % 2 == 0, "expand": size == 1}
    form = p.rng.choice([f for f in forms if allowed.get(f, True)])
    p.put(f"{form} along {given}", forms[form][0], p.replaced(i, (forms[form][1],)))


def reduction(p: Program) -> None:
    """What takes an axis away."""
    if p.free() and len(p.axes) > 2:
        i = p.rng.choice(p.free())
        given, number = p.either(i), p.rng.randrange(p.size(i))
        forms: dict[str, Callable[[Tensor], Tensor]] = {
            "select": lambda x: x.select(given, number),
            "unbind": lambda x: x.unbind(given)[number],
            "mean": lambda x: x.mean(given),
            "sum": lambda x: x.sum(given),
            "amax": lambda x: x.amax(given),
        }
        form = p.rng.choice(list(forms))
        p.put(f"{form} of {given}", forms[form], p.replaced(i))


def stack(p: Program) -> None:
    i = p.rng.randrange(len(p.axes) + 1)
    p.put(f"stack({i})", lambda x: torch.stack([x, 2 * x.relu()], i), [*p.axes[:i], (2,), *p.axes[i:]])


def pad(p: Program) -> None:
    if BATCH not in p.axes[-1] and p.size(-1) > 1:
        before, after = p.rng.randint(-1, 2), p.rng.randint(0, 2)
        axes = [*p.axes[:-1], (p.size(-1) + before + after,)]
        p.put(f"pad({before}, {after})", lambda x: F.pad(x, (before, after), value=1.5), axes)


def pool(p: Program) -> None:
    if len(p.axes) == 3 and BATCH in p.axes[0] and p.size(2) > 1:
        form = p.rng.choice((F.max_pool1d, F.avg_pool1d))
        p.put(form.__name__, lambda x: form(x, 2), [*p.axes[:2], (p.size(2) // 2,)])


def relu(p: Program) -> None:
    p.put("relu", lambda x: x.relu(), p.axes)


DRAWS: list[Callable[[Program], None]] = [
    permute, transpose, merge, split, unsqueeze, squeeze, linear, linear, left_product, convolution, arithmetic,
    arithmetic, along, along, along, reduction, stack, pad, pool, relu, relu,
]  # fmt: skip
