"""The oracle's relevance of weights: every message n_ij s_j, added up over positions and samples in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..plan import units as U
from ..plan.taps import Taps
from ..plan.weights import OfWeights
from .maths import INPUT_MAPS, WEIGHT_MAPS, canvas, interior, tap_slices

Array = NDArray[Any]


class Weights:
    """Sums of messages, by unit and operand (−1: its bias).

    Parameters
    ----------
    positions : of the entries whose weights are asked for
    """

    def __init__(self, positions: frozenset[int]) -> None:
        self.positions = positions
        self._found: dict[tuple[int, int], OfWeights] = {}

    def found(self) -> list[OfWeights]:
        return list(self._found.values())

    def add(self, oracle: Any, unit: U.Neuron, r: Array) -> None:
        """Those of a batch, where some of the unit's weights are asked for; r is relevance on its output."""
        row, parts = unit.row, unit.parts
        if row is None or not any(part.weight is not None and part.position in self.positions for part in parts):
            return
        for number, s in enumerate(oracle.shared(unit, row, r)):
            for place, part in enumerate(parts):
                shape = (part.taps.c_out, part.taps.c_in // part.taps.groups, part.taps.n_taps)
                weight = np.ones(shape) if part.weight is None else np.asarray(part.weight, np.float64).reshape(shape)
                for term in part.terms[number]:
                    x = INPUT_MAPS[term.x](oracle.x(part.source), part.box)
                    x = x.reshape(-1, part.source.channels, *part.source.space)
                    n = WEIGHT_MAPS[term.w](weight, row.gamma)
                    self._put(unit, place, n * pairs(x, np.broadcast_to(s, (len(x), *s.shape[1:])), part.taps))
            share = row.shares[number]
            if unit.bias is not None and share.bias is not None:
                bias = WEIGHT_MAPS[share.bias](np.asarray(unit.bias, np.float64), row.gamma)
                self._put(unit, -1, (bias * s.sum(axis=(0, 2, 3, 4)))[:, None, None])

    def _put(self, unit: U.Neuron, place: int, messages: Array) -> None:
        key, part = (unit.out.index, place), None if place < 0 else unit.parts[place]
        before = self._found[key].relevance if key in self._found else 0.0
        self._found[key] = OfWeights(unit, part, before + messages)


def pairs(x: Array, s: Array, taps: Taps) -> Array:
    """Σ_(n, p) x_i s_j over the pairs of positions that a tap joins: (outputs, inputs of a group, taps)."""
    n, groups = len(x), taps.groups
    result = np.zeros((taps.c_out, taps.c_in // groups, taps.n_taps))
    there, here = (s, x) if taps.transposed else (x, s)  # what is padded, and what is read whole
    padded = np.zeros((n, there.shape[1], *canvas(there.shape[2:], taps, here.shape[2:])))
    padded[interior(taps, there.shape[2:])] = there
    for k, (_, places) in enumerate(tap_slices(taps, here.shape[2:])):
        at = padded[places]
        ins, outs = (here, at) if taps.transposed else (at, here)
        ins = ins.reshape(n, groups, -1, *ins.shape[2:])
        outs = outs.reshape(n, groups, -1, *outs.shape[2:])
        result[:, :, k] = np.einsum("ngidhw,ngjdhw->gji", ins, outs).reshape(result.shape[:2])
    return result
