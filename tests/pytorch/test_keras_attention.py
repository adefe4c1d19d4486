"""from_keras of what transformers are made of: norms, attention layers, products of two tensors."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops

import dtdfast as dtd
from support import kinds
from test_keras import randomised

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

KT = Any  # a symbolic tensor
Build = Callable[[KT], KT]
ATTENDED = " ".join(["Linear Reshape Permute"] * 3 + ["MatMul Softmax MatMul Permute Reshape Linear"])
SHARED = ATTENDED.replace("MatMul Softmax MatMul", "Reshape Reshape Reshape MatMul Softmax MatMul Reshape")
TRIANGLE = np.tri(6, dtype=bool)


def heads(x: KT) -> KT:
    return ops.reshape(x, (-1, 6, 2, 4))


def encoder(x: KT) -> KT:
    """A block with its norms behind the sums."""
    x = kl.LayerNormalization()(x + kl.MultiHeadAttention(2, 4)(x, x))
    x = kl.LayerNormalization()(x + kl.Dense(8)(kl.Dense(12, activation="gelu")(x)))
    return kl.Dense(3)(kl.GlobalAveragePooling1D()(x))


TOKENS: dict[str, tuple[Build, str]] = {  # (n, 6, 8)
    "layer norm": (kl.LayerNormalization(), "LayerNorm"),
    "layer norm of two axes": (kl.LayerNormalization(axis=(1, 2)), "LayerNorm"),
    "layer norm without factors": (kl.LayerNormalization(scale=False, center=False), "LayerNorm"),
    "RMS norm": (kl.RMSNormalization(), "RMSNorm"),
    "unit length": (kl.UnitNormalization(), "RMSNorm"),
    "attention of heads": (lambda x: kl.MultiHeadAttention(2, 3)(x, x), ATTENDED),
    "other sizes": (
        lambda x: kl.MultiHeadAttention(2, 3, value_dim=5, output_shape=7, use_bias=False)(x, value=x, key=x),
        ATTENDED,
    ),
    "a causal mask": (lambda x: kl.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True), ATTENDED),
    "a mask": (lambda x: kl.MultiHeadAttention(2, 3)(query=x, value=x, attention_mask=TRIANGLE[None]), ATTENDED),
    "shared heads": (lambda x: kl.GroupQueryAttention(4, 4, 2)(x, x), SHARED),
    "without heads": (lambda x: kl.Attention(use_scale=True)([x, ops.relu(x)]), "ReLU MatMul Softmax MatMul"),
    "without heads, causal": (
        lambda x: kl.Attention()([x, x, ops.relu(x)], use_causal_mask=True),
        "ReLU MatMul Softmax MatMul",
    ),
    "as one operation": (
        lambda x: ops.dot_product_attention(heads(x), heads(ops.relu(x)), heads(x), is_causal=True, scale=0.4),
        "Reshape ReLU Reshape Reshape Permute Permute Permute MatMul Softmax MatMul Permute",
    ),
    "products": (
        lambda x: ops.matmul(ops.softmax(ops.matmul(x, ops.transpose(x, (0, 2, 1))) / 3.0), x),
        "MatMul Softmax MatMul",
    ),
    "a filled mask": (
        lambda x: ops.softmax(ops.where(TRIANGLE, ops.matmul(x, ops.transpose(x, (0, 2, 1))), -np.inf)),
        "MatMul Softmax",
    ),
    "einsum": (lambda x: ops.einsum("bij,bkj->bik", x, ops.relu(x)), "ReLU MatMul"),
    "dot": (lambda x: kl.Dot(axes=(1, 1))([x, ops.relu(x)]), "ReLU MatMul"),
    "einsum, dense": (
        kl.EinsumDense("abc,cde->abde", output_shape=(None, 2, 5), bias_axes="de"),
        "Linear Reshape",
    ),
    "einsum, dense, over two axes": (
        lambda x: kl.EinsumDense("abde,dec->abc", output_shape=(None, 5), bias_axes="c")(heads(x)),
        "Linear",
    ),
    "encoder": (
        encoder,
        f"{ATTENDED} Add LayerNorm Linear gelu Linear Add LayerNorm Permute GlobalAvgPool Flatten Linear",
    ),
}

IMAGES: dict[str, tuple[Build, str]] = {  # (n, 5, 4, 6)
    "group norm": (kl.GroupNormalization(2), "Permute GroupNorm Permute"),
    "group norm, channels first": (kl.GroupNormalization(5, axis=1), "InstanceNorm"),
    "instance norm": (kl.GroupNormalization(-1), "Permute InstanceNorm Permute"),
    "layer norm behind a convolution": (
        lambda x: kl.LayerNormalization()(kl.Conv2D(4, 2)(x)),
        "Permute Conv LayerNorm Permute",
    ),
}

CASES = [((6, 8), *case) for case in TOKENS.items()] + [((5, 4, 6), *case) for case in IMAGES.items()]


@pytest.mark.parametrize(("shape", "name", "case"), CASES, ids=[c[1] for c in CASES])
def test_equals_keras(shape: tuple[int, ...], name: str, case: tuple[Build, str]) -> None:
    build, expected = case
    source = keras.Input(shape)
    model = randomised(keras.Model(source, build(source)))
    layers, x = dtd.from_keras(model), np.random.default_rng(0).standard_normal((3, *shape), dtype=np.float32)
    assert kinds(layers) == expected
    outputs = keras.ops.convert_to_numpy(model(x, training=False))
    made = dtd.predict(layers, x, backend="oracle").reshape(outputs.shape)
    # Keras computes in float32: sums of at most 120 terms, a few one after the other
    np.testing.assert_allclose(made, outputs, rtol=0, atol=256 * 2.0**-24 * np.abs(outputs).max())


@pytest.mark.parametrize("rules", ["dtd", "cp-lrp", "attnlrp"])
def test_a_sentence_is_explained(rules: str) -> None:
    words = keras.Input((6,), dtype="int32")
    places = np.random.default_rng(3).standard_normal((6, 8)).astype("float32")
    model = randomised(keras.Model(words, encoder(kl.Embedding(9, 8)(words) + places)))
    x = np.random.default_rng(0).integers(9, size=(2, 6))
    explainer = dtd.Explainer(dtd.from_keras(model), rules=rules)
    ledger = explainer.ledger(x, 1)
    assert ledger.closed, str(ledger)
    assert explainer.explain(x, 1).shape == x.shape


REFUSALS: dict[str, tuple[Build, str]] = {
    "scores": (
        lambda x: kl.MultiHeadAttention(2, 3)(x, x, return_attention_scores=True)[0],
        "its scores are returned",
    ),
    "a computed mask": (
        lambda x: kl.MultiHeadAttention(2, 3)(x, x, attention_mask=ops.matmul(x, ops.transpose(x, (0, 2, 1)))),
        "its attention_mask is computed",
    ),
    "a mask that leaves nothing": (
        lambda x: kl.MultiHeadAttention(2, 3)(x, x, attention_mask=np.tri(6, k=-1, dtype=bool)[None]),
        "leaves nothing of a row",
    ),
    "another score": (lambda x: kl.Attention(score_mode="concat")([x, x]), "score_mode='concat' has no record"),
    "cosines": (lambda x: kl.Dot(axes=2, normalize=True)([x, x]), "normalize=True has no record"),
    "the batch axis": (lambda x: kl.LayerNormalization(axis=0)(x), "it normalises over the batch axis"),
    "added scores": (
        lambda x: ops.dot_product_attention(heads(x), heads(x), heads(x), bias=np.ones((1, 2, 6, 6), "float32")),
        "its bias has no record",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_by_name(name: str) -> None:
    build, message = REFUSALS[name]
    source = keras.Input((6, 8), batch_size=6 if name == "the batch axis" else None)
    with pytest.raises(dtd.ModelError, match=message):
        dtd.from_keras(keras.Model(source, build(source)))
