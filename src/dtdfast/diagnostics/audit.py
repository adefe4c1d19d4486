"""Whether the Taylor expansion at the root points means anything for the network.

Its terms speak for the network only if the root lies in the linear region of x: elsewhere the network is another affine
function. Sixt & Landgraf (arXiv:2211.08425) showed that it usually does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import LayerError, at
from ..layers import Layer
from ..layout import domain_of
from ..models import opened
from ..options import Options, at_least_one, seeded, split
from ..oracle.executor import Oracle
from ..plan import units as U
from ..plan.domain import Domain
from ..plan.program import Program
from ..presets import clips
from ..results import Chart, number, percent
from ..targets import Entry, Targets, rows_of
from ..verdicts import ROOTS
from .piecewise import Frozen, program_of
from .roots import NeuronLayer, find_layer

Array = NDArray[Any]
ELEMENTS = 2**26  # float64 values held for one batch of roots, half a gigabyte
CLOSURE = 1e-9  # t* ≥ 1 up to float64's rounding of y and ẏ


@dataclass
class RootAudit(Chart):
    """What was found about the root points of one layer, as arrays of shape (roots,).

    Attributes
    ----------
    sample, neuron : ndarray of int
        Which root; `neuron` is a flat index into one sample of the layer's output.
    relevance : ndarray
        R_j.
    reach : ndarray
        t* of the way from x (t = 0) to the root (t = 1), the neuron's own kink not counted.
    in_domain : ndarray of bool
        Whether the root is a valid input.
    output : ndarray
        f(x̃) / f(x) of the explained output.
    gradient_change : ndarray
        ‖∇f(x̃) − ∇f(x)‖ / ‖∇f(x)‖, with respect to what the layer reads.
    of_roots : ndarray
        How much each root counts in the share of roots; sums to 1.
    of_relevance : ndarray
        How much each root counts in the share of relevance. What is missing to 1 lies on neurons that are off, to which
        some rules (w², flat) give relevance.
    n_samples : int
        The number of samples.
    title : str
        The layer and its rule.
    """

    sample: NDArray[np.intp]
    neuron: NDArray[np.intp]
    relevance: NDArray[np.float64]
    reach: NDArray[np.float64]
    in_domain: NDArray[np.bool_]
    output: NDArray[np.float64]
    gradient_change: NDArray[np.float64]
    of_roots: NDArray[np.float64]
    of_relevance: NDArray[np.float64]
    n_samples: int
    title: str

    header = ("root points", "roots", "relevance")

    @property
    def in_region(self) -> NDArray[np.bool_]:
        """Whether each root lies in the closure of the linear region of x."""
        return self.reach >= 1 - CLOSURE

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Whether each root lies in the closed region and in the domain."""
        return self.in_region & self.in_domain

    @property
    def share_of_roots(self) -> float:
        """Of the layer's neurons with relevance, the share whose root lies in the closed region and in the domain."""
        return float(self.of_roots @ self.valid)

    @property
    def share_of_relevance(self) -> float:
        """The share of the layer's absolute relevance on neurons whose root lies in the closed region and the domain.

        Neurons that are off have no root, whatever relevance they hold.
        """
        return float(self.of_relevance @ self.valid)

    @property
    def samples_all_valid(self) -> float:
        """The share of samples of which no audited root is invalid."""
        bad = np.bincount(self.sample, ~self.valid, self.n_samples)
        return float((bad[np.unique(self.sample)] == 0).mean())

    def rows(self) -> list[tuple[str, ...]]:
        shares = [
            ("in the region and the domain", self.valid),
            ("in the region", self.in_region),
            ("in the domain", self.in_domain),
        ]
        rows: list[tuple[str, ...]] = [
            (k, percent(float(self.of_roots @ v)), percent(float(self.of_relevance @ v))) for k, v in shares
        ]
        inside = f"{np.median(self.reach):.2g}" if np.isfinite(np.median(self.reach)) else "never left"
        if (off := 1 - self.of_relevance.sum()) > 1e-6:
            rows.append(("on neurons that are off", "", percent(off)))
        rows.append(("median t* (the root is at 1)", inside, ""))
        rows.append(("median f(root) / f(x)", number(float(np.median(self.output))), ""))
        rows.append(("median change of the gradient there", percent(float(np.median(self.gradient_change))), ""))
        return rows

    @property
    def reading(self) -> str:
        share = percent(self.share_of_relevance)
        audited = (
            f"{len(self.reach)} roots of {self.title} in {self.n_samples} input{'s' if self.n_samples > 1 else ''}"
        )
        if ROOTS.band(self.share_of_relevance):
            return f"{share} of the relevance rests on valid root points ({audited}): here the Taylor argument holds."
        return (
            f"Only {share} of the relevance rests on valid root points ({audited}): for the rest the expansion is "
            "taken where the network "
            "is another function, so that the rule is a heuristic there and no Taylor decomposition of this network."
        )

    def _draw(self, ax: Any) -> None:
        """How many roots are still inside when the way to them is walked up to t."""
        order = np.argsort(self.reach)
        t = np.minimum(self.reach[order], 10.0)
        ax.step(t, 1 - np.cumsum(self.of_roots[order]), where="post")
        ax.axvline(1, color="0.6", linewidth=0.8)
        ax.set(
            xscale="log",
            xlabel="t on the way from x (0) to the root (1)",
            ylabel="roots still in the region of x",
            ylim=(0, 1),
        )


