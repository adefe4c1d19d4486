"""The record of what a sample brings along beside the input: masks, position numbers, type numbers."""

from __future__ import annotations

import keyword
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ..errors import LayerError
from ..record import Layer


@dataclass(frozen=True, eq=False)
class Given(Layer):
    """Values of each sample beside the input, such as a padding mask or position numbers.

    It reads nothing. `explain` and all other calls take the values as a keyword of its name, for example
    ``explain(layers, ids, attention_mask=mask)``. It absorbs the relevance that reaches it, as a Constant does.

    Parameters
    ----------
    name : str
        The keyword, which is also the record's name in messages, plans and ledgers.
    shape : sequence of int
        The shape of one sample's values: without the batch axis, with at least one axis.
    integer : bool, default False
        Whether the values are integers for an Embedding. Else they are numbers; booleans count as 0 and 1.
    mask : bool, default False
        Whether the values are 0 and 1, as those of a padding mask. Others are refused.
    inputs : optional
        As in `Layer`.

    Raises
    ------
    LayerError
        The name is no keyword of Python, or a size is below 1.
    """

    name: str = field()
    shape: Sequence[int]
    integer: bool = False
    mask: bool = False
    arity: ClassVar[int | None] = 0

    def _check(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier() or keyword.iskeyword(self.name):
            raise LayerError(f"Given: name is {self.name!r:.80}, expected a keyword such as 'attention_mask'")
        self._integers("shape")
        if min(self.shape) < 1:
            raise LayerError(f"Given: shape is {self.shape!r}, expected positive sizes without the batch axis")
        self._bool("integer")
        self._bool("mask")
