"""Which layer takes which rule, in which box, and what folds into what: against the explicit matrix, backend by
backend.
"""

import dataclasses

import numpy as np
import pytest

import dtdfast as dtd
import explicit
from support import by_matrix, classifier, close, normal

pytestmark = pytest.mark.parametrize("backend", ["oracle", "cpu"])


# ------------------------------------------------------------------------------------------------------------ domains


@pytest.mark.parametrize("domain", ["real", "nonnegative", "box"])
@pytest.mark.parametrize(
    "path", ["none", "flatten", "reshape", "permute", "slice", "pad", "concat", "dropout", "batch norm"]
)
def test_domain_follows_the_data_flow(path, domain, backend, rng):
    """Whatever moves the input, the layer behind it has the first-layer rule, in the box that arrives there."""
    x = abs(normal(rng, 3, 4, 5))
    low, high = -rng.uniform(0, 1, (4, 5)).astype(np.float32), rng.uniform(2, 3, (4, 5)).astype(np.float32)
    x = np.clip(x, low, high)
    number = np.arange(1, 21).reshape(1, 4, 5)  # follow each element through the movement
    moves, index = {
        "none": ([], number),
        "flatten": ([dtd.Flatten(), dtd.Reshape((4, 5))], number),
        "reshape": ([dtd.Reshape((2, 10))], number.reshape(1, 2, 10)),
        "permute": ([dtd.Permute((0, 2, 1))], number.transpose(0, 2, 1)),
        "slice": ([dtd.Slice(2, 0, 5, 2)], number[:, :, ::2]),
        "pad": ([dtd.Pad(((1, 2),))], np.pad(number, ((0, 0), (0, 0), (1, 2)))),
        "concat": ([dtd.Concat(inputs=(dtd.INPUT, dtd.INPUT))], np.concatenate([number, number], 1)),
        "dropout": ([dtd.Dropout()], number),
        "batch norm": ([dtd.BatchNorm(np.zeros(4), np.ones(4), eps=0.0)], number),
    }[path]
    channels, length = index.shape[1:]
    weight = normal(rng, 6, channels, 3)
    layers = [*moves, dtd.Conv(weight)]
    taps = explicit.conv((channels, length), weight)
    start = normal(rng, 3, *taps.out_shape)

    real = index.ravel() > 0  # padding is no input
    r_in = dtd.explain(layers, x, start, domain=(low, high) if domain == "box" else domain, backend=backend)
    expected = np.zeros((3, 20))
    for n, sample in enumerate(x):
        taken = np.concatenate([[0.0], sample.astype(np.float64).ravel()])[index.ravel()]
        bounds = [np.concatenate([[0.0], b.ravel()])[index.ravel()] for b in (low, high)]
        inside = taps._replace(matrix=taps.matrix * real, valid=taps.valid & real)
        terms = {"real": explicit.wsquare, "nonnegative": explicit.zplus_by_sign, "box": explicit.zbox}[domain](
            inside, taken, *(bounds if domain == "box" else ())
        )
        moved, _ = explicit.propagate(terms, start[n].astype(np.float64).ravel())
        np.add.at(expected[n], index.ravel()[real] - 1, moved[real])
    close(r_in, expected.reshape(x.shape), backend)


def test_pixels_on_the_faces_of_the_box(backend):
    """float32 pixels and float64 bounds that mean the same numbers: rounding must not push a pixel out of its box."""
    low, high = (0 - 0.456) / 0.224, (1 - 0.456) / 0.224
    x = np.array([[low, high]], np.float32)
    r_in = dtd.explain([dtd.Linear([[-1.0, 1.0]])], x, 0, domain=(low, high), backend=backend)
    # (x - low) w+ + (high - x) |w-|: both pixels are as far from their root as can be, and y = high - low
    np.testing.assert_allclose(r_in, [[(high - low) / 2, (high - low) / 2]], rtol=1e-6)


