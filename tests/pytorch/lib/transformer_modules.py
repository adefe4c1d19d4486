"""Tiny transformers as PyTorch modules with random weights, each written as its kind is found in the wild."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, WORDS = 16, 2, 11


class Block(nn.Module):
    """Attention and an MLP behind norms; `fused` takes PyTorch's scaled dot-product attention."""

    def __init__(self, fused: bool, causal: bool, activation: nn.Module) -> None:
        super().__init__()
        self.norm, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 24), activation, nn.Linear(24, WIDTH))
        self.fused, self.causal = fused, causal

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, t, 3, HEADS, d // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            made = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            scores = (q * (d // HEADS) ** -0.5) @ k.transpose(-2, -1)
            if self.causal:
                later = torch.ones(t, t, dtype=torch.bool).triu(1)
                scores = scores.masked_fill(later, float("-inf"))
            made = scores.softmax(-1) @ v
        x = x + self.out(made.transpose(1, 2).reshape(n, t, d))
        return x + self.mlp(self.second(x))


class ViT(nn.Module):
    """Patches, a class token, positions."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, WIDTH)), nn.Parameter(torch.randn(1, 10, WIDTH))
        self.blocks = nn.Sequential(*(Block(fused, False, nn.GELU()) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(WIDTH, eps=1e-6), nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


class TanhGELU(nn.Module):
    """As GPT-2 writes it."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


class GPT(nn.Module):
    """Words and positions, causal blocks, a score for every word after every token."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(9, WIDTH)
        self.blocks = nn.Sequential(*(Block(fused, True, TanhGELU()) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        return self.head(self.norm(self.blocks(x)))


class BERT(nn.Module):
    """Norms behind the sums, a mask of ones made from the ids, and a pooler."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.types = (nn.Embedding(k, WIDTH) for k in (WORDS, 9, 2))
        self.norm, self.second, self.third = (nn.LayerNorm(WIDTH, eps=1e-12) for _ in range(3))
        self.q, self.k, self.v, self.out, self.pool = (nn.Linear(WIDTH, WIDTH) for _ in range(5))
        self.wide, self.narrow, self.head = nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, ids: Tensor) -> Tensor:
        n, t = ids.shape
        x = self.words(ids) + self.types(torch.zeros_like(ids)) + self.places(torch.arange(t).unsqueeze(0))
        x = self.norm(x)
        mask = torch.ones_like(ids)[:, None, None, :].to(x.dtype)
        mask = (1.0 - mask) * torch.finfo(x.dtype).min
        q, k, v = (part(x).view(n, t, HEADS, -1).permute(0, 2, 1, 3) for part in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS) + mask
        made = (scores.softmax(-1) @ v).permute(0, 2, 1, 3).contiguous().view(n, t, -1)
        x = self.second(x + self.out(made))
        x = self.third(x + self.narrow(F.gelu(self.wide(x))))
        return self.head(torch.tanh(self.pool(x[:, 0])))


class RMSNorm(nn.Module):
    """As Llama writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(WIDTH) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        variance = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + 1e-6))


def turned_half(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)


class Llama(nn.Module):
    """RMSNorm, rotary positions, two queries for each key, SwiGLU."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS, bias=False)
        self.norms = nn.ModuleList(RMSNorm() for _ in range(3))
        self.q, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
        self.k, self.v = (nn.Linear(WIDTH, WIDTH // 2, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(WIDTH, 24, bias=False) for _ in range(2))
        self.down, self.fused = nn.Linear(24, WIDTH, bias=False), fused
        self.register_buffer("speeds", 1 / 10000 ** (torch.arange(0, 4, 2) / 4))

    def forward(self, ids: Tensor) -> Tensor:
        n, t = ids.shape
        x = self.words(ids)
        h = self.norms[0](x)
        q, k, v = (part(h).view(n, t, -1, 4).transpose(1, 2) for part in (self.q, self.k, self.v))
        angles = (self.speeds[None, :, None] @ torch.arange(t)[None, None, :].float()).transpose(1, 2)
        angles = torch.cat((angles, angles), -1)
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        q, k = q * cos + turned_half(q) * sin, k * cos + turned_half(k) * sin
        k, v = (part[:, :, None].expand(n, 2, 2, t, 4).reshape(n, 4, t, 4) for part in (k, v))
        if self.fused:
            made = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(2, 3) * 0.5
            later = torch.full((t, t), torch.finfo(scores.dtype).min).triu(1)
            made = F.softmax(scores + later[None, None], -1, dtype=torch.float32) @ v
        x = x + self.out(made.transpose(1, 2).reshape(n, t, -1))
        h = self.norms[1](x)
        x = x + self.down(F.silu(self.gate(h)) * self.up(h))
        return self.head(self.norms[2](x))


class Encoder(nn.Module):
    """PyTorch's own encoder; its module computes tokens first where it is not told otherwise."""

    def __init__(self, batch_first: bool, norm_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 24, 0.0, activation="gelu", batch_first=batch_first, norm_first=norm_first
        )
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(WIDTH, 3)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1) if self.batch_first else self.encoder(x.transpose(0, 1)).mean(0))


class Attention(nn.Module):
    """nn.MultiheadAttention; with its weights it merges samples and heads into one axis."""

    def __init__(self, weights: bool) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True), nn.Linear(WIDTH, 3)
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x, need_weights=self.weights)[0][:, -1])


