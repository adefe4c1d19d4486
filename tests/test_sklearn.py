"""from_sklearn: estimators against themselves, folded scalers, neuralised KMeans against its closed form, and what is
refused.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn import (
    cluster,
    cross_decomposition,
    decomposition,
    discriminant_analysis,
    ensemble,
    feature_extraction,
    feature_selection,
    linear_model,
    model_selection,
    multiclass,
    multioutput,
    neighbors,
    svm,
)
from sklearn import preprocessing as pre
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline

import dtdfast as dtd
from dtdfast.importers.sklearn import importer
from support import kinds

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 7)) * np.array([1, 2, 3, 1, 0.1, 5, 1]) + np.array([0, 3, -2, 1, 0, 0, 10])
SIGNAL = (X - X.mean(0)) / X.std(0)
TWO, THREE = (SIGNAL[:, 0] > 0).astype(int), np.argmax(SIGNAL[:, :3], axis=1)
NUMBERS = SIGNAL @ RNG.standard_normal((7, 2))


def fit(estimator: Any, y: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few steps are enough: only the weights are wanted
        warnings.simplefilter("ignore", FutureWarning)
        return estimator.fit(X, y)


def perceptron(**options: Any) -> MLPClassifier:
    return MLPClassifier(**{"hidden_layer_sizes": (6, 5), "max_iter": 5, "random_state": 0, **options})


ESTIMATORS: dict[str, tuple[Any, Any, str]] = {
    "MLPClassifier": (perceptron(), THREE, "Linear ReLU Linear ReLU Linear"),
    "MLPClassifier, two classes": (perceptron(activation="tanh", hidden_layer_sizes=(4,)), TWO, "Linear tanh Linear"),
    "MLPClassifier, labels": (perceptron(activation="logistic", hidden_layer_sizes=(4,)), NUMBERS > 0,
    "Linear sigmoid Linear"),
    "MLPRegressor": (MLPRegressor(hidden_layer_sizes=6, activation="identity", max_iter=5, random_state=0), NUMBERS,
    "Linear Linear"),
    "MLPRegressor, one number": (MLPRegressor(hidden_layer_sizes=6, max_iter=5, random_state=0), NUMBERS[:, 0],
    "Linear ReLU Linear"),
    "LogisticRegression": (linear_model.LogisticRegression(), THREE, "Linear"),
    "LogisticRegression, two classes": (linear_model.LogisticRegression(), TWO, "Linear"),
    "LinearSVC": (svm.LinearSVC(), THREE, "Linear"),
    "LinearDiscriminantAnalysis": (discriminant_analysis.LinearDiscriminantAnalysis(), THREE, "Linear"),
    "Ridge": (linear_model.Ridge(), NUMBERS, "Linear"),
    "LinearRegression without intercept": (linear_model.LinearRegression(fit_intercept=False), NUMBERS[:, 0], "Linear"),
    "PoissonRegressor": (linear_model.PoissonRegressor(), np.exp(NUMBERS[:, 0]), "Linear"),
    "GammaRegressor": (linear_model.GammaRegressor(), np.exp(NUMBERS[:, 0]), "Linear"),
    "TweedieRegressor": (linear_model.TweedieRegressor(power=1.5), np.exp(NUMBERS[:, 0]), "Linear"),
    "TweedieRegressor, linear": (linear_model.TweedieRegressor(power=0), NUMBERS[:, 0], "Linear"),
    "SVC": (svm.SVC(kernel="linear"), TWO, "Linear"),
    "SVC, pairs": (svm.SVC(kernel="linear", decision_function_shape="ovo"), THREE, "Linear"),
    "NuSVR": (svm.NuSVR(kernel="linear"), NUMBERS[:, 0], "Linear"),
    "OneVsRestClassifier": (multiclass.OneVsRestClassifier(linear_model.LogisticRegression()), THREE, "Linear"),
    "MultiOutputRegressor": (multioutput.MultiOutputRegressor(linear_model.Lasso(0.01)), NUMBERS, "Linear"),
    "RANSACRegressor": (linear_model.RANSACRegressor(random_state=0), NUMBERS[:, 0], "Linear"),
    **{name: (getattr(cross_decomposition, name)(2), NUMBERS, "Linear")
       for name in ("PLSRegression", "PLSCanonical", "CCA")},
    "StandardScaler": (make_pipeline(pre.StandardScaler(), perceptron()), THREE, ("Preparation Linear ReLU Linear ReLU "
    "Linear")),
    "StandardScaler, half": (make_pipeline(pre.StandardScaler(with_mean=False), linear_model.Ridge()), NUMBERS,
    "Preparation Linear"),
    "MinMaxScaler": (make_pipeline(pre.MinMaxScaler((-1, 2)), linear_model.Lasso(0.01)), NUMBERS[:, 0],
    "Preparation Linear"),
    "MaxAbsScaler": (make_pipeline(pre.MaxAbsScaler(), linear_model.Ridge()), NUMBERS, "Preparation Linear"),
    "RobustScaler": (make_pipeline(pre.RobustScaler(), linear_model.Ridge()), NUMBERS, "Preparation Linear"),
    "PCA between scalers": (
        make_pipeline(pre.StandardScaler(), decomposition.PCA(3, whiten=True), pre.RobustScaler(with_scaling=False),
            perceptron()),
        THREE,
        "Preparation Linear ReLU Linear ReLU Linear",
    ),
    "PCA alone": (make_pipeline(decomposition.PCA(3), linear_model.Ridge()), NUMBERS, "Preparation Linear"),
    "TruncatedSVD": (make_pipeline(decomposition.TruncatedSVD(3), linear_model.Ridge()), NUMBERS, "Linear"),
    "a pipeline in a pipeline": (
        make_pipeline(make_pipeline(pre.StandardScaler(), pre.MinMaxScaler()), "passthrough", linear_model.Ridge()),
        NUMBERS,
        "Preparation Linear",
    ),
    "a function that passes": (make_pipeline(pre.FunctionTransformer(), linear_model.Ridge()), NUMBERS, "Linear"),
    "transformers alone": (make_pipeline(pre.StandardScaler(), pre.MinMaxScaler()), None, "Preparation"),
    "components alone": (make_pipeline(pre.StandardScaler(), decomposition.PCA(2)), None, "Preparation Linear"),
}  # fmt: skip


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators(name: str) -> None:
    estimator, y, expected = ESTIMATORS[name]
    layers = dtd.from_sklearn(fit(estimator, y))
    assert kinds(layers) == expected
    assert kinds(dtd.from_sklearn(estimator, X[:3])) == expected


def test_outputs_are_decision_values_of_scaled_columns() -> None:
    model = fit(make_pipeline(pre.StandardScaler(), linear_model.LogisticRegression()), THREE)
    scaler, layer = layers = dtd.from_sklearn(model)
    np.testing.assert_array_equal(layer.weight, model[1].coef_)
    terms = np.abs(model[0].transform(X)) @ np.abs(layer.weight.T) + np.abs(layer.bias)
    bound = 10 * 2.0**-24 * terms  # float32: x, w and b rounded, 7 products, 7 sums; γ_10 holds the longest chain
    assert (np.abs(dtd.predict(layers, X) - model.decision_function(X)) <= bound).all()
    assert (scaler.name, layer.name) == ("standardscaler", "logisticregression")
    x, (low, high) = X[:5], (np.minimum(X.min(0), 0), np.maximum(X.max(0), 0))
    ledger = dtd.Explainer(layers, domain=(low, high)).ledger(x)
    assert ledger.closed, ledger


def test_the_last_record_says_what_a_positive_output_means() -> None:
    names = np.array(["benign", "malignant"])[TWO]
    models = (linear_model.LogisticRegression(), svm.LinearSVC(), perceptron(hidden_layer_sizes=(4,)))
    assert all(dtd.from_sklearn(fit(model, names))[-1].name.endswith(" (positive: malignant)") for model in models)
    assert "positive" not in dtd.from_sklearn(fit(linear_model.LogisticRegression(), THREE))[-1].name
    assert "positive" not in dtd.from_sklearn(fit(linear_model.Ridge(), NUMBERS))[-1].name
    for model in (perceptron(), linear_model.RidgeClassifier()):  # two outputs, of which each has two classes
        assert "positive" not in dtd.from_sklearn(fit(model, NUMBERS > 0))[-1].name


def test_outputs_are_logarithms_under_a_poisson_loss() -> None:
    pytest.importorskip("sklearn", "1.7", "scikit-learn has loss='poisson' from 1.7 on")
    model = fit(MLPRegressor(hidden_layer_sizes=6, max_iter=5, random_state=0), np.exp(SIGNAL[:, 0]))
    expected = model.predict(X)
    model.out_activation_ = "exp"  # as loss="poisson" sets it
    np.testing.assert_allclose(dtd.predict(dtd.from_sklearn(model), X)[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_no_warning_on_import() -> None:
    """Columns of any units: the example of the check is of the order of the training data."""
    units = np.array([1e-9, 1e9, 1, 1e-6, 1e6, 1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for y in (TWO, THREE, NUMBERS > 0):
            model = make_pipeline(pre.StandardScaler(), perceptron())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(X * units, y)
            dtd.from_sklearn(model)


# ---------------------------------------------------------------------------------------------------- units and zeros

CENTRED = {  # scalers, and whether they take the columns' zero away
    "StandardScaler": (pre.StandardScaler(), True),
    "StandardScaler, half": (pre.StandardScaler(with_mean=False), False),
    "MinMaxScaler": (pre.MinMaxScaler((-1, 2)), True),
    "MaxAbsScaler": (pre.MaxAbsScaler(), False),
    "RobustScaler": (pre.RobustScaler(), True),
    "two of them": (make_pipeline(pre.RobustScaler(), pre.MinMaxScaler()), True),
}
OFFSETS = np.array([0, 273.15, 0, -1e4, 0, 32, 1e3])


UNITS = 2.0 ** np.array([-20, 20, 0, -7, 3, 0, 1])  # powers of two, so that fitting finds the same weights


@cache
def fitted(name: str) -> tuple[list[dtd.Layer], list[dtd.Layer]]:
    """A perceptron behind this scaler, fitted on the columns and on the columns in other units.

    On the mean of the training data as it comes, so that float64 alone tells the two apart; lbfgs has no random order
    of samples.
    """
    made = []
    for x in (X, X * UNITS):
        regressor = MLPRegressor(hidden_layer_sizes=6, solver="lbfgs", max_iter=20, random_state=0, alpha=0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            made.append(dtd.from_sklearn(make_pipeline(CENTRED[name][0], regressor).fit(x, NUMBERS[:, 0])))
    return made[0], made[1]


def shares(layers: list[dtd.Layer], x: Any, **options: Any) -> Any:
    """(prediction, relevance of each column over the sum of their sizes)."""
    r = dtd.explain(layers, x, **options)
    return dtd.predict(layers, x), r / np.maximum(np.abs(r).sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)


@pytest.mark.parametrize("rules", ["dtd", "lrp-0", "lrp-epsilon", "epsilon-plus", dtd.ZPlus(), dtd.Gamma()])
@pytest.mark.parametrize("name", CENTRED)
def test_shares_do_not_change_with_units_and_zeros(name: str, rules: Any) -> None:
    layers, other = fitted(name)
    y, expected = shares(layers, X, rules=rules)
    moved, found = shares(other, X * UNITS, rules=rules)
    np.testing.assert_allclose(moved, y, rtol=0, atol=1e-5 * np.abs(y).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    if CENTRED[name][1]:
        # the very weights: another zero changes the last bits of the fit
        start = np.ones((len(X), 1))
        with_zero = dtd.Preparation(layers[0].scale, layers[0].shift - OFFSETS * layers[0].scale)
        there = dtd.explain([with_zero, *layers[1:]], X + OFFSETS, start, rules=rules)
        here = dtd.explain(layers, X, start, rules=rules)
        np.testing.assert_allclose(there, here, rtol=0, atol=1e-5 * np.abs(here).sum(axis=1).min())


def test_a_linear_model_is_shared_about_the_scaler_s_zero() -> None:
    """With the preset "dtd", R = w·(x − mean)/σ (up to ε): what the output has more than at the mean."""
    model = fit(make_pipeline(pre.StandardScaler(), linear_model.Ridge()), NUMBERS)
    expected = model[-1].coef_[0] * model[0].transform(X)
    outputs = model.predict(X)[:, :1]
    found = dtd.explain(dtd.from_sklearn(model), X, 0, backend="oracle")
    # R_i = w_i x_i · y/(y + 1e-6 sgn y): off by no more than 1e-6/|y| of itself
    assert (np.abs(found - expected) <= 1.1e-6 / np.abs(outputs) * np.abs(expected) + 1e-12).all()


def test_the_preset_of_prepared_columns() -> None:
    """ε by default, what was asked for otherwise."""
    layers = dtd.from_sklearn(fit(make_pipeline(pre.MinMaxScaler(), perceptron()), THREE))
    x = np.abs(X)
    default = dtd.explain(layers, x)
    np.testing.assert_array_equal(default, dtd.explain(layers, x, rules="lrp-epsilon"))
    first = {"rules": {1: dtd.ZPlus()}}
    kept = dtd.Explainer(layers, domain="nonnegative").plan_for(x.shape)
    assert [u.row.label for u in kept.program.network.units if hasattr(u, "row")] == ["ZPlus", "ZPlus", "ZPlusBySign"]
    mixed = dtd.Explainer(layers, **first).plan_for(x.shape)
    assert [u.row.label for u in mixed.program.network.units if hasattr(u, "row")] == ["ZPlus", "Epsilon", "Epsilon"]
    assert "WSquare" in str(dtd.Explainer(layers[1:]).plan_for(x.shape))


def test_a_preparation_is_of_the_input_and_keeps_its_digits() -> None:
    weight = np.array([[1.0, -2.0]])
    with pytest.raises(dtd.LayerError, match="a Preparation prepares the network's input, but"):
        dtd.explain([dtd.Linear(np.eye(2)), dtd.Preparation(np.ones(2))], np.ones((1, 2)))
    far = 2.0**30  # where float32 has steps of 128
    layers = [dtd.Preparation(np.ones(2), np.full(2, -far)), dtd.Linear(weight)]
    x = far + np.array([[3.0, 0.25]])
    np.testing.assert_array_equal(dtd.predict(layers, x), [[2.5]])
    np.testing.assert_array_equal(dtd.explain(layers, x, rules="lrp-0"), [[3.0, -0.5]])
    assert "float64 up to entry 0" in str(dtd.Explainer(layers).plan_for((1, 2)))


# ----------------------------------------------------------------------------------------------------------------
# KMeans


def competition(model: Any, z: Any) -> tuple[Any, Any]:
    """(outputs, relevance of the assigned cluster) in closed form, of prepared samples z."""
    centers = model.cluster_centers_
    squares = ((z[:, None, :] - centers) ** 2).sum(-1)
    outputs, relevance = np.empty_like(squares), np.empty_like(z)
    for n, row in enumerate(squares):
        for c in range(len(centers)):
            k = min((k for k in range(len(centers)) if k != c), key=lambda k: row[k])
            outputs[n, c] = row[k] - row[c]
            if c == row.argmin():
                relevance[n] = 2 * (centers[c] - centers[k]) * (z[n] - (centers[c] + centers[k]) / 2)
    return outputs, relevance


def distances(position: int, record: dtd.Layer) -> dtd.Rule | None:
    """LRP-0 of the distances to the midpoints, whose shift takes no relevance."""
    return (
        dtd.Pass()
        if isinstance(record, dtd.Scale)
        else dtd.Zero()
        if isinstance(record, (dtd.Conv, dtd.Linear))
        else None
    )


@pytest.mark.parametrize("n_clusters", [2, 5])
@pytest.mark.parametrize("scaled", [False, True])
def test_k_means(n_clusters: int, scaled: bool) -> None:
    model = cluster.KMeans(n_clusters, n_init=1, random_state=0)
    model = make_pipeline(pre.StandardScaler(), model) if scaled else make_pipeline(model)
    layers = dtd.from_sklearn(fit(model, None))
    prepared = model[:-1].transform(X) if scaled else X
    outputs, relevance = competition(model[-1], prepared)
    np.testing.assert_allclose(
        dtd.predict(layers, X, backend="oracle"), outputs, rtol=0, atol=1e-12 * np.abs(outputs).max()
    )
    assert (dtd.predict(layers, X).argmax(1) == model.predict(X)).all()
    explainer = dtd.Explainer(layers, rules=distances, backend="oracle")
    np.testing.assert_allclose(explainer.explain(X), relevance, rtol=0, atol=1e-12 * np.abs(relevance).max())
    np.testing.assert_allclose(relevance.sum(1), outputs.max(1), rtol=0, atol=1e-12 * np.abs(relevance).max())
    ledger = dtd.Explainer(layers, rules=distances).ledger(X)
    assert ledger.closed, ledger
    np.testing.assert_array_less(np.abs(ledger.end - ledger.start), ledger.bound)


# ----------------------------------------------------------------------------------------------------------- refusals


class Own(linear_model.Ridge):
    pass


REFUSALS: dict[str, tuple[Callable[[], Any], str]] = {
    "OneClassSVM": (lambda: fit(svm.OneClassSVM(), None),
    r"\(OneClassSVM\): its neuralisation .* squares and exponentials"),
    "kernel": (lambda: fit(svm.SVC(), TWO), r"step 'svc' \(SVC\): its kernel has no record; use LinearSVC"),
    "forest": (lambda: fit(ensemble.RandomForestClassifier(2), TWO), "a tree is constant almost everywhere"),
    "search": (
        lambda: fit(model_selection.GridSearchCV(linear_model.Ridge(), {"alpha": [1, 2]}, cv=2), NUMBERS),
        "import the model that it found: best_estimator_",
    ),
    "selection": (
        lambda: fit(make_pipeline(feature_selection.SelectKBest(k=3), linear_model.Ridge()), TWO),
        r"step 'selectkbest' \(SelectKBest\): choose the columns before",
    ),
    "norms": (lambda: fit(make_pipeline(pre.Normalizer(), linear_model.Ridge()), NUMBERS), ("the norm of the very "
    "sample")),
    "quantiles": (
        lambda: fit(make_pipeline(pre.QuantileTransformer(n_quantiles=9), linear_model.Ridge()), NUMBERS),
        r"\(QuantileTransformer\): what it makes of a column is not a straight line; transform the data with it first",
    ),
    "powers": (lambda: fit(make_pipeline(pre.PowerTransformer(), linear_model.Ridge()), NUMBERS),
    r"\(PowerTransformer\): what it makes"),
    "words": (
        lambda: make_pipeline(feature_extraction.text.TfidfVectorizer(), linear_model.LogisticRegression()).fit(
            ["a dog", "my cat"], [0, 1]
        ),
        r"step 'tfidfvectorizer' \(TfidfVectorizer\): it has no record here",
    ),
    "a function": (
        lambda: fit(make_pipeline(pre.FunctionTransformer(np.exp), linear_model.Ridge()), NUMBERS),
        r"\(FunctionTransformer\): its function is not known",
    ),
    "the same function": (lambda: fit(pre.FunctionTransformer(), None), "there is nothing to explain"),
    "clipping": (lambda: fit(make_pipeline(pre.MinMaxScaler(clip=True), linear_model.Ridge()), NUMBERS),
    "clip=True cuts values off"),
    "unknown": (lambda: fit(neighbors.KNeighborsRegressor(), NUMBERS),
    r"\(KNeighborsRegressor\): it has no record here; multi-layer"),
    "votes": (lambda: fit(svm.SVC(kernel="linear"), THREE), "votes of pairs; set decision_function_shape='ovo'"),
    "trees within": (lambda: fit(multiclass.OneVsRestClassifier(ensemble.RandomForestClassifier(2)), THREE),
    "it holds a RandomForestClassifier; only linear"),
    "unknown transformer": (
        lambda: fit(make_pipeline(decomposition.FactorAnalysis(2), linear_model.Ridge()), NUMBERS),
        r"\(FactorAnalysis\): it has no record here; scalers and PCA have",
    ),
    "powers of columns": (
        lambda: fit(make_pipeline(pre.PolynomialFeatures(), linear_model.Ridge()), NUMBERS),
        r"\(PolynomialFeatures\): transform the data with it first, and import the steps behind it",
    ),
    "own class": (lambda: fit(Own(), NUMBERS), r"step 'own' \(Own\): it is not scikit-learn's own"),
    "components, clustered": (
        lambda: fit(make_pipeline(decomposition.PCA(2), cluster.KMeans(2, n_init=1)), None),
        "cluster the features themselves",
    ),
    "one cluster": (lambda: fit(cluster.KMeans(1, n_init=1), None), "one cluster competes with none"),
    "sparse": (lambda: fit(linear_model.LogisticRegression(), TWO).sparsify(), "call densify first"),
    "not fitted": (linear_model.Ridge, r"step 'ridge' \(Ridge\) is not fitted; call fit first"),
    "nothing": (lambda: fit(Pipeline([("no", "passthrough")]), None), "there is nothing to explain"),
    "no estimator": (lambda: np.ones(3), "estimator is a ndarray, expected a fitted"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str) -> None:
    make, message = REFUSALS[name]
    with pytest.raises(dtd.ModelError, match=message):
        dtd.from_sklearn(make())


def test_the_example_is_checked() -> None:
    model = fit(linear_model.Ridge(), NUMBERS)
    with pytest.raises(dtd.InputError, match=r"example has shape \(3, 6\), but the estimator was fitted on 7 features"):
        dtd.from_sklearn(model, np.ones((3, 6)))
    for example in ([["a"] * 7], np.full((1, 7), np.nan)):
        with pytest.raises(dtd.InputError, match="example holds"):
            dtd.from_sklearn(model, example)
    assert len(dtd.from_sklearn(model, sparse.csr_array(X))) == 1


def test_a_wrong_record_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(importer.TRANSFORMERS, "StandardScaler", importer.TRANSFORMERS["MaxAbsScaler"])
    with pytest.raises(dtd.ModelError, match="the output differs from the model's by"):
        dtd.from_sklearn(fit(make_pipeline(pre.StandardScaler(), linear_model.Ridge()), NUMBERS))


def test_sklearn_is_imported_by_from_sklearn_alone() -> None:
    code = "import sys, dtdfast; dtdfast.from_sklearn; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, dtdfast; sys.modules['sklearn'] = None; dtdfast.from_sklearn(None)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "pip install 'dtdfast[sklearn]'" in done.stderr
