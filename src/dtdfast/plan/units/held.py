"""Neurons whose weights are numbers of the sample, held constant; norm.py and matmul.py say which."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from ..held import Held
from ..lowering import Lowering
from ..steps import Buffer
from . import neuron_steps
from .base import Balance
from .neuron import Neuron


class HeldNeuron(Neuron):
    """A neuron of one operand; nothing fuses with it, and its activation is None."""

    fuses = False

    @property
    def part(self) -> Held:
        (part,) = self.parts
        assert isinstance(part, Held)
        return part

    @abstractmethod
    def place(self, lowering: Lowering) -> Buffer:
        """A buffer for y."""

    @abstractmethod
    def value(self, lowering: Lowering, out: Buffer) -> None:
        """Emit the steps of y."""

    @abstractmethod
    def derivative(self, lowering: Lowering, r: Buffer) -> None:
        """Emit the steps of the gradient, for which nothing is held."""

    def forward(self, lowering: Lowering) -> None:
        out = self.place(lowering)
        self.value(lowering, out)
        if not lowering.relevant or lowering.gradient or self.out is lowering.leaves or not self.in_relevance:
            return
        row, kind = self.row, "gate" if self.out.form == "c" else "denominator"
        assert row is not None
        if neuron_steps.is_open(self):
            lowering.factors[self.out.index] = [(out, "open" if kind == "gate" else kind)]
        elif neuron_steps.is_paired(self):
            neuron_steps.paired(lowering, self, out, kind)
        elif row.by_sign:
            neuron_steps.by_sign(lowering, self, out)
        else:
            neuron_steps.general(lowering, self, out, kind)

    def relevance(self, lowering: Lowering, r: Buffer) -> None:
        if lowering.gradient:
            self.derivative(lowering, r)
        else:
            neuron_steps.relevance(lowering, self, r)

    def balance(self) -> Balance:
        assert self.row is not None
        terms = max(len(t) for t in self.part.terms)
        fans: Any = self.part.fan_in * terms + self.part.fan_out
        return Balance(self.row.label, fans + 16.0)
