"""Records that combine several operands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import LayerError
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

    With a Constant it is a `Scale`. Of two computed operands one is the signal, which takes all relevance, and the
    other the gate, which takes none: the operand that a sigmoid or a softmax made, else the one that an activation
    other than ReLU made where the other is linear. A square hands all to its operand. Under ``attention="taylor"`` each
    takes half.

    Parameters
    ----------
    share : float, optional
        The part of the relevance that the first operand takes, from 0 to 1, whatever the operands are; by default
        as above.
    inputs, name : optional
        As in `Layer`.

    Raises
    ------
    LayerError
        The share is not from 0 to 1.
    """

    share: float | None = None
    arity: ClassVar[int | None] = 2

    def _check(self) -> None:
        if self.share is None:
            return
        self._number("share")
        if not 0 <= self.share <= 1:
            raise LayerError(f"Mul: share is {self.share}, expected a number from 0 to 1")


@dataclass(frozen=True, eq=False)
class MatMul(Layer):
    """The matrix product of two computed operands over their last two axes, scale·A B; the axes before broadcast.

    Relevance takes the operand that a Softmax made for constants of the sample, so that the product is a linear layer
    of the other, which shares by its rule. The option `attention` of `explain` changes that. A product with a Constant
    is a `Linear`.

    Parameters
    ----------
    transpose_a, transpose_b : bool, default False
        Whether the last two axes of the first and of the second operand are exchanged.
    scale : float, default 1.0
        A factor of the product.
    inputs, name : optional
        As in `Layer`.

    Raises
    ------
    LayerError
        The scale is 0 or not finite.
    """

    transpose_a: bool = False
    transpose_b: bool = False
    scale: float = 1.0
    arity: ClassVar[int | None] = 2

    def _check(self) -> None:
        self._bool("transpose_a")
        self._bool("transpose_b")
        self._number("scale")
        if self.scale == 0:
            raise LayerError("MatMul: scale is 0, expected another number")


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
