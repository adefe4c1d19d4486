"""Whole plans on the host as a device: every operation but the contractions runs its own kernel, and the maps equal the
oracle's.
"""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import test_slopes as slopes
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import dtdfast as dtd
import reference
from cases import CASES, HELD_CASES, RULES, HeldCase
from cases.axes import CASES as ALONG_AXES
from cases.networks import BOXED, N_BATCH, PRESETS, positive_start, rounding, small
from dtdfast.plan import attention
from graphs import UNIT, graphs, perturbed
from host import HostDevice
from nets import SMALL
from nets.transformers import TRANSFORMERS
from support import close, normal

# every geometry under a rule, every rule on a geometry; a stride that shares no factor with the number of rules
LONG = bool(os.environ.get("DTDFAST_LONG"))  # every case, every network under every preset
SOME_CASES = (
    CASES if LONG else CASES[:: next(k for k in range(len(CASES) // 50, len(CASES)) if np.gcd(k, len(RULES)) == 1)]
)


SOME_HELD = HELD_CASES[:: 1 if LONG else 15]


@pytest.mark.parametrize("case", [*SOME_CASES, *SOME_HELD], ids=lambda case: case.id)
def test_cases(case, explainer):
    x, r_out = case.x, case.r_out
    options = case.options("oracle")
    _, bound = case.expected(x, r_out, case.tolerance(UNIT))
    expected = dtd.explain(case.layers, x, r_out, **options)
    del options["backend"]
    r_in = explainer(case.layers, HostDevice(compiled=not isinstance(case, HeldCase)), **options).explain(x, r_out)
    assert r_in.dtype == np.float32
    assert np.isfinite(r_in).all()
    assert (abs(r_in - expected) <= bound).all()


def device_for(name):
    """A transformer has many kernels and few numbers: Python runs them sooner than they are compiled."""
    return HostDevice(compiled=name not in TRANSFORMERS)


# each once
PAIRS = list(product(SMALL, PRESETS)) if LONG else [(name, PRESETS[k % len(PRESETS)]) for k, name in enumerate(SMALL)]


@pytest.mark.parametrize(("name", "rules"), PAIRS)
def test_networks(name, rules, explainer):
    net = small(name)
    x, start = net.sample(N_BATCH), positive_start(net)
    domain = net.box if rules in BOXED else "real"

    def oracle(net):
        return dtd.explain(net.layers, x, start, rules=rules, domain=domain, backend="oracle")

    exact = oracle(net)
    made = explainer(net.layers, device_for(name), rules=rules, domain=domain)
    bound = rounding(net, exact, oracle)
    assert np.abs(made.explain(x, start) - exact).sum() <= bound
    ledger = made.ledger(x if LONG else x[:1], net.target)
    assert ledger.closed, str(ledger)


TWO_BYTES = ("digits_mlp", "alexnet", *list(SMALL)[1::2])  # which have every operation
NARROW = [(name, "bfloat16", "dtd") for name in TWO_BYTES] + [("cnn", "mixed", "dtd"), ("unet", "mixed", "dtd")]
# types of arrays that no other network or rule brings together
NARROW += [
    ("mobilenet_v2", "bfloat16", "deep_taylor"),
    ("mobilenet_v2", "mixed", "deep_taylor"),
    ("shufflenet", "bfloat16", "deep_taylor"),
]
NARROW += [
    ("shufflenet", "mixed", "deep_taylor"),
    ("squeezenet", "mixed", "deep_taylor"),
    ("googlenet", "mixed", "deep_taylor.bounded"),
]
NARROW += [("alexnet", "mixed", "deep_taylor"), ("densenet121", "mixed", "deep_taylor")]


@pytest.mark.parametrize(("name", "precision", "rules"), NARROW)
def test_networks_in_two_bytes(name, precision, rules, explainer):
    """Every operation on arrays of bfloat16, as `rounding` has it for float32: every operand is off by u = 2⁻⁸ at most.

    What is kept of a layer's relevance is rounded as its operands are, a few times by random amounts: the factor of ten
    has room for it.
    """
    net, u = small(name), 2.0**-8
    x, start = net.sample(N_BATCH), positive_start(net)
    options = {"rules": rules, "domain": net.box if rules in BOXED else "real"}

    def oracle(net):
        return dtd.explain(net.layers, x, start, backend="oracle", **options)

    exact = oracle(net)
    made = explainer(net.layers, device_for(name), precision=precision, **options)
    bound = 10 * max(np.abs(oracle(net.perturbed(u, seed)) - exact).sum() for seed in range(2))
    found = made.explain(x, start)
    assert found.dtype == np.float32
    assert np.abs(found - exact).sum() <= bound
    ledger = made.ledger(x if LONG else x[:1], net.target)
    assert ledger.closed, str(ledger)
    if precision == "mixed":
        np.testing.assert_array_equal(made.predict(x), explainer(net.layers).predict(x))


ATTENTION = {"dtd": "dtd", "cp-lrp": "cp-lrp", "attnlrp": "attnlrp", "gamma": dtd.Gamma(0.25)}
TRANSFORMED = list(product(TRANSFORMERS, ATTENTION))


@pytest.mark.parametrize(("name", "rules"), TRANSFORMED if LONG else TRANSFORMED[::3])
def test_transformers(name, rules, explainer):
    """Two targets of every sample, each operation by its own kernel but for products, which NumPy computes."""
    net, targets = small(name), np.array([[0, 1], [2, 0]])
    x = net.sample(N_BATCH)

    def oracle(net):
        return dtd.explain(net.layers, x, targets, rules=ATTENTION[rules], backend="oracle")

    exact = oracle(net)
    made = explainer(net.layers, device_for(name), rules=ATTENTION[rules])
    assert np.abs(made.explain(x, targets) - exact).sum() <= rounding(net, exact, oracle)
    ledger = made.ledger(x, 0)
    assert ledger.closed, str(ledger)


ALONG = list(ALONG_AXES) if LONG else list(ALONG_AXES)[::6]


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("rules", ["cp-lrp", "attnlrp"])
def test_weights_that_are_made_again(rules, added, explainer, monkeypatch):
    """Long rows: the bits of weights that are kept, in an arena without them; with scores that are changed too."""
    net = small("gpt2")
    if added:
        place = next(number for number, layer in enumerate(net.layers) if isinstance(layer, dtd.Softmax))
        net = with_positions(net, place)
    x, found, arenas = net.sample(2), [], []
    for spared in (1, 0):
        monkeypatch.setattr(attention, "SPARED", spared)
        explain = explainer(net.layers, HostDevice(compiled=False), rules=rules)
        found.append(explain.explain(x, 0))
        arenas.append(str(explain.plan_for(x.shape)))
    np.testing.assert_array_equal(*found)
    assert "kept" in arenas[0]
    assert "made again" in arenas[1]
    exact = dtd.explain(net.layers, x, 0, rules=rules, backend="oracle")
    close(found[0], exact, "cuda")


def with_positions(net, place):
    """The same with a table added to what a softmax reads, and a factor; entries behind it move on by three."""
    mask = net.layers[place].mask
    table = dtd.Constant(np.random.default_rng(5).standard_normal((1, *mask.shape[-2:])))

    def moved(layer):
        reads = layer.inputs if isinstance(layer.inputs, tuple) else (layer.inputs,)
        reads = tuple(r + 3 if r is not None and r >= place else r for r in reads)
        return replace(layer, inputs=reads if len(reads) > 1 else reads[0])

    softmax = replace(net.layers[place], inputs=None)
    behind = [moved(layer) for layer in net.layers[place + 1 :]]
    changed = [dtd.Add(inputs=(place - 1, place)), dtd.Scale(np.full((1, 1, 1), 0.7))]
    return replace(net, layers=[*net.layers[:place], table, *changed, softmax, *behind])


@pytest.mark.parametrize("name", ALONG)
def test_records_along_any_axes(name, explainer, rng):
    shape, layers, _ = ALONG_AXES[name]
    x = rng.uniform(0, 1, (2, *shape)).astype(np.float32)
    y = dtd.predict(layers, x, backend="oracle")
    close(explainer(layers).predict(x), y, "cuda")
    start = rng.uniform(0, 1, y.shape).astype(np.float32)
    made = explainer(layers, rules="lrp-epsilon", domain=(0, 1))
    expected = dtd.explain(layers, x, start * y, rules="lrp-epsilon", domain=(0, 1), backend="oracle")
    close(made.explain(x, (start * y).astype(np.float32)), expected, "cuda")
    ledger = made.ledger(x, start)
    assert ledger.closed, str(ledger)


def test_boxes_without_width(explainer, rng):
    """Behind affines that do not fold; a narrow box is refused, since there is no float64."""
    x, start = rng.uniform(0, 1, (3, 4, 5)).astype(np.float32), normal(rng, 3, 5, 5)

    def layers(scale):
        affines = [dtd.Scale(scale, [0.3, -1.1, 0.7, 0.9]), dtd.Scale([1.7, 0.9, -1.3, 0.6], [0.1, 0.2, 0.3, 0.4])]
        return [*affines, dtd.Conv(weight, padding=1)]

    weight = normal(rng, 5, 4, 3)
    for scale in (np.zeros(4), np.array([1.0, 0.0, -2.0, 0.0])):
        expected = dtd.explain(layers(scale), x, start, domain=(0, 1), backend="oracle")
        close(explainer(layers(scale), domain=(0, 1)).explain(x, start), expected, "cuda")
    with pytest.raises(dtd.DomainError, match=r"layer 2 \(Conv\).*narrow"):
        explainer(layers(np.array([1.0, 1e-6, 1.0, 1.0])), domain=(0, 1)).explain(x, start)


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(graph=graphs(max_blocks=8), seed=st.integers(0, 2**32 - 1))
def test_graphs(explainer, graph, seed):
    """Random networks of every record: maps, predictions and gradients."""
    expected = graph.explain("oracle")
    rng = np.random.default_rng(seed)
    moved = max(abs(perturbed(graph, rng).explain("oracle") - expected).max() for _ in range(3))
    scale = abs(expected).max()
    assume(moved <= 1e-2 * scale)  # else float32 cannot know the answer
    made = explainer(graph.layers, **graph.options)
    # 16 draws of the perturbation's size, and the roundings of sums of up to 2**10 terms whose condition is 1
    assert abs(made.explain(graph.x, graph.start) - expected).max() <= 16 * moved + 2**10 * UNIT * scale
    outputs = dtd.predict(graph.layers, graph.x, backend="oracle")
    np.testing.assert_allclose(made.predict(graph.x), outputs, rtol=1e-4, atol=1e-4 * max(1, abs(outputs).max()))


@pytest.mark.parametrize("name", ["cnn", "mobilenet_v2", "squeeze_excite", "gpt2", "llama"])
def test_gradients(name, explainer):
    net = small(name)
    x = net.sample(N_BATCH)
    expected = dtd.baselines.gradient(net.layers, x, 1, backend="oracle")
    moved = dtd.baselines.gradient(net.layers, x, 1, backend="cpu")
    found = explainer(net.layers, device_for(name), kind="gradient").explain(x, 1)
    # another float32 executor shows how far rounding moves them
    assert abs(found - expected).sum() <= 4 * abs(moved - expected).sum() + 2**8 * UNIT * abs(expected).sum()


@pytest.mark.parametrize("rule", slopes.RULES)
def test_slopes(rule, explainer, rng):
    layers, x, start = slopes.network(rng), rng.standard_normal((4, 6)).astype(np.float32), rng.standard_normal((4, 3))
    for norm in (slopes.Slope(), slopes.Pass()):
        rules = slopes.rules_for(slopes.RULES[rule], norm)
        expected = dtd.explain(layers, x, start, rules=rules, backend="oracle")
        close(explainer(layers, rules=rules).explain(x, start.astype(np.float32)), expected, "cuda")


def test_what_cannot_be_done_is_refused_by_name(explainer, rng, monkeypatch):
    def refuse(*arguments):
        raise dtd.BackendError("its channels do not lie next to each other")

    layers = [dtd.ReLU(), dtd.MatMul(transpose_b=True, inputs=(0, 0)), dtd.Flatten(), dtd.Linear(normal(rng, 3, 25))]
    monkeypatch.setattr(reference, "launches", refuse)
    with pytest.raises(dtd.BackendError, match="layer 1: matmul: its channels"):
        explainer(layers, HostDevice(), rules="attnlrp").explain(normal(rng, 2, 5, 6), 0)
