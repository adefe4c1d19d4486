"""The claims, one function each: seed → measured values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

import dtdfast as dtd
from dtdfast import diagnostics, evaluation
from networks import active_inputs, critique, digits, trained

ORACLE: dict[str, Any] = {"backend": "oracle"}
Z_PLUS = "excitation-backprop"
"""Plain z⁺ on every layer, as the papers have it; "dtd" goes by the sign of a logit."""

MLP = (64, 128, 64, 10)
DTD16 = "Montavon et al. 2015, arXiv:1512.02479"
SL22 = "Sixt & Landgraf 2022, arXiv:2211.08425"
S20 = "Sixt et al. 2020, arXiv:1912.09818"


@dataclass(frozen=True)
class Claim:
    """What a paper or a derivation says, and how to measure it.

    `expected` is compared within three standard errors over the seeds, and half a unit of its last digit (`unit`);
    `relation` "<=" and ">=" ask for a bound on every seed instead. Where the expected value is itself a single run with
    random draws of its own, `runs` (seed → what single runs give) says how far such a value strays, and its standard
    deviation counts beside the standard error.
    """

    text: str
    source: str
    expected: float
    measure: Callable[[int], float]
    relation: str = "="
    unit: float = 0.0
    runs: Callable[[int], list[float]] | None = None


CLAIMS: list[Claim] = []


def claim(
    text: str, source: str, expected: float, relation: str = "=", unit: float = 0.0
) -> Callable[[Callable[[int], float]], None]:
    """Register the decorated function under a claim."""
    return lambda measure: CLAIMS.append(Claim(text, source, expected, measure, relation, unit))


def several(claims: list[tuple[str, float, float]], source: str, measure: Callable[[int], list[float]]) -> None:
    """Claims (text, expected, unit) that one measurement answers together."""
    known: dict[int, list[float]] = {}

    def nth(k: int) -> Callable[[int], float]:
        def value(seed: int) -> float:
            if seed not in known:
                known[seed] = measure(seed)
            return known[seed][k]

        return value

    for k, (text, expected, unit) in enumerate(claims):
        CLAIMS.append(Claim(text, source, expected, nth(k), unit=unit))


# ------------------------------------------------------------------------------------------- 1 to 4: exact identities


def firsts() -> Iterator[dict[str, Any]]:
    """The first-layer rules z⁺, zB, w² and flat, z⁺ above."""
    yield from ({"domain": "nonnegative"}, {"domain": (0.0, 1.0)}, {"domain": "real"}, {"rules": {0: dtd.Flat()}})


@claim("1 conservation, digits MLP, z⁺ zB w² flat: max |ΣR − f| / f", DTD16, 4e-15, "<=")
def _conserves(seed: int) -> float:
    layers, x = trained(MLP, seed)[0], digits()[1]
    worst = 0.0
    for options in firsts():
        r, outputs = dtd.explain(layers, x, return_outputs=True, **options, **ORACLE)
        f = outputs.max(axis=1)
        worst = max(worst, float(np.max(np.abs(r.sum(axis=1) - f)[f > 0] / f[f > 0])))
    return worst


@claim("1 positivity, the same maps: min R", DTD16, 0.0, ">=")
def _positive(seed: int) -> float:
    layers, x = trained(MLP, seed)[0], digits()[1]
    kept = dtd.predict(layers, x, **ORACLE).max(axis=1) > 0
    return min(float(dtd.explain(layers, x[kept], **options, **ORACLE).min()) for options in firsts())


def root_errors(seed: int) -> tuple[float, float]:
    """How far roots lie from y = 0, relative to y, and outside of the domain."""
    layers, x = trained(MLP, seed)[0], digits()[1][:20]
    off, out = 0.0, 0.0
    for domain, low, high in (("nonnegative", 0.0, np.inf), ((0.0, 1.0), 0.0, 1.0), ("real", -np.inf, np.inf)):
        for one in x:
            active = np.flatnonzero(one @ layers[0].weight.T + layers[0].bias > 0.1)  # type: ignore[attr-defined]
            roots = diagnostics.root_points(layers, one[None], active, domain=domain)
            off = max(off, float(np.max(np.abs(roots.y_at_root) / roots.y)))
            out = max(out, float(np.max(low - roots.points[0])), float(np.max(roots.points[0] - high)))
    return off, out


@claim("2 roots of z⁺, zB, w² lie on y = 0: max |y(x̃)| / y", DTD16, 1e-13, "<=")
def _on_hinge(seed: int) -> float:
    return root_errors(seed)[0]


@claim("2 the same roots lie in the domain: largest excess", DTD16, 1e-14, "<=")
def _in_domain(seed: int) -> float:
    return root_errors(seed)[1]


@claim("2 one neuron, w²: R = sensitivity · y / Σw²: largest difference / y", DTD16, 1e-14, "<=")
def _wsquare(seed: int) -> float:
    rng = np.random.default_rng(seed)
    weight, x = rng.standard_normal((2, 1, 12))
    layers, x = [dtd.Linear(weight), dtd.ReLU()], x if weight[0] @ x[0] > 0 else -x
    s, y = dtd.baselines.sensitivity(layers, x, 0, **ORACLE), dtd.predict(layers, x, **ORACLE).item()
    return float(np.abs(dtd.explain(layers, x, 0, **ORACLE) - s / s.sum() * y).max() / y)


@claim(
    "3 max(x₁, x₂) as a network: R = ((2x₁ − x₂)/2, x₂/2): largest difference",
    "Montavon et al. 2018, arXiv:1706.07979",
    1e-15,
    "<=",
)
def _maximum(seed: int) -> float:
    layers = [dtd.Linear([[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]), dtd.ReLU(), dtd.Linear([[0.5, 0.5, 0.5]]), dtd.ReLU()]
    x = np.sort(np.random.default_rng(seed).random((50, 2)), axis=1)[:, ::-1]
    expected = np.stack([(2 * x[:, 0] - x[:, 1]) / 2, x[:, 1] / 2], axis=1)
    return float(np.abs(dtd.explain(layers, x, 0, domain="nonnegative", **ORACLE) - expected).max())


@claim(
    "4 LRP-0 = gradient × input, biased digits MLP: largest difference / largest value",
    "Ancona et al. 2018, arXiv:1711.06104",
    2e-15,
    "<=",
)
def _zero(seed: int) -> float:
    layers, x = trained(MLP, seed, nonpositive=False)[0], digits()[1]
    expected = dtd.baselines.input_x_gradient(layers, x, **ORACLE)
    return float(np.abs(dtd.explain(layers, x, rules="lrp-0", **ORACLE) - expected).max() / np.abs(expected).max())


# ----------------------------------------------------------------------------------------------------- 5: root points


def critique_roots(
    rule: dtd.Rule, widths: tuple[int, ...] = (10, 10, 10, 2), n_nets: int = 20, n_inputs: int = 50
) -> Callable[[int], float]:
    """Percentage of first-layer roots in the closed region; with seed 0 over the networks that the expected values were
    measured on.
    """

    def measure(seed: int) -> float:
        inside, roots = 0, 0
        for number in range(seed * n_nets, (seed + 1) * n_nets):
            rng = np.random.default_rng(number)
            layers = critique(widths, rng)
            x = active_inputs(layers, n_inputs, rng)
            if len(x):
                audit = diagnostics.root_audit(layers, x, 0, rules=rule, domain="nonnegative")
                inside, roots = inside + int(audit.in_region.sum()), roots + len(audit.reach)
        return 100 * inside / roots

    return measure


ROOTS = "5 roots in the closed region, random 10-10-10-2"
CLAIMS.append(Claim(f"{ROOTS}, z⁺: %", SL22, 17, critique_roots(dtd.ZPlus()), unit=1))
CLAIMS.append(Claim(f"{ROOTS}, w²: %", SL22, 23, critique_roots(dtd.WSquare()), unit=1))
CLAIMS.append(Claim(f"{ROOTS}, γ = 1: %", SL22, 14, critique_roots(dtd.Gamma(1.0, bias="none")), unit=1))
CLAIMS.append(Claim(f"{ROOTS}, LRP-0: %", SL22, 0, critique_roots(dtd.Zero()), unit=1))
CLAIMS.append(
    Claim("5 the same, random 10-64-64-2, z⁺: %", SL22, 6, critique_roots(dtd.ZPlus(), (10, 64, 64, 2), 5, 50), unit=1)
)


def trained_roots(seed: int) -> list[float]:
    layers, x = trained(MLP, seed)[0], digits()[1][:60]
    audit = diagnostics.root_audit(layers, x, domain="nonnegative", n_roots=MLP[1])
    return [100 * float(audit.in_region.mean()), 100 * audit.samples_all_valid]


several(
    [("5 the same, trained digits MLP, z⁺: %", 3.7, 0.1), ("5 digits with all of their roots inside: %", 0, 1)],
    SL22,
    trained_roots,
)


# -------------------------------------------------------------------------------------- 6 to 8: depth, class, weights


def deep(hidden: int, seed: int) -> list[dtd.Layer]:
    return trained((64, *(64,) * hidden, 10), seed, epochs=40)[0]


def csc(rules: str) -> Callable[[int], list[float]]:
    def measure(seed: int) -> list[float]:
        x = digits()[1][:100].astype(np.float32)
        result = diagnostics.cosine_convergence(deep(12, seed), x, rules=rules, domain="nonnegative", seed=seed)
        values = [float(v) for v in result.cosine[1:]]
        return [*values[:4], min(values[4:]), values[-1]]

    return measure


CSC = "6 CSC, 12 hidden layers on digits"
DOWN = [
    (f"{CSC}, z⁺, {k} layer{'s' if k > 1 else ''} down", v, u)
    for k, v, u in ((1, 0.30, 0.01), (2, 0.78, 0.01), (3, 0.98, 0.01))
]
several(
    [*DOWN, (f"{CSC}, z⁺, 4 layers down", 0.999, 0.001), (f"{CSC}, z⁺, the rest: least", 1.0, 0.001)], S20, csc(Z_PLUS)
)
several([(f"{CSC}, LRP-0, 1 layer down", 0.62, 0.01)], S20, csc("lrp-0"))
N_DRAWS = 8


@lru_cache
def at_the_input(seed: int) -> tuple[float, ...]:
    """LRP-0's convergence at the input from several draws of the five relevances, 100 images each, on one network."""
    x = digits()[1][:100].astype(np.float32)
    draws = (
        diagnostics.cosine_convergence(deep(12, seed), x, rules="lrp-0", seed=N_DRAWS * seed + k)
        for k in range(N_DRAWS)
    )
    return tuple(float(d.cosine[-1]) for d in draws)


