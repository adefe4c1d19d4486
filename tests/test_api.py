"""What the public names mean: outputs, targets, start and stop, arrays, reuse.  Values by NumPy, backend by backend."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast.activations import ACTIVATIONS
from support import classifier, close, normal, segmenter

pytestmark = pytest.mark.parametrize("backend", ["oracle", "cpu"])


# ------------------------------------------------------------------------------------------------------------ outputs


def test_predict_includes_the_softmax_and_explain_does_not(backend, rng):
    layers, x = classifier(rng), normal(rng, 4, 3, 6, 6)
    logits = dtd.predict(layers, x, backend=backend)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    whole = [*layers, dtd.Softmax()]
    close(dtd.predict(whole, x, backend=backend), e / e.sum(axis=1, keepdims=True), backend)
    np.testing.assert_array_equal(dtd.explain(whole, x, 2, backend=backend), dtd.explain(layers, x, 2, backend=backend))
    _, outputs = dtd.explain([*whole, dtd.Dropout()], x, 2, backend=backend, return_outputs=True)
    np.testing.assert_array_equal(outputs, logits)


def test_softmax_over_channels(backend, rng):
    layers, x = segmenter(rng), normal(rng, 2, 3, 6, 6)
    logits = dtd.predict(layers, x, backend=backend)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    close(dtd.predict([*layers, dtd.Softmax(-3)], x, backend=backend), e / e.sum(axis=1, keepdims=True), backend)
    expected = logits - logits.max(axis=1, keepdims=True) - np.log(e.sum(axis=1, keepdims=True))
    close(dtd.predict([*layers, dtd.Softmax(-3, log=True)], x, backend=backend), expected, backend)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations(kind, backend):
    from math import erf

    x = np.linspace(-9, 9, 37)[None].astype(np.float32)
    t, slopes = x.astype(np.float64), np.linspace(-1, 1, 37)
    selu_alpha, selu_scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    expected = {
        "leaky_relu": lambda: np.where(t > 0, t, 0.01 * t),
        "prelu": lambda: np.maximum(t, 0) + slopes * np.minimum(t, 0),
        "threshold": lambda: t * (t > 1),
        "hard_shrink": lambda: t * (abs(t) > 0.5),
        "soft_shrink": lambda: np.sign(t) * np.maximum(abs(t) - 0.5, 0),
        "tanh_shrink": lambda: t - np.tanh(t),
        "selu": lambda: selu_scale * (np.maximum(t, 0) + selu_alpha * (np.exp(np.minimum(t, 0)) - 1)),
        "celu": lambda: np.maximum(t, 0) + np.exp(np.minimum(t, 0)) - 1,
        "mish": lambda: t * np.tanh(np.log1p(np.exp(t))),
        "log_sigmoid": lambda: -np.log1p(np.exp(-t)),
        "softsign": lambda: t / (1 + abs(t)),
        "clip": lambda: np.clip(t, 0, 6),
        "elu": lambda: np.where(t > 0, t, np.exp(t) - 1),
        "silu": lambda: t / (1 + np.exp(-t)),
        "gelu": lambda: t * 0.5 * (1 + np.vectorize(erf)(t / np.sqrt(2))),
        "gelu_tanh": lambda: 0.5 * t * (1 + np.tanh(np.sqrt(2 / np.pi) * (t + 0.044715 * t**3))),
        "sigmoid": lambda: 1 / (1 + np.exp(-t)),
        "hard_sigmoid": lambda: np.clip(t / 6 + 0.5, 0, 1),
        "hard_swish": lambda: t * np.clip(t / 6 + 0.5, 0, 1),
        "tanh": lambda: np.tanh(t),
        "softplus": lambda: np.log1p(np.exp(t)),
    }[kind]()
    record = dtd.Activation(kind, slopes=slopes if kind == "prelu" else None)
    np.testing.assert_allclose(
        dtd.predict([record], x, backend=backend), expected, rtol=1e-5, atol=1e-6 if backend == "cpu" else 1e-15
    )
    fused = [dtd.Linear(np.eye(37)), record]
    np.testing.assert_allclose(
        dtd.predict(fused, x, backend=backend), expected, rtol=1e-5, atol=1e-6 if backend == "cpu" else 1e-15
    )


def test_local_response_normalisation(backend, rng):
    x = normal(rng, 2, 7, 3, 3)
    expected = np.empty_like(x)
    for c in range(7):
        squares = (x[:, max(0, c - 2) : c + 2 + 1] ** 2).sum(axis=1)
        expected[:, c] = x[:, c] / (2.0 + 0.5 / 5 * squares) ** 0.75
    np.testing.assert_allclose(dtd.predict([dtd.LRN(5, alpha=0.5, k=2.0)], x, backend=backend), expected, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------ targets


def test_none_explains_the_largest_output(backend, rng):
    layers, x = classifier(rng), normal(rng, 64, 3, 6, 6)
    explainer = dtd.Explainer(layers, backend=backend)
    best = explainer.predict(x).argmax(axis=1)
    assert len(set(best)) > 1
    np.testing.assert_array_equal(explainer.explain(x), explainer.explain(x, best))


def test_forms_of_target(backend, rng):
    """An int, one int per sample, one-element lists of targets, a tuple and a float start, all naming the same
    outputs.
    """
    x = normal(rng, 3, 3, 6, 6)
    explainer = dtd.Explainer(classifier(rng), backend=backend)
    expected, outputs = explainer.explain(x, 2, return_outputs=True)
    assert expected.shape == x.shape
    start = np.zeros_like(outputs)
    start[:, 2] = outputs[:, 2]
    for same in (np.int64(2), [2, 2, 2], np.array([2, 2, 2], np.uint8), (2,), start, start.astype(np.float64)):
        np.testing.assert_array_equal(explainer.explain(x, same), expected)
    for several in ([[2]], np.full((3, 1), 2), start[:, None]):
        np.testing.assert_array_equal(explainer.explain(x, several), expected[:, None])


def test_several_targets(backend, rng):
    x = normal(rng, 3, 3, 6, 6)
    explainer = dtd.Explainer(classifier(rng), backend=backend)
    single = np.stack([explainer.explain(x, t) for t in range(5)], axis=1)
    np.testing.assert_array_equal(explainer.explain(x, np.arange(5)[None]), single)
    own = np.array([[0, 1], [4, 4], [2, 3]])
    np.testing.assert_array_equal(explainer.explain(x, own), single[np.arange(3)[:, None], own])
    outputs = explainer.predict(x)
    np.testing.assert_array_equal(explainer.explain(x, outputs[:, None] * np.eye(5, dtype=outputs.dtype)), single)


def test_spatial_outputs(backend, rng):
    x = normal(rng, 2, 3, 6, 6)
    explainer = dtd.Explainer(segmenter(rng), backend=backend)
    r_in, outputs = explainer.explain(x, (1, 2, 3), return_outputs=True)
    start = np.zeros_like(outputs)
    start[:, 1, 2, 3] = outputs[:, 1, 2, 3]
    np.testing.assert_array_equal(r_in, explainer.explain(x, start))
    near = np.zeros((6, 6), bool)
    near[1:4, 2:5] = True  # a 3 x 3 convolution sees this of pixel (2, 3)
    assert not r_in[:, :, ~near].any()
    assert r_in[:, :, near].any()


def test_the_largest_output_is_the_first_of_equals(backend):
    layers = [dtd.Linear([[1.0, 0.0], [1.0, 0.0]])]
    np.testing.assert_array_equal(dtd.explain(layers, np.array([[2.0, 3.0]]), None, backend=backend), [[2.0, 0.0]])


# --------------------------------------------------------------------------------------------------- start, stop, out


def test_start_and_stop(backend, rng):
    """Layer-wise maps compose: from the output to entry 2, and from there to the input."""
    layers, x = classifier(rng), normal(rng, 3, 3, 6, 6)
    whole = dtd.explain(layers, x, 1, backend=backend)
    inner = dtd.explain(layers, x, 1, backend=backend, stop=2)
    assert inner.shape == (3, 6, 3, 3)
    close(dtd.explain(layers, x, inner, backend=backend, start=2), whole, backend)
    close(dtd.explain(layers[:3], x, inner, backend=backend), whole, backend)
    close(
        dtd.explain(
            layers, x, dtd.explain(layers, x, inner, backend=backend, start=2, stop=0), backend=backend, start=0
        ),
        whole,
        backend,
    )


def test_start_of_an_inner_neuron(backend, rng):
    layers, x = classifier(rng), normal(rng, 3, 3, 6, 6)
    expected = dtd.explain(layers[:2], x, (4, 2, 2), backend=backend)
    np.testing.assert_array_equal(dtd.explain(layers, x, (4, 2, 2), backend=backend, start=1), expected)


def test_start_at_stop_is_the_identity(backend, rng):
    layers, x = classifier(rng), normal(rng, 3, 3, 6, 6)
    given = normal(rng, 3, 6, 3, 3)
    np.testing.assert_array_equal(dtd.explain(layers, x, given, backend=backend, start=2, stop=2), given)


def test_several_targets_with_stop(backend, rng):
    layers, x = classifier(rng), normal(rng, 2, 3, 6, 6)
    together = dtd.explain(layers, x, [[0, 3]], backend=backend, stop=1)
    assert together.shape == (2, 2, 6, 6, 6)
    for t, target in enumerate((0, 3)):
        np.testing.assert_array_equal(together[:, t], dtd.explain(layers, x, target, backend=backend, stop=1))


def test_out(backend, rng):
    layers, x = classifier(rng), normal(rng, 3, 3, 6, 6)
    expected = dtd.explain(layers, x, [[1, 2]], backend=backend)
    out = np.full(expected.shape, np.nan, expected.dtype)
    assert dtd.explain(layers, x, [[1, 2]], backend=backend, out=out) is out
    np.testing.assert_array_equal(out, expected)
    wide = np.full((3, 4, *x.shape[1:]), np.nan, expected.dtype)
    dtd.explain(layers, x, [[1, 2]], backend=backend, out=wide[:, ::2])
    np.testing.assert_array_equal(wide[:, ::2], expected)
    assert np.isnan(wide[:, 1::2]).all()


def test_dtypes(backend, rng):
    layers, x = classifier(rng), normal(rng, 2, 3, 6, 6)
    expected = dtd.explain(layers, x, 0, backend=backend)
    assert expected.dtype == (np.float64 if backend == "oracle" else np.float32)
    for same in (x.astype(np.float64), np.asfortranarray(x), x[::-1].copy()[::-1], x.tolist()):
        np.testing.assert_array_equal(dtd.explain(layers, same, 0, backend=backend), expected)
    half = dtd.explain(layers, x.astype(np.float16), 0, backend=backend)
    np.testing.assert_array_equal(
        half, dtd.explain(layers, x.astype(np.float16).astype(np.float32), 0, backend=backend)
    )


def test_inputs_and_records_stay_as_they_are(backend, rng):
    layers, x, start = classifier(rng), normal(rng, 2, 3, 6, 6), normal(rng, 2, 5)
    copies = [a.copy() for a in (x, start, layers[0].weight)]
    dtd.explain(layers, x, start, backend=backend)
    for now, before in zip((x, start, layers[0].weight), copies, strict=True):
        np.testing.assert_array_equal(now, before)
    with pytest.raises(ValueError, match="read-only"):
        layers[0].weight[0] = 0


def test_records_copy_their_arrays(backend, rng):
    weight = normal(rng, 2, 4)
    layers, x = [dtd.Linear(weight)], normal(rng, 2, 4)
    before = dtd.explain(layers, x, 0, backend=backend)
    weight[:] = 0
    np.testing.assert_array_equal(dtd.explain(layers, x, 0, backend=backend), before)


def test_copies_of_records_are_as_read_only(backend, rng):
    records = [dtd.Linear(normal(rng, 2, 4)), dtd.Resample((normal(rng, 2, 4), None))]
    for made in (copy.deepcopy(records), pickle.loads(pickle.dumps(records))):
        for array in (made[0].weight, made[0].bias, made[1].weights[0]):
            assert array is None or not array.flags.writeable


def test_rules_and_domain_are_read_once(backend, rng):
    """What the caller's dict, callable or arrays become later changes neither an Explainer, nor its copies, nor what
    `explain` keeps.
    """
    layers = [*segmenter(rng), dtd.GlobalAvgPool(), dtd.Flatten()]
    first, second = abs(normal(rng, 2, 3, 6, 6)), abs(normal(rng, 2, 3, 5, 7))
    high = np.full(3, 9.0)
    listed = {np.int64(0): dtd.ZBox(np.zeros(3), high)}
    forms = [dict(rules=listed), dict(rules=lambda p, record: listed.get(p)), dict(domain=(np.zeros(3), high))]
    expected = [dtd.Explainer(layers, backend=backend, **form).explain(second, 1) for form in forms]
    explainers = [dtd.Explainer(layers, backend=backend, **form) for form in forms]
    for form in forms:
        dtd.explain(layers, first, 1, backend=backend, **form)
    kept, listed[0] = listed[0], dtd.Flat()
    high[:] = 90
    explainers[0].options["rules"][0] = dtd.Flat()
    for explainer, same in zip(explainers, expected, strict=True):
        np.testing.assert_array_equal(explainer.explain(second, 1), same)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(explainer)).explain(second, 1), same)
    for form in ({0: kept}, lambda p, record: {0: kept}.get(p)):
        np.testing.assert_array_equal(dtd.explain(layers, second, 1, rules=form, backend=backend), expected[0])
    flat = dtd.explain(layers, first, 1, rules={0: dtd.Flat()}, backend=backend)
    np.testing.assert_array_equal(dtd.explain(layers, first, 1, rules=forms[1]["rules"], backend=backend), flat)


# -------------------------------------------------------------------------------------------------- reuse, reflection


def test_one_explainer_for_many_shapes(backend, rng):
    """Fully convolutional: each input shape has its own plan, in any order of calls."""
    layers = [*segmenter(rng), dtd.GlobalAvgPool(), dtd.Flatten()]
    explainer = dtd.Explainer(layers, backend=backend)
    inputs = [normal(rng, n, 3, h, w) for n, h, w in [(2, 6, 6), (1, 9, 4), (5, 6, 6), (2, 1, 1), (1, 9, 4)]]
    for x in inputs + inputs[::-1]:
        np.testing.assert_array_equal(explainer.explain(x, 1), dtd.Explainer(layers, backend=backend).explain(x, 1))


def test_calls_with_fresh_layers_do_not_mix(backend, rng):
    """The cache behind explain() goes by the records themselves, also after earlier ones are gone."""
    x = normal(rng, 2, 4)
    for k in range(30):
        layers = [dtd.Linear(np.full((1, 4), k + 1.0))]
        np.testing.assert_allclose(
            dtd.predict(layers, x, backend=backend)[:, 0], (k + 1) * x.sum(axis=1), rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(
            dtd.explain(layers, x, 0, rules="lrp-0", backend=backend), (k + 1) * x, rtol=1e-4, atol=1e-4
        )


def test_a_list_that_changed(backend, rng):
    x = normal(rng, 2, 4)
    layers = [dtd.Linear(normal(rng, 3, 4)), dtd.ReLU()]
    before = dtd.predict(layers, x, backend=backend)
    layers[1] = dtd.Dropout()
    after = dtd.predict(layers, x, backend=backend)
    assert before.min() >= 0 > after.min()


def test_dead_branches_change_nothing(backend, rng):
    layers, x = classifier(rng), normal(rng, 2, 3, 6, 6)
    shifted = [dtd.Conv(normal(rng, 1, 3, 1, 1)), dtd.Activation("tanh")]
    for record in layers:
        position = len(shifted)
        shifted.append(dataclasses.replace(record, inputs=dtd.INPUT if position == 2 else position - 1))
    np.testing.assert_array_equal(
        dtd.explain(shifted, x, 1, backend=backend), dtd.explain(layers, x, 1, backend=backend)
    )
    assert "Activation" not in str(dtd.Explainer(shifted, backend=backend).ledger(x, 1))


def test_plan_is_readable(backend, rng):
    """Every operation with its rule and shape, memory and multiply-adds; what plays no part is not there."""
    text = str(dtd.Explainer([*classifier(rng), dtd.Softmax()], backend=backend).plan_for((2, 3, 6, 6)))
    for word in ("WSquare", "ZPlus", "max_pool", "n×6×3×3", "bytes", "multiply-adds"):
        assert word in text
    assert "softmax" not in text


def test_profile(backend, rng):
    explainer, x = dtd.Explainer(classifier(rng), backend=backend), normal(rng, 2, 3, 6, 6)
    if backend == "oracle":
        with pytest.raises(dtd.BackendError, match="cpu"):
            explainer.profile(x)
    else:
        assert "ms" in str(explainer.profile(x))


def test_backends_and_build(backend):
    found = dtd.backends()
    assert list(found) == ["cuda", "cpu", "oracle"]
    assert found[backend].usable
    assert all(b.usable or b.reason for b in found.values())
    config = dtd.build_config()
    assert config["dtdfast"] == dtd.__version__
    assert config["numpy"] == np.__version__
