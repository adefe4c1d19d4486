"""The instruments that compare maps: measures against other implementations, verdicts on networks whose answer is
known.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats
from skimage.metrics import structural_similarity

import dtdfast as dtd
import nets
from dtdfast import diagnostics
from dtdfast.data import digits
from dtdfast.diagnostics import similarity

mpl.use("agg")
BOX: dict[str, Any] = {"domain": (0.0, 1.0)}


def chain(rng: np.random.Generator, *widths: int, shift: float = 0.05) -> list[dtd.Layer]:
    layers: list[dtd.Layer] = []
    for n_in, n_out in pairwise(widths):
        layers += [
            dtd.Linear(rng.standard_normal((n_out, n_in)) * np.sqrt(2 / n_in), np.full(n_out, -shift)),
            dtd.ReLU(),
        ]
    return layers[:-1]


# ----------------------------------------------------------------------------------------------------------- measures


def test_measures_agree_with_scipy_and_skimage(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((2, 4, 19, 23))
    a[0] = np.round(a[0])  # ties
    u, v = a.reshape(4, -1), b.reshape(4, -1)
    np.testing.assert_allclose(
        similarity.spearman(a, b), [stats.spearmanr(p, q)[0] for p, q in zip(u, v, strict=True)], atol=1e-12
    )
    scaled = [m / np.abs(m).max(axis=(1, 2), keepdims=True) for m in (a, b)]
    expected = [
        max(structural_similarity(p, s * q, data_range=2.0) for s in (1, -1)) for p, q in zip(*scaled, strict=True)
    ]
    np.testing.assert_allclose(similarity.ssim(a, b), expected, atol=1e-12)
    np.testing.assert_allclose(
        similarity.cosine(a, b), [p @ q / np.sqrt((p @ p) * (q @ q)) for p, q in zip(u, v, strict=True)], rtol=1e-12
    )


@pytest.mark.parametrize("name", similarity.MEASURES)
def test_measures_of_equal_scaled_and_zero_maps(name: str, rng: np.random.Generator) -> None:
    a = rng.standard_normal((3, 9, 9))
    same = 0.0 if name == "total variation" else 1.0
    np.testing.assert_allclose(similarity.MEASURES[name](a, 7 * a), same, atol=1e-12)
    assert np.isnan(similarity.MEASURES[name](a, 0 * a)).all()


def test_total_variation_of_disjoint_maps_is_one() -> None:
    a = np.array([[1.0, 3.0, 0.0, 0.0]])
    np.testing.assert_allclose(similarity.total_variation(a, a[:, ::-1]), 1)


# -------------------------------------------------------------------------------------------------------- instruments


def test_relevance_converges_under_zplus_and_not_in_one_layer(rng: np.random.Generator) -> None:
    """The theorem of Sixt et al. 2020: ten non-negative matrices leave one direction; LRP-0's are not non-negative."""
    layers, x = chain(rng, *(32,) * 11, 5), np.abs(rng.standard_normal((6, 32))).astype(np.float32)
    zplus = diagnostics.cosine_convergence(layers, x, domain="nonnegative")
    assert zplus.positions == [*range(19, 0, -2), dtd.INPUT]
    assert zplus.cosine[0] < 0.5
    assert zplus.cosine[-1] > 0.9999
    assert zplus.baseline.max() < 0.3
    assert "points the same way whatever began above" in zplus.reading
    zero = diagnostics.cosine_convergence(layers, x, rules="lrp-0")
    assert zero.cosine[-1] < 0.95
    later = diagnostics.cosine_convergence(layers, x, domain="nonnegative", start=5)
    assert later.positions == [5, 3, 1, dtd.INPUT]
    with pytest.raises(dtd.LayerError, match="start=4"):
        diagnostics.cosine_convergence(layers, x, start=4)


def test_convergence_passes_only_where_everything_passes() -> None:
    """In a residual network relevance is followed from block to block, never into a branch."""
    net = nets.SMALL["resnet50"]()
    result = diagnostics.cosine_convergence(net.layers, net.sample(2), domain=net.box)
    inside = [p for p in result.positions if p != dtd.INPUT and any(p in (layer.inputs or ()) for layer in net.layers)]
    assert len(result.positions) >= 17  # the stem, 16 blocks, the pool, the input
    assert inside
    assert np.isfinite(result.cosine).all()


