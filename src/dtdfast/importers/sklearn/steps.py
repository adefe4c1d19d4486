"""What scikit-learn's transformers and models become: one row per class, one short function per kind. Nothing here
imports sklearn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import layers as L
from ..records import Layers, Refused, Value

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Affine:
    """matrix·x + shift, the matrix as its diagonal (n,) where every column keeps to itself."""

    matrix: Array
    shift: Array

    @classmethod
    def identity(cls, n: int) -> Affine:
        return cls(np.ones(n), np.zeros(n))

    @property
    def diagonal(self) -> bool:
        return self.matrix.ndim == 1

    def then(self, matrix: Array, shift: Array) -> Affine:
        """First this map, then matrix·y + shift."""
        last = matrix if self.diagonal or matrix.ndim == 2 else np.diag(matrix)
        joined = last * self.matrix if self.diagonal else last @ self.matrix
        return Affine(joined, (last @ self.shift if last.ndim == 2 else last * self.shift) + shift)

    def add(self, layers: Layers, x: Value, name: str) -> Value:
        """As a record."""
        if self.diagonal:
            return layers.add(L.Preparation, (x,), name, scale=self.matrix, shift=self.shift)
        return layers.add(L.Linear, (x,), name, weight=self.matrix, bias=self.shift)


class Steps:
    """What the steps before a model do: first to each column (a preparation), then to all of them together."""

    def __init__(self, n: int) -> None:
        self.columns, self.rest = Affine.identity(n), Affine.identity(n)
        self.names: list[str] = []  # of the steps that prepare columns

    def then(self, name: str, maps: tuple[Affine, ...]) -> None:
        for affine in maps:
            if affine.diagonal and self.rest.diagonal:
                self.columns = self.columns.then(affine.matrix, affine.shift)
                self.names.append(name)
            else:
                self.rest = self.rest.then(affine.matrix, affine.shift)

    def prepare(self, layers: Layers, x: Value) -> Value:
        return self.columns.add(layers, x, "+".join(self.names)) if self.names else x

    def example(self, n_samples: int) -> Array:
        """Random samples that are of the order of 1 once they are prepared."""
        prepared = np.random.default_rng(0).standard_normal((n_samples, len(self.columns.shift)))
        return (prepared - self.columns.shift) / np.where(self.columns.matrix == 0, 1, self.columns.matrix)


# ------------------------------------------------------------------------------------------------------- transformers


def _scaler(center: str | None, scale: str) -> Callable[[Any], tuple[Affine, ...]]:
    """(x − center)/scale, read from these attributes; either may be None there."""

    def read(step: Any) -> tuple[Affine, ...]:
        # a StandardScaler knows a mean even where it takes none off
        c = None if center is None or not getattr(step, "with_mean", True) else getattr(step, center)
        s = getattr(step, scale)
        _check_clip(step)
        matrix = np.ones(step.n_features_in_) if s is None else 1 / np.asarray(s, np.float64)
        return (Affine(matrix, np.zeros(len(matrix)) if c is None else -np.asarray(c, np.float64) * matrix),)

    return read


def _check_clip(step: Any) -> None:
    if getattr(step, "clip", False):
        raise Refused("clip=True cuts values off; use clip=False")


def _min_max(step: Any) -> tuple[Affine, ...]:
    _check_clip(step)
    return (Affine(np.asarray(step.scale_, np.float64), np.asarray(step.min_, np.float64)),)


def _components(step: Any) -> tuple[Affine, ...]:
    """PCA, perhaps whitened: its centring, which is of each column, then its components; TruncatedSVD does not
    centre.
    """
    matrix = np.asarray(step.components_, np.float64)
    if getattr(step, "whiten", False):
        matrix = matrix / np.sqrt(np.asarray(step.explained_variance_, np.float64))[:, None]
    components = Affine(matrix, np.zeros(len(matrix)))
    mean = getattr(step, "mean_", None)
    return (
        (components,) if mean is None else (Affine(np.ones(matrix.shape[1]), -np.asarray(mean, np.float64)), components)
    )


def _function(step: Any) -> tuple[Affine, ...]:
    if step.func is not None:
        raise Refused(f"its function is not known; {_BEFORE}")
    return ()


_BEFORE = "transform the data with it first, and import the steps behind it"

TRANSFORMERS: dict[str, Callable[[Any], tuple[Affine, ...]]] = {
    "StandardScaler": _scaler("mean_", "scale_"),
    "RobustScaler": _scaler("center_", "scale_"),
    "MaxAbsScaler": _scaler(None, "scale_"),
    "MinMaxScaler": _min_max,
    "PCA": _components,
    "IncrementalPCA": _components,
    "TruncatedSVD": _components,
    "FunctionTransformer": _function,
}

# ------------------------------------------------------------------------------------------------------------- models


@dataclass(frozen=True)
class Model:
    """What an estimator computes, and how to check it.

    Attributes
    ----------
    add : appends the records to the list, reading a value of which the steps before make an affine map (columns apart,
        none)
    reference : the estimator's own answer
    link : what makes that answer of the records' outputs
    """

    add: Callable[[Layers, Value, Affine, str], Value]
    reference: Callable[[Array], Any]
    link: Callable[[Array], Array] = lambda y: y


HIDDEN: dict[str, tuple[type[L.Layer], dict[str, Any]] | None] = {
    "identity": None,
    "relu": (L.ReLU, {}),
    "tanh": (L.Activation, {"kind": "tanh"}),
    "logistic": (L.Activation, {"kind": "sigmoid"}),
}


def _perceptron(step: Any) -> Model:
    def add(layers: Layers, x: Value, before: Affine, name: str) -> Value:
        for i, (weight, bias) in enumerate(zip(step.coefs_, step.intercepts_, strict=True)):
            if i and (activation := HIDDEN[step.activation]) is not None:
                x = layers.add(activation[0], (x,), None, **activation[1])
            joined = before.then(weight.T.astype(np.float64), bias.astype(np.float64))
            last = i == len(step.coefs_) - 1
            x = joined.add(layers, x, f"{name}.{i}" + (_positive(step, step.n_outputs_) if last else ""))
            before = Affine.identity(*x.shape)
        return x

    if not hasattr(step, "predict_proba"):  # the logarithm of what a Poisson loss is fitted to
        return Model(add, step.predict, np.exp) if step.out_activation_ == "exp" else Model(add, step.predict)
    if step.out_activation_ == "softmax":
        return Model(add, step.predict_proba, _softmax)
    return Model(add, lambda x: step.predict_proba(x)[:, -step.n_outputs_ :], lambda y: np.exp(-np.logaddexp(0, -y)))


def _positive(step: Any, n_outputs: int) -> str:
    """Which class a positive output means, where there is one output for two."""
    classes = getattr(step, "classes_", None)
    if n_outputs > 1 or not isinstance(classes, np.ndarray) or classes.shape != (2,):
        return ""
    return f" (positive: {classes[1]})"


def _softmax(y: Array) -> Array:
    odds = np.exp(y - y.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def _linear(step: Any, parts: Sequence[Any] = (), link: Callable[[Array], Array] = lambda y: y) -> Model:
    """One layer, which has the rows of all `parts` that a model is made of."""
    weights, biases = [], []
    for part in parts or [step]:
        if not isinstance(part.coef_, np.ndarray):
            raise Refused("its coefficients are sparse; call densify first")
        weights.append(np.atleast_2d(np.asarray(part.coef_, np.float64)))
        biases.append(np.broadcast_to(np.asarray(part.intercept_, np.float64), (len(weights[-1]),)))
    weight, bias = np.concatenate(weights), np.concatenate(biases)

    def add(layers: Layers, x: Value, before: Affine, name: str) -> Value:
        return before.then(weight, bias).add(layers, x, name + _positive(step, len(weight)))

    return Model(add, getattr(step, "decision_function", step.predict), link)


def _generalised(step: Any) -> Model:
    """The linear predictor, of which the mean is the exponential or itself."""
    link = getattr(step, "link", "log")
    logarithm = link == "log" or (link == "auto" and step.power > 0)
    return _linear(step, link=np.exp) if logarithm else _linear(step)


def _support_vectors(step: Any) -> Model:
    if step.kernel != "linear":
        raise Refused(_KERNEL)
    if len(getattr(step, "classes_", ())) > 2 and step.decision_function_shape != "ovo":
        raise Refused(
            "its values for several classes are votes of pairs; set decision_function_shape='ovo', or use LinearSVC"
        )
    return _linear(step)


def _parts(step: Any) -> Model:
    """Of estimators of one output each, or of the one that was chosen."""
    parts = step.estimators_ if hasattr(step, "estimators_") else [step.estimator_]
    for part in parts:
        if type(part).__name__ not in LINEAR or not type(part).__module__.startswith("sklearn."):
            raise Refused(f"it holds a {type(part).__name__}; only linear models have a record there")
    return _linear(step, parts)


def _affine(step: Any) -> Model:
    """By its answers at 0 and at the unit vectors."""

    def add(layers: Layers, x: Value, before: Affine, name: str) -> Value:
        n = step.n_features_in_
        y = np.asarray(step.predict(np.eye(n + 1, n, -1)), np.float64).reshape(n + 1, -1)
        return before.then((y[1:] - y[0]).T, y[0]).add(layers, x, name)

    return Model(add, step.predict)


def _k_means(step: Any) -> Model:
    """a_ck = ‖x − μ_k‖² − ‖x − μ_c‖² = Σ_i 2(μ_ci − μ_ki)(x_i − m_cki) with the midpoints m_ck = (μ_c + μ_k)/2; f_c =
    min_k≠c a_ck.

    One group of inputs per pair (c, k), each moved by its midpoint, so that LRP-0 shares a_ck without a bias; the
    minimum is the maximum of −a_ck with the sign turned.
    """
    centers = np.asarray(step.cluster_centers_, np.float64)
    n_clusters, n = centers.shape
    if n_clusters < 2:
        raise Refused("one cluster competes with none")
    pairs = [(c, k) for c in range(n_clusters) for k in range(n_clusters) if k != c]
    away = np.stack([2 * (centers[k] - centers[c]) for c, k in pairs])  # of −a_ck
    middle = np.stack([(centers[c] + centers[k]) / 2 for c, k in pairs])

    def add(layers: Layers, x: Value, before: Affine, name: str) -> Value:
        if not before.diagonal:
            raise Refused("after PCA the midpoints are no longer those of features; cluster the features themselves")
        x = layers.add(L.Reshape, (x,), None, shape=(n, 1))
        x = layers.add(L.Upsample, (x,), f"{name}.pairs", factor=len(pairs))
        x = layers.add(L.Permute, (x,), None, order=(0, 2, 1))
        x = layers.add(L.Flatten, (x,), None)
        x = layers.add(L.Preparation, (x,), f"{name}.midpoints", scale=np.ones(middle.size), shift=-middle.ravel())
        x = layers.add(L.Reshape, (x,), None, shape=(len(pairs) * n, 1))
        x = layers.add(L.Conv, (x,), f"{name}.competition", weight=away[:, :, None], groups=len(pairs))
        x = layers.add(L.Reshape, (x,), None, shape=(n_clusters, n_clusters - 1))
        x = layers.add(L.MaxPool, (x,), f"{name}.minimum", kernel=n_clusters - 1)
        x = layers.add(L.Flatten, (x,), None)
        return layers.add(L.Scale, (x,), f"{name}.sign", scale=-np.ones(n_clusters))

    def reference(x: Array) -> Array:
        squares = step.transform(x) ** 2
        others = np.where(np.eye(n_clusters, dtype=bool), np.inf, squares[:, None, :])  # (n, c, k)
        return np.asarray(others.min(axis=2) - squares)

    return Model(add, reference)


LINEAR = (
    "LogisticRegression", "LogisticRegressionCV", "SGDClassifier", "RidgeClassifier", "RidgeClassifierCV", "LinearSVC",
    "Perceptron",
    "PassiveAggressiveClassifier", "LinearDiscriminantAnalysis", "LinearRegression", "Ridge", "RidgeCV", "Lasso",
    "LassoCV", "LassoLars",
    "LassoLarsCV", "LassoLarsIC", "Lars", "LarsCV", "ElasticNet", "ElasticNetCV", "OrthogonalMatchingPursuit",
    "OrthogonalMatchingPursuitCV", "BayesianRidge", "ARDRegression", "HuberRegressor", "TheilSenRegressor",
    "QuantileRegressor",
    "SGDRegressor", "PassiveAggressiveRegressor", "LinearSVR", "MultiTaskLasso", "MultiTaskLassoCV",
    "MultiTaskElasticNet",
    "MultiTaskElasticNetCV",
)  # fmt: skip

MODELS: dict[str, Callable[[Any], Model]] = {
    **dict.fromkeys(LINEAR, _linear),
    **dict.fromkeys(("MLPClassifier", "MLPRegressor"), _perceptron),
    **dict.fromkeys(("KMeans", "MiniBatchKMeans"), _k_means),
    **dict.fromkeys(("PoissonRegressor", "GammaRegressor", "TweedieRegressor"), _generalised),
    **dict.fromkeys(("SVC", "NuSVC", "SVR", "NuSVR"), _support_vectors),
    **dict.fromkeys(("OneVsRestClassifier", "MultiOutputRegressor", "RANSACRegressor"), _parts),
    **dict.fromkeys(("PLSRegression", "PLSCanonical", "CCA"), _affine),
}

_TREES = (
    "a tree is constant almost everywhere, so that no first-order expansion says anything; explain a multi-layer "
    "perceptron instead"
)
_KERNEL = "its kernel has no record; use LinearSVC, LinearSVR or a multi-layer perceptron"
_SEARCH = "import the model that it found: best_estimator_"
_SELECTION = "choose the columns before the pipeline, and import what follows"

_CURVED = f"what it makes of a column is not a straight line; {_BEFORE}"

REFUSED: dict[str, str] = {
    "OneClassSVM": "its neuralisation (squared distances, then a soft minimum over the support vectors) needs squares "
    "and exponentials, "
    "which have no record; KMeans and multi-layer perceptrons have",
    **{
        f"{kind}{task}": _TREES
        for kind in (
            "DecisionTree",
            "ExtraTree",
            "RandomForest",
            "ExtraTrees",
            "GradientBoosting",
            "HistGradientBoosting",
            "AdaBoost",
        )
        for task in ("Classifier", "Regressor")
    },
    **dict.fromkeys(("GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV"), _SEARCH),
    **dict.fromkeys(
        ("SelectKBest", "SelectPercentile", "SelectFromModel", "VarianceThreshold", "RFE", "RFECV"), _SELECTION
    ),
    **dict.fromkeys(
        ("ColumnTransformer", "FeatureUnion"),
        "it treats columns apart; prepare them first, and import the pipeline after it",
    ),
    "Normalizer": f"it divides by the norm of the very sample; {_BEFORE}",
    **dict.fromkeys(
        ("QuantileTransformer", "PowerTransformer", "SplineTransformer", "KBinsDiscretizer", "Binarizer"), _CURVED
    ),
    **dict.fromkeys(
        ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder", "SimpleImputer", "KNNImputer", "PolynomialFeatures"),
        _BEFORE,
    ),
    "TransformedTargetRegressor": "it transforms the output; import its regressor_",
}
