"""One step of a plan as the launches see it: views as addresses and byte strides, vectors, shapes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...plan.plan import Plan
from ...plan.steps import SIZES, Step, View, bound_strides
from .launch import AddressOf, Launch
from .strided import ABSENT, Strided, elements, launches


class Site:
    """One step of a plan, as the bodies see it."""

    def __init__(self, step: Step, plan: Plan, address_of: AddressOf) -> None:
        self.step, self.plan, self.address_of = step, plan, address_of

    def view(self, view: View | None, *, kept: bool = False) -> Strided:
        """A view of the plan; steps of a phase walk x by the phase's own step."""
        if view is None:
            return ABSENT
        size = SIZES[view.buffer.root.dtype]
        _, _, strides = view.layout()
        sample = 0 if view.buffer.batch == "1" else view.buffer.strides()[2]
        return Strided(self.address_of(view), tuple(size * s for s in (sample, *strides)), kept, view.buffer.root.dtype)

    def shape(self, view: View) -> tuple[int, ...]:
        """Six sizes."""
        _, shape, _ = view.layout()
        return ({"n": self.plan.n, "nt": self.plan.n * self.plan.t, "1": 1}[view.buffer.batch], *shape)

    def operand(self, view: View | None) -> Strided:
        """A view that the targets of a sample may share."""
        return self.view(view, kept=view is not None and view.buffer.batch == "n")

    def per_channel(self, vector: np.ndarray[Any, Any] | None) -> Strided:
        """Numbers per channel, or of as many axes as a sample."""
        if vector is not None and vector.ndim > 1:
            return self.constant(vector)
        return ABSENT if vector is None else Strided(self.address_of(vector), (0, 4, 0, 0, 0, 0))

    def window(self) -> Strided:
        """Per output position (d, h, w)."""
        window = self.step.window
        if window is None:
            return ABSENT
        _, h, w = window.shape
        return Strided(self.address_of(window), (0, 0, 4 * h * w, 4 * w, 4, 0))

    def constant(self, array: np.ndarray[Any, Any] | None) -> Strided:
        """Of one sample's shape, repeated along axes of size 1."""
        if array is None:
            return ABSENT
        return Strided(
            self.address_of(array), (0, *(4 * s for s in bound_strides(array, self.step.domain.buffer.shape)))
        )

    def bound(self) -> Strided:
        return self.constant(self.step.bound)

    def run(
        self, body: tuple[Any, ...], views: list[Strided], longs: tuple[int, ...] = (), floats: tuple[float, ...] = ()
    ) -> list[Launch]:
        """The body over the elements of the result."""
        return launches(body, self.shape(self.step.out), views, longs, floats, self.step.repeat)

    def elements(
        self,
        function: tuple[Any, ...],
        views: list[Strided],
        longs: tuple[int, ...] = (),
        floats: tuple[float, ...] = (),
    ) -> list[Launch]:
        """The function of elements over those of the result, which is the first view."""
        step = self.step
        return elements(function, self.shape(step.out), views, step.accumulate, longs, floats, step.repeat)


# -------------------------------------------------------------------------------------------------------- elementwise