def test_convergence_is_that_of_the_maps(rng: np.random.Generator) -> None:
    """Going from waist to waist gives the same relevance as going all the way at once."""
    layers, x = chain(rng, 12, 16, 16, 4), np.abs(rng.standard_normal((3, 12))).astype(np.float32)
    result = diagnostics.cosine_convergence(layers, x, domain="nonnegative", seed=3)
    active = np.maximum(dtd.predict(layers[:3], x), 0) != 0
    start = np.random.default_rng(3).standard_normal((3, 5, 16), dtype=np.float32) * active[:, None]
    maps = dtd.explain(layers, x, start, start=3, domain="nonnegative").astype(float)
    unit = maps / np.linalg.norm(maps, axis=2, keepdims=True)
    cosines = np.abs(np.einsum("nik,njk->nij", unit, unit))[:, *np.triu_indices(5, 1)]
    assert result.cosine[-1] == pytest.approx(np.median(cosines), rel=1e-4)


def test_classes_look_alike_under_zplus_and_not_under_gradients() -> None:
    layers, x, _ = digits()
    zplus = diagnostics.class_sensitivity(layers, x[:100], **BOX)
    gradient = diagnostics.class_sensitivity(layers, x[:100], attribution=dtd.baselines.input_x_gradient)
    assert np.median(zplus.similarity["|cosine|"]) > 0.95
    assert "they are one map" in zplus.reading
    assert np.median(gradient.similarity["|cosine|"]) < 0.5
    assert "they depend on the class" in gradient.reading
    assert (zplus.target != zplus.other).all()
    with pytest.raises(dtd.InputError, match="other is 3, the class that is explained of sample 1"):
        diagnostics.class_sensitivity(layers, x[:2], [2, 3], 3, **BOX)


def test_the_mixing_bound_holds_and_is_below_one(rng: np.random.Generator) -> None:
    x = np.abs(rng.standard_normal((10, 24)))
    for domain in ("nonnegative", "real", (0.0, 5.0)):
        result = diagnostics.mixing_bound(chain(rng, 24, 48, 32, 10), np.clip(x, 0, 5), domain=domain)
        assert result.bound.max() < 1
        assert result.holds
        assert result.seen.shape == (10, 10)
        assert result.seen.min() > 0


def test_neurons_that_are_off_do_not_widen_the_mixing_bound() -> None:
    """The first two share alike; the third would not, but relevance never reaches it."""
    hidden = dtd.Linear([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]], [0.0, 0.0, -100.0])
    layers = [hidden, dtd.ReLU(), dtd.Linear([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])]
    result = diagnostics.mixing_bound(layers, np.ones((1, 2)), domain="nonnegative")
    np.testing.assert_array_equal(result.coefficients[:, 1], [0])


def test_the_mixing_bound_is_the_largest_distance_of_two_columns(rng: np.random.Generator) -> None:
    """One layer: δ is the distance of the two most different outputs' maps, so the bound is attained."""
    layers, x = [dtd.Linear(rng.standard_normal((2, 8)))], np.abs(rng.standard_normal((5, 8)))
    result = diagnostics.mixing_bound(layers, x, domain="nonnegative")
    np.testing.assert_allclose(result.seen, np.broadcast_to(result.bound[:, None], result.seen.shape), rtol=1e-12)


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        ([dtd.Conv(np.ones((2, 1, 1, 1))), dtd.ReLU()], {}, r"layer 0 \(Conv\).* chains of Linear"),
        ([dtd.Linear(np.ones((1, 4)))], {}, "one output"),
        ([dtd.Linear(np.eye(4)), dtd.Activation("tanh")], {}, "tanh"),
        ([dtd.Linear(np.eye(4), np.ones(4)), dtd.ReLU()], {}, "positive bias"),
        ([dtd.Linear(np.eye(4)), dtd.ReLU()], {"rules": "lrp-0"}, "under Zero"),
        ([dtd.Linear(np.eye(4)), dtd.ReLU(), dtd.Linear(np.eye(4))], {"rules": dtd.WSquare()}, "inactive"),
    ],
)
def test_the_mixing_bound_refuses_what_it_does_not_cover(
    layers: list[dtd.Layer], options: dict[str, Any], message: str
) -> None:
    x = np.ones((1, 1, 2, 2)) if isinstance(layers[0], dtd.Conv) else np.ones((1, 4))
    with pytest.raises(dtd.LayerError, match=message):
        diagnostics.mixing_bound(layers, x, **options)


