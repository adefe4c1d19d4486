"""Several ways to make maps on one data set, in one table: so that a rule is chosen by measurement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calls import explain
from ..colours import LINES
from ..diagnostics.attribution import Array, Attribution, classes, name_of, one_hot
from ..diagnostics.sensitivity import ClassSensitivity, class_sensitivity
from ..diagnostics.similarity import median, per_pixel
from ..errors import InputError
from ..layers import Layer
from ..layout import channel_axis, domain_of
from ..models import opened
from ..options import PLACE, PREDICTING, seeded, split
from ..results import Chart, in_legend
from ..rules import Rule
from ..verdicts import CLASS
from .curves import Curves
from .perturbation import region_perturbation

METHODS = ("dtd", "epsilon-plus", "lrp-epsilon", "lrp-0")
RADIUS = 0.02  # of the noise of `sensitivity`, in the range of x
DRAWS = 4


@dataclass
class Comparison(Chart):
    """What was measured of several methods.

    `plot` draws what each method finds (ABPC, with its interval) against how alike its maps of two classes are: the
    best ones stand in the upper left. Where there is one class alone, sparsity takes the place of the likeness.

    Attributes
    ----------
    curves : Curves
        The perturbation curves of all methods, of sensitivity and of a random order.
    sensitivity : dict of str to ndarray of shape (n,)
        ‖R(x + noise) − R(x)‖ / ‖R(x)‖, the largest of a few draws; NaN for integers.
    sparsity : dict of str to ndarray of shape (n,)
        Gini's coefficient of ``|R|``: 0 if all inputs have the same, towards 1 if a few have all.
    classes : dict of str to ClassSensitivity
        The similarity of two classes' maps; empty for a network of one output.
    """

    curves: Curves
    sensitivity: dict[str, NDArray[np.float64]]
    sparsity: dict[str, NDArray[np.float64]]
    classes: dict[str, ClassSensitivity]

    header = ("method", "AOPC", "ABPC", "better than random", "sensitivity", "sparsity", "two classes' |cosine|")

    @property
    def methods(self) -> list[str]:
        """The names of what was compared, the best AOPC first."""
        return sorted(self.sparsity, key=lambda name: -self.curves.aopc(name).mean)

    def numbers(self, method: str) -> dict[str, float]:
        """The numbers of one row.

        Parameters
        ----------
        method : str
            Its name.

        Returns
        -------
        dict of str to float
            AOPC and ABPC (means), and the medians of the others; NaN: undefined.
        """
        cosine = self.classes[method].similarity["|cosine|"] if method in self.classes else np.zeros(0)
        return {
            "AOPC": self.curves.aopc(method).mean,
            "ABPC": self.curves.abpc(method).mean,
            "sensitivity": median(self.sensitivity[method]),
            "sparsity": median(self.sparsity[method]),
            "two classes' |cosine|": median(cosine),
        }

    def rows(self) -> list[tuple[str, ...]]:
        result = []
        for name in self.methods:
            of = {k: "-" if np.isnan(v) else f"{v:.3f}" for k, v in self.numbers(name).items()}
            result.append((name, *(of.get(key, self.curves.verdict(name)) for key in self.header[1:])))
        return result

    @property
    def reading(self) -> str:
        named = {name: self.numbers(name) for name in self.methods}
        steady = min(named, key=lambda m: np.nan_to_num(named[m]["sensitivity"], nan=np.inf))
        told = [f"{self.methods[0]} finds the most of what matters to the output"]
        if np.isfinite(named[steady]["sensitivity"]):
            told.append(f"{steady} changes least under noise")
        cosines = {m: v["two classes' |cosine|"] for m, v in named.items()}
        apart = [m for m, v in cosines.items() if np.isfinite(v) and CLASS.band(v) == 0]
        if any(np.isfinite(v) for v in cosines.values()):
            told.append(
                f"the maps of {', '.join(apart)} depend on the class" if apart else "no map depends on the class"
            )
        n = len(next(iter(self.sparsity.values())))
        return f"{self.curves.what}, {n} input{'s' if n > 1 else ''}: {'; '.join(told)}. No single number decides."

    def _draw(self, ax: Any) -> None:
        across = "two classes' |cosine|" if self.classes else "sparsity"
        for k, name in enumerate(self.methods):
            gap = self.curves.abpc(name)
            width = np.nan_to_num(gap.half_width)
            ax.errorbar(
                self.numbers(name)[across],
                gap.mean,
                width,
                fmt="o^sDvPX*"[k % 8],
                color=LINES[k % len(LINES)],
                capsize=3,
                label=in_legend(name),
            )
        ax.axhline(0, color="0.6", linewidth=0.8)
        ax.set(xlabel=across, ylabel="ABPC", title=self.curves.what)
        ax.legend()


def compare(
    layers: Sequence[Layer],
    x: Any,
    target: Any = None,
    methods: Sequence[Any] | Mapping[str, Any] = METHODS,
    *,
    other: Any = None,
    size: int = 9,
    steps: int = 30,
    repeats: int = 3,
    operator: str | float | Sequence[float] = "uniform",
    seed: int = 0,
    **options: Any,
) -> Comparison:
    """Measure several methods on one data set: perturbation, sensitivity, sparsity and dependence on the class.

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        The network; its outputs have shape (n, classes).
    x : array_like
        The inputs, of shape ``(n, c, *space)`` or (n, features), or integers for an Embedding.
    target : int or array_like of int, optional
        The class that is explained; by default the largest output of each sample.
    methods : sequence, or dict of str to method, default ("dtd", "epsilon-plus", "lrp-epsilon", "lrp-0")
        What is compared: names of presets, rules, or callables ``(layers, x, start, **options)`` such as the functions
        of `dtdfast.baselines`; a dict gives them names of its own.
    other : int or array_like of int, optional
        The class to compare with; by default another class drawn at random, as in `class_sensitivity`.
    size, steps, repeats, operator : optional
        As in `region_perturbation`: what is replaced, and by what. Tables and words take size 1 and "resample".
    seed : int, default 0
        The seed of what is drawn at random.
    **options
        Options of the methods: domain, backend and others. Those that a callable does not take are not handed to it:
        callables get backend, batch_size, n_threads and device alone.

    Returns
    -------
    Comparison
        The numbers, as a table and as arrays.

    Raises
    ------
    InputError
        Two methods have one name, or there is none; one region holds a whole sample; or `other` is the class that is
        explained.
    ShapeError
        The outputs are no classes, or a class is asked for that does not exist.

    Notes
    -----
    Relevance starts with 1 at the class. Sensitivity follows [1]_: the largest change of the map over a few draws of
    uniform noise, of 0.02 of the range of x, relative to the map; the noise stays in the domain. Sparsity is Gini's
    coefficient [2]_ of the absolute relevance of pixels, columns or words.

    References
    ----------
    .. [1] Yeh et al., "On the (in)fidelity and sensitivity of explanations", arXiv:1901.09392, definition 2.2.
    .. [2] Chalasani et al., "Concise explanations of neural networks using adversarial training", arXiv:1810.06583,
       section 5.

    Examples
    --------
    >>> print(compare(layers, x, methods=["dtd", "lrp-epsilon", baselines.input_x_gradient], domain=(0.0, 1.0)))
    """
    if "rules" in options:
        raise InputError("rules= is no option of a comparison: list the rules in methods")
    named = _named(methods, options)
    layers, point = opened(layers, x, split(options, "start", "stop")[1])
    seed = seeded(seed)
    index, n_classes = classes(layers, point, target, options)
    start = one_hot(index, n_classes)
    # a method may write into what it is given: copies
    maps = {name: np.asarray(of(layers, point.copy(), start, **given)) for name, (of, given) in named.items()}
    kept = {k: v for k, v in options.items() if k in (*PREDICTING, "domain")}
    curves = region_perturbation(
        layers, point, maps, index, size=size, steps=steps, repeats=repeats, operator=operator, seed=seed, **kept
    )
    noisy = _noisy(layers, point, options.get("domain"), seed)
    moved = {}
    for name, (of, given) in named.items():
        changes = [_change(maps[name], np.asarray(of(layers, y.copy(), start, **given))) for y in noisy]
        moved[name] = np.max(changes, axis=0) if changes else np.full(len(point), np.nan)
    alike = {}
    for name, (of, given) in named.items() if n_classes > 1 else ():
        alike[name] = class_sensitivity(layers, point.copy(), index, other, attribution=of, seed=seed, **given)
    return Comparison(
        curves, moved, {name: gini(per_pixel(r, channel_axis(layers, r.ndim))) for name, r in maps.items()}, alike
    )


def gini(values: Array) -> NDArray[np.float64]:
    """Gini's coefficient of the absolute values of each sample: Σ_k (2k − m − 1) v_k / (m Σ v), v in rising order."""
    v = np.sort(np.abs(values.reshape(len(values), -1)), axis=1)
    m = v.shape[1]
    total = v.sum(axis=1)
    ranks = 2 * np.arange(1, m + 1) - m - 1
    return np.asarray(np.divide(v @ ranks, m * total, out=np.full(len(v), np.nan), where=total > 0))


