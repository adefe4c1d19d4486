"""Targets set against other outputs: `Contrast`, and `against=` of explain."""

import numpy as np
import pytest
from numpy.random import Generator

import dtdfast as dtd
from dtdfast import baselines
from support import classifier, normal

EXACT = {"backend": "cpu", "precision": "float64"}


def starts(outputs: np.ndarray, numbers: np.ndarray, against: object) -> np.ndarray:
    """The formulas, sample by sample."""
    result = np.zeros_like(outputs)
    for i, (f, a) in enumerate(zip(outputs, numbers, strict=True)):
        if isinstance(against, str):
            p = np.exp(f - f.max()) / np.exp(f - f.max()).sum()
            for j in range(len(f)):
                if against == "rest":
                    result[i, j] = f[a] if j == a else -f[a] / (len(f) - 1)
                else:
                    result[i, j] = p[a] * (np.delete(p, a).sum() if j == a else -p[j])
        else:
            b = np.broadcast_to(against, len(outputs))[i]
            result[i, a], result[i, b] = f[a], -f[b]
    return result


@pytest.mark.parametrize("backend", ["cpu", "oracle"])
@pytest.mark.parametrize("against", [4, np.array([4, 3, 4]), "rest", "softmax"])
@pytest.mark.parametrize("target", [None, 1, np.array([0, 1, 2])])
def test_contrast_is_a_start_of_both_signs(rng: Generator, backend: str, against: object, target: object) -> None:
    layers, x, options = classifier(rng), normal(rng, 3, 3, 6, 6), {**EXACT, "backend": backend}
    if target is None:  # never the outputs that it is set against
        layers[-1] = dtd.Linear(layers[-1].weight, layers[-1].bias + np.array([99, 99, 99, 0, 0]))
    outputs = dtd.explain(layers, x, return_outputs=True, **options)[1]
    numbers = outputs.argmax(axis=1) if target is None else np.broadcast_to(target, 3)
    expected = dtd.explain(layers, x, starts(outputs, numbers, against), **options)
    found = dtd.explain(layers, x, target, against=against, **options)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * np.abs(expected).max())
    np.testing.assert_array_equal(found, dtd.explain(layers, x, dtd.Contrast(target, against), **options))


def test_softmax_of_a_sure_network() -> None:
    """In float32 p_a is 1 here, and 1 − p_a is not 0: the sum of p_j that are not rounded, to n_terms · u."""
    layers, x = [dtd.Linear(np.diag([20.0, 1.0, 2.0]))], np.ones((1, 3), np.float32)
    for backend in ("cpu", "oracle"):
        found = dtd.explain(layers, x, 0, against="softmax", rules="lrp-0", backend=backend)[0]
        p = np.exp([-19.0, -18.0])
        p_a = 1 / (1 + p.sum())
        np.testing.assert_allclose(found, p_a**2 * np.array([p.sum(), -p[0], -p[1]]), rtol=32 * 2.0**-24)


def test_two_maps_are_subtracted(rng: Generator) -> None:
    layers, x = classifier(rng), normal(rng, 2, 3, 6, 6)
    a, b = (dtd.explain(layers, x, k, **EXACT) for k in (1, 3))
    found = dtd.explain(layers, x, 1, against=3, **EXACT)
    np.testing.assert_allclose(found, a - b, rtol=0, atol=1e-12 * np.abs(a).max())


def test_several_targets_and_the_ledger(rng: Generator) -> None:
    layers, x = classifier(rng), normal(rng, 2, 3, 6, 6)
    several = dtd.explain(layers, x, np.array([[0, 2]]), against=4, **EXACT)
    for k, target in enumerate((0, 2)):
        one = dtd.explain(layers, x, target, against=4, **EXACT)
        np.testing.assert_allclose(several[:, k], one, rtol=0, atol=1e-13 * np.abs(one).max())
    explainer = dtd.Explainer(layers, backend="cpu")
    ledger, outputs = explainer.ledger(x, dtd.Contrast(0, 4)), explainer.predict(x)
    assert ledger.closed
    np.testing.assert_allclose(ledger.start, outputs[:, 0] - outputs[:, 4], rtol=1e-5, atol=1e-5)


def test_the_gradient_of_a_difference(rng: Generator) -> None:
    layers, x = classifier(rng), normal(rng, 2, 3, 6, 6)
    found = baselines.gradient(layers, x, dtd.Contrast(0, 4), **EXACT)
    a, b = (baselines.gradient(layers, x, k, **EXACT) for k in (0, 4))
    np.testing.assert_allclose(found, a - b, rtol=0, atol=1e-12 * np.abs(a).max())


def test_lazily(rng: Generator) -> None:
    array = pytest.importorskip("dask.array")
    layers, x = classifier(rng), normal(rng, 5, 3, 6, 6)
    lazy = dtd.explain(layers, array.from_array(x, chunks=(2, 3, 6, 6)), 1, against=3)
    np.testing.assert_array_equal(lazy.compute(), dtd.explain(layers, x, 1, against=3))
    with pytest.raises(dtd.TargetError, match="same for all samples"):
        dtd.explain(layers, array.from_array(x), 1, against=np.arange(5) % 2)


@pytest.mark.parametrize(
    ("target", "against", "message"),
    [
        (0, 5, "outputs 0 to 4"),
        (0, -1, "outputs 0 to 4"),
        (0, "others", "against is 'others'"),
        (0, 1.5, "expected one integer"),
        (0, [1, 2, 3], "expected one integer, one for each of 2 samples"),
        (0, [[1], [2, 3]], "against cannot be read as an array"),
        (0, np.ma.array([1, 2], mask=[True, False]), "against is a masked array"),
        (dtd.Contrast(0, 1), 2, "target is a Contrast"),
        (2, [1, 2], "sample 1: output 2 is set against itself"),
        (np.zeros((2, 5)), 1, "float start"),
    ],
)
def test_refused(rng: Generator, target: object, against: object, message: str) -> None:
    with pytest.raises(dtd.TargetError, match=message):
        dtd.explain(classifier(rng), normal(rng, 2, 3, 6, 6), target, against=against)


def test_more_refused(rng: Generator) -> None:
    image = [dtd.Conv(normal(rng, 2, 3, 3, 3))]
    with pytest.raises(dtd.TargetError, match=r"only outputs \(n, classes\)"):
        dtd.explain(image, normal(rng, 1, 3, 6, 6), (0, 1, 1), against=1)
    one = [dtd.Linear(normal(rng, 1, 4))]
    with pytest.raises(dtd.TargetError, match="nothing to set it against"):
        dtd.explain(one, normal(rng, 1, 4), against="rest")
    with pytest.raises(dtd.TargetError, match="raises a negative start to 0"):
        dtd.explain(classifier(rng), normal(rng, 1, 3, 6, 6), 0, against=1, rules="deep_taylor")