def test_gradient_equivalence_in_float64(rng: np.random.Generator) -> None:
    layers, x = chain(rng, 16, 32, 32, 4), rng.standard_normal((20, 16))
    result = diagnostics.gradient_equivalence(layers, x, backend="oracle")
    assert result.lrp0.max() <= 1e-12
    assert result.distance.min() > 0.1
    own = diagnostics.gradient_equivalence(layers, x, rules="lrp-0", backend="oracle")
    assert own.alike.min() >= 1 - 1e-12
    assert "almost the same explanation" in own.reading
    with pytest.raises(dtd.TargetError, match="float start"):
        diagnostics.gradient_equivalence(layers, x, np.ones((20, 4)))


def test_gradient_equivalence_names_what_differs(rng: np.random.Generator) -> None:
    """Leaky ReLUs, norms that do not fold and paddings of other values keep the identity; other activations and gates
    do not.
    """
    weight = rng.standard_normal((4, 4))
    same = [dtd.Linear(weight, rng.standard_normal(4)), dtd.Activation("leaky_relu"), dtd.Concat(inputs=(0, 1)),
            dtd.BatchNorm(rng.standard_normal(8), np.ones(8)), dtd.ReLU(),
                dtd.Linear(rng.standard_normal((3, 8)))]  # fmt: skip
    x = rng.standard_normal((10, 4))
    result = diagnostics.gradient_equivalence(same, x, backend="oracle")
    assert result.lrp0.max() <= 1e-12
    assert result.causes == ()
    gated = [dtd.Linear(weight, name="body"), dtd.Activation("gelu"), dtd.Linear(weight), dtd.Activation("sigmoid"),
             dtd.Mul(inputs=(1, 3)), dtd.Linear(weight), dtd.Activation("prelu", slopes=4 * [0.3]), dtd.Linear(weight),
                dtd.Activation("hard_shrink"), dtd.Linear(weight)]  # fmt: skip
    result = diagnostics.gradient_equivalence(gated, x, backend="oracle")
    assert result.lrp0.max() > 1e-3
    assert [cause.split(":")[0] for cause in result.causes] == ["layer 1 (Activation)", "layer 4 (Mul)"]
    assert "gelu" in result.reading
    assert "gate" in result.reading


def test_gradient_equivalence_names_attention_norms_and_gates() -> None:
    """In the order in which they come; of words, vectors stand for the input."""
    net = nets.SMALL["llama"]()
    result = diagnostics.gradient_equivalence(net.layers, net.sample(2), rules="cp-lrp", backend="oracle")
    np.testing.assert_allclose(result.lrp0, result.distance, rtol=0, atol=1e-12)  # one map
    assert result.lrp0.min() > 0.01
    found = {net.layers[int(cause.split()[1])].__class__ for cause in result.causes}
    assert found == {dtd.RMSNorm, dtd.MatMul, dtd.Mul}  # its SiLU makes gates alone
    scores = [p for p, record in enumerate(net.layers) if isinstance(record, dtd.MatMul) and record.transpose_b]
    assert not any(cause.startswith(f"layer {p} ") for p in scores for cause in result.causes)
    for word in ("the scale for a constant", "to the attention weights too"):
        assert word in result.reading
    linear = [dtd.Embedding(np.eye(5)), dtd.Linear(np.ones((2, 5))), dtd.Flatten(), dtd.Linear(np.ones((2, 6)))]
    same = diagnostics.gradient_equivalence(linear, np.array([[0, 4, 2]]), backend="oracle")
    assert same.lrp0.max() <= 1e-12


def test_transformers_conserve_as_their_ledgers_say() -> None:
    """CP-LRP of a network without biases and positions loses nothing; AttnLRP to its softmaxes."""
    net = nets.SMALL["llama"]()
    kept = diagnostics.conservation(net.layers, net.sample(3), rules="cp-lrp")
    np.testing.assert_allclose(kept.shares["arrived"], 1, atol=1e-4)
    assert "adds up" in kept.reading
    lost = diagnostics.conservation(net.layers, net.sample(3), rules="attnlrp")
    assert "due to: softmax" in lost.reading
    np.testing.assert_allclose(lost.shares["arrived"] + lost.shares["softmax"], 1, atol=1e-4)


