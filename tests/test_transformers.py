"""Whole transformers: held and Taylor derivatives in NumPy, conservation, ledgers, targets, parts, and refusals."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import dtdfast as dtd
import forward_mode
from nets import SMALL, Net
from nets.transformers import Blocks

BACKENDS = ["oracle"]


def talking(*, seed=0, bias="random"):
    """All that the published ones lack: heads that are mixed, a bias of positions, rows without keys, groups,
    softmax and tanh gates, a mean over tokens.
    """
    net, heads, tokens, width = Blocks((3, 5, 2), seed, bias), 2, 5, 6
    net.conv(width, (1, 2))
    net.put(dtd.GroupNorm(3, net.uniform(width, 0.7, 1.3), net.shift(width)), net.shape())
    net.reshape(width, tokens)
    x = net.permute(0, 2, 1)
    for _ in range(2):
        at = net.layer_norm(x)
        q, k, v = (net.heads(heads, net.dense(width, at)) for _ in range(3))
        net.put(dtd.MatMul(transpose_b=True, scale=0.5, inputs=(q, k)), (heads, tokens, tokens))
        net.add(net.last, net.constant(heads, tokens, tokens))
        net.put(dtd.Linear(net.normal((heads, heads), 1.0), axis=1), (heads, tokens, tokens))
        mask = np.tril(np.ones((tokens, tokens), bool))
        mask[0] = False
        net.put(dtd.Softmax(-1, mask=mask), (heads, tokens, tokens))
        weights = net.put(dtd.Linear(net.normal((heads, heads), 1.0), axis=1), (heads, tokens, tokens))
        net.put(dtd.MatMul(inputs=(weights, v)), (heads, tokens, width // heads))
        net.permute(0, 2, 1, 3)
        x = net.add(x, net.dense(width, net.reshape(tokens, width)))
        up = net.dense(7, net.rms_norm(x))
        gate = net.activation("tanh", net.dense(7, x))
        net.put(dtd.Mul(inputs=(up, gate)), (tokens, 7))
        x = net.add(x, net.dense(width))
    net.put(dtd.Reduce("mean", 1), (width,))
    net.dense(3)
    return net.net("talking")


def one_token(*, seed=0, bias="none"):
    """Two attention layers of one token, without a residual."""
    net = Blocks((1, 6), seed, bias)
    x = dtd.INPUT
    for _ in range(2):
        x = net.attention(x, 3, bias=False)
    net.dense(2, net.flatten(), bias=False)
    return net.net("one token")


NETS = {name: SMALL[name] for name in ("vit", "bert", "gpt2", "llama")} | {"talking": talking, "one token": one_token}


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
    got = dtd.explain(net.layers, x, start, rules=rules, backend="oracle")
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9 * abs(expected).max())
