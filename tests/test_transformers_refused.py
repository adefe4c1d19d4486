"""What has no rule, does not fit or is wrong in attention, norms and gates is refused by name."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import dtdfast as dtd

BOTH = pytest.mark.parametrize("backend", ["oracle", "cpu"])
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
def test_taylor_takes_any_rule_of_the_first_layer(rule, backend):
    """Nothing divides by what it reads; the ledger closes where large scores leave a softmax little but one 1."""
    layers = _attention(HEAD)
    rules = {**dict.fromkeys(range(len(layers)), dtd.Zero()), 0: rule}
    rules = {p: r for p, r in rules.items() if isinstance(layers[p], dtd.Linear)}
    explainer = dtd.Explainer(layers, rules=rules, attention="taylor", backend=backend)
    for seed in range(8):
        x = np.random.default_rng(seed).standard_normal((2, *TOKENS)).astype(np.float32)
        for scale in (1, 10):
            ledger = explainer.ledger(scale * x, np.ones((2, 4, 2), np.float32))
            assert ledger.closed, str(ledger)


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