NORMED = [dtd.Linear(np.eye(5) - 0.2), dtd.LayerNorm(name="norm"), dtd.ReLU(), dtd.Linear(np.ones((2, 5)))]


@pytest.mark.parametrize(
    "call",
    [
        lambda x: diagnostics.root_audit(NORMED, x),
        lambda x: diagnostics.root_points(NORMED, x, [0], layer=1),
        lambda x: diagnostics.root_points(NORMED, x, [0]),
        lambda x: diagnostics.same_region(NORMED, x, x),
        lambda x: diagnostics.region_reach(NORMED, x, x),
        lambda x: diagnostics.mixing_bound(NORMED, x, domain="nonnegative"),
    ],
)
def test_what_needs_linear_regions_refuses_a_norm_by_name(call: Any) -> None:
    with pytest.raises(dtd.LayerError, match=r"layer 1 \(LayerNorm 'norm'\)|'norm'"):
        call(np.array([[1.0, 2.0, 0.5, 3.0, 1.5]]))


def test_above_the_first_layer_the_audit_asks_for_one(rng: np.random.Generator) -> None:
    layers = [dtd.Linear(rng.standard_normal((4, 4))), dtd.ReLU(), *(dtd.Linear(np.eye(4) - 0.1) for _ in range(2))]
    x = rng.standard_normal((3, 4))
    with pytest.raises(dtd.LayerError, match=r"no neurons that read the input: name a layer, one of entries 2, 3$"):
        diagnostics.root_audit(layers, x, stop=1)
    whole, part = (diagnostics.root_audit(layers, x, layer=3, **stop) for stop in ({}, {"stop": 1}))
    assert "layer 3" in part.title
    for name, value in vars(whole).items():
        np.testing.assert_array_equal(getattr(part, name), value, err_msg=name)


def test_conservation_names_the_cause(rng: np.random.Generator) -> None:
    layers, x, _ = digits()
    kept = diagnostics.conservation(layers, x, **BOX)
    np.testing.assert_allclose(kept.shares["arrived"], 1, atol=1e-5)
    assert "adds up" in kept.reading
    biased = [
        dtd.Linear(rng.standard_normal((8, 4)), np.ones(8)),
        dtd.ReLU(),
        dtd.Linear(np.abs(rng.standard_normal((2, 8)))),
    ]
    lost = diagnostics.conservation(biased, np.abs(rng.standard_normal((30, 4))), rules="lrp-0")
    assert "due to: bias" in lost.reading
    shares = lost.shares
    total = shares["arrived"] + sum(
        shares[c] for c in ("bias", "stabilizer", "zero denominator", "surplus", "constant")
    )
    np.testing.assert_allclose(total - shares["residual"], 1, atol=1e-5)


def test_all_results_print_and_draw(rng: np.random.Generator) -> None:
    layers, x, _ = digits()
    x = x[:6]
    dense, points = chain(rng, 8, 8, 3), np.abs(rng.standard_normal((4, 8)))
    results = [
        diagnostics.root_audit(layers, x[:2], **BOX),
        diagnostics.cosine_convergence(layers, x, **BOX),
        diagnostics.class_sensitivity(layers, x, **BOX),
        diagnostics.parameter_randomization(layers, x, **BOX),
        diagnostics.gradient_equivalence(layers, x, **BOX),
        diagnostics.conservation(layers, x, **BOX),
        diagnostics.mixing_bound(dense, points, domain="nonnegative"),
    ]
    figure = Figure()
    for result, ax in zip(results, figure.subplots(2, 4).ravel(), strict=False):
        lines = str(result).splitlines()
        assert lines[-1] == result.reading
        assert result.reading.endswith(".")
        assert len(lines) == 2 + len(result.rows())
        assert result.plot(ax) is ax
        assert ax.has_data()
    figure.canvas.draw()


