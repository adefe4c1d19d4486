"""Whole transformers: held and Taylor derivatives in NumPy, conservation, ledgers, targets, parts, and refusals."""

from __future__ import annotations

import dataclasses
import pickle
from functools import cache, partial

import numpy as np
import pytest

import dtdfast as dtd
import forward_mode
from nets import SMALL, Net, vit
from nets.transformers import Blocks

BACKENDS = ["oracle"]


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
    expected = forward_mode.relevance(net.layers, x, start, MODES[rules])
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
@pytest.mark.parametrize("name", ["vit", "bert", "llama", "talking_heads"])
def test_ledger_closes_and_names_causes(name, rules, attention, backend):
    net = network(name)
    rule = {"gamma": dtd.Gamma(0.25), "wsquare": dtd.WSquare()}.get(rules, rules)
    explainer = dtd.Explainer(net.layers, rules=rule, attention=attention, backend=backend)
    ledger = explainer.ledger(net.sample(2, seed=3), start_of(net).astype(np.float32))
    assert ledger.closed, str(ledger)
    causes = {cause for cause, lost in ledger.absorbed.items() if lost.any()}
    wanted = CAUSES[rules, attention]
    if wanted is not None and name in ("vit", "bert"):
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
@pytest.mark.parametrize("rules", ["dtd", "cp-lrp", "attnlrp", "gamma"])
@EVERY
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
@pytest.mark.parametrize("rules", ["dtd", "cp-lrp", "attnlrp", "lrp-epsilon"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "talking_heads"])
def test_start_and_stop_inside(name, rules, backend):
    """From the output to the residual stream, and from there to the input: the whole way."""
    net = network(name)
    x, start = inputs(net), start_of(net)
    options = {"rules": rules, "backend": backend, "precision": "float64" if backend == "cpu" else "float32"}
    whole = dtd.explain(net.layers, x, start, **options)
    places = stream(net)
    assert len(places) >= 3
    for place in places:
        above = dtd.explain(net.layers, x, start, stop=place, **options)
        below = dtd.explain(net.layers, x, above, start=place, **options)
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


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("rules", ["dtd", "cp-lrp", "attnlrp", "gamma"])
@EVERY
def test_bits(name, rules, precision):
    """Of any number of threads, of a sample alone or in any batch, and of a pickled Explainer."""
    net = network(name)
    x = net.sample(5)
    options = {"rules": dtd.Gamma() if rules == "gamma" else rules, "backend": "cpu", "precision": precision}
    explainer = dtd.Explainer(net.layers, **options)
    r_in = explainer.explain(x, 1)
    for n_threads in (1, 2, 3):
        np.testing.assert_array_equal(dtd.Explainer(net.layers, n_threads=n_threads, **options).explain(x, 1), r_in)
    for batch_size in (1, 2):
        np.testing.assert_array_equal(dtd.Explainer(net.layers, batch_size=batch_size, **options).explain(x, 1), r_in)
    for n in range(5):
        np.testing.assert_array_equal(explainer.explain(x[n : n + 1], 1), r_in[n : n + 1])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(explainer)).explain(x, 1), r_in)


# ------------------------------------------------------------------------------------------------------------- refusals

TOKENS = (4, 6)


def _attention(*behind, **options):
    """softmax(Q Kᵀ) V on a Linear of (4, 6), and records behind it."""
    rng = np.random.default_rng(0)
    return [
        dtd.Linear(rng.standard_normal((6, 6)), name="body"),
        *(dtd.Linear(rng.standard_normal((6, 6)), inputs=0) for _ in range(3)),
        dtd.MatMul(transpose_b=True, inputs=(1, 2), name="scores"),
        dtd.Softmax(-1, name="weights", **options),
        dtd.MatMul(inputs=(5, 3), name="mixing"),
        *behind,
    ]


HEAD = dtd.Linear(np.ones((2, 6)), name="head")
REFUSED = {  # layers, options, what the message says
    "taylor with z⁺": (_attention(), {"rules": "dtd", "attention": "taylor"}, r"ZPlus.*attention=\"taylor\".*held"),
    "taylor with αβ": (
        _attention(HEAD),
        {"rules": dtd.AlphaBeta(), "attention": "taylor"},
        r"AlphaBeta.*attention=\"taylor\".*held",
    ),
    "taylor with z⁺ on one layer": (
        _attention(HEAD),
        {"rules": {**dict.fromkeys((0, 1, 2, 3), dtd.Zero()), 7: dtd.ZPlus()}, "attention": "taylor"},
        r"'head'.*ZPlus",
    ),
    **{
        f"taylor with {rule}": (
            _attention(HEAD),
            {"rules": rule, "attention": "taylor"},
            rf"{type(rule).__name__}.*taylor",
        )
        for rule in (
            dtd.ZPlus(bias="positive"),
            dtd.ZPlus(stabilizer=1e-3),
            dtd.AlphaBeta(bias="full"),
            dtd.AlphaBeta(fallback=True),
        )
    },
    **{
        f"taylor under {rule}": (
            _attention(HEAD),
            {"rules": {**dict.fromkeys((0, 1, 2, 3), dtd.Zero()), 7: rule}, "attention": "taylor"},
            rf"'head'.*{type(rule).__name__} gives relevance to values of 0.*'scores'",
        )
        for rule in (dtd.Flat(), dtd.WSquare(), dtd.ZBox(-9.0, 9.0))
    },
    "scores alone": (_attention()[:5], {"rules": "cp-lrp"}, r"'scores'.*two computed operands.*taylor"),
    "two softmaxes": (
        [*_attention(), dtd.Softmax(1), dtd.MatMul(transpose_a=True, inputs=(7, 5), name="both")],
        {"rules": "cp-lrp"},
        r"'both'.*not exactly one",
    ),
    "a softmax that weighs nothing": (
        [dtd.Linear(np.eye(6)), dtd.Softmax(-1, name="inner"), dtd.Linear(np.ones((2, 6)))],
        {"rules": "cp-lrp"},
        r"'inner'.*taylor",
    ),
    "a logarithm inside": (
        [dtd.Linear(np.eye(6)), dtd.Softmax(-1, log=True, name="inner"), dtd.Linear(np.ones((2, 6)))],
        {"rules": "attnlrp"},
        r"'inner'.*logarithm",
    ),
    "no such attention": (_attention(), {"attention": "hold"}, r"attention is 'hold'"),
}


