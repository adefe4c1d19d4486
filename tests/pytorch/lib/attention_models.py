"""Transformers, small and with random weights: PyTorch's own encoder, torchvision's, and those of `transformers`, which
are built offline from their configurations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

WORDS = 31


class Only(nn.Module):
    """One output of a network that returns several, called with constants besides its input."""

    def __init__(self, network: nn.Module, output: str, **constants: Any) -> None:
        super().__init__()
        self.network, self.output, self.constants = network, output, constants

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x, **self.constants)[self.output]


class Encoder(nn.Module):
    """nn.TransformerEncoder between an embedding of words and the mean over the tokens."""

    def __init__(self, *, batch_first: bool = True, causal: bool = False, **options: Any) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=batch_first, **options)
        self.words, self.positions = nn.Embedding(WORDS, 16), nn.Parameter(torch.randn(7, 16))
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(16), enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)
        self.batch_first, self.causal = batch_first, causal

    def forward(self, ids: Tensor) -> Tensor:
        h = self.words(ids) + self.positions[: ids.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1], dtype=h.dtype) if self.causal else None
        h = h if self.batch_first else h.transpose(0, 1)
        h = self.encoder(h, mask, is_causal=self.causal)
        return self.head(h.mean(1 if self.batch_first else 0))


class Attended(nn.Module):
    """nn.MultiheadAttention by itself, with or without the weights that it returns."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True, add_bias_kv=options.pop("add_bias_kv", False))
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x.flip(1), 2 * x, **self.options)[0]


@dataclass(frozen=True)
class Case:
    """A network and what it reads.

    Attributes
    ----------
    make : of the network
    shape : of its input
    words : whether that holds words
    gates : activations that make the gate of a product
    rtol : of its outputs; more where the network itself computes in float32
    held : whether its held gradient is written easily
    needs : the package that defines it
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    words: bool = False
    gates: tuple[str, ...] = ()
    rtol: float = 1e-9
    held: bool = True
    needs: str = ""

    def module(self) -> nn.Module:
        """With random numbers in what starts as zeros or ones, in float64."""
        torch.manual_seed(0)
        module = self.make().eval().double().requires_grad_(False)
        for value in module.parameters():
            value += 0.05 * torch.randn_like(value)
        return module

    def sample(self) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        if self.words:
            return torch.randint(0, WORDS, self.shape, generator=generator)
        return torch.randn(self.shape, generator=generator, dtype=torch.float64)


def _torchvision(kind: str, **options: Any) -> Case:
    def make() -> nn.Module:
        import torchvision.models as tv

        if kind == "vit":
            return tv.VisionTransformer(32, 8, 2, 4, 32, 48, num_classes=5)
        if kind == "convnext":
            blocks = [tv.convnext.CNBlockConfig(8, 16, 2), tv.convnext.CNBlockConfig(16, None, 2)]
            return tv.ConvNeXt(blocks, num_classes=5)
        second = {}
        if options.pop("second", False):
            second = {
                "block": tv.swin_transformer.SwinTransformerBlockV2,
                "downsample_layer": tv.swin_transformer.PatchMergingV2,
            }
        window = [options.get("window", 4)] * 2
        return tv.SwinTransformer([4, 4], 16, [2, 2], [2, 4], window, num_classes=5, **second)

    return Case(make, (2, 3, 32, 32))


def _transformers(
    family: str, kind: str, output: str = "logits", constants: dict[str, Any] | None = None,
    implementation: str = "sdpa", options: dict[str, Any] | None = None, shape: tuple[int, ...] = (2, 7), **config: Any,
) -> Case:  # fmt: skip
    def make() -> nn.Module:
        import transformers

        configuration = getattr(transformers, f"{family}Config")(**config)
        configuration.use_cache = False
        configuration._attn_implementation = implementation
        network = getattr(transformers, kind, None)
        if network is None:  # a part without a name of its own
            from transformers.models.whisper import modeling_whisper

            network = getattr(modeling_whisper, kind)
        return Only(network(configuration), output, **(constants or {}))

    return Case(make, shape, len(shape) == 2, needs="transformers", **(options or {}))


SMALL: dict[str, Any] = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, vocab_size=WORDS, pad_token_id=0,
    bos_token_id=1, eos_token_id=2,
)  # fmt: skip
IMAGE: dict[str, Any] = dict(
    shape=(2, 3, 32, 32), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
    image_size=32, patch_size=8,
)  # fmt: skip
LLAMA: dict[str, Any] = SMALL | dict(num_key_value_heads=2, options=dict(gates=("silu",), rtol=1e-5))
GPT2 = dict(n_embd=32, n_layer=2, n_head=4, vocab_size=WORDS, bos_token_id=1, eos_token_id=2)
WHISPER: dict[str, Any] = dict(
    shape=(2, 8, 12), d_model=16, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=24, num_mel_bins=8,
    max_source_positions=6,
)  # fmt: skip

CASES: dict[str, Case] = {
    "encoder": Case(Encoder, (2, 7), words=True),
    "encoder, norms first": Case(lambda: Encoder(norm_first=True, activation="gelu"), (2, 7), words=True),
    "encoder, causal": Case(lambda: Encoder(causal=True), (2, 7), words=True),
    "encoder, time first": Case(lambda: Encoder(batch_first=False), (2, 7), words=True),
    "attention": Case(Attended, (2, 7, 16)),
    "attention without weights": Case(lambda: Attended(need_weights=False), (2, 7, 16)),
    "attention, a weight for each head": Case(lambda: Attended(average_attn_weights=False), (2, 7, 16)),
    "attention, keys of its own": Case(lambda: Attended(add_bias_kv=True), (2, 7, 16)),
    "attention, masked": Case(lambda: Attended(attn_mask=torch.ones(7, 7).triu(1).bool()), (2, 7, 16)),
    "vit": _torchvision("vit"),
    "swin": _torchvision("swin"),
    "swin, padded windows": _torchvision("swin", window=3),
    "swin v2": _torchvision("swin", second=True),
    "convnext": _torchvision("convnext"),
    "ViT": _transformers("ViT", "ViTForImageClassification", **IMAGE),
    "DeiT, distilled": _transformers("DeiT", "DeiTForImageClassificationWithTeacher", **IMAGE),
    "BERT": _transformers("Bert", "BertForSequenceClassification", **SMALL),
    "BERT, plain attention": _transformers(
        "Bert", "BertForSequenceClassification", implementation="eager", **SMALL, options=dict(rtol=1e-5)),
    "DistilBERT": _transformers(
        "DistilBert", "DistilBertForSequenceClassification", dim=32, n_layers=2, n_heads=4, hidden_dim=48,
        vocab_size=WORDS),
    "RoBERTa": _transformers(
        "Roberta", "RobertaForSequenceClassification", constants={"position_ids": torch.arange(1, 8)[None]}, **SMALL),
    "GPT-2": _transformers("GPT2", "GPT2LMHeadModel", activation_function="gelu_pytorch_tanh", **GPT2),
    "GPT-2, plain attention and a GELU written out": _transformers(
        "GPT2", "GPT2LMHeadModel", implementation="eager", **GPT2, options=dict(rtol=1e-5, held=False)),
    "Llama": _transformers("Llama", "LlamaForCausalLM", **LLAMA),
    "Mistral": _transformers("Mistral", "MistralForCausalLM", sliding_window=3, **LLAMA),
    "Whisper": _transformers("Whisper", "WhisperEncoder", "last_hidden_state", **WHISPER),
}  # fmt: skip
