"""A network on one of its linear regions: the derivative along a direction with every ReLU and pool frozen, in float64.

A network of linear layers, ReLUs and max-pools is affine on each region of its input on which every ReLU keeps its sign
and every pool its winner (Montúfar et al. 2014). Along x + t·d every pre-activation is y + t·ẏ until the first ReLU or
pool changes, so that one forward-mode derivative ẏ at x tells where that happens.

Any tensors may take the place of the input (`seeds`): what is computed before them then stays as it is at x.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers as L
from ..arrays.checks import check_input
from ..errors import LayerError, at
from ..explainer import Explainer
from ..options import alone, by_oracle
from ..oracle.executor import FORWARD, RELEVANCE, Oracle
from ..oracle.maths import canvas, derivative, gather, interior, tap_slices
from ..plan import units as U
from ..plan.network import Network
from ..plan.program import Program
from ..plan.tensors import take
from ..rules import Term

Array = NDArray[Any]
Seeds = Mapping[int, Array]  # tensor → (m, *its shape)
# output tensor of a neuron unit, and per direction the element of it whose own hinge does not count
Own = tuple[int, Array]


def program_of(layers: list[L.Layer], x: Any, options: Mapping[str, Any]) -> tuple[Program, Array]:
    """What `explain` hands relevance down, up to a final Softmax, and x as float64."""
    alone(layers, "its linear region")
    array = check_input(x, None, np.float64)
    program: Program = Explainer(layers, **by_oracle(options)).plan_for(array.shape).program
    return program, array


def network_of(layers: list[L.Layer], x: Any, options: Mapping[str, Any]) -> tuple[Network, Array]:
    """The network of `program_of`, and x as float64."""
    program, array = program_of(layers, x, options)
    return program.network, array


def forward_units(network: Network) -> list[U.Unit]:
    """Those that make values: without the twins, which stand for relevance alone."""
    return [unit for unit in network.units if not unit.twin]


def forward_sources(unit: U.Unit) -> tuple[U.Tensor, ...]:
    """What a unit computes its values from."""
    return unit.sources[:1] if isinstance(unit, U.Affine) else unit.sources


def kinks(activation: L.ReLU | L.Activation | None) -> tuple[float, ...]:
    """Where the slope of a piecewise linear activation changes."""
    if activation is None:
        return ()
    if isinstance(activation, L.ReLU):
        return (0.0,)
    return KINKS[activation.kind](activation.alpha or 0.0, activation.beta or 0.0)


KINKS: dict[str, Callable[[float, float], tuple[float, ...]]] = {  # kind → where, by alpha and beta
    "leaky_relu": lambda a, b: (0.0,),
    "prelu": lambda a, b: (0.0,),
    "clip": lambda a, b: (a, b),
    "soft_shrink": lambda a, b: (-a, a),
    "hard_sigmoid": lambda a, b: (-b / a, (1 - b) / a) if a else (),
}


PIECEWISE_LINEAR = (U.Neuron, U.Winner, U.Elementwise, U.Affine, U.Total, U.Move, U.Reshaping, U.Copy, U.Fixed)


def check_piecewise_linear(network: Network, layers: list[L.Layer]) -> None:
    """Refuse what has no linear regions, by name."""
    for unit in forward_units(network):
        where = at(unit.position, layers[unit.position])
        if isinstance(unit, U.HeldNeuron) or not isinstance(unit, PIECEWISE_LINEAR):
            raise LayerError(f"{where}: the network has no linear regions, because this layer is not piecewise linear")
        activation = getattr(unit, "activation", None)
        if isinstance(activation, L.Activation) and activation.kind not in KINKS:
            kind = activation.kind
            raise LayerError(
                f"{where}: the network has no linear regions, because {kind} is not continuous and piecewise linear"
            )


class Frozen(Oracle):
    """The oracle at n points (or one), with derivatives along m = n directions (or any number of them from one
    point).
    """

    def __init__(self, network: Network, layers: list[L.Layer], x: Array) -> None:
        check_piecewise_linear(network, layers)
        super().__init__(network, network.input, gradient=True)
        self.forward(x)

    def cells(self) -> list[Array]:
        """The pattern: per activation the linear piece that it is on, per pool the winning tap."""
        result = []
        for unit in forward_units(self.network):
            if isinstance(unit, U.Winner):
                result.append(self.winners[unit.out.index])
            elif points := kinks(getattr(unit, "activation", None)):
                y = self.pre_activation(unit)
                result.append(np.sum([y > k for k in points], axis=0))
        return result

    def pre_activation(self, unit: U.Unit) -> Array:
        return self.pre[unit.out.index] if isinstance(unit, U.Neuron) else self.values[unit.sources[0].index]

    # ---------------------------------------------------------------------------------------------------- derivatives

    def along(self, seeds: Seeds, own: Own | None = None) -> tuple[Array, Array]:
        """Per direction: t at which the pattern first changes (inf: never), and the derivative of the output (m,
        *out).
        """
        self.repeat = 1
        dot = dict(seeds)
        m = len(next(iter(seeds.values())))
        reach = np.full(m, np.inf)
        for unit in forward_units(self.network):
            if unit.out.index in seeds or not any(s.index in dot for s in forward_sources(unit)):
                continue
            dot[unit.out.index], times = TANGENT[type(unit)](self, unit, dot)
            for t in times:
                if own is not None and unit.out.index == own[0] and isinstance(unit, U.Neuron):
                    t.reshape(m, -1)[np.arange(m), own[1]] = np.inf
                reach = np.minimum(reach, t.reshape(m, -1).min(axis=1))
        output = self.network.output
        return reach, dot.get(output.index, np.zeros((m, *output.shape)))

    def at_seeds(self, seeds: Seeds) -> Frozen:
        """The same network at m other values of these tensors, everything before them as it is here (at one point)."""
        m = len(next(iter(seeds.values())))
        other = object.__new__(Frozen)
        Oracle.__init__(other, self.network, self.network.input, gradient=True)
        for mine, theirs in ((self.values, other.values), (self.pre, other.pre), (self.winners, other.winners)):
            theirs.update({k: np.broadcast_to(v, (m, *v.shape[1:])) for k, v in mine.items()})
        other.values.update(seeds)
        moved = set(seeds)
        for unit in forward_units(self.network):
            if unit.out.index not in seeds and any(s.index in moved for s in forward_sources(unit)):
                other.values[unit.out.index] = FORWARD[type(unit)](other, unit)
                moved.add(unit.out.index)
        return other

    def gradient_at(self, tensors: tuple[U.Tensor, ...], start: Array) -> list[Array]:
        """The derivative of Σ start·output by these tensors, at each point; (m, *shape) each."""
        self.repeat = 1
        r = {self.network.output.index: start}
        wanted = {t.index for t in tensors}
        for unit in reversed(forward_units(self.network)):
            if unit.out.index not in r or unit.out.index in wanted:
                continue
            for source, message in zip(
                forward_sources(unit), RELEVANCE[type(unit)](self, unit, r[unit.out.index]), strict=True
            ):
                r[source.index] = r[source.index] + message if source.index in r else message
        return [r.get(t.index, np.zeros((len(start), *t.shape))) for t in tensors]

    # --------------------------------------------------------------------------------------------------- unit by unit

    def _hinges(self, unit: U.Unit, y_dot: Array) -> tuple[Array, list[Array]]:
        """Derivative behind an activation, and when each pre-activation reaches its next kink: t = (k − y)/ẏ."""
        activation, y = getattr(unit, "activation", None), self.pre_activation(unit)
        times = []
        for k in kinks(activation):
            leaves = ((y_dot > 0) & (y <= k)) | ((y_dot < 0) & (y > k))
            times.append(np.where(leaves, (k - y) / np.where(leaves, y_dot, 1), np.inf))
        return y_dot * derivative(activation, y), times

    def _neuron_tangent(self, unit: U.Neuron, dot: Seeds) -> tuple[Array, list[Array]]:
        """ẏ = Σ_parts Σ_i ẋ_i w_ij."""
        y_dot: Any = 0.0
        for part in unit.parts:
            if part.source.index in dot:
                w, per_output = self._weight(part, Term("x", "w"), 0.0)
                x_dot = dot[part.source.index].reshape(-1, part.source.channels, *part.source.space)
                y_dot = y_dot + gather(x_dot, w, part.taps) * per_output
        return self._hinges(unit, y_dot.reshape(-1, *unit.out.shape))

    def _winner_tangent(self, unit: U.Winner, dot: Seeds) -> tuple[Array, list[Array]]:
        """The winner's derivative; a loser overtakes at t = (x_winner − x_loser) / (ẋ_loser − ẋ_winner)."""
        (source,), taps = unit.sources, unit.taps
        x, x_dot = (
            v.reshape(-1, source.channels, *source.space) for v in (self.values[source.index], dot[source.index])
        )
        size, inner = canvas(taps.x_size, taps, taps.out_size), interior(taps, taps.x_size)
        padded, padded_dot = np.full((*x.shape[:2], *size), -np.inf), np.zeros((*x_dot.shape[:2], *size))
        padded[inner], padded_dot[inner] = x, x_dot
        winner = self.winners[unit.out.index]
        best = self.values[unit.out.index].reshape(winner.shape)
        out_dot = np.zeros((len(x_dot), *winner.shape[1:]))
        for number, (_, places) in enumerate(tap_slices(taps, taps.out_size)):
            out_dot = np.where(winner == number, padded_dot[places], out_dot)
        reach = np.full(out_dot.shape, np.inf)
        for _, places in tap_slices(taps, taps.out_size):
            closing = padded_dot[places] - out_dot
            overtakes = closing > 0
            reach = np.minimum(
                reach, np.where(overtakes, (best - padded[places]) / np.where(overtakes, closing, 1), np.inf)
            )
        return out_dot.reshape(-1, *unit.out.shape), [reach]

    def _affine_tangent(self, unit: U.Affine, dot: Seeds) -> tuple[Array, list[Array]]:
        return dot[unit.sources[0].index] * unit.scale.reshape(-1, *(1,) * (len(unit.out.shape) - 1)), []

    def _total_tangent(self, unit: U.Total, dot: Seeds) -> tuple[Array, list[Array]]:
        return sum((dot[s.index] for s in unit.sources if s.index in dot), np.zeros(1)), []

    def _move_tangent(self, unit: U.Move, dot: Seeds) -> tuple[Array, list[Array]]:
        (m,) = {len(dot[s.index]) for s in unit.sources if s.index in dot}
        out = np.zeros((m, *unit.out.shape))
        for to, number, of in unit.pairs:
            if unit.sources[number].index in dot:
                take(out, to, 1)[...] = take(dot[unit.sources[number].index], of, 1)
        return out, []

    def _reshape_tangent(self, unit: U.Reshaping, dot: Seeds) -> tuple[Array, list[Array]]:
        return dot[unit.sources[0].index].reshape(-1, *unit.out.shape), []


TANGENT: dict[type[U.Unit], Callable[..., tuple[Array, list[Array]]]] = {
    U.Neuron: Frozen._neuron_tangent,
    U.Winner: Frozen._winner_tangent,
    U.Elementwise: lambda frozen, unit, dot: frozen._hinges(unit, dot[unit.sources[0].index]),
    U.Affine: Frozen._affine_tangent,
    U.Total: Frozen._total_tangent,
    U.Move: Frozen._move_tangent,
    U.Reshaping: Frozen._reshape_tangent,
    U.Copy: lambda frozen, unit, dot: (unit.apply(dot[unit.sources[0].index], 1), []),
}