def test_each_x_meets_the_box_in_its_own_precision(backend):
    explainer = dtd.Explainer([dtd.Linear([[-1.0, 1.0]])], domain=(-1, [0.1, 0.2]), backend=backend)
    beyond = np.float64(np.float32(0.1))  # rounded up
    for _ in range(2):  # what is kept for one type is not taken for the other
        explainer.explain(np.array([[beyond, 0.0]], np.float32), 0)
        explainer.explain(np.array([[0.1, 0.2]]), 0)
        with pytest.raises(dtd.DomainError, match="leaves the box"):
            explainer.explain(np.array([[beyond, 0.0]]), 0)


def test_box_through_a_scale_that_flips_signs(backend, rng):
    """A Scale between the input and its reader folds into it: the box that counts is the input's own."""
    weight, factor, shift = normal(rng, 4, 3), np.array([1.0, -2.0, 0.5]), np.array([0.25, 0.5, -1.0])
    x, start = rng.uniform(-1, 1, (3, 3)).astype(np.float32), normal(rng, 3, 4)
    taps = explicit.linear((3,), weight * factor, weight.astype(float) @ shift)
    expected = by_matrix([explicit.zbox(taps, sample.astype(float), -1.0, 1.0) for sample in x], start)
    close(
        dtd.explain([dtd.Scale(factor, shift), dtd.Linear(weight)], x, start, domain=(-1, 1), backend=backend),
        expected,
        backend,
    )


def test_box_through_a_scale_that_cannot_fold(backend, rng):
    """Before a padded convolution a shift stays where it is: the box is mapped with it, its ends swapped where the
    factor is negative.
    """
    weight, factor, shift = normal(rng, 4, 2, 3), np.array([1.0, -2.0]), np.array([0.25, 0.5])
    x = rng.uniform(-1, 1, (3, 2, 6)).astype(np.float32)
    taps = explicit.conv((2, 6), weight, padding=1)
    start = normal(rng, 3, *taps.out_shape)
    mapped = x.astype(float) * factor[:, None] + shift[:, None]
    low, high = np.repeat([[-0.75, -1.5], [1.25, 2.5]], 6, axis=1)
    expected = by_matrix([explicit.zbox(taps, sample.ravel(), low, high) for sample in mapped], start)
    layers = [dtd.Scale(factor, shift), dtd.Conv(weight, padding=1)]
    close(dtd.explain(layers, x, start, domain=(-1, 1), backend=backend), expected.reshape(x.shape), backend)


def test_every_layer_that_reads_the_input_takes_its_rule(backend, rng):
    a, b = normal(rng, 4, 3), normal(rng, 4, 3)
    layers = [dtd.Linear(a), dtd.ReLU(), dtd.Linear(b, inputs=dtd.INPUT), dtd.ReLU(), dtd.Concat(inputs=(1, 3))]
    x, start = normal(rng, 3, 3), abs(normal(rng, 3, 8))
    expected = by_matrix(
        [explicit.wsquare(explicit.linear((3,), a), sample.astype(float)) for sample in x], start[:, :4]
    )
    expected += by_matrix(
        [explicit.wsquare(explicit.linear((3,), b), sample.astype(float)) for sample in x], start[:, 4:]
    )
    close(dtd.explain(layers, x, start, backend=backend), expected, backend)


# -------------------------------------------------------------------------------------------------------------- rules


def residual(rng):
    """A block on the input, and a block on the first one's output."""
    return [
        dtd.Linear(normal(rng, 5, 5), normal(rng, 5)),
        dtd.Add(inputs=(0, dtd.INPUT)),
        dtd.ReLU(),
        dtd.Linear(normal(rng, 5, 5), normal(rng, 5)),
        dtd.Add(inputs=(3, 2)),
    ]


def test_forms_of_rules(backend, rng):
    """A preset, one rule, a mapping and a callable that say the same."""
    layers, x = classifier(rng), abs(normal(rng, 3, 3, 6, 6))

    def explain(rules):
        return dtd.explain(layers, x, 1, rules=rules, domain="nonnegative", backend=backend)

    expected = explain("excitation-backprop")
    for same in (
        dtd.ZPlus(),
        {0: dtd.ZPlus(), 4: dtd.ZPlus()},
        {},
        "dtd",
        lambda p, record: dtd.ZPlus() if hasattr(record, "weight") else None,
    ):
        np.testing.assert_array_equal(explain(same), expected)
    assert abs(explain({4: dtd.Epsilon(stabilizer=0.1)}) - expected).max() > 1e-3 * abs(expected).max()