CLAIMS.append(
    Claim(
        f"{CSC}, LRP-0, at the input",
        S20,
        0.81,
        lambda seed: float(np.mean(at_the_input(seed))),
        unit=0.01,
        runs=lambda seed: list(at_the_input(seed)),
    )
)


def two_classes(widths: tuple[int, ...], epochs: int, rules: str) -> Callable[[int], float]:
    def measure(seed: int) -> float:
        layers, x = trained(widths, seed, epochs)[0], digits()[1].astype(np.float32)
        result = diagnostics.class_sensitivity(layers, x, rules=rules, domain="nonnegative", seed=seed)
        return float(np.nanmedian(result.similarity["|cosine|"]))

    return measure


FIVE, NINE = ((64, *(64,) * n, 10) for n in (4, 8))
CLAIMS.append(
    Claim("7 |cosine| of two classes' maps, z⁺, 3 layers", S20, 0.995, two_classes(MLP, 60, Z_PLUS), unit=0.001)
)
CLAIMS.append(Claim("7 the same, 5 layers", S20, 1.0, two_classes(FIVE, 40, Z_PLUS), unit=0.0001))
CLAIMS.append(Claim("7 the same, LRP-0, 3 layers: at least", S20, 0.22, two_classes(MLP, 60, "lrp-0"), ">="))
CLAIMS.append(Claim("7 the same, LRP-0, 9 layers", S20, 0.39, two_classes(NINE, 40, "lrp-0"), unit=0.01))


