"""Modules that take masks, position numbers and type numbers beside their words."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dtdfast as dtd

MASKED = {  # scores (n, heads, t, t), a mask (n, 1, 1, t) of 0 and 1 → scores
    "added": lambda s, m: s + (1.0 - m.to(s.dtype)) * torch.finfo(s.dtype).min,
    "added integers": lambda s, m: s + (1.0 - m.long()) * -10000.0,
    "filled": lambda s, m: s.masked_fill(m == 0, -math.inf),
    "filled with a low number": lambda s, m: s.masked_fill(~m.bool(), -1e9),
    "chosen": lambda s, m: torch.where(m > 0, s, torch.tensor(-math.inf)),
    "chosen the other way": lambda s, m: torch.where(m.logical_not(), torch.tensor(-1e9), s),
}
FUSED = {  # a mask (n, 1, 1, t), tokens → the mask of scaled_dot_product_attention
    "boolean": lambda m, t: m.bool(),
    "expanded": lambda m, t: m.to(torch.bool).expand(len(m), 1, t, t),
    "causal too": lambda m, t: m.bool() & torch.ones(t, t, dtype=torch.bool).tril(),
    "of numbers": lambda m, t: (1.0 - m.float()) * torch.finfo(torch.float32).min,
}


class Encoder(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.words, self.positions, self.types = (nn.Embedding(n, 8) for n in (20, 9, 2))
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask, position_ids, token_type_ids):
        x = self.norm(self.words(input_ids) + self.positions(position_ids) + self.types(token_type_ids))
        n, t, _ = x.shape
        q, k, v = (f(x).view(n, t, 2, 4).transpose(1, 2) for f in (self.query, self.key, self.value))
        mask = attention_mask[:, None, None, :]
        if self.kind in FUSED:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=FUSED[self.kind](mask, t))
        else:
            y = MASKED[self.kind](q @ k.transpose(-1, -2) / 2, mask).softmax(-1) @ v
        return self.head((x + y.transpose(1, 2).reshape(n, t, 8))[:, 0])


def encoder(kind="filled"):
    torch.manual_seed(0)
    return Encoder(kind).eval()


IDS = torch.arange(15).reshape(3, 5)
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]])
GIVEN = {
    "attention_mask": MASK,
    "position_ids": torch.arange(5).repeat(3, 1),
    "token_type_ids": (torch.arange(15).reshape(3, 5) % 2),
}


@pytest.mark.parametrize("kind", [*MASKED, *FUSED])
def test_masks(kind):
    """Imported on one mask, the list answers as the module does on others; padding takes nothing."""
    module = encoder(kind)
    layers = dtd.from_torch(module, IDS, **GIVEN)
    assert {record.name for record in layers if isinstance(record, dtd.Given)} == {*GIVEN}
    for mask in (MASK, MASK.flip(0), torch.ones_like(MASK)):
        given = GIVEN | {"attention_mask": mask}
        outputs = dtd.predict(layers, IDS, backend="cpu", **given)
        torch.testing.assert_close(outputs, module(IDS, **given).detach(), rtol=0, atol=1e-5)
        r = dtd.explain(layers, IDS, 1, rules="cp-lrp", backend="cpu", **given)
        assert not r[mask == 0].any()
        assert r[mask == 1].all() or kind == "causal too"  # whose first token sees no other


def test_booleans_and_one_sample():
    module, given = encoder("filled"), GIVEN | {"attention_mask": MASK.bool()}
    dtd.from_torch(module, IDS, **given)
    layers = dtd.from_torch(module, IDS[:1], **{name: tensor[:1] for name, tensor in given.items()})
    torch.testing.assert_close(
        dtd.predict(layers, IDS, backend="cpu", **given), module(IDS, **given).detach(), rtol=0, atol=1e-5
    )


class Weighted(nn.Module):
    """Numbers beside an image: no mask, and not of 0 and 1."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv1d(2, 3, 1), nn.Linear(3, 2)

    def forward(self, x, weights):
        return self.head((self.conv(x).relu() * weights[:, None]).sum(dim=2))