@pytest.mark.parametrize("rule", [dtd.WSquare(), dtd.Flat(), dtd.Epsilon(stabilizer=0.25)], ids=str)
def test_an_add_follows_its_operand(rule, backend, rng):
    """An Add without a rule of its own is one neuron with its linear operand, under that operand's rule, at the input
    too.
    """
    layers, x, start = residual(rng), normal(rng, 3, 5), normal(rng, 3, 5)
    record = layers[0]
    taps = explicit.add(explicit.linear((5,), record.weight, record.bias), explicit.identity((5,)))
    function = {"WSquare": explicit.wsquare, "Flat": explicit.flat, "Epsilon": explicit.epsilon}[type(rule).__name__]
    expected = np.array([explicit.propagate(function(taps, np.tile(sample.astype(float), 2)), s.astype(float),
        rule.stabilizer or 0.0)[0]
                         for sample, s in zip(x, start, strict=True)]).reshape(3, 2, 5).sum(axis=1)  # fmt: skip
    close(dtd.explain(layers[:2], x, start, rules={0: rule}, backend=backend), expected, backend)
    close(dtd.explain(layers[:2], x, start, rules=rule, backend=backend), expected, backend)


def test_an_add_under_another_rule_stays_apart(backend, rng):
    """Different rules for an Add and its operand: first the Add shares among its operands, then the operand among its
    inputs.
    """
    layers, x, start = residual(rng), normal(rng, 3, 5), normal(rng, 3, 5)
    record = layers[0]
    expected = []
    for sample, s in zip(x.astype(float), start.astype(float), strict=True):
        taps = explicit.linear((5,), record.weight, record.bias)
        both = explicit.add(explicit.identity((5,)), explicit.identity((5,)))
        y = taps.matrix @ sample + taps.bias
        to_y, to_x = explicit.propagate(explicit.epsilon(both, np.concatenate([y, sample])), s, 0.25)[0].reshape(2, 5)
        expected.append(explicit.propagate(explicit.wsquare(taps, sample), to_y)[0] + to_x)
    rules = {0: dtd.WSquare(), 1: dtd.Epsilon(stabilizer=0.25)}
    close(dtd.explain(layers[:2], x, start, rules=rules, backend=backend), expected, backend)


def test_pass_gives_all_to_every_operand(backend, rng):
    x, start = normal(rng, 3, 5), normal(rng, 3, 5)
    layers = [dtd.ReLU(), dtd.ReLU(inputs=dtd.INPUT), dtd.Add(inputs=(0, 1))]
    np.testing.assert_array_equal(dtd.explain(layers, x, start, rules={2: dtd.Pass()}, backend=backend), 2 * start)


def test_an_operand_read_twice(backend, rng):
    """A convolution that someone else reads too is no part of the Add's neuron; it collects from both readers."""
    weight = abs(normal(rng, 4, 4))
    layers = [dtd.Linear(weight), dtd.ReLU(), dtd.Linear(np.eye(4)), dtd.Add(inputs=(2, 1)), dtd.Concat(inputs=(3, 2))]
    x, start = abs(normal(rng, 3, 4)), abs(rng.standard_normal((3, 8)))
    # y = relu, Linear(eye) = y, Add = y + y shares evenly, so y collects all of both starts whichever way
    expected = by_matrix(
        [explicit.zplus(explicit.linear((4,), weight), s.astype(float)) for s in x], start[:, :4] + start[:, 4:]
    )
    close(dtd.explain(layers, x, start, domain="nonnegative", backend=backend), expected, backend)


