"""What every kind of unit says of itself; a kind that leaves something out is refused when its class is made."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...layers import Layer
from ..account import Line
from ..builder import Builder
from ..entries import Entry
from ..lowering import Lowering
from ..shapes import Shape
from ..steps import Buffer, Reals, View
from ..tensors import Box, Lost, Node, Tensor

Vector = NDArray[np.float64]


def always(record: Layer) -> bool:
    return True


def never(record: Layer) -> bool:
    return False


class Recipe(NamedTuple):
    """How units are made from one kind of record."""

    shape: Callable[..., Shape]  # (record, *shapes): of one sample of its output; ShapeError where they do not fit
    # (builder, entry, sources): puts units, returns the entry's output
    make: Callable[[Builder, Entry, tuple[Tensor, ...]], Tensor]
    shares: Callable[[Any], bool] = never  # whether it is a layer of neurons, which shares by a rule


class Balance(NamedTuple):
    """A unit's line in the ledger."""

    rule: str
    rounding: float  # errors in units of u times the relevance that passes
    lost: tuple[Lost, ...] = ()


Summand = tuple[View, View | Reals | None, str]  # (x, m, multiplier): Σ multiplier(m)·x
Summands = dict[str, list[Summand]]  # by the fields of Handed


class Unit(Node):
    """Base of the kinds."""

    taylor = False  # whether it hands on relevance by a Taylor rule of its own, which divides by its values

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        missing = [
            name
            for name in MEMBERS
            if getattr(getattr(cls, name, None), "__isabstractmethod__", not hasattr(cls, name))
        ]
        if missing:
            raise NotImplementedError(f"the unit {cls.__name__} does not say its {', '.join(missing)}")

    @abstractmethod
    def sign(self) -> bool:
        """Whether outputs are known to be ≥ 0, given what is known of the sources."""

    @abstractmethod
    def box(self, given: list[Box]) -> Box | None:
        """The box behind it, of its sources' and in their type (unbounded ones are −∞, ∞); None: it is no data flow."""

    @abstractmethod
    def refusal(self, *, gradient: bool) -> str:
        """Why no relevance passes it; "" where it does."""

    @abstractmethod
    def forward(self, lowering: Lowering) -> None:
        """Emit the steps of its values."""

    @abstractmethod
    def relevance(self, lowering: Lowering, r: Buffer) -> None:
        """Emit the steps that hand on relevance r."""

    @abstractmethod
    def balance(self) -> Balance:
        """What it absorbs of its output's relevance, and how it rounds."""

    def handed(self, lowering: Lowering, r: Buffer) -> Summands:
        """Emit what a ledger sums of relevance r, where `balance` asks for what is handed on."""
        return {}

    def account(self, lowering: Lowering, r: Buffer, line: Line) -> None:
        """Emit what a ledger sums of relevance r beside that, before the steps that hand it on."""

    def around(self, lowering: Lowering, r: Buffer, line: Line) -> None:
        """The same behind them."""

    def weigh(self, lowering: Lowering, r: Buffer) -> None:
        """Emit what the relevance of its weights sums of relevance r, behind the steps that hand it on."""

    def forward_twin(self, lowering: Lowering) -> None:
        """Emit what the relevance reads of a twin without a value."""


MEMBERS = ("transparent", "sign", "box", "form", "refusal", "forward", "relevance", "balance")


def passes(rounding: float = 4.0, *lost: Lost) -> Balance:
    """Relevance goes on as it came, but for what is lost."""
    return Balance("pass", rounding, lost)


def same_shape(record: Layer, shape: Shape) -> Shape:
    return shape


def made(unit: type[Unit]) -> Callable[[Builder, Entry, tuple[Tensor, ...]], Tensor]:
    """A record that becomes one unit without fields."""
    return lambda builder, entry, sources: builder.put(unit((entry.position,), sources, builder.tensor(entry)))


def full_column(shape: Shape) -> tuple[int, ...]:
    """Of numbers per channel that meet a sample of this shape."""
    return (-1, *(1,) * (len(shape) - 1))