def test_numbers_beside_the_input():
    torch.manual_seed(0)
    module, x, weights = Weighted().eval(), torch.randn(3, 2, 4), torch.rand(3, 4)
    layers = dtd.from_torch(module, x, weights=weights)
    other = torch.rand(3, 4)
    torch.testing.assert_close(
        dtd.predict(layers, x, backend="cpu", weights=other), module(x, other).detach(), rtol=0, atol=1e-5
    )


class Careless(Encoder):
    """Takes any keyword, as the networks of transformers do."""

    def forward(self, input_ids, attention_mask=None, mask=None, **options):
        ones = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return super().forward(input_ids, ones.to(torch.bool), GIVEN["position_ids"], torch.zeros_like(input_ids))


CARELESS = {
    "a keyword that is not read": ((IDS,), {"mask": MASK}, "mask= changes nothing that is explained"),
    "a tokenizer's dict": (({"input_ids": IDS, "attention_mask": MASK},), {},
                           r"example\['input_ids'\], attention_mask=example\['attention_mask'\]"),
    "no example": ((), {"input_ids": IDS}, "by its place, input_ids rather than input_ids="),
    "lists": ((IDS.tolist(),), {}, r"torch.as_tensor\(example\)"),
    "text": (("a film",), {}, "tokenizer"),
    "a mask of floats": ((IDS,), {"attention_mask": MASK.float()}, "give it as integers or booleans"),
}  # fmt: skip


@pytest.mark.parametrize("name", CARELESS)
def test_careless_calls(name):
    """What would be explained silently wrong, or refused without a word on what to pass."""
    arguments, given, words = CARELESS[name]
    torch.manual_seed(0)
    module = Careless("boolean").eval()
    with pytest.raises((dtd.InputError, dtd.ModelError), match=words):
        dtd.from_torch(module, *arguments, **given)


@pytest.mark.parametrize("value", [2, -1e4, 0.5])
def test_masks_of_other_numbers(value):
    """They counted as tokens that are kept: an additive mask was read upside down."""
    layers = dtd.from_torch(encoder(), IDS, **GIVEN)
    given = GIVEN | {"attention_mask": torch.where(MASK == 0, value, 1)}
    with pytest.raises(dtd.InputError, match=r"attention_mask holds .* takes it as a mask: expected 1"):
        dtd.explain(layers, IDS, 0, **given)


def test_a_mask_that_only_comparisons_read():
    """x was multiplied with its numbers."""

    class Blank(torch.nn.Module):
        def forward(self, x, mask):
            return torch.where(mask > 0, x, 0.0).sum(1, keepdim=True)

    x, mask = torch.rand(2, 3), torch.ones(2, 3, dtype=torch.int64)
    layers = dtd.from_torch(Blank().eval(), x, mask=mask)
    for value in (2, -1, 0.5):
        with pytest.raises(dtd.InputError, match=r"mask holds .* takes it as a mask: expected 1"):
            dtd.predict(layers, x, mask=mask * value)


