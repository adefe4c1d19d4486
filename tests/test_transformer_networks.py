"""Whole transformers: held and Taylor derivatives in NumPy, conservation, ledgers, targets and parts."""

from __future__ import annotations

import dataclasses
import pickle
from functools import cache, partial

import numpy as np
import pytest

import dtdfast as dtd
import forward_mode
from nets import SMALL, Net, vit
from nets.transformers import Blocks, bert, llama
from support import chosen


def one_token(*, seed=0, bias="none"):
    """Two attention layers of one token, without a residual."""
    net = Blocks((1, 6), seed, bias)
    x = dtd.INPUT
    for _ in range(2):
        x = net.attention(x, 3, bias=False)
    net.dense(2, net.flatten(), bias=False)
    return net.net("one token")


NETS = {
    "vit": partial(vit, 6, 32, 10, 2, patch=2),  # few pixels, each of which carries a derivative
    **{name: SMALL[name] for name in ("bert", "gpt2", "llama", "talking_heads")},
    "one token": one_token,
}


@cache
def network(name, **options) -> Net:
    return NETS[name](**options)


def inputs(net, n=2):
    x = net.sample(n, seed=3)
    return x if x.dtype.kind == "i" else x.astype(np.float64)


def start_of(net, n=2):
    return np.random.default_rng(4).standard_normal((n, *net.output_shape))


EVERY = pytest.mark.parametrize("name", NETS)


# --------------------------------------------------------------------------------------- derivatives by another route


@EVERY
def test_predictions(name):
    net = network(name)
    x = inputs(net)
    expected = forward_mode.predict(net.layers, x)
    np.testing.assert_allclose(
        dtd.predict(net.layers, x, backend="oracle"), expected, rtol=0, atol=1e-12 * abs(expected).max()
    )


@cache
def by_forward_mode(name, mode):
    net = network(name)
    return forward_mode.relevance(net.layers, inputs(net), start_of(net), mode)


MODES = {  # rules → what is held
    "cp-lrp": "held",
    "lrp-0": "held",
    "attnlrp": "taylor",
}


@pytest.mark.parametrize("rules", MODES)
@EVERY
def test_relevance_is_input_times_what_is_held(name, rules):
    net = network(name)
    x, start = inputs(net), start_of(net)
    expected = by_forward_mode(name, MODES[rules])
    for backend, precision in (("oracle", "float32"), ("cpu", "float64")):
        got = dtd.explain(net.layers, x, start, rules=rules, backend=backend, precision=precision)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9 * abs(expected).max())


@EVERY
def test_gradient(name):
    """The derivative of a norm's scale, of the softmax, of both factors of a product; and by differences."""
    net = network(name)
    x, start = inputs(net), start_of(net)
    words = {"stop": 0} if net.n_words else {}  # the sum over a vector is 0, since a norm takes its mean away
    gradient = dtd.baselines.gradient(net.layers, x, start, backend="oracle", **words)
    expected = forward_mode.derivative(net.layers, x, start, "gradient").reshape(gradient.shape)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-10 * abs(expected).max())
    if net.n_words:
        return
    along, h = np.random.default_rng(5).standard_normal(x.shape), 1e-6
    ahead, behind = (dtd.predict(net.layers, x + sign * h * along, backend="oracle") for sign in (1, -1))
    slope = ((ahead - behind) * start).sum() / (2 * h)
    # the second and third derivatives are of order 1; a difference of outputs of order 1 loses 1e-16 / h
    assert abs((gradient * along).sum() - slope) <= 1e-7 * abs(gradient * along).sum()


# ----------------------------------------------------------------------------------------------------- what theory says

BOTH = pytest.mark.parametrize("backend", ["oracle", "cpu"])


