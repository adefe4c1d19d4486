"""Region perturbation and pixel flipping: whether the output falls when relevant regions are taken away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import host_array
from ..baselines import sensitivity
from ..diagnostics.attribution import chosen
from ..errors import InputError, ShapeError
from ..explainer import Explainer
from ..layers import Layer
from ..layout import channel_axis, domain_of
from ..models import opened
from ..options import PREDICTING, alone, at_least_one, check_flags, differentiating, predicting, seeded
from ..plan.program import EXPLAIN, PREDICT, last_entry
from ..plan.tensors import Box
from .curves import Curves
from .operators import RANDOM, operator_of

Array = NDArray[Any]
BYTES = 2**28  # of perturbed copies that are made for one forward call
RANDOM_ORDER, SENSITIVITY = "random order", "sensitivity"


def regions(space: Sequence[int], size: int) -> NDArray[np.intp]:
    """The number of the region that each pixel lies in, (*space): a grid from the first corner, its last regions
    smaller.
    """
    grid = [-(-s // size) for s in space]
    places = np.indices(tuple(space)).reshape(len(space), -1) // size
    return np.ravel_multi_index(tuple(places), grid).reshape(tuple(space))


def region_scores(relevance: Array, numbers: NDArray[np.intp]) -> NDArray[np.float64]:
    """Relevance summed over channels and each region; (n, c, *space) → (n, regions)."""
    pixels = relevance.sum(axis=1, dtype=np.float64).reshape(len(relevance), -1)
    return np.stack([np.bincount(numbers.ravel(), p) for p in pixels])


def region_perturbation(
    layers: Sequence[Layer],
    x: Any,
    relevance: Mapping[str, Any] | Any,
    target: Any = None,
    *,
    size: int = 9,
    steps: int = 100,
    repeats: int = 10,
    operator: str | float | Sequence[float] = "uniform",
    probability: bool = False,
    seed: int = 0,
    **options: Any,
) -> Curves:
    """Replace regions in the order of their relevance, and follow the explained output [1]_.

    The image is divided by a grid of regions, which are ordered by their summed relevance. They are replaced with the
    most relevant first, and again with the least relevant first. A random order and sensitivity, (∂f/∂x)², are
    evaluated beside every map.

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        The network; its outputs have shape (n, classes).
    x : array_like
        The inputs, of shape ``(n, c, *space)`` or (n, features).
    relevance : array_like or dict of str to array_like
        Maps of x's shape, or several of them by name.
    target : int or array_like of int, optional
        The class that is explained, one for all samples or an array of shape (n,); by default the largest output of
        each sample.
    size : int, default 9
        The pixels along a region's side; 1 is a single pixel with all of its channels.
    steps : int, default 100
        L, the number of regions that are replaced; at most all of them.
    repeats : int, default 10
        The repetitions of what is drawn at random. An operator without randomness takes one; the random order is still
        repeated.
    operator : str, float or sequence of float, default "uniform"
        What replaces a region: "uniform" is noise over the domain, "dirichlet" mixtures of the image's own pixels,
        "blur" the blurred image, "flip" low + high − x, "resample" what other samples of x hold at the same place
        (for words, and for tables, whose columns have units of their own). A number, or one number per channel, is a
        constant.
    probability : bool, default False
        Whether to follow the softmax of the outputs, which may be the list's last entry; else the outputs as the list
        gives them.
    seed : int, default 0
        The seed of what is drawn at random.
    **options
        backend, precision, n_threads, batch_size and device as in `dtdfast.Explainer`, and domain=(low, high), the
        range of the noise. Without a domain it is each channel's range over x.

    Returns
    -------
    Curves
        The outputs after each step. Confidence intervals are over samples.

    Raises
    ------
    ShapeError
        Maps are not of x's shape, the outputs are no classes, or a class is asked for that does not exist.
    InputError
        The operator or an option is unknown, size, steps or repeats are below 1, one region holds the whole sample, or
        a map holds NaN or is called "random order".

    Notes
    -----
    After L steps, AOPC = 1/(L + 1) ⟨Σ_k f(x⁽⁰⁾) − f(x⁽ᵏ⁾)⟩ [1]_. All L·repeats copies of an image go through the
    network in as few calls as 256 MiB of copies allow.

    Quantus's RegionPerturbation agrees where size divides the image and the operator is a constant. Its curve is
    f(x⁽⁰⁾) − f(x⁽ᵏ⁾) for k = 1 … L, without the term of k = 0. Elsewhere it pads the image on both sides to whole
    regions, "uniform" is one number per image there, and ties are broken differently.

    References
    ----------
    .. [1] Samek et al., "Evaluating the visualization of what a deep neural network has learned", arXiv:1509.06321,
       section III.
    """
    for key, value in (("size", size), ("steps", steps), ("repeats", repeats)):
        at_least_one(key, value)
    known = (*PREDICTING, "domain")
    if unknown := [key for key in options if key not in known]:
        raise InputError(f"{unknown[0]}= is no option of a perturbation; there are {', '.join(known)}")
    layers, point = opened(layers, x)
    seed = seeded(seed)
    named = relevance if isinstance(relevance, Mapping) else {"relevance": relevance}
    maps = {str(k): host_array(v, f"the map {k!r:.60}") for k, v in named.items()}
    if RANDOM_ORDER in maps:
        raise InputError(f"a map is called {RANDOM_ORDER!r}, as the order that stands beside all maps; rename it")
    for name, values in maps.items():
        if values.shape != point.shape:
            raise ShapeError(f"the maps of {name!r} have shape {values.shape}, expected x's shape {point.shape}")
        if values.dtype.kind not in "fiub":
            raise InputError(f"the maps of {name!r} have dtype {values.dtype}, expected numbers")
        if not np.isfinite(values).all():
            raise InputError(f"the maps of {name!r} hold NaN or infinity, by which nothing can be ordered")
    check_flags(probability=probability)
    alone(layers, "perturbation")
    last = last_entry(layers, None, EXPLAIN if probability else PREDICT)
    explainer = Explainer(layers[: last + 1], **predicting(options))
    outputs = explainer.predict(point)
    if outputs.ndim != 2:
        raise ShapeError(f"the outputs are {outputs.shape}, expected (n, classes)")
    index = outputs.argmax(axis=1) if target is None else chosen(target, len(point))
    if not (index.min() >= 0 and index.max() < outputs.shape[1]):
        raise ShapeError(
            f"target goes from {index.min()} to {index.max()}, but there are classes 0 to {outputs.shape[1] - 1}"
        )
    if SENSITIVITY not in maps:
        maps[SENSITIVITY] = sensitivity(layers, point, index, **differentiating(options))
    axis = channel_axis(layers, point.ndim)

    def first(a: Array) -> Array:
        """With the channels first, of which a table has one."""
        return a[:, None] if a.ndim == 2 else np.moveaxis(a, axis, 1)

    images = first(point)
    side = min(size, max(images.shape[2:]))
    numbers = regions(images.shape[2:], side)
    if not numbers.max():
        shape = "×".join(map(str, images.shape[2:]))
        raise InputError(f"size is {size}, and a sample is {shape}: one region has no order; give a smaller size")
    steps = min(steps, int(numbers.max()) + 1)
    scores = {name: region_scores(first(values), numbers) for name, values in maps.items()}
    domain = options.get("domain")
    bounds = None if domain is None else domain_of(domain, layers).bounds(point.shape[1:])
    replace = operator_of(operator, *_range(images, bounds, axis), images)
    draws = repeats if operator in RANDOM else 1

    def follow(n: int, copies: Array) -> Array:
        values = explainer.predict(copies[:, 0] if point.ndim == 2 else np.moveaxis(copies, 1, axis))
        return (softmax(values) if probability else values)[:, index[n]].astype(np.float64)

    most: dict[str, list[Array]] = {name: [] for name in (*maps, RANDOM_ORDER)}
    least: dict[str, list[Array]] = {name: [] for name in (*maps, RANDOM_ORDER)}
    for n, image in enumerate(images):
        rng = np.random.default_rng([seed, n])
        fills = [replace(image, rng).astype(images.dtype) for _ in range(draws)]
        for name, score in scores.items():
            for curves, key in ((most, -score[n]), (least, score[n])):
                order = np.argsort(key, kind="stable")[:steps]
                curves[name].append(_curve(image, numbers, [order] * draws, fills, partial(follow, n)))
        orders = [rng.permutation(int(numbers.max()) + 1)[:steps] for _ in range(repeats)]
        at_random = _curve(image, numbers, orders, [fills[k % draws] for k in range(repeats)], partial(follow, n))
        most[RANDOM_ORDER].append(at_random)
        least[RANDOM_ORDER].append(at_random)
    extent = "×".join([str(side)] * (images.ndim - 2))
    what = f"{extent} regions, {operator if isinstance(operator, str) else 'constant'}"
    return Curves({k: np.array(v) for k, v in most.items()}, {k: np.array(v) for k, v in least.items()}, draws, what)


def pixel_flipping(
    layers: Sequence[Layer],
    x: Any,
    relevance: Mapping[str, Any] | Any,
    target: Any = None,
    *,
    steps: int = 100,
    **options: Any,
) -> Curves:
    """Flip single pixels to their opposite in the domain, x → low + high − x, the most relevant first [1]_.

    It is `region_perturbation` with size 1 and the operator "flip".

    Parameters
    ----------
    layers : sequence of Layer, model or path-like
        The network; its outputs have shape (n, classes).
    x : array_like
        The inputs, of shape ``(n, c, *space)`` or (n, features).
    relevance : array_like or dict of str to array_like
        Maps of x's shape, or several of them by name.
    target : int or array_like of int, optional
        The class that is explained, one for all samples or an array of shape (n,); by default the largest output of
        each sample.
    steps : int, default 100
        The number of pixels that are flipped.
    **options
        As in `region_perturbation`: domain=(low, high), probability, repeats (of the random order), seed, backend,
        precision, n_threads, batch_size, device.

    Returns
    -------
    Curves
        The outputs after each step. Confidence intervals are over samples.

    Raises
    ------
    ShapeError, InputError
        As in `region_perturbation`.

    References
    ----------
    .. [1] Bach et al., "On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance
       propagation", PLOS ONE 10 (2015), doi:10.1371/journal.pone.0130140, the experiment on MNIST.
    """
    return region_perturbation(layers, x, relevance, target, size=1, steps=steps, operator="flip", **options)


def _curve(
    image: Array,
    numbers: NDArray[np.intp],
    orders: list[NDArray[np.intp]],
    fills: list[Array],
    follow: Callable[[Array], Array],
) -> Array:
    """Outputs (L + 1,) of one image, mean over repetitions."""
    steps = len(orders[0])
    blocks = _blocks(_copies(image, numbers, orders, fills), max(1, BYTES // image.nbytes), len(orders) * steps, image)
    outputs = np.concatenate([follow(block) for block in blocks]).reshape(len(orders), steps)
    return np.concatenate((follow(image[None]), outputs.mean(axis=0)))


def _copies(
    image: Array, numbers: NDArray[np.intp], orders: list[NDArray[np.intp]], fills: list[Array]
) -> Iterator[Array]:
    """The image after each step of each repetition."""
    by_region = np.argsort(numbers, axis=None, kind="stable")
    ends = np.cumsum(np.bincount(numbers.ravel()))
    for order, fill in zip(orders, fills, strict=True):
        current = image.copy()
        pixels, values = current.reshape(len(image), -1), fill.reshape(len(image), -1)
        for region in order:
            inside = by_region[(ends[region - 1] if region else 0) : ends[region]]
            pixels[:, inside] = values[:, inside]
            yield current


def _blocks(copies: Iterator[Array], size: int, count: int, image: Array) -> Iterator[Array]:
    """Copies gathered into arrays of at most `size`."""
    for first in range(0, count, size):
        block = np.empty((min(size, count - first), *image.shape), image.dtype)
        for row in block:
            row[...] = next(copies)
        yield block


def _range(images: Array, bounds: Box | None, axis: int) -> tuple[Array, Array]:
    """The lowest and highest value of each element, (c, *space) or broadcastable to it; bounds are of samples, with
    channels along this axis.
    """
    if bounds is not None:
        low, high = (np.moveaxis(b[None], axis, 1).reshape(images.shape[1:]) for b in bounds)
        return low, high
    axes = (0, *range(2, images.ndim))
    low, high = images.min(axis=axes), images.max(axis=axes)
    column = (-1, *(1,) * (images.ndim - 2))
    return low.reshape(column), high.reshape(column)


def softmax(outputs: Array) -> Array:
    """Probabilities (n, classes) of outputs."""
    e = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))
