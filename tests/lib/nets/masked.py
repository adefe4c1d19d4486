"""A sentence encoder with a padding mask, position numbers and type numbers beside its words."""

from __future__ import annotations

from functools import cache

import numpy as np

import dtdfast as dtd

from .builder import Net
from .transformers import BOX, Blocks

TOKENS, WORDS, TYPES, HEADS = 6, 11, 2, 2
IDS = np.array([[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 0, 1], [3, 3, 3, 3, 3, 3], [0, 9, 2, 7, 5, 1]])
REAL = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0]])
OTHERS = np.where(REAL == 1, IDS, 10 - IDS)  # other words where there is padding
GIVEN = {
    "attention_mask": REAL,
    "position_ids": np.array([[0, 1, 2, 3, 0, 0], [0, 1, 2, 3, 4, 5], [5, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 0]]),
    "token_type_ids": np.array([[0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 0, 1]]),
}


def embedded(net: Blocks) -> tuple[int, int]:
    """Positions of the mask, and of the sum of word, position and type vectors, normed."""
    mask = net.put(dtd.Given("attention_mask", (TOKENS,)), (TOKENS,))
    sums = [net.put(dtd.Embedding(net.normal((WORDS, 8), 0.5), inputs=dtd.INPUT), (TOKENS, 8))]
    for name, count in (("position_ids", TOKENS), ("token_type_ids", TYPES)):
        net.put(dtd.Given(name, (TOKENS,), integer=True), (TOKENS,))
        sums.append(net.put(dtd.Embedding(net.normal((count, 8), 0.3)), (TOKENS, 8)))
    return mask, net.layer_norm(net.put(dtd.Add(inputs=tuple(sums)), (TOKENS, 8)))


def masked(net: Blocks, scores: int, mask: int, kind: str) -> int:
    """Attention weights that leave padding out: by a boolean mask, alone or beside a causal one, or by numbers."""
    shape = (HEADS, TOKENS, TOKENS)
    mask = net.put(dtd.Reshape((1, 1, TOKENS), inputs=mask), (1, 1, TOKENS))
    if kind == "added":
        large = np.full((1, 1, 1), 1e4)
        net.put(dtd.Scale(large, -large), (1, 1, TOKENS))
        net.put(dtd.Add(inputs=(scores, net.last)), shape)
        return net.put(dtd.Softmax(-1), shape)
    causal = np.tril(np.ones((TOKENS, TOKENS), bool)) if kind == "causal" else None
    return net.put(dtd.Softmax(-1, mask=causal, inputs=(scores, mask)), shape)


def block(net: Blocks, x: int, mask: int, kind: str) -> int:
    q, k, v = (net.heads(HEADS, net.dense(8, x)) for _ in range(3))
    scores = net.put(dtd.MatMul(transpose_b=True, scale=0.5, inputs=(q, k)), (HEADS, TOKENS, TOKENS))
    net.put(dtd.MatMul(inputs=(masked(net, scores, mask, kind), v)), (HEADS, TOKENS, 4))
    net.permute(0, 2, 1, 3)
    x = net.layer_norm(net.add(x, net.dense(8, net.reshape(TOKENS, 8))))
    return net.layer_norm(net.add(x, net.mlp(x, 2)))


@cache
def encoder(kind: str, head: str = "mean") -> Net:
    """A sentence encoder; `head`: the mean over real tokens, or nothing."""
    net = Blocks((TOKENS,), 3, "random", BOX)
    mask, x = embedded(net)
    for _ in range(2):
        x = block(net, x, mask, kind)
    if head == "mean":
        net.put(dtd.Constant(np.zeros(TOKENS)), (TOKENS,))
        net.put(dtd.Softmax(1, inputs=(net.last, mask)), (TOKENS,))
        net.put(dtd.Reshape((TOKENS, 1)), (TOKENS, 1))
        net.put(dtd.Mul(inputs=(x, net.last)), (TOKENS, 8))
        net.put(dtd.Reduce("sum", 1), (8,))
    net.dense(3)
    return net.net("encoder", WORDS)
