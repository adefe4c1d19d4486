"""Maps against zennit's and captum's, and where these differ from themselves."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable

import numpy as np
import pytest

from parity import CAPTUM, MODULES, ZENNIT, Array, by_captum, by_zennit, images, network, weighted
from support import chosen

Report = Callable[[str, tuple[str, ...]], None]

PARITY = "| network | tool | rules | input | largest difference, float64 | sum of differences, our float32 |"
DIFFERENCES = "| what | network | measured |"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def worst(ours: Array, theirs: Array) -> float:
    """Largest difference, relative to the largest value."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def total(ours: Array, exact: Array) -> float:
    """Sum of absolute differences, relative to the sum of absolute values."""
    return float(np.abs(ours - exact).sum() / np.abs(exact).sum())


@pytest.mark.parametrize(("name", "rules"), chosen(MODULES, ZENNIT, every=2))
def test_zennit(name: str, rules: str, report: Report) -> None:
    net = network(name)
    composite, same = ZENNIT[rules]
    exact = net.ours(same, "zennit")
    difference, rounding = worst(exact, by_zennit(net, composite)), total(net.ours(same, "zennit", "cpu"), exact)
    report(PARITY, (name, "zennit", rules, "signed", f"{difference:.0e}", f"{rounding:.0e}"))
    assert difference <= 1e-9
    assert rounding <= 1e-5


@pytest.mark.parametrize(("name", "rules", "signed"), chosen(MODULES, CAPTUM, (True, False), every=2))
def test_captum(name: str, rules: str, signed: bool, report: Report) -> None:
    net, x = network(name), images(nonnegative=not signed)
    rule, same = CAPTUM[rules]
    exact = net.ours(weighted(same), "captum", x=x)
    difference = worst(exact, by_captum(net, rule, x))
    rounding = total(net.ours(weighted(same), "captum", "cpu", x), exact)
    report(PARITY, (name, "captum", rules, "signed" if signed else "x ≥ 0", f"{difference:.0e}", f"{rounding:.0e}"))
    assert difference <= 1e-9
    assert rounding <= 1e-5


def sums(relevance: Array) -> Array:
    return relevance.sum(axis=(1, 2, 3))


def test_zennit_doubles_relevance_at_unmarked_adds(report: Report) -> None:
    """Its ResNet has 16 adds, each of which gives all of its relevance to both operands."""
    net, composite = network("ResNet-50"), ZENNIT["EpsilonPlus"][0]
    times = sums(by_zennit(net, composite, canonize=False)) / sums(by_zennit(net, composite))
    report(
        DIFFERENCES,
        ("zennit, EpsilonPlus: sum of R without ResNetCanonizer over that with it", net.name, f"{times.mean():.3g}"),
    )
    np.testing.assert_allclose(times, 2**16, rtol=0.05)


def test_captum_grows_at_unmarked_adds(report: Report) -> None:
    """What arrives over a bare add is multiplied by the activation once more."""
    net, x, rule = network("ResNet-50"), images(nonnegative=True), CAPTUM["Alpha1_Beta0_Rule"][0]
    times = sums(by_captum(net, rule, x, add=None)) / sums(by_captum(net, rule, x))
    report(
        DIFFERENCES,
        ("captum, α1β0: sum of R without Addition_Module over that with it", net.name, f"{times.mean():.3g}"),
    )
    assert times.min() > 2**16


@pytest.mark.parametrize("name", MODULES)
def test_zennit_may_leave_the_eps_of_merged_batch_norms(name: str, report: Report) -> None:
    """Each merged BatchNorm still divides by √(1 + eps), before zennit 1."""
    composite = ZENNIT["EpsilonPlus"][0]
    difference = worst(by_zennit(network(name, merge=False), composite), by_zennit(network(name), composite))
    report(
        DIFFERENCES,
        (
            "zennit's merge of BatchNorms against an exact one, EpsilonPlus: largest difference",
            name,
            f"{difference:.0e}",
        ),
    )
    assert difference <= 1e-9 if importlib.metadata.version("zennit") >= "1" else 1e-7 < difference < 1e-2
