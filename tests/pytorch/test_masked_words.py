"""What modules make of several words by a mask: means, sums, the largest; and words that a mask fills in."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import dtdfast as dtd

IDS = torch.arange(15).reshape(3, 5)
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]])

MEANS = {  # tokens (n, t, d), a mask (n, t) → (n, d)
    "as sentence-transformers has it": lambda x, m: (
        (x * m.unsqueeze(-1).expand(x.shape).float()).sum(1)
        / torch.clamp(m.unsqueeze(-1).expand(x.shape).float().sum(1), min=1e-9)
    ),
    "by integers": lambda x, m: (x * m[..., None]).sum(1) / m.sum(1, keepdim=True),
    "filled with zeros": lambda x, m: x.masked_fill(m[..., None] == 0, 0.0).sum(1) / m.sum(-1)[:, None],
    "weights first": lambda x, m: (x * (m / m.sum(1, keepdim=True))[..., None]).sum(1),
    "at least one": lambda x, m: (x * m[..., None]).sum(1) / m.sum(1, keepdim=True).clamp(min=1),
    "a product": lambda x, m: ((m / m.sum(1, keepdim=True))[:, None, :] @ x)[:, 0],
}


def put(x, where, numbers):
    x = x.clone()
    x[where] = numbers
    return x


LARGEST = {  # the same of the largest, and of sums
    "filled with −∞": lambda x, m: x.masked_fill(m[..., None] == 0, -math.inf).max(1)[0],
    "a table of low numbers": lambda x, m: torch.where(m[..., None] > 0, x, torch.full_like(x, -1e4)).amax(1),
    "−∞ for a fixed word too": lambda x, m: (
        x.masked_fill(torch.arange(5)[:, None] == 1, -math.inf).masked_fill(m[..., None] == 0, -1e9).amax(1)
    ),
    "low numbers put in": lambda x, m: put(x, m == 0, -1e9).amax(1),
    "zeros put in": lambda x, m: put(x, ~m.bool(), 0.0).sum(1),
    "a word put in": lambda x, m: put(x, m == 0, torch.arange(8.0)).sum(1),
    "ones filled in": lambda x, m: x.masked_fill(m[..., None] == 0, 1.0).sum(1),
    "another word for each": lambda x, m: torch.where(m[..., None] > 0, x, torch.arange(40.0).view(5, 8)).sum(1),
    "pairs of words": lambda x, m: (
        (x @ x.mT + torch.full((5, 5), -math.inf).triu(1)).masked_fill(
            (m[:, None] * m[:, :, None] * torch.ones(5, 5, dtype=torch.long)) == 0, -1e9).softmax(-1) @ x * m[..., None]
    ).sum(1),
}  # fmt: skip


class OfWords(nn.Module):
    def __init__(self, made):
        super().__init__()
        self.words, self.made = nn.Embedding(20, 8), made

    def forward(self, ids, mask):
        return self.made(self.words(ids), mask)


@pytest.mark.parametrize("kind", LARGEST)
def test_the_largest_of_words_and_words_filled_in(kind):
    torch.manual_seed(0)
    module = OfWords(LARGEST[kind]).eval()
    layers = dtd.from_torch(module, IDS, mask=torch.ones_like(MASK))
    for mask in (MASK, torch.ones_like(MASK)):
        outputs, expected = dtd.predict(layers, IDS, backend="oracle", mask=mask), module(IDS, mask).detach()
        torch.testing.assert_close(outputs.float(), expected, rtol=0, atol=1e-5)
        explainer = dtd.Explainer(layers, rules="attnlrp", backend="oracle")
        assert not explainer.explain(IDS, 0, mask=mask)[mask == 0].any()
        assert explainer.ledger(IDS, 0, mask=mask).closed


@pytest.mark.parametrize("kind", MEANS)
def test_the_mean_of_words(kind):
    torch.manual_seed(0)
    module = OfWords(MEANS[kind]).eval()
    layers = dtd.from_torch(module, IDS, mask=MASK)
    for mask in (MASK, MASK.flip(1), torch.ones_like(MASK)):
        outputs, expected = dtd.predict(layers, IDS, backend="oracle", mask=mask), module(IDS, mask).detach()
        torch.testing.assert_close(outputs.float(), expected, rtol=0, atol=1e-6)
        for rules in ("cp-lrp", "attnlrp", "dtd"):
            start = torch.ones_like(outputs) if rules == "dtd" else outputs
            explainer = dtd.Explainer(layers, rules=rules, backend="oracle")
            r = explainer.explain(IDS, start, mask=mask)
            assert not r[mask == 0].any()
            if rules != "dtd":  # every word gives its vector's part of the mean
                parts = (module.words.weight.detach()[IDS].sum(-1) * mask).double() / mask.sum(1, keepdim=True)
                torch.testing.assert_close(r, parts, rtol=0, atol=1e-5)
            assert explainer.ledger(IDS, start, mask=mask).closed


def test_a_divisor_that_is_no_count():
    class Weighted(nn.Module):
        def forward(self, x, weights):
            return (x * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)

    x = torch.randn(3, 5, 2)
    with pytest.raises(dtd.ModelError, match="only a division by constants"):
        dtd.from_torch(Weighted().eval(), x, weights=torch.rand(3, 5))
    dtd.from_torch(Weighted().eval(), x, weights=MASK)
