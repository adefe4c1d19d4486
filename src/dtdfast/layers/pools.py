"""Records of pools."""

from __future__ import annotations

from dataclasses import dataclass

from ..record import Ints, Layer, Padding


@dataclass(frozen=True, eq=False)
class _Pool(Layer):
    kernel: Ints
    stride: Ints | None = None
    padding: Padding = 0

    def _check(self) -> None:
        self._ints("kernel", 1, None)
        if self.stride is None:
            self._set("stride", self.kernel)
        n = next((len(v) for v in (self.kernel, self.stride) if isinstance(v, tuple)), None)
        self._ints("kernel", 1, n)
        self._ints("stride", 1, n)
        self._padding("padding", n)


@dataclass(frozen=True, eq=False)
class MaxPool(_Pool):
    """The maximum of each window.

    All relevance goes to the largest element, the first in row-major order if several are equal.

    Parameters
    ----------
    kernel : int or sequence of int
        The window's size, one number or one per spatial axis.
    stride : int or sequence of int, optional
        The step between windows; by default `kernel`.
    padding : int, sequence of int or sequence of (before, after), default 0
        The elements of −∞ around the input, one number, one per spatial axis, or pairs.
    dilation : int or sequence of int, default 1
        The distance between the elements of a window.
    ceil_mode : bool, default False
        Whether the last window may reach beyond the padded input. A window that would start beyond the input plus its
        left padding is left out.
    inputs, name : optional
        As in `Layer`.
    """

    dilation: Ints = 1
    ceil_mode: bool = False

    def _check(self) -> None:
        super()._check()
        self._ints("dilation", 1, len(self.kernel) if isinstance(self.kernel, tuple) else None)
        self._bool("ceil_mode")


@dataclass(frozen=True, eq=False)
class AvgPool(_Pool):
    """The mean of each window.

    Parameters
    ----------
    kernel : int or sequence of int
        The window's size, one number or one per spatial axis.
    stride : int or sequence of int, optional
        The step between windows; by default `kernel`.
    padding : int, sequence of int or sequence of (before, after), default 0
        The zeros around the input, one number, one per spatial axis, or pairs.
    ceil_mode : bool, default False
        Whether the last window may reach beyond the padded input. A window that would start beyond the input plus its
        left padding is left out.
    count_include_pad : bool, default True
        Whether the mean is over the padded window; else it is over the elements of the input in it.
    inputs, name : optional
        As in `Layer`.
    """

    ceil_mode: bool = False
    count_include_pad: bool = True

    def _check(self) -> None:
        super()._check()
        self._bool("ceil_mode")
        self._bool("count_include_pad")


@dataclass(frozen=True, eq=False)
class SumPool(_Pool):
    """The sum of each window.

    Parameters
    ----------
    kernel : int or sequence of int
        The window's size, one number or one per spatial axis.
    stride : int or sequence of int, optional
        The step between windows; by default `kernel`.
    padding : int, sequence of int or sequence of (before, after), default 0
        The zeros around the input, one number, one per spatial axis, or pairs.
    ceil_mode : bool, default False
        Whether the last window may reach beyond the padded input. A window that would start beyond the input plus its
        left padding is left out.
    inputs, name : optional
        As in `Layer`.
    """

    ceil_mode: bool = False

    def _check(self) -> None:
        super()._check()
        self._bool("ceil_mode")


@dataclass(frozen=True, eq=False)
class GlobalAvgPool(Layer):
    """The mean over all spatial axes, which stay as axes of size 1.

    Parameters
    ----------
    inputs, name : optional
        As in `Layer`.
    """