def root_audit(
    layers: Sequence[Layer],
    x: Any,
    target: Any = None,
    *,
    layer: int | None = None,
    n_roots: int = 100,
    seed: int = 0,
    **options: Any,
) -> RootAudit:
    """Test whether the root points of a layer lie where the network is still the function that is explained.

    At most `n_roots` neurons with relevance are audited per sample. If there are more, n_roots are drawn evenly (for
    the share of roots), and n_roots in proportion to ``|R_j|`` (for the share of relevance).

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        The network; it must be piecewise linear.
    x : array_like
        The inputs, as `explain` takes them.
    target : int, tuple, array_like or None, default None
        As in `dtdfast.explain`, with one target per sample.
    layer : int, optional
        The position of the layer; by default the first that reads the input.
    n_roots : int, default 100
        The number of neurons per sample.
    seed : int, default 0
        The seed of what is drawn at random.
    **options
        Options of `dtdfast.Explainer`: rules, domain, convention, start.

    Returns
    -------
    RootAudit
        How far each root is, and whether it is valid.

    Raises
    ------
    InputError
        The network has a Given.
    LayerError
        The layer does not exist, no relevance reaches it, or the network is not piecewise linear.
    TargetError
        There are several targets per sample.

    Notes
    -----
    The audit follows [1]_, with the exact region instead of samples, and per share of relevance. `region_reach` follows
    the way from x to each root. The neuron's own kink is not counted, since the root lies on it by construction; a test
    for "the same gradient at the root" would be biased by that kink. The root of a deeper layer is a point among that
    layer's inputs, and the region is that of the network behind them.

    References
    ----------
    .. [1] Sixt and Landgraf, "A rigorous study of the deep Taylor decomposition", arXiv:2211.08425, section 4.
    """
    layers, x = opened(layers, x, split(options, "kind")[1])
    n_roots, rng = at_least_one("n_roots", n_roots), np.random.default_rng(seeded(seed))
    program, points = program_of(layers, x, options)
    network = program.network
    domain = domain_of(options.get("domain", Options.domain), layers)
    unit = find_layer(network, layer)
    found = []
    for n in range(len(points)):
        own = rows_of(target, slice(n, n + 1), len(points))
        targets = Targets.parse(own, 1, network.output.shape)
        entry = targets.entry(slice(0, 1), clip=clips(options.get("rules", Options.rules)))
        found.append(_audit_one(program, layers, points[n : n + 1], entry, unit, domain, n_roots, rng))
    sizes = [len(f[0]) for f in found]
    if not sum(sizes):
        raise LayerError("no relevance reaches this layer: there is nothing to audit")
    neuron, relevance, reach, in_domain, output, change, *weights = (
        np.concatenate(c) for c in zip(*found, strict=True)
    )
    of_roots, of_relevance = (w / sum(size > 0 for size in sizes) for w in weights)
    sample = np.repeat(np.arange(len(points)), sizes)
    assert unit.row is not None
    title = f"{at(unit.entries[0], layers[unit.entries[0]])} under {unit.row.label}"
    return RootAudit(
        sample, neuron, relevance, reach, in_domain, output, change, of_roots, of_relevance, len(points), title
    )