REFUSED = {
    "missing": ({"attention_mask": None}, dtd.InputError, "cannot take an example"),
    "unknown": ({"mask": MASK}, dtd.InputError, "unexpected keyword argument 'mask'"),
    "samples": ({"attention_mask": MASK[:1]}, dtd.InputError, r"attention_mask .* \(3, ...\)"),
    "an array": ({"attention_mask": MASK.numpy()}, dtd.InputError, "is a ndarray, expected a torch.Tensor"),
    "other integers": ({"attention_mask": 2 * MASK}, dtd.ModelError, "attention_mask holds other integers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    changes, error, words = REFUSED[name]
    given = {key: value for key, value in (GIVEN | changes).items() if value is not None}
    with pytest.raises(error, match=words):
        dtd.from_torch(encoder(), IDS, **given)


def test_outputs_that_a_mask_leaves_out():
    """They were read without the mask, or ended in an error of the reader's own."""

    class Span(torch.nn.Module):
        def __init__(self, view):
            super().__init__()
            self.words, self.view = torch.nn.Embedding(9, 4), view

        def forward(self, ids, mask):
            scores, mask = self.view(self.words(ids).sum(-1, keepdim=True)), self.view(mask[..., None])
            return scores.masked_fill(mask == 0, -torch.inf)

    for view in (lambda x: x, lambda x: x.squeeze(-1), lambda x: x[..., None]):
        for mask in (MASK, torch.ones_like(MASK)):
            with pytest.raises(dtd.ModelError, match="the model's output: it fills in infinity"):
                dtd.from_torch(Span(view).eval(), torch.zeros_like(MASK), mask=mask)


def test_tensors_beside_tensors():
    """Masks and numbers may be tensors, and the map is one where the words are."""
    layers = dtd.from_torch(encoder(), IDS, **GIVEN)
    expected = dtd.explain(layers, IDS.numpy(), 0, backend="cpu", **{key: t.numpy() for key, t in GIVEN.items()})
    found = dtd.explain(layers, IDS, 0, backend="cpu", **GIVEN)
    assert isinstance(found, torch.Tensor)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=0)


# ------------------------------------------------------------------------------------------- padding, True = ignored

PADDED = ~MASK.bool()
CAUSAL = torch.ones(5, 5, dtype=torch.bool).triu(1)


class Heads(nn.Module):
    """nn.MultiheadAttention; its fused product, or the weights as well."""

    def __init__(self, weights=False, causal=False, tokens_first=False):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=not tokens_first)
        self.weights, self.causal, self.tokens_first = weights, causal, tokens_first

    def forward(self, x, padding):
        x = x.transpose(0, 1) if self.tokens_first else x
        options = {"need_weights": self.weights, "attn_mask": CAUSAL if self.causal else None}
        y = self.attention(x, x, x, key_padding_mask=padding, **options)[0]
        return y.transpose(0, 1) if self.tokens_first else y


class Stack(nn.Module):
    def __init__(self, causal=False, **options):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, **options)
        self.encoder, self.causal = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not options), causal

    def forward(self, x, padding):
        options = {"mask": CAUSAL.float().masked_fill(CAUSAL, -math.inf), "is_causal": True} if self.causal else {}
        return self.encoder(x, src_key_padding_mask=padding, **options)


PADDING = {
    "attention": Heads,
    "attention with weights": lambda: Heads(weights=True),
    "causal attention": lambda: Heads(causal=True),
    "causal attention with weights": lambda: Heads(weights=True, causal=True),
    "tokens first": lambda: Heads(tokens_first=True),
    "encoder": Stack,
    "encoder, norm first": lambda: Stack(norm_first=True),
    "causal encoder": lambda: Stack(causal=True, norm_first=True),
}


@pytest.mark.parametrize("name", PADDING)
def test_padding_that_is_true_where_ignored(name):
    """Imported on one mask, the list answers as the module does on others, where there are words."""
    torch.manual_seed(1)
    module, x = PADDING[name]().eval(), torch.randn(3, 5, 8)
    layers = dtd.from_torch(module, x, padding=PADDED)
    assert next(r.mask is not None for r in layers if isinstance(r, dtd.Softmax)) == ("causal" in name)
    for padded in (PADDED, PADDED.flip(0)):
        outputs = dtd.predict(layers, x, backend="cpu", padding=padded)
        expected = module(x, padded).detach()
        torch.testing.assert_close(outputs[~padded], expected[~padded], rtol=0, atol=1e-5)
        start = outputs * ~padded[..., None]
        r = dtd.explain(layers, x, start, rules="cp-lrp", backend="cpu", padding=padded)
        assert not r[padded].any()
        assert r[~padded].any(dim=-1).all()


