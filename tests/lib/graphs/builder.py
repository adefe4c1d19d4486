"""A network under construction: entries, shapes worked out here and not by the package, and random numbers."""

from __future__ import annotations

import math

import numpy as np

import dtdfast as dtd


class Builder:
    """A network under construction.

    Attributes
    ----------
    taylor : whether what only attention="taylor" has a rule for may be drawn
    alike : such a record was drawn
    weighs : a softmax inside, or a product of operands that are alike
    attends : products with attention weights, which take a rule where these are held
    inner : what only the records around it can read, as a softmax that is held
    """

    def __init__(self, rng, input_shape, ties=0, words=False):
        self.taylor = self.alike = self.weighs = False
        self.attends, self.inner = [], set()
        self.rng = rng
        self.first = 0 if words else dtd.INPUT  # the oldest tensor that blocks may read
        self.layers, self.shapes, self.ties = [], [], []
        self.input_shape, self.input_ties = input_shape, ties

    def shape(self, p):
        return self.input_shape if p == dtd.INPUT else self.shapes[p]

    def tied(self, p):
        return self.input_ties if p == dtd.INPUT else self.ties[p]

    def put(self, make, p, shape, ties=0, moves=False):
        """Append make(inputs=...) with output `shape`; a record that `moves` only does not add.  Returns the
        position.
        """
        sources = p if isinstance(p, tuple) else (p,)
        implicit = not sources or (sources == (len(self.layers) - 1,) and self.rng.random() < 0.5)
        self.layers.append(make(inputs=None if implicit else sources if len(sources) > 1 else sources[0]))
        self.shapes.append(tuple(int(s) for s in shape))
        inherited = max(map(self.tied, sources), default=0)
        self.ties.append(max(ties, inherited if moves or not inherited else 2))
        return len(self.layers) - 1

    def int(self, low, high):
        return int(self.rng.integers(low, high + 1))

    def ints(self, low, highs):
        return tuple(self.int(low, high) for high in highs)

    def weight(self, *shape, fan_in):
        return (self.rng.standard_normal(shape) / math.sqrt(fan_in)).astype(np.float32)

    def vector(self, n):
        return (0.3 * self.rng.standard_normal(n)).astype(np.float32)

    def bias(self, n):
        return self.vector(n) if self.rng.random() < 0.7 else None

    def positive(self, n):
        return self.rng.uniform(0.5, 1.5, n).astype(np.float32)


def bind(record, *args, **kwargs):
    return lambda inputs: record(*args, inputs=inputs, **kwargs)
