"""Transformers: ViT, BERT's encoder, GPT-2's and Llama's blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import dtdfast as dtd

from .builder import Bias, Builder, Net

BOX = (-6.0, 6.0)  # of word vectors


class Blocks(Builder):
    """A builder of layers on tokens, (tokens, features)."""

    def dense(self, n_out: int, at: int | None = None, bias: bool = True) -> int:
        *before, n_in = self.shape(at)
        self._macs += int(np.prod(before)) * n_in * n_out
        weight = self.normal((n_out, n_in), n_in**-0.5)
        return self.put(dtd.Linear(weight, self.shift(n_out) if bias else None, inputs=at), (*before, n_out))

    def layer_norm(self, at: int | None = None, eps: float = 1e-6) -> int:
        shape = self.shape(at)
        weight = self.uniform(shape[-1], 0.7, 1.3)
        return self.put(dtd.LayerNorm(-1, weight, self.shift(shape[-1]), eps, inputs=at), shape)

    def rms_norm(self, at: int | None = None) -> int:
        shape = self.shape(at)
        return self.put(dtd.RMSNorm(-1, self.uniform(shape[-1], 0.7, 1.3), inputs=at), shape)

    def constant(self, *shape: int) -> int:
        return self.put(dtd.Constant(self.normal(shape, 0.1)), shape)

    def heads(self, n_heads: int, at: int) -> int:
        """(tokens, features) → (heads, tokens, features of a head)."""
        tokens, features = self.shape(at)
        self.put(dtd.Reshape((tokens, n_heads, features // n_heads), inputs=at), (tokens, n_heads, features // n_heads))
        return self.permute(0, 2, 1, 3)

    def attention(
        self, at: int, n_heads: int, *, n_groups: int | None = None, causal: bool = False, bias: bool = True,
        rotary: bool = False,
    ) -> int:  # fmt: skip
        """Scaled dot-product attention; `n_groups` heads of keys and values are shared by the others."""
        tokens, features = self.shape(at)
        width, shared = features // n_heads, n_groups or n_heads
        q = self.heads(n_heads, self.dense(features, at, bias))
        k, v = (self.heads(shared, self.dense(width * shared, at, bias)) for _ in range(2))
        if rotary:
            q, k = self.rotated(q), self.rotated(k)
        if shared != n_heads:
            k, v = self.shared(k, n_heads), self.shared(v, n_heads)
        scores = self.put(dtd.MatMul(transpose_b=True, scale=width**-0.5, inputs=(q, k)), (n_heads, tokens, tokens))
        self._macs += 2 * n_heads * tokens * tokens * width
        mask = np.tril(np.ones((tokens, tokens), bool)) if causal else None
        weights = self.put(dtd.Softmax(-1, mask=mask, inputs=scores), (n_heads, tokens, tokens))
        self.put(dtd.MatMul(inputs=(weights, v)), (n_heads, tokens, width))
        self.permute(0, 2, 1, 3)
        return self.dense(features, self.reshape(tokens, features), bias)

    def rotated(self, at: int) -> int:
        """x·cos + rotate_half(x)·sin."""
        heads, tokens, width = shape = self.shape(at)
        angles = np.outer(np.arange(tokens), 1e4 ** (-np.arange(0, width, 2) / width))
        cos, sin = (np.tile(f(angles), 2)[None] for f in (np.cos, np.sin))
        low = self.put(dtd.Slice(3, 0, width // 2, inputs=at), (heads, tokens, width // 2))
        high = self.put(dtd.Slice(3, width // 2, width, inputs=at), (heads, tokens, width // 2))
        turned = self.put(dtd.Scale(np.full((1, 1, 1), -1.0), inputs=high), self.shape(high))
        turned = self.put(dtd.Concat(3, inputs=(turned, low)), shape)
        turned = self.put(dtd.Scale(sin, inputs=turned), shape)
        return self.add(self.put(dtd.Scale(cos, inputs=at), shape), turned)

    def shared(self, at: int, n_heads: int) -> int:
        groups, tokens, width = self.shape(at)
        self.put(dtd.Reshape((groups, 1, tokens, width), inputs=at), (groups, 1, tokens, width))
        self.put(dtd.Expand((groups, n_heads // groups, tokens, width)), (groups, n_heads // groups, tokens, width))
        return self.reshape(n_heads, tokens, width)

    def mlp(self, at: int, times: int = 4, kind: str = "gelu") -> int:
        features = self.shape(at)[-1]
        self.dense(times * features, at)
        return self.dense(features, self.activation(kind))

    def gated_mlp(self, at: int, hidden: int) -> int:
        features = self.shape(at)[-1]
        gate = self.activation("silu", self.dense(hidden, at, bias=False))
        up = self.dense(hidden, at, bias=False)
        return self.dense(features, self.put(dtd.Mul(inputs=(gate, up)), self.shape(up)), bias=False)

    def first_token(self, at: int) -> int:
        self.put(dtd.Gather((0,), 1, inputs=at), (1, self.shape(at)[1]))
        return self.flatten()


def vit(
    size: int = 224, divisor: int = 1, n_classes: int = 1000, depth: int = 12, *, patch: int = 16,
    seed: int | None = 0, bias: Bias = "random",
) -> Net:  # fmt: skip
    """ViT-B/16: norms before attention and MLP, a class token, learned positions."""
    net, width, heads = Blocks((3, size, size), seed, bias), 768 // divisor, max(1, 12 // divisor)
    net.conv(width, patch, stride=patch)
    tokens = (size // patch) ** 2
    net.reshape(width, tokens)
    image = net.permute(0, 2, 1)
    token = net.constant(1, width)
    joined = net.put(dtd.Concat(1, inputs=(token, image)), (tokens + 1, width))
    x = net.add(joined, net.constant(tokens + 1, width))
    for _ in range(depth):
        x = net.add(x, net.attention(net.layer_norm(x), heads))
        x = net.add(x, net.mlp(net.layer_norm(x)))
    net.dense(n_classes, net.first_token(net.layer_norm(x)))
    return net.net("vit")


def bert(
    tokens: int = 128, divisor: int = 1, n_classes: int = 2, depth: int = 12, *, n_words: int = 30522,
    seed: int | None = 0, bias: Bias = "random",
) -> Net:  # fmt: skip
    """BERT-base: norms behind attention and MLP, a pooler on the first token."""
    net, width, heads = Blocks((tokens,), seed, bias, BOX), 768 // divisor, max(1, 12 // divisor)
    words = net.embedding(n_words, width)
    x = net.layer_norm(net.add(words, net.constant(tokens, width)), 1e-12)
    for _ in range(depth):
        x = net.layer_norm(net.add(x, net.attention(x, heads)), 1e-12)
        x = net.layer_norm(net.add(x, net.mlp(x)), 1e-12)
    net.dense(width, net.first_token(x))
    net.dense(n_classes, net.activation("tanh"))
    return net.net("bert", n_words)


def gpt2(
    tokens: int = 128, divisor: int = 1, depth: int = 12, *, n_words: int = 50257, seed: int | None = 0,
    bias: Bias = "random",
) -> Net:  # fmt: skip
    """GPT-2: causal attention; the logits of the last token."""
    net, width, heads = Blocks((tokens,), seed, bias, BOX), 768 // divisor, max(1, 12 // divisor)
    words = net.embedding(n_words, width)
    x = net.add(words, net.constant(tokens, width))
    for _ in range(depth):
        x = net.add(x, net.attention(net.layer_norm(x), heads, causal=True))
        x = net.add(x, net.mlp(net.layer_norm(x), kind="gelu_tanh"))
    x = net.layer_norm(x)
    net.put(dtd.Gather((tokens - 1,), 1, inputs=x), (1, width))
    net.dense(n_words, net.flatten(), bias=False)
    return net.net("gpt2", n_words)


def llama(
    tokens: int = 128, divisor: int = 1, depth: int = 12, *, n_words: int = 32000, seed: int | None = 0,
    bias: Bias = "none",
) -> Net:  # fmt: skip
    """Llama's blocks: RMSNorm, rotary embeddings, grouped queries, a gated MLP; the logits of the last token."""
    net, width, heads = Blocks((tokens,), seed, bias, BOX), 768 // divisor, max(2, 12 // divisor)
    x = net.embedding(n_words, width)
    for _ in range(depth):
        attended = net.attention(net.rms_norm(x), heads, n_groups=heads // 2, causal=True, bias=False, rotary=True)
        x = net.add(x, attended)
        x = net.add(x, net.gated_mlp(net.rms_norm(x), 2 * width))
    x = net.rms_norm(x)
    net.put(dtd.Gather((tokens - 1,), 1, inputs=x), (1, width))
    net.dense(n_words, net.flatten(), bias=False)
    return net.net("llama", n_words)


def talking_heads(n_classes: int = 3, *, seed: int | None = 0, bias: Bias = "random") -> Net:
    """What the published ones lack: heads that are mixed before and behind the softmax, positions as a bias of the
    scores, a token without keys, norms of groups, gates by tanh, a mean over tokens.
    """
    net, heads, tokens, width = Blocks((3, 5, 2), seed, bias), 2, 5, 6
    scores = (heads, tokens, tokens)
    mask = np.tril(np.ones((tokens, tokens), bool))
    mask[0] = False

    def mixed(at: int | None = None) -> int:
        return net.put(dtd.Linear(net.normal((heads, heads), 1.0), axis=1, inputs=at), scores)

    net.conv(width, (1, 2))
    net.put(dtd.GroupNorm(3, net.uniform(width, 0.7, 1.3), net.shift(width)), net.shape())
    net.reshape(width, tokens)
    x = net.permute(0, 2, 1)
    for _ in range(2):
        at = net.layer_norm(x)
        q, k, v = (net.heads(heads, net.dense(width, at)) for _ in range(3))
        product = net.put(dtd.MatMul(transpose_b=True, scale=0.5, inputs=(q, k)), scores)
        mixed(net.add(product, net.constant(*scores)))
        net.put(dtd.Softmax(-1, mask=mask), scores)
        net.put(dtd.MatMul(inputs=(mixed(), v)), (heads, tokens, width // heads))
        net.permute(0, 2, 1, 3)
        x = net.add(x, net.dense(width, net.reshape(tokens, width)))
        up = net.dense(7, net.rms_norm(x))
        gate = net.activation("tanh", net.dense(7, x))
        net.put(dtd.Mul(inputs=(up, gate)), (tokens, 7))
        x = net.add(x, net.dense(width))
    net.put(dtd.Reduce("mean", 1), (width,))
    net.dense(n_classes)
    return net.net("talking heads")


TRANSFORMERS: dict[str, Callable[..., Any]] = {
    "vit": vit, "bert": bert, "gpt2": gpt2, "llama": llama, "talking_heads": talking_heads,
}  # fmt: skip
