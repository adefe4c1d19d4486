"""Transformers as people write them in PyTorch, with the weights of a layer list, and what explains them there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

import dtdfast as dtd
from machine import threads
from nets import Net

Array = NDArray[Any]
Explain = Callable[[Array, int], Array]

GAMMA = 0.25


class Block(nn.Module):
    """Attention by one fused call, and an MLP; norms before them (ViT) or behind them (BERT)."""

    def __init__(self, records: Iterator[dtd.Layer], heads: int, *, before: bool) -> None:
        super().__init__()
        self.heads, self.before = heads, before
        kinds = (norm, linear, linear, linear, linear, norm, linear, linear)
        order = kinds if before else (linear, linear, linear, linear, norm, linear, linear, norm)
        made = [make(records) for make in order]
        if before:
            self.first, self.q, self.k, self.v, self.out, self.second, self.up, self.down = made
        else:
            self.q, self.k, self.v, self.out, self.first, self.up, self.down, self.second = made

    def attend(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = (m(x).reshape(n, tokens, self.heads, -1).transpose(1, 2) for m in (self.q, self.k, self.v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width))

    def mlp(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))

    def forward(self, x: Tensor) -> Tensor:
        if self.before:
            x = x + self.attend(self.first(x))
            return x + self.mlp(self.second(x))
        x = self.first(x + self.attend(x))
        return self.second(x + self.mlp(x))


class ViT(nn.Module):
    """A class token, learned positions, and blocks with norms before attention and MLP."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        records: Iterator[Any] = iter(
            [r for r in net.layers if isinstance(r, (dtd.Conv, dtd.Constant, dtd.Linear, dtd.LayerNorm))]
        )
        conv = next(records)
        self.patches = nn.Conv2d(3, conv.weight.shape[0], conv.weight.shape[2], stride=conv.weight.shape[2])
        fill(self.patches, conv)
        self.token, self.positions = (nn.Parameter(torch.tensor(next(records).value)) for _ in range(2))
        depth = sum(isinstance(r, dtd.Softmax) for r in net.layers)
        self.blocks = nn.Sequential(*(Block(records, self.token.shape[1] // 64, before=True) for _ in range(depth)))
        self.norm, self.head = norm(records), linear(records)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class Bert(nn.Module):
    """From word vectors on: their gradient is asked for."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        wanted = (dtd.Embedding, dtd.Constant, dtd.Linear, dtd.LayerNorm)
        records: Iterator[Any] = iter([r for r in net.layers if isinstance(r, wanted)])
        self.words = nn.Parameter(torch.tensor(next(records).weight))
        self.positions = nn.Parameter(torch.tensor(next(records).value))
        self.norm = norm(records)
        depth = sum(isinstance(r, dtd.Softmax) for r in net.layers)
        self.blocks = nn.Sequential(*(Block(records, self.words.shape[1] // 64, before=False) for _ in range(depth)))
        self.pooler, self.head = linear(records), linear(records)

    def embed(self, ids: Tensor) -> Tensor:
        return self.words[ids]

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.norm(x + self.positions))
        return self.head(torch.tanh(self.pooler(x[:, 0])))


def fill(module: Any, record: Any) -> nn.Module:
    with torch.no_grad():
        module.weight.copy_(torch.tensor(record.weight))
        module.bias.copy_(torch.tensor(record.bias))
    return module


def linear(records: Iterator[Any]) -> nn.Module:
    record = next(records)
    return fill(nn.Linear(*record.weight.shape[::-1]), record)


def norm(records: Iterator[Any]) -> nn.Module:
    record = next(records)
    return fill(nn.LayerNorm(record.weight.shape[0], record.eps), record)


def module_of(net: Net) -> Any:
    module = (ViT if net.n_words is None else Bert)(net)
    return module.eval().requires_grad_(False)


def given(module: Any, x: Array) -> Tensor:
    """What the module reads: images, or the vectors of words."""
    return module.embed(torch.from_numpy(x)) if isinstance(module, Bert) else torch.from_numpy(x)


def forward(net: Net) -> Explain:
    module = module_of(net)

    def run(x: Array, target: int) -> Array:
        with torch.no_grad():
            return module(given(module, x)).numpy()

    return run


def _through(module: Any, x: Array, target: int) -> Array:
    read = given(module, x).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(module(read)[:, target].sum(), read)
    product = (read * gradient).detach()
    return (product.sum(-1) if isinstance(module, Bert) else product).numpy()


def gradient_times_input(net: Net) -> Explain:
    return partial(_through, module_of(net))


def zennit(net: Net) -> Explain:
    """γ on every Linear and Conv, the gradient elsewhere, as LXT is used on ViTs."""
    from peers import _stand_in_for_torchvision

    _stand_in_for_torchvision()
    from zennit.core import Composite
    from zennit.rules import Gamma

    module = module_of(net)

    def choose(ctx: object, name: str, part: nn.Module) -> object:
        return Gamma(GAMMA) if isinstance(part, (nn.Linear, nn.Conv2d)) else None

    Composite(module_map=choose).register(module)
    return partial(_through, module)


def autolrp(net: Net, preset: str) -> Explain:
    import autolrp as tool

    module = module_of(net)
    config = tool.LRPConfig(rule={**tool.BASE, **getattr(tool, preset)})

    def run(x: Array, target: int) -> Array:
        maps = []
        for one in range(len(x)):  # a scalar output each
            read = tool.tensor(given(module, x[one : one + 1]))
            module(read)[0, target].lrp(config=config)
            maps.append(read.relevance.detach())
        found = torch.cat(maps)
        return (found.sum(-1) if isinstance(module, Bert) else found).numpy()

    return run


def ours(net: Net, rules: Any, attention: str | None = None) -> Explain:
    explainer = dtd.Explainer(net.layers, rules=rules, attention=attention, backend="cpu", n_threads=threads())
    return lambda x, target: explainer.explain(x, target)


def ours_forward(net: Net) -> Explain:
    explainer = dtd.Explainer(net.layers, backend="cpu", n_threads=threads())
    return lambda x, target: explainer.predict(x)


TOOLS: dict[str, Callable[[Net], Explain]] = {
    "dtdfast cp-lrp": partial(ours, rules="cp-lrp"),
    "dtdfast attnlrp": partial(ours, rules="attnlrp"),
    "dtdfast γ": partial(ours, rules=dtd.Gamma(GAMMA)),
    "dtdfast dtd": partial(ours, rules="dtd"),
    "dtdfast forward": ours_forward,
    "PyTorch forward": forward,
    "gradient × input": gradient_times_input,
    "zennit γ": zennit,
    "autoLRP CP-LRP": partial(autolrp, preset="CPLRP"),
    "autoLRP AttnLRP": partial(autolrp, preset="ATTNLRP"),
}
