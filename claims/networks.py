"""Small networks for the claims: trained on scikit-learn's digits, or drawn as in Sixt & Landgraf's experiment."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import dtdfast as dtd

Array = NDArray[np.float64]
BATCH, RATE, DECAY = 64, 2e-3, 1e-4  # Adam's step, L2 penalty on the weights


@lru_cache
def digits() -> tuple[Array, Array, NDArray[np.int64], NDArray[np.int64]]:
    """Training and held-out digits with pixels from 0 to 1, and their labels."""
    x, y = load_digits(return_X_y=True)
    parts = train_test_split(x / 16.0, y, test_size=0.3, random_state=0, stratify=y)
    return parts[0], parts[1], parts[2], parts[3]


def records(weights: list[Array], biases: list[Array]) -> list[dtd.Layer]:
    """Linear layers with ReLUs between them."""
    layers: list[dtd.Layer] = []
    for w, b in zip(weights, biases, strict=True):
        layers += [dtd.Linear(w, b), dtd.ReLU()]
    return layers[:-1]


@lru_cache
def trained(
    widths: tuple[int, ...], seed: int, epochs: int = 60, nonpositive: bool = True
) -> tuple[list[dtd.Layer], float]:
    """An MLP trained on the digits, and its accuracy on those held out."""
    x, x_test, labels, labels_test = digits()
    layers = fitted(x, labels, widths, seed, epochs, nonpositive)
    return layers, float((dtd.predict(layers, x_test).argmax(axis=1) == labels_test).mean())


def fitted(
    x: Array, labels: NDArray[np.int64], widths: tuple[int, ...], seed: int, epochs: int, nonpositive: bool = True
) -> list[dtd.Layer]:
    """An MLP trained with Adam on the cross-entropy, biases kept ≤ 0 unless told."""
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((n_out, n_in)) * np.sqrt(2 / n_in) for n_in, n_out in pairwise(widths)]
    biases = [np.zeros(n) for n in widths[1:]]
    parameters = [*weights, *biases]
    first, second = ([np.zeros_like(p) for p in parameters] for _ in range(2))
    step = 0
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for i in range(0, len(x), BATCH):
            step += 1
            batch = order[i : i + BATCH]
            gradients = _gradients(weights, biases, x[batch], labels[batch])
            for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
                m += 0.1 * (g - m)
                v += 0.001 * (g * g - v)
                p -= RATE * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
            if nonpositive:
                for b in biases:
                    np.minimum(b, 0, out=b)
    return records(weights, biases)


def two_digits(n: int, seed: int, *, held_out: bool) -> tuple[Array, NDArray[np.int64], NDArray[np.bool_]]:
    """Pictures of 8 × 16 pixels, flattened: a digit from 0 to 3 on one side, one from 4 to 9 on the other; the former's
    label, and whether each pixel lies on its side (n, 128).
    """
    training, test, labels, labels_test = digits()
    single, known = (test, labels_test) if held_out else (training, labels)
    rng = np.random.default_rng([seed, held_out])
    asked, other = (rng.choice(np.flatnonzero(which), n) for which in (known < 4, known > 3))
    on_left = rng.random(n) < 0.5
    left, right = np.where(on_left, asked, other), np.where(on_left, other, asked)
    x = np.concatenate([single[side].reshape(n, 8, 8) for side in (left, right)], axis=2).reshape(n, 128)
    column = np.tile(np.arange(16), 8)
    return x, known[asked], (column < 8) == on_left[:, None]


def _gradients(weights: list[Array], biases: list[Array], x: Array, labels: NDArray[np.int64]) -> list[Array]:
    """Of the mean cross-entropy and the penalty, by the weights and the biases."""
    inputs = [x]
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        inputs.append(np.maximum(inputs[-1] @ w.T + b, 0))
    g = inputs[-1] @ weights[-1].T + biases[-1]
    g = np.exp(g - g.max(axis=1, keepdims=True))
    g /= g.sum(axis=1, keepdims=True)
    g[np.arange(len(x)), labels] -= 1
    g /= len(x)
    by_weight, by_bias = [], []
    for w, a in zip(weights[::-1], inputs[::-1], strict=True):
        by_weight.append(g.T @ a + DECAY * w)
        by_bias.append(g.sum(axis=0))
        g = (g @ w) * (a > 0)
    return [*by_weight[::-1], *by_bias[::-1]]


def critique(widths: tuple[int, ...], rng: np.random.Generator) -> list[dtd.Layer]:
    """Sixt & Landgraf's small networks (arXiv:2211.08425): uniform weights with the positive ones enlarged, biases ≤ 0,
    a ReLU at the end.

    Their initialisation visits a layer three times, so positive weights are multiplied by 1.4³; positive biases by 1.4²
    before they turn.
    """
    weights, biases = [], []
    for n_in, n_out in pairwise(widths):
        w, b = (rng.uniform(-1, 1, shape) / np.sqrt(n_in) for shape in ((n_out, n_in), n_out))
        weights.append(np.where(w > 0, 1.4**3 * w, w))
        biases.append(-np.abs(np.where(b > 0, 1.4**2 * b, b)))
    return [*records(weights, biases), dtd.ReLU()]


def active_inputs(layers: list[dtd.Layer], n: int, rng: np.random.Generator) -> Array:
    """Half-normal inputs whose first output is above 0.1: n of the first 20,000 drawn, fewer where the network has
    fewer.
    """
    found: list[Array] = []
    for _ in range(50):
        x = np.abs(rng.standard_normal((400, layers[0].weight.shape[1])))  # type: ignore[attr-defined]
        found.extend(x[dtd.predict(layers, x, backend="oracle")[:, 0] > 0.1])
        if len(found) >= n:
            break
    return np.array(found[:n])