@BOTH
@pytest.mark.parametrize("bias", ["random", "none"])
@EVERY
def test_dtd_is_positive_and_loses_next_to_nothing(name, bias, backend):
    """R ≥ 0 for a positive start; ΣR + what positions and class tokens take = start. But for neurons whose bias alone
    gave y its sign: no term has it, and what comes there is lost.
    """
    net = network(name, bias=bias)
    x = net.sample(2, seed=3)
    explainer = dtd.Explainer(without_biases(net.layers) if bias == "none" else net.layers, backend=backend)
    start = abs(start_of(net)).astype(np.float32)
    r_in, ledger = explainer.explain(x, start), explainer.ledger(x, start)
    assert r_in.min() >= 0
    assert ledger.closed, str(ledger)
    lost = {cause: taken for cause, taken in ledger.absorbed.items() if taken.any()}
    assert lost.keys() <= {"constant"} | ({"zero denominator"} if bias == "random" else set())
    assert (lost.get("zero denominator", 0) <= 0.02 * ledger.start).all()
    sums = r_in.reshape(2, -1).sum(axis=1, dtype=np.float64) + sum(lost.values())
    np.testing.assert_allclose(sums, ledger.start, rtol=1e-12 if backend == "oracle" else 1e-5)
    assert (r_in.reshape(2, -1).sum(axis=1) > 0.1 * ledger.start).all()


def without_biases(layers):
    return [dataclasses.replace(r, bias=None) if getattr(r, "bias", None) is not None else r for r in layers]


CAUSES = {  # rules, attention → what takes relevance, of a network with biases and positions
    ("lrp-0", "held"): {"bias", "constant"},
    ("lrp-0", "taylor"): {"bias", "constant", "softmax"},
    ("cp-lrp", None): {"bias", "constant"},
    ("attnlrp", None): {"bias", "constant", "softmax"},
    ("lrp-epsilon", "held"): {"bias", "constant", "stabilizer"},
    ("lrp-epsilon", "taylor"): {"bias", "constant", "stabilizer", "softmax"},
    ("epsilon-plus", "held"): None,
    ("excitation-backprop", "held"): None,
    ("epsilon-alpha2-beta1-flat", None): None,
    ("gamma", "held"): {"bias", "constant"},
    ("gamma", "taylor"): {"bias", "constant", "softmax"},
    ("wsquare", None): {"constant"},
}


@BOTH
@pytest.mark.parametrize(("rules", "attention"), CAUSES, ids=str)
@pytest.mark.parametrize("name", ["vit", "talking_heads"])
def test_ledger_closes_and_names_causes(name, rules, attention, backend):
    net = network(name)
    rule = {"gamma": dtd.Gamma(0.25), "wsquare": dtd.WSquare()}.get(rules, rules)
    explainer = dtd.Explainer(net.layers, rules=rule, attention=attention, backend=backend)
    ledger = explainer.ledger(net.sample(2, seed=3), start_of(net).astype(np.float32))
    assert ledger.closed, str(ledger)
    causes = {cause for cause, lost in ledger.absorbed.items() if lost.any()}
    wanted = CAUSES[rules, attention]
    if wanted is not None and name == "vit":
        assert causes == wanted
    assert ("softmax" in causes) == (attention == "taylor" or rules == "attnlrp")


@pytest.mark.parametrize("rules", MODES)
def test_the_way_a_product_is_written(rules):
    """x₁x₂x₃ at (2, 3, 4): (x₁x₂)x₃ gives (6, 6, 12) by halves, x₁(x₂x₃) gives (12, 6, 6); what is held does not
    depend on it.
    """
    x = np.array([[2.0, 3.0, 4.0]])
    picks = [dtd.Slice(1, i, i + 1, inputs=dtd.INPUT) for i in range(3)]

    def explain(*products):
        return dtd.explain([*picks, *products], x, 0, rules=rules, backend="oracle")[0]

    if rules == "attnlrp":
        np.testing.assert_array_equal(explain(dtd.Mul(inputs=(0, 1)), dtd.Mul(inputs=(3, 2))), [6, 6, 12])
        np.testing.assert_array_equal(explain(dtd.Mul(inputs=(1, 2)), dtd.Mul(inputs=(0, 3))), [12, 6, 6])
        return
    # the first is the signal, however the gates are multiplied
    one = explain(dtd.Mul(1.0, inputs=(0, 1)), dtd.Mul(1.0, inputs=(3, 2)))
    other = explain(dtd.Mul(1.0, inputs=(1, 2)), dtd.Mul(1.0, inputs=(0, 3)))
    np.testing.assert_array_equal(one, [24, 0, 0])
    np.testing.assert_array_equal(other, one)