def test_preset_that_clips_its_start(backend, rng):
    layers, x = classifier(rng), normal(rng, 3, 3, 6, 6)
    start = normal(rng, 3, 5)
    clipped = dtd.explain(layers, x, np.maximum(start, 0), rules="deep_taylor", backend=backend)
    np.testing.assert_array_equal(dtd.explain(layers, x, start, rules="deep_taylor", backend=backend), clipped)


@pytest.mark.parametrize("preset", sorted(dtd.PRESETS))
@pytest.mark.parametrize("convention", ["dtd", "zennit", "captum", "innvestigate"])
def test_every_preset_under_every_convention_closes_its_ledger(preset, convention, backend, rng):
    layers, x = classifier(rng), np.clip(normal(rng, 3, 3, 6, 6), -3, 3)
    explainer = dtd.Explainer(layers, rules=preset, convention=convention, domain=(-3, 3), backend=backend)
    ledger = explainer.ledger(x, 1)
    assert ledger.closed, str(ledger)
    np.testing.assert_allclose(
        ledger.end, explainer.explain(x, 1).reshape(3, -1).sum(axis=1, dtype=np.float64), rtol=1e-6
    )


# ------------------------------------------------------------------------------------------------------------ folding


def norm(rng, n):
    """A BatchNorm, and its factor and shift as columns."""
    mean, weight, bias = (normal(rng, n) for _ in range(3))
    variance = rng.uniform(0.5, 2, n).astype(np.float32)
    factor = weight / np.sqrt(variance.astype(np.float64) + 1e-5)
    return dtd.BatchNorm(mean, variance, weight, bias), factor[:, None], (bias - mean * factor)[:, None]


def test_norm_before_a_padded_convolution_stays(backend, rng):
    """Its shift does not reach the padding, so it cannot fold: relevance passes it, and the ledger has a row for it."""
    x, weight = normal(rng, 3, 2, 6), normal(rng, 4, 2, 3)
    record, factor, shift = norm(rng, 2)
    layers = [record, dtd.Conv(weight, padding=1)]
    taps = explicit.conv((2, 6), weight, padding=1)
    inner = x * factor + shift
    close(
        dtd.predict(layers, x, backend=backend),
        np.array([taps.matrix @ s.ravel() for s in inner]).reshape(3, 4, 6),
        backend,
    )
    start = normal(rng, 3, 4, 6)
    explainer = dtd.Explainer(layers, rules=dtd.Epsilon(stabilizer=0.5), backend=backend)
    expected = [
        explicit.propagate(explicit.epsilon(taps, s.ravel()), r.ravel().astype(float), 0.5)[0]
        for s, r in zip(inner, start, strict=True)
    ]
    close(explainer.explain(x, start), np.reshape(expected, x.shape), backend)
    assert [row.entries for row in explainer.ledger(x, start).rows] == [(1,), (0,)]


def test_norm_after_a_convolution_with_another_reader_stays(backend, rng):
    x, weight = normal(rng, 3, 2, 6), normal(rng, 4, 2, 1)
    record, factor, shift = norm(rng, 4)
    layers = [dtd.Conv(weight), dataclasses.replace(record, inputs=0), dtd.Concat(inputs=(0, 1))]
    y = np.einsum("oi,nip->nop", weight[..., 0].astype(float), x)
    close(dtd.predict(layers, x, backend=backend), np.concatenate([y, y * factor + shift], 1), backend)


def test_norm_between_two_convolutions_folds_once(backend, rng):
    x, a, b = normal(rng, 3, 2, 6), normal(rng, 4, 2, 1), normal(rng, 3, 4, 1)
    record, factor, shift = norm(rng, 4)
    y = np.einsum("oi,nip->nop", a[..., 0].astype(float), x) * factor + shift
    expected = np.einsum("oi,nip->nop", b[..., 0].astype(float), y)
    layers = [dtd.Conv(a), record, dtd.Conv(b)]
    close(dtd.predict(layers, x, backend=backend), expected, backend)
    assert [row.entries[0] for row in dtd.Explainer(layers, backend=backend).ledger(x, (0, 0)).rows] == [2, 0]
