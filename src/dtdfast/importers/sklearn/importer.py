"""scikit-learn estimators and pipelines as layer lists."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ... import locks
from ...errors import InputError, ModelError
from ...extras import require
from ...layers import INPUT, Layer
from ..check import check_outputs
from ..records import Layers, Refused, Value
from .steps import MODELS, REFUSED, TRANSFORMERS, Steps

T = TypeVar("T")
SAMPLES = 4  # of the example that is made where none is given


def from_sklearn(estimator: Any, example: Any = None) -> list[Layer]:
    """Import a fitted scikit-learn estimator or pipeline, and check the result against it on an example.

    Multi-layer perceptrons and linear models become linear layers and activations. The scalers before them become a
    `Preparation`. Relevance is then that of the scaled values, one number per raw column. It does not change with the
    columns' units, nor with their zero where the scaler centres.

    Parameters
    ----------
    estimator : fitted estimator or Pipeline
        MLPClassifier, MLPRegressor, a linear model or KMeans. Before it may come StandardScaler, MinMaxScaler,
        MaxAbsScaler, RobustScaler, PCA and TruncatedSVD.
    example : array_like of shape (n, n_features), optional
        The input of the check; by default random numbers.

    Returns
    -------
    list of Layer
        The network, named after the pipeline's steps. A classifier's outputs are its decision values (log-odds or
        margins): one per class, or one for two classes. That one is positive for `classes_[1]`, and the last record's
        name says so. Outputs of a MLPRegressor with a Poisson loss, and of a PoissonRegressor and its kin with a
        logarithmic link, are logarithms of what it predicts.

    Raises
    ------
    ModelError
        The estimator is not fitted or has no records (it is named, with the reason), or `predict` differs from it by
        more than 1e-4 of the largest output.
    InputError
        The example does not fit the estimator.
    BackendError
        scikit-learn is not installed.

    Notes
    -----
    Principal components are multiplied into the first layer in float64; their centring is part of the preparation.

    KMeans becomes the network of [1]_. Output c is the minimum over k ≠ c of ‖x − μ_k‖² − ‖x − μ_c‖², which is positive
    for the cluster that x is assigned to. Explained with ``rules="lrp-0"``, R_i = 2 (μ_ci − μ_ki)(x_i − (μ_ci +
    μ_ki)/2) for the nearest competitor k, which sums to the output. This is their rule for the distances, with all of
    the minimum's relevance on the competitor that attains it (their stiffness β → ∞).

    References
    ----------
    .. [1] Kauffmann et al., "From clustering to cluster explanations via neural networks", IEEE TNNLS (2022).

    Examples
    --------
    >>> layers = dtdfast.from_sklearn(make_pipeline(StandardScaler(), MLPClassifier()).fit(x, y))
    >>> relevance = dtdfast.explain(layers, x)  # raw columns: the list scales them
    """
    require("sklearn", "sklearn")
    steps = [_fitted(name, step) for name, step in _steps(estimator)]
    first = steps[0][1]
    last = None if type(steps[-1][1]).__name__ in TRANSFORMERS else steps.pop()
    maps = [(name, _row(name, step, TRANSFORMERS)) for name, step in steps]
    model = None if last is None else _row(*last, MODELS)
    n = int(first.n_features_in_)  # which some that have no row lack
    before = Steps(n)
    for name, affine in maps:
        before.then(name, affine)
    x = before.example(SAMPLES) if example is None else _numbers(example)
    if x.ndim != 2 or x.shape[1] != n or not len(x):
        raise InputError(
            f"example has shape {x.shape}, but the estimator was fitted on {n} features: expected (n, {n})"
        )
    layers, transformed = Layers(len(x)), x
    value = before.prepare(layers, Value(INPUT, (n,)))
    with locks.SHARED, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an array where a table with column names was fitted
        for _, step in steps:
            transformed = step.transform(transformed)
        if last is not None and model is not None:
            name, step = last
            _guarded(name, step, lambda: model.add(layers, value, before.rest, name))
            check_outputs(
                layers.records, x, np.asarray(model.reference(transformed)).reshape(len(x), -1), link=model.link
            )
            return layers.records
        if not before.rest.diagonal:
            before.rest.add(layers, value, steps[-1][0])
    if not layers.records:
        raise ModelError("the pipeline only passes its input on: there is nothing to explain")
    check_outputs(layers.records, x, transformed)
    return layers.records


def _numbers(example: Any) -> Any:
    """An example as floats, which a sparse matrix holds too."""
    try:
        x = np.asarray(example.toarray() if hasattr(example, "toarray") else example, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"example holds no numbers: {error}") from None
    if not np.isfinite(x).all():
        raise InputError("example holds NaN or infinity")
    return x


def _steps(estimator: Any) -> list[tuple[str, Any]]:
    """(name, estimator), pipelines within pipelines taken apart."""
    if type(estimator).__name__ != "Pipeline":
        return [(type(estimator).__name__.lower(), estimator)]
    result: list[tuple[str, Any]] = []
    for name, step in estimator.steps:
        if type(step).__name__ == "Pipeline":
            result.extend((f"{name}.{inner}", s) for inner, s in _steps(step))
        elif step is not None and step != "passthrough":
            result.append((name, step))
    if not result:
        raise ModelError("the pipeline only passes its input on: there is nothing to explain")
    return result


def _fitted(name: str, step: Any) -> tuple[str, Any]:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(step)
    except NotFittedError:
        raise ModelError(f"step {name!r} ({type(step).__name__}) is not fitted; call fit first") from None
    except TypeError:
        raise ModelError(
            f"estimator is a {type(step).__name__}, expected a fitted scikit-learn estimator or pipeline"
        ) from None
    return name, step


def _row(name: str, step: Any, table: dict[str, Callable[[Any], T]]) -> T:
    """What a table makes of a step."""
    kind = type(step).__name__

    def read() -> T:
        if not type(step).__module__.startswith("sklearn."):
            raise Refused("it is not scikit-learn's own, and what it computes is not known")
        if kind not in table:
            there = "scalers and PCA" if table is TRANSFORMERS else "multi-layer perceptrons, linear models and KMeans"
            raise Refused(REFUSED.get(kind, f"it has no record here; {there} have"))
        return table[kind](step)

    return _guarded(name, step, read)


def _guarded(name: str, step: Any, read: Callable[[], T]) -> T:
    try:
        return read()
    except Refused as reason:
        raise ModelError(f"step {name!r} ({type(step).__name__}): {reason}") from None