def _named(methods: Any, options: dict[str, Any]) -> dict[str, tuple[Attribution, dict[str, Any]]]:
    """Name → what makes the maps, and its options."""
    if not isinstance(methods, Iterable) or getattr(methods, "shape", None) == ():
        raise InputError(f"methods is {methods!r:.60}, expected a list of presets, rules or callables")
    listed: Iterable[Any] = [methods] if isinstance(methods, str) else methods
    pairs = list(methods.items()) if isinstance(methods, Mapping) else [(None, method) for method in listed]
    if not pairs:
        raise InputError("methods is empty, expected presets, rules or callables to compare")
    result: dict[str, tuple[Attribution, dict[str, Any]]] = {}
    for name, method in pairs:
        own = isinstance(method, (str, Rule, Mapping)) or not callable(method)
        given = {**options, "rules": method} if own else {k: v for k, v in options.items() if k in PLACE}
        of: Attribution = explain if own else method
        name = name_of(of, given) if name is None else str(name)
        if name in result:
            raise InputError(f"two methods are called {name!r}; give a dict with names of your own")
        result[name] = of, given
    return result


def _noisy(layers: Sequence[Layer], x: Array, domain: Any, seed: int) -> list[Array]:
    """Copies of x with noise; none of integers, which name words."""
    if x.dtype.kind in "iu":
        return []
    bounds = domain_of("real" if domain is None else domain, layers).bounds(x.shape[1:])
    if bounds is not None:
        low, high = bounds
    elif x.ndim > 2:  # over all samples and pixels; of a table, over each column
        low, high = x.min(), x.max()
    else:
        low, high = x.min(axis=0), x.max(axis=0)
    rng = np.random.default_rng(seed)
    noises = [RADIUS * (high - low) * rng.uniform(-1, 1, x.shape) for _ in range(DRAWS)]
    floor = 0.0 if isinstance(domain, str) and domain == "nonnegative" else -np.inf
    inside = (floor, np.inf) if bounds is None else bounds
    return [np.clip(x + noise, *inside).astype(x.dtype) for noise in noises]


def _change(a: Array, b: Array) -> NDArray[np.float64]:
    """‖b − a‖ / ‖a‖ of each sample."""
    u, v = (m.reshape(len(m), -1).astype(np.float64) for m in (a, b))
    size = np.sqrt((u * u).sum(axis=1))
    return np.asarray(np.divide(np.sqrt(((v - u) ** 2).sum(axis=1)), size, out=np.full(len(u), np.nan), where=size > 0))