def test_the_package_does_not_wait_for_its_instruments() -> None:
    """Diagnostics and evaluation are imported when they are first named."""
    code = (
        "import sys, dtdfast\n"
        "assert not [m for m in sys.modules if m.startswith(('dtdfast.diagnostics', 'dtdfast.evaluation'))]\n"
        "assert dtdfast.diagnostics.root_audit and dtdfast.evaluation.region_perturbation\n"
        "assert not hasattr(dtdfast, 'no_such_thing')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------------------------ neurons and channels


def test_branches_share_what_passes(rng: np.random.Generator) -> None:
    layers = [
        dtd.Linear(rng.random((8, 6))), dtd.ReLU(),
        dtd.Linear(rng.random((5, 8))), dtd.ReLU(), dtd.Linear(rng.random((4, 8)), inputs=1), dtd.ReLU(),
        dtd.Concat(inputs=(3, 5)), dtd.Linear(rng.random((3, 9))),
    ]  # fmt: skip
    x, options = rng.random((4, 6)), {"domain": "nonnegative", "backend": "oracle"}
    flow = diagnostics.relevance_flow(layers, x, **options)
    assert (flow.positions, flow.branch_of) == ([5, 3, 1], [6, 6, None])
    np.testing.assert_allclose([flow.share[0] + flow.share[1], flow.share[2]], 1, rtol=1e-12)
    np.testing.assert_allclose([one.sum() for one in flow.channels], flow.share, rtol=1e-12)
    assert [row[3] for row in flow.rows()] == ["4", "5", "8"]
    assert flow.plot(Figure().subplots(), top=2).get_ylim()
    relevance = dtd.explain(layers, x, stop=1, **options)
    top = diagnostics.top_neurons(layers, x, position=1, k=3, **options)
    order = np.argsort(-relevance.mean(axis=0))[:3]
    np.testing.assert_array_equal(top.neurons, order[:, None])
    np.testing.assert_allclose(top.relevance, relevance.mean(axis=0)[order], rtol=1e-12)
    np.testing.assert_allclose(top.share, relevance.mean(axis=0)[order] / relevance.mean(axis=0).sum(), rtol=1e-12)
    assert list(top.samples) == [4, 4, 4]
    assert top.plot(Figure().subplots()).get_title() == "layer 1 (ReLU)"


def test_an_output_near_0_is_not_far_off() -> None:
    layers, x = [dtd.Linear([[1.0, -1.0]], [0.1])], np.array([[1.0, 0.0], [1.0, 1.1 - 1e-6]])
    found = diagnostics.conservation(layers, x, rules="lrp-0", backend="oracle")  # the bias absorbs 0.1 of each
    np.testing.assert_allclose(found.ledger.start, [1.1, 1e-6], rtol=1e-9)
    np.testing.assert_allclose(found.off, [0.1 / 1.1, 0.1 / 0.5500005], rtol=1e-9)
    nothing = diagnostics.conservation([dtd.Linear([[1.0, -1.0]])], np.ones((2, 2)), backend="oracle")
    assert nothing.reading.startswith("All outputs of 2 inputs that are explained are 0")


NOTHING: dict[str, Callable[..., Any]] = {
    "there is nothing to share out": diagnostics.conservation,
    "of no input are there two maps": diagnostics.class_sensitivity,
    "No relevance that begins at random at layer 1 (ReLU) arrives": diagnostics.cosine_convergence,
    "no map is left to compare: a map that is 0": diagnostics.parameter_randomization,
    "no map is left to compare: ": partial(diagnostics.parameter_randomization, order="independent"),
    "is 0: there is nothing to compare": diagnostics.gradient_equivalence,
    "No relevance passes": diagnostics.relevance_flow,
    "there are no maps to compare": diagnostics.mixing_bound,
}


@pytest.mark.filterwarnings("error::RuntimeWarning", "ignore:Data has no positive values")
@pytest.mark.parametrize("text", NOTHING)
def test_nothing_is_claimed_where_no_relevance_arrives(text: str, rng: np.random.Generator) -> None:
    """Undefined numbers are no proof that a map depends on anything."""
    found = NOTHING[text](chain(rng, 6, 5, 3, shift=0.0), np.zeros((3, 6)), domain="nonnegative", backend="oracle")
    assert text in found.reading
    assert str(found).endswith(".")
    found.plot(Figure().subplots())


def test_relevance_that_converges_begins_as_the_preset_lets_it(rng: np.random.Generator) -> None:
    """Under one that raises a negative start to 0, what begins is compared, and is no Gaussian any more."""
    layers, x = chain(rng, 40, 300, 10), rng.random((3, 40))
    found, plain = (diagnostics.cosine_convergence(layers, x, rules=r, **BOX).cosine[0] for r in ("deep_taylor", "dtd"))
    assert plain < 0.1
    assert abs(found - 1 / np.pi) < 0.1  # ⟨max(g, 0)⟩² / ⟨max(g, 0)²⟩ = (1/2π) / (1/2)
