"""Records that combine several operands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..record import Layer


@dataclass(frozen=True, eq=False)
class Add(Layer):
    """The sum of its operands.

    Operands of one rank broadcast as in NumPy (sizes of 1); a Constant of lower rank is aligned at the right. An Add is
    one neuron with the linear layers before it that only it reads.

    Parameters
    ----------
    inputs, name : optional
        As in `Layer`.
    """

    arity: ClassVar[int | None] = None


@dataclass(frozen=True, eq=False)
class Mul(Layer):
    """The product of two operands, which broadcast as those of `Add`.

    The operands are a signal and a gate that a sigmoid made, or any operand and a Constant. A signal takes all
    relevance, and its gate none; with a Constant it is a `Scale`.

    Parameters
    ----------
    inputs, name : optional
        As in `Layer`.
    """

    arity: ClassVar[int | None] = 2


@dataclass(frozen=True, eq=False)
class Concat(Layer):
    """The operands one after the other along an axis.

    Parameters
    ----------
    axis : int, default 1
        The axis. The batch axis counts, and is refused.
    inputs, name : optional
        As in `Layer`.
    """

    axis: int = 1
    arity: ClassVar[int | None] = None

    def _check(self) -> None:
        self._int("axis", None)