@BOTH
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_refused_by_name(name, backend):
    layers, options, message = REFUSED[name]
    x = np.ones((1, *TOKENS), np.float32)
    with pytest.raises(dtd.DtdError, match=message):
        dtd.explain(
            layers, x, np.ones((1, *dtd.predict(layers, x, backend=backend).shape[1:])), backend=backend, **options
        )


@BOTH
@pytest.mark.parametrize("rule", [dtd.Flat(), dtd.WSquare(), dtd.ZBox(-9.0, 9.0), dtd.ZPlus()], ids=str)
def test_taylor_takes_any_rule_of_the_first_layer(rule, backend, rng):
    """Nothing divides by what it reads."""
    layers = _attention(HEAD)
    rules = {**dict.fromkeys(range(len(layers)), dtd.Zero()), 0: rule}
    rules = {p: r for p, r in rules.items() if isinstance(layers[p], dtd.Linear)}
    explainer = dtd.Explainer(layers, rules=rules, attention="taylor", backend=backend)
    x, start = rng.standard_normal((2, *TOKENS)).astype(np.float32), np.ones((2, 4, 2), np.float32)
    assert explainer.ledger(x, start).closed


SHAPES = {  # what does not fit, and what the message says
    "inner sizes": (dtd.MatMul(inputs=(0, 1)), r"6 columns meet 4 rows"),
    "ranks": (dtd.MatMul(inputs=(0, 3)), r"as many axes"),
    "heads": (dtd.MatMul(inputs=(4, 5), transpose_b=True), r"do not fit"),
    "axes twice": (dtd.LayerNorm((1, 1), inputs=0), r"twice"),
    "axis of the batch": (dtd.LayerNorm(0, inputs=0), r"batch"),
    "weight of a norm": (dtd.LayerNorm(-1, np.ones(5), inputs=0), r"weight has shape \(5,\)"),
    "weight of channels": (dtd.GroupNorm(2, np.ones(3), inputs=0), r"3 channels"),
    "groups": (dtd.GroupNorm(3, inputs=0), r"do not divide into 3 groups"),
    "nothing behind the channels": (dtd.InstanceNorm(inputs=3), r"axes behind the channels"),
    "mask": (dtd.Softmax(-1, mask=np.ones((3, 6), bool), inputs=0), r"mask has shape \(3, 6\)"),
    "axis of a softmax": (dtd.Softmax(3, inputs=0), r"axis"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_that_do_not_fit_are_refused(name):
    record, message = SHAPES[name]
    layers = [
        dtd.Linear(np.eye(6), inputs=dtd.INPUT),
        dtd.Linear(np.eye(6), inputs=dtd.INPUT),
        dtd.Dropout(inputs=1),
        dtd.Flatten(inputs=0),
        dtd.Reshape((2, 2, 6), inputs=0),
        dtd.Reshape((3, 8, 1), inputs=0),
        dataclasses.replace(record, name="wrong"),
    ]
    with pytest.raises(dtd.ShapeError, match=r"'wrong'.*" + message):
        dtd.predict(layers, np.ones((1, *TOKENS), np.float32), backend="oracle")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dtd.Softmax(mask=np.ones(3)), "boolean"),
        (lambda: dtd.Softmax(mask=np.bool_(True)), "boolean"),
        (lambda: dtd.Softmax(log=True, mask=np.ones(3, bool)), "logarithm"),
        (lambda: dtd.MatMul(scale=0.0), "scale is 0"),
        (lambda: dtd.MatMul(scale=np.nan), "scale"),
        (lambda: dtd.MatMul(transpose_a=1), "transpose_a"),
        (lambda: dtd.Mul(share=1.5), "share is 1.5"),
        (lambda: dtd.Mul(share=-0.1), "share is -0.1"),
        (lambda: dtd.LayerNorm(eps=-1.0), "eps is -1.0"),
        (lambda: dtd.RMSNorm(weight=np.array([np.nan])), "NaN"),
        (lambda: dtd.LayerNorm(weight=np.ones(3), bias=np.ones(4)), "bias"),
        (lambda: dtd.GroupNorm(0), "groups"),
        (lambda: dtd.GroupNorm(2, np.ones((2, 2))), "weight"),
    ],
)
def test_fields_that_are_wrong_are_refused(make, message):
    with pytest.raises(dtd.LayerError, match=message):
        make()
