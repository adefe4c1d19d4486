"""scikit-learn estimators and pipelines as layer lists."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ...errors import InputError, ModelError
from ...extras import require
from ...layers import INPUT, Layer
from ..check import check_outputs
from ..records import Layers, Refused, Value
from .steps import MODELS, REFUSED, TRANSFORMERS, Steps

T = TypeVar("T")
SAMPLES = 4  # of the example that is made where none is given


def from_sklearn(estimator: Any, example: Any = None) -> list[Layer]:
    """A fitted scikit-learn estimator or pipeline as a list of records, checked against it on an example.

    Multi-layer perceptrons and linear models become linear layers and activations. What scalers before them do to each
    column is a `Preparation`: relevance is that of the scaled values, one number per raw column, and does not change
    with the columns' units (nor with their zero, where the scaler centres). Principal components are multiplied into
    the first layer in float64, their centring is part of the preparation. A classifier's outputs are its decision
    values (log-odds or margins), one per class, or one where there are two: positive for `classes_[1]`, which the last
    record's name says.

    KMeans becomes the network of Kauffmann et al., From Clustering to Cluster Explanations via Neural Networks (IEEE
    TNNLS 2022): output c is the minimum over k ≠ c of ‖x − μ_k‖² − ‖x − μ_c‖², positive for the cluster that x is
    assigned to. Explained with ``rules="lrp-0"``, R_i = 2 (μ_ci − μ_ki)(x_i − (μ_ci + μ_ki)/2) for the nearest
    competitor k, which sums to the output: their rule for the distances, with all of the minimum's relevance on the
    competitor that attains it (their stiffness β → ∞).

    Parameters
    ----------
    estimator : fitted estimator or Pipeline
        MLPClassifier, MLPRegressor, a linear model or KMeans; before it StandardScaler, MinMaxScaler, MaxAbsScaler,
        RobustScaler, PCA, TruncatedSVD.
    example : array (n, n_features), optional
        The input of the check; random numbers where it is left out.

    Returns
    -------
    layers : list of Layer
        Named after the pipeline's steps.

    Raises
    ------
    ModelError
        For an estimator that is not fitted or has no records (named, with the reason), or where `predict` differs from
        the estimator by more than 1e-4 of the largest output.
    InputError
        Where the example does not fit the estimator.
    BackendError
        Where scikit-learn is not installed.

    Examples
    --------
    >>> layers = dtdfast.from_sklearn(make_pipeline(StandardScaler(), MLPClassifier()).fit(x, y))
    """
    require("sklearn", "sklearn")
    steps = [_fitted(name, step) for name, step in _steps(estimator)]
    n = int(steps[0][1].n_features_in_)
    before, last = Steps(n), None if type(steps[-1][1]).__name__ in TRANSFORMERS else steps.pop()
    for name, step in steps:
        before.then(name, _row(name, step, TRANSFORMERS))
    x = before.example(SAMPLES) if example is None else np.asarray(example, np.float64)
    if x.ndim != 2 or x.shape[1] != n or not len(x):
        raise InputError(
            f"example has shape {x.shape}, but the estimator was fitted on {n} features: expected (n, {n})"
        )
    layers, transformed = Layers(len(x)), x
    value = before.prepare(layers, Value(INPUT, (n,)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an array where a table with column names was fitted
        for _, step in steps:
            transformed = step.transform(transformed)
        if last is not None:
            name, step = last
            model = _row(name, step, MODELS)
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
