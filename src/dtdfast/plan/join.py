"""Affine maps that cannot fold, under rules without the bias in the denominator: one neuron with the linear layers that
feed them.

Behind a linear layer y = Σ x w + b without an activation, a·y + s is a neuron of weights a·w: where a > 0 it shares as
the layer does, where a < 0 as the layer with −w. So such a layer's outputs have a *twin* for each sign: a tensor of its
own that carries the relevance of the readers with such a scale, made by half a neuron, whose value is the sum of what
it shares by, Σ(xw)⁺ or Σ(xw)⁻. Twins go back through Concat, Slice and the other moves as their tensors do; an average
pool's twin shares in proportion to the halves, which is what the convolution and the pool as one neuron do. To an
executor these are units like others.

A channel that comes from an activation, or from where nothing linear is found, is a linear layer of one tap: relevance
passes where a·x > 0. A layer that shares alike with w and −w (w², flat, the rules of x·w) takes all relevance as it is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..errors import RuleError
from ..rules import Row, Share, Term
from ..vocabulary import WEIGHT_MAPS, W, X
from .entries import Entry
from .network import Network
from .tensors import Tensor, take
from .units import Affine, Copy, Fixed, HeldNeuron, Move, Neuron, Reshaping, Unit, Winner

MOVES = (Move, Reshaping, Copy, Winner)
"""What hands on the values of a neuron as they are, so that their twins take the same way."""

REFLECTED = {name: row.mirror for name, row in WEIGHT_MAPS.items() if row.mirror != name and row.sign is not None}
Mask = NDArray[np.bool_]


def join(network: Network, leaves: Tensor, entries: dict[int, Entry]) -> None:
    """Let affine units hand relevance to the twins of the layers they read; relevance leaves at `leaves`, which has
    none.
    """
    joined = [u for u in network.units if isinstance(u, Affine) and u.split is not None]
    if not joined:
        return
    twins = _Twins(network, leaves)
    for unit in joined:
        # α differs by neuron: a twin sums over readers first
        if unit.falls_back and twins.linear(unit.sources[0], through=True).any():
            raise RuleError(
                f"{entries[unit.position]} is one neuron with the linear layer behind it, and for that AlphaBeta has "
                "no fallback; "
                "give both fallback=False, or this entry Pass() or ZPlus()"
            )
        twins.spread(unit, unit, 1)
    network.units[:] = [u for unit in network.units for u in (unit, *twins.after.get(unit.out.index, ()))]


def halves(row: Row) -> bool:
    """Whether a row shares otherwise with w than with −w: by products of one sign."""
    return all(term.w in REFLECTED for share in row.shares for term in share.terms)


def joins(unit: Unit | None) -> bool:
    """Whether an affine behind it is one neuron with it; its weights are the network's and not the sample's."""
    return isinstance(unit, Neuron) and not isinstance(unit, HeldNeuron)


class _Twins:
    def __init__(self, network: Network, leaves: Tensor) -> None:
        self.network, self.leaves = network, leaves
        self.maker = {u.out.index: u for u in network.units}
        self.twins: dict[tuple[int, int], Tensor] = {}
        self.after: dict[int, list[Unit]] = {}  # a unit's output → its twins
        self.known: dict[tuple[int, bool], Mask] = {}

    def spread(self, unit: Affine, into: Affine, side: int) -> None:
        """What `into`, the unit itself or its twin for readers with a scale of this sign, hands to which source."""
        source = unit.sources[0]
        joined, based = (self.linear(source, through=t).reshape(source.channels, -1).all(axis=1) for t in (False, True))
        # of several affines in a row the last one splits, and only what is one neuron with a linear layer
        split = unit.split if into is unit and unit.split is not None else (1.0, 0.0)
        alpha, beta = np.where(based, split[0], 1.0), np.where(based, split[1], 0.0)
        scale = side * np.sign(unit.scale)
        sources, whole, shares = [source], np.zeros(len(scale)), []
        apart = bool((joined == self.linear(source).reshape(source.channels, -1).any(axis=1)).all())
        for sign in (1, -1):
            share = np.where(joined, np.where(scale == sign, alpha, np.where(scale == -sign, beta, 0.0)), 0.0)
            if not share.any():
                continue
            twin = self.twin(source, sign)
            if twin is source:
                whole += share
            else:
                sources.append(twin)
                shares.append(share)
        if apart and not joined.all() and (rest := self.rest(source)) is not source:
            into.open_to = len(sources)
            sources.append(rest)
            shares.append(np.zeros(len(scale)))
        into.sources, into.shares = tuple(sources), (whole, *shares)
        into.tapped = None if joined.all() else np.where(joined, 0.0, scale)
        for tensor in sources:
            if into not in tensor.readers:
                tensor.readers.append(into)

    def rest(self, tensor: Tensor) -> Tensor:
        """The tensor that takes the relevance of the channels that nothing linear made: moves leave out those that
        something did.
        """
        unit = self.maker.get(tensor.index)
        if tensor is self.leaves or not isinstance(unit, (Move, Reshaping, Copy)) or not self.linear(tensor).any():
            return tensor
        key = tensor.index, 0
        if key not in self.twins:
            numbers = [n for n, s in enumerate(unit.sources) if not self.linear(s).all()]
            made: Unit
            if numbers:
                made = self._moved(unit, numbers, tuple(self.rest(unit.sources[n]) for n in numbers))
                if isinstance(made, Move) and isinstance(unit, Move):
                    made.fill = unit.fill  # what takes relevance as a constant
            else:  # nothing but a frame around what is linear
                made = Fixed(unit.entries, (), self.tensor(unit.out, False), value=np.zeros(1), twin=True)
                made.out.valueless = True
            self._keep(tensor, made)
            self.twins[key] = made.out
        return self.twins[key]

    def _keep(self, tensor: Tensor, made: Unit) -> None:
        self.after.setdefault(tensor.index, []).append(made)
        for source in made.sources:
            if made not in source.readers:
                source.readers.append(made)

    def linear(self, tensor: Tensor, *, through: bool = False) -> Mask:
        """Which elements a linear layer without an activation made; an affine counts as one, or `through` it what it
        reads is seen.
        """
        key = tensor.index, through
        if key not in self.known:
            self.known[key] = self._linear(tensor, through)
        return self.known[key]

    def _linear(self, tensor: Tensor, through: bool) -> Mask:
        unit, result = self.maker.get(tensor.index), np.zeros(tensor.shape, bool)
        if isinstance(unit, Move):
            for to, number, of in unit.pairs:
                take(result, to)[...] = take(self.linear(unit.sources[number], through=through), of)
        elif isinstance(unit, Reshaping):
            return self.linear(unit.sources[0], through=through).reshape(tensor.shape)
        elif isinstance(unit, Copy):
            return unit.apply(self.linear(unit.sources[0], through=through))
        elif isinstance(unit, Winner):
            mask = self.linear(unit.sources[0], through=through).reshape(tensor.channels, -1).all(axis=1)
            result[...] = mask.reshape(-1, *(1,) * (len(tensor.shape) - 1))
        elif isinstance(unit, Affine) and unit.split is not None and through:
            return self.linear(unit.sources[0], through=True)
        elif joins(unit) or (isinstance(unit, Affine) and unit.split is not None):
            result[...] = getattr(unit, "activation", None) is None
        return result

    def twin(self, tensor: Tensor, side: int) -> Tensor:
        """The tensor that takes the relevance of readers with a scale of this sign: its own where the sign does not
        matter.
        """
        unit = self.maker.get(tensor.index)
        if (
            tensor is self.leaves
            or unit is None
            or isinstance(unit, HeldNeuron)
            or (isinstance(unit, Neuron) and unit.row is not None and not halves(unit.row))
        ):
            return tensor
        key = tensor.index, side
        if key not in self.twins:
            made = self._move(unit, side) if isinstance(unit, MOVES) else self._neuron(unit, side)
            self.twins[key] = tensor if made is None else made.out
            if made is not None:
                self._keep(tensor, made)
        return self.twins[key]

    def tensor(self, of: Tensor, nonnegative: bool) -> Tensor:
        twin = Tensor(len(self.network.tensors), of.shape, of.position, nonnegative=nonnegative)
        self.network.tensors.append(twin)
        return twin

    def _neuron(self, unit: Unit, side: int) -> Unit:
        if isinstance(unit, Affine):
            made = Affine(unit.entries, unit.sources, unit.out, scale=unit.scale, shift=unit.shift, twin=True)
            self.spread(unit, made, side)
            made.out = self.tensor(unit.out, False)
            made.out.valueless = True
            return made
        assert isinstance(unit, Neuron)
        assert unit.row is not None
        share, parts = unit.row.shares[0], [replace(part, terms=()) for part in unit.parts]
        pooled = (
            len(parts) == 1 and (parts[0].weight is None or parts[0].nonnegative) and self.linear(parts[0].source).all()
        )
        if pooled and self.pure(source := self.twin(parts[0].source, side)):
            self.value(source)
            parts[0].source, half = source, Share((Term(X, W),))
        elif side > 0:
            half = Share(share.terms, bias=share.bias)
        else:
            half = Share(
                tuple(Term(t.x, REFLECTED[t.w]) for t in share.terms), bias=REFLECTED.get(share.bias or "", share.bias)
            )
        row = Row(f"{unit.row.label}, scale {'>' if side > 0 else '<'} 0", (half,), unit.row.stabilizer)
        out = self.tensor(unit.out, side > 0)
        return Neuron(
            unit.entries,
            tuple(p.source for p in parts),
            out,
            parts=parts,
            bias=unit.bias,
            row=row,
            half=True,
            twin=True,
        )

    def _move(self, unit: Move | Reshaping | Copy | Winner, side: int) -> Unit | None:
        """The same move of the twins; pieces that nothing linear made take no relevance this way."""
        numbers = [n for n, s in enumerate(unit.sources) if self.linear(s).any()]
        sources = tuple(self.twin(unit.sources[n], side) for n in numbers)
        if len(sources) == len(unit.sources) and all(a is b for a, b in zip(sources, unit.sources, strict=True)):
            return None
        return self._moved(unit, numbers, sources)

    def _moved(self, unit: Move | Reshaping | Copy | Winner, numbers: list[int], sources: tuple[Tensor, ...]) -> Unit:
        out = self.tensor(unit.out, all(s.nonnegative for s in sources))
        out.valueless = True
        if isinstance(unit, Reshaping):
            return Reshaping(unit.entries, sources, out, twin=True)
        if isinstance(unit, Winner):
            return Winner(unit.entries, sources, out, taps=unit.taps, beside=unit.beside or unit.out, twin=True)
        if isinstance(unit, Copy):
            return replace(unit, sources=sources, out=out, part=replace(unit.part, source=sources[0]), twin=True)
        pairs = [(to, numbers.index(n), of) for to, n, of in unit.pairs if n in numbers]
        return Move(unit.entries, sources, out, pairs=pairs, twin=True)

    def _maker(self, twin: Tensor) -> Unit | None:
        return next((u for units in self.after.values() for u in units if u.out is twin), None)

    def pure(self, twin: Tensor) -> bool:
        """Whether a twin has a value: moved from half neurons alone."""
        unit = self._maker(twin)
        return isinstance(unit, Neuron) or (
            isinstance(unit, (Move, Reshaping, Copy)) and all(map(self.pure, unit.sources))
        )

    def value(self, twin: Tensor) -> None:
        """A pool reads it."""
        unit = self._maker(twin)
        twin.valueless = False
        if isinstance(unit, (Move, Reshaping, Copy)):
            for source in unit.sources:
                self.value(source)
