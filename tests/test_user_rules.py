"""A rule that a user makes of `Share` and `Term` runs like any other; what no executor could follow is refused, of
dtdfast's own rules too.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

import dtdfast as dtd
import explicit
import user_rules
from dtdfast.runs.manifest import described
from dtdfast.vocabulary import WEIGHT_MAPS, X_ABS
from support import close, normal


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
@pytest.mark.parametrize("name", user_rules.RULES)
@pytest.mark.parametrize("rectified", [True, False])
def test_it_is_its_formula(name, rectified, backend, rng):
    """Two layers against the explicit matrix: inputs and relevance of both signs, a ReLU between them or none."""
    rule, terms = user_rules.RULES[name]
    a, b = (normal(rng, 4, 1, 3), normal(rng, 4)), (normal(rng, 3, 20), normal(rng, 3))
    layers = [dtd.Conv(*a, padding=1, groups=2), *[dtd.ReLU()] * rectified, dtd.Flatten(), dtd.Linear(*b)]
    x, start = normal(rng, 3, 2, 5), normal(rng, 3, 3)
    below, above = explicit.conv((2, 5), *a, padding=1, groups=2), explicit.linear((20,), *b)
    expected = []
    for sample, r in zip(x.astype(float), start.astype(float), strict=True):
        y = below.matrix @ sample.ravel() + below.bias
        r, _ = explicit.propagate(terms(above, np.maximum(y, 0) if rectified else y), r, rule.stabilizer or 0.0)
        r, _ = explicit.propagate(terms(below, sample.ravel()), r, rule.stabilizer or 0.0)
        expected.append(r.reshape(2, 5))
    close(dtd.explain(layers, x, start, rules=rule, backend=backend), np.array(expected), backend)


@pytest.mark.parametrize("name", user_rules.RULES)
def test_network(name, rng):
    """Everything that shares by a rule: the CPU's map is the oracle's, and both ledgers close."""
    rule, _ = user_rules.RULES[name]
    layers, x = user_rules.network(rng), normal(rng, 3, 2, 4, 4)
    close(
        dtd.explain(layers, x, 0, rules=rule, backend="cpu"),
        dtd.explain(layers, x, 0, rules=rule, backend="oracle"),
        "cpu",
    )
    for backend in ("cpu", "oracle"):
        ledger = dtd.Explainer(layers, rules=rule, backend=backend).ledger(x, 0)
        assert ledger.closed, str(ledger)


def test_the_ledger_says_what_coefficients_take_away(rng):
    class Half(dtd.Rule):
        def shares(self, convention):
            return (dtd.Share((dtd.Term("1", "1"),), 0.5),)

    ledger = dtd.Explainer([dtd.Linear(normal(rng, 3, 4))], rules=Half(), backend="oracle").ledger(normal(rng, 2, 4), 0)
    np.testing.assert_allclose(ledger.absorbed["surplus"], ledger.start / 2)
    assert ledger.closed


def test_it_is_kept_like_any_other_rule(rng):
    """By its class and fields: equal ones are one Explainer's, and it travels with a pickled Explainer."""
    assert user_rules.Magnitude() == user_rules.Magnitude()
    assert hash(user_rules.Magnitude()) == hash(user_rules.Magnitude())
    assert user_rules.Magnitude(0.5) != user_rules.Magnitude()
    assert user_rules.Excitatory() != user_rules.Inhibitory()
    layers, x = [dtd.Linear(normal(rng, 3, 4))], normal(rng, 2, 4)
    explainer = dtd.Explainer(layers, rules=user_rules.Magnitude(), backend="cpu")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(explainer)).explain(x, 0), explainer.explain(x, 0))


class Strange(dtd.Rule):
    """What it shares depends on more than its fields: an attribute, and one of its class."""

    power = 1.0

    def __init__(self, factor):
        super().__init__()
        object.__setattr__(self, "factor", factor)

    def shares(self, convention):
        return (dtd.Share((dtd.Term("x", "w"),), self.factor * self.power),)


def test_calls_and_runs_tell_rules_apart_by_what_they_share(rng, monkeypatch):
    layers, x = [dtd.Linear(normal(rng, 3, 4))], normal(rng, 2, 4)

    def both(factor):
        return dtd.explain(layers, x, 0, rules=Strange(factor), backend="cpu"), described(Strange(factor), layers)

    (one, told), (two, told_two) = both(1.0), both(2.0)
    np.testing.assert_array_equal(two, 2 * one)
    monkeypatch.setattr(Strange, "power", 4.0)
    four, told_four = both(1.0)
    np.testing.assert_array_equal(four, 4 * one)
    assert told != told_two != told_four != told
    assert described(dtd.Pass(), layers) == repr(dtd.Pass())