@BOTH
def test_one_token_absorbs_half_in_every_attention(backend):
    """Its only weight is 1, which has no derivative; held weights hand on all."""
    net = network("one token")
    x = net.sample(3)
    for rules, share in (("attnlrp", 0.25), ("cp-lrp", 1.0)):
        explainer = dtd.Explainer(net.layers, rules=rules, backend=backend)
        r_in, ledger = explainer.explain(x, 0), explainer.ledger(x, 0)
        np.testing.assert_allclose(r_in.sum(axis=(1, 2)), share * ledger.start, rtol=1e-4)
        np.testing.assert_allclose(ledger.absorbed["softmax"], (1 - share) * ledger.start, rtol=1e-4, atol=1e-12)


# ---------------------------------------------------------------------------------------------- targets, parts, batches


@BOTH
@pytest.mark.parametrize(("name", "rules"), chosen(NETS, ["dtd", "cp-lrp", "attnlrp", "gamma"]))
def test_several_targets_equal_single_ones(name, rules, backend):
    net = network(name)
    explainer = dtd.Explainer(net.layers, rules=dtd.Gamma() if rules == "gamma" else rules, backend=backend)
    x, targets = net.sample(2), np.array([[1, 0], [0, 1]])
    together = explainer.explain(x, targets)
    for t in range(2):
        np.testing.assert_array_equal(together[:, t], explainer.explain(x, targets[:, t]))


def stream(net):
    """The sums of a residual stream: all that comes behind reads them, constants, or what came behind them."""

    def reads(k):
        return net.layers[k].inputs or ((k - 1,) if net.layers[k].arity != 0 else ())

    sums = [p for p, record in enumerate(net.layers) if isinstance(record, dtd.Add)]
    fixed = {p for p, record in enumerate(net.layers) if isinstance(record, dtd.Constant)}
    return [p for p in sums if all(q >= p or q in fixed for k in range(p + 1, len(net.layers)) for q in reads(k))]


@BOTH
@pytest.mark.parametrize(
    ("name", "rules", "place"),
    chosen(["bert", "gpt2", "llama", "talking_heads"], ["dtd", "cp-lrp", "attnlrp", "lrp-epsilon"], range(3), every=3),
)
def test_start_and_stop_inside(name, rules, place, backend):
    """From the output to the residual stream, and from there to the input: the whole way."""
    net = network(name)
    x, start = inputs(net), start_of(net)
    options = {"rules": rules, "backend": backend, "precision": "float64" if backend == "cpu" else "float32"}
    whole = dtd.explain(net.layers, x, start, **options)
    at = stream(net)[place]
    above = dtd.explain(net.layers, x, start, stop=at, **options)
    below = dtd.explain(net.layers, x, above, start=at, **options)
    np.testing.assert_allclose(below, whole, rtol=0, atol=1e-9 * abs(whole).max())


@BOTH
def test_the_values_of_one_attention_alone(backend):
    """`stop` at what the values are made of: what goes to scores goes around it, and the ledger says so."""
    net = network("gpt2")
    at = next(p for p, r in enumerate(net.layers) if isinstance(r, dtd.MatMul) and not r.transpose_b)
    values = net.layers[at].inputs[1]
    x, start = net.sample(2), start_of(net).astype(np.float32)
    for rules in ("cp-lrp", "attnlrp"):
        explainer = dtd.Explainer(net.layers, rules=rules, stop=values, backend=backend)
        ledger = explainer.ledger(x, start)
        assert ledger.closed, str(ledger)
        assert ledger.absorbed["around stop"].all()
        assert explainer.explain(x, start).sum() != 0


