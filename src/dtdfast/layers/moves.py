"""Records that move, take, repeat or frame values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import LayerError
from ..record import Ints, Layer, Padding


@dataclass(frozen=True, eq=False)
class Flatten(Layer):
    """(n, ...) to (n, features), in row-major order.

    Parameters
    ----------
    inputs, name : optional
        As in `Layer`.
    """


@dataclass(frozen=True, eq=False)
class Reshape(Layer):
    """The elements of a sample in another shape, in row-major order.

    Parameters
    ----------
    shape : sequence of int
        The shape of one sample, without the batch axis. One size may be −1, which stands for what is left.
    inputs, name : optional
        As in `Layer`.

    Raises
    ------
    LayerError
        A size is 0, or several are −1.
    """

    shape: Sequence[int]

    def _check(self) -> None:
        self._ints("shape", -1, None)
        if not isinstance(self.shape, tuple) or 0 in self.shape or sum(s == -1 for s in self.shape) > 1:
            raise LayerError(
                f"Reshape: shape is {self.shape!r}, expected positive sizes without the batch axis, at most one -1"
            )


@dataclass(frozen=True, eq=False)
class Permute(Layer):
    """The axes in another order.

    Parameters
    ----------
    order : sequence of int
        Each axis once. The batch axis counts, and stays first.
    inputs, name : optional
        As in `Layer`.

    Raises
    ------
    LayerError
        An axis is missing or repeated, or the batch axis is not first.
    """

    order: Sequence[int]

    def _check(self) -> None:
        self._ints("order", 0, None)
        if not isinstance(self.order, tuple) or sorted(self.order) != list(range(len(self.order))):
            raise LayerError(f"Permute: order is {self.order!r}, expected each axis once")
        if self.order[0] != 0:
            raise LayerError(f"Permute: order is {self.order!r}, but axis 0 is the batch and stays first")


@dataclass(frozen=True, eq=False)
class Slice(Layer):
    """x[..., start:stop:step, ...] along one axis.

    Parameters
    ----------
    axis : int
        The axis. The batch axis counts, and is refused.
    start : int, default 0
        The first element; negative numbers count from the end.
    stop : int, optional
        The end, which is left out; by default the axis's end.
    step : int, default 1
        The step, at least 1.
    inputs, name : optional
        As in `Layer`.
    """

    axis: int
    start: int = 0
    stop: int | None = None
    step: int = 1

    def _check(self) -> None:
        self._int("axis", None)
        self._int("start", None)
        if self.stop is not None:
            self._int("stop", None)
        self._int("step", 1)


@dataclass(frozen=True, eq=False)
class Pad(Layer):
    """Elements of one value around the spatial axes.

    Parameters
    ----------
    padding : int, sequence of int or sequence of (before, after)
        The number of elements, one number, one per spatial axis, or pairs.
    value : float, default 0.0
        The value of these elements.
    inputs, name : optional
        As in `Layer`.
    """

    padding: Padding
    value: float = 0.0

    def _check(self) -> None:
        self._padding("padding", None)
        self._number("value")


@dataclass(frozen=True, eq=False)
class Upsample(Layer):
    """Nearest-neighbour upsampling by an integer factor.

    Parameters
    ----------
    factor : int or sequence of int
        The factor, one number or one per spatial axis.
    inputs, name : optional
        As in `Layer`.
    """

    factor: Ints

    def _check(self) -> None:
        self._ints("factor", 1, None)
