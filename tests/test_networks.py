"""Whole networks: builders against published counts and PyTorch, ledgers of every preset, positivity, conservation, cpu
against oracle.
"""

from __future__ import annotations

import numpy as np
import pytest

import dtdfast as dtd
import nets
from cases.networks import BOXED, N_BATCH, PRESETS, positive_start, rounding, small
from nets import SMALL, Net
from support import chosen

BACKENDS = [b.name for b in dtd.backends().values() if b.usable]
EXECUTORS = [*((name, "float32") for name in BACKENDS), *[("cpu", "float64")] * ("cpu" in BACKENDS)]


def explainer(net: Net, rules: str, backend: str, precision: str = "float32") -> dtd.Explainer:
    return dtd.Explainer(
        net.layers, rules=rules, domain=net.box if rules in BOXED else "real", backend=backend, precision=precision
    )


# ------------------------------------------------------------------------------------------------------------- builders

PUBLISHED = {  # parameters in millions, forward multiply-adds in 10⁹
    "alexnet": (61.0, 0.72),
    "vgg16": (138.4, 15.47),
    "squeezenet": (1.2, 0.35),
    "googlenet": (7.0, 1.58),
    "resnet50": (25.6, 4.09),
    "densenet121": (8.0, 2.83),
    "mobilenet_v2": (3.5, 0.30),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_full_size_networks_have_the_published_counts(name: str) -> None:
    net: Net = getattr(nets, name)(seed=None)
    assert net.output_shape == (1000,)
    assert (round(net.parameters / 1e6, 1), round(net.macs / 1e9, 2)) == PUBLISHED[name]


@pytest.mark.parametrize("name", SMALL)
def test_predict_matches_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch", reason="the independent forward pass is PyTorch's")
    from torch_reference import TorchNet

    net = small(name)
    x = net.sample(N_BATCH)
    with torch.no_grad():
        expected = TorchNet(net, torch.float64)(torch.from_numpy(x if net.n_words else x.astype(np.float64))).numpy()
    assert expected.shape == (N_BATCH, *net.output_shape)
    # both in float64: the same sums in another order, amplified as float32's rounding is
    oracle = dtd.predict(net.layers, x, backend="oracle")
    bound = rounding(net, expected, lambda other: dtd.predict(other.layers, x, backend="oracle"))
    assert np.abs(oracle - expected).sum() <= bound * 2.0**-29
    for backend in BACKENDS:
        assert np.abs(dtd.predict(net.layers, x, backend=backend) - expected).sum() <= bound


# --------------------------------------------------------------------------------------------------------- explanations


PAIRS = chosen(SMALL, PRESETS, every=5)


@pytest.mark.parametrize(("name", "rules"), PAIRS)
def test_ledgers_close_and_the_cpu_agrees_with_the_oracle(name: str, rules: str) -> None:
    """In one test, so that a network is planned once for its ledger and its map."""
    net = small(name)
    x, start = net.sample(N_BATCH), positive_start(net)
    made = {executor: explainer(net, rules, *executor) for executor in EXECUTORS}
    for executor, each in made.items():
        ledger = each.ledger(x, net.target)
        assert ledger.closed, f"{executor}\n{ledger}"
        assert np.abs(ledger.start).min() > 0 or rules.startswith("deep_taylor")

    exact = made["oracle", "float32"].explain(x, start)
    bound = rounding(net, exact, lambda other: explainer(other, rules, "oracle").explain(x, start))
    assert np.abs(exact).sum() > 0
    for precision, share in (("float32", 1.0), ("float64", 2.0**-29)) if "cpu" in BACKENDS else ():
        ours = made["cpu", precision].explain(x, start)
        assert ours.dtype == precision
        assert np.abs(ours - exact).sum() <= bound * share


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SMALL)
def test_positive_relevance_stays_positive(name: str, backend: str) -> None:
    """Under "dtd" every n_ij and d_j is a sum of non-negative terms, whatever the signs of activations and biases."""
    net = small(name)
    x, start = net.sample(N_BATCH), positive_start(net)
    for domain in ("real", net.box):
        relevance = dtd.explain(net.layers, x, start, domain=domain, backend=backend)
        assert relevance.shape == x.shape
        assert relevance.min() >= 0
        assert relevance.sum() > 0


CONSERVING = (  # every neuron but the logits ends in a ReLU, so z⁺ = 0 only where there is no relevance
    "digits_mlp", "cnn", "alexnet", "vgg16", "googlenet", "resnet50", "resnext", "squeeze_excite", "video_cnn",
    "text_cnn",
)  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bias", ["nonpositive", "none"])
@pytest.mark.parametrize("name", CONSERVING)
def test_relevance_is_conserved_without_positive_biases(name: str, bias: nets.Bias, backend: str) -> None:
    net = small(name, bias)
    ledger = explainer(net, "dtd", backend).ledger(net.sample(N_BATCH))
    np.testing.assert_array_less(np.abs(ledger.end - ledger.start), ledger.bound)


@pytest.mark.skipif("cpu" not in BACKENDS, reason="no compiled kernels")
@pytest.mark.parametrize("name", ["digits_mlp", "vgg16"])
def test_zplus_costs_three_products(name: str) -> None:
    """Chains of linear layers, stride-1 convolutions, ReLUs and max pools, x ≥ 0: y, z⁺ and the transposed product,
    nothing else.

    But for the logits, which may be negative: theirs has two transposed products, one for each sign.
    """
    net = small(name)
    plan = dtd.Explainer(net.layers, domain="nonnegative", backend="cpu", n_threads=1).plan_for(
        (N_BATCH, *net.input_shape)
    )
    logits = next(record for record in reversed(net.layers) if isinstance(record, dtd.Linear)).weight.size
    assert plan.macs == N_BATCH * (3 * net.macs + logits)