class Chosen(nn.Module):
    """By the mask one of two computed tensors."""

    def __init__(self):
        super().__init__()
        self.kept, self.ignored = nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x, padding):
        return torch.where(padding[..., None], self.ignored(x), self.kept(x))


def test_one_of_two_computed_tensors():
    torch.manual_seed(2)
    module, x = Chosen().eval(), torch.randn(3, 5, 8, requires_grad=True)
    layers = dtd.from_torch(module, x, padding=PADDED)
    for padded in (PADDED, PADDED.flip(0)):
        y = module(x, padded)
        torch.testing.assert_close(dtd.predict(layers, x, padding=padded), y.detach(), rtol=0, atol=1e-5)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        r = dtd.explain(layers, x, y.detach(), rules="cp-lrp", padding=padded)
        torch.testing.assert_close(r, (x * gradient).detach(), rtol=0, atol=1e-4)


class Built(nn.Module):
    """A sum of a learned table of 0 and −∞ with the mask's: no scores between them."""

    def __init__(self, low=-math.inf):
        super().__init__()
        self.low = low

    def forward(self, x, mask):
        hidden = torch.where(mask.bool(), 0.0, -math.inf)[:, None, :]
        table = torch.zeros(5, 5).masked_fill(CAUSAL, self.low)
        return (x @ x.mT + (table + hidden)).softmax(-1) @ x


def test_masks_written_as_numbers():
    torch.manual_seed(0)
    module, x = Built().eval(), torch.randn(3, 5, 4)
    layers = dtd.from_torch(module, x, mask=MASK)
    assert [type(record) for record in layers] == [dtd.Given, dtd.MatMul, dtd.Reshape, dtd.Softmax, dtd.MatMul]
    torch.testing.assert_close(dtd.predict(layers, x, backend="cpu", mask=MASK), module(x, MASK), rtol=0, atol=1e-5)
    with pytest.raises(dtd.ModelError, match="adds numbers to a mask of 0 and −∞"):
        dtd.from_torch(Built(-1.0).eval(), x, mask=MASK)


# --------------------------------------------------------------------------------------------------- of `transformers`


def network(kind, attention):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    options = {"vocab_size": 20, "attn_implementation": attention}
    makers = {
        "BERT": lambda: transformers.BertForSequenceClassification(transformers.BertConfig(**sizes, **options)),
        "GPT-2": lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                n_embd=8, n_layer=1, n_head=2, n_positions=9, bos_token_id=0, eos_token_id=0, use_cache=False, **options
            )
        ),
        "Llama": lambda: transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**sizes, num_key_value_heads=1, use_cache=False, **options)
        ),
    }
    torch.manual_seed(0)
    return makers[kind]().eval()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["BERT", "GPT-2", "Llama"])
def test_masks_of_transformers(kind, attention):
    """The library's own attention_mask, whatever it makes of it inside."""
    module = network(kind, attention)
    layers = dtd.from_torch(module, IDS, attention_mask=MASK, output="logits")
    for mask in (MASK, torch.ones_like(MASK)):
        outputs = dtd.predict(layers, IDS, backend="cpu", attention_mask=mask)
        expected = module(IDS, attention_mask=mask).logits.detach()
        real = mask.bool() if expected.ndim == 3 else slice(None)
        torch.testing.assert_close(outputs[real], expected[real], rtol=0, atol=1e-5)


class Picked(nn.Module):
    def forward(self, x, mask):
        return x * mask[torch.tensor([0, 1, 2])[:, None], torch.tensor([[0, 1], [1, 0], [0, 0]])]


def test_elements_of_a_mask_that_differ_from_sample_to_sample():
    with pytest.raises(dtd.ModelError, match="takes other elements of a mask"):
        dtd.from_torch(Picked().eval(), torch.randn(3, 2), mask=MASK)
