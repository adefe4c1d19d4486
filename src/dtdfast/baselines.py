"""What a Deep Taylor map is compared with: gradients and what is made of them, through the same kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays.checks import as_array, host_array
from .arrays.foreign import take
from .errors import ShapeError
from .explainer import Explainer
from .layers import INPUT, Embedding, Given, Layer
from .options import OF_RULES, predicting, split
from .plan.program import GRADIENT
from .plan.wiring import sources

Array = NDArray[Any]


def gradient(layers: Sequence[Layer], x: Any, target: Any = None, **options: Any) -> Any:
    """The gradient ∂f/∂x of the targeted outputs, with ReLU'(0) = 0; of words, summed over each vector.

    Parameters
    ----------
    layers : sequence of Layer
        The network.
    x : array_like
        The inputs, as `explain` takes them.
    target : int, tuple, array_like or None, default None
        As in `dtdfast.explain`. A float start is multiplied with the Jacobian from the left.
    **options
        Options of `dtdfast.Explainer`: backend, batch_size, n_threads, device, start, stop; and what the network's
        Givens are called, as in `dtdfast.explain`.

    Returns
    -------
    array
        Of x's shape, or ``(n, t, *x.shape[1:])`` for several targets; of x's kind.

    Raises
    ------
    LayerError
        The network holds an LRN, which has no gradient here.
    InputError
        An option is given that says how relevance is shared, such as rules.
    """
    known, given = split(options, *OF_RULES)
    return Explainer(layers, kind=GRADIENT, **known).explain(x, target, **given)


def input_x_gradient(layers: Sequence[Layer], x: Any, target: Any = None, **options: Any) -> Any:
    """Gradient × input: x ⊙ ∂f/∂x; of words, vectors ⊙ gradients, summed over each vector.

    On ReLU networks it equals LRP-0 with the bias in the denominator [1]_.

    Parameters
    ----------
    layers : sequence of Layer
        The network.
    x : array_like
        The inputs, as `explain` takes them.
    target : int, tuple, array_like or None, default None
        As in `dtdfast.explain`.
    **options
        Options of `dtdfast.Explainer`: backend, batch_size, n_threads, device, start, stop; and what the network's
        Givens are called, as in `dtdfast.explain`.

    Returns
    -------
    array
        Of x's shape, or ``(n, t, *x.shape[1:])`` for several targets; of x's kind.

    Raises
    ------
    LayerError
        The network holds an LRN, which has no gradient here.

    References
    ----------
    .. [1] Ancona et al., "Towards better understanding of gradient-based attribution methods for deep neural networks",
       arXiv:1711.06104, proposition 1.
    """
    host, home = take(x)
    array = as_array(host)
    if maps := [_at(layers, host, target, p, options).sum(axis=-1) for p in _of_words(layers, options)]:
        return home.of_inputs(sum(maps[1:], maps[0]))
    if options.get("stop") is not None:
        return home.give(_at(layers, host, target, options["stop"], options))
    g = gradient(layers, array, target, **options)
    return home.of_inputs(_over_targets(array, g) * g)


def _of_words(layers: Sequence[Layer], options: dict[str, Any]) -> list[int]:
    """The Embeddings of words, which stand for them; none where maps stop elsewhere, or the inputs are no words."""
    if options.get("stop") is not None:
        return []
    reads = sources(layers)
    return [p for p, record in enumerate(layers) if isinstance(record, Embedding) and INPUT in reads[p]]


def _at(layers: Sequence[Layer], x: Any, target: Any, stop: int, options: dict[str, Any], root: Any = None) -> Array:
    """Value × gradient at an entry; with a root, (value − the root's value) × the gradient there."""
    g = gradient(layers, x if root is None else root, target, **{**options, "stop": stop})
    values = _values(layers, x, stop, options)
    if root is not None:
        values = values - _values(layers, root, stop, options)
    product: Array = _over_targets(values, g) * g
    return product


def _values(layers: Sequence[Layer], x: Any, stop: int, options: dict[str, Any]) -> Array:
    below, (known, given) = layers[: stop + 1], split(options)
    names = {record.name for record in below if isinstance(record, Given)}
    explainer = Explainer(below, **predicting(known))
    return np.asarray(explainer.predict(x, **{key: value for key, value in given.items() if key in names}))


def sensitivity(layers: Sequence[Layer], x: Any, target: Any = None, **options: Any) -> Any:
    """Sensitivity analysis: (∂f/∂x)² [1]_; of words, the squared length of each vector's gradient [2]_.

    Parameters
    ----------
    layers : sequence of Layer
        The network.
    x : array_like
        The inputs, as `explain` takes them.
    target : int, tuple, array_like or None, default None
        As in `dtdfast.explain`.
    **options
        Options of `dtdfast.Explainer`: backend, batch_size, n_threads, device, start, stop; and what the network's
        Givens are called, as in `dtdfast.explain`.

    Returns
    -------
    array
        Of x's shape, or ``(n, t, *x.shape[1:])`` for several targets; of x's kind.

    Raises
    ------
    LayerError
        The network holds an LRN, which has no gradient here.

    References
    ----------
    .. [1] Montavon et al., "Explaining nonlinear classification decisions with deep Taylor decomposition",
       arXiv:1512.02479, section 2.
    .. [2] Arras et al., "Explaining predictions of non-linear classifiers in NLP", arXiv:1606.07298.
    """
    places = _of_words(layers, options)
    maps = [(gradient(layers, x, target, **{**options, "stop": p}) ** 2).sum(axis=-1) for p in places]
    if not maps:
        return gradient(layers, x, target, **options) ** 2
    total = sum(maps[1:], maps[0])
    return take(x)[1].of_inputs(total) if isinstance(total, np.ndarray) else total


def simple_taylor(layers: Sequence[Layer], x: Any, root: Any, target: Any = None, **options: Any) -> Any:
    """The Taylor decomposition of the whole network at a root point x̃: (x − x̃) ⊙ ∂f/∂x, the gradient at x̃ [1]_.

    Of words it is that of their vectors, summed over each vector.

    Parameters
    ----------
    layers : sequence of Layer
        The network.
    x : array_like
        The inputs, as `explain` takes them.
    root : array_like
        The root points, of x's shape.
    target : int, tuple, array_like or None, default None
        As in `dtdfast.explain`.
    **options
        Options of `dtdfast.Explainer`: backend, batch_size, n_threads, device, start, stop; and what the network's
        Givens are called, as in `dtdfast.explain`.

    Returns
    -------
    array
        Of x's shape, or ``(n, t, *x.shape[1:])`` for several targets; of x's kind.

    Raises
    ------
    ShapeError
        The root points are not of x's shape.
    LayerError
        The network holds an LRN, which has no gradient here.

    References
    ----------
    .. [1] Montavon et al., "Explaining nonlinear classification decisions with deep Taylor decomposition",
       arXiv:1512.02479, eq. 3.
    """
    host, home = take(x)
    point = as_array(host)
    origin = host_array(root, "root")
    if origin.shape != point.shape:
        raise ShapeError(f"root has shape {origin.shape}, expected x's shape {point.shape}")
    places = _of_words(layers, options)
    if maps := [_at(layers, point, target, p, options, origin).sum(axis=-1) for p in places]:
        return home.of_inputs(sum(maps[1:], maps[0]))
    if (stop := options.get("stop")) is not None:
        return home.give(_at(layers, point, target, stop, options, origin))
    g = gradient(layers, origin, target, **options)
    return home.of_inputs(_over_targets(np.subtract(point, origin, dtype=np.float64), g) * g)


def _over_targets(x: Array, g: Array) -> Array:
    return (x if g.ndim == x.ndim else x[:, None]).astype(g.dtype)