def cascade(attribution: Callable[..., Any], **options: Any) -> Callable[[int], list[float]]:
    """Cosine after the first step, before the last, and after it."""

    def measure(seed: int) -> list[float]:
        x = digits()[1].astype(np.float32)
        result = diagnostics.parameter_randomization(deep(8, seed), x, attribution=attribution, seed=seed, **options)
        medians = np.nanmedian(result.similarity["cosine"], axis=1)
        return [float(medians[0]), float(medians[:-1].min()), float(medians[-1])]

    return measure


several([("8 cascade, z⁺, 9 layers, first layer still trained: least cosine", 1.0, 0.01)], "Adebayo et al. 2018, "
"arXiv:1810.03292",
        lambda seed: cascade(dtd.explain, domain="nonnegative", rules=Z_PLUS)(seed)[1:2])  # fmt: skip


@claim(
    "8 the same, gradient × input, output layer random: |cosine| at most",
    "Adebayo et al. 2018, arXiv:1810.03292",
    0.5,
    "<=",
)
def _gradient_drops(seed: int) -> float:
    return abs(cascade(dtd.baselines.input_x_gradient)(seed)[0])


# ----------------------------------------------------------------------------------------------------- 9: perturbation


def gain(operator: str | float) -> Callable[[int], float]:
    """The least AOPC over random of any map, in half widths of its confidence interval: above 1, every map beats
    random.
    """

    def measure(seed: int) -> float:
        layers, x = trained(MLP, seed)[0], digits()[1].astype(np.float32)[:150]
        rules: dict[str, dict[str, Any]] = {
            "z⁺": {"domain": "nonnegative"}, "zB": {"domain": (0.0, 1.0)}, "w²": {}, "LRP-0": {"rules": "lrp-0"},
            "α2β1": {"rules": dtd.AlphaBeta()},
        }  # fmt: skip
        maps = {name: dtd.explain(layers, x, **options) for name, options in rules.items()}
        maps["gradient × input"] = dtd.baselines.input_x_gradient(layers, x)
        curves = evaluation.region_perturbation(
            layers,
            x,
            maps,
            size=1,
            steps=20,
            repeats=5,
            operator=operator,
            probability=True,
            domain=(0.0, 1.0),
            seed=seed,
        )
        gains = [curves.over_random(m) for m in curves.outputs if m != curves.random]
        return min(g.mean / g.half_width for g in gains)

    return measure


PIXELS = "9 AOPC of 20 of 64 pixels: least gain of any map over random, in half widths"
CLAIMS.append(Claim(f"{PIXELS}, set to zero", "Samek et al. 2017, arXiv:1509.06321", 1.0, gain(0.0), ">="))
CLAIMS.append(Claim(f"{PIXELS}, uniform noise", "Samek et al. 2017, arXiv:1509.06321", 1.0, gain("uniform"), ">="))