BITS = {name: {"rules": name} for name in ("dtd", "cp-lrp", "attnlrp")}
BITS |= {"gamma": {"rules": dtd.Gamma()}, "float64": {"rules": "dtd", "precision": "float64"}}


@pytest.mark.parametrize(("name", "choice"), chosen(NETS, BITS))
def test_bits(name, choice):
    """Of any number of threads, of a sample alone or in any batch, and of a pickled Explainer."""
    net = network(name)
    x = net.sample(3)
    options = BITS[choice] | {"backend": "cpu"}
    explainer = dtd.Explainer(net.layers, **options)
    r_in = explainer.explain(x, 1)
    for n_threads in (1, 3):  # it takes those that there are, two or more
        np.testing.assert_array_equal(dtd.Explainer(net.layers, n_threads=n_threads, **options).explain(x, 1), r_in)
    for batch_size in (1, 2):
        np.testing.assert_array_equal(dtd.Explainer(net.layers, batch_size=batch_size, **options).explain(x, 1), r_in)
    for n in range(3):
        np.testing.assert_array_equal(explainer.explain(x[n : n + 1], 1), r_in[n : n + 1])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(explainer)).explain(x, 1), r_in)


# ------------------------------------------------------------------------------------------ what positions receive


@pytest.mark.parametrize(("rules", "mode"), [("cp-lrp", "held"), ("attnlrp", "taylor")])
def test_positions_receive_what_the_ledger_calls_constant(rules, mode):
    """PA-LRP's relevance of positions, by `stop`: as if the table were the input, and the words constants."""
    net = bert(6, 32, 3, 2, n_words=11)  # words, the table of positions, their sum, …
    ids = np.random.default_rng(0).integers(0, 11, (2, 6))
    words, table, *rest = net.layers
    start = dtd.predict(net.layers, ids, backend="oracle") * np.array([0, 1, 0])
    found = dtd.explain(net.layers, ids, start, rules=rules, backend="oracle", stop=1)
    for i in range(2):
        turned = [
            dtd.Constant(words.weight[ids[i]]),
            dataclasses.replace(rest[0], inputs=(0, dtd.INPUT)),
            *map(_one_earlier, rest[1:]),
        ]
        expected = forward_mode.relevance(turned, table.value[None], start[[i]], mode)
        np.testing.assert_allclose(found[[i]], expected, rtol=0, atol=1e-9 * abs(expected).max())
    fast = dtd.explain(net.layers, ids, start, rules=rules, backend="cpu", stop=1)
    np.testing.assert_allclose(fast, found, rtol=0, atol=1e-4 * abs(found).max())
    ledger = dtd.Explainer(net.layers, rules=rules, backend="oracle").ledger(ids, start)
    np.testing.assert_allclose(found.sum(axis=(1, 2)), ledger.absorbed["constant"], rtol=1e-9)


def _one_earlier(record):
    return (
        record
        if record.positions is None
        else dataclasses.replace(record, inputs=tuple(p - 1 for p in record.positions))
    )


def test_rotary_positions_receive_nothing():
    """They are factors, and a constant factor takes nothing: all of it stays with the words."""
    net = llama(5, 64, 1, n_words=11)
    ids = np.random.default_rng(0).integers(0, 11, (2, 5))
    ledger = dtd.Explainer(net.layers, rules="cp-lrp", backend="oracle").ledger(ids, 1)
    assert not ledger.absorbed["constant"].any()
    np.testing.assert_allclose(ledger.end, ledger.start, rtol=1e-9)
