"""The input domain: which first-layer rule it asks for, and the box of its bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DomainError
from ..rules import Rule, WSquare, ZBox, ZPlus
from ..rules.taylor import own_bound
from .shapes import Shape
from .tensors import Box

POINT, NARROW = 2.0**-44, 2.0**-8
"""Widths of a box against its bounds: up to the first it is a point; below the second float32's u = 2⁻²⁴ leaves x − low
no four digits."""

RULES: dict[str, Rule] = {"real": WSquare(), "nonnegative": ZPlus(), "box": ZBox()}


def broadcast_bounds(low: Any, high: Any, shape: Shape, what: str, axis: int | None) -> Box:
    """Scalars, per channel (c,) or full arrays, as two arrays of one sample's shape; its channels lie along `axis`, or
    along the first where that is unknown (None) and they may not be along the last.
    """
    bounds = []
    for key, value in (("low", low), ("high", high)):
        try:
            array = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            raise DomainError(f"{what}: {key} is {value!r:.60}, expected numbers") from None
        if array.ndim == 1 and len(array) > 1 and len(shape) > 1:
            if axis is None and len(array) == shape[0] == shape[-1]:
                first, last = (len(array), *(1,) * (len(shape) - 1)), (*(1,) * (len(shape) - 1), len(array))
                raise DomainError(
                    f"{what}: {key} has shape {array.shape}, and the network does not tell along which axis of "
                    f"{shape} its channels lie: give it as an array of shape {first} or {last}"
                )
            array = np.moveaxis(array.reshape(-1, *(1,) * (len(shape) - 1)), 0, axis or 0)
        try:
            bounds.append(np.broadcast_to(array, shape))
        except ValueError:
            raise DomainError(
                f"{what}: {key} has shape {np.shape(value)}, expected a scalar, ({shape[axis or 0]},), one per "
                f"channel, or what broadcasts to {shape}"
            ) from None
    lower, upper = bounds
    if not bool(((lower <= 0) & (upper >= 0)).all()):
        raise DomainError(
            f"{what}: expected low <= 0 <= high everywhere, got low up to {lower.max():g}, high down to {upper.min():g}"
        )
    if not np.isfinite(lower).all() or not np.isfinite(upper).all():
        raise DomainError(f"{what}: low and high must be finite")
    return lower, upper


@dataclass(frozen=True)
class Domain:
    """kind "real", "nonnegative" or "box"."""

    kind: str
    low: Any = None
    high: Any = None
    real: Any = np.float64  # the type in which a network takes x
    axis: Callable[[int], int | None] = field(default=lambda rank: None, repr=False, compare=False)
    """Of the channels among so many axes of a sample, as far as the network tells."""
    _boxes: dict[tuple[Shape, np.dtype[Any]], Box] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def parse(cls, domain: object, axis: Callable[[int], int | None]) -> Domain:
        if isinstance(domain, str):
            if domain not in ("real", "nonnegative"):
                raise DomainError(f'domain is {domain!r}, expected "real", "nonnegative" or (low, high)')
            return cls(domain)
        if isinstance(domain, (tuple, list)) and len(domain) == 2:
            low, high = domain
            if any(isinstance(v, str) or v is None for v in domain):
                raise DomainError(f"domain is {domain!r:.80}, expected two numbers or arrays (low, high)")
            return cls("box", own_bound(low, "domain"), own_bound(high, "domain"), axis=axis)
        raise DomainError(f'domain is {domain!r:.80}, expected "real", "nonnegative" or (low, high)')

    @property
    def option(self) -> Any:
        """What `parse` takes."""
        return self.kind if self.kind != "box" else (self.low, self.high)

    @property
    def rule(self) -> Rule:
        return RULES[self.kind]

    def bounds(self, shape: Shape) -> Box | None:
        """Of a box, as numbers of the type of x: a pixel on a bound equals it in every precision that follows."""
        if self.kind != "box":
            return None
        low, high = self._rounded(shape, self.real)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise DomainError(f"domain: low and high are beyond the range of {np.dtype(self.real)}, as x is taken")
        return low.astype(np.float64), high.astype(np.float64)

    def rounded(self, shape: Shape, dtype: np.dtype[Any]) -> Box:
        """The bounds of a box as x has them, so that a pixel on the bound stays inside; one number where it is the same
        everywhere.
        """
        box = self._boxes.get((shape, dtype))
        if box is None:
            low, high = self._rounded(shape, dtype)
            box = self._boxes[shape, dtype] = _narrowed(low), _narrowed(high)
        return box

    def _rounded(self, shape: Shape, dtype: Any) -> Box:
        axis = self.axis(len(shape)) if 1 in (np.ndim(self.low), np.ndim(self.high)) else None
        with np.errstate(over="ignore", under="ignore"):
            low, high = (b.astype(dtype) for b in broadcast_bounds(self.low, self.high, shape, "domain", axis))
        return low, high

    def check(self, x: NDArray[Any]) -> None:
        """Raise DomainError where x lies outside."""
        if self.kind == "nonnegative":
            flat = x.ravel("K")
            if x.size and flat.item(flat.argmin()) < 0:  # as min() says, which is slow to start
                raise DomainError(
                    f'domain is "nonnegative", but x goes down to {x.min():g}; use domain="real" or (low, high)'
                )
        elif self.kind == "box":
            low, high = self.rounded(x.shape[1:], x.dtype)
            if bool((x < low).any() or (x > high).any()):
                raise DomainError(
                    f"x spans {x.min():g} to {x.max():g} and leaves the box low={self.low!r:.40}, "
                    f"high={self.high!r:.40}"
                )


def _narrowed(bound: NDArray[Any]) -> NDArray[Any]:
    return bound.reshape(-1)[:1].copy() if (bound == bound.flat[0]).all() else bound


def single(box: Box) -> Box:
    """The bounds in float32."""
    with np.errstate(over="ignore", under="ignore"):  # beyond float32 there is no bound
        return box[0].astype(np.float32), box[1].astype(np.float32)


def widthless(box: Box) -> NDArray[np.bool_]:
    """Where a box is a point, but for the rounding of float64 on the way there: its x − low and x − high are nothing
    else.
    """
    return _relative_width(box) <= POINT


def narrow(box: Box) -> NDArray[np.bool_]:
    """Where x − low and x − high would be mostly the rounding of x to float32."""
    width = _relative_width(box)
    return (width > POINT) & (width < NARROW)


def _relative_width(box: Box) -> NDArray[np.float64]:
    """High − low against the larger bound."""
    low, high = box
    largest = np.maximum(np.abs(low), np.abs(high))
    bounded = np.isfinite(largest)
    width = np.subtract(high, low, out=np.full(largest.shape, np.inf), where=bounded)
    result: NDArray[np.float64] = np.divide(
        width, largest, out=np.where(width > 0, np.inf, 0.0), where=bounded & (largest > 0)
    )
    return result
