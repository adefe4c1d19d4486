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


REFUSED = {
    "missing": ({"attention_mask": None}, dtd.InputError, "cannot take an example"),
    "unknown": ({"mask": MASK}, dtd.InputError, "unexpected keyword argument 'mask'"),
    "samples": ({"attention_mask": MASK[:1]}, dtd.InputError, r"attention_mask .* \(3, ...\)"),
    "an array": ({"attention_mask": MASK.numpy()}, dtd.InputError, "attention_mask is no torch.Tensor"),
    "other integers": ({"attention_mask": 2 * MASK}, dtd.ModelError, "attention_mask holds other integers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    changes, error, words = REFUSED[name]
    given = {key: value for key, value in (GIVEN | changes).items() if value is not None}
    with pytest.raises(error, match=words):
        dtd.from_torch(encoder(), IDS, **given)


class Compared(nn.Module):
    def forward(self, x, mask):
        return x.masked_fill(mask == 0, 1.0).softmax(-1) * x


def test_a_fill_that_is_not_low():
    with pytest.raises(dtd.ModelError, match="at most -10000"):
        dtd.from_torch(Compared().eval(), torch.randn(2, 3), mask=torch.tensor([[1, 0, 1], [1, 1, 0]]))


def test_tensors_beside_tensors():
    """Masks and numbers may be tensors, and the map is one where the words are."""
    layers = dtd.from_torch(encoder(), IDS, **GIVEN)
    expected = dtd.explain(layers, IDS.numpy(), 0, backend="cpu", **{key: t.numpy() for key, t in GIVEN.items()})
    found = dtd.explain(layers, IDS, 0, backend="cpu", **GIVEN)
    assert isinstance(found, torch.Tensor)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=0)
