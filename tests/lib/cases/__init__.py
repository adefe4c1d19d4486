"""The shared list of (geometry, rule) cases: awkward shapes on purpose, random signed relevance, numbers that float32
holds exactly.

A `Case` is a geometry (cases/geometries.py) under a rule (cases/rules.py).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np

import dtdfast as dtd
import explicit
from cases.geometries import GEOMETRIES, Geometry
from cases.held import HELD
from cases.rules import RULES, RuleRow


@cache
def _network(geometry):
    return geometry.build(geometry.rng, geometry.x_shape[1:])


@dataclass(frozen=True)
class Case:
    geometry: Geometry
    row: RuleRow
    number: int  # of its geometry and of its row, added up

    @property
    def nonnegative(self):
        """Of inputs and domain; a box decides by itself."""
        return self.number % 2 == 0

    @property
    def id(self):
        return f"{self.geometry.id}-{self.row.id}" + ("" if self.row.box else "-x>=0" if self.nonnegative else "-real")

    @property
    def layers(self):
        return _network(self.geometry).layers

    @property
    def taps(self):
        return _network(self.geometry).taps

    def _box(self):
        """Low and high in the form the case asks for, and broadcast to one sample."""
        rng, sample = self.geometry.rng, self.geometry.x_shape[1:]
        shape = {"scalar": (), "channel": sample[:1], "full": sample}[self.row.box]
        low, high = (sign * rng.uniform(0.5, 2, shape).astype(np.float32) for sign in (-1, 1))
        if shape:  # along axis 1, whatever the network tells: tests/test_channels_last.py
            low, high = (a.reshape(shape + (1,) * (len(sample) - len(shape))) for a in (low, high))
        whole = tuple(np.broadcast_to(a, sample).astype(np.float64) for a in (low, high))
        return ((low, high) if shape else (float(low), float(high))), whole

    @property
    def domain(self):
        return self._box()[0] if self.row.box else "nonnegative" if self.nonnegative else "real"

    @property
    def x(self):
        """Random inputs with exact zeros among them; in a box, some on its faces."""
        x = (
            np.random.default_rng([zlib.crc32(self.id.encode()), 1])
            .standard_normal(self.geometry.x_shape)
            .astype(np.float32)
        )
        if self.row.box:
            low, high = self._box()[1]
            return np.clip(x, low, high).astype(np.float32)
        return np.where((x < 0) if self.nonnegative else (abs(x) < 0.1), np.float32(0), x)

    @property
    def r_out(self):
        """Random signed relevance on the outputs."""
        shape = (self.geometry.x_shape[0], *self.taps.out_shape)
        return np.random.default_rng([zlib.crc32(self.id.encode()), 2]).standard_normal(shape).astype(np.float32)

    def options(self, backend):
        return {"rules": self.row.rule, "domain": self.domain, "backend": backend}

    def taps_of(self, sample):
        """The matrix that one sample of x meets."""
        return self.taps

    def terms(self, sample):
        """The rule's terms for one sample of x."""
        copies = _network(self.geometry).copies
        box = [np.tile(a.ravel(), copies) for a in self._box()[1]] if self.row.box else []
        return self.row.terms(self.taps_of(sample), np.tile(sample.astype(np.float64).ravel(), copies), *box)

    def expected(self, x, r_out, tolerance):
        """The relevance of each sample and the bound on its error, by the explicit matrix."""
        copies = _network(self.geometry).copies
        results = [
            explicit.propagate(
                self.terms(sample), r.astype(np.float64).ravel(), self.row.rule.stabilizer or 0.0, tolerance
            )
            for sample, r in zip(x, r_out, strict=True)
        ]
        r_in, bound = (
            np.array(a).reshape(len(x), copies, -1).sum(1).reshape(x.shape) for a in zip(*results, strict=True)
        )
        return r_in, bound

    def tolerance(self, unit):
        """(fan-in + fan-out + c)·u: the additions behind one d and one r_in, and the c roundings of each product,
        quotient and gate.
        """
        valid = self.taps.valid
        return (valid.sum(1).max() + valid.sum(0).max() * _network(self.geometry).copies + 12) * unit


class HeldCase(Case):
    """A case whose matrix is of the sample; the rule is said of the last entry, which alone takes one."""

    def options(self, backend):
        return super().options(backend) | {"rules": {len(self.layers) - 1: self.row.rule}}

    def taps_of(self, sample):
        return _network(self.geometry).taps(sample)

    @property
    def taps(self):
        return self.taps_of(self.x[0])

    def tolerance(self, unit):
        """And the roundings of the weights: a sum over no more terms than the neuron's, exponents of differences below
        8 to which a constant is added, a root, a quotient.
        """
        added = max((abs(r.value).max() for r in self.layers if isinstance(r, dtd.Constant)), default=0)
        return super().tolerance(unit) + (self.taps.valid.sum(1).max() + 16 + added) * unit


def _every_rule(kind, geometries):
    return [
        kind(geometry, row, g + r)
        for g, geometry in enumerate(geometries)
        for r, row in enumerate(RULES)
        if geometry.has_bias or not row.on_bias
    ]


@cache
def by_oracle(case):
    """The oracle's relevance of a case, which is compared both with the explicit matrix and with the CPU's."""
    return dtd.explain(case.layers, case.x.astype(np.float64), case.r_out.astype(np.float64), **case.options("oracle"))


CASES = _every_rule(Case, GEOMETRIES)
HELD_CASES = _every_rule(HeldCase, HELD)