def windows(x: Tensor, size: int) -> Tensor:
    """(n, h, w, c) to (n · windows, size², c)."""
    n, h, w, c = x.shape
    return x.view(n, h // size, size, w // size, size, c).permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, size**2, c)


class Swin(nn.Module):
    """Shifted windows with a table of relative places, a merge of patches."""

    def __init__(self, size: int = 4, shift: int = 2, width: int = 8) -> None:
        super().__init__()
        self.patches, self.qkv, self.out = (
            nn.Conv2d(3, width, 2, 2),
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(k) for k in (width, width, 4 * width))
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.merge, self.head = nn.Linear(4 * width, 2 * width, bias=False), nn.Linear(2 * width, 3)
        self.size, self.shift, self.table = size, shift, nn.Parameter(torch.randn((2 * size - 1) ** 2, HEADS))
        places = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).flatten(1)
        apart = (places[:, :, None] - places[:, None]).permute(1, 2, 0) + size - 1
        self.register_buffer("index", apart[..., 0] * (2 * size - 1) + apart[..., 1])
        region = torch.zeros(1, 2 * size, 2 * size, 1)
        cuts = (slice(0, -size), slice(-size, -shift), slice(-shift, None))
        for number, (rows, columns) in enumerate((r, c) for r in cuts for c in cuts):
            region[:, rows, columns] = number
        held = windows(region, size).squeeze(-1)
        self.register_buffer("mask", torch.where(held[:, None] != held[:, :, None], -100.0, 0.0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        parts = windows(torch.roll(self.norms[0](x), (-self.shift, -self.shift), (1, 2)), self.size)
        rows, t, _ = parts.shape
        q, k, v = self.qkv(parts).reshape(rows, t, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
        near = self.table[self.index.view(-1)].view(t, t, -1).permute(2, 0, 1).contiguous()
        scores = q * (c // HEADS) ** -0.5 @ k.transpose(-2, -1) + near.unsqueeze(0)
        count = len(self.mask)
        scores = scores.view(rows // count, count, HEADS, t, t) + self.mask.unsqueeze(1).unsqueeze(0)
        made = scores.view(-1, HEADS, t, t).softmax(-1) @ v
        made = self.out(made.transpose(1, 2).reshape(rows, t, c))
        made = made.view(n, h // self.size, w // self.size, self.size, self.size, c)
        made = made.permute(0, 1, 3, 2, 4, 5).contiguous().view(n, h, w, c)
        x = x + torch.roll(made, (self.shift, self.shift), (1, 2))
        x = x + self.mlp(self.norms[1](x))
        x = torch.cat([x[:, a::2, b::2] for b in (0, 1) for a in (0, 1)], -1)
        return self.head(self.merge(self.norms[2](x)).mean((1, 2)))


class ChannelNorm(nn.Module):
    """A LayerNorm of channels first, written out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(width) + 0.5), nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class ConvNeXt(nn.Module):
    """A depthwise convolution between norms, with a GroupNorm behind."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, width, 4, 4), ChannelNorm(width)
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1, groups=width), nn.LayerNorm(width, eps=1e-6)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale, self.groups = nn.Parameter(torch.rand(width)), nn.GroupNorm(2, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x))
        made = self.narrow(F.gelu(self.wide(self.norm(self.conv(x).permute(0, 2, 3, 1))))) * self.scale
        return self.head(self.groups(x + made.permute(0, 3, 1, 2)).mean((-2, -1)))


@dataclass(frozen=True)
class Case:
    """A kind of module and a sample of its input."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    words: bool = False

    def module(self) -> nn.Module:
        torch.manual_seed(0)
        module = self.make().eval()
        for parameter in module.parameters():
            if parameter.ndim == 1:  # factors and biases, which PyTorch makes 1 and 0
                parameter.data += 0.1 * torch.randn_like(parameter)
        return module

    def sample(self, n: int = 2) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        if self.words:
            return torch.randint(WORDS, (n, *self.shape), generator=generator)
        return torch.randn((n, *self.shape), generator=generator)


CASES = {
    "ViT": Case(partial(ViT, fused=True), (3, 12, 12)),
    "ViT by products": Case(partial(ViT, fused=False), (3, 12, 12)),
    "GPT-2": Case(partial(GPT, fused=True), (7,), words=True),
    "GPT-2 by products": Case(partial(GPT, fused=False), (7,), words=True),
    "BERT": Case(BERT, (7,), words=True),
    "Llama": Case(partial(Llama, fused=True), (7,), words=True),
    "Llama by products": Case(partial(Llama, fused=False), (7,), words=True),
    "encoder": Case(partial(Encoder, batch_first=True, norm_first=False), (6, WIDTH)),
    "encoder, norms first": Case(partial(Encoder, batch_first=True, norm_first=True), (6, WIDTH)),
    "encoder, tokens first": Case(partial(Encoder, batch_first=False, norm_first=False), (6, WIDTH)),
    "attention": Case(partial(Attention, weights=False), (6, WIDTH)),
    "attention with weights": Case(partial(Attention, weights=True), (6, WIDTH)),
    "Swin": Case(Swin, (3, 16, 16)),
    "ConvNeXt": Case(ConvNeXt, (3, 16, 16)),
}
