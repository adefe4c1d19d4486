"""precision="bfloat16" and "mixed" on CPUs that multiply bfloat16; the products themselves: test_kernels_bf16.py."""

import numpy as np
import pytest

import dtdfast as dtd
import nets
from dtdfast.cpu.executor import isa_name, precisions
from support import normal

NARROW = ("bfloat16", "mixed")
narrow = pytest.mark.skipif("mixed" not in precisions(), reason="this CPU has no bfloat16")
U = 2.0**-8


def positive(rng):
    """z⁺ all the way: no bias, so that no ReLU of a unit with relevance is near its kink, whatever is rounded."""
    shapes = [(32, 3, 3, 3), (48, 32, 3, 3), (32, 48, 1, 1)]
    layers = []
    for shape in shapes:
        layers += [dtd.Conv(abs(normal(rng, *shape)), padding=shape[2] // 2), dtd.ReLU()]
    return [*layers, dtd.GlobalAvgPool(), dtd.Flatten(), dtd.Linear(abs(normal(rng, 4, 32)))]


@narrow
@pytest.mark.parametrize("precision", NARROW)
def test_error_is_that_of_rounded_operands(precision, rng):
    """With weights and inputs ≥ 0 nothing cancels: (1 + 5u + γ)^L − 1 bounds every element's error, u = 2⁻⁸, for the L
    = 4 layers.
    """
    layers, x = positive(rng), abs(normal(rng, 3, 3, 12, 12))
    r_in = dtd.explain(layers, x, domain="nonnegative", backend="cpu", precision=precision)
    exact = dtd.explain(layers, x, domain="nonnegative", backend="oracle")
    gamma = 3 * 9 * 48 * 2.0**-24
    assert (abs(r_in - exact) <= ((1 + 5 * U + gamma) ** 4 - 1) * exact).all()
    as_float32 = abs(dtd.explain(layers, x, domain="nonnegative", backend="cpu") - exact).sum()
    assert (as_float32 < abs(r_in - exact).sum()) == (isa_name() != "avx512f32")  # the products were narrow indeed


@narrow
@pytest.mark.parametrize("precision", NARROW)
def test_float32_stands_in_for_slow_dot_products(precision, rng, monkeypatch):
    monkeypatch.setenv("DTDFAST_ISA", "avx512f32")
    net = nets.resnet50(size=64, divisor=2)
    explained = [
        dtd.explain(net.layers, net.sample(2), backend="cpu", precision=p, return_outputs=True)
        for p in (precision, "float32")
    ]
    for narrow_result, float32_result in zip(*explained, strict=True):
        np.testing.assert_array_equal(narrow_result, float32_result)


@narrow
def test_mixed_predicts_as_float32_does(rng):
    net = nets.resnet50(size=64, divisor=2)
    x = net.sample(2)
    options = dict(backend="cpu", return_outputs=True)
    _, outputs = dtd.explain(net.layers, x, precision="mixed", **options)
    np.testing.assert_array_equal(outputs, dtd.explain(net.layers, x, **options)[1])
    np.testing.assert_array_equal(outputs, dtd.predict(net.layers, x, backend="cpu"))


@narrow
@pytest.mark.parametrize("precision", NARROW)
def test_bits_and_ledger(precision, rng):
    layers, x = positive(rng), abs(normal(rng, 5, 3, 12, 12))
    options = dict(domain="nonnegative", backend="cpu", precision=precision)
    explainer = dtd.Explainer(layers, **options)
    r_in = explainer.explain(x, 1)
    for n_threads in (1, 2, 3):
        np.testing.assert_array_equal(dtd.explain(layers, x, 1, n_threads=n_threads, **options), r_in)
    np.testing.assert_array_equal(np.concatenate([explainer.explain(x[i : i + 1], 1) for i in range(5)]), r_in)
    assert explainer.ledger(x, 1).closed
    assert (r_in >= 0).all()


@narrow
@pytest.mark.parametrize("precision", NARROW)
@pytest.mark.parametrize("rules", ["lrp-0", "lrp-epsilon", "epsilon-gamma-box"])
def test_rules_that_cancel_are_refused(precision, rules, rng):
    layers, x = positive(rng), abs(normal(rng, 1, 3, 12, 12))
    with pytest.raises(dtd.RuleError, match="cancel"):
        dtd.explain(layers, x, rules=rules, domain=(0.0, 9.0), backend="cpu", precision=precision)


def test_precisions_follow_the_instruction_set(monkeypatch):
    monkeypatch.setenv("DTDFAST_ISA", "baseline")
    assert dtd.backends()["cpu"].precisions == ("float32", "float64", "single")
    with pytest.raises(dtd.BackendError, match=r"bfloat16.*float32, float64, single"):
        dtd.Explainer([dtd.Linear(np.eye(2))], backend="cpu", precision="bfloat16")