def term(x="x", w="w"):
    return dtd.Term(x, w)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((), "at least one Share"),
        ((dtd.Share(()),), "at least one Term"),
        ((term(),), "at least one Share"),
        (dtd.Share((term(),)), "at least one Share"),
        ((dtd.Share((("x", "w"),)),), "at least one Term"),
        ((dtd.Share((term(),), np.nan),), "coefficient is nan, expected a number"),
        ((dtd.Share((term(),), "2"),), "coefficient is '2', expected a number"),
        ((dtd.Share((term(),), bias="w"),), "bias is 'w', which the rule's class says, in `biases`"),
        ((dtd.Share((term("x²"),)),), "has x='x²', expected one of x, x+"),
        ((dtd.Share((term(X_ABS),)),), "has x='.x.', expected one of x, x+"),
        ((dtd.Share((term(w="w³"),)),), "has w='w³', expected one of w, w+"),
        ((dtd.Share((term("x-low", "w+"),)),), "needs the box of the layer's input; make the rule a subclass of ZBox"),
        ((dtd.Share((term(),), select="y>=0"),), "select is 'y>=0', expected one of all, y>0, y<0"),
        ((dtd.Share((term("1", "w2"), term("1", "w+"))),), "weight maps of one degree"),
        ((dtd.Share((term(),)), dtd.Share((term(),), -0.5)), "has 1 weight maps, expected one for each of 2 shares"),
    ],
)
@pytest.mark.parametrize("backend", ["oracle", "cpu"])
def test_what_no_executor_could_follow_is_refused(shares, message, backend):
    class Wrong(dtd.Rule):
        def shares(self, convention):
            return shares

    with pytest.raises(dtd.RuleError, match=f"Wrong.*{message}"):
        dtd.explain([dtd.Linear(np.ones((2, 3)))], np.ones((1, 3)), rules=Wrong(), backend=backend)


@pytest.mark.parametrize(
    ("field", "value"), [("gamma", -0.5), ("gamma", "0.5"), ("gamma", np.nan), ("stabilizer", -1.0), ("bias", "b")]
)
def test_a_field_that_no_constructor_checked_is_refused(field, value):
    @dataclass(frozen=True)
    class Mine(dtd.Rule):
        gamma: float = 0.25

        def __post_init__(self):
            pass

        def shares(self, convention):
            return (dtd.Share((term(w="w+g.w+"),)),)

    changed = dtd.Gamma()
    object.__setattr__(changed, field, value)
    for rule in (Mine(**{field: value}), changed):
        with pytest.raises(dtd.RuleError, match=f"(Mine|Gamma): {field}.*{value}"):
            dtd.explain([dtd.Linear(np.ones((2, 3)))], np.ones((1, 3)), rules=rule)


def test_rules_that_compare_equal_but_share_differently_are_no_one_neuron(rng):
    """An Add takes a linear operand's rule where it is its own."""
    layers = [dtd.Linear(normal(rng, 3, 4), inputs=-1) for _ in range(2)] + [dtd.Add(inputs=(0, 1))]
    x = normal(rng, 1, 4)

    def both(a, b):
        return dtd.explain(layers, x, 0, rules={0: Strange(a), 1: Strange(b)}, backend="oracle")

    assert Strange(1.0) == Strange(2.0)
    start, ones = dtd.predict(layers, x, backend="oracle")[:, 0], both(1.0, 1.0)
    np.testing.assert_allclose(ones.sum(), start.sum())
    assert abs(both(1.0, 2.0) - ones).max() > 0.1 * abs(ones).max()


def test_one_that_refines_a_rule_of_dtdfast_is_followed_everywhere(rng):
    class Mine(dtd.ZPlusBySign):
        def shares(self, convention):
            return (dtd.Share((term("1", "1"),)),)

    layers = [dtd.Linear(normal(rng, 3, 4)), dtd.ReLU()]
    x, start = normal(rng, 2, 4), normal(rng, 2, 3)
    np.testing.assert_array_equal(
        dtd.explain(layers, x, start, rules=Mine()), dtd.explain(layers, x, start, rules=dtd.Flat())
    )


def test_a_name_of_dtdfast_brings_no_bias_that_the_rule_lacks(rng):
    plus = type("ZPlus", (user_rules.Excitatory,), {})
    layers, x = [dtd.Linear(normal(rng, 3, 4), normal(rng, 3))], normal(rng, 2, 4)
    dtd.explain(layers, x, 0, rules=plus(), convention="zennit")