def _audit_one(
    program: Program,
    layers: list[Layer],
    x: Array,
    entry: Entry,
    unit: U.Neuron,
    domain: Domain,
    n_roots: int,
    rng: np.random.Generator,
) -> tuple[Array, ...]:
    network = program.network
    frozen = Frozen(network, layers, x)
    outputs = frozen.values[network.output.index]
    plain = Oracle(network, program.leaves, gradient=False)
    plain.values, plain.pre, plain.winners = frozen.values, frozen.pre, frozen.winners
    plain.relevance(entry.relevance(outputs))
    r = plain.r[unit.out.index].ravel()
    one = replace(entry, unit=True).relevance(outputs)[:, 0]
    place = NeuronLayer(frozen, unit)
    has_root = place.pre > 0 if unit.activation is not None else place.pre != 0
    chosen, of_roots, of_relevance = _choose(np.where(has_root, r, 0), n_roots, rng)
    of_relevance = of_relevance * np.abs(r[has_root]).sum() / (np.abs(r).sum() or 1)
    per_root = sum(int(np.prod(t.shape)) for t in network.tensors)
    size = max(1, ELEMENTS // (2 * per_root))
    parts = []
    for block in (chosen[i : i + size] for i in range(0, len(chosen), size)):
        parts.append(_follow(place, block, one, domain))
    columns = (
        [np.concatenate(c) for c in zip(*parts, strict=True)]
        if parts
        else [np.zeros(0, kind) for kind in (float, bool, float, float)]
    )
    return (np.argsort(place.numbers)[chosen], r[chosen], *columns, of_roots, of_relevance)


def _choose(r: Array, n_roots: int, rng: np.random.Generator) -> tuple[NDArray[np.intp], Array, Array]:
    """Neurons to audit, and the weight of each in the share of roots and in the share of relevance."""
    alive = np.flatnonzero(r)
    size = np.abs(r[alive])
    if len(alive) <= n_roots:
        return alive, np.full(len(alive), 1 / max(len(alive), 1)), size / (size.sum() or 1)
    evenly = rng.choice(alive, n_roots, replace=False)
    by_relevance = rng.choice(alive, n_roots, p=size / size.sum())
    chosen, back = np.unique(np.concatenate((evenly, by_relevance)), return_inverse=True)
    of_roots, of_relevance = (
        np.bincount(back[:n_roots], minlength=len(chosen)),
        np.bincount(back[n_roots:], minlength=len(chosen)),
    )
    return chosen, of_roots / n_roots, of_relevance / n_roots


def _follow(place: NeuronLayer, neurons: NDArray[np.intp], one: Array, domain: Domain) -> tuple[Array, ...]:
    """t*, in the domain, f(x̃)/f(x), change of the gradient: (m,) each."""
    frozen, sources = place.frozen, place.sources
    roots = place.roots(neurons)
    reach, _ = frozen.along(
        place.seeds([p - h for p, h in zip(roots.points, roots.here, strict=True)]), (place.unit.out.index, neurons)
    )
    inside = np.ones(len(neurons), bool)
    for tensor, points, here in zip(sources, roots.points, roots.here, strict=True):
        low, high = _bounds(place, tensor, domain)
        slack = 1e-12 * (1 + np.abs(here).max())
        inside &= ((points >= low - slack) & (points <= high + slack)).reshape(len(points), -1).all(axis=1)
    there = frozen.at_seeds(place.seeds(roots.points))
    output = frozen.network.output.index
    ratio = (there.values[output] * one).reshape(len(neurons), -1).sum(axis=1) / (frozen.values[output] * one).sum()
    before = frozen.gradient_at(sources, one)
    after = there.gradient_at(sources, np.repeat(one, len(neurons), axis=0))
    change = sum(((a - b) ** 2).reshape(len(a), -1).sum(axis=1) for a, b in zip(after, before, strict=True))
    return reach, inside, ratio, np.sqrt(change / (sum((b**2).sum() for b in before) or 1))


def _bounds(place: NeuronLayer, tensor: U.Tensor, domain: Domain) -> tuple[Any, Any]:
    """What the values of a tensor that the layer reads may be."""
    box = next((p.box for p in place.unit.parts if p.source is tensor and p.box is not None), None)
    if box is None and tensor is place.frozen.network.input:
        box = domain.bounds(tensor.shape)
    if box is not None:
        return box
    return (0.0 if tensor.nonnegative else -np.inf), np.inf
