"""What the comparisons of maps compare: anything with the signature of `dtdfast.explain`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import host_array
from ..calls import explain
from ..errors import InputError, ShapeError, TargetError
from ..explainer import Explainer
from ..layers import Given, Layer
from ..options import Options, predicting, split

Array = NDArray[Any]
Attribution = Callable[..., Array]
"""(layers, x, start, **options) → maps: `dtdfast.explain`, a function of `dtdfast.baselines`, or your own.

`start` is floats (n, classes), or (n, t, classes) for t maps of each sample, (n, t, *x.shape[1:]): 1 at the class, 0
elsewhere.
"""


def explained(layers: list[Layer], options: dict[str, Any]) -> list[Layer]:
    """The network up to the entry where relevance starts."""
    start = options.get("start")
    if isinstance(start, (int, np.integer)) and start >= 0:  # another is refused by what explains
        return layers[: start + 1]
    return layers


def classes(layers: list[Layer], x: Any, target: Any, options: dict[str, Any]) -> tuple[NDArray[np.intp], int]:
    """The class that is explained of each sample, and the number of classes, at the entry where relevance starts; None:
    the largest output.
    """
    known, given = split(options)
    cut = explained(layers, known)
    if cut is not layers:
        names = {record.name for record in cut if isinstance(record, Given)}
        given = {name: values for name, values in given.items() if name in names}
    outputs = Explainer(cut, **predicting(known)).predict(x, **given)
    if outputs.ndim != 2:
        raise ShapeError(f"the outputs are {outputs.shape}, expected (n, classes)")
    index = outputs.argmax(axis=1) if target is None else chosen(target, len(outputs))
    if index.size and not (index.min() >= 0 and index.max() < outputs.shape[1]):
        raise ShapeError(
            f"target goes from {index.min()} to {index.max()}, but there are classes 0 to {outputs.shape[1] - 1}"
        )
    return index, outputs.shape[1]


def chosen(target: Any, n: int, name: str = "target") -> NDArray[np.intp]:
    """One class for each of n samples, of one class or of n of them."""
    array = host_array(target, name, TargetError)
    fits = array.dtype.kind in "iu" and array.shape in ((), (1,), (n,))
    if not fits or array.max() > np.iinfo(np.intp).max:
        raise TargetError(f"{name} is {target!r:.60}, expected one class, or one for each of {n} samples")
    return np.broadcast_to(array.astype(np.intp), (n,))


def one_hot(index: NDArray[np.intp], n_classes: int) -> Array:
    """Relevance 1 at a class, so that a map does not hang on the sign of its output."""
    return np.eye(n_classes, dtype=np.float32)[index]


def given_by(attribution: Any) -> None:
    """InputError where nothing can make maps."""
    if not callable(attribution):
        raise InputError(f"attribution is {attribution!r:.60}, expected a callable (layers, x, start, **options)")


def maps_by(attribution: Attribution, layers: Sequence[Layer], x: Any, start: Array, options: dict[str, Any]) -> Array:
    """The maps that `start` asks for; ShapeError where they are others, or not so many."""
    maps: Array = np.asarray(attribution(layers, x, start, **options))
    if maps.shape[: start.ndim - 1] != start.shape[:-1]:
        expected = ", ".join(map(str, start.shape[:-1]))
        raise ShapeError(
            f"the maps of {name_of(attribution, options)} have shape {maps.shape} for a start of {start.shape}, "
            f"expected ({expected}, ...): one map for each class of each sample"
        )
    return maps


def name_of(attribution: Attribution, options: dict[str, Any]) -> str:
    """How tables call it."""
    if attribution is explain:
        rules = options.get("rules", Options.rules)
        return rules if isinstance(rules, str) else str(rules)
    return getattr(attribution, "__name__", str(attribution)).replace("_", " ")