@pytest.mark.parametrize("weight_map", WEIGHT_MAPS)
def test_every_weight_map_is_one_of_the_bias_too(weight_map, rng):
    """As a neuron that is always 1 with the bias as its weight."""

    @dataclass(frozen=True)
    class Biased(dtd.Rule):
        gamma: float = 0.5
        biases: ClassVar[dict[str, tuple[str | None, ...]]] = {"none": (weight_map,)}

        def shares(self, convention):
            return (dtd.Share((term("1", weight_map),)),)

    weight, bias, x = normal(rng, 3, 4), normal(rng, 3), normal(rng, 2, 4)
    whole = dtd.Linear(np.concatenate([weight, bias[:, None]], axis=1))
    rule = Biased(stabilizer=0.25)
    start = normal(rng, 2, 3)
    without = dtd.explain(
        [whole], np.concatenate([x, np.ones((2, 1), np.float32)], axis=1), start, rules=rule, backend="oracle"
    )[:, :4]
    for backend in ("oracle", "cpu"):
        explainer = dtd.Explainer([dtd.Linear(weight, bias)], rules=rule, backend=backend)
        close(explainer.explain(x, start), without, backend)
        assert explainer.ledger(x, start).closed


def test_a_bias_of_no_weight_map_is_refused():
    class Wrong(dtd.Rule):
        biases = {"none": ("b",)}  # noqa: RUF012

        def shares(self, convention):
            return (dtd.Share((term(),)),)

    with pytest.raises(dtd.RuleError, match=r"Wrong.biases: 'b' is not one of w, w\+"):
        dtd.explain([dtd.Linear(np.ones((2, 3)))], np.ones((1, 3)), rules=Wrong())


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
def test_a_rule_of_a_box(backend, rng):
    """A subclass of ZBox has its box: only the way to the lower corner, so (x − low) w / Σ."""

    @dataclass(frozen=True)
    class Lower(dtd.ZBox):
        def shares(self, convention):
            return (dtd.Share((term("x-low", "w+"),)),)

    weight, x = normal(rng, 3, 4), rng.random((2, 4)).astype(np.float32)
    n = np.maximum(weight.astype(float), 0) * (x.astype(float)[:, None] + 1)
    expected = n[:, 1] / n[:, 1].sum(-1, keepdims=True)
    start = np.tile([0.0, 1.0, 0.0], (2, 1))
    close(
        dtd.explain([dtd.Linear(weight)], x, start, rules=Lower(), domain=(-1, 1), backend=backend), expected, backend
    )
    close(dtd.explain([dtd.Linear(weight)], x, start, rules=Lower(-1.0, 2.0), backend=backend), expected, backend)


REFUSED = {  # what is wrong: (call, error, words that the message must hold)
    "bias of another rule": (lambda: dtd.ZPlus(bias="square"), dtd.RuleError, ["ZPlus", "square", "positive"]),
    "bias of a rule in a list": (lambda: dtd.ZPlus(bias=["none"]), dtd.RuleError, ["ZPlus", "positive"]),
    "fallback that is a word": (
        lambda: dtd.AlphaBeta(fallback="no"), dtd.RuleError, ["fallback is 'no'", "True or False"]),
    "negative stabilizer": (lambda: dtd.Epsilon(stabilizer=-1.0), dtd.RuleError, ["Epsilon", "-1.0"]),
    "NaN stabilizer": (lambda: dtd.Epsilon(stabilizer=np.nan), dtd.RuleError, ["Epsilon", "nan"]),
    "negative gamma": (lambda: dtd.Gamma(-0.25), dtd.RuleError, ["Gamma", "-0.25"]),
    "stabilizer that is a word": (lambda: dtd.Epsilon("1"), dtd.RuleError, ["Epsilon", "'1'"]),  # type: ignore[arg-type]
    "several stabilizers": (lambda: dtd.ZPlus(stabilizer=np.ones(2)), dtd.RuleError, ["ZPlus", "a number"]),
    "stabilizer that is a truth": (lambda: dtd.Epsilon(True), dtd.RuleError, ["Epsilon", "True"]),
    "stabilizer beyond float64": (lambda: dtd.ZPlus(stabilizer=10**400), dtd.RuleError, ["ZPlus", "stabilizer"]),
    "stabilizer of another name": (
        lambda: replace(dtd.Epsilon(0.1), epsilon=0.2), dtd.RuleError, ["names of one number"]),
    "no gamma": (lambda: dtd.Gamma(None), dtd.RuleError, ["Gamma", "None"]),  # type: ignore[arg-type]
    "alpha without beta": (lambda: dtd.AlphaBeta(2.0, 2.0), dtd.RuleError, ["AlphaBeta", "2.0"]),
    "box without its ceiling": (lambda: dtd.ZBox(low=-1.0), dtd.RuleError, ["ZBox", "high"]),
}  # fmt: skip


@pytest.mark.parametrize(("make", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_fields_that_are_refused(make, error, words):
    with pytest.raises(error) as caught:
        make()
    for word in words:
        assert word in str(caught.value)
