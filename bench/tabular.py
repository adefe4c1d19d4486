"""Which rule finds the columns that a model of a table hangs on: rank correlation of relevance with permutation
importance.

    python bench/tabular.py

For every table of scikit-learn's and every rule: Spearman's correlation of a column's mean |relevance| with the loss of
score when the column is shuffled (10 times), for MLPs of 32 and 16 neurons behind a StandardScaler, mean over three
random starts.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn import datasets
from sklearn.inspection import permutation_importance
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import dtdfast as dtd

SEEDS = 3
TABLES: dict[str, Any] = {
    "breast cancer": datasets.load_breast_cancer(return_X_y=True),
    "wine": datasets.load_wine(return_X_y=True),
    "iris": datasets.load_iris(return_X_y=True),
    "diabetes": datasets.load_diabetes(return_X_y=True),
    "two classes": datasets.make_classification(800, 15, n_informative=6, random_state=1),
    "three classes": datasets.make_classification(800, 20, n_informative=8, n_classes=3, random_state=2),
    "friedman": datasets.make_friedman1(600, 12, random_state=0),
    "linear": datasets.make_regression(500, 15, n_informative=6, random_state=0),
}
RULES: dict[str, Any] = {
    "default": "dtd",
    "w², z⁺": lambda position, record: (
        dtd.WSquare() if position == 1 else dtd.ZPlus() if isinstance(record, dtd.Linear) else None
    ),
    "z⁺": dtd.ZPlus(),
    "γ": dtd.Gamma(0.25),
    "α2β1": dtd.AlphaBeta(2.0, 1.0),
}


def ranks(values: Any) -> Any:
    return np.argsort(np.argsort(values))


def fitted(x: Any, y: Any, seed: int) -> tuple[Any, Any]:
    """A model, and y as it was fitted to."""
    numbers = y.dtype.kind == "f"
    y = (y - y.mean()) / y.std() if numbers else y
    model = (MLPRegressor if numbers else MLPClassifier)(hidden_layer_sizes=(32, 16), max_iter=600, random_state=seed)
    return make_pipeline(StandardScaler(), model).fit(x, y), y


def main() -> None:
    warnings.simplefilter("ignore")  # of fits that have not converged
    found: dict[str, list[float]] = {name: [] for name in RULES}
    print(f"{'':16}" + "".join(f"{name:>10}" for name in RULES))
    for table, (x, y) in TABLES.items():
        row: dict[str, list[float]] = {name: [] for name in RULES}
        for seed in range(SEEDS):
            model, target = fitted(x, y, seed)
            importance = ranks(permutation_importance(model, x, target, n_repeats=10, random_state=0).importances_mean)
            layers = dtd.from_sklearn(model)
            for name, rules in RULES.items():
                sizes = np.abs(dtd.explain(layers, x, rules=rules)).mean(axis=0)
                row[name].append(float(np.corrcoef(ranks(sizes), importance)[0, 1]))
        print(f"{table:16}" + "".join(f"{np.mean(v):+10.2f}" for v in row.values()))
        for name, values in row.items():
            found[name].append(float(np.mean(values)))
    print(f"{'mean':16}" + "".join(f"{np.mean(v):+10.2f}" for v in found.values()))


if __name__ == "__main__":
    main()
